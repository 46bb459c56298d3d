//! Panics in the log, as everything else is: in its format, and in the span of their call.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, PanicHookInfo},
};

use tracing::field::display;

/// Logs panics from now on, where Rust would print them.
pub fn log() {
    panic::set_hook(Box::new(log_one));
}

/// Logs where a panic is, and what the code says of it itself. Whatever was put together when it
/// happened is kept back: text that is cut in the middle of a letter, for one, is printed with the
/// panic, and may be what a caller has said.
fn log_one(panic: &PanicHookInfo<'_>) {
    let says = panic.payload().downcast_ref::<&'static str>();
    // If RUST_BACKTRACE asks for it. It names functions, and no values.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| display(backtrace));
    tracing::error!(
        place = panic.location().map(display),
        says,
        backtrace,
        "a panic: this is a bug in callgate"
    );
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        fs::OpenOptions,
        process::{Command, Stdio},
        thread,
    };

    use serde_json::Value;

    use crate::{
        call::{CallId, CarrierCallId},
        config::LogFormat,
        telemetry::{call_span, log_to_stderr},
    };

    /// Which panic a process that this test starts is to have.
    const WHICH: &str = "CALLGATE_TEST_PANIC";
    const WORDS: &str = "שלום, my code is 4711";
    const NAME: &str =
        "telemetry::panics::tests::a_panic_is_logged_with_its_call_and_without_what_it_was_about";

    /// Panics as a call does, in a process of its own: a hook is there for all its threads.
    fn panic_in_a_call(which: &str) {
        log_to_stderr(Some("sqlx=debug"), LogFormat::Json);
        let in_a_call = |which: &str| {
            let name = "CA0123456789abcdef0123456789abcdef".to_owned();
            let name = CarrierCallId::try_from(name).unwrap();
            let _call = call_span(CallId::of(&name), &name).entered();
            match which {
                "words" => drop(WORDS[..1].to_owned()),
                _ => panic!("written in the code"),
            }
        };
        thread::scope(|threads| {
            let panicked = threads.spawn(|| in_a_call(which)).join();
            assert!(panicked.is_err());
        });
    }

    /// Starts this test in a process of its own, which is to panic and to go on.
    fn panics(which: &str) -> Command {
        let mut process = Command::new(env::current_exe().unwrap());
        process
            .args(["--exact", NAME, "--nocapture"])
            .env(WHICH, which)
            .env("RUST_BACKTRACE", "1");
        process
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a process that a test starts of itself is told so"
    )]
    fn a_panic_is_logged_with_its_call_and_without_what_it_was_about() {
        if let Ok(which) = env::var(WHICH) {
            return panic_in_a_call(&which);
        }
        for (which, says) in [
            ("words", Value::Null),
            ("code", Value::from("written in the code")),
        ] {
            let panicked = panics(which).output().unwrap();
            let log = String::from_utf8(panicked.stderr).unwrap();
            assert!(panicked.status.success(), "{log}");
            assert!(!log.contains("4711") && !log.contains("שלום"), "{log}");
            let lines = log
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            let lines: Vec<Value> = lines.collect();
            let [line] = &lines[..] else {
                panic!("not one line: {log}");
            };
            let fields = &line["fields"];
            assert_eq!(fields["says"], says);
            let place = fields["place"].as_str().unwrap();
            assert!(place.starts_with("src/telemetry/panics.rs:"), "{place}");
            let backtrace = fields["backtrace"].as_str().unwrap();
            assert!(backtrace.contains("panic_in_a_call"), "{backtrace}");
            let span = &line["span"];
            assert_eq!(
                span["carrier_call.id"],
                "CA0123456789abcdef0123456789abcdef"
            );
        }
    }

    #[test]
    fn where_nothing_can_be_written_a_panic_ends_no_more_than_its_task() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut process = panics("words");
        let process = process.stdout(Stdio::null()).stderr(full);
        assert!(process.status().unwrap().success());
    }
}
