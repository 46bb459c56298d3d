//! The tenants, groups and campaigns of a campaign file, and what has to hold between them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
};

use crate::{
    call::{CallerId, PhoneNumber},
    campaign::{Campaign, Campaigns, Group, Name, TenantCaps, WhenFull},
    config::{
        AgentSettings,
        file::{
            Inherited, MOST_CAMPAIGNS, MOST_GROUPS, MOST_NUMBERS, MOST_RESERVES, MOST_TENANTS,
            endpoints,
            secret::Beside,
            table::{Entry, Table},
            tools,
        },
    },
    event::Endpoints,
};

/// A campaign's cap where neither the file nor the environment has one.
const DEFAULT_CAP: u32 = 20;
/// How many names a message offers.
const OFFERED: usize = 10;

/// Everything that campaigns may name, and what has been given away so far.
struct Reading<'a> {
    inherited: &'a Inherited,
    agents: &'a BTreeMap<Name, AgentSettings>,
    groups: BTreeMap<Name, Shared>,
    tenants: BTreeMap<Name, Tenant>,
    default: Option<Name>,
    /// Who has a number, and the line that says so.
    owners: HashMap<CallerId, (Name, usize)>,
    /// What all reserves come to, and how many there are.
    reserved: u64,
    reserves: u32,
}

/// A scope that several campaigns share.
struct Shared {
    max_calls: u32,
    /// What the reserves of its campaigns come to.
    reserved: u64,
    is_used: bool,
}

struct Tenant {
    caps: TenantCaps,
    shared: Shared,
}

pub fn read(
    root: &Table<'_>,
    inherited: &Inherited,
    agents: &BTreeMap<Name, AgentSettings>,
    beside: &mut Beside<'_>,
) -> (Campaigns, Endpoints) {
    let default = root.entry("default_campaign");
    let mut reading = Reading {
        inherited,
        agents,
        groups: BTreeMap::new(),
        tenants: BTreeMap::new(),
        default: default.as_ref().and_then(Entry::name),
        owners: HashMap::new(),
        reserved: 0,
        reserves: 0,
    };
    let groups = root.named("groups", MOST_GROUPS);
    for (name, table) in &groups {
        let group = reading.group(table);
        reading.groups.insert(name.clone(), group);
    }
    let tenants = root.named("tenants", MOST_TENANTS);
    let mut endpoints = Endpoints::new();
    for (name, table) in &tenants {
        let tenant = reading.tenant(table);
        let told = endpoints::read(table, inherited, beside);
        endpoints.insert(name.clone(), told);
        reading.tenants.insert(name.clone(), tenant);
    }
    let tables = root.named("campaigns", MOST_CAMPAIGNS);
    if root.is_without("campaigns") {
        root.mistake("no campaigns: there must be one at least, [campaigns.<name>]");
    }
    let mut campaigns = Vec::new();
    for (id, table) in tables {
        campaigns.push(reading.campaign(id, &table));
        table.finish();
    }
    if let (Some(entry), Some(name)) = (&default, &reading.default)
        && !campaigns.iter().any(|(campaign, _)| campaign.id == *name)
    {
        let there_are = offer(campaigns.iter().map(|(campaign, _)| &campaign.id));
        entry.mistake(&format!("no such campaign: {there_are}"));
    }
    for (name, table) in groups {
        warn_if_unused(&table, reading.groups[&name].is_used);
        table.finish();
    }
    for (name, table) in tenants {
        warn_if_unused(&table, reading.tenants[&name].shared.is_used);
        table.finish();
    }
    let texts = inherited.language.clone();
    let budgets = agents.iter();
    let budgets = budgets.map(|(name, agent)| (name.clone(), agent.budget));
    let campaigns = Campaigns::several(campaigns, reading.default.as_ref(), texts)
        .with_budgets(budgets)
        .with_budgets([(Name::default_name(), inherited.agent.budget)]);
    (campaigns, endpoints)
}

