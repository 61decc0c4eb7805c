//! The room: who is here, who gets what, and how it ends for each.
//!
//! Introduced by step 06; the heartbeat, the reasons and the stop by step 07.
//!
//! As in step 05, one thread owns everything: [`Room::run`]. It gets to know
//! what happens through a channel of [`Event`]s, one after the other, and it
//! alone decides. The threads that read know one client each
//! (see [`visitor`](crate::visitor)).

use crate::delivery::{Crowd, Outgoing};
use crate::members::{Heartbeat, Names};
use crate::message::{Kind, MAX_BODY_BYTES, Message};
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
    /// It has connected. Nobody hears of it yet.
    Arrived(u64, Arc<TcpStream>),
    /// It asks for a name. The answer tells its reader whether it got it.
    Joins(u64, String, SyncSender<bool>),
    /// It has said something: whole messages, ready to be passed on.
    Said(u64, Vec<u8>),
    /// It is alive, and this is for it alone: whole messages, or nothing.
    Answered(u64, Vec<u8>),
    /// Nothing more will come from it.
    Left(u64, Ending),
    /// Its reader has ended. The last event of each client.
    Gone(u64),
    /// The room is to stop.
    Stop,
}

/// How it ends for a client.
pub enum Ending {
    /// It has said goodbye.
    Left,
    /// Its stream has ended without a goodbye, or was reset.
    Disconnected,
    /// It has sent what is no message, for this reason.
    ProtocolError(String),
    /// It gave no sign of life.
    TimedOut,
    /// It did not take what was sent to it.
    TooSlow,
}

impl Ending {
    /// What the others are told.
    pub fn reason(&self) -> &'static str {
        match self {
            Ending::Left => "left",
            Ending::Disconnected => "disconnected",
            Ending::ProtocolError(_) => "protocol error",
            Ending::TimedOut => "timed out",
            Ending::TooSlow => "too slow",
        }
    }
}

/// What is different from room to room.
pub struct Rules {
    /// The most clients at once, joined or not.
    pub limit: usize,
    /// How long a client may be silent before it is asked whether it lives.
    pub heartbeat: Option<Duration>,
    /// What the others are told when one leaves.
    pub reason: fn(&Ending) -> &'static str,
}

/// The room itself. It belongs to one thread: no lock, and everybody sees
/// everything in the same order.
pub struct Room {
    rules: Rules,
    /// Who is here, and under which name. None: it has not joined.
    clients: BTreeMap<u64, Option<String>>,
    names: Names,
    /// How they hear of each other.
    crowd: Crowd,
    /// Those for whom it is over, until their reader has ended, and when their
    /// time to take the last word is over.
    leaving: BTreeMap<u64, (Outgoing, Instant)>,
    heartbeat: Option<Heartbeat<u64>>,
    /// Whether it was told to stop.
    stopping: bool,
}

impl Room {
    /// Opens an empty room.
    pub fn new(rules: Rules) -> Room {
        let heartbeat = rules.heartbeat.map(Heartbeat::new);
        let (clients, names, crowd, leaving) = Default::default();
        Room { rules, clients, names, crowd, leaving, heartbeat, stopping: false }
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
            Event::Arrived(id, stream) => self.arrived(id, Outgoing::new(stream)),
            Event::Joins(id, name, answer) => {
                // Its reader waits for this. If not, it has ended.
                let _ = answer.send(self.joins(id, name));
            }
            // Those for whom it is over may still have something to say.
            Event::Said(id, messages) if self.is_alive(id) => {
                self.crowd.tell_others(id, &messages);
            }
            Event::Answered(id, messages) if self.is_alive(id) => {
                self.crowd.tell_one(id, &messages);
            }
            Event::Said(..) | Event::Answered(..) => {}
            Event::Stop => self.stopping = true,
            Event::Left(id, ending) => self.end(id, &ending),
            Event::Gone(id) => {
                self.leaving.remove(&id);
            }
        }
    }

    fn arrived(&mut self, id: u64, outgoing: Outgoing) {
        if self.clients.len() >= self.rules.limit {
            let why = format!("the room is full: the limit is {}", self.rules.limit);
            // If it does not take that, it is over all the same.
            let _ = outgoing.send(&error(&why));
            self.show_out(id, outgoing);
            return;
        }
        self.clients.insert(id, None);
        self.crowd.add(id, outgoing);
        self.is_alive(id);
    }

    /// Gives a name to a client, and tells the others. False: it can't have it.
    fn joins(&mut self, id: u64, name: String) -> bool {
        if !self.is_alive(id) {
            return false;
        }
        if let Err(why) = self.names.take(&name) {
            self.crowd.tell_one(id, &error(&why));
            return false;
        }
        self.crowd.tell_all(&Message::new(Kind::Join, &name, "").to_bytes());
        let here = self.names.list(&name, MAX_BODY_BYTES);
        self.crowd.listen(id);
        self.crowd.tell_one(id, &Message::new(Kind::Welcome, &name, &here).to_bytes());
        self.clients.insert(id, Some(name));
        true
    }

    /// Ends it for a client: once, whoever notices first.
    fn end(&mut self, id: u64, ending: &Ending) {
        let Some(name) = self.clients.remove(&id) else { return };
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.forget(id);
        }
        if let Ending::ProtocolError(why) = ending {
            self.crowd.tell_one(id, &error(why));
        }
        if let Some(outgoing) = self.crowd.remove(id) {
            // They would not read a last word.
            if matches!(ending, Ending::TimedOut | Ending::TooSlow) {
                outgoing.close();
            }
            self.show_out(id, outgoing);
        }
        if let Some(name) = name {
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
                self.end(id, &Ending::TooSlow);
            }
        }
    }

    /// When the clock has to be looked at next.
    fn next_due(&self) -> Option<Instant> {
        let look = self.heartbeat.as_ref().and_then(Heartbeat::next_look);
        self.leaving.values().map(|(_, due)| *due).chain(look).min()
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
        let Some(heartbeat) = &mut self.heartbeat else { return };
        let silent = heartbeat.look(now);
        for id in silent.ask {
            self.crowd.tell_one(id, &Message::new(Kind::Ping, "", "").to_bytes());
        }
        for id in silent.dead {
            self.end(id, &Ending::TimedOut);
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
        for id in std::mem::take(&mut self.clients).into_keys() {
            self.crowd.tell_one(id, &goodbye);
            if let Some(outgoing) = self.crowd.remove(id) {
                outgoing.finish();
                self.leaving.insert(id, (outgoing, start));
            }
        }
        // From now on nothing is told. The clients close, and their readers end.
        let mut end = Some(start + FAREWELL);
        while !self.leaving.is_empty() {
            match next(inbox, end) {
                Ok(Event::Arrived(id, stream)) => {
                    let outgoing = Outgoing::new(stream);
                    outgoing.close();
                    self.leaving.insert(id, (outgoing, Instant::now()));
                }
                Ok(Event::Gone(id)) => drop(self.leaving.remove(&id)),
                // What comes now comes too late.
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
fn error(why: &str) -> Vec<u8> {
    Message::new(Kind::Error, "", why).to_bytes()
}
