//! The calls that hold a slot through this replica, as it would tell a store that has lost them.

use std::collections::HashMap;

use crate::{
    admission::{Lease, scope::Scope, slot::SlotId, state::CallState, store::Claim},
    call::CarrierCallId,
    recent::Millis,
};

/// After how long the store is told a call's state again: it keeps it for an hour.
const TELL_AGAIN: Millis = 1_200_000;

/// This replica's calls, and what they hold in each scope.
#[derive(Debug, Default)]
pub struct Ledger {
    calls: HashMap<CarrierCallId, Entry>,
    held: HashMap<Scope, u32>,
    slots: u64,
}

/// One call's slot.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: SlotId,
    /// 0 while the store does not know the call.
    pub epoch: u64,
    pub scopes: Vec<Scope>,
    pub media: Media,
    pub state: CallState,
    /// What repeated webhooks are answered with, while the store may not know it.
    pub ticket: Option<String>,
    /// When the store was told the call's state, if it was.
    pub told: Option<Millis>,
}

/// Whether a call's media is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// It cannot come before somebody picks up the call, which we placed. It rings until then at most.
    Rings {
        until: Millis,
    },
    /// It may come, until then.
    Awaited {
        until: Millis,
    },
    Here,
}

impl Ledger {
    /// Enters a call in place of what it held so far, which is returned.
    pub fn enter(
        &mut self,
        now: Millis,
        call: &CarrierCallId,
        epoch: u64,
        media: Media,
        state: CallState,
        scopes: Vec<Scope>,
    ) -> (SlotId, Option<Entry>) {
        let before = self.remove(call);
        self.slots += 1;
        let id = SlotId(self.slots);
        for scope in &scopes {
            *self.held.entry(scope.clone()).or_insert(0) += 1;
        }
        let entry = Entry {
            id,
            epoch,
            scopes,
            media,
            state,
            ticket: None,
            told: (epoch > 0).then_some(now),
        };
        self.calls.insert(call.clone(), entry);
        (id, before)
    }

    pub fn holds(&self, call: &CarrierCallId) -> bool {
        self.calls.contains_key(call)
    }

    /// Returns whether the media of a call is here that holds a slot through this replica.
    pub fn media_of(&self, call: &CarrierCallId) -> Option<Media> {
        self.calls.get(call).map(|entry| entry.media)
    }

    pub fn get_mut(&mut self, call: &CarrierCallId) -> Option<&mut Entry> {
        self.calls.get_mut(call)
    }

    pub fn remove(&mut self, call: &CarrierCallId) -> Option<Entry> {
        let entry = self.calls.remove(call)?;
        for scope in &entry.scopes {
            if let Some(held) = self.held.get_mut(scope) {
                *held -= 1;
                if *held == 0 {
                    self.held.remove(scope);
                }
            }
        }
        Some(entry)
    }

    /// Removes a call's slot, unless the call holds another one by now.
    pub fn remove_slot(&mut self, call: &CarrierCallId, id: SlotId) -> Option<Entry> {
        let same = self.calls.get(call).is_some_and(|entry| entry.id == id);
        if same { self.remove(call) } else { None }
    }

    /// Gives a call that we placed the name that its carrier has for it.
    pub fn rename(&mut self, pending: &CarrierCallId, call: &CarrierCallId) {
        if let Some(mut entry) = self.calls.remove(pending) {
            entry.state.carrier_call_id = call.clone();
            entry.told = None;
            self.calls.insert(call.clone(), entry);
        }
    }

    pub fn get(&self, call: &CarrierCallId) -> Option<&Entry> {
        self.calls.get(call)
    }

    /// Removes a call whose media has not come.
    pub fn remove_waiting(&mut self, call: &CarrierCallId) -> Option<Entry> {
        let waits = self.calls.get(call).is_some_and(Entry::waits);
        if waits { self.remove(call) } else { None }
    }

