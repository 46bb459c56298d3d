//! Calls from the page, in a real browser with a real gateway: what is heard, what is shown, and
//! who is let in.

use std::{f64::consts::TAU, path::Path};

use audio_codec_algorithms::encode_ulaw;
use callgate::parrot::{Parrot, ParrotOptions};
use hound::WavReader;
use serde_json::{Value, json};

use crate::{
    audio::share_of,
    carrier::call_sid,
    chromium::{Chromium, MICROPHONE_RATE},
    gateway::eventually,
    https::Https,
    line::stop,
    process::Program,
};

const ENGLISH: (&str, &str) = ("DEFAULT_LANGUAGE", "en-US");
/// Samples a second on the page's socket.
const RATE: u32 = 24_000;
/// What the caller says, in Hertz.
const PITCH: f64 = 440.0;

#[tokio::test]
async fn a_browser_talks_with_the_agent_hangs_up_and_calls_again() {
    let gateway = Program::start(&[ENGLISH, ("MAX_ACTIVE_CALLS", "1")]).await;
    let mut browser = Chromium::start(&words(2.5, 1.6, 3.4), &[]).await;
    browser.visit(&page(&gateway, "?lang=en")).await;
    assert_eq!(browser.text("#words").await, "Ready when you are.");
    browser.press().await;
    browser.until("callgate.state === 'connected'").await;
    assert_eq!(browser.text("#button").await, "Hang up");
    assert_eq!(active(&gateway).await, 1);
    // The greeting,
    browser.until("callgate.levels.agent > 0.05").await;
    browser.until("callgate.playedSeconds > 1").await;
    browser.until(&said("agent", "a short tune")).await;
    // and what the caller has said, once more.
    browser.until("callgate.levels.caller > 0.02").await;
    browser.until(&said("caller", "s of speech")).await;
    browser.until(&said("agent", "you spoke for")).await;
    browser.until("callgate.answerMs > 0").await;
    for figure in ["round-trip", "answer-time"] {
        let shown = format!("/\\d ms$/.test(document.getElementById('{figure}').textContent)");
        browser.until(&shown).await;
    }
    browser.until("callgate.levels.agent > 0.05").await;
    browser.screenshot("call").await;
    let second = format!("heard.samples.length - heard.turn > {RATE}");
    browser.until(&second).await;
    let answer = browser.evaluate("heard.samples.slice(heard.turn)").await;
    let share = share_of(PITCH, &on_the_telephone(answer));
    assert!(share > 0.7, "{share}");
    browser.until("callgate.framesSent > 100").await;

    browser.press().await;
    assert_eq!(browser.text("#words").await, "You hung up.");
    let silent = "callgate.levels.agent === 0 && callgate.levels.caller === 0";
    browser.until(silent).await;
    eventually(async || active(&gateway).await == 0).await;

    assert_eq!(browser.text("#button").await, "Start the call");
    browser.press().await;
    browser.until("callgate.playedSeconds > 1").await;
    browser.until(&said("agent", "a short tune")).await;
    assert_eq!(active(&gateway).await, 1);
    browser.close().await;
    // Whoever closes the window hangs up.
    eventually(async || active(&gateway).await == 0).await;
}

#[tokio::test]
async fn a_caller_who_speaks_over_a_long_answer_makes_it_stop() {
    let gateway = Program::start(&[ENGLISH]).await;
    let mut browser = Chromium::start(&words(2.0, 5.0, 2.0), &[]).await;
    browser.visit(&page(&gateway, "?lang=en")).await;
    browser.press().await;
    browser.until(&said("agent", "you spoke for")).await;
    browser.until("callgate.bufferedMs > 300").await;
    let before = browser.evaluate("heard.stops.length").await;
    let stopped = format!("heard.stops.length > {before}");
    browser.until(&stopped).await;
    let dropped = browser.evaluate("heard.stops.at(-1)").await;
    assert!(dropped.as_f64().unwrap() > 100.0, "{dropped}");
    browser.until("callgate.bufferedMs === 0").await;
    // It was dropped, and not played faster.
    let unheard = format!("heard.samples.length / {RATE} - callgate.playedSeconds");
    let unheard = browser.evaluate(&unheard).await;
    assert!(unheard.as_f64().unwrap() > 0.1, "{unheard} s");
    assert_eq!(browser.evaluate("callgate.state").await, "connected");
    browser.close().await;
}

