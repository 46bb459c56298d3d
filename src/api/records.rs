//! Deleting what is known of a tenant's calls, before their time is over.

use std::time::Duration;

use actix_web::web::{Data, Json};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::{
        Action, ApiError, Asked, Change, Fields, FromFields, Query, RequestId,
        calls::{NUMBER_RULE, TIME_RULE, not_findable, whole_id},
        document::Refusals,
        scope::RecordsDelete,
    },
    call::{CarrierCallId, WholeId},
    gateway::Gateway,
    record::{Database, DatabaseError, Doomed, PAUSE, count_open, erase_some},
};

/// How long a request goes on to delete.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to delete.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Calls from or to this number, all of it, in E.164 form, or address (`sip:…`, `client:…`). Either
    /// this or `before`.
    #[param(schema_with = whole_id)]
    number: Option<WholeId>,
    /// Calls that rang before this time. Either this or `number`.
    #[param(value_type = Option<String>, format = DateTime)]
    before: Option<Timestamp>,
}

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Deleted {
    /// How many calls are gone, with all that belonged to them.
    pub calls: usize,
    /// How many of them are not over, and are there until they are; at most 1,000.
    pub open: usize,
    /// Whether none is left. If not, ask again: at once, or once the open ones are over.
    pub is_complete: bool,
}

/// Delete calls that are over, with all that belongs to them, by number or by age.
#[utoipa::path(
    delete, path = "/v1/records", tag = "records", operation_id = "delete_records",
    params(Wanted), security(("key" = ["records:delete"])),
    responses((status = 200, description = "What was deleted", body = Deleted), Refusals)
)]
pub async fn delete(
    asked: Asked<RecordsDelete, Query<Wanted>>,
    request: RequestId,
    gateway: Data<Gateway>,
) -> Result<Json<Deleted>, ApiError> {
    let Query(wanted) = asked.input;
    let tenant = Some(asked.key.tenant().name().clone());
    let (doomed, target) = match (wanted.number, wanted.before) {
        (Some(number), None) => {
            let all = gateway.records.numbers.all_found_by(number.reveal());
            if all.is_empty() {
                return Err(not_findable());
            }
            let doomed = Doomed::of_number(tenant, all);
            (doomed, format!("number {number}")) // Masked, as everywhere.
        }
        (None, Some(before)) => {
            let doomed = Doomed::before(tenant, before.as_millisecond());
            (doomed, format!("before {before}"))
        }
        (None, None) => return Err(ApiError::field("number", "either number or before")),
        (Some(_), Some(_)) => return Err(ApiError::field("before", "not beside number")),
    };
    let change = Change::by_key(&asked.key, &request, Action::DeleteRecords, &target);
    let _turn = gateway.api.turn(asked.key.tenant())?;
    let erased = erase(&gateway.records.database, &doomed, change, PATIENCE).await;
    gateway.admission.written(&erased.names).await;
    Ok(Json(erased.deleted?))
}

/// What was deleted, and how carriers called it: also where the database has not answered to the end.
#[derive(Debug)]
pub struct Erased {
    pub deleted: Result<Deleted, DatabaseError>,
    pub names: Vec<CarrierCallId>,
}

/// Deletes in small transactions, each of which also notes what the change has come to, until all
/// is gone or `patience` is over. Where there is nothing to delete, nothing has changed.
pub async fn erase(
    database: &Database,
    doomed: &Doomed,
    change: Change,
    patience: Duration,
) -> Erased {
    let until = Instant::now() + patience;
    let (mut calls, mut names) = (0, Vec::new());
    loop {
        let (doomed, change) = (doomed.clone(), change.clone());
        let write = database.write(move |writing| {
            Box::pin(async move {
                let gone = erase_some(writing, &doomed).await?;
                if gone.is_empty() {
                    return Ok((gone, count_open(writing, &doomed).await?));
                }
                let became = json!({"calls": calls + gone.len()});
                change.became(became).note(writing).await?;
                Ok((gone, 0))
            })
        });
        let (gone, open) = match write.await {
            Ok(done) => done,
            Err(error) => {
                let deleted = Err(error);
                return Erased { deleted, names };
            }
        };
        calls += gone.len();
        let is_done = gone.is_empty();
        names.extend(gone.into_iter().flat_map(CarrierCallId::try_from));
        if is_done || Instant::now() > until {
            let deleted = Deleted {
                calls,
                open,
                is_complete: is_done && open == 0,
            };
            let deleted = Ok(deleted);
            return Erased { deleted, names };
        }
        sleep(PAUSE).await;
    }
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self {
            number: fields.parsed("number", NUMBER_RULE)?,
            before: fields.parsed("before", TIME_RULE)?,
        })
    }
}
