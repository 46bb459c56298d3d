//! What may be said of the scripts without running them.

use super::*;

/// Returns every script there is, by name.
fn scripts() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admission/redis");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let scripts = files.filter(|file| file.extension().is_some_and(|it| it == "lua"));
    let scripts = scripts.map(|file| {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(&file).unwrap())
    });
    let scripts: Vec<_> = scripts.collect();
    assert!(scripts.len() >= 8, "they are found");
    scripts
}

/// What is sent besides scripts.
const COMMANDS: [&str; 10] = [
    "DEL", "EVALSHA", "GET", "HDEL", "INFO", "MGET", "TIME", "ZCOUNT", "ZRANGE", "ZREM",
];

/// One `call(...)` of a script.
#[derive(Debug)]
struct Called {
    command: String,
    arguments: Vec<String>,
}

/// Returns the commands that a script calls, those within others' arguments as well.
fn calls(script: &str) -> Vec<Called> {
    let code: Vec<_> = script
        .lines()
        .map(|line| line.split("--").next().unwrap())
        .collect();
    let code = code.join("\n");
    let starts = code.match_indices("call(");
    let starts = starts.filter(|(at, _)| !code[..*at].ends_with('p')); // A `pcall` of Lua's own.
    let starts = starts.map(|(at, found)| at + found.len());
    let calls = starts.map(|at| {
        let mut arguments = arguments(&code[at..]);
        let command = arguments.remove(0);
        let command = command
            .strip_prefix('\'')
            .and_then(|it| it.strip_suffix('\''));
        Called {
            command: command.expect("a command's name is a literal").to_owned(),
            arguments,
        }
    });
    calls.collect()
}

/// Splits the arguments of a call, up to its closing parenthesis.
fn arguments(code: &str) -> Vec<String> {
    let (mut depth, mut quoted) = (0_u32, false);
    let mut arguments = vec![String::new()];
    for letter in code.chars() {
        match letter {
            '\'' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' if !quoted && depth == 0 => break,
            ')' | ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().unwrap().push(letter);
    }
    let trimmed = arguments.iter().map(|argument| argument.trim().to_owned());
    trimmed.collect()
}

#[test]
fn every_key_that_a_script_touches_is_declared() {
    for (script, text) in scripts() {
        for Called { command, arguments } in calls(&text) {
            let keys = match command.as_str() {
                "TIME" => continue,
                "MGET" | "DEL" => &arguments[..],
                _ => &arguments[..1],
            };
            for key in keys {
                let index = key
                    .strip_prefix("KEYS[")
                    .and_then(|it| it.strip_suffix(']'));
                let is_declared = index.is_some_and(|index| !index.contains([']', '[']));
                assert!(is_declared, "{script}: {command} of {key}");
                assert!(!key.contains(".."), "{script}: {command} of {key}");
            }
        }
    }
}

#[test]
fn every_script_takes_its_time_from_the_server() {
    for (script, text) in scripts() {
        assert!(!text.contains("os."), "{script}");
        let has_clock = calls(&text).iter().any(|called| called.command == "TIME");
        assert_eq!(has_clock, script != "note", "{script}");
    }
}

/// Returns a named field of what `COMMAND DOCS` says, which is a list of names and values.
fn field<'a>(docs: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Array(values) = docs else {
        return None;
    };
    let mut pairs = values.chunks_exact(2);
    let found = pairs.find(|pair| text(&pair[0]).as_deref() == Some(name));
    found.map(|pair| &pair[1])
}

fn text(value: &Value) -> Option<String> {
    redis::from_redis_value(value.clone()).ok()
}

/// Returns since when there is an option, if it is younger than its command.
fn since(docs: &Value, option: &str) -> Option<String> {
    let Value::Array(values) = docs else {
        return None;
    };
    let token = field(docs, "token").and_then(text);
    if token.as_deref() == Some(option) {
        return field(docs, "since").and_then(text);
    }
    values.iter().find_map(|value| since(value, option))
}

fn is_in_6_2(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap());
    let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
    version <= (6, 2)
}

#[test]
fn every_command_and_option_is_in_redis_6_2() {
    let server = RedisServer::start();
    let mut sent: Vec<(String, Called)> = Vec::new();
    for (script, text) in scripts() {
        let calls = calls(&text).into_iter();
        sent.extend(calls.map(|called| (script.clone(), called)));
    }
    sent.extend(COMMANDS.iter().map(|command| {
        let called = Called {
            command: (*command).to_owned(),
            arguments: Vec::new(),
        };
        ("Rust".to_owned(), called)
    }));
    assert!(sent.len() > 80, "they are found");
    for (from, Called { command, arguments }) in sent {
        let docs: Vec<Value> = server.ask(&format!("COMMAND DOCS {command}"));
        let docs = docs.get(1).unwrap_or_else(|| panic!("{from}: {command}"));
        let version = field(docs, "since").and_then(text).unwrap();
        assert!(is_in_6_2(&version), "{from}: {command} is of {version}");
        let is_option = |it: &&str| it.len() > 1 && it.bytes().all(|it| it.is_ascii_uppercase());
        let quoted = arguments
            .iter()
            .filter_map(|it| it.strip_prefix('\'')?.strip_suffix('\''));
        for option in quoted.filter(is_option) {
            let version = since(docs, option).unwrap_or_else(|| "1.0".to_owned());
            assert!(
                is_in_6_2(&version),
                "{from}: {command} {option} is of {version}"
            );
        }
    }
    let docs: Vec<Value> = server.ask("COMMAND DOCS SET");
    assert_eq!(
        since(&docs[1], "PXAT").as_deref(),
        Some("6.2.0"),
        "options are found"
    );
}
