//! What is sent once more because somebody wants it.

use super::*;

#[tokio::test]
async fn nothing_is_sent_again_to_an_endpoint_that_is_not_in_force() {
    over_both(async |post| {
        let server = sink(|_, _| 200).await;
        post.tell(&[("crm", &server, &[])]);
        post.write(EventKind::CallEnded, &["evt_1"]).await;
        try_all(post, Fate::Dead(Cause::Exhausted)).await;
        post.tell(&[("sales", &server, &[])]);
        let not_in_force = Resent::NotInForce(name("crm"));
        for endpoint in [None, Some("crm")] {
            let resent = post.resend("acme", "evt_1", endpoint).await;
            assert_eq!(resent, not_in_force, "{endpoint:?}");
        }
        let endpoints = Arc::clone(&post.endpoints.borrow());
        let standing = post.outbox.standing(&endpoints).await.unwrap();
        assert_eq!((standing[0].dead, standing[0].in_force), (1, false));
        post.tell(&[("sales", &server, &[]), ("crm", &server, &[])]);
        let resent = post.resend("acme", "evt_1", None).await;
        assert_eq!(resent, Resent::To(1));
        let endpoints = Arc::clone(&post.endpoints.borrow());
        let standing = post.outbox.standing(&endpoints).await.unwrap();
        assert_eq!((standing[0].waiting, standing[0].in_force), (1, true));
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_hours_can_be_sent_at_once_and_what_is_being_sent_cannot() {
    over_both(async |post| {
        let server = sink(|_, _| 200).await;
        post.tell(&[("crm", &server, &[])]);
        post.write(EventKind::CallEnded, &["evt_1", "evt_2", "evt_3"])
            .await;
        let claimed = post.outbox.turn(&place(), Vec::new(), 8).await.unwrap();
        assert_eq!(claimed.len(), 3);
        for endpoint in [None, Some("crm")] {
            let resent = post.resend("acme", "evt_1", endpoint).await;
            assert_eq!(resent, Resent::Nothing, "it is being sent");
        }
        assert_eq!(post.resend_all().await, 0, "they are being sent");
        let after = Duration::from_secs(28_800);
        settle_all(post, &claimed, Fate::Again { after }).await;
        assert_eq!(try_all(post, Fate::Delivered).await, [], "nothing is due");
        assert_eq!(post.resend("acme", "evt_1", None).await, Resent::To(1));
        assert_eq!(post.resend_all().await, 2, "the first one is due");
        let claimed = try_all(post, Fate::Delivered).await;
        assert_eq!(claimed.len(), 3);
        assert!(claimed.iter().all(|one| one.tries == 0), "{claimed:?}");
    })
    .await;
}

#[tokio::test]
async fn all_that_waits_or_is_dead_is_sent_again_and_each_once() {
    over_both(async |post| {
        let server = sink(|_, _| 200).await;
        post.tell(&[("crm", &server, &[])]);
        // More than one transaction takes; some were made in the same millisecond.
        for text in [
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
             INSERT INTO events (event, tenant, kind, at, body) \
             SELECT 'evt_' || i, 'acme', 'call.ended', i / 2, '{}' FROM n",
            "INSERT INTO deliveries (event, tenant, endpoint, state, made_at, due_at, tries) \
             SELECT event, tenant, 'crm', CASE WHEN at < 200 THEN 'dead' ELSE 'waiting' END, at, \
             4102444800000, 1 FROM events",
            "UPDATE deliveries SET ended_at = 1 WHERE state = 'dead'",
        ] {
            post.execute(text).await;
        }
        assert_eq!(post.resend_all().await, 1_000);
        assert_eq!(post.standing().await, [("crm".to_owned(), 1_000, 0)]);
        assert_eq!(post.resend_all().await, 0, "all of it is due");
    })
    .await;
}

#[tokio::test]
async fn an_operator_is_told_that_an_endpoint_is_not_in_force() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: EventsOptions,
    }
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/a.db", folder.path().display());
    let post = Post::open(&url).await;
    post.execute(
        "INSERT INTO events (event, tenant, kind, at, body) \
         VALUES ('evt_1', 'default', 'call.ended', 1, '{}')",
    )
    .await;
    post.execute(
        "INSERT INTO deliveries (event, tenant, endpoint, state, made_at, due_at, tries, ended_at) \
         VALUES ('evt_1', 'default', 'crm', 'dead', 1, 1, 1, 1)",
    )
    .await;
    let events = async |words: &[&str]| {
        let line: Line = clap::Parser::parse_from([&["callgate"], words].concat());
        run(line.options, |name| {
            let settings = [
                ("DATABASE_URL", url.as_str()),
                ("EVENTS_URL", "https://hooks.example.com/"),
                ("EVENTS_SECRET", SECRET),
            ];
            let set = settings.iter().find(|(set, _)| *set == name);
            set.map(|(_, value)| (*value).to_owned())
        })
        .await
    };
    for words in [
        &["resend", "evt_1"][..],
        &["resend", "evt_1", "--endpoint", "crm"],
        &["resend-all", "default", "crm"],
    ] {
        let error = events(words).await.unwrap_err().to_string();
        assert!(
            error.contains("the endpoint crm is not in force"),
            "{error}"
        );
    }
    let count = events(&["count", "--json"]).await.unwrap();
    assert!(count.contains(r#""in_force":false"#), "{count}");
    let resent = events(&["resend-all", "default", "default"]).await.unwrap();
    assert!(resent.ends_with(": 0 deliveries"), "{resent}");
    post.database.close().await;
}
