//! What becomes of a call once its carrier may have it: told by the carrier, or asked of it.

use std::{error::Error, sync::Arc, time::Duration};

use actix_web::web;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    admission::{Decision, Ended, Outgoing},
    answer::Answer,
    call::{CallId, CallerId, Carrier, CarrierCallId, EndReason},
    campaign::{Campaign, Name},
    carrier::twilio::Listed,
    gateway::Gateway,
    outbound::{
        Marker, Overrides, WhenMachine, acs,
        place::now,
        rows::{self, Belief, Move, Row, Stage},
    },
    record::{Arrival, Direction, What},
    trace::Phase,
};

/// How long a webhook waits for the database: the call goes on without it.
pub const DATABASE_WITHIN: Duration = Duration::from_millis(800);
/// When a call is looked for that the carrier may have placed: its own word comes first, mostly.
const LOOKS: [Duration; 4] = [
    Duration::from_secs(3),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(15),
];
/// How long a carrier that cannot say what became of a call is asked, once it can ring no more.
pub const UNTOLD_AFTER: Duration = Duration::from_secs(15 * 60);
/// Where a call is that the carrier may have placed.
pub const MAY_BE_PLACED: &[Stage] = &[Stage::Dialing, Stage::Unknown];
/// By how much the carrier's clock may be behind ours.
const SKEW_MS: i64 = 5_000;

/// How a call comes along, as its carrier tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is on its way, and not over.
    Waiting,
    Rings,
    Answered,
    /// It is over without anybody having picked up.
    Unanswered(EndReason),
    Completed,
}

impl Progress {
    /// Reads Twilio's word: twilio.com/docs/voice/twiml#callstatus-values.
    pub fn read(status: &str) -> Self {
        match status {
            "ringing" => Self::Rings,
            "in-progress" | "answered" => Self::Answered,
            "completed" => Self::Completed,
            "busy" => Self::Unanswered(EndReason::Busy),
            "no-answer" => Self::Unanswered(EndReason::NoAnswer),
            "canceled" => Self::Unanswered(EndReason::Canceled),
            "failed" => Self::Unanswered(EndReason::NotPlaced),
            _ => Self::Waiting,
        }
    }
}

/// Notes what the carrier calls a call. One that was ended meanwhile, or that has another name, is
/// ended at the carrier.
pub async fn named(gateway: &web::Data<Gateway>, row: &Row, name: &CarrierCallId) {
    acs::know(gateway, name);
    gateway.timeline.named(name, row.call);
    let bound = gateway.records.name_placed(row.call, name).await;
    gateway.admission.named(&row.pending, name).await;
    let is_wanted = match bound {
        Ok(true) => {
            let found = rows::find(&gateway.records.database, row.call).await;
            !matches!(found, Ok(Some(row)) if row.stage == Stage::Over)
        }
        Ok(false) => {
            tracing::error!(carrier_call.id = %name, "a call has two names: one is ended");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "the name of a call is not noted yet");
            true
        }
    };
    if !is_wanted {
        end_at_carrier(gateway, name).await;
    }
}

/// Has a call be over that is not placed, or not picked up, as we judge and nobody has told us: only
/// if this replica looks after it and it is still `at` one of these stages. Tells whether it is over
/// by that. While the database is away nothing is judged: whoever looks after the call does so later.
pub async fn fail(
    gateway: &web::Data<Gateway>,
    row: &Row,
    at: &'static [Stage],
    reason: EndReason,
) -> bool {
    let belief = Belief {
        at,
        holder: gateway.admission.replica().to_owned(),
    };
    let database = &gateway.records.database;
    match rows::finish(database, row.call, Some(belief), 0, now()).await {
        Ok(Some(_)) => {
            let admission = &gateway.admission;
            admission.unplaced(&row.pending, reason).await;
            if let Some(name) = &row.carrier_call {
                admission.unplaced(name, reason).await;
            }
            gateway.ended(row.carrier_call.as_ref().unwrap_or(&row.pending), reason);
            true
        }
        Ok(None) => {
            tracing::debug!("a call that was to fail has come along, or is another's");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "the end of a call is not noted yet");
            false
        }
    }
}

