//! Reads tables of a TOML file key by key, and notes with its place whatever is wrong or odd.

use std::{
    cell::{Cell, RefCell},
    fmt::Write,
    ops::RangeInclusive,
    str::FromStr,
};

use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    campaign::{Name, NotAName},
    config::reader::MOST_CALLS,
};

/// How much of a name or value is shown, in characters.
const SHOWN: usize = 40;

/// What is wrong and what is odd, each with the byte of the file at which it stands.
pub struct Notes {
    /// Where each line ends.
    line_ends: Vec<usize>,
    pub mistakes: RefCell<Vec<(usize, String)>>,
    pub warnings: RefCell<Vec<(usize, String)>>,
}

/// One table, whose keys are asked for one by one.
pub struct Table<'t> {
    notes: &'t Notes,
    /// What its keys are called in messages: `campaigns.support.` or nothing at all.
    prefix: String,
    at: usize,
    entries: &'t DeTable<'t>,
    known: RefCell<Vec<&'static str>>,
}

/// A key with its value.
pub struct Entry<'t> {
    notes: &'t Notes,
    key: String,
    at: usize,
    value: &'t DeValue<'t>,
    is_secret: Cell<bool>,
}

impl<'t> Table<'t> {
    pub fn root(notes: &'t Notes, entries: &'t DeTable<'t>) -> Self {
        Self {
            notes,
            prefix: String::new(),
            at: 0,
            entries,
            known: RefCell::default(),
        }
    }

