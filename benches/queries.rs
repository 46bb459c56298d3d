//! What a page of a tenant's calls takes among a million of them, on both databases:
//! `cargo bench --features bench --bench queries`. Prints one line of JSON, with the databases' own
//! word of how they go about it.

use std::time::Duration;

use callgate::bench::{Calls, Question};
use postgres_server::PostgresServer;
use serde_json::json;
use tokio::{runtime::Builder, time::Instant};

#[path = "../tests/it/postgres_server.rs"]
mod postgres_server;

const CALLS: i64 = 1_000_000;
const TRIES: usize = 200;
/// What a tenant's latest 200 calls may take, in milliseconds.
const GOAL_MS: f64 = 10.0;
const QUESTIONS: [Question; 3] = [Question::Latest, Question::Campaign, Question::Number];

fn main() {
    let folder = tempfile::tempdir().expect("a directory");
    let server = PostgresServer::start();
    let sqlite = format!("sqlite://{}/records.db", folder.path().display());
    let runtime = Builder::new_current_thread().enable_all().build();
    let figures = runtime.expect("a runtime").block_on(async {
        let mut figures = serde_json::Map::new();
        for (name, url) in [("sqlite", sqlite), ("postgres", server.database("records"))] {
            figures.insert(name.to_owned(), measure(&url).await);
        }
        figures
    });
    let passed = figures.values().all(|figure| figure["passed"] == true);
    println!(
        "{}",
        json!({"figure": "queries", "calls": CALLS, "goal_ms": GOAL_MS, "passed": passed,
            "databases": figures})
    );
    assert!(passed, "a page takes too long, or no index is used");
}

async fn measure(url: &str) -> serde_json::Value {
    let calls = Calls::open(url).await;
    let began = Instant::now();
    calls.fill(CALLS).await;
    let filled = began.elapsed();
    let mut figure = json!({"filled_s": filled.as_secs()});
    for question in QUESTIONS {
        let mut taken: Vec<f64> = Vec::new();
        let mut found = 0;
        for _ in 0..TRIES {
            let began = Instant::now();
            found = calls.page(question).await;
            taken.push(milliseconds(began.elapsed()));
        }
        taken.sort_by(f64::total_cmp);
        let plan = calls.plan(question).await;
        let (p50, p99) = (taken[TRIES / 2], taken[TRIES * 99 / 100]);
        let name = format!("{question:?}").to_lowercase();
        figure[name] = json!({"found": found, "p50_ms": p50, "p99_ms": p99,
            "max_ms": taken[TRIES - 1], "plan": plan});
        if question == Question::Latest {
            let indexed = plan.iter().any(|line| line.contains("calls_of_tenant"));
            figure["passed"] = json!(p99 <= GOAL_MS && indexed && found == 200);
        }
    }
    calls.close().await;
    figure
}

fn milliseconds(taken: Duration) -> f64 {
    (taken.as_secs_f64() * 100_000.0).round() / 100.0
}
