//! Talking in messages: what the gradings from step 06 on need of receivers and
//! peers.

use super::feed::{End, Feed, Next};
use super::message::{self, ERROR, JOIN, LEAVE, Message, PING, PONG, TEXT, WELCOME};
use super::message::{HEADER_BYTES, join, left, text, welcome};
use super::patience;
use super::peer::{MockServer, Peer, Receiver, silence, told};
use super::program::Program;
use super::story::{Story, quote};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

const NO_MESSAGE: &str = "what came is not a message. Its fields are shown as the contract places them: all integers are in network byte order, the highest byte first, and exactly as many bytes follow the header as it announces";

/// What a peer sends through: the test's messages, and the answers to PINGs
/// between them, never inside of one.
pub struct Sender {
    stream: TcpStream,
    /// What was sent of a message that is not finished yet.
    unfinished: Mutex<Vec<u8>>,
    /// PONGs that wait for its end.
    answers: Mutex<Vec<u8>>,
}

impl Sender {
    pub fn new(stream: TcpStream) -> Sender {
        Sender { stream, unfinished: Mutex::default(), answers: Mutex::default() }
    }

    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let result = (&self.stream).write_all(bytes);
        unfinished.extend_from_slice(bytes);
        let mut done = 0;
        loop {
            match Message::parse(&unfinished[done..]) {
                Ok(Some((_, size))) => done += size,
                Ok(None) => break,
                // No message begins so, and none is finished any more.
                Err(_) => {
                    *unfinished = vec![0];
                    done = 0;
                    break;
                }
            }
        }
        unfinished.drain(..done);
        drop(unfinished);
        self.answer();
        result
    }

    fn pong(&self, ping: &Message) {
        let pong = message::pong(ping.sequence).at(message::now()).bytes();
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).extend(pong);
        self.answer();
    }

    /// Sends the answers that wait, unless somebody is in the middle of a
    /// message, and will do it then.
    fn answer(&self) {
        let waiting = || self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        while !waiting().is_empty() {
            let unfinished = match self.unfinished.try_lock() {
                Ok(unfinished) => unfinished,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            if !unfinished.is_empty() {
                return;
            }
            let answers = std::mem::take(&mut *waiting());
            // If the connection is over, its receiver learns of it.
            let _ = (&self.stream).write_all(&answers);
        }
    }
}

/// Reads from a connection, answers each PING at once, and passes on all else.
pub struct Answering {
    stream: TcpStream,
    sending: Arc<Sender>,
    /// The header that is coming, and how much of it was passed on.
    header: Vec<u8>,
    passed: usize,
    /// How much is to come after the header.
    rest: usize,
    /// Whether that belongs to a PING.
    pinged: bool,
}

impl Answering {
    pub fn new(stream: TcpStream, sending: Arc<Sender>) -> Answering {
        Answering { stream, sending, header: Vec::new(), passed: 0, rest: 0, pinged: false }
    }

    /// What is left of `came` without PINGs. What may become one waits here.
    fn sift(&mut self, mut came: &[u8]) -> Vec<u8> {
        let mut others = Vec::new();
        while !came.is_empty() {
            if self.rest > 0 {
                let (now, later) = came.split_at(self.rest.min(came.len()));
                if !self.pinged {
                    others.extend_from_slice(now);
                }
                self.rest -= now.len();
                came = later;
                continue;
            }
            let missing = HEADER_BYTES - self.header.len();
            let (now, later) = came.split_at(missing.min(came.len()));
            self.header.extend_from_slice(now);
            came = later;
            let start = [b'C', b'H', 1, PING];
            self.pinged = start.starts_with(&self.header[..self.header.len().min(4)]);
            if !self.pinged {
                others.extend_from_slice(&self.header[self.passed..]);
                self.passed = self.header.len();
            }
            let Some(header) = self.header.first_chunk::<HEADER_BYTES>() else { continue };
            // As if nothing came after it: what is no message is passed on.
            let lengths =
                [16, 18].map(|at| usize::from(u16::from_be_bytes([header[at], header[at + 1]])));
            let mut alone = *header;
            alone[16..].fill(0);
            match Message::parse(&alone) {
                Ok(Some((message, _))) if lengths[0] <= 32 && lengths[1] <= 4096 => {
                    self.rest = lengths[0] + lengths[1];
                    if self.pinged {
                        self.sending.pong(&message);
                    }
                }
                _ => {
                    others.extend_from_slice(&self.header[self.passed..]);
                    self.pinged = false;
                    self.rest = usize::MAX;
                }
            }
            self.header.clear();
            self.passed = 0;
        }
        others
    }
}

