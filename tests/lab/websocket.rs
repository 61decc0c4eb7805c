//! The client's side of WebSocket (RFC 6455), and of the HTTP before it: what
//! the grading of step 09 needs. Written a second time on purpose: the grading
//! must not share a mistake with what it grades.

use super::feed::{End, Feed, Next};
use super::first::{UPGRADES, WELCOMES};
use super::message::{self, ERROR, JOIN, LEAVE, Message, join, welcome};
use super::peer::{Receiver, silence, told};
use super::program::Program;
use super::story::{Story, escape, quote};
use super::talk::{Talks, at_once, fill};
use super::{patience, system};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

// The first byte of a frame: FIN, and what it is (section 5.2).
/// More of a message that has begun.
pub const MORE: u8 = 0x00;
/// The first part of a message of text, and of one of bytes.
pub const FIRST_TEXT: u8 = 0x01;
pub const FIRST_BINARY: u8 = 0x02;
/// The last part of a message.
pub const LAST: u8 = 0x80;
/// A whole message of text, and of bytes.
pub const TEXT_FRAME: u8 = 0x81;
pub const BINARY: u8 = 0x82;
/// Control frames.
pub const CLOSE: u8 = 0x88;
pub const PING_FRAME: u8 = 0x89;
pub const PONG_FRAME: u8 = 0x8a;

/// In place of the code of a close frame that has none (section 7.1.5).
pub const NO_CODE: u16 = 1005;
/// How a server may close when nothing was wrong.
pub const GOODBYES: [u16; 3] = [1000, 1001, NO_CODE];

/// Keys, and how they are answered. The first is RFC 6455's own (section 1.3).
pub const KEYS: [(&str, &str); 5] = [
    ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ("fok9obWpd/sXaQch9uj8vg==", "5dMEKqNQrgsm77Ux4nIhScnoEGU="),
    ("iT2htal3+xdpByH26Py+cA==", "Y8Su3xqNtnq29RJcYKKPYCLlUzc="),
    ("PaG1qXf7F2kHIfbo/L5wKQ==", "SrG4nPgaICIxpJeY0GKmxRDhnlc="),
    ("+xdpByH26Py+cCkcfGFBEg==", "czdqZrsZJ5T8XPRTlCbJNQkHAI0="),
];

/// The fields of an upgrade, as a browser sends them.
pub const UPGRADE: [&str; 4] = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];

/// A server's answer in HTTP.
pub struct Answer {
    story: Rc<Story>,
    /// `server --> somebody`.
    who: String,
    status: u16,
    fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the connection ended with a reset after it.
    pub reset: bool,
}

impl Answer {
    /// The values of a field, whatever the case of its name.
    pub fn field(&self, name: &str) -> String {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        let values: Vec<&str> =
            self.fields.iter().filter(same).map(|(_, value)| value.as_str()).collect();
        values.join(", ")
    }

    /// One of a field's values, which commas separate, must be this.
    #[track_caller]
    pub fn must_have(&self, name: &str, value: &str) {
        let came = self.field(name);
        if !came.split(',').any(|v| v.trim().eq_ignore_ascii_case(value)) {
            let (expected, received) = (format!("{name}: {value}"), format!("{name}: {came}"));
            self.story.fails(&self.who, &expected, &received);
        }
    }

    /// The status must be one of these.
    #[track_caller]
    pub fn must_be(&self, statuses: &[u16]) {
        let mut told = format!("HTTP {}", self.status);
        if !self.body.is_empty() {
            told += &format!(", and {} bytes", self.body.len());
        }
        if !statuses.contains(&self.status) {
            let expected: Vec<String> = statuses.iter().map(|s| format!("HTTP {s}")).collect();
            let received = format!("{told}: {}", quote(&self.body));
            self.story.fails(&self.who, &expected.join(" or "), &received);
        }
        self.story.step(&self.who, format!("{told} ok"));
    }

    /// It must grant an upgrade (section 4.1) whose key was this.
    #[track_caller]
    pub fn grants(&self, key: &str, accept: &str) {
        self.must_be(&[101]);
        let came = self.field("Sec-WebSocket-Accept");
        if came != accept {
            let expected =
                format!("Sec-WebSocket-Accept: {accept}, as the answer to the key {key}");
            self.story.fails(&self.who, &expected, &format!("Sec-WebSocket-Accept: {came}"));
        }
        self.must_have("Upgrade", "websocket");
        self.must_have("Connection", "Upgrade");
        for name in ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"] {
            let came = self.field(name);
            if !came.is_empty() {
                self.story.because("the server can only agree to what the client has asked for");
                let expected = format!("no {name}: none was asked for");
                self.story.fails(&self.who, &expected, &format!("{name}: {came}"));
            }
        }
    }
}

