//! One client, as the server sees it: what it may say when, and what it gets
//! for an answer.
//!
//! Introduced by step 06. Each client has a thread that reads from it and
//! knows it alone. Whatever it brings goes to the [room](crate::chat::room), as
//! events.

use crate::chat::message::{self, Kind, Message};
use crate::chat::room::{Door, Ending, Event, error};
use crate::cli;
use crate::line::clean;
use crate::net::send_queue;
use std::io::{self, BufReader, ErrorKind, Read};
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

/// The ERROR for a wrong password and for an unknown name. A login check that
/// returns exactly this text has seen a failed login; every other text is a
/// refusal, which does not count as a failure of the connection.
pub const WRONG_LOGIN: &str = "wrong name or password";

/// One attempt to log in.
pub struct LoginAttempt<'a> {
    /// The number of the client's connection.
    pub connection: u64,
    /// The client's stream. Only the thread that makes the attempt reads from it.
    pub stream: &'a TcpStream,
    /// The name of the account.
    pub name: &'a str,
    /// The password, as it was received.
    pub password: &'a [u8],
    /// Earlier logins that failed on this connection.
    pub failures: u32,
}

/// Checks an attempt to log in, and returns the text of the ERROR if it is
/// refused. It may block: only the thread that reads from the client waits.
pub type LoginCheck = dyn Fn(&LoginAttempt) -> Result<(), String> + Send + Sync;

/// What a newcomer needs to get in.
#[derive(Clone)]
pub struct Lobby {
    /// The way to the room.
    pub room: SyncSender<Event>,
    /// Who looks at passwords, where that is wanted.
    pub logins: Option<Arc<LoginCheck>>,
}

impl Lobby {
    /// Asks the room, and waits for its answer.
    fn ask(
        &self,
        question: impl FnOnce(SyncSender<Result<(), String>>) -> Event,
    ) -> Result<(), String> {
        let (answer, answered) = mpsc::sync_channel(1);
        // Sending fails only when the room has ended.
        let _ = self.room.send(question(answer));
        answered.recv().unwrap_or(Err("the room is closed".into()))
    }
}

/// Failed logins that end a connection.
const MAX_FAILURES: u32 = 3;

/// Starts the thread that reads from a new client; `id` is its number.
///
/// Nobody joins it: [`Event::Gone`] is its last word, and the room waits for
/// that. Without a thread the client can't come in, and is told.
pub fn welcome(id: u64, stream: TcpStream, lobby: &Lobby) {
    let why = "the server is out of threads: try again later";
    start(id, stream, lobby, listen_to, &error(why));
}

/// The same for any kind of reader, and with any word for who can't come in.
pub fn start(
    id: u64,
    stream: TcpStream,
    lobby: &Lobby,
    reader: fn(u64, &Arc<TcpStream>, &Lobby),
    sorry: &[u8],
) {
    let stream = Arc::new(stream);
    let (reading, lobby) = (Arc::clone(&stream), lobby.clone());
    let thread = thread::Builder::new().name(format!("client {id}")).stack_size(STACK_BYTES);
    let started = thread.spawn(move || reader(id, &reading, &lobby));
    if let Err(error) = &started {
        if !SHORT_OF_THREADS.load(Ordering::Relaxed) {
            cli::warn(format_args!("no thread for a newcomer: {error}"));
        }
        send_queue::refuse(&stream, sorry);
    }
    SHORT_OF_THREADS.store(started.is_err(), Ordering::Relaxed);
}

/// A client's reader: turns its bytes into messages, and those into events.
fn listen_to(id: u64, stream: &Arc<TcpStream>, lobby: &Lobby) {
    let mut visitor = match Visitor::arrive(id, stream, Door::Tcp, lobby) {
        Ok(visitor) => visitor,
        Err(why) => return send_queue::refuse(stream, &error(&why)),
    };
    let mut input = BufReader::with_capacity(READ_BYTES, &**stream);
    let mut buffer = Vec::new();
    let (ending, last) = loop {
        match Message::read(&mut input, &mut buffer) {
            Ok(Some(message)) => {
                if visitor.takes_leave(&message) {
                    break (Ending::Left, Vec::new());
                }
            }
            Err(e) if e.kind() == ErrorKind::InvalidData => {
                break (Ending::ProtocolError, error(&e.to_string()));
            }
            Ok(None) | Err(_) => break (Ending::Disconnected, Vec::new()),
        }
        // Messages that arrived together go on together.
        if message::whole_length(input.buffer()).is_none() {
            visitor.pass_on();
        }
    };
    visitor.leave(ending, last, &mut input);
}

