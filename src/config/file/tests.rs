mod agents;
mod endpoints;
mod tools;

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
