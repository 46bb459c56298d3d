//! A phone line: brings a call's media at the pace of speech and plays what comes back, with marks
//! and clears as Twilio documents them.

use std::{collections::VecDeque, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

use crate::{
    audio::{FRAME, SILENCE},
    carrier::{ACCOUNT, Socket},
};

pub const STREAM: &str = "MZ00000000000000000000000000000001";

/// How long anything may take before a test gives up on it.
pub const GUARD: Duration = Duration::from_secs(40);

/// A call's media socket with a caller at its other end.
pub struct Line {
    orders: mpsc::UnboundedSender<Order>,
    heard: watch::Receiver<Heard>,
}

/// What a caller's phone has noticed.
#[derive(Debug, Default)]
pub struct Heard {
    /// What came out of the loudspeaker.
    pub played: Vec<u8>,
    /// How many bytes of audio came, played or not.
    pub received: usize,
    /// How many wait to be played.
    pub waiting: usize,
    /// How much had been played at each clear.
    pub clears: Vec<usize>,
    /// How many frames the caller has sent.
    pub sent: usize,
    /// The code with which the gateway closed the socket; 1006 if it only broke off.
    pub closed: Option<u16>,
}

enum Order {
    Speak(Vec<u8>),
    Send(Value),
    WithholdMarks(bool),
}

struct Phone {
    socket: Socket,
    words: VecDeque<u8>,
    speaker: VecDeque<Sound>,
    withhold_marks: bool,
    withheld: Vec<String>,
    timestamp: usize,
    heard: watch::Sender<Heard>,
}

enum Sound {
    Audio(Vec<u8>),
    Mark(String),
}

impl Line {
    /// Starts the stream of the call `sid` and sends silence until there is something to say.
    pub async fn begin(mut socket: Socket, sid: &str, ticket: &str) -> Self {
        let greeting = json!({"event": "connected", "protocol": "Call", "version": "1.0.0"});
        for message in [greeting, start(sid, ticket)] {
            socket.send(text(&message)).await.unwrap();
        }
        Self::over(socket)
    }

    pub fn over(socket: Socket) -> Self {
        let (orders, to_do) = mpsc::unbounded_channel();
        let (heard, hearing) = watch::channel(Heard::default());
        let phone = Phone {
            socket,
            words: VecDeque::new(),
            speaker: VecDeque::new(),
            withhold_marks: false,
            withheld: Vec::new(),
            timestamp: 0,
            heard,
        };
        TaskTracker::new().spawn(phone.run(to_do));
        Self {
            orders,
            heard: hearing,
        }
    }

    pub fn speak(&self, words: Vec<u8>) {
        let _ = self.orders.send(Order::Speak(words));
    }

    pub fn send(&self, message: Value) {
        let _ = self.orders.send(Order::Send(message));
    }

    pub fn press(&self, digit: &str) {
        self.send(json!({
            "event": "dtmf", "streamSid": STREAM, "sequenceNumber": "9",
            "dtmf": {"track": "inbound_track", "digit": digit},
        }));
    }

    /// Keeps marks back, or returns those that were kept.
    pub fn withhold_marks(&self, withhold: bool) {
        let _ = self.orders.send(Order::WithholdMarks(withhold));
    }

    /// Waits until the phone has noticed what is `wanted`, and returns what it is.
    pub async fn until<T>(&self, wanted: impl Fn(&Heard) -> Option<T>) -> T {
        let mut heard = self.heard.clone();
        let noticed = timeout(GUARD, heard.wait_for(|heard| wanted(heard).is_some())).await;
        let noticed = noticed.expect("the phone noticed in time");
        wanted(&noticed.expect("the line was open until then")).unwrap()
    }

    /// Waits until so much has been played.
    pub async fn until_played(&self, bytes: usize) {
        self.until(|heard| (heard.played.len() >= bytes).then_some(()))
            .await;
    }

    /// Waits until the gateway has closed the socket, and returns the code.
    pub async fn closed(&self) -> u16 {
        self.until(|heard| heard.closed).await
    }

    pub fn is_open(&self) -> bool {
        self.heard.borrow().closed.is_none()
    }

    /// Returns what was played from `begin` on.
    pub fn played(&self, begin: usize) -> Vec<u8> {
        self.heard.borrow().played[begin..].to_vec()
    }
}

impl Phone {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut tick = interval(Duration::from_millis(20));
        // A machine that has paused plays and says on from there, as its callers wait for.
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let code = loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Speak(words)) => self.words.extend(words),
                    Some(Order::Send(message)) => self.send(&message).await,
                    Some(Order::WithholdMarks(withhold)) => self.withhold(withhold).await,
                    None => return, // The caller's battery is empty: no stop, no close.
                },
                _ = tick.tick() => self.frame().await,
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(message))) => self.take(&message).await,
                    Some(Ok(Message::Close(frame))) => {
                        let _ = self.socket.flush().await; // Returns the goodbye.
                        break frame.map_or(1005, |frame| frame.code.into());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break 1006,
                },
            }
        };
        self.heard.send_modify(|heard| heard.closed = Some(code));
    }

    async fn send(&mut self, message: &Value) {
        // A socket that is closing shows so when it is read.
        let _ = self.socket.send(text(message)).await;
    }

    async fn frame(&mut self) {
        let mut frame = [SILENCE; FRAME];
        for (place, word) in frame.iter_mut().zip(&self.words) {
            *place = *word;
        }
        self.words.drain(..self.words.len().min(FRAME));
        self.timestamp += 20;
        self.send(&media(self.timestamp - 20, &frame)).await;
        let marks = self.play();
        for mark in marks {
            self.mark(mark).await;
        }
    }

    /// Plays 20 ms; returns the marks that were reached.
    fn play(&mut self) -> Vec<String> {
        let (mut played, mut marks) = (Vec::new(), Vec::new());
        while let Some(sound) = self.speaker.front_mut() {
            match sound {
                Sound::Audio(audio) if played.len() < FRAME => {
                    let most = audio.len().min(FRAME - played.len());
                    played.extend(audio.drain(..most));
                    if !audio.is_empty() {
                        break;
                    }
                }
                Sound::Audio(_) => break,
                Sound::Mark(name) => marks.push(name.clone()),
            }
            self.speaker.pop_front();
        }
        self.heard.send_modify(|heard| {
            heard.sent += 1;
            heard.waiting -= played.len();
            heard.played.extend(played);
        });
        marks
    }

    async fn mark(&mut self, name: String) {
        if self.withhold_marks {
            self.withheld.push(name);
        } else {
            self.send(&mark(&name)).await;
        }
    }

    async fn withhold(&mut self, withhold: bool) {
        self.withhold_marks = withhold;
        if !withhold {
            for name in std::mem::take(&mut self.withheld) {
                self.send(&mark(&name)).await;
            }
        }
    }

    async fn take(&mut self, message: &str) {
        let message: Value = serde_json::from_str(message).unwrap();
        assert_eq!(message["streamSid"], STREAM);
        match message["event"].as_str() {
            Some("media") => {
                let audio = STANDARD.decode(message["media"]["payload"].as_str().unwrap());
                let audio = audio.unwrap();
                self.heard.send_modify(|heard| {
                    heard.received += audio.len();
                    heard.waiting += audio.len();
                });
                self.speaker.push_back(Sound::Audio(audio));
            }
            Some("mark") => {
                let name = message["mark"]["name"].as_str().unwrap().to_owned();
                if self.speaker.is_empty() {
                    self.mark(name).await;
                } else {
                    self.speaker.push_back(Sound::Mark(name));
                }
            }
            Some("clear") => self.clear().await,
            event => panic!("Twilio knows no {event:?}"),
        }
    }

    /// Drops what was not played; its marks come back all the same.
    async fn clear(&mut self) {
        let marks: Vec<String> = self
            .speaker
            .drain(..)
            .filter_map(|sound| match sound {
                Sound::Mark(name) => Some(name),
                Sound::Audio(_) => None,
            })
            .collect();
        self.heard.send_modify(|heard| {
            heard.waiting = 0;
            heard.clears.push(heard.played.len());
        });
        for name in marks {
            self.mark(name).await;
        }
    }
}

/// Returns the stream's first message, as Twilio sends it.
pub fn start(sid: &str, ticket: &str) -> Value {
    json!({
        "event": "start", "sequenceNumber": "1", "streamSid": STREAM,
        "start": {
            "accountSid": ACCOUNT, "callSid": sid, "streamSid": STREAM, "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"ticket": ticket},
        },
    })
}

pub fn media(timestamp: usize, audio: &[u8]) -> Value {
    json!({
        "event": "media", "sequenceNumber": "2", "streamSid": STREAM,
        "media": {
            "track": "inbound", "chunk": "1", "timestamp": timestamp.to_string(),
            "payload": STANDARD.encode(audio),
        },
    })
}

pub fn mark(name: &str) -> Value {
    json!({"event": "mark", "sequenceNumber": "3", "streamSid": STREAM, "mark": {"name": name}})
}

pub fn stop(sid: &str) -> Value {
    json!({
        "event": "stop", "sequenceNumber": "4", "streamSid": STREAM,
        "stop": {"accountSid": ACCOUNT, "callSid": sid},
    })
}

pub fn text(message: &Value) -> Message {
    Message::text(message.to_string())
}
