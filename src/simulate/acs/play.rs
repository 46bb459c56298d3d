//! Files are played to calls, as far as anybody can tell.

use std::{io::Cursor, sync::Arc, time::Duration};

use actix_web::http::StatusCode;
use tokio::time::sleep;

use super::{
    Service,
    callback::Callback,
    calls::Call,
    options::Fault,
    request::{Answer, PlayBody},
    rest::Asked,
    seen::Deed,
};

/// How long a file takes to be played here, at most, as what Twilio says does.
const PLAYS_WITHIN: Duration = Duration::from_millis(300);

/// The largest file that is fetched.
const LARGEST_FILE: u64 = 16 << 20;

/// Begins to play a file to a call.
///
/// # Errors
/// If ACS would not.
pub fn play(service: &Arc<Service>, call: &Arc<Call>, body: PlayBody) -> Asked<Answer> {
    let source = body.play_sources.into_iter().next();
    let file = source
        .filter(|source| source.kind == "file")
        .and_then(|source| source.file);
    let Some(file) = file else {
        return Err(Answer::invalid("The field PlaySources is invalid."));
    };
    let mut was_playing = false;
    let begins = call.status.send_if_modified(|status| {
        was_playing = status.is_playing;
        let begins = status.answered.is_some() && !status.is_over() && !was_playing;
        if begins {
            status.is_playing = true;
            status.played.push(file.uri.clone());
        }
        begins
    });
    if was_playing {
        let message = "Another media operation is active.";
        return Err(Answer::error(StatusCode::BAD_REQUEST, "8500", message));
    }
    if !begins {
        return Err(Answer::not_found());
    }
    service.note(&call.name.correlation, Deed::Plays(file.uri.clone()));
    let playing = play_file(Arc::clone(service), Arc::clone(call), file.uri);
    service.spawn(playing);
    Ok(Answer::accepted())
}

/// Fetches a file and plays it, as far as anybody can tell.
async fn play_file(service: Arc<Service>, call: Arc<Call>, uri: String) {
    let ended = match fetch(&service, &call.gateway.reached(&uri)).await {
        Err(failed) => failed,
        Ok(_) if service.fails(Fault::PlayFailed) => Callback::play_failed(8_572, "Play failed."),
        Ok(length) => {
            call.tell(Callback::play_started());
            sleep(length.min(PLAYS_WITHIN)).await;
            Callback::play_completed()
        }
    };
    call.status.send_modify(|status| status.is_playing = false);
    if !call.status.borrow().is_over() {
        call.tell(ended);
    }
}

/// Fetches a file that ACS can play, and returns how long it lasts.
async fn fetch(service: &Service, url: &str) -> Result<Duration, Callback> {
    let not_there = || Callback::play_failed(8_536, "Action failed, file could not be downloaded.");
    let answer = service
        .http
        .get(url)
        .send()
        .await
        .map_err(|_| not_there())?;
    let answer = answer.error_for_status().map_err(|_| not_there())?;
    if answer
        .content_length()
        .is_none_or(|length| length > LARGEST_FILE)
    {
        return Err(not_there());
    }
    let wav = answer.bytes().await.map_err(|_| not_there())?;
    let format = || Callback::play_failed(8_535, "Action failed, file format is invalid.");
    let wav = hound::WavReader::new(Cursor::new(wav)).map_err(|_| format())?;
    let spec = wav.spec();
    if (spec.channels, spec.bits_per_sample, spec.sample_rate) != (1, 16, 16_000) {
        return Err(format());
    }
    Ok(Duration::from_secs(1) * wav.duration() / spec.sample_rate)
}
