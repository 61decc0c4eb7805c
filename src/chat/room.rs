//! The room: who is here, who gets what, and how it ends for each client.
//!
//! Introduced by step 06; the heartbeat, the reasons and the stop by step 07.
//!
//! As in step 05, one thread owns everything: [`Room::start`] starts it. It
//! learns what happens through a channel of [`Event`]s, one after the other,
//! and it alone decides. The threads that read know one client each
//! (see [`session`](crate::chat::session)).
//!
//! Lessons: [06_message_headers](../../../../../lessons/06_message_headers.md),
//! [07_disconnects](../../../../../lessons/07_disconnects.md).

use crate::chat::heartbeat::Pulse;
use crate::chat::message::{Kind, MAX_BODY_BYTES, Message};
use crate::chat::names::Names;
use crate::chat::room_handle::{DisconnectReason, Event, Relay, RoomHandle};
use crate::chat::transport::Transport;
use crate::net::send_queue::{Batch, SendQueue};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

mod remote;
mod timers;

/// The most clients at once. Each has a thread, and a process on Linux can have
/// some 16,000 (see `MAX_WRITERS` in [`send_queue`](crate::net::send_queue)).
pub const MAX_CLIENTS: usize = 10_000;

/// The most events that wait for the room. When so many wait, the readers wait
/// too, and TCP makes their clients wait.
const MAX_EVENTS: usize = 1024;

/// A batch of this many bytes is sent before more events are handled.
const BATCH_BYTES: usize = 64 * 1024;

/// When the room stops: it goes on until no reader has handed over anything
/// for the first time span, but at most for the second one.
const QUIET_TIME: Duration = Duration::from_millis(50);
const MAX_DRAIN_TIME: Duration = Duration::from_millis(500);

/// When the room stops: how long the clients may take to read the goodbye and
/// to close.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// How a room from step 07 on treats its clients.
pub struct Rules {
    /// The most clients at once, joined or not.
    pub limit: usize,
    /// How long a client may be silent before it is asked for a sign of life.
    pub heartbeat: Duration,
}

/// The room itself. It belongs to one thread: no lock is needed, and everybody
/// sees everything in the same order.
///
/// The default is the room of step 06: up to [`MAX_CLIENTS`] clients, which may
/// be silent for ever, and leave without a reason.
///
/// The room works in rounds. While it sends one batch to everybody, events
/// queue up. Then it handles them all, and sends what they bring with one write
/// for each client: the more is said, the more messages share a write.
#[derive(Default)]
pub struct Room {
    /// None: the room of step 06, which tells no reasons and has no timers.
    rules: Option<Rules>,
    clients: BTreeMap<u64, Client>,
    names: Names,
    /// What all members are to get in this round, encoded for each transport
    /// that has been used: [`admit`](Room::admit) adds one for each client.
    batches: BTreeMap<Transport, Batch>,
    /// When to check the clients: not later than the first of them is due. None:
    /// there is nothing to check.
    next_check: Option<Instant>,
    /// Whether the room was told to stop.
    stopping: bool,
    /// What happens here goes to this function, too, for other servers. None:
    /// there are no other servers.
    relay: Option<Box<Relay>>,
    /// The names of the members of other servers. They are in `names`, too.
    remote: HashSet<String>,
}

/// A client that has a seat in the room, joined or not.
struct Client {
    transport: Transport,
    queue: SendQueue,
    /// None: the client has not joined.
    name: Option<String>,
    /// When it got its seat.
    connected: Instant,
    pulse: Pulse,
}

impl Room {
    /// A room that finds dead clients and tells why somebody has left.
    pub fn with_rules(rules: Rules) -> Room {
        Room { rules: Some(rules), ..Room::default() }
    }