    /// Removes the calls whose media has not come in time.
    pub fn take_lapsed(&mut self, now: Millis) -> Vec<(CarrierCallId, Entry)> {
        let lapsed = self.calls.iter().filter(|(_, entry)| match entry.media {
            Media::Rings { until } | Media::Awaited { until } => until <= now,
            Media::Here => false,
        });
        let lapsed: Vec<_> = lapsed.map(|(call, _)| call.clone()).collect();
        let removed = lapsed.into_iter().filter_map(|call| {
            let entry = self.remove(&call)?;
            Some((call, entry))
        });
        removed.collect()
    }

    /// Returns what is to be renewed: everything, or only what is short-lived or unknown to the
    /// store.
    pub fn claims(&self, now: Millis, lease: Millis, everything: bool) -> Vec<Claim> {
        let calls = self.calls.iter();
        let due = calls.filter(|(_, entry)| everything || entry.waits() || entry.epoch == 0);
        due.map(|(call, entry)| entry.claim(call, now, lease))
            .collect()
    }

    /// Returns what one call is renewed with.
    pub fn claim(&self, call: &CarrierCallId, now: Millis, lease: Millis) -> Option<Claim> {
        let entry = self.calls.get(call)?;
        Some(entry.claim(call, now, lease))
    }

    /// Tells whether every call is in the store.
    pub fn all_known(&self) -> bool {
        self.calls.values().all(|entry| entry.epoch > 0)
    }

    /// Returns what this replica's calls hold in each scope.
    pub fn held(&self) -> &HashMap<Scope, u32> {
        &self.held
    }
}

impl Entry {
    /// Tells whether its media is not here.
    pub fn waits(&self) -> bool {
        match self.media {
            Media::Rings { .. } | Media::Awaited { .. } => true,
            Media::Here => false,
        }
    }

    /// The store forgets what it was told, and calls can be longer than that.
    fn is_untold(&self, now: Millis) -> bool {
        self.told.is_none_or(|told| told + TELL_AGAIN <= now)
    }

