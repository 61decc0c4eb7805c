//! A client that comes as browsers do: it asks for the page, or for a
//! WebSocket. Then it is a [visitor] like any other.
//!
//! Introduced by step 09.

use crate::chat::message::{HEADER_BYTES, MAX_BODY_BYTES, MAX_SENDER_BYTES, Message};
use crate::chat::room::{Door, Ending, error};
use crate::chat::session::{self, Lobby, Visitor};
use crate::web::frame::{self, Error, Opcode};
use crate::web::handshake::{self, Route};
use crate::web::hosts::KnownHosts;
use crate::web::http::{self, ErrorResponse, Request};
use crate::web::message_reader::{MessageReader, Received};
use std::collections::BTreeMap;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The longest message, in bytes.
const MAX_MESSAGE_BYTES: usize = HEADER_BYTES + MAX_SENDER_BYTES + MAX_BODY_BYTES;

/// How long a request may take to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// How long a connection that is over may stay open.
const LINGER: Duration = Duration::from_secs(1);

/// The most connections that may be at their request: each has a thread.
const MAX_REQUESTS: usize = 1000;

/// Those that are, by number, the oldest first.
static REQUESTS: Mutex<BTreeMap<u64, Arc<TcpStream>>> = Mutex::new(BTreeMap::new());

/// The number of the next.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The hosts that this server was started for.
static HOSTS: OnceLock<KnownHosts> = OnceLock::new();

/// What a reader takes from its client at once. 10,000 readers have one each.
const READ_BYTES: usize = 4096;

/// Says which hosts a request may name, before the first client is served.
/// Without this call they are the loopback hosts.
pub fn serve_hosts(hosts: KnownHosts) {
    let _ = HOSTS.set(hosts);
}

/// Starts the thread that reads from a new client; `id` is its number.
pub fn welcome(id: u64, stream: TcpStream, lobby: &Lobby) {
    session::start(id, stream, lobby, listen_to, &ErrorResponse::OVERLOADED.to_bytes());
}

/// A stream with a time by which a request must have come.
pub struct Timed<'a> {
    stream: &'a TcpStream,
    end: Option<Instant>,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(end) = self.end {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
        }
        self.stream.read(buffer)
    }
}

/// Reads a client's request, and answers it if it is not for a WebSocket. If
/// `hosts` is None, an upgrade is accepted at any path, for any host and from
/// any origin.
///
/// Returns the rest of the stream and the value of `Sec-WebSocket-Accept`;
/// None when it is over.
pub fn open<'a>(
    stream: &'a Arc<TcpStream>,
    hosts: Option<&KnownHosts>,
) -> Option<(BufReader<Timed<'a>>, String)> {
    let local = stream.local_addr().ok()?.ip();
    let timed = Timed { stream, end: Some(Instant::now() + REQUEST_TIME) };
    let mut input = BufReader::with_capacity(READ_BYTES, timed);
    let number = begin(stream);
    let route =
        Request::read(&mut input).and_then(|request| request.route(hosts, local).map_err(Some));
    requests().remove(&number);
    match route {
        Ok(Route::WebSocket(accept)) => {
            input.get_mut().end = None;
            // They fail only for a connection that is gone.
            let _ = stream.set_read_timeout(None);
            let _ = stream.set_nodelay(true);
            return Some((input, accept));
        }
        Ok(Route::Page) => close(stream, &http::page()),
        Err(Some(error)) => close(stream, &error.to_bytes()),
        Err(None) => {}
    }
    None
}

/// Counts in a connection that begins its request. If it is one too many, the
/// oldest is cut off: a browser's request is there at once, so it is not the
/// oldest; who sends a byte now and then, to keep others out, is.
fn begin(stream: &Arc<TcpStream>) -> u64 {
    let mut requests = requests();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    requests.insert(number, Arc::clone(stream));
    if requests.len() > MAX_REQUESTS {
        // Its thread reads the end of the stream, and ends.
        let _ = requests.pop_first().map(|(_, oldest)| oldest.shutdown(Shutdown::Both));
    }
    number
}

fn requests() -> MutexGuard<'static, BTreeMap<u64, Arc<TcpStream>>> {
    REQUESTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the last bytes of a connection that the room does not know, and gives
/// the client a moment to take them.
pub fn close(mut stream: &TcpStream, bytes: &[u8]) {
    let end = Some(Instant::now() + LINGER);
    let _ = stream.set_write_timeout(Some(LINGER));
    if stream.write_all(bytes).is_ok() {
        let _ = stream.shutdown(Shutdown::Write);
        let _ = io::copy(&mut Timed { stream, end }, &mut io::sink());
    }
}

/// A client's reader: its request, then its frames.
fn listen_to(id: u64, stream: &Arc<TcpStream>, lobby: &Lobby) {
    let Some((input, accept)) = open(stream, Some(HOSTS.get_or_init(KnownHosts::default))) else {
        return;
    };
    let Ok(mut visitor) = Visitor::arrive(id, stream, Door::WebSocket, lobby) else {
        return close(stream, &ErrorResponse::ROOM_FULL.to_bytes());
    };
    visitor.answer(handshake::switching_protocols(&accept));
    let mut reader = MessageReader::new(input, MAX_MESSAGE_BYTES);
    let (ending, last) = listen(&mut visitor, &mut reader);
    visitor.leave(ending, last, reader.get_mut());
}

/// Listens to a client until its end. Returns that, and the last bytes for it.
fn listen(visitor: &mut Visitor, reader: &mut MessageReader<impl Read>) -> (Ending, Vec<u8>) {
    let close = frame::close_frame;
    let refused = |why: &str, code| {
        let last = [Door::WebSocket.put(&error(why)), close(code)].concat();
        (Ending::ProtocolError, last)
    };
    loop {
        match reader.receive() {
            Ok(Received::Binary(bytes)) => match Message::from_bytes(bytes, MAX_BODY_BYTES) {
                Ok(message) if visitor.takes_leave(&message) => {
                    return (Ending::Left, close(frame::NORMAL_CLOSURE));
                }
                Ok(_) => visitor.pass_on(),
                Err(why) => return refused(&why.to_string(), frame::POLICY_VIOLATION),
            },
            Ok(Received::Text(_)) => {
                return refused("binary messages only", frame::UNSUPPORTED_DATA);
            }
            Ok(Received::Ping(payload)) => {
                visitor.answer(frame::control_frame(Opcode::Pong, payload));
            }
            Ok(Received::Pong | Received::Fragment) => visitor.answer(Vec::new()),
            // The goodbye is answered with the same (section 5.5.1).
            Ok(Received::Close(code)) => {
                return (Ending::Left, close(code.unwrap_or(frame::NORMAL_CLOSURE)));
            }
            Err(Error::Protocol(code, _)) => return (Ending::ProtocolError, close(code)),
            Err(Error::Io(_)) => return (Ending::Disconnected, Vec::new()),
        }
    }
}
