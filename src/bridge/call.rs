//! One media socket's life after its upgrade: claim, bridge, farewell.
//!
//! Invariant: nothing reaches an agent before the ticket is good.
//! Invariant: a panic in a call ends that call only, and its slot comes back.

pub mod acs;
mod lost;
pub mod twilio;
pub mod web;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use actix_web::{HttpResponse, ResponseError, http::StatusCode, web as extract};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use crate::{
    admission::{ClaimError, Claimed, Onward},
    bridge::{AgentSeat, Bridge, Delays, Line, Marks, Parted, call::lost::Life},
    call::{CallId, CallerId, CarrierCallId, EndReason},
    campaign::{Campaign, Name},
    chunk::Encoding,
    connections::{Brought, Place},
    gateway::{Gateway, Ringing},
    media::{MediaSocket, web::State},
    outbound::{Overrides, overrides_of},
    record::What,
    session::{Session, Terms},
    tool::{Consent, Keypad, Surroundings, Workbench},
    trace::Phase,
};

pub use lost::LostCalls;

/// How long a socket stays open for the store to note how its call has ended.
const NOTED_WITHIN: Duration = Duration::from_millis(100);
/// How long the store may take to be told where a call goes on, its end included.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Why a media socket is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error("draining")]
    Draining,
    #[error("connection limit reached")]
    Full,
}

/// A call that a media socket has brought and claimed.
struct Taken {
    call: CarrierCallId,
    campaign: Arc<Campaign>,
    claimed: Claimed,
    /// What its agent does otherwise, if it is not on its way here already.
    overrides: Overrides,
    /// How long it may last.
    longest: Duration,
    /// How long it had rung when it was claimed.
    rang: Duration,
    place: Place,
}

/// How a taken call ended, and the campaign whose words its caller is to hear now.
struct Over {
    reason: EndReason,
    campaign: Arc<Campaign>,
    /// Where the call goes on.
    destination: Option<Name>,
}

/// How a bridged call ended.
struct Bridged {
    place: Place,
    reason: EndReason,
    /// Whom its caller goes on talking with.
    destination: Option<Name>,
}

impl Bridged {
    /// Ends a call that goes nowhere else.
    fn as_is(place: Place, reason: EndReason) -> Self {
        Self {
            place,
            reason,
            destination: None,
        }
    }
}

impl ResponseError for NoPlace {
    fn status_code(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE // A proxy tries a sibling.
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).body(self.to_string())
    }
}

/// Takes a place for a media socket that is about to be upgraded.
fn take_place(gateway: &Gateway) -> Result<Place, NoPlace> {
    if gateway.is_draining() {
        return Err(NoPlace::Draining);
    }
    gateway.connections.take_place().ok_or(NoPlace::Full)
}

/// Returns the span of a call whose media socket brings this ticket, which says by which id it goes:
/// the carrier's name of one that we placed may be new here.
fn span_of_claim(gateway: &Gateway, call: &CarrierCallId, ticket: &str) -> tracing::Span {
    if let Ok(ticket) = gateway.admission.read(ticket, call) {
        gateway.timeline.named(call, ticket.call);
    }
    gateway.span_of(call)
}

/// Claims the call that a ticket names. Where its campaign is gone from the file since the call
/// rang, the default one takes over.
async fn claim(
    gateway: &Gateway,
    ticket: &str,
    call: CarrierCallId,
    place: Place,
) -> Result<Taken, ClaimError> {
    let ticket = gateway.admission.read(ticket, &call)?;
    let campaigns = gateway.campaigns.current();
    let campaign = campaigns.named(&ticket.campaign);
    let campaign = campaign.unwrap_or_else(|| Arc::clone(campaigns.default_campaign()));
    let claimed = gateway.admission.claim(&ticket, &campaign, &campaigns);
    let claimed = claimed.await?;
    let rang = gateway.admission.since_rang(&ticket);
    let overrides = if ticket.outbound && !gateway.is_ringing(&call) {
        overrides_of(gateway, claimed.call).await
    } else {
        Overrides::default()
    };
    let longest = ticket.lasts_at_most.unwrap_or(Duration::MAX);
    let longest = longest.min(gateway.longest_call);
    tracing::Span::current().record("campaign.id", campaign.id.as_str());
    gateway.timeline.claimed(&call, claimed.call, &campaign.id);
    Ok(Taken {
        call,
        campaign,
        claimed,
        overrides,
        longest,
        rang,
        place,
    })
}

