//! The simulator's callers, by every carrier, at a real gateway.

use callgate::{Report, SimulateOptions, parrot::ParrotOptions, simulate};
use clap::Parser;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    carrier::{PUBLIC_URL, TOKEN},
    gateway::{TestGateway, free_address},
};

const KEY: &str = "bm8gc2VjcmV0OiBjYWxsZ2F0ZSdzIG93biBrZXkgZm9yIGRldmVsb3BtZW50";

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    options: SimulateOptions,
}

/// A gateway that knows where the simulator's fake ACS is going to be.
struct House {
    gateway: TestGateway,
    connection_string: String,
}

impl House {
    async fn start(options: ParrotOptions, more: &[(&str, &str)]) -> Self {
        let base = format!("http://{}", free_address());
        let connection_string = format!("endpoint={base}/;accesskey={KEY}");
        let openid = format!("{base}/calling/.well-known/acsopenidconfiguration");
        let mut settings = more.to_vec();
        settings.extend([
            ("ACS_CONNECTION_STRING", connection_string.as_str()),
            ("ACS_RESOURCE_ID", "00000000-0000-4000-8000-00000000ca11"),
            ("ACS_OPENID_URL", openid.as_str()),
            ("EVENTGRID_SECRET", "callgate-development"),
        ]);
        Self {
            gateway: TestGateway::with_parrot(options, &settings).await,
            connection_string,
        }
    }

    async fn simulate(&self, arguments: &str) -> (Report, Value) {
        let url = format!("http://{}", self.gateway.carrier.address);
        let fixed = [
            "simulate",
            "--url",
            &url,
            "--public-url",
            PUBLIC_URL,
            "--auth-token",
            TOKEN,
            "--acs-connection-string",
            &self.connection_string,
        ];
        let arguments = fixed.into_iter().chain(arguments.split_whitespace());
        let options = Command::parse_from(arguments).options;
        let report = simulate(options, CancellationToken::new()).await.unwrap();
        let line = serde_json::from_str(&report.json()).unwrap();
        (report, line)
    }
}

#[tokio::test]
async fn callers_of_every_carrier_talk_and_are_told_apart() {
    let house = House::start(ParrotOptions::default(), &[]).await;
    let arguments = "--carrier mixed --mix 1:2:1 --calls 4 --rate 100 --talk-for 3s --seed 7";
    let (report, line) = house.simulate(arguments).await;
    assert!(report.all_well(), "{line}");
    assert_eq!(line["answered"], 4, "{line}");
    for (carrier, calls) in [("twilio", 1), ("acs", 2), ("web", 1)] {
        let share = &line["carriers"][carrier];
        assert_eq!(share["answered"], calls, "{line}");
        assert_eq!(
            share["first_audio_from_webhook_ms"]["count"], calls,
            "{line}"
        );
    }
    house.gateway.finish().await;
}

#[tokio::test]
async fn every_frame_comes_back_by_acs_and_from_a_browser() {
    let options = ParrotOptions {
        echo: true,
        ..ParrotOptions::default()
    };
    let house = House::start(options, &[("AGENT_GREETING", "none")]).await;
    for carrier in ["acs", "web"] {
        let arguments = format!("--carrier {carrier} --calls 2 --talk-for 4s --echo --seed 3");
        let (report, line) = house.simulate(&arguments).await;
        assert!(report.all_well(), "{line}");
        assert!(
            line["round_trip_ms"]["count"].as_u64().unwrap() > 200,
            "{line}"
        );
        assert_eq!(line["echo_duplicated"], 0, "{line}");
    }
    house.gateway.finish().await;
}

#[tokio::test]
async fn every_script_is_well_by_acs_and_from_a_browser() {
    let house = House::start(ParrotOptions::default(), &[]).await;
    for script in ["barge-in", "drop", "repeat-webhook"] {
        let arguments =
            format!("--carrier mixed --mix 0:1:1 --calls 4 --talk-for 4s --script {script}");
        let (report, line) = house.simulate(&arguments).await;
        assert!(report.all_well(), "{script}: {line}");
        // How quickly, and whether each time, is not asked here: a slow machine's caller comes late.
        let interrupted = line["interrupted_ms"]["count"].as_u64();
        assert_eq!(
            interrupted > Some(0),
            script == "barge-in",
            "{script}: {line}"
        );
        house.gateway.until_active(0).await;
    }
    house.gateway.finish().await;
}

#[tokio::test]
async fn who_finds_no_room_is_busy_whoever_brought_the_call() {
    let house = House::start(ParrotOptions::default(), &[("MAX_ACTIVE_CALLS", "1")]).await;
    let gateway = &house.gateway;
    let first = gateway.ring().await.connected().await;
    let arguments = "--carrier mixed --calls 3 --rate 100 --talk-for 3s";
    let (report, line) = house.simulate(arguments).await;
    assert!(report.all_well(), "{line}");
    for carrier in ["twilio", "acs", "web"] {
        assert_eq!(line["carriers"][carrier]["busy"], 1, "{line}");
    }
    first.hang_up().await;
    house.gateway.finish().await;
}

#[tokio::test]
async fn callers_are_heard_at_16_khz_where_the_gateway_wants_that() {
    let settings = [("ACS_AUDIO_FORMAT", "pcm16KMono")];
    let house = House::start(ParrotOptions::default(), &settings).await;
    let (report, line) = house.simulate("--carrier acs --talk-for 4s").await;
    assert!(report.all_well(), "{line}");
    assert_eq!(line["streams_without_audio"], 0, "{line}");
    house.gateway.finish().await;
}
