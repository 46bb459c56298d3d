//! Who shows in the database that it lives, and who has been silent for too long.
//!
//! Invariant: no clock of one replica is held against another's: who lives changes its beat, and
//! who looks on counts for itself how long it has not.

use std::{collections::HashMap, time::Duration};

use sqlx::Row;
use tokio::time::Instant;

use crate::record::{Database, DatabaseError, Sql};

/// How often a replica shows that it lives, and looks who does not.
pub const BEAT: Duration = Duration::from_secs(2);

/// Who has last shown which beat, and since when it is that one: counted only while we could see.
/// Where the database was away, nobody could show anything.
pub struct Beats {
    seen: HashMap<String, (Option<i64>, Instant)>,
    looked: Instant,
    /// How long a replica may be silent.
    patience: Duration,
}

impl Beats {
    pub fn new(patience: Duration) -> Self {
        Self {
            seen: HashMap::new(),
            looked: Instant::now(),
            patience,
        }
    }

    /// Takes in what is there `now`; returns who has been silent for too long.
    pub fn silent(&mut self, now: Instant, there: Vec<(String, Option<i64>)>) -> Vec<String> {
        if now.duration_since(self.looked) > BEAT * 3 {
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