/// Claims a call for its socket and bridges it. Returns once the slot is on its way back.
///
/// # Errors
/// If the ticket gives no right to the call.
async fn carry(
    gateway: &extract::Data<Gateway>,
    socket: &mut MediaSocket,
    place: Place,
    call: CarrierCallId,
    ticket: &str,
) -> Result<Over, ClaimError> {
    let taken = claim(gateway, ticket, call, place).await;
    let taken = taken.inspect_err(|error| {
        gateway.metrics.ticket_refused();
        tracing::warn!(%error, "refused a media socket's ticket");
    })?;
    let (call, campaign) = (taken.call.clone(), Arc::clone(&taken.campaign));
    Ok(see_out(gateway, &call, campaign, bridge(gateway, socket, taken)).await)
}

/// Goes on with a call that has lost its socket before.
async fn carry_on(
    gateway: &extract::Data<Gateway>,
    socket: &mut MediaSocket,
    mut life: Box<Life>,
) -> Over {
    tracing::info!("another media socket carries on");
    socket.take_over(life.began);
    life.session.begin_anew();
    let (call, campaign) = (life.call.clone(), Arc::clone(&life.campaign));
    see_out(gateway, &call, campaign, live(gateway, socket, life)).await
}

/// Sees a bridged call to its end; returns once its slot is on the way back, or another socket
/// carries it on.
async fn see_out(
    gateway: &extract::Data<Gateway>,
    call: &CarrierCallId,
    campaign: Arc<Campaign>,
    bridged: impl Future<Output = Option<Bridged>>,
) -> Over {
    let (is_back, reason, destination) = match AssertUnwindSafe(bridged).catch_unwind().await {
        Ok(Some(Bridged {
            place,
            reason,
            destination,
        })) => (place.leave(reason), reason, destination),
        Ok(None) => {
            return Over {
                reason: EndReason::TakenOver,
                campaign,
                destination: None,
            };
        }
        Err(_) => {
            tracing::error!("a call panicked: this is a bug in callgate");
            (None, EndReason::Panicked, None)
        }
    };
    let onward = destination.as_ref().map(|destination| Onward {
        campaign: campaign.id.to_string(),
        destination: destination.to_string(),
    });
    if let Some(onward) = &onward {
        gateway.note_transfer(call, onward.clone());
    }
    gateway.ended(call, reason);
    let ended = Instant::now();
    tracing::info!(
        reason = reason.as_str(),
        blame = reason.blame().as_str(),
        "call ended"
    );
    // Once the socket closes, the carrier may ask any replica what the caller hears now. A store
    // that is slow is told all the same, while the socket closes.
    let (telling, told) = (gateway.clone(), call.clone());
    let telling = gateway.calls().spawn(timeout(TOLD_WITHIN, async move {
        if let Some(is_back) = is_back {
            let _ = is_back.await; // Whoever gives slots back may be gone, at process exit.
            telling
                .timeline
                .took(&told, Phase::Release, ended.elapsed());
        }
        if let Some(onward) = &onward {
            telling.tell_transfer(&told, onward).await;
        }
    }));
    let _ = timeout(NOTED_WITHIN, telling).await;
    Over {
        reason,
        campaign,
        destination,
    }
}

/// Bridges a call that was claimed; returns how it has ended, unless another socket has it.
async fn bridge(
    gateway: &extract::Data<Gateway>,
    socket: &mut MediaSocket,
    taken: Taken,
) -> Option<Bridged> {
    let Taken {
        call,
        campaign,
        claimed,
        overrides,
        longest,
        rang,
        mut place,
    } = taken;
    let noted = claimed.caller.as_deref();
    let Ringing {
        caller,
        agent,
        arriving,
        ..
    } = gateway.take_ringing(
        &call,
        (&claimed.agent, &overrides),
        &campaign,
        noted,
        socket.encoding(),
    );
    let brought = Brought {
        call: call.clone(),
        call_id: claimed.call,
        campaign: campaign.id.clone(),
        caller: caller.clone(),
    };
    #[cfg(test)]
    if call.as_str() == "CAended" {
        crate::outbound::hang_up(gateway, claimed.call, &call).await; // A test wants it.
    }
    let orders = place.enter(brought, claimed.slot);
    gateway.timeline.step(&call, What::Connected);
    if let Some(reason) = gateway.admission.ended_here(&call) {
        // Its carrier's word, or somebody's wish, came between the claim and the entry.
        return Some(Bridged::as_is(place, reason));
    }
    #[cfg(test)]
    assert!(call.as_str() != "CApanic", "a test wants it");
    socket.tell(State::Connected, &campaign.language);
    let encoding = socket.encoding();
    let terms = Terms {
        encoding,
        follows: socket.follows(),
        greets: agent.greets(),
        longest_call: longest,
    };
    let life = Life {
        call_id: claimed.call,
        agent_name: agent.kind().title(),
        health: Arc::clone(agent.health()),
        session: Session::new(socket.now(), terms),
        agent: AgentSeat::Awaited(arriving),
        line: Line::default(),
        consent: Consent::default(),
        began: socket.began(),
        rang: rang.saturating_sub(socket.now()),
        counted: gateway
            .metrics
            .calls
            .live(call.carrier().as_str(), campaign.id.as_str()),
        call,
        campaign,
        caller,
        place,
        orders,
    };
    live(gateway, socket, Box::new(life)).await
}

