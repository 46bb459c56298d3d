//! The operators' pages in a real browser: what is shown while callers talk, and what is done.

use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::time::{Duration, sleep};

use crate::{
    audio::{FRAME, syllables},
    carrier::{call_sid, ringing},
    chromium::Chromium,
    dashboard::{OPS_TOKEN, READ_TOKEN},
    line::{Line, stop},
    process::Program,
    redis::Redis,
};

const SETTINGS: [(&str, &str); 7] = [
    ("OPS_TOKEN", OPS_TOKEN),
    ("OPS_READ_TOKEN", READ_TOKEN),
    ("MAX_ACTIVE_CALLS", "4"),
    ("DEFAULT_LANGUAGE", "en-US"),
    ("AGENT_VAD_SILENCE_MS", "200"),
    ("AGENT_PRICES", "minute=0.09"),
    ("PRICES_CURRENCY", "EUR"),
];
/// The narrowest phone that the pages are made for.
const PHONE: u32 = 360;
const DESK: u32 = 1_200;

#[tokio::test]
async fn an_operator_watches_callers_talk_and_hangs_one_up() {
    let gateway = Program::start(&SETTINGS).await;
    let mut browser = Chromium::start(&[0; 480], &[]).await;
    log_in(&mut browser, &gateway, OPS_TOKEN).await;
    assert_eq!(browser.text("#live .hint").await, "Nobody is on the line.");
    browser.until("callgate.isLive").await;
    let lines = [
        gateway.call(&call_sid()).await,
        gateway.call_from(&call_sid(), "+972547779031").await,
    ];
    browser
        .until("document.querySelectorAll('#live tbody tr').length === 2")
        .await;
    // What was said and how loud it is come by themselves.
    for line in &lines {
        line.until_played(9_600).await;
        line.speak(syllables(1_100.0, 150));
    }
    browser
        .until("document.querySelector('.level.caller rect').getAttribute('width') !== '0%'")
        .await;
    let words = "[...document.querySelectorAll('#live td.words')]";
    browser
        .until(&format!(
            "{words}.some((it) => it.textContent.includes('short tune'))"
        ))
        .await;
    let shown = browser.text("#live tbody").await;
    for caller in ["+9*******4567", "+9*******9031"] {
        assert!(shown.contains(caller), "{shown}");
    }
    refused(&gateway, 2).await;
    browser
        .until("document.querySelectorAll('#hour .refused rect').length > 0")
        .await;
    browser
        .until("document.querySelector('#hour .live').getAttribute('d').length > 10")
        .await;
    let others = talk_for_the_pictures(&gateway, &lines).await;
    pictures(&mut browser).await;
    for (sid, line) in others {
        line.send(stop(&sid));
        line.closed().await;
    }

    let row = "document.querySelector('#live tbody tr a.act').getAttribute('href')";
    let href = browser.evaluate(row).await;
    let href = href.as_str().unwrap().to_owned();
    browser.visit(&format!("{}{href}", base(&gateway))).await;
    browser.submit("form .danger", "/dashboard").await;
    assert_eq!(
        browser.text(".notice.good").await,
        "The call is being hung up."
    );
    browser
        .until("document.querySelectorAll('#live tbody tr').length === 1")
        .await;
    let hung_up = lines.iter().filter(|line| !line.is_open()).count();
    assert_eq!(hung_up, 1);
    browser.close().await;
}

