//! What arrives at one end, compared with what must: lines and messages.

use super::inbox::{End, Event, Inbox, Next};
use super::message::{self, ERROR, HEADER_BYTES, JOIN, LEAVE, Message, PING, PONG, TEXT};
use super::message::{CHALLENGE, WELCOME};
use super::patience;
use super::story::{Story, quote};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const NO_MESSAGE: &str = "what came is not a message. Its fields are shown as the contract places them: all integers are in network byte order, the highest byte first, and exactly as many bytes follow the header as it announces";
const NOT_FLUSHED: &str = ". Or it was printed, and not flushed";

/// What arrives at a peer from a server, at the test's own server from a client,
/// or at a person from a screen.
pub struct Receiver {
    pub(super) story: Rc<Story>,
    /// `server --> ann`.
    pub(super) who: String,
    pub(super) inbox: Inbox,
    /// Whether it is a stream of lines.
    pub(super) lines: bool,
    /// Whether a client's JOIN has a body that counts: a cookie, on UDP. Such a
    /// JOIN may come again.
    pub(super) cookies: bool,
    /// What came before the event that was waited for.
    pub(super) aside: RefCell<VecDeque<Event>>,
    /// All notices so far, and all JOINs and LEAVEs: none may come twice.
    notices: RefCell<Vec<String>>,
    /// The name under which it was welcomed.
    name: RefCell<Vec<u8>>,
    /// JOINs that a client on UDP has sent.
    asked: RefCell<Vec<Message>>,
    /// Whether it knows that this connection is over.
    pub(super) is_over: Rc<Cell<bool>>,
}

/// Whom an event is about: `guest-3` of `guest-3: hello` and of `* guest-3 left
/// (2 here)`, and the sender of JOIN, TEXT and LEAVE. Empty where it is nobody.
fn about(event: &Event) -> Vec<u8> {
    match event {
        Event::Message(m) if matches!(m.kind, JOIN | TEXT | LEAVE) => m.sender.clone(),
        Event::Line(line) if line.starts_with(b"! ") => b"!".to_vec(),
        Event::Line(line) => {
            let line = String::from_utf8_lossy(line);
            let name = match line.strip_prefix("* ") {
                Some(notice) => notice.split([' ', ',']).next(),
                None => line.split_once(": ").map(|(name, _)| name).filter(|n| !n.contains(' ')),
            };
            name.unwrap_or("").into()
        }
        _ => Vec::new(),
    }
}

/// How a stream ended, after these bytes.
pub(super) fn told(end: &End, rest: &[u8]) -> String {
    let end = match end {
        End::Closed => "the end of the stream".to_string(),
        End::Failed(why) if why.contains("reset") => {
            format!(
                "a reset in place of the end of the stream ({why}): the other side has closed with something unread, or has ended"
            )
        }
        End::Failed(why) | End::Flooded(why) => why.clone(),
    };
    if rest.is_empty() { end } else { format!("{}, then {end}", quote(rest)) }
}

pub(super) fn silence(rest: &[u8]) -> String {
    let seconds = patience().as_secs();
    let but = if rest.is_empty() { String::new() } else { format!(", but {}", quote(rest)) };
    format!("nothing for {seconds} s{but}")
}

impl Receiver {
    pub fn new(story: &Rc<Story>, who: String, inbox: Inbox, lines: bool) -> Receiver {
        Receiver {
            story: Rc::clone(story),
            who,
            inbox,
            lines,
            cookies: false,
            aside: RefCell::default(),
            notices: RefCell::default(),
            name: RefCell::default(),
            asked: RefCell::default(),
            is_over: Rc::default(),
        }
    }

    fn is_screen(&self) -> bool {
        self.who.ends_with("screen")
    }

    #[track_caller]
    pub(super) fn fails(&self, expected: &str, received: &str) -> ! {
        self.story.fails(&self.who, expected, received)
    }

    pub(super) fn ok(&self, what: &str) {
        self.story.step(&self.who, format!("{what} ok"));
    }

    /// Everything that has come so far and was not looked at.
    pub fn so_far(&self) -> Vec<u8> {
        self.inbox.so_far()
    }

    /// Reads to the end of the stream, whatever comes.
    pub fn rest(&self) -> Next {
        self.inbox.rest()
    }

    // --- bytes and lines ---

