//! The names of the members of a room.
//!
//! Knows text, no sockets. Introduced by step 06.
//!
//! Lesson: [06_message_headers](../../../../../lessons/06_message_headers.md).

use crate::chat::message::MAX_SENDER_BYTES;
use crate::line::is_obeyed;
use std::collections::{BTreeSet, HashSet};

/// The names that are in use.
#[derive(Default)]
pub struct Names {
    /// As they are written, in the order of their bytes.
    written: BTreeSet<String>,
    /// In lower case, because people would mistake `Ann` for `ann`.
    lower_case: HashSet<String>,
}

impl Names {
    /// Reserves `name` for the member that asks for it.
    ///
    /// # Errors
    ///
    /// The name is [not valid](check_name), or another member has it. The error
    /// is a sentence for a person.
    pub fn reserve(&mut self, name: &str) -> Result<(), String> {
        check_name(name)?;
        if !self.lower_case.insert(name.to_lowercase()) {
            return Err(format!("the name {name} is taken: choose another"));
        }
        self.written.insert(name.into());
        Ok(())
    }

    /// Frees the name of a member that has left, written as it was reserved.
    pub fn free(&mut self, name: &str) {
        self.lower_case.remove(&name.to_lowercase());
        self.written.remove(name);
    }

    /// All names in the order of their bytes, joined by `, `, in at most `limit`
    /// bytes.
    ///
    /// If they don't fit, the list ends with `, and N more`. `own` is always
    /// among the names that are listed.
    pub fn list(&self, own: &str, limit: usize) -> String {
        const COMMA: &str = ", ";
        let count = self.written.len();
        let mut bytes = self.written.iter().map(|name| name.len() + COMMA.len());
        let fits = |sum: usize, more| Some(sum + more).filter(|sum| *sum <= limit + COMMA.len());
        if bytes.try_fold(0, fits).is_some() {
            return self.written.iter().map(String::as_str).collect::<Vec<_>>().join(COMMA);
        }
        // Space for `own` and for the end of the list is set aside first.
        let end = format!("and {count} more");
        let mut space = limit.saturating_sub(end.len() + COMMA.len() + own.len());
        let mut listed = Vec::new();
        for name in self.written.iter().filter(|name| *name != own) {
            let Some(left) = space.checked_sub(name.len() + COMMA.len()) else { break };
            space = left;
            listed.push(name.as_str());
        }
        listed.push(own);
        listed.sort_unstable();
        let hidden = count - listed.len();
        format!("{}, and {hidden} more", listed.join(COMMA))
    }
}

/// Checks that a name is valid: 1 to [`MAX_SENDER_BYTES`] bytes, no white space
/// and no comma (both separate names in a list), no control character, and no
/// character that is invisible: `ann` must not look like another `ann`.
///
/// # Errors
///
/// The error is a sentence for a person, which says what is wrong with the name.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_SENDER_BYTES {
        return Err(format!("a name has 1 to {MAX_SENDER_BYTES} bytes"));
    }
    if name.contains(|c: char| c.is_whitespace() || c == ',' || is_obeyed(c)) {
        return Err("a name has no spaces, commas or control characters".into());
    }
    if name.contains(is_invisible) {
        return Err("a name has no invisible characters".into());
    }
    Ok(())
}

/// Whether `c` is usually not visible: the property
/// `Default_Ignorable_Code_Point` of the Unicode Character Database (UAX #44).
/// It has the zero-width characters, the soft hyphen, variation selectors,
/// fillers and tags.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_visible_word_and_belongs_to_one_member() {
        let mut names = Names::default();
        for name in ["ann", "b", "Zo\u{e9}", "\u{20ac}", "x-1.2", &"n".repeat(32)] {
            assert_eq!(names.reserve(name), Ok(()), "{name}");
        }
        for name in ["", "a b", "a,b", "a\tb", "a\u{7f}", "a\u{202e}b", "a\u{a0}b", &"m".repeat(33)]
        {
            assert!(names.reserve(name).is_err(), "{name:?}");
        }
        for name in ["ann\u{200b}", "a\u{ad}nn", "\u{feff}ann", "an\u{2060}n", "ann\u{fe0f}"] {
            assert!(names.reserve(name).is_err(), "{name:?} has an invisible character");
        }
        for name in ["ann", "ANN", "Ann", "ZO\u{c9}"] {
            assert!(names.reserve(name).is_err(), "{name} is taken");
        }
        names.free("ann");
        assert_eq!(names.reserve("ANN"), Ok(()));
    }

    #[test]
    fn a_list_keeps_its_limit_and_has_the_name_of_whoever_asks() {
        let mut names = Names::default();
        assert_eq!(names.list("", 10), "");
        for name in ["bob", "Al", "al2", "eve"] {
            assert_eq!(names.reserve(name), Ok(()));
        }
        assert_eq!(names.list("bob", 17), "Al, al2, bob, eve");
        assert_eq!(names.list("eve", 19), "Al, al2, bob, eve");
        assert_eq!(names.list("eve", 16), "eve, and 3 more");
        for number in 0..500 {
            assert_eq!(names.reserve(&format!("guest-{number}")), Ok(()));
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
}
