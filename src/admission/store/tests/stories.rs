//! What a store does, told of both.

use super::{house::House, *};

/// Tells a story of both stores: of memory, and of a Redis whose gate is open.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a story is written where it is told"
)]
fn of_both(story: impl AsyncFn(&mut House)) {
    runtime().block_on(async {
        story(&mut House::in_memory()).await;
        let mut shared = House::in_redis(2).await;
        shared.renew(0, &[]).await;
        shared.pass(5_000);
        story(&mut shared).await;
    });
}

fn rooms(global: u32, setup: u32) -> Vec<Room> {
    vec![
        Room::new(Scope::Global, global),
        Room::new(Scope::Setup, setup),
        Room::new(Scope::Tenant(Name::default_name()), global),
    ]
}

impl House {
    async fn acquire(&mut self, number: u32, rooms: &[Room]) -> Acquired {
        self.pass(0);
        self.acquire_at_once(number, rooms).await
    }

    /// Takes no note of what time it is, which is dear where many calls are held.
    async fn acquire_at_once(&self, number: u32, rooms: &[Room]) -> Acquired {
        let request = Request {
            call: &call(number),
            rooms,
            lease: SETUP,
        };
        let choices = Choices {
            agents: &[Choice {
                agent: &Name::default_name(),
                budget: Budget::default(),
                rests: false,
                ticket: &format!("ticket-{number}"),
                state: &state(rooms),
            }],
            dials: true,
        };
        let acquired = self.store(0).acquire(self.now, &request, &choices);
        acquired.await.unwrap()
    }

    async fn admits(&mut self, number: u32, rooms: &[Room]) -> bool {
        matches!(self.acquire(number, rooms).await, Acquired::Admitted { .. })
    }

    /// Asks for a call that may have the default agent.
    async fn ask(&mut self, number: u32, budget: Budget, dials: bool) -> Acquired {
        self.pass(0);
        let rooms = rooms(5, 5);
        let scopes = ["global", "agent:default"];
        let request = Request {
            call: &call(number),
            rooms: &rooms,
            lease: SETUP,
        };
        let choices = Choices {
            agents: &[Choice {
                agent: &Name::default_name(),
                budget,
                rests: false,
                ticket: "a-ticket",
                state: &serde_json::json!({ "scopes": scopes }).to_string(),
            }],
            dials,
        };
        let acquired = self.store(0).acquire(self.now, &request, &choices);
        acquired.await.unwrap()
    }

    async fn report(&mut self, rest: Rest, tokens: u32) {
        self.pass(0);
        let report = AgentReport {
            tokens,
            rest,
            ..AgentReport::question(Name::default_name())
        };
        let reported = self.store(0).report(self.now, &[report]).await;
        reported.unwrap();
    }

    /// A call's media comes, with the ticket that `nonce` is of.
    async fn adopt(&mut self, replica: usize, number: u32, rooms: &[Room], nonce: u32) -> Adopted {
        self.pass(0);
        let request = Request {
            call: &call(number),
            rooms,
            lease: LEASE,
        };
        let arrival = Arrival {
            nonce: &format!("{number}-{nonce}"),
            admitted_without: false,
            state: &state(rooms),
            dials: None,
        };
        let store = self.store(replica);
        let adopted = store.adopt(self.now, &request, &arrival);
        adopted.await.unwrap()
    }

    async fn live(&mut self, replica: usize, number: u32, rooms: &[Room], nonce: u32) -> Lease {
        match self.adopt(replica, number, rooms, nonce).await {
            Adopted::Live { lease, .. } => lease,
            refused @ (Adopted::Used | Adopted::Ended | Adopted::Refused(_)) => {
                panic!("a live call expected, not {refused:?}")
            }
        }
    }

