//! What slots cost a Redis: `cargo bench --features bench --bench store`. Prints one line of JSON:
//! microseconds of the server's time an operation, beside those of the scripts that the design was
//! tried out with, which run on the same machine in the same minute.

use callgate::bench::Slots;
use redis::{Cmd, Connection, FromRedisValue, Script, ToRedisArgs};
use redis_server::RedisServer;
use serde_json::json;
use tokio::runtime::Builder;

#[path = "../tests/it/redis_server.rs"]
mod redis_server;

/// How many calls are live at the height of a round.
const LIVE: u32 = 1_000;
/// How many times they come and go.
const ROUNDS: u32 = 50;
/// How many calls one script renews.
const BATCH: usize = 50;
const PHASES: [&str; 6] = ["acquire", "held", "full", "adopt", "renew", "release"];
/// What the prototype took on the machine that it was written on, and what we may take.
const PROTOTYPE: [Option<f64>; 6] = [
    Some(45.0),
    Some(16.0),
    Some(15.0),
    None,
    Some(17.0),
    Some(14.0),
];
const GOALS: [Option<f64>; 6] = [Some(60.0), None, Some(20.0), None, Some(30.0), Some(20.0)];

/// The server's time by phase and round.
struct Meter {
    operator: Connection,
    micros: [Vec<u32>; 6],
}

fn main() {
    let server = RedisServer::start();
    let ours = measure_ours(&server);
    server.flush();
    let prototype = measure_prototype(&server);
    let version = version(&mut server.connection());
    let figures = PHASES.iter().enumerate().map(|(at, phase)| {
        let (ours, prototype) = (ours.per_call(at), prototype.per_call(at));
        let then = PROTOTYPE[at];
        let figure = json!({
            "us": rounded(ours),
            "prototype_us": then.map(|_| rounded(prototype)),
            "ratio": then.map(|_| rounded(ours / prototype)),
            "prototype_us_then": then,
            "goal_us": GOALS[at],
            "passed": GOALS[at].map(|goal| ours <= goal),
        });
        ((*phase).to_owned(), figure)
    });
    let figures: serde_json::Map<_, _> = figures.collect();
    println!(
        "{}",
        json!({ "figure": "store", "redis": version, "live": LIVE, "each": LIVE * ROUNDS, "phases": figures })
    );
}

impl Meter {
    fn new(server: &RedisServer) -> Self {
        Self {
            operator: server.connection(),
            micros: Default::default(),
        }
    }

    fn begin(&mut self) {
        ask::<()>(&mut self.operator, "CONFIG RESETSTAT");
    }

    fn end(&mut self, phase: usize) {
        let stats: String = ask(&mut self.operator, "INFO commandstats");
        let scripts = stats
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_evalsha:"));
        let micros = scripts.and_then(|it| it.split(',').find_map(|it| it.strip_prefix("usec=")));
        let micros = micros.map_or(0, |it| it.parse().expect("a number"));
        self.micros[phase].push(micros);
    }

    /// Returns what an operation took in the median round: others use this machine too.
    fn per_call(&self, phase: usize) -> f64 {
        let mut rounds = self.micros[phase].clone();
        rounds.sort_unstable();
        let median = rounds.get(rounds.len() / 2).copied().unwrap_or(0);
        f64::from(median) / f64::from(LIVE)
    }
}

fn measure_ours(server: &RedisServer) -> Meter {
    let runtime = Builder::new_current_thread().enable_all().build();
    let mut meter = Meter::new(server);
    runtime.expect("a runtime").block_on(async {
        let slots = Slots::open(&server.url()).await;
        server.ask::<()>("DEL calls:gen:recover");
        for round in 0..ROUNDS {
            let mut calls: Vec<(u32, u64)> = Vec::new();
            let ids = round * LIVE..(round + 1) * LIVE;
            meter.begin();
            for call in ids.clone() {
                let epoch = slots.acquire(call, LIVE).await;
                calls.push((call, epoch.unwrap_or(0)));
            }
            meter.end(0);
            meter.begin();
            for call in ids.clone() {
                assert_eq!(slots.acquire(call, LIVE).await, None);
            }
            meter.end(1);
            meter.begin();
            for call in ids {
                assert_eq!(slots.acquire(1_000_000 + call, LIVE).await, None);
            }
            meter.end(2);
            meter.begin();
            for (call, epoch) in &mut calls {
                *epoch = slots.adopt(*call, LIVE).await;
            }
            meter.end(3);
            meter.begin();
            for batch in calls.chunks(BATCH) {
                slots.renew(batch).await;
            }
            meter.end(4);
            meter.begin();
            for (call, epoch) in calls {
                slots.release(call, epoch).await;
            }
            meter.end(5);
        }
    });
    meter
}