#[tokio::test]
async fn a_page_tells_what_happened_to_a_call() {
    let gateway = Program::start(&SETTINGS).await;
    let mut browser = Chromium::start(&[0; 480], &[]).await;
    log_in(&mut browser, &gateway, OPS_TOKEN).await;
    let sid = call_sid();
    let line = gateway.call_from(&sid, "+972547779031").await;
    line.until_played(9_600).await;
    let heard = line.played(0).len();
    line.speak(syllables(1_100.0, 30));
    line.until_played(heard + 25 * FRAME).await;
    line.speak(syllables(900.0, 30));
    line.until_played(heard + 40 * FRAME).await;
    line.send(stop(&sid));
    line.closed().await;
    let list = format!("{}/calls?q=9031", base(&gateway));
    let over = "document.querySelector('tbody')?.textContent.includes('caller hung up')";
    eventually_shown(&mut browser, &list, over).await;
    let href = browser
        .evaluate("document.querySelector('tbody a').getAttribute('href')")
        .await;
    browser
        .visit(&format!("{}{}", base(&gateway), href.as_str().unwrap()))
        .await;
    let page = browser.text("main").await;
    for told in [
        "Call from +9*******9031",
        "the call is admitted, decided in",
        "The media socket has brought the call.",
        "connecting took",
        "A turn: the agent answers after",
        "the caller speaks for",
        "The call ends: caller hung up (by caller).",
        "a short tune",
    ] {
        assert!(page.contains(told), "{told} in {page}");
    }
    let parts = "document.querySelectorAll('.parts rect.playout').length > 0";
    assert_eq!(browser.evaluate(parts).await, true);
    browser.prefer("light").await;
    browser.be_wide(DESK).await;
    keep(&browser.screenshot("call-page").await, "call-page.png");
    browser.be_wide(PHONE).await;
    fits(&mut browser).await;
    browser.close().await;
}

#[tokio::test]
async fn the_intake_is_stopped_and_the_replica_drained_by_the_page() {
    let mut gateway = Program::start(&SETTINGS).await;
    let mut browser = Chromium::start(&[0; 480], &[]).await;
    browser.visit(&format!("{}/login", base(&gateway))).await;
    type_in(&mut browser, "not-the-operators-one").await;
    browser.submit("form button", "/login").await;
    assert!(browser.text("[role=alert]").await.contains("not OPS_TOKEN"));
    browser.forgive("401").await;
    log_in(&mut browser, &gateway, READ_TOKEN).await;
    let offered = "[...document.querySelectorAll('a.act')].some((it) => it.checkVisibility())";
    assert_eq!(browser.evaluate(offered).await, false);
    browser.submit(".top button", "/login").await;
    log_in(&mut browser, &gateway, OPS_TOKEN).await;
    assert_eq!(browser.evaluate(offered).await, true);

    browser.submit("#now a.act", "/actions/stop-intake").await;
    browser.submit("form .danger", "/dashboard").await;
    assert_eq!(browser.text("#now .state").await, "Intake stopped");
    assert!(
        browser
            .text("#warnings")
            .await
            .contains("The intake is stopped")
    );
    refused(&gateway, 1).await;
    browser.submit("#now a.act", "/actions/resume-intake").await;
    browser.submit("form .danger", "/dashboard").await;
    assert_eq!(browser.text("#now .state").await, "Intake open");

    let sid = call_sid();
    let line = gateway.call(&sid).await;
    browser.submit("#replicas a.act", "/actions/drain").await;
    browser.submit("form .danger", "/dashboard").await;
    browser
        .until("document.getElementById('warnings').textContent.includes('1 replica drains')")
        .await;
    assert!(line.is_open(), "it has time");
    line.send(stop(&sid));
    line.closed().await;
    assert_eq!(gateway.ended().await.code(), Some(0));
    // The page notices that nobody answers any more.
    browser.forgive("Failed to load resource").await;
    browser.close().await;
}

#[tokio::test]
async fn a_caller_is_hung_up_by_keyboard_alone_and_everything_has_a_name() {
    let gateway = Program::start(&SETTINGS).await;
    let mut browser = Chromium::start(&[0; 480], &[]).await;
    log_in(&mut browser, &gateway, OPS_TOKEN).await;
    let line = gateway.call(&call_sid()).await;
    line.until_played(9_600).await;
    browser
        .until("document.querySelectorAll('#live tbody tr').length === 1")
        .await;
    let found = browser.read_out().await;
    for (role, name) in [
        ("main", ""),
        ("navigation", "Pages"),
        ("heading", "Dashboard"),
        ("region", "Now"),
        ("region", "Warnings"),
        ("region", "The last hour"),
        ("region", "Caps"),
        ("region", "Live connections"),
        ("table", "Live connections"),
        ("columnheader", "last words"),
        ("columnheader", "what to do"),
        ("link", "Hang up +9*******4567"),
        ("link", "Stop the intake"),
        ("region", "Agents"),
        ("region", "Replicas"),
        ("region", "Records and events"),
    ] {
        let is_there = found.iter().any(|it| it.0 == role && it.1 == name);
        assert!(is_there, "{role} {name:?} in {found:?}");
    }
    let plot = found.iter().find(|(role, _)| role == "image").unwrap();
    assert!(
        plot.1
            .starts_with("Live calls and refusals of the last hour: 1 of 4"),
        "{plot:?}"
    );
    for (role, name) in &found {
        let must_have = [
            "link", "button", "image", "table", "region", "textbox", "heading",
        ];
        assert!(
            !must_have.contains(&role.as_str()) || !name.is_empty(),
            "a {role} without a name"
        );
    }
    let live = "document.getElementById('warnings').getAttribute('aria-live')";
    assert_eq!(browser.evaluate(live).await, "polite");

    browser.tab_to("a[href^='/actions/hang-up']").await;
    browser.enter("/actions/hang-up").await;
    browser.tab_to("form .danger").await;
    browser.enter("/dashboard").await;
    assert_eq!(
        browser.text("[role=status]").await,
        "The call is being hung up."
    );
    line.closed().await;
    browser
        .until("document.querySelectorAll('#live tbody tr').length === 0")
        .await;
    browser.close().await;
}

