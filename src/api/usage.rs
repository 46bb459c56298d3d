//! What a tenant's calls have used up, day by day.

use std::collections::BTreeMap;

use actix_web::web::{Data, Json};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::Serialize;
use sqlx::{Row, any::AnyRow};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::{
        ApiError, Asked, Fields, FromFields, Query, Tenant, calls::TIME_RULE, document::Refusals,
        scope::UsageRead,
    },
    campaign::Name,
    gateway::Gateway,
    record::{Database, DatabaseError, Sql},
};

const DAY_MS: i64 = 86_400_000;
/// What is shown unless a time is asked for, in days.
const SHOWN_DAYS: i64 = 30;
/// The longest time that can be asked for, in days.
const MOST_DAYS: i64 = 366;
/// How many rows an answer has at most.
const MOST_ROWS: usize = 10_000;

/// Which usage to show.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// From the day (UTC) of this time on. Default: 30 days before `to`.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Calls that rang before this time. Default: now. At most 366 days after `from`.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Only this campaign's.
    #[param(value_type = Option<String>, pattern = "^[a-z0-9_-]{1,64}$")]
    campaign: Option<Name>,
}

/// What calls have used up.
#[derive(Serialize, ToSchema)]
pub struct UsageReport {
    #[schema(format = DateTime)]
    from: String,
    #[schema(format = DateTime)]
    to: String,
    usage: Vec<Used>,
}

/// What the calls of one campaign have used up that rang on one day.
#[derive(Default, Serialize, ToSchema)]
pub struct Used {
    /// A day of UTC.
    #[schema(format = Date)]
    pub day: String,
    pub campaign: String,
    pub calls: i64,
    /// Those of them that were refused.
    pub refused: i64,
    /// How long media was bridged.
    pub minutes: f64,
    pub tokens: Tokens,
    /// What agents cost, in millionths of the currency that the prices are in.
    pub cost_micros: i64,
}

/// What agents have read and written.
#[derive(Default, Serialize, ToSchema)]
pub struct Tokens {
    text_in: i64,
    audio_in: i64,
    /// The part of what went in that the agent had in its cache.
    cached_in: i64,
    text_out: i64,
    audio_out: i64,
}

/// Show what calls have used up, for each day and campaign.
#[utoipa::path(
    get, path = "/v1/usage", tag = "usage", operation_id = "show_usage",
    params(Wanted), security(("key" = ["usage:read"])),
    responses((status = 200, description = "What was used up", body = UsageReport), Refusals)
)]
pub async fn show(
    asked: Asked<UsageRead, Query<Wanted>>,
    gateway: Data<Gateway>,
) -> Result<Json<UsageReport>, ApiError> {
    let Query(wanted) = asked.input;
    let (from, to) = wanted.times(Timestamp::now())?;
    let database = &gateway.api.asking(asked.key.tenant())?;
    let tenant = Some(asked.key.tenant());
    let usage = used(database, tenant, from, to, wanted.campaign).await?;
    if usage.len() > MOST_ROWS {
        let rule = format!("there are more than {MOST_ROWS} rows: ask for a shorter time");
        return Err(ApiError::field("from", rule));
    }
    Ok(Json(UsageReport {
        from: from.to_string(),
        to: to.to_string(),
        usage,
    }))
}

impl Wanted {
    /// Returns the time that is asked about, which begins with a day.
    fn times(&self, now: Timestamp) -> Result<(Timestamp, Timestamp), ApiError> {
        let to = self.to.unwrap_or(now);
        let from = match self.from {
            Some(from) => from,
            None => to
                .checked_sub(SignedDuration::from_hours(24 * SHOWN_DAYS))
                .map_err(|_| ApiError::field("to", "too long ago"))?,
        };
        if from >= to {
            return Err(ApiError::field("from", "earlier than `to`"));
        }
        let first = from.as_millisecond() - from.as_millisecond().rem_euclid(DAY_MS);
        if to.as_millisecond() - first > MOST_DAYS * DAY_MS {
            let rule = format!("at most {MOST_DAYS} days before `to`");
            return Err(ApiError::field("from", rule));
        }
        let first = Timestamp::from_millisecond(first);
        Ok((
            first.map_err(|_| ApiError::field("from", "too long ago"))?,
            to,
        ))
    }
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self {
            from: fields.parsed("from", TIME_RULE)?,
            to: fields.parsed("to", TIME_RULE)?,
            campaign: fields.parsed("campaign", "a campaign's name: a-z, 0-9, - and _")?,
        })
    }
}

/// Returns what all tenants' calls have used up, from the day (UTC) on that is `days` before today's;
/// of more than 10,000 rows those of the latest days.
///
/// # Errors
/// If the database does not answer.
pub async fn used_by_all(database: &Database, days: i64) -> Result<Vec<Used>, DatabaseError> {
    let now = Timestamp::now();
    let first = (now.as_millisecond().div_euclid(DAY_MS) - days).saturating_mul(DAY_MS);
    let from = Timestamp::from_millisecond(first).unwrap_or_default();
    used(database, None, from, now, None).await
}

