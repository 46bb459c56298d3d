//! Calls by ACS from their event to their end.

use callgate::{
    EndReason,
    fake_acs::{Deed, FakeAcsOptions, Fault, Media},
    parrot::{self, ParrotOptions},
};

use crate::{
    acs::{AcsHouse, answered, event, status},
    audio::{loudness, share_of},
    pcm::{FRAME, PcmLine, Tongue, syllables},
};

/// How long the parrot's tune is.
const TUNE: usize = 60 * FRAME;

#[tokio::test]
async fn a_call_is_answered_heard_both_ways_and_hung_up_by_its_caller() {
    let house = AcsHouse::start().await;
    let call = house.connected().await;
    let media = call.answered.media.clone().unwrap();
    let Media {
        rate,
        bidirectional,
        ..
    } = media;
    assert_eq!((rate, bidirectional), (24_000, true));
    call.line.until_played(TUNE).await;
    assert!(loudness(&call.line.played(0)) > 1_000.0);
    let before = call.line.played(0).len() * 3;
    call.line.speak(syllables(1_100.0, 50));
    call.line.until_played(before + 40 * FRAME).await;
    let share = share_of(1_100.0, &call.line.played(before));
    assert!(share > 0.7, "{share}");

    assert_eq!(house.gateway.active_calls().await, 1);
    call.line.close();
    call.call.leave();
    // Socket and callback say the same, and either may come first.
    let reason = house.ended(&call.call).await;
    let ends = [EndReason::CallerHungUp, EndReason::CarrierEnded];
    assert!(ends.contains(&reason), "{reason:?}");
    let told = Deed::Told("CallDisconnected", 200);
    house.until(&call.call, |deed| *deed == told).await;
    drop(call);
    house.finish().await;
}

#[tokio::test]
async fn a_caller_whose_media_socket_is_only_closed_is_hung_up() {
    let house = AcsHouse::start().await;
    let call = house.connected().await;
    call.line.close();
    assert_eq!(house.ended(&call.call).await, EndReason::CallerHungUp);
    house.until(&call.call, |deed| *deed == Deed::HungUp).await;
    drop(call);
    house.finish().await;
}

#[tokio::test]
async fn speaking_over_the_agent_stops_what_acs_still_has_to_play() {
    let house = AcsHouse::start().await;
    let call = house.connected().await;
    call.line.until_played(15 * FRAME).await;
    call.line.speak(syllables(1_100.0, 30));
    let played = call.line.until(|heard| heard.stops.first().copied()).await;
    assert!(played < TUNE, "the tune was over before the caller spoke");
    call.line.close();
    house.ended(&call.call).await;
    drop(call);
    house.finish().await;
}

#[tokio::test]
async fn a_call_whose_agent_is_lost_ends_with_an_apology_and_by_rest() {
    let parrot = ParrotOptions {
        fault: Some(parrot::Fault::EarlyClose),
        ..ParrotOptions::default()
    };
    let options = FakeAcsOptions::on_a_free_port();
    let house = AcsHouse::with_parrot(parrot, options, &[]).await;
    let call = house.connected().await;
    assert_eq!(house.ended(&call.call).await, EndReason::AgentClosed);
    house.until(&call.call, |deed| *deed == Deed::HungUp).await;
    // The apology lasts for seconds, and was heard before.
    let heard = call.line.played(0);
    assert!(heard.len() > 8_000, "{}", heard.len());
    assert!(loudness(&heard) > 300.0, "{}", loudness(&heard));
    assert_eq!(call.line.closed().await, 1000);
    drop(call);
    house.finish().await;
}

#[tokio::test]
async fn a_lost_media_socket_ends_its_call_by_rest() {
    let house = AcsHouse::start().await;
    let call = house.connected().await;
    drop(call.line);
    let reason = house.ended(&call.call).await;
    assert_eq!(reason, EndReason::CarrierLost);
    let says = |deed: &Deed| matches!(deed, Deed::Plays(file) if file.ends_with("apology.wav"));
    house.until(&call.call, says).await;
    house.until(&call.call, |deed| *deed == Deed::HungUp).await;
    assert_eq!(house.count(&call.call, &Deed::HungUp), 1);
    drop(call.call);
    house.finish().await;
}