    pub fn entry(&self, key: &'static str) -> Option<Entry<'t>> {
        self.known.borrow_mut().push(key);
        let value = self.entries.get(key)?;
        Some(Entry::new(self.notes, self.key(key), value))
    }

    /// Returns a text that must not be shown to anybody.
    pub fn secret(&self, key: &'static str) -> Option<Entry<'t>> {
        let entry = self.entry(key)?;
        entry.is_secret.set(true);
        Some(entry)
    }

    /// Returns the tables below `key`, by their names, in the order of the file.
    pub fn named(&self, key: &'static str, most: usize) -> Vec<(Name, Table<'t>)> {
        let Some(entry) = self.entry(key) else {
            return Vec::new();
        };
        let DeValue::Table(entries) = entry.value else {
            entry.mistake(&format!("tables with a name each: [{key}.<name>]"));
            return Vec::new();
        };
        if entries.len() > most {
            let many = entries.len();
            entry.remark(&format!("{many} of them: at most {most}"));
        }
        let mut in_order: Vec<_> = entries.iter().collect();
        in_order.sort_by_key(|(name, _)| name.span().start);
        let tables = in_order.into_iter().take(most);
        let tables = tables.filter_map(|(name, value)| self.named_one(key, name, value));
        tables.collect()
    }

    fn named_one(
        &self,
        section: &str,
        name: &Spanned<impl AsRef<str>>,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Option<(Name, Table<'t>)> {
        let at = name.span().start;
        let text = name.get_ref().as_ref();
        let key = format!("{}{section}.{}", self.prefix, shown_key(text));
        let table = match value.get_ref() {
            DeValue::Table(entries) => Some(Table {
                notes: self.notes,
                prefix: format!("{key}."),
                at,
                entries,
                known: RefCell::default(),
            }),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                self.notes.mistake(at, format!("{key}: not a table"));
                None
            }
        };
        let name = text.parse();
        if let Err(error) = &name {
            self.notes.mistake(at, format!("{key}: {error}"));
        }
        Some((name.ok()?, table?))
    }

    /// Returns the values below `key`, by their names, in the order of the file.
    pub fn names(&self, key: &'static str, most: usize) -> Vec<(Name, Entry<'t>)> {
        let Some(entry) = self.entry(key) else {
            return Vec::new();
        };
        let DeValue::Table(entries) = entry.value else {
            entry.mistake("a table of names");
            return Vec::new();
        };
        if entries.len() > most {
            let many = entries.len();
            entry.remark(&format!("{many} of them: at most {most}"));
        }
        let mut in_order: Vec<_> = entries.iter().collect();
        in_order.sort_by_key(|(name, _)| name.span().start);
        let named = in_order.into_iter().take(most).filter_map(|(name, value)| {
            let text: &str = name.get_ref();
            let key = format!("{}.{}", entry.key, shown_key(text));
            match text.parse() {
                Ok(name) => Some((name, Entry::new(self.notes, key, value))),
                Err(error) => {
                    let error: NotAName = error;
                    let at = name.span().start;
                    self.notes.mistake(at, format!("{key}: {error}"));
                    None
                }
            }
        });
        named.collect()
    }

    /// Returns the tables of a list, such as `[[…]]` makes one.
    pub fn tables(&self, key: &'static str, most: usize) -> Vec<Table<'t>> {
        const RULE: &str = "a list of tables: [[…]]";
        let Some(entry) = self.entry(key) else {
            return Vec::new();
        };
        let listed = entry.list(most, RULE).into_iter().enumerate();
        let tables = listed.filter_map(|(place, listed)| match listed.value {
            DeValue::Table(entries) => Some(Table {
                notes: self.notes,
                prefix: format!("{}[{}].", entry.key, place + 1),
                at: listed.at,
                entries,
                known: RefCell::default(),
            }),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                listed.mistake(RULE);
                None
            }
        });
        tables.collect()
    }

    /// Returns a value that has to be there.
    pub fn needed(&self, key: &'static str, rule: &str) -> Option<Entry<'t>> {
        let entry = self.entry(key);
        if entry.is_none() {
            self.missing(key, rule);
        }
        entry
    }

    /// Tells whether there is nothing below `key`.
    pub fn is_without(&self, key: &str) -> bool {
        let value = self.entries.get(key).map(Spanned::get_ref);
        value.is_none_or(|value| value.as_table().is_some_and(DeTable::is_empty))
    }

    /// Notes that the table as a whole is wrong.
    pub fn mistake(&self, rule: &str) {
        let key = self.prefix.trim_end_matches('.');
        let what = if key.is_empty() {
            rule.to_owned()
        } else {
            format!("{key}: {rule}")
        };
        self.notes.mistake(self.at, what);
    }

    pub fn warning(&self, warning: &str) {
        let key = self.prefix.trim_end_matches('.');
        self.notes.warning(self.at, format!("{key}: {warning}"));
    }

    pub fn missing(&self, key: &'static str, rule: &str) {
        let what = format!("{}: not set ({rule})", self.key(key));
        self.notes.mistake(self.at, what);
    }

    /// Notes the keys that nobody asked for. Their values may be misplaced secrets.
    pub fn finish(self) {
        let known = self.known.borrow();
        for name in self.entries.keys() {
            let text: &str = name.get_ref();
            if !known.contains(&text) {
                let key = self.key(text);
                let what = format!("{key}: unknown; there are {}", known.join(", "));
                self.notes.mistake(name.span().start, what);
            }
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}{}", self.prefix, shown_key(key))
    }
}

impl<'t> Entry<'t> {
    fn new(notes: &'t Notes, key: String, value: &'t Spanned<DeValue<'t>>) -> Self {
        Self {
            notes,
            key,
            at: value.span().start,
            value: value.get_ref(),
            is_secret: Cell::new(false),
        }
    }

    pub fn line(&self) -> usize {
        self.notes.line(self.at)
    }

    pub fn is_list(&self) -> bool {
        self.value.is_array()
    }

    pub fn as_text(&self) -> Option<&'t str> {
        self.value.as_str()
    }

    /// Notes that the value breaks `rule`, and shows it.
    pub fn mistake(&self, rule: &str) {
        if self.is_secret.get() {
            self.remark(rule);
        } else {
            let what = format!("{}={}: {rule}", self.key, shown(self.value));
            self.notes.mistake(self.at, what);
        }
    }

    /// Notes that something is wrong with the value, without showing it.
    pub fn remark(&self, what: &str) {
        self.notes.mistake(self.at, format!("{}: {what}", self.key));
    }

    pub fn warning(&self, warning: &str) {
        let what = format!("{}={}: {warning}", self.key, shown(self.value));
        self.notes.warning(self.at, what);
    }

    /// Notes that something is odd about the value, without showing it.
    pub fn hint(&self, warning: &str) {
        self.notes
            .warning(self.at, format!("{}: {warning}", self.key));
    }

    /// Returns the value as JSON.
    pub fn json(&self) -> Value {
        json_of(self.value)
    }

    /// Returns the text that the value is; one without any character is none.
    pub fn text(&self, longest: usize) -> Option<&'t str> {
        let DeValue::String(text) = self.value else {
            self.mistake("a text in quotes");
            return None;
        };
        if text.trim().is_empty() {
            self.mistake("empty: leave the key out for its default");
            None
        } else if text.len() > longest {
            let bytes = text.len();
            self.remark(&format!("{bytes} bytes: at most {longest}"));
            None
        } else {
            Some(text.trim())
        }
    }

    /// Returns what the text means, or `None` where it breaks `rule`.
    pub fn parsed<T: FromStr>(&self, rule: &str) -> Option<T> {
        let DeValue::String(text) = self.value else {
            self.mistake(rule);
            return None;
        };
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.mistake(rule);
        }
        parsed
    }

