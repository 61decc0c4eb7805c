//! Messages: a header of 20 bytes, a sender and a body. The format is the same
//! on TCP, on UDP and on WebSocket.
//!
//! Here is what a message is and how it becomes bytes; how bytes become a
//! message is in [`decode`](crate::chat::decode). Knows bytes, no sockets.
//! Introduced by step 06.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+---------------+---------------+
//! |          magic "CH"           |  version (1)  |     kind      |
//! +---------------+---------------+---------------+---------------+
//! |                           sequence                            |
//! +---------------------------------------------------------------+
//! |             timestamp: milliseconds since                     |
//! |             1970-01-01T00:00:00Z (64 bits)                    |
//! +-------------------------------+-------------------------------+
//! |         sender length         |          body length          |
//! +-------------------------------+-------------------------------+
//! |  sender (UTF-8)  ...          |  body (UTF-8)  ...            |
//! +-------------------------------+-------------------------------+
//! ```
//!
//! All integers are unsigned and big-endian: the byte with the highest value
//! comes first. This is called "network byte order" (RFC 791, appendix B). Lengths
//! count bytes, not characters.
//!
//! Lesson: [06_message_headers](../../../../../lessons/06_message_headers.md).

use std::time::{SystemTime, UNIX_EPOCH};

/// The length of a header, in bytes.
pub const HEADER_BYTES: usize = 20;

/// The longest sender, in bytes.
pub const MAX_SENDER_BYTES: usize = 32;

/// The longest body of a message on a stream, in bytes.
pub const MAX_BODY_BYTES: usize = 4096;

/// The longest datagram, in bytes. It fits into one packet of every usual
/// network: a packet may have at least 1280 bytes (RFC 8200, section 5), and 48
/// of them are the headers of IPv6 and UDP.
pub const MAX_DATAGRAM_BYTES: usize = 1200;

/// The longest body of a message in a datagram, in bytes: what the header and
/// the longest sender leave.
pub const MAX_DATAGRAM_BODY_BYTES: usize = MAX_DATAGRAM_BYTES - HEADER_BYTES - MAX_SENDER_BYTES;

/// The first two bytes of each message.
pub const MAGIC: [u8; 2] = *b"CH";

/// The version of the format, in the third byte.
pub const VERSION: u8 = 1;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A client asks for a name; the server tells who has joined.
    Join = 1,
    /// Somebody says something.
    Text,
    /// A client says goodbye; the server tells who has left, and why.
    Leave,
    /// The server tells what was wrong, for a person.
    Error,
    /// "Are you there?"
    Ping,
    /// "I am": the answer to a [`Ping`](Kind::Ping), with the same sequence.
    Pong,
    /// The server lets a client in, and tells who is here.
    Welcome,
    /// A client shows its password (step 10).
    Login,
    /// The server asks for a proof of the client's address (step 08).
    Challenge,
}

impl Kind {
    /// All kinds, in the order of their numbers, which begin with 1.
    pub const ALL: [Kind; 9] = [
        Kind::Join,
        Kind::Text,
        Kind::Leave,
        Kind::Error,
        Kind::Ping,
        Kind::Pong,
        Kind::Welcome,
        Kind::Login,
        Kind::Challenge,
    ];

    /// The kind with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// One message. Its texts are borrowed from the bytes that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is for.
    pub kind: Kind,
    /// Numbers one sender's TEXT messages from 1. A PONG repeats that of its
    /// PING. 0 in all others.
    pub sequence: u32,
    /// When it was sent, in milliseconds since 1970-01-01T00:00:00Z.
    pub timestamp: u64,
    /// A name, or nothing. At most [`MAX_SENDER_BYTES`].
    pub sender: &'a str,
    /// The text. At most [`MAX_BODY_BYTES`].
    pub body: &'a str,
}

impl<'a> Message<'a> {
    /// A message of this moment, with sequence 0.
    pub fn new(kind: Kind, sender: &'a str, body: &'a str) -> Message<'a> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Message { kind, sequence: 0, timestamp, sender, body }
    }

    /// The bytes of an ERROR, for a person.
    pub fn error(why: &str) -> Vec<u8> {
        Message::new(Kind::Error, "", why).to_bytes()
    }

    /// The PONG that answers a PING.
    pub fn pong(ping: &Message) -> Message<'static> {
        Message { sequence: ping.sequence, ..Message::new(Kind::Pong, "", "") }
    }

    /// Appends the bytes of this message to `wire`.
    ///
    /// # Panics
    ///
    /// When the sender or the body is over its limit. So check the length of what
    /// a person has typed.
    pub fn append_to(&self, wire: &mut Vec<u8>) {
        let length = |text: &str, limit| {
            assert!(text.len() <= limit, "{} bytes of text; the limit is {limit}", text.len());
            u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes()
        };
        let sender_length = length(self.sender, MAX_SENDER_BYTES);
        let body_length = length(self.body, MAX_BODY_BYTES);
        wire.extend_from_slice(&MAGIC);
        wire.extend_from_slice(&[VERSION, self.kind as u8]);
        wire.extend_from_slice(&self.sequence.to_be_bytes());
        wire.extend_from_slice(&self.timestamp.to_be_bytes());
        wire.extend_from_slice(&sender_length);
        wire.extend_from_slice(&body_length);
        wire.extend_from_slice(self.sender.as_bytes());
        wire.extend_from_slice(self.body.as_bytes());
    }

    /// The bytes of this message.
    ///
    /// # Panics
    ///
    /// As [`append_to`](Message::append_to).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(HEADER_BYTES + self.sender.len() + self.body.len());
        self.append_to(&mut wire);
        wire
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One message, byte by byte as the diagram has it.
    #[rustfmt::skip]
    pub const WIRE: [u8; 29] = [
        b'C', b'H', 1, 2,                // magic, version, kind TEXT
        0x01, 0x02, 0x03, 0x04,          // sequence 16,909,060
        0, 0, 0x01, 0x8b,                // timestamp 1,700,000,000,123:
        0xcf, 0xe5, 0x68, 0x7b,          // 2023-11-14T22:13:20.123Z
        0, 3, 0, 6,                      // 3 bytes of sender, 6 of body
        b'a', b'n', b'n',
        0xe2, 0x82, 0xac, b' ', b'h', b'i', // "€ hi": 4 characters, 6 bytes
    ];

    pub const MESSAGE: Message = Message {
        kind: Kind::Text,
        sequence: 16_909_060,
        timestamp: 1_700_000_000_123,
        sender: "ann",
        body: "\u{20ac} hi",
    };

    #[test]
    fn a_message_is_these_bytes_in_this_order() {
        assert_eq!(MESSAGE.to_bytes(), WIRE);
        for (number, kind) in (1..).zip(Kind::ALL) {
            assert_eq!(kind as u8, number);
            assert_eq!(Kind::from_number(number), Some(kind));
        }
        assert_eq!((Kind::from_number(0), Kind::from_number(10)), (None, None));
    }
}
