//! Callers, replicas and a store, in steps of a few milliseconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::campaign::Name;

const STEP: u64 = 20;
const TICK: u64 = 1_000;
const HEARTBEAT: u64 = 5_000;
const SETUP: u64 = 20_000;
const LEASE: u64 = 30_000;
const GATE: u64 = 3_000;
/// How long a replica counts that says nothing.
const SILENCE: u64 = 15_000;
/// What the second tenant is called.
const SECOND: &str = "second";

/// The rules, each of which can be left out to see what it is good for.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "one for each rule")]
pub struct Rules {
    pub distrusts_gated_counts: bool,
    pub latches_when_trouble_begins: bool,
    pub registers_at_once: bool,
    pub puts_up_gate: bool,
    pub moves_allowances: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        distrusts_gated_counts: true,
        latches_when_trouble_begins: true,
        registers_at_once: true,
        puts_up_gate: true,
        moves_allowances: true,
    };
}

#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// No more than 50.
    pub rings_per_second: u32,
    pub mean_ms: u64,
    /// How many in a hundred bring no media.
    pub without_media: u32,
    /// How many in a hundred may bring it to any replica, and not to the one that admitted them.
    pub elsewhere: u32,
    pub cap: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody reaches the store.
    Away,
    /// It loses everything, and answers all the time.
    Loss,
    /// It comes back empty.
    AwayAndLoss,
}

pub struct World {
    now: u64,
    random: StdRng,
    load: Load,
    /// What the tenants' calls need.
    rooms: [Vec<Room>; 2],
    rules: Rules,
    store: SharedStore,
    replicas: Vec<Replica>,
    /// The calls that were admitted and are not over.
    calls: BTreeMap<u32, Caller>,
    next: u32,
    fault: Option<Fault>,
    /// How many calls some replica did not know of when a fault began, by scope, at most.
    unseen: HashMap<Scope, u32>,
    /// How many the store has let in while there was still trouble elsewhere.
    overlapping: HashMap<Scope, u32>,
    worst: i64,
}

/// A call as its caller knows it.
struct Caller {
    tenant: Tenant,
    /// When its media comes, and where to, unless it is there.
    media: Option<(u64, usize)>,
    live_at: Option<usize>,
    ends: u64,
    /// Until when its ticket is good.
    until: u64,
    degraded: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tenant {
    First,
    Second,
}

#[derive(Default)]
struct SharedStore {
    is_away: bool,
    is_known: bool,
    gated_until: u64,
    leases: BTreeMap<u32, Leased>,
    epoch: u64,
    ended: BTreeSet<u32>,
    heard: BTreeMap<usize, u64>,
}

struct Leased {
    until: u64,
    epoch: u64,
    owner: usize,
    has_media: bool,
    tenant: Tenant,
}

/// What [`super::Outage`] is asked and told, as admission does it.
struct Replica {
    at: usize,
    outage: Outage,
    calls: BTreeMap<u32, Entry>,
    ticks_at: u64,
    /// Whether it is to renew before its next tick.
    is_nudged: bool,
    beats_at: u64,
    /// Ends that the store is to hear of, each with its epoch; 0 is the carrier's word.
    owed: Vec<(u32, u64)>,
    /// What it held at the last reply.
    held_before: HashMap<Scope, u32>,
}

#[derive(Clone)]
struct Entry {
    epoch: u64,
    /// Until when its media may come; `None` once it is here.
    until: Option<u64>,
    tenant: Tenant,
}

enum Heard {
    Lost(u32),
    TakenIn(u32, u64),
}

impl World {
    pub fn new(seed: u64, replicas: usize, load: Load, rules: Rules) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let replicas = (0..replicas).map(|at| Replica {
            at,
            outage: Outage::new(RedisOutage::Bounded, 1),
            calls: BTreeMap::new(),
            ticks_at: random.random_range(0..TICK),
            is_nudged: false,
            beats_at: 0,
            owed: Vec::new(),
            held_before: HashMap::new(),
        });
        Self {
            now: 0,
            replicas: replicas.collect(),
            random,
            load,
            rooms: [Tenant::First, Tenant::Second].map(|tenant| rooms(tenant, load)),
            rules,
            store: SharedStore::default(),
            calls: BTreeMap::new(),
            next: 0,
            fault: None,
            unseen: HashMap::new(),
            overlapping: HashMap::new(),
            worst: i64::MIN,
        }
    }