impl Reading<'_> {
    fn group(&mut self, table: &Table<'_>) -> Shared {
        let global = self.inherited.caps.global;
        let entry = table.entry("max_calls");
        if entry.is_none() {
            table.missing("max_calls", "a group is there for its cap");
        }
        Shared::of(cap_below(entry.as_ref(), global, "all calls").unwrap_or(global))
    }

    fn tenant(&mut self, table: &Table<'_>) -> Tenant {
        let caps = &self.inherited.caps;
        let entry = table.entry("max_calls");
        let max_calls = cap_below(entry.as_ref(), caps.global, "all calls");
        let cap = max_calls.unwrap_or(caps.tenant);
        let reserved = table
            .entry("reserved")
            .and_then(|entry| self.reserve(&entry, cap, "the tenant"))
            .unwrap_or(0);
        Tenant {
            caps: TenantCaps {
                max_calls,
                reserved,
                daily_calls: table.entry("max_daily_calls").and_then(|it| it.cap()),
                daily_minutes: table.entry("max_daily_minutes").and_then(|it| it.cap()),
            },
            shared: Shared::of(cap),
        }
    }

    fn campaign(&mut self, id: Name, table: &Table<'_>) -> (Campaign, Vec<CallerId>) {
        let inherited = self.inherited;
        let numbers = self.numbers(&id, table);
        let tenant = self.tenant_of(table);
        let group = self.group_of(table);
        let entry = table.entry("max_calls");
        let max_calls = entry
            .as_ref()
            .and_then(|entry| self.cap(entry, &tenant, group.as_ref()));
        let max_calls = max_calls.or(inherited.caps.campaign).unwrap_or(DEFAULT_CAP);
        let reserved = table
            .entry("reserved")
            .and_then(|entry| self.reserve_within(&entry, max_calls, &tenant, group.as_ref()));
        let language = table
            .entry("language")
            .and_then(|entry| entry.parsed("a language tag, such as \"he-IL\""));
        let when_full = table
            .entry("when_full")
            .and_then(|entry| self.when_full(&entry));
        let acs_when_full = table.entry("acs_when_full").and_then(|entry| {
            entry.parsed("\"prompt\", \"reject\" or a number that rings instead")
        });
        let outbound_carrier = table
            .entry("outbound_carrier")
            .and_then(|entry| entry.parsed("\"twilio\" or \"acs\""));
        let tenant_caps = self.tenants.get(&tenant).map(|tenant| tenant.caps);
        let agent = table.entry("agent").and_then(|it| self.agent_of(&it));
        let agent = agent.unwrap_or_else(Name::default_name);
        let second_agent = table.entry("second_agent").and_then(|entry| {
            let second = self.agent_of(&entry)?;
            if second == agent {
                entry.warning("is its first agent already: it has no other");
            }
            (second != agent).then_some(second)
        });
        let tools = tools::read(table, inherited, &numbers);
        let campaign = Campaign {
            id,
            tenant,
            language: language.unwrap_or_else(|| inherited.language.clone()),
            max_calls: Some(max_calls),
            reserved: reserved.unwrap_or(0),
            group,
            tenant_caps: tenant_caps.unwrap_or_default(),
            agent,
            second_agent,
            when_full: when_full.unwrap_or(inherited.when_full),
            acs_when_full: acs_when_full.unwrap_or_else(|| inherited.acs_when_full.clone()),
            outbound_carrier,
            tools,
        };
        (campaign, numbers)
    }

    /// Reads what refused callers are offered, which must be possible.
    fn when_full(&self, entry: &Entry<'_>) -> Option<WhenFull> {
        let when_full = entry.parsed("\"reject\", \"voicemail\" or \"whatsapp\"");
        let lacks = &self.inherited.whatsapp_lacks;
        if when_full == Some(WhenFull::Whatsapp) && !lacks.is_empty() {
            entry.mistake(&format!("writing to callers needs these settings: {lacks}"));
        }
        when_full
    }

    fn numbers(&mut self, id: &Name, table: &Table<'_>) -> Vec<CallerId> {
        const RULE: &str = "a list of numbers, such as [\"+97221234567\"]";
        let entry = table.entry("numbers");
        let listed = entry.as_ref().map(|entry| entry.list(MOST_NUMBERS, RULE));
        let is_default = self.default.as_ref() == Some(id);
        match &listed {
            None if !is_default => {
                let rule = "its calls come from somewhere, unless it is the default_campaign";
                table.missing("numbers", rule);
            }
            Some(listed) if listed.is_empty() && !is_default => {
                let empty = entry.iter().filter(|entry| entry.is_list());
                empty.for_each(|entry| entry.mistake("no number: nobody could ever call it"));
            }
            Some(_) | None => {}
        }
        let listed = listed.into_iter().flatten();
        listed.filter_map(|entry| self.number(id, &entry)).collect()
    }

    fn number(&mut self, id: &Name, entry: &Entry<'_>) -> Option<CallerId> {
        let Some(number) = entry
            .as_text()
            .and_then(|text| text.parse::<PhoneNumber>().ok())
        else {
            // It is a phone number still, so it is not shown.
            entry.remark("a number in E.164: \"+\" and 2 to 15 digits, in quotes");
            return None;
        };
        let number = CallerId::Number(number);
        if let Some((owner, line)) = self.owners.get(&number) {
            let what = if owner == id {
                format!("{number} is listed twice")
            } else {
                format!(
                    "{number} is campaign {owner}'s already, by line {line}: a number belongs to \
                     one campaign"
                )
            };
            entry.remark(&what);
            return None;
        }
        let owner = (id.clone(), entry.line());
        self.owners.insert(number.clone(), owner);
        Some(number)
    }

    fn tenant_of(&mut self, table: &Table<'_>) -> Name {
        let default = Name::default_name();
        let Some(entry) = table.entry("tenant") else {
            return self.use_tenant(default);
        };
        let Some(name) = entry.name() else {
            return default;
        };
        if name != default && !self.tenants.contains_key(&name) {
            let there_are = offer(self.tenants.keys().chain([&default]));
            entry.mistake(&format!("no such tenant: {there_are}, or declare it"));
            return default;
        }
        self.use_tenant(name)
    }

    fn use_tenant(&mut self, name: Name) -> Name {
        if let Some(tenant) = self.tenants.get_mut(&name) {
            tenant.shared.is_used = true;
        }
        name
    }

    fn group_of(&mut self, table: &Table<'_>) -> Option<Group> {
        let entry = table.entry("group")?;
        let id = entry.name()?;
        let Some(group) = self.groups.get_mut(&id) else {
            let there_are = offer(self.groups.keys());
            entry.mistake(&format!("no such group: {there_are}"));
            return None;
        };
        group.is_used = true;
        let max_calls = group.max_calls;
        Some(Group { id, max_calls })
    }

    fn agent_of(&self, entry: &Entry<'_>) -> Option<Name> {
        let default = Name::default_name();
        let name = entry.name()?;
        if name != default && !self.agents.contains_key(&name) {
            let there_are = offer(self.agents.keys().chain([&default]));
            entry.mistake(&format!("no such agent: {there_are}"));
            return None;
        }
        Some(name)
    }

    /// Reads a campaign's cap, and warns of one that the wider caps keep it from reaching.
    fn cap(&self, entry: &Entry<'_>, tenant: &Name, group: Option<&Group>) -> Option<u32> {
        let (cap, whose) = self.narrowest(tenant, group);
        cap_below(Some(entry), cap, &whose)
    }

    fn narrowest(&self, tenant: &Name, group: Option<&Group>) -> (u32, String) {
        let caps = &self.inherited.caps;
        let tenants = self.tenants.get(tenant);
        let tenants = tenants.map_or(caps.tenant, |tenant| tenant.shared.max_calls);
        let mut narrowest = (caps.global, "all calls".to_owned());
        if tenants < narrowest.0 {
            narrowest = (tenants, format!("tenant {tenant}"));
        }
        if let Some(group) = group
            && group.max_calls < narrowest.0
        {
            narrowest = (group.max_calls, format!("group {}", group.id));
        }
        narrowest
    }

    /// Reads a campaign's reserve, which its tenant and its group must be able to hold.
    fn reserve_within(
        &mut self,
        entry: &Entry<'_>,
        cap: u32,
        tenant: &Name,
        group: Option<&Group>,
    ) -> Option<u32> {
        let reserved = self.reserve(entry, cap, "the campaign")?;
        if reserved == 0 {
            return Some(0);
        }
        let default = Tenant {
            caps: TenantCaps::default(),
            shared: Shared::of(self.inherited.caps.tenant),
        };
        let of_tenant = self.tenants.entry(tenant.clone()).or_insert(default);
        if of_tenant.caps.reserved > 0 {
            let what = format!(
                "tenant {tenant} reserves slots for all its campaigns: do so there or here"
            );
            entry.mistake(&what);
        }
        of_tenant
            .shared
            .hold(reserved, entry, &format!("tenant {tenant}"));
        if let Some(group) = group
            && let Some(shared) = self.groups.get_mut(&group.id)
        {
            shared.hold(reserved, entry, &format!("group {}", group.id));
        }
        Some(reserved)
    }

    /// Reads a reserve, which its own scope and the whole must be able to hold.
    fn reserve(&mut self, entry: &Entry<'_>, cap: u32, whose: &str) -> Option<u32> {
        let reserved = entry.reserve()?;
        if reserved > cap {
            let rule = format!("{whose} may have {cap} calls: reserve no more than that");
            entry.mistake(&rule);
        }
        self.reserves += u32::from(reserved > 0);
        if self.reserves == MOST_RESERVES + 1 {
            entry.mistake(&format!("there may be {MOST_RESERVES} reserves at most"));
        }
        let global = self.inherited.caps.global;
        let before = self.reserved;
        self.reserved += u64::from(reserved);
        if before <= global.into() && self.reserved > global.into() {
            let sum = self.reserved;
            let rule = format!("with this all reserves come to {sum} of {global} calls in all");
            entry.mistake(&rule);
        }
        Some(reserved)
    }
}

