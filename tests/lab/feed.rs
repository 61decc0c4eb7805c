//! What arrives, collected by a thread of its own, so that no program under
//! test ever waits because a test is busy elsewhere.

use super::cleanup::time_left;
use super::message::Message;
use super::patience;
use std::io::{ErrorKind, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The other side closed its sending half.
    Closed,
    /// Reset, or another failure.
    Failed(String),
    /// More has come than anybody keeps. The stream itself goes on.
    Flooded(String),
}

/// What came next.
#[derive(Debug)]
pub enum Next {
    /// A line, with its LF; or the bytes that were asked for.
    Some(Vec<u8>),
    /// The end, and what came before it without an LF.
    End(End, Vec<u8>),
    /// Nothing for as long as [`patience`] says, but for these bytes.
    Silence(Vec<u8>),
}

/// How much of a program's output is kept.
const OUTPUT_BYTES: usize = 1024 * 1024;
/// How much of a connection is kept. A test may leave megabytes unread.
const CONNECTION_BYTES: usize = 64 * 1024 * 1024;

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// How many of them have been taken.
    taken: usize,
    end: Option<End>,
    /// How many bytes were thrown away because nobody took them.
    lost: usize,
    /// When something came.
    last: Option<Instant>,
}

impl State {
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }
}

/// The collected bytes of one stream.
#[derive(Clone)]
pub struct Feed(Arc<(Mutex<State>, Condvar)>);

impl Feed {
    /// Collects what comes through a connection.
    pub fn new(stream: impl Read + Send + 'static) -> Feed {
        Feed::keeping(CONNECTION_BYTES, stream)
    }

    /// Collects what a program prints.
    pub fn of_output(stream: impl Read + Send + 'static) -> Feed {
        Feed::keeping(OUTPUT_BYTES, stream)
    }

    fn keeping(most: usize, mut stream: impl Read + Send + 'static) -> Feed {
        let feed = Feed(Arc::default());
        let to = feed.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let end = match stream.read(&mut buffer) {
                    Ok(0) => Some(End::Closed),
                    Ok(count) => {
                        to.keep(&buffer[..count], most);
                        None
                    }
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Err(e) => Some(End::Failed(e.to_string())),
                };
                if let Some(end) = end {
                    to.ends(end);
                    return;
                }
                to.0.1.notify_all();
            }
        });
        feed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps these bytes. Of too many, the first and the last stay.
    fn keep(&self, bytes: &[u8], most: usize) {
        let mut state = self.state();
        state.bytes.extend_from_slice(bytes);
        state.last = Some(Instant::now());
        let over = state.waiting().len().saturating_sub(most);
        if over > 0 {
            let from = state.taken + most / 2;
            state.bytes.drain(from..from + over);
            state.lost += over;
        }
    }

    fn ends(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.0.1.notify_all();
    }

    /// Its program has ended. Usually the stream has, too, or does in a moment;
    /// but a process that the program has left behind may hold it open for ever.
    /// False until that is decided.
    pub fn ends_with_its_program(&self, since: Instant) -> bool {
        let state = self.state();
        let quiet = state.last.map_or(since, |last| last.max(since)).elapsed();
        let ended = state.end.is_some();
        drop(state);
        if !ended && quiet > Duration::from_millis(500) {
            self.ends(End::Closed);
        }
        ended
    }

    /// Waits until something is there that was not taken, or the end.
    pub fn comes_within(&self, time: Duration) -> bool {
        let nothing = |state: &mut State| state.waiting().is_empty() && state.end.is_none();
        let waited = self.0.1.wait_timeout_while(self.state(), time.min(time_left()), nothing);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Waits for a line.
    pub fn line(&self) -> Next {
        self.line_within(patience())
    }

    /// Waits for a line, but not as long as usual.
    pub fn line_within(&self, time: Duration) -> Next {
        self.next(time, |bytes| bytes.iter().position(|b| *b == b'\n').map(|at| at + 1))
    }

    /// Waits for a message, or for bytes that can't be one: then all of them.
    pub fn message(&self) -> Next {
        self.message_within(patience())
    }

    /// Waits for a message, but not as long as usual.
    pub fn message_within(&self, time: Duration) -> Next {
        self.next(time, |bytes| match Message::parse(bytes) {
            Ok(message) => message.map(|(_, size)| size),
            Err(_) => Some(bytes.len()).filter(|size| *size > 0),
        })
    }

    /// Waits for `count` bytes.
    pub fn bytes(&self, count: usize) -> Next {
        self.next(patience(), |bytes| (bytes.len() >= count).then_some(count))
    }

    /// Waits for the end, and returns all that came before it.
    pub fn rest(&self) -> Next {
        self.next(patience(), |_| None)
    }

    /// All that has come so far and was not taken; takes nothing.
    pub fn so_far(&self) -> Vec<u8> {
        self.state().waiting().to_vec()
    }

    /// Whether more has come than is kept.
    pub fn is_flooded(&self) -> bool {
        self.state().lost > 0
    }

    /// Whether the stream has ended.
    pub fn has_ended(&self) -> bool {
        self.state().end.is_some()
    }

    /// Whether the stream has ended, and nothing of it waits.
    pub fn is_over(&self) -> bool {
        let state = self.state();
        state.end.is_some() && state.waiting().is_empty()
    }

    /// Waits until `wanted` finds what it looks for in the bytes not yet
    /// taken, says how long it is, and takes it.
    fn next(&self, time: Duration, wanted: impl Fn(&[u8]) -> Option<usize>) -> Next {
        let mut state = self.state();
        let mut seen = usize::MAX;
        loop {
            // Only new bytes can have changed the answer.
            if state.bytes.len() != seen {
                seen = state.bytes.len();
                if let Some(count) = wanted(state.waiting()) {
                    let taken = state.taken..state.taken + count;
                    let found = state.bytes[taken.clone()].to_vec();
                    state.taken = taken.end;
                    if state.taken > 1024 * 1024 {
                        state.bytes.drain(..taken.end);
                        state.taken = 0;
                    }
                    return Next::Some(found);
                }
            }
            if state.lost > 0 {
                let all = state.waiting().len() + state.lost;
                let told = format!("{} MiB that nobody has asked for", all / (1024 * 1024));
                return Next::End(End::Flooded(told), state.waiting().to_vec());
            }
            if let Some(end) = state.end.clone() {
                let taken = state.taken;
                return Next::End(end, state.bytes.split_off(taken));
            }
            let waited = self.0.1.wait_timeout(state, time.min(time_left()));
            let (after, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state = after;
            let nothing_new = state.bytes.len() == seen && state.end.is_none();
            if waited.timed_out() && nothing_new || time_left().is_zero() {
                return Next::Silence(state.waiting().to_vec());
            }
        }
    }
}
