//! Somebody, or something, has picked up a call that we placed.

use std::{sync::Arc, time::Duration};

use actix_web::web;
use tokio::time::{Instant, timeout};

use crate::{
    admission::{Decision, Outgoing},
    answer::Answer,
    call::{CallId, CallerId, CarrierCallId, EndReason},
    campaign::{Campaign, Name},
    gateway::Gateway,
    outbound::{
        Marker, Overrides, WhenMachine, acs,
        ending::over,
        progress::DATABASE_WITHIN,
        rows::{self, Move, Row, Stage},
    },
    record::{Arrival, Direction, What},
    trace::Phase,
};

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
        Ok(Ok((true, Some(row)))) if !row.is_unwanted() => Some(row),
        // It is to be over, or a second one.
        Ok(Ok(_)) => return (Answer::HangUp, campaign),
        Ok(Err(_)) | Err(_) if gateway.is_called_off(call).await => {
            return (Answer::HangUp, campaign);
        }
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
        lasts_at_most: marker.seconds.map(Duration::from_secs),
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
