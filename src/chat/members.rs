//! Who is here, and who is still alive.
//!
//! Knows names and times, no sockets. Introduced by step 06 (names) and step
//! 07 (the heartbeat).

use crate::chat::message::MAX_SENDER_BYTES;
use crate::line::is_obeyed;
use std::collections::{BTreeMap, BTreeSet, HashSet};
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
    /// Says, for a person, why it can't be: it is [no name](check_name), or
    /// that of somebody who is here.
    pub fn take(&mut self, name: &str) -> Result<(), String> {
        check_name(name)?;
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

/// Checks that a name may be one: 1 to [`MAX_SENDER_BYTES`] bytes, no white
/// space and no comma (lists of names are full of both), nothing that a
/// terminal obeys.
///
/// # Errors
///
/// Says, for a person, what is wrong.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_SENDER_BYTES {
        return Err(format!("a name has 1 to {MAX_SENDER_BYTES} bytes"));
    }
    if name.contains(|c: char| c.is_whitespace() || c == ',' || is_obeyed(c)) {
        return Err("a name has no spaces, commas or control characters".into());
    }
    Ok(())
}

/// Finds those who only seem to be here: whoever is silent for one heartbeat
/// is to be asked, and whoever then gives no sign for two more is dead.
///
/// `Id` is what its owner knows them by.
pub struct Heartbeat<Id> {
    time: Duration,
    pulses: BTreeMap<Id, Pulse>,
    /// No later than the first one is due. None: nobody is here.
    next_look: Option<Instant>,
}

struct Pulse {
    /// When something last came, or when it was asked.
    since: Instant,
    /// Whether it was asked, and nothing has come yet.
    asked: bool,
}

/// What a [look](Heartbeat::look) has shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Silent<Id> {
    /// To be asked for a sign of life.
    pub ask: Vec<Id>,
    /// To be given up. They are forgotten already.
    pub dead: Vec<Id>,
}

impl<Id: Copy + Ord> Heartbeat<Id> {
    /// Nobody is here yet.
    pub fn new(time: Duration) -> Heartbeat<Id> {
        Heartbeat { time, pulses: BTreeMap::new(), next_look: None }
    }

    /// Somebody has come, or has given a sign of life, now.
    pub fn hear(&mut self, id: Id, now: Instant) {
        self.pulses.insert(id, Pulse { since: now, asked: false });
        self.next_look.get_or_insert(now + self.time);
    }

    /// Somebody has left.
    pub fn forget(&mut self, id: Id) {
        self.pulses.remove(&id);
    }

    /// When to look at the latest.
    pub fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// Looks who has been silent for too long. Nobody, if it is not yet time.
    pub fn look(&mut self, now: Instant) -> Silent<Id> {
        let mut silent = Silent { ask: Vec::new(), dead: Vec::new() };
        let Some(late) = self.next_look.and_then(|look| now.checked_duration_since(look)) else {
            return silent;
        };
        // Nobody who comes or shows itself later is due before this.
        let mut next = now + self.time;
        self.pulses.retain(|&id, pulse| {
            // If this whole program slept, the silence was ours.
            if late > self.time {
                pulse.since += late;
            }
            let due = |pulse: &Pulse| pulse.since + self.time * if pulse.asked { 2 } else { 1 };
            let is_due = due(pulse) <= now;
            if is_due && pulse.asked {
                silent.dead.push(id);
                return false;
            }
            if is_due {
                silent.ask.push(id);
                *pulse = Pulse { since: now, asked: true };
            }
            next = next.min(due(pulse));
            true
        });
        self.next_look = Some(next).filter(|_| !self.pulses.is_empty());
        silent
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
        for limit in (40..5000).step_by(9) {
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
        let (start, time) = (Instant::now(), Duration::from_secs(1));
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut heartbeat = Heartbeat::new(time);
        let silent = |ask: &[u8], dead: &[u8]| Silent { ask: ask.into(), dead: dead.into() };
        assert_eq!(heartbeat.next_look(), None);
        heartbeat.hear(1, at(0));
        heartbeat.hear(2, at(500));
        assert_eq!(heartbeat.look(at(900)), silent(&[], &[]));
        assert_eq!(heartbeat.next_look(), Some(at(1000)));
        assert_eq!(heartbeat.look(at(1000)), silent(&[1], &[]));
        assert_eq!(heartbeat.next_look(), Some(at(1500)));
        assert_eq!(heartbeat.look(at(1500)), silent(&[2], &[]));
        heartbeat.hear(2, at(1600));
        assert_eq!(heartbeat.look(at(2500)), silent(&[], &[]));
        assert_eq!(heartbeat.look(at(2600)), silent(&[2], &[]));
        assert_eq!(heartbeat.look(at(3000)), silent(&[], &[1]));
        heartbeat.forget(2);
        assert_eq!(heartbeat.look(at(4000)), silent(&[], &[]));
        assert_eq!(heartbeat.next_look(), None);
    }

    #[test]
    fn whoever_sleeps_does_not_blame_others() {
        let (start, time) = (Instant::now(), Duration::from_secs(1));
        let mut heartbeat = Heartbeat::new(time);
        heartbeat.hear('a', start);
        heartbeat.look(start + time);
        let after = heartbeat.look(start + time * 10);
        assert_eq!(after, Silent { ask: vec![], dead: vec![] });
        assert_eq!(heartbeat.look(start + time * 11).dead, ['a']);
    }
}
