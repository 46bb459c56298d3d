//! Logins: a token is shown once, in a form, and a sealed cookie stands for it from there on.
//!
//! Invariant: a login says what its token did, for 12 hours at most, on every replica that has the
//! same `TICKET_SECRET` and store, and ends when the token is another one, or its operator logs out.
//! Invariant: what changes something is asked for by a page of ours, by whoever looks at it.

use std::{fmt, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    http::{StatusCode, header},
    web,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    gateway::Gateway,
    operator::{
        By, Denied, Operator, may_change,
        page::{self, Frame, Visitor},
    },
};

/// How long a login lasts, and a form that was opened with it.
const LASTS: Duration = Duration::from_secs(12 * 3_600);
/// What logins, and the keys of forms, are sealed for.
const LOGIN: &str = "operator login";
const ACTION: &str = "operator action";
const TOKEN: &str = "operator token";
/// The longest place to go to after a login.
const LONGEST_WAY: usize = 512;
/// What says that a login was given, on the way from the form to a page.
const ENTERED: &str = "operator entered";
/// How long that is true.
const ENTERED_FOR_S: i64 = 60;
const NOT_KEPT: &str = "The token is right, but this browser has not kept the login: have it take \
     cookies from this page.";
const NOT_KEPT_BY_HTTP: &str = "The token is right, but this browser has not kept the login, whose \
     cookie is for https. Open this page by https; or, by http://localhost, with Firefox, Chrome or \
     Edge.";
const NOT_KNOWN: &str = "This replica does not know your login. If another one has just given it: \
     all need the same TICKET_SECRET, OPS_TOKEN and OPS_READ_TOKEN, and one Redis.";

/// One login's name, for `audit`; it opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoginId(String);

/// What a login's cookie says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Login {
    pub id: LoginId,
    pub may_change: bool,
    /// Unix seconds.
    until: i64,
    /// Which token it stands for.
    token: String,
}

/// What the key of a form says: whose it is, and until when.
#[derive(Serialize, Deserialize)]
struct ActionKey {
    by: String,
    until: i64,
}

/// The query of `GET /login`.
#[derive(Deserialize)]
pub struct EnteredQuery {
    /// An [`Entered`], where a login was just given.
    entered: Option<String>,
}

/// That a login was given, and where its operator wants to go.
#[derive(Serialize, Deserialize)]
struct Entered {
    to: String,
    /// Unix seconds.
    until: i64,
}

/// `POST /login`.
#[derive(Deserialize)]
pub struct LoginForm {
    token: String,
    #[serde(default)]
    to: String,
}

/// `POST /logout`.
#[derive(Deserialize)]
pub struct LogoutForm {
    key: String,
}

/// Why a form is not heeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOurForm {
    #[error("the form was sent by another site's page")]
    OtherOrigin,
    #[error("the form is too old, or another login's: open its page again")]
    OtherKey,
    #[error("OPS_READ_TOKEN may look, and change nothing: log in with OPS_TOKEN")]
    ReadOnly,
}

impl Login {
    /// Returns the login that a request's cookie holds, while it is good.
    pub fn of(request: &HttpRequest, gateway: &Gateway) -> Option<Self> {
        let login: Self = gateway.seal.open(LOGIN, kept(request, name(gateway))?)?;
        let lasts = Timestamp::now().as_second() <= login.until;
        let token = Self::token(gateway, login.may_change);
        let is_good = lasts && !gateway.desk.ended.has(&login.id);
        (is_good && token.is_some_and(|token| token == login.token)).then_some(login)
    }

    fn new(gateway: &Gateway, may_change: bool) -> Option<Self> {
        Some(Self {
            id: LoginId(format!("{:012x}", rand::random::<u64>() >> 16)),
            may_change,
            until: until(),
            token: Self::token(gateway, may_change)?,
        })
    }

    /// Returns by what the token is known that a login stands for.
    fn token(gateway: &Gateway, may_change: bool) -> Option<String> {
        let tokens = &gateway.operator;
        let token = if may_change {
            &tokens.token
        } else {
            &tokens.read_token
        };
        let token = token.as_ref()?;
        // Where nobody else remembers which logins have ended, they end with the process.
        let purpose = if gateway.admission.is_shared() {
            TOKEN.to_owned()
        } else {
            format!("{TOKEN} {}", gateway.admission.replica())
        };
        Some(gateway.seal.mark(&purpose, token))
    }
}

