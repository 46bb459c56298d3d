//! Which keys may be left when no call is live.

use crate::cluster::Key;

/// Lists the keys that have no business in an empty house. What is decided about calls, and what
/// became of them, is kept for a while; marks of the store itself may stay.
pub fn leftovers(keys: &[Key]) -> Vec<&str> {
    /// Kept for a time, for webhooks that come again and for whoever asks.
    const PASSING: [&str; 6] = [
        "calls:decision:",
        "calls:ended:",
        "calls:freed:",
        "calls:state:",
        "calls:ticket:",
        "calls:unwritten",
    ];
    /// The store's own, which may stay.
    const MARKS: [&str; 6] = [
        "calls:gen",
        "calls:epoch",
        "calls:instances",
        "calls:places",
        "calls:setups",
        // The mirror of the count; its value is looked at apart.
        "calls:active_count",
    ];
    let is_at_home = |key: &Key| {
        MARKS.contains(&key.name.as_str())
            || key.expires && PASSING.iter().any(|prefix| key.name.starts_with(prefix))
    };
    let left = keys.iter().filter(|key| !is_at_home(key));
    left.map(|key| key.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marks_and_what_passes_may_be_left() {
        let key = |name: &str, expires| Key {
            name: name.to_owned(),
            expires,
        };
        let keys = [
            key("calls:gen", false),
            key("calls:epoch", false),
            key("calls:instances", true),
            key("calls:active_count", true),
            key("calls:decision:CA1", true),
            key("calls:decision:CA2", false),
            key("calls:active:CA3", true),
            key("calls:lease", true),
            key("calls:lock:CA4", true),
            key("other", true),
        ];
        assert_eq!(
            leftovers(&keys),
            [
                "calls:decision:CA2",
                "calls:active:CA3",
                "calls:lease",
                "calls:lock:CA4",
                "other"
            ]
        );
    }
}
