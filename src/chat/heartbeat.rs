//! Whether a client is still there: when it last gave a sign of life, and what
//! its silence means.
//!
//! Knows times, no sockets. Introduced by step 07. A client that loses its
//! power or its network sends nothing that would say so. Therefore the server
//! expects a sign of life once in each heartbeat interval, and asks for one
//! (PING) before it gives a client up.
//!
//! ```text
//! touched        1 interval                          3 intervals
//!    |---------------|-----------------------------------|
//!          Alive    Ping              Alive           Expired
//! ```
//!
//! Lesson: [07_disconnects](../../../../../lessons/07_disconnects.md).

use crate::cli::Args;
use std::time::{Duration, Instant};

/// Takes the option `--heartbeat-ms`: the interval, 50 ms to 1 h. It is 10 s if
/// the option is not given.
pub fn interval_argument(args: &mut Args) -> Duration {
    let milliseconds = args.number("--heartbeat-ms", 50..=3_600_000, 10_000);
    Duration::from_millis(milliseconds as u64)
}

/// When one client last gave a sign of life, and whether it has been pinged
/// since.
#[derive(Debug)]
pub struct Pulse {
    /// When the last sign of life came; after a PING, when the PING was sent.
    since: Instant,
    pinged: bool,
}

/// What the owner of a [`Pulse`] has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing: the client is not silent, or still has time to answer.
    Alive,
    /// Send a PING: the client was silent for one interval.
    Ping,
    /// Disconnect the client: it was silent for two more intervals after the
    /// PING.
    Expired,
}

impl Pulse {
    /// The pulse of a client that has just come.
    pub fn new(now: Instant) -> Pulse {
        Pulse { since: now, pinged: false }
    }

    /// Notes a sign of life.
    pub fn touch(&mut self, now: Instant) {
        *self = Pulse::new(now);
    }

    /// Says what the client's silence means now. [`Check::Ping`] is returned
    /// once for each silence: the pulse notes that the client has been pinged.
    ///
    /// `late` is the time between the moment for which the owner had planned
    /// this check and `now`. If it is longer than one interval, this program
    /// itself was suspended (by Ctrl-Z, or by a laptop that was closed) and
    /// could hear nobody. Then the client's time starts again now. Plan the
    /// next check no later than one interval after this one, or a suspension
    /// may go unnoticed.
    pub fn check(&mut self, now: Instant, interval: Duration, late: Duration) -> Check {
        if late > interval {
            self.since = now;
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

    /// When the next [`check`](Pulse::check) will find something to do, if the
    /// client stays silent until then.
    pub fn due(&self, interval: Duration) -> Instant {
        self.since + if self.pinged { 2 * interval } else { interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const ON_TIME: Duration = Duration::ZERO;

    /// A client that came at second 0, and a clock that starts there.
    fn newcomer() -> (Pulse, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Pulse::new(start), move |second| start + Duration::from_secs(second))
    }

    #[test]
    fn a_silent_client_is_pinged_once_and_expires_two_intervals_later() {
        let (mut pulse, at) = newcomer();
        assert_eq!(pulse.due(INTERVAL), at(10));
        assert_eq!(pulse.check(at(9), INTERVAL, ON_TIME), Check::Alive);
        assert_eq!(pulse.check(at(10), INTERVAL, ON_TIME), Check::Ping);
        assert_eq!(pulse.due(INTERVAL), at(30));
        assert_eq!(pulse.check(at(11), INTERVAL, ON_TIME), Check::Alive);
        assert_eq!(pulse.check(at(29), INTERVAL, ON_TIME), Check::Alive);
        assert_eq!(pulse.check(at(30), INTERVAL, ON_TIME), Check::Expired);
    }

    #[test]
    fn a_sign_of_life_starts_all_anew() {
        let (mut pulse, at) = newcomer();
        pulse.touch(at(9));
        assert_eq!(pulse.check(at(18), INTERVAL, ON_TIME), Check::Alive);
        assert_eq!(pulse.check(at(19), INTERVAL, ON_TIME), Check::Ping);
        pulse.touch(at(38));
        assert_eq!(pulse.check(at(47), INTERVAL, ON_TIME), Check::Alive);
        assert_eq!(pulse.check(at(48), INTERVAL, ON_TIME), Check::Ping);
    }

    #[test]
    fn a_check_that_is_a_bit_late_counts_as_on_time() {
        let (mut pulse, at) = newcomer();
        assert_eq!(pulse.check(at(20), INTERVAL, at(20) - at(10)), Check::Ping);
        assert_eq!(pulse.check(at(41), INTERVAL, at(41) - at(40)), Check::Expired);
    }

    #[test]
    fn a_program_that_was_suspended_does_not_blame_its_clients() {
        let (mut pulse, at) = newcomer();
        assert_eq!(pulse.check(at(10), INTERVAL, ON_TIME), Check::Ping);
        // The next check was planned for second 20, and comes at second 95. The
        // client still gets two intervals to answer the PING.
        assert_eq!(pulse.check(at(95), INTERVAL, at(95) - at(20)), Check::Alive);
        assert_eq!(pulse.check(at(114), INTERVAL, ON_TIME), Check::Alive);
        assert_eq!(pulse.check(at(115), INTERVAL, ON_TIME), Check::Expired);
    }
}
