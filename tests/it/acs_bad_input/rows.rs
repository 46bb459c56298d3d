//! The table.

use std::time::Duration;

use callgate::fake_acs::{Claims, Schema};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use super::{
    scene::{Input, Scene, Seen},
    tokens,
};
use crate::acs::{callback, event, event_grid, media_url};

/// What a stranger must never be told.
pub const CODE: &str = "0F1E2D3C-0000-4444-8888-ABCDEF012345";

/// Bad input, and what becomes of it.
pub struct Row {
    pub input: &'static str,
    pub sent: fn(&Scene<'_>) -> Input,
    pub answer: Seen,
    /// The figure that goes up by one.
    pub counted: &'static str,
    /// A line of the log, which is a warning.
    pub logged: &'static str,
}

/// What becomes of alike input: a figure, and a line.
type Trace = (&'static str, &'static str);

const UNPROVEN: &str = "requests_unauthenticated_total";
const MALFORMED: &str = r#"webhooks_events_total{event="acs_malformed"}"#;

const STRANGER: Trace = (UNPROVEN, "refused a webhook of ACS");
const STRANGE_SOCKET: Trace = (UNPROVEN, "refused a media socket of ACS");
const OTHER_CALL: Trace = (UNPROVEN, "a callback tells of another call");
const NO_RIGHT: Trace = ("tickets_refused_total", "refused a media socket's ticket");
const UNREAD: Trace = (MALFORMED, "a webhook of ACS was not read");
const NONSENSE: Trace = (MALFORMED, "a webhook of ACS makes no sense");
const EVENT: Trace = (MALFORMED, "an event makes no sense");
const CALLBACK: Trace = (MALFORMED, "a callback makes no sense");

/// The longest bodies that are read.
const LONGEST_EVENTS: usize = 1 << 20;
const LONGEST_CALLBACKS: usize = 256 << 10;
/// The longest token and the longest sealed text.
const LONGEST_TOKEN: usize = 8 << 10;
const LONGEST_SEALED: usize = 2_048;

#[rustfmt::skip] // One row a line reads as a table.
pub const ROWS: &[Row] = &[
    // Event Grid's door: only its subscription's secret opens it.
    row("an event without a secret", |it| events(it, ""), 401, STRANGER),
    row("an event with an empty secret", |it| events(it, "?secret="), 401, STRANGER),
    row("an event with another secret", |it| events(it, "?secret=callgate-development2"), 401, STRANGER),
    row("an event with two secrets", |it| events(it, "?secret=x&secret=callgate-development"), 401, STRANGER),
    row("an event of a stranger's subscription", |it| of_subscription(it, "theirs", &json!([ringing(it)])), 401, STRANGER),
    row("an event of no subscription", |it| request(event_grid(it.carrier, it.acs).json(&[ringing(it)])), 401, STRANGER),
    row("a stranger's handshake", |it| request(it.carrier.post("/acs/incomingcall").json(&validation())), 401, STRANGER),
    row("a handshake for a stranger's subscription", |it| of_subscription(it, "theirs", &validation()), 401, STRANGER),
    row("a handshake without its code", |it| request(from_ours(it).json(&without_code())), 200, EVENT),
    row("a stranger's handshake of CloudEvents", |it| options(it, "", "eventgrid.azure.net"), 401, STRANGER),
    row("a handshake of CloudEvents from elsewhere", |it| options(it, "?secret=callgate-development", "eventgrid.azure.net.example.org"), 400, NONSENSE),
    row("events that are no JSON", |it| request(from_ours(it).body("{")), 400, NONSENSE),
    row("events that are a number", |it| request(from_ours(it).body("7")), 400, NONSENSE),
    row("no events, and no body", |it| request(from_ours(it)), 400, NONSENSE),
    row("ten times too many events", |it| request(from_ours(it).json(&vec![7; 50_000])), 400, NONSENSE),
    row("a body of events ten times too long", |it| request(from_ours(it).body(long(10 * LONGEST_EVENTS))), 413, UNREAD),
    row("an event that is a number", |it| request(from_ours(it).json(&[7])), 200, EVENT),

    // The same door, for tokens of Entra's: whoever brings one is held to it, whatever the address says.
    row("an event with what is no token of Entra's", |it| by_entra(it, "x"), 401, STRANGER),
    row("an event with a token ten times too long", |it| by_entra(it, &long(10 * LONGEST_TOKEN)), 401, STRANGER),
    row("an event with a token of Entra's that has expired", |it| by_entra(it, &entra(it, |claims| claims.expires_in = -3_600)), 401, STRANGER),
    row("an event with a token for another audience", |it| by_entra(it, &entra(it, |claims| claims.audience = "another".into())), 401, STRANGER),
    row("an event with a token of another directory", |it| by_entra(it, &entra(it, |claims| claims.issuer = "https://sts.windows.net/99999999-2222-4333-8444-555555555555/".into())), 401, STRANGER),
    row("an event with a token of another application", |it| by_entra(it, &entra(it, |claims| claims.application = Some(tokens::APPLICATION.into()))), 401, STRANGER),
    row("an event with a token of no application", |it| by_entra(it, &entra(it, |claims| claims.application = None)), 401, STRANGER),
    row("an event with a token of ACS's", |it| by_entra(it, &good(it)), 401, STRANGER),
    row("an event with an unsigned token", |it| by_entra(it, &tokens::unsigned(&entra(it, |_| {}))), 401, STRANGER),
    row("an event with a token that lost its signature", |it| by_entra(it, cut(&entra(it, |_| {}))), 401, STRANGER),
    row("an event with a token of a key of its own", |it| by_entra(it, &tokens::with_a_key_of_its_own(&entra(it, |_| {}))), 401, STRANGER),
    row("an event with a token that brings its key", |it| by_entra(it, &tokens::that_brings_its_key(&entra(it, |_| {}))), 401, STRANGER),
    row("an event with a token of an unknown key", |it| by_entra(it, &tokens::of_an_unknown_key(&entra(it, |_| {}))), 401, STRANGER),
    row("an event with a good token of a stranger's subscription", of_a_strangers_subscription, 401, STRANGER),

    // The callbacks' door: a sealed path, ACS's own token, and the call that the path is of.
    row("a callback to a path of nobody's", |it| request(signed(it.carrier.post("/acs/callbacks/x.y"), it).json(&ends(it))), 404, STRANGER),
    row("a callback to a path that was changed", to_changed_path, 404, STRANGER),
    row("a callback to a path ten times too long", |it| to_path(it, &long(10 * LONGEST_SEALED)), 404, STRANGER),
    row("a callback without a token", |it| request(callback(it.carrier, &it.live.answered).json(&ends(it))), 401, STRANGER),
    row("a callback with what is no token", |it| with_token(it, "x"), 401, STRANGER),
    row("a callback with a token ten times too long", |it| with_token(it, &long(10 * LONGEST_TOKEN)), 401, STRANGER),
    row("a callback with a token that has expired", |it| with_token(it, &expired(it)), 401, STRANGER),
    row("a callback with a token for another audience", |it| with_token(it, &for_others(it)), 401, STRANGER),
    row("a callback with a token of another issuer", |it| with_token(it, &of_others(it)), 401, STRANGER),
    row("a callback with an unsigned token", |it| with_token(it, &tokens::unsigned(&good(it))), 401, STRANGER),
    row("a callback with a token that lost its signature", |it| with_token(it, cut(&good(it))), 401, STRANGER),
    row("a callback with a token of a key of its own", |it| with_token(it, &tokens::with_a_key_of_its_own(&good(it))), 401, STRANGER),
    row("a callback with a token that brings its key", |it| with_token(it, &tokens::that_brings_its_key(&good(it))), 401, STRANGER),
    row("a callback with a token of an unknown key", |it| with_token(it, &tokens::of_an_unknown_key(&good(it))), 401, STRANGER),
    row("a callback of another call", |it| of_call(it, &event(&it.other.call, &it.other.answered.connection, "CallDisconnected")), 403, OTHER_CALL),
    row("a callback of another connection", |it| of_call(it, &event(&it.live.call, &it.other.answered.connection, "CallDisconnected")), 403, OTHER_CALL),
    row("a callback of no call", |it| of_call(it, &of_no_call()), 403, OTHER_CALL),
    row("callbacks that are no JSON", |it| request(to_live(it).body("[")), 400, NONSENSE),
    row("a body of callbacks ten times too long", |it| request(to_live(it).body(long(10 * LONGEST_CALLBACKS))), 413, UNREAD),
    row("a callback that is a number", |it| of_call(it, &json!([7])), 200, CALLBACK),

    // The media sockets' door: a ticket that is good once, ACS's token, and headers that fit it.
    row("media with a made-up ticket", |it| socket(url(it).replace("/acs/ws/", "/acs/ws/x"), it.live.call.media_headers()), 403, STRANGE_SOCKET),
    row("media with a ticket ten times too long", |it| socket(format!("{}{}", url(it), long(10 * LONGEST_SEALED)), it.live.call.media_headers()), 403, STRANGE_SOCKET),
    row("media of another call", |it| socket(url(it).to_owned(), it.other.call.media_headers()), 403, STRANGE_SOCKET),
    row("media of another connection", of_other_connection, 403, STRANGE_SOCKET),
    row("media for a call that was refused", |it| socket(url(it).to_owned(), it.refused.0.media_headers()), 403, STRANGE_SOCKET),
    row("media for a refused call's callback path", with_refused_path, 403, STRANGE_SOCKET),
    row("media without a token", |it| media_with(it, None), 401, STRANGE_SOCKET),
    row("media with a token that has expired", |it| media_with(it, Some(&expired(it))), 401, STRANGE_SOCKET),
    row("media with a token for another audience", |it| media_with(it, Some(&for_others(it))), 401, STRANGE_SOCKET),
    row("media with an unsigned token", |it| media_with(it, Some(&tokens::unsigned(&good(it)))), 401, STRANGE_SOCKET),
    row("media with a token of a key of its own", |it| media_with(it, Some(&tokens::with_a_key_of_its_own(&good(it)))), 401, STRANGE_SOCKET),
    closed("media for a call that is over", |it| socket(media_url(&it.over.1).to_owned(), it.over.0.media_headers()), 1008, NO_RIGHT),
    closed("a second socket for one ticket", |it| socket(url(it).to_owned(), it.live.call.media_headers()), 1008, NO_RIGHT),
];

impl Row {
    /// Tells whether a line of the log is the one that is promised.
    pub fn is_told_by(&self, line: &str) -> bool {
        line.contains(" WARN ") && line.contains(self.logged)
    }
}

const fn row(
    input: &'static str,
    sent: fn(&Scene<'_>) -> Input,
    status: u16,
    (counted, logged): Trace,
) -> Row {
    Row {
        input,
        sent,
        answer: Seen::Status(status),
        counted,
        logged,
    }
}

const fn closed(
    input: &'static str,
    sent: fn(&Scene<'_>) -> Input,
    code: u16,
    (counted, logged): Trace,
) -> Row {
    Row {
        input,
        sent,
        answer: Seen::Close(code),
        counted,
        logged,
    }
}

/// The handshake of Event Grid's own schema.
pub fn validation() -> Value {
    json!([{
        "id": "5f0c", "topic": "/subscriptions/1", "subject": "",
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "eventTime": "2026-01-06T10:00:00Z", "metadataVersion": "1", "dataVersion": "2",
        "data": {"validationCode": CODE, "validationUrl": "https://invalid.example/"},
    }])
}

/// Begins a request of Event Grid's for a subscription of ours.
pub fn from_ours(scene: &Scene<'_>) -> RequestBuilder {
    event_grid(scene.carrier, scene.acs).header("aeg-subscription-name", "Callgate-Simulator")
}

fn request(request: RequestBuilder) -> Input {
    Input::Request(Box::new(request))
}

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// The event of a call that is to ring in vain.
fn ringing(scene: &Scene<'_>) -> Value {
    scene.unheard.event(Schema::EventGrid, Duration::ZERO)
}

fn events(scene: &Scene<'_>, query: &str) -> Input {
    let post = scene.carrier.post(&format!("/acs/incomingcall{query}"));
    let post = post.header("aeg-subscription-name", "callgate-simulator");
    request(post.json(&[ringing(scene)]))
}

/// An event beside a good secret, with a token.
fn by_entra(scene: &Scene<'_>, token: &str) -> Input {
    request(from_ours(scene).bearer_auth(token).json(&[ringing(scene)]))
}

/// A token of Entra's for Event Grid, with something changed.
pub fn entra(scene: &Scene<'_>, change: impl FnOnce(&mut Claims)) -> String {
    let mut claims = tokens::of_event_grid();
    change(&mut claims);
    scene.acs.token(&claims)
}

fn of_a_strangers_subscription(scene: &Scene<'_>) -> Input {
    let post = scene.carrier.post("/acs/incomingcall");
    let post = post.header("aeg-subscription-name", "theirs");
    let token = entra(scene, |_| {});
    request(post.bearer_auth(token).json(&[ringing(scene)]))
}

fn of_subscription(scene: &Scene<'_>, name: &str, body: &Value) -> Input {
    let post = event_grid(scene.carrier, scene.acs).header("aeg-subscription-name", name);
    request(post.json(body))
}

fn without_code() -> Value {
    let mut validation = validation();
    validation[0]["data"] = json!({"validationUrl": "https://invalid.example/"});
    validation
}

fn options(scene: &Scene<'_>, query: &str, origin: &str) -> Input {
    let url = format!("http://{}/acs/incomingcall{query}", scene.carrier.address);
    let options = Client::new().request(Method::OPTIONS, url);
    let options = options.header("aeg-subscription-name", "callgate-simulator");
    request(options.header("WebHook-Request-Origin", origin))
}

/// What would end the live call.
fn ends(scene: &Scene<'_>) -> Value {
    event(
        &scene.live.call,
        &scene.live.answered.connection,
        "CallDisconnected",
    )
}

fn of_no_call() -> Value {
    json!([{"id": "7", "type": "Microsoft.Communication.CallDisconnected", "data": {}}])
}

fn good(scene: &Scene<'_>) -> String {
    scene.acs.token(&scene.acs.claims())
}

fn signed(request: RequestBuilder, scene: &Scene<'_>) -> RequestBuilder {
    request.bearer_auth(good(scene))
}

fn to_live(scene: &Scene<'_>) -> RequestBuilder {
    signed(callback(scene.carrier, &scene.live.answered), scene)
}

fn of_call(scene: &Scene<'_>, body: &Value) -> Input {
    request(to_live(scene).json(body))
}

fn with_token(scene: &Scene<'_>, token: &str) -> Input {
    let callback = callback(scene.carrier, &scene.live.answered);
    request(callback.bearer_auth(token).json(&ends(scene)))
}

fn to_path(scene: &Scene<'_>, path: &str) -> Input {
    let post = scene.carrier.post(&format!("/acs/callbacks/{path}"));
    request(signed(post, scene).json(&ends(scene)))
}

/// The seal of one call's path over what another one's says.
fn to_changed_path(scene: &Scene<'_>) -> Input {
    let path = |callback: &str| callback.rsplit_once('/').unwrap().1.to_owned();
    let live = path(&scene.live.answered.callback);
    let other = path(&scene.other.answered.callback);
    let body = live.split_once('.').unwrap().0;
    let seal = other.split_once('.').unwrap().1;
    to_path(scene, &format!("{body}.{seal}"))
}

fn expired(scene: &Scene<'_>) -> String {
    token(scene, |claims| claims.expires_in = -3_600)
}

fn for_others(scene: &Scene<'_>) -> String {
    token(scene, |claims| claims.audience = "another".into())
}

fn of_others(scene: &Scene<'_>) -> String {
    let issuer = "https://login.example.com".into();
    token(scene, |claims| claims.issuer = issuer)
}

fn token(scene: &Scene<'_>, change: impl FnOnce(&mut Claims)) -> String {
    let mut claims = scene.acs.claims();
    change(&mut claims);
    scene.acs.token(&claims)
}

fn cut(token: &str) -> &str {
    token.rsplit_once('.').unwrap().0
}

fn socket(url: String, headers: Vec<(&'static str, String)>) -> Input {
    Input::Socket(url, headers)
}

/// The address of the live call's media.
fn url<'a>(scene: &'a Scene<'_>) -> &'a str {
    media_url(&scene.live.answered)
}

fn media_with(scene: &Scene<'_>, token: Option<&str>) -> Input {
    let mut headers = scene.live.call.media_headers();
    headers.retain(|(name, _)| *name != "authorization");
    headers.extend(token.map(|token| ("authorization", format!("Bearer {token}"))));
    socket(url(scene).to_owned(), headers)
}

fn of_other_connection(scene: &Scene<'_>) -> Input {
    let mut headers = scene.live.call.media_headers();
    let connection = scene.other.answered.connection.clone();
    headers.retain(|(name, _)| *name != "x-ms-call-connection-id");
    headers.push(("x-ms-call-connection-id", connection));
    socket(url(scene).to_owned(), headers)
}

/// All that a refused call has is the path of its callbacks, and that opens no socket.
fn with_refused_path(scene: &Scene<'_>) -> Input {
    let (call, answered) = &scene.refused;
    let address = answered.callback.replace("https://", "wss://");
    let address = address.replace("/acs/callbacks/", "/acs/ws/");
    socket(address, call.media_headers())
}
