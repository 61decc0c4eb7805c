//! What arrives, read by a thread of its own, so that no program under test
//! ever waits because a test is busy elsewhere. There is one inbox for each
//! connection and each output: bytes, and the events that a codec makes of them.

use super::cleanup::time_left;
use super::message::Message;
use super::patience;
use super::story::quote;
use super::websocket::told_close;
use std::collections::VecDeque;
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
    /// More has come than an inbox keeps. The stream itself goes on.
    Flooded(String),
}

/// What came next.
#[derive(Debug)]
pub enum Next<T = Vec<u8>> {
    /// What was waited for.
    Some(T),
    /// The end, and the bytes before it.
    End(End, Vec<u8>),
    /// Nothing for as long as [`patience`] says, but for these bytes.
    Silence(Vec<u8>),
}

/// What a codec makes of bytes.
#[derive(Clone, Debug)]
pub enum Event {
    /// A line, without its LF.
    Line(Vec<u8>),
    /// A message of the chat.
    Message(Message),
    /// PING of the chat (then without payload), or WebSocket's ping.
    Ping,
    /// WebSocket's pong, and its payload.
    Pong(Vec<u8>),
    /// WebSocket's close frame, and its code. No event comes after it.
    Close(u16),
    /// A message of an echo: its opcode and its payload.
    Echo(u8, Vec<u8>),
    /// What must not come, in words. In a stream no event comes after it.
    Invalid(String),
}

impl Event {
    /// The event in words, for the story.
    pub fn told(&self) -> String {
        match self {
            Event::Line(line) => quote(line),
            Event::Message(message) => message.told(),
            Event::Ping => "a ping".into(),
            Event::Pong(payload) => format!("a pong with {}", quote(payload)),
            Event::Close(code) => told_close(*code),
            Event::Echo(_, payload) => quote(payload),
            Event::Invalid(why) => why.clone(),
        }
    }

    /// Whether it is only for those who ask for it.
    fn is_aside(&self) -> bool {
        matches!(self, Event::Ping | Event::Pong(_))
    }

    /// Whether nothing comes after it.
    fn is_last(&self) -> bool {
        matches!(self, Event::Close(_) | Event::Invalid(_))
    }

    fn into_bytes(self) -> Vec<u8> {
        match self {
            Event::Line(bytes) | Event::Echo(_, bytes) => bytes,
            Event::Message(message) => message.bytes(),
            _ => Vec::new(),
        }
    }
}

/// Makes events of bytes, in the thread that reads.
pub trait Codec: Send + 'static {
    /// Takes the first whole unit off these bytes: its size, and the event, if
    /// it is one for the test. None: some of it is still to come.
    fn decode(&mut self, bytes: &[u8]) -> Option<(usize, Option<Event>)>;

    /// The stream has ended.
    fn ended(&mut self, _failure: Option<&std::io::Error>) {}
}

/// For lines, and for bytes that are compared as they are.
impl Codec for () {
    fn decode(&mut self, _: &[u8]) -> Option<(usize, Option<Event>)> {
        None
    }
}

/// How much of a program's output is kept.
const OUTPUT_BYTES: usize = 1024 * 1024;
/// How much of a connection is kept. A test may leave megabytes unread.
const CONNECTION_BYTES: usize = 64 * 1024 * 1024;

struct Arrived {
    event: Event,
    when: Instant,
    bytes: usize,
}

#[derive(Default)]
struct State {
    /// Bytes that are no event.
    bytes: Vec<u8>,
    /// How many of them have been taken.
    taken: usize,
    events: VecDeque<Arrived>,
    /// How many bytes became events that still wait.
    waiting: usize,
    /// Counts all that changes.
    version: usize,
    end: Option<End>,
    /// How many bytes were thrown away because nobody took them.
    lost: usize,
    /// When something came.
    last: Option<Instant>,
    /// What came from elsewhere.
    stray: Option<String>,
}

