//! The link between a room and the rooms of other servers, through NATS.
//!
//! Introduced by lesson 11. For the room it is one more member: it gets what
//! all get, and has something to say. Two threads serve it:
//!
//! ```text
//! room --relay--> outbox --sender's thread----> NATS
//! room <--events-- cluster <--reader's thread-- NATS
//! ```
//!
//! The room waits for neither of them. While NATS is slow or gone, the outbox
//! fills up, and then messages are dropped and counted.
//!
//! Lesson: lessons/11_beyond.md

use crate::cluster::{Cluster, Content, MAX_PAYLOAD_BYTES};
use crate::nats::{self, Op};
use crate::stunnel::Stunnel;
use crate::tls;
use socket_chat::chat::decode::whole_messages;
use socket_chat::chat::heartbeat::{Check, Pulse};
use socket_chat::chat::message::Kind;
use socket_chat::chat::room_handle::{Event, RoomHandle};
use socket_chat::cli;
use socket_chat::net::deadline::DeadlineReader;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What waits to be sent, in bytes. More TEXT messages are dropped.
const MAX_OUTBOX_BYTES: usize = 1024 * 1024;

/// What is written at once, in bytes, before the time is looked at.
const WRITE_BYTES: usize = 64 * 1024;

/// How long NATS may take to let this program in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before the second try to connect. Each further one is twice as
/// long, up to the second time span.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a server that stops waits until NATS has its last words.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Where NATS is, and how it is used.
pub struct Options {
    /// `HOST:PORT`.
    pub address: String,
    /// The certificate of an authority: then NATS is reached by TLS.
    pub ca: Option<PathBuf>,
    /// How often a server repeats who is there. All servers need the same.
    pub heartbeat: Duration,
}

struct Link {
    options: Options,
    outbox: Mutex<Outbox>,
    /// Something was put into the outbox.
    filled: Condvar,
    state: Mutex<State>,
}

/// What is to be sent.
#[derive(Default)]
struct Outbox {
    messages: Vec<u8>,
    /// TEXT messages that were dropped.
    dropped: u64,
    /// The server has to list its members.
    list: Option<Content>,
    /// NATS has asked for a sign of life.
    pong: bool,
    /// PONGs that have come.
    pongs: u64,
    /// The room has stopped.
    is_closed: bool,
}

struct State {
    cluster: Cluster,
    /// None: it has stopped.
    room: Option<RoomHandle>,
    /// None: NATS is not there.
    connection: Option<(Arc<TcpStream>, Pulse)>,
    /// Whether it was told that somebody else publishes in the room's subject.
    stranger_told: bool,
}

/// Links a room with those of the other servers.
///
/// # Errors
///
/// The system has no thread left. That NATS is not there is none: it is told on
/// standard error, and tried again.
pub fn open(options: Options, room: RoomHandle) -> io::Result<()> {
    let cluster = Cluster::new(RandomState::new().hash_one(0), options.heartbeat);
    let room_handle = Some(room.clone());
    let state = State { cluster, room: room_handle, connection: None, stranger_told: false };
    let (outbox, filled, state) = (Mutex::default(), Condvar::new(), Mutex::new(state));
    let link = Arc::new(Link { options, outbox, filled, state });
    let closing = CloseOnDrop(Arc::clone(&link));
    room.tell(Event::Linked(Box::new(move |messages| closing.0.push(messages))));
    drop(room);
    // The room waits for the sender, which drops its handle. The reader may wait
    // for NATS until the process exits.
    let sending = Arc::clone(&link);
    thread::Builder::new().name("nats sender".into()).spawn(move || sending.send_all())?;
    thread::Builder::new().name("nats reader".into()).spawn(move || link.keep_connected())?;
    Ok(())
}

/// The room's end of a link. The room drops it when it stops.
struct CloseOnDrop(Arc<Link>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.fill(|outbox| outbox.is_closed = true);
    }
}

impl Link {
    /// Takes what has happened in the room. Does not wait. Who joins and leaves
    /// is never dropped.
    fn push(&self, messages: &[u8]) {
        self.fill(|outbox| {
            let is_text = messages.get(3) == Some(&(Kind::Text as u8));
            if is_text && outbox.messages.len() + messages.len() > MAX_OUTBOX_BYTES {
                outbox.dropped += whole_messages(messages).count() as u64;
            } else {
                outbox.messages.extend_from_slice(messages);
            }
        });
    }

