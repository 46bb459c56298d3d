//! A call comes along: from some states to another, to its name, and to its end.

use std::time::Duration;

use sqlx::Row as _;

use crate::{
    call::CallId,
    outbound::rows::{Row, Stage, push_columns, rows},
    record::{Database, DatabaseError, DatabaseKind, Sql, day},
};

/// A step of a call's, from some stages to another.
#[derive(Debug, Clone)]
pub struct Move {
    pub call: CallId,
    pub from: &'static [Stage],
    pub to: Stage,
    /// Whether the carrier is asked by it.
    pub dials: bool,
    /// How long it may ring from here on, if that is new.
    pub rings_for: Option<Duration>,
}

/// A call that is over by our word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Where it was before.
    pub was: Stage,
    /// Whether somebody wanted it to be over.
    pub called_off: bool,
}

/// Where a call is believed to be, and by whom.
#[derive(Debug, Clone)]
pub struct Belief {
    pub at: &'static [Stage],
    /// Who looks after it; `None` if it may be anybody.
    pub holder: Option<String>,
}

impl Move {
    pub fn new(call: CallId, from: &'static [Stage], to: Stage) -> Self {
        Self {
            call,
            from,
            to,
            dials: false,
            rings_for: None,
        }
    }
}

/// Moves a call on; tells whether it was where it was believed to be. One that was called off is not
/// asked for any more.
pub async fn advance(database: &Database, step: Move) -> Result<bool, DatabaseError> {
    let now = database.kind().clock();
    database
        .write(move |writing| {
            Box::pin(async move {
                let mut sql = Sql::new("UPDATE outbound SET state = ");
                sql.bind(step.to.as_str());
                if step.dials {
                    sql.push(", dialed_at = ").push(now);
                }
                if let Some(rings_for) = step.rings_for {
                    let rings_for = i64::try_from(rings_for.as_millis()).unwrap_or(i64::MAX);
                    sql.push(", rings_until = ").push(now).push(" + ");
                    sql.bind(rings_for);
                }
                sql.push(" WHERE call = ").bind(step.call.to_string());
                only_at(&mut sql, step.from);
                if step.to == Stage::Dialing || step.rings_for.is_some() {
                    sql.push(" AND called_off_at IS NULL");
                }
                Ok(sql.execute(writing).await? > 0)
            })
        })
        .await
}

/// Notes that somebody wants a call to be over that nobody has picked up, or of which the carrier's
/// name is not known yet; returns it as it stands, if it is one.
pub async fn call_off(database: &Database, call: CallId) -> Result<Option<Row>, DatabaseError> {
    let kind = database.kind();
    let write = database.write(move |writing| {
        Box::pin(async move {
            let mut sql = Sql::new("UPDATE outbound SET called_off_at = COALESCE(called_off_at, ");
            sql.push(kind.clock()).push(") WHERE call = ");
            sql.bind(call.to_string());
            sql.push(
                " AND state <> 'over' AND (state <> 'answered' OR carrier_call IS NULL) RETURNING ",
            );
            push_columns(&mut sql, kind);
            Ok(rows(writing, sql).await?.pop())
        })
    });
    write.await
}

/// Adds that a row is at one of these stages.
fn only_at(sql: &mut Sql, stages: &[Stage]) {
    sql.push(" AND state IN ")
        .list(stages.iter().map(|stage| stage.as_str()));
}

/// Notes that a call is over, and how long it has talked; returns where it was before, if that is
/// news. A `belief` that does not hold changes nothing. The call's numbers go: by then they are kept
/// as records have them, and here by a code.
pub async fn finish(
    database: &Database,
    call: CallId,
    belief: Option<Belief>,
    talked_ms: i64,
) -> Result<Option<Finished>, DatabaseError> {
    let kind = database.kind();
    let finish = database.write(move |writing| {
        Box::pin(async move {
            let mut sql = Sql::new("SELECT tenant, state, called_off_at, ");
            sql.push(kind.clock());
            sql.push(" AS now FROM outbound WHERE state <> 'over'");
            sql.push(" AND call = ").bind(call.to_string());
            if let Some(belief) = belief {
                if let Some(holder) = belief.holder {
                    sql.push(" AND holder = ").bind(holder);
                }
                only_at(&mut sql, belief.at);
            }
            if kind == DatabaseKind::Postgres {
                sql.push(" FOR UPDATE");
            }
            let open = sql.fetch_all(writing).await?;
            let Some(row) = open.first() else {
                return Ok(None);
            };
            let tenant: String = row.try_get("tenant")?;
            let was = Stage::read(&row.try_get::<String, _>("state")?);
            let called_off: Option<i64> = row.try_get("called_off_at")?;
            let now: i64 = row.try_get("now")?;
            let mut sql = Sql::new(
                "UPDATE outbound SET state = 'over', to_number = '', from_number = '' WHERE call = ",
            );
            sql.bind(call.to_string());
            sql.execute(writing).await?;
            if talked_ms > 0 {
                let mut sql =
                    Sql::new("INSERT INTO outbound_days (tenant, day, calls, talked_ms) VALUES (");
                sql.bind(tenant).push(", ").bind(day(now)).push(", 0, ");
                sql.bind(talked_ms);
                sql.push(
                    ") ON CONFLICT (tenant, day) DO UPDATE SET talked_ms = \
                     outbound_days.talked_ms + excluded.talked_ms",
                );
                sql.execute(writing).await?;
            }
            Ok(was.map(|was| Finished {
                was,
                called_off: called_off.is_some(),
            }))
        })
    });
    finish.await
}
