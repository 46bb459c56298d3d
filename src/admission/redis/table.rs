//! Slots as an operator looks at them.

use redis::{Cmd, FromRedisValue};
use serde::{Deserialize, Serialize};

use crate::{
    admission::{
        HEARTBEAT,
        redis::{PATIENCE, RedisStore, SCRIPTS, StoreError, bounded},
        scope::Scope,
        slot::Lease,
        store::{Claim, Ending, Released, Renewal},
    },
    call::{CarrierCallId, EndReason},
    recent::Millis,
    telemetry::StoreOperation,
};

/// What the store says of itself and of who shares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// The store's clock, in Unix milliseconds.
    pub now: i64,
    /// How many replicas have shown themselves of late.
    pub replicas: u32,
}

/// How many keys are asked for at once.
const AT_ONCE: usize = 500;

/// A slot that is held, or whose lease has lapsed and that nobody has taken back yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotRow {
    pub call: String,
    pub campaign: Option<String>,
    pub tenant: Option<String>,
    /// `ringing` or `live`.
    pub state: Option<String>,
    pub caller: Option<String>,
    /// The replica that renews it.
    pub owner: Option<String>,
    /// How long ago it rang, in milliseconds.
    pub age_ms: Option<Millis>,
    /// How long its lease still lasts, in milliseconds; negative if it has lapsed.
    pub lease_left_ms: i64,
    pub scopes: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Noted {
    campaign: Option<String>,
    tenant: Option<String>,
    state: Option<String>,
    caller: Option<String>,
    rang_at: Option<Millis>,
    #[serde(default)]
    scopes: Vec<String>,
}

impl RedisStore {
    /// Connects; a table is looked at without heartbeats.
    ///
    /// # Errors
    /// If the store cannot be reached.
    pub async fn connect(&self) -> Result<(), StoreError> {
        self.inner.link.connect().await
    }

