//! Reads TwiML as a carrier does: as XML or not at all.

use quick_xml::{Reader, XmlVersion, escape::resolve_xml_entity, events::Event};

/// An element, with the text directly in it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    pub fn parse(document: &str) -> Self {
        let mut reader = Reader::from_str(document);
        let mut open = vec![Self::default()];
        loop {
            let event = reader.read_event();
            let event = event.unwrap_or_else(|error| panic!("{error} in {document}"));
            let inner = open.last_mut().unwrap();
            match event {
                Event::Start(ref tag) | Event::Empty(ref tag) => {
                    let attributes = tag.attributes().map(|attribute| {
                        let attribute = attribute.unwrap();
                        let value = attribute.normalized_value(XmlVersion::Implicit1_0);
                        let name: &str = attribute.key.as_ref();
                        (name.to_owned(), value.unwrap().into_owned())
                    });
                    let element = Self {
                        name: tag.name().as_ref().to_owned(),
                        attributes: attributes.collect(),
                        ..Self::default()
                    };
                    if matches!(event, Event::Start(_)) {
                        open.push(element);
                    } else {
                        inner.children.push(element);
                    }
                }
                Event::End(_) => {
                    let closed = open.pop().unwrap();
                    open.last_mut().unwrap().children.push(closed);
                }
                Event::Text(text) => inner.text.push_str(&text.xml10_content()),
                Event::GeneralRef(name) => {
                    if let Some(character) = name.resolve_char_ref().unwrap() {
                        inner.text.push(character);
                    } else {
                        let entity = name.xml10_content();
                        inner.text.push_str(resolve_xml_entity(&entity).unwrap());
                    }
                }
                Event::Decl(_) | Event::Comment(_) => {}
                Event::Eof => break,
                Event::CData(_) | Event::PI(_) | Event::DocType(_) => {
                    panic!("no carrier expects this: {document}")
                }
            }
        }
        assert_eq!(open.len(), 1, "an element is not closed: {document}");
        let mut document = open.pop().unwrap();
        assert_eq!(document.children.len(), 1, "TwiML is one element");
        let response = document.children.pop().unwrap();
        assert_eq!(response.name, "Response");
        response
    }

    pub fn attribute(&self, name: &str) -> &str {
        let found = self.attributes.iter().find(|(key, _)| key == name);
        &found.unwrap_or_else(|| panic!("{name} of {self:?}")).1
    }

    pub fn verbs(&self) -> Vec<&str> {
        let names = self.children.iter().map(|child| child.name.as_str());
        names.collect()
    }

    pub fn child(&self, name: &str) -> &Self {
        let found = self.children.iter().find(|child| child.name == name);
        found.unwrap_or_else(|| panic!("{name} in {self:?}"))
    }

    /// Returns what the caller hears before the call is hung up.
    pub fn last_words(&self) -> &str {
        assert_eq!(self.verbs(), ["Say", "Hangup"]);
        &self.child("Say").text
    }
}
