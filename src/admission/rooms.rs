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
pub fn all_rooms(campaigns: &Campaigns, caps: &Caps) -> Vec<Room> {
    let mut all = vec![Room::new(Scope::Outbound, caps.outbound)];
    for room in rooms(campaigns.default_campaign(), campaigns, caps) {
        if !all.iter().any(|known| known.scope == room.scope) {
            all.push(room);
        }
    }
    all
}
