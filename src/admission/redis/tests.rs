mod access;
mod errors;
mod faults;
mod operators;
mod scripts;
mod unwritten;

use super::*;
use crate::{
    admission::{
        Kept, Lease, Reason, Refusal,
        redis_server::RedisServer,
        scope::{Room, Scope},
        store::{
            Acquired, Adopted, AgentReport, Arrival, Choice, Choices, Claim, Ending, News,
            Released, Renewal, Renewed, Request, Rest,
        },
    },
    call::{CarrierCallId, EndReason},
    campaign::{Budget, Name},
};

/// A caller in a test may wait for as long as a busy machine takes.
const LONG: Duration = Duration::from_secs(30);

/// Returns a store that has connected; `prefix` is what its keys begin with.
pub async fn connected(url: &str, prefix: &str, replica: &str) -> RedisStore {
    let store = patient(&settings(url, prefix), replica);
    store.inspect().await.expect("redis-server answers");
    store
}

impl RedisStore {
    /// Lets callers wait for as long as a busy machine takes.
    pub fn be_patient(&mut self) {
        alone(self).budget = LONG;
    }

    /// Makes another replica of this one, or moves it to keys of its own, on the same connection.
    pub fn become_another(&mut self, prefix: &str, replica: &str) {
        let inner = alone(self);
        inner.keys = Keys::new(prefix.to_owned());
        inner.replica = replica.to_owned();
    }
}

fn settings(url: &str, prefix: &str) -> RedisSettings {
    RedisSettings {
        url: url.into(),
        key_prefix: prefix.to_owned(),
        cluster: false,
        timeout: BUDGET,
    }
}

/// Returns a store that has not connected yet.
fn patient(settings: &RedisSettings, replica: &str) -> RedisStore {
    let lease = Duration::from_secs(30);
    let made = RedisStore::new(settings, replica.to_owned(), lease, CapacityMetrics::new());
    let mut store = made.expect("a good address");
    store.be_patient();
    store
}

/// Returns a store that decides: it has renewed, and the gate is gone.
async fn deciding(server: &RedisServer) -> RedisStore {
    let store = connected(&server.url(), "", "r1").await;
    renew(&store, &[]).await.unwrap();
    server.ask::<()>("DEL calls:gen:recover");
    store
}

fn alone(store: &mut RedisStore) -> &mut Inner {
    Arc::get_mut(&mut store.inner).expect("no operation is under way")
}

fn call(id: &str) -> CarrierCallId {
    CarrierCallId::try_from(id.to_owned()).unwrap()
}

/// How long callers wait where a test is about that.
const BUDGET: Duration = Duration::from_millis(60);

/// More than any test uses up.
const BUDGET_OF_AGENT: Budget = Budget {
    sessions: Some(100),
    dials: Some(100),
    tokens: Some(100),
};

fn rooms() -> Vec<Room> {
    let mut global = Room::new(Scope::Global, 100);
    let [tenant, campaign] = ["acme", "spring"].map(|name| name.parse().unwrap());
    global.reserves.push((Scope::Campaign(campaign), 1));
    let tenant = Room::new(Scope::Tenant(tenant), 100);
    vec![global, Room::new(Scope::Setup, 100), tenant]
}

fn scopes() -> Vec<Scope> {
    rooms().into_iter().map(|room| room.scope).collect()
}

fn state() -> String {
    serde_json::json!({ "state": "ringing", "scopes": ["global", "tenant:acme"] }).to_string()
}

async fn acquire(store: &RedisStore, id: &str) -> Result<Acquired, StoreError> {
    let request = Request {
        call: &call(id),
        rooms: &rooms(),
        lease: 20_000,
    };
    let agent = Name::default_name();
    let choice = Choice {
        agent: &agent,
        budget: BUDGET_OF_AGENT,
        rests: false,
        ticket: "a-ticket",
        state: &state(),
    };
    let choices = Choices {
        agents: &[choice],
        dials: true,
    };
    store.acquire(&request, &choices).await
}

async fn adopt(store: &RedisStore, id: &str, state: &str) -> Result<Adopted, StoreError> {
    let request = Request {
        call: &call(id),
        rooms: &rooms(),
        lease: 30_000,
    };
    let arrival = Arrival {
        nonce: &format!("nonce-of-{id}"),
        admitted_without: false,
        state,
        dials: Some(&Name::default_name()),
    };
    store.adopt(&request, &arrival).await
}

/// Adopts a call that must come in.
async fn live(store: &RedisStore, id: &str) -> Lease {
    match adopt(store, id, r#"{"state":"live"}"#).await.unwrap() {
        Adopted::Live { lease, .. } => lease,
        refused @ (Adopted::Used | Adopted::Ended | Adopted::Refused(_)) => {
            panic!("a live call expected, not {refused:?}")
        }
    }
}

async fn renew(store: &RedisStore, leases: &[&Lease]) -> Result<Renewed, StoreError> {
    let claims = leases.iter().map(|lease| Claim {
        lease: (*lease).clone(),
        scopes: scopes(),
        lasts: 30_000,
        has_media: true,
        state: Some(state()),
        ticket: Some("a-ticket".to_owned()),
    });
    let claims: Vec<Claim> = claims.collect();
    let renewal = Renewal {
        claims: &claims,
        scopes: &scopes(),
        puts_up_gate: false,
        looks_after: true,
        places: Some(3),
        hurried: false,
    };
    store.renew(&renewal).await
}

async fn release(store: &RedisStore, lease: &Lease) -> Result<Released, StoreError> {
    store.release(lease, &scopes(), &ending()).await
}

fn ending() -> Ending<'static> {
    Ending {
        reason: EndReason::CallerHungUp,
        without_media: EndReason::NoMedia,
        state: None,
        forever: true,
        had_media: false,
    }
}

/// Does everything that a store can, once at least.
async fn everything(store: &RedisStore) -> Result<(), StoreError> {
    renew(store, &[]).await?;
    acquire(store, "CA1").await?;
    adopt(store, "CA1", "{}").await?;
    let lease = Lease {
        call: call("CA1"),
        epoch: u64::MAX >> 12,
    };
    renew(store, &[&lease]).await?;
    store.note(&call("CA1"), "{}").await?;
    store.state(&call("CA1")).await?;
    store
        .rebind(&lease, &call("CA2"), &scopes(), &state())
        .await?;
    store.slots().await?;
    store.counts(&scopes()).await?;
    let lease = Lease {
        call: call("CA2"),
        ..lease
    };
    release(store, &lease).await?;
    store.end(&call("CA1"), &ending()).await?;
    store.ended(&call("CA1")).await?;
    store.reap(&scopes()).await?;
    store.try_out().await?;
    let refusal = Refusal {
        reason: Reason::Outage,
        scope: Scope::Global,
        used: 1,
        cap: 1,
    };
    store.refuse(&call("CA9"), &scopes(), &refusal).await?;
    let report = AgentReport {
        tokens: 1,
        rest: Rest::For(2_000),
        dials: vec![(call("CA9"), 1_000)],
        ..AgentReport::question(Name::default_name())
    };
    store.report(&[report]).await?;
    acquire(store, "CA8").await?;
    let orphan = r#"{"tenant":"acme","campaign":"sales","agent":"default","state":"live",
        "replica":"another"}"#;
    store.note(&call("CA7"), orphan).await?;
    store.fate(&call("CA7"), false).await?;
    store.written(&[call("CA7")]).await?;
    store.written(&[]).await?;
    store.leave().await?;
    Ok(())
}
