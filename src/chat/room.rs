//! The room: who is here, who gets what, and how it ends for each.
//!
//! Introduced by step 06; the heartbeat, the reasons and the stop by step 07.
//!
//! As in step 05, one thread owns everything: [`Room::run`]. It gets to know
//! what happens through a channel of [`Event`]s, one after the other, and it
//! alone decides. The threads that read know one client each
//! (see [`visitor`](crate::chat::session)).

use crate::chat::members::{Heartbeat, Names};
use crate::chat::message::{self, Kind, MAX_BODY_BYTES, Message};
use crate::net::send_queue::{Crowd, Frame, Outgoing};
use crate::web::frame::{self, Opcode};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

/// A thread for each client: 16,000 would be the end of a process on Linux.
pub const MAX_CLIENTS: usize = 10_000;

/// Events that may wait for the room. When it is full readers wait, and TCP
/// makes their clients wait.
pub const MAX_EVENTS: usize = 1024;

/// News of this many bytes is told before more is taken in.
const ROUND_BYTES: usize = 64 * 1024;

/// How long a connection that is over may stay open, so that its client gets
/// to read the last word. (Closing while it still sends would be a reset.)
const LINGER: Duration = Duration::from_secs(1);

/// The most connections that may linger: each still has a thread.
const MAX_LINGERING: usize = 1000;

/// When the room stops: how long no reader may have anything to hand over
/// before all is said; and how long that may take.
const QUIET: Duration = Duration::from_millis(50);
const LAST_WORDS: Duration = Duration::from_millis(500);

/// When the room stops: how long all of it may take. Then those who have not
/// taken the goodbye and closed are cut off.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the room gets to know about the client with that number, in the order
/// in which it happened.
pub enum Event {
    /// It has connected. Nobody hears of it yet. The answer tells its reader
    /// that there is a seat for it, or why there is none.
    Arrived(u64, Arc<TcpStream>, Door, SyncSender<Result<(), String>>),
    /// It asks for a name. The answer tells its reader that it got it, or why
    /// not.
    Joins(u64, String, SyncSender<Result<(), String>>),
    /// It has said something: whole messages, ready to be passed on.
    Said(u64, Vec<u8>),
    /// It is alive, and these bytes are for it alone.
    Answered(u64, Vec<u8>),
    /// Nothing more will come from it, and these are the last bytes for it.
    Left(u64, Ending, Vec<u8>),
    /// Its reader has ended. The last event of each client.
    Gone(u64),
    /// The room is to stop.
    Stop,
}

/// How it ends for a client.
#[derive(Clone, Copy)]
pub enum Ending {
    /// It has said goodbye.
    Left,
    /// Its stream has ended without a goodbye, or was reset.
    Disconnected,
    /// It has sent what is no message.
    ProtocolError,
    /// It gave no sign of life.
    TimedOut,
    /// It did not take what was sent to it.
    TooSlow,
}

impl Ending {
    /// What the others are told.
    pub fn reason(self) -> &'static str {
        match self {
            Ending::Left => "left",
            Ending::Disconnected => "disconnected",
            Ending::ProtocolError => "protocol error",
            Ending::TimedOut => "timed out",
            Ending::TooSlow => "too slow",
        }
    }
}

/// By which way a client has come in, and how messages are put on its wire.
#[derive(Clone, Copy)]
pub enum Door {
    /// As they are, on a TCP stream.
    Tcp,
    /// Each in a binary message of a WebSocket.
    WebSocket,
}

impl Door {
    /// How whole messages are framed, if they are.
    fn frame(self) -> Option<Frame> {
        match self {
            Door::Tcp => None,
            Door::WebSocket => Some(frame_messages),
        }
    }

    /// The bytes of whole messages on its wire.
    pub fn put(self, messages: &[u8]) -> Vec<u8> {
        self.frame().map_or_else(|| messages.to_vec(), |frame| frame(messages))
    }

    /// What asks a client for a sign of life.
    fn ping(self) -> Vec<u8> {
        match self {
            Door::Tcp => Message::new(Kind::Ping, "", "").to_bytes(),
            Door::WebSocket => frame::control_frame(Opcode::Ping, b""),
        }
    }

    /// What follows the goodbye of a server that stops.
    fn end(self) -> Vec<u8> {
        match self {
            Door::Tcp => Vec::new(),
            Door::WebSocket => frame::close_frame(frame::GOING_AWAY),
        }
    }
}

