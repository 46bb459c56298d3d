//! What the store does with one call: one script each.

use std::{fmt::Write, sync::Arc};

use redis::Cmd;

use crate::{
    admission::{
        Kept, Lease, Reason, Refusal,
        redis::{PATIENCE, RedisStore, SCRIPTS, StoreError, bounded, keys},
        scope::{Room, Scope},
        state::{Fate, Orphan},
        store::{
            Acquired, Adopted, Arrival, Choices, Ending, PickUp, PickedUp, Rebound, Released,
            Request,
        },
    },
    call::{CarrierCallId, EndReason},
    telemetry::StoreOperation,
};

/// How many calls one command names.
const AT_ONCE: usize = 1_000;

impl RedisStore {
    pub async fn acquire(
        &self,
        request: &Request<'_>,
        choices: &Choices<'_>,
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
            .arg(u8::from(choices.dials));
        let asked = self.asked_for(10, request.rooms);
        script.arg(asked.keys.len() + 10).arg(asked.args);
        script.key(asked.keys);
        self.choose_from(&mut script, choices.agents);
        script.key(&keys.unwritten);
        let mut reply = self.for_caller(StoreOperation::Acquire, script).await?;
        Ok(match reply.text()?.as_str() {
            "OK" => Acquired::Admitted {
                epoch: reply.number()?,
                used: reply.numbers()?,
                agent: reply.number()?,
            },
            "FULL" => Acquired::Refused(refusal(&reply.text()?)?),
            "REPEATED" => Acquired::Repeated(kept(&reply.text()?)?),
            "HELD" => Acquired::Held,
            "ENDED" => Acquired::Ended,
            "RESYNC" => Acquired::Resync,
            _ => return Err(StoreError::Garbled("acquire")),
        })
    }

