//! The store that replicas share, for who measures what it costs.

use std::time::Duration;

use crate::{
    admission::{
        Lease, StoreError,
        redis::RedisStore,
        scope::{Room, Scope},
        store::{Acquired, Adopted, Arrival, Choice, Choices, Claim, Ending, Renewal, Request},
    },
    call::{CarrierCallId, EndReason},
    campaign::{Budget, Name},
    config::RedisSettings,
    telemetry::CapacityMetrics,
};

const STATE: &str = r#"{"call_id":"01a1fc23-a898-7045-99ff-64450b666437","carrier_call_id":"CA00000000000000000000000000000000","carrier":"twilio","tenant":"default","campaign":"default","state":"ringing","replica":"0123abcd","caller":"+1******7890","degraded":false,"scopes":["global","tenant:default","campaign:default"],"rang_at":1700000000000}"#;

/// Slots in a Redis, with the scopes that a gateway's calls have.
pub struct Slots(RedisStore);

impl Slots {
    /// Opens a store that decides at once.
    ///
    /// # Panics
    /// If there is no Redis.
    pub async fn open(url: &str) -> Self {
        let settings = RedisSettings {
            url: url.into(),
            key_prefix: String::new(),
            cluster: false,
            timeout: Duration::from_millis(60),
        };
        let (lease, metrics) = (Duration::from_secs(30), CapacityMetrics::new());
        let store = RedisStore::new(&settings, "0123abcd".to_owned(), lease, metrics);
        let slots = Self(store.expect("a good address"));
        slots.renew(&[]).await;
        slots
    }

    /// Asks for a slot; returns the epoch of one that was given, unless nobody has heard of it.
    ///
    /// # Panics
    /// If the store is gated or fails.
    pub async fn acquire(&self, call: u32, cap: u32) -> Option<u64> {
        let (call, rooms) = (id(call), rooms(cap));
        let request = Request {
            call: &call,
            rooms: &rooms,
            lease: 20_000,
        };
        let (ticket, agent) = ("t".repeat(300), Name::default_name());
        let choice = Choice {
            agent: &agent,
            budget: Budget::default(),
            rests: false,
            ticket: &ticket,
            state: STATE,
        };
        let choices = Choices {
            agents: &[choice],
            dials: true,
        };
        let acquired = until_heard(async || self.0.acquire(&request, &choices).await).await;
        match acquired {
            Acquired::Admitted { epoch, .. } => Some(epoch),
            Acquired::Refused(_) | Acquired::Repeated(_) | Acquired::Held | Acquired::Ended => None,
            Acquired::Resync => panic!("the store is gated"),
        }
    }

    /// Brings an admitted call's media; returns its epoch.
    ///
    /// # Panics
    /// If the call does not come in.
    pub async fn adopt(&self, call: u32, cap: u32) -> u64 {
        let (call, rooms) = (id(call), rooms(cap));
        let request = Request {
            call: &call,
            rooms: &rooms,
            lease: 30_000,
        };
        let adopted = until_heard(async || {
            let arrival = Arrival {
                nonce: &format!("{:032x}", rand::random::<u128>()),
                admitted_without: false,
                state: STATE,
                dials: None,
            };
            self.0.adopt(&request, &arrival).await
        });
        match adopted.await {
            Adopted::Live { lease, .. } => lease.epoch,
            refused @ (Adopted::Used | Adopted::Ended | Adopted::Refused(_)) => {
                panic!("the call's media has come: {refused:?}")
            }
        }
    }

    /// Renews live calls, each with its epoch.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn renew(&self, calls: &[(u32, u64)]) {
        let scopes: Vec<Scope> = rooms(0).into_iter().map(|room| room.scope).collect();
        let claims = calls.iter().map(|(call, epoch)| Claim {
            lease: lease(*call, *epoch),
            scopes: live(&scopes),
            lasts: 30_000,
            has_media: true,
            state: None,
            ticket: None,
        });
        let claims: Vec<Claim> = claims.collect();
        let renewal = Renewal {
            claims: &claims,
            scopes: &scopes,
            puts_up_gate: false,
            looks_after: true,
            places: Some(100),
            hurried: false,
        };
        let renewed = self.0.renew(&renewal).await;
        renewed.expect("the store answers");
    }

    /// Gives a live call's slot back.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn release(&self, call: u32, epoch: u64) {
        let scopes: Vec<Scope> = rooms(0).into_iter().map(|room| room.scope).collect();
        let ending = Ending {
            reason: EndReason::CallerHungUp,
            without_media: EndReason::NoMedia,
            state: Some(STATE),
            forever: true,
            had_media: false,
        };
        let (lease, scopes) = (lease(call, epoch), live(&scopes));
        let released = self.0.release(&lease, &scopes, &ending).await;
        released.expect("the store answers");
    }
}

/// Repeats what nobody has waited for: on a busy machine a budget is soon over.
async fn until_heard<T>(operation: impl AsyncFn() -> Result<T, StoreError>) -> T {
    loop {
        match operation().await {
            Ok(answer) => return answer,
            Err(StoreError::TooSlow(_)) => {}
            Err(error) => panic!("the store answers: {error}"),
        }
    }
}

fn live(scopes: &[Scope]) -> Vec<Scope> {
    let live = scopes.iter().filter(|scope| scope.counts(true));
    live.cloned().collect()
}

fn rooms(cap: u32) -> Vec<Room> {
    let name = Name::default_name();
    let scopes = [
        Scope::Global,
        Scope::Setup,
        Scope::Tenant(name.clone()),
        Scope::Campaign(name),
    ];
    scopes.map(|scope| Room::new(scope, cap)).to_vec()
}

fn lease(call: u32, epoch: u64) -> Lease {
    Lease {
        call: id(call),
        epoch,
    }
}

fn id(call: u32) -> CarrierCallId {
    CarrierCallId::try_from(format!("CA{call:032x}")).expect("letters and digits")
}
