//! The campaign file: which agent and which caps a call gets, and what a changed file changes.

use std::{fmt::Write, fs, path::PathBuf};

use callgate::{Config, EndReason, Gateway};
use serde_json::json;

use crate::{
    agent::ScriptedAgent,
    audio::FRAME,
    carrier::CALLED,
    gateway::{BUSY, Settings, TestGateway, eventually},
    line::stop,
    process::{Program, until},
};

pub const SUPPORT: &str = "+97221111111";
pub const SALES: &str = "+97222222222";

/// A campaign file in a folder of its own.
pub struct File {
    folder: tempfile::TempDir,
}

impl File {
    pub fn new(text: &str) -> Self {
        let file = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("callgate.toml")
    }

    pub fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    /// Returns what is wrong with it.
    pub async fn mistakes(&self, settings: Settings<'_>) -> String {
        let path = self.path();
        let file = ("CALLGATE_CONFIG", path.to_str().unwrap());
        let settings: Vec<_> = settings.iter().copied().chain([file]).collect();
        let config = Config::load(|name| {
            let found = settings.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        let started = Gateway::start(config.unwrap()).await;
        started
            .err()
            .map_or(String::new(), |error| error.to_string())
    }

    pub async fn gateway(&self, settings: Settings<'_>) -> TestGateway {
        let path = self.path();
        let file = ("CALLGATE_CONFIG", path.to_str().unwrap());
        // What no campaign names is the environment's: nobody is to reach that one.
        let settings: Vec<_> = settings.iter().copied().chain([file]).collect();
        TestGateway::with_agent("ws://127.0.0.1:1/", &settings).await
    }
}

/// Returns a campaign with an agent of its own at `url`.
fn campaign(name: &str, number: &str, url: &str, max_calls: u32) -> String {
    format!(
        "[agents.{name}]\nurl = \"{url}\"\ninstructions = \"You are of {name}.\"\n\
         [campaigns.{name}]\nnumbers = [\"{number}\"]\nagent = \"{name}\"\n\
         max_calls = {max_calls}\nlanguage = \"en-US\"\n"
    )
}

#[tokio::test]
async fn each_campaign_has_its_agent_its_language_and_its_cap() {
    let (mut support, mut sales) = (ScriptedAgent::start().await, ScriptedAgent::start().await);
    let file = File::new(&format!(
        "{}{}",
        campaign("support", SUPPORT, &support.url, 1),
        campaign("sales", SALES, &sales.url, 20)
    ));
    let gateway = file.gateway(&[]).await;
    let first = gateway.ring_number(SUPPORT).await;
    let session = support.session().await;
    let instructions = session.settings["instructions"].as_str().unwrap();
    assert!(
        instructions.contains("You are of support."),
        "{instructions}"
    );
    // Its cap is full, its neighbour's is not.
    let busy = gateway.ring_number(SUPPORT).await;
    assert_eq!(busy.answer.child("Say").attribute("language"), "en-US");
    let other = gateway.ring_number(SALES).await.connected().await;
    let _talking = sales.session().await;
    assert!(support.is_alone());
    // Nobody has this number, and the environment's language says so.
    let nobodys = gateway.ring_number("+97223333333").await;
    assert_eq!(nobodys.answer.child("Say").attribute("language"), "he-IL");
    assert_ne!(nobodys.answer.last_words(), BUSY);
    assert_eq!(gateway.detail("campaigns").await, 2);
    let agents = gateway.detail("agents").await;
    let awake = json!({"kind": "openai", "resting": false});
    assert_eq!(
        agents,
        json!({"default": awake, "support": awake, "sales": awake})
    );
    gateway.status(&first.sid, "completed").await;
    other.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_live_call_keeps_its_agent_and_new_ones_get_what_the_changed_file_says() {
    let (mut old, mut new) = (ScriptedAgent::start().await, ScriptedAgent::start().await);
    let file = File::new(&campaign("support", SUPPORT, &old.url, 2));
    let gateway = file.gateway(&[]).await;
    let live = gateway.ring_number(SUPPORT).await.connected().await;
    let mut session = old.session().await;
    let ringing = gateway.ring_number(SUPPORT).await;
    let mut awaited = old.session().await;
    let refused = gateway.ring_number(SUPPORT).await;
    assert_eq!(refused.answer.child("Say").attribute("language"), "en-US");

    // The agent moves, the cap grows, and the number's neighbour comes in.
    file.write(&format!(
        "{}{}",
        campaign("support", SUPPORT, &new.url, 3),
        campaign("sales", SALES, &new.url, 3)
    ));
    assert_eq!(gateway.detail("campaigns").await, 1);
    gateway.reload().await;
    assert_eq!(gateway.detail("campaigns").await, 2);
    // The live call is as it was, and so is the one that rang.
    session.begin_response().await;
    session.speak("item_1", &[0x31; 20 * FRAME]).await;
    live.line.until_played(20 * FRAME).await;
    let ringing = ringing.connected().await;
    awaited.begin_response().await;
    awaited.speak("item_1", &[0x31; 20 * FRAME]).await;
    ringing.line.until_played(20 * FRAME).await;
    // A new call has room, and the new agent.
    let next = gateway.ring_number(SUPPORT).await.connected().await;
    let _talking = new.session().await;
    let sales = gateway.ring_number(SALES).await.connected().await;
    let _also_talking = new.session().await;
    assert!(old.is_alone());

    // A campaign that goes takes nobody's call away.
    file.write(&campaign("sales", SALES, &new.url, 3));
    gateway.reload().await;
    gateway.ring_number(SUPPORT).await.answer.child("Say");
    session.speak("item_2", &[0x32; 20 * FRAME]).await;
    live.line.until_played(40 * FRAME).await;
    for call in [live, ringing, next, sales] {
        call.hang_up().await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_file_with_mistakes_changes_nothing() {
    let mut agent = ScriptedAgent::start().await;
    let good = campaign("support", SUPPORT, &agent.url, 1);
    let file = File::new(&good);
    let gateway = file.gateway(&[]).await;
    for broken in [
        "",
        "[campaigns.support",
        "[campaigns.other]\nnumbers = [\"+97221111111\"]\ncolour = \"red\"",
        &good.replace("agent = \"support\"", "agent = \"gone\""),
        &good.replace("ws://", "http://"),
        &format!("{good}[agents.b]\nca_file = \"callgate.toml\""),
    ] {
        file.write(broken);
        gateway.reload().await;
        assert_eq!(gateway.detail("campaigns").await, 1, "{broken}");
    }
    fs::remove_file(file.path()).unwrap();
    gateway.reload().await;
    let call = gateway.ring_number(SUPPORT).await.connected().await;
    let _talking = agent.session().await;
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_parrot_that_only_the_changed_file_asks_for_is_there() {
    let file = File::new(&format!("[campaigns.a]\nnumbers = [\"{SUPPORT}\"]\n"));
    let gateway = file.gateway(&[]).await;
    file.write(&format!(
        "[agents.parrot]\nkind = \"parrot\"\n\
         [campaigns.a]\nnumbers = [\"{SUPPORT}\"]\nagent = \"parrot\"\n"
    ));
    gateway.reload().await;
    let call = gateway.ring_number(SUPPORT).await.connected().await;
    call.agent_speaks().await;
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_default_campaign_answers_what_no_other_does() {
    let mut agent = ScriptedAgent::start().await;
    let file = File::new(&format!(
        "default_campaign = \"rest\"\n\
         [agents.rest]\nurl = \"{}\"\n[campaigns.rest]\nagent = \"rest\"\n",
        agent.url
    ));
    let gateway = file.gateway(&[]).await;
    let call = gateway.ring_number(CALLED).await.connected().await;
    let mut session = agent.session().await;
    call.line.send(stop(&call.sid));
    session.closed().await;
    assert_eq!(gateway.ended(&call.sid).await, EndReason::CallerHungUp);
    drop(call);
    gateway.finish().await;
}

#[tokio::test]
async fn a_change_is_noticed_however_the_file_is_replaced() {
    let campaigns = |count: u32| {
        let mut text = String::new();
        for number in 0..count {
            writeln!(
                text,
                "[campaigns.n{number}]\nnumbers = [\"+9722{number:07}\"]"
            )
            .unwrap();
        }
        text
    };
    let file = File::new("");
    fs::remove_file(file.path()).unwrap();
    // As mounted configuration is: a link to a folder that is swapped as a whole.
    let folder = file.folder.path();
    for (edition, count) in [("one", 1), ("two", 2)] {
        fs::create_dir(folder.join(edition)).unwrap();
        fs::write(folder.join(edition).join("callgate.toml"), campaigns(count)).unwrap();
    }
    let link = |to: &str, at: &str| {
        std::os::unix::fs::symlink(to, folder.join("new")).unwrap();
        fs::rename(folder.join("new"), folder.join(at)).unwrap();
    };
    link("one", "data");
    link("data/callgate.toml", "callgate.toml");
    let gateway = file.gateway(&[]).await;
    let has = async |count: u32| {
        eventually(async || gateway.detail("campaigns").await == count).await;
    };
    has(1).await;
    link("two", "data");
    has(2).await;
    // As editors do: a new file is moved over the old one.
    fs::write(folder.join("draft"), campaigns(3)).unwrap();
    fs::rename(folder.join("draft"), file.path()).unwrap();
    has(3).await;
    // In place.
    file.write(&campaigns(4));
    has(4).await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_key_that_is_rotated_beside_the_file_is_used_for_new_calls() {
    let mut agent = ScriptedAgent::start().await;
    let file = File::new("");
    let key = file.folder.path().join("key");
    fs::write(&key, "sk-first\n").unwrap();
    let text = campaign("support", SUPPORT, &agent.url, 3);
    file.write(&text.replace("[campaigns", "api_key_file = \"key\"\n[campaigns"));
    let gateway = file.gateway(&[]).await;
    let mut sessions = Vec::new();
    let mut calls = Vec::new();
    for key_now in ["sk-first", "sk-second"] {
        fs::write(&key, key_now).unwrap();
        gateway.reload().await;
        calls.push(gateway.ring_number(SUPPORT).await.connected().await);
        let session = agent.session().await;
        let sent = session.headers["authorization"].to_str().unwrap();
        assert_eq!(sent, format!("Bearer {key_now}"));
        sessions.push(session);
    }
    for call in calls {
        call.hang_up().await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_file_whose_key_was_missing_is_taken_over_once_the_key_is_there() {
    let file = File::new(&format!("[campaigns.a]\nnumbers = [\"{SUPPORT}\"]\n"));
    let gateway = file.gateway(&[]).await;
    file.write(&format!(
        "[agents.b]\napi_key_file = \"key\"\n[campaigns.a]\nnumbers = [\"{SUPPORT}\"]\n\
         [campaigns.b]\nnumbers = [\"{SALES}\"]\nagent = \"b\"\n"
    ));
    gateway.reload().await;
    assert_eq!(gateway.detail("campaigns").await, 1);
    fs::write(file.folder.path().join("key"), "sk-late").unwrap();
    eventually(async || gateway.detail("campaigns").await == 2).await;
    gateway.finish().await;
}

#[tokio::test]
async fn the_program_reads_the_file_again_at_a_signal_and_tells_what_has_changed() {
    let file = File::new("[campaigns.one]\nnumbers = [\"+97221111111\"]\n");
    let path = file.path();
    let path = path.to_str().unwrap();
    let mut program = Program::start(&[("CALLGATE_CONFIG", path)]).await;
    until(&program.log, "the campaign file is in force").await;
    file.write(
        "[campaigns.one]\nnumbers = [\"+97221111111\"]\nmax_calls = 3\n\
         [campaigns.two]\nnumbers = [\"+97222222222\"]\n",
    );
    program.signal("-HUP");
    let told = until(&program.log, "the campaign file is taken over").await;
    for count in ["added=1", "removed=0", "changed=1", "campaigns=2"] {
        assert!(told.contains(count), "{told}");
    }
    file.write("[campaigns.one]\nnumbers = [\"canary\"]\nlanguage = \"?\"\n");
    program.signal("-HUP");
    until(&program.log, "the campaign file is not taken over").await;
    until(&program.log, "callgate.toml:3:12: ").await;
    assert!(!program.log().contains("canary"));
    program.terminate();
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_program_goes_on_at_a_signal_to_read_a_file_that_there_is_not() {
    let mut program = Program::start(&[]).await;
    program.signal("-HUP");
    until(&program.log, "there is no campaign file to read again").await;
    program.terminate();
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_file_with_mistakes_stops_the_start() {
    let file = File::new("[campaigns.one]\nnumbers = [\"12\"]\nmax_calls = \"many\"\n");
    let path = file.path();
    let settings = [("CALLGATE_CONFIG", path.to_str().unwrap())];
    let output = crate::process::command(&settings, &file.folder).output();
    let output = output.await.unwrap();
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("the campaign file has 2 mistakes:"), "{told}");
    assert!(told.contains("callgate.toml:3:13: campaigns.one.max_calls=\"many\""));
    assert!(!told.contains("listening"), "{told}");
}
