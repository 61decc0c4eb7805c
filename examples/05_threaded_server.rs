//! 05: a chat room. One thread per client, everybody hears everybody.
//!
//! Terminal 1:  cargo run --example 05_threaded_server
//! Terminal 2:  cargo run --example 04_chat_client
//! Terminal 3:  cargo run --example 04_chat_client
//!
//! Type a line in terminal 2, and read it, with the sender's name, in terminal
//! 3. `nc 127.0.0.1 12345` is a client too. Ctrl-C in terminal 1 ends the server.
//!
//! New since 04: many clients at once, and a room that knows who is here.
//! Still missing: names of your own, and a polite goodbye (06, 07).
//!
//! Lesson: lessons/05_threaded_server.md

use socket_chat::cli::{self, Args, Failure};
use socket_chat::line::{LineRead, MAX_LINE_BYTES, clean, read_line};
use socket_chat::net::send_queue::{Batch, SendQueue};
use socket_chat::net::{deadline, tcp};
use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

const USAGE: &str = "\
usage: 05_threaded_server [ADDRESS] [--limit N]
  ADDRESS    HOST:PORT to listen on, 127.0.0.1:12345 if not given
  --limit N  the most guests at once, 1 to 10000, 10000 if not given";

/// Each guest has a thread, and a process on Linux can have some 16,000.
const MAX_GUESTS: usize = 10_000;
/// The most events that wait for the room. When so many wait, the readers wait
/// too, and TCP makes their clients wait.
const MAX_EVENTS: usize = 1024;
/// A batch of this many bytes is sent before more events are handled.
const BATCH_BYTES: usize = 64 * 1024;
/// What a reader takes from its client at once, in bytes. There may be 10,000
/// readers, and each has a buffer of this size.
const READ_BUFFER_BYTES: usize = 4096;
/// The size of a reader's stack. The usual 2 MiB would cost page tables, even
/// where they are not used.
const STACK_BYTES: usize = 64 * 1024;

/// What the room learns, in the order in which it happens.
enum Event {
    Connected(TcpStream),
    /// Whole lines, cleaned, each with its sender's name and a line end.
    Lines(u64, Vec<u8>),
    LineTooLong(u64),
    Left(u64),
}

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    let limit = args.number("--limit", 1..=MAX_GUESTS, MAX_GUESTS);
    let address = args.address("127.0.0.1:12345");
    args.finish();

    let listener = TcpListener::bind(&address).map_err(|e| tcp::bind_error(&address, &e))?;
    let (events, inbox) = mpsc::sync_channel(MAX_EVENTS);
    let (guests, batch) = (BTreeMap::new(), Batch::default());
    let room = Room { limit, guests, batch, last_id: 0, events: events.clone() };
    // The JoinHandle is dropped: the thread runs until the process exits.
    thread::Builder::new().name("room".into()).spawn(move || room.run(&inbox))?;
    tcp::announce(&listener)?;

    // Sending fails only when the room's thread has panicked.
    while events.send(Event::Connected(tcp::accept(&listener).0)).is_ok() {}
    Err(Failure::new("the room's thread has panicked"))
}

/// Everybody who is here. The room belongs to one thread: no lock is needed,
/// and everybody sees everything in the same order.
///
/// The room works in rounds. While it sends one batch to everybody, events
/// queue up. Then it handles them all, and sends what they bring with one write
/// for each guest: the more is said, the more lines share a write.
struct Room {
    limit: usize,
    guests: BTreeMap<u64, SendQueue>,
    /// The lines that all guests are to get in this round.
    batch: Batch,
    /// The number in the last name that was given.
    last_id: u64,
    /// For the readers.
    events: SyncSender<Event>,
}

impl Room {
    fn run(mut self, inbox: &Receiver<Event>) {
        while let Ok(event) = inbox.recv() {
            self.handle(event);
            for event in inbox.try_iter().take(MAX_EVENTS) {
                self.handle(event);
                if self.batch.end() >= BATCH_BYTES {
                    break;
                }
            }
            self.flush_all();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Connected(stream) => self.admit(stream),
            Event::Lines(id, lines) => {
                // A guest that was too slow may still have something to say.
                let Some(guest) = self.guests.get_mut(&id) else { return };
                let start = self.batch.end();
                self.batch.push(&lines);
                guest.exclude(&self.batch, start);
            }
            Event::LineTooLong(id) => {
                let Some(guest) = self.guests.get_mut(&id) else { return };
                let why = format!("! line too long: the limit is {MAX_LINE_BYTES} bytes\n");
                guest.push(&self.batch, why.as_bytes());
            }
            Event::Left(id) => self.remove(id, ""),
        }
    }

    /// Gives a newcomer a name and a reader, or says why not.
    fn admit(&mut self, stream: TcpStream) {
        if self.guests.len() >= self.limit {
            let why = format!("! the room is full: the limit is {}\n", self.limit);
            return deadline::refuse(&stream, why.as_bytes());
        }
        let id = self.last_id + 1;
        let stream = Arc::new(stream);
        let (reading, events) = (Arc::clone(&stream), self.events.clone());
        let thread = thread::Builder::new().name(format!("guest-{id}")).stack_size(STACK_BYTES);
        // The JoinHandle is dropped: the thread ends with its guest, after it
        // has told the room that the guest has left.
        if let Err(error) = thread.spawn(move || read_loop(id, &reading, &events)) {
            cli::warn(format_args!("no thread for a newcomer: {error}"));
            return deadline::refuse(&stream, b"! the server is out of threads: try again later\n");
        }
        self.last_id = id;
        let here = self.guests.len() + 1;
        self.batch.push(format!("* guest-{id} joined ({here} here)\n").as_bytes());
        let mut guest = SendQueue::new(stream);
        guest.subscribe(&self.batch);
        guest.push(&self.batch, format!("* welcome, guest-{id} ({here} here)\n").as_bytes());
        self.guests.insert(id, guest);
    }

    /// Takes a guest out of the room, and tells the others.
    fn remove(&mut self, id: u64, why: &str) {
        let Some(guest) = self.guests.remove(&id) else { return };
        guest.finish(&self.batch);
        let here = self.guests.len();
        self.batch.push(format!("* guest-{id} left {why}({here} here)\n").as_bytes());
    }

    /// Sends everybody the batch, and removes those who are too slow for it.
    fn flush_all(&mut self) {
        loop {
            let mut too_slow = Vec::new();
            for (&id, guest) in &mut self.guests {
                if guest.flush(&self.batch).is_err() {
                    too_slow.push(id);
                }
            }
            self.batch.clear();
            if too_slow.is_empty() {
                return;
            }
            for id in too_slow {
                self.remove(id, "(too slow) ");
            }
        }
    }
}

/// A guest's reader: it turns bytes into whole lines, and lines into events. It
/// knows this one guest, and ends with it.
fn read_loop(id: u64, stream: &TcpStream, events: &SyncSender<Event>) {
    let name = format!("guest-{id}: ");
    let mut input = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
    let (mut line, mut lines) = (Vec::new(), Vec::new());
    // Sending fails only when the room has ended, and the process with it.
    let tell = |event| drop(events.send(event));
    loop {
        // A reset ends a guest like the end of its stream does.
        let read = read_line(&mut input, MAX_LINE_BYTES, &mut line).unwrap_or(LineRead::End);
        if read == LineRead::Line {
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
            tell(Event::Lines(id, std::mem::take(&mut lines)));
        }
        match read {
            LineRead::Line => {}
            LineRead::TooLong => tell(Event::LineTooLong(id)),
            LineRead::End => return tell(Event::Left(id)),
        }
    }
}