    /// The next line must be this one.
    #[track_caller]
    pub fn expect_line(&self, line: &str) {
        let expected = format!("{line}\n").into_bytes();
        self.expect(&expected, self.inbox.line());
    }

    /// The last line must be this one, with or without its line end, and then
    /// the end of the stream.
    #[track_caller]
    pub fn expect_last_line(&self, line: &str) {
        match self.rest() {
            Next::End(End::Closed, rest)
                if rest.strip_suffix(b"\n").unwrap_or(&rest) == line.as_bytes() =>
            {
                self.ok(&format!("{}, end of stream", quote(&rest)));
            }
            next => {
                self.expect(format!("{line}\n").as_bytes(), next);
                self.expect_end();
            }
        }
    }

    /// The next bytes must be these.
    #[track_caller]
    pub fn expect_bytes(&self, bytes: &[u8]) {
        self.expect(bytes, self.inbox.bytes(bytes.len()));
    }

    #[track_caller]
    fn expect(&self, expected: &[u8], next: Next) {
        match next {
            Next::Some(came) if came == expected => self.ok(&quote(&came)),
            Next::Some(came) => self.story.mismatch(&self.who, expected, &came),
            Next::End(End::Closed, rest) if !rest.is_empty() => {
                self.story.mismatch(&self.who, expected, &rest)
            }
            Next::End(end, rest) => self.fails(&quote(expected), &told(&end, &rest)),
            Next::Silence(rest) => self.silent(&quote(expected), &rest),
        }
    }

    #[track_caller]
    fn silent(&self, expected: &str, rest: &[u8]) -> ! {
        if self.is_screen() {
            self.story.also(NOT_FLUSHED);
        }
        let mut received = silence(rest);
        if let Some(stray) = self.inbox.stray() {
            received += &format!(", but {stray}");
        }
        if !self.lines && rest.len() >= HEADER_BYTES {
            let size = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
            received += &format!(
                " (a header that announces {} bytes of sender and {} of body, and {} have come)",
                size(16),
                size(18),
                rest.len() - HEADER_BYTES,
            );
        } else if !self.lines && !rest.is_empty() {
            received += " (a header has 20 bytes)";
        }
        self.fails(expected, &received)
    }

    /// Nothing more may come but the end of the stream.
    #[track_caller]
    pub fn expect_end(&self) {
        let expected = "the end of the stream";
        match self.rest() {
            Next::End(End::Closed, rest) if rest.is_empty() => {
                self.is_over.set(true);
                self.ok("end of stream");
            }
            Next::End(End::Closed, rest) => {
                self.story.step(&self.who, format!("{} <-- here", quote(&rest)));
                self.fails(expected, &quote(&rest));
            }
            Next::End(end, rest) => self.fails(expected, &told(&end, &rest)),
            Next::Silence(rest) | Next::Some(rest) => {
                self.story.because(if self.is_screen() {
                    "the program should have ended here, and its output with it"
                } else {
                    "the connection is still open: close it when its time is over. (A stream ends for the other side when nobody here has it open any more, or when it is shut down.)"
                });
                self.fails(expected, &silence(&rest));
            }
        }
    }

    /// The next line *about the same guest* must be this one: see
    /// [`gets`](Self::gets).
    #[track_caller]
    pub fn gets_line(&self, line: &str) {
        let expected = Event::Line(line.into());
        let Event::Line(came) = self.next_about(&about(&expected), &quote(line.as_bytes())) else {
            unreachable!()
        };
        if came != line.as_bytes() {
            let came = [&came[..], b"\n"].concat();
            self.story.mismatch(&self.who, format!("{line}\n").as_bytes(), &came);
        }
        self.ok(&quote(format!("{line}\n").as_bytes()));
        if line.starts_with("* ") {
            self.notices.borrow_mut().push(line.to_string());
        }
    }

    /// Waits for any line, to count lines rather than compare them.
    #[track_caller]
    pub fn any_line(&self, waiting_for: &str) -> Vec<u8> {
        let aside = self.aside.borrow_mut().pop_front();
        let Event::Line(line) = aside.unwrap_or_else(|| self.arrives(waiting_for).0) else {
            // A screen is a stream of bytes.
            unreachable!()
        };
        line
    }

    // --- events: lines and messages ---