impl State {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// All that was not taken.
    fn all(&self) -> Vec<u8> {
        let events = self.events.iter().filter(|arrived| !arrived.event.is_aside());
        let mut all: Vec<u8> = events.flat_map(|a| a.event.clone().into_bytes()).collect();
        all.extend_from_slice(self.rest());
        all
    }

    fn take_bytes(&mut self, count: usize) -> Vec<u8> {
        let found = self.bytes[self.taken..self.taken + count].to_vec();
        self.taken += count;
        if self.taken > 1024 * 1024 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        found
    }

    fn take_event(&mut self, wanted: impl Fn(&Event) -> bool) -> Option<Arrived> {
        let at = self.events.iter().position(|arrived| wanted(&arrived.event))?;
        let arrived = self.events.remove(at)?;
        self.waiting -= arrived.bytes;
        Some(arrived)
    }

    /// Keeps what was read. Of too many bytes, the first and the last stay.
    fn keep(&mut self, bytes: &[u8], most: usize) {
        self.bytes.extend_from_slice(bytes);
        let over = (self.rest().len() + self.waiting).saturating_sub(most);
        if over > 0 {
            let over = over.min(self.rest().len());
            let from = self.taken + (self.rest().len() - over).min(most / 2);
            self.bytes.drain(from..from + over);
            self.lost += over;
        }
    }

    fn push(&mut self, event: Event, bytes: usize) {
        self.waiting += bytes;
        self.events.push_back(Arrived { event, when: Instant::now(), bytes });
    }

    /// Makes events of the bytes. False: no more can be made.
    fn decode(&mut self, codec: &mut impl Codec) -> bool {
        let (mut at, mut goes_on) = (0, true);
        while let Some((size, event)) = codec.decode(&self.bytes[self.taken + at..]) {
            at += size;
            goes_on = !event.as_ref().is_some_and(Event::is_last);
            if let Some(event) = event {
                self.push(event, size);
            }
            if !goes_on {
                break;
            }
        }
        self.bytes.drain(self.taken..self.taken + at);
        goes_on
    }
}

/// The inbox of one connection or output.
#[derive(Clone, Default)]
pub struct Inbox(Arc<(Mutex<State>, Condvar)>);

impl Inbox {
    /// Collects what comes through a connection.
    pub fn of(stream: impl Read + Send + 'static, codec: impl Codec) -> Inbox {
        Inbox::keeping(CONNECTION_BYTES, stream, codec)
    }

    /// Collects what a program prints.
    pub fn of_output(stream: impl Read + Send + 'static) -> Inbox {
        Inbox::keeping(OUTPUT_BYTES, stream, ())
    }