impl Read for Answering {
    /// With a buffer of more than a header: what was held back comes on top.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len() - HEADER_BYTES;
        loop {
            let others = match self.stream.read(&mut buffer[..most])? {
                0 => std::mem::take(&mut self.header).split_off(std::mem::take(&mut self.passed)),
                count => match self.sift(&buffer[..count]) {
                    nothing if nothing.is_empty() => continue,
                    others => others,
                },
            };
            buffer[..others.len()].copy_from_slice(&others);
            return Ok(others.len());
        }
    }
}

impl Receiver {
    /// The next message must be this one. Times are not compared, nor sequences
    /// where the contract has them 0.
    #[track_caller]
    pub fn gets_next(&self, expected: &Message) -> Message {
        let came = self.message(&expected.told());
        self.compare(expected, &came);
        came
    }

    /// The next message *about the same person* must be this one.
    ///
    /// What one person does is told in order. What two do may be told in any
    /// order, so messages about others are set aside until they are heard.
    #[track_caller]
    pub fn gets(&self, expected: &Message) -> Message {
        let came = self.next_about(&about(expected), &expected.told());
        self.compare(expected, &came);
        came
    }

    /// The next about `name` must be its LEAVE, whatever the reason: that is a
    /// rule of its own.
    #[track_caller]
    pub fn gets_leave(&self, name: &str) {
        let expected = format!("LEAVE {name}, for whatever reason");
        let came = self.next_about(name.as_bytes(), &expected);
        if came.kind != LEAVE {
            self.story.fails(&self.who, &expected, &came.told());
        }
        self.story.step(&self.who, format!("{} ok", came.told()));
        self.notice(&came);
    }

    /// Whether something about `name` has come, and was set aside.
    pub fn has_heard_of(&self, name: &str) -> bool {
        self.messages.borrow().iter().any(|m| about(m) == name.as_bytes())
    }

    #[track_caller]
    fn next_about(&self, whom: &[u8], expected: &str) -> Message {
        let put = self.messages.borrow().iter().position(|m| about(m) == whom);
        if let Some(came) = put.and_then(|at| self.messages.borrow_mut().remove(at)) {
            return came;
        }
        loop {
            let came = self.message(expected);
            if about(&came) == whom {
                return came;
            }
            self.story.step(&self.who, format!("{} (for later)", came.told()));
            self.messages.borrow_mut().push_back(came);
        }
    }

    /// The next message must be an ERROR. Its words are free, but there must be
    /// some.
    #[track_caller]
    pub fn gets_error(&self, about: &str) -> String {
        let expected = format!("ERROR \"...\", {about}");
        let came = self.any_message(&expected);
        if came.kind != ERROR || came.body.is_empty() {
            self.story.fails(&self.who, &expected, &came.told());
        }
        self.story.step(&self.who, format!("{} ok", came.told()));
        String::from_utf8_lossy(&came.body).into_owned()
    }

    /// The next message must be a PING, with any sequence.
    #[track_caller]
    pub fn gets_ping(&self) -> Message {
        let came = self.any_message("PING");
        if came.kind != PING {
            self.story.fails(&self.who, "PING", &came.told());
        }
        self.story.step(&self.who, format!("{} ok", came.told()));
        came
    }

    /// Reads on until such a message comes; false if the stream ends before.
    #[track_caller]
    pub fn hears(&self, expected: &str, wanted: impl Fn(&Message) -> bool) -> bool {
        loop {
            match self.feed.message() {
                Next::Some(bytes) => match Message::parse(&bytes) {
                    Ok(Some((came, _))) if wanted(&came) => return true,
                    Ok(Some(_)) => {}
                    _ => return false,
                },
                Next::End(..) => return false,
                Next::Silence(rest) => self.story.fails(&self.who, expected, &silence(&rest)),
            }
        }
    }

