//! One client's session, as the server sees it: what the client may say when,
//! and what it gets for an answer.
//!
//! Introduced by step 06. Each client has a thread that reads from it and knows
//! it alone. What the client says goes to the [room](crate::chat::room) as
//! events.
//!
//! Lesson: [06_message_headers](../../../../../lessons/06_message_headers.md).

use crate::chat::decode;
use crate::chat::message::{Kind, Message};
use crate::chat::room_handle::{DisconnectReason, Event, LoginAttempt, LoginError, RoomHandle};
use crate::chat::transport::Transport;
use crate::cli;
use crate::line::clean;
use crate::net::deadline::{linger, refuse, send_last};
use std::io::{BufReader, ErrorKind};
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// What a reader takes from its client at once, in bytes. There may be 10,000
/// readers, and each has a buffer of this size.
pub const READ_BUFFER_BYTES: usize = 4096;

/// The size of a reader's stack. The usual 2 MiB would cost page tables, even
/// where they are not used.
const STACK_BYTES: usize = 64 * 1024;

/// The number of failed logins that ends a connection.
const MAX_LOGIN_FAILURES: u32 = 3;

/// Whether standard error has said already that there are no more threads. It
/// is said again after a thread was started in between.
static NO_THREADS_REPORTED: AtomicBool = AtomicBool::new(false);

/// Starts the session of a client that has connected by TCP, in a thread of its
/// own; `id` is a new number for each connection.
pub fn spawn(id: u64, stream: TcpStream, room: &RoomHandle) {
    let refusal = Message::error("the server is out of threads: try again later");
    spawn_reader(id, stream, room, &refusal, read_loop);
}

/// Starts the thread that reads from a client, for any transport. Without a
/// thread the client can't come in: then it gets `refusal`.
///
/// The JoinHandle is dropped: when the thread ends it drops its [`RoomHandle`],
/// and the room waits for that.
pub fn spawn_reader(
    id: u64,
    stream: TcpStream,
    room: &RoomHandle,
    refusal: &[u8],
    read_loop: impl FnOnce(u64, &Arc<TcpStream>, &RoomHandle) + Send + 'static,
) {
    let stream = Arc::new(stream);
    let (reading, room) = (Arc::clone(&stream), room.clone());
    let thread = thread::Builder::new().name(format!("client {id}")).stack_size(STACK_BYTES);
    let started = thread.spawn(move || read_loop(id, &reading, &room));
    if let Err(error) = &started {
        if !NO_THREADS_REPORTED.load(Ordering::Relaxed) {
            cli::warn(format_args!("no thread for a newcomer: {error}"));
        }
        refuse(&stream, refusal);
    }
    NO_THREADS_REPORTED.store(started.is_err(), Ordering::Relaxed);
}

/// Turns the bytes of a TCP client into messages, and those into events.
fn read_loop(id: u64, stream: &Arc<TcpStream>, room: &RoomHandle) {
    let mut session = match Session::open(id, stream, Transport::Tcp, room) {
        Ok(session) => session,
        Err(why) => return send_last(stream, &Message::error(&why)),
    };
    let mut input = BufReader::with_capacity(READ_BUFFER_BYTES, &**stream);
    let mut buffer = Vec::new();
    let (reason, last_bytes) = loop {
        match Message::read(&mut input, &mut buffer) {
            Ok(Some(message)) => {
                if let ControlFlow::Break(reason) = session.receive(&message) {
                    break (reason, Vec::new());
                }
            }
            Err(e) if e.kind() == ErrorKind::InvalidData => {
                break (DisconnectReason::ProtocolError, Message::error(&e.to_string()));
            }
            Ok(None) | Err(_) => break (DisconnectReason::Disconnected, Vec::new()),
        }
        // Messages that arrived together go on together.
        if decode::whole_length(input.buffer()).is_none() {
            session.pass_on();
        }
    };
    session.close(reason, last_bytes);
}

/// What a reader knows of its client.
pub struct Session<'a> {
    id: u64,
    stream: &'a TcpStream,
    transport: Transport,
    /// None: the client has not joined.
    name: Option<String>,
    /// TEXT messages that have not been handed to the room yet.
    texts: Vec<u8>,
    login_failures: u32,
    room: &'a RoomHandle,
}

