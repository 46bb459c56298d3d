//! One suite for both stores: the same stories and the same generated histories.

mod history;
mod house;
mod model;
mod stories;

use std::{cell::RefCell, sync::MutexGuard};

use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use self::{
    history::{REPLICAS, any_history, any_setting, any_shared_history, play},
    house::House,
};
use super::*;
use crate::{admission::Reason, campaign::Budget};

const BEGIN: Millis = 1_000_000;
const SETUP: Millis = 20_000;
const LEASE: Millis = 30_000;

fn call(number: u32) -> CarrierCallId {
    CarrierCallId::try_from(format!("CA{number}")).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn lease(call: &CarrierCallId, epoch: u64) -> Lease {
    Lease {
        call: call.clone(),
        epoch,
    }
}

/// Returns a call's state, as far as stores look at it. It may have had any of the agents.
fn state(rooms: &[Room]) -> String {
    let scopes = rooms.iter().map(|room| room.scope.clone());
    let agents = ["eager", "patient"].map(|agent| Scope::Agent(name(agent)));
    let scopes: Vec<_> = scopes.chain(agents).map(|it| it.to_string()).collect();
    serde_json::json!({ "scopes": scopes }).to_string()
}

fn runtime() -> Runtime {
    let built = Builder::new_current_thread().enable_all().build();
    built.unwrap()
}

/// How many histories to play: what `CALLGATE_HISTORIES` says, or `usual`.
fn histories(usual: u32) -> ProptestConfig {
    let asked = std::env::var_os("CALLGATE_HISTORIES");
    let asked = asked.map(|text| text.to_str().and_then(|text| text.parse().ok()));
    let cases = asked.map_or(usual, |asked| asked.expect("a number of histories"));
    ProptestConfig::with_cases(cases)
}

#[test]
fn any_history_in_memory_agrees_with_a_list_that_is_counted_each_time() {
    let runtime = runtime();
    let house = RefCell::new(House::in_memory());
    proptest!(histories(2_000), |(setting in any_setting(), steps in any_history())| {
        runtime.block_on(play(&mut house.borrow_mut(), &setting, &steps))?;
    });
}

#[test]
fn any_history_of_several_replicas_agrees_with_a_list_that_is_counted_each_time() {
    let runtime = runtime();
    let house = RefCell::new(runtime.block_on(House::in_redis(REPLICAS)));
    proptest!(histories(300), |(setting in any_setting(), steps in any_shared_history())| {
        runtime.block_on(play(&mut house.borrow_mut(), &setting, &steps))?;
    });
}