#[tokio::test]
async fn a_browser_for_which_there_is_no_room_says_so_and_is_told_aloud() {
    let gateway = Program::start(&[ENGLISH, ("MAX_ACTIVE_CALLS", "1")]).await;
    let sid = call_sid();
    let line = gateway.call(&sid).await;
    let mut browser = Chromium::start(&words(1.0, 0.0, 0.0), &[]).await;
    browser.visit(&page(&gateway, "?lang=en")).await;
    browser.press().await;
    browser.until("callgate.state === 'busy'").await;
    assert_eq!(
        browser.text("#words").await,
        "Nobody is free right now. Please try again later."
    );
    let length = seconds_of("templates/prompts/en-US/busy.wav");
    let whole = format!("callgate.playedSeconds > {}", length - 0.2);
    browser.until(&whole).await;
    assert_eq!(browser.evaluate("callgate.state").await, "busy");
    line.send(stop(&sid));
    line.closed().await;
    eventually(async || active(&gateway).await == 0).await;
    browser.until(&button_says("Start the call")).await;
    browser.press().await;
    browser.until("callgate.state === 'connected'").await;
    browser.close().await;
}

#[tokio::test]
async fn the_page_speaks_hebrew_fits_on_a_phone_and_can_be_dark() {
    let gateway = Program::start(&[("AGENT_GREETING", "none")]).await;
    let mut browser = Chromium::start(&words(1.0, 1.0, 3.0), &[]).await;
    browser.be_a_phone().await;
    browser.prefer("light").await;
    browser.visit(&page(&gateway, "?lang=he")).await;
    let document = "[document.documentElement.lang, document.documentElement.dir, document.title]";
    assert_eq!(
        browser.evaluate(document).await,
        json!(["he", "rtl", "שיחה עם הנציג הקולי"])
    );
    for (selector, label) in [
        ("h1", "שיחה עם הנציג הקולי"),
        ("#words", "אפשר להתחיל."),
        ("#button", "התחלת שיחה"),
        ("#caller-name", "אני"),
        ("#agent-name", "נציג"),
        ("#nothing", "הנאמר בשיחה יופיע כאן."),
    ] {
        assert_eq!(browser.text(selector).await, label);
    }
    fits(&mut browser).await;
    let light = browser.screenshot("phone-light").await;
    browser.prefer("dark").await;
    assert_ne!(browser.screenshot("phone-dark").await, light);
    browser.press().await;
    browser.until(&said("caller", "s of speech")).await;
    browser.until(&said("agent", "you spoke for")).await;
    browser.until("callgate.answerMs > 0").await;
    let shown = "/\\d/.test(document.getElementById('answer-time').textContent)";
    browser.until(shown).await;
    assert_eq!(browser.text("#words").await, "מחובר. אפשר לדבר.");
    fits(&mut browser).await;
    browser.screenshot("phone-call").await;
    browser.close().await;
}