    async fn renew(&mut self, replica: usize, leases: &[&Lease]) -> Renewed {
        self.pass(0);
        let claims = leases.iter().map(|lease| Claim {
            lease: (*lease).clone(),
            scopes: vec![Scope::Global, Scope::Tenant(Name::default_name())],
            lasts: LEASE,
            has_media: true,
            state: None,
            ticket: None,
        });
        let claims: Vec<Claim> = claims.collect();
        let renewal = Renewal {
            claims: &claims,
            scopes: &[Scope::Global],
            puts_up_gate: false,
            looks_after: true,
            places: None,
            hurried: false,
        };
        let renewed = self.store(replica).renew(self.now, &renewal).await;
        renewed.unwrap()
    }

    async fn release(&mut self, lease: &Lease) -> Released {
        self.pass(0);
        let ending = ending();
        let scopes = [Scope::Global, Scope::Tenant(Name::default_name())];
        let released = self.store(0).release(self.now, lease, &scopes, &ending);
        released.await.unwrap()
    }

    async fn end(&mut self, number: u32) -> Released {
        self.end_at(0, number).await
    }

    async fn end_at(&mut self, replica: usize, number: u32) -> Released {
        self.pass(0);
        let ended = self
            .store(replica)
            .end(self.now, &call(number), &ending())
            .await;
        ended.unwrap()
    }
}

fn ending() -> Ending<'static> {
    Ending {
        reason: EndReason::CallerHungUp,
        without_media: EndReason::NoMedia,
        state: None,
        forever: true,
        had_media: false,
    }
}

fn gone(reason: EndReason) -> Released {
    Released::Gone {
        reason,
        waited: false,
    }
}

fn freed(active: u32) -> Released {
    Released::Freed {
        active,
        reason: EndReason::CallerHungUp,
        waited: false,
    }
}

fn full(scope: Scope, used: u32, cap: u32) -> Refusal {
    Refusal {
        reason: Reason::Full,
        scope,
        used,
        cap,
    }
}

#[test]
fn a_cap_is_reached_and_never_exceeded() {
    of_both(async |house| {
        let rooms = rooms(2, 2);
        assert!(house.admits(1, &rooms).await);
        assert!(house.admits(2, &rooms).await);
        let refused = house.acquire(3, &rooms).await;
        assert_eq!(refused, Acquired::Refused(full(Scope::Global, 2, 2)));
        assert_eq!(house.count(&Scope::Global), 2);
    });
}

#[test]
fn a_repeated_webhook_gets_the_first_decision_also_a_refusal() {
    of_both(async |house| {
        let rooms = rooms(1, 1);
        house.acquire(1, &rooms).await;
        let kept = Acquired::Repeated(Kept::Admitted("ticket-1".to_owned()));
        assert_eq!(house.acquire(1, &rooms).await, kept);
        let refusal = full(Scope::Global, 1, 1);
        let refused = Acquired::Refused(refusal.clone());
        assert_eq!(house.acquire(2, &rooms).await, refused);
        house.end(1).await;
        let kept = Acquired::Repeated(Kept::Refused(refusal));
        assert_eq!(house.acquire(2, &rooms).await, kept, "though there is room");
        house.pass(61_000);
        assert!(house.admits(2, &rooms).await);
    });
}

#[test]
fn a_long_calls_webhook_takes_no_second_slot_when_it_is_repeated_late() {
    of_both(async |house| {
        let rooms = rooms(5, 5);
        house.acquire(1, &rooms).await;
        let lease = house.live(1, 1, &rooms, 1).await;
        for _ in 0..20 {
            house.pass(5_000);
            assert_eq!(house.renew(1, &[&lease]).await.news, []);
        }
        assert_eq!(house.acquire(1, &rooms).await, Acquired::Held);
        assert_eq!(house.count(&Scope::Global), 1);
    });
}

#[test]
fn a_call_without_media_gives_its_slot_back() {
    of_both(async |house| {
        let rooms = rooms(1, 1);
        house.acquire(1, &rooms).await;
        house.pass(SETUP - 1_000);
        assert!(!house.admits(2, &rooms).await);
        house.pass(2_000);
        assert!(house.admits(3, &rooms).await);
    });
}

