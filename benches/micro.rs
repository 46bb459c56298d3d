//! What single steps cost: `cargo bench --features bench`.

use std::time::Duration;

use bytes::Bytes;
use callgate::bench::{Call, Door, Resampler, Signatures};
use divan::Bencher;

fn main() {
    divan::main();
}

fn audio() -> String {
    "f".repeat(213) + "8=" + "="
}

/// 20 ms of 16-bit samples, as base64.
fn pcm(khz: usize) -> String {
    let bytes = khz * 20 * 2;
    "f2Ag".repeat(bytes / 3) + if bytes.is_multiple_of(3) { "" } else { "fw==" }
}

#[divan::bench]
fn frame_from_twilio_to_the_agent(bencher: Bencher) {
    let payload = audio();
    let message = Bytes::from(format!(
        r#"{{"event":"media","sequenceNumber":"7","streamSid":"MZ1","media":{{"track":"inbound","chunk":"6","timestamp":"0","payload":"{payload}"}}}}"#
    ));
    let mut call = Call::default();
    assert!(call.up(&message) > 216);
    bencher.bench_local(|| call.up(&message));
}

#[divan::bench]
fn frame_from_the_agent_to_twilio(bencher: Bencher) {
    let delta = audio();
    let message = Bytes::from(format!(
        r#"{{"type":"response.output_audio.delta","event_id":"e12","response_id":"resp_1","item_id":"item_a1","output_index":0,"content_index":0,"delta":"{delta}"}}"#
    ));
    let mut call = Call::default();
    let mut at = Duration::ZERO;
    assert!(call.down(at, &message) > 216);
    bencher.bench_local(|| {
        at += Duration::from_millis(20);
        call.down(at, &message)
    });
}

/// By the rate of its audio in kHz; the agent's is 24.
#[divan::bench(args = [24, 16])]
fn frame_from_acs_to_the_agent(bencher: Bencher, khz: usize) {
    let data = pcm(khz);
    let message = Bytes::from(format!(
        r#"{{"kind":"AudioData","audioData":{{"timestamp":"2026-01-06T10:20:34.120Z","participantRawID":null,"data":"{data}","silent":false}}}}"#
    ));
    let mut call = Call::over_acs(khz);
    assert!(call.up(&message) > 1_280);
    bencher.bench_local(|| call.up(&message));
}

#[divan::bench(args = [24, 16])]
fn frame_from_the_agent_to_acs(bencher: Bencher, khz: usize) {
    let delta = pcm(24);
    let message = Bytes::from(format!(
        r#"{{"type":"response.output_audio.delta","event_id":"e12","response_id":"resp_1","item_id":"item_a1","output_index":0,"content_index":0,"delta":"{delta}"}}"#
    ));
    let mut call = Call::over_acs(khz);
    let mut at = Duration::ZERO;
    assert!(call.down(at, &message) > 850);
    bencher.bench_local(|| {
        at += Duration::from_millis(20);
        call.down(at, &message)
    });
}

#[divan::bench]
fn signature_of_a_ringing_call() -> bool {
    static SIGNATURES: std::sync::LazyLock<Signatures> = std::sync::LazyLock::new(|| {
        Signatures::new(
            "0123456789abcdef0123456789abcdef",
            "https://voice.example.com/twilio/voice?tenant=acme",
            &[
                ("CallSid", "CA00000000000000000000000000000001"),
                ("AccountSid", "AC00000000000000000000000000000001"),
                ("From", "+972501234567"),
                ("To", "+972721234567"),
                ("CallStatus", "ringing"),
                ("ApiVersion", "2010-04-01"),
                ("Direction", "inbound"),
                ("CallerName", ""),
                ("FromCity", "TEL AVIV"),
            ],
        )
    });
    SIGNATURES.is_valid(divan::black_box("23KWQiRfonZvSwqMmJglfz51m/s="))
}

#[divan::bench(args = [0, 1_000, 100_000])]
fn a_call_is_admitted_and_ends_beside(bencher: Bencher, live: u64) {
    let mut door = Door::new(live, 200_000);
    bencher.bench_local(|| {
        let call = door.ring();
        door.end(call);
    });
}

#[divan::bench(args = [15, 1_000])]
fn a_call_is_refused_beside(bencher: Bencher, live: u64) {
    let mut door = Door::new(live, live);
    bencher.bench_local(|| door.ring());
}

/// A second of a call in frames of 20 ms.
#[divan::bench(args = [(8, 24), (24, 8), (16, 24), (24, 16), (8, 16), (16, 8)])]
fn a_second_of_audio_changes_its_rate_in_khz(bencher: Bencher, (from, to): (u32, u32)) {
    let mut resampler = Resampler::new(from * 1_000, to * 1_000);
    let sawtooth = (0..).map(|at| at % 40 * 400);
    let frame: Vec<i16> = sawtooth.take(from as usize * 20).collect();
    let mut out = Vec::new();
    bencher.bench_local(|| {
        for _ in 0..50 {
            out.clear();
            resampler.push(&frame, &mut out);
        }
        assert_eq!(out.len(), to as usize * 20);
    });
}
