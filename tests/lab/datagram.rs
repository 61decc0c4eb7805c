//! Talking in datagrams: what the grading of step 08 needs. A datagram arrives
//! whole or not at all, and there are no connections.

use super::inbox::{Event, Inbox, Next};
use super::message::{self, CHALLENGE, LEAVE, Message, PING, PONG, TEXT};
use super::message::{JOIN, join, ping, pong, text, welcome};
use super::program::Program;
use super::receiver::Receiver;
use super::story::{Story, quote};
use super::{patience, system};
use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The longest datagram of the chat.
const DATAGRAM_BYTES: usize = 1200;
/// What is left of it for the body of a message, with the longest name.
pub const BODY_BYTES: usize = 1148;

/// What [`OnPing::Text`] says.
const STILL_HERE: &[u8] = b"still here";

/// What somebody does when the other side sends PING.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnPing {
    /// Answers at once, whatever the test does.
    #[default]
    Pong,
    /// Answers with a PING of its own, a sign of life like any other, and does
    /// not hear PONGs.
    Ping,
    /// Answers with a TEXT, which no UDP peer receives.
    Text,
    /// Says nothing.
    Silent,
}

#[derive(Default)]
struct State {
    /// Where it writes to, and from where it receives; for a client's server
    /// only known when the client has written.
    to: Option<SocketAddr>,
    /// How many PINGs have come.
    pings: usize,
    pinged: OnPing,
    over: bool,
}

/// Somebody with a UDP socket. A thread of its own reads it all the time, and
/// answers PINGs: no buffer runs over, and no program waits for the test.
pub struct UdpPeer {
    receiving: Receiver,
    me: String,
    other: String,
    address: SocketAddr,
    socket: Arc<UdpSocket>,
    state: Arc<Mutex<State>>,
    reader: Option<JoinHandle<()>>,
    /// The cookie of the last CHALLENGE.
    pub cookie: RefCell<Vec<u8>>,
}

impl Deref for UdpPeer {
    type Target = Receiver;

