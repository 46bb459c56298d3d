//! The store that replicas share: slots in Redis, each operation one script.
//!
//! Invariant: every key that a script touches is declared, and none is built in a script.
//! Invariant: a script that fails has written nothing, and each may be repeated.
//! Invariant: an operation is waited for no longer than its budget, and few are under way at once.

mod keys;
mod link;
mod reply;
mod table;

use std::{
    fmt::{self, Write},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{Script, ScriptInvocation, Value};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    admission::{
        HEARTBEAT, Kept, Lease, Reason, Refusal, SETUP,
        redis::{keys::Keys, link::Link, reply::Reply},
        scope::{Room, Scope},
        store::{Acquired, Adopted, Ending, News, Rebound, Released, Renewal, Renewed, Request},
    },
    call::{CarrierCallId, EndReason},
    config::RedisSettings,
    telemetry::{CapacityMetrics, StoreOperation},
};

pub use link::Inspection;
pub use table::SlotRow;

/// How long a caller waits for the store.
const BUDGET: Duration = Duration::from_millis(60);
/// How long a heartbeat does: it is better late than never.
const PATIENCE: Duration = HEARTBEAT;
/// How many operations for callers may be under way at once.
const MOST_IN_FLIGHT: usize = 64;
/// How long the gate stays up: a tick, in which every living replica notices it and renews, and
/// twice as long for those that are late.
const GATE: Duration = Duration::from_secs(3);
/// How many calls one script renews: it must not hold up others for a millisecond.
const BATCH: usize = 50;
/// How many scopes one script counts.
const SCOPES: usize = 100;

/// The scripts, as the store is sent them.
struct Scripts {
    acquire: Script,
    adopt: Script,
    renew: Script,
    release: Script,
    refuse: Script,
    rebind: Script,
    note: Script,
    reap: Script,
}

static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    acquire: Script::new(include_str!("redis/acquire.lua")),
    adopt: Script::new(include_str!("redis/adopt.lua")),
    renew: Script::new(include_str!("redis/renew.lua")),
    release: Script::new(include_str!("redis/release.lua")),
    refuse: Script::new(include_str!("redis/refuse.lua")),
    rebind: Script::new(include_str!("redis/rebind.lua")),
    note: Script::new(include_str!("redis/note.lua")),
    reap: Script::new(include_str!("redis/reap.lua")),
});

impl Renewal<'_> {
    /// Tells whether the store was too slow for a caller to wait for.
    pub fn is_slow(&self, took: Duration) -> bool {
        let parts = self.claims.len().div_ceil(BATCH);
        let parts = parts.max(self.scopes.len().div_ceil(SCOPES)).max(1);
        took > BUDGET * u32::try_from(parts).unwrap_or(u32::MAX)
    }
}

/// Slots in Redis.
pub struct RedisStore {
    inner: Arc<Inner>,
    /// Operations run here, away from the workers: a worker that is busy with audio must not make
    /// the store look slow, and a webhook that is given up must not leave an operation half heard.
    runtime: Handle,
    tasks: TaskTracker,
}

struct Inner {
    link: Link,
    keys: Keys,
    replica: String,
    lease: Duration,
    /// How long a caller waits for an operation.
    budget: Duration,
    in_flight: Semaphore,
    /// Whether nobody is to wait for the store.
    away: AtomicBool,
    metrics: CapacityMetrics,
}