    /// Returns the name that the text is.
    pub fn name(&self) -> Option<Name> {
        self.parsed(&crate::campaign::NotAName.to_string())
    }

    /// Returns a cap; zero and negative mean the default, with a warning, never "unlimited".
    pub fn cap(&self) -> Option<u32> {
        let rule = format!("a whole number of calls, at most {MOST_CALLS}");
        let number = self.whole(&rule)?;
        if number <= 0 {
            self.warning("there is no \"unlimited\"; the default applies");
            return None;
        }
        self.within(number, 1..=MOST_CALLS, &rule)
    }

    /// Returns how many slots are reserved.
    pub fn reserve(&self) -> Option<u32> {
        let rule = format!("a whole number of slots, at most {MOST_CALLS}");
        let number = self.whole(&rule)?;
        self.within(number, 0..=MOST_CALLS, &rule)
    }

    /// Returns what is switched on or off.
    pub fn switch(&self) -> Option<bool> {
        let switch = self.value.as_bool();
        if switch.is_none() {
            self.mistake("true or false");
        }
        switch
    }

    /// Returns a whole number within `range`.
    pub fn number(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let rule = format!("a whole number from {} to {}", range.start(), range.end());
        let number = self.whole(&rule)?;
        self.within(number, range, &rule)
    }

    fn whole(&self, rule: &str) -> Option<i128> {
        let number = match self.value {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        if number.is_none() {
            self.mistake(rule);
        }
        number
    }

    fn within(&self, number: i128, range: RangeInclusive<u32>, rule: &str) -> Option<u32> {
        let number = u32::try_from(number).ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.mistake(rule);
        }
        number
    }

    /// Returns the entries of a list, each with its place.
    pub fn list(&self, most: usize, rule: &str) -> Vec<Entry<'t>> {
        let DeValue::Array(entries) = self.value else {
            self.mistake(rule);
            return Vec::new();
        };
        if entries.len() > most {
            let many = entries.len();
            self.remark(&format!("{many} of them: at most {most}"));
        }
        let entries = entries.iter().take(most);
        entries
            .map(|value| Entry::new(self.notes, self.key.clone(), value))
            .collect()
    }
}

impl Notes {
    /// Begins to take notes of `text`.
    pub fn of(text: &str) -> Self {
        Self {
            line_ends: text.match_indices('\n').map(|(end, _)| end).collect(),
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// Returns the line, from one, in which a byte stands.
    pub fn line(&self, at: usize) -> usize {
        self.line_ends.partition_point(|end| *end < at) + 1
    }

    pub fn mistake(&self, at: usize, what: String) {
        self.mistakes.borrow_mut().push((at, what));
    }

    pub fn warning(&self, at: usize, what: String) {
        self.warnings.borrow_mut().push((at, what));
    }
}

/// Returns a key as it is written, if it is short and plain, and quoted otherwise.
fn shown_key(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=SHOWN).contains(&key.len()) && key.bytes().all(plain) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

/// Returns a text in quotes, cut, with whatever would move a terminal's cursor escaped.
fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => cut(&number.to_string()),
        DeValue::Float(number) => cut(&number.to_string()),
        DeValue::Boolean(switch) => switch.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(_) => "[…]".to_owned(),
        DeValue::Table(_) => "{…}".to_owned(),
    }
}

fn json_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            let read = i64::from_str_radix(number.as_str(), number.radix());
            read.map_or_else(|_| Value::from(number.as_str()), Value::from)
        }
        DeValue::Float(number) => {
            let read: Option<f64> = number.as_str().parse().ok();
            read.map_or_else(|| Value::from(number.as_str()), Value::from)
        }
        DeValue::Boolean(switch) => Value::from(*switch),
        DeValue::Datetime(date) => Value::from(date.to_string()),
        DeValue::Array(entries) => entries.iter().map(|it| json_of(it.get_ref())).collect(),
        DeValue::Table(entries) => {
            let entries = entries.iter();
            let entries = entries.map(|(name, value)| {
                let name: &str = name.get_ref();
                (name.to_owned(), json_of(value.get_ref()))
            });
            Value::Object(entries.collect())
        }
    }
}

fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        let _ = write!(shown, "… ({} digits)", text.len());
    }
    shown
}
