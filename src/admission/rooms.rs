//! Which scopes a call counts in, and how much room it needs there.

use crate::{
    admission::scope::{Room, Scope},
    campaign::{Budget, Campaign, Campaigns, Name},
    config::Caps,
};

/// Returns the scopes that a campaign's call counts in, with what is reserved for others there: the
/// global one first, the set-up one second.
pub fn rooms(campaign: &Campaign, campaigns: &Campaigns, caps: &Caps) -> Vec<Room> {
    let mut rooms = own_rooms(campaign, caps);
    for room in &mut rooms {
        let others = campaigns.all().map(|other| &**other);
        room.reserves = reserves(&room.scope, campaign, others);
    }
    rooms
}

/// Returns what a call that we place needs while it rings: its media is not awaited then.
pub fn ringing_rooms(campaign: &Campaign, campaigns: &Campaigns, caps: &Caps) -> Vec<Room> {
    let rooms = rooms(campaign, campaigns, caps).into_iter();
    let rooms = rooms.filter(|room| room.scope != Scope::Setup);
    rooms.chain([outbound_room(caps)]).collect()
}

/// Returns what a call needs among those that we place.
pub fn outbound_room(caps: &Caps) -> Room {
    Room::new(Scope::Outbound, caps.outbound)
}

/// Returns what a call needs among those of an agent; nothing counts them where it has no budget.
pub fn agent_room(agent: &Name, campaigns: &Campaigns) -> Option<Room> {
    let budget = campaigns.budget_of(agent);
    let is_counted = budget != Budget::default();
    // Whoever gives back what was taken of an agent's budget finds the agent by this scope.
    let cap = budget.sessions.unwrap_or(u32::MAX);
    is_counted.then(|| Room::new(Scope::Agent(agent.clone()), cap))
}

/// Returns every scope there is, with its cap.
pub fn scopes_with_caps(campaigns: &Campaigns, caps: &Caps) -> Vec<(Scope, u32)> {
    let rooms = campaigns.all().flat_map(|one| own_rooms(one, caps));
    let scopes = rooms.map(|room| (room.scope, room.cap));
    let agents = campaigns
        .budgets()
        .filter_map(|(agent, budget)| Some((Scope::Agent(agent.clone()), budget.sessions?)));
    let outbound = [(Scope::Outbound, caps.outbound)];
    let mut all: Vec<_> = scopes.chain(agents).chain(outbound).collect();
    all.sort();
    all.dedup_by(|one, other| one.0 == other.0);
    all
}

fn own_rooms(campaign: &Campaign, caps: &Caps) -> Vec<Room> {
    let of_tenant = campaign.tenant_caps.max_calls.unwrap_or(caps.tenant);
    let mut rooms = vec![
        Room::new(Scope::Global, caps.global),
        Room::new(Scope::Setup, caps.setup),
        Room::new(Scope::Tenant(campaign.tenant.clone()), of_tenant),
    ];
    if let Some(cap) = campaign.max_calls {
        rooms.push(Room::new(Scope::Campaign(campaign.id.clone()), cap));
    }
    if let Some(group) = &campaign.group {
        rooms.push(Room::new(Scope::Group(group.id.clone()), group.max_calls));
    }
    rooms
}

/// Returns what a campaign must leave to others in one of its scopes.
fn reserves<'a>(
    scope: &Scope,
    campaign: &Campaign,
    others: impl Iterator<Item = &'a Campaign>,
) -> Vec<(Scope, u32)> {
    let mut reserves: Vec<(Scope, u32)> = Vec::new();
    for other in others.filter(|other| other.id != campaign.id) {
        let shares = match scope {
            Scope::Global => true,
            Scope::Tenant(tenant) => other.tenant == *tenant,
            Scope::Group(id) => other.group.as_ref().is_some_and(|group| group.id == *id),
            Scope::Setup | Scope::Campaign(_) | Scope::Agent(_) | Scope::Outbound => false,
        };
        if shares && other.reserved > 0 {
            reserves.push((Scope::Campaign(other.id.clone()), other.reserved));
        }
        let tenant = (
            Scope::Tenant(other.tenant.clone()),
            other.tenant_caps.reserved,
        );
        if *scope == Scope::Global
            && tenant.1 > 0
            && other.tenant != campaign.tenant
            && !reserves.contains(&tenant)
        {
            reserves.push(tenant);
        }
    }
    reserves
}
