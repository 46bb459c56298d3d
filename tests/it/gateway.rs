//! A gateway on a free port, with an agent, and what must be true when a test is through with it.

mod replicas;

use std::{
    cell::Cell,
    collections::HashSet,
    future::{Future, pending},
    net::SocketAddr,
    panic::Location,
    time::Duration,
};

use callgate::{
    Config, EndReason, Gateway, Running, Step, What,
    parrot::{Parrot, ParrotOptions},
};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    sync::{broadcast::error::RecvError, watch},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    audio::{FRAME, share_of, syllables},
    carrier::{Carrier, Fields, PUBLIC_URL, Socket, TOKEN, call_sid, ringing},
    database::Database,
    line::{GUARD, Line, stop},
    redis_server::free_port,
    twiml::Element,
};

pub use replicas::Replicas;

/// The sentence that callers hear when there is no room.
pub const BUSY: &str = "המערכת עמוסה כרגע. אנא נסו שוב בעוד מספר דקות או שלחו לנו הודעה בוואטסאפ.";

/// How long the parrot's greeting is.
const TUNE: usize = 9_600;

/// Settings of one gateway, as name and value.
pub type Settings<'a> = &'a [(&'a str, &'a str)];

/// Returns an address of loopback that nobody has, for a server that others must know before it listens.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// A gateway that serves, and a carrier that brings it calls.
pub struct TestGateway {
    pub carrier: Carrier,
    /// `None` once it has begun to drain.
    running: Cell<Option<Running>>,
    pub parrot: Option<Parrot>,
    /// Goes last: what is written to it must be able to end.
    pub database: Database,
    steps: watch::Receiver<Vec<Step>>,
}

/// A call that the gateway has answered, whichever way.
pub struct Ringing<'a> {
    gateway: &'a TestGateway,
    pub sid: String,
    pub answer: Element,
}

/// A call with its media.
pub struct Call<'a> {
    gateway: &'a TestGateway,
    pub sid: String,
    pub ticket: String,
    pub line: Line,
}

