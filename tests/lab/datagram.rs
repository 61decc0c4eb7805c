//! Talking in datagrams: what the grading of step 08 needs. A datagram arrives
//! whole or not at all, and there are no connections.

use super::message::{self, CHALLENGE, ERROR, JOIN, LEAVE, Message, PING, PONG, TEXT, WELCOME};
use super::message::{join, ping, pong, text, welcome};
use super::program::Program;
use super::story::{Story, quote};
use super::{patience, system};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The longest datagram of the chat.
const DATAGRAM_BYTES: usize = 1200;
/// What is left of it for the body of a message, with the longest name.
pub const BODY_BYTES: usize = 1148;

/// What [`Pinged::Text`] says.
const STILL_HERE: &[u8] = b"still here";

/// What somebody does when the other side sends PING.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pinged {
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

/// A datagram that came.
struct Datagram {
    from: SocketAddr,
    bytes: Vec<u8>,
    when: Instant,
}

#[derive(Default)]
struct State {
    /// Whom it writes to, and listens to; of a client only known when it has
    /// written.
    to: Option<SocketAddr>,
    datagrams: VecDeque<Datagram>,
    /// From somebody else. A port that was just closed may be another's now,
    /// so this is no mistake by itself.
    astray: Option<Datagram>,
    /// How many PINGs have come.
    pings: usize,
    pinged: Pinged,
    over: bool,
}

#[derive(Default)]
struct Inbox(Mutex<State>, Condvar);

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody with a UDP socket. A thread of its own reads it all the time, and
/// answers PINGs: no buffer runs over, and nobody waits for the test.
pub struct UdpPeer {
    story: Rc<Story>,
    me: String,
    other: String,
    /// Whether the test is the server here.
    serves: bool,
    address: SocketAddr,
    socket: Arc<UdpSocket>,
    inbox: Arc<Inbox>,
    reader: Option<JoinHandle<()>>,
    /// The cookie of the last CHALLENGE.
    pub cookie: RefCell<Vec<u8>>,
    /// JOINs that a client has sent. It may send them again.
    asked: RefCell<Vec<Message>>,
}

impl UdpPeer {
    fn open(story: &Rc<Story>, me: &str, other: &str, at: SocketAddr) -> Option<UdpPeer> {
        let socket = Arc::new(UdpSocket::bind(at).ok()?);
        let address = socket.local_addr().unwrap();
        let inbox = Arc::<Inbox>::default();
        let reader = thread::spawn({
            let (socket, inbox) = (Arc::clone(&socket), Arc::clone(&inbox));
            move || read(&socket, &inbox)
        });
        Some(UdpPeer {
            story: Rc::clone(story),
            me: me.to_string(),
            other: other.to_string(),
            serves: false,
            address,
            socket,
            inbox,
            reader: Some(reader),
            cookie: RefCell::default(),
            asked: RefCell::default(),
        })
    }

    /// Where the test is the server, for the client of `name`.
    pub fn mock_server(story: &Rc<Story>, host: &str, name: &str) -> UdpPeer {
        let at = SocketAddr::new(host.parse().unwrap(), 0);
        let mut mock_server = UdpPeer::open(story, "server", name, at).unwrap();
        mock_server.serves = true;
        mock_server
    }

    /// Somebody else who writes to the same program.
    pub fn stranger(&self, me: &str) -> UdpPeer {
        let at = SocketAddr::new(self.address.ip(), 0);
        let stranger = UdpPeer::open(&self.story, me, &self.other, at).unwrap();
        stranger.inbox.state().to = self.inbox.state().to;
        stranger
    }

    /// Its own address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it writes to this server, and listens to it.
    pub fn turns_to(&self, server: &Program) {
        self.story.step(&self.me, format!("writes to the server at {} now", server.address));
        self.inbox.state().to = Some(server.address);
    }

    /// Is gone without a word: what is sent to it meets nobody, and the system
    /// tells the sender so. The port is kept, so that nobody else can get it.
    pub fn vanishes(&self) {
        self.story.step(&self.me, "is gone without a word: nobody reads at its port now");
        // A connected socket takes only what comes from there: from itself.
        self.socket.connect(self.address).unwrap();
    }

