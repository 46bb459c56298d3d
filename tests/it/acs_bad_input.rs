//! Requests that are not to be acted on: one table of what comes in, what it is answered, which
//! figure counts it and what the log says. What is wrong with single fields is in
//! `acs_bad_fields`, with messages of a media socket in `acs_bad_media`.

mod rows;
mod scene;
mod tokens;

use std::collections::HashSet;

use callgate::fake_acs::{FakeAcs, FakeAcsOptions};

use crate::{
    acs::{AcsHouse, sent, status},
    carrier::CALLER,
    gateway::{TestGateway, eventually},
    pcm::FRAME,
    process::Program,
};

use rows::{CODE, ROWS, Row, entra, from_ours, validation};
use scene::Scene;

#[tokio::test]
async fn bad_input_is_answered_and_counted_and_changes_nothing() {
    let options = FakeAcsOptions::on_a_free_port();
    let house = AcsHouse::with(options, &scene::SETTINGS).await;
    let scene = Scene::set(&house.gateway.carrier, &house.acs).await;
    for row in ROWS {
        let Row { input, counted, .. } = *row;
        let before = scene.carrier.figure(counted).await;
        assert_eq!(scene.meets(row).await, row.answer, "{input}");
        let counts = async || scene.carrier.figure(counted).await == before + 1;
        eventually(counts).await; // A ticket is looked at after the upgrade.
        assert_eq!(scene.active_calls().await, 2, "{input}");
        assert!(scene.is_unharmed(), "{input}");
        // Whoever is in the right is heard as before.
        let good = sent(from_ours(&scene).json(&validation()));
        let good = good.await.text().await.unwrap();
        assert!(good.contains(CODE), "{input}: {good}");
    }
    // A token is proof enough: the rows above are refused for what is wrong with theirs.
    let good = scene.carrier.post("/acs/incomingcall");
    let good = good.header("aeg-subscription-name", "callgate-simulator");
    let good = good.bearer_auth(entra(&scene, |_| {})).json(&validation());
    assert!(sent(good).await.text().await.unwrap().contains(CODE));
    assert_eq!(scene.carrier.figure("call_panics_total").await, 0);
    scene.leave().await;
    // There is nothing left of it all that the next caller would notice.
    let next = house.connected().await;
    next.line.until_played(FRAME).await;
    next.line.close();
    house.ended(&next.call).await;
    drop(next);
    house.finish().await;
}

#[tokio::test]
async fn bad_input_is_logged_and_nothing_of_it() {
    let options = FakeAcsOptions::on_a_free_port();
    let acs = FakeAcs::start(options).await.unwrap();
    let environment = acs.environment();
    let mut settings = scene::SETTINGS.to_vec();
    settings.extend(environment.iter().map(|(name, it)| (*name, it.as_str())));
    let login = acs.url();
    settings.push(("ENTRA_LOGIN_URL", &login));
    let mut program = Program::start(&settings).await;
    let scene = Scene::set(&program.carrier, &acs).await;
    let mut lines = HashSet::new();
    for row in ROWS {
        if !lines.insert(row.logged) {
            continue; // One row of each line: of strangers there is one line a second at most.
        }
        let log = program.log.clone();
        let told = || log.borrow().iter().filter(|it| row.is_told_by(it)).count();
        let before = told();
        eventually(async || {
            scene.meets(row).await;
            told() > before
        })
        .await;
    }
    scene.leave().await;
    program.terminate();
    assert_eq!(program.ended().await.code(), Some(0));
    let log = program.log();
    let [(_, connection), .., (_, secret)] = acs.environment();
    for private in [CALLER, &CALLER[1..], CODE, &connection, &secret, "eyJ"] {
        assert!(!log.contains(private), "{private:?} is in the log");
    }
    acs.stop().await;
}

#[tokio::test]
async fn without_its_settings_event_grid_is_asked_to_come_again() {
    let gateway = TestGateway::start().await;
    let request = gateway.carrier.post("/acs/incomingcall?secret=any");
    assert_eq!(status(request.json(&validation())).await, 503);
    gateway.finish().await;
}
