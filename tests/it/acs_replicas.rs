//! Calls by ACS over several replicas, one of which may die at any moment.

use std::{future::pending, time::Duration};

use callgate::{
    EndReason, What,
    fake_acs::{Deed, FakeAcs, FakeAcsOptions, FakeCall, Manner, Schema},
    parrot::{ParrotOptions, ToolRequest},
};
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::task::TaskTracker;

use crate::{
    acs::{answered, callback, event, event_grid, media_url, status, until_seen, upgrade, way_to},
    carrier::{CALLED, CALLER},
    gateway::{Replicas, TestGateway, eventually},
    pcm::{FRAME, PcmLine, Tongue},
};

/// Two replicas, and an ACS that brings them calls.
struct House {
    replicas: Replicas,
    acs: FakeAcs,
}

impl House {
    async fn start() -> Self {
        Self::with(None).await
    }

    /// Starts two of which ACS never answers the first one; also returns what it asks.
    async fn cut_off() -> (Self, TcpListener) {
        let silence = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silence.local_addr().unwrap();
        let key = "QUJD".repeat(12);
        let nowhere = format!("endpoint=http://{address}/;accesskey={key}");
        (Self::with(Some(&nowhere)).await, silence)
    }

    /// Starts two of which the first one has another connection string, if one is given.
    async fn with(connection_string: Option<&str>) -> Self {
        Self::of(ParrotOptions::default(), connection_string).await
    }

    async fn of(parrot: ParrotOptions, connection_string: Option<&str>) -> Self {
        let acs = FakeAcs::start(FakeAcsOptions::on_a_free_port()).await;
        let acs = acs.unwrap();
        let environment = acs.environment();
        let second = environment
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let mut first = second;
        first[0].1 = connection_string.unwrap_or(first[0].1);
        let tools = [
            ("AGENT_TOOLS", "end_call,transfer_call"),
            ("AGENT_TRANSFERS", "reception=+97223333333"),
        ];
        let [first, second] = [first, second].map(|own| [&own[..], &tools].concat());
        let replicas = Replicas::with_parrot(parrot, &[&first, &second]).await;
        Self { replicas, acs }
    }

    /// Makes a call whose callbacks reach the second replica.
    fn calling(&self) -> FakeCall {
        let way = way_to(&self.replicas[1].carrier);
        self.acs.ring(&way, CALLER, CALLED, Manner::default())
    }