    /// From now on, PINGs are answered so.
    pub fn when_pinged(&self, pinged: Pinged) {
        self.inbox.state().pinged = pinged;
    }

    /// How many PINGs have come so far.
    pub fn pings(&self) -> usize {
        self.inbox.state().pings
    }

    /// How many other datagrams have come and were not looked at.
    pub fn unread(&self) -> usize {
        self.inbox.state().datagrams.len()
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
        self.throw(bytes);
    }

    fn throw(&self, bytes: &[u8]) {
        let to = self.inbox.state().to;
        // Where nobody is, nothing arrives: what is missing is told then.
        let _ = self.socket.send_to(bytes, to.expect("somebody has written"));
    }

    /// The next message must be this one.
    #[track_caller]
    pub fn gets(&self, expected: &Message) -> Message {
        let (came, _) = self.message(&expected.told());
        self.compare(expected, &came);
        came
    }

    /// The next messages must be these, in any order; returns when each came.
    #[track_caller]
    pub fn gets_all(&self, expected: &[Message]) -> Vec<Instant> {
        let mut missing: Vec<&Message> = expected.iter().collect();
        let mut times = vec![Instant::now(); expected.len()];
        while let Some(first) = missing.first() {
            let (came, when) = self.message(&first.told());
            match missing.iter().position(|m| m.told() == came.told()) {
                Some(at) => {
                    self.came(&came);
                    let expected = expected.iter().zip(&mut times).find(|(m, _)| *m == missing[at]);
                    *expected.unwrap().1 = when;
                    missing.remove(at);
                }
                None => self.compare(first, &came),
            }
        }
        times
    }

    /// The next message must be an ERROR. Its words are free, but there must be
    /// some.
    #[track_caller]
    pub fn gets_error(&self, about: &str) -> String {
        let expected = format!("ERROR \"...\", {about}");
        let (came, _) = self.message(&expected);
        if came.kind != ERROR || came.body.is_empty() {
            self.story.differs(&self.who(), &expected, &came.told());
        }
        self.came(&came);
        String::from_utf8_lossy(&came.body).into_owned()
    }

    /// Asks with a body that must not be taken for its cookie. The one that
    /// CHALLENGE brings is kept.
    #[track_caller]
    pub fn asks_with(&self, name: &str, body: &[u8]) -> Message {
        self.say(&message::message(JOIN, name, body));
        let expected = "CHALLENGE \"a cookie\"";
        let (came, _) = self.message(expected);
        if came.kind != CHALLENGE || came.body.is_empty() {
            self.story.differs(&self.who(), expected, &came.told());
        }
        self.came(&came);
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
        let (mut came, _) = self.message(&first);
        // A server that asks for no cookie is told so by another test.
        if came.kind == CHALLENGE {
            self.came(&came);
            self.cookie.replace(came.body);
            self.asks_again(name);
            came = self.message(&expected.told()).0;
        }
        self.compare(&expected, &came);
    }

    /// Nothing has come for it: what comes next is the answer to its PING. (Its
    /// number is a rule of its own.)
    #[track_caller]
    pub fn hears_nothing_else(&self) {
        let expected = "PONG 7, and nothing before it";
        self.say(&ping(7));
        let (came, _) = self.message(expected);
        if came.kind != PONG {
            self.story.differs(&self.who(), expected, &came.told());
        }
        self.came(&came);
    }

