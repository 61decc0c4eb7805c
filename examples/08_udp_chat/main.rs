//! 08: the same messages without connections: each in a datagram of its own.
//!
//! Terminal 1:  cargo run --example 08_udp_chat
//! Terminal 2:  cargo run --example 08_udp_chat join ann --loss 30
//! Terminal 3:  cargo run --example 08_udp_chat join bob
//!
//! Type some lines in terminal 2. Three of ten are thrown away on purpose:
//! bob reads how many of ann's are lost. `/quit` leaves.
//!
//! New since 07: no connection, so no order, no end, nothing sent again, and
//! anybody can write any address on the back of a datagram.
//! Still missing: browsers (09) and secrets (10).
//!
//! Lesson: lessons/08_udp_chat.md

use socket_chat::chat::client;
use socket_chat::chat::members::{Heartbeat, Names};
use socket_chat::chat::message::{Kind, MAX_DATAGRAM_BODY_BYTES, Message};
use socket_chat::chat::room::{Ending, MAX_CLIENTS};
use socket_chat::cli::{self, Args, Failure};
use socket_chat::line::clean;
use socket_chat::net::tcp;
use socket_chat::stop::Stop;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: 08_udp_chat serve [ADDRESS] [--heartbeat-ms N] [--loss PERCENT]
       08_udp_chat join NAME [ADDRESS] [--loss PERCENT]
  serve             opens a room; this is also what no argument at all means
  join              enters it
  NAME              your name there: up to 32 bytes, no spaces, no commas
  ADDRESS           HOST:PORT of the room, 127.0.0.1:12345 if not given
  --heartbeat-ms N  how long a client may be silent before it is asked whether
                    it is there, 50 to 3600000 ms, 10000 if not given
  --loss PERCENT    throws away that share of what would be sent, 0 to 100";

/// More than any datagram: what is too long must be seen to be too long.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long a server waits after an error of the system. It must not spin.
const RECEIVE_PAUSE: Duration = Duration::from_millis(50);
/// How often a client asks to be let in, and how long it waits each time.
const TRIES: usize = 5;
const TRY_AGAIN: Duration = Duration::from_millis(500);

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    let role = args.role(&["serve", "join"]);
    let loss = Loss::new(args.number("--loss", 0..=100, 0));
    if role == "join" {
        let name = args.word("NAME");
        let address = args.address("127.0.0.1:12345");
        args.finish();
        return join(&name, &address, &Arc::new(loss));
    }
    let heartbeat = args.heartbeat();
    let address = args.address("127.0.0.1:12345");
    args.finish();
    serve(&address, heartbeat, loss)
}

/// Throws away a share of what would be sent, as a bad network does.
struct Loss {
    percent: u64,
    random: RandomState,
    /// How many datagrams there were so far.
    count: AtomicU64,
}

impl Loss {
    fn new(percent: usize) -> Loss {
        Loss { percent: percent as u64, random: RandomState::new(), count: AtomicU64::new(0) }
    }

    /// Whether the next datagram is lost.
    fn hits(&self) -> bool {
        // A keyed hash of 0, 1, 2, ... is as good as a die.
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        self.percent > 0 && self.random.hash_one(count) % 100 < self.percent
    }
}

/// Opens a room, until it is asked to close.
fn serve(address: &str, heartbeat: Duration, loss: Loss) -> Result<(), Failure> {
    let mut stop = Stop::prepare()?;
    let socket = UdpSocket::bind(address).map_err(|e| tcp::cannot_listen(address, &e))?;
    let here = socket.local_addr()?;
    let socket = Arc::new(socket);
    let stopping = Arc::new(AtomicBool::new(false));

    // The room sleeps until a datagram comes. To stop it, one comes from itself.
    let (itself, stopped) = (Arc::clone(&socket), Arc::clone(&stopping));
    let waiting = thread::Builder::new().name("stop".into()).spawn(move || {
        stop.wait();
        stopped.store(true, Ordering::Relaxed);
        // If there is no room for it in the system's buffer, the room is awake.
        let _ = itself.send_to(b"", tcp::reachable(here));
    })?;
    cli::print(&format!("listening on {here}"))?;

    Room::new(socket, heartbeat, loss).run(&stopping);
    let _ = waiting.join();
    Ok(cli::print("bye")?)
}

