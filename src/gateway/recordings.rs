//! Messages that refused callers have left.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;

use crate::{
    call::CarrierCallId,
    gateway::Gateway,
    recent::{Millis, Recent},
    record::What,
    recording::{Recording, RecordingId},
};

/// How long it is remembered what became of a recording, for the carrier that tells it again.
const FATE_KEPT: Millis = 24 * 3_600 * 1_000;

/// What became of recordings, so that it is told once each.
#[derive(Debug)]
pub struct Recordings {
    started: Instant,
    fates: Mutex<Recent<RecordingId, Fate>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
}

impl Gateway {
    /// Keeps the fact that a caller has left a message, however often the carrier tells it.
    pub(crate) async fn keep_recording(&self, call: &CarrierCallId, recording: &Recording) {
        if !self.recordings.note(&recording.id, Fate::Kept) {
            return;
        }
        self.metrics.offers.voicemail_received();
        self.timeline
            .step(call, What::LeftMessage(recording.clone()));
        tracing::info!(
            recording.id = %recording.id,
            duration_s = recording.duration.as_secs(),
            "a caller has left a message"
        );
        let noted = json!({
            "carrier_call_id": call,
            "recording": {
                "id": recording.id.as_str(),
                "url": recording.url.as_str(),
                "duration_s": recording.duration.as_secs(),
            },
        });
        self.admission.note(call, noted.to_string()).await;
    }

    /// Notes that a caller's message came to nothing, as `status` says.
    pub(crate) fn lose_recording(
        &self,
        call: &CarrierCallId,
        recording: &RecordingId,
        status: &'static str,
    ) {
        if self.recordings.note(recording, Fate::Lost) {
            self.span_of(call).in_scope(|| {
                tracing::warn!(
                    recording.id = %recording,
                    status,
                    "a caller's message was not recorded"
                );
            });
        }
    }
}

impl Recordings {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            fates: Mutex::default(),
        }
    }

    /// Tells whether this is news: a message that is kept stays so, whatever comes later.
    fn note(&self, recording: &RecordingId, fate: Fate) -> bool {
        let now = self.now();
        let mut fates = self.lock();
        let is_news = match fates.get(now, recording) {
            Some(Fate::Kept) => false,
            Some(Fate::Lost) => fate == Fate::Kept,
            None => true,
        };
        if is_news {
            fates.put(now, FATE_KEPT, recording.clone(), fate);
        }
        is_news
    }

    fn now(&self) -> Millis {
        let elapsed: Duration = self.started.elapsed();
        Millis::try_from(elapsed.as_millis()).unwrap_or(Millis::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Recent<RecordingId, Fate>> {
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_news_once_and_its_loss_does_not_undo_it() {
        let recordings = Recordings::new();
        let named = |digit: &str| RecordingId::read(&format!("RE{}", digit.repeat(32))).unwrap();
        for (recording, fate, is_news) in [
            ("1", Fate::Kept, true),
            ("1", Fate::Kept, false),
            ("1", Fate::Lost, false),
            ("2", Fate::Lost, true),
            ("2", Fate::Lost, false),
            ("2", Fate::Kept, true),
            ("2", Fate::Lost, false),
        ] {
            assert_eq!(recordings.note(&named(recording), fate), is_news);
        }
    }
}