/// Why the slot store gave no answer. No caller is turned away for it; see [`super::outage`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the slot store is known to be away")]
    Away,
    #[error("the slot store did not answer within {0:?}")]
    TooSlow(Duration),
    #[error("the slot store failed")]
    Failed(#[from] redis::RedisError),
    #[error("the slot store's answer makes no sense: {0}")]
    Garbled(&'static str),
}

impl RedisStore {
    /// Makes a store that connects with its first heartbeat. Its operations run on the runtime
    /// that this is called on.
    ///
    /// # Errors
    /// If the settings do not make a client.
    pub fn new(
        settings: &RedisSettings,
        replica: String,
        lease: Duration,
        metrics: CapacityMetrics,
    ) -> Result<Self, StoreError> {
        let inner = Inner {
            link: Link::new(settings)?,
            keys: Keys::new(settings.key_prefix.clone()),
            replica,
            lease,
            budget: BUDGET,
            in_flight: Semaphore::new(MOST_IN_FLIGHT),
            away: AtomicBool::new(false),
            metrics,
        };
        Ok(Self {
            inner: Arc::new(inner),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
        })
    }

    /// Says whether waiting for the store is pointless, for those who wait already.
    pub fn set_away(&self, away: bool) {
        self.inner.away.store(away, Ordering::Relaxed);
    }

    /// Makes a new connection before the next heartbeat.
    pub fn reconnect(&self) {
        self.inner.link.forget();
    }

    /// Looks at what kind of server this is.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn inspect(&self) -> Result<Inspection, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.link.inspect().await }).await
    }

    pub async fn acquire(
        &self,
        request: &Request<'_>,
        ticket: &str,
    ) -> Result<Acquired, StoreError> {
        let keys = &self.inner.keys;
        let call = request.call.as_str();
        let mut script = SCRIPTS.acquire.prepare_invoke();
        script
            .key(&[&keys.generation, &keys.gate])
            .key(&[keys.decision(call), keys.ended(call)])
            .key(&[&keys.setups, &keys.epoch])
            .key(&[keys.owner(call), keys.state(call)])
            .key(&[&keys.active, &keys.count])
            .arg(&[call, &self.inner.replica])
            .arg(request.lease)
            .arg(self.inner.longest_lease())
            .arg(&[ticket, request.state]);
        self.ask_for(&mut script, 10, request.rooms);
        let mut reply = self.for_caller(StoreOperation::Acquire, script).await?;
        Ok(match reply.text()?.as_str() {
            "OK" => Acquired::Admitted {
                epoch: reply.number()?,
                used: reply.numbers()?,
            },
            "FULL" => Acquired::Refused(refusal(&reply.text()?, request.rooms)?),
            "REPEATED" => Acquired::Repeated(kept(&reply.text()?, request.rooms)?),
            "HELD" => Acquired::Held,
            "ENDED" => Acquired::Ended,
            "RESYNC" => Acquired::Resync,
            _ => return Err(StoreError::Garbled("acquire")),
        })
    }

    pub async fn adopt(
        &self,
        request: &Request<'_>,
        nonce: &str,
        admitted_without: bool,
    ) -> Result<Adopted, StoreError> {
        let keys = &self.inner.keys;
        let call = request.call.as_str();
        let mut script = SCRIPTS.adopt.prepare_invoke();
        script
            .key(&[&keys.generation, &keys.gate])
            .key(&[keys.ended(call), keys.ticket(nonce)])
            .key(&[&keys.setups, &keys.epoch])
            .key(&[keys.state(call), keys.owner(call)])
            .key(&[&keys.active, &keys.count])
            .key(keys.scope(&Scope::Setup))
            .arg(&[call, &self.inner.replica])
            .arg(request.lease)
            .arg(self.inner.longest_lease())
            .arg(request.state)
            .arg(u8::from(admitted_without));
        let rooms = request.rooms.iter();
        let rooms: Vec<Room> = rooms
            .filter(|room| room.scope.counts(true))
            .cloned()
            .collect();
        self.ask_for(&mut script, 11, &rooms);
        let mut reply = self.for_caller(StoreOperation::Adopt, script).await?;
        Ok(match reply.text()?.as_str() {
            "LIVE" => Adopted::Live {
                lease: Lease {
                    call: request.call.clone(),
                    epoch: reply.number()?,
                },
                state: reply.text()?,
                gated: reply.number::<u8>()? == 1,
            },
            "FULL" => Adopted::Refused(refusal(&reply.text()?, &rooms)?),
            "USED" => Adopted::Used,
            "ENDED" => Adopted::Ended,
            _ => return Err(StoreError::Garbled("adopt")),
        })
    }

    /// Renews in batches, the first of which puts up the gate where that is due. It is gated if
    /// the last of them was.
    pub async fn renew(&self, renewal: &Renewal<'_>) -> Result<Renewed, StoreError> {
        let mut claims = renewal.claims.chunks(BATCH);
        let mut scopes = renewal.scopes.chunks(SCOPES);
        let mut renewed = Renewed::default();
        let mut puts_up_gate = renewal.puts_up_gate;
        loop {
            let (batch, counted) = (claims.next(), scopes.next());
            if batch.is_none() && counted.is_none() {
                return Ok(renewed);
            }
            let part = Renewal {
                claims: batch.unwrap_or_default(),
                scopes: counted.unwrap_or_default(),
                puts_up_gate,
                ..renewal.clone()
            };
            let part = self.renew_part(&part).await?;
            puts_up_gate = false;
            renewed = Renewed {
                lapsed: renewed.lapsed + part.lapsed,
                used: [renewed.used, part.used].concat(),
                news: [renewed.news, part.news].concat(),
                ..part
            };
        }
    }

    async fn renew_part(&self, renewal: &Renewal<'_>) -> Result<Renewed, StoreError> {
        let inner = &self.inner;
        let keys = &inner.keys;
        let mut scopes = vec![Scope::Global];
        let theirs = renewal.claims.iter().flat_map(|claim| &claim.scopes);
        for scope in renewal.scopes.iter().chain(theirs) {
            if *scope != Scope::Setup && !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        let mut script = SCRIPTS.renew.prepare_invoke();
        script
            .key(&[&keys.generation, &keys.gate, &keys.active, &keys.count])
            .key(&[&keys.replicas, &keys.places, &keys.epoch, &keys.setups])
            .key(keys.scope(&Scope::Setup));
        for scope in &scopes {
            script.key(keys.scope(scope));
        }
        script
            .arg(format!("{:016x}", rand::random::<u64>()))
            .arg(&inner.replica)
            .arg(inner.longest_lease())
            .arg(scopes.len())
            .arg(GATE.as_millis())
            .arg(u8::from(renewal.puts_up_gate))
            .arg((HEARTBEAT * 3).as_millis())
            .arg(renewal.places.map_or(-1, i64::from));
        for claim in renewal.claims {
            let call = claim.lease.call.as_str();
            let others = claim.scopes.iter().filter_map(|scope| {
                let at = scopes.iter().position(|known| known == scope)?;
                (at > 0).then(|| (at + 1).to_string())
            });
            script
                .key(&[keys.owner(call), keys.ended(call)])
                .key(&[keys.state(call), keys.decision(call)])
                .arg(call)
                .arg(claim.lease.epoch)
                .arg(claim.lasts)
                .arg(u8::from(claim.has_media))
                .arg(others.collect::<Vec<_>>().join(" "))
                .arg(claim.state.as_deref().unwrap_or_default())
                .arg(claim.ticket.as_deref().unwrap_or_default());
        }
        let patience = if renewal.hurried {
            inner.budget
        } else {
            PATIENCE
        };
        let mut reply = self.call(StoreOperation::Renew, script, patience).await?;
        let (now, gated) = (reply.number()?, reply.number::<u8>()? == 1);
        let (replicas, siblings, places) = (reply.number()?, reply.number()?, reply.number()?);
        let lapsed = reply.number()?;
        let counts: Vec<u32> = reply.numbers()?;
        let counted = [Scope::Setup].into_iter().chain(scopes);
        let mut news = Vec::new();
        for mut piece in reply.replies()? {
            let call = CarrierCallId::try_from(piece.text()?);
            let call = call.map_err(|_| StoreError::Garbled("renew"))?;
            let piece = match piece.text()?.as_str() {
                "LOST" => News::Lost,
                "ENDED" => News::Ended(reason(&piece.text()?)?),
                "TAKEN_IN" => News::TakenIn(piece.number()?),
                _ => return Err(StoreError::Garbled("renew")),
            };
            news.push((call, piece));
        }
        Ok(Renewed {
            now,
            gated,
            replicas,
            siblings,
            places,
            lapsed,
            used: counted.zip(counts).collect(),
            news,
        })
    }

    pub async fn release(
        &self,
        lease: &Lease,
        scopes: &[Scope],
        ending: &Ending<'_>,
    ) -> Result<Released, StoreError> {
        self.give_back(&lease.call, lease.epoch, scopes, ending)
            .await
    }

    /// Notes that a call is over; what it counts in, its state says. The one that is given serves
    /// where the store has none.
    pub async fn end(
        &self,
        call: &CarrierCallId,
        ending: &Ending<'_>,
    ) -> Result<Released, StoreError> {
        let kept = self.state(call).await?;
        let ending = Ending {
            state: ending.state.filter(|_| kept.is_none()),
            ..*ending
        };
        let state = kept.as_deref().or(ending.state);
        let scopes = state.map(keys::scopes_in);
        self.give_back(call, 0, &scopes.unwrap_or_default(), &ending)
            .await
    }

    async fn give_back(
        &self,
        call: &CarrierCallId,
        epoch: u64,
        scopes: &[Scope],
        ending: &Ending<'_>,
    ) -> Result<Released, StoreError> {
        let keys = &self.inner.keys;
        let name = call.as_str();
        let mut script = SCRIPTS.release.prepare_invoke();
        script
            .key(&[keys.owner(name), keys.ended(name)])
            .key(&[keys.decision(name), keys.state(name)])
            .key(&[&keys.active, &keys.count, &keys.setups])
            .key(keys.scope(&Scope::Setup))
            .key(keys.scope(&Scope::Global));
        for scope in scopes {
            if !matches!(scope, Scope::Global | Scope::Setup) {
                script.key(keys.scope(scope));
            }
        }
        script
            .arg(name)
            .arg(epoch)
            .arg(ending.reason.as_str())
            .arg(ending.without_media.as_str())
            .arg(ending.state.unwrap_or_default())
            .arg(u8::from(ending.forever));
        let mut reply = self.for_caller(StoreOperation::Release, script).await?;
        let status = reply.text()?;
        let (active, waited): (u32, u8) = (reply.number()?, reply.number()?);
        if status == "STALE" {
            return Ok(Released::Stale);
        }
        let reason = reason(&reply.text()?)?;
        Ok(match status.as_str() {
            "FREED" => Released::Freed {
                active,
                reason,
                waited: waited == 1,
            },
            _ => Released::Gone { reason },
        })
    }

    /// Notes a refusal that was decided without the store; tells whether the store had taken a slot
    /// for that call.
    pub async fn refuse(
        &self,
        call: &CarrierCallId,
        scopes: &[Scope],
        refusal: &Refusal,
    ) -> Result<bool, StoreError> {
        let keys = &self.inner.keys;
        let name = call.as_str();
        let mut script = SCRIPTS.refuse.prepare_invoke();
        script
            .key(&[keys.owner(name), keys.ended(name)])
            .key(&[keys.decision(name), keys.state(name)])
            .key(&[&keys.active, &keys.count])
            .key(keys.scope(&Scope::Global));
        for scope in scopes.iter().filter(|scope| **scope != Scope::Global) {
            script.key(keys.scope(scope));
        }
        let Refusal {
            scope, used, cap, ..
        } = refusal;
        script
            .arg(&[name, &self.inner.replica])
            .arg(format!("R {used} {cap} {scope}"));
        let mut reply = self.call(StoreOperation::Refuse, script, PATIENCE).await?;
        Ok(reply.number::<u8>()? == 1)
    }

    pub async fn rebind(
        &self,
        lease: &Lease,
        call: &CarrierCallId,
        scopes: &[Scope],
        state: &str,
    ) -> Result<Rebound, StoreError> {
        let keys = &self.inner.keys;
        let (pending, named) = (lease.call.as_str(), call.as_str());
        let mut script = SCRIPTS.rebind.prepare_invoke();
        script
            .key(&[keys.owner(pending), keys.owner(named), keys.ended(named)])
            .key(&[keys.state(pending), keys.state(named)])
            .key(&keys.active)
            .key(keys.scope(&Scope::Global));
        for scope in scopes.iter().filter(|scope| **scope != Scope::Global) {
            script.key(keys.scope(scope));
        }
        script.arg(&[pending, named]).arg(lease.epoch).arg(state);
        let mut reply = self.for_caller(StoreOperation::Rebind, script).await?;
        match reply.text()?.as_str() {
            "OK" => Ok(Rebound::Named),
            "GONE" => Ok(Rebound::Gone),
            "ENDED" => Ok(Rebound::Ended),
            _ => Err(StoreError::Garbled("rebind")),
        }
    }

    pub async fn ended(&self, call: &CarrierCallId) -> Result<Option<EndReason>, StoreError> {
        let key = self.inner.keys.ended(call.as_str());
        let reason = self.get(key).await?;
        Ok(reason.and_then(|reason| reason.parse().ok()))
    }

    /// Returns what is kept of a call, as JSON.
    pub async fn state(&self, call: &CarrierCallId) -> Result<Option<String>, StoreError> {
        self.get(self.inner.keys.state(call.as_str())).await
    }

    /// Adds fields to what is kept of a call.
    pub async fn note(&self, call: &CarrierCallId, fields: &str) -> Result<(), StoreError> {
        let mut script = SCRIPTS.note.prepare_invoke();
        script.key(self.inner.keys.state(call.as_str())).arg(fields);
        self.for_caller(StoreOperation::Note, script).await?;
        Ok(())
    }

    /// Takes this replica off the list of those that live.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let mut pipe = redis::pipe();
            pipe.zrem(&inner.keys.replicas, &inner.replica);
            pipe.hdel(&inner.keys.places, &inner.replica);
            let mut link = inner.link.connected()?;
            bounded(inner.budget, link.pipeline(&pipe)).await?;
            Ok(())
        })
        .await
    }

    async fn get(&self, key: String) -> Result<Option<String>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let mut link = inner.link.connected()?;
            let command = redis::Cmd::get(key);
            let value = bounded(inner.budget, link.command(&command)).await?;
            redis::from_redis_value(value).map_err(|_| StoreError::Garbled("get"))
        })
        .await
    }

    /// Adds the scopes that a call asks for and those that are reserved in them, as the scripts
    /// expect them: the first scope is the key after the first `before`.
    fn ask_for(&self, script: &mut ScriptInvocation<'_>, before: usize, rooms: &[Room]) {
        let keys = &self.inner.keys;
        script.arg(rooms.len());
        let mut named: Vec<&Scope> = rooms.iter().map(|room| &room.scope).collect();
        for room in rooms {
            let mut reserves = String::new();
            for (scope, slots) in &room.reserves {
                let at = named.iter().position(|known| *known == scope);
                let at = at.unwrap_or_else(|| {
                    named.push(scope);
                    named.len() - 1
                });
                // A string takes any text.
                let _ = write!(reserves, "{}:{slots} ", before + at + 1);
            }
            script
                .arg(room.cap)
                .arg(room.scope.to_string())
                .arg(reserves);
        }
        for scope in named {
            script.key(keys.scope(scope));
        }
    }

    /// Runs a script that a caller waits for, or that can wait for the store to be back.
    async fn for_caller(
        &self,
        operation: StoreOperation,
        script: ScriptInvocation<'static>,
    ) -> Result<Reply, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let permit = inner.in_flight.acquire().await;
            let _permit = permit.map_err(|_| StoreError::Away)?;
            if inner.away.load(Ordering::Relaxed) {
                return Err(StoreError::Away);
            }
            inner.invoke(operation, &script, inner.budget).await
        })
        .await
    }

    async fn call(
        &self,
        operation: StoreOperation,
        script: ScriptInvocation<'static>,
        patience: Duration,
    ) -> Result<Reply, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            if operation == StoreOperation::Renew {
                inner.link.connect().await?;
            }
            inner.invoke(operation, &script, patience).await
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let running = self.tasks.spawn_on(operation, &self.runtime);
        // It ends early only with the runtime.
        running.await.unwrap_or(Err(StoreError::Away))
    }
}