#[tokio::test]
async fn in_production_a_call_takes_a_token_and_each_token_is_good_once() {
    const OPS_TOKEN: &str = "an-operators-token";
    let parrot = Parrot::start(ParrotOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        ..ParrotOptions::default()
    });
    let parrot = parrot.await.unwrap();
    let agent = Https::before(parrot.address(), "localhost").await;
    let url = format!("wss://localhost:{}/v1/realtime", agent.address.port());
    let settings = [
        ENGLISH,
        ("PRODUCTION", "1"),
        ("WEB_CALLS", "1"),
        ("OPS_TOKEN", OPS_TOKEN),
        ("AGENT", "openai"),
        ("OPENAI_API_KEY", "sk-test"),
        ("OPENAI_REALTIME_URL", &url),
        ("AGENT_CA_FILE", agent.certificate.path().to_str().unwrap()),
    ];
    let gateway = Program::start(&settings).await;
    let front = Https::before(gateway.carrier.address, "voice.example.com").await;
    let map = format!(
        "--host-resolver-rules=MAP voice.example.com:443 {}",
        front.address
    );
    let mut browser = Chromium::start(
        &words(2.0, 1.0, 2.0),
        &[&map, "--ignore-certificate-errors"],
    )
    .await;

    let refused = "This link has expired or was already used. Please ask for a new one.";
    browser.visit("https://voice.example.com/?lang=en").await;
    browser.press().await;
    browser.until("callgate.state === 'failed'").await;
    assert_eq!(browser.text("#words").await, refused);

    let order = gateway.carrier.post("/web/tokens").json(&json!({}));
    assert_eq!(order.send().await.unwrap().status(), 401);
    let order = gateway.carrier.post("/web/tokens").json(&json!({}));
    let made = order.bearer_auth(OPS_TOKEN).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    let token = made["token"].as_str().unwrap();
    let with_token = format!("https://voice.example.com/?lang=en&token={token}");
    browser.visit(&with_token).await;
    browser.press().await;
    browser.until("callgate.playedSeconds > 1").await;
    assert_eq!(browser.evaluate("callgate.state").await, "connected");
    browser.press().await;
    eventually(async || active(&gateway).await == 0).await;

    browser.press().await;
    browser.until("callgate.state === 'failed'").await;
    assert_eq!(browser.text("#words").await, refused);
    browser.close().await;
    parrot.stop().await;
}

async fn fits(browser: &mut Chromium) {
    let width = "[document.documentElement.scrollWidth, innerWidth]";
    assert_eq!(browser.evaluate(width).await, json!([320, 320]));
}

fn page(gateway: &Program, query: &str) -> String {
    format!("http://{}/{query}", gateway.carrier.address)
}

async fn active(gateway: &Program) -> u64 {
    let health = gateway.carrier.page("/health").await;
    health["active_connections"].as_u64().unwrap()
}

/// Asks whether the transcript has something of a speaker's.
fn said(speaker: &str, words: &str) -> String {
    let lines = format!("document.querySelectorAll('#transcript .said.{speaker} p')");
    format!("[...{lines}].some((line) => line.textContent.includes({words:?}))")
}

fn button_says(text: &str) -> String {
    format!("document.getElementById('button').textContent === {text:?}")
}

/// Returns what the microphone hears: silence, syllables, and silence, each in seconds. Browsers
/// take a steady tone for noise.
fn words(before: f64, speech: f64, after: f64) -> Vec<i16> {
    let rate = f64::from(MICROPHONE_RATE);
    let sample = |at: f64| {
        let spoken = (before..before + speech).contains(&at);
        let loud = spoken && (at - before) % 0.2 < 0.16;
        if loud {
            12_000.0 * (TAU * PITCH * at).sin()
        } else {
            0.0
        }
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "within plus and minus 12,000"
    )]
    (0..u32::MAX)
        .map(|number| f64::from(number) / rate)
        .take_while(|at| *at < before + speech + after)
        .map(|at| sample(at) as i16)
        .collect()
}

/// Returns what came over the page's socket as mu-law: nothing of it lies above 4 kHz.
fn on_the_telephone(samples: Value) -> Vec<u8> {
    let samples: Vec<i16> = serde_json::from_value(samples).unwrap();
    samples.into_iter().step_by(3).map(encode_ulaw).collect()
}

fn seconds_of(prompt: &str) -> f64 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(prompt);
    let wav = WavReader::open(path).unwrap();
    f64::from(wav.duration()) / f64::from(wav.spec().sample_rate)
}