#[test]
fn a_heartbeat_tells_whose_leases_have_lapsed_since_the_last_one() {
    of_both(async |house| {
        let rooms = rooms(5, 5);
        house.acquire(1, &rooms).await;
        house.acquire(2, &rooms).await;
        assert_eq!(house.renew(0, &[]).await.lapsed, []);
        house.pass(SETUP + 1_000);
        house.count(&Scope::Global); // Whoever looks first.
        let lapsed = house.renew(0, &[]).await.lapsed;
        assert_eq!(lapsed, [call(1), call(2)]);
        assert_eq!(house.renew(0, &[]).await.lapsed, []);
    });
}

#[test]
fn a_live_call_leaves_the_set_up_scope_and_keeps_the_others() {
    of_both(async |house| {
        let rooms = rooms(5, 1);
        house.acquire(1, &rooms).await;
        let refused = house.acquire(2, &rooms).await;
        assert_eq!(refused, Acquired::Refused(full(Scope::Setup, 1, 1)));
        house.live(1, 1, &rooms, 1).await;
        assert!(house.admits(3, &rooms).await);
        assert_eq!(house.count(&Scope::Global), 2);
        assert_eq!(house.count(&Scope::Setup), 1);
    });
}

#[test]
fn a_ticket_is_used_once_whichever_replica_it_is_brought_to() {
    of_both(async |house| {
        let rooms = rooms(5, 5);
        house.acquire(1, &rooms).await;
        house.live(1, 1, &rooms, 1).await;
        assert_eq!(house.adopt(0, 1, &rooms, 1).await, Adopted::Used);
    });
}

#[test]
fn what_lapsed_is_adopted_only_if_there_is_room() {
    of_both(async |house| {
        let rooms = rooms(1, 1);
        house.acquire(1, &rooms).await;
        house.pass(SETUP + 1_000);
        assert!(house.admits(2, &rooms).await);
        let refused = Adopted::Refused(full(Scope::Global, 1, 1));
        assert_eq!(house.adopt(0, 1, &rooms, 1).await, refused);
        house.end(2).await;
        house.live(0, 1, &rooms, 1).await;
    });
}

#[test]
fn a_call_that_has_ended_is_never_admitted_again() {
    of_both(async |house| {
        let rooms = rooms(5, 5);
        let reason = EndReason::CallerHungUp;
        assert_eq!(house.end(1).await, gone(reason), "the end may come first");
        assert_eq!(house.acquire(1, &rooms).await, Acquired::Ended);
        house.acquire(2, &rooms).await;
        let lease = house.live(1, 2, &rooms, 1).await;
        assert_eq!(house.release(&lease).await, freed(0));
        assert_eq!(house.adopt(0, 2, &rooms, 2).await, Adopted::Ended);
        house.pass(3_500_000);
        assert_eq!(house.acquire(2, &rooms).await, Acquired::Ended);
    });
}

#[test]
fn why_a_call_ended_is_what_was_said_first() {
    of_both(async |house| {
        let rooms = rooms(5, 5);
        house.acquire(1, &rooms).await;
        let first = Released::Freed {
            active: 0,
            reason: EndReason::NoMedia,
            waited: true,
        };
        assert_eq!(house.end(1).await, first);
        let reason = EndReason::NoMedia;
        assert_eq!(house.end(1).await.reason(), Some(reason));
        let ended = house.store(0).ended(house.now, &call(1)).await;
        assert_eq!(ended.unwrap(), Some(reason));
    });
}

