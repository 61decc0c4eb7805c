//! Tests of [`LoginOrder`]: who is tried next, who is refused, who has to wait.

use super::*;
use crate::login_names::DRAW_TIME;

/// Clients of a queue, at a time that only the test changes.
struct Clients {
    order: LoginOrder,
    now: Instant,
}

impl Clients {
    /// One worker, which has begun to check a password for `zed`.
    fn with_a_busy_worker() -> Clients {
        let order = LoginOrder::new(1, RandomState::new());
        let mut clients = Clients { order, now: Instant::now() };
        let ticket = clients.arrives(0, "zed", true);
        assert_eq!(clients.order.decision(ticket), Some(Ok(())));
        clients
    }

    fn arrives(&mut self, connection: u64, name: &str, has_account: bool) -> u64 {
        let arrived = self.order.arrive(connection, name, has_account, 0, self.now);
        arrived.expect("the name does not have to wait")
    }

    /// A name without an account that is not treated as if it had one.
    fn made_up(&self, number: usize) -> String {
        let is_late = |name: &String| !self.order.is_decoy(name);
        let mut names = (0..).map(|more| format!("nobody{number}.{more}"));
        names.find(is_late).expect("most are")
    }

    /// Makes `ann` fail, and wait, and the time pass.
    fn ann_has_failed(&mut self) {
        self.order.finish("zed", Outcome::Skipped, self.now);
        for connection in 100..105 {
            let ticket = self.arrives(connection, "ann", true);
            assert_eq!(self.order.decision(ticket), Some(Ok(())));
            self.order.finish("ann", Outcome::Wrong, self.now);
        }
        let refused = self.order.arrive(200, "ann", true, 0, self.now);
        assert_eq!(refused, Err("too many attempts: try again in 1 s".into()));
        self.now += Duration::from_secs(1);
    }

    /// Ends the try of `name`. Returns which of these tickets is next.
    fn next_after(&mut self, name: &str, tickets: &[u64]) -> Option<u64> {
        self.order.finish(name, Outcome::Wrong, self.now);
        self.started(tickets)
    }

    fn started(&mut self, tickets: &[u64]) -> Option<u64> {
        tickets.iter().copied().find(|ticket| self.order.decision(*ticket) == Some(Ok(())))
    }
}

#[test]
fn a_name_with_an_account_does_not_wait_for_made_up_names() {
    let mut clients = Clients::with_a_busy_worker();
    let made_up = clients.made_up(1);
    let first = clients.arrives(1, &made_up, false);
    let ann = clients.arrives(2, "ann", true);
    let bob = clients.arrives(3, "bob", true);
    let all = [first, ann, bob];
    assert_eq!(clients.next_after("zed", &all), Some(ann));
    assert_eq!(clients.next_after("ann", &all), Some(bob));
    assert_eq!(clients.next_after("bob", &all), Some(first));
}

#[test]
fn some_made_up_names_are_treated_like_names_with_an_account() {
    let order = LoginOrder::new(1, RandomState::new());
    let names = (0..1600).map(|number| format!("nobody{number}"));
    let count = names.filter(|name| order.is_decoy(name)).count();
    assert!((50..200).contains(&count), "{count} of 1600, where 100 are expected");
}

#[test]
fn a_flood_of_made_up_names_does_not_delay_a_name_with_an_account() {
    let mut clients = Clients::with_a_busy_worker();
    let flood: Vec<u64> = (1..=1000)
        .map(|number| clients.arrives(number, &format!("nobody{number}"), false))
        .collect();
    let ann = clients.arrives(2000, "ann", true);
    let mut name = "zed".to_string();
    for _ in 0..MAX_DECOYS {
        assert_eq!(clients.next_after(&name, &[ann]), None);
        let next = flood.iter().position(|ticket| clients.started(&[*ticket]).is_some());
        name = format!("nobody{}", next.expect("one of the flood is being checked") + 1);
    }
    assert_eq!(clients.next_after(&name, &[ann]), Some(ann), "after two of the flood");
}

