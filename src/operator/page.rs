//! Operators' pages: from templates, each value escaped, and what browsers are told of them.
//!
//! Invariant: a page is one origin's alone. It loads, sends and embeds nothing from elsewhere, runs
//! no script but the one file, and nobody frames it.

use std::{
    future::{Ready, ready},
    sync::LazyLock,
};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse, ResponseError,
    dev::Payload,
    http::{StatusCode, header},
};
use minijinja::{Environment, UndefinedBehavior, Value, context, value::Serde};
use serde::Serialize;

use crate::operator::{Denied, Operator};

const CSS: &str = concat!(
    include_str!("../../templates/shared.css"),
    include_str!("../../templates/operator/operator.css")
);
const JS: &str = include_str!("../../templates/operator/operator.js");

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";

/// The parts that pages are made of, by their names in `templates/operator`.
macro_rules! parts {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../templates/operator/", $name)))),*]
    };
}

const PARTS: [(&str, &str); 16] = parts![
    "layout.html",
    "login.html",
    "dashboard.html",
    "now.html",
    "warnings.html",
    "hour.html",
    "caps.html",
    "costs.html",
    "live.html",
    "agents.html",
    "replicas.html",
    "events.html",
    "confirm.html",
    "calls.html",
    "call.html",
    "missing.html",
];

static PAGES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut pages = Environment::new();
    // A name that a page does not know is a mistake of ours, which tests find.
    pages.set_undefined_behavior(UndefinedBehavior::Strict);
    for (name, text) in PARTS {
        pages
            .add_template(name, text)
            .expect("each part is well-formed, as a test has seen");
    }
    pages
});

/// An operator who looks at a page. Whoever is none is asked to log in.
pub struct Visitor(pub Operator);

/// Whoever asks for a page is no operator yet.
#[derive(Debug, thiserror::Error)]
#[error("{denied}")]
pub struct Stranger {
    denied: Denied,
    /// Where they were going.
    to: String,
}

/// Who looks at a page, as its frame shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Frame {
    title: String,
    /// Whether there is a login to end.
    has_login: bool,
    may_change: bool,
    /// Goes with every form; blank for whoever has none.
    action_key: String,
    /// Whether there are pages to go to.
    is_inside: bool,
    /// Which of them this is.
    here: &'static str,
}

impl Frame {
    /// Returns the frame of a page that operators see.
    pub fn inside(
        title: &str,
        here: &'static str,
        has_login: bool,
        may_change: bool,
        action_key: String,
    ) -> Self {
        Self {
            title: title.to_owned(),
            has_login,
            may_change,
            action_key,
            is_inside: true,
            here,
        }
    }

    /// Returns what goes with every form of this page.
    pub fn action_key(&self) -> &str {
        &self.action_key
    }

    /// Returns the frame of a page that strangers see.
    pub fn outside(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            has_login: false,
            may_change: false,
            action_key: String::new(),
            is_inside: false,
            here: "",
        }
    }
}

impl FromRequest for Visitor {
    type Error = Stranger;
    type Future = Ready<Result<Self, Stranger>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let operator = Operator::from_request(request, payload).into_inner();
        let to = request.uri().path_and_query();
        ready(operator.map(Self).map_err(|denied| Stranger {
            denied,
            to: to.map_or_else(String::new, ToString::to_string),
        }))
    }
}

impl ResponseError for Stranger {
    fn status_code(&self) -> StatusCode {
        self.denied.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        match self.denied {
            Denied::NoToken => {
                let mut response = login(StatusCode::UNAUTHORIZED, &self.to, None);
                let bearer = header::HeaderValue::from_static("Bearer");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, bearer);
                response
            }
            Denied::NotLoopback | Denied::ReadOnly | Denied::TooMany { .. } => {
                self.denied.error_response()
            }
        }
    }
}

/// Returns the form that asks for a token, and what was wrong with the last one.
pub fn login(status: StatusCode, to: &str, trouble: Option<&str>) -> HttpResponse {
    let main = part("login.html", context! { to, trouble });
    page(status, &Frame::outside("Log in"), &main)
}

/// Renders one part of a page.
pub fn part(name: &str, context: impl Into<Value>) -> String {
    let part = PAGES.get_template(name).expect("it is one of the parts");
    part.render(context.into())
        .unwrap_or_else(|error| panic!("{name} does not render: {error:#}"))
}

/// Puts what a page shows into its frame.
pub fn page(status: StatusCode, frame: &Frame, main: &str) -> HttpResponse {
    let main = Value::from_safe_string(main.to_owned());
    let frame = Value::from(Serde(frame));
    let text = part("layout.html", context! { frame, main });
    let mut response = headed(status, "text/html; charset=utf-8");
    // What operators see is nothing for a cache, nor for whoever sits there next.
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    response.body(text)
}

/// `GET /operator/operator.css`: how the pages look.
pub async fn css() -> HttpResponse {
    file("text/css; charset=utf-8", CSS)
}

/// `GET /operator/operator.js`: what keeps them up to date.
pub async fn js() -> HttpResponse {
    file("text/javascript; charset=utf-8", JS)
}

fn file(content_type: &str, text: &'static str) -> HttpResponse {
    let mut response = headed(StatusCode::OK, content_type);
    // They belong to the pages, so none may outlive the gateway that served those.
    response.insert_header((header::CACHE_CONTROL, "no-cache"));
    response.body(text)
}

fn headed(status: StatusCode, content_type: &str) -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response
        .content_type(content_type)
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        // With none at all, browsers would not say whose page a form comes from. Fetch, 3.2.
        .insert_header((header::REFERRER_POLICY, "same-origin"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_well_formed_and_has_nothing_that_the_policy_would_refuse() {
        for (name, text) in PARTS {
            assert!(PAGES.get_template(name).is_ok(), "{name}");
            for inline in [
                " style=",
                "<style",
                "<script>",
                " onclick",
                " onload",
                "javascript:",
            ] {
                assert!(!text.contains(inline), "{name}: {inline}");
            }
        }
        let texts = PARTS.iter().map(|(name, text)| (*name, *text));
        for (name, text) in texts.chain([("css", CSS), ("js", JS)]) {
            // The one address is the name of a vocabulary, inside the icon.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for elsewhere in ["http://", "https://", "url(", "@import", "eval("] {
                assert!(!text.contains(elsewhere), "{name}: {elsewhere}");
            }
        }
    }

    #[test]
    fn what_comes_from_outside_is_text_and_nothing_else() {
        let to = r#""><script>alert(1)</script>"#;
        let form = part("login.html", context! { to, trouble => "<b>" });
        assert!(
            !form.contains("<script>") && !form.contains("<b>"),
            "{form}"
        );
    }
}