#[tokio::test]
async fn a_call_goes_on_with_another_socket_once_it_has_lost_its_first() {
    let house = AcsHouse::start().await;
    let call = house.connected().await;
    call.line.until_played(FRAME).await;
    drop(call.line);
    let socket = house.open(&call.call, &call.answered).await.unwrap();
    let line = PcmLine::over(socket, Tongue::Acs);
    // What the caller says is heard, whether or not the greeting goes on, which is not said again.
    line.speak(syllables(1_100.0, 50));
    let mut heard = 35 * FRAME;
    line.until_played(heard).await;
    while share_of(1_100.0, &line.played(heard - 35 * FRAME)) <= 0.7 {
        heard += FRAME;
        line.until_played(heard).await;
    }
    assert_eq!(house.gateway.active_calls().await, 1);
    let deeds = house.acs.saw(call.call.correlation());
    let ended = |deed: &Deed| matches!(deed, Deed::Plays(_) | Deed::HungUp);
    assert!(!deeds.iter().any(ended), "{deeds:?}");
    line.close();
    assert_eq!(house.ended(&call.call).await, EndReason::CallerHungUp);
    drop(call.call);
    house.finish().await;
}

#[tokio::test]
async fn a_call_that_waits_for_another_socket_ends_when_its_carrier_says_so() {
    let house = AcsHouse::start().await;
    let call = house.connected().await;
    drop(call.line);
    call.call.leave();
    assert_eq!(house.ended(&call.call).await, EndReason::CarrierEnded);
    drop(call.call);
    house.finish().await;
}

#[tokio::test]
async fn an_answer_that_fails_later_gives_the_slot_back() {
    let house = faulty(&[Fault::AnswerFailed]).await;
    let call = house.ring().await;
    assert_eq!(house.ended(&call).await, EndReason::AnswerFailed);
    drop(call);
    house.finish().await;
}

#[tokio::test]
async fn an_answer_that_is_refused_gives_the_slot_back() {
    let house = faulty(&[Fault::RefuseAnswers]).await;
    let call = house.ring().await;
    assert_eq!(house.ended(&call).await, EndReason::AnswerFailed);
    drop(call);
    house.finish().await;
}

#[tokio::test]
async fn media_that_do_not_come_end_the_call_with_words() {
    let house = AcsHouse::start().await;
    let call = house.ring().await;
    answered(&call).await;
    house.gateway.until_active(1).await;
    call.does_not_stream();
    assert_eq!(house.ended(&call).await, EndReason::StreamFailed);
    let says = |deed: &Deed| matches!(deed, Deed::Plays(_));
    house.until(&call, says).await;
    house.until(&call, |deed| *deed == Deed::HungUp).await;
    drop(call);
    house.finish().await;
}

/// As when the replica has died that carried it.
#[tokio::test]
async fn a_call_whose_media_has_stopped_and_that_nobody_carries_ends_with_words() {
    let house = AcsHouse::start().await;
    let call = house.ring().await;
    let answered = answered(&call).await;
    house.gateway.until_active(1).await;
    let token = house.acs.token(&house.acs.claims());
    let stopped = event(&call, &answered.connection, "MediaStreamingStopped");
    let request = house.callback(&answered).bearer_auth(token);
    assert_eq!(status(request.json(&stopped)).await, 200);
    assert_eq!(house.ended(&call).await, EndReason::StreamFailed);
    house
        .until(&call, |deed| matches!(deed, Deed::Plays(_)))
        .await;
    house.until(&call, |deed| *deed == Deed::HungUp).await;
    drop(call);
    house.finish().await;
}

#[tokio::test]
async fn what_acs_fails_at_first_is_asked_for_again_and_done_once() {
    for fault in [Fault::Throttle, Fault::Unavailable, Fault::LostAnswer] {
        let house = faulty(&[fault]).await;
        let call = house.connected().await;
        call.line.until_played(FRAME).await;
        assert_eq!(house.count(&call.call, &Deed::Answered), 1, "{fault:?}");
        assert_eq!(
            house.count(&call.call, &Deed::AnsweredTwice),
            0,
            "{fault:?}"
        );
        call.line.close();
        house.ended(&call.call).await;
        drop(call);
        house.finish().await;
    }
}

#[tokio::test]
async fn audio_of_16_khz_is_asked_for_where_it_is_wanted() {
    let options = FakeAcsOptions::on_a_free_port();
    let house = AcsHouse::with(options, &[("ACS_AUDIO_FORMAT", "pcm16KMono")]).await;
    let call = house.ring().await;
    let media = answered(&call).await.media.unwrap();
    assert_eq!(media.rate, 16_000);
    call.leave();
    house.ended(&call).await;
    drop(call);
    house.finish().await;
}

async fn faulty(faults: &[Fault]) -> AcsHouse {
    let options = FakeAcsOptions {
        faults: faults.to_vec(),
        ..FakeAcsOptions::on_a_free_port()
    };
    AcsHouse::with(options, &[]).await
}