impl Inner {
    /// How long any slot lasts that is not renewed.
    fn longest_lease(&self) -> u64 {
        let longest = self.lease.max(SETUP).as_millis();
        u64::try_from(longest).unwrap_or(u64::MAX)
    }

    async fn invoke(
        &self,
        operation: StoreOperation,
        script: &ScriptInvocation<'static>,
        patience: Duration,
    ) -> Result<Reply, StoreError> {
        let began = Instant::now();
        let mut link = self.link.connected()?;
        let result = bounded(patience, link.script(script)).await;
        self.metrics.took(operation, began.elapsed());
        if let Err(error) = &result {
            self.metrics.store_failed(operation, error.class());
        }
        let value = result?;
        Ok(Reply::new(if let Value::Array(values) = value {
            values
        } else {
            vec![value]
        }))
    }
}

async fn bounded<T>(
    patience: Duration,
    operation: impl Future<Output = redis::RedisResult<T>>,
) -> Result<T, StoreError> {
    match timeout(patience, operation).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StoreError::TooSlow(patience)),
    }
}

fn reason(text: &str) -> Result<EndReason, StoreError> {
    let known = text.parse();
    known.map_err(|()| StoreError::Garbled("an end reason"))
}

/// Reads a decision as it is kept for a repeated webhook.
fn kept(text: &str, rooms: &[Room]) -> Result<Kept, StoreError> {
    match text.strip_prefix("A ") {
        Some(ticket) => Ok(Kept::Admitted(ticket.to_owned())),
        None => Ok(Kept::Refused(refusal(text, rooms)?)),
    }
}