impl Program {
    /// The head of a request to this server, with its Host.
    pub fn head(&self, line: &str, fields: &[&str]) -> String {
        let mut head = format!("{line}\r\nHost: {}\r\n", self.address);
        for field in fields {
            let _ = write!(head, "{field}\r\n");
        }
        head + "\r\n"
    }

    /// The same for GET.
    pub fn get(&self, path: &str, fields: &[&str]) -> String {
        self.head(&format!("GET {path} HTTP/1.1"), fields)
    }

    /// Sends a request from a connection of its own, and waits for the answer.
    #[track_caller]
    pub fn asked(&self, head: impl AsRef<[u8]>) -> Answer {
        let stream = self.connect_stream();
        self.sends_head("somebody", &stream, head.as_ref(), b"");
        self.answer("somebody", &stream)
    }

    /// The same; the answer must have this status, and a body.
    #[track_caller]
    pub fn refuses(&self, status: u16, head: impl AsRef<[u8]>) -> Answer {
        let answer = self.asked(head);
        answer.must_be(&[status]);
        if answer.body.trim_ascii().is_empty() {
            let expected = format!("HTTP {status} with a line that says why");
            self.story.fails(&answer.who, &expected, "no body");
        }
        answer
    }

    /// The same for a request that has more bytes than anybody would read.
    #[track_caller]
    pub fn refuses_flood(&self, status: u16, head: &str) -> Answer {
        let stream = self.connect_stream();
        self.story.step("somebody --> server", shown(head.as_bytes()));
        let sending = self.floods(&stream, head.as_bytes());
        let mut answer = self.answer("somebody", &stream);
        answer.must_be(&[status]);
        let _ = stream.shutdown(Shutdown::Both);
        answer.reset |= sending.join().unwrap();
        answer
    }

    /// Sends more than the system takes at once, and the first of it before the
    /// program can look. The thread returns whether it met a reset: the system
    /// tells that only once, to the thread that reads or to the one that writes.
    pub fn floods(&self, stream: &TcpStream, bytes: &[u8]) -> JoinHandle<bool> {
        let (first, rest) = bytes.split_at(bytes.len().min(32 * 1024));
        let (mut stream, rest) = (stream.try_clone().unwrap(), rest.to_vec());
        self.freeze();
        let _ = stream.write_all(first);
        self.thaw();
        thread::spawn(move || stream.write_all(&rest).is_err_and(|e| is_reset(&e)))
    }

    /// Connects, and asks for the chat as a browser does.
    #[track_caller]
    pub fn upgraded(&self, name: &str) -> Socket {
        self.upgraded_by(name, &self.get("/chat", &UPGRADE), &[])
    }

    /// The same with this head, and with bytes after it in the same segment.
    #[track_caller]
    pub fn upgraded_by(&self, name: &str, head: &str, after: &[u8]) -> Socket {
        Socket::new(&self.story, name, self.switched(name, head, after), false)
    }

    /// The same, where all that is sent comes back.
    #[track_caller]
    pub fn echoing(&self, name: &str, head: &str) -> Socket {
        Socket::new(&self.story, name, self.switched(name, head, b""), true)
    }

    /// Connects and asks for an upgrade, which must be granted. Nothing after
    /// the answer has been read.
    #[track_caller]
    fn switched(&self, name: &str, head: &str, after: &[u8]) -> TcpStream {
        if self.step == "09_websocket_chat" {
            self.story.needs(&UPGRADES, &self.step);
        }
        let stream = self.connect_stream();
        self.sends_head(name, &stream, head.as_bytes(), after);
        self.answer(name, &stream).grants(KEYS[0].0, KEYS[0].1);
        stream
    }

    #[track_caller]
    fn sends_head(&self, name: &str, stream: &TcpStream, head: &[u8], after: &[u8]) {
        let more = if after.is_empty() { "" } else { ", and frames (in one piece)" };
        self.story.step(format!("{name} --> server"), shown(head) + more);
        stream.set_nodelay(true).unwrap();
        // If it fails, there is no answer either.
        let _ = { stream }.write_all(&[head, after].concat());
    }

