//! Logins: passwords are checked a few at a time, in a fair order.
//!
//! Introduced by step 10. Checking a password is slow on purpose (see
//! [`pbkdf2`](crate::pbkdf2)), so an attacker must neither keep the server busy
//! nor make people wait. The thread that reads from a client checks its
//! password; [`LoginOrder`] decides when, and whether at all.

use crate::accounts_file::AccountsFile;
use crate::login_names::Outcome;
use crate::login_order::{BUSY, LoginOrder};
use socket_chat::chat::room_handle::{LoginAttempt, LoginError};
use std::hash::RandomState;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long an attempt waits for its turn, at most. A client that has not
/// logged in is disconnected after that time anyway.
const MAX_TIME_IN_QUEUE: Duration = Duration::from_secs(30);

/// How long [`is_gone`] waits for a byte or the end of the stream.
const PEEK_TIME: Duration = Duration::from_millis(1);

/// The attempts to log in of all connections. Their threads share it.
pub struct LoginQueue {
    accounts: AccountsFile,
    order: Mutex<LoginOrder>,
    /// Wakes the threads that wait when a decision has been made.
    decided: Condvar,
    /// The key of the choices that must look random to clients.
    random: RandomState,
}

impl LoginQueue {
    /// Makes a queue for these accounts. One processor core is left to the
    /// chat, if there are two or more.
    pub fn new(accounts: AccountsFile) -> LoginQueue {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let random = RandomState::new();
        LoginQueue {
            accounts,
            order: Mutex::new(LoginOrder::new(cores.saturating_sub(1).max(1), random.clone())),
            decided: Condvar::new(),
            random,
        }
    }

    /// Waits for the turn of this attempt, then checks its password.
    ///
    /// # Errors
    ///
    /// The name or the password is wrong: the error does not say which. Or the
    /// password was not checked, and the error says why.
    pub fn attempt(&self, attempt: &LoginAttempt) -> Result<(), LoginError> {
        self.wait_for_turn(attempt).map_err(LoginError::NotChecked)?;
        // A client that has only closed its sending half is served, too. But
        // where others wait, it does not take their time.
        let others_wait = self.lock().waiting() > 0;
        let outcome = if others_wait && is_gone(attempt.stream) {
            Outcome::Skipped
        } else if self.accounts.current().verify(attempt.name, attempt.password, &self.random) {
            Outcome::Right
        } else {
            Outcome::Wrong
        };
        self.lock().finish(attempt.name, outcome, Instant::now());
        self.decided.notify_all();
        match outcome {
            Outcome::Right => Ok(()),
            Outcome::Wrong => Err(LoginError::Wrong),
            Outcome::Skipped => Err(LoginError::NotChecked("the connection was closed".into())),
        }
    }

    /// Waits until the password may be checked.
    ///
    /// # Errors
    ///
    /// The attempt is refused, and this is why: the text of an ERROR.
    fn wait_for_turn(&self, attempt: &LoginAttempt) -> Result<(), String> {
        let LoginAttempt { connection, name, failures, .. } = *attempt;
        let has_account = self.accounts.current().contains(name);
        let give_up = Instant::now() + MAX_TIME_IN_QUEUE;
        let mut order = self.lock();
        let ticket = order.arrive(connection, name, has_account, failures, Instant::now())?;
        // The arrival may have decided about another attempt.
        self.decided.notify_all();
        loop {
            if let Some(decision) = order.decision(ticket) {
                return decision;
            }
            let now = Instant::now();
            if now >= give_up {
                order.withdraw(ticket);
                return Err(BUSY.into());
            }
            let draw = order.wake_at(ticket).filter(|at| *at > now);
            let end = draw.map_or(give_up, |at| at.min(give_up));
            order = self.wait(order, end);
            if order.start_next(Instant::now()) {
                self.decided.notify_all();
            }
        }
    }