/// Puts each of these messages into a frame.
fn frame_messages(mut messages: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(messages.len() + messages.len() / 8);
    while let Some(length) = message::whole_length(messages) {
        let (first, rest) = messages.split_at(length);
        frame::append_frame(Opcode::Binary, first, &mut wire);
        messages = rest;
    }
    wire
}

/// What is different from room to room.
pub struct Rules {
    /// The most clients at once, joined or not.
    pub limit: usize,
    /// How long a client may be silent before it is asked whether it lives.
    pub heartbeat: Option<Duration>,
    /// How long a client may take to join.
    pub joining: Option<Duration>,
    /// What the others are told when one leaves.
    pub reason: fn(Ending) -> &'static str,
}

/// The room itself. It belongs to one thread: no lock, and everybody sees
/// everything in the same order.
pub struct Room {
    rules: Rules,
    clients: BTreeMap<u64, Client>,
    names: Names,
    /// How they hear of each other.
    crowd: Crowd,
    /// Those for whom it is over, until their reader has ended, and when their
    /// time to take the last word is over.
    leaving: BTreeMap<u64, (Outgoing, Instant)>,
    heartbeat: Option<Heartbeat<u64>>,
    /// Those who have not joined, and when their time to do so is over.
    joining: BTreeMap<u64, Instant>,
    /// Whether it was told to stop.
    stopping: bool,
}

struct Client {
    door: Door,
    /// None: it has not joined.
    name: Option<String>,
}

impl Room {
    /// Opens an empty room.
    pub fn new(rules: Rules) -> Room {
        let heartbeat = rules.heartbeat.map(Heartbeat::new);
        let (clients, names, crowd, leaving, joining) = Default::default();
        Room { rules, clients, names, crowd, leaving, heartbeat, joining, stopping: false }
    }

