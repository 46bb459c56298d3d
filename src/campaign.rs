//! Which campaign a dialed number belongs to, and what applies to its calls.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use crate::{
    call::{CallerId, OutboundCarrier, PhoneNumber},
    language::Language,
    tool::Tools,
};

/// The longest name, in bytes.
const LONGEST_NAME: usize = 64;

/// A tenant's, campaign's, group's or agent's name, fit to become part of a key or a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>); // Invariant: 1 to 64 of a-z, 0-9, `-` and `_`.

/// Why a text is no [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {LONGEST_NAME} of a-z, 0-9, - and _")]
pub struct NotAName;

/// What a dialed number belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    pub id: Name,
    pub tenant: Name,
    pub language: Language,
    /// Live calls it may have of its own; `None` where only the wider caps count.
    pub max_calls: Option<u32>,
    /// Slots that no other campaign can take.
    pub reserved: u32,
    pub group: Option<Group>,
    pub tenant_caps: TenantCaps,
    /// Which agent talks with its callers.
    pub agent: Name,
    /// Which one does where the first has no room.
    pub second_agent: Option<Name>,
    pub when_full: WhenFull,
    pub acs_when_full: AcsRefusal,
    /// Who places its calls; `None` where the environment says so.
    pub outbound_carrier: Option<OutboundCarrier>,
    /// What its agents may do beside talking.
    pub tools: Tools,
}

/// Campaigns that share a cap beside their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub id: Name,
    pub max_calls: u32,
}

/// What a campaign's tenant may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantCaps {
    /// `None` where all tenants' cap counts.
    pub max_calls: Option<u32>,
    /// Slots that no other tenant can take.
    pub reserved: u32,
    /// Calls that we place for it within a day, and their minutes; `None` where the environment's
    /// count.
    pub daily_calls: Option<u32>,
    pub daily_minutes: Option<u32>,
}

/// What all calls together may ask of an agent; `None` where nothing bounds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Live calls.
    pub sessions: Option<u32>,
    /// Calls for which it is dialed within a minute.
    pub dials: Option<u32>,
    /// Tokens that it uses up within a minute.
    pub tokens: Option<u32>,
}

/// What a caller is offered for whom there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// A sentence that asks to ring again later.
    #[default]
    Reject,
    /// To leave a message after the tone.
    Voicemail,
    /// A WhatsApp message to go on in writing.
    Whatsapp,
}

/// How ACS is told that there is no room for a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AcsRefusal {
    /// To answer, say the sentence that [`WhenFull`] asks for, and hang up.
    #[default]
    Prompt,
    /// To let the caller hear the busy tone.
    Reject,
    /// To let another number ring.
    Redirect(PhoneNumber),
}

/// Every campaign of this gateway.
#[derive(Debug, PartialEq, Eq)]
pub struct Campaigns {
    named: HashMap<Name, Arc<Campaign>>,
    answering: HashMap<CallerId, Arc<Campaign>>,
    default: Arc<Campaign>,
    /// Every agent that there is.
    budgets: BTreeMap<Name, Budget>,
    /// Whether numbers that no campaign names are in service, and the default campaign's.
    answers_all: bool,
}

/// How many campaigns one set of them has, lacks and changes beside another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    pub added: usize,
    pub removed: usize,
    pub changed: usize,
}

impl Name {
    /// The one campaign, tenant and agent there are when nothing else is configured.
    pub fn default_name() -> Self {
        Self(Arc::from("default"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(NotAName)
        }
    }
}

impl WhenFull {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Voicemail => "voicemail",
            Self::Whatsapp => "whatsapp",
        }
    }
}

impl FromStr for WhenFull {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "reject" => Ok(Self::Reject),
            "voicemail" => Ok(Self::Voicemail),
            "whatsapp" => Ok(Self::Whatsapp),
            _ => Err(()),
        }
    }
}

