//! Where in a template stands what stands in the document rendered from it.
//!
//! The template engine keeps no such map. So a copy of the template, marked after every tag, is
//! rendered beside it: the marks tell where in the template the text behind them comes from.

/// The marks are private-use characters, which no language writes and XML allows.
const MARK: char = '\u{E000}';
const MARK_END: char = '\u{E001}';

/// Where a stretch of the document's literal text comes from, by byte offsets.
struct Stretch {
    rendered_at: usize,
    begins: usize,
    ends: usize,
}

/// Maps offsets in a rendered document to offsets in its template.
pub struct Origins(Vec<Stretch>);

impl Origins {
    /// Reads the marks in `rendered`, the marked copy of `template`. Returns `None` if without
    /// them it is not `document`: a template that trims or counts its text may notice the marks.
    pub fn read(template: &str, rendered: &str, document: &str) -> Option<Self> {
        let first = Stretch {
            rendered_at: 0,
            begins: 0,
            ends: next_tag(template, 0).map_or(template.len(), |(opens, _)| opens),
        };
        let (mut stretches, mut plain) = (vec![first], String::new());
        let mut rest = rendered;
        while let Some((before, marked)) = rest.split_once(MARK) {
            plain.push_str(before);
            let (mark, after) = marked.split_once(MARK_END)?;
            let (begins, ends) = mark.split_once('-')?;
            stretches.push(Stretch {
                rendered_at: plain.len(),
                begins: begins.parse().ok()?,
                ends: ends.parse().ok()?,
            });
            rest = after;
        }
        plain.push_str(rest);
        (plain == document).then_some(Self(stretches))
    }

    /// Returns where the text at `offset` of the document comes from; for a value, where the tag
    /// begins that put it there.
    pub fn of(&self, offset: usize) -> usize {
        let after = self.0.partition_point(|known| known.rendered_at <= offset);
        let Some(known) = after.checked_sub(1).and_then(|index| self.0.get(index)) else {
            return offset;
        };
        known.ends.min(known.begins + offset - known.rendered_at)
    }
}

/// Returns a copy of `template` that notes after every tag, behind the white space which the tag
/// may trim, which part of the template follows.
pub fn marked(template: &str) -> String {
    let mut copy = String::with_capacity(template.len() * 2);
    let mut at = 0;
    while let Some((_, closes)) = next_tag(template, at) {
        let ends = next_tag(template, closes).map_or(template.len(), |(opens, _)| opens);
        let literal = &template[closes..ends];
        let begins = ends - literal.trim_start().len();
        copy.push_str(&template[at..begins]);
        if begins < ends {
            let mark = format!("{MARK}{begins}-{ends}{MARK_END}");
            copy.push_str(&mark);
        }
        at = begins;
    }
    copy.push_str(&template[at..]);
    copy
}

/// Returns line and column of a byte offset, both counted from one, columns in characters.
pub fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// Returns where the first tag at or after `from` opens and where it closes.
fn next_tag(template: &str, from: usize) -> Option<(usize, usize)> {
    let opens = ["{{", "{%", "{#"]
        .into_iter()
        .filter_map(|opening| template[from..].find(opening))
        .min()?
        + from;
    let closing = match template.as_bytes()[opens + 1] {
        b'{' => "}}",
        b'%' => "%}",
        _ => "#}",
    };
    let closes = template[opens + 2..].find(closing)? + opens + 4;
    Some((opens, closes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_behind_a_value_is_found_where_the_template_has_it() {
        let template = "<a>{{ x }} b {%- if y %} <c/>{% endif %}<d/>";
        assert_eq!(
            marked(template),
            "<a>{{ x }} \u{E000}11-13\u{E001}b {%- if y %} \u{E000}25-29\u{E001}<c/>{% endif %}\
             \u{E000}40-44\u{E001}<d/>"
        );
        let rendered = "<a>long value \u{E000}11-13\u{E001}b \u{E000}25-29\u{E001}<c/>\u{E000}40-44\u{E001}<d/>";
        let document = "<a>long value b <c/><d/>";
        let origins = Origins::read(template, rendered, document).unwrap();
        for (piece, source) in [
            ("<a>", 0),
            ("value", 3),
            ("b", 11),
            ("<c/>", 25),
            ("<d/>", 40),
        ] {
            assert_eq!(origins.of(document.find(piece).unwrap()), source, "{piece}");
        }
    }

    #[test]
    fn a_copy_that_reads_otherwise_is_no_map() {
        assert!(Origins::read("{{ x }}a", "1\u{E000}7-8\u{E001}b", "1a").is_none());
    }

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let text = "ab\nשלום <";
        assert_eq!(line_and_column(text, 0), (1, 1));
        assert_eq!(line_and_column(text, text.find('<').unwrap()), (2, 6));
        assert_eq!(line_and_column(text, 4), (2, 1));
    }
}
