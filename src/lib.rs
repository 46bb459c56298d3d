//! callgate stands between phone carriers and AI agents that speak: it decides before answering
//! whether there is room for a call, and bridges the audio of those it lets in.
//!
//! The modules are listed in the order in which a call meets them.

mod config;
mod gateway;
mod routes;

mod admission;
mod agent;
mod answer;
mod bridge;
mod campaign;
mod carrier;
mod connections;
mod event;
mod media;
mod operator;
mod outbound;

mod api;

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod check;
pub mod demo;
mod record;
mod recording;
mod session;
mod simulate;
mod slots;
mod tool;
mod trace;
mod web;
mod webhook;

mod call;
mod chunk;
mod entra;
mod forecast;
mod guard;
mod language;
#[cfg(test)]
mod loopback;
#[cfg(test)]
mod official;
mod recent;
mod resample;
mod seal;
mod spending;
mod telemetry;
mod transcode;
mod wire;

pub use agent::parrot;
pub use api::{
    ApiCommandError, KeysOptions, RecordsOptions, document::text as openapi, erase_records, keys,
};
pub use call::EndReason;
pub use check::{Finding, Level, check, is_alive};
pub use config::{Config, ConfigError, FileError, LogFormat};
pub use event::{EventsError, EventsOptions, run as events};
pub use gateway::{Gateway, Running, StartError};
pub use record::{Step, What};
pub use recording::{Recording, RecordingId};
pub use simulate::{
    SimulateOptions, acs as fake_acs, report::Report, run as simulate, script::Script,
    twilio as fake_twilio, voice::Voices,
};
pub use slots::{SlotsError, SlotsOptions, run as slots};
pub use telemetry::log_to_stderr;
pub use tool::ToolOutcome;