impl TestGateway {
    /// Starts a gateway with all defaults, and a parrot for its agent.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    pub async fn with_slots(slots: u32) -> Self {
        Self::with(&[("MAX_ACTIVE_CALLS", &slots.to_string())]).await
    }

    pub async fn with(settings: Settings<'_>) -> Self {
        Self::with_parrot(ParrotOptions::default(), settings).await
    }

    pub async fn with_parrot(options: ParrotOptions, settings: Settings<'_>) -> Self {
        let options = ParrotOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..options
        };
        let parrot = Parrot::start(options).await.unwrap();
        let mut gateway = Self::with_agent(&parrot.url(), settings).await;
        gateway.parrot = Some(parrot);
        gateway
    }

    /// Starts a gateway whose agent is a parrot, reached as Voice Live is.
    pub async fn with_voice_live(options: ParrotOptions, settings: Settings<'_>) -> Self {
        let options = ParrotOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..options
        };
        let parrot = Parrot::start(options).await.unwrap();
        let url = parrot.voice_live_url();
        let voice_live = [
            ("AGENT", "voice_live"),
            ("VOICE_LIVE_URL", &url),
            ("VOICE_LIVE_API_KEY", "key-test"),
        ];
        let mut gateway = Self::with_agent("", &[settings, &voice_live].concat()).await;
        gateway.parrot = Some(parrot);
        gateway
    }

    /// Starts a gateway whose agent is reached as OpenAI is, at `url`.
    pub async fn with_agent(url: &str, settings: Settings<'_>) -> Self {
        let defaults = [
            ("LISTEN", "127.0.0.1:0"),
            ("WORKERS", "1"),
            ("PUBLIC_URL", PUBLIC_URL),
            ("TWILIO_AUTH_TOKEN", TOKEN),
            ("AGENT", "openai"),
            ("OPENAI_API_KEY", "sk-test"),
            ("OPENAI_REALTIME_URL", url),
        ];
        let database = Database::new();
        let config = Config::load(|name| {
            let set = settings.iter().chain(&defaults);
            let found = set.into_iter().find(|(key, _)| *key == name);
            let found = found.map(|(_, value)| (*value).to_owned());
            found.or_else(|| (name == "DATABASE_URL").then(|| database.url().to_owned()))
        });
        // Tests start many at once, and a start is a lot for one stack.
        let running = Box::pin(Gateway::start(config.unwrap())).await.unwrap();
        Self {
            carrier: Carrier::new(running.address()),
            steps: follow(&running),
            running: Cell::new(Some(running)),
            parrot: None,
            database,
        }
    }

    /// Brings a new call.
    pub async fn ring(&self) -> Ringing<'_> {
        self.ring_as(&call_sid()).await
    }

    pub async fn ring_as(&self, sid: &str) -> Ringing<'_> {
        self.ring_with(sid, ringing(sid)).await
    }

    /// Brings a new call to a number.
    pub async fn ring_number(&self, called: &str) -> Ringing<'_> {
        let sid = call_sid();
        let mut fields = ringing(&sid);
        fields.retain(|(name, _)| *name != "To");
        fields.push(("To", called));
        self.ring_with(&sid, fields).await
    }

    async fn ring_with(&self, sid: &str, fields: Fields<'_>) -> Ringing<'_> {
        let reply = self.carrier.webhook("/webhook/incoming_call", &fields);
        Ringing {
            gateway: self,
            sid: sid.to_owned(),
            answer: reply.await.twiml(),
        }
    }

    /// Reports a call's status, as the carrier does at any time and more than once.
    pub async fn status(&self, sid: &str, status: &str) {
        let mut fields = ringing(sid);
        fields.retain(|(name, _)| *name != "CallStatus");
        fields.push(("CallStatus", status));
        let reply = self.carrier.webhook("/webhook/call_status", &fields).await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    }

    /// Asks what the caller hears after the bridge has ended.
    pub async fn stream_ended(&self, sid: &str) -> Element {
        let fields = ringing(sid);
        let reply = self.carrier.webhook("/webhook/stream_ended", &fields);
        reply.await.twiml()
    }

    pub async fn active_calls(&self) -> u64 {
        self.detail("active_calls").await.as_u64().unwrap()
    }

    pub async fn detail(&self, name: &str) -> Value {
        self.carrier.page("/health/details").await[name].take()
    }

    /// Waits until so many slots are held.
    pub async fn until_active(&self, calls: u64) {
        eventually(async || self.active_calls().await == calls).await;
    }

    /// Returns a figure of `/metrics`, by its name and labels; 0 if it is not there yet.
    pub async fn figure(&self, name: &str) -> u64 {
        self.carrier.figure(name).await
    }

    /// Waits until a call has ended.
    pub async fn ended(&self, sid: &str) -> EndReason {
        let ends = |step: &What| {
            if let What::Ended(reason) = step {
                Some(*reason)
            } else {
                None
            }
        };
        self.until_steps(sid, ends).await
    }

    /// Waits for a step of a call.
    pub async fn until_steps<T>(&self, sid: &str, wanted: impl Fn(&What) -> Option<T>) -> T {
        self.until_step_of(sid, wanted).await
    }

    /// Waits for a step of any call whose name begins so.
    pub async fn until_step_of<T>(&self, name: &str, wanted: impl Fn(&What) -> Option<T>) -> T {
        let mut steps = self.steps.clone();
        let find = |steps: &Vec<Step>| {
            let mut of_call = steps
                .iter()
                .filter(|step| step.call.as_str().starts_with(name));
            of_call.find_map(|step| wanted(&step.what))
        };
        let found = timeout(GUARD, steps.wait_for(|steps| find(steps).is_some())).await;
        find(&found.expect("the step came in time").unwrap()).unwrap()
    }

    /// Returns what has happened to a call so far.
    pub fn steps(&self, sid: &str) -> Vec<What> {
        let steps = self.steps.borrow();
        let of_call = steps.iter().filter(|step| step.call.as_str() == sid);
        of_call.map(|step| step.what.clone()).collect()
    }

    /// Waits until the health page says that so much is degraded.
    pub async fn until_degraded(&self, what: &[&str]) {
        eventually(async || self.detail("degraded").await == Value::from(what)).await;
    }

    /// Waits until no slot is held and no socket is open.
    async fn until_idle(&self) {
        self.until_active(0).await;
        eventually(async || {
            let health = self.carrier.page("/health").await;
            health["active_connections"] == 0
        })
        .await;
    }

    /// Asserts that nothing is held, that no call ended twice, and that the gateway ends.
    pub async fn finish(mut self) {
        self.until_idle().await;
        let parrot = self.parrot.take();
        if let Some(parrot) = &parrot {
            eventually(async || parrot.sessions() == 0).await;
        }
        drained(self.drain(pending())).await;
        self.is_gone().await;
        if let Some(parrot) = parrot {
            drained(parrot.stop()).await;
        }
    }

    /// Has the campaign file read again, as a SIGHUP does.
    pub async fn reload(&self) {
        let running = self.running.take().expect("it has not begun to drain");
        running.reload_campaigns().await;
        self.running.set(Some(running));
    }

    fn is_running(&self) -> bool {
        let running = self.running.take();
        let is_running = running.is_some();
        self.running.set(running);
        is_running
    }

    /// Tells the gateway to go, as a SIGTERM does, and again when `hurry` completes.
    pub async fn drain(&self, hurry: impl Future<Output = ()>) {
        let running = self.running.take().expect("it is told only once");
        running.drain(hurry).await;
    }

    /// Asserts that nobody listens, and that every call has ended at most once.
    pub async fn is_gone(&self) {
        nobody_listens(self.carrier.address).await;
        assert_each_ended_once(&self.ends());
    }

    /// Returns every call that has ended here, each time that it did.
    fn ends(&self) -> Vec<(String, EndReason)> {
        let steps = self.steps.borrow();
        let ends = steps.iter().filter_map(|step| {
            let What::Ended(reason) = step.what else {
                return None;
            };
            Some((step.call.as_str().to_owned(), reason))
        });
        ends.collect()
    }
}

