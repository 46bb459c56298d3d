//! How a gateway ends: calls first, then the server, then the slots.

use std::{future::Future, sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::{call::EndReason, gateway::Running};

/// Over how long the goodbyes are spread, so that callers do not all ring again at once.
const GOODBYES: Duration = Duration::from_secs(5);
/// How long a bridge that was told to end may take.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// How long the last goodbye may take that we say ourselves, hanging up included.
const GOODBYE_SAID: Duration = Duration::from_secs(6);
/// How long the carrier has to ask what its callers hear after the bridge.
const FAREWELL_PATIENCE: Duration = Duration::from_millis(1_500);

/// The same when there is hurry.
const HURRIED_FAREWELL: Duration = Duration::from_millis(500);

impl Running {
    /// Stops taking calls, lets the live ones go on until the time for it is over or `hurry`
    /// completes, tells the rest goodbye, and ends.
    pub async fn drain(self, hurry: impl Future<Output = ()>) {
        let gateway = &self.gateway;
        gateway.draining.store(true, Ordering::Relaxed);
        gateway.draining_since.get_or_init(Instant::now);
        let live = gateway.connections.count();
        tracing::info!(live, drain_seconds = self.drain.as_secs(), "draining");
        gateway.calls.close();
        let hurried = {
            let mut hurry = std::pin::pin!(hurry);
            let patient = async {
                if timeout(self.drain, gateway.calls.wait()).await.is_err() {
                    self.say_goodbyes().await;
                }
            };
            tokio::select! {
                () = patient => false,
                () = &mut hurry => true,
            }
        };
        if hurried {
            tracing::info!(live = gateway.connections.count(), "stopping at once");
        }
        while gateway.connections.end_any(EndReason::Stopped).is_some() {}
        gateway.stopping.cancel();
        let _ = timeout(END_PATIENCE, gateway.calls.wait()).await;
        if live > 0 {
            sleep(if hurried {
                HURRIED_FAREWELL
            } else {
                FAREWELL_PATIENCE
            })
            .await;
        }
        let unsent = gateway.unsent_invitations();
        if unsent > 0 {
            tracing::warn!(unsent, "WhatsApp messages are given up: their time is over");
        }
        self.end().await;
    }

    async fn say_goodbyes(&self) {
        let live = self.gateway.connections.count().max(1);
        let pause = GOODBYES / u32::try_from(live).unwrap_or(u32::MAX);
        while self
            .gateway
            .connections
            .end_any(EndReason::Drained)
            .is_some()
        {
            sleep(pause.min(Duration::from_millis(100))).await;
        }
        let _ = timeout(GOODBYE_SAID, self.gateway.calls.wait()).await;
    }

    async fn end(self) {
        self.handle.stop(true).await; // Bounded by the server's own patience, of a second.
        if let Ok(Err(error)) = self.server.await {
            tracing::error!(%error, "the server ended badly");
        }
        let mut written = self.gateway.records.written();
        self.stop_supervising.cancel();
        self.supervisor.close();
        self.supervisor.wait().await;
        self.gateway.campaigns.close().await;
        self.gateway.deliveries.close().await;
        let replica = self.gateway.admission.replica();
        Box::pin(self.gateway.records.close(replica)).await;
        self.gateway.tell_written(Vec::new(), &mut written).await;
        // Whoever is still on the list may know more of its calls than what is written.
        self.gateway.admission.leave().await;
        tracing::info!("stopped");
    }
}
