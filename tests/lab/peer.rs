//! The other side of a program's connections: a client of a server, or the
//! server of a client. There are three formats, and one kind of peer.

use super::inbox::{Codec, Event, Inbox, Next};
use super::message::{self, LEAVE, Message, PING, join, welcome};
use super::program::Program;
use super::receiver::Receiver;
use super::story::{Story, quote};
use super::websocket::{self, Frames, UPGRADE};
use super::{patience, system};
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// What crosses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines, or any bytes.
    Lines,
    /// Messages of the chat. PINGs are answered at once, whatever the test does.
    Messages,
    /// Messages of the chat, each in a WebSocket frame. Pings are answered, and
    /// the server's close frame.
    WebSocket,
    /// Whatever a WebSocket echo sends back.
    Echo,
}

impl Format {
    /// What the programs of a step speak.
    pub fn of_step(step: &str) -> Format {
        match step.get(..2) {
            Some("06" | "07" | "10") => Format::Messages,
            Some("09") => Format::WebSocket,
            _ => Format::Lines,
        }
    }

    pub(super) fn is_websocket(self) -> bool {
        matches!(self, Format::WebSocket | Format::Echo)
    }

    /// A message as it crosses such a connection.
    pub fn encode(self, message: &Message, key: [u8; 4]) -> Vec<u8> {
        if self.is_websocket() {
            return websocket::masked(websocket::BINARY, key, &message.bytes());
        }
        message.bytes()
    }

    /// What is left of these bytes after all that is whole in them: messages or
    /// frames. Where no message begins so, none is finished any more.
    fn unfinished(self, mut bytes: &[u8]) -> &[u8] {
        loop {
            let size = match self {
                Format::Lines => return &[],
                Format::Messages => match Message::parse(bytes) {
                    Ok(whole) => whole.map(|(_, size)| size),
                    Err(_) => return b"?",
                },
                Format::WebSocket | Format::Echo => websocket::frame_size(bytes),
            };
            let Some(size) = size else { return bytes };
            bytes = &bytes[size..];
        }
    }
}

/// What a peer sends through: what the test sends, and answers between its
/// messages or frames, never inside of one.
pub struct Sender {
    pub(super) stream: TcpStream,
    format: Format,
    /// What was sent of a message or frame that is not finished yet.
    unfinished: Mutex<Vec<u8>>,
    /// Answers that wait for its end.
    answers: Mutex<Vec<u8>>,
    /// Whether nothing is answered.
    pub(super) is_silent: AtomicBool,
    /// Whether a close frame was sent.
    pub(super) has_closed: AtomicBool,
    /// Whether a pong must not come any more.
    pub(super) wants_no_pong: AtomicBool,
    /// The system tells of a reset only once: to the thread that reads or to the
    /// one that writes.
    pub(super) was_reset: AtomicBool,
    /// Where masking keys come from.
    key: AtomicU64,
}

impl Sender {
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let result = (&self.stream).write_all(bytes);
        unfinished.extend_from_slice(bytes);
        *unfinished = self.format.unfinished(&unfinished).to_vec();
        drop(unfinished);
        self.send_answers();
        result
    }

    /// Sends an answer, now or when the test has finished its message.
    pub(super) fn answer(&self, bytes: &[u8]) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        self.send_answers();
    }

    fn send_answers(&self) {
        let waiting = || self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        while !waiting().is_empty() {
            // Whoever is sending now does it afterwards.
            let unfinished = match self.unfinished.try_lock() {
                Ok(unfinished) => unfinished,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            if !unfinished.is_empty() {
                return;
            }
            let answers = std::mem::take(&mut *waiting());
            self.write(&answers);
        }
    }

    /// Sends now. If the connection is over, its receiver learns of it.
    pub(super) fn write(&self, bytes: &[u8]) {
        if (&self.stream).write_all(bytes).is_err_and(|e| is_reset(&e)) {
            self.was_reset.store(true, Ordering::Relaxed);
        }
    }

    /// The next masking key.
    pub(super) fn key(&self) -> [u8; 4] {
        let number = self.key.fetch_add(1, Ordering::Relaxed);
        let [a, b, c, d, ..] = super::story::next_random(number).to_be_bytes();
        [a, b, c, d]
    }
}

