//! The names of everything in Redis. Operators read them too: see `docs/replicas.md`.

use serde::Deserialize;

use crate::{admission::scope::Scope, campaign::Name};

/// Key names under one prefix.
pub struct Keys {
    prefix: String,
    pub generation: String,
    pub gate: String,
    pub active: String,
    pub count: String,
    pub epoch: String,
    pub setups: String,
    pub replicas: String,
    pub places: String,
    /// Calls until their ends are written, each by the time at which its lease lapses or it was last
    /// looked after.
    pub unwritten: String,
    /// Is there while an operator wants no new calls let in.
    pub intake: String,
    /// Is there while somebody watches a dashboard.
    pub watched: String,
    /// Which operators' logins have ended before their time.
    pub ended_logins: String,
}

/// What a call's state says of where it counts.
#[derive(Deserialize)]
struct Counted {
    #[serde(default)]
    scopes: Vec<String>,
}

impl Keys {
    pub fn new(prefix: String) -> Self {
        let key = |name: &str| format!("{prefix}calls:{name}");
        Self {
            generation: key("gen"),
            gate: key("gen:recover"),
            active: key("active"),
            count: key("active_count"),
            epoch: key("epoch"),
            setups: key("setups"),
            replicas: key("instances"),
            places: key("places"),
            unwritten: key("unwritten"),
            intake: key("intake"),
            watched: key("watched"),
            ended_logins: key("ended_logins"),
            prefix,
        }
    }

    /// Whose call it is: epoch and replica. It expires with the lease.
    pub fn owner(&self, call: &str) -> String {
        self.of("active", call)
    }

    pub fn state(&self, call: &str) -> String {
        self.of("state", call)
    }

    pub fn decision(&self, call: &str) -> String {
        self.of("decision", call)
    }

    pub fn ended(&self, call: &str) -> String {
        self.of("ended", call)
    }

    /// Which replica notes the end of a call that waited for its media when its carrier told of it:
    /// who has freed it, or `?` and then who had it, where the store did not know it yet.
    pub fn freed(&self, call: &str) -> String {
        self.of("freed", call)
    }

    pub fn ticket(&self, nonce: &str) -> String {
        self.of("ticket", nonce)
    }

    /// The leases of a scope: calls by the time at which they lapse.
    pub fn scope(&self, scope: &Scope) -> String {
        match scope {
            Scope::Global => format!("{}calls:lease", self.prefix),
            Scope::Setup
            | Scope::Tenant(_)
            | Scope::Campaign(_)
            | Scope::Group(_)
            | Scope::Agent(_)
            | Scope::Outbound => self.of("lease", &scope.to_string()),
        }
    }

    /// Is there while an agent that keeps failing is tried by one call at a time.
    pub fn resting(&self, agent: &Name) -> String {
        self.of("resting", agent.as_str())
    }

    /// For which calls an agent was dialed within the last minute, and by whom.
    pub fn dials(&self, agent: &Name) -> String {
        self.of("dials", agent.as_str())
    }

    /// What an agent has used up within the last minute.
    pub fn tokens(&self, agent: &Name) -> String {
        self.of("tokens", agent.as_str())
    }

    /// Is there while a replica is to hear that an operator wants it to drain.
    pub fn drain(&self, replica: &str) -> String {
        self.of("drain", replica)
    }

    /// What a replica shows of itself while somebody watches, as JSON.
    pub fn view(&self, replica: &str) -> String {
        self.of("view", replica)
    }

    fn of(&self, kind: &str, name: &str) -> String {
        format!("{}calls:{kind}:{name}", self.prefix)
    }
}

/// Returns the scopes that a call counts in, by its state.
pub fn scopes_in(state: &str) -> Vec<Scope> {
    let counted = serde_json::from_str::<Counted>(state);
    let names = counted.map_or(Vec::new(), |counted| counted.scopes);
    names.iter().filter_map(|name| scope_of(name)).collect()
}

/// Reads a scope as it is displayed.
pub fn scope_of(text: &str) -> Option<Scope> {
    let (kind, name) = text.split_once(':').unwrap_or((text, ""));
    let name = || name.parse::<Name>().ok();
    match kind {
        "global" => Some(Scope::Global),
        "setup" => Some(Scope::Setup),
        "tenant" => name().map(Scope::Tenant),
        "campaign" => name().map(Scope::Campaign),
        "group" => name().map(Scope::Group),
        "agent" => name().map(Scope::Agent),
        "outbound" => Some(Scope::Outbound),
        _ => None,
    }
}
