//! Whole runs: several callers, their options and their report.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{TOKEN, connects, echoes, gateway::Gateway, is_mute};
use crate::simulate::{SimulateOptions, progress, run, script::Script};

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    options: SimulateOptions,
}

fn options(gateway: &Gateway, arguments: &str) -> SimulateOptions {
    let url = format!("http://{}", gateway.address);
    let arguments = ["simulate", "--url", &url, "--auth-token", TOKEN]
        .into_iter()
        .chain(arguments.split_whitespace());
    <Command as clap::Parser>::parse_from(arguments).options
}

#[tokio::test]
async fn a_run_reports_on_all_its_callers() {
    let gateway = Gateway::start(connects, echoes).await;
    let arguments = "--calls 5 --rate 100 --talk-for 0.3s --echo --seed 7";
    let stop = CancellationToken::new();
    let report = run(options(&gateway, arguments), stop).await.unwrap();
    let line: Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(line["calls"], 5);
    assert_eq!(line["answered"], 5, "{line}");
    assert!(report.all_well(), "{line}");
    assert!(line["round_trip_ms"]["count"].as_u64().unwrap() > 0);
    assert!(line["lateness_ms"]["count"] == line["frames_sent"]);
}

#[tokio::test]
async fn callers_call_again_until_the_time_is_up() {
    let gateway = Gateway::start(connects, is_mute).await;
    let arguments = "--calls 2 --rate 100 --talk-for 0.1s --for 2500ms --repeat";
    let stop = CancellationToken::new();
    let report = run(options(&gateway, arguments), stop).await.unwrap();
    let line: Value = serde_json::from_str(&report.json()).unwrap();
    assert!(line["calls"].as_u64().unwrap() > 2, "{line}");
    assert_eq!(line["failed"], 0, "{line}");
}

#[tokio::test]
async fn a_stopped_run_hangs_up_politely() {
    let gateway = Gateway::start(connects, echoes).await;
    let stop = CancellationToken::new();
    let running = run(
        options(&gateway, "--talk-for 1h --script silent"),
        stop.clone(),
    );
    let (report, ()) = tokio::join!(running, async {
        while gateway.heard("media").len() < 5 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    });
    assert!(report.unwrap().all_well());
    assert_eq!(gateway.heard("stop").len(), 1);
    assert_eq!(gateway.paths().last().unwrap(), "/webhook/call_status");
}

#[test]
fn options_are_read_and_wrong_ones_refused() {
    let parse = |arguments: &str| {
        let arguments = ["simulate"].into_iter().chain(arguments.split_whitespace());
        <Command as clap::Parser>::try_parse_from(arguments).map(|command| command.options)
    };
    let read = parse("--for 1m30s --talk-for 5 --script barge-in --repeat --press 12#").unwrap();
    assert_eq!(read.run_for, Some(Duration::from_secs(90)));
    assert_eq!(read.talk_for, Duration::from_secs(5));
    assert_eq!(read.script, Script::BargeIn);
    for wrong in [
        "--for -3s",
        "--for soon",
        "--for 18446744073709551615",
        "--rate 0",
        "--rate inf",
        "--repeat",
        "--script shout",
        "--url nowhere",
        "--press 1A",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    for calls in [None, Some(3)] {
        progress(calls).finish_and_clear();
    }
}
