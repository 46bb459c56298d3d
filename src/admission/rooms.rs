//! Which scopes a call counts in, and how much room it needs there.

use crate::{
    admission::scope::{Room, Scope},
    campaign::{Campaign, Campaigns},
    config::Caps,
};

/// Returns the scopes that a campaign's call counts in: the global one first, the set-up one
/// second.
pub fn rooms(campaign: &Campaign, _campaigns: &Campaigns, caps: &Caps) -> Vec<Room> {
    let mut rooms = vec![
        Room::new(Scope::Global, caps.global),
        Room::new(Scope::Setup, caps.setup),
        Room::new(Scope::Tenant(campaign.tenant.clone()), caps.tenant),
    ];
    if let Some(cap) = campaign.max_calls {
        rooms.push(Room::new(Scope::Campaign(campaign.id.clone()), cap));
    }
    rooms
}

/// Returns every scope there is, with its cap.
pub fn scopes_with_caps(campaigns: &Campaigns, caps: &Caps) -> Vec<(Scope, u32)> {
    let mut all = Vec::new();
    for room in rooms(campaigns.default_campaign(), campaigns, caps) {
        if !all.iter().any(|(known, _)| *known == room.scope) {
            all.push((room.scope, room.cap));
        }
    }
    all.push((Scope::Outbound, caps.outbound));
    all
}