    /// Waits until something is decided, or until the time `end`.
    fn wait<'a>(
        &self,
        order: MutexGuard<'a, LoginOrder>,
        end: Instant,
    ) -> MutexGuard<'a, LoginOrder> {
        let time = end.saturating_duration_since(Instant::now());
        self.decided.wait_timeout(order, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Refuses all attempts that wait, and all later ones, because the server
    /// stops. Their threads end at once.
    pub fn close(&self) {
        self.lock().close();
        self.decided.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, LoginOrder> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a client has closed its connection, or only its sending half.
///
/// It waits 1 ms (the system may round that up to a clock tick). Setting the
/// stream to non-blocking would also affect the thread that writes to it.
/// Where unread bytes arrived before the end of the stream, the end can't be
/// seen.
fn is_gone(stream: &TcpStream) -> bool {
    let Ok(before) = stream.read_timeout() else { return true };
    if stream.set_read_timeout(Some(PEEK_TIME)).is_err() {
        return true;
    }
    let is_gone = match stream.peek(&mut [0]) {
        Ok(count) => count == 0,
        Err(e) => {
            let waits = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted];
            !waits.contains(&e.kind())
        }
    };
    stream.set_read_timeout(before).is_err() || is_gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::PrivateFolder;
    use std::fs;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener};

    /// `correct horse`, with one round in place of 600,000.
    const HASH: &str =
        "$pbkdf2-sha256$1$MDEyMzQ1Njc4OWFiY2RlZg$Yy2wRoe.n2N8tqLlzlMT/6LDwe.Z8g08lxr.xEewy.c";

    /// A queue with the accounts ann and bob.
    fn queue() -> (LoginQueue, PrivateFolder) {
        let folder = PrivateFolder::new(&std::env::temp_dir()).expect("a folder");
        let path = folder.path().join("accounts.txt");
        fs::write(&path, format!("ann {HASH}\nbob {HASH}\n")).expect("a file");
        (LoginQueue::new(AccountsFile::open(path).expect("it is right")), folder)
    }

    /// A connection: the client's stream and the server's.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("its address"));
        (client.expect("it listens"), listener.accept().expect("it has connected").0)
    }

    fn attempt(
        queue: &LoginQueue,
        stream: &TcpStream,
        name: &str,
        password: &str,
    ) -> Result<(), LoginError> {
        let password = password.as_bytes();
        queue.attempt(&LoginAttempt { connection: 1, stream, name, password, failures: 0 })
    }

    #[test]
    fn after_five_failures_a_name_waits_and_others_do_not() {
        let ((queue, _folder), (_client, stream)) = (queue(), connection());
        for _ in 0..5 {
            assert_eq!(attempt(&queue, &stream, "ann", "wrong"), Err(LoginError::Wrong));
        }
        let wait = Err(LoginError::NotChecked("too many attempts: try again in 1 s".into()));
        assert_eq!(attempt(&queue, &stream, "ann", "correct horse"), wait);
        assert_eq!(attempt(&queue, &stream, "bob", "correct horse"), Ok(()));
    }

    #[test]
    fn a_client_that_has_closed_is_served_unless_others_wait() {
        let ((queue, _folder), (client, stream)) = (queue(), connection());
        client.shutdown(Shutdown::Write).expect("it was open");
        assert_eq!(attempt(&queue, &stream, "ann", "correct horse"), Ok(()));

        let cores = thread::available_parallelism().map_or(1, usize::from);
        for number in 0..cores.saturating_sub(1).max(1) as u64 {
            let busy = queue.lock().arrive(0, &format!("zed{number}"), true, 0, Instant::now());
            assert!(busy.is_ok(), "it keeps a worker busy");
        }
        thread::scope(|scope| {
            let gone = scope.spawn(|| attempt(&queue, &stream, "ann", "wrong"));
            while queue.lock().waiting() == 0 {
                thread::yield_now();
            }
            assert!(queue.lock().arrive(0, "eve", true, 0, Instant::now()).is_ok(), "it waits");
            queue.lock().finish("zed0", Outcome::Right, Instant::now());
            queue.decided.notify_all();
            let skipped = Err(LoginError::NotChecked("the connection was closed".into()));
            assert_eq!(gone.join().expect("no panic"), skipped);
        });
    }

    #[test]
    fn looking_for_the_end_of_a_stream_changes_nothing() {
        let (mut client, stream) = connection();
        let before = Some(Duration::from_secs(7));
        stream.set_read_timeout(before).expect("a timeout");
        assert!(!is_gone(&stream), "it is silent");
        client.write_all(b"x").expect("it is open");
        assert!(!is_gone(&stream), "it has said something");
        assert_eq!(stream.read_timeout().expect("a timeout"), before);
    }

    #[test]
    fn the_stop_wakes_an_attempt_that_waits() {
        let ((queue, _folder), (_client, stream)) = (queue(), connection());
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for number in 0..cores as u64 {
            let name = format!("zed{number}");
            let other = queue.lock().arrive(0, &name, true, 0, Instant::now());
            assert!(other.is_ok(), "it keeps a worker busy, or waits");
        }
        let before = queue.lock().waiting();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| attempt(&queue, &stream, "ann", "correct horse"));
            while queue.lock().waiting() == before {
                thread::yield_now();
            }
            let start = Instant::now();
            queue.close();
            let result = waiting.join().expect("no panic");
            assert!(matches!(result, Err(LoginError::NotChecked(why)) if why.contains("shutting")));
            assert!(start.elapsed() < MAX_TIME_IN_QUEUE / 2, "it was woken");
        });
    }
}