    fn claim(&self, call: &CarrierCallId, now: Millis, lease: Millis) -> Claim {
        Claim {
            lease: Lease {
                call: call.clone(),
                epoch: self.epoch,
            },
            scopes: self.scopes.clone(),
            lasts: match self.media {
                Media::Rings { until } => until.saturating_sub(now).clamp(1, lease),
                Media::Awaited { until } => until.saturating_sub(now).max(1),
                Media::Here => lease,
            },
            has_media: !self.waits(),
            state: self.is_untold(now).then(|| self.state.json()),
            ticket: self.ticket.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::CallId, campaign::Campaigns, language::Language};

    const LEASE: Millis = 30_000;
    const AWAITED: Media = Media::Awaited { until: 20_000 };

    fn call(id: &str) -> CarrierCallId {
        CarrierCallId::try_from(id.to_owned()).unwrap()
    }

    fn enter(ledger: &mut Ledger, id: &str, epoch: u64, media: Media) -> SlotId {
        let campaigns = Campaigns::only(Language::default(), None, Vec::new());
        let campaign = campaigns.default_campaign();
        let scopes = [Scope::Global, Scope::Setup];
        let scopes = scopes.into_iter();
        let scopes: Vec<Scope> = scopes
            .filter(|scope| scope.counts(media == Media::Here))
            .collect();
        let agent = &campaign.agent;
        let state = CallState::new(
            CallId::of(&call(id)),
            call(id),
            campaign,
            agent,
            "r1",
            &scopes,
        );
        let entered = ledger.enter(0, &call(id), epoch, media, state, scopes);
        entered.0
    }

    fn held(ledger: &Ledger, scope: &Scope) -> u32 {
        ledger.held().get(scope).copied().unwrap_or(0)
    }

    /// Returns what is claimed, by call.
    fn claims(ledger: &Ledger, now: Millis, everything: bool) -> Vec<Claim> {
        let mut claims = ledger.claims(now, LEASE, everything);
        claims.sort_by(|one, other| one.lease.call.as_str().cmp(other.lease.call.as_str()));
        claims
    }

    #[test]
    fn a_call_holds_one_slot_however_often_it_is_entered() {
        let mut ledger = Ledger::default();
        let waiting = enter(&mut ledger, "CA1", 1, AWAITED);
        assert_eq!(held(&ledger, &Scope::Setup), 1);
        let live = enter(&mut ledger, "CA1", 2, Media::Here);
        assert_eq!(held(&ledger, &Scope::Setup), 0);
        assert_eq!(held(&ledger, &Scope::Global), 1);
        assert!(ledger.remove_slot(&call("CA1"), waiting).is_none());
        assert_eq!(held(&ledger, &Scope::Global), 1, "it holds another one");
        let removed = ledger.remove_slot(&call("CA1"), live).unwrap();
        assert_eq!(removed.epoch, 2);
        assert!(ledger.held().is_empty());
        assert!(ledger.remove_slot(&call("CA1"), live).is_none());
    }

    #[test]
    fn only_what_waits_lapses_here_and_only_once_its_time_is_over() {
        let mut ledger = Ledger::default();
        enter(&mut ledger, "CA1", 1, AWAITED);
        enter(&mut ledger, "CA2", 2, Media::Here);
        assert!(ledger.take_lapsed(19_999).is_empty());
        let lapsed = ledger.take_lapsed(20_000);
        let lapsed: Vec<_> = lapsed.into_iter().map(|(call, _)| call).collect();
        assert_eq!(lapsed, [call("CA1")]);
        assert_eq!(held(&ledger, &Scope::Global), 1);
        assert!(ledger.remove_waiting(&call("CA2")).is_none());
    }

    #[test]
    fn a_tick_claims_what_waits_and_what_the_store_does_not_know() {
        let mut ledger = Ledger::default();
        enter(&mut ledger, "CA1", 1, AWAITED);
        enter(&mut ledger, "CA2", 2, Media::Here);
        enter(&mut ledger, "CA3", 0, Media::Here);
        assert!(!ledger.all_known());
        let named = |claims: Vec<Claim>| {
            let names = claims.into_iter().map(|claim| claim.lease.call.to_string());
            names.collect::<Vec<_>>()
        };
        assert_eq!(named(claims(&ledger, 0, false)), ["CA1", "CA3"]);
        assert_eq!(named(claims(&ledger, 0, true)), ["CA1", "CA2", "CA3"]);
        ledger.get_mut(&call("CA3")).unwrap().epoch = 3;
        assert!(ledger.all_known());
    }

    #[test]
    fn what_waits_is_claimed_for_no_longer_than_it_may_wait() {
        let mut ledger = Ledger::default();
        enter(&mut ledger, "CA1", 1, AWAITED);
        enter(&mut ledger, "CA2", 2, Media::Here);
        let lasts = |now| {
            claims(&ledger, now, true)
                .iter()
                .map(|it| it.lasts)
                .collect()
        };
        let expected: Vec<Vec<Millis>> = vec![vec![20_000, LEASE], vec![1, LEASE], vec![1, LEASE]];
        let claimed: Vec<Vec<Millis>> = [0, 19_999, 30_000].map(lasts).to_vec();
        assert_eq!(claimed, expected);
    }

    #[test]
    fn a_calls_state_is_told_again_before_the_store_forgets_it() {
        let mut ledger = Ledger::default();
        enter(&mut ledger, "CA1", 1, Media::Here);
        enter(&mut ledger, "CA2", 0, Media::Here);
        let told = |now| {
            let claims = claims(&ledger, now, true);
            claims.iter().map(|it| it.state.is_some()).collect()
        };
        let told: Vec<Vec<bool>> = [0, TELL_AGAIN - 1, TELL_AGAIN].map(told).to_vec();
        let expected = [vec![false, true], vec![false, true], vec![true, true]];
        assert_eq!(told, expected);
    }
}
