//! Writes down what callgate says to an agent, and what the built-in agent says, for
//! `tests/official/check`, which holds both against the vendors' own types.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use callgate::{
    What,
    parrot::{Fault, Parrot, ParrotOptions, ToolRequest},
};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::{
    audio::{FRAME, SILENCE, syllables},
    gateway::{TestGateway, drained},
};

const TOOLS: (&str, &str) = ("AGENT_TOOLS", "end_call,transfer_call,send_dtmf");
const DIRECTORY: (&str, &str) = ("AGENT_TRANSFERS", "reception=+97223333333");

#[tokio::test]
async fn all_that_callgate_says_to_an_agent_is_written_down() {
    let record = recording("agent-client-events.jsonl");
    let settings = [("AGENT_VAD_SILENCE_MS", "200"), TOOLS, DIRECTORY];
    let gateway = TestGateway::with_parrot(recorded(&record), &settings).await;
    say_everything(gateway).await;

    // The other way of taking turns, and none of what can be left out.
    let settings = [
        ("AGENT_TURN_DETECTION", "semantic_vad"),
        ("AGENT_TRANSCRIPTION_MODEL", "none"),
        ("AGENT_GREETING", "none"),
        ("DEFAULT_LANGUAGE", "en-US"),
    ];
    set_up(TestGateway::with_parrot(recorded(&record), &settings).await).await;
    has_everything(&record);
}

#[tokio::test]
async fn all_that_callgate_says_to_voice_live_is_written_down() {
    let record = recording("voice-live-client-events.jsonl");
    let settings = [("AGENT_VAD_SILENCE_MS", "200"), TOOLS, DIRECTORY];
    let gateway = TestGateway::with_voice_live(recorded(&record), &settings).await;
    say_everything(gateway).await;

    let settings = [
        ("AGENT_TURN_DETECTION", "server_vad"),
        ("AGENT_TRANSCRIPTION_MODEL", "none"),
        ("AGENT_GREETING", "none"),
        ("AGENT_VOICE", "marin"),
        ("VOICE_LIVE_NOISE_SUPPRESSION", "none"),
        ("VOICE_LIVE_ECHO_CANCELLATION", "0"),
        ("VOICE_LIVE_AUTO_TRUNCATE", "1"),
        ("VOICE_LIVE_AGENT_NAME", "clinic"),
        ("VOICE_LIVE_PROJECT_NAME", "acme"),
    ];
    set_up(TestGateway::with_voice_live(recorded(&record), &settings).await).await;
    has_everything(&record);
}

fn recorded(record: &Path) -> ParrotOptions {
    ParrotOptions {
        answer_after: Duration::from_millis(100),
        record: Some(record.to_owned()),
        tool_calls: vec![keys()],
        ..ParrotOptions::default()
    }
}

/// What the parrot wants to use when 1 is pressed.
fn keys() -> ToolRequest {
    ToolRequest {
        name: "send_dtmf".to_owned(),
        arguments: r#"{"digits":"1"}"#.to_owned(),
    }
}

/// Leads a call in which the agent is told whatever it can be told.
async fn say_everything(gateway: TestGateway) {
    let call = gateway.ring().await.connected().await;
    let interrupted = async |so_far: usize| {
        let cleared = |heard: &crate::line::Heard| heard.clears.get(so_far).copied();
        call.line.until(cleared).await
    };
    // Interrupted before anything is known to have been heard.
    call.line.withhold_marks(true);
    call.line.until_played(5 * FRAME).await;
    call.line.speak(syllables(1_100.0, 60));
    let played = interrupted(0).await;
    call.line.withhold_marks(false);
    // Interrupted in the middle of the answer.
    call.line.until_played(played + 25 * FRAME).await;
    call.line.speak(syllables(1_100.0, 20));
    let played = interrupted(1).await;
    call.line.until_played(played + 15 * FRAME).await;
    call.line.press("5");
    call.line.press("#");
    call.line.until_played(played + 60 * FRAME).await;
    call.line.press("1");
    let used = |step: &What| matches!(step, What::ToolUsed { .. }).then_some(());
    gateway.until_steps(&call.sid, used).await;
    let steps = gateway.steps(&call.sid);
    let heard: Vec<u64> = steps
        .iter()
        .filter_map(|step| {
            let What::Interrupted { heard_ms } = step else {
                return None;
            };
            Some(*heard_ms)
        })
        .collect();
    assert_eq!(heard[0], 0);
    assert!(heard[1] > 0, "{heard:?}");
    call.hang_up().await;
    gateway.finish().await;
}