    /// Waits for an answer, and reads not a byte more where it switches
    /// protocols. Behind all others the server closes.
    #[track_caller]
    pub fn answer(&self, name: &str, stream: &TcpStream) -> Answer {
        let mut answer = read_head(&self.story, format!("server --> {name}"), stream);
        if answer.status == 101 {
            return answer;
        }
        let (story, who) = (&self.story, &answer.who);
        stream.set_read_timeout(None).unwrap();
        match Feed::new(stream.try_clone().unwrap()).rest() {
            Next::End(end, body) => {
                answer.reset = end != End::Closed;
                answer.body = body;
            }
            Next::Some(body) | Next::Silence(body) => {
                let came = format!("HTTP {}, {}", answer.status, silence(&body));
                story.because("the connection is still open: after an answer that is not 101, the server closes it");
                story.fails(who, "an answer, and the end of the stream", &came)
            }
        }
        let (announced, came) = (answer.field("Content-Length"), answer.body.len());
        if !announced.is_empty() && announced != came.to_string() {
            let expected = format!("{announced} bytes after the head, as its Content-Length says");
            story.fails(who, &expected, &format!("{came} bytes, then the end"));
        }
        answer
    }

    /// Joins the room under `name`, where then these are `here`.
    #[track_caller]
    pub fn lets_in(&self, name: &str, here: &str) -> Socket {
        self.story.needs(&WELCOMES, &self.step);
        let socket = self.upgraded(name);
        socket.say(&join(name));
        socket.gets_next(&welcome(name, here));
        socket
    }

    /// Fills an empty room: see [`fill`].
    #[track_caller]
    pub fn lets_in_all<const N: usize>(&self, names: [&str; N]) -> [Socket; N] {
        fill(names, |name, here| self.lets_in(name, here))
    }

    /// Asks to be let in, and leaves the reading (or not reading) to the test.
    #[track_caller]
    pub fn lets_in_stream(&self, name: &str) -> TcpStream {
        let stream = self.switched(name, &self.get("/chat", &UPGRADE), b"");
        self.story.step(format!("{name} --> server"), join(name).told());
        let _ = (&stream).write_all(&masked(BINARY, *b"mask", &join(name).bytes()));
        stream
    }
}

/// A request in the story: its first line, what decides about an upgrade, and how
/// long it is.
fn shown(head: &[u8]) -> String {
    let text = String::from_utf8_lossy(head);
    let short = |line: &str| escape(&line.as_bytes()[..line.len().min(60)]);
    let mut told = short(text.split(['\r', '\n']).next().unwrap_or(""));
    for line in text.lines().skip(1).take(20) {
        let name = line.split(':').next().unwrap_or("");
        if ["host", "origin"].iter().any(|decides| name.eq_ignore_ascii_case(decides)) {
            told += &format!(", {}", short(line));
        }
    }
    format!("{told} ({} bytes)", head.len())
}

/// Reads the head of an answer, byte by byte: what comes after it stays.
#[track_caller]
fn read_head(story: &Rc<Story>, who: String, mut stream: &TcpStream) -> Answer {
    let expected = "an answer in HTTP/1.1: a line with a status, fields, an empty line; CR LF ends each of them";
    stream.set_read_timeout(Some(patience())).unwrap();
    let (mut came, mut byte) = (Vec::new(), [0]);
    while !came.ends_with(b"\r\n\r\n") {
        let why = match stream.read(&mut byte) {
            Ok(0) => told(&End::Closed, &came),
            Ok(_) => {
                came.push(byte[0]);
                continue;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                silence(&came)
            }
            Err(e) => told(&End::Failed(e.to_string()), &came),
        };
        story.fails(&who, expected, &why);
    }
    let head = String::from_utf8_lossy(&came).into_owned();
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let first = lines.next().unwrap_or("");
    let mut words = first.splitn(3, ' ');
    let version = words.next().filter(|version| version.starts_with("HTTP/1."));
    let status = words.next().filter(|s| s.len() == 3).and_then(|s| s.parse().ok());
    let (Some(_), Some(status)) = (version, status) else {
        story.fails(&who, expected, &quote(first.as_bytes()))
    };
    let mut fields = Vec::new();
    for line in lines {
        // A browser refuses an answer with a lone LF (Python's encodebytes adds one).
        if line.contains(['\r', '\n']) {
            story.fails(
                &who,
                "CR LF at the end of each line, and no other CR or LF",
                &quote(line.as_bytes()),
            );
        }
        match line.split_once(':') {
            Some((name, value)) if !name.is_empty() && !name.contains([' ', '\t', '\n']) => {
                fields.push((name.to_string(), value.trim().to_string()));
            }
            _ => story.fails(&who, "fields of the form `Name: value`", &quote(line.as_bytes())),
        }
    }
    Answer { story: Rc::clone(story), who, status, fields, body: Vec::new(), reset: false }
}

