//! Messages, as the contract draws them. Written a second time on purpose: the
//! grading must not share a mistake with what it grades.

use super::story::{escape, quote};
use std::time::{SystemTime, UNIX_EPOCH};

pub const JOIN: u8 = 1;
pub const TEXT: u8 = 2;
pub const LEAVE: u8 = 3;
pub const ERROR: u8 = 4;
pub const PING: u8 = 5;
pub const PONG: u8 = 6;
pub const WELCOME: u8 = 7;
pub const LOGIN: u8 = 8;
pub const CHALLENGE: u8 = 9;

pub const HEADER_BYTES: usize = 20;

/// One message. Sender and body are bytes: a test may send what is no text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub sequence: u32,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub timestamp: u64,
    pub sender: Vec<u8>,
    pub body: Vec<u8>,
}

/// A message of this kind; sequence and timestamp are 0.
pub fn message(kind: u8, sender: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Message {
    let (sender, body) = (sender.as_ref().to_vec(), body.as_ref().to_vec());
    Message { kind, sender, body, ..Message::default() }
}

/// TEXT number `sequence`, as a client sends it.
pub fn text(sequence: u32, body: impl AsRef<[u8]>) -> Message {
    Message { sequence, ..message(TEXT, "", body) }
}

/// JOIN, as a client sends it, and as the others get it.
pub fn join(name: impl AsRef<[u8]>) -> Message {
    message(JOIN, name, "")
}

/// LEAVE, as the others get it.
pub fn left(name: &str, why: &str) -> Message {
    message(LEAVE, name, why)
}

/// WELCOME, as a newcomer gets it.
pub fn welcome(name: &str, here: &str) -> Message {
    message(WELCOME, name, here)
}

/// ERROR, as a client gets it.
pub fn error(why: &str) -> Message {
    message(ERROR, "", why)
}

/// PING and PONG have a sequence.
pub fn ping(sequence: u32) -> Message {
    Message { sequence, ..message(PING, "", "") }
}

pub fn pong(sequence: u32) -> Message {
    Message { sequence, ..message(PONG, "", "") }
}

/// Now, in milliseconds since 1970-01-01T00:00:00Z.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

impl Message {
    /// The same, from this sender.
    pub fn by(self, sender: impl AsRef<[u8]>) -> Message {
        Message { sender: sender.as_ref().to_vec(), ..self }
    }

    /// The same, at this time.
    pub fn at(self, timestamp: u64) -> Message {
        Message { timestamp, ..self }
    }

    /// The bytes on the wire. Lengths that don't fit wrap: check them before.
    #[allow(clippy::cast_possible_truncation)]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![b'C', b'H', 1, self.kind];
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend((self.sender.len() as u16).to_be_bytes());
        bytes.extend((self.body.len() as u16).to_be_bytes());
        bytes.extend(&self.sender);
        bytes.extend(&self.body);
        bytes
    }

    /// The message at the start of `bytes`, and how many bytes it has; None
    /// where some are still to come. Err says what can't be a message.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>, String> {
        let magic = &bytes[..bytes.len().min(2)];
        if !b"CH".starts_with(magic) {
            return Err(format!("the magic must be \"CH\", not {}", quote(magic)));
        }
        let Some(header) = bytes.get(..HEADER_BYTES) else { return Ok(None) };
        if header[2] != 1 {
            return Err(format!("the version must be 1, not {}", header[2]));
        }
        if !(JOIN..=CHALLENGE).contains(&header[3]) {
            return Err(format!("there is no kind {}", header[3]));
        }
        let length = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
        let number = |from: usize, to: usize| {
            header[from..to].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let (sender, body) = (length(16), length(18));
        if sender > 32 || body > 4096 {
            let limits = "a sender has at most 32 bytes, a body 4096 (in network byte order)";
            return Err(format!("{limits}; announced are {sender} and {body}"));
        }
        let end = HEADER_BYTES + sender + body;
        if bytes.len() < end {
            return Ok(None);
        }
        let message = Message {
            kind: header[3],
            sequence: u32::try_from(number(4, 8)).unwrap_or(0),
            timestamp: number(8, 16),
            sender: bytes[HEADER_BYTES..HEADER_BYTES + sender].to_vec(),
            body: bytes[HEADER_BYTES + sender..end].to_vec(),
        };
        Ok(Some((message, end)))
    }

    /// The message in words, for the ladder: `TEXT 3 alice "hello"`.
    pub fn told(&self) -> String {
        let mut told = kind_name(self.kind).to_string();
        if self.sequence != 0 {
            told += &format!(" {}", self.sequence);
        }
        if !self.sender.is_empty() {
            // In quotes where it could be mistaken for what is around it.
            let plain = String::from_utf8_lossy(&self.sender).chars().all(char::is_alphanumeric);
            told.push(' ');
            told += &if plain { escape(&self.sender) } else { quote(&self.sender) };
        }
        if !self.body.is_empty() {
            told += &format!(" {}", quote(&self.body));
        }
        told
    }
}

/// The name of a kind.
pub fn kind_name(kind: u8) -> &'static str {
    let names = ["JOIN", "TEXT", "LEAVE", "ERROR", "PING", "PONG", "WELCOME", "LOGIN", "CHALLENGE"];
    names.get(usize::from(kind).wrapping_sub(1)).unwrap_or(&"unknown kind")
}

/// The fields of a header, each with the number of its bytes.
pub const FIELDS: [(&str, usize); 7] = [
    ("magic", 2),
    ("version", 1),
    ("kind", 1),
    ("sequence", 4),
    ("timestamp", 8),
    ("sender length", 2),
    ("body length", 2),
];

/// The fields of a header, or of what came in its place: their bytes in hex.
pub fn fields(bytes: &[u8]) -> String {
    let names = FIELDS.into_iter().chain([("sender, body", 16)]);
    let mut rest = bytes;
    let mut told = Vec::new();
    for (name, size) in names {
        let (field, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        if field.is_empty() {
            break;
        }
        let hex: Vec<String> = field.iter().map(|byte| format!("{byte:02x}")).collect();
        let more = if name == "sender, body" && !rest.is_empty() { " ..." } else { "" };
        let is_number = !matches!(name, "magic" | "sender, body");
        let number = || field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let value = if is_number { number().to_string() } else { quote(field) };
        told.push(format!("            {name:<13}  {}{more}  ({value})", hex.join(" ")));
    }
    told.join("\n")
}

/// Why two messages differ, where one field of the header alone does.
pub fn why_differs(expected: &Message, came: &Message) -> Option<&'static str> {
    let sequence = Message { sequence: expected.sequence, ..came.clone() } == *expected;
    let sender = Message { sender: expected.sender.clone(), ..came.clone() } == *expected;
    match expected.kind {
        TEXT if sequence => Some(
            "the sequence (bytes 4 to 7 of the header, the highest first) numbers a client's TEXTs from 1, and a server passes it on as it came, all 32 bits of it",
        ),
        PONG if sequence => Some(
            "PONG has the sequence of the PING that it answers (bytes 4 to 7 of the header, the highest first)",
        ),
        TEXT | JOIN | LEAVE if sender => Some(
            "the sender of what a server passes on is the name under which that connection has joined, as it was written there, whatever a client put into the header",
        ),
        _ => None,
    }
}
