//! Passwords, tried at the door: not too often, and not too many at once.
//!
//! Introduced by step 10. A try is slow on purpose (see
//! [`accounts`](crate::accounts)), so it is done by the thread that reads from
//! the client, never by the room. For each name only one is under way, and
//! after five that failed in a row the name has to wait, longer each time.
//!
//! Where more come than can be worked on, the newest is next. In the order of
//! their coming, a person would stand behind all that an attacker had ready.

use crate::accounts::Accounts;
use socket_chat::cli;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Failures in a row that cost nothing yet.
const FREE_FAILURES: u32 = 5;
/// The longest that a name has to wait.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Names that are remembered for their failures, at most.
const MAX_NAMES: usize = 10_000;

/// The keeper of the door. All readers share it.
pub struct Logins {
    file: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    /// How many passwords may be worked on at once: a core is left for the
    /// chat, if there is one.
    most: usize,
}

#[derive(Default)]
struct State {
    tried: HashMap<String, Tried>,
    /// Those whose turn has not come: a number for each, and its name. The
    /// newest is last.
    waiting: Vec<(u64, String)>,
    /// Those whose turn it is, and who don't know yet.
    called: HashSet<u64>,
    /// How many have come so far.
    came: u64,
    /// How many passwords are being worked on.
    working: usize,
}

impl State {
    /// Refuses a name that has to wait, and says how long.
    fn admit(&self, name: &str) -> Result<(), String> {
        let until = self.tried.get(name).and_then(|tried| tried.until);
        match until.and_then(|until| until.checked_duration_since(Instant::now())) {
            Some(wait) => Err(format!("too many attempts: try again in {} s", wait.as_secs() + 1)),
            None => Ok(()),
        }
    }

    /// Calls the newest, while there is work for them. That is decided here and
    /// at once: left to who wakes up first, who has just failed would be back
    /// before a person was awake.
    fn call(&mut self, most: usize) {
        while self.working < most {
            let is_busy = |name| self.tried.get(name).is_some_and(|tried| tried.is_busy);
            let next = self.waiting.iter().rposition(|(_, name)| !is_busy(name));
            let Some(next) = next else { return };
            let (number, name) = self.waiting.remove(next);
            self.called.insert(number);
            self.working += 1;
            self.tried.entry(name).or_default().is_busy = true;
        }
    }
}

#[derive(Default)]
struct Tried {
    /// In a row.
    failures: u32,
    /// Before this, nobody is heard.
    until: Option<Instant>,
    /// Whether one is under way.
    is_busy: bool,
}

impl Logins {
    /// Keeps the door with the accounts in `file`, which it reads each time:
    /// they may change while it stands open.
    pub fn new(file: PathBuf) -> Logins {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (state, changed) = Default::default();
        Logins { file, state, changed, most: cores.saturating_sub(1).max(1) }
    }

    /// Lets somebody try a password, which may take its time.
    ///
    /// # Errors
    ///
    /// Says, for a person, why they can't come in. Whether the name or the
    /// password was wrong is not told.
    pub fn attempt(&self, name: &str, password: &[u8]) -> Result<(), String> {
        self.wait_for_turn(name)?;
        let tried = self.work(name, password);
        let mut state = self.lock();
        state.working -= 1;
        if let Some(tried) = state.tried.get_mut(name) {
            tried.is_busy = false;
        }
        state.call(self.most);
        self.changed.notify_all();
        tried
    }

    fn wait_for_turn(&self, name: &str) -> Result<(), String> {
        let mut state = self.lock();
        state.admit(name)?;
        state.came += 1;
        let number = state.came;
        state.waiting.push((number, name.to_string()));
        state.call(self.most);
        while !state.called.remove(&number) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Tries the password, and remembers how it went.
    fn work(&self, name: &str, password: &[u8]) -> Result<(), String> {
        // While this one waited for its turn, others may have failed.
        self.lock().admit(name)?;
        let is_right = match Accounts::read(&self.file) {
            Ok(accounts) => accounts.proves(name, password),
            Err(trouble) => {
                cli::warn(format_args!("{trouble:?}"));
                false
            }
        };
        let mut state = self.lock();
        if is_right {
            state.tried.remove(name);
            return Ok(());
        }
        let tried = state.tried.entry(name.to_string()).or_default();
        tried.failures += 1;
        let doubled = tried.failures.checked_sub(FREE_FAILURES).map(|n| 1 << n.min(5));
        tried.until = doubled.map(|wait| Instant::now() + Duration::from_secs(wait).min(MAX_WAIT));
        if state.tried.len() > MAX_NAMES {
            // Somebody makes up names. Those that wait go on waiting.
            let now = Instant::now();
            state.tried.retain(|_, t| t.is_busy || t.until.is_some_and(|until| until > now));
        }
        Err("wrong name or password".into())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs, process};

    #[test]
    fn after_five_failures_a_name_waits_and_others_do_not() {
        let file = env::temp_dir().join(format!("socket-chat-logins-{}", process::id()));
        // One round instead of 600,000: the password is `correct horse`.
        let secret =
            "$pbkdf2-sha256$1$MDEyMzQ1Njc4OWFiY2RlZg$Yy2wRoe.n2N8tqLlzlMT/6LDwe.Z8g08lxr.xEewy.c";
        fs::write(&file, format!("ann {secret}\nbob {secret}\n")).expect("a file");
        let logins = Logins::new(file.clone());
        for _ in 0..5 {
            assert_eq!(logins.attempt("ann", b"wrong"), Err("wrong name or password".into()));
        }
        let wait = Err("too many attempts: try again in 1 s".into());
        assert_eq!(logins.attempt("ann", b"correct horse"), wait);
        assert_eq!(logins.attempt("bob", b"correct horse"), Ok(()));
        // A wrong one again, and it is twice as long.
        logins.lock().tried.get_mut("ann").expect("it is known").until = None;
        assert!(logins.attempt("ann", b"wrong").is_err());
        let wait = Err("too many attempts: try again in 2 s".into());
        assert_eq!(logins.attempt("ann", b"correct horse"), wait);
        fs::remove_file(file).expect("it is there");
    }

    #[test]
    fn the_newest_is_called_whose_name_is_not_busy() {
        let mut state = State::default();
        state.call(1);
        assert_eq!(state.working, 0);
        state.waiting = vec![(1, "ann".into()), (2, "bob".into()), (3, "bob".into())];
        state.call(1);
        assert_eq!(state.called, HashSet::from([3]));
        state.call(3);
        assert_eq!(state.called, HashSet::from([3, 1]));
        assert_eq!(state.waiting, [(2, "bob".to_string())]);
    }
}
