//! Tries a template before its first call, and says where it is wrong.

use std::{path::PathBuf, sync::LazyLock};

use minijinja::{Environment, ErrorKind};
use url::Url;

use super::{
    Answer, CallDetails, TemplateFlaw,
    escape::kept,
    origin::{self, Origins},
    twiml::{Document, LONGEST_VALUE, values},
    xml,
};
use crate::call::PhoneNumber;

/// Renders a template with each sample of values, and reads what comes of it.
///
/// # Errors
/// At the first flaw.
pub fn pass(
    environment: &Environment<'_>,
    document: Document,
    name: &str,
    text: &str,
) -> Result<(), Reason> {
    for sample in Sample::ALL {
        let (answer, call) = (sample.answer(document), sample.call());
        let render = |text: &str| environment.render_named_str(name, text, values(&answer, &call));
        let rendered = render(text)
            .map_err(|error| Reason::Engine(explained(&error) + sample.remark(), error.line()))?;
        let elements = xml::read(&rendered).map_err(|flaw| {
            let marked = render(&origin::marked(text)).unwrap_or_default();
            let origins = Origins::read(text, &marked, &rendered);
            let at = origins.map_or(flaw.at, |origins| origins.of(flaw.at));
            Reason::Xml(flaw.what + sample.remark(), at)
        })?;
        if let Some(what) = lacking(&answer, &elements) {
            let mut verbs = ["<Connect", "<Record", "<Dial"].into_iter();
            let at = verbs.find_map(|verb| text.find(verb)).unwrap_or_default();
            return Err(Reason::Xml(what, at));
        }
    }
    Ok(())
}

/// Returns what a document lacks without which its answer comes to nothing.
pub fn lacking(answer: &Answer, elements: &[xml::Element]) -> Option<String> {
    match answer {
        Answer::Connect {
            stream_url, ticket, ..
        } => lacking_connection(stream_url, ticket, elements),
        Answer::Voicemail {
            action_url,
            recording_url,
            ..
        } => lacking_recording(action_url, recording_url, elements),
        Answer::Transfer { action_url, .. } => lacking_transfer(action_url, elements),
        Answer::Refuse
        | Answer::VoicemailThanks
        | Answer::Whatsapp
        | Answer::NotInService
        | Answer::Apology
        | Answer::Goodbye
        | Answer::HangUp => None,
    }
}

fn lacking_connection(stream_url: &Url, ticket: &str, elements: &[xml::Element]) -> Option<String> {
    let streams = elements
        .iter()
        .any(|element| element.name == "Stream" && has(element, "url", stream_url.as_str()));
    let has_ticket = elements.iter().any(|element| {
        let is_ticket = element.name == "Parameter" && has(element, "name", "ticket");
        is_ticket && has(element, "value", &kept(ticket))
    });
    if !streams {
        return Some(r#"there is no <Stream url="{{ stream_url }}">"#.to_owned());
    }
    (!has_ticket).then(|| {
        r#"there is no <Parameter name="ticket" value="{{ ticket }}"/>: no call would get through"#
            .to_owned()
    })
}

fn lacking_recording(
    action_url: &Url,
    recording_url: &Url,
    elements: &[xml::Element],
) -> Option<String> {
    let records = |name, url: &Url| {
        let mut elements = elements.iter();
        elements.any(|element| element.name == "Record" && has(element, name, url.as_str()))
    };
    if !records("action", action_url) {
        return Some(
            r#"there is no <Record action="{{ action_url }}">: the call would go around in a circle"#
                .to_owned(),
        );
    }
    (!records("recordingStatusCallback", recording_url)).then(|| {
        r#"the <Record> has no recordingStatusCallback="{{ recording_url }}": nobody would know of the message"#
            .to_owned()
    })
}

fn lacking_transfer(action_url: &Url, elements: &[xml::Element]) -> Option<String> {
    let mut elements = elements.iter();
    let dials = elements
        .any(|element| element.name == "Dial" && has(element, "action", action_url.as_str()));
    (!dials).then(|| {
        r#"there is no <Dial action="{{ action_url }}">: nobody would say so where nobody answers"#
            .to_owned()
    })
}

fn has(element: &xml::Element, name: &str, value: &str) -> bool {
    let mut attributes = element.attributes.iter();
    attributes.any(|(known, found)| known == name && found == value)
}

/// Returns what the template engine complains of, without the file, which the flaw names.
pub fn explained(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        // The engine does not say which name it missed.
        None if error.kind() == ErrorKind::UndefinedError => {
            "a name that has no value; there are caller, called, caller_name and campaign, and \
             in connect.xml stream_url, action_url and ticket, in voicemail.xml action_url, \
             recording_url and max_seconds, in transfer.xml action_url, number, caller_id and \
             max_seconds"
                .to_owned()
        }
        None => error.kind().to_string(),
    }
}