/// Puts three scopes into keys of the prototype's.
const SCOPES: [&str; 3] = ["p:global", "p:tenant", "p:campaign"];

fn measure_prototype(server: &RedisServer) -> Meter {
    let acquire = Script::new(include_str!("store/prototype_acquire.lua"));
    let renew = Script::new(include_str!("store/prototype_renew.lua"));
    let release = Script::new(include_str!("store/prototype_release.lua"));
    let (mut meter, mut connection) = (Meter::new(server), server.connection());
    ask::<()>(&mut connection, "SET p:gen 1");
    let id = |call: u32| format!("CA{call:032x}");
    let acquire = |connection: &mut Connection, call: u32| {
        let owner = format!("p:active:{}", id(call));
        let mut script = acquire.prepare_invoke();
        script.key(&["p:gen", "p:gate", "p:active", "p:count", &owner, "p:epoch"]);
        script.key(&SCOPES).arg(id(call)).arg("0123abcd");
        script.arg(&[20_000, 30_000, LIVE, LIVE, LIVE]);
        let (answer, epoch): (String, u64) = first_two(script.invoke(connection));
        (answer, epoch)
    };
    for round in 0..ROUNDS {
        let mut calls: Vec<(u32, u64)> = Vec::new();
        let ids = round * LIVE..(round + 1) * LIVE;
        let phases = [("OK", 0, 0), ("ALREADY", 1, 0), ("FULL", 2, 1_000_000)];
        for (expected, phase, from) in phases {
            meter.begin();
            for call in ids.clone() {
                let (answer, epoch) = acquire(&mut connection, from + call);
                assert_eq!(answer, expected);
                if phase == 0 {
                    calls.push((call, epoch));
                }
            }
            meter.end(phase);
        }
        meter.begin();
        for batch in calls.chunks(BATCH) {
            let mut script = renew.prepare_invoke();
            script.key(&["p:gen", "p:gate", "p:active", "p:count", "p:instances"]);
            script
                .key(&SCOPES)
                .arg(&["1", "0123abcd", "30000", "30000", "2", "3000", "0", "5000"]);
            for (call, epoch) in batch {
                script.key(format!("p:active:{}", id(*call)));
                script.arg(id(*call)).arg(*epoch).arg("1 2");
            }
            let _: redis::Value = script.invoke(&mut connection).expect("it answers");
        }
        meter.end(4);
        meter.begin();
        for (call, epoch) in calls {
            let mut script = release.prepare_invoke();
            script.key(&["p:active", "p:count", &format!("p:active:{}", id(call))]);
            script.key(&SCOPES).arg(id(call)).arg(epoch);
            let (answer, _): (String, u64) = first_two(script.invoke(&mut connection));
            assert_eq!(answer, "OK");
        }
        meter.end(5);
    }
    meter
}

/// Returns how an answer begins.
fn first_two(answer: redis::RedisResult<Vec<redis::Value>>) -> (String, u64) {
    let mut values = answer.expect("it answers").into_iter();
    let mut value = || values.next().expect("an answer of several parts");
    let text = redis::from_redis_value(value()).expect("a text");
    let number = redis::from_redis_value(value()).expect("a number");
    (text, number)
}

fn version(operator: &mut Connection) -> String {
    let info: String = ask(operator, "INFO server");
    let version = info
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"));
    version.unwrap_or_default().to_owned()
}

fn ask<T: FromRedisValue>(operator: &mut Connection, command: &str) -> T {
    let mut sent = Cmd::new();
    for word in command.split(' ') {
        sent.arg(word.to_redis_args());
    }
    sent.query(operator).expect("it answers")
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
