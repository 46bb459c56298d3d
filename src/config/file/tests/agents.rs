//! What is told of `[agents.…]`.

use super::*;

fn told_of_agents(lines: &[&str]) -> String {
    let texts: Vec<_> = lines
        .iter()
        .map(|line| format!("{GOOD}[agents.a]\nkind = \"openai\"\napi_key = \"k\"\n{line}"))
        .collect();
    told_of(&texts.iter().map(String::as_str).collect::<Vec<_>>())
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