#[test]
fn who_has_ended_a_waiting_call_is_told_once_more_that_it_waited_and_nobody_else() {
    of_both(async |house| {
        let rooms = rooms(5, 5);
        house.acquire(1, &rooms).await;
        house.end(1).await;
        let reason = EndReason::NoMedia;
        let waited = Released::Gone {
            reason,
            waited: true,
        };
        assert_eq!(house.end(1).await, waited, "the answer may be lost");
        assert_eq!(house.end(1).await, waited, "and that one, too");
        // Memory has no more than one that could ask.
        if house.is_shared() {
            assert_eq!(house.end_at(1, 1).await, gone(reason));
        }
        house.acquire(2, &rooms).await;
        house.live(1, 2, &rooms, 1).await;
        house.end(2).await;
        let again = house.end(2).await;
        assert_eq!(again, gone(EndReason::CallerHungUp), "it had its media");
        house.acquire(3, &rooms).await;
        let lease = house.live(0, 3, &rooms, 2).await;
        house.release(&lease).await;
        let again = house.end(3).await;
        assert_eq!(
            again,
            gone(EndReason::CallerHungUp),
            "its owner gave it back"
        );
    });
}

#[test]
fn a_slot_is_given_back_once_and_only_by_its_owner() {
    of_both(async |house| {
        let rooms = rooms(5, 5);
        house.acquire(1, &rooms).await;
        let first = house.live(0, 1, &rooms, 1).await;
        let second = house.live(1, 1, &rooms, 2).await;
        assert!(second.epoch > first.epoch);
        assert_eq!(house.release(&first).await, Released::Stale);
        let lost = [(call(1), News::Lost)];
        assert_eq!(house.renew(0, &[&first]).await.news, lost);
        assert_eq!(house.count(&Scope::Global), 1);
        assert_eq!(house.release(&second).await, freed(0));
        let again = house.release(&second).await;
        assert_eq!(again, gone(EndReason::CallerHungUp));
    });
}

#[test]
fn an_owner_that_was_paused_takes_its_live_calls_in_again() {
    of_both(async |house| {
        let rooms = rooms(1, 1);
        house.acquire(1, &rooms).await;
        let lease = house.live(0, 1, &rooms, 1).await;
        house.pass(60_000);
        assert!(house.admits(2, &rooms).await);
        let taken_in = [(call(1), News::TakenIn(lease.epoch))];
        assert_eq!(house.renew(0, &[&lease]).await.news, taken_in);
        let live = house.count(&Scope::Global);
        assert_eq!(live, 2, "the live caller wins over the cap");
        assert!(!house.admits(3, &rooms).await);
    });
}

#[test]
fn who_has_a_calls_media_does_not_lose_it_to_who_waits_for_it() {
    of_both(async |house| {
        let rooms = rooms(5, 5);
        house.acquire(1, &rooms).await;
        let lease = house.live(0, 1, &rooms, 1).await;
        // It was paused for so long that a webhook which came again was decided about anew.
        house.pass(61_000);
        assert!(house.admits(1, &rooms).await);
        let renewed = house.renew(0, &[&lease]).await;
        let [(_, News::TakenIn(epoch))] = renewed.news[..] else {
            panic!("it is taken in: {renewed:?}");
        };
        assert!(epoch > lease.epoch);
        assert_eq!(house.count(&Scope::Global), 1);
        assert_eq!(house.count(&Scope::Setup), 0, "nobody waits for it");
        let second = house.live(1, 1, &rooms, 2).await;
        let live = Lease { epoch, ..lease };
        let lost = [(call(1), News::Lost)];
        assert_eq!(
            house.renew(0, &[&live]).await.news,
            lost,
            "to another socket"
        );
        assert!(second.epoch > epoch);
    });
}

#[test]
fn the_carriers_word_ends_a_call_for_its_owner_too() {
    of_both(async |house| {
        let rooms = rooms(1, 1);
        house.acquire(1, &rooms).await;
        let lease = house.live(1, 1, &rooms, 1).await;
        assert_eq!(house.end(1).await, freed(0));
        let ended = [(call(1), News::Ended(EndReason::CallerHungUp))];
        assert_eq!(house.renew(1, &[&lease]).await.news, ended);
        for scope in [Scope::Global, Scope::Tenant(Name::default_name())] {
            assert_eq!(house.count(&scope), 0, "{scope}");
        }
    });
}