pub(super) fn is_reset(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionReset
}

/// Takes messages off a stream, and answers PINGs.
struct Messages(Arc<Sender>);

impl Codec for Messages {
    fn decode(&mut self, bytes: &[u8]) -> Option<(usize, Option<Event>)> {
        match Message::parse(bytes) {
            Ok(parsed) => parsed.map(|(came, size)| {
                if came.kind != PING {
                    return (size, Some(Event::Message(came)));
                }
                if !self.0.is_silent.load(Ordering::Relaxed) {
                    self.0.answer(&message::pong(came.sequence).at(message::now()).bytes());
                }
                (size, Some(Event::Ping))
            }),
            Err(why) => {
                let told = format!("what is no message: {why}\n{}", message::fields(bytes));
                (!bytes.is_empty()).then_some((0, Some(Event::Invalid(told))))
            }
        }
    }
}

/// The other side of one connection. It reads all the time, in a thread of its
/// own: no program ever waits for it.
pub struct Peer {
    receiving: Receiver,
    me: String,
    other: &'static str,
    pub(super) format: Format,
    pub stream: TcpStream,
    pub(super) sending: Arc<Sender>,
}

impl Deref for Peer {
    type Target = Receiver;

    fn deref(&self) -> &Receiver {
        &self.receiving
    }
}

impl Peer {
    pub fn new(
        story: &Rc<Story>,
        me: &str,
        other: &'static str,
        stream: TcpStream,
        format: Format,
    ) -> Peer {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(None).unwrap();
        stream.set_write_timeout(Some(patience())).unwrap();
        let sending = Arc::new(Sender {
            stream: stream.try_clone().unwrap(),
            format,
            unfinished: Mutex::default(),
            answers: Mutex::default(),
            is_silent: AtomicBool::new(false),
            has_closed: AtomicBool::new(false),
            wants_no_pong: AtomicBool::new(false),
            was_reset: AtomicBool::new(false),
            key: AtomicU64::new(story.number(1 << 30) as u64),
        });
        let (reading, codec_sending) = (stream.try_clone().unwrap(), Arc::clone(&sending));
        let inbox = match format {
            Format::Lines => Inbox::of(reading, ()),
            Format::Messages => Inbox::of(reading, Messages(codec_sending)),
            Format::WebSocket => Inbox::of(reading, Frames::new(codec_sending, false)),
            Format::Echo => Inbox::of(reading, Frames::new(codec_sending, true)),
        };
        let who = format!("{other} --> {me}");
        let receiving = Receiver::new(story, who, inbox, format == Format::Lines);
        if other == "server" {
            story.is_connected(me, &receiving.inbox, &receiving.is_over);
        }
        Peer { receiving, me: me.to_string(), other, format, stream, sending }
    }

    pub(super) fn to_other(&self) -> String {
        format!("{} --> {}", self.me, self.other)
    }

    /// From now on it answers neither pings nor a close frame.
    pub fn falls_silent(&self) {
        self.story.step(&self.me, "answers no ping and no close frame");
        self.sending.is_silent.store(true, Ordering::Relaxed);
    }