fn refusal(text: &str, rooms: &[Room]) -> Result<Refusal, StoreError> {
    let garbled = || StoreError::Garbled("a refusal");
    let mut words = text.split(' ').skip(1);
    let mut number = || words.next()?.parse().ok();
    let (used, cap) = (number().ok_or_else(garbled)?, number().ok_or_else(garbled)?);
    let name = words.next().ok_or_else(garbled)?;
    let scopes = rooms.iter().map(|room| &room.scope);
    // A scope that was full for the first webhook and is none of this call's since is past.
    let scope = scopes.into_iter().find(|scope| scope.to_string() == name);
    Ok(Refusal {
        reason: Reason::Full,
        scope: scope.cloned().unwrap_or(Scope::Global),
        used,
        cap,
    })
}

impl StoreError {
    /// Returns what kind of failure it is, for metrics and for what to do about it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what redis-rs tells apart beyond this is for its source to say"
    )]
    pub fn class(&self) -> &'static str {
        use redis::{ErrorKind, ServerErrorKind as Server};
        match self {
            Self::Away => "away",
            Self::TooSlow(_) => "timeout",
            Self::Garbled(_) => "garbled",
            // The client has a deadline of its own, which may come first.
            Self::Failed(error) if error.is_timeout() => "timeout",
            Self::Failed(error) => match error.kind() {
                ErrorKind::Io => "io",
                ErrorKind::AuthenticationFailed => "noauth",
                ErrorKind::Server(Server::ReadOnly) => "readonly",
                ErrorKind::Server(Server::NoPerm) => "noperm",
                ErrorKind::Server(Server::BusyLoading) => "loading",
                ErrorKind::Server(Server::MasterDown) => "masterdown",
                ErrorKind::Server(
                    Server::Moved
                    | Server::Ask
                    | Server::CrossSlot
                    | Server::ClusterDown
                    | Server::TryAgain,
                ) => "cluster",
                ErrorKind::Server(_) | ErrorKind::Extension => by_code(error),
                _ => "other",
            },
        }
    }
}

/// Names what redis-rs has no kind for, or what a script has met on its way.
fn by_code(error: &redis::RedisError) -> &'static str {
    let text = error.to_string();
    let codes = [
        ("OOM", "oom"),
        ("READONLY", "readonly"),
        ("NOPERM", "noperm"),
        ("NOAUTH", "noauth"),
        ("WRONGPASS", "noauth"),
        ("LOADING", "loading"),
        ("BUSY", "busy"),
        ("MISCONF", "misconf"),
        // What is long is not read from those who have not said who they are.
        ("unauthenticated", "noauth"),
        // So says Redis 6.2 where a script may not do what it does.
        ("The user executing the script", "noperm"),
    ];
    let known = codes.iter().find(|(code, _)| text.contains(code));
    known.map_or("other", |(_, class)| class)
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisStore")
    }
}

#[cfg(test)]
pub(super) mod tests;
