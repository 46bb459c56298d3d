//! A real Chromium without a window, driven by `chromedriver`: one page, and a microphone that hears
//! a file.
//!
//! Invariant: there is one at a time. Several would be late with each other's audio.
//! Invariant: it does not outlive its test, and neither do its driver and its helpers.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use hound::{SampleFormat, WavSpec, WavWriter};
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{
    By, ChromiumLikeCapabilities, DesiredCapabilities, Key, LoggingPrefsLogLevel, WebDriver,
    cdp::domains::emulation::{MediaFeature, SetEmulatedMedia},
};
use tokio::{
    process::{Child, Command},
    sync::{Mutex, MutexGuard},
    time::{sleep, timeout},
};

use crate::{
    line::GUARD,
    process::{follow, until_or_end},
};

/// Samples a second of what the microphone hears.
pub const MICROPHONE_RATE: u32 = 48_000;

/// Beyond those that chromedriver sets by itself.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-component-update",
    "--lang=en-US",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
];

/// How often chromedriver is started on another port.
const ATTEMPTS: u32 = 5;

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
    driver: WebDriver,
    _processes: Processes,
    /// What the page has done wrong: errors, exceptions, and breaches of its policy.
    complaints: Vec<String>,
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
        let hears = format!("--use-file-for-fake-audio-capture={}", wav.display());
        let keeps = format!("--user-data-dir={}", profile.path().display());
        let mut wanted = DesiredCapabilities::chrome();
        for flag in FLAGS.iter().chain(flags).chain(&[&*hears, &*keeps]) {
            wanted.add_arg(flag).unwrap();
        }
        let level = LoggingPrefsLogLevel::Severe;
        wanted.set_browser_log_level(level).unwrap();

        let (processes, url) = Processes::start().await;
        let driver = WebDriver::builder(url, wanted).request_timeout(GUARD);
        let driver = driver.await.expect("chromedriver starts a browser");
        let this = Self {
            driver,
            _processes: processes,
            complaints: Vec::new(),
            _profile: profile,
            _turn: turn,
        };
        let devtools = this.driver.cdp();
        let page = devtools.page();
        let eavesdrop = page.add_script_to_evaluate_on_new_document(EAVESDROP);
        eavesdrop.await.unwrap();
        this
    }

    /// Opens an address and waits until the page is ready to be used.
    pub async fn visit(&mut self, url: &str) {
        let opened = self.driver.goto(url).await;
        opened.unwrap_or_else(|error| panic!("{url}: {error}"));
        let ready = format!("location.href === {} && !!window.callgate", json!(url));
        self.until(&ready).await;
    }

    /// Presses what `selector` finds, and waits for the page that it leads to.
    pub async fn submit(&mut self, selector: &str, path: &str) {
        // In one step, because pages replace what they show.
        let press = format!("document.querySelector({}).click()", json!(selector));
        self.evaluate(&format!("window.isLeft = true, {press}"))
            .await;
        self.arrive(path).await;
    }

    /// Presses the key Enter on whatever has the focus, and waits for the page that it leads to.
    pub async fn enter(&mut self, path: &str) {
        self.evaluate("window.isLeft = true").await;
        self.key(Key::Enter).await;
        self.arrive(path).await;
    }

    /// Presses Tab until what has the focus is what `selector` finds.
    pub async fn tab_to(&mut self, selector: &str) {
        let there = format!("document.activeElement.matches({})", json!(selector));
        for _ in 0..MOST_TABS {
            self.key(Key::Tab).await;
            if self.evaluate(&there).await == true {
                return;
            }
        }
        panic!("{selector} cannot be reached by keyboard");
    }

    async fn key(&mut self, key: Key) {
        let keys = self.driver.action_chain().send_keys(key);
        keys.perform().await.expect("a key is pressed");
    }

    /// Returns what a screen reader finds on the page, each as its role and its name.
    pub async fn read_out(&mut self) -> Vec<(String, String)> {
        let devtools = self.driver.cdp();
        let tree = devtools.send_raw("Accessibility.getFullAXTree", ());
        let nodes = tree.await.unwrap()["nodes"].take();
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
            "return !window.isLeft && !!window.callgate && location.pathname === {}",
            json!(path)
        );
        let arrived = async {
            // Between two pages there is none that could answer.
            while !matches!(self.driver.execute(&*there, []).await, Ok(it) if *it.json() == true) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let arrived = timeout(GUARD, arrived).await;
        assert!(arrived.is_ok(), "{path}: not in time");
    }

    /// Forgets what was said of answers that were meant to be errors.
    pub async fn forgive(&mut self, what: &str) {
        self.listen().await;
        self.complaints
            .retain(|complaint| !complaint.contains(what));
    }

    /// Presses the page's one button.
    pub async fn press(&mut self) {
        let button = self.driver.find(By::Id("button")).await.unwrap();
        button.click().await.expect("the button can be pressed");
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
        let answer = self
            .driver
            .execute(format!("return ({expression})"), [])
            .await;
        let answer = answer.unwrap_or_else(|error| panic!("{expression}: {error}"));
        answer.json().clone()
    }

    /// Makes the page's window as wide as a phone, 320 by 640.
    pub async fn be_a_phone(&mut self) {
        self.resize(320, 640, 2.0).await;
    }

    /// Makes the page's window so wide, and as high as the page.
    pub async fn be_wide(&mut self, width: u32) {
        self.resize(width, 800, 1.0).await;
        let height = self.evaluate("document.documentElement.scrollHeight");
        let height = height.await.as_u64().unwrap();
        self.resize(width, height.try_into().unwrap(), 1.0).await;
    }

    async fn resize(&mut self, width: u32, height: u32, sharpness: f64) {
        let devtools = self.driver.cdp();
        let screen = devtools.emulation();
        let resized = screen.set_device_metrics_override(width, height, sharpness, width < 500);
        resized.await.unwrap();
    }

    /// Sets whether the system is `dark` or `light`.
    pub async fn prefer(&mut self, scheme: &str) {
        let feature = MediaFeature {
            name: "prefers-color-scheme".to_owned(),
            value: scheme.to_owned(),
        };
        let media = SetEmulatedMedia {
            media: None,
            features: Some(vec![feature]),
        };
        self.driver.cdp().send(media).await.unwrap();
    }

    /// Returns what the page looks like, and keeps it below `target` for people to look at.
    pub async fn screenshot(&mut self, name: &str) -> Vec<u8> {
        let png = self.driver.screenshot_as_png().await.unwrap();
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("browser");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name).with_extension("png"), &png).unwrap();
        png
    }

    /// Ends it, and asserts that the page has done nothing wrong.
    pub async fn close(mut self) {
        self.listen().await;
        let ended = self.driver.clone().quit().await;
        ended.expect("chromium ends");
        assert_eq!(self.complaints, [""; 0]);
    }

    /// Takes down what the page has done wrong since the last time.
    async fn listen(&mut self) {
        let log = self.driver.browser_log().await;
        let log = log.expect("chromedriver tells of errors");
        self.complaints
            .extend(log.into_iter().map(|entry| entry.message));
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // After a failure the processes are killed. Left alone, the session would ask for its end on
        // a connection that this thread serves, and block the thread until that times out.
        let _ = self.driver.clone().leak();
    }
}