    /// Waits for an event, whatever it says, and tells when it came.
    #[track_caller]
    fn arrives(&self, expected: &str) -> (Event, Instant) {
        loop {
            let (came, when) = match self.inbox.event_within(patience(), self.lines) {
                Next::Some(arrived) => arrived,
                Next::Silence(rest) => self.silent(expected, &rest),
                Next::End(End::Closed, rest) if self.lines && !rest.is_empty() => {
                    self.story.mismatch(&self.who, format!("{expected}\n").as_bytes(), &rest)
                }
                Next::End(end, rest) if self.lines || rest.is_empty() => {
                    self.fails(expected, &told(&end, &rest))
                }
                Next::End(end, rest) => {
                    let end = told(&end, b"");
                    let end = format!("{} bytes of a message, then {end}", rest.len());
                    self.fails(expected, &end)
                }
            };
            match &came {
                Event::Message(message) => {
                    if self.is_repeated(message, expected) {
                        self.story.step(&self.who, format!("{} (again)", message.told()));
                        continue;
                    }
                    self.is_not_its_own(expected, message);
                }
                Event::Invalid(why) => {
                    if why.starts_with("what is no message") {
                        self.story.because(NO_MESSAGE);
                    }
                    self.fails(expected, why)
                }
                Event::Close(_) => self.fails(expected, &came.told()),
                _ => {}
            }
            return (came, when);
        }
    }

    /// On UDP, a JOIN may come again that was underway before the answer was.
    fn is_repeated(&self, came: &Message, expected: &str) -> bool {
        if !self.cookies {
            return false;
        }
        let mut asked = self.asked.borrow_mut();
        if asked.iter().any(|m| m.told() == came.told()) {
            return expected != came.told();
        }
        if came.kind == JOIN {
            asked.push(came.clone());
        }
        false
    }

    /// Nobody is told what it did itself.
    #[track_caller]
    fn is_not_its_own(&self, expected: &str, came: &Message) {
        let own = !came.sender.is_empty() && came.sender == *self.name.borrow();
        if own && matches!(came.kind, JOIN | TEXT | LEAVE) {
            self.fails(expected, &format!("{}: that was itself", came.told()));
        }
    }

    #[track_caller]
    fn message(&self, expected: &str) -> Message {
        self.message_and_time(expected).0
    }

    #[track_caller]
    pub(super) fn message_and_time(&self, expected: &str) -> (Message, Instant) {
        match self.arrives(expected) {
            (Event::Message(message), when) => (message, when),
            (other, _) => self.fails(expected, &other.told()),
        }
    }

    /// The first about `whom`. What comes before it about others is set aside.
    #[track_caller]
    fn next_about(&self, whom: &[u8], expected: &str) -> Event {
        let put = self.aside.borrow().iter().position(|event| about(event) == whom);
        if let Some(came) = put.and_then(|at| self.aside.borrow_mut().remove(at)) {
            return came;
        }
        loop {
            let (came, _) = self.arrives(expected);
            // A line that is about nobody can't be set aside.
            if about(&came) == whom || self.lines && about(&came).is_empty() {
                return came;
            }
            self.story.step(&self.who, format!("{} (for later)", came.told()));
            self.aside.borrow_mut().push_back(came);
        }
    }

    #[track_caller]
    fn message_about(&self, whom: &[u8], expected: &str) -> Message {
        match self.next_about(whom, expected) {
            Event::Message(message) => message,
            other => self.fails(expected, &other.told()),
        }
    }

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
    /// order, so messages about others are set aside until they are asked for.
    #[track_caller]
    pub fn gets(&self, expected: &Message) -> Message {
        let whom = about(&Event::Message(expected.clone()));
        let came = self.message_about(&whom, &expected.told());
        self.compare(expected, &came);
        came
    }

    /// The next about `name` must be its LEAVE, whatever the reason: that is a
    /// rule of its own.
    #[track_caller]
    pub fn gets_leave(&self, name: &str) {
        let expected = format!("LEAVE {name}, for whatever reason");
        let came = self.message_about(name.as_bytes(), &expected);
        self.must_be(came.kind == LEAVE, &expected, &came);
        self.notice(&came);
    }

    #[track_caller]
    fn must_be(&self, right: bool, expected: &str, came: &Message) {
        if !right {
            self.fails(expected, &came.told());
        }
        self.ok(&came.told());
    }

    /// Whether something about `name` has come, and was set aside.
    pub fn has_news_of(&self, name: &str) -> bool {
        self.aside.borrow().iter().any(|event| about(event) == name.as_bytes())
    }

