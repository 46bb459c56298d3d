//! Reads a small XML document as a tree.

use quick_xml::{
    Reader, XmlVersion,
    escape::resolve_xml_entity,
    events::{BytesRef, BytesStart, Event},
};

/// Nothing that Twilio knows is nested deeper.
const DEEPEST: usize = 8;

/// Why a document is not XML, or not XML that a carrier takes.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    #[error(transparent)]
    Malformed(#[from] quick_xml::Error),
    #[error("{0}")]
    Broken(&'static str),
}

/// An element with all the text in it, its children's included.
#[derive(Default)]
pub struct Element {
    pub name: String,
    attributes: Vec<(String, String)>,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    /// # Errors
    /// If `document` is not one element.
    pub fn parse(document: &str) -> Result<Self, XmlError> {
        let mut reader = Reader::from_str(document);
        let mut open = vec![Self::default()]; // The first one stands for the document.
        loop {
            let depth = open.len();
            let inner = open.last_mut().expect("the document is never closed");
            match reader.read_event()? {
                Event::Start(tag) if depth <= DEEPEST => open.push(Self::of(&tag)?),
                Event::Start(_) => return Err(XmlError::Broken("nested too deeply")),
                Event::Empty(tag) => inner.children.push(Self::of(&tag)?),
                Event::End(_) => Self::close(&mut open)?,
                Event::Text(text) => inner.text.push_str(&text.xml10_content()),
                Event::CData(text) => inner.text.push_str(&text.xml10_content()),
                Event::GeneralRef(name) => inner.text.push_str(&resolve(&name)?),
                Event::DocType(_) => return Err(XmlError::Broken("it has a document type")),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                Event::Eof => break,
            }
        }
        let [document] = open.as_mut_slice() else {
            return Err(XmlError::Broken("an element is not closed"));
        };
        match (document.children.pop(), document.children.is_empty()) {
            (Some(root), true) if document.text.trim().is_empty() => Ok(root),
            _ => Err(XmlError::Broken("it is not one element")),
        }
    }

    fn of(tag: &BytesStart<'_>) -> Result<Self, XmlError> {
        let mut attributes = Vec::new();
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(quick_xml::Error::from)?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0)?;
            attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
        }
        Ok(Self {
            name: tag.name().as_ref().to_owned(),
            attributes,
            ..Self::default()
        })
    }

    fn close(open: &mut Vec<Self>) -> Result<(), XmlError> {
        match (open.pop(), open.last_mut()) {
            (Some(closed), Some(outer)) => {
                if !outer.name.is_empty() {
                    outer.text.push_str(&closed.text);
                }
                outer.children.push(closed);
                Ok(())
            }
            _ => Err(XmlError::Broken("an element ends that never began")),
        }
    }

    /// Takes an attribute's value.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.attributes.iter().position(|(key, _)| key == name)?;
        Some(self.attributes.swap_remove(at).1)
    }
}

fn resolve(name: &BytesRef<'_>) -> Result<String, XmlError> {
    if let Some(character) = name.resolve_char_ref()? {
        return Ok(character.into());
    }
    let known = resolve_xml_entity(&name.xml10_content()).map(str::to_owned);
    known.ok_or(XmlError::Broken("it refers to an unknown entity"))
}