/// Leads a call that is over once the agent is set up.
async fn set_up(gateway: TestGateway) {
    let call = gateway.ring().await.connected().await;
    let ready = |step: &What| matches!(step, What::AgentReady { .. }).then_some(());
    gateway.until_steps(&call.sid, ready).await;
    call.hang_up().await;
    gateway.finish().await;
}

fn has_everything(record: &Path) {
    let said = fs::read_to_string(record).unwrap();
    assert!(!said.contains("null"), "the vendors' types know no null");
    assert!(said.contains("function_call_output"), "a tool was used");
    assert_has(
        record,
        &[
            "session.update",
            "input_audio_buffer.append",
            "response.create",
            "conversation.item.truncate",
            "conversation.item.delete",
            "conversation.item.create",
        ],
    );
}

#[tokio::test]
async fn all_that_the_parrot_says_is_written_down() {
    let record = recording("agent-server-events.jsonl");
    let mut file = fs::File::create(&record).unwrap();
    let format = json!({"format": {"type": "audio/pcmu"}});
    let mut input = format.clone();
    input["transcription"] = json!({"model": "gpt-transcribe", "language": "he"});
    input["turn_detection"] = json!({"type": "server_vad", "silence_duration_ms": 200});
    let session = json!({"type": "realtime", "audio": {"input": input, "output": format}});
    hear_everything(Parrot::url, &session, &mut file).await;
    assert_has(
        &record,
        &[
            "session.created",
            "response.output_audio.delta",
            "response.output_audio_transcript.done",
            "conversation.item.input_audio_transcription.completed",
            "conversation.item.done",
            "input_audio_buffer.speech_stopped",
            "rate_limits.updated",
            "error",
        ],
    );
}

#[tokio::test]
async fn all_that_the_parrot_says_as_voice_live_is_written_down() {
    let record = recording("voice-live-server-events.jsonl");
    let mut file = fs::File::create(&record).unwrap();
    let session = json!({
        "modalities": ["text", "audio"],
        "voice": {"type": "azure-standard", "name": "he-IL-HilaNeural"},
        "input_audio_format": "g711_ulaw",
        "input_audio_sampling_rate": 8_000,
        "output_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "azure-speech", "language": "he-IL"},
        "turn_detection": {"type": "azure_semantic_vad", "silence_duration_ms": 200},
    });
    hear_everything(Parrot::voice_live_url, &session, &mut file).await;
    assert_has(
        &record,
        &[
            "session.created",
            "response.audio.delta",
            "response.audio_transcript.done",
            "conversation.item.created",
            "conversation.item.input_audio_transcription.completed",
            "input_audio_buffer.speech_stopped",
            "error",
        ],
    );
}