    /// The next message must be an ERROR. Its words are free, but there must be
    /// some.
    #[track_caller]
    pub fn gets_error(&self, why: &str) -> String {
        let expected = format!("ERROR \"...\", {why}");
        let came = self.any_message(&expected);
        self.must_be(came.kind == ERROR && !came.body.is_empty(), &expected, &came);
        String::from_utf8_lossy(&came.body).into_owned()
    }

    /// The next message must be of this kind.
    #[track_caller]
    pub fn gets_kind(&self, kind: u8, expected: &str) -> Message {
        let came = self.message(expected);
        if came.kind != kind {
            self.story.differs(&self.who, expected, &came.told());
        }
        self.ok(&self.bound(&came).told());
        came
    }

    /// Waits for any message, to count messages rather than compare them.
    /// Returns what the contract binds.
    #[track_caller]
    pub fn any_message(&self, waiting_for: &str) -> Message {
        let came = self.first_message(waiting_for);
        self.notice(&came);
        self.bound(&came)
    }

    #[track_caller]
    pub(super) fn first_message(&self, waiting_for: &str) -> Message {
        match self.aside.borrow_mut().pop_front() {
            Some(Event::Message(message)) => message,
            _ => self.message(waiting_for),
        }
    }

    /// Reads on until such a message comes; false if the stream ends before.
    #[track_caller]
    pub fn reads_until(&self, expected: &str, wanted: impl Fn(&Message) -> bool) -> bool {
        loop {
            match self.inbox.event_within(patience(), false) {
                Next::Some((Event::Message(came), _)) if wanted(&came) => return true,
                Next::Some((Event::Message(_), _)) => {}
                Next::Some(_) | Next::End(..) => return false,
                Next::Silence(rest) => self.fails(expected, &silence(&rest)),
            }
        }
    }

    /// Waits for the next ping, of the chat or of WebSocket. False: the
    /// connection has ended.
    #[track_caller]
    pub fn is_pinged(&self) -> bool {
        match self.inbox.only(|event| matches!(event, Event::Ping)) {
            Next::Some(Some(_)) => {
                self.ok("a ping");
                true
            }
            Next::Some(None) | Next::End(..) => false,
            Next::Silence(_) => self.fails("a ping", &silence(b"")),
        }
    }

    /// Takes the pings that have come so far; returns how many.
    pub fn pings(&self) -> usize {
        let next = || self.inbox.now(|event| matches!(event, Event::Ping));
        std::iter::from_fn(next).count()
    }

    /// The next ping must come.
    #[track_caller]
    pub fn gets_ping(&self) {
        if !self.is_pinged() {
            self.fails("a ping", "the end of the connection");
        }
    }

    /// The connection must end. How, is free: with a reset too.
    #[track_caller]
    pub fn ends(&self, why: &str) {
        if let Next::Silence(_) = self.rest() {
            let expected = format!("the end of the connection, {why}");
            self.fails(&expected, "nothing more, and no end");
        }
        self.ok("end of the connection");
    }

    /// Reads to the end of the stream. Nothing more may come but news of others
    /// that were not asked for yet: all else was not meant for this receiver.
    #[track_caller]
    pub fn expect_nothing_more(&self) {
        self.nothing_more(true);
    }

