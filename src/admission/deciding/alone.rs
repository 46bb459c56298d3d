//! Whether a call may come in while the store cannot say so: by this replica's share.

use crate::admission::{
    Admission, Book, Decision, Reason, Refusal, Trouble, deciding::Asking, outage::Verdict,
    scope::Scope,
};

impl Admission {
    /// Decides by this replica's share of what was free when the trouble began. `unheard` if the
    /// store was asked and may have decided too.
    pub(super) async fn admit_without_store(
        &self,
        mut askings: Vec<Asking<'_>>,
        unheard: bool,
    ) -> Decision {
        for asking in &mut askings {
            asking.state.degraded = true;
        }
        let call = askings[0].carrier_call;
        let (decided, gated) = {
            let mut book = self.book();
            // The same webhook may have been decided about while this one waited for the store.
            if let Some(kept) = book.decisions.get(self.clock.local(), call).cloned() {
                drop(book);
                return self.repeated(call, kept);
            }
            if book.ledger.holds(call) {
                drop(book);
                return Self::already_over(call);
            }
            let decided = self.choose_without_store(&mut book, &askings);
            let decided = decided.map(|asking| {
                let ticket = self.ticket(asking, true);
                self.enter_waiting(&mut book, asking, &ticket, 0);
                self.remember(&mut book, call, &ticket);
                (asking, ticket)
            });
            (decided, book.outage.trouble() == Some(Trouble::Gated))
        };
        let (asking, ticket) = match decided {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.owe_refusal(&askings, &refusal, unheard);
                return self.refused(call, refusal);
            }
        };
        if gated && let Some(refusal) = self.register(asking).await {
            self.book().dials.take_back(asking.agent, call);
            self.owe_refusal(&askings, &refusal, false);
            return self.refused(call, refusal);
        }
        self.metrics.admitted_without_store();
        let active = self.occupancy().active;
        self.admitted(asking, ticket, 0, active)
    }

    /// Returns the first agent that a call can have by this replica's share, or why the first of
    /// all cannot.
    fn choose_without_store<'a, 'b>(
        &self,
        book: &mut Book,
        askings: &'a [Asking<'b>],
    ) -> Result<&'a Asking<'b>, Refusal> {
        let mut first = None;
        for asking in askings {
            match self.lacks_without_store(book, asking) {
                None => return Ok(asking),
                Some(refusal) => first = first.or(Some(refusal)),
            }
        }
        Err(first.expect("a call may have one agent at least"))
    }

    fn lacks_without_store(&self, book: &mut Book, asking: &Asking<'_>) -> Option<Refusal> {
        let scope = || Scope::Agent(asking.agent.clone());
        if asking.rests {
            return Some(Refusal {
                reason: Reason::Resting,
                scope: scope(),
                used: 0,
                cap: 0,
            });
        }
        let share = asking
            .budget
            .dials
            .and_then(|it| book.outage.per_minute(it));
        let dials = book.dials.count(self.clock.local(), asking.agent);
        if let Some(share) = share.filter(|share| *share <= dials) {
            return Some(Refusal {
                reason: Reason::Dials,
                scope: scope(),
                used: dials,
                cap: share,
            });
        }
        let Book { ledger, outage, .. } = book;
        match outage.decide(&asking.rooms, ledger.held()) {
            Verdict::Admit => None,
            Verdict::Refuse { scope, used, cap } => Some(Refusal {
                reason: Reason::Outage,
                scope,
                used,
                cap,
            }),
        }
    }
}
