mod again;
mod receivers;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::header::{HeaderMap, HeaderName};
use sqlx::Row;
use standardwebhooks::Webhook;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    delivery::Deliveries,
    outbox::{Addressees, Claimed, Outbox, Place, Settled},
    *,
};
use crate::{
    api::{Action, Change},
    campaign::Name,
    config::{Config, EventSettings, RecordSettings},
    guard::GuardRules,
    loopback::{Loopback, Reply, Request},
    record::{Database, DatabaseKind, Event, Sql, announce, postgres_server::PostgresServer},
    telemetry::EventMetrics,
};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const PATIENCE: Duration = Duration::from_secs(30);

/// A database with the endpoints of the tenant `acme`.
pub struct Post {
    settings: RecordSettings,
    pub database: Database,
    pub outbox: Outbox,
    pub endpoints: watch::Sender<Arc<Endpoints>>,
    addressees: Arc<Addressees>,
}

impl Post {
    pub async fn open(url: &str) -> Self {
        let settings = Config::load(|name| (name == "DATABASE_URL").then(|| url.to_owned()));
        let settings = settings.unwrap().records;
        let database = Database::open(&settings).unwrap();
        database.migrate().await.unwrap();
        let endpoints = watch::Sender::new(Arc::default());
        let kind = DatabaseKind::of(&settings);
        Self {
            outbox: Outbox::new(database.clone()),
            addressees: Arc::new(Addressees::new(endpoints.subscribe(), kind)),
            settings,
            database,
            endpoints,
        }
    }

    /// Puts these endpoints in force, by name, server and kinds; without kinds they get every one.
    pub fn tell(&self, told: &[(&str, &Loopback, &[EventKind])]) {
        let own = told.iter().map(|(name, server, kinds)| Endpoint {
            name: name.parse().unwrap(),
            url: rules().url(&server.url("/events")).unwrap(),
            secrets: SigningSecrets::read([SECRET]).unwrap(),
            kinds: if kinds.is_empty() {
                KINDS.to_vec()
            } else {
                kinds.to_vec()
            },
            numbers: ToldNumbers::Masked,
            payload: Payload::Full,
        });
        let all = Endpoints::from([(name("acme"), own.collect())]);
        self.endpoints.send_replace(Arc::new(all));
    }

    /// Sends as one replica does.
    fn replica(&self, pauses: &[u64]) -> Deliveries {
        let pauses = pauses.iter().copied().map(Duration::from_secs);
        Deliveries::start(
            &self.database,
            self.endpoints.subscribe(),
            &rules(),
            Schedule::new(pauses.collect()),
            EventMetrics::default(),
        )
        .unwrap()
    }