    #[track_caller]
    pub(super) fn nothing_more(&self, must_end: bool) {
        // A server that does not close once never does: wait for it only once.
        static LEFT_OPEN: AtomicBool = AtomicBool::new(false);
        let expected = "nothing more, then the end of the stream";
        loop {
            let wait = !must_end && LEFT_OPEN.load(Ordering::Relaxed);
            let wait = if wait { patience() / 10 } else { patience() };
            let aside = self.aside.borrow_mut().pop_front().map(|event| (event, None));
            let next = || match self.inbox.event_within(wait, self.lines) {
                Next::Some((event, when)) => Next::Some((event, Some(when))),
                Next::End(end, rest) => Next::End(end, rest),
                Next::Silence(rest) => Next::Silence(rest),
            };
            let came = match aside.map_or_else(next, Next::Some) {
                Next::Some((came, _)) => came,
                Next::End(End::Closed, rest) if rest.is_empty() => break,
                Next::End(end, rest) => self.fails(expected, &told(&end, &rest)),
                Next::Silence(rest) if rest.is_empty() && !must_end => {
                    LEFT_OPEN.store(true, Ordering::Relaxed);
                    self.story.step(&self.who, "nothing more");
                    return;
                }
                Next::Silence(rest) => {
                    self.story.because("the connection is still open: when a client has closed its half, has said LEAVE, or may not go on, send what is queued for it, and close it");
                    self.fails("the end of the stream", &silence(&rest))
                }
            };
            let is_news = match &came {
                Event::Line(line) => line.starts_with(b"* "),
                Event::Message(m) => matches!(m.kind, JOIN | LEAVE) && !m.sender.is_empty(),
                _ => false,
            };
            if !is_news {
                self.fails(expected, &format!("{}, which should not have come", came.told()));
            }
            match came {
                Event::Line(line) => {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    if self.notices.borrow().contains(&line) {
                        self.fails(expected, &format!("{} again", quote(line.as_bytes())));
                    }
                    self.notices.borrow_mut().push(line);
                }
                Event::Message(message) => {
                    self.is_not_its_own(expected, &message);
                    self.notice(&message);
                }
                _ => {}
            }
        }
        self.is_over.set(true);
        self.ok("end of stream");
    }

    /// What of a message the contract says: the rest is free.
    pub(super) fn bound(&self, message: &Message) -> Message {
        let Message { kind, sequence, sender, body, .. } = message.clone();
        let to_server = self.who.ends_with("server");
        let free_sender =
            matches!(kind, PING | PONG | ERROR | CHALLENGE) || to_server && kind != JOIN;
        let cookie = self.cookies && kind == JOIN;
        let free_body = matches!(kind, PING | PONG) || to_server && kind != TEXT && !cookie;
        Message {
            kind,
            sequence: if matches!(kind, TEXT | PING | PONG) { sequence } else { 0 },
            timestamp: 0,
            sender: if free_sender { Vec::new() } else { sender },
            body: if free_body { Vec::new() } else { body },
        }
    }

    #[track_caller]
    pub(super) fn compare(&self, expected: &Message, came: &Message) {
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
        self.ok(&came.told());
        if came.kind == WELCOME {
            self.name.borrow_mut().clone_from(&came.sender);
        }
        self.notice(&came);
    }

    /// Nobody comes or goes twice.
    #[track_caller]
    pub(super) fn notice(&self, came: &Message) {
        if !matches!(came.kind, JOIN | LEAVE) || self.cookies {
            return;
        }
        let name = quote(&came.sender);
        let (word, other) = if came.kind == JOIN { ("JOIN", "LEAVE") } else { ("LEAVE", "JOIN") };
        let mut notices = self.notices.borrow_mut();
        if notices.contains(&format!("{word} {name}")) {
            self.fails("that once", &format!("{} again", came.told()));
        }
        notices.retain(|notice| *notice != format!("{other} {name}"));
        notices.push(format!("{word} {name}"));
    }

    /// Its sequence must be 0: only TEXT, PING and PONG are numbered.
    #[track_caller]
    pub fn expect_no_number(&self, came: &Message) {
        if came.sequence != 0 {
            self.story.because("only TEXT, PING and PONG are numbered: in all other kinds the sequence (bytes 4 to 7 of the header) is 0");
            self.fails("sequence 0, in this kind of message", &came.told());
        }
    }

    /// Its time must be now, by a clock that may be a bit wrong.
    #[track_caller]
    pub fn expect_now(&self, came: &Message) {
        let (now, then) = (message::now(), came.timestamp);
        if now.abs_diff(then) > 5 * 60 * 1000 {
            self.story.because("the timestamp (bytes 8 to 15 of the header, the highest first) is the time by the server's own clock, in milliseconds since 1970-01-01T00:00:00Z, whatever a client has written there");
            let expected = format!("a timestamp of now, in milliseconds: about {now}");
            self.fails(&expected, &format!("{}, its timestamp is {then}", came.told()));
        }
    }

    /// Waits longer than usual for what comes next: a password takes work, and
    /// that is slow on purpose.
    pub fn in_time(&self) -> &Receiver {
        self.inbox.comes_within(patience() * 3);
        self
    }

    /// Whether nothing more is to come.
    pub fn has_ended(&self) -> bool {
        self.inbox.comes_within(Duration::ZERO) && self.so_far().is_empty()
    }
}
