//! Finished documents, read as Twilio would read them.

use quick_xml::{
    Reader, XmlVersion,
    errors::Error,
    events::{BytesStart, Event, attributes::AttrError},
};

use super::escape::is_in_xml;

/// What a document has to begin with, byte for byte.
pub const PROLOG: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;

/// The longest answer to a webhook. Twilio error 11750.
const LARGEST_DOCUMENT: usize = 64 * 1024;

/// The longest name and value of a `<Parameter>`, together.
const LONGEST_PARAMETER: usize = 500;

/// The longest text of a `<Say>` after URL encoding. Twilio error 13521.
const LONGEST_ENCODED_SAY: usize = 4500;

/// An element of a document, with what is written in it and below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// How many elements enclose this one.
    pub depth: usize,
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub text: String,
    /// Where its start tag stands in the document, in bytes.
    at: usize,
}

/// What is wrong with a document, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    pub at: usize,
    pub what: String,
}

/// What may stand in an element: which elements, and whether text.
struct Content {
    elements: &'static [&'static str],
    text: bool,
}

/// Reads a document, whose elements it returns in their order.
///
/// # Errors
/// At the first thing that Twilio would stumble over: what is not well-formed, not TwiML that
/// this gateway has a use for, or over a limit.
pub fn read(document: &str) -> Result<Vec<Element>, Flaw> {
    if !document.starts_with(PROLOG) {
        return Err(flaw(0, format!("the first bytes have to be {PROLOG}")));
    }
    if let Some((at, character)) = document.char_indices().find(|&(_, c)| !is_in_xml(c)) {
        let code = u32::from(character);
        return Err(flaw(at, format!("XML has no character U+{code:04X}")));
    }
    let elements = Tree::grow(document)?;
    for element in elements.iter().filter(|element| element.name == "Say") {
        check_say(element)?;
    }
    if LARGEST_DOCUMENT <= document.len() {
        let what = format!("{} bytes are more than Twilio reads", document.len());
        return Err(flaw(0, what));
    }
    Ok(elements)
}

/// The elements read up to now, and which of them are open.
struct Tree<'a> {
    document: &'a str,
    elements: Vec<Element>,
    open: Vec<usize>,
}

impl<'a> Tree<'a> {
    fn grow(document: &'a str) -> Result<Vec<Element>, Flaw> {
        let mut reader = Reader::from_str(document);
        reader.config_mut().check_comments = true;
        let mut tree = Self {
            document,
            elements: Vec::new(),
            open: Vec::new(),
        };
        loop {
            let at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
            match reader.read_event() {
                Ok(Event::Start(tag)) => tree.start(at, &tag)?,
                Ok(Event::Empty(tag)) => {
                    tree.start(at, &tag)?;
                    tree.open.pop();
                }
                Ok(Event::End(_)) => {
                    tree.open.pop();
                }
                Ok(Event::Text(text)) => tree.plain_text(at, &text)?,
                Ok(Event::GeneralRef(reference)) => {
                    tree.reference(at, &format!("&{};", &*reference))?;
                }
                Ok(Event::Comment(_)) => {}
                Ok(Event::Decl(_)) if at == 0 => {}
                Ok(Event::Decl(_)) => return Err(flaw(at, "a second XML declaration")),
                Ok(Event::CData(_)) => {
                    let what = "CDATA is not escaped: a caller would hear `&amp;` in its values";
                    return Err(flaw(at, what));
                }
                Ok(Event::PI(_)) => return Err(flaw(at, "TwiML has no processing instructions")),
                Ok(Event::DocType(_)) => return Err(flaw(at, "TwiML has no document type")),
                Ok(Event::Eof) => return tree.finish(),
                Err(error) => {
                    let at = usize::try_from(reader.error_position()).unwrap_or(at);
                    return Err(flaw(at, tree.explained(&error)));
                }
            }
        }
    }