/// A frame as a client sends it: masked (section 5.3).
pub fn masked(first: u8, key: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = unmasked(first, payload);
    let start = frame.len() - payload.len();
    frame[1] |= 0x80;
    for (n, byte) in frame[start..].iter_mut().enumerate() {
        *byte ^= key[n % 4];
    }
    frame.splice(start..start, key);
    frame
}

/// A frame as only a server may send it.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => frame.push(short),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// The header of a masked frame whose payload has so many bytes, in 64 bits.
pub fn announced(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat()
}

/// The first frame in words, and in hex: `binary, FIN, masked, 25 bytes (82 99 ...)`.
pub fn told_frame(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().take(16).map(|b| format!("{b:02x}")).collect();
    let hex = hex.join(" ") + if bytes.len() > 16 { " ..." } else { "" };
    let [first, second, rest @ ..] = bytes else { return hex };
    let name = match first & 0x0f {
        0 => "continuation",
        1 => "text",
        2 => "binary",
        8 => "close",
        9 => "ping",
        10 => "pong",
        _ => "an unknown opcode",
    };
    let bits = [(0x80, ", FIN"), (0x40, ", RSV1"), (0x20, ", RSV2"), (0x10, ", RSV3")];
    let set: String =
        bits.iter().filter(|(bit, _)| first & bit != 0).map(|(_, name)| *name).collect();
    let masked = if second & 0x80 == 0 { "not masked" } else { "masked" };
    let (short, long) = (second & 0x7f, more_length(*second));
    let length = rest.get(..long).map_or(0, number);
    let length = if long == 0 { u64::from(short) } else { length };
    format!("{name}{set}, {masked}, {length} bytes ({hex})")
}

/// How many bytes of a length come after the first two bytes of a frame.
fn more_length(second: u8) -> usize {
    match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What both know: the test, and the thread that reads.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools)]
struct State {
    /// Where the masking keys come from.
    key: u64,
    /// Whether pings are left unanswered, and the server's close frame.
    silent: bool,
    /// How many pings have come, and how many of them were looked at.
    pings: usize,
    pings_seen: usize,
    pongs: VecDeque<Vec<u8>>,
    /// Whether a pong is one too many.
    wants_no_pong: bool,
    /// In the middle of a frame of the test: the pongs that wait for its end.
    waiting: Option<Vec<u8>>,
    /// Whether a close frame was sent, and the code of the one that came.
    said_close: bool,
    close: Option<u16>,
    /// No more frames come.
    over: bool,
    /// The stream has ended, so many bytes after the close frame.
    ended: Option<usize>,
    /// The system tells of a reset only once: to the thread that reads or writes next.
    met_reset: bool,
}