    /// Waits for any message: for those who count rather than compare. Returns
    /// what the contract binds.
    #[track_caller]
    pub fn any_message(&self, waiting_for: &str) -> Message {
        let came = self.first_message(waiting_for);
        self.notice(&came);
        self.bound(&came)
    }

    #[track_caller]
    fn first_message(&self, waiting_for: &str) -> Message {
        let aside = self.messages.borrow_mut().pop_front();
        aside.unwrap_or_else(|| self.message(waiting_for))
    }

    #[track_caller]
    fn message(&self, expected: &str) -> Message {
        match self.feed.message() {
            Next::Some(bytes) => match Message::parse(&bytes) {
                Ok(Some((came, _))) => {
                    self.not_its_own(expected, &came);
                    came
                }
                no => {
                    let why = no.err().unwrap_or_default();
                    let why = format!("what is no message: {why}\n{}", message::fields(&bytes));
                    self.story.because(NO_MESSAGE);
                    self.story.fails(&self.who, expected, &why)
                }
            },
            Next::End(end, rest) => {
                let mut end = told(&end, &rest);
                if !rest.is_empty() {
                    end = format!("{} bytes of a message, {end}", rest.len());
                }
                self.story.fails(&self.who, expected, &end)
            }
            Next::Silence(rest) => {
                if self.is_screen() {
                    self.story.also(". Or it was printed, and not flushed");
                }
                let mut received = silence(&rest);
                if rest.len() >= HEADER_BYTES {
                    let size = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
                    received += &format!(
                        " (a header that announces {} bytes of sender and {} of body, and {} have come)",
                        size(16),
                        size(18),
                        rest.len() - HEADER_BYTES,
                    );
                } else if !rest.is_empty() {
                    received += " (a header has 20 bytes)";
                }
                self.story.fails(&self.who, expected, &received)
            }
        }
    }

    /// What of a message the contract says: the rest is free.
    fn bound(&self, message: &Message) -> Message {
        let Message { kind, sequence, sender, body, .. } = message.clone();
        let from_client = self.who.starts_with("client");
        let free_sender = matches!(kind, PING | PONG | ERROR) || from_client && kind != JOIN;
        let free_body = matches!(kind, PING | PONG) || from_client && kind != TEXT;
        Message {
            kind,
            sequence: if matches!(kind, TEXT | PING | PONG) { sequence } else { 0 },
            timestamp: 0,
            sender: if free_sender { Vec::new() } else { sender },
            body: if free_body { Vec::new() } else { body },
        }
    }

    #[track_caller]
    fn compare(&self, expected: &Message, came: &Message) {
        let (expected, came) = (self.bound(expected), self.bound(came));
        if expected != came {
            let bare = |m: &Message| Message { body: Vec::new(), ..m.clone() };
            // Of a long body what differs may not be shown otherwise.
            if bare(&expected) == bare(&came) && expected.body.len().max(came.body.len()) > 60 {
                self.story.mismatch_in(&self.who, &came.told(), &expected.body, &came.body);
            }
            if let Some(why) = message::why_differs(&expected, &came) {
                self.story.because(why);
            }
            self.story.differs(&self.who, &expected.told(), &came.told());
        }
        self.story.step(&self.who, format!("{} ok", came.told()));
        if came.kind == WELCOME {
            self.name.borrow_mut().clone_from(&came.sender);
        }
        self.notice(&came);
    }

    /// Reads to the end of the stream, whatever comes.
    pub fn rest(&self) -> Next {
        self.feed.rest()
    }

    /// Nobody is told what it did itself.
    #[track_caller]
    fn not_its_own(&self, expected: &str, came: &Message) {
        let own = !came.sender.is_empty() && came.sender == *self.name.borrow();
        if own && matches!(came.kind, JOIN | TEXT | LEAVE) {
            let came = format!("{}: that was itself", came.told());
            self.story.fails(&self.who, expected, &came);
        }
    }