    fn event(&self, gateway: &TestGateway, call: &FakeCall) -> RequestBuilder {
        let event = call.event(Schema::EventGrid, Duration::ZERO);
        event_grid(&gateway.carrier, &self.acs).json(&json!([event]))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_answering_replica_has_died_is_answered_by_another() {
    let (house, silence) = House::cut_off().await;
    let (first, second) = (&house.replicas[0], &house.replicas[1]);
    let call = house.calling();
    let delivery = TaskTracker::new().spawn(status(house.event(first, &call)));
    let admitted = |step: &What| (*step == What::Admitted).then_some(());
    first.until_steps(call.correlation(), admitted).await;
    assert_eq!(house.replicas.registered().await, 1);

    // Event Grid has heard nothing, and delivers again.
    assert!(!delivery.is_finished(), "the event was acknowledged");
    assert_eq!(status(house.event(second, &call)).await, 200);
    let answer = answered(&call).await;
    let headers = call.media_headers();
    let socket = upgrade(&second.carrier, media_url(&answer), &headers);
    let socket = socket.await.unwrap();
    call.streams();
    let line = PcmLine::over(socket, Tongue::Acs);
    line.until_played(20 * FRAME).await;
    assert_eq!(house.replicas.registered().await, 1);

    // The one that was taken for dead fails in the end, and ends nothing.
    drop(silence);
    let delivered = timeout(Duration::from_secs(12), delivery).await;
    assert_eq!(delivered.expect("in time").unwrap(), 200);
    line.until_played(60 * FRAME).await;
    // Nor does the same event once more ask for anything.
    assert_eq!(status(house.event(second, &call)).await, 200);
    let deeds = house.acs.saw(call.correlation());
    assert!(!deeds.contains(&Deed::HungUp), "{deeds:?}");
    assert!(!deeds.contains(&Deed::AnsweredTwice), "{deeds:?}");
    assert_eq!(house.acs.saw("").len(), 0);

    line.close();
    assert_eq!(
        second.ended(call.correlation()).await,
        EndReason::CallerHungUp
    );
    drop(call);
    house.replicas.finish().await;
    house.acs.stop().await;
}

/// The media comes to a replica that ACS does not tell of the call, nor the socket by which connection
/// it comes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_to_a_call_is_done_by_whichever_replica_knows_its_connection() {
    let request = ToolRequest {
        name: "transfer_call".to_owned(),
        arguments: r#"{"destination":"reception"}"#.to_owned(),
    };
    for tool_calls in [vec![], vec![request]] {
        let parrot = ParrotOptions {
            answer_after: Duration::from_millis(100),
            tool_calls: tool_calls.clone(),
            ..ParrotOptions::default()
        };
        let house = House::of(parrot, None).await;
        let (first, second) = (&house.replicas[0], &house.replicas[1]);
        let call = house.calling();
        assert_eq!(status(house.event(second, &call)).await, 200);
        let answer = answered(&call).await;
        let connected = |deed: &Deed| *deed == Deed::Told("CallConnected", 200);
        until_seen(&house.acs, &call, connected).await;
        let mut headers = call.media_headers();
        headers.retain(|(name, _)| *name != "x-ms-call-connection-id");
        let socket = upgrade(&first.carrier, media_url(&answer), &headers);
        let line = PcmLine::over(socket.await.unwrap(), Tongue::Acs);
        line.until_played(20 * FRAME).await; // Its agent has said all of it by then.
        let (reason, done) = if tool_calls.is_empty() {
            line.close();
            (EndReason::CallerHungUp, Deed::HungUp)
        } else {
            line.press("1");
            let to = "+97223333333".to_owned();
            (EndReason::Transferred, Deed::Transferred(to))
        };
        assert_eq!(first.ended(call.correlation()).await, reason);
        let state = format!("calls:state:{}", call.correlation());
        let is_noted = async || {
            house
                .replicas
                .redis
                .cli(&["GET", &state])
                .await
                .contains("\"due\":\"")
        };
        eventually(is_noted).await;
        let told = callback(&second.carrier, &answer);
        let told = told.bearer_auth(house.acs.token(&house.acs.claims()));
        let told = told.json(&event(&call, &answer.connection, "MediaStreamingStopped"));
        assert_eq!(status(told).await, 200);
        until_seen(&house.acs, &call, |deed| *deed == done).await;
        let deeds = house.acs.saw(call.correlation());
        assert_eq!(
            deeds.iter().filter(|it| **it == done).count(),
            1,
            "{deeds:?}"
        );
        call.leave();
        house.replicas.until_registered(0).await;
        drop(call);
        house.replicas.finish().await;
        house.acs.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_are_said_once_and_to_their_end_whichever_replicas_want_to_say_them() {
    let house = House::start().await;
    let call = house.calling();
    assert_eq!(status(house.event(&house.replicas[1], &call)).await, 200);
    let answer = answered(&call).await;
    let connected = |deed: &Deed| *deed == Deed::Told("CallConnected", 200);
    until_seen(&house.acs, &call, connected).await;
    let tell = async |replica: usize, kind: &str| {
        let told = callback(&house.replicas[replica].carrier, &answer);
        let told = told.bearer_auth(house.acs.token(&house.acs.claims()));
        let told = told.json(&event(&call, &answer.connection, kind));
        assert_eq!(status(told).await, 200);
    };
    tell(0, "MediaStreamingFailed").await;
    tell(1, "MediaStreamingFailed").await;
    // It is told only of a sentence that nobody has cut off.
    let said = |deed: &Deed| *deed == Deed::Told("PlayCompleted", 200);
    until_seen(&house.acs, &call, said).await;
    until_seen(&house.acs, &call, |deed| *deed == Deed::HungUp).await;
    let deeds = house.acs.saw(call.correlation());
    let said = deeds.iter().filter(|it| matches!(it, Deed::Plays(_)));
    assert_eq!(said.count(), 1, "{deeds:?}");
    tell(0, "CallDisconnected").await;
    house.replicas.until_registered(0).await;
    drop(call);
    house.replicas.finish().await;
    house.acs.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_media_end_with_words_also_if_who_answered_them_has_died() {
    let house = House::start().await;
    let calls = [house.calling(), house.calling()];
    for (replica, call) in calls.iter().enumerate() {
        let event = house.event(&house.replicas[replica], call);
        assert_eq!(status(event).await, 200);
        let connected = |deed: &Deed| *deed == Deed::Told("CallConnected", 200);
        until_seen(&house.acs, call, connected).await;
    }
    house.replicas[0].drain(pending()).await;
    assert_eq!(house.replicas.registered().await, 2);
    for call in &calls {
        let says = |deed: &Deed| matches!(deed, Deed::Plays(file) if file.ends_with("apology.wav"));
        until_seen(&house.acs, call, says).await;
        until_seen(&house.acs, call, |deed| *deed == Deed::HungUp).await;
    }
    drop(calls);
    house.replicas.finish().await;
    house.acs.stop().await;
}
