//! The client: a socket that talks to one server.

use crate::{BUFFER_BYTES, Loss, is_transient};
use socket_chat::chat::client;
use socket_chat::chat::message::{Kind, MAX_DATAGRAM_BODY_BYTES, Message};
use socket_chat::chat::names::check_name;
use socket_chat::chat::room::MAX_CLIENTS;
use socket_chat::cli::{self, Failure};
use socket_chat::line::clean;
use socket_chat::net::tcp;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How often the client sends one JOIN, and how long it waits for an answer each
/// time.
const MAX_TRIES: usize = 5;
const TRY_TIME: Duration = Duration::from_millis(500);

/// How many cookies the client brings back in one attempt to join. One is the
/// rule; a server that is started again meanwhile has another one. Without a
/// limit, a hostile server could keep the client busy for ever.
const MAX_COOKIES: usize = 5;

/// Chats at `address` as `name`, until one side leaves.
pub fn join(name: &str, address: &str, loss: Loss) -> Result<(), Failure> {
    check_name(name).map_err(Failure::new)?;
    let cannot = |e: io::Error| tcp::connect_error(address, &e, "08_udp_chat serve");
    let loss = Arc::new(loss);
    // A host name may have several addresses. The first that answers is the one.
    let mut result = Err(ErrorKind::AddrNotAvailable.into());
    for server in address.to_socket_addrs().map_err(cannot)? {
        result = Client::open(server, Arc::clone(&loss))
            .and_then(|client| client.join(name).map(|is_in| is_in.then_some(client)));
        if result.is_ok() {
            break;
        }
    }
    match result.map_err(cannot)? {
        Some(client) => client.chat(),
        None => Err(Failure::new(format!("{name} was not let in, for the reason above"))),
    }
}

struct Client {
    socket: UdpSocket,
    loss: Arc<Loss>,
}

/// What the server says to a JOIN.
enum Answer {
    Welcome,
    Error,
    /// Prove that you receive at this address: send JOIN with this cookie.
    Challenge(String),
}

