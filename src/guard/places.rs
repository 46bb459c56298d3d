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
/// How many names are looked up at once for one asker: the first in a place of the asker's own, which
/// nobody else can take, the rest where all share what there is.
const EACH_AT_ONCE: usize = 4;
/// How many places all share. There are as many more as askers, and those are tenants of the campaign
/// file.
const SHARED: usize = 32;

/// Who has a request made: a tenant, or this process for itself.
pub type Asker = Option<campaign::Name>;

/// The look-ups that may go on.
#[derive(Debug)]
pub struct Places {
    shared: Arc<Semaphore>,
    /// Of those who look something up; never more than look-ups that go on or wait.
    each: Mutex<HashMap<Asker, Arc<Own>>>,
}

/// What one asker may have.
#[derive(Debug)]
struct Own {
    look_ups: Arc<Semaphore>,
    place: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            shared: Arc::new(Semaphore::new(SHARED)),
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
            // First whether the asker may: whoever waits for that takes nobody's place.
            let one = Arc::clone(&own.look_ups).acquire_owned().await;
            let one = one.map_err(io::Error::other)?;
            let place = tokio::select! {
                biased;
                place = Arc::clone(&own.place).acquire_owned() => place,
                place = Arc::clone(&self.shared).acquire_owned() => place,
            };
            let place = place.map_err(io::Error::other)?;
            let looking_up = spawn_blocking(move || {
                let _held = (own, one, place);
                look_up()
            });
            looking_up.await.map_err(io::Error::other)?
        });
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        looked_up.await.unwrap_or_else(late)
    }

    fn of(&self, asker: &Asker) -> Arc<Own> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        // Who looks something up keeps it, so one that nobody else has is one that nobody uses.
        each.retain(|_, own| Arc::strong_count(own) > 1);
        let own = each.entry(asker.clone());
        let own = own.or_insert_with(|| {
            Arc::new(Own {
                look_ups: Arc::new(Semaphore::new(EACH_AT_ONCE)),
                place: Arc::new(Semaphore::new(1)),
            })
        });
        Arc::clone(own)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

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
        let free = own.look_ups.available_permits();
        assert_eq!(free, 0, "threads that still wait count");
        places.look_up(&None, || Ok(())).await.unwrap();
        drop(answer);
        drop(own);
        places.look_up(&asker, || Ok(())).await.unwrap();
        drop(places.of(&None));
        let left = places.each.lock().unwrap().len();
        assert!(left <= 2, "who looks nothing up takes no room: {left}");
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_have_slow_name_servers_everybody_else_is_answered_at_once() {
        let places = Places::default();
        let (answer, answers) = std::sync::mpsc::channel::<()>();
        let answers = Arc::new(Mutex::new(answers));
        let askers: Vec<Asker> = (0..SHARED)
            .map(|asker| Some(format!("slow-{asker}").parse().unwrap()))
            .collect();
        let slow = askers.iter().flat_map(|asker| [asker; EACH_AT_ONCE]);
        let slow = slow.map(|asker| {
            let answers = Arc::clone(&answers);
            places.look_up(asker, move || {
                let _ = answers.lock().unwrap().recv();
                Ok(())
            })
        });
        let mut slow: futures_util::stream::FuturesUnordered<_> = slow.collect();
        while places.shared.available_permits() > 0 {
            assert!(slow.next().now_or_never().is_none(), "nobody is answered");
            tokio::task::yield_now().await;
        }
        let other = Some("other".parse().unwrap());
        let looked_up = tokio::select! {
            biased;
            looked_up = places.look_up(&other, || Ok(7)) => looked_up,
            slow = slow.next() => panic!("{slow:?}"),
        };
        assert_eq!(looked_up.unwrap(), 7);
        drop(answer);
    }
}