    /// Nobody comes or goes twice.
    #[track_caller]
    fn notice(&self, came: &Message) {
        if matches!(came.kind, JOIN | LEAVE) {
            let before = self.comings.borrow_mut().insert(came.sender.clone(), came.kind);
            if before == Some(came.kind) {
                self.story.fails(&self.who, "that once", &format!("{} again", came.told()));
            }
        }
    }

    /// Its sequence must be 0: only TEXT, PING and PONG are numbered.
    #[track_caller]
    pub fn expect_no_number(&self, came: &Message) {
        if came.sequence != 0 {
            self.story.fails(&self.who, "sequence 0, in this kind of message", &came.told());
        }
    }

    /// Its time must be now, by a clock that may be a bit wrong.
    #[track_caller]
    pub fn expect_now(&self, came: &Message) {
        let (now, then) = (message::now(), came.timestamp);
        if now.abs_diff(then) > 5 * 60 * 1000 {
            self.story.fails(
                &self.who,
                &format!("a timestamp of now, in milliseconds: about {now}"),
                &format!("{}, its timestamp is {then}", came.told()),
            );
        }
    }

    /// Reads to the end of the stream. Nothing more may come but JOINs and LEAVEs
    /// that were not heard yet: all else was not meant for this receiver.
    #[track_caller]
    pub fn gets_no_more(&self) {
        self.no_more(true);
    }

    #[track_caller]
    fn no_more(&self, must_end: bool) {
        // A server that does not close once never does: wait for it only once.
        static LEFT_OPEN: AtomicBool = AtomicBool::new(false);
        let expected = "nothing more, then the end of the stream";
        loop {
            let wait = !must_end && LEFT_OPEN.load(Ordering::Relaxed);
            let wait = if wait { patience() / 10 } else { patience() };
            let aside = self.messages.borrow_mut().pop_front();
            let came = if let Some(aside) = aside {
                aside
            } else {
                match self.feed.message_within(wait) {
                    Next::Some(bytes) => match Message::parse(&bytes) {
                        Ok(Some((came, _))) => {
                            self.not_its_own(expected, &came);
                            came
                        }
                        no => {
                            let why = no.err().unwrap_or_default();
                            self.story.fails(&self.who, expected, &why)
                        }
                    },
                    Next::End(End::Closed, rest) if rest.is_empty() => break,
                    Next::End(end, rest) => {
                        self.story.fails(&self.who, expected, &told(&end, &rest))
                    }
                    Next::Silence(rest) if rest.is_empty() && !must_end => {
                        LEFT_OPEN.store(true, Ordering::Relaxed);
                        self.story.step(&self.who, "nothing more");
                        return;
                    }
                    Next::Silence(rest) => {
                        self.story.because(
                            "the connection is still open: send what is queued, and close it",
                        );
                        self.story.fails(&self.who, "the end of the stream", &silence(&rest))
                    }
                }
            };
            if !matches!(came.kind, JOIN | LEAVE) || came.sender.is_empty() {
                let came = format!("{}, which should not have come", came.told());
                self.story.fails(&self.who, expected, &came);
            }
            self.notice(&came);
        }
        self.is_over.set(true);
        self.story.step(&self.who, "end of stream ok");
    }
}

/// Several messages in one piece, for the ladder.
pub(super) fn at_once(messages: &[Message]) -> String {
    let told: Vec<String> = messages.iter().map(Message::told).collect();
    format!("{} (in one piece)", told.join(", "))
}

/// Whom a message is about: nobody, where the server itself speaks to one.
fn about(message: &Message) -> Vec<u8> {
    match message.kind {
        JOIN | TEXT | LEAVE => message.sender.clone(),
        _ => Vec::new(),
    }
}

/// A peer that sends and receives messages, whatever carries them.
pub trait Talks: Deref<Target = Receiver> {
    /// Sends messages in one piece, told as `what`.
    fn sends_all(&self, what: String, messages: &[Message]);
}

impl Talks for Peer {
    #[track_caller]
    fn sends_all(&self, what: String, messages: &[Message]) {
        let bytes: Vec<u8> = messages.iter().flat_map(Message::bytes).collect();
        self.sends(what, &bytes);
    }
}

