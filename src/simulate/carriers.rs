//! Those who bring the calls of a run.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::Context;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::{
    SimulateOptions,
    acs::{AcsCarrier, FakeAcs, FakeAcsOptions},
    caller::call,
    carrier as twilio,
    mix::{Mix, Turns},
    outcome::{CallOutcome, Watch},
    plan::CallPlan,
    reach::Reach,
    web::WebCarrier,
};
use crate::call::Carrier;

pub struct Carriers {
    turns: Turns,
    /// How many calls there have been.
    calls: AtomicUsize,
    twilio: twilio::Carrier,
    acs: Option<AcsCarrier>,
    web: WebCarrier,
}

impl Carriers {
    /// # Errors
    /// If a carrier cannot be played, or the gateway wants no fake ACS.
    pub async fn prepare(options: &SimulateOptions, rng: &mut StdRng) -> anyhow::Result<Self> {
        let mix = Mix::of(options.carrier, options.mix);
        let gateway = Arc::new(Reach::new(&options.url, options.public_url.as_ref()));
        let acs = if mix.has(Carrier::Acs) {
            Some(fake_acs(options.acs.clone(), Arc::clone(&gateway)).await?)
        } else {
            None
        };
        Ok(Self {
            turns: mix.turns(rng),
            calls: AtomicUsize::new(0),
            twilio: twilio::Carrier::new(
                &options.url,
                options.public_url.as_ref(),
                options.auth_token.clone(),
                options.account_sid.clone(),
            )?,
            acs,
            web: WebCarrier::new(gateway, options.ops_token.clone(), options.campaign.clone())?,
        })
    }

    /// Has the carrier whose turn it is bring a call.
    pub async fn call(
        &self,
        plan: CallPlan,
        watch: &mut Watch<'_>,
        stop: &CancellationToken,
    ) -> CallOutcome {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        match (self.turns.of_call(number), &self.acs) {
            // A call's future is large, and there are many.
            (Carrier::Acs, Some(acs)) => Box::pin(acs.call(plan, watch, stop)).await,
            (Carrier::Web, _) => Box::pin(self.web.call(plan, watch, stop)).await,
            (Carrier::Twilio | Carrier::Acs, _) => {
                Box::pin(call(&self.twilio, plan, watch, stop)).await
            }
        }
    }

    pub async fn stop(self) {
        if let Some(carrier) = self.acs {
            carrier.acs.stop().await;
        }
    }
}

/// Starts a fake ACS, and introduces it and the gateway.
async fn fake_acs(options: FakeAcsOptions, gateway: Arc<Reach>) -> anyhow::Result<AcsCarrier> {
    let acs = FakeAcs::start(options).await?;
    announce(&acs);
    let introduced = acs.handshake(&gateway).await;
    introduced.context("Event Grid's subscription cannot be set up")?;
    Ok(AcsCarrier { acs, gateway })
}

/// Says what a gateway needs for a fake ACS.
pub fn announce(acs: &FakeAcs) {
    let has_public_key = acs.has_public_key();
    eprintln!(
        "A fake ACS is at {}. The gateway needs these settings:",
        acs.url()
    );
    for (name, value) in acs.environment() {
        let is_secret = matches!(name, "ACS_CONNECTION_STRING" | "EVENTGRID_SECRET");
        if is_secret && !has_public_key {
            eprintln!("  {name}, as here");
        } else {
            eprintln!("  {name}='{value}'");
        }
    }
}