struct Line {
    stream: TcpStream,
    state: Mutex<State>,
    changed: Condvar,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `wanted` finds what it looks for.
    fn wait<T>(&self, wanted: impl Fn(&mut State) -> Option<T>) -> Option<T> {
        let until = Instant::now() + patience();
        let mut state = self.state();
        loop {
            if let Some(found) = wanted(&mut state) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a control frame, now or when the test has finished its frame.
    fn answers(&self, first: u8, payload: &[u8]) {
        let mut state = self.state();
        let frame = masked(first, state.next_key(), payload);
        if let Some(waiting) = &mut state.waiting {
            waiting.extend(frame);
        } else {
            // If the connection is over, its receiver learns of it.
            let reset = (&self.stream).write_all(&frame).is_err_and(|e| is_reset(&e));
            state.met_reset |= reset;
        }
    }
}

impl State {
    fn next_key(&mut self) -> [u8; 4] {
        // George Marsaglia's xorshift, enough for masks.
        self.key ^= self.key << 13;
        self.key ^= self.key >> 7;
        self.key ^= self.key << 17;
        let [a, b, c, d, ..] = self.key.to_be_bytes();
        [a, b, c, d]
    }
}

/// Takes the frames off what comes. Of a chat it passes on the messages, of an
/// echo the opcode, the length in 64 bits, and the bytes of each message. What
/// a server must not send is an error, and so is its close frame.
struct Frames {
    stream: TcpStream,
    line: Arc<Line>,
    echo: bool,
    came: Vec<u8>,
    /// A message that has begun: its opcode and what has come of it.
    begun: Option<(u8, Vec<u8>)>,
    ready: VecDeque<u8>,
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.ready.is_empty() {
                return self.ready.read(buffer);
            }
            if let Some((first, payload)) = self.frame()? {
                self.take(first, payload)?;
                continue;
            }
            match self.stream.read(buffer)? {
                0 if self.came.is_empty() && self.begun.is_none() => return Ok(0),
                0 => return wrong("the end of the stream, inside a frame or a message"),
                count => self.came.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionReset
}

fn wrong<T>(why: impl Into<String>) -> io::Result<T> {
    Err(io::Error::other(why.into()))
}

impl Frames {
    /// The first frame that has come, if all of it has.
    fn frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let [first, second, rest @ ..] = self.came.as_slice() else { return Ok(None) };
        let wrong = |why: &str| wrong(format!("{why}: {}", told_frame(&self.came)));
        if first & 0x70 != 0 {
            return wrong("a frame with a reserved bit: no extension was agreed on");
        }
        if second & 0x80 != 0 {
            return wrong("a masked frame: only clients mask");
        }
        let is_control = first & 0x08 != 0;
        if is_control && (first & 0x80 == 0 || *second > 125) {
            return wrong("a control frame of more than 125 bytes, or without FIN");
        }
        let more = more_length(*second);
        let Some(long) = rest.get(..more) else { return Ok(None) };
        let length = if more == 0 { u64::from(*second) } else { number(long) };
        if more == 2 && length < 126 || more == 8 && length < 65536 {
            return wrong("a frame whose length has more bytes than it needs");
        }
        let Some(length) = usize::try_from(length).ok().filter(|l| *l <= 64 * 1024 * 1024) else {
            return wrong("a frame that announces too much");
        };
        let Some(payload) = rest.get(more..more + length) else { return Ok(None) };
        let frame = (*first, payload.to_vec());
        self.came.drain(..2 + more + length);
        Ok(Some(frame))
    }

    fn take(&mut self, first: u8, payload: Vec<u8>) -> io::Result<()> {
        match first {
            PING_FRAME => {
                let mut state = self.line.state();
                state.pings += 1;
                let silent = state.silent;
                drop(state);
                self.line.changed.notify_all();
                if !silent {
                    self.line.answers(PONG_FRAME, &payload);
                }
                Ok(())
            }
            PONG_FRAME => {
                let mut state = self.line.state();
                if state.wants_no_pong {
                    return wrong("a pong: it goes on with what comes after that");
                }
                state.pongs.push_back(payload);
                drop(state);
                self.line.changed.notify_all();
                Ok(())
            }
            CLOSE => self.close(&payload),
            _ => self.data(first, payload),
        }
    }

    fn data(&mut self, first: u8, payload: Vec<u8>) -> io::Result<()> {
        let (opcode, message) = match (first & 0x0f, self.begun.take()) {
            (0, None) => return wrong("a continuation of nothing"),
            (0, Some((opcode, mut message))) => {
                message.extend(payload);
                (opcode, message)
            }
            (1 | 2, Some(_)) => return wrong("a new message before the one before has ended"),
            (2, None) => (2, payload),
            (1, None) if self.echo => (1, payload),
            (1, None) => {
                return wrong(format!(
                    "a frame of text: {}; each message of the chat is a binary one",
                    quote(&payload)
                ));
            }
            _ => return wrong(format!("a frame with the unknown opcode {}", first & 0x0f)),
        };
        if first & 0x80 == 0 {
            self.begun = Some((opcode, message));
            return Ok(());
        }
        if self.echo {
            self.ready.push_back(opcode);
            self.ready.extend((message.len() as u64).to_be_bytes());
            self.ready.extend(message);
            return Ok(());
        }
        let why = match Message::parse(&message) {
            Ok(Some((_, size))) if size == message.len() => {
                self.ready.extend(message);
                return Ok(());
            }
            Ok(Some((first, _))) => format!("more than one: {}, and more", first.told()),
            Ok(None) => format!("{} bytes of a message, and not all", message.len()),
            Err(why) => why,
        };
        wrong(format!("a binary message that is not one message of the chat: {why}"))
    }

    fn close(&mut self, payload: &[u8]) -> io::Result<()> {
        let code = match payload {
            [] => NO_CODE,
            [_] => return wrong("a close frame of one byte: a code has two"),
            [high, low, reason @ ..] => {
                if std::str::from_utf8(reason).is_err() {
                    return wrong("a close frame whose reason is not UTF-8");
                }
                let code = u16::from_be_bytes([*high, *low]);
                if !(matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)) {
                    return wrong(format!("close {code}, a code that may not be sent"));
                }
                code
            }
        };
        let mut state = self.line.state();
        state.close = Some(code);
        let answers = !state.said_close && !state.silent;
        state.said_close |= answers;
        drop(state);
        if answers {
            self.line.answers(CLOSE, payload);
        }
        // Its end is awaited by somebody else: for the receiver it ends here.
        let (mut stream, line) = (self.stream.try_clone()?, Arc::clone(&self.line));
        let mut after = std::mem::take(&mut self.came).len();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            let end = loop {
                match stream.read(&mut buffer) {
                    Ok(count @ 1..) => after += count,
                    end => break end,
                }
            };
            let mut state = line.state();
            state.ended = Some(after);
            state.met_reset |= end.is_err_and(|e| is_reset(&e));
            if !state.silent {
                // As a browser does.
                let _ = stream.shutdown(Shutdown::Both);
            }
            drop(state);
            line.changed.notify_all();
        });
        wrong(told_close(code))
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let mut state = self.line.state();
        state.over = true;
        if state.close.is_none() {
            state.ended = Some(0);
        }
        drop(state);
        self.line.changed.notify_all();
    }
}

