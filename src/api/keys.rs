//! Keys in the database.

use std::collections::BTreeSet;

use secrecy::SecretString;
use serde::Serialize;
use serde_json::json;
use sqlx::{AnyPool, Row, any::AnyRow};

use crate::{
    api::{
        Action, Change, KeyId, Scope,
        key::{NewKey, StoredKey},
    },
    campaign::Name,
    record::{Database, DatabaseError, Sql, unix_millis_i64},
};

/// How many keys may be good at the same time: every replica holds all of them.
pub const MOST_KEYS: i64 = 10_000;

/// What an operator sees of a key.
#[derive(Debug, Serialize)]
pub struct ListedKey {
    pub key: String,
    pub tenant: String,
    pub name: String,
    pub scopes: Vec<String>,
    /// Unix milliseconds, as the following ones.
    pub created_at: i64,
    pub revoked_at: Option<i64>,
    pub used_at: Option<i64>,
}

/// What came of revoking a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    Done,
    /// It had been revoked before.
    Already,
    Unknown,
}

/// Returns the keys that are good.
///
/// # Errors
/// If the database does not answer.
pub async fn good(pool: &AnyPool) -> Result<Vec<StoredKey>, sqlx::Error> {
    let mut sql =
        Sql::new("SELECT key, hash, tenant, scopes FROM keys WHERE revoked_at IS NULL LIMIT ");
    sql.bind(MOST_KEYS);
    let rows = sql.read(pool).await?;
    Ok(rows.iter().filter_map(stored).collect())
}

/// Reads a key; one that a later version has written may mean nothing here.
fn stored(row: &AnyRow) -> Option<StoredKey> {
    let text = |column: &str| row.try_get::<String, _>(column).ok();
    Some(StoredKey {
        id: text("key")?.parse().ok()?,
        hash: SecretString::from(text("hash")?),
        tenant: text("tenant")?.parse().ok()?,
        scopes: scopes(&text("scopes")?)
            .filter_map(|it| it.parse().ok())
            .collect(),
    })
}

/// Notes a key that has just been made; tells whether there was room for one more.
///
/// # Errors
/// If the database does not answer.
pub async fn create(
    database: &Database,
    key: &NewKey,
    tenant: &Name,
    name: &str,
    scopes: &BTreeSet<Scope>,
) -> Result<bool, DatabaseError> {
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let mut sql =
        Sql::new("INSERT INTO keys (key, hash, tenant, name, scopes, created_at) SELECT ");
    sql.bind(key.id.to_string()).push(", ");
    sql.bind(key.hash.clone()).push(", ");
    sql.bind(tenant.to_string()).push(", ");
    sql.bind(name.to_owned()).push(", ");
    sql.bind(scopes.join(" ")).push(", CAST(");
    sql.bind(unix_millis_i64()).push(" AS BIGINT)");
    sql.push(" WHERE (SELECT COUNT(*) FROM keys WHERE revoked_at IS NULL) < ");
    sql.bind(MOST_KEYS);
    let became = json!({"name": name, "scopes": scopes});
    let change = Change::by_operator(Action::CreateKey, key.id.as_str())
        .of(tenant)
        .became(became);
    let write = database.write(move |writing| {
        Box::pin(async move {
            let made = sql.execute(writing).await? > 0;
            if made {
                change.note(writing).await?;
            }
            Ok(made)
        })
    });
    write.await
}

/// Returns a tenant's keys, or all, the latest first.
///
/// # Errors
/// If the database does not answer.
pub async fn list(
    database: &Database,
    tenant: Option<&Name>,
) -> Result<Vec<ListedKey>, DatabaseError> {
    let mut sql =
        Sql::new("SELECT key, tenant, name, scopes, created_at, revoked_at, used_at FROM keys");
    if let Some(tenant) = tenant {
        sql.push(" WHERE tenant = ").bind(tenant.to_string());
    }
    sql.push(" ORDER BY created_at DESC, key LIMIT ")
        .bind(MOST_KEYS);
    let read = database.read(|pool| async move {
        let rows = sql.read(&pool).await?;
        rows.iter().map(listed).collect::<Result<_, _>>()
    });
    read.await
}

fn listed(row: &AnyRow) -> Result<ListedKey, sqlx::Error> {
    Ok(ListedKey {
        key: row.try_get("key")?,
        tenant: row.try_get("tenant")?,
        name: row.try_get("name")?,
        scopes: scopes(&row.try_get::<String, _>("scopes")?)
            .map(str::to_owned)
            .collect(),
        created_at: row.try_get("created_at")?,
        revoked_at: row.try_get("revoked_at")?,
        used_at: row.try_get("used_at")?,
    })
}

/// Revokes a key.
///
/// # Errors
/// If the database does not answer.
pub async fn revoke(database: &Database, id: &KeyId) -> Result<Revoked, DatabaseError> {
    let id = id.to_string();
    let write = database.write(move |writing| {
        Box::pin(async move {
            let mut sql = Sql::new("SELECT tenant, revoked_at FROM keys WHERE key = ");
            sql.bind(id.clone());
            let Some(row) = sql.fetch_all(writing).await?.pop() else {
                return Ok(Revoked::Unknown);
            };
            let now = unix_millis_i64();
            let mut sql = Sql::new("UPDATE keys SET revoked_at = ");
            sql.bind(now).push(" WHERE key = ").bind(id.clone());
            sql.push(" AND revoked_at IS NULL");
            if sql.execute(writing).await? == 0 {
                return Ok(Revoked::Already);
            }
            let tenant: String = row.try_get("tenant")?;
            let mut change = Change::by_operator(Action::RevokeKey, &id)
                .was(json!({"revoked_at": null}))
                .became(json!({"revoked_at": now}));
            if let Ok(tenant) = tenant.parse() {
                change = change.of(&tenant);
            }
            change.note(writing).await?;
            Ok(Revoked::Done)
        })
    });
    write.await
}

/// Notes when keys were used last.
///
/// # Errors
/// If the database does not answer.
pub async fn note_uses(database: &Database, uses: Vec<(KeyId, i64)>) -> Result<(), DatabaseError> {
    let write = database.write(move |writing| {
        Box::pin(async move {
            for (key, at) in uses {
                let mut sql = Sql::new("UPDATE keys SET used_at = ");
                sql.bind(at).push(" WHERE key = ").bind(key.to_string());
                sql.push(" AND (used_at IS NULL OR used_at < ")
                    .bind(at)
                    .push(")");
                sql.execute(writing).await?;
            }
            Ok(())
        })
    });
    write.await
}

fn scopes(text: &str) -> impl Iterator<Item = &str> {
    text.split_ascii_whitespace()
}