impl Peer {
    /// The same connection for one who talks in messages: PINGs are answered at
    /// once, whatever the test does, and not heard.
    pub fn answering(story: &Rc<Story>, me: &str, other: &'static str, stream: TcpStream) -> Peer {
        Peer::with(story, me, other, stream, |stream, sending| {
            Feed::new(Answering::new(stream, sending))
        })
    }

    /// Sends a message, in one piece.
    #[track_caller]
    pub fn say(&self, message: &Message) {
        self.sends(message.told(), &message.bytes());
    }

    /// Sends several messages, in one piece.
    #[track_caller]
    pub fn say_at_once(&self, messages: &[Message]) {
        self.sends_all(at_once(messages), messages);
    }

    /// Sends a part of a message's bytes, and waits until the program has read
    /// them: what comes next is found by another read.
    #[track_caller]
    pub fn say_part(&self, message: &Message, from: usize, to: usize) {
        let bytes = message.bytes();
        let told = format!("{}: bytes {} to {to} of {}", message.told(), from + 1, bytes.len());
        self.sends(told, &bytes[from..to]);
        super::drained(&self.stream);
    }

    /// Says LEAVE, closes the sending half and reads to the end, where nothing
    /// more may come. That the end comes is a rule of its own: here its absence
    /// costs nothing.
    #[track_caller]
    pub fn say_goodbye(&self) {
        self.say(&message::message(LEAVE, "", ""));
        self.close_sending();
        self.no_more(false);
    }
}

impl Program {
    /// Connects to this server, to talk in messages.
    #[track_caller]
    pub fn visit(&self, name: &str) -> Peer {
        let stream = self.connect_stream();
        self.story.step(name, "connects");
        Peer::answering(&self.story, name, "server", stream)
    }

    /// Joins the room under `name`, where then these are `here`.
    #[track_caller]
    pub fn admit(&self, name: &str, here: &str) -> Peer {
        let peer = self.visit(name);
        peer.say(&join(name));
        peer.gets_next(&welcome(name, here));
        peer
    }

    /// Joins the room, and leaves the reading (or not reading) to the test.
    #[track_caller]
    pub fn admit_stream(&self, name: &str) -> TcpStream {
        let stream = self.connect_stream();
        stream.set_read_timeout(Some(patience())).unwrap();
        self.story.step(format!("{name} --> server"), join(name).told());
        let _ = (&stream).write_all(&join(name).bytes());
        stream
    }

    /// Fills an empty room: see [`fill`].
    #[track_caller]
    pub fn admit_all<const N: usize>(&self, names: [&str; N]) -> [Peer; N] {
        fill(names, |name, here| self.admit(name, here))
    }
}

/// Fills an empty room: each has heard that the others joined. Names in the
/// order of their bytes, please.
#[track_caller]
pub(super) fn fill<P: Deref<Target = Receiver>, const N: usize>(
    names: [&str; N],
    let_in: impl Fn(&str, &str) -> P,
) -> [P; N] {
    let mut all: Vec<P> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let newcomer = let_in(name, &names[..=i].join(", "));
        for other in &all {
            other.gets(&join(name));
        }
        all.push(newcomer);
    }
    all.try_into().unwrap_or_else(|_| unreachable!())
}

impl MockServer {
    /// Waits for a client that talks in messages.
    #[track_caller]
    pub fn visited(&self) -> Peer {
        Peer::answering(&self.story, "server", "client", self.accept_stream())
    }

    /// Waits for a client, which must ask for `name`, and gets it.
    #[track_caller]
    pub fn admits(&self, name: &str) -> Peer {
        let peer = self.visited();
        peer.gets_next(&join(name));
        peer.say(&welcome(name, name).at(message::now()));
        peer
    }
}

const MIB: usize = 1024 * 1024;

/// Somebody who speaks and somebody who listens, while others do not read.
pub struct Chat<'a> {
    pub story: &'a Story,
    pub speaker: &'a dyn Talks,
    pub name: &'a str,
    pub listener: &'a Receiver,
    /// The sequence of the last message.
    pub last: u32,
    /// The bytes sent.
    pub sent: usize,
}

