//! The order of logins: who is tried next, who is refused, and who has to wait.
//!
//! Introduced by step 10. It only decides: it never sleeps, and it gets the
//! time from its caller. [`LoginQueue`](crate::login::LoginQueue) asks it under
//! a lock.

use crate::login_names::{Names, Outcome};
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// The most attempts that wait at the same time.
pub const MAX_WAITING: usize = 32;

/// Of the names without an account, one in this many is treated as if it had
/// one, so that the order does not tell who has an account.
const ONE_IN: u64 = 16;

/// The most attempts for such names that wait at the same time. Without this
/// limit, many made-up names would make people wait after all.
const MAX_DECOYS: usize = 2;

/// The most connections whose refusals are remembered.
const MAX_REFUSED: usize = 4096;

/// The ERROR for an attempt that finds no place in the queue.
pub const BUSY: &str = "the server is busy: try again later";

/// The ERROR for an attempt that was waiting when the server stopped.
const STOPPING: &str = "the server is shutting down";

/// All attempts that wait, and what is remembered of the earlier ones.
pub struct LoginOrder {
    /// How many passwords may be checked at the same time.
    workers: usize,
    /// How many passwords are being checked.
    working: usize,
    names: Names,
    waiting: Vec<Waiting>,
    /// Decisions that have not been fetched yet, by ticket.
    decided: HashMap<u64, Result<(), String>>,
    /// The last connections that were refused because a name had to wait.
    refused: BTreeSet<u64>,
    next_ticket: u64,
    random: RandomState,
    closed: bool,
}

/// An attempt that waits.
struct Waiting {
    /// Tickets are numbered in the order of arrival.
    ticket: u64,
    connection: u64,
    name: String,
    has_account: bool,
    /// Whether it comes after all attempts for names that have an account.
    is_late: bool,
    /// Earlier failures on the same connection.
    failures: u32,
}

impl LoginOrder {
    /// Makes an order in which `workers` passwords are checked at the same time.
    pub fn new(workers: usize, random: RandomState) -> LoginOrder {
        LoginOrder {
            workers,
            working: 0,
            names: Names::default(),
            waiting: Vec::new(),
            decided: HashMap::new(),
            refused: BTreeSet::new(),
            next_ticket: 0,
            random,
            closed: false,
        }
    }

    /// Puts an attempt into the queue, and returns its ticket. If the queue is
    /// full then, one attempt is refused, which may be this one.
    ///
    /// # Errors
    ///
    /// The text of the ERROR: the name has to wait, or the server stops.
    pub fn arrive(
        &mut self,
        connection: u64,
        name: &str,
        has_account: bool,
        failures: u32,
        now: Instant,
    ) -> Result<u64, String> {
        if self.closed {
            return Err(STOPPING.into());
        }
        if let Some(wait) = self.names.wait(name, now) {
            remember(&mut self.refused, connection);
            return Err(too_many(wait));
        }
        let is_first = self.waiting.iter().all(|other| other.name != name);
        self.names.arrive(name, is_first, now);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let is_late = !has_account && !self.is_decoy(name);
        let name = name.to_string();
        self.waiting.push(Waiting { ticket, connection, name, has_account, is_late, failures });
        if self.waiting.len() > MAX_WAITING {
            self.refuse_the_worst();
        }
        self.start_next(now);
        Ok(ticket)
    }

    /// Whether a name without an account is treated as if it had one.
    fn is_decoy(&self, name: &str) -> bool {
        let decoys = self.waiting.iter().filter(|other| !other.has_account && !other.is_late);
        self.random.hash_one(name).is_multiple_of(ONE_IN) && decoys.count() < MAX_DECOYS
    }

    /// Fetches the decision about an attempt: whether it may be checked, or the
    /// text of the ERROR. None: it has to wait.
    pub fn decision(&mut self, ticket: u64) -> Option<Result<(), String>> {
        self.decided.remove(&ticket)
    }

    /// When [`start_next`](LoginOrder::start_next) has to be called for this
    /// attempt, although no other attempt has ended.
    pub fn wake_at(&self, ticket: u64) -> Option<Instant> {
        let attempt = self.waiting.iter().find(|attempt| attempt.ticket == ticket)?;
        self.names.draw_at(&attempt.name)
    }