/// Runs a call over its socket. One that loses it waits for another, where there may be one.
async fn live(
    gateway: &extract::Data<Gateway>,
    socket: &mut MediaSocket,
    life: Box<Life>,
) -> Option<Bridged> {
    let encoding = socket.encoding();
    let Life {
        call,
        call_id,
        campaign,
        caller,
        agent_name,
        health,
        place,
        orders,
        session,
        agent,
        line,
        consent,
        began,
        rang,
        counted,
    } = *life;
    let surroundings = surroundings(gateway, &campaign, &call, call_id, &caller, encoding);
    let bridge = Bridge {
        call: &call,
        connection: place.id(),
        caller: &caller,
        agent_name,
        session,
        carrier: socket,
        agent,
        orders,
        timeline: &gateway.timeline,
        metrics: &gateway.metrics.calls,
        health: &health,
        pulse: place.pulse(),
        line,
        rang,
        delays: Delays::default(),
        filled: Duration::ZERO,
        marks: Marks::default(),
        tools: Workbench::new(&campaign, surroundings, consent),
    };
    let Parted {
        reason,
        may_go_on,
        destination,
        session,
        agent,
        orders,
        line,
        consent,
    } = bridge.run().await;
    if !may_go_on {
        dismiss(gateway, &call, began.elapsed(), agent);
        return Some(Bridged {
            place,
            reason,
            destination,
        });
    }
    tracing::warn!(reason = reason.as_str(), "a call has lost its media socket");
    let life = Box::new(Life {
        call,
        call_id,
        campaign,
        caller,
        agent_name,
        health,
        place,
        orders,
        session,
        agent,
        line,
        consent,
        began,
        rang,
        counted,
    });
    let (life, reason) = gateway.lost.keep(life, reason).await?;
    dismiss(gateway, &life.call, life.began.elapsed(), life.agent);
    Some(Bridged::as_is(life.place, reason))
}

/// Tells the agent of a call that `lasted` so long goodbye, for which nobody waits.
fn dismiss(
    gateway: &extract::Data<Gateway>,
    call: &CarrierCallId,
    lasted: Duration,
    agent: AgentSeat,
) {
    gateway.timeline.talked(call, lasted);
    gateway.metrics.calls.lasted(lasted);
    if let AgentSeat::Taken(agent) = agent {
        gateway.timeline.used(call, agent.usage(lasted));
        let metrics = &gateway.metrics.calls;
        metrics.frames_dropped(agent.dropped());
        metrics.garbled_by_agent(agent.garbled());
        gateway.calls().spawn_local(agent.close());
    }
}

/// Returns what the agent's tools work with.
fn surroundings<'a>(
    gateway: &'a Gateway,
    campaign: &'a Campaign,
    call: &'a CarrierCallId,
    call_id: CallId,
    caller: &CallerId,
    encoding: Encoding,
) -> Surroundings<'a> {
    let acs = gateway.acs.as_ref();
    let at_acs = acs.and_then(|acs| Some((acs, acs.connection(call)?)));
    let keypad = match (at_acs, caller) {
        (Some((acs, connection)), CallerId::Number(number)) => Keypad::Acs {
            client: &acs.client,
            connection,
            number: number.clone(),
        },
        _ => Keypad::Sounding(encoding),
    };
    Surroundings {
        call,
        call_id,
        keypad,
        http: gateway.guarded.of(&campaign.tenant),
        timeline: &gateway.timeline,
        metrics: &gateway.metrics.tools,
    }
}
