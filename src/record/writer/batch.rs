//! One transaction's worth of facts, as statements that two databases understand.

use std::collections::{HashMap, HashSet};

use sqlx::Row;

use crate::{
    call::{CallId, CarrierCallId},
    record::{
        Arrival, Entry, Fact, KeptNumber, Numbers, Sql, What,
        database::{MOST_VALUES, Writing},
        placed,
        row::CallRow,
        writer::announcing::{
            COLUMNS, CallFacts, Event, REFUSED, STARTED, Told, announce, last_words, messages,
        },
    },
};

/// How many values a row of `calls` has here.
const VALUES_OF_A_CALL: usize = 22;

/// Writes what `entries` say. Returns the calls among them that were let in and are over, if it is known
/// whose they are.
pub async fn write(
    writing: &mut Writing,
    entries: &[Entry],
    numbers: &Numbers,
    told: &dyn Told,
    replica: &str,
) -> Result<Vec<CarrierCallId>, sqlx::Error> {
    name_picked_up(writing, entries, told).await?;
    let entries = &by_their_names(writing, entries).await?[..];
    let rows = fold(entries);
    let mut known: HashMap<String, CallFacts> = HashMap::new();
    for part in rows.chunks(MOST_VALUES / VALUES_OF_A_CALL) {
        for row in upsert(part, numbers, replica).fetch_all(writing).await? {
            known.insert(row.try_get("carrier_call")?, CallFacts::read(&row)?);
        }
    }
    let call_of = |call: &CarrierCallId| {
        let known = known.get(call.as_str());
        known.map(|facts| facts.call.clone()).unwrap_or_default()
    };
    for statement in details(entries, call_of) {
        statement.execute(writing).await?;
    }
    let mut events = Vec::new();
    let mut with_messages: HashMap<&str, &CallFacts> = HashMap::new();
    for row in &rows {
        let Some(facts) = known.get(row.carrier_call.as_str()) else {
            continue;
        };
        events.extend(news(writing, row, facts).await?);
        // Another replica may have been told of a message before the call was known to be anybody's.
        if row.arrival.is_some() || row.has_messages {
            with_messages.insert(&facts.call, facts);
        }
    }
    events.extend(messages(writing, &with_messages).await?);
    announce(writing, &events, told).await?;
    let mut over = rows;
    over.retain(|row| {
        let facts = known.get(row.carrier_call.as_str());
        facts.is_some_and(|facts| facts.is_over && facts.tenant.is_some()) && !row.is_refused()
    });
    Ok(over.into_iter().map(|row| row.carrier_call).collect())
}

/// Gives calls that we placed, and that somebody has picked up, their carrier's names: whoever was
/// told of it could not wait for the database.
async fn name_picked_up(
    writing: &mut Writing,
    entries: &[Entry],
    told: &dyn Told,
) -> Result<(), sqlx::Error> {
    for entry in entries {
        let Fact::Arrived(arrival) = &entry.fact else {
            continue;
        };
        let Some(placed_as) = &arrival.placed_as else {
            continue;
        };
        let call = CallId::of(placed_as);
        placed::bind(writing, call, &entry.call, told).await?;
        if arrival.refused.is_none() {
            placed::answered(writing, call, &entry.call).await?;
        }
    }
    Ok(())
}

/// Has calls that we placed go by the names that their carriers have for them, as far as they are
/// known.
async fn by_their_names(
    writing: &mut Writing,
    entries: &[Entry],
) -> Result<Vec<Entry>, sqlx::Error> {
    let mut entries = entries.to_vec();
    let pending = entries.iter().filter(|entry| entry.call.is_pending());
    let pending: HashSet<&CarrierCallId> = pending.map(|entry| &entry.call).collect();
    let mut names: HashMap<CarrierCallId, CarrierCallId> = HashMap::new();
    for call in pending {
        let mut sql = Sql::new("SELECT carrier_call FROM calls WHERE call = ");
        sql.bind(CallId::of(call).to_string());
        for row in sql.fetch_all(writing).await? {
            let name: String = row.try_get("carrier_call")?;
            names.extend(CarrierCallId::try_from(name).map(|name| (call.clone(), name)));
        }
    }
    for entry in &mut entries {
        if let Some(name) = names.get(&entry.call) {
            entry.call = name.clone();
        }
    }
    Ok(entries)
}