/// Values to try a template with.
#[derive(Clone, Copy)]
enum Sample {
    Plain,
    Hostile,
    Longest,
    Absent,
}

/// What would break out of any place in a document, were it not escaped.
const HOSTILE: &str = "</Say>\"'/><Hangup/>&amp;]]>--\u{0}\u{202E}\n{{ x }}";

/// As long as a value can be, and longer still where it is URL-encoded.
static LONGEST: LazyLock<String> = LazyLock::new(|| "\u{1D11E}".repeat(LONGEST_VALUE));

impl Sample {
    const ALL: [Self; 4] = [Self::Plain, Self::Hostile, Self::Longest, Self::Absent];

    fn call(self) -> CallDetails<'static> {
        let all = |value| CallDetails {
            caller: Some(value),
            called: value,
            caller_name: Some(value),
            campaign: Some(value),
        };
        match self {
            Self::Plain => CallDetails {
                caller: Some("+972501234567"),
                called: "+972721234567",
                caller_name: Some("Dana"),
                campaign: Some("default"),
            },
            Self::Hostile => all(HOSTILE),
            Self::Longest => all(&LONGEST),
            Self::Absent => CallDetails::default(),
        }
    }

    fn answer(self, document: Document) -> Answer {
        match document {
            Document::Connect => Answer::Connect {
                stream_url: sample_url("wss://voice.example/twilio/media?a=1&b='2'"),
                action_url: sample_url("https://voice.example/webhook/stream_ended?a=1&b='2'"),
                ticket: match self {
                    Self::Hostile => HOSTILE.to_owned(),
                    Self::Plain | Self::Longest | Self::Absent => "t1cket".to_owned(),
                },
            },
            Document::Busy => Answer::Refuse,
            Document::Voicemail => Answer::Voicemail {
                action_url: sample_url("https://voice.example/webhook/voicemail?a=1&b='2'"),
                recording_url: sample_url("https://voice.example/webhook/recording?a=1&b='2'"),
                max_seconds: 120,
            },
            Document::Transfer => Answer::Transfer {
                number: sample_number("+972721234567"),
                caller_id: match self {
                    Self::Absent => None,
                    Self::Plain | Self::Hostile | Self::Longest => {
                        Some(sample_number("+972501234567"))
                    }
                },
                max_seconds: 14_400,
                action_url: sample_url("https://voice.example/webhook/transfer?a=1&b='2'"),
            },
            Document::VoicemailThanks => Answer::VoicemailThanks,
            Document::Whatsapp => Answer::Whatsapp,
            Document::NotInService => Answer::NotInService,
            Document::Apology => Answer::Apology,
            Document::Goodbye => Answer::Goodbye,
            Document::HangUp => Answer::HangUp,
        }
    }

    /// Returns what to add to a flaw that shows with these values only.
    fn remark(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Hostile => " (where a value has quotes, `<`, `&` or `--` in it)",
            Self::Longest => " (where the values are as long as they can be)",
            Self::Absent => " (where the caller's number and name are not known)",
        }
    }
}

/// What is wrong, before anyone has looked for its line.
pub enum Reason {
    /// The template engine's complaint, with the line of the template.
    Engine(String, Option<usize>),
    /// What the document is not, with the offset in the template.
    Xml(String, usize),
}

impl Reason {
    pub fn locate(self, text: &str, file: PathBuf) -> TemplateFlaw {
        let (line, column, what) = match self {
            Self::Engine(what, line) => (line, None, what),
            Self::Xml(what, at) => {
                let (line, column) = origin::line_and_column(text, at);
                (Some(line), Some(column), what)
            }
        };
        TemplateFlaw {
            file,
            line,
            column,
            what,
        }
    }
}

fn sample_url(url: &str) -> Url {
    Url::parse(url).expect("a constant")
}

fn sample_number(number: &str) -> PhoneNumber {
    number.parse().expect("a constant")
}

