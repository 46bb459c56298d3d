//! Calls by ACS over several replicas, one of which may die at any moment.

use std::time::Duration;

use callgate::{
    EndReason, What,
    fake_acs::{Deed, FakeAcs, FakeAcsOptions, FakeCall, Manner, Schema},
};
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::task::TaskTracker;

use crate::{
    acs::{answered, event_grid, media_url, status, upgrade, way_to},
    carrier::{CALLED, CALLER},
    gateway::{Replicas, TestGateway},
    pcm::{FRAME, PcmLine, Tongue},
};

/// Two replicas, and an ACS that only the second one reaches.
struct House {
    replicas: Replicas,
    acs: FakeAcs,
}

impl House {
    /// Also returns where the first replica asks, who is never answered.
    async fn start() -> (Self, TcpListener) {
        let acs = FakeAcs::start(FakeAcsOptions::on_a_free_port()).await;
        let acs = acs.unwrap();
        let silence = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silence.local_addr().unwrap();
        let nowhere = format!("endpoint=http://{address}/;accesskey={}", "QUJD".repeat(12));
        let environment = acs.environment();
        let settings = environment
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let cut_off = [
            &[("ACS_CONNECTION_STRING", nowhere.as_str())],
            &settings[1..],
        ]
        .concat();
        let replicas = Replicas::each(&[&cut_off, &settings]).await;
        (Self { replicas, acs }, silence)
    }

    /// Makes a call whose callbacks reach the second replica.
    fn calling(&self) -> FakeCall {
        let way = way_to(&self.replicas[1]);
        self.acs.ring(&way, CALLER, CALLED, Manner::default())
    }

    fn event(&self, gateway: &TestGateway, call: &FakeCall) -> RequestBuilder {
        let event = call.event(Schema::EventGrid, Duration::ZERO);
        event_grid(gateway, &self.acs).json(&json!([event]))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_answering_replica_has_died_is_answered_by_another() {
    let (house, silence) = House::start().await;
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
    let socket = upgrade(second, media_url(&answer), &headers).await.unwrap();
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