#[test]
fn a_connection_without_failures_comes_before_one_with() {
    let mut clients = Clients::with_a_busy_worker();
    let now = clients.now;
    let failed = clients.order.arrive(1, "bob", true, 2, now).expect("it may wait");
    let ann = clients.arrives(2, "ann", true);
    assert_eq!(clients.next_after("zed", &[failed, ann]), Some(ann));
}

#[test]
fn a_full_queue_refuses_a_made_up_name_and_keeps_names_with_an_account() {
    let mut clients = Clients::with_a_busy_worker();
    let made_up: Vec<u64> = (1..=32)
        .map(|number| {
            let name = clients.made_up(number);
            clients.arrives(number as u64, &name, false)
        })
        .collect();
    let ann = clients.arrives(50, "ann", true);
    assert_eq!(clients.order.decision(made_up[31]), Some(Err(BUSY.into())), "the newest");
    assert_eq!(clients.order.waiting.len(), MAX_WAITING);
    assert_eq!(clients.next_after("zed", &[ann]), Some(ann));
}

#[test]
fn many_attempts_for_one_name_do_not_shut_out_another_name() {
    let mut clients = Clients::with_a_busy_worker();
    for number in 1..=32 {
        clients.arrives(number, "ann", true);
    }
    let bob = clients.arrives(50, "bob", true);
    assert_eq!(clients.order.decision(bob), None, "it waits for its turn");
    for number in 60..90 {
        clients.arrives(number, "ann", true);
    }
    assert_eq!(clients.order.decision(bob), None);
}

#[test]
fn after_the_wait_attempts_are_collected_and_a_fresh_connection_is_drawn() {
    // Many times, since chance must not decide here.
    for _ in 0..20 {
        let mut clients = Clients::with_a_busy_worker();
        clients.ann_has_failed();
        let first = clients.arrives(200, "ann", true);
        clients.now += Duration::from_millis(1999);
        let fresh = clients.arrives(201, "ann", true);
        assert_eq!(clients.order.wake_at(first), clients.order.wake_at(fresh));
        assert!(!clients.order.start_next(clients.now), "not before 2 s have passed");
        clients.now += Duration::from_millis(1);
        assert!(clients.order.start_next(clients.now));
        assert_eq!(clients.started(&[first, fresh]), Some(fresh), "200 was refused before");

        clients.order.finish("ann", Outcome::Wrong, clients.now);
        let why = "too many attempts: try again in 2 s".to_string();
        assert_eq!(clients.order.decision(first), Some(Err(why)), "the others wait again");
    }
}

#[test]
fn chance_decides_a_draw_even_if_the_queue_is_full() {
    let mut wins = [0, 0];
    for _ in 0..200 {
        let mut clients = Clients::with_a_busy_worker();
        clients.ann_has_failed();
        let first = clients.arrives(299, "ann", true);
        for connection in 300..362 {
            clients.arrives(connection, "ann", true);
        }
        let last = clients.arrives(400, "ann", true);
        clients.now += DRAW_TIME;
        assert!(clients.order.start_next(clients.now));
        for (wins, ticket) in wins.iter_mut().zip([first, last]) {
            *wins += u32::from(clients.started(&[ticket]).is_some());
        }
    }
    let is_rare = wins.iter().all(|wins| *wins <= 20);
    assert!(is_rare, "one of 64 is drawn; of 200 draws the first and the last won {wins:?}");
}

#[test]
fn the_stop_refuses_all_that_wait_and_all_that_come() {
    let mut clients = Clients::with_a_busy_worker();
    let ann = clients.arrives(1, "ann", true);
    clients.order.close();
    assert_eq!(clients.order.decision(ann), Some(Err(STOPPING.into())));
    assert!(clients.order.arrive(2, "bob", true, 0, clients.now).is_err());
}