    /// Takes back an attempt that has waited too long.
    pub fn withdraw(&mut self, ticket: u64) {
        self.waiting.retain(|attempt| attempt.ticket != ticket);
    }

    /// Starts the best attempts that wait, as long as there is a free worker.
    /// Returns whether there was one to start.
    pub fn start_next(&mut self, now: Instant) -> bool {
        let mut has_started = false;
        while self.working < self.workers {
            let Some(at) = self.next(now) else { break };
            has_started = true;
            let attempt = self.waiting.remove(at);
            self.decided.insert(attempt.ticket, Ok(()));
            self.working += 1;
            self.names.start(&attempt.name);
        }
        has_started
    }

    /// The place, in `waiting`, of the attempt that is to be tried next. The best
    /// attempt of all decides which name it is; among the attempts for that name
    /// there may be a draw (see [`lot`](LoginOrder::lot)).
    fn next(&self, now: Instant) -> Option<usize> {
        let first = self
            .waiting
            .iter()
            .filter(|attempt| self.names.is_ready(&attempt.name, now))
            .min_by_key(|attempt| (attempt.is_late, attempt.failures, attempt.ticket))?;
        let places = 0..self.waiting.len();
        places.filter(|at| self.waiting[*at].name == first.name).min_by_key(|at| {
            let attempt = &self.waiting[*at];
            (attempt.failures, self.lot(attempt), attempt.ticket)
        })
    }

    /// The rank of an attempt among those for the same name. It is the same for
    /// all, unless the name is to be drawn: then connections that have not been
    /// refused come first, and chance decides between equals.
    fn lot(&self, attempt: &Waiting) -> (bool, u64) {
        if self.names.draw_at(&attempt.name).is_none() {
            return (false, 0);
        }
        (self.refused.contains(&attempt.connection), self.random.hash_one(attempt.ticket))
    }

    /// Refuses one attempt, since there are too many. Names without an account
    /// lose first, then the name with the most attempts, then the connection
    /// with the most failures, then the newest attempt.
    fn refuse_the_worst(&mut self) {
        let of_name = |name: &str| self.waiting.iter().filter(|other| other.name == name).count();
        let worst = (0..self.waiting.len()).max_by_key(|at| {
            let attempt = &self.waiting[*at];
            let rank = (attempt.failures, self.lot(attempt), attempt.ticket);
            (attempt.is_late, of_name(&attempt.name), rank)
        });
        if let Some(worst) = worst {
            let attempt = self.waiting.remove(worst);
            self.decided.insert(attempt.ticket, Err(BUSY.into()));
        }
    }

    /// How many attempts wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes the outcome of an attempt that was started.
    pub fn finish(&mut self, name: &str, outcome: Outcome, now: Instant) {
        self.working -= 1;
        if let Some(wait) = self.names.finish(name, outcome, now) {
            self.refuse_all(name, &too_many(wait));
        }
        self.start_next(now);
    }

    /// Refuses all attempts that wait for a name.
    fn refuse_all(&mut self, name: &str, why: &str) {
        for attempt in self.waiting.extract_if(.., |attempt| attempt.name == name) {
            remember(&mut self.refused, attempt.connection);
            self.decided.insert(attempt.ticket, Err(why.into()));
        }
    }

    /// Refuses all that wait, and all that come later.
    pub fn close(&mut self) {
        self.closed = true;
        for attempt in self.waiting.drain(..) {
            self.decided.insert(attempt.ticket, Err(STOPPING.into()));
        }
    }
}

/// Adds a connection to a set that keeps the newest ones.
fn remember(connections: &mut BTreeSet<u64>, connection: u64) {
    connections.insert(connection);
    if connections.len() > MAX_REFUSED {
        connections.pop_first();
    }
}

/// The ERROR for a name that has to wait.
fn too_many(wait: Duration) -> String {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    format!("too many attempts: try again in {seconds} s")
}

#[cfg(test)]
#[path = "login_order_tests.rs"]
mod tests;