#[test]
fn what_is_reserved_is_kept_for_whom_it_is() {
    of_both(async |house| {
        let tenant = |name: &str| Scope::Tenant(super::name(name));
        let mut others = rooms(3, 3);
        others[0].reserves.push((tenant("guest"), 2));
        let guests = [
            Room::new(Scope::Global, 3),
            Room::new(Scope::Setup, 3),
            Room::new(tenant("guest"), 3),
        ];
        assert!(house.admits(1, &others).await);
        let refused = Acquired::Refused(full(Scope::Global, 1, 1));
        assert_eq!(house.acquire(2, &others).await, refused);
        assert!(house.admits(3, &guests).await);
        assert!(!house.admits(4, &others).await, "one is kept still");
        assert!(house.admits(5, &guests).await);
        assert!(!house.admits(6, &guests).await, "the cap is the cap");
    });
}

#[test]
fn a_slot_that_was_taken_for_a_call_without_a_name_becomes_the_calls() {
    of_both(async |house| {
        let (rooms, now) = (rooms(5, 5), house.now);
        let Acquired::Admitted { epoch, .. } = house.acquire(1, &rooms).await else {
            panic!("there is room");
        };
        let pending = lease(&call(1), epoch);
        let scopes: Vec<Scope> = rooms.iter().map(|room| room.scope.clone()).collect();
        let rebind = async |number| {
            let call = call(number);
            let store = house.store(1);
            let rebound = store.rebind(now, &pending, &call, &scopes, "{}");
            rebound.await.unwrap()
        };
        assert_eq!(rebind(2).await, Rebound::Named);
        assert_eq!(rebind(3).await, Rebound::Gone, "it has its name");
        assert_eq!(house.count(&Scope::Global), 1);
        assert_eq!(house.acquire(2, &rooms).await, Acquired::Held);
        let named = lease(&call(2), epoch);
        assert!(matches!(
            house.release(&named).await,
            Released::Freed { waited: true, .. }
        ));
    });
}

#[test]
fn an_epoch_is_higher_than_those_that_only_replicas_remember() {
    of_both(async |house| {
        let rooms = rooms(5, 5);
        house.acquire(1, &rooms).await;
        // The store was lost, and the clock of the one that replaces it is late.
        let before = house.live(0, 1, &rooms, 1).await.epoch + 100_000;
        house.renew(0, &[&lease(&call(1), before)]).await;
        assert!(house.live(1, 1, &rooms, 2).await.epoch > before);
    });
}

#[test]
fn a_flood_of_calls_without_media_leaves_room_for_those_that_bring_it() {
    of_both(async |house| {
        let rooms = rooms(10, 10);
        for number in 0..60 {
            house.acquire(number, &rooms).await;
            house.pass(SETUP + 1_000);
            house.renew(0, &[]).await;
        }
        let admitted = count_admitted(house, 100..110, &rooms).await;
        assert_eq!(admitted, 5, "half of what is free");
        for number in 100..105 {
            house.live(0, number, &rooms, 1).await;
        }
        assert!(house.admits(200, &rooms).await, "half of the other half");
        // Once most calls bring their media again, the cap is what it was.
        for number in 300..400 {
            if house.admits(number, &rooms).await {
                house.live(0, number, &rooms, 1).await;
            }
            house.end(number).await;
        }
        let admitted = count_admitted(house, 500..510, &rooms).await;
        assert_eq!(admitted, 4, "beside the six that are there");
    });
}

