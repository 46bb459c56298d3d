//! What the store does with one call: one script each.

use std::fmt::Write;

use redis::ScriptInvocation;

use crate::{
    admission::{
        Kept, Lease, Reason, Refusal,
        redis::{RedisStore, SCRIPTS, StoreError, keys},
        scope::{Room, Scope},
        store::{Acquired, Adopted, Ending, Rebound, Released, Request},
    },
    call::{CarrierCallId, EndReason},
    telemetry::StoreOperation,
};

impl RedisStore {
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
            .arg(epoch.map_or_else(|| "any".to_owned(), |epoch| epoch.to_string()))
            .arg(ending.reason.as_str())
            .arg(ending.without_media.as_str())
            .arg(ending.state.unwrap_or_default())
            .arg(u8::from(ending.forever))
            .arg(&self.inner.replica)
            .arg(u8::from(ending.had_media));
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

pub fn reason(text: &str) -> Result<EndReason, StoreError> {
    let known = text.parse();
    known.map_err(|()| StoreError::Garbled("an end reason"))
}
