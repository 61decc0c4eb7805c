//! Who is here, and who is still alive.
//!
//! Knows names and times, no sockets. Introduced by step 06 (names) and step
//! 07 (the heartbeat).

use crate::line::is_obeyed;
use crate::message::MAX_SENDER_BYTES;
use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

/// The names of those who are here.
#[derive(Default)]
pub struct Names {
    /// As they are written, in byte order.
    written: BTreeSet<String>,
    /// In lower case: nobody is to pass for somebody else.
    alike: HashSet<String>,
}

impl Names {
    /// Gives `name` to whoever asks for it.
    ///
    /// # Errors
    ///
    /// Says, for a person, why it can't be: names have 1 to
    /// [`MAX_SENDER_BYTES`] bytes, no white space, no comma (lists of names are
    /// full of both), nothing that a terminal obeys, and belong to one.
    pub fn take(&mut self, name: &str) -> Result<(), String> {
        let wrong = |c: char| c.is_whitespace() || c == ',' || is_obeyed(c);
        if name.is_empty() || name.len() > MAX_SENDER_BYTES {
            return Err(format!("a name has 1 to {MAX_SENDER_BYTES} bytes"));
        }
        if name.contains(wrong) {
            return Err("a name has no spaces, commas or control characters".into());
        }
        if !self.alike.insert(name.to_lowercase()) {
            return Err(format!("the name {name} is taken: choose another"));
        }
        self.written.insert(name.into());
        Ok(())
    }

    /// Takes back the name of somebody who has left.
    pub fn free(&mut self, name: &str) {
        self.alike.remove(&name.to_lowercase());
        self.written.remove(name);
    }

    /// All names in byte order, joined by `, `: at most `limit` bytes of them.
    ///
    /// Where they don't fit, it ends with `, and N more`. `own` is always
    /// among those shown.
    pub fn list(&self, own: &str, limit: usize) -> String {
        const COMMA: &str = ", ";
        let all = self.written.len();
        let mut bytes = self.written.iter().map(|name| name.len() + COMMA.len());
        let fits = |sum: usize, more| Some(sum + more).filter(|sum| *sum <= limit + COMMA.len());
        if bytes.try_fold(0, fits).is_some() {
            return self.written.iter().map(String::as_str).collect::<Vec<_>>().join(COMMA);
        }
        // Room for one's own name and for the end is set aside.
        let end = format!("and {all} more");
        let mut room = limit.saturating_sub(end.len() + COMMA.len() + own.len());
        let mut shown = Vec::new();
        for name in self.written.iter().filter(|name| *name != own) {
            let Some(left) = room.checked_sub(name.len() + COMMA.len()) else { break };
            room = left;
            shown.push(name.as_str());
        }
        shown.push(own);
        shown.sort_unstable();
        let hidden = all - shown.len();
        format!("{}, and {hidden} more", shown.join(COMMA))
    }
}

/// The signs of life of one member.
pub struct Pulse {
    /// When something last came from it, or when it was last asked.
    since: Instant,
    /// Whether it was asked, and has not answered yet.
    asked: bool,
}

/// What to do about a member.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// Nothing: it is alive, or has time to answer.
    Alive,
    /// Ask it for a sign of life.
    Ask,
    /// It has not answered for two heartbeats.
    Dead,
}

impl Pulse {
    /// Something has come just now.
    pub fn new(now: Instant) -> Pulse {
        Pulse { since: now, asked: false }
    }

    /// When to [check](Pulse::check) it.
    pub fn due(&self, heartbeat: Duration) -> Instant {
        self.since + heartbeat * if self.asked { 2 } else { 1 }
    }

    /// Looks whether it is alive. Whoever is to be asked counts as asked.
    pub fn check(&mut self, now: Instant, heartbeat: Duration) -> Checked {
        if now < self.due(heartbeat) {
            return Checked::Alive;
        }
        if self.asked {
            return Checked::Dead;
        }
        *self = Pulse { since: now, asked: true };
        Checked::Ask
    }

    /// Takes back a time in which nothing could be heard, because we slept.
    pub fn forgive(&mut self, slept: Duration) {
        self.since += slept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_and_belongs_to_one() {
        let mut names = Names::default();
        for name in ["ann", "b", "Zo\u{e9}", "\u{20ac}", "x-1.2", &"n".repeat(32)] {
            assert_eq!(names.take(name), Ok(()), "{name}");
        }
        for name in ["", "a b", "a,b", "a\tb", "a\u{7f}", "a\u{202e}b", "a\u{a0}b", &"m".repeat(33)]
        {
            assert!(names.take(name).is_err(), "{name:?}");
        }
        for name in ["ann", "ANN", "Ann", "ZO\u{c9}"] {
            assert!(names.take(name).is_err(), "{name} is taken");
        }
        names.free("ann");
        assert_eq!(names.take("ANN"), Ok(()));
    }

    #[test]
    fn a_list_of_names_keeps_its_limit_and_names_whoever_asks() {
        let mut names = Names::default();
        assert_eq!(names.list("", 10), "");
        for name in ["bob", "Al", "al2", "eve"] {
            assert_eq!(names.take(name), Ok(()));
        }
        assert_eq!(names.list("bob", 17), "Al, al2, bob, eve");
        assert_eq!(names.list("eve", 19), "Al, al2, bob, eve");
        assert_eq!(names.list("eve", 16), "eve, and 3 more");
        for number in 0..500 {
            assert_eq!(names.take(&format!("guest-{number}")), Ok(()));
        }
        for limit in 40..5000 {
            for own in ["Al", "guest-250", "guest-99"] {
                let list = names.list(own, limit);
                assert!(list.len() <= limit, "{limit} bytes: {list}");
                let shown: Vec<&str> =
                    list.split(", ").filter(|n| !n.starts_with("and ")).collect();
                assert!(shown.is_sorted() && shown.contains(&own), "{list}");
                let hidden = list.rsplit_once(", and ").map_or("0", |(_, end)| end);
                let hidden = hidden.trim_end_matches(" more").parse();
                assert_eq!(hidden, Ok(504 - shown.len()), "{list}");
            }
        }
    }

    #[test]
    fn the_silent_are_asked_once_and_then_given_up() {
        let (start, beat) = (Instant::now(), Duration::from_secs(1));
        let mut pulse = Pulse::new(start);
        let mut at = |beats: f64| pulse.check(start + beat.mul_f64(beats), beat);
        assert_eq!(at(0.9), Checked::Alive);
        assert_eq!(at(1.0), Checked::Ask);
        assert_eq!(at(2.9), Checked::Alive);
        assert_eq!(at(3.0), Checked::Dead);
        pulse.forgive(beat);
        assert_eq!(pulse.check(start + beat * 3, beat), Checked::Alive);
    }
}