/// A chromedriver, the browser that it starts, and the browser's helpers. Dropping it ends them all.
struct Processes(Child);

impl Processes {
    /// Returns them with the address at which chromedriver answers.
    async fn start() -> (Self, String) {
        for _ in 0..ATTEMPTS {
            if let Some(started) = Self::try_start().await {
                return started;
            }
        }
        panic!("chromedriver finds no port");
    }

    /// `None` where the port that it took by IPv4 was another's by IPv6.
    async fn try_start() -> Option<(Self, String)> {
        let started = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // The browser is started in the same group, so that all end with it.
            .process_group(0)
            .spawn();
        let mut this = match started {
            Ok(process) => Self(process),
            Err(error) if error.kind() == ErrorKind::NotFound => panic!(
                "chromedriver is not installed: these tests take a real Chromium \
                 (apt install chromium chromium-driver)"
            ),
            Err(error) => panic!("chromedriver cannot be started: {error}"),
        };
        let log = follow(this.0.stdout.take().unwrap());
        let listening = until_or_end(&log, "started successfully on port ").await?;
        let port = listening.trim_end_matches('.').rsplit(' ').next().unwrap();
        Some((this, format!("http://127.0.0.1:{port}")))
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if let Some(id) = self.0.id() {
            let group = format!("-{id}");
            let mut kill = std::process::Command::new("kill");
            let _ = kill.args(["-KILL", "--", &group]).status();
        }
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
