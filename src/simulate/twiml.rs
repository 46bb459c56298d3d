//! Reads TwiML as Twilio does: what a document tells the carrier to do, and what is wrong with it.

use std::time::Duration;

use url::form_urlencoded::byte_serialize;

use super::xml::{Element, XmlError};

/// A `<Say>` longer than this, URL-encoded, is error 13521.
const LONGEST_SAY: usize = 4_500;

/// A `<Parameter>`'s name and value together have to stay below this.
const LONGEST_PARAMETER: usize = 500;

/// A document: its verbs in order, and what Twilio's debugger would list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Twiml {
    pub verbs: Vec<Verb>,
    pub faults: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verb {
    Connect { then: Next, stream: Stream },
    Say(Said),
    Play(String),
    Pause(Duration),
    Record { then: Next, done: Option<String> },
    Dial { to: String, then: Next },
    Redirect(Next),
    Hangup,
    Reject(Rejection),
}

/// Where the next document comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Next {
    /// `None` is what the verb makes of a missing `action`.
    pub url: Option<String>,
    pub by_get: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    pub url: String,
    pub parameters: Vec<(String, String)>,
}

/// What a `<Say>` has the carrier say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Said {
    pub text: String,
    pub language: Option<String>,
    pub voice: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    Busy,
    Rejected,
}

/// Why a document cannot be obeyed at all: errors 12100 and 12200.
#[derive(Debug, thiserror::Error)]
pub enum TwimlError {
    #[error("the TwiML is not well-formed XML: {0}")]
    Malformed(#[from] XmlError),
    #[error("the TwiML begins with <{0}>, not with <Response>")]
    NotAResponse(String),
}

impl Twiml {
    /// # Errors
    /// If `document` is not XML with one `<Response>`.
    pub fn parse(document: &str) -> Result<Self, TwimlError> {
        let root = Element::parse(document)?;
        if root.name != "Response" {
            return Err(TwimlError::NotAResponse(root.name));
        }
        let mut twiml = Self::default();
        for (place, element) in root.children.into_iter().enumerate() {
            if let Some(verb) = twiml.verb(place, element) {
                twiml.verbs.push(verb);
            }
        }
        Ok(twiml)
    }

    fn verb(&mut self, place: usize, mut element: Element) -> Option<Verb> {
        Some(match element.name.as_str() {
            "Connect" => Verb::Connect {
                then: next(&mut element, "action"),
                stream: self.stream(element.children)?,
            },
            "Say" => Verb::Say(self.say(&mut element)),
            "Play" => Verb::Play(element.text.trim().to_owned()),
            "Pause" => Verb::Pause(self.seconds(&mut element)),
            "Record" => Verb::Record {
                done: element.take("recordingStatusCallback"),
                then: next(&mut element, "action"),
            },
            "Dial" => Verb::Dial {
                to: element.text.trim().to_owned(),
                then: next(&mut element, "action"),
            },
            "Redirect" => Verb::Redirect(Next {
                url: Some(element.text.trim().to_owned()),
                by_get: next(&mut element, "").by_get,
            }),
            "Hangup" => Verb::Hangup,
            "Reject" => {
                if place > 0 {
                    self.faults.push("<Reject> is not the first verb".into());
                }
                Verb::Reject(self.rejection(&mut element))
            }
            unknown => {
                let fault = format!("<{unknown}> is not a verb this carrier knows");
                self.faults.push(fault);
                return None;
            }
        })
    }

