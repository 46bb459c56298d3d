pub mod database;
mod http;

use secrecy::ExposeSecret;
use serde_json::Value;

use super::{key::NewKey, keys, *};
use crate::{
    Config, Gateway, Running,
    record::{Sql, postgres_server::PostgresServer},
};

const PAGE: &str = include_str!("../../docs/api.md");

#[test]
fn the_page_prints_every_code_and_every_scope() {
    for code in Code::ALL {
        let (name, status) = (code.as_str(), code.status().as_u16());
        let line = format!("| `{name}` | {status} | {} |", code.meaning());
        assert!(PAGE.contains(&line), "{line}");
    }
    for scope in Scope::ALL {
        assert!(PAGE.contains(&format!("| `{scope}` |")), "{scope}");
    }
}

pub const OPS_TOKEN: &str = "an-operators-token";

/// A gateway with a database that tests may look into.
pub struct TestApi {
    pub running: Running,
    pub database: Database,
    pub http: reqwest::Client,
}

/// Runs a story over both databases, each with a gateway of its own that has these settings.
pub async fn over_both(settings: &[(&str, &str)], story: impl AsyncFn(&TestApi)) {
    at_both(async |url| {
        let api = TestApi::start(url, settings).await;
        story(&api).await;
        api.end().await;
    })
    .await;
}

/// Runs a story with the address of a database of each kind.
pub async fn at_both(story: impl AsyncFn(&str)) {
    let server = PostgresServer::start();
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/records.db", folder.path().display());
    for url in [sqlite, server.database("records")] {
        story(&url).await;
    }
}

impl TestApi {
    pub async fn start(url: &str, settings: &[(&str, &str)]) -> Self {
        Self::run(Self::config(url, settings)).await
    }

    pub fn config(url: &str, settings: &[(&str, &str)]) -> Config {
        let config = Config::load(|name| match name {
            "LISTEN" => Some("127.0.0.1:0".to_owned()),
            "WORKERS" => Some("1".to_owned()),
            "TWILIO_AUTH_TOKEN" => Some("0123456789abcdef0123456789abcdef".to_owned()),
            "OPS_TOKEN" => Some(OPS_TOKEN.to_owned()),
            "DATABASE_URL" => Some(url.to_owned()),
            _ => {
                let setting = settings.iter().find(|(set, _)| *set == name);
                setting.map(|(_, value)| (*value).to_owned())
            }
        });
        config.unwrap()
    }

    pub async fn run(config: Config) -> Self {
        let database = Database::open(&config.records).unwrap();
        database.migrate().await.unwrap();
        // Another test may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            running: Box::pin(Gateway::start(config)).await.unwrap(),
            database,
            http: reqwest::Client::new(),
        }
    }

    /// Makes a key; returns all of it.
    pub async fn key(&self, tenant: &str, scopes: &[Scope]) -> String {
        let key = NewKey::make();
        let scopes = scopes.iter().copied().collect();
        let tenant = tenant.parse().unwrap();
        let made = keys::create(&self.database, &key, &tenant, "test", &scopes).await;
        assert!(made.unwrap());
        key.text.expose_secret().to_owned()
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.running.address());
        self.http.request(method.parse().unwrap(), url)
    }

    /// Asks with a key; returns the status and the answer.
    pub async fn ask(&self, method: &str, path: &str, key: Option<&str>) -> (u16, Value) {
        let mut request = self.request(method, path);
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        answer(request).await
    }

    pub async fn end(self) {
        self.database.close().await;
        self.running.drain(std::future::pending()).await;
    }
}

/// Returns the header of a key that is well-formed and that nobody has made.
pub fn unknown_key() -> String {
    format!("Bearer {}", NewKey::make().text.expose_secret())
}

pub async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

/// Writes an event of a tenant's that is dead for its endpoint `crm` since then: what is too old would be
/// deleted while somebody looks.
pub async fn put_dead(database: &Database, event: &str, tenant: &'static str, at: i64) {
    let event = event.to_owned();
    let write = database.write(move |writing| {
        Box::pin(async move {
            let mut sql = Sql::new("INSERT INTO events (event, tenant, kind, at, body) VALUES (");
            sql.bind(event.clone()).push(", ").bind(tenant);
            sql.push(", 'call.ended', ").bind(at).push(", '{}')");
            sql.execute(writing).await?;
            let mut sql = Sql::new(
                "INSERT INTO deliveries (event, tenant, endpoint, state, made_at, due_at, tries, \
                 ended_at) VALUES (",
            );
            sql.bind(event).push(", ").bind(tenant);
            sql.push(", 'crm', 'dead', 1, 1, 11, ").bind(at).push(")");
            sql.execute(writing).await
        })
    });
    write.await.unwrap();
}

/// Writes a call that rang at this time, with a step, an utterance, a use and an event.
pub async fn put_call(database: &Database, name: &str, tenant: &str, rang_at: i64) -> String {
    let call = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string();
    let (tenant, name) = (tenant.to_owned(), name.to_owned());
    let written = call.clone();
    let write = database.write(move |writing| {
        Box::pin(async move {
            let mut sql = Sql::new(
                "INSERT INTO calls (call, carrier_call, carrier, direction, tenant, campaign, \
                 agent, caller, caller_shown, called, called_shown, state, rank, reason, blame, \
                 rang_at, ended_at, talked_ms) VALUES ",
            );
            sql.rows(&[()], |fields, ()| {
                fields
                    .push(call.clone())
                    .push(name.clone())
                    .push("twilio")
                    .push("inbound");
                fields.push(tenant.clone()).push("sales").push("default");
                fields.push("+972501234567").push("+9*******4567");
                fields.push("+97221111111").push("+9*******1111");
                fields
                    .push("ended")
                    .push(90_i64)
                    .push("caller_hung_up")
                    .push("caller");
                fields.push(rang_at).push(rang_at + 90_000).push(90_000_i64);
            });
            sql.execute(writing).await?;
            let of_call = [
                ("steps (step, call, at, what)", vec!["admitted"]),
                (
                    "words (step, call, at, who, text)",
                    vec!["caller", "shalom"],
                ),
                (
                    "events (event, call, at, tenant, kind, body)",
                    vec!["acme", "call.ended", "{}"],
                ),
                (
                    "recordings (recording, call, at, url, seconds)",
                    vec!["https://a.b"],
                ),
                (
                    "usage (step, call, at, agent, text_in, audio_in, cached_in, text_out, \
                     audio_out, seconds, cost_micros)",
                    vec!["default"],
                ),
            ];
            for (table, texts) in of_call {
                let mut sql = Sql::new("INSERT INTO ");
                sql.push(table).push(" VALUES ");
                sql.rows(&[()], |fields, ()| {
                    fields
                        .push(format!("{table}{call}"))
                        .push(call.clone())
                        .push(rang_at + 1);
                    for text in &texts {
                        fields.push(*text);
                    }
                    let numbers = table.split(',').count() - 3 - texts.len();
                    for number in 0..numbers {
                        fields.push(i64::try_from(number).unwrap() + 1);
                    }
                });
                sql.execute(writing).await?;
            }
            Ok(())
        })
    });
    write.await.unwrap();
    written
}

/// Returns how many rows a table has.
pub async fn count(database: &Database, table: &'static str) -> i64 {
    use sqlx::Row;
    let mut sql = Sql::new("SELECT COUNT(*) FROM ");
    sql.push(table);
    let read = database.read(|pool| async move { sql.read(&pool).await });
    read.await.unwrap()[0].get(0)
}
