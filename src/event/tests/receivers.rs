//! Receivers that fail, hang or ask for a pause, and their neighbours.

use super::*;

#[tokio::test]
async fn a_receiver_that_asks_for_a_pause_is_left_alone_with_all_its_events() {
    let folder = tempfile::tempdir().unwrap();
    let post = Post::open(&format!("sqlite://{}/a.db", folder.path().display())).await;
    let busy = Loopback::start(|_, _| Reply::With(429, "Retry-After: 60", String::new())).await;
    let well = sink(|_, _| 200).await;
    post.tell(&[("busy", &busy, &[]), ("well", &well, &[])]);
    let replica = post.replica(&[0, 0, 0]);
    post.write(EventKind::CallEnded, &["evt_0"]).await;
    let tried = async || {
        let tries = post.database.read(|pool| async move {
            let sql =
                Sql::new("SELECT event FROM deliveries WHERE endpoint = 'busy' AND tries > 0");
            sql.read(&pool).await
        });
        tries.await.unwrap().len() == 1
    };
    eventually(tried).await;
    // Each that the other is told has given this one's worker as much time as that one's.
    for number in 1..6 {
        let event = format!("evt_{number}");
        post.write(EventKind::CallEnded, &[&event]).await;
        eventually(async || received(&well).contains(&event)).await;
    }
    assert_eq!(received(&busy), ["evt_0"]);
    replica.close().await;
    assert_eq!(post.standing().await, [("busy".to_owned(), 6, 0)]);
    post.database.close().await;
}

#[tokio::test]
async fn a_receiver_that_was_left_alone_is_told_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let post = Post::open(&format!("sqlite://{}/a.db", folder.path().display())).await;
    let server = Loopback::start(|n, _| match n {
        0 => Reply::With(503, "Retry-After: 1", String::new()),
        _ => Reply::Answer(204, String::new()),
    })
    .await;
    post.tell(&[("crm", &server, &[])]);
    post.write(EventKind::CallEnded, &["evt_1"]).await;
    let replica = post.replica(&[0]);
    eventually(async || !server.requests().is_empty()).await;
    post.write(EventKind::CallEnded, &["evt_2"]).await;
    post.done().await;
    replica.close().await;
    let counts = counted(received(&server));
    assert_eq!(
        counts,
        BTreeMap::from([("evt_1".into(), 2), ("evt_2".into(), 1)])
    );
    post.database.close().await;
}

/// Waits until something holds.
async fn eventually(holds: impl AsyncFn() -> bool) {
    let holds = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, holds).await.unwrap();
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let post = Post::open(&format!("sqlite://{}/a.db", folder.path().display())).await;
    let (well, hanging) = (
        sink(|_, _| 200).await,
        Loopback::start(|_, _| Reply::Hang).await,
    );
    post.tell(&[("hanging", &hanging, &[]), ("well", &well, &[])]);
    let events: Vec<String> = (0..50).map(|number| format!("evt_{number}")).collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    post.write(EventKind::CallEnded, &events).await;
    let replica = post.replica(&[0]);
    let delivered = async {
        while well.requests().len() < 50 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    // A single try of the one that hangs may take ten seconds.
    timeout(Duration::from_secs(8), delivered).await.unwrap();
    assert!(
        (1..=8).contains(&hanging.requests().len()),
        "the tries at once are bounded"
    );

    let began = Instant::now();
    replica.close().await;
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        post.standing().await,
        [("hanging".to_owned(), 50, 0)],
        "nothing is lost"
    );
    post.database.close().await;
}

#[tokio::test]
async fn bad_receivers_of_every_kind_delay_nobody_else() {
    over_both(async |post| {
        let well = sink(|_, _| 200).await;
        let elsewhere = sink(|_, _| 200).await;
        let target: &'static str = format!("Location: {}", elsewhere.url("/events")).leak();
        let redirecting =
            Loopback::start(move |_, _| Reply::With(307, target, String::new())).await;
        let busy =
            Loopback::start(|_, _| Reply::With(429, "Retry-After: 900", String::new())).await;
        let trickling = Loopback::start(|_, _| Reply::Trickle).await;
        let endless = Loopback::start(|_, _| Reply::Endless).await;
        let hanging = Loopback::start(|_, _| Reply::Hang).await;
        post.tell(&[
            ("busy", &busy, &[]),
            ("endless", &endless, &[]),
            ("hanging", &hanging, &[]),
            ("redirecting", &redirecting, &[]),
            ("trickling", &trickling, &[]),
            ("well", &well, &[]),
        ]);
        let events: Vec<String> = (0..20).map(|number| format!("evt_{number}")).collect();
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        let bad = [&busy, &endless, &hanging, &redirecting, &trickling];
        let replica = post.replica(&[60]);
        // In two parts: by the second one each of the others has shown how bad it is.
        for (part, told) in events.chunks(10).zip([10, 20]) {
            post.write(EventKind::CallEnded, part).await;
            let delivered = async {
                while well.requests().len() < told || bad.iter().any(|it| it.requests().is_empty())
                {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(PATIENCE, delivered).await.unwrap();
        }
        replica.close().await;
        let counts = counted(received(&well));
        assert_eq!(counts.len(), 20);
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
        assert!(
            elsewhere.requests().is_empty(),
            "a redirect is followed nowhere"
        );
        let standing: BTreeMap<_, _> = post
            .standing()
            .await
            .into_iter()
            .map(|(endpoint, waiting, dead)| (endpoint, (waiting, dead)))
            .collect();
        assert_eq!(standing.get("well"), None, "all is delivered");
        // What says yes has heard it, however long it goes on talking.
        assert!(standing.get("endless").is_none_or(|(_, dead)| *dead == 0));
        for name in ["busy", "hanging", "redirecting", "trickling"] {
            assert_eq!(standing[name], (20, 0), "{name}: nothing is lost");
        }
        let due = post.database.read(|pool| async move {
            let sql = "SELECT MAX(due_at) FROM deliveries WHERE last_status IN (307, 429) \
                       GROUP BY endpoint ORDER BY endpoint";
            Sql::new(sql).read(&pool).await
        });
        let due: Vec<i64> = due.await.unwrap().iter().map(|row| row.get(0)).collect();
        let apart = Duration::from_millis((due[0] - due[1]).try_into().unwrap());
        assert!(
            apart > Duration::from_secs(700),
            "who asks for a pause has it: {apart:?}"
        );
    })
    .await;
}
