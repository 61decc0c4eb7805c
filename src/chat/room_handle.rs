//! How the threads of the clients talk to the room: the events that they send
//! it, and the answers that they wait for.
//!
//! Introduced by step 06; the reasons by step 07; the login and the other
//! servers by step 10.
//!
//! Lessons: [06_message_headers](../../../../../lessons/06_message_headers.md),
//! [07_disconnects](../../../../../lessons/07_disconnects.md),
//! [10_secure_chat](../../../../../lessons/10_secure_chat.md).

use crate::chat::transport::Transport;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};

/// What the room learns. Each event with an id concerns the client with that id.
pub enum Event {
    /// The client has connected. The answer tells its reader that there is a
    /// seat for it, or why there is none.
    Connected {
        /// A new number for each connection.
        id: u64,
        /// The connection, to send on.
        stream: Arc<TcpStream>,
        /// How messages are put on this connection.
        transport: Transport,
        /// Where the reader waits.
        answer: SyncSender<Result<(), String>>,
    },
    /// The client asks for a name. The answer tells its reader that it has
    /// joined under that name, or why not.
    JoinRequest {
        /// Who asks.
        id: u64,
        /// For what name.
        name: String,
        /// Where the reader waits.
        answer: SyncSender<Result<(), String>>,
    },
    /// The client has said something: whole TEXT messages, ready to be passed on.
    Texts(u64, Vec<u8>),
    /// These bytes, encoded already, are for this client alone.
    Reply(u64, Vec<u8>),
    /// Something has come from the client that needs no reply.
    SignOfLife(u64),
    /// Nothing more will come from the client. The last event of each client.
    Left {
        /// Who has left.
        id: u64,
        /// Why.
        reason: DisconnectReason,
        /// What the client gets before the end, encoded already.
        last_bytes: Vec<u8>,
    },
    /// The room has to say goodbye to everybody and stop.
    Stop,
    /// There are other servers that share this room: see [`Relay`].
    Linked(Box<Relay>),
    /// Something about the members of other servers.
    Remote(Remote),
}

/// What the members here say, and who joins and leaves here, goes to this
/// function too: whole JOIN, TEXT and LEAVE messages, in the order in which all
/// members see them. It is called by the room's thread, so it must not wait. It
/// is dropped when the room stops.
pub type Relay = dyn Fn(&[u8]) + Send;

/// What other servers tell the room. None of it goes to the [`Relay`].
pub enum Remote {
    /// A member of another server has this name. If the name is taken, nothing
    /// happens.
    Joined(String),
    /// The member of another server with this name has left, and why. If no
    /// member of another server has the name, nothing happens.
    Left(String, String),
    /// Whole messages for all members here.
    Said(Vec<u8>),
    /// The member here with this name, if there is one, has to leave: another
    /// server let somebody in under the same name, and that was earlier.
    Expel(String),
}

/// Why a client is disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// It has said goodbye.
    Left,
    /// Its stream has ended without a goodbye, or was reset.
    Disconnected,
    /// It has sent something that is not a message.
    ProtocolError,
    /// It gave no sign of life for three heartbeats.
    TimedOut,
    /// It did not read what was sent to it.
    TooSlow,
    /// It did not join in time.
    NotJoined,
    /// It has failed to log in too often.
    LoginFailed,
    /// A member of another server came in earlier, under the same name.
    AlreadyHere,
}

impl DisconnectReason {
    /// What the others are told. (A client that has not joined is not
    /// announced.)
    pub fn text(self) -> &'static str {
        match self {
            DisconnectReason::Left => "left",
            DisconnectReason::Disconnected => "disconnected",
            DisconnectReason::ProtocolError => "protocol error",
            DisconnectReason::TimedOut => "timed out",
            DisconnectReason::TooSlow => "too slow",
            DisconnectReason::NotJoined => "not joined",
            DisconnectReason::LoginFailed => "login failed",
            DisconnectReason::AlreadyHere => "already here",
        }
    }
}

/// One attempt to log in.
pub struct LoginAttempt<'a> {
    /// The id of the client.
    pub connection: u64,
    /// Its connection. Nobody else reads from it during the attempt.
    pub stream: &'a TcpStream,
    /// The account.
    pub name: &'a str,
    /// The password that is tried.
    pub password: &'a [u8],
    /// How many logins have failed on this connection before.
    pub failures: u32,
}

/// Says whether an attempt succeeds, or why not. It may take its time, because
/// only the thread of that client waits for it.
pub type LoginCheck = dyn Fn(&LoginAttempt) -> Result<(), LoginError> + Send + Sync;

/// Why a login has not succeeded.
#[derive(Debug, PartialEq, Eq)]
pub enum LoginError {
    /// The name or the password is wrong. This counts as a failure.
    Wrong,
    /// The password was not checked. This is why: the text of an ERROR.
    NotChecked(String),
}

/// The way to the room, for the threads of the clients.
#[derive(Clone)]
pub struct RoomHandle {
    events: SyncSender<Event>,
    /// None: everybody may join without a password.
    pub login_check: Option<Arc<LoginCheck>>,
}

impl RoomHandle {
    /// A handle for a room that receives these events.
    pub fn new(events: SyncSender<Event>) -> RoomHandle {
        RoomHandle { events, login_check: None }
    }

    /// Tells the room what has happened. Waits while its channel is full.
    pub fn tell(&self, event: Event) {
        // This fails only when the room has stopped.
        let _ = self.events.send(event);
    }

    /// Asks the room, and waits for its answer.
    ///
    /// # Errors
    ///
    /// The room refuses, and says why; or it has stopped.
    pub fn ask(
        &self,
        question: impl FnOnce(SyncSender<Result<(), String>>) -> Event,
    ) -> Result<(), String> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.tell(question(answer));
        answered.recv().unwrap_or(Err("the server is shutting down".into()))
    }
}
