//! The tasks that look after slots and the agents of calls that ring.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use actix_web::web;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    admission::{AT_ONCE, AgentNews, HEARTBEAT, Rest, TICK, ToFree, Trouble, Upkeep},
    call::{CarrierCallId, EndReason},
    gateway::Gateway,
};

/// Gives dropped slots back. A call's own future may be cancelled at any time; this task is not.
pub async fn give_slots_back(
    gateway: web::Data<Gateway>,
    mut to_free: ToFree,
    stop: CancellationToken,
) {
    loop {
        let given_back = survives(give_back(&gateway, &mut to_free));
        if !matches!(stop.run_until_cancelled(given_back).await, Some(None)) {
            break;
        }
    }
    while let Ok(freed) = to_free.try_recv() {
        gateway.admission.release(freed).await;
    }
    // Nobody else would tell: what is still owed would hold until its lease lapses.
    pay_debts(&gateway).await;
}

/// Gives back several at once: no slot waits behind another for a store that is far away.
async fn give_back(gateway: &web::Data<Gateway>, to_free: &mut ToFree) {
    let dropped = stream::poll_fn(|context| to_free.poll_recv(context));
    let all = dropped.for_each_concurrent(AT_ONCE, |freed| {
        let gateway = gateway.clone();
        let span = gateway.span_of(&freed.call);
        async move { gateway.admission.release(freed).await }.instrument(span)
    });
    all.await;
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
            let given_up = gateway.admission.give_up_on_lapsed().await;
            gateway.look_after(&given_up);
            let before = gateway.admission.trouble();
            let upkeep = renew(&gateway, everything).await;
            gateway.look_after(&upkeep);
            gateway.report_agents().await;
            gateway.dismiss_forgotten_agents();
            gateway.end_silent_calls();
            let is_away = gateway.admission.trouble() == Some(Trouble::Away);
            if before == Some(Trouble::Away) && !is_away {
                gateway.look_at_store().await; // It may be another server by now.
            }
        }
    };
    while let Some(None) = stop.run_until_cancelled(survives(keep())).await {}
}

/// Tells the store what it was not there to hear. Aside, because no heartbeat may wait for it.
pub async fn settle_debts(gateway: web::Data<Gateway>, stop: CancellationToken) {
    let settle = async || {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What is being told is told to its end, which the store's deadlines see to: a debt that is
        // dropped on the way would be nobody's.
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            pay_debts(&gateway).await;
        }
    };
    while survives(settle()).await.is_none() {}
}

/// Tells the store what is owed, and notes the ends that only it could tell of.
async fn pay_debts(gateway: &web::Data<Gateway>) {
    let note = |call: CarrierCallId, reason| {
        let gateway = gateway.clone();
        let span = gateway.span_of(&call);
        async move { gateway.ended_waiting(&call, reason).await }.instrument(span)
    };
    gateway.admission.settle_debts(note).await;
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
    /// Tells the other replicas of agents, and agents what all have seen of them.
    async fn report_agents(&self) {
        let agents = self.campaigns.agents();
        let news = agents.all().map(|agent| {
            let rests = agent.rests().map(|rest| rest.as_millis());
            let rests = rests.map(|rest| u64::try_from(rest).unwrap_or(u64::MAX));
            AgentNews {
                agent: agent.name().clone(),
                tokens: agent.take_tokens(),
                rest: Rest::of(rests, agent.was_reached()),
            }
        });
        self.admission.report(news.collect()).await;
        for agent in agents.all() {
            agent.learn(self.admission.asked_of(agent.name()).fails);
        }
    }

    /// Tells the calls that a renewal concerns.
    fn look_after(self: &Arc<Self>, upkeep: &Upkeep) {
        for slot in &upkeep.taken_over {
            self.connections.end_lost(*slot, EndReason::TakenOver);
        }
        for (slot, reason) in &upkeep.over {
            self.connections.end_lost(*slot, *reason);
        }
        for call in &upkeep.never_came {
            self.dismiss_agent(call);
            self.ended(call, EndReason::NoMedia);
            self.end_silent(call);
        }
        for call in &upkeep.gone_elsewhere {
            self.dismiss_agent(call);
        }
        self.look_after_unwritten(&upkeep.unwritten);
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