    /// Returns every slot there is, the one that lapses first at the front.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn slots(&self) -> Result<Vec<SlotRow>, StoreError> {
        let keys = &self.inner.keys;
        let (seconds, micros): (Millis, Millis) = self.ask(&redis::cmd("TIME")).await?;
        let now = seconds * 1_000 + micros / 1_000;
        let global = keys.scope(&Scope::Global);
        let held: Vec<(String, f64)> = self.ask(&Cmd::zrange_withscores(global, 0, -1)).await?;
        let mut rows = Vec::new();
        for some in held.chunks(AT_ONCE) {
            let owners = some.iter().map(|(call, _)| keys.owner(call));
            let states = some.iter().map(|(call, _)| keys.state(call));
            let known: Vec<Option<String>> = self
                .ask(&Cmd::mget(owners.chain(states).collect::<Vec<_>>()))
                .await?;
            let (owners, states) = known.split_at(some.len());
            for ((call, lapses), (owner, state)) in some.iter().zip(owners.iter().zip(states)) {
                rows.push(row(now, call, *lapses, owner.as_deref(), state.as_deref()));
            }
        }
        Ok(rows)
    }

    /// Returns how many slots each scope holds.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn counts(&self, scopes: &[Scope]) -> Result<Vec<u32>, StoreError> {
        let (seconds, micros): (Millis, Millis) = self.ask(&redis::cmd("TIME")).await?;
        let now = seconds * 1_000 + micros / 1_000;
        let mut counts = Vec::new();
        for scope in scopes {
            let key = self.inner.keys.scope(scope);
            let count = Cmd::zcount(key, format!("({now}"), "+inf");
            counts.push(self.ask(&count).await?);
        }
        Ok(counts)
    }

    /// Drops what has lapsed; returns how many slots that freed and how many are held.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn reap(&self, scopes: &[Scope]) -> Result<(u32, u32), StoreError> {
        let keys = &self.inner.keys;
        let mut script = SCRIPTS.reap.prepare_invoke();
        script
            .key(&[&keys.active, &keys.count, &keys.setups])
            .key(keys.scope(&Scope::Setup))
            .key(keys.scope(&Scope::Global));
        for scope in scopes {
            if !matches!(scope, Scope::Global | Scope::Setup) {
                script.key(keys.scope(scope));
            }
        }
        let mut reply = self.call(StoreOperation::Reap, script, PATIENCE).await?;
        Ok((reply.number()?, reply.number()?))
    }

    /// Looks at the store's clock and at the replicas that share it, over a connection that
    /// [`RedisStore::inspect`] has made.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn look_around(&self) -> Result<Surroundings, StoreError> {
        let (seconds, micros): (i64, i64) = self.ask(&redis::cmd("TIME")).await?;
        let now = seconds * 1_000 + micros / 1_000;
        let silent_for = i64::try_from((HEARTBEAT * 3).as_millis()).unwrap_or(i64::MAX);
        let since = now.saturating_sub(silent_for);
        let live = Cmd::zcount(&self.inner.keys.replicas, format!("({since}"), "+inf");
        Ok(Surroundings {
            now,
            replicas: self.ask(&live).await?,
        })
    }

    /// Takes a slot and gives it back, by the scripts that calls take theirs by. For that moment
    /// it counts, and this process as a replica that takes no media.
    ///
    /// # Errors
    /// If the store does not let us.
    pub async fn try_out(&self) -> Result<(), StoreError> {
        let call = format!("check-{:016x}", rand::random::<u64>());
        let call = CarrierCallId::try_from(call).expect("letters, digits and a hyphen");
        let lease = Lease {
            call: call.clone(),
            epoch: 0,
        };
        let claim = Claim {
            lease: lease.clone(),
            scopes: vec![Scope::Global, Scope::Outbound],
            lasts: 1_000,
            has_media: true,
            state: Some("{}".to_owned()),
            ticket: None,
        };
        let renewal = Renewal {
            claims: &[claim],
            scopes: &[],
            puts_up_gate: false,
            looks_after: false,
            places: None,
            hurried: false,
        };
        self.renew(&renewal).await?;
        let ending = Ending {
            reason: EndReason::Stopped,
            without_media: EndReason::Stopped,
            state: None,
            forever: false,
            had_media: false,
        };
        self.release(&lease, &[Scope::Outbound], &ending).await?;
        let state = self.inner.keys.state(call.as_str());
        let _: u32 = self.ask(&Cmd::del(state)).await?;
        self.written(&[call]).await?;
        self.leave().await
    }

    /// Takes a call's slot from whoever holds it; the call is over wherever it is carried.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn take_back(&self, call: &CarrierCallId) -> Result<Released, StoreError> {
        let ending = Ending {
            reason: EndReason::Stopped,
            without_media: EndReason::Stopped,
            state: None,
            forever: true,
            had_media: false,
        };
        self.end(call, &ending).await
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let mut link = self.inner.link.connected()?;
        let value = bounded(PATIENCE, link.command(command)).await?;
        redis::from_redis_value(value).map_err(|_| StoreError::Garbled("a table"))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "milliseconds that the store counts in whole numbers"
)]
fn row(now: Millis, call: &str, lapses: f64, owner: Option<&str>, state: Option<&str>) -> SlotRow {
    let noted = state.and_then(|state| serde_json::from_str(state).ok());
    let noted: Noted = noted.unwrap_or_default();
    let owner = owner.and_then(|owner| owner.split_once(' '));
    SlotRow {
        call: call.to_owned(),
        campaign: noted.campaign,
        tenant: noted.tenant,
        state: noted.state,
        caller: noted.caller,
        owner: owner.map(|(_, replica)| replica.to_owned()),
        age_ms: noted.rang_at.map(|rang_at| now.saturating_sub(rang_at)),
        lease_left_ms: (lapses as i64).saturating_sub_unsigned(now),
        scopes: noted.scopes,
    }
}