/// Who is here, by the address that their datagrams come from. One thread, one
/// socket: there are no connections to wait for.
struct Room {
    socket: Arc<UdpSocket>,
    loss: Loss,
    members: HashMap<SocketAddr, Member>,
    names: Names,
    heartbeat: Heartbeat<SocketAddr>,
    /// Makes cookies. Nobody else has it.
    key: RandomState,
}

struct Member {
    name: String,
    heard: Heard,
}

impl Room {
    fn new(socket: Arc<UdpSocket>, heartbeat: Duration, loss: Loss) -> Room {
        let heartbeat = Heartbeat::new(heartbeat);
        let (members, names, key) = Default::default();
        Room { socket, loss, members, names, heartbeat, key }
    }

    fn run(mut self, stopping: &AtomicBool) {
        let mut buffer = vec![0; BUFFER_BYTES];
        while !stopping.load(Ordering::Relaxed) {
            self.set_alarm();
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => self.take(&buffer[..length], from),
                Err(e) if is_no_news(e.kind()) => {}
                Err(e) => {
                    cli::warn(format_args!("cannot receive: {e}"));
                    thread::sleep(RECEIVE_PAUSE);
                }
            }
            let silent = self.heartbeat.look(Instant::now());
            for who in silent.ask {
                self.send(&Message::new(Kind::Ping, "", ""), who);
            }
            for who in silent.dead {
                self.remove(who, Ending::TimedOut);
            }
        }
        let goodbye = Message::new(Kind::Leave, "", "server is shutting down");
        for who in self.members.keys() {
            self.send(&goodbye, *who);
        }
    }

    /// Lets the next wait for a datagram end when the heartbeat is due.
    fn set_alarm(&self) {
        let due = self.heartbeat.next_look();
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        // The system takes no time to wait of zero.
        let _ = self.socket.set_read_timeout(wait.map(|wait| wait.max(Duration::from_millis(1))));
    }

    fn take(&mut self, datagram: &[u8], from: SocketAddr) {
        match Message::from_datagram(datagram) {
            Ok(message) if self.members.contains_key(&from) => {
                self.heartbeat.hear(from, Instant::now());
                self.take_from_member(&message, from);
            }
            Ok(message) => self.take_from_stranger(&message, from),
            Err(why) if self.members.contains_key(&from) => self.refuse(from, &why.to_string()),
            // An answer would go to whoever owns the address, and that may be
            // somebody who never asked.
            Err(_) => {}
        }
    }

    /// The address may be forged. So nothing is remembered, and no answer is
    /// much longer than the question: nobody can aim us at somebody else.
    fn take_from_stranger(&mut self, message: &Message, from: SocketAddr) {
        match message.kind {
            Kind::Join => {
                let cookie = self.cookie(from);
                if message.body == cookie {
                    self.join(message.sender, from);
                } else {
                    self.send(&Message::new(Kind::Challenge, "", &cookie), from);
                }
            }
            Kind::Text => self.refuse(from, "join first"),
            Kind::Ping => self.send(&Message::pong(message), from),
            _ => {}
        }
    }

    /// What only somebody who receives at this address can know: a hash of it,
    /// under a key drawn when we started.
    fn cookie(&self, address: SocketAddr) -> String {
        format!("{:016x}", self.key.hash_one(address))
    }

    fn join(&mut self, name: &str, from: SocketAddr) {
        if self.members.len() >= MAX_CLIENTS {
            return self.refuse(from, &format!("the room is full: the limit is {MAX_CLIENTS}"));
        }
        if let Err(why) = self.names.take(name) {
            return self.refuse(from, &why);
        }
        let member = Member { name: name.to_string(), heard: Heard::default() };
        self.members.insert(from, member);
        self.heartbeat.hear(from, Instant::now());
        self.welcome(name, from);
        self.send_to_others(&Message::new(Kind::Join, name, ""), from);
    }

    fn welcome(&self, name: &str, to: SocketAddr) {
        let here = self.names.list(name, MAX_DATAGRAM_BODY_BYTES);
        self.send(&Message::new(Kind::Welcome, name, &here), to);
    }

    fn take_from_member(&mut self, message: &Message, from: SocketAddr) {
        let Some(member) = self.members.get_mut(&from) else { return };
        let is_new = message.kind == Kind::Text && member.heard.is_new(message.sequence);
        let Some(Member { name, .. }) = self.members.get(&from) else { return };
        match message.kind {
            Kind::Text => {
                let body = clean(message.body.as_bytes());
                if is_new && !body.is_empty() {
                    let text = Message::new(Kind::Text, name, &body);
                    self.send_to_others(&Message { sequence: message.sequence, ..text }, from);
                }
            }
            // Our WELCOME was lost, so it asks again.
            Kind::Join if message.sender == name => self.welcome(name, from),
            Kind::Join => self.refuse(from, &format!("you are here as {name}")),
            Kind::Leave => self.remove(from, Ending::Left),
            Kind::Ping => self.send(&Message::pong(message), from),
            // An answer to an answer would have no end.
            Kind::Pong | Kind::Error => {}
            Kind::Welcome | Kind::Login | Kind::Challenge => {
                self.refuse(from, &format!("kind {} is not for clients", message.kind as u8));
            }
        }
    }

    fn remove(&mut self, who: SocketAddr, ending: Ending) {
        let Some(member) = self.members.remove(&who) else { return };
        self.heartbeat.forget(who);
        self.names.free(&member.name);
        self.send_to_others(&Message::new(Kind::Leave, &member.name, ending.reason()), who);
    }

    fn refuse(&self, to: SocketAddr, why: &str) {
        self.send(&Message::new(Kind::Error, "", why), to);
    }

    fn send(&self, message: &Message, to: SocketAddr) {
        self.send_bytes(&message.to_bytes(), to);
    }

    fn send_to_others(&self, message: &Message, from: SocketAddr) {
        let bytes = message.to_bytes();
        for who in self.members.keys().filter(|who| **who != from) {
            self.send_bytes(&bytes, *who);
        }
    }

    /// Sends one datagram, once. What becomes of it nobody tells us.
    fn send_bytes(&self, bytes: &[u8], to: SocketAddr) {
        if !self.loss.hits() {
            let _ = self.socket.send_to(bytes, to);
        }
    }
}

