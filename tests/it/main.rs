//! Whole calls over loopback: a real gateway, a carrier and agents that are small servers. The
//! carrier and everything it knows (signatures, TwiML, the media stream) is written here a second
//! time, so that a mistake in the gateway is not repeated by its test.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, and the line says where"
)]

mod acs;
mod agent;
mod audio;
mod carrier;
mod chromium;
mod cut;
mod database;
mod gateway;
mod https;
mod line;
#[expect(dead_code, reason = "another test binary needs the rest")]
#[path = "../../src/loopback.rs"]
mod loopback;
mod pcm;
mod postgres_server;
mod redis;
mod redis_server;
mod rest;
mod tool_server;
mod twiml;

mod acs_bad_fields;
mod acs_bad_input;
mod acs_bad_media;
mod acs_calls;
mod acs_events;
mod acs_proofs;
mod acs_refused;
mod acs_replicas;
mod agent_faults;
mod api;
mod browser;
mod budgets;
mod campaign_file;
mod capacity;
mod check;
mod check_others;
mod conversation;
mod dashboard;
mod dashboard_page;
mod deadlines;
mod draining;
mod events;
mod examples;
mod handed_over;
mod leases;
mod media_socket;
mod metrics;
mod operations;
mod over_capacity;
mod placed_by_acs;
mod placed_calls;
mod process;
mod realtime_contract;
mod records;
mod replacing;
mod replicas;
mod ringing;
mod signature;
mod simulated;
mod store_outage;
mod store_settings;
mod tools;
mod traces;
mod voice_live;
mod web_calls;
