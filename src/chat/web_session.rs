//! A client's session in a browser: it asks for the page, or for a WebSocket.
//! After the handshake it is a [session](crate::chat::session) like any other.
//!
//! Introduced by step 09.
//!
//! Lesson: [09_websocket_chat](../../../../../lessons/09_websocket_chat.md).

use crate::chat::message::{HEADER_BYTES, MAX_BODY_BYTES, MAX_SENDER_BYTES, Message};
use crate::chat::room_handle::{DisconnectReason, RoomHandle};
use crate::chat::session::{READ_BUFFER_BYTES, Session, spawn_reader};
use crate::chat::transport::Transport;
use crate::net::deadline::{DeadlineReader, send_last};
use crate::web::frame::{self, Error, Opcode};
use crate::web::handshake::{self, Route};
use crate::web::hosts::KnownHosts;
use crate::web::http::{self, ErrorResponse, Request};
use crate::web::message_reader::{MessageReader, Received};
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::net::{Shutdown, TcpStream};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest message, in bytes.
const MAX_MESSAGE_BYTES: usize = HEADER_BYTES + MAX_SENDER_BYTES + MAX_BODY_BYTES;

/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The most connections whose request has not arrived yet: each has a thread.
const MAX_REQUESTS: usize = 1000;

/// What all clients of one listener share before their handshake.
pub struct WebEndpoint {
    /// The connections whose request has not arrived yet, the oldest first.
    requests: Mutex<BTreeMap<u64, Arc<TcpStream>>>,
    /// The hosts that a request may name. None: any host, any path and any
    /// origin, as test suites for WebSocket expect it.
    hosts: Option<KnownHosts>,
}

impl WebEndpoint {
    /// An endpoint for these hosts. None: for a server that echoes, which is not a
    /// chat.
    pub fn new(hosts: Option<KnownHosts>) -> WebEndpoint {
        WebEndpoint { requests: Mutex::default(), hosts }
    }

    /// Reads the request of the client with that id, and responds to it if it
    /// does not ask for a WebSocket.
    ///
    /// Returns the rest of the stream, and the value of `Sec-WebSocket-Accept`.
    /// None: the connection is over.
    pub fn handshake<'a>(
        &self,
        id: u64,
        stream: &'a Arc<TcpStream>,
    ) -> Option<(BufReader<DeadlineReader<'a>>, String)> {
        let local = stream.local_addr().ok()?.ip();
        let reader = DeadlineReader::new(stream, REQUEST_TIMEOUT);
        let mut input = BufReader::with_capacity(READ_BUFFER_BYTES, reader);
        self.begin(id, stream);
        let route = Request::read(&mut input)
            .and_then(|request| request.route(self.hosts.as_ref(), local).map_err(Some));
        self.requests().remove(&id);
        match route {
            Ok(Route::WebSocket(accept)) => {
                input.get_mut().clear();
                // It fails only for a connection that is gone.
                let _ = stream.set_nodelay(true);
                return Some((input, accept));
            }
            Ok(Route::Page) => send_last(stream, &http::page()),
            Err(Some(error)) => send_last(stream, &error.to_bytes()),
            Err(None) => {}
        }
        None
    }

    /// Counts a connection that begins its request. If there are too many, the
    /// oldest is closed: the request of a browser arrives at once, so it is
    /// never the oldest for long. A client that sends a byte now and then, to
    /// keep others out, becomes the oldest, and is closed.
    fn begin(&self, id: u64, stream: &Arc<TcpStream>) {
        let mut requests = self.requests();
        requests.insert(id, Arc::clone(stream));
        if requests.len() > MAX_REQUESTS {
            // Its thread reads the end of the stream, and ends.
            let _ = requests.pop_first().map(|(_, oldest)| oldest.shutdown(Shutdown::Both));
        }
    }

    fn requests(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<TcpStream>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the session of a client that has connected to this endpoint, in a
/// thread of its own; `id` is a new number for each connection.
pub fn spawn(id: u64, stream: TcpStream, room: &RoomHandle, endpoint: &Arc<WebEndpoint>) {
    let endpoint = Arc::clone(endpoint);
    spawn_reader(
        id,
        stream,
        room,
        &ErrorResponse::unavailable("too many clients: try again later").to_bytes(),
        move |id, stream, room| {
            let Some((input, accept)) = endpoint.handshake(id, stream) else { return };
            let mut session = match Session::open(id, stream, Transport::WebSocket, room) {
                Ok(session) => session,
                Err(why) => return send_last(stream, &ErrorResponse::unavailable(why).to_bytes()),
            };
            session.reply_bytes(handshake::switching_protocols(&accept));
            let mut reader = MessageReader::new(input, MAX_MESSAGE_BYTES);
            let (reason, last_bytes) = read_loop(&mut session, &mut reader);
            session.close(reason, last_bytes);
        },
    );
}

/// Reads from a client until its end. Returns the reason, and the last bytes for
/// the client.
fn read_loop(
    session: &mut Session,
    reader: &mut MessageReader<impl Read>,
) -> (DisconnectReason, Vec<u8>) {
    let close = frame::close_frame;
    let refused = |why: &str, code| {
        let error = Message::error(why);
        (
            DisconnectReason::ProtocolError,
            [&Transport::WebSocket.encode(&error)[..], &close(code)].concat(),
        )
    };
    loop {
        match reader.receive() {
            Ok(Received::Binary(bytes)) => match Message::from_bytes(bytes, MAX_BODY_BYTES) {
                Ok(message) => {
                    if let ControlFlow::Break(reason) = session.receive(&message) {
                        return (reason, close(frame::NORMAL_CLOSURE));
                    }
                    session.pass_on();
                }
                Err(why) => return refused(&why.to_string(), frame::POLICY_VIOLATION),
            },
            Ok(Received::Text(_)) => {
                return refused("binary messages only", frame::UNSUPPORTED_DATA);
            }
            Ok(Received::Ping(payload)) => {
                session.reply_bytes(frame::control_frame(Opcode::Pong, payload));
            }
            Ok(Received::Pong | Received::Fragment) => session.sign_of_life(),
            // A close frame is answered with the same code (section 5.5.1).
            Ok(Received::Close(code)) => {
                return (DisconnectReason::Left, close(code.unwrap_or(frame::NORMAL_CLOSURE)));
            }
            Err(Error::Protocol(code, _)) => return (DisconnectReason::ProtocolError, close(code)),
            Err(Error::Io(_)) => return (DisconnectReason::Disconnected, Vec::new()),
        }
    }
}
