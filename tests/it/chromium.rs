//! A real Chromium without a window, by its `DevTools` protocol
//! (chromedevtools.github.io/devtools-protocol): one page, and a microphone that hears a file.
//!
//! Invariant: there is one at a time. Several would be late with each other's audio.
//! Invariant: it does not outlive its test, and neither do its helpers.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use hound::{SampleFormat, WavSpec, WavWriter};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    sync::{Mutex, MutexGuard},
    time::{sleep, timeout},
};
use tokio_tungstenite::{client_async, tungstenite::Message};
use url::Url;

use crate::{
    carrier::Socket,
    line::GUARD,
    process::{follow, until},
};

/// Samples a second of what the microphone hears.
pub const MICROPHONE_RATE: u32 = 48_000;

const FLAGS: [&str; 14] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en-US",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
];

/// How often Tab is pressed until something counts as out of reach.
const MOST_TABS: usize = 60;

/// Keeps what the page receives, from before its own script runs.
const EAVESDROP: &str = r#"
    const ears = { samples: [], turn: null, stops: [] };
    Object.defineProperty(window, "heard", { value: ears });
    window.WebSocket = class extends WebSocket {
        constructor(url) {
            super(url);
            this.addEventListener("message", ({ data }) => {
                if (typeof data !== "string") return ears.samples.push(...new Int16Array(data));
                const { Kind: kind, Speaker: speaker } = JSON.parse(data);
                if (kind === "StopAudio") ears.stops.push(window.callgate.bufferedMs);
                if (speaker === "caller") ears.turn ??= ears.samples.length;
            });
        }
    };
"#;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A browser with one page.
pub struct Chromium {
    process: Child,
    devtools: Socket,
    session: Option<String>,
    asked: u64,
    /// What the page has done wrong: errors, exceptions, and breaches of its policy.
    complaints: Vec<Value>,
    _profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Chromium {
    /// Starts one whose microphone hears `microphone` over and over, from when a page opens it.
    pub async fn start(microphone: &[i16], flags: &[&str]) -> Self {
        let turn = ONE_AT_A_TIME.lock().await;
        let profile = tempfile::tempdir().unwrap();
        let wav = profile.path().join("microphone.wav");
        write(&wav, microphone);
        let started = Command::new("chromium")
            .args(FLAGS)
            .args(flags)
            .arg(format!(
                "--use-file-for-fake-audio-capture={}",
                wav.display()
            ))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // So that its helpers can be ended with it.
            .process_group(0)
            .spawn();
        let mut process = match started {
            Ok(process) => process,
            Err(error) if error.kind() == ErrorKind::NotFound => panic!(
                "chromium is not installed: these tests take a real one (apt install chromium)"
            ),
            Err(error) => panic!("chromium cannot be started: {error}"),
        };
        let log = follow(process.stderr.take().unwrap());
        let listening = until(&log, "DevTools listening on ").await;
        let url: Url = listening.rsplit(' ').next().unwrap().parse().unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", url.port().unwrap()));
        let connected = client_async(url.as_str(), tcp.await.unwrap()).await;
        let mut this = Self {
            process,
            devtools: connected.unwrap().0,
            session: None,
            asked: 0,
            complaints: Vec::new(),
            _profile: profile,
            _turn: turn,
        };
        this.open_page().await;
        this
    }

    async fn open_page(&mut self) {
        let blank = json!({"url": "about:blank"});
        let target = self.ask("Target.createTarget", blank).await;
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.ask("Target.attachToTarget", target).await;
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            self.ask(domain, json!({})).await;
        }
        let eavesdrop = json!({"source": EAVESDROP});
        let method = "Page.addScriptToEvaluateOnNewDocument";
        self.ask(method, eavesdrop).await;
    }

    /// Opens an address and waits until the page is ready to be used.
    pub async fn visit(&mut self, url: &str) {
        let opened = self.ask("Page.navigate", json!({"url": url})).await;
        assert_eq!(opened["errorText"], Value::Null, "{url}");
        let ready = format!("location.href === {} && !!window.callgate", json!(url));
        self.until(&ready).await;
    }

    /// Presses what `selector` finds, and waits for the page that it leads to.
    pub async fn submit(&mut self, selector: &str, path: &str) {
        let press = format!(
            "window.isLeft = true; document.querySelector({}).click()",
            json!(selector)
        );
        self.evaluate(&press).await;
        self.arrive(path).await;
    }

    /// Presses the key Enter on whatever has the focus, and waits for the page that it leads to.
    pub async fn enter(&mut self, path: &str) {
        self.evaluate("window.isLeft = true").await;
        self.key("Enter", 13, "\r").await;
        self.arrive(path).await;
    }

    /// Presses Tab until what has the focus is what `selector` finds.
    pub async fn tab_to(&mut self, selector: &str) {
        let there = format!("document.activeElement.matches({})", json!(selector));
        for _ in 0..MOST_TABS {
            self.key("Tab", 9, "").await;
            if self.evaluate(&there).await == true {
                return;
            }
        }
        panic!("{selector} cannot be reached by keyboard");
    }