    /// Returns by how many calls the worst moment was above its bound.
    pub fn worst(&self) -> i64 {
        self.worst
    }

    pub fn live(&self) -> u32 {
        self.count(&Scope::Global)
    }

    pub fn rings(&mut self, per_second: u32) {
        self.load.rings_per_second = per_second;
    }

    pub fn begin(&mut self, fault: Fault) {
        for scope in all_scopes() {
            let oldest = self.replicas.iter().map(|it| it.outage.used(&scope)).min();
            let unseen = self.count(&scope).saturating_sub(oldest.unwrap_or(0));
            let unseen = unseen + count(&self.overlapping, &scope);
            let most = self.unseen.entry(scope).or_insert(0);
            *most = unseen.max(*most);
        }
        if fault == Fault::Loss {
            self.store.lose();
        }
        self.store.is_away = fault != Fault::Loss;
        self.fault = Some(fault);
    }

    pub fn end_fault(&mut self) {
        if self.fault.take() == Some(Fault::AwayAndLoss) {
            self.store.lose();
        }
        self.store.is_away = false;
    }

    pub fn run(&mut self, for_ms: u64) {
        for _ in 0..for_ms / STEP {
            self.now += STEP;
            for at in 0..self.replicas.len() {
                let replica = &mut self.replicas[at];
                let ticks = replica.ticks_at <= self.now;
                if ticks {
                    replica.ticks_at += TICK;
                }
                if ticks || replica.is_nudged {
                    replica.is_nudged = false;
                    self.renew(at);
                }
            }
            // Until everybody has been there once, there is no count to go by.
            let ring = self.random.random_range(0..1_000_u64);
            let share = u64::from(self.load.rings_per_second) * STEP;
            if self.now > 2 * TICK + GATE && ring < share {
                self.ring();
            }
            self.go_on();
            self.check();
            if self.replicas.iter().all(|it| it.outage.may_ask()) {
                self.overlapping.clear();
            }
        }
    }

    fn check(&mut self) {
        for room in self.rooms.iter().flatten() {
            let unseen = count(&self.unseen, &room.scope);
            let over = i64::from(self.count(&room.scope)) - i64::from(room.cap + unseen);
            self.worst = self.worst.max(over);
        }
    }

    fn count(&self, scope: &Scope) -> u32 {
        let calls = self.calls.values();
        let counted = calls.filter(|call| call.tenant.counts(scope));
        u32::try_from(counted.count()).unwrap()
    }

    fn ring(&mut self) {
        let replicas = self.replicas.len();
        let at = self.random.random_range(0..replicas);
        let tenant = match self.random.random_range(0..3) {
            0 => Tenant::Second,
            _ => Tenant::First,
        };
        let comes = self.now + self.random.random_range(100..1_500);
        let ends = comes + self.random.random_range(0..2 * self.load.mean_ms);
        let mut media = (comes, at);
        if self.random.random_range(0..100) < self.load.elsewhere {
            media.1 = self.random.random_range(0..replicas);
        }
        let brings_media = self.random.random_range(0..100) >= self.load.without_media;
        self.next += 1;
        if let Some(degraded) = self.admit(at, self.next, tenant) {
            let caller = Caller {
                tenant,
                media: brings_media.then_some(media),
                live_at: None,
                ends,
                until: self.now + SETUP,
                degraded,
            };
            self.calls.insert(self.next, caller);
        }
    }