    pub async fn adopt(
        &self,
        request: &Request<'_>,
        arrival: &Arrival<'_>,
    ) -> Result<Adopted, StoreError> {
        let keys = &self.inner.keys;
        let call = request.call.as_str();
        let mut script = SCRIPTS.adopt.prepare_invoke();
        script
            .key(&[&keys.generation, &keys.gate])
            .key(&[keys.ended(call), keys.ticket(arrival.nonce)])
            .key(&[&keys.setups, &keys.epoch])
            .key(&[keys.state(call), keys.owner(call)])
            .key(&[&keys.active, &keys.count])
            .key(keys.scope(&Scope::Setup))
            .arg(&[call, &self.inner.replica])
            .arg(request.lease)
            .arg(self.inner.longest_lease())
            .arg(arrival.state)
            .arg(u8::from(arrival.admitted_without));
        let rooms = request.rooms.iter();
        let rooms: Vec<Room> = rooms
            .filter(|room| room.scope.counts(true))
            .cloned()
            .collect();
        let asked = self.asked_for(11, &rooms);
        let last = asked.keys.len() + 11;
        script.key(asked.keys).arg(asked.args);
        if let Some(agent) = arrival.dials {
            script.key(keys.dials(agent)).arg(last + 1);
        }
        script.key(&keys.unwritten);
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
            "FULL" => Adopted::Refused(refusal(&reply.text()?)?),
            "USED" => Adopted::Used,
            "ENDED" => Adopted::Ended,
            _ => return Err(StoreError::Garbled("adopt")),
        })
    }

    pub async fn release(
        &self,
        lease: &Lease,
        scopes: &[Scope],
        ending: &Ending<'_>,
    ) -> Result<Released, StoreError> {
        self.give_back(&lease.call, Some(lease.epoch), scopes, ending)
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
        self.give_back(call, None, &scopes.unwrap_or_default(), &ending)
            .await
    }

    async fn give_back(
        &self,
        call: &CarrierCallId,
        epoch: Option<u64>,
        scopes: &[Scope],
        ending: &Ending<'_>,
    ) -> Result<Released, StoreError> {
        let keys = &self.inner.keys;
        let name = call.as_str();
        let mut script = SCRIPTS.release.prepare_invoke();
        script
            .key(&[keys.owner(name), keys.ended(name), keys.freed(name)])
            .key(&[keys.decision(name), keys.state(name)])
            .key(&[&keys.active, &keys.count, &keys.setups])
            .key(keys.scope(&Scope::Setup))
            .key(keys.scope(&Scope::Global));
        let others = scopes.iter();
        let others = others.filter(|scope| !matches!(scope, Scope::Global | Scope::Setup));
        let others: Vec<String> = others.map(|scope| keys.scope(scope)).collect();
        let last = others.len() + 10;
        script.key(others).key(self.dials_in(scopes));
        script
            .arg(name)
            .arg(epoch.map_or_else(|| "any".to_owned(), |epoch| epoch.to_string()))
            .arg(ending.reason.as_str())
            .arg(ending.without_media.as_str())
            .arg(ending.state.unwrap_or_default())
            .arg(u8::from(ending.forever))
            .arg(&self.inner.replica)
            .arg(u8::from(ending.had_media))
            .arg(last);
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
            _ => Released::Gone {
                reason,
                waited: waited == 1,
            },
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
        let others = scopes.iter().filter(|scope| **scope != Scope::Global);
        let others: Vec<String> = others.map(|scope| keys.scope(scope)).collect();
        let last = others.len() + 7;
        script.key(others).key(self.dials_in(scopes));
        let Refusal {
            scope,
            used,
            cap,
            reason,
        } = refusal;
        script
            .arg(&[name, &self.inner.replica])
            .arg(format!("R {used} {cap} {scope} {}", reason.as_str()))
            .arg(last);
        let mut reply = self.for_caller(StoreOperation::Refuse, script).await?;
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
        script.key(self.dials_in(scopes)).key(&keys.unwritten);
        script.arg(&[pending, named]).arg(lease.epoch).arg(state);
        let mut reply = self.for_caller(StoreOperation::Rebind, script).await?;
        match reply.text()?.as_str() {
            "OK" => Ok(Rebound::Named),
            "GONE" => Ok(Rebound::Gone),
            "ENDED" => Ok(Rebound::Ended),
            _ => Err(StoreError::Garbled("rebind")),
        }
    }

    pub async fn pick_up(
        &self,
        request: &Request<'_>,
        pick_up: &PickUp<'_>,
    ) -> Result<PickedUp, StoreError> {
        let keys = &self.inner.keys;
        let (call, pending) = (request.call.as_str(), pick_up.pending.as_str());
        let mut script = SCRIPTS.pick_up.prepare_invoke();
        script
            .key(&[&keys.generation, &keys.gate])
            .key(&[keys.decision(call), keys.ended(call), keys.ended(pending)])
            .key(&keys.epoch)
            .key(&[keys.owner(call), keys.owner(pending)])
            .key(&[keys.state(call), keys.state(pending)])
            .key(&[&keys.active, &keys.count])
            .arg(&[call, pending, &self.inner.replica])
            .arg(request.lease)
            .arg(self.inner.longest_lease())
            .arg(&[pick_up.ticket, pick_up.state])
            .arg(u8::from(pick_up.dials));
        let asked = self.asked_for(12, request.rooms);
        let last = asked.keys.len() + 12;
        script.key(asked.keys);
        match pick_up.agent {
            Some(agent) => script.key(keys.dials(agent)).arg(last + 1),
            None => script.arg(0),
        };
        script.key(&keys.unwritten);
        script.arg(asked.args);
        let mut reply = self.for_caller(StoreOperation::PickUp, script).await?;
        Ok(match reply.text()?.as_str() {
            "LIVE" => PickedUp::Waits {
                epoch: reply.number()?,
                gated: reply.number::<u8>()? == 1,
            },
            "FULL" => PickedUp::Refused(refusal(&reply.text()?)?),
            "REPEATED" => PickedUp::Repeated(kept(&reply.text()?)?),
            "ENDED" => PickedUp::Ended,
            _ => return Err(StoreError::Garbled("pick_up")),
        })
    }

    pub async fn fate(
        &self,
        call: &CarrierCallId,
        end_is_written: bool,
    ) -> Result<Fate, StoreError> {
        let keys = &self.inner.keys;
        let mut script = SCRIPTS.fate.prepare_invoke();
        script
            .key(&[keys.state(call.as_str()), keys.owner(call.as_str())])
            .key(&keys.replicas)
            .arg(u8::from(end_is_written));
        let mut reply = self.call(StoreOperation::Fate, script, PATIENCE).await?;
        Ok(match reply.text()?.as_str() {
            "SETTLED" => Fate::Settled,
            "OPEN" => Fate::Open,
            "LOST" => Orphan::read(&reply.text()?).map_or(Fate::Settled, Fate::Lost),
            _ => return Err(StoreError::Garbled("fate")),
        })
    }

    /// Tells that nobody need look after these calls any more.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn written(&self, calls: &[CarrierCallId]) -> Result<(), StoreError> {
        for some in calls.chunks(AT_ONCE) {
            let some: Vec<&str> = some.iter().map(CarrierCallId::as_str).collect();
            let written = Cmd::zrem(&self.inner.keys.unwritten, some);
            let inner = Arc::clone(&self.inner);
            let tell = self.run(async move {
                let mut link = inner.link.connected()?;
                bounded(PATIENCE, link.command(&written)).await
            });
            tell.await?;
        }
        Ok(())
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

    /// Returns the scopes that a call asks for and those that are reserved in them, as the scripts
    /// expect them: the first scope is the key after the first `before`.
    fn asked_for(&self, before: usize, rooms: &[Room]) -> AskedFor {
        let keys = &self.inner.keys;
        let mut args = vec![rooms.len().to_string()];
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
            args.extend([room.cap.to_string(), room.scope.to_string(), reserves]);
        }
        let keys = named.into_iter().map(|scope| keys.scope(scope));
        AskedFor {
            keys: keys.collect(),
            args,
        }
    }
}

/// What a script is told of the scopes that a call asks for.
struct AskedFor {
    keys: Vec<String>,
    args: Vec<String>,
}

/// Reads a decision as it is kept for a repeated webhook.
fn kept(text: &str) -> Result<Kept, StoreError> {
    match text.strip_prefix("A ") {
        Some(ticket) => Ok(Kept::Admitted(ticket.to_owned())),
        None => Ok(Kept::Refused(refusal(text)?)),
    }
}

fn refusal(text: &str) -> Result<Refusal, StoreError> {
    let words: Vec<&str> = text.split(' ').collect();
    let parsed = match words[..] {
        [_, used, cap, scope] => (used, cap, scope, Ok(Reason::Full)),
        [_, used, cap, scope, reason] => (used, cap, scope, reason.parse()),
        _ => return Err(StoreError::Garbled("a refusal")),
    };
    let (used, cap, scope, reason) = parsed;
    let refusal = || {
        Some(Refusal {
            reason: reason.ok()?,
            scope: keys::scope_of(scope)?,
            used: used.parse().ok()?,
            cap: cap.parse().ok()?,
        })
    };
    refusal().ok_or(StoreError::Garbled("a refusal"))
}

pub fn reason(text: &str) -> Result<EndReason, StoreError> {
    let known = text.parse();
    known.map_err(|()| StoreError::Garbled("an end reason"))
}
