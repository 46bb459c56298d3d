//! How many names are looked up at once: each takes a thread, for as long as its name server likes.
//!
//! Invariant: whose name servers do not answer delays nobody else's look-ups.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::campaign;

/// How long finding a name's addresses may take, with the wait for its turn.
pub const LOOK_UP: Duration = Duration::from_secs(3);
/// How many names are looked up at once by a client, and how many of them for one asker.
const AT_ONCE: usize = 32;
const EACH_AT_ONCE: usize = 4;

/// Who has a request made: a tenant, or this process for itself.
pub type Asker = Option<campaign::Name>;

/// The look-ups that may go on.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    /// Of those who look something up; never more than look-ups that go on or wait.
    each: Mutex<HashMap<Asker, Arc<Semaphore>>>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE)),
            each: Mutex::default(),
        }
    }
}

impl Places {
    /// Looks up on a thread of its own. One that goes on after nobody waits for it keeps its place.
    ///
    /// # Errors
    /// If it fails, or takes too long.
    pub async fn look_up<T: Send + 'static>(
        &self,
        asker: &Asker,
        look_up: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let own = self.of(asker);
        let looked_up = timeout(LOOK_UP, async {
            // First the asker's own: whoever waits for that takes none of everybody's.
            let own = own.acquire_owned().await.map_err(io::Error::other)?;
            let all = Arc::clone(&self.all).acquire_owned().await;
            let all = all.map_err(io::Error::other)?;
            let looking_up = spawn_blocking(move || {
                let _places = (own, all);
                look_up()
            });
            looking_up.await.map_err(io::Error::other)?
        });
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        looked_up.await.unwrap_or_else(late)
    }

    fn of(&self, asker: &Asker) -> Arc<Semaphore> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        // A permit keeps its semaphore, so one that nobody else has is one that nobody uses.
        each.retain(|_, own| Arc::strong_count(own) > 1);
        let own = each.entry(asker.clone());
        let own = own.or_insert_with(|| Arc::new(Semaphore::new(EACH_AT_ONCE)));
        Arc::clone(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn name_servers_that_do_not_answer_hold_so_many_threads_and_nobody_for_long() {
        let places = Places::default();
        let (answer, answers) = std::sync::mpsc::channel::<()>();
        let answers = Arc::new(Mutex::new(answers));
        let asker = Some("slow".parse().unwrap());
        let silent = (0..=EACH_AT_ONCE).map(|_| {
            let answers = Arc::clone(&answers);
            places.look_up(&asker, move || {
                let _ = answers.lock().unwrap().recv();
                Ok(())
            })
        });
        for silent in futures_util::future::join_all(silent).await {
            assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        let own = places.of(&asker);
        assert_eq!(own.available_permits(), 0, "threads that still wait count");
        places.look_up(&None, || Ok(())).await.unwrap();
        drop(answer);
        drop(own);
        places.look_up(&asker, || Ok(())).await.unwrap();
        drop(places.of(&None));
        let left = places.each.lock().unwrap().len();
        assert!(left <= 2, "who looks nothing up takes no room: {left}");
    }
}
