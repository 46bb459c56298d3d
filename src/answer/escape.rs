//! Values on their way into a document.

/// Escapes `value` for text and for attributes in quotes of either kind.
///
/// Characters that XML cannot hold, not even escaped, are dropped. So are control characters
/// beyond them, and the marks that turn the direction of text: a voice cannot say them, and what
/// an operator reads in a log or a console must not be in another order than what was sent.
/// White space other than blanks is escaped, since a parser turns it into blanks in attributes.
pub fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in kept(value).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\t' => escaped.push_str("&#9;"),
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Returns `value` without what [`escape`] drops.
pub fn kept(value: &str) -> String {
    value
        .chars()
        .filter(|&character| is_kept(character))
        .collect()
}

/// Whether XML can hold a character. XML 1.0, production 2; surrogates are no characters to Rust.
pub fn is_in_xml(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => true,
        '\u{FFFE}' | '\u{FFFF}' => false,
        other => ' ' <= other,
    }
}

fn is_kept(character: char) -> bool {
    let turns_direction = matches!(
        character,
        '\u{061C}'
            | '\u{200E}'
            | '\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2066}'..='\u{2069}'
    );
    let is_space = matches!(character, '\t' | '\n' | '\r');
    is_in_xml(character) && !turns_direction && (is_space || !character.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_or_misleads_the_eye_is_dropped() {
        assert_eq!(escape("a\u{0}\u{1B}\u{7F}\u{85}\u{FFFE}\u{FFFF}b"), "ab");
        assert_eq!(escape("\u{202E}\u{2066}\u{200F}דנה\u{61C}"), "דנה");
        assert_eq!(
            escape("<\"'&>\t\r\n"),
            "&lt;&quot;&apos;&amp;&gt;&#9;&#13;&#10;"
        );
    }
}
