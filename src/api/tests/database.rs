//! What is asked of the database, of both kinds.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use secrecy::SecretString;
use sqlx::Row;

use super::*;
use crate::{
    api::{
        calls,
        key::Presented,
        keyring::{Away, Keyring},
        keys::Revoked,
    },
    config::{KeptNumbers, RecordSettings},
    record::{DatabaseKind, Doomed, postgres_server::PostgresServer, sweep, unix_millis_i64},
};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

pub async fn open(url: &str) -> Database {
    let settings = RecordSettings {
        url: SecretString::from(url),
        numbers: KeptNumbers::Whole,
        secret: None,
        kept: Duration::from_secs(86_400),
        transcripts: true,
    };
    let database = Database::open(&settings).unwrap();
    database.migrate().await.unwrap();
    database
}

/// Runs a story on both databases.
pub async fn on_both(story: impl AsyncFn(&Database)) {
    let server = PostgresServer::start();
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/records.db", folder.path().display());
    for url in [sqlite, server.database("records")] {
        let database = open(&url).await;
        story(&database).await;
        database.close().await;
    }
}

#[tokio::test]
async fn a_key_is_good_from_its_making_until_it_is_revoked() {
    on_both(async |database| {
        let keyring = Keyring::new(database.clone());
        let (tenant, scopes) = ("acme".parse().unwrap(), BTreeSet::from([Scope::CallsRead]));
        for _ in 0..2 {
            let key = NewKey::make();
            let presented = Presented::read(key.text.expose_secret()).unwrap();
            let before = keyring.find(&presented).await.map(|key| key.is_some());
            assert_eq!(before, Ok(false));
            assert!(
                keys::create(database, &key, &tenant, "crm", &scopes)
                    .await
                    .unwrap()
            );
            // A second passes until somebody looks for keys that are not known yet.
            while keyring.find(&presented).await.unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let found = keyring.find(&presented).await.unwrap().unwrap();
            assert_eq!((&found.tenant, &found.scopes), (&tenant, &scopes));
            assert_eq!(
                keys::revoke(database, &key.id).await.unwrap(),
                Revoked::Done
            );
            assert_eq!(
                keys::revoke(database, &key.id).await.unwrap(),
                Revoked::Already
            );
            let revoked = tokio::time::Instant::now();
            while keyring.find(&presented).await.unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert!(revoked.elapsed() < Duration::from_secs(10));
        }
        let unknown = keys::revoke(database, &NewKey::make().id).await.unwrap();
        assert_eq!(unknown, Revoked::Unknown);
        assert_eq!(count(database, "audit").await, 4, "one row for each change");
        let listed = keys::list(database, Some(&tenant)).await.unwrap();
        assert!(listed.len() == 2 && listed.iter().all(|key| key.revoked_at.is_some()));
        let stop = CancellationToken::new();
        stop.cancel();
        keyring.note_uses(stop).await;
        let listed = keys::list(database, None).await.unwrap();
        assert!(listed.iter().all(|key| key.used_at.is_some()), "{listed:?}");
    })
    .await;
}

#[tokio::test]
async fn keys_outlast_a_database_that_is_away_for_seconds_only() {
    let server = PostgresServer::start();
    let database = open(&server.database("records")).await;
    let (key, other) = (NewKey::make(), NewKey::make());
    let tenant = "acme".parse().unwrap();
    assert!(
        keys::create(&database, &key, &tenant, "crm", &BTreeSet::new())
            .await
            .unwrap()
    );
    let keyring = Keyring::new(database.clone());
    let presented = Presented::read(key.text.expose_secret()).unwrap();
    let unknown = Presented::read(other.text.expose_secret()).unwrap();
    assert!(keyring.find(&presented).await.unwrap().is_some());
    server.kill();
    assert!(
        keyring.find(&presented).await.unwrap().is_some(),
        "it is known"
    );
    while keyring.find(&presented).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(matches!(keyring.find(&unknown).await, Err(Away)));
    server.restart();
    while keyring.find(&presented).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    database.close().await;
}

const OF_CALLS: [&str; 6] = ["calls", "steps", "words", "usage", "recordings", "events"];

async fn calls_left(database: &Database) -> Vec<i64> {
    let mut left = Vec::new();
    for table in OF_CALLS {
        left.push(count(database, table).await);
    }
    left
}

#[tokio::test]
async fn what_is_too_old_goes_once_an_hour_with_all_that_belongs_to_it() {
    on_both(async |database| {
        let now = unix_millis_i64();
        for number in 0..250 {
            put_call(database, &format!("old{number}"), "acme", now - 91 * DAY).await;
        }
        put_call(database, "young", "acme", now - 89 * DAY).await;
        let kept = Duration::from_secs(90 * 86_400);
        let both = [sweep(database, kept, now), sweep(database, kept, now)];
        let mut done: Vec<_> = join_all(both)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        done.sort();
        assert_eq!(done, [None, Some(250)], "one of two replicas does it");
        assert_eq!(calls_left(database).await, [1; 6]);
        assert_eq!(sweep(database, kept, now + HOUR - 1).await.unwrap(), None);
        assert_eq!(sweep(database, kept, now + HOUR).await.unwrap(), Some(0));
        // A clock that was far ahead does not stop it for as long.
        assert_eq!(
            sweep(database, kept, now - 2 * HOUR).await.unwrap(),
            Some(0)
        );
        assert_eq!(
            sweep(database, kept, now + 10 * DAY).await.unwrap(),
            Some(1)
        );
    })
    .await;
}