#[test]
fn a_call_is_handed_out_when_its_lease_is_gone_and_again_until_its_end_is_written() {
    runtime().block_on(async {
        let mut house = House::in_redis(2).await;
        house.renew(0, &[]).await;
        house.pass(5_000);
        let rooms = rooms(5, 5);
        let lease = house.live(0, 1, &rooms, 1).await;
        house.pass(LEASE - 5_000);
        assert_eq!(house.renew(0, &[&lease]).await.unwritten, []);
        house.pass(LEASE + 2_000);
        assert_eq!(house.renew(1, &[]).await.unwritten, [], "it may go on");
        house.pass(1_500);
        assert_eq!(house.renew(1, &[]).await.unwritten, [call(1)]);
        assert_eq!(house.renew(0, &[]).await.unwritten, [], "one at a time");
        house.pass(14_000);
        assert_eq!(house.renew(0, &[]).await.unwritten, []);
        house.pass(1_500);
        assert_eq!(house.renew(0, &[]).await.unwritten, [call(1)]);
        house.store(0).written(&[call(1)]).await.unwrap();
        house.live(0, 2, &rooms, 2).await;
        house.end(2).await;
        // Nobody is there for so long that nothing tells of leases any more.
        house.pass(1_800_000);
        assert_eq!(house.renew(1, &[]).await.unwritten, [call(2)]);
    });
}

#[test]
fn what_an_operator_sweeps_up_counts_as_calls_without_media() {
    runtime().block_on(async {
        let mut house = House::in_redis(1).await;
        house.renew(0, &[]).await;
        house.pass(5_000);
        let rooms = rooms(300, 300);
        for number in 0..300 {
            house.acquire_at_once(number, &rooms).await;
        }
        house.pass(SETUP + 1_000);
        let Store::Redis(store) = house.store(0) else {
            panic!("a house in Redis");
        };
        let swept = store.reap(&[Scope::Global]).await.unwrap();
        assert_eq!(
            swept,
            (256, 0),
            "no more at once, and none of the rest is counted"
        );
        let few = self::rooms(10, 10);
        let admitted = count_admitted(&mut house, 500..510, &few).await;
        assert_eq!(admitted, 5, "half of what is free");
    });
}

async fn count_admitted(house: &mut House, numbers: std::ops::Range<u32>, rooms: &[Room]) -> usize {
    let mut admitted = 0;
    for number in numbers {
        admitted += usize::from(house.admits(number, rooms).await);
    }
    admitted
}

fn spent(reason: Reason, used: u32, cap: u32) -> Acquired {
    Acquired::Refused(Refusal {
        reason,
        scope: Scope::Agent(Name::default_name()),
        used,
        cap,
    })
}

#[test]
fn a_dial_counts_for_a_minute_and_what_nobody_dialed_for_is_given_back() {
    of_both(async |house| {
        let budget = Budget {
            dials: Some(1),
            ..Budget::default()
        };
        house.ask(1, budget, false).await;
        assert_eq!(house.ask(2, budget, true).await, spent(Reason::Dials, 1, 1));
        house.end(1).await;
        let admitted = house.ask(3, budget, true).await;
        assert!(
            matches!(admitted, Acquired::Admitted { .. }),
            "{admitted:?}"
        );
        house.end(3).await;
        assert_eq!(house.ask(4, budget, true).await, spent(Reason::Dials, 1, 1));
        house.pass(61_000);
        let admitted = house.ask(5, budget, true).await;
        assert!(
            matches!(admitted, Acquired::Admitted { .. }),
            "{admitted:?}"
        );
    });
}

#[test]
fn tokens_that_are_used_up_are_free_again_after_a_minute() {
    of_both(async |house| {
        let budget = Budget {
            tokens: Some(100),
            ..Budget::default()
        };
        house.report(Rest::No, 60).await;
        house.pass(30_000);
        house.report(Rest::No, 60).await;
        let refused = house.ask(1, budget, true).await;
        assert_eq!(refused, spent(Reason::Tokens, 120, 100));
        house.pass(31_000);
        let admitted = house.ask(2, budget, true).await;
        assert!(
            matches!(admitted, Acquired::Admitted { .. }),
            "{admitted:?}"
        );
    });
}