    /// Decides about a call; says of an admitted one whether that was without the store.
    fn admit(&mut self, at: usize, call: u32, tenant: Tenant) -> Option<bool> {
        let (now, rules) = (self.now, self.rules);
        let rooms = &self.rooms[tenant as usize];
        let is_trouble = self.replicas.iter().any(|it| !it.outage.may_ask());
        let (replica, store) = (&mut self.replicas[at], &mut self.store);
        let until = now + SETUP;
        if replica.outage.may_ask() {
            if store.is_away {
                replica.fails(now, rules);
            } else if store.is_gated(now) {
                replica.is_gated(now, rules);
            } else if let Some((scope, used)) = store.full(now, rooms) {
                replica.outage.counted([(&scope, used)]);
                return None;
            } else {
                let epoch = store.next_epoch();
                store.put(now, at, call, epoch, Some(until), tenant);
                let used = rooms.iter().map(|room| &room.scope);
                replica
                    .outage
                    .counted(used.map(|scope| (scope, store.count(now, scope))));
                replica.enter(call, epoch, Some(until), tenant);
                replica.held_before = replica.held();
                for scope in tenant.scopes().into_iter().filter(|_| is_trouble) {
                    *self.overlapping.entry(scope).or_insert(0) += 1;
                }
                return Some(false);
            }
        }
        let held = replica.held();
        if replica.outage.decide(rooms, &held) != Verdict::Admit {
            return None;
        }
        replica.enter(call, 0, Some(until), tenant);
        if replica.outage.trouble() == Some(Kind::Gated) && rules.registers_at_once {
            if store.is_away {
                replica.fails(now, rules);
                return Some(true);
            }
            let claims = BTreeMap::from([(call, replica.calls[&call].clone())]);
            let heard = store.renew(now, at, &claims, false);
            replica.hear(heard, rules);
            let mut rooms = rooms.iter();
            if rooms.any(|room| store.count(now, &room.scope) > room.cap) {
                replica.calls.remove(&call);
                store.leases.remove(&call);
                return None;
            }
        }
        Some(true)
    }

    /// Brings media, and ends calls.
    fn go_on(&mut self) {
        let now = self.now;
        let over = |call: &Caller| call.ends <= now || call.live_at.is_none() && call.until <= now;
        let calls = self.calls.iter();
        let due = calls.filter(|(_, it)| over(it) || it.media.is_some_and(|(at, _)| at <= now));
        for call in due.map(|(call, _)| *call).collect::<Vec<_>>() {
            let caller = &self.calls[&call];
            if over(caller) {
                self.hang_up(call);
            } else if let Some((_, at)) = caller.media {
                self.bring_media(call, at);
            }
        }
    }

    fn bring_media(&mut self, call: u32, at: usize) {
        let (now, rules) = (self.now, self.rules);
        let Caller {
            tenant, degraded, ..
        } = self.calls[&call];
        let rooms = &self.rooms[tenant as usize];
        let (replica, store) = (&mut self.replicas[at], &mut self.store);
        let mut epoch = 0;
        if replica.outage.trouble() != Some(Kind::Away) {
            if store.is_away {
                replica.fails(now, rules);
            } else {
                let needs_room = !degraded && !store.is_gated(now) && !store.holds(now, call);
                if needs_room && store.full(now, rooms).is_some() {
                    self.calls.remove(&call);
                    return;
                }
                epoch = store.next_epoch();
                store.put(now, at, call, epoch, None, tenant);
                if store.is_gated(now) {
                    replica.is_gated(now, rules);
                }
            }
        }
        if replica.calls.remove(&call).is_none() && rules.moves_allowances {
            replica.outage.came(&tenant.scopes());
        }
        replica.enter(call, epoch, None, tenant);
        if let Some(caller) = self.calls.get_mut(&call) {
            caller.media = None;
            caller.live_at = Some(at);
        }
    }

    /// A caller hangs up: the replica with its media hears of it, and any one from the carrier.
    fn hang_up(&mut self, call: u32) {
        let caller = self.calls.remove(&call).unwrap();
        if let Some(at) = caller.live_at
            && let Some(entry) = self.replicas[at].calls.remove(&call)
        {
            self.settle(at, call, entry.epoch);
        }
        let told = self.random.random_range(0..self.replicas.len());
        let replica = &mut self.replicas[told];
        if let Some(entry) = replica.calls.get(&call).cloned()
            && entry.until.is_some()
        {
            replica.calls.remove(&call);
            if self.rules.moves_allowances {
                replica.outage.went(&entry.tenant.scopes());
            }
        }
        self.settle(told, call, 0);
    }

    /// Tells the store that a call is over, or owes it that.
    fn settle(&mut self, at: usize, call: u32, epoch: u64) {
        let replica = &mut self.replicas[at];
        if replica.outage.trouble() != Some(Kind::Away) {
            if !self.store.is_away {
                self.store.end(call, epoch);
                return;
            }
            replica.fails(self.now, self.rules);
        }
        replica.owed.push((call, epoch));
    }

