//! Whose turn it is to ask the database, or to change something in it: no tenant's questions keep the
//! others' waiting for long, and none changes more than the database bears.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use crate::{
    api::{ApiError, Code, Reached, Tenant},
    campaign::Name,
};

/// How many questions of one tenant are asked at once; one more than that are, of all tenants.
const AT_ONCE: u32 = 2;
/// How soon to ask again: most answers take less.
const SOON: Duration = Duration::from_secs(1);

/// How many requests of one tenant's may change something within a second, also if they are refused for
/// another reason; and how many at once.
const CHANGES: NonZeroU32 = NonZeroU32::new(100).expect("not zero");
const CHANGES_AT_ONCE: NonZeroU32 = NonZeroU32::new(500).expect("not zero");

/// The questions that are asked now. Only who has any takes room.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<HashMap<Name, u32>>>);

/// The right to one question, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    tenant: Name,
}

/// Counts the requests that may change something. A tenant is one of the settings', so there are few.
pub struct Changes(DefaultKeyedRateLimiter<Name>);

impl Changes {
    pub fn new() -> Self {
        let quota = Quota::per_second(CHANGES).allow_burst(CHANGES_AT_ONCE);
        Self(RateLimiter::keyed(quota))
    }

    /// # Errors
    /// If the tenant asks for more than it may.
    pub fn count(&self, tenant: &Tenant) -> Result<(), ApiError> {
        let now = DefaultClock::default().now();
        self.0.check_key(tenant.name()).map_err(|until| {
            let message = format!("more than {CHANGES} requests a second that change something");
            let error = ApiError::new(Code::RateLimitExceeded, message);
            let error = error.retry_after(until.wait_time_from(now));
            error.reached(Reached {
                cap: "changes_within_a_second",
                value: CHANGES.get(),
                used: None,
            })
        })
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "changes of {} tenants", self.0.len())
    }
}

impl Turns {
    /// # Errors
    /// If the tenant asks as many questions already as it may.
    pub fn take(&self, tenant: &Tenant) -> Result<Turn, ApiError> {
        let mut asked = self.lock();
        let used = asked.entry(tenant.name().clone()).or_default();
        if *used >= AT_ONCE {
            let message = format!("{AT_ONCE} questions of this tenant's are being answered");
            let error = ApiError::new(Code::RateLimitExceeded, message).retry_after(SOON);
            return Err(error.reached(Reached {
                cap: "questions",
                value: AT_ONCE,
                used: Some(*used),
            }));
        }
        *used += 1;
        Ok(Turn {
            turns: self.clone(),
            tenant: tenant.name().clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut asked = self.turns.lock();
        if let Some(used) = asked.get_mut(&self.tenant) {
            *used -= 1;
            if *used == 0 {
                asked.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_changes_too_much_waits_and_another_does_not() {
        let changes = Changes::new();
        let [ours, theirs] = ["acme", "other"].map(Tenant::of_test);
        let refused = (0..).find_map(|_| changes.count(&ours).err());
        let answer = refused.expect("it ends some time").answer("req_1");
        assert_eq!(answer.status(), Code::RateLimitExceeded.status());
        assert!(answer.headers().contains_key("retry-after"));
        changes.count(&theirs).unwrap();
    }

    #[test]
    fn a_tenant_asks_two_questions_at_once_whatever_others_ask() {
        let turns = Turns::default();
        let [ours, theirs] = ["acme", "other"].map(Tenant::of_test);
        let two = [turns.take(&ours).unwrap(), turns.take(&ours).unwrap()];
        let third = turns.take(&ours).unwrap_err();
        let answer = third.answer("req_1");
        assert_eq!(answer.status(), Code::RateLimitExceeded.status());
        assert_eq!(answer.headers().get("retry-after").unwrap(), "1");
        drop(turns.take(&theirs).unwrap());
        drop(two);
        assert!(turns.lock().is_empty(), "who asks nothing takes no room");
        drop(turns.take(&ours).unwrap());
    }
}