/// What a reader knows of its client.
pub struct Visitor<'a> {
    id: u64,
    stream: Arc<TcpStream>,
    door: Door,
    /// None: it has not joined.
    name: Option<String>,
    /// Messages to be passed on.
    said: Vec<u8>,
    /// Logins that failed.
    failures: u32,
    lobby: &'a Lobby,
}

impl Visitor<'_> {
    /// Asks the room for a seat.
    ///
    /// # Errors
    ///
    /// Says why there is none. Then the room does not know this client.
    pub fn arrive<'a>(
        id: u64,
        stream: &Arc<TcpStream>,
        door: Door,
        lobby: &'a Lobby,
    ) -> Result<Visitor<'a>, String> {
        lobby.ask(|answer| Event::Arrived(id, Arc::clone(stream), door, answer))?;
        let stream = Arc::clone(stream);
        Ok(Visitor { id, stream, door, name: None, said: Vec::new(), failures: 0, lobby })
    }

    /// Takes one message. True: it was a goodbye, or one failed login too many.
    pub fn takes_leave(&mut self, message: &Message) -> bool {
        match (message.kind, &self.name) {
            (Kind::Leave, _) => return true,
            (Kind::Ping, _) => self.tell(&Message::pong(message).to_bytes()),
            (Kind::Pong | Kind::Error, _) => self.answer(Vec::new()),
            (Kind::Login, None) if self.lobby.logins.is_some() => {
                self.log_in(message.sender, message.body);
                return self.failures >= MAX_FAILURES;
            }
            (_, None) if self.lobby.logins.is_some() => self.tell(&error("log in first")),
            (Kind::Join, None) => self.join(message.sender),
            (_, None) => self.tell(&error("join first")),
            (Kind::Join, Some(name)) => self.tell(&error(&format!("you are here as {name}"))),
            (Kind::Text, Some(name)) => {
                let body = clean(message.body.as_bytes());
                // Its sender and its time are ours to say, not the client's.
                let text = Message::new(Kind::Text, name, &body);
                if body.is_empty() {
                    self.answer(Vec::new());
                } else {
                    let text = Message { sequence: message.sequence, ..text };
                    text.append_to(&mut self.said);
                }
            }
            (Kind::Welcome | Kind::Login | Kind::Challenge, Some(_)) => {
                self.tell(&error(&format!("kind {} is not for clients", message.kind as u8)));
            }
        }
        false
    }

    fn join(&mut self, name: &str) {
        if let Err(why) = self.enter(name) {
            self.tell(&error(&why));
        }
    }

    /// Lets a client in that knows its password. The room does not wait for
    /// that: only this thread does.
    fn log_in(&mut self, name: &str, password: &str) {
        let Some(logins) = &self.lobby.logins else { return };
        let tried = logins(&LoginAttempt {
            connection: self.id,
            stream: &self.stream,
            name,
            password: password.as_bytes(),
            failures: self.failures,
        });
        self.failures += u32::from(tried.as_ref().is_err_and(|why| why == WRONG_LOGIN));
        let entered = tried.and_then(|()| self.enter(name).map_err(|_| "already here".into()));
        if let Err(why) = entered {
            self.tell(&error(&why));
        }
    }

    /// Asks the room for a name.
    fn enter(&mut self, name: &str) -> Result<(), String> {
        self.lobby.ask(|answer| Event::Joins(self.id, name.to_string(), answer))?;
        self.name = Some(name.to_string());
        Ok(())
    }

    /// Hands over what the client has said so far.
    pub fn pass_on(&mut self) {
        if !self.said.is_empty() {
            let said = std::mem::take(&mut self.said);
            let _ = self.lobby.room.send(Event::Said(self.id, said));
        }
    }

    /// Answers the client with bytes as they are, behind all that it has said.
    /// No bytes at all are a sign of life.
    pub fn answer(&mut self, bytes: Vec<u8>) {
        self.pass_on();
        let _ = self.lobby.room.send(Event::Answered(self.id, bytes));
    }

    /// Answers the client with a message.
    fn tell(&mut self, message: &[u8]) {
        self.answer(self.door.put(message));
    }

    /// Hands over the end and the last bytes for the client. Then reads on,
    /// and throws away, until the client has closed or the room cuts it off.
    ///
    /// Bytes that nobody reads would make the end a reset, and the client might
    /// not get its last word (RFC 2525, section 2.17).
    pub fn leave(mut self, ending: Ending, last: Vec<u8>, input: &mut impl Read) {
        self.pass_on();
        let _ = self.lobby.room.send(Event::Left(self.id, ending, last));
        let _ = io::copy(input, &mut io::sink());
        let _ = self.lobby.room.send(Event::Gone(self.id));
    }
}
