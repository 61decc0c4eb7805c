//! 05: a chat room. One thread per client, everybody hears everybody.
//!
//! Terminal 1:  cargo run --example 05_threaded_server
//! Terminal 2:  cargo run --example 04_chat_client
//! Terminal 3:  cargo run --example 04_chat_client
//!
//! Type a line in terminal 2; read it, with the sender's name, in terminal 3.
//! `nc 127.0.0.1 12345` is a client too. Ctrl-C in terminal 1 closes the room.
//!
//! New since 04: many clients at once, and a room that knows who is here.
//! Still missing: names of your own, and a polite goodbye (06, 07).
//!
//! Lesson: lessons/05_threaded_server.md

use socket_chat::cli::{self, Args, Failure};
use socket_chat::line::{Found, MAX_LINE_BYTES, clean, read_line};
use socket_chat::net::send_queue::{self, Crowd, Outgoing};
use socket_chat::net::tcp;
use std::collections::BTreeSet;
use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

const USAGE: &str = "\
usage: 05_threaded_server [ADDRESS] [--limit N]
  ADDRESS    HOST:PORT to listen on, 127.0.0.1:12345 if not given
  --limit N  the most guests at once, 1 to 10000, 10000 if not given";

/// A thread for each guest: 16,000 would be the end of a process on Linux.
const MAX_GUESTS: usize = 10_000;
/// Events that may wait for the room. When it is full readers wait, and TCP
/// makes their clients wait.
const MAX_EVENTS: usize = 1024;
/// News of this many bytes is told before more is taken in.
const ROUND_BYTES: usize = 64 * 1024;
/// What a reader takes from its client at once. 10,000 readers have one each.
const READ_BYTES: usize = 4096;
/// A reader's stack. The usual 2 MiB cost page tables even where unused.
const STACK_BYTES: usize = 64 * 1024;

/// What the room gets to know, in the order in which it happened.
enum Event {
    Arrived(TcpStream),
    /// Whole lines, clean, each with its speaker's name and its LF.
    Said(u64, Vec<u8>),
    SaidTooMuch(u64),
    Left(u64),
}

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    let limit = args.number("--limit", 1..=MAX_GUESTS, MAX_GUESTS);
    let address = args.address("127.0.0.1:12345");
    args.finish();

    let listener = TcpListener::bind(&address).map_err(|e| tcp::cannot_listen(&address, &e))?;
    let (events, inbox) = mpsc::sync_channel(MAX_EVENTS);
    let room = Room::new(limit, events.clone());
    // Nobody joins it: the room is open until the process ends.
    thread::Builder::new().name("room".into()).spawn(move || room.run(&inbox))?;
    tcp::announce(&listener)?;

    loop {
        let (stream, _) = tcp::accept(&listener);
        if events.send(Event::Arrived(stream)).is_err() {
            return Err(Failure::new("the room's thread has panicked"));
        }
    }
}

/// Who is here. It belongs to one thread: no lock, and everybody sees
/// everything in the same order.
///
/// The room works in rounds. While it tells everybody the news, events queue
/// up; then it takes them all and tells them with one write for each guest.
/// The more is said, the more lines share a write.
struct Room {
    limit: usize,
    guests: BTreeSet<u64>,
    /// How they hear of each other.
    crowd: Crowd,
    /// The number of the last name given.
    last: u64,
    /// For the readers.
    events: SyncSender<Event>,
    /// Whether standard error says already that no thread is to be had.
    short_of_threads: bool,
}

impl Room {
    fn new(limit: usize, events: SyncSender<Event>) -> Room {
        let (guests, crowd) = Default::default();
        Room { limit, guests, crowd, last: 0, events, short_of_threads: false }
    }

