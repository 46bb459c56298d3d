//! The sentences that ACS plays.

use actix_web::{HttpResponse, http::header, web};

use crate::{answer::prompts::Prompt, gateway::Gateway, language::Language};

/// `GET /prompts/{language}/{name}.wav`: a sentence, in the nearest language that there is.
pub async fn prompt(
    path: web::Path<(String, String)>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    let (language, name) = path.into_inner();
    let found = Prompt::named(&name).zip(Language::try_from(language).ok());
    let Some((prompt, language)) = found else {
        return HttpResponse::NotFound().finish();
    };
    HttpResponse::Ok()
        .content_type("audio/wav")
        .insert_header((header::CACHE_CONTROL, "public, max-age=300"))
        .body(gateway.prompt_file(prompt, &language))
}
