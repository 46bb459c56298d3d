//! Who may say what: Event Grid by its secret, ACS by its tokens.

use callgate::fake_acs::Deed;

use crate::acs::{AcsHouse, answered, event, status};

#[tokio::test]
async fn event_grid_is_let_in_by_both_handshakes() {
    let house = AcsHouse::start().await;
    house.acs.handshake(house.reach()).await.unwrap();
    house.finish().await;
}

#[tokio::test]
async fn while_keys_cannot_be_had_callbacks_are_to_come_again() {
    let house = AcsHouse::start().await;
    house.acs.hide_keys(true);
    let call = house.ring().await;
    let mine = answered(&call).await;
    house
        .until(&call, |deed| *deed == Deed::Told("CallConnected", 503))
        .await;
    assert_eq!(house.open(&call, &mine).await.err(), Some(503));
    house.acs.hide_keys(false);
    // Keys are asked for once in a while only.
    let connected = event(&call, &mine.connection, "ParticipantsUpdated");
    crate::gateway::eventually(async || {
        let token = house.acs.token(&house.acs.claims());
        let request = house.callback(&mine).bearer_auth(token).json(&connected);
        status(request).await == 200
    })
    .await;
    call.leave();
    house.gateway.ended(call.correlation()).await;
    drop(call);
    house.finish().await;
}
