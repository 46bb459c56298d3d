//! Calls that nobody has any more, and of whose ends nobody may have written: what a replica that dies
//! had not committed.
//!
//! Invariant: the slot store hands out each of them to one replica after another, until somebody has
//! seen in its record that it is over. What is handed out may be forgotten, and may be written twice.
//! Invariant: who has written an end tells the store at once: what is deleted then does not come back.

use std::{collections::HashSet, sync::Arc};

use actix_web::web;
use futures_util::{StreamExt, stream};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    admission::{AT_ONCE, Fate, Orphan},
    call::{CallerId, CarrierCallId},
    gateway::Gateway,
    record::{Arrival, Direction, which_are_over},
};

/// Tells the slot store of calls whose ends are written, until `stop`.
pub async fn tell_written(gateway: web::Data<Gateway>, stop: CancellationToken) {
    let mut written = gateway.records.written();
    while let Some(heard) = stop.run_until_cancelled(written.recv()).await {
        let mut calls = match heard {
            Ok(call) => vec![call],
            // Whoever looks after those that were missed sees that they are over.
            Err(RecvError::Lagged(_)) => Vec::new(),
            Err(RecvError::Closed) => break,
        };
        while let Ok(call) = written.try_recv() {
            calls.push(call);
        }
        gateway.admission.written(&calls).await;
    }
}

impl Gateway {
    /// Writes that calls are lost which their replicas have taken with them, but for those that somebody
    /// has after all; says of which there is nothing to write any more.
    pub(super) fn look_after_unwritten(self: &Arc<Self>, calls: &[CarrierCallId]) {
        if calls.is_empty() {
            return;
        }
        let (gateway, calls) = (Arc::clone(self), calls.to_vec());
        self.chores.spawn(async move {
            let over = gateway.over_in_records(&calls).await;
            let settled = calls.into_iter().map(async |call| {
                let settled = gateway.is_settled(&call, over.as_ref());
                let is_settled = settled.instrument(gateway.span_of(&call)).await;
                is_settled.then_some(call)
            });
            let settled = stream::iter(settled).buffer_unordered(AT_ONCE);
            let settled: Vec<_> = settled.collect().await;
            let settled: Vec<_> = settled.into_iter().flatten().collect();
            gateway.admission.written(&settled).await;
        });
    }

    /// Returns those of these calls that are over in their records; `None` while the database takes
    /// nothing.
    async fn over_in_records(&self, calls: &[CarrierCallId]) -> Option<HashSet<CarrierCallId>> {
        if self.records.standing().failing.is_some() {
            return None;
        }
        let over = which_are_over(&self.records.database, calls).await;
        over.inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::debug!(error, "nobody could look after unwritten calls");
        })
        .ok()
    }

    /// Tells whether there is nothing to write of a call any more; has it written that it is lost, if
    /// so. While nothing can be written it is left to the store, because what waits here dies with us.
    async fn is_settled(
        &self,
        call: &CarrierCallId,
        over: Option<&HashSet<CarrierCallId>>,
    ) -> bool {
        if over.is_some_and(|over| over.contains(call)) {
            return true;
        }
        let orphan = match self.admission.fate(call).await {
            Fate::Settled => return true,
            Fate::Open => return false,
            Fate::Lost(orphan) => orphan,
        };
        let Some(arrival) = arrival_of(&orphan) else {
            return true; // Nobody of ours has told of it.
        };
        if over.is_some() {
            tracing::warn!(replica = orphan.replica, "a call is lost with its replica");
            self.timeline.lost(call, arrival, orphan.rang_at);
        }
        false // It is once that is committed.
    }
}

/// Returns what is known of a call whose replica is gone.
fn arrival_of(orphan: &Orphan) -> Option<Arrival> {
    Some(Arrival {
        direction: if orphan.is_outbound() {
            Direction::Outbound
        } else {
            Direction::Inbound
        },
        tenant: orphan.tenant.parse().ok()?,
        campaign: orphan.campaign.parse().ok()?,
        agent: orphan.agent.parse().ok(),
        caller: CallerId::masked(orphan.caller.as_deref().unwrap_or_default()),
        called: CallerId::masked("unknown"),
        refused: None,
        placed_as: None,
        seen: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_call_is_recorded_as_one_that_came_in_or_that_we_have_placed() {
        for (scopes, direction) in [
            (r#"["global","tenant:acme"]"#, Direction::Inbound),
            (
                r#"["global","outbound","tenant:acme"]"#,
                Direction::Outbound,
            ),
        ] {
            let state = format!(
                r#"{{"tenant":"acme","campaign":"sales","agent":"default","state":"live",
                "replica":"r1","scopes":{scopes}}}"#
            );
            let arrival = arrival_of(&Orphan::read(&state).unwrap()).unwrap();
            assert_eq!(arrival.direction, direction, "{scopes}");
        }
    }
}
