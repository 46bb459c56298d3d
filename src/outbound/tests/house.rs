//! A gateway that places calls, over a fake Twilio and a database of its own.

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::{
    Config, Running,
    admission::redis_server::free_port,
    api::{Action, Change},
    fake_twilio::{Customer, FakeTwilio, FakeTwilioOptions, Talk},
    outbound::pace::Pace,
    record::unix_millis_i64,
    simulate::{script::Script, voice::Voices},
};

#[path = "../../../tests/it/database.rs"]
mod database;

use self::database::Database;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const ACCOUNT: &str = "AC00000000000000000000000000000001";

/// A gateway whose agent is a parrot, and the Twilio that it asks for calls.
pub struct House {
    pub twilio: FakeTwilio,
    pub running: Running,
    pub database: Database,
}

impl House {
    pub async fn open(settings: &[(&str, &str)]) -> Self {
        Self::open_to(settings, Duration::from_millis(300)).await
    }

    /// Opens a house whose callees talk for so long.
    pub async fn open_to(settings: &[(&str, &str)], talk_for: Duration) -> Self {
        let database = Database::new();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let customer = Customer {
            gateway: format!("http://{address}").parse().unwrap(),
            public: None,
            auth_token: Some(TOKEN.into()),
            account_sid: ACCOUNT.to_owned(),
        };
        let talk = Talk {
            script: Script::Talk,
            talk_for,
            voices: Voices::of_tests(),
        };
        let options = FakeTwilioOptions::default();
        let twilio = FakeTwilio::start(options, customer, talk, None);
        let twilio = twilio.await.unwrap();
        let url = twilio.url();
        let config = Config::load(|name| {
            let set = settings.iter().find(|(set, _)| *set == name);
            let default = match name {
                "LISTEN" => address.to_string(),
                "TWILIO_AUTH_TOKEN" => TOKEN.to_owned(),
                "TWILIO_ACCOUNT_SID" => ACCOUNT.to_owned(),
                "TWILIO_API_BASE" => url.clone(),
                "DATABASE_URL" => database.url().to_owned(),
                "OUTBOUND_COUNTRIES" => "IL".to_owned(),
                "OUTBOUND_FROM" => "+972722234567".to_owned(),
                "OUTBOUND_CALLS_PER_SECOND" => "1000".to_owned(),
                _ => return set.map(|(_, value)| (*value).to_owned()),
            };
            Some(set.map_or(default, |(_, value)| (*value).to_owned()))
        });
        let running = Gateway::start(config.unwrap()).await.unwrap();
        let house = Self {
            twilio,
            running,
            database,
        };
        // A gateway takes calls before its tables are made.
        let records = &house.running.gateway().records.database;
        let nobody = crate::call::CarrierCallId::pending(crate::call::Carrier::Twilio);
        let nobody = crate::call::CallId::of(&nobody);
        house
            .until(async || rows::find(records, nobody).await.is_ok())
            .await;
        house
    }

    pub async fn place(&self, key: &str, body: &Value) -> Result<Placed, Refused> {
        let tenant = crate::campaign::Name::default_name();
        let asker = Asker {
            tenant: &tenant,
            api_key: "key",
            change: &Change::by_operator(Action::PlaceCall, ""),
        };
        place(self.running.gateway(), asker, key, body).await
    }

    pub async fn row(&self, id: &str) -> rows::Row {
        let gateway = self.running.gateway();
        let found = rows::find(&gateway.records.database, id.parse().unwrap()).await;
        found.unwrap().unwrap()
    }

    /// Has a call ring that nobody has the name of: the answer to the request is lost, and so is all
    /// that is told of it.
    pub async fn rings_unknown(&self, body: &Value) -> rows::Row {
        self.twilio.callees(Callee::Rings);
        self.twilio.lose_callbacks(100);
        self.twilio.then(&[Act::TakeThenCut]);
        let placed = self.place("unknown", body).await.unwrap();
        let stage = async || self.row(&placed.id).await.stage;
        self.until(async || stage().await == Stage::Unknown).await;
        self.row(&placed.id).await
    }