fn told_close(code: u16) -> String {
    if code == NO_CODE { "close, without a code".into() } else { format!("close {code}") }
}

/// The client's end of a WebSocket. It reads all the time, in a thread of its
/// own, and answers pings and the server's close frame: nobody ever waits for
/// the test.
pub struct Socket {
    receiving: Receiver,
    me: String,
    echo: bool,
    pub stream: TcpStream,
    line: Arc<Line>,
}

impl Deref for Socket {
    type Target = Receiver;

    fn deref(&self) -> &Receiver {
        &self.receiving
    }
}

impl Talks for Socket {
    /// Each in a frame of its own.
    #[track_caller]
    fn sends_all(&self, what: String, messages: &[Message]) {
        let bytes: Vec<u8> = messages.iter().flat_map(|m| self.framed(m)).collect();
        self.sends(what, &bytes);
    }
}

impl Socket {
    /// Takes over a stream after the handshake.
    pub fn new(story: &Rc<Story>, me: &str, stream: TcpStream, echo: bool) -> Socket {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(None).unwrap();
        stream.set_write_timeout(Some(patience())).unwrap();
        let key = story.number(1 << 30) as u64 + 1;
        let state = Mutex::new(State { key: key << 20 | 1, ..State::default() });
        let line =
            Arc::new(Line { stream: stream.try_clone().unwrap(), state, changed: Condvar::new() });
        let frames = Frames {
            stream: stream.try_clone().unwrap(),
            line: Arc::clone(&line),
            echo,
            came: Vec::new(),
            begun: None,
            ready: VecDeque::new(),
        };
        let receiving = Receiver::new(story, format!("server --> {me}"), Feed::new(frames));
        Socket { receiving, me: me.to_string(), echo, stream, line }
    }

    fn who(&self) -> String {
        format!("{} --> server", self.me)
    }

    /// From now on it answers neither pings nor the server's close frame.
    pub fn falls_silent(&self) {
        self.receiving.story.step(&self.me, "answers no ping and no close frame");
        self.line.state().silent = true;
    }

    // --- what it sends ---

    /// A masked frame.
    pub fn frame(&self, first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
        masked(first, self.line.state().next_key(), payload.as_ref())
    }

    /// A message as it crosses.
    pub fn framed(&self, message: &Message) -> Vec<u8> {
        self.frame(BINARY, message.bytes())
    }

    /// Sends whole frames, in one piece if they are few.
    #[track_caller]
    pub fn sends(&self, what: impl Into<String>, frames: &[u8]) {
        self.write(what, frames, false);
    }

