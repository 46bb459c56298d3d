//! One media stream: a frame every 20 ms on absolute deadlines, and a loudspeaker.

use std::{collections::BTreeSet, io, path::Path, pin::pin, str::Chars, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use super::{
    dialect::{Dialect, Said},
    echo::{Echo, record},
    loudspeaker::Loudspeaker,
    outcome::{CallEvent, StreamEnd, StreamOutcome, Watch},
    pace::Pace,
    reach::Socket,
    recording::Recording,
    script::{Begins, Mouth, Script},
};

/// How long a frame may wait for a gateway that does not read.
const SEND_PATIENCE: Duration = Duration::from_secs(5);

/// How long a caller who hangs up waits for the gateway to close as well.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// When a slow reader stops reading.
const READS_FOR: Duration = Duration::from_secs(1);

/// When the first key is pressed, and how long until the next.
const FIRST_KEY: Duration = Duration::from_secs(1);
const NEXT_KEY: Duration = Duration::from_millis(300);

/// What a stream needs to know of its call.
pub struct StreamPlan<'a> {
    pub script: Script,
    pub talk_for: Duration,
    pub echo: bool,
    /// Keys the caller presses.
    pub keys: &'a str,
    /// The folder that a recording goes to.
    pub record: Option<&'a Path>,
    /// When the call's first webhook was sent.
    pub rang: Instant,
    /// Cancelled when the gateway has had the carrier hang up.
    pub hung_up: CancellationToken,
    /// Cancelled here when the caller has hung up, before the gateway hears of it.
    pub left: CancellationToken,
}

/// A stream while it lasts.
struct Stream<'a> {
    plan: StreamPlan<'a>,
    socket: Socket,
    dialect: Dialect,
    began: Instant,
    pace: Pace,
    mouth: Mouth,
    keys: Chars<'a>,
    next_key: Duration,
    speaker: Loudspeaker,
    /// What callers go by who hear nothing but themselves: to them the agent never speaks.
    deaf: Option<Loudspeaker>,
    echo: Option<Echo>,
    recording: Option<Recording>,
    /// When the interruption began that has not been heeded yet.
    interrupting: Option<Duration>,
    /// A message's audio, decoded.
    samples: Vec<u8>,
    faults: BTreeSet<String>,
    outcome: StreamOutcome,
    watch: &'a mut Watch<'a>,
}

/// Plays a caller on an open socket until one side ends it. Returns what happened, and what the
/// carrier would have warned of: once a stream, as Twilio does.
pub async fn converse<'a>(
    plan: StreamPlan<'a>,
    mouth: Mouth,
    socket: Socket,
    dialect: Dialect,
    watch: &'a mut Watch<'a>,
    stop: &CancellationToken,
) -> (StreamOutcome, BTreeSet<String>) {
    let mut stream = Stream {
        keys: plan.keys.chars(),
        next_key: FIRST_KEY,
        deaf: plan.echo.then(|| Loudspeaker::new(dialect.encoding())),
        echo: plan.echo.then(Echo::default),
        recording: plan.record.map(|_| Recording::new(dialect.encoding())),
        speaker: Loudspeaker::new(dialect.encoding()),
        plan,
        socket,
        dialect,
        began: Instant::now(),
        pace: Pace::default(),
        mouth,
        interrupting: None,
        samples: Vec::new(),
        faults: BTreeSet::new(),
        outcome: StreamOutcome::new(),
        watch,
    };
    let ended = match stream.talk(stop).await {
        Ok(ended) => ended,
        Err(error) => stream.find_out_why(error).await,
    };
    stream.end(ended).await
}

