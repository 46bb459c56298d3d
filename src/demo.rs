//! The gateway with all defaults, and a few simulated callers who talk to it.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use secrecy::SecretString;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Gateway,
    gateway::Running,
    simulate::{
        caller::call,
        carrier::Carrier,
        outcome::{CallEvent, CallOutcome, CallResult, StreamEnd},
        plan::CallPlan,
        script::Script,
        voice::Voices,
    },
};

/// One more than there is room for, so that there is always somebody who is refused.
const CALLERS: [(&str, Script); 4] = [
    ("Dana", Script::Talk),
    ("Yossi", Script::BargeIn),
    ("Ruth", Script::Talk),
    ("Omer", Script::BargeIn),
];
const CAP: &str = "3";
const ADDRESS: &str = "127.0.0.1:5050";
const TALK_FOR: Duration = Duration::from_secs(18);
const CALLS_AGAIN_AFTER: Duration = Duration::from_secs(4);
/// What one caller said (left) and heard (right).
const RECORDING: &str = "demo-call.wav";

/// What the callers share.
struct Stage {
    carrier: Carrier,
    voices: Arc<Voices>,
    folder: tempfile::TempDir,
    began: Instant,
    over: CancellationToken,
    recorded: mpsc::Sender<std::path::PathBuf>,
}

/// Runs a gateway and four callers until `stop` is cancelled.
///
/// # Errors
/// If no gateway can be started, or nothing written beside it.
pub async fn run(stop: CancellationToken) -> anyhow::Result<()> {
    let token: String = format!("{:032x}", rand::random::<u128>());
    let folder = tempfile::tempdir().context("cannot make a folder for recordings")?;
    let running = Box::pin(start(&token, folder.path())).await?;
    let address = running.address();
    println!(
        "callgate answers at http://{address}, with room for {CAP} calls and a parrot as agent."
    );
    println!(
        "Look at  http://{address}/dashboard  /health/details  /stats  /metrics  while {} callers talk.",
        CALLERS.len()
    );
    println!("Ctrl-C ends it.\n");
    let (recorded, recordings) = mpsc::channel(1);
    let stage = Arc::new(Stage {
        carrier: carrier(&running, &token)?,
        voices: Arc::new(Voices::shipped(1)),
        folder,
        began: Instant::now(),
        over: stop.clone(),
        recorded,
    });
    let callers = TaskTracker::new();
    callers.spawn(keep_first(recordings));
    for (number, (name, script)) in CALLERS.into_iter().enumerate() {
        callers.spawn(Arc::clone(&stage).caller(number, name, script));
    }
    drop(stage);
    callers.close();
    callers.wait().await;
    running.drain(std::future::ready(())).await;
    Ok(())
}

async fn start(token: &str, folder: &Path) -> anyhow::Result<Running> {
    let mut listen = ADDRESS;
    loop {
        let setting = |name: &str| match name {
            "LISTEN" => Some(listen.to_owned()),
            "TWILIO_AUTH_TOKEN" => Some(token.to_owned()),
            "MAX_ACTIVE_CALLS" => Some(CAP.to_owned()),
            "CALLS_CAPACITY_LOG_LEVEL" => Some("INFO".to_owned()),
            "DATABASE_URL" => Some(format!("sqlite://{}/demo.db", folder.display())),
            _ => None,
        };
        match Gateway::start(Config::load(setting)?).await {
            Err(crate::StartError::Listen(..)) if listen == ADDRESS => listen = "127.0.0.1:0",
            started => return Ok(started?),
        }
    }
}

fn carrier(running: &Running, token: &str) -> anyhow::Result<Carrier> {
    let url = format!("http://{}", running.address()).parse()?;
    let token = SecretString::from(token);
    Carrier::new(
        &url,
        None,
        Some(token),
        "AC00000000000000000000000000000001".to_owned(),
    )
}

/// Keeps the first recording of a call that was answered.
async fn keep_first(mut recordings: mpsc::Receiver<std::path::PathBuf>) {
    if let Some(recording) = recordings.recv().await {
        match std::fs::copy(&recording, RECORDING) {
            Ok(_) => println!(
                "\n  ♪ listen to {RECORDING}: left what the caller said, right what it heard\n"
            ),
            Err(error) => println!("\n  cannot write {RECORDING}: {error}\n"),
        }
    }
}

impl Stage {
    async fn caller(self: Arc<Self>, number: usize, name: &'static str, script: Script) {
        let mut rng = StdRng::seed_from_u64(number as u64);
        let first = Duration::from_millis(700) * u32::try_from(number).unwrap_or(0);
        let mut pause = first;
        while self.over.run_until_cancelled(sleep(pause)).await.is_some() {
            let mut tell = |event: CallEvent| self.tell(name, &event);
            let plan = self.plan(number, script, rng.random());
            let outcome = call(&self.carrier, plan, &mut tell, &self.over).await;
            self.keep(outcome);
            // Nobody waits the same time twice, so that each is refused once in a while.
            pause = CALLS_AGAIN_AFTER.mul_f64(rng.random_range(0.3..1.5));
        }
    }

    fn plan(&self, number: usize, script: Script, seed: u64) -> CallPlan {
        CallPlan {
            from: format!("+9725012345{number:02}"),
            to: "+972721234567".to_owned(),
            script,
            talk_for: TALK_FOR,
            echo: false,
            keys: String::new(),
            record: Some(self.folder.path().to_owned()),
            fallback: None,
            voices: Arc::clone(&self.voices),
            seed,
        }
    }

    fn keep(&self, outcome: CallOutcome) {
        let recordings = outcome
            .streams
            .into_iter()
            .filter_map(|stream| stream.recording);
        for recording in recordings {
            if outcome.result != CallResult::Answered
                || self.recorded.try_send(recording.clone()).is_err()
            {
                remove(&recording);
            }
        }
    }

    fn tell(&self, name: &str, event: &CallEvent) {
        let what = match event {
            CallEvent::Rings { .. } => "rings".to_owned(),
            CallEvent::Connected => "is connected".to_owned(),
            CallEvent::Speaks {
                sentence,
                interrupts: false,
            } => format!("says “{sentence}”"),
            CallEvent::Speaks {
                sentence,
                interrupts: true,
            } => format!("interrupts: “{sentence}”"),
            CallEvent::Answers => "hears the agent".to_owned(),
            CallEvent::StopsTheAgent(after) => {
                format!("made the agent stop, after {} ms", after.as_millis())
            }
            CallEvent::Says(said) => format!("is told “{}”", said.text),
            CallEvent::Rejected => "is rejected".to_owned(),
            CallEvent::WebhookFailed(why) => format!("gets no answer: {why}"),
            CallEvent::StreamEnded(StreamEnd::CallerHungUp) => "hangs up".to_owned(),
            CallEvent::StreamEnded(end) => format!("loses its line: {end:?}"),
            CallEvent::Ended(CallResult::Failed(why)) => format!("had a failed call: {why}"),
            CallEvent::LeavesAMessage
            | CallEvent::TransferredTo(_)
            | CallEvent::Recorded(_)
            | CallEvent::Ended(_) => return,
        };
        println!(
            "{:6.1} s  {name:<6} {what}",
            self.began.elapsed().as_secs_f64()
        );
    }
}

fn remove(recording: &Path) {
    // What stays behind is removed with its folder.
    let _ = std::fs::remove_file(recording);
}