impl<'a> Session<'a> {
    /// Asks the room for a seat.
    ///
    /// # Errors
    ///
    /// The error says why there is no seat. Then the room does not know this
    /// client.
    pub fn open(
        id: u64,
        stream: &'a Arc<TcpStream>,
        transport: Transport,
        room: &'a RoomHandle,
    ) -> Result<Session<'a>, String> {
        room.ask(|answer| Event::Connected { id, stream: Arc::clone(stream), transport, answer })?;
        let texts = Vec::new();
        Ok(Session { id, stream, transport, name: None, texts, login_failures: 0, room })
    }

    /// Handles one message. Returns `Break`, with the reason, if it was the
    /// client's last message.
    pub fn receive(&mut self, message: &Message) -> ControlFlow<DisconnectReason> {
        let needs_login = self.room.login_check.is_some();
        match (message.kind, &self.name) {
            (Kind::Leave, _) => return ControlFlow::Break(DisconnectReason::Left),
            (Kind::Ping, _) => self.reply(&Message::pong(message).to_bytes()),
            (Kind::Pong | Kind::Error, _) => self.sign_of_life(),
            (Kind::Login, None) if needs_login => return self.log_in(message),
            (_, None) if needs_login => self.reply_error("log in first"),
            (Kind::Join, None) => {
                if let Err(why) = self.join(message.sender) {
                    self.reply_error(&why);
                }
            }
            (_, None) => self.reply_error("join first"),
            (Kind::Join, Some(name)) => self.reply_error(&format!("you are here as {name}")),
            (Kind::Text, Some(name)) => {
                let body = clean(message.body.as_bytes());
                // The server says who the sender is and what time it is: the
                // client might lie.
                let text = Message::new(Kind::Text, name, &body);
                if body.is_empty() {
                    self.sign_of_life();
                } else {
                    Message { sequence: message.sequence, ..text }.append_to(&mut self.texts);
                }
            }
            (Kind::Welcome | Kind::Login | Kind::Challenge, Some(_)) => {
                self.reply_error(&format!("kind {} is not for clients", message.kind as u8));
            }
        }
        ControlFlow::Continue(())
    }

    /// Asks the room for a name.
    fn join(&mut self, name: &str) -> Result<(), String> {
        let (id, requested) = (self.id, name.to_string());
        self.room.ask(|answer| Event::JoinRequest { id, name: requested, answer })?;
        self.name = Some(name.to_string());
        Ok(())
    }

    /// Lets the client join under its name if it knows the password. The room
    /// does not wait for that: only this thread does.
    fn log_in(&mut self, message: &Message) -> ControlFlow<DisconnectReason> {
        let Some(check) = &self.room.login_check else { return ControlFlow::Continue(()) };
        let why = match check(&LoginAttempt {
            connection: self.id,
            stream: self.stream,
            name: message.sender,
            password: message.body.as_bytes(),
            failures: self.login_failures,
        }) {
            Ok(()) => match self.join(message.sender) {
                Ok(()) => return ControlFlow::Continue(()),
                Err(_) => "already here".into(),
            },
            Err(LoginError::NotChecked(why)) => why,
            Err(LoginError::Wrong) => {
                self.login_failures += 1;
                "wrong name or password".into()
            }
        };
        self.reply_error(&why);
        if self.login_failures < MAX_LOGIN_FAILURES {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(DisconnectReason::LoginFailed)
    }

    /// Hands over what the client has said so far.
    pub fn pass_on(&mut self) {
        if !self.texts.is_empty() {
            self.room.tell(Event::Texts(self.id, std::mem::take(&mut self.texts)));
        }
    }

    /// Tells the room that something has come that needs no reply.
    pub fn sign_of_life(&mut self) {
        self.pass_on();
        self.room.tell(Event::SignOfLife(self.id));
    }

    /// Replies to the client with bytes that are encoded already, after all
    /// that it has said.
    pub fn reply_bytes(&mut self, bytes: Vec<u8>) {
        self.pass_on();
        self.room.tell(Event::Reply(self.id, bytes));
    }

    /// Replies to the client with a message.
    fn reply(&mut self, message: &[u8]) {
        self.reply_bytes(self.transport.encode(message).into_owned());
    }

    fn reply_error(&mut self, why: &str) {
        self.reply(&Message::error(why));
    }

    /// Tells the room that the client has left, and what it gets before the
    /// end. Then waits a moment for the client to close.
    pub fn close(mut self, reason: DisconnectReason, last_bytes: Vec<u8>) {
        self.pass_on();
        self.room.tell(Event::Left { id: self.id, reason, last_bytes });
        linger(self.stream);
    }
}
