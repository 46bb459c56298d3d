//! Who has changed what, and who has had whole numbers shown.
//!
//! Invariant: a change and its row are written together or not at all, where both are rows.

use std::fmt;

use serde_json::Value;
use uuid::Uuid;

use crate::{
    api::{ApiKey, RequestId},
    campaign::Name,
    record::{Sql, Writing, unix_millis_i64},
};

/// What the entries of changes are made in that are made once.
const ONCE: Uuid = Uuid::from_u128(0x1f0e_63a2_5c7d_4e19_9b84_d0a1_77c6_2be5);

/// What can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    CreateKey,
    RevokeKey,
    DeleteRecords,
    PlaceCall,
    HangUp,
    ResendEvent,
    /// Numbers were looked at as they are kept.
    ShowNumbers,
    StopIntake,
    ResumeIntake,
    Drain,
    /// A browser may call.
    MakeWebToken,
}

/// One change, and who makes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    entry: Uuid,
    /// When it is made, in Unix milliseconds.
    at: i64,
    actor: String,
    tenant: Option<String>,
    action: Action,
    target: String,
    request_id: Option<String>,
    was: Option<Value>,
    became: Option<Value>,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateKey => "keys.create",
            Self::RevokeKey => "keys.revoke",
            Self::DeleteRecords => "records.delete",
            Self::PlaceCall => "calls.create",
            Self::HangUp => "calls.hang_up",
            Self::ResendEvent => "events.resend",
            Self::ShowNumbers => "numbers.show",
            Self::StopIntake => "intake.stop",
            Self::ResumeIntake => "intake.resume",
            Self::Drain => "replica.drain",
            Self::MakeWebToken => "web_tokens.create",
        }
    }
}

/// As the log has it.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (actor, action, target) = (&self.actor, self.action.as_str(), &self.target);
        write!(f, "{actor} {action} {target}")
    }
}

impl Change {
    /// By a program that has shown its key. `target` names no person: a number in it is masked.
    pub fn by_key(key: &ApiKey, request: &RequestId, action: Action, target: &str) -> Self {
        Self {
            actor: format!("key:{}", key.id()),
            tenant: Some(key.tenant().as_str().to_owned()),
            request_id: Some(request.as_str().to_owned()),
            ..Self::by_operator(action, target)
        }
    }

    /// By whoever may use the commands.
    pub fn by_operator(action: Action, target: &str) -> Self {
        Self {
            entry: Uuid::now_v7(),
            at: unix_millis_i64(),
            actor: "operator".to_owned(),
            tenant: None,
            action,
            target: target.to_owned(),
            request_id: None,
            was: None,
            became: None,
        }
    }

    /// By an operator who is known by more than that.
    pub fn by_actor(actor: String, action: Action, target: &str) -> Self {
        Self {
            actor,
            ..Self::by_operator(action, target)
        }
    }

    pub fn of(mut self, tenant: &Name) -> Self {
        self.tenant = Some(tenant.to_string());
        self
    }

    /// Says what is changed, once it has a name.
    pub fn about(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    pub fn was(mut self, was: Value) -> Self {
        self.was = Some(was);
        self
    }

    pub fn became(mut self, became: Value) -> Self {
        self.became = Some(became);
        self
    }

    /// Has the change be one that is made to its target at most once: whoever makes it again leaves
    /// no other row.
    pub fn once(mut self) -> Self {
        let name = format!("{}:{}", self.action.as_str(), self.target);
        self.entry = Uuid::new_v5(&ONCE, name.as_bytes());
        self
    }

    /// Tells whether it is the same change, whatever has become of it.
    pub fn is_same(&self, other: &Self) -> bool {
        self.entry == other.entry
    }

    /// Writes the row. Written again, with what has become of it since, it is the same row.
    ///
    /// # Errors
    /// If the database does not take it.
    pub async fn note(&self, writing: &mut Writing) -> Result<(), sqlx::Error> {
        let json = |value: &Option<Value>| value.as_ref().map(Value::to_string);
        let mut sql = Sql::new(
            "INSERT INTO audit (entry, at, actor, tenant, action, target, request_id, was, became) \
             VALUES ",
        );
        sql.rows(&[self], |fields, change| {
            fields
                .push(change.entry.to_string())
                .push(change.at)
                .push(change.actor.clone())
                .push(change.tenant.clone())
                .push(change.action.as_str())
                .push(change.target.clone())
                .push(change.request_id.clone())
                .push(json(&change.was))
                .push(json(&change.became));
        });
        sql.push(
            " ON CONFLICT (entry) DO UPDATE \
             SET became = COALESCE(excluded.became, audit.became)",
        );
        sql.execute(writing).await?;
        Ok(())
    }
}
