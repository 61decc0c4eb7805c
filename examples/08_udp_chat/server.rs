//! The server: one thread and one socket for all. It knows a client by the
//! address and port that its datagrams come from.

use crate::replay_window::ReplayWindow;
use crate::{BUFFER_BYTES, Loss, is_transient};
use socket_chat::chat::heartbeat::{Check, Pulse};
use socket_chat::chat::message::{Kind, MAX_DATAGRAM_BODY_BYTES, Message};
use socket_chat::chat::names::Names;
use socket_chat::chat::room::MAX_CLIENTS;
use socket_chat::chat::room_handle::DisconnectReason;
use socket_chat::cli::{self, Failure};
use socket_chat::line::clean;
use socket_chat::net::tcp;
use socket_chat::stop::Stop;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long the server waits after an error of the system. Without a pause it
/// could use up a processor with errors.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Opens a room, and serves it until the program is asked to stop. `heartbeat`
/// is how long a member may be silent before it gets a PING.
pub fn serve(address: &str, heartbeat: Duration, loss: Loss) -> Result<(), Failure> {
    let mut stop = Stop::prepare()?;
    let socket = UdpSocket::bind(address).map_err(|e| tcp::bind_error(address, &e))?;
    let own_address = socket.local_addr()?;
    let socket = Arc::new(socket);
    let stopping = Arc::new(AtomicBool::new(false));

    // The room's thread waits for a datagram. So the thread that waits for the
    // end sends it one, which is empty.
    let (waker, asked_to_stop) = (Arc::clone(&socket), Arc::clone(&stopping));
    let waiting = thread::Builder::new().name("stop".into()).spawn(move || {
        stop.wait();
        asked_to_stop.store(true, Ordering::Relaxed);
        // This fails only if so much waits in the system's buffer that the room
        // is awake anyway.
        let _ = waker.send_to(b"", tcp::reachable(own_address));
    })?;
    cli::print(&format!("listening on {own_address}"))?;

    Room::new(socket, heartbeat, loss).run(&stopping);
    let _ = waiting.join();
    // If nobody reads the output, that is no reason to fail: all is done.
    let _ = cli::print("bye");
    Ok(())
}

/// The room: its members, and what it needs to talk to them.
struct Room {
    socket: Arc<UdpSocket>,
    loss: Loss,
    members: HashMap<SocketAddr, Member>,
    /// The names of all members.
    names: Names,
    /// The key for cookies. It never leaves this program.
    key: RandomState,
    /// How long a member may be silent before it gets a PING.
    interval: Duration,
    /// When to look for silent members: no later than one of them is due.
    next_check: Instant,
}

/// A client that has joined.
struct Member {
    name: String,
    window: ReplayWindow,
    pulse: Pulse,
}

impl Room {
    fn new(socket: Arc<UdpSocket>, interval: Duration, loss: Loss) -> Room {
        let next_check = Instant::now() + interval;
        let (members, names, key) = (HashMap::new(), Names::default(), RandomState::new());
        Room { socket, loss, members, names, key, interval, next_check }
    }