impl<'a> Chat<'a> {
    pub fn new(
        story: &'a Story,
        name: &'a str,
        speaker: &'a dyn Talks,
        listener: &'a Receiver,
    ) -> Chat<'a> {
        Chat { story, speaker, name, listener, last: 0, sent: 0 }
    }

    /// A long message with a number.
    pub fn text(number: u32) -> Message {
        text(number, format!("{number:08}{}", "x".repeat(3992)))
    }

    /// Speaks until that many bytes are sent, or until it is told that somebody
    /// has left; returns that. All the while the listener must hear everything.
    #[track_caller]
    pub fn until(&mut self, bytes: usize) -> Option<Message> {
        let mut gone = None;
        while self.sent < bytes && gone.is_none() {
            let texts: Vec<Message> = (self.last + 1..=self.last + 16).map(Self::text).collect();
            // Never more on its way to the listener than it could be forgiven for.
            let what = format!("TEXT {} and 15 more, of 4000 bytes", self.last + 1);
            self.speaker.sends_all(what, &texts);
            self.sent += texts.len() * (HEADER_BYTES + 4000);
            self.last += 16;
            for expected in texts.into_iter().map(|text| text.by(self.name)) {
                let mut came = self.listener.first_message(&expected.told());
                if came.kind == LEAVE && gone.is_none() {
                    self.listener.notice(&came);
                    gone = Some(self.listener.bound(&came));
                    came = self.listener.first_message(&expected.told());
                }
                let same = |a: &Message, b: &Message| (a.kind, a.sequence) == (b.kind, b.sequence);
                if !same(&came, &expected)
                    || came.sender != expected.sender
                    || came.body != expected.body
                {
                    self.listener.compare(&expected, &came);
                }
            }
        }
        gone
    }
}

/// Zed joins and does not read, until it is disconnected, with this reason if
/// it matters; nobody else waits. Returns how many bytes were said until then.
#[track_caller]
pub fn never_reads(
    story: &Story,
    server: &Program,
    [ann, bob]: [&Peer; 2],
    why: Option<&str>,
) -> usize {
    is_too_slow(story, server.admit_stream("zed"), [ann, bob], why)
}

/// The same for a zed that has just sent its JOIN, and for others that may
/// talk in another way.
#[track_caller]
pub fn is_too_slow(
    story: &Story,
    zed: TcpStream,
    [ann, bob]: [&dyn Talks; 2],
    why: Option<&str>,
) -> usize {
    story.because("once the system's buffers are full, a write to a client that does not read waits for ever, and a thread that writes to all clients in turn waits with it. And a queue without a bound fills the memory instead");
    for other in [ann, bob] {
        other.gets(&join("zed"));
    }
    story.step("zed", "does not read");
    let mut chat = Chat::new(story, "ann", ann, bob);
    let mut expected = left("zed", why.unwrap_or("..."));
    let Some(came) = chat.until(64 * MIB) else {
        let what = format!("only TEXTs, {} MiB of them", chat.sent / MIB);
        story.fails("server --> bob", &expected.told(), &what);
    };
    if why.is_none() {
        expected.body.clone_from(&came.body);
    }
    if came != expected {
        story.differs("server --> bob", &expected.told(), &came.told());
    }
    story.step("server --> bob", format!("{} ok", came.told()));
    if chat.sent < MIB {
        let what = format!("that, after only {} bytes", chat.sent);
        story.fails("server --> bob", "patience with zed up to 1 MiB", &what);
    }
    ann.gets(&expected);
    story.because("a client that is disconnected is closed, however much waits for it");
    ends(story, "server --> zed", zed);
    let better = text(1, "much better now");
    bob.sends_all(better.told(), std::slice::from_ref(&better));
    ann.gets(&better.by("bob"));
    chat.sent
}

/// The connection must end, whatever comes before. How, is free: with a reset
/// too.
#[track_caller]
pub fn ends(story: &Story, who: &str, stream: TcpStream) {
    stream.set_read_timeout(None).unwrap();
    match Feed::new(stream).rest() {
        Next::End(..) => story.step(who, "end of the connection ok"),
        Next::Some(_) | Next::Silence(_) => {
            story.fails(who, "the end of the connection", "nothing more, and no end")
        }
    }
}