    /// Sends bytes, in one piece if they are few.
    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.sends(quote(bytes), bytes);
    }

    /// Sends bytes, told as `what`.
    #[track_caller]
    pub fn sends(&self, what: impl Into<String>, bytes: &[u8]) {
        self.story.step(self.to_other(), what);
        if let Err(e) = self.sending.send(bytes) {
            let expected = format!("the {} takes what {} sends", self.other, self.me);
            self.story.fails(&self.to_other(), &expected, &e.to_string());
        }
    }

    /// Sends bytes that the program may not take any more. If the connection is
    /// over, that is noticed later.
    pub fn tries(&self, bytes: &[u8]) {
        let _ = self.sending.send(bytes);
    }

    /// Sends bytes, and waits until the program has read them: what comes
    /// next is found by another read.
    #[track_caller]
    pub fn send_piece(&self, bytes: impl AsRef<[u8]>) {
        self.send(bytes);
        system::drained(&self.stream);
    }

    /// A message as it crosses this connection.
    pub fn encode(&self, message: &Message) -> Vec<u8> {
        self.format.encode(message, self.sending.key())
    }

    /// Sends a message, in one piece.
    #[track_caller]
    pub fn say(&self, message: &Message) {
        self.sends(message.told(), &self.encode(message));
    }

    /// Sends several messages, in one piece.
    #[track_caller]
    pub fn say_at_once(&self, messages: &[Message]) {
        let told: Vec<String> = messages.iter().map(Message::told).collect();
        self.say_all(format!("{} (in one piece)", told.join(", ")), messages);
    }

    /// The same, told as `what`.
    #[track_caller]
    pub fn say_all(&self, what: impl Into<String>, messages: &[Message]) {
        let bytes: Vec<u8> = messages.iter().flat_map(|message| self.encode(message)).collect();
        self.sends(what, &bytes);
    }

    /// Sends a part of a message's bytes, and waits until the program has read
    /// them: what comes next is found by another read.
    #[track_caller]
    pub fn say_part(&self, message: &Message, from: usize, to: usize) {
        let bytes = message.bytes();
        let told = format!("{}: bytes {} to {to} of {}", message.told(), from + 1, bytes.len());
        self.sends(told, &bytes[from..to]);
        system::drained(&self.stream);
    }

    /// Answers a ping, in a silence of its own.
    #[track_caller]
    pub fn answers_ping(&self) {
        if self.format.is_websocket() {
            self.sends("a pong", &self.frame(websocket::PONG_FRAME, ""));
        } else {
            self.say(&message::pong(0));
        }
    }

    /// Whether the server answers it, joined or not, and in the middle of a
    /// WebSocket message too.
    pub fn is_alive(&self) -> bool {
        if self.format.is_websocket() {
            self.tries(&self.frame(websocket::PING_FRAME, "77"));
            return self.is_ponged(b"77");
        }
        self.tries(&message::ping(77).bytes());
        self.reads_until("PONG 77", |came| came.kind == message::PONG && came.sequence == 77)
    }

    /// Closes the sending half: there will be no more from here.
    pub fn close_sending(&self) {
        self.is_over.set(true);
        self.story.step(self.to_other(), "end of stream");
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes the sending half and reads to the end, where nothing more may come.
    /// That the end comes is a rule of its own: here its absence costs nothing.
    #[track_caller]
    pub fn leave(&self) {
        self.close_sending();
        self.nothing_more(false);
    }

    /// Says LEAVE, and reads to the end as [`leave`](Self::leave) does. A
    /// WebSocket is closed by the server.
    #[track_caller]
    pub fn say_goodbye(&self) {
        self.say(&message::message(LEAVE, "", ""));
        if self.format.is_websocket() {
            self.gets_close(&websocket::GOODBYES);
        } else {
            self.leave();
        }
    }

    /// The server has said goodbye, and closes.
    #[track_caller]
    pub fn is_closed_with(&self, code: u16) {
        if self.format.is_websocket() {
            self.gets_close(&[code]);
        } else {
            self.expect_nothing_more();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The reading thread has the stream too: dropping ours closes nothing.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Program {
    /// Connects to this server. A WebSocket asks for its upgrade.
    #[track_caller]
    pub fn visit(&self, name: &str) -> Peer {
        if self.format.is_websocket() {
            return self.upgraded_by(name, &self.get("/chat", &UPGRADE), &[]);
        }
        let stream = self.connect_stream();
        self.story.step(name, "connects");
        self.peer(name, stream)
    }

    /// Takes over a connection to this server.
    pub fn peer(&self, name: &str, stream: TcpStream) -> Peer {
        Peer::new(&self.story, name, "server", stream, self.format)
    }

    /// Joins the room under `name`, where then these are `here`.
    #[track_caller]
    pub fn admit(&self, name: &str, here: &str) -> Peer {
        self.needs_a_room();
        let peer = self.visit(name);
        peer.say(&join(name));
        peer.gets_next(&welcome(name, here));
        peer
    }

    /// Joins the room, and leaves the reading (or not reading) to the test.
    #[track_caller]
    pub fn admit_stream(&self, name: &str) -> TcpStream {
        let stream = if self.format.is_websocket() {
            self.switched(name, &self.get("/chat", &UPGRADE), b"")
        } else {
            self.connect_stream()
        };
        stream.set_read_timeout(Some(patience())).unwrap();
        self.story.step(format!("{name} --> server"), join(name).told());
        let _ = (&stream).write_all(&self.format.encode(&join(name), *b"mask"));
        stream
    }

    /// Fills an empty room: each has heard that the others joined. Names in the
    /// order of their bytes, please.
    #[track_caller]
    pub fn admit_all<const N: usize>(&self, names: [&str; N]) -> [Peer; N] {
        let mut all: Vec<Peer> = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let newcomer = self.admit(name, &names[..=i].join(", "));
            for other in &all {
                other.gets(&join(name));
            }
            all.push(newcomer);
        }
        all.try_into().unwrap_or_else(|_| unreachable!())
    }
}

/// Where the test is the server of a client.
pub struct MockServer {
    pub(super) story: Rc<Story>,
    pub address: String,
    /// What is told where nobody comes.
    pub awaited: String,
    accepted: mpsc::Receiver<TcpStream>,
}

impl MockServer {
    pub fn open(story: &Rc<Story>, address: &str) -> MockServer {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (send, accepted) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if send.send(stream).is_err() {
                    return;
                }
            }
        });
        let awaited = format!("a connection to {address}");
        MockServer { story: Rc::clone(story), address, awaited, accepted }
    }

    /// Waits for a client that talks in lines.
    #[track_caller]
    pub fn accept(&self) -> Peer {
        Peer::new(&self.story, "server", "client", self.accept_stream(), Format::Lines)
    }

    /// Waits for a client that talks in messages.
    #[track_caller]
    pub fn visited(&self) -> Peer {
        Peer::new(&self.story, "server", "client", self.accept_stream(), Format::Messages)
    }

    /// Waits for a client, which must ask for `name`, and gets it.
    #[track_caller]
    pub fn admits(&self, name: &str) -> Peer {
        let peer = self.visited();
        peer.gets_next(&join(name));
        peer.say(&welcome(name, name).at(message::now()));
        peer
    }

    /// Waits for a client, and leaves the reading (or not reading) to the test.
    #[track_caller]
    pub fn accept_stream(&self) -> TcpStream {
        let until = Instant::now() + patience() * 3;
        loop {
            // A client that has ended does not come any more.
            let is_last = Instant::now() > until || self.story.client_has_ended();
            if let Ok(stream) = self.accepted.recv_timeout(Duration::from_millis(100)) {
                self.story.step("client", "connects");
                return stream;
            }
            if is_last {
                self.story.fails("client --> server", &self.awaited, "none");
            }
        }
    }
}

/// The connection must end, whatever comes before. How, is free: with a reset
/// too.
#[track_caller]
pub fn ends(story: &Story, who: &str, stream: TcpStream) {
    stream.set_read_timeout(None).unwrap();
    match Inbox::of(stream, ()).rest() {
        Next::End(..) => story.step(who, "end of the connection ok"),
        Next::Some(_) | Next::Silence(_) => {
            story.fails(who, "the end of the connection", "nothing more, and no end")
        }
    }
}
