//! What the store knows of agents.

use redis::ScriptInvocation;

use crate::{
    admission::{
        redis::{PATIENCE, RedisStore, SCRIPTS, StoreError},
        scope::Scope,
        store::{AgentReport, AgentUse, Choice, Rest},
    },
    telemetry::StoreOperation,
};

impl RedisStore {
    /// Tells what this replica has seen of agents; returns what all have asked of each.
    pub async fn report(&self, reports: &[AgentReport]) -> Result<Vec<AgentUse>, StoreError> {
        let keys = &self.inner.keys;
        let mut script = SCRIPTS.report.prepare_invoke();
        script.arg(&self.inner.replica);
        for report in reports {
            let agent = &report.agent;
            script
                .key(&[keys.resting(agent), keys.dials(agent), keys.tokens(agent)])
                .arg(report.tokens);
            match report.rest {
                Rest::No => script.arg(0),
                Rest::For(rest) => script.arg(rest),
                Rest::Over => script.arg(-1),
            };
            script.arg(report.dials.len());
            for (call, left) in &report.dials {
                script.arg(call.as_str()).arg(*left);
            }
        }
        let mut reply = self.call(StoreOperation::Report, script, PATIENCE).await?;
        let seen = reply.replies()?.into_iter().map(|mut seen| {
            Ok(AgentUse {
                dials: seen.number()?,
                tokens: seen.number()?,
                rests: seen.number()?,
                fails: seen.number::<u8>()? == 1,
            })
        });
        seen.collect()
    }

    /// Adds the agents that a call may have, as the script expects them.
    pub(super) fn choose_from(&self, script: &mut ScriptInvocation<'_>, choices: &[Choice<'_>]) {
        let keys = &self.inner.keys;
        let limit = |limit: Option<u32>| limit.map_or_else(String::new, |it| it.to_string());
        for choice in choices {
            let Choice { agent, budget, .. } = *choice;
            let sessions = budget.sessions.or(choice.is_counted().then_some(u32::MAX));
            script
                .key(keys.resting(agent))
                .key(keys.scope(&Scope::Agent(agent.clone())))
                .key(&[keys.dials(agent), keys.tokens(agent)])
                .arg(agent.as_str())
                .arg(u8::from(choice.rests))
                .arg(&[limit(sessions), limit(budget.dials), limit(budget.tokens)])
                .arg(&[choice.ticket, choice.state]);
        }
    }

    /// Returns where the dials for a call's agent are counted, by the scopes of the call.
    pub(super) fn dials_in(&self, scopes: &[Scope]) -> Vec<String> {
        let agents = scopes.iter().filter_map(|scope| match scope {
            Scope::Agent(agent) => Some(self.inner.keys.dials(agent)),
            Scope::Global
            | Scope::Setup
            | Scope::Tenant(_)
            | Scope::Campaign(_)
            | Scope::Group(_)
            | Scope::Outbound => None,
        });
        agents.collect()
    }
}