    fn deref(&self) -> &Receiver {
        &self.receiving
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UdpPeer {
    fn open(story: &Rc<Story>, me: &str, other: &str, at: SocketAddr) -> Option<UdpPeer> {
        let socket = Arc::new(UdpSocket::bind(at).ok()?);
        let address = socket.local_addr().unwrap();
        let (inbox, state) = (Inbox::default(), Arc::<Mutex<State>>::default());
        let reader = thread::spawn({
            let (socket, inbox, state) = (Arc::clone(&socket), inbox.clone(), Arc::clone(&state));
            move || read(&socket, &inbox, &state)
        });
        Some(UdpPeer {
            receiving: Receiver::new(story, format!("{other} --> {me}"), inbox, false),
            me: me.to_string(),
            other: other.to_string(),
            address,
            socket,
            state,
            reader: Some(reader),
            cookie: RefCell::default(),
        })
    }

    /// Where the test is the server, for the client of `name`.
    pub fn mock_server(story: &Rc<Story>, host: &str, name: &str) -> UdpPeer {
        let at = SocketAddr::new(host.parse().unwrap(), 0);
        let mut mock_server = UdpPeer::open(story, "server", name, at).unwrap();
        mock_server.receiving.cookies = true;
        mock_server
    }

    /// Somebody else who writes to the same program.
    pub fn stranger(&self, me: &str) -> UdpPeer {
        let at = SocketAddr::new(self.address.ip(), 0);
        let stranger = UdpPeer::open(&self.story, me, &self.other, at).unwrap();
        lock(&stranger.state).to = lock(&self.state).to;
        stranger
    }

    /// Its own address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it writes to this server, and receives from it.
    pub fn turns_to(&self, server: &Program) {
        self.story.step(&self.me, format!("writes to the server at {} now", server.address));
        lock(&self.state).to = Some(server.address);
    }

    /// Is gone without a word: what is sent to it meets nobody, and the system
    /// tells the sender so. The port is kept, so that nobody else can get it.
    pub fn vanishes(&self) {
        self.story.step(&self.me, "is gone without a word: nobody reads at its port now");
        // A connected socket takes only what comes from there: from itself.
        self.socket.connect(self.address).unwrap();
    }

    /// From now on, PINGs are answered so.
    pub fn when_pinged(&self, pinged: OnPing) {
        lock(&self.state).pinged = pinged;
    }

    /// How many PINGs have come so far.
    pub fn pings(&self) -> usize {
        lock(&self.state).pings
    }

    /// How many other datagrams have come and were not looked at.
    pub fn unread(&self) -> usize {
        self.inbox.unread()
    }

    /// Sends a message, alone in its datagram.
    #[track_caller]
    pub fn say(&self, message: &Message) {
        self.sends(message.told(), &message.bytes());
    }

    /// Sends a datagram, told as `what`.
    #[track_caller]
    pub fn sends(&self, what: impl Into<String>, bytes: &[u8]) {
        self.story.step(format!("{} --> {}", self.me, self.other), what);
        self.send_datagram(bytes);
    }

    fn send_datagram(&self, bytes: &[u8]) {
        let to = lock(&self.state).to;
        // Where nobody is, nothing arrives: what is missing is told then.
        let _ = self.socket.send_to(bytes, to.expect("somebody has written"));
    }

    /// The next messages must be these, in any order; returns when the one came
    /// that is named first.
    #[track_caller]
    pub fn gets_all(&self, expected: &[Message]) -> Instant {
        let mut missing: Vec<&Message> = expected.iter().collect();
        let mut first_came = Instant::now();
        while let Some(first) = missing.first() {
            let (came, when) = self.message_and_time(&first.told());
            let same = |m: &&Message| (m.kind, &m.sender) == (came.kind, &came.sender);
            let at = missing.iter().position(same).unwrap_or(0);
            self.compare(missing[at], &came);
            if missing.remove(at) == &expected[0] {
                first_came = when;
            }
        }
        first_came
    }

    /// Asks with a body that must not be taken for its cookie. The one that
    /// CHALLENGE brings is kept.
    #[track_caller]
    pub fn asks_with(&self, name: &str, body: &[u8]) -> Message {
        self.say(&message::message(JOIN, name, body));
        let expected = "CHALLENGE \"a cookie\"";
        let came = self.gets_kind(CHALLENGE, expected);
        if came.body.is_empty() {
            self.story.differs(&self.who, expected, &came.told());
        }
        self.cookie.replace(came.body.clone());
        came
    }

    /// Asks for a cookie.
    #[track_caller]
    pub fn asks(&self, name: &str) {
        self.asks_with(name, b"");
    }

    /// Asks for `name`, with the cookie that it has.
    #[track_caller]
    pub fn asks_again(&self, name: &str) {
        self.say(&message::message(JOIN, name, &*self.cookie.borrow()));
    }

    /// Joins under `name`, where then these are `here`.
    #[track_caller]
    pub fn joins(&self, name: &str, here: &str) {
        let expected = welcome(name, here);
        self.say(&join(name));
        let first = format!("CHALLENGE with a cookie, and then {}", expected.told());
        let (mut came, _) = self.message_and_time(&first);
        // A server that asks for no cookie is told so by another test.
        if came.kind == CHALLENGE {
            self.ok(&came.told());
            self.cookie.replace(came.body);
            self.asks_again(name);
            came = self.message_and_time(&expected.told()).0;
        }
        self.compare(&expected, &came);
    }

    /// Nothing has come for it: what comes next is the answer to its PING. (Its
    /// number is a rule of its own.)
    #[track_caller]
    pub fn gets_nothing_else(&self) {
        self.say(&ping(7));
        self.gets_kind(PONG, "PONG 7, and nothing before it");
    }

    /// The next message, skipping LEAVE, must be this one: for a member that has just
    /// left, or was thought to be gone.
    #[track_caller]
    pub fn gets_after_leaving(&self, expected: &Message) {
        loop {
            let (came, _) = self.message_and_time(&expected.told());
            if came.kind != LEAVE {
                return self.compare(expected, &came);
            }
        }
    }

    /// Sends that many PINGs, and then others until one of those is answered;
    /// returns how many of the first were.
    #[track_caller]
    pub fn counts_pongs(&self, count: u32) -> usize {
        self.story.step(format!("{} --> {}", self.me, self.other), format!("{count} PINGs"));
        // Numbers that were not used before.
        let base = u32::try_from(self.story.number(1 << 20)).unwrap() << 10;
        for number in 0..count {
            self.send_datagram(&ping(base + number).bytes());
        }
        let (mut answered, mut next) = (0, base + count);
        let until = Instant::now() + patience();
        while Instant::now() < until {
            self.send_datagram(&ping(next).bytes());
            next += 1;
            while self.inbox.comes_within(Duration::from_millis(100)) {
                let came = self.gets_kind(PONG, "PONG");
                if (base..base + count).contains(&came.sequence) {
                    answered += 1;
                } else if (base + count..next).contains(&came.sequence) {
                    self.story.step(&self.who, format!("{answered} PONGs"));
                    return answered;
                }
            }
        }
        self.fails("PONGs", &format!("{answered}, and then none for {} s", patience().as_secs()))
    }

    /// Waits for a client that has just been started, or asks again: it must
    /// ask for `name`.
    #[track_caller]
    pub fn is_asked(&self, name: &str) {
        // Some programs take their time to start.
        self.inbox.comes_within(patience() * 2);
        self.gets_next(&join(name));
    }

    /// Lets a client in as the contract says.
    #[track_caller]
    pub fn admits(&self, name: &str, here: &str) {
        self.is_asked(name);
        let cookie = self.story.word();
        self.say(&message::message(CHALLENGE, "", &cookie));
        self.gets_next(&message::message(JOIN, name, &cookie));
        self.say(&welcome(name, here).at(message::now()));
    }

    /// The JOINs that have come so far, their bodies and when, but for those that
    /// were looked at. A client that has given up may say LEAVE.
    #[track_caller]
    pub fn joins_left(&self, name: &str) -> Vec<(Vec<u8>, Instant)> {
        let mut joins = Vec::new();
        while let Next::Some((came, when)) = self.inbox.event_within(Duration::ZERO, false) {
            match came {
                Event::Message(m) if m.kind == LEAVE => {}
                Event::Message(m) if m.kind == JOIN && m.sender == name.as_bytes() => {
                    self.ok(&m.told());
                    joins.push((m.body, when));
                }
                other => self.story.differs(&self.who, &join(name).told(), &other.told()),
            }
        }
        joins
    }
}

impl Drop for UdpPeer {
    fn drop(&mut self) {
        // The reader wakes up, and with it the last hold on the socket is gone.
        lock(&self.state).over = true;
        if self.socket.send_to(b"", self.address).is_err() {
            let _ = self.socket.send(b"");
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// A datagram must be one message.
fn decode(bytes: &[u8]) -> Event {
    let why = match Message::parse(bytes) {
        Ok(Some((_, size))) if size < bytes.len() => {
            format!("{} bytes come after the message in its datagram", bytes.len() - size)
        }
        Ok(Some(_)) if bytes.len() > DATAGRAM_BYTES => {
            format!("a datagram has at most {DATAGRAM_BYTES} bytes, this one {}", bytes.len())
        }
        Ok(Some((came, _))) if came.body.len() > BODY_BYTES => {
            format!("a body has at most {BODY_BYTES} bytes, this one {}", came.body.len())
        }
        Ok(Some((came, _))) => return Event::Message(came),
        Ok(None) => format!("{} bytes are too few for a message", bytes.len()),
        Err(why) => why,
    };
    Event::Invalid(format!("what is no message: {why}\n{}", message::fields(bytes)))
}

/// Collects what comes, until the UDP peer is closed.
fn read(socket: &UdpSocket, inbox: &Inbox, state: &Mutex<State>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let came = socket.recv_from(&mut buffer);
        let mut state = lock(state);
        if state.over {
            return;
        }
        // Some systems tell here that nobody got what was sent.
        let Ok((size, from)) = came else { continue };
        let bytes = &buffer[..size];
        if *state.to.get_or_insert(from) != from {
            // A port that was just closed may be another's now, so this is no
            // mistake by itself.
            inbox.strays(format!("{} from another address, {from}", quote(bytes)));
            continue;
        }
        match decode(bytes) {
            Event::Message(came) if came.kind == PING => {
                state.pings += 1;
                let answer = match state.pinged {
                    OnPing::Pong => pong(came.sequence),
                    OnPing::Ping => ping(1),
                    OnPing::Text => text(u32::try_from(state.pings).unwrap_or(0), STILL_HERE),
                    OnPing::Silent => continue,
                };
                let _ = socket.send_to(&answer.at(message::now()).bytes(), from);
            }
            Event::Message(came) if came.kind == PONG && state.pinged == OnPing::Ping => {}
            Event::Message(came) if came.kind == TEXT && came.body == STILL_HERE => {}
            event => inbox.push(event),
        }
    }
}

impl Program {
    /// Somebody who is about to write to this server.
    pub fn udp_peer(&self, name: &str) -> UdpPeer {
        let at = SocketAddr::new(self.address.ip(), 0);
        self.udp_peer_at(name, at).unwrap()
    }

    /// The same, from this address, if the machine has it and it is free.
    pub fn udp_peer_at(&self, name: &str, at: SocketAddr) -> Option<UdpPeer> {
        let udp_peer = UdpPeer::open(&self.story, name, "server", at)?;
        lock(&udp_peer.state).to = Some(self.address);
        Some(udp_peer)
    }

    /// Joins this room of datagrams under `name`, where then these are `here`.
    #[track_caller]
    pub fn enter(&self, name: &str, here: &str) -> UdpPeer {
        let udp_peer = self.udp_peer(name);
        udp_peer.joins(name, here);
        udp_peer
    }

    /// Fills an empty room: each has heard that the others joined. Names in the
    /// order of their bytes, please.
    #[track_caller]
    pub fn enter_all<const N: usize>(&self, names: [&str; N]) -> [UdpPeer; N] {
        let mut all: Vec<UdpPeer> = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let udp_peer = self.enter(name, &names[..=i].join(", "));
            for other in &all {
                other.gets_next(&join(name));
            }
            all.push(udp_peer);
        }
        all.try_into().unwrap_or_else(|_| unreachable!())
    }
}

/// The loopback address of another computer, as it were: Linux has many.
pub fn another_loopback() -> IpAddr {
    IpAddr::from([127, 0, 0, 2])
}

/// Waits until the program has read all that was sent to this port, as
/// [`drained`](super::drained) does for TCP.
pub fn emptied(port: u16) {
    if !cfg!(target_os = "linux") {
        thread::park_timeout(Duration::from_millis(50));
        return;
    }
    let table = |name| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    system::poll(|| {
        let rows = table("udp") + &table("udp6");
        !rows.lines().any(|row| {
            let fields: Vec<&str> = row.split_whitespace().collect();
            let hex = |at: usize| {
                let last = fields.get(at).and_then(|f| f.rsplit(':').next());
                last.and_then(|f| u32::from_str_radix(f, 16).ok())
            };
            hex(1) == Some(port.into()) && hex(4).is_some_and(|waiting| waiting > 0)
        })
    });
}
