//! How calls end that no media socket carries, and what is noted of every end.

use crate::{
    admission::Ended,
    call::{CarrierCallId, EndReason, Farewell},
    gateway::Gateway,
    record::What,
};

impl Gateway {
    /// Notes that a call's stream is over though the call is not. A bridge that has not noticed
    /// yet has lost its socket; where the media never came, it never will. Returns what the caller
    /// is still to hear.
    pub(crate) async fn stream_lost(&self, call: &CarrierCallId) -> Farewell {
        if !self.connections.end(call, EndReason::CarrierLost)
            && self.farewells.of(call).is_none()
            && let Some(reason) = self.admission.ended_elsewhere(call).await
        {
            return reason.farewell();
        }
        if self.farewells.of(call).is_none() && !self.connections.has(call) {
            self.dismiss_agent(call);
            let lost = Ended {
                live: EndReason::CarrierLost,
                waiting: EndReason::NoMedia,
                unanswered: false,
            };
            if self.admission.end(call, lost).await {
                self.ended_waiting(call, EndReason::NoMedia).await;
            }
        }
        self.farewells.of(call).unwrap_or(Farewell::Apology)
    }

    /// Takes the carrier's word that a call is over, wherever it stands; and that it was never
    /// answered, if it says so. Tells whether its end is noted by that: where it was still to come
    /// to its media.
    pub(crate) async fn carrier_ended(&self, call: &CarrierCallId, unanswered: bool) -> bool {
        self.dismiss_agent(call);
        let ended = Ended {
            live: EndReason::CarrierEnded,
            waiting: EndReason::CarrierEnded,
            unanswered,
        };
        // A live call's end is counted by the bridge that carries it, here or elsewhere.
        self.connections.end(call, EndReason::CarrierEnded);
        let waited = self.admission.end(call, ended).await;
        if waited {
            self.ended_waiting(call, EndReason::CarrierEnded).await;
        }
        waited
    }

    /// Notes how a call ended that was waiting for its media. If we placed it, whoever did knows by
    /// which id, and the store.
    pub(crate) async fn ended_waiting(&self, call: &CarrierCallId, reason: EndReason) {
        if self.timeline.is_traced()
            && let Some(id) = self.admission.id_noted(call).await
        {
            self.timeline.named(call, id);
        }
        self.ended(call, reason);
    }

    /// Notes how a call ended, before its socket closes and its carrier asks.
    pub(crate) fn ended(&self, call: &CarrierCallId, reason: EndReason) {
        self.farewells.note(call, reason);
        let carrier = call.carrier().as_str();
        self.metrics.ended(carrier, reason);
        if reason == EndReason::Panicked {
            self.metrics.panicked();
        }
        self.timeline.step(call, What::Ended(reason));
    }
}