impl Stream<'_> {
    async fn talk(&mut self, stop: &CancellationToken) -> Result<StreamEnd, tungstenite::Error> {
        for message in self.dialect.greeting() {
            self.send(message).await?;
        }
        let mut stopped = pin!(stop.cancelled());
        let hung_up = self.plan.hung_up.clone();
        let mut hung_up = pin!(hung_up.cancelled());
        loop {
            let mut at = self.began.elapsed();
            // Ends in time even if the gateway takes longer to read frames than they last.
            while at < self.plan.talk_for + SEND_PATIENCE
                && !stop.is_cancelled()
                && let Some(due) = self.pace.due(at.min(self.plan.talk_for))
            {
                self.speak(due, at).await?;
                at = self.began.elapsed();
            }
            self.press_keys(at).await?;
            self.return_marks(at).await?;
            if self.plan.talk_for <= at {
                return Ok(match self.plan.script {
                    Script::Drop => StreamEnd::Cut,
                    Script::Talk
                    | Script::BargeIn
                    | Script::Silent
                    | Script::RepeatWebhook
                    | Script::SlowReader
                    | Script::Mixed => StreamEnd::CallerHungUp,
                });
            }
            let next = self.pace.next().min(self.plan.talk_for);
            let wake = self.began + self.speaker.next_mark().map_or(next, |mark| mark.min(next));
            let reads = self.plan.script != Script::SlowReader || at < READS_FOR;
            let message = tokio::select! {
                biased; // A flood of messages does not make the caller late.
                () = &mut stopped => return Ok(StreamEnd::CallerHungUp),
                () = &mut hung_up => return Ok(StreamEnd::GatewayHungUp),
                () = sleep_until(wake) => continue,
                message = self.socket.next(), if reads => message,
            };
            match message {
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map(|frame| frame.code.into());
                    // Answers the close, which is all that is left to do.
                    let _ = timeout(CLOSE_PATIENCE, self.socket.close(None)).await;
                    return Ok(StreamEnd::GatewayClosed(code));
                }
                Some(message) => self.hear(&message?),
                None => return Ok(StreamEnd::GatewayClosed(None)),
            }
        }
    }

    /// Tells a close, which an error while sending may have overtaken, from a loss.
    async fn find_out_why(&mut self, error: tungstenite::Error) -> StreamEnd {
        let closed = async {
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Close(frame) = message {
                    let code = frame.map(|frame| frame.code.into());
                    return Some(StreamEnd::GatewayClosed(code));
                }
                self.hear(&message);
            }
            None
        };
        match (timeout(CLOSE_PATIENCE, closed).await, error) {
            (Ok(Some(closed)), _) => closed,
            (
                Ok(None) | Err(_),
                tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed,
            ) => StreamEnd::GatewayClosed(None),
            (Ok(None) | Err(_), error) => StreamEnd::Lost(error.to_string()),
        }
    }

    /// Sends the frame that was due at `due`.
    async fn speak(&mut self, due: Duration, at: Duration) -> Result<(), tungstenite::Error> {
        record(&mut self.outcome.lateness, at.saturating_sub(due));
        let (frame, begins) = self
            .mouth
            .frame(at, self.deaf.as_ref().unwrap_or(&self.speaker));
        if let Some(recording) = &mut self.recording {
            recording.said(due, &frame.samples);
        }
        let number = self.echo.as_mut().map(|echo| echo.number(at));
        let message = self.dialect.audio(due, frame, number);
        if begins != Begins::Nothing {
            let interrupts = begins == Begins::Interruption;
            self.outcome.sentences += 1;
            if interrupts && self.interrupting.replace(at).is_some() {
                self.outcome.ignored_interruptions += 1;
            }
            let sentence = self.mouth.sentence().to_owned();
            (self.watch)(CallEvent::Speaks {
                sentence,
                interrupts,
            });
        }
        self.outcome.frames_sent += 1;
        self.send(message).await?;
        if let Some(ping) = self.dialect.ping(at) {
            self.send(ping).await?;
        }
        Ok(())
    }

    async fn press_keys(&mut self, at: Duration) -> Result<(), tungstenite::Error> {
        while self.next_key <= at
            && let Some(key) = self.keys.next()
        {
            self.next_key += NEXT_KEY;
            if let Some(message) = self.dialect.key(key) {
                self.send(message).await?;
            }
        }
        Ok(())
    }

    async fn return_marks(&mut self, at: Duration) -> Result<(), tungstenite::Error> {
        while let Some(name) = self.speaker.due_mark(at) {
            if let Some(message) = self.dialect.mark(&name) {
                self.send(message).await?;
            }
        }
        Ok(())
    }

    fn hear(&mut self, message: &Message) {
        if message.is_text() || message.is_binary() {
            self.outcome.messages_received += 1;
        }
        let at = self.began.elapsed();
        match self.dialect.read(message, &mut self.samples) {
            Ok(Said::Audio) => self.play(at),
            Ok(Said::Mark(name)) => self.speaker.mark(at, name),
            Ok(Said::Clear) => self.clear(at),
            Ok(Said::Words) => self.outcome.transcripts += 1,
            Ok(Said::Over) => self.outcome.was_over = true,
            Ok(Said::Nothing) => {}
            Err(fault) => self.fault(&fault),
        }
    }

    /// Plays the samples of the last message.
    fn play(&mut self, at: Duration) {
        if let Some(echo) = &mut self.echo {
            echo.heard(at, &self.samples);
        }
        let answers = self.speaker.heard().answers;
        if let Some(begins) = self.speaker.play(at, &self.samples) {
            if let Some(recording) = &mut self.recording {
                recording.heard(begins, &self.samples);
            }
        } else {
            let what = "ten minutes of audio are waiting to be played";
            self.fault(&self.dialect.fault(what, 31_931));
        }
        if answers < self.speaker.heard().answers {
            (self.watch)(CallEvent::Answers);
        }
    }

    fn clear(&mut self, at: Duration) {
        self.speaker.clear(at);
        if let Some(recording) = &mut self.recording {
            recording.cut(at);
        }
        if let Some(since) = self.interrupting.take() {
            let took = at.saturating_sub(since);
            self.outcome.interrupted.push(took);
            (self.watch)(CallEvent::StopsTheAgent(took));
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), tungstenite::Error> {
        let Ok(sent) = timeout(SEND_PATIENCE, self.socket.send(message)).await else {
            let what = "the gateway has read nothing for 5 s";
            let what = self.dialect.fault(what, 31_930);
            return Err(io::Error::new(io::ErrorKind::TimedOut, what).into());
        };
        sent
    }

    fn fault(&mut self, fault: &str) {
        if !self.faults.contains(fault) {
            self.faults.insert(fault.to_owned());
        }
    }

    async fn end(mut self, ended: StreamEnd) -> (StreamOutcome, BTreeSet<String>) {
        let lasted = self.began.elapsed();
        if ended == StreamEnd::CallerHungUp {
            self.plan.left.cancel();
        }
        match &ended {
            StreamEnd::CallerHungUp | StreamEnd::GatewayHungUp => {
                // The gateway may be gone already, which is no matter to a caller who hangs up.
                let _ = timeout(CLOSE_PATIENCE, self.say_goodbye()).await;
            }
            StreamEnd::Lost(why) if self.plan.script != Script::SlowReader => {
                let what = format!("the media socket broke: {why}");
                self.fault(&self.dialect.fault(&what, 31_903));
            }
            StreamEnd::Lost(_) | StreamEnd::Cut | StreamEnd::GatewayClosed(_) => {}
        }
        if let Some(missed) = self.dialect.missed(lasted) {
            self.fault(&missed);
        }
        drop(self.socket);
        let heard = self.speaker.heard().clone();
        let ignored = u32::from(self.interrupting.is_some());
        let mut outcome = StreamOutcome {
            lasted,
            ended,
            first_audio_from_webhook: heard
                .first
                .map(|first| self.began.duration_since(self.plan.rang) + first),
            heard,
            ignored_interruptions: self.outcome.ignored_interruptions + ignored,
            echo: self.echo.map(|echo| echo.finish(lasted)),
            ..self.outcome
        };
        if let (Some(folder), Some(mut recording)) = (self.plan.record, self.recording) {
            recording.cut(lasted);
            let (folder, name) = (folder.to_owned(), self.dialect.name().to_owned());
            // Half a megabyte on a slow disk would make other callers late.
            let saving = spawn_blocking(move || recording.save(&folder, &name));
            match saving.await.expect("a saved recording does not panic") {
                Ok(path) => {
                    (self.watch)(CallEvent::Recorded(path.clone()));
                    outcome.recording = Some(path);
                }
                Err(error) => {
                    let fault = format!("the recording was not saved: {error}");
                    self.faults.insert(fault);
                }
            }
        }
        (outcome, self.faults)
    }

    /// Says that the caller has hung up, and waits for the gateway to close too.
    async fn say_goodbye(&mut self) -> Result<(), tungstenite::Error> {
        if let Some(goodbye) = self.dialect.goodbye() {
            self.socket.send(goodbye).await?;
        }
        self.socket.close(None).await?;
        while let Some(Ok(_)) = self.socket.next().await {}
        Ok(())
    }
}
