//! Calls by ACS for which there is no room.

use std::fs;

use callgate::fake_acs::{Deed, FakeAcsOptions};

use crate::{acs::AcsHouse, carrier::CALLED, pcm::FRAME};

#[tokio::test]
async fn who_is_refused_hears_why_and_is_hung_up() {
    let house = one_slot(&[]).await;
    let first = house.connected().await;
    let refused = house.ring().await;
    let says = |deed: &Deed| matches!(deed, Deed::Plays(file) if file.ends_with("/he-IL/busy.wav"));
    house.until(&refused, says).await;
    house.until(&refused, |deed| *deed == Deed::HungUp).await;
    let deeds = house.acs.saw(refused.correlation());
    let place = |wanted: &dyn Fn(&Deed) -> bool| deeds.iter().position(wanted).unwrap();
    // Hanging up is what we do once we are told; the answer to being told may come after it.
    assert!(place(&says) < place(&|it| *it == Deed::HungUp));
    assert_eq!(refused.answered().await.media, None);
    assert_eq!(house.gateway.active_calls().await, 1);

    // The slot that comes back is the next caller's.
    first.line.until_played(FRAME).await;
    first.line.close();
    house.ended(&first.call).await;
    let next = house.connected().await;
    next.line.close();
    house.ended(&next.call).await;
    drop((first, refused, next));
    house.finish().await;
}

#[tokio::test]
async fn a_campaign_may_have_them_rejected() {
    let deed = refused_with("reject").await;
    assert!(matches!(deed, Deed::Rejected(_)), "{deed:?}");
}

#[tokio::test]
async fn a_campaign_may_have_another_number_ring() {
    let deed = refused_with("+97233333333").await;
    assert_eq!(deed, Deed::Redirected("+97233333333".into()));
}

#[tokio::test]
async fn who_dials_a_number_of_no_campaign_may_be_told_so() {
    let numbers = ("TWILIO_NUMBERS", "+97299999999");
    let settings = [numbers, ("ACS_NOT_IN_SERVICE", "say")];
    let house = AcsHouse::with(FakeAcsOptions::on_a_free_port(), &settings).await;
    let call = house.ring().await;
    let says =
        |deed: &Deed| matches!(deed, Deed::Plays(file) if file.ends_with("/not_in_service.wav"));
    house.until(&call, says).await;
    house.until(&call, |deed| *deed == Deed::HungUp).await;
    assert_eq!(house.gateway.active_calls().await, 0);
    drop(call);
    house.finish().await;
}

/// Returns what is done to a caller for whom there is no room.
async fn refused_with(way: &str) -> Deed {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("callgate.toml");
    let campaign = format!("[campaigns.a]\nnumbers = [\"{CALLED}\"]\nacs_when_full = \"{way}\"\n");
    fs::write(&file, campaign).unwrap();
    let house = one_slot(&[("CALLGATE_CONFIG", file.to_str().unwrap())]).await;
    let first = house.connected().await;
    let refused = house.ring().await;
    let turned = |deed: &Deed| matches!(deed, Deed::Rejected(_) | Deed::Redirected(_));
    house.until(&refused, turned).await;
    let deed = house.acs.saw(refused.correlation()).pop().unwrap();
    assert_eq!(house.count(&refused, &Deed::Answered), 0);
    first.line.close();
    house.ended(&first.call).await;
    drop((first, refused));
    house.finish().await;
    deed
}

async fn one_slot(settings: &[(&str, &str)]) -> AcsHouse {
    let mut settings = settings.to_vec();
    settings.push(("MAX_ACTIVE_CALLS", "1"));
    AcsHouse::with(FakeAcsOptions::on_a_free_port(), &settings).await
}