    /// Sends a part of a frame. If more follows, waits until the program has
    /// read it: what comes next is found by another read.
    #[track_caller]
    pub fn sends_part(&self, what: impl Into<String>, part: &[u8], is_last: bool) {
        self.write(what, part, !is_last);
        if !is_last {
            system::drained(&self.stream);
        }
    }

    #[track_caller]
    fn write(&self, what: impl Into<String>, bytes: &[u8], unfinished: bool) {
        self.receiving.story.step(self.who(), what);
        let mut state = self.line.state();
        let mut result = (&self.stream).write_all(bytes);
        if unfinished {
            state.waiting.get_or_insert_default();
        } else if let Some(waiting) = state.waiting.take() {
            result = result.and_then(|()| (&self.stream).write_all(&waiting));
        }
        drop(state);
        if let Err(e) = result {
            let expected = format!("the server takes what {} sends", self.me);
            self.receiving.story.fails(&self.who(), &expected, &e.to_string());
        }
    }

    /// Sends what the server may not take any more.
    pub fn tries(&self, frames: &[u8]) {
        let _state = self.line.state();
        let _ = (&self.stream).write_all(frames);
    }

    /// Sends a message: one frame, in one piece.
    #[track_caller]
    pub fn say(&self, message: &Message) {
        self.sends(message.told(), &self.framed(message));
    }

    /// Sends several messages, each in its frame, in one piece.
    #[track_caller]
    pub fn say_at_once(&self, messages: &[Message]) {
        self.sends_all(at_once(messages), messages);
    }

    /// Sends a close frame.
    #[track_caller]
    pub fn closes(&self, code: u16, reason: &str) {
        self.line.state().said_close = true;
        let payload = closing(code, reason);
        self.sends(told_close(code), &self.frame(CLOSE, payload));
    }

    /// From now on a ping must not be answered any more.
    pub fn expects_no_pong(&self) {
        self.line.state().wants_no_pong = true;
    }

    /// Its own close frame is on its way: it does not answer the server's.
    pub fn has_said_close(&self) {
        self.line.state().said_close = true;
    }