    /// Runs the room until it is told to stop, and has stopped.
    pub fn run(mut self, inbox: &Receiver<Event>) {
        while !self.stopping {
            match next(inbox, self.next_due()) {
                Ok(event) => self.take_all(event, inbox),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look_at_the_clock();
            self.tell_everybody();
        }
        self.stop(inbox);
    }

    /// Takes an event, and those that have queued up behind it. What they
    /// bring is told with one write for each client.
    fn take_all(&mut self, event: Event, inbox: &Receiver<Event>) {
        self.take(event);
        for event in inbox.try_iter().take(MAX_EVENTS) {
            self.take(event);
            if self.crowd.news_bytes() >= ROUND_BYTES {
                break;
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Arrived(id, stream, door, answer) => {
                // If its reader does not wait for the answer, it has ended.
                let _ = answer.send(self.arrived(id, stream, door));
            }
            Event::Joins(id, name, answer) => {
                let _ = answer.send(self.joins(id, name));
            }
            // Those for whom it is over may still have something to say.
            Event::Said(id, messages) if self.is_alive(id) => {
                self.crowd.tell_others(id, &messages);
            }
            Event::Answered(id, bytes) if self.is_alive(id) => self.crowd.send_one(id, &bytes),
            Event::Said(..) | Event::Answered(..) => {}
            Event::Stop => self.stopping = true,
            Event::Left(id, ending, last) => self.end(id, ending, &last),
            Event::Gone(id) => {
                self.leaving.remove(&id);
            }
        }
    }

    /// Gives a seat to a newcomer, or says why there is none.
    fn arrived(&mut self, id: u64, stream: Arc<TcpStream>, door: Door) -> Result<(), String> {
        if self.clients.len() >= self.rules.limit {
            return Err(format!("the room is full: the limit is {}", self.rules.limit));
        }
        self.clients.insert(id, Client { door, name: None });
        self.crowd.add(id, Outgoing::new(stream), door.frame());
        self.is_alive(id);
        if let Some(time) = self.rules.joining {
            self.joining.insert(id, Instant::now() + time);
        }
        Ok(())
    }

    /// Gives a name to a client, and tells the others; or says why not.
    fn joins(&mut self, id: u64, name: String) -> Result<(), String> {
        if !self.is_alive(id) {
            return Err("it is over".into());
        }
        self.names.take(&name)?;
        self.crowd.tell_all(&Message::new(Kind::Join, &name, "").to_bytes());
        let here = self.names.list(&name, MAX_BODY_BYTES);
        self.crowd.listen(id);
        self.crowd.tell_one(id, &Message::new(Kind::Welcome, &name, &here).to_bytes());
        if let Some(client) = self.clients.get_mut(&id) {
            client.name = Some(name);
        }
        self.joining.remove(&id);
        Ok(())
    }

    /// Ends it for a client: once, whoever notices first.
    fn end(&mut self, id: u64, ending: Ending, last: &[u8]) {
        let Some(client) = self.clients.remove(&id) else { return };
        self.joining.remove(&id);
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.forget(id);
        }
        self.crowd.send_one(id, last);
        if let Some(outgoing) = self.crowd.remove(id) {
            // They would not read a last word.
            if matches!(ending, Ending::TimedOut | Ending::TooSlow) {
                outgoing.close();
            }
            self.show_out(id, outgoing);
        }
        if let Some(name) = client.name {
            self.names.free(&name);
            let why = (self.rules.reason)(ending);
            self.crowd.tell_all(&Message::new(Kind::Leave, &name, why).to_bytes());
        }
    }

    /// Closes our half of a connection, behind all that waits for the client,
    /// which then has a moment to close its own.
    fn show_out(&mut self, id: u64, outgoing: Outgoing) {
        outgoing.finish();
        if self.leaving.len() >= MAX_LINGERING {
            outgoing.close();
        }
        self.leaving.insert(id, (outgoing, Instant::now() + LINGER));
    }

    /// Whether that client is here. If so, it has just shown that it lives.
    fn is_alive(&mut self, id: u64) -> bool {
        let is_here = self.clients.contains_key(&id);
        if let Some(heartbeat) = self.heartbeat.as_mut().filter(|_| is_here) {
            heartbeat.hear(id, Instant::now());
        }
        is_here
    }

    /// Tells all clients the news, and who was lost while being told.
    fn tell_everybody(&mut self) {
        loop {
            let lost = self.crowd.deliver();
            if lost.is_empty() {
                return;
            }
            for id in lost {
                self.end(id, Ending::TooSlow, b"");
            }
        }
    }

    /// When the clock has to be looked at next.
    fn next_due(&self) -> Option<Instant> {
        let look = self.heartbeat.as_ref().and_then(Heartbeat::next_look);
        let leaving = self.leaving.values().map(|(_, due)| *due);
        // Who came first is due first.
        let joining = self.joining.first_key_value().map(|(_, due)| *due);
        leaving.chain(look).chain(joining).min()
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        for (outgoing, due) in self.leaving.values_mut().filter(|(_, due)| *due <= now) {
            // What is late for it is in good hands.
            if !outgoing.is_late() {
                outgoing.close();
            }
            *due = now + LINGER;
        }
        while let Some((&id, _)) = self.joining.first_key_value().filter(|(_, due)| **due <= now) {
            self.end(id, Ending::TimedOut, b"");
        }
        let Some(heartbeat) = &mut self.heartbeat else { return };
        let silent = heartbeat.look(now);
        for id in silent.ask {
            if let Some(client) = self.clients.get(&id) {
                self.crowd.send_one(id, &client.door.ping());
            }
        }
        for id in silent.dead {
            self.end(id, Ending::TimedOut, b"");
        }
    }

    /// Says goodbye to all, behind everything that was said before.
    fn stop(mut self, inbox: &Receiver<Event>) {
        // What the readers have read already is on its way here.
        let start = Instant::now();
        let last = start + LAST_WORDS;
        while let Ok(event) = next(inbox, Some(last.min(Instant::now() + QUIET))) {
            self.take_all(event, inbox);
            self.tell_everybody();
        }

        let goodbye = Message::new(Kind::Leave, "", "server is shutting down").to_bytes();
        for (id, client) in std::mem::take(&mut self.clients) {
            self.crowd.tell_one(id, &goodbye);
            self.crowd.send_one(id, &client.door.end());
            if let Some(outgoing) = self.crowd.remove(id) {
                outgoing.finish();
                self.leaving.insert(id, (outgoing, start));
            }
        }
        // From now on nothing is told. The clients close, and their readers end.
        let mut end = Some(start + FAREWELL);
        while !self.leaving.is_empty() {
            match next(inbox, end) {
                Ok(Event::Gone(id)) => drop(self.leaving.remove(&id)),
                // What comes now comes too late, and who comes gets no seat.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    // That wakes the readers of those who did not close.
                    self.leaving.values().for_each(|(outgoing, _)| outgoing.close());
                    end = None;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// Waits for the next event, or until it is time: then events have to wait.
fn next(inbox: &Receiver<Event>, due: Option<Instant>) -> Result<Event, RecvTimeoutError> {
    let Some(due) = due else { return Ok(inbox.recv()?) };
    match due.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(RecvTimeoutError::Timeout),
        time => inbox.recv_timeout(time),
    }
}

/// An ERROR, for a person.
pub fn error(why: &str) -> Vec<u8> {
    Message::new(Kind::Error, "", why).to_bytes()
}
