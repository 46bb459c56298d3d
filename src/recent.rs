//! What is remembered for a while.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Unix milliseconds.
pub type Millis = u64;

/// What a memory holds at most; beyond it the oldest is forgotten.
const MOST: usize = 200_000;

/// Remembers each thing for a time of its own, and no more than 200,000 of them.
#[derive(Debug)]
pub struct Recent<K, V> {
    entries: HashMap<K, (Millis, V)>,
    oldest_first: VecDeque<(Millis, K)>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            oldest_first: VecDeque::new(),
        }
    }
}

impl<K: Eq + Hash + Clone, V> Recent<K, V> {
    pub fn get(&self, now: Millis, key: &K) -> Option<&V> {
        let (until, value) = self.entries.get(key)?;
        (now < *until).then_some(value)
    }

    /// Remembers `value` for `kept` milliseconds; forgets what is over on the way.
    pub fn put(&mut self, now: Millis, kept: Millis, key: K, value: V) {
        while let Some((until, oldest)) = self.oldest_first.front()
            && (*until <= now || self.oldest_first.len() >= MOST)
        {
            // A newer entry of the same key stays.
            if self
                .entries
                .get(oldest)
                .is_some_and(|(kept, _)| kept == until)
            {
                self.entries.remove(oldest);
            }
            self.oldest_first.pop_front();
        }
        self.oldest_first.push_back((now + kept, key.clone()));
        self.entries.insert(key, (now + kept, value));
    }

    pub fn forget(&mut self, key: &K) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_remembered_until_its_time_is_over() {
        let mut recent = Recent::default();
        recent.put(0, 10, "a", 1);
        recent.put(5, 10, "a", 2);
        assert_eq!(recent.get(9, &"a"), Some(&2));
        assert_eq!(recent.get(14, &"a"), Some(&2));
        assert_eq!(recent.get(15, &"a"), None);
        recent.put(20, 10, "b", 3);
        assert_eq!(recent.entries.len(), 1);
    }

    #[test]
    fn a_flood_makes_it_forget_the_oldest() {
        let mut recent = Recent::default();
        for n in 0..=MOST {
            recent.put(0, 10, n, ());
        }
        assert_eq!(recent.entries.len(), MOST);
        assert_eq!(recent.get(1, &0), None);
        assert_eq!(recent.get(1, &MOST), Some(&()));
    }
}
