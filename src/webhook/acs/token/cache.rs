//! Which keys are known, and when they are asked for: decisions without IO, by a time handed in.

use std::{collections::HashMap, time::Duration};

use jsonwebtoken::DecodingKey;
use tokio::time::Instant;

/// Keys that are older are asked for again.
const FRESH: Duration = Duration::from_secs(3_600);
/// Keys that are older count no more, whatever the reason.
const USABLE: Duration = Duration::from_secs(24 * 3_600);
/// How long nobody is asked again, and how long where the key is at hand: one that waits for a
/// server that is away has a call waiting for it.
const PAUSE: Duration = Duration::from_secs(10);
const LONG_PAUSE: Duration = Duration::from_secs(60);
/// How long a key is not asked for that the issuer has not known.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// An issuer's keys by their ids.
pub type Keys = HashMap<String, DecodingKey>;

#[derive(Default)]
pub struct Cache {
    keys: Keys,
    /// When the keys were asked for that are there.
    fetched: Option<Instant>,
    /// When the issuer was last asked, and whether it answered.
    asked: Option<(Instant, Answered)>,
    /// The ids that the issuer has been asked for in vain: one for each time that it was asked.
    unknown: Vec<(Instant, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Yes,
    No,
}

/// What is known of a key.
#[derive(Debug)]
pub enum Look {
    Key(DecodingKey),
    /// The issuer is to be asked first; until it answers, the key is what it was.
    Ask(Option<DecodingKey>),
    /// The issuer has no such key.
    Unknown,
    /// Nobody knows: the issuer has not answered, and is not asked again so soon.
    Unavailable,
}

impl Cache {
    /// Looks for the key with this id.
    pub fn look(&self, now: Instant, id: &str) -> Look {
        let age = self.fetched.map(|fetched| now - fetched);
        let is_usable = age.is_some_and(|age| age < USABLE);
        let key = self.keys.get(id).filter(|_| is_usable).cloned();
        let is_fresh = age.is_some_and(|age| age < FRESH);
        let pause = if key.is_some() { LONG_PAUSE } else { PAUSE };
        let may_ask = self.asked.is_none_or(|(asked, _)| pause <= now - asked);
        let answered = self.asked.map(|(_, answered)| answered);
        match key {
            Some(key) if is_fresh || !may_ask => Look::Key(key),
            Some(key) => Look::Ask(Some(key)),
            None if is_usable && self.is_unknown(now, id) => Look::Unknown,
            None if may_ask => Look::Ask(None),
            // A key that was made since could only be known to an issuer that answers.
            None if is_usable && answered == Some(Answered::Yes) => Look::Unknown,
            None => Look::Unavailable,
        }
    }

    /// Takes the keys over that an issuer named, who was asked for `id`, at `asked`.
    pub fn answered(&mut self, asked: Instant, id: &str, keys: Keys) {
        self.unknown
            .retain(|(since, _)| asked - *since < UNKNOWN_FOR);
        if !keys.contains_key(id) {
            self.unknown.push((asked, id.to_owned()));
        }
        self.keys = keys;
        self.fetched = Some(asked);
        self.asked = Some((asked, Answered::Yes));
    }

    /// Notes that an issuer who was asked at `asked` has not answered.
    pub fn failed(&mut self, asked: Instant) {
        self.asked = Some((asked, Answered::No));
    }

    fn is_unknown(&self, now: Instant, id: &str) -> bool {
        let mut unknown = self.unknown.iter();
        unknown.any(|(since, unknown)| unknown == id && now - *since < UNKNOWN_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn keys(ids: &[&str]) -> Keys {
        let key = DecodingKey::from_rsa_raw_components(b"n", b"e");
        ids.iter()
            .map(|id| ((*id).to_owned(), key.clone()))
            .collect()
    }

    fn look(cache: &Cache, now: Instant, id: &str) -> &'static str {
        match cache.look(now, id) {
            Look::Key(_) => "key",
            Look::Ask(Some(_)) => "ask for a newer one",
            Look::Ask(None) => "ask",
            Look::Unknown => "unknown",
            Look::Unavailable => "unavailable",
        }
    }

    #[test]
    fn ten_thousand_unknown_ids_ask_once_in_ten_seconds() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.answered(start, "a", keys(&["a"]));
        let mut asked = 0;
        for n in 0..10_000 {
            let now = start + SECOND * 10 + n * Duration::from_millis(3);
            let id = n.to_string();
            if matches!(cache.look(now, &id), Look::Ask(_)) {
                asked += 1;
                cache.answered(now, &id, keys(&["a"]));
            }
            assert!(cache.unknown.len() <= 7, "they are forgotten again");
        }
        assert_eq!(asked, 3, "in half a minute");
    }

    #[test]
    fn keys_serve_for_a_day_while_the_issuer_is_away() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        assert_eq!(look(&cache, start, "a"), "ask");
        cache.failed(start);
        assert_eq!(look(&cache, start, "a"), "unavailable");
        assert_eq!(look(&cache, start + SECOND * 10, "a"), "ask");
        cache.answered(start, "a", keys(&["a"]));
        assert_eq!(look(&cache, start + SECOND, "a"), "key");
        assert_eq!(look(&cache, start + HOUR - SECOND, "a"), "key");
        assert_eq!(look(&cache, start + HOUR, "a"), "ask for a newer one");
        cache.failed(start + HOUR);
        assert_eq!(look(&cache, start + HOUR + SECOND * 59, "a"), "key");
        assert_eq!(
            look(&cache, start + HOUR + SECOND * 60, "a"),
            "ask for a newer one"
        );
        cache.failed(start + HOUR * 24 - SECOND);
        assert_eq!(look(&cache, start + HOUR * 24 - SECOND, "a"), "key");
        assert_eq!(look(&cache, start + HOUR * 24, "a"), "unavailable");
        assert_eq!(look(&cache, start + HOUR * 24 + SECOND * 10, "a"), "ask");
    }

    #[test]
    fn an_unknown_key_is_one_only_while_its_issuer_answers() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.answered(start, "b", keys(&["a"]));
        assert_eq!(look(&cache, start + SECOND * 59, "b"), "unknown");
        assert_eq!(look(&cache, start + SECOND * 60, "b"), "ask");
        assert_eq!(look(&cache, start + SECOND * 9, "c"), "unknown");
        assert_eq!(look(&cache, start + SECOND * 10, "c"), "ask");
        cache.failed(start + SECOND * 10);
        assert_eq!(look(&cache, start + SECOND * 11, "c"), "unavailable");
        cache.answered(start + SECOND * 20, "c", keys(&["c"]));
        assert_eq!(look(&cache, start + SECOND * 20, "c"), "key");
        assert_eq!(
            look(&cache, start + SECOND * 20, "a"),
            "unknown",
            "it was revoked"
        );
    }
}