impl Frame {
    /// Returns the frame of a page that an operator looks at.
    pub fn of(gateway: &Gateway, operator: &Operator, here: &'static str, title: &str) -> Self {
        let key = ActionKey {
            by: operator.by().actor(),
            until: until(),
        };
        Self::inside(
            title,
            here,
            matches!(operator.by(), By::Login(_)),
            operator.may_change(),
            gateway.seal.close(ACTION, &key),
        )
    }
}

/// Looks whether a form that changes something was sent by a page of ours, for its operator.
///
/// # Errors
/// If it was not, or the operator may only look.
pub fn check_form(
    gateway: &Gateway,
    request: &HttpRequest,
    operator: &Operator,
    key: &str,
) -> Result<(), NotOurForm> {
    check_origin(gateway, request)?;
    let key: Option<ActionKey> = gateway.seal.open(ACTION, key);
    let key = key.filter(|key| Timestamp::now().as_second() <= key.until);
    if key.is_none_or(|key| key.by != operator.by().actor()) {
        return Err(NotOurForm::OtherKey);
    }
    if !operator.may_change() {
        return Err(NotOurForm::ReadOnly);
    }
    Ok(())
}

/// Every browser says which page a form comes from.
fn check_origin(gateway: &Gateway, request: &HttpRequest) -> Result<(), NotOurForm> {
    let header = |name| request.headers().get(name).and_then(|it| it.to_str().ok());
    let origin = header(header::ORIGIN).unwrap_or_default();
    let host = origin.split_once("://").map(|(_, host)| host);
    let same_host = host.is_some() && host == header(header::HOST);
    if same_host || origin == gateway.public.origin() {
        Ok(())
    } else {
        Err(NotOurForm::OtherOrigin)
    }
}

/// `GET /login`: the form. Where a login has just been given, on to where its operator wanted to go,
/// unless it is gone on the way.
pub async fn form(
    operator: Result<Operator, Denied>,
    entered: Option<web::Query<EnteredQuery>>,
    request: HttpRequest,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    let entered = entered.and_then(|query| query.into_inner().entered);
    let just = entered.as_deref().and_then(|sealed| {
        let entered: Entered = gateway.seal.open(ENTERED, sealed)?;
        (Timestamp::now().as_second() <= entered.until).then_some(entered)
    });
    let to = just.as_ref().map(|entered| way(&entered.to));
    match operator {
        Ok(_) => go_to(to.unwrap_or("/dashboard")),
        Err(denied @ (Denied::NotLoopback | Denied::TooMany { .. })) => denied.error_response(),
        Err(Denied::NoToken | Denied::ReadOnly) => {
            let has_cookie = kept(&request, name(&gateway)).is_some();
            let is_by_http = request.connection_info().scheme() != "https";
            let trouble = match (just.is_some(), has_cookie) {
                (true, false) if gateway.operator.https_only && is_by_http => NOT_KEPT_BY_HTTP,
                (true, false) => NOT_KEPT,
                (true, true) => NOT_KNOWN,
                // It was sealed elsewhere, or long ago.
                (false, true) if entered.is_some() => NOT_KNOWN,
                (false, _) => return page::login(StatusCode::OK, "", None),
            };
            page::login(
                StatusCode::UNAUTHORIZED,
                to.unwrap_or_default(),
                Some(trouble),
            )
        }
    }
}

/// `POST /login`: a token for a login. Wrong ones are put up with now and then.
pub async fn log_in(
    request: HttpRequest,
    form: web::Form<LoginForm>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    if let Err(error) = check_origin(&gateway, &request) {
        return error.error_response();
    }
    let login = may_change(&gateway.operator, &form.token);
    let login = login.and_then(|may_change| Login::new(&gateway, may_change));
    let Some(login) = login else {
        return refused(&form.to, gateway.wrong_token(&request).err());
    };
    tracing::info!(login = %login.id, may_change = login.may_change, "an operator has logged in");
    let sealed = gateway.seal.close(LOGIN, &login);
    let entered = Entered {
        to: way(&form.to).to_owned(),
        until: Timestamp::now().as_second() + ENTERED_FOR_S,
    };
    let entered = gateway.seal.close(ENTERED, &entered);
    let mut response = go_to(&format!("/login?entered={entered}"));
    keep(&gateway, &mut response, &sealed, LASTS);
    response
}

