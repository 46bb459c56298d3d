//! What Twilio puts into a request, and what it reads in an answer.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use quick_xml::XmlVersion;
use quick_xml::events::Event;
use serde_json::{Map, Value};
use sha1::Sha1;

/// Where TwiML sends a call's audio.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stream {
    pub url: String,
    pub parameters: Map<String, Value>,
}

/// What TwiML does with a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Connect(Stream),
    /// The caller is told this, and no stream begins.
    Told(String),
    HungUp,
}

/// Why an answer is no TwiML that a carrier could obey.
#[derive(Debug, thiserror::Error)]
pub enum TwimlError {
    #[error("the answer is no XML")]
    Xml(#[from] quick_xml::Error),
    #[error("an attribute of the answer is malformed")]
    Attribute(#[from] quick_xml::events::attributes::AttrError),
    #[error("the answer has a {0} that says too little")]
    Incomplete(&'static str),
}

/// Signs a form posted to `url`, or, without fields, an upgrade, as
/// twilio.com/docs/usage/security says.
pub fn sign(token: &str, url: &str, fields: &[(&str, &str)]) -> String {
    let mut sorted = fields.to_vec();
    sorted.sort_unstable();
    let mut signed = url.to_owned();
    for (name, value) in sorted {
        write!(signed, "{name}{value}").expect("a string takes any text");
    }
    let mut mac =
        Hmac::<Sha1>::new_from_slice(token.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(signed.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Returns the request that posts `fields` to `path` of what is called `base` in public.
pub fn webhook(token: &str, base: &str, path: &str, fields: &[(&str, &str)]) -> String {
    let signature = sign(token, &format!("{base}{path}"), fields);
    let form: Vec<String> = fields
        .iter()
        // The plus of a number is the only character here that a form may not hold as it is.
        .map(|(name, value)| format!("{name}={}", value.replace('+', "%2B")))
        .collect();
    let form = form.join("&");
    let length = form.len();
    let host = base.rsplit('/').next().unwrap_or(base);
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\n\
         Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n\
         Content-Length: {length}\r\nX-Twilio-Signature: {signature}\r\n\r\n{form}"
    )
}

impl Answer {
    /// Reads TwiML.
    ///
    /// # Errors
    /// If it is no XML, or a stream without what a stream needs.
    pub fn read(twiml: &str) -> Result<Self, TwimlError> {
        let mut reader = quick_xml::Reader::from_str(twiml);
        let mut stream: Option<Stream> = None;
        let mut said = String::new();
        loop {
            match reader.read_event()? {
                Event::Eof => break,
                Event::Text(text) => said.push_str(text.as_ref().trim()),
                Event::Start(tag) | Event::Empty(tag) => {
                    let attribute = |name: &'static str| -> Result<String, TwimlError> {
                        let found = tag.try_get_attribute(name)?;
                        let found = found.ok_or(TwimlError::Incomplete("tag"))?;
                        Ok(found
                            .normalized_value(XmlVersion::Implicit1_0)?
                            .into_owned())
                    };
                    match (tag.name().as_ref(), &mut stream) {
                        ("Stream", _) => {
                            stream = Some(Stream {
                                url: attribute("url")?,
                                parameters: Map::new(),
                            });
                        }
                        ("Parameter", Some(stream)) => {
                            let value = Value::String(attribute("value")?);
                            stream.parameters.insert(attribute("name")?, value);
                        }
                        ("Parameter", None) => return Err(TwimlError::Incomplete("parameter")),
                        _ => {}
                    }
                }
                Event::End(_)
                | Event::CData(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::DocType(_)
                | Event::GeneralRef(_) => {}
            }
        }
        Ok(match stream {
            Some(stream) => Self::Connect(stream),
            None if said.is_empty() => Self::HungUp,
            None => Self::Told(said),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn forms_and_upgrades_are_signed_as_by_twilio() {
        // Computed with twilio-python 9.13.0.
        let fields = [
            ("CallSid", "CA00000000000000000000000000000001"),
            ("AccountSid", "AC00000000000000000000000000000001"),
            ("From", "+972501234567"),
            ("To", "+972721234567"),
            ("CallStatus", "ringing"),
            ("ApiVersion", "2010-04-01"),
            ("Direction", "inbound"),
            ("CallerName", ""),
            ("FromCity", "TEL AVIV"),
        ];
        let url = "https://voice.example.com/twilio/voice?tenant=acme";
        assert_eq!(sign(TOKEN, url, &fields), "23KWQiRfonZvSwqMmJglfz51m/s=");
        let url = "wss://voice.example.com/twilio/media";
        assert_eq!(sign(TOKEN, url, &[]), "3Wv0T80qzAY3OCARW9y1gnUJZtE=");
    }

    #[test]
    fn a_webhook_is_signed_over_the_public_url_and_encoded_as_a_form() {
        let fields = [("CallSid", "CA1"), ("From", "+1555")];
        let request = webhook(TOKEN, "http://localhost:1", "/webhook", &fields);
        assert!(request.starts_with("POST /webhook HTTP/1.1\r\nHost: localhost:1\r\n"));
        let signature = sign(TOKEN, "http://localhost:1/webhook", &fields);
        assert!(request.contains(&format!("X-Twilio-Signature: {signature}\r\n")));
        assert!(request.ends_with("\r\n\r\nCallSid=CA1&From=%2B1555"));
    }

    #[test]
    fn a_stream_is_found_in_twiml() {
        let twiml = r#"<?xml version="1.0" encoding="UTF-8"?>
            <Response><Connect action="http://127.0.0.1:5050/webhook/stream_ended">
            <Stream url="ws://127.0.0.1:5050/twilio/media">
            <Parameter name="ticket" value="a&amp;b"/></Stream></Connect>
            <Say>Sorry.</Say></Response>"#;
        let Answer::Connect(stream) = Answer::read(twiml).unwrap() else {
            panic!("no stream in {twiml}");
        };
        assert_eq!(stream.url, "ws://127.0.0.1:5050/twilio/media");
        assert_eq!(stream.parameters["ticket"], "a&b");
    }

    #[test]
    fn what_is_no_stream_is_told_or_hung_up() {
        for (twiml, expected) in [
            (
                "<Response><Say>Nobody is free.</Say><Hangup/></Response>",
                Answer::Told("Nobody is free.".to_owned()),
            ),
            ("<Response>\n  <Hangup/>\n</Response>", Answer::HungUp),
            ("<Response/>", Answer::HungUp),
        ] {
            assert_eq!(Answer::read(twiml).unwrap(), expected, "{twiml}");
        }
        assert!(Answer::read("<Response><Stream/></Response>").is_err());
        assert!(Answer::read("<Response").is_err());
    }
}