/// Has a call be over, as its carrier says or as somebody wants, wherever it stands; gives back
/// whatever it held by either of its names. `talked` if somebody has picked it up.
pub async fn over(
    gateway: &web::Data<Gateway>,
    call: CallId,
    pending: &CarrierCallId,
    name: Option<&CarrierCallId>,
    reason: EndReason,
    talked: Option<Duration>,
) {
    if let Some(name) = name {
        gateway.timeline.named(name, call);
    }
    gateway.admission.unplaced(pending, reason).await;
    let database = &gateway.records.database;
    let was_picked_up = {
        let found = timeout(DATABASE_WITHIN, rows::find(database, call)).await;
        matches!(found, Ok(Ok(Some(row))) if row.stage == Stage::Answered)
    };
    if let Some(name) = name {
        if was_picked_up {
            gateway.carrier_ended(name, false).await;
        } else {
            gateway.admission.unplaced(name, reason).await;
        }
    }
    let talked = talked.unwrap_or_default().as_millis();
    let finished = rows::finish(
        database,
        call,
        None,
        i64::try_from(talked).unwrap_or(0),
        now(),
    );
    match finished.await {
        // Whoever carries a call that was picked up counts its end.
        Ok(None | Some(Stage::Answered | Stage::Over)) => {}
        Ok(Some(_)) => gateway.ended(name.unwrap_or(pending), reason),
        Err(error) => tracing::warn!(%error, "the end of a call is not noted yet"),
    }
}

/// Looks for a call that the carrier may have placed, until it is found, has told of itself, or
/// cannot ring any more. It is never asked for again.
pub async fn reconcile(gateway: &web::Data<Gateway>, call: CallId) {
    let mut looks = LOOKS.into_iter();
    loop {
        sleep(looks.next().unwrap_or(LOOKS[LOOKS.len() - 1])).await;
        if look_once(gateway, call).await {
            return;
        }
    }
}

/// Looks for a call that the carrier may have placed; tells whether there is no more to look for.
/// Only a carrier that has said so, once the call cannot ring any more, has it fail, or one that
/// says nothing for far too long.
pub async fn look_once(gateway: &web::Data<Gateway>, call: CallId) -> bool {
    // What the database says, for it is there that the time of dialing is noted.
    let row = match rows::find(&gateway.records.database, call).await {
        Ok(Some(row)) if MAY_BE_PLACED.contains(&row.stage) => row,
        Ok(known) => {
            // It has told of itself, perhaps to another replica: its slot goes by that name.
            if let Some(row) = known
                && let Some(name) = &row.carrier_call
            {
                gateway.admission.named(&row.pending, name).await;
            }
            return true;
        }
        Err(_) => return false,
    };
    if row.pending.carrier() == Carrier::Acs {
        return acs::look_once(gateway, &row).await;
    }
    match look_for(gateway, &row).await {
        Ok(Some(found)) => {
            tracing::info!(carrier_call.id = %found.call, "found a call that was placed after all");
            named(gateway, &row, &found.call).await;
            apply(gateway, &row, &found).await;
            true
        }
        Ok(None) if row.rings_until.is_none_or(|until| until < now()) => {
            tracing::warn!("a call was not placed, as far as the carrier says");
            fail(gateway, &row, MAY_BE_PLACED, EndReason::NotPlaced).await;
            true
        }
        Ok(None) => false,
        Err(error) if is_untold(&row, Duration::ZERO) => {
            tracing::warn!(
                error,
                "a call's fate cannot be told: Twilio lists no calls. It counts as failed; Twilio's \
                 own log says whether it was placed"
            );
            fail(gateway, &row, MAY_BE_PLACED, EndReason::Untold).await;
            true
        }
        Err(error) => {
            tracing::debug!(%error, "cannot look for a call");
            false
        }
    }
}

/// Tells whether a call has been over for so long, if it rang for as long as it may and then lasted
/// as long as this, that its carrier is not waited for any more.
pub fn is_untold(row: &Row, lasts: Duration) -> bool {
    let wait = i64::try_from((lasts + UNTOLD_AFTER).as_millis()).unwrap_or(i64::MAX);
    let over_at = row.rings_until.unwrap_or(row.created_at);
    over_at.saturating_add(wait) < now()
}

/// Asks the carrier for calls between the two numbers that it was asked for since, and that are
/// nobody's yet: a number is called once at a time, so there is one at most.
async fn look_for(
    gateway: &web::Data<Gateway>,
    row: &Row,
) -> Result<Option<Listed>, Box<dyn Error + Send + Sync>> {
    let Some(twilio) = &gateway.outbound.twilio else {
        return Ok(None); // There is nobody to ask, and nobody who would place another.
    };
    let mut listed = twilio.list(&row.to, &row.from).await?;
    let since = row.dialed_at.unwrap_or(row.created_at) - SKEW_MS;
    listed.retain(|it| it.created_at.is_none_or(|at| at >= since));
    let names = listed.iter().map(|it| it.call.clone()).collect();
    let known = rows::known(&gateway.records.database, names).await?;
    listed.retain(|it| !known.iter().any(|known| known == it.call.as_str()));
    Ok(listed.pop()) // The oldest.
}

