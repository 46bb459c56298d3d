//! What operators ask of the database: so much at once, and for so long.
//!
//! Invariant: whoever looks at one call waits for nobody's search.

use std::{sync::Arc, time::Duration};

use sqlx::AnyPool;
use tokio::{sync::Semaphore, time::timeout};

use crate::record::{Database, DatabaseError};

/// How long an operator waits, for other operators and for the database together.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many searches the database does at once.
const SEARCHES: usize = 2;
/// How many calls it tells all of at once: half of those who read beside operators can do so.
const CALLS: usize = 2;

/// The questions that may be asked at once.
#[derive(Debug)]
pub struct Questions {
    searches: Arc<Semaphore>,
    calls: Arc<Semaphore>,
}

/// Why an operator got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("the database did not answer within {PATIENCE:?}, other operators' questions included")]
    Busy,
    #[error(transparent)]
    Failed(DatabaseError),
}

impl Questions {
    pub fn new() -> Self {
        Self {
            searches: Arc::new(Semaphore::new(SEARCHES)),
            calls: Arc::new(Semaphore::new(CALLS)),
        }
    }

    /// Searches calls by `ask`, which is given a pool that tenants' questions share.
    ///
    /// # Errors
    /// If the database fails, or there is no answer in time.
    pub async fn search<T, F>(
        &self,
        database: &Database,
        ask: impl FnOnce(AnyPool) -> F,
    ) -> Result<T, Unanswered>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
    {
        in_time(&self.searches, &database.for_a_question(()), ask).await
    }

    /// Reads one call by `ask`, which finds what it reads by keys.
    ///
    /// # Errors
    /// If the database fails, or there is no answer in time.
    pub async fn read_call<T, F>(
        &self,
        database: &Database,
        ask: impl FnOnce(AnyPool) -> F,
    ) -> Result<T, Unanswered>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
    {
        in_time(&self.calls, database, ask).await
    }
}

async fn in_time<T, F>(
    seats: &Arc<Semaphore>,
    database: &Database,
    ask: impl FnOnce(AnyPool) -> F,
) -> Result<T, Unanswered>
where
    T: Send + 'static,
    F: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
{
    let answer = timeout(PATIENCE, async {
        let seat = Arc::clone(seats).acquire_owned().await;
        let asking = database.read(|pool| {
            let asking = ask(pool);
            // The database goes on with what nobody waits for: so long the seat is taken.
            async move {
                let _seat = seat;
                asking.await
            }
        });
        asking.await
    });
    match answer.await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Unanswered::Busy),
    }
}

impl From<DatabaseError> for Unanswered {
    fn from(error: DatabaseError) -> Self {
        let waited = matches!(
            error,
            DatabaseError::TooSlow | DatabaseError::Failed(sqlx::Error::PoolTimedOut)
        );
        if waited {
            Self::Busy
        } else {
            Self::Failed(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use secrecy::SecretString;
    use sqlx::Row;

    use super::*;
    use crate::{
        config::{KeptNumbers, RecordSettings},
        record::Sql,
    };

    #[tokio::test]
    async fn a_calls_page_waits_for_no_search_and_a_search_for_no_longer_than_its_patience() {
        let folder = tempfile::tempdir().unwrap();
        let settings = RecordSettings {
            url: SecretString::from(format!("sqlite://{}/records.db", folder.path().display())),
            numbers: KeptNumbers::Whole,
            secret: None,
            kept: Duration::from_secs(86_400),
            transcripts: true,
        };
        let database = Database::open(&settings).unwrap();
        let questions = Questions::new();
        let one = |pool| async move {
            let rows = Sql::new("SELECT 1 AS one").read(&pool).await?;
            rows[0].try_get::<i64, _>("one")
        };
        assert_eq!(questions.search(&database, one).await.unwrap(), 1);
        let endless = || questions.search(&database, |_| pending::<Result<i64, sqlx::Error>>());
        let searching = async {
            // Nobody waits for these two any more, and the database is still at them.
            let (first, second) = tokio::join!(endless(), endless());
            for gone in [first, second] {
                assert!(matches!(gone, Err(Unanswered::Busy)), "{gone:?}");
            }
        };
        tokio::time::pause();
        searching.await;
        let third = questions.search(&database, one).await;
        assert!(matches!(third, Err(Unanswered::Busy)), "{third:?}");
        tokio::time::resume();
        assert_eq!(questions.read_call(&database, one).await.unwrap(), 1);
    }
}