    fn stream(&mut self, mut nouns: Vec<Element>) -> Option<Stream> {
        if nouns.len() != 1 || nouns[0].name != "Stream" {
            self.faults.push("<Connect> needs one <Stream>".into());
            return None;
        }
        let mut noun = nouns.pop()?;
        let Some(mut url) = noun.take("url").filter(|url| !url.is_empty()) else {
            self.faults.push("<Stream> has no url".into());
            return None;
        };
        if let Some(query) = url.find('?') {
            let fault = "<Stream url> has a query, which Twilio takes off";
            self.faults.push(fault.into());
            url.truncate(query);
        }
        let mut parameters = Vec::new();
        for mut child in noun.children {
            let (name, value) = (child.take("name"), child.take("value"));
            let (name, value) = (name.unwrap_or_default(), value.unwrap_or_default());
            if child.name != "Parameter" {
                let fault = format!("<{}> does not belong into <Stream>", child.name);
                self.faults.push(fault);
            } else if name.is_empty() || name.len() + value.len() >= LONGEST_PARAMETER {
                let fault = "a <Parameter> without a name, or of 500 characters and more";
                self.faults.push(fault.into());
            } else {
                parameters.push((name, value));
            }
        }
        Some(Stream { url, parameters })
    }

    fn say(&mut self, element: &mut Element) -> Said {
        let text = element.text.split_whitespace().collect::<Vec<_>>();
        let text = text.join(" ");
        if text.is_empty() {
            self.faults.push("<Say> says nothing".into());
        }
        if byte_serialize(text.as_bytes()).map(str::len).sum::<usize>() > LONGEST_SAY {
            let fault = "<Say> is longer than 4500 characters, URL-encoded";
            self.faults.push(fault.into());
        }
        Said {
            text,
            language: element.take("language"),
            voice: element.take("voice"),
        }
    }

    fn seconds(&mut self, element: &mut Element) -> Duration {
        let length = element.take("length").unwrap_or_else(|| "1".into());
        Duration::from_secs(length.parse().unwrap_or_else(|_| {
            self.faults.push("<Pause length> is not a number".into());
            1
        }))
    }