/// Returns an answer to `document` whose values would break out of it.
#[cfg(test)]
pub fn hostile(document: Document) -> Answer {
    Sample::Hostile.answer(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::twiml::environment;

    #[test]
    fn a_broken_template_is_named_with_line_and_column() {
        for (body, found) in [
            (
                "\n  <Say>{{ caller }}</say>",
                "3:20: </say> does not close <Say>",
            ),
            (
                "<Say>{{ caller }} & so on</Say>",
                "2:29: entity or character reference not closed: `;` not found before end of input",
            ),
            (
                "{% if caller %}\n<Say>a</Say>\n{% endif %}<Speak>a</Speak>",
                "4:12: TwiML has no <Speak> in <Response>",
            ),
            (
                "<Say>{{ caller | safe }}</Say>",
                "2: unknown filter: filter safe is unknown",
            ),
            (
                "<Say>{{ caller_nam }}</Say>",
                "2: a name that has no value; there are caller, called, caller_name and campaign, and in connect.xml stream_url, action_url and ticket, in voicemail.xml action_url, recording_url and max_seconds, in transfer.xml action_url, number, caller_id and max_seconds",
            ),
            (
                "\n<Say>{{ ticket }}</Say>",
                "3: a name that has no value; there are caller, called, caller_name and campaign, and in connect.xml stream_url, action_url and ticket, in voicemail.xml action_url, recording_url and max_seconds, in transfer.xml action_url, number, caller_id and max_seconds",
            ),
            (
                "\n\n<Say>{% if caller %}</Say>",
                "4: syntax error: unexpected end of input, expected end of block",
            ),
            ("<Say voice='{{ caller }}'>a</Say>", ""),
            (
                "<Say voice={{ caller }}>a</Say>",
                "2:22: an attribute's value has no quotes",
            ),
            (
                "<Say voice=\"a\"{{ caller }}>a</Say>",
                "2:37: an attribute has no `=`",
            ),
            (
                "<{{ caller_name }}/>",
                "2:11: TwiML has no <Dana> in <Response>",
            ),
            (
                "<!-- {{ caller }} --><Say>a</Say>",
                "2:16: forbidden string `--` was found in a comment (where a value has quotes, `<`, `&` or `--` in it)",
            ),
            (
                "{% if not caller %}<Say>{% endif %}",
                "2:46: </Response> does not close <Say> (where the caller's number and name are not known)",
            ),
            (
                "<Say>{{ caller / 2 }}</Say>",
                "2: invalid operation: tried to use / operator on unsupported types string and number",
            ),
        ] {
            let expected = (!found.is_empty()).then(|| format!("tried.xml:{found}"));
            assert_eq!(flaw_of(Document::Busy, body), expected, "{body}");
        }
    }

    #[test]
    fn values_too_long_for_a_voice_are_found_before_a_caller_hears_them_cut() {
        let body = "<Say>".to_owned() + &"{{ caller_name }} ".repeat(4) + "</Say>";
        let error = flaw_of(Document::Busy, &body).unwrap();
        assert!(error.contains("tried.xml:2:11: a <Say> of"), "{error}");
        assert!(error.contains("as long as they can be"), "{error}");
    }

    #[test]
    fn a_recording_that_nobody_is_told_of_is_no_voicemail() {
        for (body, found) in [
            ("<Say>a</Say>", "there is no <Record action="),
            (
                "<Record recordingStatusCallback=\"{{ recording_url }}\"/>",
                "go around in a circle",
            ),
            (
                "<Record action=\"{{ action_url }}\"/>",
                "nobody would know of the message",
            ),
        ] {
            let error = flaw_of(Document::Voicemail, body).unwrap();
            assert!(error.contains(found), "{error}");
        }
    }

    #[test]
    fn a_connection_without_its_ticket_is_no_connection() {
        for (body, found) in [
            (
                "<Connect><Stream url=\"{{ stream_url }}\"/></Connect>",
                "there is no <Parameter name=\"ticket\"",
            ),
            (
                "<Connect><Stream url=\"wss://elsewhere.example\"/></Connect>",
                "there is no <Stream url=",
            ),
        ] {
            let error = flaw_of(Document::Connect, body).unwrap();
            assert!(error.contains(found), "{error}");
        }
    }

    /// Returns the flaw of a template whose body begins at line 2, column 11.
    fn flaw_of(document: Document, body: &str) -> Option<String> {
        let text = format!("{}\n<Response>{body}</Response>\n", xml::PROLOG);
        let reason = pass(&environment(), document, "tried.xml", &text).err()?;
        Some(reason.locate(&text, PathBuf::from("tried.xml")).to_string())
    }
}