/// Returns what a tenant's calls have used up, or those of all of them.
async fn used(
    database: &Database,
    tenant: Option<&Tenant>,
    from: Timestamp,
    to: Timestamp,
    campaign: Option<Name>,
) -> Result<Vec<Used>, DatabaseError> {
    // Postgres makes a sum wider than what it sums up, and there is no wider number that both have.
    let calls = "SELECT c.rang_at / 86400000 AS day, c.campaign AS campaign, COUNT(*) AS calls, \
        CAST(SUM(CASE WHEN c.state = 'rejected_capacity' THEN 1 ELSE 0 END) AS BIGINT) AS refused, \
        CAST(SUM(COALESCE(c.talked_ms, 0)) AS BIGINT) AS talked_ms FROM calls c";
    let agents = "SELECT c.rang_at / 86400000 AS day, c.campaign AS campaign, \
        CAST(SUM(u.text_in) AS BIGINT) AS text_in, CAST(SUM(u.audio_in) AS BIGINT) AS audio_in, \
        CAST(SUM(u.cached_in) AS BIGINT) AS cached_in, \
        CAST(SUM(u.text_out) AS BIGINT) AS text_out, \
        CAST(SUM(u.audio_out) AS BIGINT) AS audio_out, \
        CAST(SUM(u.cost_micros) AS BIGINT) AS cost_micros \
        FROM calls c JOIN usage u ON u.call = c.call";
    let (first, end) = (from.as_millisecond(), to.as_millisecond());
    let tenant = tenant.cloned();
    let mut days: Vec<i64> = (0..=MOST_DAYS)
        .map(|day| first.saturating_add(day * DAY_MS))
        .take_while(|begins| *begins < end)
        .collect();
    if tenant.is_none() {
        days.reverse();
    }
    let question = move |select: &str, begins: i64| {
        let mut sql = Sql::new(select);
        let until = end.min(begins.saturating_add(DAY_MS));
        if let Some(tenant) = &tenant {
            sql.push(" WHERE c.tenant = ")
                .bind(tenant.as_str().to_owned());
        } else {
            // By the day, which there is an index of.
            sql.push(" WHERE c.rang_at / 86400000 = ")
                .bind(begins.div_euclid(DAY_MS));
        }
        sql.push(" AND c.rang_at >= ").bind(begins);
        sql.push(" AND c.rang_at < ").bind(until);
        if let Some(campaign) = &campaign {
            sql.push(" AND c.campaign = ").bind(campaign.to_string());
        }
        sql.push(" GROUP BY 1, 2 ORDER BY 1, 2 LIMIT ");
        sql.bind(i64::try_from(MOST_ROWS + 1).unwrap_or(i64::MAX));
        sql
    };
    let read = database.read(move |pool| async move {
        let mut rows = BTreeMap::new();
        // Day by day: a question that nobody waits for any more ends between two of them.
        for begins in days {
            if rows.len() > MOST_ROWS {
                break;
            }
            for row in question(calls, begins).read(&pool).await? {
                let used: &mut Used = entry(&mut rows, &row)?;
                used.calls = row.try_get("calls")?;
                used.refused = row.try_get("refused")?;
                used.minutes = minutes(row.try_get("talked_ms")?);
            }
            for row in question(agents, begins).read(&pool).await? {
                let used = entry(&mut rows, &row)?;
                used.tokens = Tokens {
                    text_in: row.try_get("text_in")?,
                    audio_in: row.try_get("audio_in")?,
                    cached_in: row.try_get("cached_in")?,
                    text_out: row.try_get("text_out")?,
                    audio_out: row.try_get("audio_out")?,
                };
                used.cost_micros = row.try_get("cost_micros")?;
            }
        }
        Ok(rows.into_values().collect())
    });
    read.await
}

/// Returns what a row's day and campaign have used, as far as it is known.
fn entry<'a>(
    rows: &'a mut BTreeMap<(i64, String), Used>,
    row: &AnyRow,
) -> Result<&'a mut Used, sqlx::Error> {
    let day: i64 = row.try_get("day")?;
    let campaign: Option<String> = row.try_get("campaign")?;
    let campaign = campaign.unwrap_or_default();
    Ok(rows.entry((day, campaign.clone())).or_insert_with(|| Used {
        day: date_of(day),
        campaign,
        ..Used::default()
    }))
}

/// Returns a day, counted from 1970, as JSON has it.
fn date_of(day: i64) -> String {
    let begins = Timestamp::from_millisecond(day.saturating_mul(DAY_MS)).unwrap_or_default();
    begins.to_zoned(TimeZone::UTC).date().to_string()
}

/// Returns milliseconds in minutes, to a hundredth.
fn minutes(milliseconds: i64) -> f64 {
    let hundredths = u32::try_from(milliseconds / 600).unwrap_or(u32::MAX);
    f64::from(hundredths) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(from: Option<&str>, to: Option<&str>) -> Result<(String, String), ApiError> {
        let time = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        let wanted = Wanted {
            from: time(from),
            to: time(to),
            campaign: None,
        };
        let now = "2026-03-31T12:00:00Z".parse().unwrap();
        let (from, to) = wanted.times(now)?;
        Ok((from.to_string(), to.to_string()))
    }

    #[test]
    fn usage_is_of_whole_days_and_within_a_year() {
        let now = "2026-03-31T12:00:00Z";
        let ok = |from: &str, to: &str| Ok((from.to_owned(), to.to_owned()));
        assert_eq!(times(None, None), ok("2026-03-01T00:00:00Z", now));
        let within = times(Some("2026-03-30T23:59:59+02:00"), None);
        assert_eq!(within, ok("2026-03-30T00:00:00Z", now));
        for (from, to) in [
            (Some(now), None),
            (Some("2024-03-31T12:00:00Z"), None),
            (None, Some("-009999-01-02T01:59:59Z")),
        ] {
            assert!(times(from, to).is_err(), "{from:?} {to:?}");
        }
        assert_eq!((minutes(90_000), minutes(599)), (1.5, 0.0));
        assert_eq!(date_of(20_513), "2026-03-01");
    }
}