    fn renew(&mut self, at: usize) {
        let (now, rules) = (self.now, self.rules);
        let (replica, store) = (&mut self.replicas[at], &mut self.store);
        replica.give_up_on_lapsed(now, rules, store);
        let trouble = replica.outage.trouble();
        let everything = replica.beats_at <= now || trouble.is_some();
        if everything {
            replica.beats_at = now + HEARTBEAT;
        }
        if store.is_away {
            replica.fails(now, rules);
            return;
        }
        let mut claims = replica.calls.clone();
        claims.retain(|_, it| everything || it.until.is_some() || it.epoch == 0);
        let gate = replica.outage.must_gate() && rules.puts_up_gate;
        let heard = store.renew(now, replica.at, &claims, gate);
        replica.hear(heard, rules);
        let counts = all_scopes().map(|scope| {
            let used = store.count(now, &scope);
            (scope, used)
        });
        let counts = counts.iter().map(|(scope, used)| (scope, *used));
        let elapsed = Duration::from_millis(now);
        if store.is_gated(now) {
            if !rules.distrusts_gated_counts {
                replica.outage.recovered(elapsed);
                replica.outage.counted(counts);
            }
            replica.is_gated(now, rules);
        } else {
            replica.outage.recovered(elapsed);
            replica.outage.counted(counts);
            replica.held_before = replica.held();
        }
        replica.outage.replicas(store.replicas(now));
        for (call, epoch) in std::mem::take(&mut replica.owed) {
            store.end(call, epoch);
        }
    }
}

impl Replica {
    fn enter(&mut self, call: u32, epoch: u64, until: Option<u64>, tenant: Tenant) {
        let entry = Entry {
            epoch,
            until,
            tenant,
        };
        self.calls.insert(call, entry);
    }

    fn held(&self) -> HashMap<Scope, u32> {
        let counted = all_scopes().map(|scope| {
            let calls = self.calls.values();
            let counted = calls.filter(|entry| entry.tenant.counts(&scope)).count();
            (scope, u32::try_from(counted).unwrap())
        });
        counted.into_iter().collect()
    }

    fn latched(&self, rules: Rules) -> HashMap<Scope, u32> {
        if rules.latches_when_trouble_begins {
            self.held()
        } else {
            self.held_before.clone()
        }
    }

    fn fails(&mut self, now: u64, rules: Rules) {
        let held = self.latched(rules);
        self.is_nudged |= self.outage.trouble() != Some(Kind::Away);
        self.outage.failed(Duration::from_millis(now), &held);
    }

    fn is_gated(&mut self, now: u64, rules: Rules) {
        let held = self.latched(rules);
        self.is_nudged |= self.outage.trouble() != Some(Kind::Gated);
        self.outage.gated(Duration::from_millis(now), &held);
    }

    fn hear(&mut self, heard: Vec<Heard>, rules: Rules) {
        for heard in heard {
            match heard {
                Heard::TakenIn(call, epoch) => {
                    if let Some(entry) = self.calls.get_mut(&call) {
                        entry.epoch = epoch;
                    }
                }
                Heard::Lost(call) => {
                    let lost = self.calls.remove(&call);
                    if let Some(entry) = lost.filter(|entry| entry.until.is_some())
                        && rules.moves_allowances
                    {
                        self.outage.went(&entry.tenant.scopes());
                    }
                }
            }
        }
    }

    fn give_up_on_lapsed(&mut self, now: u64, rules: Rules, store: &mut SharedStore) {
        let lapsed = self.calls.iter();
        let lapsed = lapsed.filter(|(_, entry)| entry.until.is_some_and(|until| until <= now));
        for call in lapsed.map(|(call, _)| *call).collect::<Vec<_>>() {
            let entry = self.calls.remove(&call).unwrap();
            if rules.moves_allowances {
                self.outage.went(&entry.tenant.scopes());
            }
            if self.outage.trouble() != Some(Kind::Away) && !store.is_away {
                store.release(call, entry.epoch);
            }
        }
    }
}

impl SharedStore {
    fn lose(&mut self) {
        *self = Self {
            is_away: self.is_away,
            epoch: self.epoch, // As a clock goes on.
            ..Self::default()
        };
    }

    fn is_gated(&self, now: u64) -> bool {
        !self.is_known || now < self.gated_until
    }