    fn keeping(
        most: usize,
        mut stream: impl Read + Send + 'static,
        mut codec: impl Codec,
    ) -> Inbox {
        let inbox = Inbox::default();
        let to = inbox.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            let mut decodes = true;
            loop {
                let end = match stream.read(&mut buffer) {
                    Ok(0) => End::Closed,
                    Ok(count) => {
                        to.change(|state| {
                            state.keep(&buffer[..count], most);
                            decodes = decodes && state.decode(&mut codec);
                        });
                        continue;
                    }
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Err(e) => {
                        codec.ended(Some(&e));
                        return to.ends(End::Failed(e.to_string()));
                    }
                };
                codec.ended(None);
                return to.ends(end);
            }
        });
        inbox
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.version += 1;
        state.last = Some(Instant::now());
        drop(state);
        self.0.1.notify_all();
    }

    /// Something has come that needs no decoding.
    pub fn push(&self, event: Event) {
        self.change(|state| state.push(event, 0));
    }

    /// Something has come from elsewhere: it is told where nothing else comes.
    pub fn strays(&self, told: String) {
        self.change(|state| state.stray = Some(told));
    }

    pub fn stray(&self) -> Option<String> {
        self.state().stray.clone()
    }

    fn ends(&self, end: End) {
        let mut state = self.state();
        state.end.get_or_insert(end);
        state.version += 1;
        drop(state);
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
        let found = self.wait(time, |state| {
            let came = state.events.iter().any(|arrived| !arrived.event.is_aside());
            (came || !state.rest().is_empty() || state.end.is_some()).then_some(())
        });
        !matches!(found, Next::Silence(_))
    }

    /// Waits for a line, and takes it with its LF.
    pub fn line(&self) -> Next {
        self.line_within(patience())
    }

    /// Waits for a line, but not as long as usual.
    pub fn line_within(&self, time: Duration) -> Next {
        self.wait(time, |state| {
            let at = state.rest().iter().position(|byte| *byte == b'\n')?;
            Some(state.take_bytes(at + 1))
        })
    }

    /// Waits for `count` bytes.
    pub fn bytes(&self, count: usize) -> Next {
        self.wait(patience(), |state| {
            (state.rest().len() >= count).then(|| state.take_bytes(count))
        })
    }

    /// Waits for the next event, whatever it is but a ping or a pong, and tells
    /// when it came. In a stream of lines, that is a line.
    pub fn event_within(&self, time: Duration, lines: bool) -> Next<(Event, Instant)> {
        self.wait(time, |state| {
            if lines {
                let at = state.rest().iter().position(|byte| *byte == b'\n')?;
                let mut line = state.take_bytes(at + 1);
                line.pop();
                return Some((Event::Line(line), Instant::now()));
            }
            let arrived = state.take_event(|event| !event.is_aside())?;
            Some((arrived.event, arrived.when))
        })
    }

    /// Waits for an event of this kind, and lets the others wait. None: it can't
    /// come any more.
    pub fn only(&self, wanted: impl Fn(&Event) -> bool) -> Next<Option<Event>> {
        self.wait(patience(), |state| match state.take_event(&wanted) {
            Some(arrived) => Some(Some(arrived.event)),
            None => state.events.back().is_some_and(|a| a.event.is_last()).then_some(None),
        })
    }

    /// Takes an event of this kind, if one is there already.
    pub fn now(&self, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        self.state().take_event(wanted).map(|arrived| arrived.event)
    }

    /// How many events wait that are no pings nor pongs.
    pub fn unread(&self) -> usize {
        self.state().events.iter().filter(|arrived| !arrived.event.is_aside()).count()
    }

    /// Waits for the end, and returns all that came before it.
    pub fn rest(&self) -> Next {
        self.wait(patience(), |_| None)
    }

    /// All that has come so far and was not taken; takes nothing.
    pub fn so_far(&self) -> Vec<u8> {
        self.state().all()
    }

    /// Whether more has come than is kept.
    pub fn is_flooded(&self) -> bool {
        self.state().lost > 0
    }

    /// Whether the stream has ended.
    pub fn has_ended(&self) -> bool {
        self.state().end.is_some()
    }

    /// The one way to wait: until `wanted` finds what it looks for. What arrives
    /// starts the time anew, up to ten times.
    fn wait<T>(&self, time: Duration, wanted: impl Fn(&mut State) -> Option<T>) -> Next<T> {
        let begun = Instant::now();
        let mut state = self.state();
        loop {
            if let Some(found) = wanted(&mut state) {
                return Next::Some(found);
            }
            if state.lost > 0 {
                let all = state.rest().len() + state.waiting + state.lost;
                let told = format!("{} MiB that nobody has asked for", all / (1024 * 1024));
                return Next::End(End::Flooded(told), state.all());
            }
            if let Some(end) = state.end.clone() {
                let rest = state.all();
                (state.taken, state.waiting) = (state.bytes.len(), 0);
                state.events.retain(|arrived| arrived.event.is_aside());
                return Next::End(end, rest);
            }
            let seen = state.version;
            let waited = self.0.1.wait_timeout(state, time.min(time_left()));
            let (after, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state = after;
            let is_over = waited.timed_out() && state.version == seen
                || time_left().is_zero()
                || begun.elapsed() > time.saturating_mul(10);
            // A last look: it may have come in this very moment.
            if is_over {
                return match wanted(&mut state) {
                    Some(found) => Next::Some(found),
                    None => Next::Silence(state.all()),
                };
            }
        }
    }
}
