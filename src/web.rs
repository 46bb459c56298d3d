//! The page where somebody speaks with the agent through a browser's microphone.
//!
//! Invariant: the page is one origin's alone. It loads, sends and embeds nothing from elsewhere, and
//! nobody frames it.

use actix_web::{HttpResponse, http::header};

const PAGE: &str = include_str!("../templates/web/index.html");
const CSS: &str = concat!(
    include_str!("../templates/shared.css"),
    include_str!("../templates/web/web.css")
);
const JS: &str = include_str!("../templates/web/web.js");

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";

/// `GET /`: the page.
pub async fn page() -> HttpResponse {
    file("text/html; charset=utf-8", PAGE)
}

/// `GET /web/web.css`: how it looks.
pub async fn css() -> HttpResponse {
    file("text/css; charset=utf-8", CSS)
}

/// `GET /web/web.js`: what it does, on the page and on the browser's audio thread.
pub async fn js() -> HttpResponse {
    file("text/javascript; charset=utf-8", JS)
}

fn file(content_type: &str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // The page's address may hold a token.
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::PERMISSIONS_POLICY, "microphone=(self)"))
        // The three belong together, so none may outlive the gateway that served the others.
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use actix_web::{
        App,
        body::to_bytes,
        test::{TestRequest, call_service, init_service},
        web::get,
    };

    use super::*;

    #[actix_web::test]
    async fn each_file_is_served_whole_and_under_the_strict_policy() {
        let app = App::new()
            .route("/", get().to(page))
            .route("/web/web.css", get().to(css))
            .route("/web/web.js", get().to(js));
        let app = init_service(app).await;
        for (path, content_type, text) in [
            ("/", "text/html; charset=utf-8", PAGE),
            ("/web/web.css", "text/css; charset=utf-8", CSS),
            ("/web/web.js", "text/javascript; charset=utf-8", JS),
        ] {
            let request = TestRequest::get().uri(path).to_request();
            let response = call_service(&app, request).await;
            assert_eq!(response.status(), 200, "{path}");
            for (name, expected) in [
                ("content-type", content_type),
                ("content-security-policy", POLICY),
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("permissions-policy", "microphone=(self)"),
                ("cache-control", "no-cache"),
            ] {
                let mut values = response.headers().get_all(name);
                let value = values.next().expect(name).to_str().unwrap();
                assert_eq!(value, expected, "{path}: {name}");
                assert!(values.next().is_none(), "{path}: {name}");
            }
            let body = to_bytes(response.into_body()).await.unwrap();
            assert_eq!(body, text.as_bytes(), "{path}");
        }
    }

    #[test]
    fn the_page_has_nothing_that_its_policy_would_refuse() {
        for inline in [
            " style=",
            "<style",
            "<script>",
            " onclick",
            " onload",
            "javascript:",
        ] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
        for (name, text) in [("page", PAGE), ("css", CSS), ("js", JS)] {
            // The one address is the name of a vocabulary, inside the icon.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for elsewhere in ["http://", "https://", "url(", "@import", "eval("] {
                assert!(!text.contains(elsewhere), "{name}: {elsewhere}");
            }
        }
        assert_eq!(quoted(PAGE, " src=\""), ["/web/web.js"].into());
        assert_eq!(PAGE.matches("<script").count(), 1);
    }

    #[test]
    fn what_the_script_looks_for_is_on_the_page() {
        let ids = quoted(PAGE, " id=\"");
        let wanted = quoted(JS, "element(\"");
        assert!(wanted.len() > 5 && wanted.is_subset(&ids), "{wanted:?}");
    }

    #[test]
    fn each_text_is_there_in_english_and_in_hebrew() {
        let english = texts("en");
        assert_eq!(english, texts("he"));
        let labels = quoted(PAGE, "data-text=\"");
        assert!(
            !labels.is_empty() && labels.is_subset(&english),
            "{labels:?}"
        );
    }

    /// Returns what follows each `start`, up to the closing quotation mark.
    fn quoted<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
        let parts = text.split(start).skip(1);
        parts.filter_map(|part| part.split('"').next()).collect()
    }

    /// Returns the names of one language's texts.
    fn texts(language: &str) -> BTreeSet<&'static str> {
        let begin = format!("\n  {language}: {{\n");
        let (_, block) = JS.split_once(&begin).expect("the language has texts");
        let (block, _) = block.split_once("\n  },").expect("the texts end");
        block
            .lines()
            .filter_map(|line| line.trim().split(':').next())
            .collect()
    }
}
