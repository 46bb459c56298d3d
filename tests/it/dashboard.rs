//! What operators do with their pages: who is let in, what a form of another's comes to, and what
//! one replica shows and does for all.

use reqwest::{Client, RequestBuilder, Response, redirect::Policy};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    carrier::{CALLER, Carrier},
    cut::Proxy,
    database::ask,
    gateway::{Replicas, TestGateway, eventually},
    line::GUARD,
    postgres_server::PostgresServer,
    redis::Redis,
};

pub const OPS_TOKEN: &str = "an-operators-token";
pub const READ_TOKEN: &str = "a-readers-own-token";
const TOKENS: [(&str, &str); 2] = [("OPS_TOKEN", OPS_TOKEN), ("OPS_READ_TOKEN", READ_TOKEN)];

/// An operator's browser, as far as a server can tell.
struct Desk {
    http: Client,
    base: String,
    cookie: Option<String>,
}

impl Desk {
    fn before(carrier: &Carrier) -> Self {
        Self {
            http: Client::builder().redirect(Policy::none()).build().unwrap(),
            base: format!("http://{}", carrier.address),
            cookie: None,
        }
    }

    /// Logs in with a token, which has to be good.
    async fn with(carrier: &Carrier, token: &str) -> Self {
        let mut desk = Self::before(carrier);
        let answer = desk.log_in(token).await;
        assert_eq!(answer.status(), 303);
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        desk.cookie = cookie.split(';').next().map(str::to_owned);
        desk
    }

    async fn log_in(&self, token: &str) -> Response {
        let form = [("token", token), ("to", "/calls")];
        let request = self.post("/login").header("origin", &self.base).form(&form);
        request.send().await.unwrap()
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.with_cookie(self.http.get(format!("{}{path}", self.base)))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.with_cookie(self.http.post(format!("{}{path}", self.base)))
    }