    fn rejection(&mut self, element: &mut Element) -> Rejection {
        match element.take("reason").as_deref() {
            Some("busy") => Rejection::Busy,
            Some("rejected") | None => Rejection::Rejected,
            Some(other) => {
                let fault = format!("<Reject reason> is neither busy nor rejected: {other}");
                self.faults.push(fault);
                Rejection::Rejected
            }
        }
    }
}

/// Returns what an attribute and `method` say about the next document.
fn next(element: &mut Element, attribute: &str) -> Next {
    Next {
        url: element.take(attribute).filter(|url| !url.is_empty()),
        by_get: element.take("method").is_some_and(|method| method == "GET"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(inside: &str) -> Twiml {
        Twiml::parse(&format!(
            r#"<?xml version="1.0" encoding="UTF-8"?><Response>{inside}</Response>"#
        ))
        .unwrap()
    }

    #[test]
    fn a_call_is_connected_to_a_stream_with_its_parameters() {
        let twiml = parse(
            r#"
            <!-- in -->
            <Connect action="/webhook/stream_ended?a=1&amp;b=2" method="POST">
              <Stream url="wss://voice.example.com/twilio/media">
                <Parameter name="ticket" value="b4f1&quot;c0"/>
                <Parameter name="lang" value="he-IL"></Parameter>
              </Stream>
            </Connect>"#,
        );
        let parameter = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = Verb::Connect {
            then: Next {
                url: Some("/webhook/stream_ended?a=1&b=2".into()),
                by_get: false,
            },
            stream: Stream {
                url: "wss://voice.example.com/twilio/media".into(),
                parameters: vec![parameter("ticket", "b4f1\"c0"), parameter("lang", "he-IL")],
            },
        };
        assert_eq!(twiml.verbs, [expected]);
        assert_eq!(twiml.faults, [""; 0]);
    }

    #[test]
    fn every_verb_is_understood() {
        let next = |url: &str, by_get| Next {
            url: Some(url.into()),
            by_get,
        };
        let said = |text: &str| Said {
            text: text.into(),
            language: Some("he-IL".into()),
            voice: None,
        };
        let table = [
            (
                r#"<Say language="he-IL">כל  הנציגים
                   עסוקים &amp; נחזור &#33;</Say>"#,
                Verb::Say(said("כל הנציגים עסוקים & נחזור !")),
            ),
            (
                r#"<Say language="he-IL">a <emphasis>b</emphasis> c</Say>"#,
                Verb::Say(said("a b c")),
            ),
            ("<Play> https://a.example/b.mp3 </Play>", {
                Verb::Play("https://a.example/b.mp3".into())
            }),
            ("<Pause/>", Verb::Pause(Duration::from_secs(1))),
            (r#"<Pause length="3"/>"#, {
                Verb::Pause(Duration::from_secs(3))
            }),
            (r#"<Redirect method="GET">/again</Redirect>"#, {
                Verb::Redirect(next("/again", true))
            }),
            ("<Hangup/>", Verb::Hangup),
            ("<Reject/>", Verb::Reject(Rejection::Rejected)),
            (r#"<Reject reason="busy"/>"#, Verb::Reject(Rejection::Busy)),
            (r#"<Record action="/v" recordingStatusCallback="/d"/>"#, {
                Verb::Record {
                    then: next("/v", false),
                    done: Some("/d".into()),
                }
            }),
            ("<Dial><Number>+97231234567</Number></Dial>", {
                Verb::Dial {
                    to: "+97231234567".into(),
                    then: Next::default(),
                }
            }),
        ];
        for (document, verb) in table {
            let twiml = parse(document);
            assert_eq!(twiml.verbs, [verb], "{document}");
            assert_eq!(twiml.faults, [""; 0], "{document}");
        }
    }

    #[test]
    fn what_twilio_would_warn_of_is_a_fault_and_not_the_end() {
        let long = format!("<Say>{}</Say>", "ש".repeat(751));
        let wide = format!(
            r#"<Connect><Stream url="wss://a/b"><Parameter name="n" value="{}"/></Stream></Connect>"#,
            "v".repeat(499)
        );
        let table = [
            ("<Teleport/>", 0, "<Teleport> is not a verb"),
            ("<connect/>", 0, "<connect> is not a verb"),
            ("<Connect/>", 0, "needs one <Stream>"),
            ("<Connect><Room/></Connect>", 0, "needs one <Stream>"),
            ("<Connect><Stream/></Connect>", 0, "no url"),
            (
                r#"<Connect><Stream url="wss://a/b?c=d"/></Connect>"#,
                1,
                "has a query",
            ),
            ("<Say/>", 1, "says nothing"),
            (&long, 1, "longer than"),
            (&wide, 1, "500 characters"),
            ("<Hangup/><Reject/>", 2, "not the first"),
            (r#"<Reject reason="tired"/>"#, 1, "neither busy"),
            (r#"<Pause length="long"/>"#, 1, "not a number"),
        ];
        for (document, verbs, fault) in table {
            let twiml = parse(document);
            assert_eq!(twiml.verbs.len(), verbs, "{document}");
            assert_eq!(twiml.faults.len(), 1, "{document}");
            assert!(twiml.faults[0].contains(fault), "{:?}", twiml.faults);
        }
    }

    #[test]
    fn what_is_not_twiml_is_refused() {
        let deep = format!(
            "<Response>{}{}</Response>",
            "<a>".repeat(99),
            "</a>".repeat(99)
        );
        for document in [
            "",
            "busy",
            "<Response>",
            "</Response>",
            "<Response></Answer>",
            "<Response/><Response/>",
            "<response/>",
            "<html><body>502 Bad Gateway</body></html>",
            "text<Response/>",
            r#"<!DOCTYPE r [<!ENTITY a "b">]><Response><Say>&a;</Say></Response>"#,
            "<Response><Say>&nbsp;</Say></Response>",
            "<Response><Say language=he>a</Say></Response>",
            r#"<Response><Say voice="a" voice="b">c</Say></Response>"#,
            "<Response><Say>&#0;</Say></Response>",
            "{\"error\":\"busy\"}",
            &deep,
        ] {
            assert!(Twiml::parse(document).is_err(), "{document}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_document_makes_the_carrier_panic(
            document in "(<(/?)(Response|Connect|Stream|Say)( url=\"[a-z?]*\")?(/?)>|&[a-z#0-9]*;?|[a-z ]){0,20}",
        ) {
            let _ = Twiml::parse(&document);
        }
    }
}