impl<'a> Ringing<'a> {
    pub fn refused_as_busy(&self) {
        assert_eq!(self.answer.last_words(), BUSY);
        assert_eq!(self.answer.child("Say").attribute("language"), "he-IL");
    }

    /// Returns where it rang, or where its media goes.
    pub fn gateway(&self) -> &'a TestGateway {
        self.gateway
    }

    pub fn is_admitted(&self) -> bool {
        self.answer.verbs()[0] == "Connect"
    }

    /// Takes the call's media to another replica.
    pub fn on(self, gateway: &TestGateway) -> Ringing<'_> {
        Ringing {
            gateway,
            sid: self.sid,
            answer: self.answer,
        }
    }

    /// Returns the URL of the stream and the ticket for it.
    pub fn admitted(&self) -> (&str, &str) {
        let connect = self.answer.child("Connect");
        let stream = connect.child("Stream");
        let ticket = stream.child("Parameter");
        assert_eq!(ticket.attribute("name"), "ticket");
        (stream.attribute("url"), ticket.attribute("value"))
    }

    /// Opens the media socket, and says nothing on it.
    pub async fn socket(&self) -> Socket {
        let opened = self.gateway.carrier.open(self.admitted().0).await;
        opened.expect("the gateway takes the socket")
    }

    /// Brings the call's media. Returns once the gateway carries it.
    pub async fn connected(self) -> Call<'a> {
        let line = Line::begin(self.socket().await, &self.sid, self.admitted().1).await;
        let call = Call {
            gateway: self.gateway,
            ticket: self.admitted().1.to_owned(),
            sid: self.sid,
            line,
        };
        let connected = |step: &What| (*step == What::Connected).then_some(());
        call.gateway.until_steps(&call.sid, connected).await;
        call
    }
}

impl Call<'_> {
    /// Waits until the agent has begun to speak.
    pub async fn agent_speaks(&self) {
        let spoke = |step: &What| (*step == What::FirstWords).then_some(());
        self.gateway.until_steps(&self.sid, spoke).await;
    }

    /// Says something, and asserts that the agent hears it and its answer is heard.
    pub async fn converses(&self) {
        self.line.until_played(TUNE).await;
        let played = self.line.played(0).len();
        self.line.speak(syllables(1_100.0, 30));
        self.line.until_played(played + 25 * FRAME).await;
        let answer = self.line.played(played + 5 * FRAME);
        let share = share_of(1_100.0, &answer);
        assert!(share > 0.7, "{share}");
        assert!(self.line.is_open());
    }

    /// Hangs up, and waits until the gateway has taken note.
    pub async fn hang_up(self) {
        self.line.send(stop(&self.sid));
        self.line.closed().await;
        assert_eq!(self.gateway.ended(&self.sid).await, EndReason::CallerHungUp);
        self.gateway.status(&self.sid, "completed").await;
    }
}

/// Waits until `holds` says so.
#[track_caller]
pub fn eventually(holds: impl AsyncFn() -> bool) -> impl Future<Output = ()> {
    let line = Location::caller();
    async move {
        let asked = async {
            while !holds().await {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let asked = timeout(GUARD, asked).await;
        assert!(asked.is_ok(), "it did not come to pass in time: {line}");
    }
}

/// Waits until nobody listens: another test may have been given the same port for a while.
pub async fn nobody_listens(address: SocketAddr) {
    eventually(async || TcpStream::connect(address).await.is_err()).await;
}

/// Waits for an end that must come.
pub async fn drained<T>(end: impl Future<Output = T>) -> T {
    timeout(GUARD, end).await.expect("it ended in time")
}

fn assert_each_ended_once(ends: &[(String, EndReason)]) {
    let mut seen = HashSet::new();
    for (call, _) in ends {
        assert!(seen.insert(call), "{call} ended twice: {ends:?}");
    }
}

fn follow(running: &Running) -> watch::Receiver<Vec<Step>> {
    let (steps, followed) = watch::channel(Vec::new());
    let mut watched = running.watch();
    TaskTracker::new().spawn(async move {
        loop {
            match watched.recv().await {
                Ok(step) => steps.send_modify(|steps| steps.push(step)),
                Err(RecvError::Lagged(_)) => panic!("too many steps for a test"),
                Err(RecvError::Closed) => return,
            }
        }
    });
    followed
}
