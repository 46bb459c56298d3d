//! What is told of campaigns' tools.

use super::*;

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
        "tools = [\"transfer_call\"]\n[campaigns.good.transfer]\nline = \"+9721900123456\"\nship = \"+870773111632\"\nboss = \"+9720000001\"",
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
    c.toml:5:8: campaigns.good.transfer.line: numbers of this kind are not called: premium rate
    c.toml:6:8: campaigns.good.transfer.ship: it belongs to no country: satellites and international services are not called
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
fn destinations_outside_the_countries_that_may_be_called_are_warned_of_where_there_are_any() {
    let text = "[campaigns.a]\nnumbers = [\"+97220000001\"]\ntools = [\"transfer_call\"]
        [campaigns.a.transfer]\nhere = \"+97221234567\"\nthere = \"+12025550123\"
        nowhere = \"+9720000001\"";
    let warned = |settings: &[(&str, &str)]| {
        let file = CampaignFile::parse(text, Path::new("c.toml"), &inherited(settings)).unwrap();
        file.warnings.join("\n")
    };
    insta::assert_snapshot!(warned(&[("OUTBOUND_COUNTRIES", "IL")]), @"
    c.toml:6:9: campaigns.a.transfer.there: US is not among the countries that may be called (OUTBOUND_COUNTRIES)
    c.toml:7:19: campaigns.a.transfer.nowhere: no such number can exist
    ");
    insta::assert_snapshot!(warned(&[]), @"c.toml:7:19: campaigns.a.transfer.nowhere: no such number can exist");
    let environment = |transfers: &'static str| {
        crate::Config::load(move |name| match name {
            "AGENT_TRANSFERS" => Some(transfers.to_owned()),
            "OUTBOUND_COUNTRIES" => Some("IL".to_owned()),
            _ => None,
        })
    };
    let refused = environment("line=+9721900123456,ship=+870773111632").unwrap_err();
    let refused = refused.to_string();
    for name in [
        "AGENT_TRANSFERS: line: numbers of this kind",
        "AGENT_TRANSFERS: ship: it belongs",
    ] {
        assert!(refused.contains(name), "{refused}");
    }
    let warned = environment("there=+12025550123")
        .unwrap()
        .warnings
        .join("\n");
    assert!(
        warned.contains("AGENT_TRANSFERS: there: US is not among"),
        "{warned}"
    );
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
