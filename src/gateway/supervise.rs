//! The tasks that look after slots and the agents of calls that ring.

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use actix_web::web;
use futures_util::FutureExt;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{HEARTBEAT, TICK, ToFree, Upkeep},
    call::{Carrier, EndReason},
    gateway::Gateway,
};

/// Gives dropped slots back. A call's own future may be cancelled at any time; this task is not.
pub async fn give_slots_back(
    gateway: web::Data<Gateway>,
    mut to_free: ToFree,
    stop: CancellationToken,
) {
    let give_back = async |to_free: &mut ToFree| {
        while let Some(Some(freed)) = stop.run_until_cancelled(to_free.recv()).await {
            gateway.admission.release(freed).await;
        }
    };
    while survives(give_back(&mut to_free)).await.is_none() {}
    while let Ok(freed) = to_free.try_recv() {
        gateway.admission.release(freed).await;
    }
    gateway.admission.leave().await;
}

/// Renews the leases of this replica's calls, and sees to what that shows.
pub async fn keep_slots(gateway: web::Data<Gateway>, stop: CancellationToken) {
    let keep = async || {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beat = Instant::now();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = gateway.admission.nudged() => {}
            }
            let everything = beat <= Instant::now();
            if everything {
                beat = Instant::now() + jittered(HEARTBEAT);
            }
            let upkeep = renew(&gateway, everything).await;
            gateway.look_after(&upkeep);
            gateway.dismiss_forgotten_agents();
        }
    };
    while let Some(None) = stop.run_until_cancelled(survives(keep())).await {}
}

/// Renews, and says so each time a tick passes without the store's answer.
pub async fn renew(gateway: &Gateway, everything: bool) -> Upkeep {
    let campaigns = gateway.campaigns.current();
    let scopes = gateway.admission.scopes(&campaigns).into_iter();
    let scopes: Vec<_> = scopes.map(|(scope, _)| scope).collect();
    let renewal = gateway
        .admission
        .renew(everything, &scopes, gateway.free_places());
    let mut renewal = std::pin::pin!(renewal);
    loop {
        tokio::select! {
            upkeep = &mut renewal => return upkeep,
            () = sleep(TICK) => gateway.admission.is_kept_waiting(),
        }
    }
}

impl Gateway {
    /// Tells the calls that a renewal concerns.
    fn look_after(&self, upkeep: &Upkeep) {
        for slot in &upkeep.taken_over {
            self.connections.end_lost(*slot, EndReason::TakenOver);
        }
        for (slot, reason) in &upkeep.over {
            self.connections.end_lost(*slot, *reason);
        }
        for call in &upkeep.never_came {
            self.dismiss_agent(call);
            self.ended(call, Carrier::Twilio, EndReason::NoMedia);
        }
        for call in &upkeep.gone_elsewhere {
            self.dismiss_agent(call);
        }
    }
}

/// Spreads the heartbeats of replicas that were started together by a tenth either way.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(rand::random_range(0.9..1.1))
}

/// Completes with the task, or with `None` if it panicked and is to be begun anew.
async fn survives(task: impl Future<Output = ()>) -> Option<()> {
    let survived = AssertUnwindSafe(task).catch_unwind().await;
    if survived.is_err() {
        tracing::error!("looking after slots panicked and goes on: this is a bug");
    }
    survived.ok()
}
