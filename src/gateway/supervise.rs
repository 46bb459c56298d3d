//! The task that looks after slots and the agents of calls that ring.

use std::panic::AssertUnwindSafe;

use actix_web::web;
use futures_util::FutureExt;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Freed, HEARTBEAT, TICK},
    call::{Carrier, EndReason},
    gateway::Gateway,
};

/// Runs the task that looks after slots, whatever happens in it.
pub async fn supervise(gateway: web::Data<Gateway>, mut freed: Freed, stop: CancellationToken) {
    loop {
        let look_after = AssertUnwindSafe(look_after_slots(&gateway, &mut freed, &stop));
        if look_after.catch_unwind().await.is_ok() {
            break;
        }
        tracing::error!("looking after slots panicked and goes on: this is a bug");
    }
    while let Ok(lease) = freed.try_recv() {
        gateway.admission.release(&lease);
    }
}

/// Gives dropped slots back, renews live leases and takes lapsed ones back. A call's own future
/// may be cancelled at any time; this task is not.
async fn look_after_slots(gateway: &Gateway, freed: &mut Freed, stop: &CancellationToken) {
    let mut tick = interval(TICK);
    let mut heartbeat = interval(HEARTBEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(lease) = freed.recv() => gateway.admission.release(&lease),
            _ = heartbeat.tick() => {
                let lost = gateway.admission.renew();
                gateway.connections.end_lost(&lost, EndReason::CarrierEnded);
            }
            _ = tick.tick() => {
                for call in gateway.admission.expire() {
                    gateway.dismiss_agent(&call);
                    gateway.ended(&call, Carrier::Twilio, EndReason::NoMedia);
                }
                gateway.dismiss_forgotten_agents();
            }
            () = stop.cancelled() => return,
        }
    }
}
