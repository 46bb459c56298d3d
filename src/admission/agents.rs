//! What replicas tell each other of agents through the store.

use crate::{
    admission::{
        Admission, Scope, Trouble,
        store::{AgentReport, AgentUse, Rest},
    },
    campaign::{Budget, Campaigns, Name},
    recent::Millis,
};

/// What this replica has seen of an agent lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentNews {
    pub agent: Name,
    /// Tokens that it has used up since the last news.
    pub tokens: u32,
    pub rest: Rest,
}

/// How much of one of an agent's budgets is used: which, how much of it, of how much.
pub type BudgetUse = (&'static str, u32, u32);

impl Admission {
    /// Tells the others of agents, and learns what all have asked of them. While the store is away
    /// nobody hears of it: what was used up then is past when it is back.
    pub async fn report(&self, news: Vec<AgentNews>) {
        let reports: Vec<AgentReport> = {
            let mut book = self.book();
            if news.is_empty() || book.outage.trouble() == Some(Trouble::Away) {
                return;
            }
            let now = self.clock.local();
            let news = news.into_iter();
            let reports = news.map(|news| AgentReport {
                dials: book.dials.tell(now, &news.agent),
                agent: news.agent,
                tokens: news.tokens,
                rest: news.rest,
            });
            reports.collect()
        };
        match self.store.report(self.clock.local(), &reports).await {
            Ok(used) => {
                let agents = reports.into_iter().map(|report| report.agent);
                self.book().agents = agents.zip(used).collect();
            }
            Err(error) => {
                // Renewals tell how the store does.
                tracing::debug!(%error, "the others could not be told of agents");
                self.book().dials.tell_again();
            }
        }
    }

    /// Asks for a heartbeat, and with it a report, before the next tick.
    pub fn nudge(&self) {
        self.nudged.notify_one();
    }

    /// Returns what all replicas have asked of an agent, as of the last report.
    pub fn asked_of(&self, agent: &Name) -> AgentUse {
        self.book().agents.get(agent).copied().unwrap_or_default()
    }

    /// Returns what is used of an agent's budgets, as far as it has any.
    pub fn budgets_of(&self, agent: &Name, campaigns: &Campaigns) -> Vec<BudgetUse> {
        let budget = campaigns.budget_of(agent);
        let sessions = budget.sessions.map(|cap| {
            let used = self.used(&Scope::Agent(agent.clone()));
            ("sessions", used, cap)
        });
        let of_minute = self.asked_of(agent).within_a_minute(budget);
        sessions.into_iter().chain(of_minute).collect()
    }
}

impl AgentUse {
    /// Returns what is used of the budgets of a minute, as far as there are any.
    pub fn within_a_minute(self, budget: Budget) -> Vec<BudgetUse> {
        let dials = budget.dials.map(|cap| ("dials", self.dials, cap));
        let tokens = budget.tokens.map(|cap| ("tokens", self.tokens, cap));
        dials.into_iter().chain(tokens).collect()
    }
}

impl Rest {
    /// Returns what is told of an agent that rests for so long, or that was reached again.
    pub fn of(rests: Option<Millis>, was_reached: bool) -> Self {
        match rests {
            Some(rest) => Self::For(rest.max(1)),
            None if was_reached => Self::Over,
            None => Self::No,
        }
    }
}
