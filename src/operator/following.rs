//! `/dashboard/events`: what has changed on a dashboard, by server-sent events.
//!
//! Invariant: a dashboard has its seat as long as somebody reads and is still let in, and no longer.

use std::{sync::Arc, time::Duration};

use actix_web::{Error, HttpResponse, http::header, web};
use bytes::Bytes;
use futures_util::stream;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::{
    gateway::Gateway,
    operator::{By, Operator, dashboard::Picture, desk::Watcher},
};

/// How long a dashboard hears nothing at most: a proxy cuts what is quiet for longer.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long one is kept up to date before its token is looked at again.
const LONGEST_WATCH: Duration = Duration::from_secs(1_800);
/// How soon a browser asks again whose events have ended.
const AGAIN_MS: u32 = 2_000;
/// How long what was sent may wait to be read.
const UNREAD: Duration = Duration::from_secs(15);
/// How many events wait for the connection beside what it holds itself.
const WAITING: usize = 1;

/// `GET /dashboard/events`: what has changed, every second, for as many as there are seats.
pub async fn events(operator: Operator, gateway: web::Data<Gateway>) -> HttpResponse {
    let Some(watcher) = gateway.desk.watch() else {
        return HttpResponse::ServiceUnavailable()
            .insert_header((header::RETRY_AFTER, "10"))
            .body("too many dashboards are open on this replica");
    };
    let (sent, mut waiting) = mpsc::channel(WAITING);
    let following = Following {
        drained: gateway.is_draining(),
        by: operator.by().clone(),
        gateway: gateway.clone(),
        watcher,
        last: None,
        until: Instant::now() + LONGEST_WATCH,
        greeted: false,
    };
    // Beside the connection, which nobody looks after while its browser does not read.
    gateway.chores().spawn_local(following.send(sent));
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // nginx would wait until there is more.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(stream::poll_fn(move |context| {
            waiting
                .poll_recv(context)
                .map(|next| next.map(Ok::<_, Error>))
        }))
}

/// One dashboard's way through its pictures. It ends when this replica begins to drain, so that the
/// browser asks another; when it stops; when its login has ended; and after a while in any case.
struct Following {
    gateway: web::Data<Gateway>,
    by: By,
    watcher: Watcher,
    last: Option<Arc<Picture>>,
    until: Instant,
    /// Whether this replica drained already: then there is no better one to ask.
    drained: bool,
    greeted: bool,
}

impl Following {
    async fn send(mut self, to: mpsc::Sender<Bytes>) {
        send_all(async || self.next().await, to).await;
    }

    async fn next(&mut self) -> Option<Bytes> {
        if !self.greeted {
            self.greeted = true;
            return Some(Bytes::from(format!("retry: {AGAIN_MS}\n\n")));
        }
        let stopping = self.gateway.stopping.clone();
        let changed = timeout(HEARTBEAT, self.watcher.picture.changed());
        let changed = stopping.run_until_cancelled(changed).await?;
        let picture = match changed {
            Ok(Ok(())) => self.watcher.picture.borrow_and_update().clone(),
            Ok(Err(_)) => return None,
            Err(_) => None,
        };
        if self.is_over() {
            return None;
        }
        let news = picture
            .as_ref()
            .and_then(|it| it.news(self.last.as_deref()));
        if picture.is_some() {
            self.last = picture;
        }
        // A browser keeps comments from the page, which would take a quiet hour for a lost connection.
        Some(news.unwrap_or_else(|| Bytes::from_static(b"data: {}\n\n")))
    }

    fn is_over(&self) -> bool {
        let has_left = match &self.by {
            By::Login(login) => self.gateway.desk.ended.has(login),
            By::Bearer | By::Loopback => false,
        };
        has_left || self.until <= Instant::now() || self.gateway.is_draining() != self.drained
    }
}

/// Sends what there is as it comes, until there is no more, or nobody reads it.
async fn send_all(mut next: impl AsyncFnMut() -> Option<Bytes>, to: mpsc::Sender<Bytes>) {
    loop {
        let next = tokio::select! {
            next = next() => next,
            () = to.closed() => None,
        };
        let Some(next) = next else { return };
        if to.send_timeout(next, UNREAD).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::operator::Desk;

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_nothing_leaves_their_seat_to_others() {
        let desk = Desk::new();
        let mut readers = Vec::new();
        let mut sending = Vec::new();
        while let Some(watcher) = desk.watch() {
            let (to, from) = mpsc::channel(WAITING);
            readers.push(from);
            sending.push(async move {
                let _seat = watcher;
                send_all(async || Some(Bytes::from_static(b"data: {}\n\n")), to).await;
            });
        }
        assert!(desk.watch().is_none());
        let began = Instant::now();
        join_all(sending).await;
        assert_eq!(began.elapsed(), UNREAD);
        assert!(desk.watch().is_some());
    }

    #[tokio::test]
    async fn whoever_closes_their_browser_leaves_their_seat_at_once() {
        let (to, from) = mpsc::channel(WAITING);
        drop(from);
        send_all(async || std::future::pending().await, to).await;
    }
}
