//! What operators want of replicas, and what replicas show operators, in the store that they share.
//! It is asked beside calls, and no call waits for it.

use crate::{
    admission::{Admission, StoreError, rooms, store::Store},
    campaign::Campaigns,
};

/// What operators want of this replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Whether no replica is to let new calls in.
    pub stops_intake: bool,
    /// Whether this replica is to drain.
    pub drains: bool,
    /// Whether somebody watches, at whichever replica.
    pub watched: bool,
    /// Which logins have ended before their time, as [`Admission::tell_ended_logins`] was told.
    pub ended_logins: Option<String>,
}

impl Admission {
    /// Returns what operators want, at whichever replica they said so; `None` where this process has
    /// nobody to share with.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn wishes(&self) -> Result<Option<Wishes>, StoreError> {
        match &self.store {
            Store::Memory(_) => Ok(None),
            Store::Redis(store) => store.wishes().await.map(Some),
        }
    }

    /// Has all replicas let new calls in, or none.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn set_intake(&self, stops: bool) -> Result<(), StoreError> {
        match &self.store {
            Store::Memory(_) => Ok(()),
            Store::Redis(store) => store.set_intake(stops).await,
        }
    }

    /// Has a replica drain that may be another one.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn ask_to_drain(&self, replica: &str) -> Result<(), StoreError> {
        match &self.store {
            Store::Memory(_) => Ok(()),
            Store::Redis(store) => store.ask_to_drain(replica).await,
        }
    }

    /// Tells all replicas which logins have ended before their time.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn tell_ended_logins(&self, ended: String) -> Result<(), StoreError> {
        match &self.store {
            Store::Memory(_) => Ok(()),
            Store::Redis(store) => store.tell_ended_logins(ended).await,
        }
    }

    /// Shows the others this replica as it is, for some seconds.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn show_view(&self, view: String) -> Result<(), StoreError> {
        match &self.store {
            Store::Memory(_) => Ok(()),
            Store::Redis(store) => store.show_view(view).await,
        }
    }

    /// Says that somebody watches, for some seconds, and returns the names of the replicas that
    /// live, each with what it shows. There are none where this process has nobody to share with.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn watch(&self) -> Result<Vec<(String, Option<String>)>, StoreError> {
        match &self.store {
            Store::Memory(_) => Ok(Vec::new()),
            Store::Redis(store) => store.watch().await,
        }
    }

    /// Returns how many more of a usual campaign's calls this replica admits by itself, while the
    /// store is away; `None` where there is no bound.
    pub fn admits_alone(&self, campaigns: &Campaigns) -> Option<u32> {
        let rooms = rooms::rooms(campaigns.default_campaign(), campaigns, &self.caps);
        let book = self.book();
        book.outage.more(&rooms, book.ledger.held())
    }

    /// Returns for how long the store has let us down this time, if it does.
    pub fn troubled_for(&self) -> Option<std::time::Duration> {
        self.book().outage.troubled_for(self.clock.elapsed())
    }
}