    fn start(&mut self, at: usize, tag: &BytesStart<'_>) -> Result<(), Flaw> {
        let name = tag.name().into_inner();
        match self
            .open
            .last()
            .map(|&parent| self.elements[parent].name.as_str())
        {
            None if !self.elements.is_empty() => {
                return Err(flaw(
                    at,
                    format!("<{name}> stands behind the end of <Response>"),
                ));
            }
            None if name != "Response" => {
                let what = format!("the document is a <{name}>; it has to be a <Response>");
                return Err(flaw(at, what));
            }
            None => {}
            Some(parent) => {
                let known = content_of(parent).map_or(&[][..], |content| content.elements);
                if !known.contains(&name) {
                    return Err(flaw(at, unknown(name, parent, known)));
                }
            }
        }
        let attributes = self.attributes(at, tag)?;
        if name == "Parameter" {
            let length: usize = attributes.iter().map(|(_, value)| value.len()).sum();
            if LONGEST_PARAMETER <= length {
                let what = format!("a <Parameter> of {length} bytes; Twilio takes less than 500");
                return Err(flaw(at, what));
            }
        }
        self.open.push(self.elements.len());
        self.elements.push(Element {
            depth: self.open.len() - 1,
            name: name.to_owned(),
            attributes,
            text: String::new(),
            at,
        });
        Ok(())
    }

    fn attributes(
        &self,
        tag_at: usize,
        tag: &BytesStart<'_>,
    ) -> Result<Vec<(String, String)>, Flaw> {
        let mut attributes = Vec::new();
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| {
                let (offset, what) = explained_attribute(&error);
                flaw(tag_at + 1 + offset, what)
            })?;
            let key = attribute.key.into_inner();
            let at = self.offset_of(key);
            if !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(flaw(at, format!("`{key}` is no attribute of TwiML")));
            }
            if !self.document[..at].ends_with(char::is_whitespace) {
                return Err(flaw(at, format!("a blank is missing before `{key}`")));
            }
            if attribute.value.contains('<') {
                return Err(flaw(
                    at,
                    format!("`<` in the value of `{key}` has to be `&lt;`"),
                ));
            }
            let value = attribute.normalized_value(XmlVersion::Explicit1_0);
            let value = value.map_err(|_| {
                flaw(
                    at,
                    format!("an `&` in the value of `{key}` has to be `&amp;`"),
                )
            })?;
            if !value.chars().all(is_in_xml) {
                return Err(flaw(at, format!("XML has no such character as in `{key}`")));
            }
            attributes.push((key.to_owned(), value.into_owned()));
        }
        Ok(attributes)
    }

    fn plain_text(&mut self, at: usize, text: &str) -> Result<(), Flaw> {
        if let Some(offset) = text.find("]]>") {
            return Err(flaw(at + offset, "`]]>` in a text has to be `]]&gt;`"));
        }
        let blank = text.len() - text.trim_start().len();
        if blank < text.len() {
            self.expect_text(at + blank)?;
        }
        self.write(text);
        Ok(())
    }

    fn reference(&mut self, at: usize, reference: &str) -> Result<(), Flaw> {
        self.expect_text(at)?;
        let text = quick_xml::escape::unescape(reference)
            .map_err(|_| flaw(at, format!("XML knows no `{reference}`")))?;
        if !text.chars().all(is_in_xml) {
            return Err(flaw(
                at,
                format!("XML has no such character as `{reference}`"),
            ));
        }
        self.write(&text);
        Ok(())
    }

    fn expect_text(&self, at: usize) -> Result<(), Flaw> {
        let parent = self.open.last().map(|&index| &self.elements[index].name);
        let Some(parent) = parent else {
            return Err(flaw(at, "text outside <Response>"));
        };
        if content_of(parent).is_some_and(|content| content.text) {
            Ok(())
        } else {
            Err(flaw(
                at,
                format!("text in <{parent}>, where nobody hears it"),
            ))
        }
    }

    fn write(&mut self, text: &str) {
        for &index in &self.open {
            self.elements[index].text.push_str(text);
        }
    }

    fn finish(self) -> Result<Vec<Element>, Flaw> {
        match self.open.last() {
            Some(&index) => {
                let element = &self.elements[index];
                Err(flaw(
                    element.at,
                    format!("<{}> is never closed", element.name),
                ))
            }
            None if self.elements.is_empty() => {
                Err(flaw(self.document.len(), "the document has no <Response>"))
            }
            None => Ok(self.elements),
        }
    }

    fn explained(&self, error: &Error) -> String {
        let opened = self.open.last().map(|&index| &self.elements[index]);
        match (error, opened) {
            (
                Error::IllFormed(quick_xml::errors::IllFormedError::MismatchedEndTag {
                    found, ..
                }),
                Some(element),
            ) => {
                format!("</{found}> does not close <{}>", element.name)
            }
            _ => error
                .to_string()
                .replace("ill-formed document: ", "")
                .replace("syntax error: ", ""),
        }
    }

    /// Returns where `part`, which is a part of the document, begins in it.
    fn offset_of(&self, part: &str) -> usize {
        part.as_ptr()
            .addr()
            .saturating_sub(self.document.as_ptr().addr())
    }
}