    /// The next message, skipping LEAVE, must be this one: for a member that has just
    /// left, or was thought to be gone.
    #[track_caller]
    pub fn gets_after_leaving(&self, expected: &Message) {
        loop {
            let (came, _) = self.message(&expected.told());
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
            self.throw(&ping(base + number).bytes());
        }
        let (mut answered, mut next) = (0, base + count);
        let until = Instant::now() + patience();
        while Instant::now() < until {
            self.throw(&ping(next).bytes());
            next += 1;
            while let Some(datagram) = self.next(Duration::from_millis(100)) {
                let (came, _) = self.check(&datagram, "PONG");
                if came.kind != PONG {
                    self.story.differs(&self.who(), "PONG", &came.told());
                }
                if (base..base + count).contains(&came.sequence) {
                    answered += 1;
                } else if (base + count..next).contains(&came.sequence) {
                    self.story.step(self.who(), format!("{answered} PONGs"));
                    return answered;
                }
            }
        }
        let came = format!("{answered}, and then none for {} s", patience().as_secs());
        self.story.fails(&self.who(), "PONGs", &came)
    }

    /// The next message must be a WELCOME.
    #[track_caller]
    pub fn gets_welcome(&self) -> Message {
        let (came, _) = self.message("WELCOME");
        if came.kind != WELCOME {
            self.story.differs(&self.who(), "WELCOME", &came.told());
        }
        self.came(&came);
        came
    }

    /// Waits for a client that has just been started, or asks again: it must
    /// ask for `name`.
    #[track_caller]
    pub fn is_asked(&self, name: &str) {
        // Some programs take their time to start.
        let none = |state: &mut State| state.datagrams.is_empty();
        drop(self.inbox.1.wait_timeout_while(self.inbox.state(), patience() * 2, none));
        self.gets(&join(name));
    }

    /// Lets a client in as the contract says.
    #[track_caller]
    pub fn admits(&self, name: &str, here: &str) {
        self.is_asked(name);
        let cookie = self.story.word();
        self.say(&message::message(CHALLENGE, "", &cookie));
        self.gets(&message::message(JOIN, name, &cookie));
        self.say(&welcome(name, here).at(message::now()));
    }

    /// The JOINs that have come so far, their bodies and when, but for those that
    /// were looked at. A client that has given up may say LEAVE.
    #[track_caller]
    pub fn joins_left(&self, name: &str) -> Vec<(Vec<u8>, Instant)> {
        let mut joins = Vec::new();
        while let Some(datagram) = self.next(Duration::ZERO) {
            let (came, when) = self.check(&datagram, &join(name).told());
            if came.kind == LEAVE {
                continue;
            }
            self.came(&came);
            if came.kind != JOIN || came.sender != name.as_bytes() {
                self.story.differs(&self.who(), &join(name).told(), &came.told());
            }
            joins.push((came.body, when));
        }
        joins
    }

    fn who(&self) -> String {
        format!("{} --> {}", self.other, self.me)
    }

    fn came(&self, came: &Message) {
        self.story.step(self.who(), format!("{} ok", self.bare(came).told()));
    }

    /// Takes the next datagram, if one comes in time.
    fn next(&self, time: Duration) -> Option<Datagram> {
        let state = self.inbox.state();
        let none = |state: &mut State| state.datagrams.is_empty();
        let waited = self.inbox.1.wait_timeout_while(state, time, none);
        waited.unwrap_or_else(PoisonError::into_inner).0.datagrams.pop_front()
    }

    /// Waits for a message, and when it came.
    #[track_caller]
    fn message(&self, expected: &str) -> (Message, Instant) {
        loop {
            let Some(datagram) = self.next(patience()) else {
                let mut came = format!("nothing for {} s", patience().as_secs());
                if let Some(datagram) = self.inbox.state().astray.take() {
                    let bytes = quote(&datagram.bytes);
                    came += &format!(", but {bytes} from another address, {}", datagram.from);
                }
                self.story.fails(&self.who(), expected, &came)
            };
            let (came, when) = self.check(&datagram, expected);
            let again = self.asked.borrow().iter().any(|m| m.told() == came.told());
            if !again || expected == came.told() {
                if self.serves && came.kind == JOIN {
                    self.asked.borrow_mut().push(came.clone());
                }
                return (came, when);
            }
            // It was underway before the answer was.
            self.story.step(self.who(), format!("{} (again)", came.told()));
        }
    }

