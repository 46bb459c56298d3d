//! Requests that are acted on once, however often they come: each has a key that its sender gave
//! it, and what came of it is kept for a day.

use std::str::FromStr;

use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{AnyPool, Row, any::AnyRow};

use crate::{
    api::{Tenant, key::hex},
    call::CallId,
    record::{Sql, Writing, unix_millis_i64},
};

/// What a sender calls one request of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String); // Invariant: 1 to 255 visible ASCII characters.

/// Why a text is no [`IdempotencyKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("1 to 255 visible ASCII characters, and another one for each new call")]
pub struct NotAnIdempotencyKey;

/// What is known of a request that has come before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub call: CallId,
    /// What it was answered; `None` as long as it is being acted on, or if whoever did is gone.
    pub answer: Option<(u16, String)>,
}

/// What came of claiming a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is ours to act on the request.
    Ours,
    /// The same request has come before.
    Known(Known),
    /// Another body has come with this key.
    OtherBody,
}

impl FromStr for IdempotencyKey {
    type Err = NotAnIdempotencyKey;

    fn from_str(text: &str) -> Result<Self, NotAnIdempotencyKey> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if (1..=255).contains(&text.len()) && visible {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAnIdempotencyKey)
        }
    }
}

/// Returns what two bodies have in common that say the same, in whatever order.
pub fn fingerprint(body: &Value) -> String {
    // `serde_json` keeps an object's fields sorted by name.
    hex(&Sha256::digest(body.to_string()))
}

/// Claims a key for the call that a request is to place. Of any number of claims at the same time,
/// on any replicas, one is [`Claim::Ours`].
///
/// # Errors
/// If the database does not answer.
pub async fn claim(
    writing: &mut Writing,
    tenant: &Tenant,
    key: &IdempotencyKey,
    fingerprint: &str,
    call: CallId,
) -> Result<Claim, sqlx::Error> {
    let mut sql = Sql::new("INSERT INTO idempotency (tenant, key, fingerprint, call, at) VALUES (");
    sql.bind(tenant.as_str().to_owned()).push(", ");
    sql.bind(key.0.clone()).push(", ");
    sql.bind(fingerprint.to_owned()).push(", ");
    sql.bind(call.to_string()).push(", ");
    sql.bind(unix_millis_i64())
        .push(") ON CONFLICT (tenant, key) DO NOTHING");
    if sql.execute(writing).await? > 0 {
        return Ok(Claim::Ours);
    }
    let rows = question(tenant, key).fetch_all(writing).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    if row.try_get::<String, _>("fingerprint")? == fingerprint {
        Ok(Claim::Known(known(row)?))
    } else {
        Ok(Claim::OtherBody)
    }
}

/// Returns what is known of a request, for whoever waits until it is answered.
///
/// # Errors
/// If the database does not answer.
pub async fn look(
    pool: &AnyPool,
    tenant: &Tenant,
    key: &IdempotencyKey,
) -> Result<Option<Known>, sqlx::Error> {
    let rows = question(tenant, key).read(pool).await?;
    rows.first().map(known).transpose()
}

/// Notes what a request is answered, for all who ask the same. The first answer stays.
///
/// # Errors
/// If the database does not answer.
pub async fn answer(
    writing: &mut Writing,
    tenant: &Tenant,
    key: &IdempotencyKey,
    status: u16,
    answer: &str,
) -> Result<(), sqlx::Error> {
    let mut sql = Sql::new("UPDATE idempotency SET status = ");
    sql.bind(i64::from(status)).push(", answer = ");
    sql.bind(answer.to_owned()).push(" WHERE tenant = ");
    sql.bind(tenant.as_str().to_owned()).push(" AND key = ");
    sql.bind(key.0.clone()).push(" AND status IS NULL");
    sql.execute(writing).await?;
    Ok(())
}

/// Gives a key back: the request was refused before anything was done, and may come again.
///
/// # Errors
/// If the database does not answer.
pub async fn give_back(
    writing: &mut Writing,
    tenant: &Tenant,
    key: &IdempotencyKey,
) -> Result<(), sqlx::Error> {
    let mut sql = Sql::new("DELETE FROM idempotency WHERE tenant = ");
    sql.bind(tenant.as_str().to_owned()).push(" AND key = ");
    sql.bind(key.0.clone()).push(" AND status IS NULL");
    sql.execute(writing).await?;
    Ok(())
}

fn question(tenant: &Tenant, key: &IdempotencyKey) -> Sql {
    let mut sql =
        Sql::new("SELECT fingerprint, call, status, answer FROM idempotency WHERE tenant = ");
    sql.bind(tenant.as_str().to_owned()).push(" AND key = ");
    sql.bind(key.0.clone());
    sql
}

fn known(row: &AnyRow) -> Result<Known, sqlx::Error> {
    let call: String = row.try_get("call")?;
    let call = call
        .parse()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let status: Option<i64> = row.try_get("status")?;
    let answer: Option<String> = row.try_get("answer")?;
    let status = status.and_then(|status| u16::try_from(status).ok());
    Ok(Known {
        call,
        answer: status.zip(answer),
    })
}