/// Takes in how a call stands that was asked for.
pub async fn apply(gateway: &web::Data<Gateway>, row: &Row, found: &Listed) {
    let reason = match Progress::read(&found.status) {
        Progress::Waiting | Progress::Rings | Progress::Answered => return,
        Progress::Unanswered(reason) => reason,
        Progress::Completed => EndReason::CarrierEnded,
    };
    over(
        gateway,
        row.call,
        &row.pending,
        Some(&found.call),
        reason,
        None,
    )
    .await;
}

/// Takes in what the carrier tells of a call.
pub async fn progressed(
    gateway: &web::Data<Gateway>,
    marker: &Marker,
    name: &CarrierCallId,
    progress: Progress,
    lasted: Option<Duration>,
) {
    let Ok(pending) = CarrierCallId::try_from(marker.pending.clone()) else {
        return;
    };
    let call = CallId::of(&pending);
    let bound = timeout(DATABASE_WITHIN, gateway.records.name_placed(call, name));
    if matches!(bound.await, Ok(Ok(false))) {
        tracing::error!(carrier_call.id = %name, "the carrier tells of a second call");
        end_at_carrier(gateway, name).await;
        return;
    }
    gateway.admission.named(&pending, name).await;
    match progress {
        Progress::Waiting | Progress::Answered => {}
        Progress::Rings => gateway.timeline.step(name, What::Rings),
        Progress::Unanswered(reason) => {
            over(gateway, call, &pending, Some(name), reason, None).await;
        }
        Progress::Completed => {
            let ended = EndReason::CarrierEnded;
            over(gateway, call, &pending, Some(name), ended, lasted).await;
        }
    }
}

/// Somebody, or something, has picked up: decides what the carrier does.
pub async fn picked_up(
    gateway: &web::Data<Gateway>,
    marker: &Marker,
    name: &CarrierCallId,
    callee: &CallerId,
    answered_by: Option<&str>,
) -> (Answer, Arc<Campaign>) {
    let began = Instant::now();
    let campaigns = gateway.campaigns.current();
    let campaign = campaigns.named(&marker.campaign);
    let campaign = campaign.unwrap_or_else(|| Arc::clone(campaigns.default_campaign()));
    let Ok(pending) = CarrierCallId::try_from(marker.pending.clone()) else {
        return (Answer::HangUp, campaign);
    };
    let call = CallId::of(&pending);
    let database = &gateway.records.database;
    let noted = timeout(DATABASE_WITHIN, async {
        let is_ours = gateway.records.name_placed(call, name).await?;
        let row = rows::find(database, call).await?;
        Ok::<_, crate::record::DatabaseError>((is_ours, row))
    });
    let row = match noted.await {
        Ok(Ok((true, Some(row)))) if row.stage != Stage::Over => Some(row),
        Ok(Ok(_)) => return (Answer::HangUp, campaign), // It is over, or a second one.
        Ok(Err(_)) | Err(_) => None, // Somebody is on the line: they matter more.
    };
    let is_machine = answered_by.is_some_and(|who| who.starts_with("machine"));
    let is_fax = answered_by == Some("fax");
    if is_fax || is_machine && marker.when_machine == WhenMachine::HangUp {
        let reason = EndReason::MachineAnswered;
        over(gateway, call, &pending, Some(name), reason, None).await;
        return (Answer::HangUp, campaign);
    }
    let fallback = || campaign.agent.clone();
    let agent: Name = marker.agent.parse().unwrap_or_else(|_| fallback());
    let ready = gateway.readiness(&campaign);
    let outgoing = Outgoing {
        call,
        pending: &pending,
        to: callee,
        campaign: &campaign,
    };
    let decision = gateway
        .admission
        .pick_up(&outgoing, name, &agent, &campaigns, &ready)
        .await;
    let answer = match decision {
        Decision::Admit {
            ticket,
            agent,
            first,
            ..
        } => {
            if first {
                let arrival = arrival(row.as_ref(), &pending, callee, &campaign);
                let talks = Some(agent.clone());
                let arrival = Arrival {
                    agent: talks,
                    ..arrival
                };
                gateway.timeline.arrived(name, arrival);
                gateway.metrics.started();
                gateway.timeline.step(name, What::PickedUp);
                if ready.dials {
                    let overrides = row.map(|row| row.terms.overrides).unwrap_or_default();
                    let encoding = acs::encoding(gateway, name);
                    gateway.call_agent(name, callee, &agent, &overrides, &campaign, encoding);
                }
                // After that: ACS may bring the media at the same time, which would find no agent.
                // Should it fail, the arrival says it once it is written.
                let stages = &[Stage::Queued, Stage::Dialing, Stage::Unknown, Stage::Placed];
                let step = Move::new(call, stages, Stage::Answered);
                let _ = timeout(DATABASE_WITHIN, rows::advance(database, step)).await;
            }
            Answer::Connect {
                stream_url: gateway.public.media.clone(),
                action_url: gateway.public.stream_ended.clone(),
                ticket,
            }
        }
        Decision::Refuse { refusal, first } => {
            if first {
                let scope = refusal.scope.kind();
                gateway.metrics.refused(scope, refusal.reason.as_str());
                let arrival = arrival(row.as_ref(), &pending, callee, &campaign);
                let refused = Some(refusal);
                gateway
                    .timeline
                    .arrived(name, Arrival { refused, ..arrival });
            }
            Answer::Apology
        }
        Decision::Ended => return (Answer::HangUp, campaign),
    };
    gateway.timeline.took(name, Phase::PickUp, began.elapsed());
    (answer, campaign)
}

