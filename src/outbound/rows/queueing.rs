//! There is room for a call: from here on it has a record, and a turn with its carrier.

use crate::{
    api::Change,
    call::CallerId,
    campaign::Name,
    outbound::{
        pace::{self, Pace, TooMany, Turn},
        rows::Row,
    },
    record::{Database, DatabaseError, Direction, KeptNumber, Numbers, Sql, State},
};

/// What came of queueing a call.
#[derive(Debug, Clone, Copy)]
pub enum Queued {
    At(Turn),
    /// Its turn would come too late.
    TooMany(TooMany),
    /// Nobody waits for it any more.
    Gone,
}

/// Queues a call that has a slot, with what its asker has changed by it: its record, its turn and
/// the change are written together, or nothing is.
///
/// # Errors
/// If the database does not answer; it may have been done then.
pub async fn queue(
    database: &Database,
    row: &Row,
    agent: &Name,
    change: Change,
    pace: Pace,
    numbers: &Numbers,
) -> Result<Queued, DatabaseError> {
    let kept = |number: &str| numbers.keep(&CallerId::read(number));
    let (caller, called) = (kept(&row.from), kept(&row.to));
    let (kind, row, agent) = (database.kind(), row.clone(), agent.to_string());
    let queue = database.write(move |writing| {
        Box::pin(async move {
            let turn = match pace::take(writing, kind, row.pending.carrier(), pace).await? {
                Ok(turn) => turn,
                Err(too_many) => return Ok(Queued::TooMany(too_many)),
            };
            let mut sql = Sql::new("UPDATE outbound SET state = 'queued', agent = ");
            sql.bind(agent)
                .push(" WHERE state = 'reserving' AND call = ");
            sql.bind(row.call.to_string());
            if sql.execute(writing).await? == 0 {
                return Ok(Queued::Gone);
            }
            record(&row, &caller, &called).execute(writing).await?;
            change.note(writing).await?;
            Ok(Queued::At(turn))
        })
    });
    queue.await
}

/// Returns the statement for a call's record.
fn record(row: &Row, caller: &KeptNumber, called: &KeptNumber) -> Sql {
    let mut sql = Sql::new(
        "INSERT INTO calls (call, carrier_call, carrier, direction, tenant, campaign, \
         caller, caller_shown, called, called_shown, state, rank, metadata, rang_at) VALUES ",
    );
    sql.rows(&[row], |fields, row| {
        fields
            .push(row.call.to_string())
            .push(row.pending.as_str().to_owned())
            .push(row.pending.carrier().as_str())
            .push(Direction::Outbound.as_str())
            .push(row.tenant.clone())
            .push(row.campaign.clone())
            .push(caller.found_by.clone())
            .push(caller.shown.clone())
            .push(called.found_by.clone())
            .push(called.shown.clone())
            .push(State::Queued.as_str())
            .push(State::Queued.rank())
            .push(serde_json::Value::from(row.terms.metadata.clone()).to_string())
            .push(row.created_at);
    });
    sql
}