    fn run(mut self, inbox: &Receiver<Event>) {
        while let Ok(event) = inbox.recv() {
            self.take(event);
            for event in inbox.try_iter().take(MAX_EVENTS) {
                self.take(event);
                if self.crowd.news_bytes() >= ROUND_BYTES {
                    break;
                }
            }
            self.tell_everybody();
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Arrived(stream) => self.welcome(stream),
            // Those who were too slow may still have something to say.
            Event::Said(id, _) if !self.guests.contains(&id) => {}
            Event::Said(id, lines) => self.crowd.tell_others(id, &lines),
            Event::SaidTooMuch(id) => {
                let answer = format!("! line too long: the limit is {MAX_LINE_BYTES} bytes\n");
                self.crowd.tell_one(id, answer.as_bytes());
            }
            Event::Left(id) => self.remove(id, ""),
        }
    }

    /// Gives a newcomer a name and a reader, or says why not.
    fn welcome(&mut self, stream: TcpStream) {
        if self.guests.len() >= self.limit {
            let word = format!("! the room is full: the limit is {}\n", self.limit);
            send_queue::refuse(&stream, word.as_bytes());
            return;
        }
        let id = self.last + 1;
        let stream = Arc::new(stream);
        let (reading, events) = (Arc::clone(&stream), self.events.clone());
        let thread = thread::Builder::new().name(format!("guest-{id}")).stack_size(STACK_BYTES);
        // Nobody joins it: it ends with its guest, and `Left` is its last word.
        if let Err(error) = thread.spawn(move || listen_to(id, &reading, &events)) {
            if !self.short_of_threads {
                cli::warn(format_args!("no thread for a newcomer: {error}"));
            }
            self.short_of_threads = true;
            send_queue::refuse(&stream, b"! the server is out of threads: try again later\n");
            return;
        }
        self.short_of_threads = false;
        self.last = id;

        self.guests.insert(id);
        let here = self.guests.len();
        self.crowd.tell_all(format!("* guest-{id} joined ({here} here)\n").as_bytes());
        self.crowd.add(id, Outgoing::new(stream), None);
        self.crowd.listen(id);
        self.crowd.tell_one(id, format!("* welcome, guest-{id} ({here} here)\n").as_bytes());
    }

    /// Takes a guest out of the room; the others will be told.
    fn remove(&mut self, id: u64, why: &str) {
        if !self.guests.remove(&id) {
            return;
        }
        // What is queued for it is still sent.
        if let Some(outgoing) = self.crowd.remove(id) {
            outgoing.finish();
        }
        let here = self.guests.len();
        self.crowd.tell_all(format!("* guest-{id} left {why}({here} here)\n").as_bytes());
    }

    /// Tells all guests the news, and who was lost while being told.
    fn tell_everybody(&mut self) {
        loop {
            let lost = self.crowd.deliver();
            if lost.is_empty() {
                return;
            }
            for id in lost {
                self.remove(id, "(too slow) ");
            }
        }
    }
}

/// A guest's reader: turns bytes into whole lines, and lines into events.
/// Knows this one guest, and ends with it.
fn listen_to(id: u64, stream: &TcpStream, events: &SyncSender<Event>) {
    let name = format!("guest-{id}: ");
    let mut input = BufReader::with_capacity(READ_BYTES, stream);
    let mut line = Vec::new();
    let mut lines = Vec::new();
    // Sending fails only when the room has ended, and the process with it.
    let tell = |event| drop(events.send(event));
    loop {
        // A reset ends a guest like the end of its stream does.
        let found = read_line(&mut input, MAX_LINE_BYTES, &mut line).unwrap_or(Found::End);
        if found == Found::Line {
            let text = clean(&line);
            if !text.is_empty() {
                lines.extend_from_slice(name.as_bytes());
                lines.extend_from_slice(text.as_bytes());
                lines.push(b'\n');
            }
            // Lines that arrived together go on together.
            if input.buffer().contains(&b'\n') {
                continue;
            }
        }
        if !lines.is_empty() {
            tell(Event::Said(id, std::mem::take(&mut lines)));
        }
        match found {
            Found::Line => {}
            Found::LongLine => tell(Event::SaidTooMuch(id)),
            Found::End => return tell(Event::Left(id)),
        }
    }
}
