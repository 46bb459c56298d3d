//! What the documentation shows of a terminal is what whoever types it sees.

use serde_json::Value;
use tokio::process::Command;

use crate::gateway::TestGateway;

const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// Where the documentation's gateway listens.
const DOCUMENTED: &str = "127.0.0.1:5050";

/// What the documentation leaves out.
const ELLIPSIS: &str = "…";

/// A command of the documentation, and what it says is printed.
struct Example {
    command: &'static str,
    printed: Vec<&'static str>,
}

/// Returns the commands of all terminals that a page of Markdown shows.
fn examples(page: &'static str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    for terminal in page.split("```console\n").skip(1) {
        for line in terminal.lines().take_while(|line| *line != "```") {
            match (line.strip_prefix("$ "), found.last_mut()) {
                (Some(command), _) => found.push(Example {
                    command,
                    printed: Vec::new(),
                }),
                (None, Some(example)) => example.printed.push(line),
                (None, None) => panic!("printed by no command: {line}"),
            }
        }
    }
    found
}

/// Returns the line with each number and each replica's name as one letter, so that lines are alike
/// whose figures differ.
fn without_figures(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let figure = word.parse::<f64>().is_ok();
        let replica = word.len() == 8 && u32::from_str_radix(word, 16).is_ok();
        if figure || replica { "N" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Tells where two values have other names or other kinds of values; of lists the first elements
/// count, and `null` is of every kind.
fn difference(at: &str, documented: &Value, seen: &Value) -> Option<String> {
    match (documented, seen) {
        (Value::Null, _) | (_, Value::Null) => None,
        (Value::Object(documented), Value::Object(seen)) => {
            let whole = !documented.contains_key(ELLIPSIS);
            let new = seen.keys().find(|name| !documented.contains_key(*name));
            if let Some(name) = new.filter(|_| whole) {
                return Some(format!("{at}.{name} is not documented"));
            }
            let mut named = documented.iter().filter(|(name, _)| *name != ELLIPSIS);
            named.find_map(|(name, documented)| {
                let at = format!("{at}.{name}");
                match seen.get(name) {
                    Some(seen) => difference(&at, documented, seen),
                    None => Some(format!("{at} is not there")),
                }
            })
        }
        (Value::Array(documented), Value::Array(seen)) => {
            match (documented.first(), seen.first()) {
                (Some(documented), Some(seen)) => difference(at, documented, seen),
                (None, _) => None,
                (Some(_), None) => Some(format!("{at} is empty")),
            }
        }
        (documented, seen) => {
            let same = std::mem::discriminant(documented) == std::mem::discriminant(seen);
            (!same).then(|| format!("{at}: {documented} is documented, {seen} was seen"))
        }
    }
}

#[tokio::test]
async fn commands_of_the_operators_page_print_what_it_shows() {
    let gateway = TestGateway::with_slots(3).await;
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(gateway.ring().await.connected().await);
    }
    gateway.ring().await.refused_as_busy();
    let address = gateway.carrier.address.to_string();
    let mut tried = 0;
    for Example { command, printed } in examples(OPERATIONS) {
        if !command.contains(DOCUMENTED) {
            continue;
        }
        let typed = command.replace(DOCUMENTED, &address);
        let shell = Command::new("sh").args(["-c", &typed]).output();
        let output = shell.await.expect("there is a shell");
        assert!(output.status.success(), "{command}: {output:?}");
        let seen = String::from_utf8(output.stdout).unwrap();
        if printed[0].starts_with('{') {
            let documented = printed[0]
                .replace(", …]", "]")
                .replace(", …}", r#", "…": null}"#);
            let documented = serde_json::from_str(&documented).expect(command);
            let seen = serde_json::from_str(&seen).expect(command);
            assert_eq!(difference("", &documented, &seen), None, "{command}");
        } else {
            let seen: Vec<_> = seen.lines().map(without_figures).collect();
            for line in printed.iter().filter(|line| !line.starts_with(ELLIPSIS)) {
                let line = without_figures(line);
                assert!(seen.contains(&line), "{command}: no {line} in {seen:#?}");
            }
        }
        tried += 1;
    }
    assert!(tried >= 8, "{tried} commands");
    for call in calls {
        call.hang_up().await;
    }
    gateway.finish().await;
}
