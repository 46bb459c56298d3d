//! The OpenAPI document, made of the handlers' own words.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder,
        ResponsesBuilder,
        schema::Type,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::api::{Code, calls, error, events, records, usage};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "callgate",
        description = "What remains of calls, and what can be done with them. Every request but \
            that for this document carries a key as `Authorization: Bearer cg_…`."
    ),
    paths(
        calls::list,
        calls::show,
        calls::timeline,
        calls::transcript,
        calls::placing::place,
        calls::placing::hang_up,
        usage::show,
        events::list,
        events::resend,
        records::delete,
        serve
    ),
    components(schemas(error::ErrorBody, Code)),
    modifiers(&Keys)
)]
struct Document;

struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A key that `callgate keys create` has made"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(key.build()));
    }
}

/// What any route may answer when it refuses.
pub struct Refusals;

impl utoipa::IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut said: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for code in Code::ALL {
            let status = code.status().as_u16().to_string();
            said.entry(status).or_default().push(code.meaning());
        }
        let mut responses = ResponsesBuilder::new();
        for (status, meanings) in said {
            let body = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("ErrorBody")))
                .build();
            let mut response = ResponseBuilder::new()
                .description(meanings.join(" "))
                .content("application/json", body);
            for (name, means) in headers(&status) {
                let text = ObjectBuilder::new().schema_type(Type::String);
                let header = HeaderBuilder::new()
                    .schema(Some(text))
                    .description(Some(*means));
                response = response.header(*name, header.build());
            }
            responses = responses.response(status, response);
        }
        responses.build().into()
    }
}

/// Returns what an answer of this status says in its headers.
fn headers(status: &str) -> &'static [(&'static str, &'static str)] {
    match status {
        "401" => &[("WWW-Authenticate", "`Bearer`")],
        "405" => &[("Allow", "The methods that the route has")],
        "429" | "503" => &[(
            "Retry-After",
            "How many seconds to wait before asking again",
        )],
        _ => &[],
    }
}

/// Returns the document as JSON.
pub fn text() -> String {
    let document = Document::openapi().to_pretty_json();
    document.expect("names and texts always serialize")
}

/// Show this document. It needs no key.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "document", operation_id = "show_document",
    responses((status = 200, description = "An OpenAPI document", body = Object))
)]
pub async fn serve() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(text())
}
