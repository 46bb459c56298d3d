use proptest::{collection::vec, prelude::*};
use serde_json::json;
use url::Url;

use super::*;
use crate::{answer::escape::kept, official::record};

const HEBREW: &str = "he-IL";
const ENGLISH: &str = "en-US";
const FALLBACK: &str = include_str!("../../../docs/fallback.xml");

#[test]
fn a_busy_line_speaks_hebrew_letter_for_letter() {
    insta::assert_snapshot!(answered(&Answer::Refuse, HEBREW), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Google.he-IL-Wavenet-A" language="he-IL">המערכת עמוסה כרגע. אנא נסו שוב בעוד מספר דקות או שלחו לנו הודעה בוואטסאפ.</Say>
      <Hangup/>
    </Response>
    "#);
    insta::assert_snapshot!(answered(&Answer::Refuse, ENGLISH), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Polly.Joanna" language="en-US">The system is currently busy. Please try again in a few minutes or send us a WhatsApp message.</Say>
      <Hangup/>
    </Response>
    "#);
}

#[test]
fn a_full_campaign_takes_messages_and_thanks_for_them() {
    insta::assert_snapshot!(answered(&voicemail(), HEBREW), @r##"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Google.he-IL-Wavenet-A" language="he-IL">כל הקווים תפוסים כרגע. אנא השאירו הודעה אחרי הצליל, ובסיום הקישו סולמית.</Say>
      <Record action="https://voice.example/webhook/voicemail" method="POST" maxLength="120" timeout="5" finishOnKey="#" playBeep="true" recordingStatusCallback="https://voice.example/webhook/recording_status" recordingStatusCallbackMethod="POST" recordingStatusCallbackEvent="completed absent"/>
      <Say voice="Google.he-IL-Wavenet-A" language="he-IL">לא התקבלה הודעה. להתראות.</Say>
      <Hangup/>
    </Response>
    "##);
    insta::assert_snapshot!(answered(&voicemail(), ENGLISH), @r##"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Polly.Joanna" language="en-US">All our lines are busy at the moment. Please leave a message after the tone, and press the pound key when you are done.</Say>
      <Record action="https://voice.example/webhook/voicemail" method="POST" maxLength="120" timeout="5" finishOnKey="#" playBeep="true" recordingStatusCallback="https://voice.example/webhook/recording_status" recordingStatusCallbackMethod="POST" recordingStatusCallbackEvent="completed absent"/>
      <Say voice="Polly.Joanna" language="en-US">We did not receive a message. Goodbye.</Say>
      <Hangup/>
    </Response>
    "##);
    insta::assert_snapshot!(answered(&Answer::VoicemailThanks, HEBREW), @r##"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Google.he-IL-Wavenet-A" language="he-IL">תודה על ההודעה. נחזור אליכם בהקדם. להתראות.</Say>
      <Hangup/>
    </Response>
    "##);
    insta::assert_snapshot!(answered(&Answer::VoicemailThanks, ENGLISH), @r##"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Polly.Joanna" language="en-US">Thank you for your message. We will get back to you as soon as we can. Goodbye.</Say>
      <Hangup/>
    </Response>
    "##);
}

#[test]
fn a_full_campaign_announces_its_message() {
    insta::assert_snapshot!(answered(&Answer::Whatsapp, HEBREW), @r##"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Google.he-IL-Wavenet-A" language="he-IL">המערכת עמוסה כרגע. מיד נשלח לכם הודעה בוואטסאפ, ונשמח להמשיך שם. תודה על פנייתכם.</Say>
      <Hangup/>
    </Response>
    "##);
    insta::assert_snapshot!(answered(&Answer::Whatsapp, ENGLISH), @r##"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Polly.Joanna" language="en-US">The system is currently busy. We will write to you on WhatsApp in a moment and will be glad to help you there. Thank you for calling.</Say>
      <Hangup/>
    </Response>
    "##);
}

#[test]
fn an_admitted_call_is_connected_with_its_ticket() {
    insta::assert_snapshot!(answered(&connect("t1cket"), HEBREW), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Connect action="https://voice.example/webhook/stream_ended?a=1&amp;b=2" method="POST">
        <Stream url="wss://voice.example/twilio/media">
          <Parameter name="ticket" value="t1cket"/>
        </Stream>
      </Connect>
      <Say voice="Google.he-IL-Wavenet-A" language="he-IL">מצטערים, אירעה תקלה ולא ניתן להמשיך בשיחה. אנא נסו שוב בעוד מספר דקות.</Say>
      <Hangup/>
    </Response>
    "#);
    insta::assert_snapshot!(answered(&connect("t1cket"), ENGLISH), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Connect action="https://voice.example/webhook/stream_ended?a=1&amp;b=2" method="POST">
        <Stream url="wss://voice.example/twilio/media">
          <Parameter name="ticket" value="t1cket"/>
        </Stream>
      </Connect>
      <Say voice="Polly.Joanna" language="en-US">We are sorry, something went wrong and the call cannot continue. Please try again in a few minutes.</Say>
      <Hangup/>
    </Response>
    "#);
}

#[test]
fn the_other_answers_say_one_sentence_and_hang_up() {
    insta::assert_snapshot!(answered(&Answer::NotInService, HEBREW), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Google.he-IL-Wavenet-A" language="he-IL">המספר שחייגתם אינו מחובר. אנא בדקו את המספר ונסו שוב.</Say>
      <Hangup/>
    </Response>
    "#);
    insta::assert_snapshot!(answered(&Answer::NotInService, ENGLISH), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Polly.Joanna" language="en-US">The number you have dialed is not in service. Please check the number and try again.</Say>
      <Hangup/>
    </Response>
    "#);
    insta::assert_snapshot!(answered(&Answer::Apology, HEBREW), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Google.he-IL-Wavenet-A" language="he-IL">מצטערים, אירעה תקלה ולא ניתן להמשיך בשיחה. אנא נסו שוב בעוד מספר דקות.</Say>
      <Hangup/>
    </Response>
    "#);
    insta::assert_snapshot!(answered(&Answer::Apology, ENGLISH), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Polly.Joanna" language="en-US">We are sorry, something went wrong and the call cannot continue. Please try again in a few minutes.</Say>
      <Hangup/>
    </Response>
    "#);
    insta::assert_snapshot!(answered(&Answer::Goodbye, HEBREW), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Google.he-IL-Wavenet-A" language="he-IL">תודה על פנייתכם. להתראות.</Say>
      <Hangup/>
    </Response>
    "#);
    insta::assert_snapshot!(answered(&Answer::Goodbye, ENGLISH), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <Say voice="Polly.Joanna" language="en-US">Thank you for calling. Goodbye.</Say>
      <Hangup/>
    </Response>
    "#);
    for language in [HEBREW, ENGLISH] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(answered(&Answer::HangUp, language), @r#"
            <?xml version="1.0" encoding="UTF-8"?>
            <Response>
              <Hangup/>
            </Response>
            "#);
        }
    }
}

#[test]
fn the_nearest_language_answers() {
    let arabic = "<Say>مشغول</Say>";
    let templates = with(&[("twiml/ar/busy.xml", arabic)]).unwrap();
    for (wanted, heard) in [
        ("he", "המערכת עמוסה"),
        ("iw-IL", "The system"),
        ("en-GB", "The system"),
        ("ar-EG", "مشغول"),
        ("fr-FR", "The system"),
    ] {
        let said = templates.render(&Answer::Refuse, &language(wanted), &dana());
        assert!(said.contains(heard), "{wanted}: {said}");
    }
    let said = templates.render(&Answer::Apology, &language("ar"), &dana());
    assert!(said.contains("We are sorry"), "{said}");
}

#[test]
fn one_file_is_replaced_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("twiml/he-IL/busy.xml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, whole("<Say>שלום {{ caller_name }}</Say>")).unwrap();
    fs::write(dir.path().join("README.md"), "ours").unwrap();
    fs::create_dir(dir.path().join("prompts")).unwrap();
    fs::create_dir(dir.path().join("twiml/..2026_01_01")).unwrap();
    fs::write(dir.path().join("twiml/..2026_01_01/busy.xml"), "<").unwrap();
    let templates = Templates::load(Some(dir.path())).unwrap();
    let said = |answer| templates.render(&answer, &language(HEBREW), &dana());
    assert!(said(Answer::Refuse).contains("<Say>שלום Dana</Say>"));
    assert_eq!(said(Answer::Goodbye), answered(&Answer::Goodbye, HEBREW));
}

#[test]
fn a_directory_that_is_not_there_stops_the_start() {
    let error = Templates::load(Some(Path::new("/no/such/place")))
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "cannot read /no/such/place");
}

#[test]
fn one_failed_start_names_every_bad_template() {
    let error = with(&[
        ("twiml/he-IL/busy.xml", "<Say>"),
        ("twiml/he-IL/bussy.xml", ""),
        ("he-IL/busy.xml", ""),
    ]);
    insta::assert_snapshot!(error.err().unwrap(), @"
    3 templates are wrong:
      /etc/callgate/twiml/he-IL/bussy.xml: no template has this name: they are twiml/<language>/ and one of connect.xml, busy.xml, voicemail.xml, voicemail-thanks.xml, transfer.xml, whatsapp.xml, not-in-service.xml, apology.xml, goodbye.xml, hang-up.xml
      /etc/callgate/he-IL/busy.xml: no template has this name: they are twiml/<language>/ and one of connect.xml, busy.xml, voicemail.xml, voicemail-thanks.xml, transfer.xml, whatsapp.xml, not-in-service.xml, apology.xml, goodbye.xml, hang-up.xml
      /etc/callgate/twiml/he-IL/busy.xml:2:16: </Response> does not close <Say>
    ");
}

#[test]
fn a_template_that_fails_for_one_caller_only_still_answers_them() {
    let body = "{% if caller_name == 'Eve' %}<Say>{% endif %}{% if caller_name == 'Mallory' %}{{ nobody }}{% endif %}";
    let templates = with(&[
        ("twiml/he-IL/busy.xml", body),
        ("twiml/he-IL/apology.xml", body),
    ])
    .unwrap();
    for name in ["Eve", "Mallory"] {
        let call = CallDetails {
            caller_name: Some(name),
            ..dana()
        };
        for (answer, verb) in [
            (Answer::Refuse, r#"<Reject reason="busy"/>"#),
            (Answer::Apology, "<Hangup/>"),
        ] {
            let said = templates.render(&answer, &language(HEBREW), &call);
            assert_eq!(said, whole_on_one_line(verb));
        }
    }
}

#[test]
fn every_wordless_answer_is_well_formed() {
    for document in Document::ALL {
        let answer = trial::hostile(document);
        let elements = xml::read(&wordless(&answer)).unwrap();
        assert_eq!(trial::lacking(&answer, &elements), None);
    }
}

#[test]
fn every_answer_is_recorded_for_twilios_own_package() {
    let mut all = vec![("fallback.xml".to_owned(), FALLBACK.to_owned())];
    for document in Document::ALL {
        let answer = trial::hostile(document);
        all.push((format!("wordless {}", document.file()), wordless(&answer)));
        for tag in [HEBREW, ENGLISH] {
            let name = format!("{tag}/{}", document.file());
            all.push((name, answered(&answer, tag)));
        }
    }
    let lines = all
        .iter()
        .map(|(name, text)| json!({"type": "document", "name": name, "text": text}));
    record("twilio-documents.jsonl", lines);
}

#[test]
fn what_answers_when_no_replica_is_left_is_well_formed() {
    let elements = xml::read(FALLBACK).unwrap();
    let verbs: Vec<_> = elements
        .iter()
        .map(|element| element.name.as_str())
        .collect();
    assert_eq!(verbs, ["Response", "Say", "Say", "Hangup"]);
}

proptest! {
    #[test]
    fn no_name_or_number_gets_out_of_its_place(
        caller in any_text(), called in any_text(), name in any_text(), campaign in any_text(),
    ) {
        let body = "<Say voice=\"{{ caller }}\" language='{{ campaign }}'>{{ caller_name }}</Say>\
                    <Play>{{ called }}</Play>";
        let templates = with(&[("twiml/he-IL/busy.xml", body)]).unwrap();
        let said = templates.render(&Answer::Refuse, &language(HEBREW), &CallDetails {
            caller: Some(&caller),
            called: &called,
            caller_name: Some(&name),
            campaign: Some(&campaign),
        });
        let elements = xml::read(&said).unwrap();
        let outline: Vec<_> = elements.iter().map(|e| (e.depth, e.name.as_str())).collect();
        prop_assert_eq!(outline, [(0, "Response"), (1, "Say"), (1, "Play")]);
        prop_assert_eq!(&elements[1].attributes[0].1, &kept(&caller));
        prop_assert_eq!(&elements[1].attributes[1].1, &kept(&campaign));
        prop_assert_eq!(&elements[1].text, &kept(&name));
        prop_assert_eq!(&elements[2].text, &kept(&called));
    }

    #[test]
    fn any_ticket_arrives_as_it_was_sent(ticket in any_text()) {
        let said = answered(&connect(&ticket), HEBREW);
        let elements = xml::read(&said).unwrap();
        let outline: Vec<_> = elements.iter().map(|e| e.name.as_str()).collect();
        prop_assert_eq!(outline, ["Response", "Connect", "Stream", "Parameter", "Say", "Hangup"]);
        prop_assert_eq!(&elements[3].attributes[1].1, &kept(&ticket));
    }
}

/// Any characters there are, and often those that matter to XML.
fn any_text() -> impl Strategy<Value = String> {
    let special = proptest::sample::select(
        "<>&\"'-]\n\r\t\0\u{202E}\u{FFFE}ש "
            .chars()
            .collect::<Vec<_>>(),
    );
    vec(prop_oneof![any::<char>(), special], 0..40).prop_map(String::from_iter)
}

fn answered(answer: &Answer, tag: &str) -> String {
    static EMBEDDED: LazyLock<Templates> = LazyLock::new(|| Templates::load(None).unwrap());
    EMBEDDED.render(answer, &language(tag), &dana())
}

fn with(overriding: &[(&str, &str)]) -> Result<Templates, TemplateError> {
    let dir = Path::new("/etc/callgate");
    let whole = |&(file, body): &(&str, &str)| (dir.join(file), whole(body));
    Templates::from_sources(dir, overriding.iter().map(whole).collect())
}

/// A template whose body begins at line 2, column 11.
fn whole(body: &str) -> String {
    format!("{}\n<Response>{body}</Response>\n", xml::PROLOG)
}

fn whole_on_one_line(body: &str) -> String {
    whole(body).trim_end().to_owned()
}

fn connect(ticket: &str) -> Answer {
    Answer::Connect {
        stream_url: Url::parse("wss://voice.example/twilio/media").unwrap(),
        action_url: Url::parse("https://voice.example/webhook/stream_ended?a=1&b=2").unwrap(),
        ticket: ticket.to_owned(),
    }
}

fn voicemail() -> Answer {
    Answer::Voicemail {
        action_url: Url::parse("https://voice.example/webhook/voicemail").unwrap(),
        recording_url: Url::parse("https://voice.example/webhook/recording_status").unwrap(),
        max_seconds: 120,
    }
}

fn dana() -> CallDetails<'static> {
    CallDetails {
        caller: Some("+972501234567"),
        called: "+972721234567",
        caller_name: Some("Dana"),
        campaign: Some("default"),
    }
}

fn language(tag: &str) -> Language {
    Language::try_from(tag.to_owned()).unwrap()
}
