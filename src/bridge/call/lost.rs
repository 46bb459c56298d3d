//! A call whose media socket is lost may be given another one.
//!
//! Invariant: a call is in one task's hands at any moment, and that one ends it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::{
    agent::Health,
    bridge::{AgentSeat, Line},
    call::{CallId, CallerId, CarrierCallId, EndReason},
    campaign::Campaign,
    connections::{ConnectionManager, Orders, Place},
    session::Session,
    telemetry::Counted,
    tool::Consent,
};

/// How long a call waits for another socket, and another socket for a call.
const WITHIN: Duration = Duration::from_secs(3);
/// How often a socket looks whether its call has lost the one before.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a call is, whichever socket carries it.
pub struct Life {
    pub call: CarrierCallId,
    pub call_id: CallId,
    pub campaign: Arc<Campaign>,
    pub caller: CallerId,
    pub agent_name: &'static str,
    pub health: Arc<Health>,
    pub place: Place,
    pub orders: Orders,
    pub session: Session,
    pub agent: AgentSeat,
    pub line: Line,
    pub consent: Consent,
    /// When its first socket opened, the time of the session's deadlines.
    pub began: Instant,
    /// How long it had rung by then.
    pub rang: Duration,
    pub counted: Counted,
}

/// The calls that wait for another socket: each task that has one can be asked for it.
#[derive(Default)]
pub struct LostCalls(Mutex<HashMap<CarrierCallId, oneshot::Sender<Hands>>>);

/// Where a call is put by the task that has had it.
type Hands = oneshot::Sender<Box<Life>>;

impl LostCalls {
    /// Keeps a call whose socket was `lost` until another one takes it. Otherwise returns it, with
    /// the reason for which it ends.
    pub async fn keep(
        &self,
        mut life: Box<Life>,
        lost: EndReason,
    ) -> Option<(Box<Life>, EndReason)> {
        let call = life.call.clone();
        let (ask, asked) = oneshot::channel();
        self.lock().insert(call.clone(), ask);
        let (hands, reason) = tokio::select! {
            hands = asked => (hands.ok(), lost),
            order = &mut life.orders => (None, order.unwrap_or(EndReason::Stopped)),
            () = sleep(WITHIN) => (None, lost),
        };
        self.lock().remove(&call);
        match hands {
            Some(hands) => hands.send(life).err().map(|life| (life, reason)),
            None => Some((life, reason)),
        }
    }

    /// Takes a call that is carried here once its socket is lost; `None` if it is not, or not soon.
    pub async fn take(
        &self,
        call: &CarrierCallId,
        connections: &ConnectionManager,
    ) -> Option<Box<Life>> {
        let until = Instant::now() + WITHIN;
        while connections.has(call) && Instant::now() < until {
            let ask = self.lock().remove(call);
            if let Some(ask) = ask {
                let (hands, life) = oneshot::channel();
                ask.send(hands).ok()?;
                return life.await.ok();
            }
            sleep(LOOK_AGAIN).await;
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CarrierCallId, oneshot::Sender<Hands>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