/// Which of a sender's messages have come: the highest number, and for the 64
/// up to it one bit each.
#[derive(Default)]
struct Heard {
    highest: u32,
    /// Bit `n` stands for the number `highest - n`.
    bits: u64,
}

impl Heard {
    /// Notes a number. False: it has come before, or is too old to be known.
    fn is_new(&mut self, number: u32) -> bool {
        if number > self.highest || self.bits == 0 {
            let step = number.saturating_sub(self.highest);
            self.bits = self.bits.checked_shl(step).unwrap_or(0) | 1;
            self.highest = number;
            return true;
        }
        let bit = 1_u64.checked_shl(self.highest - number).unwrap_or(0);
        let is_new = bit != 0 && self.bits & bit == 0;
        self.bits |= bit;
        is_new
    }
}

/// What says only that no datagram has come. Windows reports a reset when an
/// earlier datagram of ours found nobody.
fn is_no_news(kind: ErrorKind) -> bool {
    use ErrorKind::{ConnectionReset, Interrupted, TimedOut, WouldBlock};
    matches!(kind, WouldBlock | TimedOut | Interrupted | ConnectionReset)
}

/// The client's side: a socket that knows one server.
struct Link {
    socket: UdpSocket,
    loss: Arc<Loss>,
}

/// Chats at `address` as `name`, until one side leaves.
fn join(name: &str, address: &str, loss: &Arc<Loss>) -> Result<(), Failure> {
    let cannot = |e: io::Error| tcp::cannot_connect(address, &e, "08_udp_chat serve");
    let mut entered = Err(ErrorKind::AddrNotAvailable.into());
    // A host's name may stand for several addresses: somebody answers at one.
    for server in address.to_socket_addrs().map_err(cannot)? {
        entered = Link::open(server, Arc::clone(loss)).and_then(|link| link.enter(name));
        if entered.is_ok() {
            break;
        }
    }
    match entered.map_err(cannot)? {
        Some(link) => link.chat(),
        None => Err(Failure::new(format!("{name} was not let in, for the reason above"))),
    }
}