/// `POST /logout`: the browser forgets its login, which is good no longer, whoever has a copy.
pub async fn log_out(
    Visitor(operator): Visitor,
    request: HttpRequest,
    form: web::Form<LogoutForm>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    match check_form(&gateway, &request, &operator, &form.key) {
        // Whoever may only look may leave, too.
        Ok(()) | Err(NotOurForm::ReadOnly) => {}
        Err(error) => return error.error_response(),
    }
    match operator.by() {
        By::Login(login) => gateway.end_login(login.clone(), until()).await,
        By::Bearer | By::Loopback => {}
    }
    let mut response = go_to("/login");
    keep(&gateway, &mut response, "", Duration::ZERO);
    response
}

/// Sends a browser on to a page of ours.
pub fn go_to(path: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, path.to_owned()))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}

fn refused(to: &str, waits: Option<Duration>) -> HttpResponse {
    let Some(wait) = waits else {
        let trouble = "That is not OPS_TOKEN, and not OPS_READ_TOKEN.";
        return page::login(StatusCode::UNAUTHORIZED, to, Some(trouble));
    };
    let seconds = wait.as_secs() + 1;
    let trouble = format!("Too many wrong tokens: try again in {seconds} s.");
    let mut response = page::login(StatusCode::TOO_MANY_REQUESTS, to, Some(&trouble));
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    response
}

/// Returns where to go after a login: to a page of ours, wherever it was asked for.
fn way(to: &str) -> &str {
    let is_path = to.starts_with('/') && !to.starts_with("//") && to.len() <= LONGEST_WAY;
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    if is_path && to.bytes().all(plain) && !to.starts_with("/login") {
        to
    } else {
        "/dashboard"
    }
}

/// Has the browser keep a login for so long, where no script and no other site gets at it.
fn keep(gateway: &Gateway, response: &mut HttpResponse, sealed: &str, lasts: Duration) {
    let (name, seconds) = (name(gateway), lasts.as_secs());
    let secure = if gateway.operator.https_only {
        "; Secure"
    } else {
        ""
    };
    let cookie =
        format!("{name}={sealed}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    let cookie = header::HeaderValue::try_from(cookie);
    let cookie = cookie.expect("a sealed text is base64 and a full stop");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
}

/// Returns what a request's cookies say under a name.
fn kept<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    let cookies = request.headers().get_all(header::COOKIE);
    let cookies = cookies.filter_map(|it| it.to_str().ok());
    let mut pairs = cookies.flat_map(|it| it.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Returns the cookie's name. Browsers let nobody but this very host set one that begins so.
/// RFC 6265bis, 4.1.3.2.
fn name(gateway: &Gateway) -> &'static str {
    if gateway.operator.https_only {
        "__Host-callgate-login"
    } else {
        "callgate-login"
    }
}

fn until() -> i64 {
    let lasts = i64::try_from(LASTS.as_secs()).unwrap_or(0);
    Timestamp::now().as_second() + lasts
}

impl fmt::Display for LoginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ResponseError for NotOurForm {
    fn status_code(&self) -> StatusCode {
        StatusCode::FORBIDDEN
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code())
            .content_type("text/plain; charset=utf-8")
            .body(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_pages_of_ours_only() {
        for (to, expected) in [
            ("/calls?campaign=sales", "/calls?campaign=sales"),
            ("/dashboard", "/dashboard"),
            ("", "/dashboard"),
            ("https://evil.example", "/dashboard"),
            ("//evil.example/x", "/dashboard"),
            ("/\\evil.example", "/dashboard"),
            ("/a\r\nSet-Cookie: x", "/dashboard"),
            ("/login?again", "/dashboard"),
            (&format!("/{}", "a".repeat(LONGEST_WAY)), "/dashboard"),
        ] {
            assert_eq!(way(to), expected, "{to:?}");
        }
    }
}
