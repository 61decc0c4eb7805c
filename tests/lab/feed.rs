//! What arrives, collected by a thread of its own, so that no program under
//! test ever waits because a test is busy elsewhere.

use super::message::Message;
use super::patience;
use std::io::{ErrorKind, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The other side closed its sending half.
    Closed,
    /// Reset, or another failure.
    Failed(String),
}

/// What came next.
#[derive(Debug)]
pub enum Next {
    /// A line, with its LF; or the bytes that were asked for.
    Some(Vec<u8>),
    /// The end, and what stood before it without an LF.
    End(End, Vec<u8>),
    /// Nothing for as long as [`patience`] says, but for these bytes.
    Silence(Vec<u8>),
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// How many of them have been taken.
    taken: usize,
    end: Option<End>,
}

/// The collected bytes of one stream.
#[derive(Clone)]
pub struct Feed(Arc<(Mutex<State>, Condvar)>);

impl Feed {
    pub fn new(mut stream: impl Read + Send + 'static) -> Feed {
        let feed = Feed(Arc::default());
        let to = feed.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let end = match stream.read(&mut buffer) {
                    Ok(0) => Some(End::Closed),
                    Ok(n) => {
                        to.0.0.lock().unwrap().bytes.extend_from_slice(&buffer[..n]);
                        None
                    }
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Err(e) => Some(End::Failed(e.to_string())),
                };
                let ended = end.is_some();
                to.0.0.lock().unwrap().end = end;
                to.0.1.notify_all();
                if ended {
                    return;
                }
            }
        });
        feed
    }

    /// Waits until something is there that was not taken, or the end.
    pub fn comes_within(&self, time: Duration) -> bool {
        let (lock, changed) = &*self.0;
        let nothing = |state: &mut State| state.bytes.len() == state.taken && state.end.is_none();
        let waited = changed.wait_timeout_while(lock.lock().unwrap(), time, nothing);
        !waited.unwrap().1.timed_out()
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
        let state = self.0.0.lock().unwrap();
        state.bytes[state.taken..].to_vec()
    }

    /// Waits until `wanted` finds what it looks for in the bytes not yet
    /// taken, says how long it is, and takes it.
    fn next(&self, time: Duration, wanted: impl Fn(&[u8]) -> Option<usize>) -> Next {
        let (lock, changed) = &*self.0;
        let mut state = lock.lock().unwrap();
        let mut seen = usize::MAX;
        loop {
            // Only new bytes can have changed the answer.
            if state.bytes.len() != seen {
                seen = state.bytes.len();
                if let Some(count) = wanted(&state.bytes[state.taken..]) {
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
            if let Some(end) = state.end.clone() {
                let taken = state.taken;
                let rest = state.bytes.split_off(taken);
                return Next::End(end, rest);
            }
            let (after, waited) = changed.wait_timeout(state, time).unwrap();
            state = after;
            if waited.timed_out() && state.bytes.len() == seen && state.end.is_none() {
                return Next::Silence(state.bytes[state.taken..].to_vec());
            }
        }
    }
}