    fn fill(&self, change: impl FnOnce(&mut Outbox)) {
        change(&mut lock(&self.outbox));
        self.filled.notify_all();
    }

    /// Sends what is in the outbox, until the room has stopped.
    fn send_all(&self) {
        let heartbeat = self.options.heartbeat;
        let (mut next_check, mut next_list) = (Instant::now(), Instant::now());
        loop {
            let mut outbox = self.take_outbox(next_check);
            let now = Instant::now();
            let mut state = lock(&self.state);
            let mut wire = if outbox.pong { b"PONG\r\n".to_vec() } else { Vec::new() };
            let mut payloads = state.cluster.happened(&outbox.messages);
            state.cluster.dropped(outbox.dropped);
            if now >= next_check {
                // Sending may have taken so long. More is a suspension.
                let late = (now - next_check).saturating_sub(3 * heartbeat);
                state.cluster.check(now, late);
                wire.extend_from_slice(state.check_connection(now, heartbeat, late));
                next_check = now + heartbeat / 4;
            }
            if now >= next_list {
                outbox.list = outbox.list.max(Some(Content::Members));
                next_list = now + heartbeat;
            }
            if outbox.is_closed {
                payloads.extend(state.cluster.goodbye());
            } else {
                payloads.extend(outbox.list.map(|content| state.cluster.list(content)));
            }
            for payload in &payloads {
                nats::publish(payload, &mut wire);
            }
            if outbox.is_closed {
                wire.extend_from_slice(b"PING\r\n");
            }
            state.tell_room();
            let stream = state.connection.as_ref().map(|(stream, _)| Arc::clone(stream));
            drop(state);
            let is_sent = stream.as_ref().is_some_and(|stream| send(stream, &wire, heartbeat));
            if outbox.is_closed {
                if is_sent {
                    self.wait_for_pong(outbox.pongs);
                }
                lock(&self.state).room = None;
                return;
            }
            if let Some(stream) = stream.filter(|_| !is_sent) {
                // The reader wakes up, and says that the connection is lost.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Waits until there is something to send, or until a moment.
    fn take_outbox(&self, end: Instant) -> Outbox {
        let outbox = lock(&self.outbox);
        let time = end.saturating_duration_since(Instant::now());
        let is_empty = |o: &mut Outbox| {
            o.messages.is_empty() && o.dropped == 0 && o.list.is_none() && !o.pong && !o.is_closed
        };
        let waited = self.filled.wait_timeout_while(outbox, time, is_empty);
        let mut outbox = waited.unwrap_or_else(PoisonError::into_inner).0;
        let (pongs, is_closed) = (outbox.pongs, outbox.is_closed);
        std::mem::replace(&mut *outbox, Outbox { pongs, is_closed, ..Outbox::default() })
    }

    /// Waits for the PONG after so many others.
    fn wait_for_pong(&self, pongs: u64) {
        let outbox = lock(&self.outbox);
        let is_missing = |o: &mut Outbox| o.pongs == pongs;
        drop(self.filled.wait_timeout_while(outbox, LAST_WORDS_TIMEOUT, is_missing));
    }

    /// Connects to NATS and reads from it, again and again. Each outage is told
    /// once, and its end too. A connection that ends within a heartbeat does not
    /// end an outage.
    fn keep_connected(&self) {
        let address = &self.options.address;
        let (mut told_up, mut told_down, mut pause) = (false, false, FIRST_PAUSE);
        loop {
            let mut connected = None;
            let Err(why) = self.converse(|| {
                connected = Some(Instant::now());
                if !std::mem::replace(&mut told_up, true) {
                    let _ = cli::print(&format!("connected to NATS at {address}"));
                }
            });
            lock(&self.state).connection = None;
            if lock(&self.outbox).is_closed {
                return;
            }
            if connected.is_some_and(|at| at.elapsed() >= self.options.heartbeat) {
                (told_up, told_down, pause) = (false, false, FIRST_PAUSE);
            }
            if !std::mem::replace(&mut told_down, true) {
                cli::warn(format_args!(
                    "cannot use NATS at {address}: {why}. The chat goes on here, without the other servers, and NATS is tried again"
                ));
            }
            thread::sleep(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Connects to NATS, and handles all that comes. The error says why the
    /// connection has ended.
    fn converse(&self, mut connected: impl FnMut()) -> Result<Infallible, String> {
        let (_stunnel, stream) = self.connect()?;
        let input = DeadlineReader::new(&stream, CONNECT_TIMEOUT);
        let mut input = BufReader::with_capacity(WRITE_BYTES, input);
        nats::read_info(&mut input, MAX_PAYLOAD_BYTES)?;
        (&*stream).write_all(nats::hello().as_bytes()).map_err(|e| e.to_string())?;
        let (mut payload, mut is_up) = (Vec::new(), false);
        loop {
            let op = nats::read_op(&mut input, &mut payload, MAX_PAYLOAD_BYTES)?;
            let mut state = lock(&self.state);
            if let Some((_, pulse)) = &mut state.connection {
                pulse.touch(Instant::now());
            }
            match op {
                Op::Msg => {
                    if state.receive(&payload) {
                        self.fill(|outbox| outbox.list = outbox.list.max(Some(Content::Members)));
                    }
                }
                Op::Pong if !is_up => {
                    is_up = true;
                    input.get_mut().clear();
                    state.connection = Some((Arc::clone(&stream), Pulse::new(Instant::now())));
                    connected();
                    self.fill(|outbox| outbox.list = Some(Content::Hello));
                }
                Op::Pong => self.fill(|outbox| outbox.pongs += 1),
                Op::Ping => self.fill(|outbox| outbox.pong = true),
                Op::Other => {}
            }
        }
    }

    /// Opens a connection, by TLS if there is an authority.
    fn connect(&self) -> Result<(Option<Stunnel>, Arc<TcpStream>), String> {
        let address = &self.options.address;
        let (stunnel, stream) = if let Some(ca) = &self.options.ca {
            let connected = tls::connect(address, ca).map_err(|why| format!("{why:?}"))?;
            let stream = connected.1.stream().try_clone();
            (Some(connected.0), stream)
        } else {
            let found = address.to_socket_addrs().map_err(|e| e.to_string())?.next();
            let found = found.ok_or("the name has no address")?;
            (None, TcpStream::connect_timeout(&found, CONNECT_TIMEOUT))
        };
        let stream = stream.map_err(|e| match e.kind() {
            io::ErrorKind::ConnectionRefused => {
                "nobody listens there. Start it with `nats-server`".into()
            }
            _ => e.to_string(),
        })?;
        // They fail only for a connection that is gone.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(3 * self.options.heartbeat));
        Ok((stunnel, Arc::new(stream)))
    }
}

impl State {
    /// Handles a payload. Returns whether its sender needs the list of this
    /// server.
    fn receive(&mut self, payload: &[u8]) -> bool {
        let received = self.cluster.receive(payload, Instant::now());
        self.tell_room();
        received.unwrap_or_else(|why| {
            if !std::mem::replace(&mut self.stranger_told, true) {
                cli::warn(format_args!(
                    "something that is not a server of this chat publishes through NATS, and is ignored: {why}"
                ));
            }
            false
        })
    }

    fn tell_room(&mut self) {
        for news in self.cluster.take_news() {
            if let Some(room) = &self.room {
                room.tell(Event::Remote(news));
            }
        }
    }

    /// What asks NATS for a sign of life, if it is silent. Ends the connection
    /// after three heartbeats of silence.
    fn check_connection(
        &mut self,
        now: Instant,
        heartbeat: Duration,
        late: Duration,
    ) -> &'static [u8] {
        let Some((stream, pulse)) = &mut self.connection else { return b"" };
        match pulse.check(now, heartbeat, late) {
            Check::Alive => b"",
            Check::Ping => b"PING\r\n",
            Check::Expired => {
                let _ = stream.shutdown(Shutdown::Both);
                b""
            }
        }
    }
}

/// Sends all of it. Returns false if that fails, or takes three heartbeats.
fn send(mut stream: &TcpStream, wire: &[u8], heartbeat: Duration) -> bool {
    let end = Instant::now() + 3 * heartbeat;
    wire.chunks(WRITE_BYTES).all(|piece| Instant::now() < end && stream.write_all(piece).is_ok())
}

/// Locks, also after a panic elsewhere: each change is complete under its lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
