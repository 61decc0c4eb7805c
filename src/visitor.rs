//! One client, as the server sees it: what it may say when, and what it gets
//! for an answer.
//!
//! Introduced by step 06. Each client has a thread that reads from it and
//! knows it alone. Whatever it brings goes to the [room](crate::room), as
//! events.

use crate::cli;
use crate::delivery;
use crate::line::clean;
use crate::message::{self, Kind, Message};
use crate::room::{Ending, Event};
use std::io::{self, BufReader, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

/// What a reader takes from its client at once. 10,000 readers have one each.
const READ_BYTES: usize = 4096;

/// A reader's stack. The usual 2 MiB cost page tables even where unused.
const STACK_BYTES: usize = 64 * 1024;

/// Whether standard error says already that no thread is to be had.
static SHORT_OF_THREADS: AtomicBool = AtomicBool::new(false);

/// Starts the thread that reads from a new client; `id` is its number.
///
/// Nobody joins it: [`Event::Gone`] is its last word, and the room waits for
/// that. Without a thread the client can't come in, and is told.
pub fn welcome(id: u64, stream: TcpStream, room: &SyncSender<Event>) {
    let stream = Arc::new(stream);
    let (reading, events) = (Arc::clone(&stream), room.clone());
    let thread = thread::Builder::new().name(format!("client {id}")).stack_size(STACK_BYTES);
    let started = thread.spawn(move || listen_to(id, &reading, &events));
    if let Err(error) = &started {
        if !SHORT_OF_THREADS.load(Ordering::Relaxed) {
            cli::warn(format_args!("no thread for a newcomer: {error}"));
        }
        let why = "the server is out of threads: try again later";
        delivery::refuse(&stream, &Message::new(Kind::Error, "", why).to_bytes());
    }
    SHORT_OF_THREADS.store(started.is_err(), Ordering::Relaxed);
}

/// A client's reader: turns its bytes into messages, and those into events.
fn listen_to(id: u64, stream: &Arc<TcpStream>, room: &SyncSender<Event>) {
    // Sending fails only when the room has ended.
    let _ = room.send(Event::Arrived(id, Arc::clone(stream)));
    let mut visitor = Visitor { id, name: None, said: Vec::new(), room };
    let mut input = BufReader::with_capacity(READ_BYTES, &**stream);
    let mut buffer = Vec::new();
    let ending = loop {
        match Message::read(&mut input, &mut buffer) {
            Ok(Some(message)) => {
                if visitor.takes_leave(&message) {
                    break Ending::Left;
                }
            }
            Err(e) if e.kind() == ErrorKind::InvalidData => {
                break Ending::ProtocolError(e.to_string());
            }
            Ok(None) | Err(_) => break Ending::Disconnected,
        }
        // Messages that arrived together go on together.
        if !message::is_whole(input.buffer()) {
            visitor.pass_on();
        }
    };
    visitor.pass_on();
    let _ = room.send(Event::Left(id, ending));
    // Bytes that nobody reads would make the end a reset, and the client might
    // not get its last word (RFC 2525, section 2.17). The room sets an end.
    let _ = io::copy(&mut input, &mut io::sink());
    let _ = room.send(Event::Gone(id));
}

/// What a reader knows of its client.
struct Visitor<'a> {
    id: u64,
    /// None: it has not joined.
    name: Option<String>,
    /// Messages to be passed on.
    said: Vec<u8>,
    room: &'a SyncSender<Event>,
}

impl Visitor<'_> {
    /// Takes one message. True: it was a goodbye.
    fn takes_leave(&mut self, message: &Message) -> bool {
        match (message.kind, &self.name) {
            (Kind::Leave, _) => return true,
            (Kind::Ping, _) => self.answer(&Message::pong(message).to_bytes()),
            (Kind::Pong | Kind::Error, _) => self.answer(b""),
            (Kind::Join, None) => self.join(message.sender),
            (_, None) => self.refuse("join first"),
            (Kind::Join, Some(name)) => self.refuse(&format!("you are here as {name}")),
            (Kind::Text, Some(name)) => {
                let body = clean(message.body.as_bytes());
                // Its sender and its time are ours to say, not the client's.
                let text = Message::new(Kind::Text, name, &body);
                if body.is_empty() {
                    self.answer(b"");
                } else {
                    let text = Message { sequence: message.sequence, ..text };
                    text.append_to(&mut self.said);
                }
            }
            (Kind::Welcome | Kind::Login | Kind::Challenge, Some(_)) => {
                self.refuse(&format!("kind {} is not for clients", message.kind as u8));
            }
        }
        false
    }

    fn join(&mut self, name: &str) {
        let (answer, answered) = mpsc::sync_channel(1);
        let _ = self.room.send(Event::Joins(self.id, name.to_string(), answer));
        if answered.recv() == Ok(true) {
            self.name = Some(name.to_string());
        }
    }

    /// Hands over what the client has said so far.
    fn pass_on(&mut self) {
        if !self.said.is_empty() {
            let said = std::mem::take(&mut self.said);
            let _ = self.room.send(Event::Said(self.id, said));
        }
    }

    /// Answers the client, behind what it has said so far.
    fn answer(&mut self, messages: &[u8]) {
        self.pass_on();
        let _ = self.room.send(Event::Answered(self.id, messages.to_vec()));
    }

    fn refuse(&mut self, why: &str) {
        self.answer(&Message::new(Kind::Error, "", why).to_bytes());
    }
}