    /// Starts the room's thread, which runs until it is told to stop.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start(self) -> io::Result<(RoomHandle, JoinHandle<()>)> {
        let (events, inbox) = mpsc::sync_channel(MAX_EVENTS);
        let thread = thread::Builder::new().name("room".into()).spawn(move || self.run(&inbox))?;
        Ok((RoomHandle::new(events), thread))
    }

    fn run(mut self, inbox: &Receiver<Event>) {
        while !self.stopping {
            match receive(inbox, self.next_check) {
                Ok(event) => self.handle_all(event, inbox),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.check_timers();
            self.flush_all();
        }
        self.stop(inbox);
    }

    /// Handles an event, and those that have queued up after it.
    fn handle_all(&mut self, event: Event, inbox: &Receiver<Event>) {
        self.handle(event);
        for event in inbox.try_iter().take(MAX_EVENTS) {
            self.handle(event);
            if self.batches.values().any(|batch| batch.end() >= BATCH_BYTES) {
                break;
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Connected { id, stream, transport, answer } => {
                // If its reader does not wait for the answer, it has ended.
                let _ = answer.send(self.admit(id, stream, transport));
            }
            Event::JoinRequest { id, name, answer } => {
                let _ = answer.send(self.join(id, name));
            }
            Event::Texts(id, messages) => {
                let Some((_, batch)) = self.heard_from(id) else { return };
                let start = batch.end();
                self.broadcast(&messages);
                if let Some(client) = self.clients.get_mut(&id) {
                    client.queue.exclude(&self.batches[&client.transport], start);
                }
            }
            Event::Reply(id, bytes) => {
                if let Some((client, batch)) = self.heard_from(id) {
                    client.queue.push(batch, &bytes);
                }
            }
            Event::SignOfLife(id) => drop(self.heard_from(id)),
            Event::Left { id, reason, last_bytes } => self.end(id, reason, &last_bytes),
            Event::Stop => self.stopping = true,
            Event::Linked(relay) => {
                for name in self.clients.values().filter_map(|client| client.name.as_deref()) {
                    relay(&Message::new(Kind::Join, name, "").to_bytes());
                }
                self.relay = Some(relay);
            }
            Event::Remote(remote) => self.handle_remote(remote),
        }
    }

    /// The client with that id, which has just shown that it is alive, and the
    /// batch for its transport. None: it has ended.
    fn heard_from(&mut self, id: u64) -> Option<(&mut Client, &Batch)> {
        let client = self.clients.get_mut(&id)?;
        client.pulse.touch(Instant::now());
        let batch = &self.batches[&client.transport];
        Some((client, batch))
    }

    /// Gives a seat to a newcomer. The error says why there is none.
    fn admit(
        &mut self,
        id: u64,
        stream: Arc<TcpStream>,
        transport: Transport,
    ) -> Result<(), String> {
        let limit = self.rules.as_ref().map_or(MAX_CLIENTS, |rules| rules.limit);
        if self.clients.len() >= limit && !self.free_a_seat() {
            return Err(format!("the room is full: the limit is {limit}"));
        }
        let (queue, now) = (SendQueue::new(stream), Instant::now());
        self.batches.entry(transport).or_default();
        let client =
            Client { transport, queue, name: None, connected: now, pulse: Pulse::new(now) };
        if let Some(rules) = &self.rules {
            self.next_check.get_or_insert(client.due(rules.heartbeat));
        }
        self.clients.insert(id, client);
        Ok(())
    }

    /// Gives a name to a client, and tells the others. The error says why the
    /// client can't have the name.
    fn join(&mut self, id: u64, name: String) -> Result<(), String> {
        if self.heard_from(id).is_none() {
            return Err("the connection is closed".into());
        }
        self.names.reserve(&name)?;
        self.broadcast(&Message::new(Kind::Join, &name, "").to_bytes());
        let here = self.names.list(&name, MAX_BODY_BYTES);
        let welcome = Message::new(Kind::Welcome, &name, &here).to_bytes();
        if let Some((client, batch)) = self.heard_from(id) {
            client.queue.subscribe(batch);
            client.queue.push(batch, &client.transport.encode(&welcome));
            client.name = Some(name);
        }
        Ok(())
    }

    /// Tells all members what has happened here: those of other servers, too.
    fn broadcast(&mut self, messages: &[u8]) {
        if let Some(relay) = &self.relay {
            relay(messages);
        }
        self.show(messages);
    }

    /// Adds messages to the batch of each transport.
    fn show(&mut self, messages: &[u8]) {
        for (transport, batch) in &mut self.batches {
            batch.push(&transport.encode(messages));
        }
    }

    /// Ends a client, and tells the others. A second call for the same client
    /// does nothing: the room and its reader may both notice the end.
    fn end(&mut self, id: u64, reason: DisconnectReason, last_bytes: &[u8]) {
        let Some(mut client) = self.clients.remove(&id) else { return };
        let batch = &self.batches[&client.transport];
        client.queue.push(batch, last_bytes);
        match reason {
            // Its reader still waits, and has to wake up.
            DisconnectReason::TimedOut
            | DisconnectReason::TooSlow
            | DisconnectReason::NotJoined
            | DisconnectReason::AlreadyHere => {
                let _ = client.queue.flush(batch);
                client.queue.close();
            }
            _ => client.queue.finish(batch),
        }
        if let Some(name) = client.name {
            self.names.free(&name);
            let why = if self.rules.is_some() { reason.text() } else { "left" };
            self.broadcast(&Message::new(Kind::Leave, &name, why).to_bytes());
        }
    }

    /// Sends all clients what is new, and ends those that are too slow for it.
    fn flush_all(&mut self) {
        loop {
            let mut too_slow = Vec::new();
            for (&id, client) in &mut self.clients {
                let batch = &self.batches[&client.transport];
                if client.queue.flush(batch).is_err() {
                    too_slow.push(id);
                }
            }
            self.batches.values_mut().for_each(Batch::clear);
            if too_slow.is_empty() {
                return;
            }
            for id in too_slow {
                self.end(id, DisconnectReason::TooSlow, b"");
            }
        }
    }

    /// Says goodbye to everybody, after all that was said before.
    fn stop(mut self, inbox: &Receiver<Event>) {
        // What the readers have read already is on its way here.
        let start = Instant::now();
        let end = start + MAX_DRAIN_TIME;
        while let Ok(event) = receive(inbox, Some(end.min(Instant::now() + QUIET_TIME))) {
            self.handle_all(event, inbox);
            self.flush_all();
        }
        for mut client in std::mem::take(&mut self.clients).into_values() {
            let batch = &self.batches[&client.transport];
            client.queue.push(batch, &client.transport.goodbye());
            client.queue.finish(batch);
        }
        // This ends the thread that talks to other servers (step 10).
        self.relay = None;
        // The clients close, and their readers end. Each reader has a sender of
        // this channel: when all have ended, it is disconnected. What comes
        // until then is too late.
        while receive(inbox, Some(start + SHUTDOWN_TIMEOUT)).is_ok() {}
    }
}

/// Waits for the next event, but not past `deadline`. After the deadline, no
/// event is taken even if one is there.
fn receive(inbox: &Receiver<Event>, deadline: Option<Instant>) -> Result<Event, RecvTimeoutError> {
    let Some(deadline) = deadline else { return Ok(inbox.recv()?) };
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(RecvTimeoutError::Timeout),
        time => inbox.recv_timeout(time),
    }
}
