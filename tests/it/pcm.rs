//! A line of 24 kHz audio, as ACS and a browser have it: sends a frame every 20 ms, and plays what
//! comes back in its own time.

use std::{collections::VecDeque, f64::consts::TAU, time::Duration};

use audio_codec_algorithms::encode_ulaw;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

use crate::{carrier::Socket, line::GUARD};

/// The samples of one frame: 20 ms.
pub const FRAME: usize = 480;

/// What is spoken on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tongue {
    Acs,
    Web,
}

pub struct PcmLine {
    orders: mpsc::UnboundedSender<Order>,
    heard: watch::Receiver<Heard>,
}

/// What a caller has noticed.
#[derive(Debug, Default)]
pub struct Heard {
    /// What came out of the loudspeaker.
    pub played: Vec<i16>,
    /// How much had been played at each stop.
    pub stops: Vec<usize>,
    /// Other messages.
    pub told: Vec<Value>,
    /// The code with which the gateway closed the socket; 1006 if it only broke off.
    pub closed: Option<u16>,
}

enum Order {
    Speak(Vec<i16>),
    Send(Value),
    Close,
}

struct Phone {
    socket: Socket,
    tongue: Tongue,
    words: VecDeque<i16>,
    speaker: VecDeque<i16>,
    heard: watch::Sender<Heard>,
}

impl PcmLine {
    pub fn over(socket: Socket, tongue: Tongue) -> Self {
        let (orders, to_do) = mpsc::unbounded_channel();
        let (heard, hearing) = watch::channel(Heard::default());
        let phone = Phone {
            socket,
            tongue,
            words: VecDeque::new(),
            speaker: VecDeque::new(),
            heard,
        };
        TaskTracker::new().spawn(phone.run(to_do));
        Self {
            orders,
            heard: hearing,
        }
    }

    pub fn speak(&self, words: Vec<i16>) {
        let _ = self.orders.send(Order::Speak(words));
    }

    /// Presses a key, as ACS tells of it.
    pub fn press(&self, digit: &str) {
        self.send(json!({"kind": "DtmfData", "dtmfData": {
            "data": digit, "timestamp": "2026-01-06T10:20:40Z",
            "participantRawID": "4:+972501234567",
        }}));
    }

    pub fn send(&self, message: Value) {
        let _ = self.orders.send(Order::Send(message));
    }

    /// Closes the socket, as who hangs up does.
    pub fn close(&self) {
        let _ = self.orders.send(Order::Close);
    }

    /// Waits until the caller has noticed what is `wanted`, and returns what it is.
    pub async fn until<T>(&self, wanted: impl Fn(&Heard) -> Option<T>) -> T {
        let mut heard = self.heard.clone();
        let noticed = timeout(GUARD, heard.wait_for(|heard| wanted(heard).is_some())).await;
        let noticed = noticed.expect("the caller noticed in time");
        wanted(&noticed.expect("the line was open until then")).unwrap()
    }

    /// Waits until so much has been played.
    pub async fn until_played(&self, samples: usize) {
        self.until(|heard| (heard.played.len() >= samples).then_some(()))
            .await;
    }

    /// Waits for a message that is no audio.
    pub async fn told(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until(|heard| heard.told.iter().find(|told| wanted(told)).cloned())
            .await
    }

    pub fn is_open(&self) -> bool {
        self.heard.borrow().closed.is_none()
    }

    /// Waits until the gateway has closed the socket, and returns the code.
    pub async fn closed(&self) -> u16 {
        self.until(|heard| heard.closed).await
    }

    /// Returns what was played from `begin` on, as telephone audio.
    pub fn played(&self, begin: usize) -> Vec<u8> {
        let heard = self.heard.borrow();
        let played = heard.played[begin..].iter();
        played
            .step_by(3)
            .map(|&sample| encode_ulaw(sample))
            .collect()
    }
}

impl Phone {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        if self.tongue == Tongue::Acs {
            self.send(&metadata(24_000)).await;
        }
        let mut tick = interval(Duration::from_millis(20));
        // A machine that has paused plays and says on from there, as its callers wait for.
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let code = loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Speak(words)) => self.words.extend(words),
                    Some(Order::Send(message)) => self.send(&message).await,
                    Some(Order::Close) => {
                        let _ = self.socket.close(None).await;
                    }
                    None => return, // The caller's battery is empty: no close.
                },
                _ = tick.tick() => self.frame().await,
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(message))) => self.take(&message),
                    Some(Ok(Message::Binary(audio))) => {
                        assert_eq!(self.tongue, Tongue::Web);
                        self.speaker.extend(samples(&audio));
                    }
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
        let _ = self.socket.send(Message::text(message.to_string())).await;
    }

    /// Sends 20 ms and plays 20 ms.
    async fn frame(&mut self) {
        let mut frame = Vec::with_capacity(2 * FRAME);
        for _ in 0..FRAME {
            frame.extend(self.words.pop_front().unwrap_or_default().to_le_bytes());
        }
        match self.tongue {
            Tongue::Acs => {
                let data = STANDARD.encode(&frame);
                self.send(
                    &json!({"kind": "AudioData", "audioData": {"data": data, "silent": false}}),
                )
                .await;
            }
            Tongue::Web => drop(self.socket.send(Message::Binary(frame.into())).await),
        }
        let most = self.speaker.len().min(FRAME);
        let played: Vec<_> = self.speaker.drain(..most).collect();
        self.heard.send_modify(|heard| heard.played.extend(played));
    }

    fn take(&mut self, message: &str) {
        let message: Value = serde_json::from_str(message).unwrap();
        let kind = message["kind"].as_str().or(message["Kind"].as_str());
        match kind {
            Some("AudioData") => {
                assert_eq!(self.tongue, Tongue::Acs);
                let data = message["audioData"]["data"].as_str().unwrap();
                self.speaker
                    .extend(samples(&STANDARD.decode(data).unwrap()));
            }
            Some("StopAudio") => {
                self.speaker.clear();
                self.heard
                    .send_modify(|heard| heard.stops.push(heard.played.len()));
            }
            _ => self.heard.send_modify(|heard| heard.told.push(message)),
        }
    }
}

/// Returns the first message of a stream of ACS's.
pub fn metadata(rate: u32) -> Value {
    json!({"kind": "AudioMetadata", "audioMetadata": {
        "subscriptionId": "89e8cb59", "encoding": "PCM", "sampleRate": rate, "channels": 1,
        "length": 960,
    }})
}

/// Returns `frames` of syllables at `pitch` Hertz: 160 ms of tone, 40 ms of silence.
pub fn syllables(pitch: f64, frames: usize) -> Vec<i16> {
    let mut at = 0.0;
    let mut audio = Vec::with_capacity(frames * FRAME);
    for frame in 0..frames {
        for _ in 0..FRAME {
            at += pitch / 24_000.0;
            let loud = if frame % 10 < 8 { 6_000.0 } else { 0.0 };
            #[expect(clippy::cast_possible_truncation, reason = "within ±6,000")]
            audio.push((loud * (TAU * at).sin()) as i16);
        }
    }
    audio
}

fn samples(audio: &[u8]) -> impl Iterator<Item = i16> {
    assert!(audio.len().is_multiple_of(2), "half a sample");
    let pairs = audio.chunks_exact(2);
    pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
}