impl FromStr for AcsRefusal {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "prompt" => Ok(Self::Prompt),
            "reject" => Ok(Self::Reject),
            number => number.parse().map(Self::Redirect).map_err(|_| ()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Campaign {
    /// Returns a campaign called `default`, to which nothing applies but the widest caps.
    pub fn plain(language: Language, max_calls: Option<u32>) -> Self {
        Self {
            id: Name::default_name(),
            tenant: Name::default_name(),
            language,
            max_calls,
            reserved: 0,
            group: None,
            tenant_caps: TenantCaps::default(),
            agent: Name::default_name(),
            second_agent: None,
            when_full: WhenFull::default(),
            acs_when_full: AcsRefusal::default(),
            outbound_carrier: None,
            tools: Tools::default(),
        }
    }

    /// Returns the agents that its callers may get, in the order in which they are tried.
    pub fn agents(&self) -> impl Iterator<Item = &Name> {
        [&self.agent].into_iter().chain(&self.second_agent)
    }
}

impl Campaigns {
    /// One campaign, called `default`, that answers `numbers`, or every number if there are none.
    pub fn only(language: Language, max_calls: Option<u32>, numbers: Vec<CallerId>) -> Self {
        let default = Arc::new(Campaign::plain(language, max_calls));
        let with_default = |number| (number, Arc::clone(&default));
        Self {
            named: HashMap::from([(default.id.clone(), Arc::clone(&default))]),
            answers_all: numbers.is_empty(),
            answering: numbers.into_iter().map(with_default).collect(),
            default,
            budgets: BTreeMap::new(),
        }
    }

    /// Several campaigns, each with its numbers. Calls to other numbers are `default`'s; without
    /// one they are not in service, and `texts` is the language in which callers hear so.
    pub fn several(
        campaigns: Vec<(Campaign, Vec<CallerId>)>,
        default: Option<&Name>,
        texts: Language,
    ) -> Self {
        let mut named = HashMap::new();
        let mut answering = HashMap::new();
        for (campaign, numbers) in campaigns {
            let campaign = Arc::new(campaign);
            let own = numbers.into_iter();
            answering.extend(own.map(|number| (number, Arc::clone(&campaign))));
            named.insert(campaign.id.clone(), campaign);
        }
        let default = default.and_then(|name| named.get(name)).cloned();
        Self {
            named,
            answering,
            answers_all: default.is_some(),
            default: default.unwrap_or_else(|| Arc::new(Campaign::plain(texts, None))),
            budgets: BTreeMap::new(),
        }
    }

    /// Notes what each agent may be asked for.
    pub fn with_budgets(mut self, budgets: impl IntoIterator<Item = (Name, Budget)>) -> Self {
        self.budgets.extend(budgets);
        self
    }

    /// Offers this to callers for whom there is no room.
    pub fn offering(mut self, when_full: WhenFull, acs_when_full: &AcsRefusal) -> Self {
        self.each(|campaign| {
            campaign.when_full = when_full;
            campaign.acs_when_full = acs_when_full.clone();
        });
        self
    }

    /// Lets the agent of the only campaign use these.
    pub fn using(mut self, tools: &Tools) -> Self {
        self.each(|campaign| campaign.tools = tools.clone());
        self
    }

    /// Changes the only campaign, wherever it is listed.
    fn each(&mut self, change: impl Fn(&mut Campaign)) {
        let listed = self.named.values_mut().chain(self.answering.values_mut());
        for campaign in listed.chain([&mut self.default]) {
            change(Arc::make_mut(campaign));
        }
    }

    /// Returns the campaign that answers `called`; `None` where the number is not in service.
    pub fn answering(&self, called: &CallerId) -> Option<Arc<Campaign>> {
        let all = self.answers_all.then_some(&self.default);
        self.answering.get(called).or(all).cloned()
    }

    /// Returns the campaign of this name, as a ticket carries it.
    pub fn named(&self, name: &str) -> Option<Arc<Campaign>> {
        let name: Name = name.parse().ok()?;
        self.named.get(&name).cloned()
    }

    /// Returns the campaign whose language and texts serve where no other is known.
    pub fn default_campaign(&self) -> &Arc<Campaign> {
        &self.default
    }

    /// Returns every campaign that can answer a call, in no particular order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Campaign>> {
        self.named.values()
    }

    /// Returns what an agent may be asked for.
    pub fn budget_of(&self, agent: &Name) -> Budget {
        self.budgets.get(agent).copied().unwrap_or_default()
    }

    /// Returns every agent with what it may be asked for, whether a campaign names it or not.
    pub fn budgets(&self) -> impl Iterator<Item = (&Name, Budget)> {
        self.budgets.iter().map(|(agent, budget)| (agent, *budget))
    }

    /// Returns the agent that a ticket names, as long as there is one; the campaign's otherwise.
    pub fn agent_for<'a>(&self, named: &'a Name, campaign: &'a Campaign) -> &'a Name {
        if self.budgets.contains_key(named) {
            named
        } else {
            &campaign.agent
        }
    }

    /// Returns how many numbers are named.
    pub fn numbers(&self) -> usize {
        self.answering.len()
    }

    /// Counts what is different here from what was `before`.
    pub fn since(&self, before: &Self) -> Difference {
        let moved = moved(&self.answering, &before.answering);
        let mut difference = Difference {
            added: 0,
            removed: before
                .all()
                .filter(|campaign| !self.named.contains_key(&campaign.id))
                .count(),
            changed: 0,
        };
        for campaign in self.all() {
            match before.named.get(&campaign.id) {
                None => difference.added += 1,
                Some(other) if other != campaign || moved.contains(&campaign.id) => {
                    difference.changed += 1;
                }
                Some(_) => {}
            }
        }
        difference
    }
}

type Answering = HashMap<CallerId, Arc<Campaign>>;

/// Returns the campaigns that won or lost a number.
fn moved<'a>(after: &'a Answering, before: &'a Answering) -> HashSet<&'a Name> {
    let id = |of: &'a Answering, number| of.get(number).map(|campaign| &campaign.id);
    let differ = after
        .keys()
        .chain(before.keys())
        .map(|number| [id(after, number), id(before, number)])
        .filter(|[after, before]| after != before);
    differ.flatten().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_fit_for_a_key() {
        for good in ["a", "support", "sales-2_north", &"x".repeat(64)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "calls:*",
            "a*",
            "a:b",
            "a b",
            "Support",
            "תמיכה",
            "a\n",
            "{a}",
            "../a",
            &"x".repeat(65),
            &"x".repeat(300),
        ] {
            assert_eq!(bad.parse::<Name>(), Err(NotAName), "{bad:?}");
        }
    }

    fn campaign(id: &str) -> Campaign {
        Campaign {
            id: id.parse().unwrap(),
            ..Campaign::plain(Language::default(), Some(20))
        }
    }

    fn numbers(numbers: &[&str]) -> Vec<CallerId> {
        numbers
            .iter()
            .map(|number| CallerId::read(number))
            .collect()
    }

    fn id(campaign: Option<Arc<Campaign>>) -> Option<String> {
        campaign.map(|campaign| campaign.id.to_string())
    }

    #[test]
    fn the_only_campaign_answers_its_numbers_or_all() {
        let all = Campaigns::only(Language::default(), None, Vec::new());
        assert!(all.answering(&CallerId::Withheld).is_some());
        let ours = numbers(&["+97221234567"]);
        let some = Campaigns::only(Language::default(), None, ours.clone());
        assert!(some.answering(&ours[0]).is_some());
        assert_eq!(some.answering(&CallerId::read("+97229999999")), None);
        assert_eq!(id(some.named("default")).as_deref(), Some("default"));
    }

    #[test]
    fn each_campaign_answers_its_own_numbers_and_the_default_the_rest() {
        let support: Name = "support".parse().unwrap();
        let several = |default: Option<&Name>| {
            let support = (campaign("support"), numbers(&["+97221111111"]));
            let sales = (
                campaign("sales"),
                numbers(&["+97222222222", "sip:sales@a.b"]),
            );
            Campaigns::several(vec![support, sales], default, Language::english())
        };
        let closed = several(None);
        let answering = |campaigns: &Campaigns, called| {
            id(campaigns.answering(&CallerId::read(called))).unwrap_or_default()
        };
        assert_eq!(answering(&closed, "+97221111111"), "support");
        assert_eq!(answering(&closed, "+97222222222"), "sales");
        assert_eq!(answering(&closed, "sip:sales@a.b"), "sales");
        assert_eq!(answering(&closed, "+97223333333"), "");
        assert_eq!(closed.default_campaign().language, Language::english());
        assert_eq!(closed.named("default"), None);
        assert_eq!(closed.named("no such: name"), None);
        let open = several(Some(&support));
        assert_eq!(answering(&open, "+97222222222"), "sales");
        assert_eq!(answering(&open, "+97223333333"), "support");
        assert_eq!(open.default_campaign().id, support);
        assert_eq!(open.all().count(), 2);
    }

    #[test]
    fn what_is_different_is_counted() {
        let some = |campaigns| Campaigns::several(campaigns, None, Language::default());
        let before = some(vec![
            (campaign("kept"), numbers(&["+97221111111"])),
            (campaign("gone"), numbers(&["+97222222222"])),
            (campaign("other"), numbers(&["+97223333333"])),
            (campaign("moved"), numbers(&["+97224444444"])),
        ]);
        let other = Campaign {
            max_calls: Some(3),
            ..campaign("other")
        };
        let after = some(vec![
            (campaign("kept"), numbers(&["+97221111111"])),
            (other, numbers(&["+97223333333"])),
            (campaign("moved"), numbers(&["+97225555555"])),
            (campaign("new"), numbers(&["+97222222222"])),
        ]);
        let difference = Difference {
            added: 1,
            removed: 1,
            changed: 2,
        };
        assert_eq!(after.since(&before), difference);
        let none = Difference {
            added: 0,
            removed: 0,
            changed: 0,
        };
        assert_eq!(after.since(&after), none);
    }
}
