//! Requests in HTTP, and their answers: what the gradings of steps 09 and 10
//! need before a connection becomes a WebSocket.

use super::first::UPGRADES;
use super::inbox::{End, Inbox, Next};
use super::patience;
use super::peer::{Format, Peer, is_reset};
use super::program::Program;
use super::receiver::{silence, told};
use super::story::{Story, escape, quote};
use super::websocket::{KEYS, UPGRADE};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::thread::{self, JoinHandle};

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

    /// Connects and asks for the chat with this head, and with bytes after it in
    /// the same segment.
    #[track_caller]
    pub fn upgraded_by(&self, name: &str, head: &str, after: &[u8]) -> Peer {
        self.peer(name, self.switched(name, head, after))
    }

    /// The same, where all that is sent comes back.
    #[track_caller]
    pub fn echoing(&self, name: &str, head: &str) -> Peer {
        let stream = self.switched(name, head, b"");
        Peer::new(&self.story, name, "server", stream, Format::Echo)
    }

    /// Connects and asks for an upgrade, which must be granted. Nothing after
    /// the answer has been read.
    #[track_caller]
    pub(super) fn switched(&self, name: &str, head: &str, after: &[u8]) -> TcpStream {
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
    /// protocols. After all others the server closes.
    #[track_caller]
    pub fn answer(&self, name: &str, stream: &TcpStream) -> Answer {
        let mut answer = read_head(&self.story, format!("server --> {name}"), stream);
        if answer.status == 101 {
            return answer;
        }
        let (story, who) = (&self.story, &answer.who);
        stream.set_read_timeout(None).unwrap();
        match Inbox::of(stream.try_clone().unwrap(), ()).rest() {
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