    fn run(mut self, stopping: &AtomicBool) {
        let mut buffer = vec![0; BUFFER_BYTES];
        while !stopping.load(Ordering::Relaxed) {
            self.set_receive_timeout();
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => self.receive(&buffer[..length], from),
                Err(e) if is_transient(e.kind()) => {}
                Err(e) => {
                    cli::warn(format_args!("cannot receive: {e}"));
                    thread::sleep(ERROR_PAUSE);
                }
            }
            self.check_members(Instant::now());
        }
        let goodbye = Message::new(Kind::Leave, "", "server is shutting down");
        for address in self.members.keys() {
            self.send(&goodbye, *address);
        }
    }

    /// Lets the next wait for a datagram end when the next check is due.
    fn set_receive_timeout(&self) {
        let timeout = self.next_check.saturating_duration_since(Instant::now());
        // The system does not accept a timeout of zero.
        let _ = self.socket.set_read_timeout(Some(timeout.max(Duration::from_millis(1))));
    }

    /// Pings the members that have been silent for too long, and removes those
    /// that did not answer.
    fn check_members(&mut self, now: Instant) {
        let Some(late) = now.checked_duration_since(self.next_check) else { return };
        self.next_check = now + self.interval;
        let (mut silent, mut expired) = (Vec::new(), Vec::new());
        for (address, member) in &mut self.members {
            match member.pulse.check(now, self.interval, late) {
                Check::Alive => {}
                Check::Ping => silent.push(*address),
                Check::Expired => {
                    expired.push(*address);
                    continue;
                }
            }
            self.next_check = self.next_check.min(member.pulse.due(self.interval));
        }
        for address in silent {
            self.send(&Message::new(Kind::Ping, "", ""), address);
        }
        for address in expired {
            self.remove(address, DisconnectReason::TimedOut);
        }
    }

    fn receive(&mut self, datagram: &[u8], from: SocketAddr) {
        match (Message::from_datagram(datagram), self.members.get_mut(&from)) {
            (Ok(message), Some(member)) => {
                member.pulse.touch(Instant::now());
                self.receive_from_member(&message, from);
            }
            (Ok(message), None) => self.receive_from_stranger(&message, from),
            (Err(why), Some(_)) => self.refuse(from, &why.to_string()),
            // The answer would go to the owner of that address, who may never
            // have sent us anything.
            (Err(_), None) => {}
        }
    }

    /// Answers a client that has not joined. Its source address may be forged.
    /// So the server remembers nothing of it, and sends no answer that is much
    /// longer than the question: nobody can use the server to flood somebody
    /// else.
    fn receive_from_stranger(&mut self, message: &Message, from: SocketAddr) {
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

    /// The cookie for an address: its hash under a key that was drawn when the
    /// server started. Only a client that receives at this address can know it.
    ///
    /// It proves that once, when a client joins. The datagrams after that carry
    /// no proof: whoever forges a member's address and port speaks as that
    /// member.
    fn cookie(&self, address: SocketAddr) -> String {
        format!("{:016x}", self.key.hash_one(address))
    }

    fn join(&mut self, name: &str, from: SocketAddr) {
        if self.members.len() >= MAX_CLIENTS {
            return self.refuse(from, &format!("the room is full: the limit is {MAX_CLIENTS}"));
        }
        if let Err(why) = self.names.reserve(name) {
            return self.refuse(from, &why);
        }
        let (window, pulse) = (ReplayWindow::default(), Pulse::new(Instant::now()));
        self.members.insert(from, Member { name: name.to_string(), window, pulse });
        self.welcome(name, from);
        self.send_to_others(&Message::new(Kind::Join, name, ""), from);
    }

    fn welcome(&self, name: &str, to: SocketAddr) {
        let here = self.names.list(name, MAX_DATAGRAM_BODY_BYTES);
        self.send(&Message::new(Kind::Welcome, name, &here), to);
    }

    fn receive_from_member(&mut self, message: &Message, from: SocketAddr) {
        let Some(Member { name, .. }) = self.members.get(&from) else { return };
        match message.kind {
            Kind::Text => self.pass_on(message, from),
            // The client asks again, because our WELCOME was lost.
            Kind::Join if message.sender == name => self.welcome(name, from),
            Kind::Join => self.refuse(from, &format!("you are here as {name}")),
            Kind::Leave => self.remove(from, DisconnectReason::Left),
            Kind::Ping => self.send(&Message::pong(message), from),
            // Two programs that answer an answer would never stop.
            Kind::Pong | Kind::Error => {}
            Kind::Welcome | Kind::Login | Kind::Challenge => {
                self.refuse(from, &format!("kind {} is not for clients", message.kind as u8));
            }
        }
    }

    /// Sends a member's TEXT to all others, unless it came before. Its sender and
    /// its time are the server's, its sequence number is the member's.
    fn pass_on(&mut self, message: &Message, from: SocketAddr) {
        let Some(member) = self.members.get_mut(&from) else { return };
        let body = clean(message.body.as_bytes());
        if member.window.accept(message.sequence) && !body.is_empty() {
            let name = member.name.clone();
            let text = Message::new(Kind::Text, &name, &body);
            self.send_to_others(&Message { sequence: message.sequence, ..text }, from);
        }
    }

    fn remove(&mut self, address: SocketAddr, reason: DisconnectReason) {
        let Some(member) = self.members.remove(&address) else { return };
        self.names.free(&member.name);
        self.send_to_others(&Message::new(Kind::Leave, &member.name, reason.text()), address);
    }

    fn refuse(&self, to: SocketAddr, why: &str) {
        self.send(&Message::new(Kind::Error, "", why), to);
    }

    fn send(&self, message: &Message, to: SocketAddr) {
        self.send_bytes(&message.to_bytes(), to);
    }

    fn send_to_others(&self, message: &Message, from: SocketAddr) {
        let bytes = message.to_bytes();
        for address in self.members.keys().filter(|address| **address != from) {
            self.send_bytes(&bytes, *address);
        }
    }

    /// Sends one datagram, once. Whether it arrives, nobody tells the sender.
    fn send_bytes(&self, bytes: &[u8], to: SocketAddr) {
        if !self.loss.drops() {
            let _ = self.socket.send_to(bytes, to);
        }
    }
}