#[tokio::test]
async fn another_replica_is_drained_by_the_page_of_this_one() {
    let redis = Redis::start().await;
    let url = redis.url();
    let shared = [
        ("REDIS_URL", url.as_str()),
        ("REDIS_TIMEOUT_MS", "1000"),
        ("TICKET_SECRET", "the same on both replicas"),
        ("EXPECTED_REPLICAS", "2"),
    ];
    let settings = [&SETTINGS[..], &shared].concat();
    let here = Program::start(&settings).await;
    let mut there = Program::start(&settings).await;
    let mut browser = Chromium::start(&[0; 480], &[]).await;
    log_in(&mut browser, &here, OPS_TOKEN).await;
    let other = "#replicas li:not(:has(.name .hint)) a.act";
    browser
        .until(&format!("document.querySelector({})", json!(other)))
        .await;
    let sid = call_sid();
    let line = there.call(&sid).await;
    browser.submit("#now a.act", "/actions/stop-intake").await;
    browser.submit("form .danger", "/dashboard").await;
    browser.submit(other, "/actions/drain").await;
    browser.submit("form .danger", "/dashboard").await;
    assert_eq!(
        browser.text(".notice.good").await,
        "The replica was told to drain."
    );
    let drains = "document.getElementById('warnings').textContent.includes('1 replica drains')";
    browser.until(drains).await;
    assert!(
        browser
            .text("#warnings")
            .await
            .contains("The intake is stopped")
    );
    browser.be_wide(DESK).await;
    let picture = browser.screenshot("dashboard-draining").await;
    keep(&picture, "dashboard-draining.png");
    line.send(stop(&sid));
    line.closed().await;
    assert_eq!(there.ended().await.code(), Some(0));
    browser
        .until("document.querySelectorAll('#replicas li').length === 1")
        .await;
    assert_eq!(browser.text("#replicas .state").await, "takes calls");
    browser.close().await;
    here.terminate();
}

/// By plain http and the name `localhost`, as a tunnel brings it.
#[tokio::test]
async fn in_production_a_login_holds_in_a_browser_that_comes_through_a_tunnel() {
    let settings = [
        &SETTINGS[..],
        &[
            ("PRODUCTION", "1"),
            ("AGENT", "openai"),
            ("OPENAI_API_KEY", "nobody-is-asked"),
        ],
    ]
    .concat();
    let gateway = Program::start(&settings).await;
    let named = "--host-resolver-rules=MAP gate.test 127.0.0.1";
    let mut browser = Chromium::start(&[0; 480], &[named]).await;
    let port = gateway.carrier.address.port();
    // By http and any other name the cookie is dropped, which is said.
    let plain = format!("http://gate.test:{port}/login");
    browser.visit(&plain).await;
    type_in(&mut browser, OPS_TOKEN).await;
    browser.submit("form button", "/login").await;
    let said = browser.text("[role=alert]").await;
    assert!(said.contains("cookie is for https"), "{said}");
    browser.forgive("401").await;
    browser
        .visit(&format!("http://localhost:{port}/login"))
        .await;
    type_in(&mut browser, OPS_TOKEN).await;
    browser.submit("form button", "/dashboard").await;
    assert_eq!(browser.text("#live .hint").await, "Nobody is on the line.");
    browser.until("callgate.isLive").await;
    browser.close().await;
}