impl Shared {
    fn of(max_calls: u32) -> Self {
        Self {
            max_calls,
            reserved: 0,
            is_used: false,
        }
    }

    /// Adds a campaign's reserve; notes the one with which they come to more than the cap.
    fn hold(&mut self, reserved: u32, entry: &Entry<'_>, whose: &str) {
        let cap = self.max_calls;
        let before = self.reserved;
        self.reserved += u64::from(reserved);
        if before <= cap.into() && self.reserved > cap.into() {
            let sum = self.reserved;
            entry.mistake(&format!(
                "with this the reserves within {whose} come to {sum} of its {cap} calls"
            ));
        }
    }
}

/// Reads a cap, and warns of one that a wider cap keeps from being reached.
fn cap_below(entry: Option<&Entry<'_>>, wider: u32, whose: &str) -> Option<u32> {
    let entry = entry?;
    let cap = entry.cap()?;
    if cap > wider {
        let warning = format!("can never be reached: {wider} is the cap of {whose}");
        entry.warning(&warning);
    }
    Some(cap)
}

fn warn_if_unused(table: &Table<'_>, is_used: bool) {
    if !is_used {
        table.warning("no campaign names it");
    }
}

/// Lists the names that there are to choose from.
fn offer<T: Display>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    match names.len() {
        0 => "there are none".to_owned(),
        few if few <= OFFERED => format!("there are {}", names.join(", ")),
        many => format!(
            "there are {} and {} more",
            names[..OFFERED].join(", "),
            many - OFFERED
        ),
    }
}