    fn with_cookie(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    async fn page(&self, path: &str) -> String {
        let answer = self.get(path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    }

    async fn health(&self) -> Value {
        serde_json::from_str(&self.page("/health/details").await).unwrap()
    }

    /// Returns the key of the forms that this operator is given.
    async fn key(&self) -> String {
        let page = self.page("/actions/stop-intake").await;
        let (_, rest) = page.split_once(r#"name="key" value=""#).unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    /// Does something as a page of ours does.
    async fn act(&self, action: &str, to: &str) -> u16 {
        let key = self.key().await;
        let form = [("key", key.as_str()), ("to", to)];
        let request = self.post(&format!("/actions/{action}"));
        let answer = request.header("origin", &self.base).form(&form).send();
        answer.await.unwrap().status().as_u16()
    }
}

/// Ends a gateway whose pages take a token.
async fn leave(gateway: TestGateway) {
    gateway.drain(std::future::pending()).await;
    gateway.is_gone().await;
}

/// Returns our id of the one call that a dashboard shows.
async fn shown_call(desk: &Desk) -> Option<String> {
    let page = desk.page("/dashboard").await;
    let (_, rest) = page.split_once(r#"id="call-"#)?;
    rest.split('"').next().map(str::to_owned)
}

#[tokio::test]
async fn a_token_is_shown_once_and_a_login_is_good_for_what_the_token_was() {
    let gateway = TestGateway::with(&TOKENS).await;
    let stranger = Desk::before(&gateway.carrier);
    let asked = stranger.get("/calls?q=4567").send().await.unwrap();
    assert_eq!(asked.status(), 401);
    let form = asked.text().await.unwrap();
    assert!(
        form.contains(r#"name="to" value="&#x2f;calls?q=4567""#),
        "{form}"
    );
    let wrong = stranger.log_in("not-the-operators-one").await;
    assert_eq!(wrong.status(), 401);
    assert!(wrong.headers().get("set-cookie").is_none());

    let answer = stranger.log_in(OPS_TOKEN).await;
    let on = answer.headers()["location"].to_str().unwrap().to_owned();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in [
        "; Path=/",
        "; HttpOnly",
        "; SameSite=Strict",
        "; Max-Age=43200",
    ] {
        assert!(cookie.contains(part), "{part} in {cookie}");
    }
    assert!(!cookie.contains(OPS_TOKEN));
    // Which a browser may drop.
    let back = stranger.get(&on).send().await.unwrap();
    assert_eq!(back.status(), 401);
    let said = back.text().await.unwrap();
    assert!(said.contains("has not kept the login"), "{said}");

    let operator = Desk::with(&gateway.carrier, OPS_TOKEN).await;
    for path in [
        "/dashboard",
        "/calls",
        "/stats",
        "/health/details",
        "/metrics",
    ] {
        operator.page(path).await;
    }
    assert!(
        operator
            .page("/dashboard")
            .await
            .contains(r#"data-may-change="yes""#)
    );
    let reader = Desk::with(&gateway.carrier, READ_TOKEN).await;
    assert!(reader.page("/dashboard").await.contains("read only"));
    let refused = reader.get("/actions/drain?to=r1").send().await.unwrap();
    assert_eq!(refused.status(), 403);

    let mut forged = Desk::before(&gateway.carrier);
    forged.cookie = operator
        .cookie
        .as_ref()
        .map(|cookie| cookie.replace('.', "x."));
    assert_eq!(forged.get("/dashboard").send().await.unwrap().status(), 401);
    for entered in [&on, "/login?entered=elsewhere"] {
        let unknown = forged.get(entered).send().await.unwrap();
        let said = unknown.text().await.unwrap();
        assert!(said.contains("does not know your login"), "{said}");
    }
    // Nobody is told that a token is right who has shown none.
    for path in ["/login?entered=made-up", "/login?entered=a&entered=b"] {
        let form = stranger.get(path).send().await.unwrap();
        assert_eq!(form.status(), 200);
        assert!(!form.text().await.unwrap().contains("token is right"));
    }
    for (path, place) in [(&*on, "/calls"), ("/login", "/dashboard")] {
        let on = operator.get(path).send().await.unwrap();
        assert_eq!(on.headers()["location"], place);
    }

    let form = [("key", operator.key().await)];
    let left = operator
        .post("/logout")
        .header("origin", &operator.base)
        .form(&form);
    let left = left.send().await.unwrap();
    assert_eq!(left.status(), 303);
    let forgets = left.headers()["set-cookie"].to_str().unwrap();
    assert!(forgets.contains("Max-Age=0"), "{forgets}");
    // Whoever has a copy of the cookie is out, too, and others are not.
    let copied = operator.get("/dashboard").send().await.unwrap();
    assert_eq!(copied.status(), 401);
    reader.page("/dashboard").await;
    leave(gateway).await;
}

#[tokio::test]
async fn a_process_that_shares_nothing_takes_no_login_of_an_earlier_one() {
    let settings = [
        &TOKENS[..],
        &[("TICKET_SECRET", "the same before and after")],
    ]
    .concat();
    let earlier = TestGateway::with(&settings).await;
    let operator = Desk::with(&earlier.carrier, OPS_TOKEN).await;
    leave(earlier).await;
    let gateway = TestGateway::with(&settings).await;
    let mut copied = Desk::before(&gateway.carrier);
    copied.cookie.clone_from(&operator.cookie);
    assert_eq!(copied.get("/dashboard").send().await.unwrap().status(), 401);
    leave(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_ends_a_login_on_every_replica_and_what_it_watches() {
    let redis = Redis::start().await;
    let url = redis.url();
    let shared = [
        ("REDIS_URL", url.as_str()),
        ("REDIS_TIMEOUT_MS", "1000"),
        ("TICKET_SECRET", "the same on both"),
    ];
    let settings = [&TOKENS[..], &shared].concat();
    let here = TestGateway::with(&settings).await;
    let there = TestGateway::with(&settings).await;
    let operator = Desk::with(&here.carrier, OPS_TOKEN).await;
    let mut copied = Desk::before(&there.carrier);
    copied.cookie.clone_from(&operator.cookie);
    let mut watched = Vec::new();
    for desk in [&operator, &copied] {
        let mut events = desk.get("/dashboard/events").send().await.unwrap();
        assert!(events.chunk().await.unwrap().is_some());
        watched.push(events);
    }
    let form = [("key", operator.key().await)];
    let left = operator.post("/logout").header("origin", &operator.base);
    assert_eq!(left.form(&form).send().await.unwrap().status(), 303);
    let is_out = async |desk: &Desk| {
        let asked = desk.get("/dashboard").send().await.unwrap();
        asked.status() == 401
    };
    assert!(is_out(&operator).await);
    eventually(async || is_out(&copied).await).await;
    for mut events in watched {
        let ended = async { while events.chunk().await.unwrap().is_some() {} };
        timeout(GUARD, ended)
            .await
            .expect("events end with their login");
    }
    // A store that has lost it is told again.
    redis.cli(&["FLUSHALL"]).await;
    eventually(async || redis.cli(&["EXISTS", "calls:ended_logins"]).await == "1").await;
    leave(here).await;
    leave(there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_act_while_the_database_hangs_and_the_rows_follow() {
    let server = PostgresServer::start();
    let url = server.database("records");
    let proxy = Proxy::before(&url).await;
    let settings = [&TOKENS[..], &[("DATABASE_URL", proxy.url.as_str())]].concat();
    let gateway = TestGateway::with(&settings).await;
    let call = gateway.ring().await.connected().await;
    call.agent_speaks().await;
    let operator = Desk::with(&gateway.carrier, OPS_TOKEN).await;
    let list = async || operator.get("/calls").send().await.unwrap();
    eventually(async || list().await.text().await.unwrap().contains("connected")).await;
    let shown = shown_call(&operator).await.unwrap();

    proxy.stall();
    let busy = list().await;
    assert_eq!(busy.status(), 503);
    let busy = busy.text().await.unwrap();
    assert!(
        busy.contains("The database is busy, or away: try again"),
        "{busy}"
    );
    assert_eq!(operator.act("stop-intake", "").await, 303);
    gateway.ring().await.refused_as_busy();
    assert_eq!(operator.act("hang-up", &shown).await, 303);
    call.line.closed().await;
    let elsewhere = "0b1c2d3e-1111-4222-8333-444455556666";
    assert_eq!(operator.act("hang-up", elsewhere).await, 503);
    let numbers = operator.get("/stats?numbers=whole").send();
    assert_eq!(
        numbers.await.unwrap().status(),
        503,
        "none is shown without its row"
    );

    proxy.flow();
    let noted =
        "SELECT action, became FROM audit WHERE action <> 'numbers.show' ORDER BY at, entry";
    let expected = [
        r#"intake.stop {"intake":"stopped"}"#,
        r#"calls.hang_up {"hung_up":true}"#,
    ];
    eventually(async || ask(&url, noted).await == expected).await;
    leave(gateway).await;
}

#[tokio::test]
async fn wrong_tokens_are_put_up_with_now_and_then_and_a_good_one_always() {
    let gateway = TestGateway::with(&TOKENS).await;
    let stranger = Desk::before(&gateway.carrier);
    let mut refused = 0;
    for _ in 0..30 {
        let answer = stranger.log_in("not-the-operators-one").await;
        if answer.status() == 429 {
            refused += 1;
            assert!(answer.headers().contains_key("retry-after"));
        } else {
            assert_eq!(answer.status(), 401);
        }
    }
    assert!(refused >= 5, "{refused}");
    // In a header they count as in the form, and a good one is good all the same.
    let stats = |token| stranger.get("/stats").bearer_auth(token).send();
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(stats("nobody-is-called-so").await.unwrap());
    }
    let too_many = told.iter().find(|answer| answer.status() == 429);
    assert!(too_many.unwrap().headers().contains_key("retry-after"));
    assert_eq!(stats(READ_TOKEN).await.unwrap().status(), 200);
    assert_eq!(stranger.get("/stats").send().await.unwrap().status(), 401);
    let figures = stranger.get("/metrics").bearer_auth(READ_TOKEN);
    let figures = figures.send().await.unwrap().text().await.unwrap();
    let counted = figures.contains("\noperator_tokens_refused_total 35\n");
    assert!(counted, "30 by the form and 5 by the header");
    Desk::with(&gateway.carrier, OPS_TOKEN).await;
    leave(gateway).await;
}

#[tokio::test]
async fn a_form_that_is_not_ours_does_nothing() {
    let gateway = TestGateway::with(&TOKENS).await;
    let call = gateway.ring().await.connected().await;
    let operator = Desk::with(&gateway.carrier, OPS_TOKEN).await;
    let other = Desk::with(&gateway.carrier, OPS_TOKEN).await;
    let reader = Desk::with(&gateway.carrier, READ_TOKEN).await;
    let stranger = Desk::before(&gateway.carrier);
    let mut shown = None;
    while shown.is_none() {
        shown = shown_call(&operator).await;
    }
    let shown = shown.unwrap();
    let replica = operator.health().await["replica"]
        .as_str()
        .unwrap()
        .to_owned();
    let (good, theirs) = (operator.key().await, other.key().await);
    let ours = operator.base.as_str();
    let port = ours.rsplit(':').next().unwrap();
    let same_port = format!("http://evil.example:{port}");
    for (desk, origin, key, expected) in [
        (&stranger, Some(ours), good.as_str(), 401),
        (&operator, None, &good, 403),
        (&operator, Some("null"), &good, 403),
        (&operator, Some(""), &good, 403),
        (&operator, Some("https://evil.example"), &good, 403),
        (&operator, Some(&same_port), &good, 403),
        (&operator, Some("http://127.0.0.1"), &good, 403),
        (&operator, Some(ours), "", 403),
        (&operator, Some(ours), "forged.key", 403),
        (&operator, Some(ours), &theirs, 403),
        (
            &operator,
            Some(ours),
            operator.cookie.as_deref().unwrap(),
            403,
        ),
        (&reader, Some(ours), &good, 403),
    ] {
        for (action, to) in [
            ("hang-up", shown.as_str()),
            ("stop-intake", ""),
            ("resume-intake", ""),
            ("drain", &replica),
        ] {
            let form = [("key", key), ("to", to)];
            let mut request = desk.post(&format!("/actions/{action}")).form(&form);
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            let status = request.send().await.unwrap().status();
            assert_eq!(status, expected, "{action} by {origin:?} with {key:?}");
        }
    }
    let asked = operator.get(&format!("/actions/hang-up?to={shown}"));
    assert_eq!(
        asked.send().await.unwrap().status(),
        200,
        "asking does nothing"
    );
    assert!(call.line.is_open());
    let details = operator.health().await;
    assert_eq!(
        (&details["intake"], &details["status"]),
        (&"open".into(), &"ok".into())
    );
    assert_eq!(
        gateway.database.ask("SELECT COUNT(*) FROM audit").await,
        ["0"]
    );
    call.hang_up().await;
    leave(gateway).await;
}

#[tokio::test]
async fn what_operators_do_is_done_and_noted() {
    let gateway = TestGateway::with(&TOKENS).await;
    let call = gateway.ring().await.connected().await;
    call.agent_speaks().await;
    let operator = Desk::with(&gateway.carrier, OPS_TOKEN).await;
    assert_eq!(operator.act("stop-intake", "").await, 303);
    gateway.ring().await.refused_as_busy();
    let page = operator.page("/dashboard?done=stop-intake").await;
    assert!(page.contains("Intake stopped") && page.contains("The intake is stopped: new callers"));
    assert_eq!(operator.act("resume-intake", "").await, 303);
    gateway.ring().await.connected().await.hang_up().await;

    let mut shown = None;
    while shown.is_none() {
        shown = shown_call(&operator).await;
    }
    let shown = shown.unwrap();
    assert_eq!(operator.act("hang-up", &shown).await, 303);
    call.line.closed().await;
    let json = format!("/calls/{shown}.json");
    // A row may be still to come, too.
    let is_told = async || {
        let answer = operator.get(&json).send().await.unwrap();
        answer.status() == 200 && answer.text().await.unwrap().contains("\"requested\"")
    };
    eventually(is_told).await;
    assert_eq!(operator.act("hang-up", &shown).await, 409);
    assert_eq!(
        operator
            .act("hang-up", "0b1c2d3e-1111-4222-8333-444455556666")
            .await,
        404
    );
    assert_eq!(operator.act("drain", "no-such-replica").await, 404);

    let page = operator.page(&format!("/calls/{shown}")).await;
    assert!(page.contains("+9*******4567") && !page.contains(&CALLER[3..10]));
    for step in [
        "The webhook is answered: the call is admitted",
        "global 1 of ",
        "connecting took ",
    ] {
        assert!(page.contains(step), "{step} in {page}");
    }
    let whole = operator
        .page(&format!("/calls/{shown}.json?numbers=whole"))
        .await;
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(
        (&whole["caller"], &whole["reason"]),
        (&CALLER.into(), &"requested".into())
    );
    for (query, found) in [
        ("q=4567", true),
        ("q=%2B972501234567", true),
        ("q=9999", false),
        ("q=&campaign=default&reason=requested&days=1", true),
        ("campaign=other", false),
    ] {
        let page = operator.page(&format!("/calls?{query}")).await;
        assert_eq!(page.contains(&shown), found, "{query}");
    }
    let reader = Desk::with(&gateway.carrier, READ_TOKEN).await;
    let refused = reader.get(&format!("/calls/{shown}?numbers=whole"));
    assert_eq!(refused.send().await.unwrap().status(), 403);
    assert!(!reader.page("/calls?q=972501234567").await.contains(&shown));
    assert!(reader.page("/calls?q=4567").await.contains(&shown));

    // Nobody is on the line any more; it is noted all the same, and whose login it was.
    operator.page("/stats?numbers=whole").await;
    let noted = "SELECT action, target, was, became FROM audit ORDER BY at, entry";
    let noted = gateway.database.ask(noted).await;
    let open = r#"{"intake":"open"}"#;
    let stopped = r#"{"intake":"stopped"}"#;
    assert_eq!(
        noted,
        [
            format!("intake.stop intake {open} {stopped}"),
            format!("intake.resume intake {stopped} {open}"),
            format!(r#"calls.hang_up {shown} {{"state":"connected"}} {{"hung_up":true}}"#),
            format!(r#"numbers.show {shown} - {{"as":"json","numbers":"whole"}}"#),
            "numbers.show 0 live callers - -".to_owned(),
        ]
    );
    let actors = gateway
        .database
        .ask("SELECT DISTINCT actor FROM audit")
        .await;
    assert!(
        actors.len() == 1 && actors[0].starts_with("operator:login:"),
        "{actors:?}"
    );
    leave(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_replica_shows_and_does_what_is_wanted_of_all() {
    let replicas = Replicas::start(2, &[]).await;
    let call = replicas[1].ring().await.connected().await;
    let desk = Desk::before(&replicas[0].carrier);
    // Whoever watches has the others show themselves.
    let mut events = desk.get("/dashboard/events").send().await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    assert!(events.chunk().await.unwrap().is_some());
    eventually(async || shown_call(&desk).await.is_some()).await;
    let page = desk.page("/dashboard").await;
    let other = replicas[1].detail("replica").await;
    assert!(
        page.contains(&format!(r#"id="replica-{}""#, other.as_str().unwrap())),
        "{page}"
    );

    assert_eq!(desk.act("stop-intake", "").await, 303);
    eventually(async || replicas[1].detail("intake").await == "stopped").await;
    replicas[1].ring().await.refused_as_busy();
    assert_eq!(desk.act("resume-intake", "").await, 303);
    eventually(async || replicas[1].detail("intake").await == "open").await;

    let shown = shown_call(&desk).await.unwrap();
    // The two have databases of their own here, and the other one knows the call.
    let there = Desk::before(&replicas[1].carrier);
    eventually(async || there.act("hang-up", &shown).await == 303).await;
    call.line.closed().await;
    drop(events);
    replicas.finish().await;
}
