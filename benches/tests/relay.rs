//! The relay benchmark runs, with few calls, over every carrier, and loses nothing.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// One after the other, for each takes a core.
#[test]
fn few_calls_of_every_carrier_come_back_whole() {
    let relay = Path::new(env!("CARGO_BIN_EXE_relay"));
    let gateway = relay.with_file_name("callgate");
    assert!(gateway.exists(), "build it first: cargo build --workspace");

    for encoding in ["pcm24k", "pcm16k"] {
        let run = ["--carrier", "acs", "--encoding", encoding, "--calls", "3"];
        let report = measure(relay, &[&run[..], &["--rounds", "1", "--json"]].concat());
        let rounds = report["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 2, "the floor and the gateway");
        for round in rounds {
            assert_whole(round);
        }
        assert!(rounds[1]["answer_ms"]["p99"].is_f64(), "{report}");
    }

    let report = measure(relay, &["--carrier", "mixed", "--calls", "4"]);
    let expected = serde_json::json!({"acs": 4, "twilio": 4, "web": 1});
    assert_eq!(report["connection_types"], expected);
    for (carrier, frames) in report["frames"].as_object().unwrap() {
        assert_whole(frames);
        assert_ne!(frames["frames_sent"], 0, "{carrier}");
    }
}

/// Runs the benchmark for two seconds, and returns its last line.
fn measure(relay: &Path, arguments: &[&str]) -> Value {
    let output = Command::new(relay)
        .args(arguments)
        .args(["--seconds", "2", "--warm-up", "1"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    let out = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

fn assert_whole(frames: &Value) {
    for count in [
        "frames_lost",
        "frames_duplicated",
        "frames_reordered",
        "frames_strange",
        "calls_dropped",
    ] {
        assert_eq!(frames[count], 0, "{count} of {frames}");
    }
}