    /// Closes the sending half: there will be no more from here.
    pub fn close_sending(&self) {
        self.receiving.story.step(self.who(), "end of stream");
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Says LEAVE; the server must close.
    #[track_caller]
    pub fn say_goodbye(&self) {
        self.say(&message::message(LEAVE, "", ""));
        self.gets_close(&GOODBYES);
    }

    // --- what it gets ---

    /// The server must close with one of these codes, and end the stream. News
    /// of others may come before it; an ERROR too, if that is no goodbye.
    #[track_caller]
    pub fn gets_close(&self, codes: &[u16]) {
        let told_codes: Vec<String> = codes.iter().map(|code| told_close(*code)).collect();
        let expected = told_codes.join(" or ");
        let (story, who) = (&self.receiving.story, &self.receiving.who);
        let rest = loop {
            let aside = self.receiving.messages.borrow_mut().pop_front();
            let came = match aside
                .map_or_else(|| self.receiving.feed.message(), |m| Next::Some(m.bytes()))
            {
                Next::Some(bytes) => bytes,
                Next::End(end, rest) => break told(&end, &rest),
                Next::Silence(rest) => break silence(&rest),
            };
            let Ok(Some((came, _))) = Message::parse(&came) else {
                // Of an echo: after opcode and length.
                let payload = came.get(9..).filter(|_| self.echo).unwrap_or(&came);
                break format!("{}, which should not have come", quote(payload));
            };
            let news = matches!(came.kind, JOIN | LEAVE) && !came.sender.is_empty();
            let complaint = came.kind == ERROR && !codes.contains(&1000);
            if !news && !complaint {
                break format!("{}, which should not have come", came.told());
            }
            story.step(who, format!("{} (let pass)", came.told()));
        };
        if self.line.state().close.is_none_or(|code| !codes.contains(&code)) {
            story.fails(who, &expected, &rest);
        }
        story.step(who, format!("{rest} ok"));
        match self.line.wait(|state| state.ended) {
            Some(0) => story.step(who, "end of stream ok"),
            Some(bytes) => {
                let expected = "nothing after the close frame but the end of the stream";
                story.fails(who, expected, &format!("{bytes} bytes more"));
            }
            None => {
                story.because("the connection is still open: when close frames have gone both ways, it is the server who ends the stream (RFC 6455, section 7.1.1); where no answer comes it does so after a moment");
                story.fails(who, "the end of the stream", "nothing more, and no end");
            }
        }
    }

    /// Whether the stream ended with a reset after the close frame.
    pub fn was_reset(&self) -> bool {
        self.line.state().met_reset
    }

    /// The connection must end. How, is free: with a reset too.
    #[track_caller]
    pub fn ends(&self, why: &str) {
        let (story, who) = (&self.receiving.story, &self.receiving.who);
        if self.line.wait(|state| state.ended).is_none() {
            let expected = format!("the end of the connection, {why}");
            story.fails(who, &expected, "nothing more, and no end");
        }
        story.step(who, "end of the connection ok");
    }

    /// The next pong must be this one.
    #[track_caller]
    pub fn gets_pong(&self, payload: &[u8]) {
        let (story, who) = (&self.receiving.story, &self.receiving.who);
        let expected = format!("a pong with {}", quote(payload));
        let came = self.line.wait(|state| match state.pongs.pop_front() {
            None if state.over => Some(None),
            None => None,
            pong => Some(pong),
        });
        match came {
            Some(Some(came)) if came == payload => story.step(who, format!("{expected} ok")),
            Some(Some(came)) => {
                story.differs(who, &expected, &format!("a pong with {}", quote(&came)))
            }
            Some(None) => {
                // What ended it comes after what was not listened to.
                let Next::End(end, _) = self.receiving.feed.rest() else { unreachable!() };
                story.fails(who, &expected, &told(&end, b""))
            }
            None => story.fails(who, &expected, &silence(b"")),
        }
    }

    /// Whether such a pong comes, sooner or later, before the connection ends.
    #[track_caller]
    pub fn ponged(&self, payload: &[u8]) -> bool {
        let came = self.line.wait(|state| {
            let pong = state.pongs.iter().any(|pong| pong == payload);
            (pong || state.over).then_some(pong)
        });
        let Some(came) = came else {
            let expected = format!("a pong with {}", quote(payload));
            self.receiving.story.fails(&self.receiving.who, &expected, &silence(b""));
        };
        came
    }

    /// No pong may have come that was not asked for.
    #[track_caller]
    pub fn has_no_pong(&self) {
        if let Some(pong) = self.line.state().pongs.pop_front() {
            let received = format!("one more, with {}", quote(&pong));
            self.receiving.story.fails(&self.receiving.who, "no more pongs than pings", &received);
        }
    }

    /// Waits for the next ping. False: the connection has ended.
    #[track_caller]
    pub fn pinged(&self) -> bool {
        let came = self.line.wait(|state| {
            let new = state.pings > state.pings_seen;
            state.pings_seen += usize::from(new);
            (new || state.over).then_some(new)
        });
        let (story, who) = (&self.receiving.story, &self.receiving.who);
        let Some(came) = came else {
            story.fails(who, "a ping", &silence(b""));
        };
        if came {
            story.step(who, "a ping ok");
        }
        came
    }

    /// The next ping must come.
    #[track_caller]
    pub fn gets_ping(&self) {
        if !self.pinged() {
            self.receiving.story.fails(&self.receiving.who, "a ping", "the end of the connection");
        }
    }

    /// The next message of an echo must be this one.
    #[track_caller]
    pub fn gets_back(&self, first: u8, payload: &[u8]) {
        let kind = |opcode| if opcode == 1 { "text" } else { "binary" };
        let (story, who) = (&self.receiving.story, &self.receiving.who);
        let expected = format!("{} {}", kind(first & 0x0f), quote(payload));
        let part = |count: usize| match self.receiving.feed.bytes(count) {
            Next::Some(bytes) => bytes,
            Next::End(end, _) => story.fails(who, &expected, &told(&end, b"")),
            Next::Silence(_) => story.fails(who, &expected, &silence(b"")),
        };
        let header = part(9);
        let length = header[1..].iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        let came = part(length);
        if header[0] != first & 0x0f {
            let came = format!("{} {}", kind(header[0]), quote(&came));
            story.fails(who, &expected, &came);
        }
        if came != payload {
            story.mismatch(who, payload, &came);
        }
        story.step(who, format!("{expected} ok"));
    }
}

/// The payload of a close frame.
pub fn closing(code: u16, reason: &str) -> Vec<u8> {
    if code == NO_CODE {
        return Vec::new();
    }
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The reading thread has the stream too: dropping ours closes nothing.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