    /// A datagram must be one message.
    #[track_caller]
    fn check(&self, datagram: &Datagram, expected: &str) -> (Message, Instant) {
        let bytes = &datagram.bytes;
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
            Ok(Some((came, _))) => return (came, datagram.when),
            Ok(None) => format!("{} bytes are too few for a message", bytes.len()),
            Err(why) => why,
        };
        let why = format!("what is no message: {why}\n{}", message::fields(bytes));
        self.story.fails(&self.who(), expected, &why)
    }

    /// Its time must be now, by a clock that may be a bit wrong.
    #[track_caller]
    pub fn expect_now(&self, came: &Message) {
        let (now, then) = (message::now(), came.timestamp);
        if now.abs_diff(then) > 5 * 60 * 1000 {
            self.story.fails(
                &self.who(),
                &format!("the server's own timestamp, in milliseconds: about {now}"),
                &format!("{}, its timestamp is {then}", came.told()),
            );
        }
    }

    /// A message without what is free.
    fn bare(&self, message: &Message) -> Message {
        let mut bare = message.clone();
        if !matches!(bare.kind, TEXT | PING | PONG) {
            bare.sequence = 0;
        }
        // The contract gives these fields no meaning in these kinds.
        if matches!(bare.kind, ERROR | PING | PONG | CHALLENGE) {
            bare.sender.clear();
        }
        if matches!(bare.kind, PING | PONG) {
            bare.body.clear();
        }
        // What a client puts there is not believed, or not read.
        if self.serves && bare.kind != JOIN {
            bare.sender.clear();
            if bare.kind != TEXT {
                bare.body.clear();
            }
        }
        bare
    }

    #[track_caller]
    fn compare(&self, expected: &Message, came: &Message) {
        let (expected, came) = (self.bare(expected), self.bare(came));
        let bodiless = |m: &Message| Message { body: Vec::new(), ..m.clone() }.told();
        let long = expected.body.len().max(came.body.len()) > 60;
        // Of a long body what differs may not be shown otherwise.
        if bodiless(&expected) == bodiless(&came) && long && expected.body != came.body {
            self.story.mismatch_in(&self.who(), &came.told(), &expected.body, &came.body);
        }
        if expected.told() != came.told() {
            if let Some(why) = message::why_differs(&expected, &came) {
                self.story.because(why);
            }
            self.story.differs(&self.who(), &expected.told(), &came.told());
        }
        self.came(&came);
    }
}

impl Drop for UdpPeer {
    fn drop(&mut self) {
        // The reader wakes up, and with it the last hold on the socket is gone.
        self.inbox.state().over = true;
        if self.socket.send_to(b"", self.address).is_err() {
            let _ = self.socket.send(b"");
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Collects what comes, until the UDP peer is closed.
fn read(socket: &UdpSocket, inbox: &Inbox) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let came = socket.recv_from(&mut buffer);
        let mut state = inbox.state();
        if state.over {
            return;
        }
        // Some systems tell here that nobody got what was sent.
        let Ok((size, from)) = came else { continue };
        let bytes = buffer[..size].to_vec();
        if *state.to.get_or_insert(from) != from {
            state.astray = Some(Datagram { from, bytes, when: Instant::now() });
            continue;
        }
        match Message::parse(&bytes) {
            Ok(Some((came, end))) if came.kind == PING && end == size => {
                state.pings += 1;
                let answer = match state.pinged {
                    Pinged::Pong => Some(pong(came.sequence)),
                    Pinged::Ping => Some(ping(1)),
                    Pinged::Text => {
                        let number = u32::try_from(state.pings).unwrap_or(0);
                        Some(text(number, STILL_HERE))
                    }
                    Pinged::Silent => None,
                };
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer.at(message::now()).bytes(), from);
                }
            }
            Ok(Some((came, _))) if came.kind == PONG && state.pinged == Pinged::Ping => {}
            Ok(Some((came, _))) if came.kind == TEXT && came.body == STILL_HERE => {}
            _ => state.datagrams.push_back(Datagram { from, bytes, when: Instant::now() }),
        }
        inbox.1.notify_all();
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
        udp_peer.inbox.state().to = Some(self.address);
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
                other.gets(&join(name));
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
