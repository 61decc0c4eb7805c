//! What the server remembers of a name that somebody tried to log in with.
//!
//! Introduced by step 10.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The number of failures in a row after which a name has to wait.
const FREE_FAILURES: u32 = 5;

/// The longest time that a name has to wait.
const MAX_WAIT: Duration = Duration::from_secs(4);

/// How long the attempts for a name that had to wait are collected, before one
/// of them is drawn.
pub const DRAW_TIME: Duration = Duration::from_secs(2);

/// The most names that are remembered.
const MAX_NAMES: usize = 10_000;

/// How an attempt has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The password was right.
    Right,
    /// The password was wrong, or the name has no account.
    Wrong,
    /// The client had gone, so nothing was checked.
    Skipped,
}

/// The names with failures, and those that are being tried.
#[derive(Default)]
pub struct Names(HashMap<String, Name>);

#[derive(Default)]
struct Name {
    /// The number of failures in a row.
    failures: u32,
    /// Until then, every attempt is refused.
    wait_until: Option<Instant>,
    /// Until then, attempts are collected. Then one of them is drawn.
    draw_at: Option<Instant>,
    /// Whether a password for this name is being checked.
    is_busy: bool,
}

impl Names {
    /// How long this name still has to wait. None: not at all.
    pub fn wait(&self, name: &str, now: Instant) -> Option<Duration> {
        let until = self.0.get(name)?.wait_until?;
        until.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// Takes note of an attempt. The first attempt after a wait opens a draw,
    /// even if the attempts of an earlier draw have all gone before one was tried.
    /// `is_first` says that no other attempt for the name waits.
    pub fn arrive(&mut self, name: &str, is_first: bool, now: Instant) {
        let Some(name) = self.0.get_mut(name) else { return };
        if name.failures >= FREE_FAILURES && is_first && !name.is_busy {
            name.draw_at = Some(now + DRAW_TIME);
        }
    }

    /// When the draw of this name is due. None: there is no draw.
    pub fn draw_at(&self, name: &str) -> Option<Instant> {
        self.0.get(name)?.draw_at
    }

    /// Whether a password for this name can be checked now: none is being
    /// checked, and no draw is pending.
    pub fn is_ready(&self, name: &str, now: Instant) -> bool {
        self.0.get(name).is_none_or(|n| !n.is_busy && n.draw_at.is_none_or(|at| at <= now))
    }

    /// Takes note that a password for this name is being checked.
    pub fn start(&mut self, name: &str) {
        self.0.entry(name.to_string()).or_default().is_busy = true;
    }

    /// Takes note of how the check of a password has ended. Returns how long the
    /// name has to wait now: 1, 2 or 4 s. None: not at all.
    pub fn finish(&mut self, name: &str, outcome: Outcome, now: Instant) -> Option<Duration> {
        let state = self.0.get_mut(name)?;
        state.is_busy = false;
        let is_clean = outcome == Outcome::Skipped && state.failures == 0;
        if outcome == Outcome::Right || is_clean {
            self.0.remove(name);
            return None;
        }
        if outcome == Outcome::Skipped {
            return None;
        }
        state.failures += 1;
        state.draw_at = None;
        let more = state.failures.checked_sub(FREE_FAILURES);
        let wait = more.map(|more| Duration::from_secs(1 << more.min(8)).min(MAX_WAIT));
        state.wait_until = wait.map(|wait| now + wait);
        self.forget(now);
        wait
    }

    /// Forgets failures when there are too many names, because somebody makes
    /// them up. Names that are in use or have to wait are kept.
    fn forget(&mut self, now: Instant) {
        if self.0.len() > MAX_NAMES {
            self.0.retain(|_, name| {
                let waits = name.wait_until.is_some_and(|end| end > now);
                name.is_busy || waits || name.draw_at.is_some()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries a name at this time.
    fn attempt(names: &mut Names, name: &str, outcome: Outcome, now: Instant) -> Option<Duration> {
        names.start(name);
        names.finish(name, outcome, now)
    }

    #[test]
    fn after_five_failures_a_name_waits_1_2_4_and_4_seconds_and_others_do_not() {
        let (mut names, mut now) = (Names::default(), Instant::now());
        for _ in 0..4 {
            assert_eq!(attempt(&mut names, "ann", Outcome::Wrong, now), None);
        }
        for seconds in [1, 2, 4, 4] {
            let wait = Some(Duration::from_secs(seconds));
            assert_eq!(attempt(&mut names, "ann", Outcome::Wrong, now), wait);
            assert_eq!(names.wait("ann", now), wait);
            assert_eq!(names.wait("bob", now), None);
            now += Duration::from_secs(seconds);
            assert_eq!(names.wait("ann", now), None);
        }
        assert_eq!(attempt(&mut names, "ann", Outcome::Right, now), None);
        assert_eq!(attempt(&mut names, "ann", Outcome::Wrong, now), None, "all is forgotten");
    }

    #[test]
    fn a_skipped_attempt_is_not_a_failure() {
        let (mut names, now) = (Names::default(), Instant::now());
        for _ in 0..9 {
            assert_eq!(attempt(&mut names, "ann", Outcome::Skipped, now), None);
        }
        assert!(names.0.is_empty(), "nothing is remembered");
        for _ in 0..4 {
            attempt(&mut names, "ann", Outcome::Wrong, now);
        }
        assert_eq!(attempt(&mut names, "ann", Outcome::Skipped, now), None, "not the fifth");
    }

    #[test]
    fn made_up_names_are_forgotten_and_a_name_that_waits_is_not() {
        let (mut names, now) = (Names::default(), Instant::now());
        for _ in 0..5 {
            attempt(&mut names, "ann", Outcome::Wrong, now);
        }
        for number in 0..2 * MAX_NAMES {
            attempt(&mut names, &format!("nobody{number}"), Outcome::Wrong, now);
        }
        assert!(names.0.len() <= MAX_NAMES, "{}", names.0.len());
        assert!(names.wait("ann", now).is_some());
    }
}