    /// Writes events of `acme`, as the records' writer does.
    pub async fn write(&self, kind: EventKind, events: &[&str]) {
        let addressees = Arc::clone(&self.addressees);
        let body = |event| format!(r#"{{"type":"{}","id":"{event}"}}"#, kind.as_str());
        let events = events
            .iter()
            .map(|event| Event::of_test(event, "acme", kind.as_str(), &body(event)));
        let events: Vec<Event> = events.collect();
        let written = self.database.write(move |writing| {
            Box::pin(async move { announce(writing, &events, addressees.as_ref()).await })
        });
        written.await.unwrap();
    }

    /// Waits until nothing waits any more.
    async fn done(&self) {
        let done = async {
            while self
                .standing()
                .await
                .iter()
                .any(|(_, waiting, _)| *waiting > 0)
            {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, done).await.unwrap();
    }

    /// Returns what waits and what is dead, by endpoint.
    async fn standing(&self) -> Vec<(String, u64, u64)> {
        let endpoints = Arc::clone(&self.endpoints.borrow());
        let standing = self.outbox.standing(&endpoints).await;
        let standing = standing.unwrap().into_iter();
        standing
            .map(|one| (one.endpoint, one.waiting, one.dead))
            .collect()
    }

    /// Makes everything due that waits, and every lease lapse.
    async fn pass_time(&self) {
        self.execute("UPDATE deliveries SET due_at = 0 WHERE state = 'waiting'")
            .await;
    }

    async fn execute(&self, text: &'static str) {
        let written = self
            .database
            .write(move |writing| Box::pin(async move { Sql::new(text).execute(writing).await }));
        written.await.unwrap();
    }

    async fn resend(&self, tenant: &str, event: &str, endpoint: Option<&str>) -> Resent {
        let (tenant, endpoint) = (name(tenant), endpoint.map(name));
        let endpoints = Arc::clone(&self.endpoints.borrow());
        let change = change(event);
        let resent = self
            .outbox
            .resend(Some(&tenant), event, endpoint.as_ref(), endpoints, change);
        resent.await.unwrap()
    }

    async fn resend_all(&self) -> u64 {
        let change = change("endpoint crm");
        self.outbox.resend_all(&place(), change).await.unwrap()
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn place() -> Place {
    Place {
        tenant: name("acme"),
        endpoint: name("crm"),
    }
}

pub fn rules() -> GuardRules {
    GuardRules {
        exceptions: vec!["127.0.0.0/8".parse().unwrap()],
        ..GuardRules::default()
    }
}

/// Runs a story over both databases.
async fn over_both(story: impl AsyncFn(&Post)) {
    let server = PostgresServer::start();
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/records.db", folder.path().display());
    for url in [sqlite, server.database("records")] {
        let post = Post::open(&url).await;
        story(&post).await;
        post.database.close().await;
    }
}

pub async fn sink(answer: impl FnMut(usize, &Request) -> u16 + Send + 'static) -> Loopback {
    let mut answer = answer;
    Loopback::start(move |n, request| Reply::Answer(answer(n, request), String::new())).await
}

/// Returns the ids that a server was sent, and checks what they are signed with.
fn received(server: &Loopback) -> Vec<String> {
    let requests = server.requests().into_iter();
    let ids = requests.map(|request| {
        let mut headers = HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            let value = request.header(name).unwrap().parse().unwrap();
            headers.insert(HeaderName::from_static(name), value);
        }
        let webhook = Webhook::new(SECRET).unwrap();
        webhook.verify(request.body.as_bytes(), &headers).unwrap();
        assert_eq!(request.line, "POST /events");
        assert_eq!(request.header("content-type"), Some("application/json"));
        let id = request.header("webhook-id").unwrap().to_owned();
        assert!(request.body.ends_with(&format!(r#""id":"{id}"}}"#)));
        id
    });
    ids.collect()
}

fn counted(ids: Vec<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for id in ids {
        *counts.entry(id).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn an_event_goes_once_to_each_endpoint_that_asks_for_it() {
    over_both(async |post| {
        let (all, ends) = (sink(|_, _| 204).await, sink(|_, _| 200).await);
        post.tell(&[("all", &all, &[]), ("ends", &ends, &[EventKind::CallEnded])]);
        post.write(EventKind::CallStarted, &["evt_1"]).await;
        post.write(EventKind::CallEnded, &["evt_2"]).await;
        let replica = post.replica(&[0]);
        post.done().await;
        replica.close().await;
        assert_eq!(
            counted(received(&all)),
            BTreeMap::from([("evt_1".into(), 1), ("evt_2".into(), 1)])
        );
        assert_eq!(received(&ends), ["evt_2"]);
        assert_eq!(post.standing().await, []);
    })
    .await;
}

#[tokio::test]
async fn an_event_that_fails_is_tried_until_it_is_dead_and_can_be_sent_again() {
    over_both(async |post| {
        let well = Arc::new(Mutex::new(false));
        let is_well = Arc::clone(&well);
        let server = sink(move |_, _| if *is_well.lock().unwrap() { 200 } else { 500 }).await;
        post.tell(&[("crm", &server, &[])]);
        post.write(EventKind::CallEnded, &["evt_1", "evt_2"]).await;
        let replica = post.replica(&[0, 0, 0]);
        post.done().await;
        let tries = counted(received(&server));
        assert_eq!(
            tries,
            BTreeMap::from([("evt_1".into(), 4), ("evt_2".into(), 4)])
        );
        let first = post
            .outbox
            .list_dead(Some(&name("acme")), None, 1)
            .await
            .unwrap();
        let rest = Some(first[0].cursor().to_string().parse().unwrap());
        let rest = post.outbox.list_dead(None, rest, 200).await.unwrap();
        assert_eq!((first.len(), rest.len()), (1, 1));
        assert_ne!(first[0].event, rest[0].event);
        assert_eq!((first[0].tries, first[0].last_status), (4, Some(500)));
        let others = post
            .outbox
            .list_dead(Some(&name("other")), None, 1)
            .await
            .unwrap();
        assert_eq!(others, []);

        *well.lock().unwrap() = true;
        let resend = async |tenant, endpoint| post.resend(tenant, "evt_1", Some(endpoint)).await;
        assert_eq!(resend("other", "crm").await, Resent::Nothing);
        assert_eq!(resend("acme", "none").await, Resent::Nothing);
        assert_eq!(resend("acme", "crm").await, Resent::To(1));
        post.done().await;
        assert_eq!(post.standing().await, [("crm".to_owned(), 0, 1)]);
        assert_eq!(post.resend("acme", "evt_1", None).await, Resent::Nothing);
        assert_eq!(resend("acme", "crm").await, Resent::To(1), "again");
        assert_eq!(post.resend_all().await, 1);
        let noted = post.database.read(|pool| async move {
            let sql = Sql::new("SELECT target, became FROM audit ORDER BY entry");
            sql.read(&pool).await
        });
        let noted: Vec<(String, String)> = noted.await.unwrap().iter().map(row).collect();
        let one = |target: &str| {
            let became = r#"{"deliveries":1,"endpoint":"crm"}"#;
            (target.to_owned(), became.to_owned())
        };
        assert_eq!(noted, [one("evt_1"), one("evt_1"), one("endpoint crm")]);
        post.done().await;
        replica.close().await;
        assert_eq!(post.standing().await, []);
        let tries = counted(received(&server));
        assert_eq!(
            tries,
            BTreeMap::from([("evt_1".into(), 6), ("evt_2".into(), 5)])
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_committed_here_is_sent_at_once_and_what_others_commit_soon() {
    over_both(async |post| {
        let server = sink(|_, _| 200).await;
        post.tell(&[("crm", &server, &[])]);
        let replica = post.replica(&[0]);
        let others = Post::open(secrecy::ExposeSecret::expose_secret(&post.settings.url)).await;
        others.tell(&[("crm", &server, &[])]);
        let sent_within = async |post: &Post, event: &str| {
            let written = Instant::now();
            post.write(EventKind::CallEnded, &[event]).await;
            let sent = async {
                while !received(&server).iter().any(|it| it == event) {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, sent).await.unwrap();
            written.elapsed()
        };
        // Whoever only looked now and then would be a second late on average.
        let mut taken = Duration::ZERO;
        for number in 0..8 {
            taken += sent_within(post, &format!("evt_{number}")).await;
        }
        assert!(taken < Duration::from_secs(4), "{taken:?}");
        let taken = sent_within(&others, "evt_theirs").await;
        assert!(taken < Duration::from_secs(5), "{taken:?}");
        replica.close().await;
        others.database.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_asked_once() {
    over_both(async |post| {
        let server = sink(|_, _| 410).await;
        post.tell(&[("crm", &server, &[])]);
        post.write(EventKind::CallEnded, &["evt_1"]).await;
        let replica = post.replica(&[0, 0, 0]);
        post.done().await;
        replica.close().await;
        assert_eq!(received(&server), ["evt_1"]);
        let dead = post.outbox.list_dead(None, None, 10).await.unwrap();
        assert_eq!((dead[0].tries, dead[0].last_status), (1, Some(410)));
    })
    .await;
}

#[tokio::test]
async fn replicas_share_the_outbox_and_send_nothing_twice() {
    over_both(async |post| {
        let server = sink(|_, _| 200).await;
        post.tell(&[("crm", &server, &[])]);
        let events: Vec<String> = (0..300).map(|number| format!("evt_{number}")).collect();
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        post.write(EventKind::CallEnded, &events).await;
        let others = Post::open(secrecy::ExposeSecret::expose_secret(&post.settings.url)).await;
        others.tell(&[("crm", &server, &[])]);
        let replicas = [post.replica(&[0]), post.replica(&[0]), others.replica(&[0])];
        post.done().await;
        for replica in replicas {
            replica.close().await;
        }
        others.database.close().await;
        let counts = counted(received(&server));
        assert_eq!(counts.len(), 300);
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_has_lapsed_is_anothers_and_its_owner_settles_nothing() {
    over_both(async |post| {
        let server = sink(|_, _| 200).await;
        post.tell(&[("crm", &server, &[])]);
        post.write(EventKind::CallEnded, &["evt_1"]).await;
        let place = place();
        let claim = async || post.outbox.turn(&place, Vec::new(), 8).await.unwrap();
        let first = claim().await;
        assert_eq!(first.len(), 1);
        assert_eq!(claim().await, [], "it is leased");
        assert_eq!(
            post.outbox.due(std::slice::from_ref(&place)).await.unwrap(),
            []
        );
        post.pass_time().await;
        assert_eq!(
            post.outbox.due(std::slice::from_ref(&place)).await.unwrap(),
            std::slice::from_ref(&place)
        );
        let second = claim().await;
        assert_eq!(second.len(), 1);
        let dead = |lease: &str| Settled {
            event: "evt_1".to_owned(),
            lease: lease.to_owned(),
            status: None,
            error: Some("too_slow"),
            fate: Fate::Dead(Cause::Exhausted),
        };
        let settle = async |lease: &str| {
            post.outbox
                .turn(&place, vec![dead(lease)], 0)
                .await
                .unwrap();
        };
        settle(&first[0].lease).await;
        assert_eq!(post.standing().await, [("crm".to_owned(), 1, 0)]);
        settle(&second[0].lease).await;
        assert_eq!(post.standing().await, [("crm".to_owned(), 0, 1)]);
    })
    .await;
}

#[tokio::test]
async fn a_backlog_that_is_not_due_is_not_looked_through() {
    over_both(async |post| {
        // The next try of each is in 2100, and the database knows how many there are.
        for text in [
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
             INSERT INTO events (event, tenant, kind, at, body) \
             SELECT 'evt_' || i, 'acme', 'call.ended', 1, '{}' FROM n",
            "INSERT INTO deliveries (event, tenant, endpoint, state, made_at, due_at, tries) \
             SELECT event, tenant, 'crm', 'waiting', 1, 4102444800000, 1 FROM events",
            "ANALYZE deliveries",
        ] {
            post.execute(text).await;
        }
        let place = place();
        let looks = post.database.plan(|sql| {
            let places = std::slice::from_ref(&place);
            post.outbox.asking(sql, places)
        });
        let claims = post
            .database
            .plan(|sql| post.outbox.claiming(sql, &place, "lease", 8));
        for plan in [looks.await.unwrap(), claims.await.unwrap()] {
            let plan = plan.join("\n");
            let searched_by_time = plan.lines().any(|line| match post.database.kind() {
                DatabaseKind::Sqlite => {
                    line.contains("deliveries_due") && line.contains("due_at<?")
                }
                DatabaseKind::Postgres => line.contains("Index Cond") && line.contains("due_at <="),
            });
            assert!(searched_by_time, "{plan}");
        }
    })
    .await;
}

/// Claims what is due, and has the try of each come to this.
async fn try_all(post: &Post, fate: Fate) -> Vec<Claimed> {
    let claimed = post.outbox.turn(&place(), Vec::new(), 8).await.unwrap();
    settle_all(post, &claimed, fate).await;
    claimed
}

async fn settle_all(post: &Post, claimed: &[Claimed], fate: Fate) {
    let settled = claimed.iter().map(|one| Settled {
        event: one.event.clone(),
        lease: one.lease.clone(),
        status: Some(500),
        error: None,
        fate,
    });
    let settled = settled.collect();
    post.outbox.turn(&place(), settled, 0).await.unwrap();
}

#[tokio::test]
async fn what_a_replica_leaves_another_sends_and_endpoints_may_change_meanwhile() {
    over_both(async |post| {
        let (before, after) = (
            Loopback::start(|_, _| Reply::Hang).await,
            sink(|_, _| 200).await,
        );
        post.tell(&[("crm", &before, &[])]);
        post.write(EventKind::CallEnded, &["evt_1"]).await;
        let first = post.replica(&[0]);
        while before.requests().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        first.close().await;
        post.tell(&[("crm", &after, &[])]);
        post.pass_time().await;
        let second = post.replica(&[0]);
        post.done().await;
        assert_eq!(received(&after), ["evt_1"]);
        // Without an endpoint in force its deliveries wait, until there is one again.
        post.tell(&[]);
        sleep(Duration::from_millis(600)).await;
        post.tell(&[("crm", &after, &[])]);
        post.write(EventKind::CallEnded, &["evt_2"]).await;
        post.done().await;
        second.close().await;
        assert_eq!(received(&after), ["evt_1", "evt_2"]);
    })
    .await;
}

fn change(target: &str) -> Change {
    Change::by_operator(Action::ResendEvent, target)
}

fn row(row: &sqlx::any::AnyRow) -> (String, String) {
    (row.get(0), row.get(1))
}

#[test]
fn without_settings_nobody_is_told() {
    assert!(EventSettings::default().endpoints().is_empty());
}