#[tokio::test]
async fn calls_go_by_number_or_age_within_one_tenant_and_leave_one_row() {
    on_both(async |database| {
        let now = unix_millis_i64();
        for (name, tenant, age) in [("a", "acme", 1), ("b", "acme", 9), ("c", "other", 9)] {
            put_call(database, name, tenant, now - age * HOUR).await;
        }
        let tenant: Option<crate::campaign::Name> = Some("acme".parse().unwrap());
        let erase = async |doomed: Doomed| {
            let change = Change::by_operator(Action::DeleteRecords, "test");
            let patience = Duration::from_secs(60);
            let deleted = records::erase(database, &doomed, change, patience).await;
            let deleted = deleted.deleted.unwrap();
            (deleted.calls, deleted.open, deleted.is_complete)
        };
        let old = Doomed::before(tenant.clone(), now - 5 * HOUR);
        assert_eq!(erase(old).await, (1, 0, true));
        let nobody = Doomed::of_number(tenant.clone(), vec!["+15550001111".to_owned()]);
        assert_eq!(erase(nobody).await, (0, 0, true));
        // What still lives would come back with what its writer has yet to write.
        let live = database.write(|writing| {
            let sql = Sql::new("UPDATE calls SET state = 'connected', rank = 50");
            Box::pin(async move { sql.execute(writing).await })
        });
        live.await.unwrap();
        // Numbers may have been kept in another way before.
        let ways = ["h:0123", "+972501234567"].map(str::to_owned).to_vec();
        let theirs = Doomed::of_number(tenant, ways);
        assert_eq!(erase(theirs.clone()).await, (0, 1, false));
        let over = database.write(|writing| {
            let sql = Sql::new("UPDATE calls SET state = 'ended', rank = 90");
            Box::pin(async move { sql.execute(writing).await })
        });
        over.await.unwrap();
        assert_eq!(erase(theirs).await, (1, 0, true));
        assert_eq!(calls_left(database).await, [1; 6], "another tenant's stays");
        let rows = database.read(|pool| async move {
            Sql::new("SELECT became FROM audit ORDER BY entry")
                .read(&pool)
                .await
        });
        let rows = rows.await.unwrap();
        let became: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(
            became, [r#"{"calls":1}"#; 2],
            "who deletes nothing changes nothing"
        );
    })
    .await;
}

/// Writes many calls of `acme`'s from one number, a second apart, of which the first has failed; one
/// in ten is of `sales`.
pub async fn put_many(database: &Database, calls: i64) {
    let write = database.write(move |writing| {
        let mut sql = Sql::new(
            "INSERT INTO calls (call, carrier_call, carrier, direction, tenant, campaign, caller, \
             called, state, rank, rang_at) WITH RECURSIVE numbers (i) AS (SELECT CAST(0 AS BIGINT) \
             UNION ALL SELECT i + 1 FROM numbers WHERE i < ",
        );
        sql.bind(calls - 1).push(
            ") SELECT '00000000-0000-4000-8000-' || SUBSTR('000000000000' || CAST(i AS TEXT), \
             LENGTH(CAST(i AS TEXT)) + 1), 'CA' || CAST(i AS TEXT), 'twilio', 'inbound', 'acme', \
             CASE WHEN i % 10 = 0 THEN 'sales' ELSE 'support' END, '+972501234567', '+97221111111', \
             CASE WHEN i = 0 THEN 'failed' ELSE 'ended' END, 95, 1700000000000 + i * 1000 \
             FROM numbers",
        );
        Box::pin(async move { sql.execute(writing).await })
    });
    write.await.unwrap();
}

#[tokio::test]
async fn a_call_is_found_among_more_than_one_statement_looks_at() {
    on_both(async |database| {
        let calls = calls::SEEN_AT_ONCE * 2 + 1;
        put_many(database, calls).await;
        let tenant = Tenant::of_test("acme");
        for number in [None, Some("+97221111111"), Some("+972501234567")] {
            let found_by = number.map(str::to_owned);
            let wanted = calls::Wanted {
                state: Some(crate::record::State::Failed),
                ..calls::Wanted::default()
            };
            let page = calls::page(database, &tenant, wanted, found_by, false).await;
            let page = page.unwrap();
            let found: Vec<&str> = page.calls.iter().map(|it| &*it.carrier_call_id).collect();
            assert_eq!((found, page.next_cursor), (vec!["CA0"], None), "{number:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn no_statement_looks_at_all_calls_of_a_tenant_or_a_number() {
    on_both(async |database| {
        put_many(database, calls::SEEN_AT_ONCE * 2).await;
        database.count_calls().await.unwrap();
        let tenant = Tenant::of_test("acme");
        let campaign = Some("sales".parse().unwrap());
        for (campaign, number, index) in [
            (None, None, "calls_of_tenant"),
            (campaign, None, "calls_of_campaign"),
            (None, Some("+972501234567"), "calls_of_caller"),
            (None, Some("+97221111111"), "calls_of_called"),
        ] {
            let wanted = calls::Wanted {
                campaign,
                reason: "never".parse().ok(),
                ..calls::Wanted::default()
            };
            let found_by = number.map(str::to_owned);
            let plan = calls::plan(database, &tenant, wanted, found_by).await;
            let plan = plan.unwrap().join("\n");
            assert!(plan.contains(index), "{plan}");
            let unbounded = match database.kind() {
                DatabaseKind::Sqlite => plan.contains("SCAN calls"),
                DatabaseKind::Postgres => plan.contains("Seq Scan"),
            };
            assert!(!unbounded, "{plan}");
        }
    })
    .await;
}
