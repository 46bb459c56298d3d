//! A replica's heartbeat, in batches.

use std::time::Duration;

use crate::{
    admission::{
        HEARTBEAT,
        redis::{PATIENCE, RedisStore, SCRIPTS, StoreError, calls::reason},
        scope::Scope,
        store::{Claim, News, Renewal, Renewed},
    },
    call::CarrierCallId,
    telemetry::StoreOperation,
};

/// How long the gate stays up: a tick, in which every living replica notices it and renews, and
/// twice as long for those that are late.
const GATE: Duration = Duration::from_secs(3);
/// How many calls one script renews: it must not hold up others for a millisecond.
const BATCH: usize = 40;
/// How many calls a replica looks after in a tick whose ends may not be written.
const LOOKED_AFTER: u32 = 100;
/// How many scopes one script counts.
const SCOPES: usize = 100;

impl RedisStore {
    /// Tells whether a renewal took longer than a caller would have waited for each of its parts.
    pub fn is_slow(&self, renewal: &Renewal<'_>, took: Duration) -> bool {
        let parts = renewal.claims.len().div_ceil(BATCH);
        let parts = parts.max(renewal.scopes.len().div_ceil(SCOPES)).max(1);
        took > self.inner.budget * u32::try_from(parts).unwrap_or(u32::MAX)
    }

    /// Renews in batches, the first of which puts up the gate where that is due, and gets the calls to
    /// look after. It is gated if the last of them was.
    pub async fn renew(&self, renewal: &Renewal<'_>) -> Result<Renewed, StoreError> {
        let mut claims = renewal.claims.chunks(BATCH);
        let mut scopes = renewal.scopes.chunks(SCOPES);
        let mut renewed = Renewed::default();
        let Renewal {
            mut puts_up_gate,
            mut looks_after,
            ..
        } = *renewal;
        loop {
            let (batch, counted) = (claims.next(), scopes.next());
            if batch.is_none() && counted.is_none() {
                return Ok(renewed);
            }
            let part = Renewal {
                claims: batch.unwrap_or_default(),
                scopes: counted.unwrap_or_default(),
                puts_up_gate,
                looks_after,
                ..renewal.clone()
            };
            let part = self.renew_part(&part).await?;
            (puts_up_gate, looks_after) = (false, false);
            renewed = Renewed {
                lapsed: [renewed.lapsed, part.lapsed].concat(),
                unwritten: [renewed.unwritten, part.unwritten].concat(),
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
            .arg(renewal.places.map_or(-1, i64::from))
            .arg(if renewal.looks_after { LOOKED_AFTER } else { 0 });
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
                .arg(whereabouts(claim))
                .arg(others.collect::<Vec<_>>().join(" "))
                .arg(claim.state.as_deref().unwrap_or_default())
                .arg(claim.ticket.as_deref().unwrap_or_default());
        }
        script.key(&keys.unwritten);
        let patience = if renewal.hurried {
            inner.budget
        } else {
            PATIENCE
        };
        let mut reply = self.call(StoreOperation::Renew, script, patience).await?;
        let (now, gated) = (reply.number()?, reply.number::<u8>()? == 1);
        let (replicas, siblings, places) = (reply.number()?, reply.number()?, reply.number()?);
        let (lapsed, unwritten) = (calls(reply.texts()?)?, calls(reply.texts()?)?);
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
            unwritten,
            used: counted.zip(counts).collect(),
            news,
        })
    }
}

/// Reads the names of calls; sorts them.
fn calls(names: Vec<String>) -> Result<Vec<CarrierCallId>, StoreError> {
    let calls = names.into_iter().map(CarrierCallId::try_from);
    let calls = calls.collect::<Result<Vec<_>, _>>();
    let mut calls = calls.map_err(|_| StoreError::Garbled("renew"))?;
    calls.sort();
    Ok(calls)
}

/// Returns what the script is told of a call's media.
fn whereabouts(claim: &Claim) -> &'static str {
    if claim.has_media {
        "1"
    } else if claim.scopes.contains(&Scope::Setup) {
        "0"
    } else {
        "r"
    }
}