fn flaw(at: usize, what: impl Into<String>) -> Flaw {
    Flaw {
        at,
        what: what.into(),
    }
}

fn unknown(name: &str, parent: &str, known: &[&str]) -> String {
    match known.iter().find(|known| known.eq_ignore_ascii_case(name)) {
        Some(meant) => format!("TwiML has no <{name}>; <{meant}> is written so"),
        None => format!("TwiML has no <{name}> in <{parent}>"),
    }
}

fn explained_attribute(error: &AttrError) -> (usize, &'static str) {
    match error {
        AttrError::ExpectedEq(at) => (*at, "an attribute has no `=`"),
        AttrError::ExpectedValue(at) => (*at, "an attribute has no value"),
        AttrError::UnquotedValue(at) => (*at, "an attribute's value has no quotes"),
        AttrError::ExpectedQuote(at, _) => (*at, "an attribute's value has no closing quote"),
        AttrError::Duplicated(at, _) => (*at, "an attribute is given twice"),
    }
}

/// Checks a `<Say>` against the limits of its voice. Twilio error 13521.
fn check_say(say: &Element) -> Result<(), Flaw> {
    let voice = say.attributes.iter().find(|(name, _)| name == "voice");
    let longest = match voice.map_or("", |(_, voice)| voice) {
        voice if voice.starts_with("Polly.") => 3000,
        voice if voice.starts_with("Google.") => 5000,
        _ => 4096,
    };
    let letters = say.text.chars().count();
    if longest < letters {
        let what = format!("a <Say> of {letters} letters; its voice says at most {longest}");
        return Err(flaw(say.at, what));
    }
    let encoded: usize = say
        .text
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { 1 } else { 3 })
        .sum();
    if LONGEST_ENCODED_SAY < encoded {
        let what = format!(
            "a <Say> of {encoded} bytes when URL-encoded; Twilio says at most \
             {LONGEST_ENCODED_SAY}, which is some 700 letters of Hebrew: make it two"
        );
        return Err(flaw(say.at, what));
    }
    Ok(())
}

/// Returns what may stand in an element; nothing in one that is not listed.
fn content_of(element: &str) -> Option<Content> {
    const SPEECH: &[&str] = &[
        "break", "emphasis", "lang", "p", "phoneme", "prosody", "s", "say-as", "sub", "w",
    ];
    let (elements, text): (&[&str], bool) = match element {
        "Response" => (
            &[
                "Connect", "Dial", "Enqueue", "Gather", "Hangup", "Pause", "Play", "Record",
                "Redirect", "Reject", "Say", "Sms", "Start",
            ],
            false,
        ),
        "Connect" => (&["Stream"], false),
        "Start" => (&["Recording", "Stream"], false),
        "Stream" => (&["Parameter"], false),
        "Gather" => (&["Pause", "Play", "Say"], false),
        "Dial" => (
            &[
                "Application",
                "Client",
                "Conference",
                "Number",
                "Queue",
                "Sip",
            ],
            true,
        ),
        "Say" => (SPEECH, true),
        speech if SPEECH.contains(&speech) => (SPEECH, true),
        "Client" | "Conference" | "Enqueue" | "Number" | "Play" | "Queue" | "Redirect" | "Sip"
        | "Sms" => (&[], true),
        _ => return None,
    };
    Some(Content { elements, text })
}

#[cfg(test)]
mod tests;
