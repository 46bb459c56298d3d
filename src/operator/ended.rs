//! Logins that operators have ended before their time, at whichever replica.
//!
//! Invariant: what one replica has heard of, all know within some seconds: each tells the store what
//! that lacks, also after the store has lost everything.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::operator::login::LoginId;

/// How many are known at most; beyond that those go that have the least time left.
const MOST: usize = 1_000;

/// Logins that are good no longer, each with the time after which it would not be anyway, in Unix
/// seconds.
#[derive(Debug, Default)]
pub struct EndedLogins(Mutex<BTreeMap<LoginId, i64>>);

impl EndedLogins {
    pub fn add(&self, login: LoginId, until: i64) {
        self.lock().insert(login, until);
    }

    pub fn has(&self, login: &LoginId) -> bool {
        self.lock().contains_key(login)
    }

    /// Takes in what the store says at a time, in Unix seconds; returns what it should say, if it
    /// lacks something.
    pub fn learn(&self, told: Option<&str>, now: i64) -> Option<String> {
        // What cannot be read is another version's, or nobody's.
        let told = told.and_then(|told| serde_json::from_str(told).ok());
        let told: BTreeMap<LoginId, i64> = told.unwrap_or_default();
        let mut known = self.lock();
        known.extend(told.iter().map(|(login, until)| (login.clone(), *until)));
        known.retain(|_, until| now <= *until);
        if known.len() > MOST {
            let mut ends: Vec<i64> = known.values().copied().collect();
            ends.sort_unstable();
            let first = ends[ends.len() - MOST];
            known.retain(|_, until| first <= *until);
        }
        // Clocks differ: what others have forgotten already is no reason to write.
        let lacks = known.keys().any(|login| !told.contains_key(login));
        let all = || serde_json::to_string(&*known).expect("texts and numbers always serialize");
        lacks.then(all)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LoginId, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(name: &str) -> LoginId {
        serde_json::from_str(&format!("{name:?}")).unwrap()
    }

    #[test]
    fn replicas_learn_of_each_others_logouts_and_tell_a_store_that_has_lost_them() {
        let (one, other) = (EndedLogins::default(), EndedLogins::default());
        assert_eq!(one.learn(None, 0), None);
        one.add(login("a"), 100);
        other.add(login("b"), 200);
        let told = one.learn(None, 10);
        assert_eq!(told.as_deref(), Some(r#"{"a":100}"#));
        let told = other.learn(told.as_deref(), 10);
        assert_eq!(told.as_deref(), Some(r#"{"a":100,"b":200}"#));
        assert_eq!(one.learn(told.as_deref(), 10), None, "nothing is missing");
        assert!(one.has(&login("b")) && other.has(&login("a")));
        assert_eq!(one.learn(Some("lost"), 10), told);
        assert_eq!(one.learn(told.as_deref(), 101), None);
        assert!(!one.has(&login("a")), "it would be over anyway");
    }

    #[test]
    fn those_go_first_that_have_the_least_time_left() {
        let ended = EndedLogins::default();
        for until in 1..=i64::try_from(MOST).unwrap() + 5 {
            ended.add(login(&until.to_string()), until);
        }
        assert!(ended.learn(None, 0).is_some());
        assert!(!ended.has(&login("5")) && ended.has(&login("6")));
    }
}