/// Brings all that a batch says of each call together; calls in the order in which they come.
fn fold(entries: &[Entry]) -> Vec<CallRow> {
    let mut rows: Vec<CallRow> = Vec::new();
    let mut places: HashMap<&CarrierCallId, usize> = HashMap::new();
    for entry in entries {
        let place = *places.entry(&entry.call).or_insert_with(|| {
            rows.push(CallRow::new(entry.call.clone(), entry.at));
            rows.len() - 1
        });
        rows[place].learn(entry.at, &entry.fact);
    }
    // Replicas that write the same rows at the same time do so in the same order.
    rows.sort_by(|one, other| one.carrier_call.cmp(&other.carrier_call));
    rows
}

fn upsert(rows: &[CallRow], numbers: &Numbers, replica: &str) -> Sql {
    let mut sql = Sql::new(
        "INSERT INTO calls (call, carrier_call, carrier, direction, tenant, campaign, agent, caller, \
         caller_shown, called, called_shown, state, rank, reason, blame, scope, offered, rang_at, \
         connected_at, ended_at, talked_ms, replica) VALUES ",
    );
    sql.rows(rows, |fields, row| {
        let arrival: Option<&Arrival> = row.arrival.as_deref();
        let name = |name: fn(&Arrival) -> String| arrival.map(name);
        let kept = |who: fn(&Arrival) -> &crate::call::CallerId| {
            arrival.map(|arrival| numbers.keep(who(arrival)))
        };
        let (caller, called) = (kept(|it| &it.caller), kept(|it| &it.called));
        let found_by = |kept: &Option<KeptNumber>| kept.as_ref()?.found_by.clone();
        let shown = |kept: &Option<KeptNumber>| kept.as_ref().map(|kept| kept.shown.clone());
        fields
            .push(row.call().to_string())
            .push(row.carrier_call.as_str().to_owned())
            .push(row.carrier_call.carrier().as_str())
            .push(row.direction().as_str())
            .push(name(|it| it.tenant.to_string()))
            .push(name(|it| it.campaign.to_string()))
            .push(arrival.and_then(|it| it.agent.as_ref().map(ToString::to_string)))
            .push(found_by(&caller))
            .push(shown(&caller))
            .push(found_by(&called))
            .push(shown(&called))
            .push(row.state.as_str())
            .push(row.state.rank())
            .push(row.reason.clone())
            .push(row.blame)
            .push(row.scope.clone())
            .push(row.offered)
            .push(millis(row.rang_at))
            .push(row.connected_at.map(millis))
            .push(row.ended_at.map(millis))
            .push(row.talked_ms)
            .push(row.is_owned.then(|| replica.to_owned()));
    });
    sql.push(" ON CONFLICT (carrier_call) DO UPDATE SET ");
    sql.push(MERGED).push(" RETURNING ").push(COLUMNS);
    sql
}

/// What becomes of a row of `calls` to which another one's (`excluded`) is added: what is blank is
/// filled in, and a state gives way to a later one.
pub const MERGED: &str = "tenant = COALESCE(calls.tenant, excluded.tenant), \
    campaign = COALESCE(calls.campaign, excluded.campaign), \
    agent = COALESCE(calls.agent, excluded.agent), \
    caller = COALESCE(calls.caller, excluded.caller), \
    caller_shown = COALESCE(calls.caller_shown, excluded.caller_shown), \
    called = COALESCE(calls.called, excluded.called), \
    called_shown = COALESCE(calls.called_shown, excluded.called_shown), \
    state = CASE WHEN excluded.rank > calls.rank THEN excluded.state ELSE calls.state END, \
    rank = CASE WHEN excluded.rank > calls.rank THEN excluded.rank ELSE calls.rank END, \
    reason = CASE WHEN excluded.rank > calls.rank THEN excluded.reason ELSE calls.reason END, \
    blame = CASE WHEN excluded.rank > calls.rank THEN excluded.blame ELSE calls.blame END, \
    scope = CASE WHEN excluded.rank > calls.rank THEN excluded.scope ELSE calls.scope END, \
    offered = COALESCE(calls.offered, excluded.offered), \
    rang_at = CASE WHEN excluded.rang_at < calls.rang_at THEN excluded.rang_at \
        ELSE calls.rang_at END, \
    connected_at = COALESCE(calls.connected_at, excluded.connected_at), \
    ended_at = CASE WHEN excluded.rank > calls.rank \
        THEN COALESCE(excluded.ended_at, calls.ended_at) \
        ELSE COALESCE(calls.ended_at, excluded.ended_at) END, \
    talked_ms = COALESCE(calls.talked_ms, excluded.talked_ms), \
    replica = CASE WHEN excluded.replica IS NOT NULL AND excluded.rank >= calls.rank \
        THEN excluded.replica ELSE calls.replica END";