impl Link {
    fn open(server: SocketAddr, loss: Arc<Loss>) -> io::Result<Link> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        // Nothing is sent by this. From now on the system hands over only what
        // comes from that address, and tells when nobody is there (udp(7)).
        socket.connect(server)?;
        Ok(Link { socket, loss })
    }

    /// Asks to be let in, and again if no answer comes. None: it was refused.
    fn enter(self, name: &str) -> io::Result<Option<Link>> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut cookie = String::new();
        let mut tries = 0;
        while tries < TRIES {
            tries += 1;
            self.send(&Message::new(Kind::Join, name, &cookie));
            let end = Instant::now() + TRY_AGAIN;
            loop {
                let message = match self.receive(&mut buffer, Some(end)) {
                    Ok(message) => message,
                    Err(e) if e.kind() == ErrorKind::InvalidData => continue,
                    Err(e) if is_no_news(e.kind()) => break,
                    Err(e) => return Err(e),
                };
                if let (Kind::Welcome | Kind::Error, Some(line)) =
                    (message.kind, client::shown(&message))
                {
                    cli::print(&line)?;
                    return Ok(Some(self).filter(|_| message.kind == Kind::Welcome));
                }
                // It wants to know that this is really our address.
                if message.kind == Kind::Challenge && message.body != cookie {
                    cookie = message.body.to_string();
                    tries = 0;
                    break;
                }
            }
        }
        Err(io::Error::new(ErrorKind::TimedOut, "no answer"))
    }

    /// Two threads: whichever ends first ends the chat. Nobody joins the other
    /// one, which may wait for the keyboard or for the network.
    fn chat(self) -> Result<(), Failure> {
        let link = Arc::new(self);
        let (typing, ended) = mpsc::channel();
        let (listening, sender) = (typing.clone(), Arc::clone(&link));
        thread::Builder::new().name("typing".into()).spawn(move || {
            let end = if client::typed(MAX_DATAGRAM_BODY_BYTES, |text| sender.send(text)) {
                sender.send(&Message::new(Kind::Leave, "", ""));
                Ok(())
            } else {
                Err(Failure::new("the server is gone: nobody listens there any more"))
            };
            typing.send(end)
        })?;
        thread::Builder::new()
            .name("listening".into())
            .spawn(move || listening.send(link.listen()))?;
        ended.recv().unwrap_or_else(|_| Err(Failure::new("a thread has panicked")))
    }

    /// Shows what comes, until the server says goodbye.
    fn listen(&self) -> Result<(), Failure> {
        let mut buffer = vec![0; BUFFER_BYTES];
        // The highest number of each sender.
        let mut highest: HashMap<String, u32> = HashMap::new();
        loop {
            let message = match self.receive(&mut buffer, None) {
                Ok(message) => message,
                Err(e) if e.kind() == ErrorKind::InvalidData || is_no_news(e.kind()) => continue,
                Err(e) => return Err(tcp::lost(&e)),
            };
            match message.kind {
                Kind::Ping => drop(self.send(&Message::pong(&message))),
                Kind::Text => {
                    let number = message.sequence;
                    // The first message of a sender starts the count.
                    let last = highest.entry(message.sender.into()).or_insert(number);
                    let lost = number.saturating_sub(*last).saturating_sub(1);
                    *last = number.max(*last);
                    if lost > 0 {
                        let what = if lost == 1 { "message" } else { "messages" };
                        let who = clean(message.sender.as_bytes());
                        cli::print(&format!("* {lost} {what} from {who} lost"))?;
                    }
                }
                // Who comes back counts from 1 again.
                Kind::Join | Kind::Leave => drop(highest.remove(message.sender)),
                _ => {}
            }
            if highest.len() > MAX_CLIENTS {
                // This server makes up names. It won't fill our memory.
                highest.clear();
            }
            if let Some(line) = client::shown(&message) {
                cli::print(&line)?;
            }
            if message.kind == Kind::Leave && message.sender.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends one datagram. False: the last one found nobody.
    fn send(&self, message: &Message) -> bool {
        self.loss.hits()
            || !matches!(self.socket.send(&message.to_bytes()), Err(e) if e.kind() == ErrorKind::ConnectionRefused)
    }

    /// Waits for the next datagram from the server, but not past `end`.
    fn receive<'a>(&self, buffer: &'a mut [u8], end: Option<Instant>) -> io::Result<Message<'a>> {
        let wait = end.map(|end| end.saturating_duration_since(Instant::now()));
        if wait.is_some_and(|wait| wait.is_zero()) {
            return Err(ErrorKind::TimedOut.into());
        }
        self.socket.set_read_timeout(wait)?;
        let length = self.socket.recv(buffer)?;
        Ok(Message::from_datagram(&buffer[..length])?)
    }
}
