//! The heartbeat: it finds clients that only seem to be connected.
//!
//! Knows times, no sockets. Introduced by step 07.
//!
//! A client whose cable is cut, or whose machine has lost its power, sends no
//! end of its stream. So a server asks (PING) when a client has been silent for
//! one interval, and gives it up after two more:
//!
//! ```text
//!   last sign     1 interval      2 more intervals
//! ------|-------------|---------------------------|----->
//!                    PING                      expired
//! ```

use crate::cli::Args;
use std::time::{Duration, Instant};

/// Takes the option `--heartbeat-ms`: the interval, 10 s if it is not given.
pub fn interval_argument(args: &mut Args) -> Duration {
    let milliseconds = args.number("--heartbeat-ms", 50..=3_600_000, 10_000);
    Duration::from_millis(milliseconds as u64)
}

/// When one client last gave a sign of life.
#[derive(Debug, PartialEq, Eq)]
pub struct Pulse {
    /// When the last sign came, or when the client was asked for one.
    since: Instant,
    /// Whether it was asked, and nothing has come yet.
    pinged: bool,
}

/// What is to be done about one client now.
#[derive(Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing: it is not due yet.
    Alive,
    /// Send it a PING.
    Ping,
    /// Give it up: it has been silent for three intervals.
    Expired,
}

impl Pulse {
    /// The pulse of a client that has just connected.
    pub fn new(now: Instant) -> Pulse {
        Pulse { since: now, pinged: false }
    }

    /// Notes a sign of life.
    pub fn touch(&mut self, now: Instant) {
        *self = Pulse::new(now);
    }

    /// When this client has to be checked at the latest.
    pub fn due(&self, interval: Duration) -> Instant {
        self.since + interval * if self.pinged { 2 } else { 1 }
    }

    /// Checks whether the client is due. It notes that it has been asked.
    ///
    /// `late` says how much later than planned this check is. If that is more
    /// than an interval, the whole program was suspended, and the silence was
    /// not the client's fault: it gets the time back.
    pub fn check(&mut self, now: Instant, late: Duration, interval: Duration) -> Check {
        if late > interval {
            self.since += late;
        }
        if now < self.due(interval) {
            return Check::Alive;
        }
        if self.pinged {
            return Check::Expired;
        }
        *self = Pulse { since: now, pinged: true };
        Check::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_silent_client_is_asked_once_and_then_given_up() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut pulse = Pulse::new(start);
        let check = |pulse: &mut Pulse, time| pulse.check(at(time), Duration::ZERO, SECOND);
        assert_eq!(check(&mut pulse, 999), Check::Alive);
        assert_eq!(check(&mut pulse, 1000), Check::Ping);
        assert_eq!(pulse.due(SECOND), at(3000));
        pulse.touch(at(1600));
        assert_eq!(check(&mut pulse, 2599), Check::Alive);
        assert_eq!(check(&mut pulse, 2600), Check::Ping);
        assert_eq!(check(&mut pulse, 4599), Check::Alive);
        assert_eq!(check(&mut pulse, 4600), Check::Expired);
    }

    #[test]
    fn a_server_that_was_suspended_does_not_blame_its_clients() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.check(start + SECOND, Duration::ZERO, SECOND), Check::Ping);
        // The next check was planned for second 3.
        assert_eq!(pulse.check(start + SECOND * 10, SECOND * 7, SECOND), Check::Alive);
        assert_eq!(pulse.check(start + SECOND * 11, Duration::ZERO, SECOND), Check::Expired);
    }
}