impl Client {
    fn open(server: SocketAddr, loss: Arc<Loss>) -> io::Result<Client> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        // This sends nothing. From now on the system hands over only what comes
        // from that address, and reports when nobody listens there (udp(7)).
        socket.connect(server)?;
        Ok(Client { socket, loss })
    }

    /// Joins the room, and shows what the server says to it. Returns false if the
    /// server refuses the name.
    fn join(&self, name: &str) -> io::Result<bool> {
        let mut cookie = String::new();
        // The first JOIN has no cookie.
        for _ in 0..=MAX_COOKIES {
            match self.ask(name, &cookie)? {
                Answer::Welcome => return Ok(true),
                Answer::Error => return Ok(false),
                Answer::Challenge(new_cookie) => cookie = new_cookie,
            }
        }
        Err(io::Error::other("it asks again and again, each time with another cookie"))
    }

    /// Sends JOIN with this cookie until an answer comes. The JOIN may be lost, or
    /// the answer, so the client tries several times.
    fn ask(&self, name: &str, cookie: &str) -> io::Result<Answer> {
        let mut buffer = vec![0; BUFFER_BYTES];
        for _ in 0..MAX_TRIES {
            self.send(&Message::new(Kind::Join, name, cookie));
            let deadline = Instant::now() + TRY_TIME;
            while Instant::now() < deadline {
                let Some(message) = self.receive(&mut buffer, Some(deadline))? else { continue };
                match message.kind {
                    Kind::Welcome => {
                        show(&message)?;
                        return Ok(Answer::Welcome);
                    }
                    Kind::Error => {
                        show(&message)?;
                        return Ok(Answer::Error);
                    }
                    // The same cookie again answers a JOIN before this one.
                    Kind::Challenge if message.body != cookie => {
                        return Ok(Answer::Challenge(message.body.to_string()));
                    }
                    // We are a member already, and the WELCOME was lost.
                    Kind::Ping => drop(self.send(&Message::pong(&message))),
                    _ => {}
                }
            }
        }
        Err(io::Error::new(ErrorKind::TimedOut, "no answer"))
    }

    /// Sends what is typed, and shows what comes, each in a thread of its own. The
    /// thread that ends first ends the program, because the other one may still
    /// wait for the keyboard or for the network.
    fn chat(self) -> Result<(), Failure> {
        let client = Arc::new(self);
        let (ended, result) = mpsc::channel();
        let (typing, typing_ended) = (Arc::clone(&client), ended.clone());
        thread::Builder::new()
            .name("typing".into())
            .spawn(move || typing_ended.send(typing.send_lines()))?;
        thread::Builder::new()
            .name("receiving".into())
            .spawn(move || ended.send(client.show_messages()))?;
        result.recv().unwrap_or_else(|_| Err(Failure::new("a thread has panicked")))
    }

    /// Sends each typed line as TEXT, and LEAVE at the end.
    fn send_lines(&self) -> Result<(), Failure> {
        if !client::read_texts(MAX_DATAGRAM_BODY_BYTES, |text| self.send(text)) {
            return Err(Failure::new("the server is gone: nobody listens there any more"));
        }
        self.send(&Message::new(Kind::Leave, "", ""));
        Ok(())
    }

    /// Shows what comes, until the server says goodbye.
    fn show_messages(&self) -> Result<(), Failure> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut gaps = Gaps::default();
        loop {
            let received =
                self.receive(&mut buffer, None).map_err(|e| tcp::connection_error(&e))?;
            let Some(message) = received else { continue };
            let missing = gaps.before(&message);
            if missing > 0 {
                let messages = if missing == 1 { "message" } else { "messages" };
                let sender = clean(message.sender.as_bytes());
                cli::print(&format!("* {missing} {messages} from {sender} lost"))?;
            }
            show(&message)?;
            match message.kind {
                Kind::Ping => drop(self.send(&Message::pong(&message))),
                Kind::Leave if message.sender.is_empty() => return Ok(()),
                _ => {}
            }
        }
    }

    /// Sends one datagram. Returns false if the system has reported that nobody
    /// listens at the server's address, which it learned from an earlier datagram.
    fn send(&self, message: &Message) -> bool {
        if self.loss.drops() {
            return true;
        }
        let sent = self.socket.send(&message.to_bytes());
        !matches!(sent, Err(e) if e.kind() == ErrorKind::ConnectionRefused)
    }

    /// Waits for the next datagram from the server, but not past `deadline`.
    /// Returns None if none has come, or if it was no message.
    fn receive<'a>(
        &self,
        buffer: &'a mut [u8],
        deadline: Option<Instant>,
    ) -> io::Result<Option<Message<'a>>> {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            // The system does not accept a timeout of zero.
            left.max(Duration::from_millis(1))
        });
        self.socket.set_read_timeout(timeout)?;
        match self.socket.recv(buffer) {
            Ok(length) => Ok(Message::from_datagram(&buffer[..length]).ok()),
            Err(e) if is_transient(e.kind()) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Prints a message, if it is for people.
fn show(message: &Message) -> io::Result<()> {
    client::display(message).map_or(Ok(()), |line| cli::print(&line))
}

/// Counts the messages that are missing, for each sender: UDP does not tell that
/// it has lost something, only the sequence numbers show it.
#[derive(Default)]
struct Gaps {
    /// The highest sequence number of each sender so far.
    highest: HashMap<String, u32>,
}

impl Gaps {
    /// How many messages of this sender are missing between the highest so far
    /// and this one. 0 for one that comes late: it was counted before.
    fn before(&mut self, message: &Message) -> u32 {
        match message.kind {
            Kind::Text => {
                let number = message.sequence;
                // The first message of a sender starts the count.
                let highest = self.highest.entry(message.sender.into()).or_insert(number);
                let missing = number.saturating_sub(*highest).saturating_sub(1);
                *highest = number.max(*highest);
                if self.highest.len() > MAX_CLIENTS {
                    // No room has so many. A hostile server, which makes up names,
                    // must not fill our memory.
                    self.highest.clear();
                }
                missing
            }
            // A client that comes back numbers its messages from 1 again.
            Kind::Join | Kind::Leave => {
                self.highest.remove(message.sender);
                0
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_for_each_sender_from_its_first_message() {
        let mut gaps = Gaps::default();
        let mut before = |kind, sender, sequence| {
            gaps.before(&Message { sequence, ..Message::new(kind, sender, "hi") })
        };
        let told = [17, 18, 20, 24, 19, 25].map(|number| before(Kind::Text, "alice", number));
        assert_eq!(told, [0, 0, 1, 3, 0, 0]);
        assert_eq!(before(Kind::Text, "bob", 1), 0);
        assert_eq!(before(Kind::Text, "alice", u32::MAX), u32::MAX - 26);
        // Alice leaves and comes back.
        before(Kind::Leave, "alice", 0);
        assert_eq!(before(Kind::Text, "alice", 1), 0);
    }
}
