//! Who is meant to be shown what others must not see, because they have asked for just that.

use super::marks::{Hit, Kind};
use super::settings::Way;

/// What one place shows, by design.
#[derive(Debug, PartialEq, Eq)]
pub struct Meant {
    place: &'static str,
    kind: Kind,
    /// The way of setting a gateway up for which that is so; `None` for both.
    only: Option<Way>,
}

/// Where records keep numbers whole.
const WHOLE: Option<Way> = Some(Way::Text);
/// Where callers leave messages.
const VOICEMAIL: Option<Way> = Some(Way::Json);

/// All there is: whatever is found elsewhere has leaked. A place is a path, as the router has it, and
/// what was asked there.
#[rustfmt::skip]
const MEANT: [Meant; 14] = [
    // Calls that talk: no record is asked for their numbers.
    meant("/stats?numbers=whole", Kind::Number, None),
    meant("/calls/{call}?numbers=whole", Kind::Number, WHOLE),
    meant("/calls/{call}.json?numbers=whole", Kind::Number, WHOLE),
    meant("/v1/calls by who reads all", Kind::Number, WHOLE),
    meant("/v1/calls/{call} by who reads all", Kind::Number, WHOLE),
    // The last words of a call that talks.
    meant("/dashboard", Kind::Words, None),
    meant("/dashboard/events", Kind::Words, None),
    meant("/calls/{call}", Kind::Words, None),
    meant("/calls/{call}?numbers=whole", Kind::Words, None),
    meant("/calls/{call}.json", Kind::Words, None),
    meant("/calls/{call}.json?numbers=whole", Kind::Words, None),
    meant("/v1/calls/{call}/timeline by who reads all", Kind::Words, None),
    meant("/v1/calls/{call}/transcript by who reads all", Kind::Words, None),
    meant("an event", Kind::Recording, VOICEMAIL),
];

const fn meant(place: &'static str, kind: Kind, only: Option<Way>) -> Meant {
    Meant { place, kind, only }
}

/// Returns what is shown by design when a gateway is set up like that.
pub fn all(way: Way) -> impl Iterator<Item = &'static Meant> {
    MEANT
        .iter()
        .filter(move |meant| meant.only.is_none_or(|only| only == way))
}

impl Meant {
    pub fn is(&self, hit: &Hit) -> bool {
        (self.place, self.kind) == (hit.place.as_str(), hit.kind)
    }

    /// Says it for people.
    pub fn name(&self) -> String {
        format!("{:?} in {}", self.kind, self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_meant(way: Way, place: &str, kind: Kind) -> bool {
        let hit = Hit {
            kind,
            what: String::new(),
            place: place.to_owned(),
        };
        all(way).any(|meant| meant.is(&hit))
    }

    #[test]
    fn whole_numbers_are_shown_to_who_asks_for_them_where_they_are_kept() {
        let asked = "/calls/{call}?numbers=whole";
        assert!(is_meant(Way::Text, asked, Kind::Number));
        assert!(!is_meant(Way::Json, asked, Kind::Number));
        assert!(is_meant(Way::Json, "/stats?numbers=whole", Kind::Number));
        for place in ["/stats", "/calls/{call}", "/v1/calls", "replica-1.log"] {
            assert!(!is_meant(Way::Text, place, Kind::Number), "{place}");
        }
    }

    #[test]
    fn no_secret_is_shown_to_anybody() {
        for meant in all(Way::Text) {
            assert!(!is_meant(Way::Text, meant.place, Kind::Secret));
        }
    }
}
