//! What is told of `[tenants.….endpoints.…]`.

use super::*;

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