/// Somebody joins and does not read, while so much is said that some of it
/// waits in the server: a bit less than zed could not bear. None if the system
/// keeps less here than for zed: then there is nothing to see.
#[track_caller]
pub fn reads_late(
    story: &Story,
    server: &Program,
    [ann, bob]: [&Peer; 2],
    name: &str,
    enough: usize,
) -> Option<(TcpStream, u32)> {
    let late = server.admit_stream(name);
    for other in [ann, bob] {
        other.gets(&join(name));
    }
    story.step(name, "does not read either, for a while");
    let mut chat = Chat::new(story, "ann", ann, bob);
    match chat.until(enough - MIB / 2) {
        Some(_) => None,
        None => Some((late, chat.last)),
    }
}

/// Somebody reads late, and says LEAVE before that: all that waits must come.
#[track_caller]
pub fn leaves_late(story: &Rc<Story>, server: &Program, [ann, bob]: [&Peer; 2], enough: usize) {
    story.because("a client that has said LEAVE gets what was queued for it, in order, and then the end of the stream, though it closes nothing itself");
    let Some((gus, last)) = reads_late(story, server, [ann, bob], "gus", enough) else { return };
    story.step("gus --> server", "LEAVE");
    let _ = (&gus).write_all(&message::message(LEAVE, "", "").bytes());
    bob.gets(&left("gus", "left"));
    let gus = Peer::answering(story, "gus", "server", gus);
    gus.gets_next(&welcome("gus", "ann, bob, gus"));
    for number in 1..=last {
        gus.gets_next(&Chat::text(number).by("ann"));
    }
    gus.gets_no_more();
}

/// What is no message comes right after a JOIN, and then with much after it:
/// all that the server has to say must arrive, and then the end of the stream.
#[track_caller]
pub fn errors_arrive(story: &Rc<Story>, server: &Program, ann: &Peer, why: &str) {
    let nonsense = |bytes| b"GET /chat HTTP/1.1\r\n".iter().copied().cycle().take(bytes);
    // Whether the WELCOME waits somewhere when the error comes is chance: in
    // many rounds it does.
    for _ in 0..20 {
        story.because("the ERROR goes the way of all else: what was queued for this client before it, its WELCOME, is sent first; and then the end of the stream. A server that closes before its queue is empty loses what is in it");
        let zed = server.visit("zed");
        let bytes: Vec<u8> = join("zed").bytes().into_iter().chain(nonsense(40)).collect();
        zed.sends("JOIN zed, \"GET /chat...\" (in one piece)", &bytes);
        zed.gets_next(&welcome("zed", "ann, zed"));
        zed.gets_error("since the magic must be \"CH\"");
        zed.expect_end();
        ann.gets_next(&join("zed"));
        ann.gets_next(&left("zed", why));
    }
    story.because("closing a connection with unread bytes is a reset, which may overtake the ERROR: close the sending half first, read on and throw away for a moment, and close then");
    let mut ended = Next::Silence(Vec::new());
    for _ in 0..3 {
        let stream = server.connect_stream();
        let zed = Peer::answering(story, "zed", "server", stream.try_clone().unwrap());
        story.step("zed --> server", "JOIN zed, \"GET /chat...\", and 2 MiB more");
        // More than a server reads at once. It need not take all of it.
        let much: Vec<u8> = join("zed").bytes().into_iter().chain(nonsense(2 * MIB)).collect();
        let sending = std::thread::spawn(move || {
            let _ = (&stream).write_all(&much);
            let _ = stream.shutdown(Shutdown::Write);
        });
        zed.gets_next(&welcome("zed", "ann, zed"));
        zed.gets_error("since the magic must be \"CH\"");
        ended = zed.rest();
        ann.gets_next(&join("zed"));
        ann.gets_next(&left("zed", why));
        drop(zed);
        let _ = sending.join();
        if matches!(ended, Next::End(End::Closed, _)) {
            break;
        }
    }
    match ended {
        Next::End(End::Closed, rest) if rest.is_empty() => {
            story.step("server --> zed", "end of stream ok");
        }
        Next::End(end, rest) => {
            story.fails("server --> zed", "the end of the stream", &told(&end, &rest));
        }
        Next::Some(rest) | Next::Silence(rest) => {
            story.fails("server --> zed", "the end of the stream", &silence(&rest));
        }
    }
}
