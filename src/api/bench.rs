//! What `benches/queries.rs` measures: a tenant's latest calls among many.

use std::time::Duration;

use secrecy::SecretString;

use crate::{
    api::{
        Tenant,
        calls::{Wanted, page, plan},
    },
    config::{KeptNumbers, RecordSettings},
    record::{Database, DatabaseKind, Sql},
};

/// How many calls are written in one transaction.
const AT_ONCE: i64 = 20_000;
/// How many tenants have the calls.
const TENANTS: i64 = 10;
/// The longest page.
const PAGE: u32 = 200;

/// A database of calls.
pub struct Calls {
    database: Database,
    tenant: Tenant,
}

/// What is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The tenant's latest 200 calls.
    Latest,
    /// Those of one of its campaigns.
    Campaign,
    /// Those from or to a number.
    Number,
}

impl Calls {
    /// Makes the tables at `url`.
    pub async fn open(url: &str) -> Self {
        let settings = RecordSettings {
            url: SecretString::from(url),
            numbers: KeptNumbers::Whole,
            secret: None,
            kept: Duration::from_secs(86_400),
            transcripts: true,
        };
        let database = Database::open(&settings).expect("an address of a database");
        database.migrate().await.expect("a database that is there");
        let tenant = Tenant::of_test("t7");
        Self { database, tenant }
    }

    /// Writes so many calls, of ten tenants with ten campaigns each, a second apart.
    pub async fn fill(&self, calls: i64) {
        for first in (0..calls).step_by(usize::try_from(AT_ONCE).unwrap_or(1)) {
            let last = calls.min(first + AT_ONCE) - 1;
            let write = self.database.write(move |writing| {
                Box::pin(async move { some(first, last).execute(writing).await })
            });
            write.await.expect("calls are written");
        }
        if self.database.kind() == DatabaseKind::Postgres {
            let counted = self.database.count_calls().await;
            counted.expect("rows are counted");
        }
    }

    /// Reads a page; returns how many calls it has.
    pub async fn page(&self, question: Question) -> usize {
        let (wanted, number) = asked(question);
        let page = page(&self.database, &self.tenant, wanted, number, true).await;
        page.expect("a page is read").calls.len()
    }

    /// Returns how the database goes about it.
    pub async fn plan(&self, question: Question) -> Vec<String> {
        let (wanted, number) = asked(question);
        let plan = plan(&self.database, &self.tenant, wanted, number).await;
        plan.expect("a plan is told")
    }

    pub async fn close(self) {
        self.database.close().await;
    }
}

fn asked(question: Question) -> (Wanted, Option<String>) {
    let wanted = Wanted {
        limit: Some(PAGE),
        ..Wanted::default()
    };
    match question {
        Question::Latest => (wanted, None),
        Question::Campaign => {
            let campaign = "c3".parse().ok();
            (Wanted { campaign, ..wanted }, None)
        }
        // Each number has a hundred calls of each tenant's in a million.
        Question::Number => (wanted, Some("+97250000007".to_owned())),
    }
}

fn some(first: i64, last: i64) -> Sql {
    let mut sql = Sql::new(
        "INSERT INTO calls (call, carrier_call, carrier, direction, tenant, campaign, agent, \
         caller, caller_shown, called, called_shown, state, rank, reason, blame, rang_at, \
         connected_at, ended_at, talked_ms, replica) \
         WITH RECURSIVE numbers (i) AS (SELECT CAST(",
    );
    sql.bind(first)
        .push(" AS BIGINT) UNION ALL SELECT i + 1 FROM numbers WHERE i < ");
    sql.bind(last).push(
        ") SELECT '00000000-0000-4000-8000-' || \
         SUBSTR('000000000000' || CAST(i AS TEXT), LENGTH(CAST(i AS TEXT)) + 1), \
         'CA' || CAST(i AS TEXT), 'twilio', 'inbound', 't' || CAST(i % ",
    );
    sql.push(&TENANTS.to_string()).push(
        " AS TEXT), 'c' || CAST(i / 10 % 10 AS TEXT), 'default', \
         '+9725000' || SUBSTR('0000' || CAST(i % 10000 AS TEXT), \
         LENGTH(CAST(i % 10000 AS TEXT)) + 1), '+9*******0000', '+97221111111', \
         '+9*******1111', 'ended', 90, 'caller_hung_up', 'caller', \
         1700000000000 + i * 1000, 1700000000500 + i * 1000, 1700000090000 + i * 1000, 89500, \
         'r1' FROM numbers",
    );
    sql
}