    /// Waits until a call is over; returns its state and its reason by its record.
    pub async fn over(&self, id: &str) -> (String, String) {
        self.until(async || self.row(id).await.stage == Stage::Over)
            .await;
        let database = &self.running.gateway().records.database;
        let mut found = (String::new(), String::new());
        timeout(GUARD, async {
            loop {
                let mut sql = crate::record::Sql::new(
                    "SELECT state, COALESCE(reason, '') FROM calls WHERE rank >= 90 AND call = ",
                );
                sql.bind(id.to_owned());
                let read = database.read(move |pool| async move { sql.read(&pool).await });
                if let Some(row) = read.await.unwrap().first() {
                    use sqlx::Row;
                    found = (row.get(0), row.get(1));
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the record is closed");
        found
    }

    pub async fn until(&self, wanted: impl AsyncFn() -> bool) {
        let wait = async {
            while !wanted().await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(GUARD, wait).await.expect("it came in time");
    }

    /// Changes what the database holds.
    pub async fn write(&self, statement: &str) {
        let sql = crate::record::Sql::new(statement);
        let database = &self.running.gateway().records.database;
        let written = database.write(move |writing| Box::pin(sql.execute(writing)));
        assert!(written.await.unwrap() > 0, "{statement}");
    }

    /// Waits until no slot is held, and ends.
    pub async fn close(self) {
        let gateway = self.running.gateway().clone();
        self.until(async || gateway.admission.occupancy().active == 0)
            .await;
        let used = gateway.admission.usage(&gateway.campaigns.current());
        assert!(used.iter().all(|(_, used, _)| *used == 0), "{used:?}");
        let open = "SELECT call FROM outbound WHERE state <> 'over'";
        self.until(async || self.database.ask(open).await.is_empty())
            .await;
        self.twilio.stop().await;
        self.running.drain(std::future::ready(())).await;
    }
}

pub fn to(number: &str) -> Value {
    json!({"to": number, "ring_timeout": 5})
}

/// Puts a call into the database as a replica left it that has died.
pub async fn leave(house: &House, stage: Stage, number: &str) -> rows::Row {
    leave_since(house, stage, number, rows::HELD_MS).await
}

pub async fn leave_since(house: &House, stage: Stage, number: &str, ago_ms: i64) -> rows::Row {
    leave_as(house, "a-dead-one", stage, number, ago_ms).await
}

pub async fn leave_as(
    house: &House,
    holder: &str,
    stage: Stage,
    number: &str,
    ago_ms: i64,
) -> rows::Row {
    let gateway = house.running.gateway();
    let pending = crate::call::CarrierCallId::pending(crate::call::Carrier::Twilio);
    let now = unix_millis_i64();
    let body = to(number);
    let row = rows::Row {
        call: crate::call::CallId::of(&pending),
        tenant: "default".to_owned(),
        body_hash: String::new(),
        pending,
        carrier_call: None,
        campaign: "default".to_owned(),
        agent: Some(crate::campaign::Name::default_name()),
        to: number.to_owned(),
        from: "+972722234567".to_owned(),
        terms: Request::read(&body).unwrap().terms,
        stage,
        created_at: now,
        dialed_at: None,
        rings_until: None,
        called_off_at: None,
        read_at: now,
    };
    let new = rows::NewRow {
        row: rows::Row {
            stage: Stage::Reserving,
            ..row.clone()
        },
        key: number.to_owned(),
        api_key: "key".to_owned(),
        holder: holder.to_owned(),
        to_code: number.to_owned(),
        prefix_code: number.to_owned(),
    };
    let limits = rows::Limits {
        per_destination: 3,
        per_prefix: 100,
        per_key: 100,
        daily_calls: 100,
        daily_minutes: 100,
    };
    let records = &gateway.records;
    let noted = rows::note(&records.database, new, limits).await;
    assert!(matches!(noted.unwrap(), rows::Noted::New(_)));
    if stage != Stage::Reserving {
        bring_to(house, &row, stage).await;
    }
    // Nobody may take it over before it is where it is to be left.
    let mut sql = crate::record::Sql::new("UPDATE outbound SET created_at = created_at - ");
    sql.bind(ago_ms).push(", held_until = held_until - ");
    sql.bind(ago_ms).push(" WHERE call = ");
    sql.bind(row.call.to_string());
    let leaving = records
        .database
        .write(move |writing| Box::pin(sql.execute(writing)));
    leaving.await.unwrap();
    row
}

async fn bring_to(house: &House, row: &rows::Row, stage: Stage) {
    let records = &house.running.gateway().records;
    let change = Change::by_operator(Action::PlaceCall, "");
    let (agent, numbers) = (row.agent.as_ref().unwrap(), &records.numbers);
    let pace = Pace::new(1_000, GUARD);
    let queued = rows::queue(&records.database, row, agent, change, pace, numbers).await;
    assert!(matches!(queued.unwrap(), rows::Queued::At(_)));
    let step = rows::Move {
        dials: true,
        rings_for: Some(Duration::from_secs(6)),
        ..rows::Move::new(row.call, &[Stage::Queued], stage)
    };
    assert!(rows::advance(&records.database, step).await.unwrap());
}
