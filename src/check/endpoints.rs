//! Where tenants are told of their calls: whether the guard would let anything go there.

use futures_util::future::join_all;

use crate::{check::finding::Finding, event::Endpoints, guard::GuardRules};

pub async fn probe(rules: &GuardRules, endpoints: &Endpoints) -> Vec<Finding> {
    let all = endpoints
        .iter()
        .flat_map(|(tenant, endpoints)| endpoints.iter().map(move |endpoint| (tenant, endpoint)));
    let looked = all.map(async |(tenant, endpoint)| Finding::Endpoint {
        tenant: tenant.clone(),
        url: endpoint.url.clone(),
        whereabouts: rules.look_up(&endpoint.url).await,
    });
    join_all(looked).await
}