/// Returns the statements for what a call has beside its row.
fn details(entries: &[Entry], call_of: impl Fn(&CarrierCallId) -> String) -> Vec<Sql> {
    let (mut steps, mut words) = (Vec::new(), Vec::new());
    let (mut usage, mut recordings) = (Vec::new(), Vec::new());
    for entry in entries {
        match &entry.fact {
            Fact::Happened(What::Said { who, text }) => words.push((entry, *who, text)),
            Fact::Happened(what) => {
                if let Some(name) = what.name() {
                    steps.push((entry, name, what.details().map(|it| it.to_string())));
                }
                if let What::LeftMessage(recording) = what {
                    recordings.push((entry, recording));
                }
            }
            Fact::Used(used) => usage.push((entry, used)),
            Fact::Arrived(arrival) => {
                if let Some(name) = arrival.what().name() {
                    steps.push((entry, name, arrival.details().map(|it| it.to_string())));
                }
            }
            // The row says it all.
            Fact::Lost { .. } | Fact::Talked(_) => {}
        }
    }
    let mut statements = Vec::new();
    if !steps.is_empty() {
        let mut sql = Sql::new("INSERT INTO steps (step, call, at, what, details) VALUES ");
        sql.rows(&steps, |fields, (entry, name, details)| {
            let details = details.clone();
            of(fields, entry, &call_of).push(*name).push(details);
        });
        statements.push(sql);
    }
    if !words.is_empty() {
        let mut sql = Sql::new("INSERT INTO words (step, call, at, who, text) VALUES ");
        sql.rows(&words, |fields, (entry, who, text)| {
            of(fields, entry, &call_of)
                .push(who.as_str())
                .push((*text).clone());
        });
        statements.push(sql);
    }
    if !usage.is_empty() {
        let mut sql = Sql::new(
            "INSERT INTO usage (step, call, at, agent, model, text_in, audio_in, cached_in, \
             text_out, audio_out, seconds, cost_micros) VALUES ",
        );
        sql.rows(&usage, |fields, (entry, used)| {
            of(fields, entry, &call_of)
                .push(used.agent.to_string())
                .push(used.model.clone())
                .push(millis(used.text_in))
                .push(millis(used.audio_in))
                .push(millis(used.cached_in))
                .push(millis(used.text_out))
                .push(millis(used.audio_out))
                .push(millis(used.lasted.as_secs()))
                .push(millis(used.cost_micros));
        });
        statements.push(sql);
    }
    if !recordings.is_empty() {
        let mut sql =
            Sql::new("INSERT INTO recordings (call, at, recording, url, seconds) VALUES ");
        sql.rows(&recordings, |fields, (entry, recording)| {
            fields
                .push(call_of(&entry.call))
                .push(millis(entry.at))
                .push(recording.id.as_str().to_owned())
                .push(recording.url.as_str().to_owned())
                .push(millis(recording.duration.as_secs()));
        });
        statements.push(sql);
    }
    for statement in &mut statements {
        statement.push(" ON CONFLICT DO NOTHING");
    }
    statements
}

fn of<'a, 'b>(
    fields: &'a mut crate::record::Fields<'b>,
    entry: &Entry,
    call_of: &impl Fn(&CarrierCallId) -> String,
) -> &'a mut crate::record::Fields<'b> {
    fields
        .push(entry.id.to_string())
        .push(call_of(&entry.call))
        .push(millis(entry.at))
}

/// Returns what a tenant is to be told because of what a batch said of a call. One that we place
/// begins to be a call when somebody picks it up: it has arrived then.
async fn news(
    writing: &mut Writing,
    row: &CallRow,
    facts: &CallFacts,
) -> Result<Vec<Event>, sqlx::Error> {
    let mut news = Vec::new();
    if let Some(arrival) = &row.arrival {
        let at = row.arrived_at.unwrap_or(row.rang_at);
        match &arrival.refused {
            None => news.extend(facts.event(STARTED, at)),
            Some(_) if facts.was_refused() => news.extend(facts.event(REFUSED, at)),
            Some(_) => {} // It had ended before that was known.
        }
    }
    // The row may have ended before anybody knew whose call it was.
    if facts.is_over && (row.arrival.is_some() || row.ended_at.is_some()) {
        let at = row.ended_at.unwrap_or(row.rang_at);
        news.extend(last_words(writing, facts, at).await?);
    }
    Ok(news)
}

fn millis(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
