//! Who shows in the database that it lives, and who has been silent for too long.
//!
//! Invariant: no clock of one replica is held against another's: who lives changes its beat, and
//! who looks on counts for itself how long it has not.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::Row;
use tokio::time::Instant;

use crate::record::{Database, DatabaseError, Sql};

/// How often a replica shows that it lives, and looks who does not.
pub const BEAT: Duration = Duration::from_secs(2);
/// How long a replica that has shown nothing new may live all the same.
const MAY_LIVE_FOR: Duration = BEAT.saturating_mul(5);
/// For how long nobody could look until what was seen says nothing any more.
const BLIND_AFTER: Duration = BEAT.saturating_mul(3);

/// Who may live, as the last look into the database has shown. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Living(Arc<Mutex<Option<Look>>>);

/// What a look has shown.
#[derive(Debug)]
struct Look {
    at: Instant,
    living: HashSet<String>,
}

/// Who has last shown which beat, and since when it is that one: counted only while we could see.
/// Where the database was away, nobody could show anything.
pub struct Beats {
    seen: HashMap<String, (Option<i64>, Instant)>,
    looked: Instant,
    /// How long a replica may be silent.
    patience: Duration,
}

impl Living {
    pub fn looked(&self, at: Instant, living: HashSet<String>) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Look { at, living });
    }

    /// Tells whether a replica may live; any may while nobody can look.
    pub fn has(&self, replica: &str) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last
            .as_ref()
            .filter(|last| last.at.elapsed() <= BLIND_AFTER);
        last.is_none_or(|last| last.living.contains(replica))
    }
}

impl Beats {
    pub fn new(patience: Duration) -> Self {
        Self {
            seen: HashMap::new(),
            looked: Instant::now(),
            patience,
        }
    }

    /// Returns who has shown something new of late, or has not been looked at for long.
    pub fn living(&self, now: Instant) -> HashSet<String> {
        let seen = self.seen.iter();
        let living = seen.filter(|(_, (_, since))| now.duration_since(*since) < MAY_LIVE_FOR);
        living.map(|(replica, _)| replica.clone()).collect()
    }

    /// Takes in what is there `now`; returns who has been silent for too long.
    pub fn silent(&mut self, now: Instant, there: Vec<(String, Option<i64>)>) -> Vec<String> {
        if now.duration_since(self.looked) > BLIND_AFTER {
            self.seen.clear();
        }
        self.looked = now;
        self.seen
            .retain(|known, _| there.iter().any(|(replica, _)| replica == known));
        let mut silent = Vec::new();
        for (replica, beat) in there {
            let (last, since) = self.seen.entry(replica.clone()).or_insert((beat, now));
            if *last != beat {
                (*last, *since) = (beat, now);
            } else if now.duration_since(*since) >= self.patience {
                silent.push(replica);
            }
        }
        silent
    }
}

/// Shows that we live; returns every replica that has shown itself or has a call that is not over,
/// with its beat.
///
/// # Errors
/// If the database does not answer.
pub async fn beat(
    database: &Database,
    replica: String,
) -> Result<Vec<(String, Option<i64>)>, DatabaseError> {
    let write = database.write(move |writing| {
        Box::pin(async move {
            let mut sql = Sql::new("INSERT INTO replicas (replica, beat) VALUES (");
            sql.bind(replica)
                .push(", 1) ON CONFLICT (replica) DO UPDATE SET beat = replicas.beat + 1");
            sql.execute(writing).await?;
            let sql = Sql::new(
                "SELECT replica, beat FROM replicas UNION ALL \
                 SELECT DISTINCT replica, CAST(NULL AS BIGINT) FROM calls \
                 WHERE rank < 90 AND replica IS NOT NULL \
                 AND replica NOT IN (SELECT replica FROM replicas)",
            );
            let rows = sql.fetch_all(writing).await?;
            let seen = rows
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
            seen.collect()
        })
    });
    write.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_may_live_for_a_while_after_its_last_beat_and_whenever_nobody_can_look() {
        let living = Living::default();
        assert!(living.has("gone"), "nobody has looked");
        let began = Instant::now();
        let mut beats = Beats::new(Duration::from_secs(30));
        let mut look = |second: u64| {
            let now = began + Duration::from_secs(second);
            let alive = i64::try_from(second).unwrap();
            let there = [("gone", 7), ("alive", alive)];
            let there = there.map(|(replica, beat)| (replica.to_owned(), Some(beat)));
            beats.silent(now, there.to_vec());
            let mut living: Vec<_> = beats.living(now).into_iter().collect();
            living.sort();
            living
        };
        for second in [0, 2, 4, 6, 8] {
            assert_eq!(look(second), ["alive", "gone"], "after {second} s");
        }
        assert_eq!(look(10), ["alive"]);
        assert_eq!(look(20), ["alive", "gone"], "nobody could show itself");
        living.looked(Instant::now(), HashSet::from(["alive".to_owned()]));
        assert!(living.has("alive") && !living.has("gone"));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(7));
        if let Some(long_ago) = long_ago {
            living.looked(long_ago, HashSet::new());
            assert!(living.has("gone"), "nobody could look for a while");
        }
    }

    #[test]
    fn only_who_could_show_itself_is_silent() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let there = |beat| {
            vec![
                ("gone".to_owned(), Some(7)),
                ("alive".to_owned(), Some(beat)),
            ]
        };
        let mut beats = Beats {
            seen: HashMap::new(),
            looked: began,
            patience: Duration::from_secs(30),
        };
        for second in (0..30).step_by(2) {
            assert_eq!(
                beats.silent(at(second), there(1 + second.cast_signed())),
                [""; 0]
            );
        }
        assert_eq!(beats.silent(at(30), there(99)), ["gone"]);
        // The database was away for a minute: nobody could show itself.
        assert_eq!(beats.silent(at(90), there(99)), [""; 0]);
        for second in (92..120).step_by(2) {
            assert_eq!(
                beats.silent(at(second), there(second.cast_signed())),
                [""; 0]
            );
        }
        assert_eq!(beats.silent(at(120), there(120)), ["gone"]);
    }
}