    async fn key(&mut self, key: &str, code: u32, text: &str) {
        for phase in ["keyDown", "keyUp"] {
            let event = json!({
                "type": phase, "key": key, "code": key, "windowsVirtualKeyCode": code,
                "text": if phase == "keyDown" { text } else { "" },
            });
            self.ask("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Returns what a screen reader finds on the page, each as its role and its name.
    pub async fn read_out(&mut self) -> Vec<(String, String)> {
        let mut tree = self.ask("Accessibility.getFullAXTree", json!({})).await;
        let nodes = tree["nodes"].take();
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        let nodes = nodes.as_array().unwrap().iter();
        let nodes = nodes.filter(|node| node["ignored"] == false);
        nodes
            .map(|node| (text(&node["role"]), text(&node["name"])))
            .collect()
    }

    /// Waits for a page that the last one leads to.
    async fn arrive(&mut self, path: &str) {
        let there = format!(
            "!window.isLeft && !!window.callgate && location.pathname === {}",
            json!(path)
        );
        let asked = json!({"expression": there, "returnByValue": true});
        let arrived = async {
            // Between two pages there is none that could answer.
            while self.exchange("Runtime.evaluate", asked.clone()).await["result"]["result"]["value"]
                != true
            {
                sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(timeout(GUARD, arrived).await.is_ok(), "{path}");
    }

    /// Forgets what was said of answers that were meant to be errors.
    pub fn forgive(&mut self, what: &str) {
        self.complaints
            .retain(|complaint| !complaint.to_string().contains(what));
    }

    /// Presses the page's one button.
    pub async fn press(&mut self) {
        let press = "document.getElementById('button').click()";
        self.evaluate(press).await;
    }

    /// Returns the text of the first element that `selector` finds.
    pub async fn text(&mut self, selector: &str) -> String {
        let element = format!("document.querySelector({})", json!(selector));
        let text = self.evaluate(&format!("{element}.textContent")).await;
        text.as_str().unwrap().to_owned()
    }

    /// Waits until an expression holds on the page.
    pub async fn until(&mut self, expression: &str) {
        let held = async {
            while self.evaluate(&format!("!!({expression})")).await != true {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(GUARD, held).await.is_err() {
            let state = self.evaluate("JSON.stringify(window.callgate)").await;
            panic!("{expression}: not in time; the call: {state}");
        }
    }

    /// Returns what an expression is on the page.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({
            "expression": expression, "returnByValue": true, "userGesture": true,
        });
        let mut answer = self.ask("Runtime.evaluate", asked).await;
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        answer["result"]["value"].take()
    }

    /// Makes the page's window as wide as a phone, 320 by 640.
    pub async fn be_a_phone(&mut self) {
        let metrics = json!({
            "width": 320, "height": 640, "deviceScaleFactor": 2, "mobile": true,
        });
        self.ask("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// Makes the page's window so wide, and as high as the page.
    pub async fn be_wide(&mut self, width: u32) {
        for height in [800.0, f64::NAN] {
            let whole = "document.documentElement.scrollHeight";
            let height = if height.is_nan() {
                self.evaluate(whole).await.as_f64().unwrap()
            } else {
                height
            };
            let metrics = json!({
                "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
            });
            self.ask("Emulation.setDeviceMetricsOverride", metrics)
                .await;
        }
    }

    /// Sets whether the system is `dark` or `light`.
    pub async fn prefer(&mut self, scheme: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        let media = json!({"features": [feature]});
        self.ask("Emulation.setEmulatedMedia", media).await;
    }

    /// Returns what the page looks like, and keeps it below `target` for people to look at.
    pub async fn screenshot(&mut self, name: &str) -> Vec<u8> {
        let taken = self.ask("Page.captureScreenshot", json!({})).await;
        let png = STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("browser");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name).with_extension("png"), &png).unwrap();
        png
    }

    /// Ends it, and asserts that the page has done nothing wrong.
    pub async fn close(mut self) {
        self.session = None;
        self.ask("Browser.close", json!({})).await;
        let ended = timeout(GUARD, self.process.wait()).await;
        assert!(ended.is_ok(), "chromium does not end");
        assert_eq!(self.complaints, [Value::Null; 0]);
    }

    /// Sends a command; returns its result.
    async fn ask(&mut self, method: &str, params: Value) -> Value {
        let asked = timeout(GUARD, self.exchange(method, params)).await;
        let mut answer = asked.unwrap_or_else(|_| panic!("{method} was not answered in time"));
        assert_eq!(answer["error"], Value::Null, "{method}");
        answer["result"].take()
    }

    async fn exchange(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut command = json!({"id": self.asked, "method": method, "params": params});
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        let command = Message::text(command.to_string());
        self.devtools.send(command).await.unwrap();
        loop {
            let message = self.devtools.next().await.unwrap().unwrap();
            let message: Value = serde_json::from_slice(&message.into_data()).unwrap();
            if message["id"] == self.asked {
                return message;
            }
            self.complaints.extend(complaint(message));
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Without an id it has been waited for, and its helpers end with it.
        if let Some(id) = self.process.id() {
            let group = format!("-{id}");
            let mut kill = std::process::Command::new("kill");
            let _ = kill.args(["-KILL", "--", &group]).status();
        }
    }
}

/// Returns an event of the browser if it is about something that went wrong on the page.
fn complaint(mut event: Value) -> Option<Value> {
    let params = event["params"].take();
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(params),
        "Log.entryAdded" if params["entry"]["level"] == "error" => Some(params),
        "Runtime.consoleAPICalled" if params["type"] == "error" => Some(params),
        _ => None,
    }
}

fn write(path: &Path, samples: &[i16]) {
    let spec = WavSpec {
        channels: 1,
        sample_rate: MICROPHONE_RATE,
        bits_per_sample: 16,
        sample_format: SampleFormat::Int,
    };
    let mut wav = WavWriter::create(path, spec).unwrap();
    for &sample in samples {
        wav.write_sample(sample).unwrap();
    }
    wav.finalize().unwrap();
}