fn base(gateway: &Program) -> String {
    format!("http://{}", gateway.carrier.address)
}

async fn log_in(browser: &mut Chromium, gateway: &Program, token: &str) {
    browser.visit(&format!("{}/login", base(gateway))).await;
    type_in(browser, token).await;
    browser.submit("form button", "/dashboard").await;
}

async fn type_in(browser: &mut Chromium, token: &str) {
    let type_in = format!("document.getElementById('token').value = {}", json!(token));
    browser.evaluate(&type_in).await;
}

async fn eventually_shown(browser: &mut Chromium, url: &str, shown: &str) {
    for _ in 0..100 {
        browser.visit(url).await;
        if browser.evaluate(&format!("!!({shown})")).await == true {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{shown}: not in time");
}

/// Rings as often as it takes until so many callers were refused.
async fn refused(gateway: &Program, wanted: u32) {
    let mut refused = 0;
    while refused < wanted {
        let sid = call_sid();
        let fields = ringing(&sid);
        let answer = gateway.carrier.webhook("/webhook/incoming_call", &fields);
        if answer.await.twiml().verbs()[0] != "Connect" {
            refused += 1;
        }
    }
}

async fn fits(browser: &mut Chromium) {
    let width = "document.documentElement.scrollWidth";
    assert_eq!(browser.evaluate(width).await, PHONE);
}

/// Looks at the dashboard in both themes and on a phone.
async fn pictures(browser: &mut Chromium) {
    browser.be_wide(DESK).await;
    browser.prefer("light").await;
    let light = browser.screenshot("dashboard-light").await;
    keep(&light, "dashboard-light.png");
    browser.prefer("dark").await;
    let dark = browser.screenshot("dashboard-dark").await;
    assert_ne!(light, dark);
    keep(&dark, "dashboard-dark.png");
    browser.be_wide(PHONE).await;
    fits(browser).await;
    keep(
        &browser.screenshot("dashboard-phone").await,
        "dashboard-phone.png",
    );
    browser.be_wide(DESK).await;
}

/// Returns where pictures are kept for the documentation, if somebody wants them.
fn wanted() -> Option<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a setting of the tests, not of a gateway"
    )]
    let wanted = std::env::var("CALLGATE_TEST_PICTURES").ok();
    wanted.map(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"))
}

fn keep(png: &[u8], name: &str) {
    if let Some(docs) = wanted() {
        std::fs::write(docs.join(name), png).unwrap();
    }
}

/// Has callers come and go for eleven minutes, so that the pictures have something to show; returns
/// those who are on the line at the end.
async fn talk_for_the_pictures(gateway: &Program, talking: &[Line]) -> Vec<(String, Line)> {
    let mut lines: Vec<(String, Line)> = Vec::new();
    if wanted().is_none() {
        return lines;
    }
    // Those who were let in without media are given up.
    sleep(Duration::from_secs(22)).await;
    // Before ten minutes nothing is said of what calls need.
    for (round, wanted) in [1, 2, 1, 0, 2, 2, 1, 2].repeat(7).into_iter().enumerate() {
        while lines.len() > wanted {
            let (sid, line) = lines.remove(0);
            line.send(stop(&sid));
            line.closed().await;
        }
        while lines.len() < wanted {
            let (sid, caller) = (
                call_sid(),
                format!("+97250{:07}", 3_141_592 + 271_828 * round),
            );
            lines.push((sid.clone(), gateway.call_from(&sid, &caller).await));
        }
        if wanted == 2 && round % 7 == 0 {
            refused(gateway, 2).await; // All four slots are taken.
        }
        for line in lines.iter().map(|(_, line)| line).chain(talking) {
            line.speak(syllables(1_100.0, 200));
        }
        sleep(Duration::from_secs(12)).await;
    }
    // All are seen speaking.
    for line in lines.iter().map(|(_, line)| line).chain(talking) {
        line.speak(syllables(1_100.0, 1_000));
    }
    sleep(Duration::from_secs(2)).await;
    lines
}
