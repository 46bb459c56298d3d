//! Whose turn it is to ask the database: no tenant's questions keep the others' waiting.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    api::{ApiError, Code, Reached, Tenant},
    campaign::Name,
};

/// How many questions of one tenant are asked at once; one more than that are, of all tenants.
const AT_ONCE: u32 = 2;
/// How soon to ask again: most answers take less.
const SOON: Duration = Duration::from_secs(1);

/// The questions that are asked now. Only who has any takes room.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<HashMap<Name, u32>>>);

/// The right to one question, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    tenant: Name,
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
                used: *used,
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