/// Returns who was called, and by which number as far as the row is known.
fn arrival(
    row: Option<&Row>,
    pending: &CarrierCallId,
    callee: &CallerId,
    campaign: &Campaign,
) -> Arrival {
    Arrival {
        direction: Direction::Outbound,
        tenant: campaign.tenant.clone(),
        campaign: campaign.id.clone(),
        agent: None,
        caller: row.map_or(CallerId::Withheld, |row| CallerId::read(&row.from)),
        called: callee.clone(),
        refused: None,
        placed_as: Some(pending.clone()),
        seen: None,
    }
}

/// Returns what a call's agent does otherwise than its campaign's, as far as the database says so in
/// time.
pub async fn overrides_of(gateway: &Gateway, call: CallId) -> Overrides {
    let found = timeout(DATABASE_WITHIN, rows::find(&gateway.records.database, call));
    match found.await {
        Ok(Ok(Some(row))) => row.terms.overrides,
        Ok(Ok(None) | Err(_)) | Err(_) => Overrides::default(),
    }
}

/// Ends a call, whoever has begun it and whichever replica carries it: told to the store and to the
/// carrier. `call` is our name for it, `name` its carrier's.
pub async fn hang_up(gateway: &web::Data<Gateway>, call: CallId, name: &CarrierCallId) {
    let database = &gateway.records.database;
    gateway.timeline.named(name, call);
    let row = rows::find(database, call).await.ok().flatten();
    match row {
        Some(row) if row.stage != Stage::Answered && row.stage != Stage::Over => {
            let (pending, name) = (&row.pending, row.carrier_call.as_ref());
            over(gateway, call, pending, name, EndReason::Canceled, None).await;
            // It may have got its name meanwhile. One that has none yet is ended when it gets one.
            let found = rows::find(database, call).await.ok().flatten();
            if let Some(name) = found.unwrap_or(row).carrier_call {
                acs::know(gateway, &name);
                gateway.admission.unplaced(&name, EndReason::Canceled).await;
                end_at_carrier(gateway, &name).await;
            }
        }
        placed => {
            if placed.is_some() {
                acs::know(gateway, name);
            }
            let requested = Ended {
                live: EndReason::Requested,
                waiting: EndReason::Requested,
                unanswered: false,
            };
            gateway.dismiss_agent(name);
            gateway.connections.end(name, EndReason::Requested);
            if gateway.admission.end(name, requested).await {
                gateway.ended(name, EndReason::Requested);
            }
            end_at_carrier(gateway, name).await;
        }
    }
}

async fn end_at_carrier(gateway: &web::Data<Gateway>, name: &CarrierCallId) {
    match name.carrier() {
        Carrier::Twilio => {
            let Some(twilio) = &gateway.outbound.twilio else {
                return;
            };
            if name.is_pending() {
                return;
            }
            // It bears being asked twice.
            if twilio.end(name).await.is_err()
                && let Err(error) = twilio.end(name).await
            {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, carrier_call.id = %name, "Twilio does not end a call");
            }
        }
        Carrier::Acs => gateway.hang_up_acs(name),
        Carrier::Web => {}
    }
}
