//! Calls that nobody has any more, and of whose ends nobody may have written: what a replica that dies
//! had not committed.
//!
//! Invariant: the slot store hands out each of them to one replica after another, until somebody has
//! seen in its record that it is over. What is handed out may be forgotten, and may be written twice.
//! Invariant: who has written an end tells the store, and so does who deletes a call: it does not come
//! back as lost.
//! Invariant: no call is lost while a replica may live that had it or notes its end, be it that the
//! store has heard of it of late or the database.

use std::{collections::HashMap, sync::Arc};

use actix_web::web;
use futures_util::{StreamExt, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    admission::{AT_ONCE, Fate, Orphan},
    call::{CallId, CallerId, CarrierCallId},
    gateway::Gateway,
    outbound,
    record::{Arrival, DatabaseError, Direction, OVER, State, find_placed, which_are_over},
};

/// Tells the slot store of calls whose ends are written, until `stop`.
pub async fn tell_written(gateway: web::Data<Gateway>, stop: CancellationToken) {
    let mut written = gateway.records.written();
    while let Some(heard) = stop.run_until_cancelled(written.recv()).await {
        match heard {
            Ok(call) => gateway.tell_written(vec![call], &mut written).await,
            // Whoever looks after those that were missed sees that they are over.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => break,
        }
    }
}

impl Gateway {
    /// Tells the slot store that the ends of these calls are written, and of all that `written` knows.
    pub(super) async fn tell_written(
        &self,
        mut calls: Vec<CarrierCallId>,
        written: &mut Receiver<CarrierCallId>,
    ) {
        while let Ok(call) = written.try_recv() {
            calls.push(call);
        }
        self.admission.written(&calls).await;
    }

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

    /// Returns those of these calls that are over in their records, and whether it is known whose each
    /// is; `None` while the database takes nothing.
    async fn over_in_records(
        &self,
        calls: &[CarrierCallId],
    ) -> Option<HashMap<CarrierCallId, bool>> {
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
        over: Option<&HashMap<CarrierCallId, bool>>,
    ) -> bool {
        // A sibling that was told of its end knows no more of a call than that.
        let end_is_written = match over.and_then(|over| over.get(call)) {
            Some(true) => return true,
            Some(false) => true,
            None => false,
        };
        let orphan = match self.admission.fate(call, end_is_written).await {
            Fate::Settled => return true,
            Fate::Open => return over.is_some() && self.is_unplaced(call).await,
            Fate::Lost(orphan) => orphan,
        };
        // Who is cut off from the store alone carries its calls all the same, and shows that it lives.
        let mut knowers = orphan.knowers(end_is_written);
        if over.is_none() || knowers.any(|it| self.records.may_live(it)) {
            return false;
        }
        let Some(arrival) = arrival_of(&orphan) else {
            return true;
        };
        let lost_as = if orphan.is_outbound() {
            self.lost_as(&orphan).await
        } else {
            Ok(Some(call.clone()))
        };
        let name = match lost_as {
            Ok(Some(name)) => name,
            Ok(None) => return true,
            Err(_) => return false,
        };
        tracing::warn!(replica = orphan.replica, "a call is lost with its replica");
        self.timeline.lost(&name, arrival, orphan.rang_at);
        false // It is once that is committed.
    }

    /// Returns by what name a call that we have placed is lost with its replica; `None` if its record is
    /// closed by others: one that nobody has picked up was there before it was dialed, and is looked
    /// after by whoever goes on with it.
    async fn lost_as(&self, orphan: &Orphan) -> Result<Option<CarrierCallId>, DatabaseError> {
        let database = &self.records.database;
        let Some(placed) = orphan.call_id else {
            return Ok(None);
        };
        let Some((name, rank)) = find_placed(database, placed).await? else {
            return Ok(None); // It was deleted.
        };
        // A sibling that has heard of its end has noted that alone: the store does not say then whether
        // it was picked up.
        let was_picked_up = orphan.is_live()
            || rank >= State::Admitted.rank()
            || outbound::is_picked_up(database, placed).await?;
        Ok((was_picked_up && rank < OVER).then_some(name))
    }

    /// Tells whether this is a call that was to be placed, held a slot for that, and was forgotten: there
    /// will be no record of it.
    async fn is_unplaced(&self, call: &CarrierCallId) -> bool {
        if !call.is_pending() {
            return false;
        }
        let (id, database) = (CallId::of(call), &self.records.database);
        matches!(outbound::is_noted(database, id).await, Ok(false))
            && matches!(find_placed(database, id).await, Ok(None))
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
