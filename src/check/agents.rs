//! Whether agents are ready to talk, each as in a call, though nobody says anything: an agent
//! charges for what it says and hears.

use std::sync::Arc;

use futures_util::future::join_all;
use url::Url;

use crate::{
    agent::{Agents, Trust},
    campaign::{Campaign, Name},
    check::finding::Finding,
    chunk::Encoding,
    config::{AgentKind, CampaignFile, Config},
    telemetry::AgentMetrics,
};

pub async fn probe(config: &Config, file: Option<CampaignFile>) -> Vec<Finding> {
    let (campaigns, others) = match file {
        Some(file) => (file.campaigns.all().cloned().collect(), file.agents),
        None => (Vec::new(), std::collections::BTreeMap::new()),
    };
    let default = (Name::default_name(), config.agent.clone());
    let mut named = vec![default.clone()];
    named.extend(
        others
            .iter()
            .map(|(name, agent)| (name.clone(), agent.clone())),
    );
    let settings: Vec<_> = named.iter().map(|(_, settings)| settings).collect();
    let trust = match Trust::of(&settings) {
        Ok(trust) => trust,
        Err(error) => return vec![Finding::Certificates(error)],
    };
    // As the calls have it that there will be.
    let encoding = if config.acs.is_open() && config.twilio.auth_tokens.is_empty() {
        config.acs.audio.encoding()
    } else {
        Encoding::Mulaw
    };
    let metrics = AgentMetrics::default();
    let agents = Agents::new(default.1, others, &trust, &metrics, None, None);
    let plain = Arc::new(Campaign::plain(config.language.clone(), None));
    let tried = named
        .iter()
        .map(async |(name, settings)| match settings.kind {
            AgentKind::Parrot => Finding::AgentWithin(name.clone()),
            AgentKind::OpenAi | AgentKind::AzureOpenAi | AgentKind::VoiceLive => {
                let its_own = |campaign: &&Arc<Campaign>| campaign.agents().any(|it| it == name);
                let campaign = campaigns.iter().find(its_own).unwrap_or(&plain);
                let mut at: Url = settings.url.clone();
                at.set_query(None); // Whatever it carries, nobody needs to see it.
                match agents.of(name).connect(campaign, encoding).await {
                    Ok(agent) => {
                        agent.close().await;
                        Finding::AgentReady(name.clone(), at)
                    }
                    Err(error) => Finding::AgentFails(name.clone(), at, error),
                }
            }
        });
    join_all(tried).await
}