/// Has the parrot say whatever it can, in sessions of one dialect.
async fn hear_everything(url: fn(&Parrot) -> String, session: &Value, file: &mut fs::File) {
    let mut client = Client::of(url, None, file).await;
    client.until("session.created").await;
    client
        .say(json!({"type": "session.update", "session": session}))
        .await;
    client.until("session.updated").await;
    client.say(json!({"type": "response.create"})).await;
    let greeting = client.until("response.output_item.added").await;
    client.say(json!({"type": "response.cancel"})).await;
    client.until("response.done").await;
    let item = greeting["item"]["id"].clone();
    client
        .say(json!({"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": 50}))
        .await;
    client.until("conversation.item.truncated").await;
    client
        .say(json!({"type": "conversation.item.delete", "item_id": item}))
        .await;
    client.until("conversation.item.deleted").await;
    client
        .say(json!({"type": "conversation.item.create", "item": {
            "type": "message", "role": "user",
            "content": [{"type": "input_text", "text": "The caller pressed 5 on the keypad."}],
        }}))
        .await;
    client
        .until_one_of(&["conversation.item.done", "conversation.item.created"])
        .await;
    client
        .say(json!({"type": "conversation.item.create", "item": {
            "type": "message", "role": "user",
            "content": [{"type": "input_text", "text": "The caller pressed 1 on the keypad."}],
        }}))
        .await;
    client.say(json!({"type": "response.create"})).await;
    let wanted = client.until("response.function_call_arguments.done").await;
    client.until("response.done").await;
    client
        .say(json!({"type": "conversation.item.create", "item": {
            "type": "function_call_output", "call_id": wanted["call_id"], "output": "{}",
        }}))
        .await;
    client
        .until_one_of(&["conversation.item.done", "conversation.item.created"])
        .await;
    client.hear(&syllables(1_100.0, 50)).await;
    client.hear(&[SILENCE; 30 * FRAME]).await;
    client.until("response.created").await;
    client.hear(&syllables(1_100.0, 10)).await; // It is interrupted,
    client.hear(&[SILENCE; 30 * FRAME]).await;
    client.until("input_audio_buffer.speech_started").await;
    client.until("response.done").await;
    client.until("response.done").await; // and answers again.
    client.hear(&syllables(1_100.0, 10)).await;
    client
        .say(json!({"type": "input_audio_buffer.commit"}))
        .await;
    client.until("input_audio_buffer.committed").await;
    client
        .say(json!({"type": "input_audio_buffer.clear"}))
        .await;
    client.until("input_audio_buffer.cleared").await;
    client.say(json!({"type": "response.cancel"})).await;
    client.until("error").await;
    client.leave().await;

    for fault in [
        Fault::FailedResponse,
        Fault::RateLimitedResponse,
        Fault::Expired,
    ] {
        let mut client = Client::of(url, Some(fault), file).await;
        client.until("session.created").await;
        client
            .say(json!({"type": "session.update", "session": session}))
            .await;
        client.until("session.updated").await;
        client.say(json!({"type": "response.create"})).await;
        client.until("response.done").await;
        if fault == Fault::Expired {
            client.until("error").await;
        }
        client.leave().await;
    }
}

/// A client of the parrot's that writes down what it is told.
struct Client<'a> {
    socket: WebSocketStream<TcpStream>,
    parrot: Parrot,
    file: &'a mut fs::File,
}

impl<'a> Client<'a> {
    async fn of(url: fn(&Parrot) -> String, fault: Option<Fault>, file: &'a mut fs::File) -> Self {
        let parrot = Parrot::start(ParrotOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            answer_after: Duration::from_millis(100),
            fault,
            tool_calls: vec![keys()],
            ..ParrotOptions::default()
        });
        let parrot = parrot.await.unwrap();
        let tcp = TcpStream::connect(parrot.address()).await.unwrap();
        let (socket, _) = client_async(url(&parrot), tcp).await.unwrap();
        Self {
            socket,
            parrot,
            file,
        }
    }

    async fn say(&mut self, message: Value) {
        let message = Message::text(message.to_string());
        self.socket.send(message).await.unwrap();
    }

    async fn hear(&mut self, audio: &[u8]) {
        for frame in audio.chunks(FRAME) {
            let audio = STANDARD.encode(frame);
            self.say(json!({"type": "input_audio_buffer.append", "audio": audio}))
                .await;
        }
    }

    async fn until(&mut self, kind: &str) -> Value {
        self.until_one_of(&[kind]).await
    }

    async fn until_one_of(&mut self, kinds: &[&str]) -> Value {
        loop {
            let message = drained(self.socket.next()).await.unwrap().unwrap();
            let Message::Text(text) = message else {
                continue;
            };
            writeln!(self.file, "{text}").unwrap();
            let message: Value = serde_json::from_str(&text).unwrap();
            if kinds.iter().any(|kind| message["type"] == *kind) {
                return message;
            }
        }
    }

    async fn leave(self) {
        drop(self.socket);
        drained(self.parrot.stop()).await;
    }
}

/// Returns an empty place for a recording, where `tests/official/check` looks for it.
fn recording(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/official");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join(name);
    let _ = fs::remove_file(&file); // It may not be there.
    file
}

fn assert_has(record: &Path, kinds: &[&str]) {
    let text = fs::read_to_string(record).unwrap();
    let found: BTreeSet<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|message| message["type"].as_str().unwrap().to_owned())
        .collect();
    for kind in kinds {
        assert!(
            found.contains(*kind),
            "{kind} is not in {}",
            record.display()
        );
    }
}