#[test]
fn an_agent_that_keeps_failing_is_tried_by_one_call_after_its_rest() {
    of_both(async |house| {
        let none = Budget::default();
        house.report(Rest::For(2_000), 0).await;
        let resting = spent(Reason::Resting, 0, 0);
        assert_eq!(house.ask(1, none, true).await, resting);
        house.pass(2_500);
        let tries = house.ask(2, none, true).await;
        assert!(matches!(tries, Acquired::Admitted { .. }), "{tries:?}");
        assert_eq!(house.ask(3, none, true).await, resting);
        house.report(Rest::Over, 0).await;
        let admitted = house.ask(4, none, true).await;
        assert!(
            matches!(admitted, Acquired::Admitted { .. }),
            "{admitted:?}"
        );
    });
}

#[test]
fn a_call_that_we_place_holds_its_slot_while_it_rings_and_waits_for_media_once_picked_up() {
    of_both(async |house| {
        let mut rooms = rooms(5, 5);
        rooms.push(Room::new(Scope::Outbound, 1));
        let ringing: Vec<Room> = rooms
            .iter()
            .filter(|room| room.scope != Scope::Setup)
            .cloned()
            .collect();
        let Acquired::Admitted { epoch, .. } = house.acquire(1, &ringing).await else {
            panic!("there is room");
        };
        let refused = Acquired::Refused(full(Scope::Outbound, 1, 1));
        assert_eq!(house.acquire(2, &ringing).await, refused);
        assert_eq!(house.count(&Scope::Setup), 0, "no media is awaited");
        let (pending, named) = (call(1), call(3));
        let request = Request {
            call: &named,
            rooms: &rooms,
            lease: SETUP,
        };
        let pick_up = PickUp {
            pending: &pending,
            ticket: "a-ticket",
            state: &state(&rooms),
            agent: None,
            dials: false,
        };
        let picked_up = async || {
            let store = house.store(1);
            store.pick_up(house.now, &request, &pick_up).await.unwrap()
        };
        assert!(matches!(picked_up().await, PickedUp::Waits { .. }));
        let again = Kept::Admitted("a-ticket".to_owned());
        assert_eq!(picked_up().await, PickedUp::Repeated(again));
        for scope in [Scope::Global, Scope::Setup, Scope::Outbound] {
            assert_eq!(house.count(&scope), 1, "{scope}");
        }
        // Whoever placed it hears that it is another's now.
        let placed = Claim {
            lease: lease(&named, epoch),
            scopes: ringing.iter().map(|room| room.scope.clone()).collect(),
            lasts: LEASE,
            has_media: false,
            state: None,
            ticket: None,
        };
        let renewal = Renewal {
            claims: &[placed],
            scopes: &[],
            puts_up_gate: false,
            looks_after: true,
            places: None,
            hurried: false,
        };
        let renewed = house.store(0).renew(house.now, &renewal).await.unwrap();
        assert_eq!(renewed.news, [(named.clone(), News::Lost)]);
    });
}

#[test]
fn nobody_who_does_not_pick_up_counts_as_a_call_without_media() {
    of_both(async |house| {
        let rooms = [
            Room::new(Scope::Global, 8),
            Room::new(Scope::Tenant(Name::default_name()), 8),
            Room::new(Scope::Outbound, 8),
        ];
        let ending = Ending {
            reason: EndReason::NoAnswer,
            without_media: EndReason::NoAnswer,
            state: None,
            forever: true,
            had_media: false,
        };
        for number in 0..60 {
            assert!(house.admits(number, &rooms).await);
            let (store, now) = (house.store(0), house.now);
            let ended = store.end(now, &call(number), &ending).await.unwrap();
            assert!(matches!(ended, Released::Freed { waited: false, .. }));
        }
        let inbound = self::rooms(8, 8);
        for number in 100..108 {
            assert!(house.admits(number, &inbound).await, "{number}");
        }
    });
}