    fn holds(&self, now: u64, call: u32) -> bool {
        self.leases.get(&call).is_some_and(|it| now < it.until)
    }

    fn count(&self, now: u64, scope: &Scope) -> u32 {
        let leases = self.leases.values().filter(|lease| now < lease.until);
        let counted = leases.filter(|lease| lease.tenant.counts(scope));
        u32::try_from(counted.count()).unwrap()
    }

    /// Returns the first scope in which a call would be one too many, and what it holds.
    fn full(&self, now: u64, rooms: &[Room]) -> Option<(Scope, u32)> {
        rooms.iter().find_map(|room| {
            let used = self.count(now, &room.scope);
            let cap = room.open_to_all(|scope| self.count(now, scope));
            (used >= cap).then(|| (room.scope.clone(), used))
        })
    }

    fn replicas(&self, now: u64) -> u32 {
        let heard = self.heard.values().filter(|at| now < **at + SILENCE);
        u32::try_from(heard.count()).unwrap()
    }

    fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// `until` is given for a call that waits for its media.
    fn put(
        &mut self,
        now: u64,
        owner: usize,
        call: u32,
        epoch: u64,
        until: Option<u64>,
        tenant: Tenant,
    ) {
        let lease = Leased {
            until: until.unwrap_or(now + LEASE),
            epoch,
            owner,
            has_media: until.is_none(),
            tenant,
        };
        self.leases.insert(call, lease);
    }

    fn release(&mut self, call: u32, epoch: u64) {
        let owner = self.leases.get(&call).map(|lease| lease.epoch);
        if owner.is_some_and(|owner| owner <= epoch || epoch == 0) {
            self.leases.remove(&call);
        }
    }

    fn end(&mut self, call: u32, epoch: u64) {
        self.release(call, epoch);
        self.ended.insert(call);
    }

    fn renew(
        &mut self,
        now: u64,
        by: usize,
        claims: &BTreeMap<u32, Entry>,
        gate: bool,
    ) -> Vec<Heard> {
        if !self.is_known || gate {
            self.gated_until = now + GATE;
        }
        self.is_known = true;
        self.heard.insert(by, now);
        self.leases.retain(|_, lease| now < lease.until);
        let renewed = claims.iter().map(|(call, claim)| {
            let stored = self.leases.get(call);
            let waits = claim.until.is_some();
            let later = stored.filter(|it| claim.epoch > 0 && it.epoch > claim.epoch);
            let is_lost = later.is_some_and(|later| later.has_media || waits);
            let is_elsewhere = stored.is_some_and(|it| it.owner != by);
            if is_lost || claim.epoch == 0 && waits && is_elsewhere || self.ended.contains(call) {
                return Heard::Lost(*call);
            }
            let epoch = if claim.epoch == 0 || later.is_some() {
                self.next_epoch()
            } else {
                claim.epoch
            };
            self.put(now, by, *call, epoch, claim.until, claim.tenant);
            Heard::TakenIn(*call, epoch)
        });
        renewed.collect()
    }
}

impl Tenant {
    fn scopes(self) -> [Scope; 2] {
        let [global, first, second] = all_scopes();
        match self {
            Self::First => [global, first],
            Self::Second => [global, second],
        }
    }

    /// Tells whether this tenant's calls count in a scope.
    fn counts(self, scope: &Scope) -> bool {
        scope.name().is_empty() || (scope.name() == SECOND) == (self == Self::Second)
    }
}

fn all_scopes() -> [Scope; 3] {
    static SCOPES: LazyLock<[Scope; 3]> = LazyLock::new(|| {
        let [first, second] = ["first", SECOND].map(|name| name.parse::<Name>().unwrap());
        [Scope::Global, Scope::Tenant(first), Scope::Tenant(second)]
    });
    SCOPES.clone()
}

/// Returns what a call needs: the first tenant leaves the second a few slots of the global cap.
fn rooms(tenant: Tenant, load: Load) -> Vec<Room> {
    let [global, first, second] = all_scopes();
    let mut global = Room::new(global, load.cap);
    match tenant {
        Tenant::First => {
            global.reserves.push((second, load.cap / 10));
            vec![global, Room::new(first, load.cap)]
        }
        Tenant::Second => vec![global, Room::new(second, load.cap / 3)],
    }
}
