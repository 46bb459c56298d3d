use std::fmt::Write;

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;
use crate::{
    call::CallerId,
    config::{AgentKind, Config, Detector},
    language::Language,
};

/// A campaign that is right, for what stands before or after it.
const GOOD: &str = "[campaigns.good]\nnumbers = [\"+97221111111\"]\n";

fn inherited(settings: &[(&str, &str)]) -> Inherited {
    let config = Config::load(|name| {
        let setting = settings.iter().find(|(set, _)| *set == name);
        setting.map(|(_, value)| (*value).to_owned())
    });
    config.unwrap().inherited()
}

fn parse(text: &str) -> Result<CampaignFile, FileError> {
    CampaignFile::parse(text, Path::new("c.toml"), &inherited(&[]))
}

/// Returns what is told of each text.
fn told_of(texts: &[&str]) -> String {
    let mut all = String::new();
    for text in texts {
        match parse(text) {
            Ok(file) if file.warnings.is_empty() => writeln!(all, "fine: {text:?}").unwrap(),
            Ok(file) => writeln!(all, "{}", file.warnings.join("\n")).unwrap(),
            Err(error) => writeln!(all, "{}", error.mistakes.join("\n")).unwrap(),
        }
    }
    all
}

/// Returns what is told of a campaign that is right but for `line`.
fn told_of_campaigns(lines: &[&str]) -> String {
    let texts: Vec<_> = lines.iter().map(|line| format!("{GOOD}{line}")).collect();
    told_of(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

fn told_of_agents(lines: &[&str]) -> String {
    let texts: Vec<_> = lines
        .iter()
        .map(|line| format!("{GOOD}[agents.a]\nkind = \"openai\"\napi_key = \"k\"\n{line}"))
        .collect();
    told_of(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    insta::assert_snapshot!(told_of(&[
        "",
        "# nothing but a comment",
        "hello",
        "[campaigns.a\nnumbers = []",
        "[campaigns.a]\nnumbers = [\"+97221111111\"",
        "[campaigns.a]\nlanguage = he-IL\nnumbers = [\"+97221111111\"]",
        "[campaigns.a]\nnumbers = []\n[campaigns.a]\nnumbers = []",
        "[campaigns.a]\nmax_calls = 1\nmax_calls = 2",
        "[agents.a]\napi_key = \"sk-canary",
        "[agents.a]\napi_key = sk-canary\n[",
        "[campaigns.a]\nwhen_full = \"\\q\"\u{7}",
    ]), @r#"
    c.toml:1:1: no campaigns: there must be one at least, [campaigns.<name>]
    c.toml:1:1: no campaigns: there must be one at least, [campaigns.<name>]
    c.toml:1:6: key with no value, expected `=`
    c.toml:1:13: unclosed table, expected `]`
    c.toml:2:26: unclosed array, expected `]`
    c.toml:2:12: string values must be quoted, expected literal string
    c.toml:3:12: duplicate key
    c.toml:4:1: duplicate key
    c.toml:3:1: duplicate key
    c.toml:2:21: invalid basic string, expected `"`
    c.toml:2:11: string values must be quoted, expected literal string
    c.toml:3:2: unquoted keys cannot be empty, expected letters, numbers, `-`, `_`
    c.toml:2:15: missing escaped value, expected `b`, `e`, `f`, `n`, `r`, `\`, `"`, `x`, `u`, `U`
    c.toml:2:17: unexpected key or value, expected newline, `#`
    "#);
}

#[test]
fn keys_that_nobody_knows_are_told_without_their_values() {
    insta::assert_snapshot!(told_of(&[
        &format!("campaign = \"sk-canary\"\n{GOOD}"),
        &format!("{GOOD}max_cals = 3"),
        &format!("{GOOD}api_key = \"sk-canary\""),
        &format!("{GOOD}\"\\u001B[31m red\" = 1"),
        &format!("{GOOD}{} = 1", "long".repeat(100)),
        &format!("{GOOD}[agents.a]\napikey = \"sk-canary\""),
        &format!("{GOOD}[tenants.t]\nmax = 3"),
        &format!("{GOOD}[groups.g]\nmax_calls = 3\nreserved = 3"),
        &format!("{GOOD}[limits]\nmax_calls = 3"),
    ]), @r#"
    c.toml:1:1: campaign: unknown; there are agents, default_campaign, groups, tenants, campaigns
    c.toml:3:1: campaigns.good.max_cals: unknown; there are numbers, tenant, group, max_calls, reserved, language, when_full, acs_when_full, outbound_carrier, agent, second_agent, tools, transfer, transfer_caller_id, transfer_key, http_tools
    c.toml:3:1: campaigns.good.api_key: unknown; there are numbers, tenant, group, max_calls, reserved, language, when_full, acs_when_full, outbound_carrier, agent, second_agent, tools, transfer, transfer_caller_id, transfer_key, http_tools
    c.toml:3:1: campaigns.good."\u{1b}[31m red": unknown; there are numbers, tenant, group, max_calls, reserved, language, when_full, acs_when_full, outbound_carrier, agent, second_agent, tools, transfer, transfer_caller_id, transfer_key, http_tools
    c.toml:3:1: campaigns.good."longlonglonglonglonglonglonglonglonglong…": unknown; there are numbers, tenant, group, max_calls, reserved, language, when_full, acs_when_full, outbound_carrier, agent, second_agent, tools, transfer, transfer_caller_id, transfer_key, http_tools
    c.toml:4:1: agents.a.apikey: unknown; there are kind, url, model, api_key, api_key_file, voice, instructions, greeting, transcription_model, turn_detection, vad_threshold, vad_silence_ms, ca_file, api_version, tenant_id, client_id, client_secret, client_secret_file, agent_name, project_name, noise_suppression, echo_cancellation, auto_truncate, max_sessions, connections_per_minute, tokens_per_minute, prices
    c.toml:4:1: tenants.t.max: unknown; there are max_calls, reserved, max_daily_calls, max_daily_minutes, endpoints
    c.toml:5:1: groups.g.reserved: unknown; there are max_calls
    c.toml:3:2: limits: unknown; there are agents, default_campaign, groups, tenants, campaigns
    "#);
}

#[test]
fn sections_are_tables_with_names_that_fit_a_key() {
    insta::assert_snapshot!(told_of(&[
        "campaigns = 3",
        "[[campaigns]]\nnumbers = [\"+97221111111\"]",
        "[campaigns]\nnumbers = [\"+97221111111\"]",
        "[campaigns]",
        "[campaigns.\"calls:*\"]\nnumbers = [\"+97221111111\"]",
        "[campaigns.\"a:b\"]\nnumbers = [\"+97221111111\"]",
        "[campaigns.\"a b\"]\nnumbers = [\"+97221111111\"]",
        "[campaigns.Support]\nnumbers = [\"+97221111111\"]",
        "[campaigns.\"\"]\nnumbers = [\"+97221111111\"]",
        "[campaigns.\"\\n\\u001B[2J\"]\nnumbers = [\"+97221111111\"]",
        "[campaigns.\"תמיכה\"]\nnumbers = [\"+97221111111\"]",
        &format!("[campaigns.{}]\nnumbers = [\"+97221111111\"]", "x".repeat(300)),
        &format!("{GOOD}[agents.default]\nvoice = \"ash\""),
        &format!("{GOOD}[agents]\nvoice = \"ash\""),
    ]), @r#"
    c.toml:1:13: campaigns=3: tables with a name each: [campaigns.<name>]
    c.toml:1:1: campaigns=[…]: tables with a name each: [campaigns.<name>]
    c.toml:2:1: campaigns.numbers: not a table
    c.toml:1:1: no campaigns: there must be one at least, [campaigns.<name>]
    c.toml:1:12: campaigns."calls:*": a name has 1 to 64 of a-z, 0-9, - and _
    c.toml:1:12: campaigns."a:b": a name has 1 to 64 of a-z, 0-9, - and _
    c.toml:1:12: campaigns."a b": a name has 1 to 64 of a-z, 0-9, - and _
    c.toml:1:12: campaigns.Support: a name has 1 to 64 of a-z, 0-9, - and _
    c.toml:1:12: campaigns."": a name has 1 to 64 of a-z, 0-9, - and _
    c.toml:1:12: campaigns."\n\u{1b}[2J": a name has 1 to 64 of a-z, 0-9, - and _
    c.toml:1:12: campaigns."תמיכה": a name has 1 to 64 of a-z, 0-9, - and _
    c.toml:1:12: campaigns."xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…": a name has 1 to 64 of a-z, 0-9, - and _
    c.toml:3:9: agents.default: the environment's agent is called so: choose another name
    c.toml:4:1: agents.voice: not a table
    "#);
}

#[test]
fn a_number_is_one_campaigns_alone() {
    insta::assert_snapshot!(told_of(&[
        "[campaigns.a]",
        "[campaigns.a]\nnumbers = []",
        "default_campaign = \"a\"\n[campaigns.a]",
        "default_campaign = \"a\"\n[campaigns.a]\nnumbers = []",
        "[campaigns.a]\nnumbers = \"+97221111111\"",
        "[campaigns.a]\nnumbers = [\"0501234567\", \"+1\", \"+1234567890123456\", 97221111111, \"sip:a@b\"]",
        "[campaigns.a]\nnumbers = [\"+97221111111\", \"+97221111111\"]",
        "[campaigns.b]\nnumbers = [\"+97221111111\"]\n[campaigns.a]\nnumbers = [\"+97222222222\",\n  \"+97221111111\"]",
    ]), @r#"
    c.toml:1:12: campaigns.a.numbers: not set (its calls come from somewhere, unless it is the default_campaign)
    c.toml:2:11: campaigns.a.numbers=[…]: no number: nobody could ever call it
    fine: "default_campaign = \"a\"\n[campaigns.a]"
    fine: "default_campaign = \"a\"\n[campaigns.a]\nnumbers = []"
    c.toml:2:11: campaigns.a.numbers="+97221111111": a list of numbers, such as ["+97221234567"]
    c.toml:2:12: campaigns.a.numbers: a number in E.164: "+" and 2 to 15 digits, in quotes
    c.toml:2:26: campaigns.a.numbers: a number in E.164: "+" and 2 to 15 digits, in quotes
    c.toml:2:32: campaigns.a.numbers: a number in E.164: "+" and 2 to 15 digits, in quotes
    c.toml:2:53: campaigns.a.numbers: a number in E.164: "+" and 2 to 15 digits, in quotes
    c.toml:2:66: campaigns.a.numbers: a number in E.164: "+" and 2 to 15 digits, in quotes
    c.toml:2:28: campaigns.a.numbers: +9******1111 is listed twice
    c.toml:5:3: campaigns.a.numbers: +9******1111 is campaign b's already, by line 2: a number belongs to one campaign
    "#);
}

#[test]
fn what_a_campaign_names_is_there() {
    insta::assert_snapshot!(told_of_campaigns(&[
        "tenant = \"acme\"",
        "tenant = \"a*\"",
        "tenant = \"default\"",
        "tenant = \"acme\"\n[tenants.other]",
        "group = \"sales\"",
        "group = \"sales\"\n[groups.rest]\nmax_calls = 3",
        "agent = \"hebrew\"",
        "agent = \"default\"",
        "agent = \"hebrew\"\n[agents.english]\n[agents.french]",
        "agent = 3",
        "second_agent = \"hebrew\"",
        "agent = \"a\"\nsecond_agent = \"a\"\n[agents.a]",
        "agent = \"a\"\nsecond_agent = \"default\"\n[agents.a]\nmax_sessions = 0",
        "[agents.a]\nconnections_per_minute = \"30\"\ntokens_per_minute = 2000000000",
        "language = \"Hebrew, please\"",
        "language = 972",
        "when_full = \"queue\"",
        "when_full = true",
    ]), @r#"
    c.toml:3:10: campaigns.good.tenant="acme": no such tenant: there are default, or declare it
    c.toml:3:10: campaigns.good.tenant="a*": a name has 1 to 64 of a-z, 0-9, - and _
    fine: "[campaigns.good]\nnumbers = [\"+97221111111\"]\ntenant = \"default\""
    c.toml:3:10: campaigns.good.tenant="acme": no such tenant: there are other, default, or declare it
    c.toml:3:9: campaigns.good.group="sales": no such group: there are none
    c.toml:3:9: campaigns.good.group="sales": no such group: there are rest
    c.toml:3:9: campaigns.good.agent="hebrew": no such agent: there are default
    fine: "[campaigns.good]\nnumbers = [\"+97221111111\"]\nagent = \"default\""
    c.toml:3:9: campaigns.good.agent="hebrew": no such agent: there are english, french, default
    c.toml:3:9: campaigns.good.agent=3: a name has 1 to 64 of a-z, 0-9, - and _
    c.toml:3:16: campaigns.good.second_agent="hebrew": no such agent: there are default
    c.toml:4:16: campaigns.good.second_agent="a": is its first agent already: it has no other
    c.toml:6:16: agents.a.max_sessions=0: a whole number from 1 to 1000000
    c.toml:4:26: agents.a.connections_per_minute="30": a whole number from 1 to 1000000
    c.toml:5:21: agents.a.tokens_per_minute=2000000000: a whole number from 1 to 1000000000
    c.toml:3:12: campaigns.good.language="Hebrew, please": a language tag, such as "he-IL"
    c.toml:3:12: campaigns.good.language=972: a language tag, such as "he-IL"
    c.toml:3:13: campaigns.good.when_full="queue": "reject", "voicemail" or "whatsapp"
    c.toml:3:13: campaigns.good.when_full=true: "reject", "voicemail" or "whatsapp"
    "#);
    insta::assert_snapshot!(told_of(&[
        &format!("default_campaign = \"other\"\n{GOOD}"),
        &format!("default_campaign = 7\n{GOOD}"),
        &format!("default_campaign = \"{}\"\n{GOOD}", "x".repeat(300)),
    ]), @r#"
    c.toml:1:20: default_campaign="other": no such campaign: there are good
    c.toml:1:20: default_campaign=7: a name has 1 to 64 of a-z, 0-9, - and _
    c.toml:1:20: default_campaign="xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…": a name has 1 to 64 of a-z, 0-9, - and _
    "#);
}

#[test]
fn caps_are_whole_numbers_and_never_unlimited() {
    insta::assert_snapshot!(told_of_campaigns(&[
        "max_calls = \"many\"",
        "max_calls = \"5\"",
        "max_calls = 2.5",
        "max_calls = nan",
        "max_calls = true",
        "max_calls = []",
        "max_calls = 2026-11-21",
        "max_calls = 1_000_001",
        "max_calls = 99999999999999999999999999999999999999999999999999",
        "max_calls = 0",
        "max_calls = -5",
        "max_calls = 0x0F",
        "max_calls = 51",
        "reserved = -1",
        "reserved = 1.0",
        "[groups.g]",
        "group = \"g\"\n[groups.g]\nmax_calls = 0",
        "group = \"g\"\nmax_calls = 4\n[groups.g]\nmax_calls = 3",
        "tenant = \"t\"\nmax_calls = 4\n[tenants.t]\nmax_calls = 3",
        "tenant = \"t\"\n[tenants.t]\nmax_calls = 300",
        "[groups.g]\nmax_calls = 3\n[tenants.t]",
    ]), @r#"
    c.toml:3:13: campaigns.good.max_calls="many": a whole number of calls, at most 1000000
    c.toml:3:13: campaigns.good.max_calls="5": a whole number of calls, at most 1000000
    c.toml:3:13: campaigns.good.max_calls=2.5: a whole number of calls, at most 1000000
    c.toml:3:13: campaigns.good.max_calls=nan: a whole number of calls, at most 1000000
    c.toml:3:13: campaigns.good.max_calls=true: a whole number of calls, at most 1000000
    c.toml:3:13: campaigns.good.max_calls=[…]: a whole number of calls, at most 1000000
    c.toml:3:13: campaigns.good.max_calls=2026-11-21: a whole number of calls, at most 1000000
    c.toml:3:13: campaigns.good.max_calls=1000001: a whole number of calls, at most 1000000
    c.toml:3:13: campaigns.good.max_calls=9999999999999999999999999999999999999999… (50 digits): a whole number of calls, at most 1000000
    c.toml:3:13: campaigns.good.max_calls=0: there is no "unlimited"; the default applies
    c.toml:3:13: campaigns.good.max_calls=-5: there is no "unlimited"; the default applies
    fine: "[campaigns.good]\nnumbers = [\"+97221111111\"]\nmax_calls = 0x0F"
    c.toml:3:13: campaigns.good.max_calls=51: can never be reached: 50 is the cap of all calls
    c.toml:3:12: campaigns.good.reserved=-1: a whole number of slots, at most 1000000
    c.toml:3:12: campaigns.good.reserved=1.0: a whole number of slots, at most 1000000
    c.toml:3:9: groups.g.max_calls: not set (a group is there for its cap)
    c.toml:5:13: groups.g.max_calls=0: there is no "unlimited"; the default applies
    c.toml:4:13: campaigns.good.max_calls=4: can never be reached: 3 is the cap of group g
    c.toml:4:13: campaigns.good.max_calls=4: can never be reached: 3 is the cap of tenant t
    c.toml:5:13: tenants.t.max_calls=300: can never be reached: 50 is the cap of all calls
    c.toml:3:9: groups.g: no campaign names it
    c.toml:5:10: tenants.t: no campaign names it
    "#);
}

#[test]
fn reserves_fit_into_the_caps_around_them() {
    insta::assert_snapshot!(told_of_campaigns(&[
        "reserved = 21",
        "max_calls = 5\nreserved = 6",
        "reserved = 5\nmax_calls = 5",
        "tenant = \"t\"\n[tenants.t]\nmax_calls = 3\nreserved = 4",
        "tenant = \"t\"\nreserved = 1\n[tenants.t]\nreserved = 1",
        "tenant = \"t\"\nreserved = 2\n[campaigns.b]\nnumbers = [\"+97222222222\"]\ntenant = \"t\"\nreserved = 2\n[tenants.t]\nmax_calls = 3",
        "group = \"g\"\nreserved = 4\n[groups.g]\nmax_calls = 3",
        "reserved = 20\n[campaigns.b]\nnumbers = [\"+97222222222\"]\nreserved = 20\n[tenants.t]\nreserved = 11",
    ]), @r#"
    c.toml:3:12: campaigns.good.reserved=21: the campaign may have 20 calls: reserve no more than that
    c.toml:4:12: campaigns.good.reserved=6: the campaign may have 5 calls: reserve no more than that
    fine: "[campaigns.good]\nnumbers = [\"+97221111111\"]\nreserved = 5\nmax_calls = 5"
    c.toml:6:12: tenants.t.reserved=4: the tenant may have 3 calls: reserve no more than that
    c.toml:4:12: campaigns.good.reserved=1: tenant t reserves slots for all its campaigns: do so there or here
    c.toml:8:12: campaigns.b.reserved=2: with this the reserves within tenant t come to 4 of its 3 calls
    c.toml:4:12: campaigns.good.reserved=4: with this the reserves within group g come to 4 of its 3 calls
    c.toml:6:12: campaigns.b.reserved=20: with this all reserves come to 51 of 50 calls in all
    "#);
}

#[test]
fn an_agent_can_be_reached_and_shows_no_secret() {
    let told = told_of_agents(&[
        "voice = 3",
        "voice = \" \"",
        "url = \"canary\"",
        "url = \"https://agent.example.com\"",
        "url = \"wss://dana:canary@agent.example.com\"",
        "url = \"wss://agent.example.com/?api-key=canary\"",
        "url = \"wss://agent.example.com/?model=x\"",
        "api_key_file = \"canary\"",
        "ca_file = \"missing.pem\"",
        "turn_detection = \"guess\"",
        "turn_detection = \"semantic_vad\"\nvad_silence_ms = 300",
        "vad_threshold = 0\nvad_silence_ms = 60000",
        "vad_threshold = \"loud\"",
        &format!("instructions = \"{}\"", "x".repeat(20_000)),
    ]);
    assert!(!told.contains("canary"), "{told}");
    insta::assert_snapshot!(told, @r#"
    c.toml:6:9: agents.a.voice=3: a text in quotes
    c.toml:6:9: agents.a.voice=" ": empty: leave the key out for its default
    c.toml:6:7: agents.a.url: a wss:// or ws:// address, without user, password or api-key
    c.toml:6:7: agents.a.url="https://agent.example.com": a wss:// or ws:// address, without user, password or api-key
    c.toml:6:7: agents.a.url: a wss:// or ws:// address, without user, password or api-key
    c.toml:6:7: agents.a.url: a wss:// or ws:// address, without user, password or api-key
    fine: "[campaigns.good]\nnumbers = [\"+97221111111\"]\n[agents.a]\nkind = \"openai\"\napi_key = \"k\"\nurl = \"wss://agent.example.com/?model=x\""
    c.toml:6:16: agents.a.api_key_file: there is api_key too: leave one of them out
    c.toml:6:11: agents.a.ca_file="missing.pem": a readable file: No such file or directory (os error 2)
    c.toml:6:18: agents.a.turn_detection="guess": "server_vad", "semantic_vad" or "azure_semantic_vad"
    c.toml:7:18: agents.a.vad_silence_ms=300: means nothing with "semantic_vad": leave it out
    c.toml:6:17: agents.a.vad_threshold=0: a whole number from 1 to 100
    c.toml:7:18: agents.a.vad_silence_ms=60000: a whole number from 100 to 5000
    c.toml:6:17: agents.a.vad_threshold="loud": a whole number from 1 to 100
    c.toml:6:16: agents.a.instructions: 20000 bytes: at most 16384
    "#);
    let told = told_of(&[
        &format!("{GOOD}[agents.a]\nkind = \"robot\""),
        &format!("{GOOD}[agents.a]\nkind = \"openai\""),
        &format!("{GOOD}[agents.a]\nkind = \"azure_openai\"\napi_key = \"canary\""),
        &format!("{GOOD}[agents.a]\nkind = \"openai\"\napi_key = 12345"),
        &format!("{GOOD}[agents.a]\nkind = \"openai\"\napi_key = \"can\\nary\""),
        &format!("{GOOD}[agents.a]\nkind = \"openai\"\napi_key_file = \"canary\""),
        &format!("{GOOD}[agents.a]\nkind = \"openai\"\napi_key_file = \"/\""),
        &format!(
            "{GOOD}[agents.a]\nkind = \"parrot\"\nurl = \"ws://127.0.0.1\"\napi_key = \"canary\""
        ),
    ]);
    assert!(!told.contains("canary"), "{told}");
    insta::assert_snapshot!(told, @r#"
    c.toml:4:8: agents.a.kind="robot": "parrot", "openai", "azure_openai" or "voice_live"
    c.toml:3:9: agents.a.api_key: not set (the agent needs it, or api_key_file)
    c.toml:3:9: agents.a.model: not set (Azure's name of the deployment)
    c.toml:3:9: agents.a.url: not set (wss://<resource>.openai.azure.com/openai/v1/realtime)
    c.toml:5:11: agents.a.api_key: a text in quotes
    c.toml:5:11: agents.a.api_key: a key, without spaces or control characters
    c.toml:5:16: agents.a.api_key_file: a readable file: No such file or directory (os error 2)
    c.toml:5:16: agents.a.api_key_file: a readable file: not a file
    c.toml:5:7: agents.a.url: the parrot is within callgate and needs none: leave it out
    c.toml:6:11: agents.a.api_key: the parrot is within callgate and needs none: leave it out
    "#);
}

#[test]
fn every_mistake_of_a_file_is_told_at_once_in_the_order_of_its_lines() {
    let text = r#"
default_campaign = "main"
[tenants.acme]
max_calls = "ten"
[groups.Sales]
max_calls = 5
[agents.hebrew]
kind = "robot"
[campaigns.support]
tenant = "acme"
numbers = ["+97221234567", "02-1234567"]
agent = "hebrev"
group = "sales"
when_full = "answer"
colour = "red"
[campaigns.sales]
numbers = ["+97221234567"]
reserved = 400
"#;
    insta::assert_snapshot!(parse(text).unwrap_err(), @r#"
    the campaign file has 13 mistakes:
      c.toml:2:20: default_campaign="main": no such campaign: there are support, sales
      c.toml:4:13: tenants.acme.max_calls="ten": a whole number of calls, at most 1000000
      c.toml:5:9: groups.Sales: a name has 1 to 64 of a-z, 0-9, - and _
      c.toml:8:8: agents.hebrew.kind="robot": "parrot", "openai", "azure_openai" or "voice_live"
      c.toml:11:28: campaigns.support.numbers: a number in E.164: "+" and 2 to 15 digits, in quotes
      c.toml:12:9: campaigns.support.agent="hebrev": no such agent: there are hebrew, default
      c.toml:13:9: campaigns.support.group="sales": no such group: there are none
      c.toml:14:13: campaigns.support.when_full="answer": "reject", "voicemail" or "whatsapp"
      c.toml:15:1: campaigns.support.colour: unknown; there are numbers, tenant, group, max_calls, reserved, language, when_full, acs_when_full, outbound_carrier, agent, second_agent, tools, transfer, transfer_caller_id, transfer_key, http_tools
      c.toml:17:12: campaigns.sales.numbers: +9******4567 is campaign support's already, by line 11: a number belongs to one campaign
      c.toml:18:12: campaigns.sales.reserved=400: the campaign may have 20 calls: reserve no more than that
      c.toml:18:12: campaigns.sales.reserved=400: with this all reserves come to 400 of 50 calls in all
      c.toml:18:12: campaigns.sales.reserved=400: with this the reserves within tenant default come to 400 of its 50 calls
    "#);
}

#[test]
fn there_is_a_bound_for_everything() {
    let many = |section: &str, count: usize, body: &str| {
        let tables = (0..count).map(|n| format!("[{section}.n{n}]\n{body}\n"));
        tables.collect::<String>()
    };
    let numbers: Vec<_> = (0..101).map(|n| format!("\"+97221{n:06}\"")).collect();
    let first = |text: String| parse(&text).unwrap_err().mistakes[0].clone();
    insta::assert_snapshot!([
        first(many("campaigns", 1_001, "")),
        first(GOOD.to_owned() + &many("tenants", 1_001, "")),
        first(GOOD.to_owned() + &many("groups", 1_001, "max_calls = 3")),
        first(GOOD.to_owned() + &many("agents", 101, "")),
        first(format!("[campaigns.a]\nnumbers = [{}]", numbers.join(", "))),
    ].join("\n"), @r#"
    c.toml:1:2: campaigns: 1001 of them: at most 1000
    c.toml:3:2: tenants: 1001 of them: at most 1000
    c.toml:3:2: groups: 1001 of them: at most 1000
    c.toml:3:2: agents: 101 of them: at most 100
    c.toml:2:11: campaigns.a.numbers: 101 of them: at most 100
    "#);
    let error = parse(&many("campaigns", 1_000, "")).unwrap_err();
    assert_eq!((error.mistakes.len(), error.untold), (MOST_MISTAKES, 900));
    assert!(error.to_string().ends_with("\n  and 900 more"));
}

#[test]
fn what_cannot_be_read_is_told_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let load = || {
        let error = CampaignFile::load(&path, &inherited(&[])).unwrap_err();
        let told = error.to_string();
        told.replace(folder.path().to_str().unwrap(), "…")
    };
    let missing = load();
    fs::create_dir(&path).unwrap();
    let directory = load();
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "# long".repeat(200_000)).unwrap();
    let long = load();
    fs::write(&path, b"default_campaign = \"a\"\n# \xFF\n").unwrap();
    let binary = load();
    insta::assert_snapshot!([missing, directory, long, binary].join("\n"), @r#"
    the campaign file has 1 mistake:
      …/c.toml: cannot be read: No such file or directory (os error 2) (CALLGATE_CONFIG)
    the campaign file has 1 mistake:
      …/c.toml: cannot be read: not a file (CALLGATE_CONFIG)
    the campaign file has 1 mistake:
      …/c.toml: cannot be read: longer than 1048576 bytes (CALLGATE_CONFIG)
    the campaign file has 1 mistake:
      …/c.toml:2:3: not UTF-8
    "#);
}

#[test]
fn what_the_file_leaves_out_is_as_in_the_environment() {
    let environment = inherited(&[
        ("DEFAULT_LANGUAGE", "en-US"),
        ("TELEPHONY_PER_CAMPAIGN_MAX_CONCURRENCY", "7"),
        ("AGENT", "openai"),
        ("OPENAI_API_KEY", "sk-environment"),
        ("OPENAI_REALTIME_URL", "wss://eu.example.com/v1/realtime"),
        ("OPENAI_REALTIME_MODEL", "model-of-the-environment"),
        ("AGENT_VOICE", "voice-of-the-environment"),
        ("AGENT_VAD_SILENCE_MS", "700"),
    ]);
    let text = format!(
        "{GOOD}[agents.same]\nvad_threshold = 80\n[agents.azure]\nkind = \"azure_openai\"\nurl = \"wss://a.openai.azure.com/openai/v1/realtime\"\nmodel = \"deployment\"\napi_key = \"azure-key\"\ngreeting = \"none\""
    );
    let file = CampaignFile::parse(&text, Path::new("c.toml"), &environment).unwrap();
    let good = file.campaigns.named("good").unwrap();
    assert_eq!(good.max_calls, Some(7));
    assert_eq!(good.language.as_str(), "en-US");
    assert_eq!(good.agent, Name::default_name());
    let agent = |name: &str| &file.agents[&name.parse::<Name>().unwrap()];
    let same = agent("same");
    assert_eq!(same.url, environment.agent.url);
    assert_eq!(same.voice.as_deref(), Some("voice-of-the-environment"));
    assert_eq!(same.key.as_ref().unwrap().expose_secret(), "sk-environment");
    let turns = same.turn_detection;
    assert_eq!((turns.threshold, turns.silence.as_millis()), (0.8, 700));
    let azure = agent("azure");
    assert_eq!(azure.kind, AgentKind::AzureOpenAi);
    assert_eq!(azure.greeting, None);
    assert_eq!(azure.key.as_ref().unwrap().expose_secret(), "azure-key");
    assert!(!format!("{file:?}").contains("azure-key"));
    // What is OpenAI's is not sent to Azure.
    let text = format!("{GOOD}[agents.azure]\nkind = \"azure_openai\"");
    let error = CampaignFile::parse(&text, Path::new("c.toml"), &environment).unwrap_err();
    insta::assert_snapshot!(error, @r#"
    the campaign file has 3 mistakes:
      c.toml:3:9: agents.azure.api_key: not set (the agent needs it, or api_key_file)
      c.toml:3:9: agents.azure.model: not set (Azure's name of the deployment)
      c.toml:3:9: agents.azure.url: not set (wss://<resource>.openai.azure.com/openai/v1/realtime)
    "#);
}

#[test]
fn an_agent_of_voice_lives_takes_what_it_lacks_from_the_environment() {
    let environment = inherited(&[
        ("AGENT", "openai"),
        ("OPENAI_API_KEY", "sk-environment"),
        ("AGENT_VOICE", "marin"),
        ("AGENT_TURN_DETECTION", "semantic_vad"),
        (
            "VOICE_LIVE_URL",
            "wss://env.example.com/voice-live/realtime",
        ),
        ("VOICE_LIVE_TENANT_ID", "tenant"),
        ("VOICE_LIVE_CLIENT_ID", "client"),
        ("VOICE_LIVE_CLIENT_SECRET", "secret-of-the-environment"),
        ("VOICE_LIVE_NOISE_SUPPRESSION", "none"),
    ]);
    let text = format!(
        "{GOOD}[agents.plain]\nkind = \"voice_live\"\n[agents.own]\nkind = \"voice_live\"\nurl = \"wss://own.example.com/voice-live/realtime\"\nmodel = \"gpt-4.1\"\napi_key = \"own-key\"\napi_version = \"2026-04-10\"\nvoice = \"he-IL-AvriNeural\"\nturn_detection = \"azure_semantic_vad\"\nvad_silence_ms = 700\nnoise_suppression = \"azure_deep_noise_suppression\"\necho_cancellation = false\nauto_truncate = true\n[agents.foundry]\nkind = \"voice_live\"\nclient_id = \"other\"\nagent_name = \"clinic\"\nproject_name = \"acme\""
    );
    let file = CampaignFile::parse(&text, Path::new("c.toml"), &environment).unwrap();
    let agent = |name: &str| &file.agents[&name.parse::<Name>().unwrap()];
    let hebrew = Language::default();

    let plain = agent("plain");
    assert_eq!(plain.url.host_str(), Some("env.example.com"));
    assert_eq!(plain.model, "gpt-realtime");
    // What OpenAI calls its voices and turns is not Voice Live's.
    assert_eq!(plain.voice(&hebrew), "he-IL-HilaNeural");
    assert_eq!(plain.detector(), Detector::AzureSemantic);
    assert!(plain.key.is_none() && !plain.voice_live.noise_suppression);
    let entra = plain.voice_live.entra.as_ref().unwrap();
    assert_eq!(entra.secret.expose_secret(), "secret-of-the-environment");

    let own = agent("own");
    assert_eq!(own.url.host_str(), Some("own.example.com"));
    assert_eq!(own.model, "gpt-4.1");
    assert_eq!(own.transcription_model(), Some("azure-speech"));
    assert_eq!(own.key.as_ref().unwrap().expose_secret(), "own-key");
    assert_eq!(own.voice(&hebrew), "he-IL-AvriNeural");
    assert_eq!(own.turn_detection.silence.as_millis(), 700);
    let settings = &own.voice_live;
    assert_eq!(settings.api_version, "2026-04-10");
    assert!(settings.entra.is_none() && settings.foundry.is_none());
    assert!(settings.noise_suppression && settings.auto_truncate);
    assert!(!settings.echo_cancellation);

    let settings = &agent("foundry").voice_live;
    let entra = settings.entra.as_ref().unwrap();
    assert_eq!((&*entra.tenant, &*entra.client), ("tenant", "other"));
    assert_eq!(settings.foundry.as_ref().unwrap().project, "acme");
    assert!(!format!("{file:?}").contains("secret-of-the-environment"));
}

#[test]
fn what_voice_live_cannot_be_reached_with_is_told() {
    let told = told_of(&[
        &format!("{GOOD}[agents.a]\nkind = \"voice_live\""),
        &format!(
            "{GOOD}[agents.a]\nkind = \"voice_live\"\nurl = \"wss://a.example.com/?canary\"\ntenant_id = \"a/b\"\nagent_name = \"clinic\""
        ),
        &format!(
            "{GOOD}[agents.a]\nkind = \"voice_live\"\nurl = \"wss://a.example.com/\"\napi_key = \"canary\"\ntenant_id = \"t\"\nclient_id = \"c\"\nclient_secret = \"canary\"\nproject_name = \"acme\""
        ),
        &format!(
            "{GOOD}[agents.a]\nkind = \"voice_live\"\nurl = \"https://a.example.com/\"\napi_key = \"canary\"\nnoise_suppression = \"loud\"\necho_cancellation = \"on\"\nauto_truncate = 1"
        ),
        &format!(
            "{GOOD}[agents.a]\nkind = \"openai\"\napi_key = \"canary\"\nturn_detection = \"azure_semantic_vad\"\nclient_secret = \"canary\"\nauto_truncate = true"
        ),
    ]);
    assert!(!told.contains("canary"), "{told}");
    insta::assert_snapshot!(told, @r#"
    c.toml:3:9: agents.a.api_key: not set (the agent needs it, or api_key_file, or tenant_id, client_id and client_secret)
    c.toml:3:9: agents.a.url: not set (wss://<resource>.services.ai.azure.com/voice-live/realtime)
    c.toml:3:9: agents.a.client_id: not set (the other two need it)
    c.toml:3:9: agents.a.client_secret: not set (the other two need it, or client_secret_file)
    c.toml:3:9: agents.a.project_name: not set (agent_name needs it)
    c.toml:5:7: agents.a.url: a wss:// or ws:// address, without user, password or query
    c.toml:6:13: agents.a.tenant_id="a/b": the id, as the portal shows it
    c.toml:3:9: agents.a.agent_name: not set (project_name is of no use without)
    c.toml:3:9: agents.a: api_key and an application's credentials: leave one of them out
    c.toml:5:7: agents.a.url="https://a.example.com/": a wss:// or ws:// address, without user, password or query
    c.toml:7:21: agents.a.noise_suppression="loud": "azure_deep_noise_suppression" or "none"
    c.toml:8:21: agents.a.echo_cancellation="on": true or false
    c.toml:9:17: agents.a.auto_truncate=1: true or false
    c.toml:6:18: agents.a.turn_detection="azure_semantic_vad": known to "voice_live" only
    c.toml:7:17: agents.a.client_secret: means something with "voice_live" only: leave it out
    c.toml:8:17: agents.a.auto_truncate: means something with "voice_live" only: leave it out
    "#);
}

#[test]
fn production_takes_no_parrot_and_no_open_line() {
    let environment = inherited(&[
        ("PRODUCTION", "1"),
        ("PUBLIC_URL", "https://voice.example.com"),
        ("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
        ("AGENT", "openai"),
        ("OPENAI_API_KEY", "sk-environment"),
        ("OPS_TOKEN", "an-operators-very-secret-token"),
    ]);
    let text = format!(
        "{GOOD}[agents.a]\nkind = \"parrot\"\n[agents.b]\nurl = \"ws://agent.example.com/\""
    );
    let error = CampaignFile::parse(&text, Path::new("c.toml"), &environment).unwrap_err();
    insta::assert_snapshot!(error, @r#"
    the campaign file has 2 mistakes:
      c.toml:4:8: agents.a.kind="parrot": the parrot is no agent for production
      c.toml:6:7: agents.b.url="ws://agent.example.com/": a wss:// address, without user, password or api-key
    "#);
}

#[test]
fn secrets_lie_beside_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("secrets")).unwrap();
    fs::write(folder.path().join("secrets/openai"), "sk-beside\n").unwrap();
    let path = folder.path().join("c.toml");
    fs::write(
        &path,
        format!(
            "{GOOD}agent = \"a\"\n[agents.a]\nkind = \"openai\"\napi_key_file = \"secrets/openai\""
        ),
    )
    .unwrap();
    let file = CampaignFile::load(&path, &inherited(&[])).unwrap();
    let key = file.agents.values().next().unwrap().key.as_ref();
    assert_eq!(key.unwrap().expose_secret(), "sk-beside");
    assert_eq!(file.beside, [folder.path().join("secrets/openai")]);
    assert!(!format!("{file:?}").contains("sk-beside"));
}

#[test]
fn the_example_of_the_docs_is_right_and_says_what_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/callgate.toml");
    let file = CampaignFile::load(&path, &inherited(&[])).unwrap();
    assert_eq!(file.warnings, [""; 0]);
    let called = CallerId::read("+97221234567");
    let support = file.campaigns.answering(&called).unwrap();
    insta::assert_debug_snapshot!(support, @r#"
    Campaign {
        id: Name(
            "support",
        ),
        tenant: Name(
            "acme",
        ),
        language: Language(
            "he-IL",
        ),
        max_calls: Some(
            5,
        ),
        reserved: 1,
        group: Some(
            Group {
                id: Name(
                    "front-desk",
                ),
                max_calls: 6,
            },
        ),
        tenant_caps: TenantCaps {
            max_calls: Some(
                10,
            ),
            reserved: 0,
            daily_calls: None,
            daily_minutes: None,
        },
        agent: Name(
            "hebrew",
        ),
        second_agent: Some(
            Name(
                "english",
            ),
        ),
        when_full: Voicemail,
        acs_when_full: Prompt,
        outbound_carrier: None,
        tools: Tools {
            names: "end_call transfer_call find_slot",
            directory: Directory {
                destinations: {
                    Name(
                        "billing",
                    ): +9******2222,
                    Name(
                        "reception",
                    ): +9******1111,
                },
                caller_id: None,
                number: Some(
                    +9******4567,
                ),
                key: None,
            },
        },
    }
    "#);
    let agents: Vec<_> = file.agents.keys().map(Name::as_str).collect();
    assert_eq!(agents, ["english", "hebrew"]);
    assert_eq!(file.campaigns.all().count(), 3);
    assert_eq!(file.campaigns.default_campaign().id.as_str(), "main");
}

/// Pieces of which files are made, right and wrong.
fn any_piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "default_campaign",
            "campaigns",
            "tenants",
            "groups",
            "agents",
            "numbers",
            "max_calls",
            "reserved",
            "tenant",
            "group",
            "agent",
            "language",
            "when_full",
            "acs_when_full",
            "outbound_carrier",
            "kind",
            "url",
            "api_key",
            "[campaigns.a]",
            "[tenants.a]",
            "[groups.a]",
            "[agents.a]",
            "a",
            "\"a\"",
            "=",
            "= 5",
            "= -1",
            "= 1.5",
            "= \"a\"",
            "= [\"+97221111111\"]",
            "= { max_calls = 1 }",
            "= \"he-IL\"",
            "= \"openai\"",
            "[",
            "]",
            "[[",
            "]]",
            "{",
            "}",
            "\"",
            "\"\"\"",
            "'",
            "\\",
            ".",
            ",",
            "\n",
            "\r\n",
            "\t",
            "#",
            "\u{feff}",
            "\0",
            "\u{202e}",
            "ש",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

/// Returns the file whose tenant has the endpoint that `lines` say.
fn with_endpoint(lines: &str) -> String {
    format!("{GOOD}tenant = \"t\"\n[tenants.t.endpoints.crm]\n{lines}")
}

const SECRET: &str = "secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n";
const HOOKS: &str = "url = \"https://hooks.example.com/a\"\n";

#[test]
fn what_is_wrong_with_an_endpoint_is_told() {
    let told: Vec<_> = [
        "",
        &format!("{HOOKS}{SECRET}"),
        &format!("{HOOKS}{SECRET}events = [\"call.ended\", \"call.ended\"]"),
        &format!("{HOOKS}{SECRET}transcripts = true\nevents = [\"call.transcript\"]"),
        &format!("{HOOKS}{SECRET}events = [\"call.transcript\"]"),
        &format!("{HOOKS}{SECRET}events = [\"call.end\"]\nretries = 3"),
        &format!("{HOOKS}{SECRET}events = []"),
        &format!("{HOOKS}{SECRET}events = \"call.ended\"\ntranscripts = 1"),
        &format!("{HOOKS}{SECRET}secret_file = \"s\""),
        &format!("{HOOKS}secret = \"canary\""),
        &format!("{HOOKS}secret_file = \"nowhere\""),
        &format!("{SECRET}url = \"http://hooks.example.com/\""),
        &format!("{SECRET}url = \"https://169.254.169.254/\""),
        &format!("{SECRET}url = \"https://u:canary@hooks.example.com/\""),
        &format!("{SECRET}url = \"https://hooks.example.com:81/?key=canary\""),
        &format!("{SECRET}url = 3"),
    ]
    .iter()
    .map(|lines| with_endpoint(lines))
    .collect();
    let told = told_of(&told.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!told.contains("canary"), "{told}");
    insta::assert_snapshot!(told, @r#"
    c.toml:4:22: tenants.t.endpoints.crm.secret: not set (events are signed with it; or secret_file)
    c.toml:4:22: tenants.t.endpoints.crm.url: not set (an endpoint is there for its address)
    fine: "[campaigns.good]\nnumbers = [\"+97221111111\"]\ntenant = \"t\"\n[tenants.t.endpoints.crm]\nurl = \"https://hooks.example.com/a\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n"
    fine: "[campaigns.good]\nnumbers = [\"+97221111111\"]\ntenant = \"t\"\n[tenants.t.endpoints.crm]\nurl = \"https://hooks.example.com/a\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\nevents = [\"call.ended\", \"call.ended\"]"
    fine: "[campaigns.good]\nnumbers = [\"+97221111111\"]\ntenant = \"t\"\n[tenants.t.endpoints.crm]\nurl = \"https://hooks.example.com/a\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\ntranscripts = true\nevents = [\"call.transcript\"]"
    c.toml:7:11: tenants.t.endpoints.crm.events="call.transcript": private: set transcripts = true too
    c.toml:7:11: tenants.t.endpoints.crm.events="call.end": a list of kinds: "call.started", "call.ended", "call.refused", "call.transcript", "voicemail.received", "whatsapp.status"
    c.toml:8:1: tenants.t.endpoints.crm.retries: unknown; there are url, secret, secret_file, events, transcripts, numbers, payload
    c.toml:7:10: tenants.t.endpoints.crm.events=[…]: no kind: it would never be told of anything
    c.toml:7:10: tenants.t.endpoints.crm.events="call.ended": a list of kinds: "call.started", "call.ended", "call.refused", "call.transcript", "voicemail.received", "whatsapp.status"
    c.toml:8:15: tenants.t.endpoints.crm.transcripts=1: true or false
    c.toml:7:15: tenants.t.endpoints.crm.secret_file: there is secret too: leave one of them out
    c.toml:6:10: tenants.t.endpoints.crm.secret: whsec_ and the base64 of 24 to 64 bytes: whsec_$(openssl rand -base64 32)
    c.toml:6:15: tenants.t.endpoints.crm.secret_file: a readable file: No such file or directory (os error 2)
    c.toml:6:7: tenants.t.endpoints.crm.url="http://hooks.example.com/": not an https address: it takes https://, a public host, and port 443
    c.toml:6:7: tenants.t.endpoints.crm.url="https://169.254.169.254/": its address is not public: it takes https://, a public host, and port 443
    c.toml:6:7: tenants.t.endpoints.crm.url: has a user or a password: it takes https://, a public host, and port 443
    c.toml:6:7: tenants.t.endpoints.crm.url: its port is neither 443 nor one of GUARD_PORTS: it takes https://, a public host, and port 443
    c.toml:6:7: tenants.t.endpoints.crm.url=3: a text in quotes
    "#);
}

#[test]
fn a_tenants_endpoints_are_told_of_what_they_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("crm"),
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
    )
    .unwrap();
    let text = with_endpoint(&format!(
        "{HOOKS}secret_file = \"crm\"\n\
         [tenants.t.endpoints.archive]\n{HOOKS}{SECRET}events = [\"call.ended\"]"
    ));
    let path = folder.path().join("c.toml");
    let file = CampaignFile::parse(&text, &path, &inherited(&[])).unwrap();
    assert_eq!(file.beside, [folder.path().join("crm")]);
    let endpoints = &file.endpoints[&"t".parse().unwrap()];
    let told: Vec<_> = endpoints
        .iter()
        .map(|endpoint| (endpoint.name.as_str(), endpoint.kinds.len()))
        .collect();
    assert_eq!(told, [("crm", 5), ("archive", 1)]);
    assert_eq!(endpoints[0].secrets, endpoints[1].secrets);
}

proptest! {
    #[test]
    fn any_text_is_campaigns_or_mistakes(pieces in prop::collection::vec(any_piece(), 0..40), gap in "[ \n]?") {
        let text = pieces.join(&gap);
        match parse(&text) {
            Ok(file) => prop_assert!(file.campaigns.all().count() > 0),
            Err(error) => {
                prop_assert!(!error.mistakes.is_empty());
                for mistake in error.mistakes() {
                    prop_assert!(!mistake.chars().any(char::is_control), "{mistake:?}");
                }
            }
        }
    }
}

#[test]
fn mistakes_in_tools_are_told_without_numbers_and_addresses() {
    let tool = |lines: &str| {
        format!("[[campaigns.good.http_tools]]\nname = \"find\"\ndescription = \"d\"\n{lines}")
    };
    let with_url = |lines: &str| tool(&format!("url = \"https://example.com/\"\n{lines}"));
    let many: String = (0..17)
        .map(|n| with_url("").replace("name = \"find\"", &format!("name = \"find{n}\"")))
        .collect();
    insta::assert_snapshot!(told_of_campaigns(&[
        "tools = \"end_call\"",
        "tools = [\"end_call\", \"end_call\", \"dance\"]",
        "tools = [\"transfer_call\"]",
        "tools = [\"transfer_call\"]\n[campaigns.good.transfer]\nboss = \"0529999999\"\n\"The boss\" = 7",
        "[campaigns.good.transfer]\nboss = \"+97229999999\"",
        "transfer = 7\ntransfer_caller_id = \"canary\"",
        &with_url("timeout_seconds = 21"),
        &with_url("parameters = '{\"type\":\"object\"'"),
        &with_url("parameters = { type = \"string\" }"),
        &with_url("parameters = 7"),
        &tool("url = \"https://10.0.0.1/canary\""),
        &tool("url = \"http://example.com/canary\""),
        "[[campaigns.good.http_tools]]\nsecret = \"canary\"",
        "[[campaigns.good.http_tools]]\nname = \"end_call\"\ndescription = \" \"\nurl = \"canary\"",
        &format!("{}{}", with_url(""), with_url("")),
        "http_tools = [7]",
        &many,
    ]), @r#"
    c.toml:3:9: campaigns.good.tools="end_call": a list of end_call, transfer_call and send_dtmf, such as ["end_call"]
    c.toml:3:34: campaigns.good.tools="dance": one of end_call, transfer_call and send_dtmf
    c.toml:3:9: campaigns.good.tools: transfer_call needs a directory: reception = "+97221234567" in [….transfer]
    c.toml:5:8: campaigns.good.transfer.boss: a number in E.164: "+" and 2 to 15 digits, in quotes
    c.toml:6:1: campaigns.good.transfer."The boss": a name has 1 to 64 of a-z, 0-9, - and _
    c.toml:4:8: campaigns.good.transfer.boss: nobody is handed over: transfer_call is not among the tools
    c.toml:3:12: campaigns.good.transfer=7: a table of names
    c.toml:4:22: campaigns.good.transfer_caller_id: a number in E.164: "+" and 2 to 15 digits, in quotes
    c.toml:7:19: campaigns.good.http_tools[1].timeout_seconds=21: a whole number from 1 to 20
    c.toml:7:14: campaigns.good.http_tools[1].parameters: not JSON: EOF while parsing an object at line 1 column 16
    c.toml:7:14: campaigns.good.http_tools[1].parameters: the arguments of a tool are an object: "type" has to be "object"
    c.toml:7:14: campaigns.good.http_tools[1].parameters: the arguments of a tool are an object: "type" has to be "object"
    c.toml:6:7: campaigns.good.http_tools[1].url: its address is not public
    c.toml:6:7: campaigns.good.http_tools[1].url: not an https address
    c.toml:3:1: campaigns.good.http_tools[1].description: not set (it tells the agent when to use it)
    c.toml:3:1: campaigns.good.http_tools[1].name: not set (what the agent calls it)
    c.toml:3:1: campaigns.good.http_tools[1].url: not set (the https address that is asked)
    c.toml:4:1: campaigns.good.http_tools[1].secret: unknown; there are name, description, url, timeout_seconds, parameters
    c.toml:4:8: campaigns.good.http_tools[1].name="end_call": a built-in tool is called so: list it among the tools
    c.toml:5:15: campaigns.good.http_tools[1].description=" ": empty: leave the key out for its default
    c.toml:6:7: campaigns.good.http_tools[1].url: not an https address
    c.toml:8:8: campaigns.good.http_tools[2].name="find": another tool of the campaign is called so
    c.toml:3:15: campaigns.good.http_tools=7: a list of tables: [[…]]
    c.toml:3:1: campaigns.good.http_tools: 17 of them: at most 16
    "#);
}

#[test]
fn campaigns_without_tools_have_the_environments_and_others_their_own() {
    let environment = inherited(&[
        ("AGENT_TOOLS", "transfer_call"),
        ("AGENT_TRANSFERS", "reception=+97221111111"),
        ("AGENT_TRANSFER_CALLER_ID", "+97223333333"),
    ]);
    let text = "[campaigns.a]\nnumbers = [\"+97220000001\"]
        [campaigns.b]\nnumbers = [\"+97220000002\"]\ntools = [\"transfer_call\", \"end_call\"]
        transfer_caller_id = \"+97224444444\"
        [campaigns.b.transfer]\nsales = \"+97222222222\"
        [campaigns.c]\nnumbers = [\"+97220000003\"]\ntools = []";
    let file = CampaignFile::parse(text, Path::new("c.toml"), &environment).unwrap();
    let shown = |name: &str| {
        let tools = &file.campaigns.named(name).unwrap().tools;
        let names: Vec<_> = tools
            .offers()
            .map(|it| serde_json::json!(it)["name"].clone())
            .collect();
        let directory = &tools.directory;
        let destinations = directory.destinations.iter();
        let destinations: Vec<_> = destinations
            .map(|(name, to)| format!("{name} {to}"))
            .collect();
        format!(
            "{names:?} {destinations:?} {:?} {:?}",
            directory.caller_id, directory.number
        )
    };
    insta::assert_snapshot!([shown("a"), shown("b"), shown("c")].join("\n"), @r#"
    [String("transfer_call")] ["reception +9******1111"] Some(+9******3333) Some(+9******0001)
    [String("transfer_call"), String("end_call")] ["sales +9******2222"] Some(+9******4444) Some(+9******0002)
    [] ["reception +9******1111"] Some(+9******3333) Some(+9******0003)
    "#);
}
