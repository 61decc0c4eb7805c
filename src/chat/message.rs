//! Messages: a header of 20 bytes, a sender, a body. The same on TCP, on UDP
//! and on WebSocket.
//!
//! Knows bytes and [`Read`], no sockets. Introduced by step 06.
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
//! comes first. That is "network byte order" (RFC 791, appendix B). Lengths
//! count bytes, not characters.

use std::io::{self, ErrorKind, Read};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, str};

/// The length of a header, in bytes.
pub const HEADER_BYTES: usize = 20;

/// The longest sender, in bytes.
pub const MAX_SENDER_BYTES: usize = 32;

/// The longest body of a message on a stream, in bytes.
pub const MAX_BODY_BYTES: usize = 4096;

/// The longest datagram, in bytes. It fits into one packet of every usual
/// network: those take 1280 bytes at least (RFC 8200, section 5), 48 of which
/// are the headers of IPv6 and UDP.
pub const MAX_DATAGRAM_BYTES: usize = 1200;

/// The longest body of a message in a datagram, in bytes: what the header and
/// the longest sender leave.
pub const MAX_DATAGRAM_BODY_BYTES: usize = MAX_DATAGRAM_BYTES - HEADER_BYTES - MAX_SENDER_BYTES;

const MAGIC: [u8; 2] = *b"CH";
const VERSION: u8 = 1;
/// Magic, version and kind: enough to see that this is no message at all.
const START_BYTES: usize = 4;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A client asks for a name; the server tells who has joined.
    Join = 1,
    /// Somebody says something.
    Text,
    /// A goodbye; the server tells who has left, and why.
    Leave,
    /// What was wrong, for a person.
    Error,
    /// Are you there?
    Ping,
    /// I am: the answer to [`Ping`](Kind::Ping), with the same sequence.
    Pong,
    /// The server lets a client in, and tells who is here.
    Welcome,
    /// A client shows its password (step 10).
    Login,
    /// The server asks for a proof of address (step 08).
    Challenge,
}

impl Kind {
    /// All kinds, in the order of their numbers, which begin with 1.
    const ALL: [Kind; 9] = [
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

    fn from_number(number: u8) -> Option<Kind> {
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

/// Why some bytes are no message: names the field, and what was expected.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> io::Error {
        io::Error::new(ErrorKind::InvalidData, malformed.0)
    }
}

impl<'a> Message<'a> {
    /// A message of this moment, with sequence 0.
    pub fn new(kind: Kind, sender: &'a str, body: &'a str) -> Message<'a> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Message { kind, sequence: 0, timestamp, sender, body }
    }

    /// The PONG that answers a PING.
    pub fn pong(ping: &Message) -> Message<'static> {
        Message { sequence: ping.sequence, ..Message::new(Kind::Pong, "", "") }
    }

    /// Reads the next message from a stream, into `buffer`. None where the
    /// stream ends between two messages.
    ///
    /// A stream knows no messages: one read may bring half of one, or three.
    /// So this reads exactly as many bytes as the header says, however many
    /// reads that takes; give it a [`BufReader`](io::BufReader). The lengths
    /// are checked before anything is allocated or read by them.
    ///
    /// # Errors
    ///
    /// - [`UnexpectedEof`](ErrorKind::UnexpectedEof): the stream has ended
    ///   inside a message.
    /// - [`InvalidData`](ErrorKind::InvalidData): this is no message, and the
    ///   error says why. Where the next one begins can't be known: end the
    ///   connection.
    /// - Others are those of reading.
    ///
    /// ```
    /// use socket_chat::chat::message::{Kind, Message};
    /// let mut wire: &[u8] = b"CH\x01\x02\0\0\0\x07\0\0\0\0\0\0\0\0\0\x03\0\x02annhi";
    /// let mut buffer = Vec::new();
    /// let message = Message::read(&mut wire, &mut buffer)?.expect("there is one");
    /// assert_eq!((message.kind, message.sequence), (Kind::Text, 7));
    /// assert_eq!((message.sender, message.body), ("ann", "hi"));
    /// assert_eq!(Message::read(&mut wire, &mut buffer)?, None);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn read(input: &mut impl Read, buffer: &'a mut Vec<u8>) -> io::Result<Option<Message<'a>>> {
        let mut header = [0; HEADER_BYTES];
        // No byte at all is an end between two messages. One is half a message.
        while match input.read(&mut header[..1]) {
            Ok(0) => return Ok(None),
            Err(e) if e.kind() == ErrorKind::Interrupted => true,
            read => read? == 0,
        } {}
        input.read_exact(&mut header[1..START_BYTES])?;
        // Who speaks another language may never send a whole header.
        check_start(&header)?;
        input.read_exact(&mut header[START_BYTES..])?;
        let (sender, body) = lengths(&header)?;
        buffer.resize(sender + body, 0);
        input.read_exact(buffer)?;
        Ok(Some(Message::of_parts(&header, buffer, sender)?))
    }

    /// Takes a datagram for a message: all of it, and nothing but it.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it. Unlike on a stream this spoils nothing: the
    /// next datagram has a beginning of its own.
    ///
    /// ```
    /// use socket_chat::chat::message::{Kind, Message};
    /// let ping = Message::from_datagram(b"CH\x01\x05\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0");
    /// assert_eq!(ping.map(|m| m.kind), Ok(Kind::Ping));
    /// assert!(Message::from_datagram(b"CH").is_err());
    /// ```
    pub fn from_datagram(datagram: &'a [u8]) -> Result<Message<'a>, Malformed> {
        Message::from_bytes(datagram, MAX_DATAGRAM_BODY_BYTES)
    }

    /// The same for whatever else keeps messages apart, with its own limit for
    /// the body.
    ///
    /// # Errors
    ///
    /// Says what is wrong.
    pub fn from_bytes(bytes: &'a [u8], max_body: usize) -> Result<Message<'a>, Malformed> {
        let Some((header, texts)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            let length = bytes.len();
            return Err(Malformed(format!("a header has {HEADER_BYTES} bytes, not {length}")));
        };
        check_start(header)?;
        let (sender, body) = lengths(header)?;
        check_limit("body length", body, max_body)?;
        if texts.len() != sender + body {
            return Err(Malformed(format!(
                "sender length and body length announce {} bytes, but {} follow: nothing else stands beside a message",
                sender + body,
                texts.len()
            )));
        }
        Message::of_parts(header, texts, sender)
    }

    /// Puts a checked header and what follows it together.
    fn of_parts(
        header: &[u8; HEADER_BYTES],
        texts: &'a [u8],
        sender: usize,
    ) -> Result<Message<'a>, Malformed> {
        let (sender, body) = texts.split_at(sender);
        let text = |field, bytes| {
            str::from_utf8(bytes).map_err(|_| Malformed(format!("the {field} is not UTF-8")))
        };
        let [_, _, _, kind, s0, s1, s2, s3, t0, t1, t2, t3, t4, t5, t6, t7, ..] = *header;
        Ok(Message {
            kind: Kind::from_number(kind).ok_or_else(|| unknown_kind(kind))?,
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            timestamp: u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            sender: text("sender", sender)?,
            body: text("body", body)?,
        })
    }

    /// Appends the bytes of this message to `wire`.
    ///
    /// # Panics
    ///
    /// When sender or body is over its limit: check what is typed before.
    pub fn append_to(&self, wire: &mut Vec<u8>) {
        let length = |text: &str, limit| {
            assert!(text.len() <= limit, "a text of {} bytes; the limit is {limit}", text.len());
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

/// The length of the message that `bytes` begin with, if it is all there.
/// Reading it won't wait for the network.
pub fn whole_length(bytes: &[u8]) -> Option<usize> {
    let (sender, body) = lengths(bytes.first_chunk()?).ok()?;
    Some(HEADER_BYTES + sender + body).filter(|length| *length <= bytes.len())
}

fn check_start(header: &[u8; HEADER_BYTES]) -> Result<(), Malformed> {
    let [c, h, version, kind, ..] = *header;
    if [c, h] != MAGIC {
        return Err(Malformed(format!("the magic is \"CH\", not \"{}\"", [c, h].escape_ascii())));
    }
    if version != VERSION {
        return Err(Malformed(format!(
            "version {version} is not spoken here; this program speaks version {VERSION}"
        )));
    }
    Kind::from_number(kind).map(|_| ()).ok_or_else(|| unknown_kind(kind))
}

fn unknown_kind(kind: u8) -> Malformed {
    Malformed(format!("kind {kind} is unknown; there are kinds 1 to {}", Kind::ALL.len()))
}

/// The lengths of sender and body, each within its limit.
fn lengths(header: &[u8; HEADER_BYTES]) -> Result<(usize, usize), Malformed> {
    let [.., s0, s1, b0, b1] = *header;
    let (sender, body) = (u16::from_be_bytes([s0, s1]).into(), u16::from_be_bytes([b0, b1]).into());
    check_limit("sender length", sender, MAX_SENDER_BYTES)?;
    check_limit("body length", body, MAX_BODY_BYTES)?;
    Ok((sender, body))
}

fn check_limit(field: &str, length: usize, limit: usize) -> Result<(), Malformed> {
    if length > limit {
        return Err(Malformed(format!("the {field} is {length}; the limit is {limit}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One message, byte by byte as the diagram has it.
    #[rustfmt::skip]
    const WIRE: [u8; 29] = [
        b'C', b'H', 1, 2,                // magic, version, kind TEXT
        0x01, 0x02, 0x03, 0x04,          // sequence 16,909,060
        0, 0, 0x01, 0x8b,                // timestamp 1,700,000,000,123:
        0xcf, 0xe5, 0x68, 0x7b,          // 2023-11-14T22:13:20.123Z
        0, 3, 0, 6,                      // 3 bytes of sender, 6 of body
        b'a', b'n', b'n',
        0xe2, 0x82, 0xac, b' ', b'h', b'i', // "€ hi": 4 characters, 6 bytes
    ];

    const MESSAGE: Message = Message {
        kind: Kind::Text,
        sequence: 16_909_060,
        timestamp: 1_700_000_000_123,
        sender: "ann",
        body: "\u{20ac} hi",
    };

    /// Reads like a network on a bad day: `size` bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let size = self.1.min(into.len());
            self.0.read(&mut into[..size])
        }
    }

    /// What a stream of these bytes begins with.
    fn read(bytes: &[u8], buffer: &mut Vec<u8>) -> Result<Option<(Kind, usize)>, ErrorKind> {
        let mut input = bytes;
        let message = Message::read(&mut input, buffer).map_err(|e| e.kind())?;
        Ok(message.map(|m| (m.kind, m.sender.len() + m.body.len())))
    }

    #[test]
    fn a_message_is_these_bytes_in_this_order() {
        assert_eq!(MESSAGE.to_bytes(), WIRE);
        assert_eq!(Message::from_datagram(&WIRE), Ok(MESSAGE));
        for (number, kind) in (1..).zip(Kind::ALL) {
            assert_eq!(kind as u8, number);
            assert_eq!(Kind::from_number(number), Some(kind));
        }
        assert_eq!((Kind::from_number(0), Kind::from_number(10)), (None, None));
    }

    #[test]
    fn a_message_is_the_same_however_it_arrives() {
        let two = [WIRE, WIRE].concat();
        for size in 1..=two.len() {
            let (mut input, mut buffer) = (Pieces(&two, size), Vec::new());
            for _ in 0..2 {
                let message = Message::read(&mut input, &mut buffer).expect("it is right");
                assert_eq!(message, Some(MESSAGE), "read {size} bytes at a time");
            }
            let end = Message::read(&mut input, &mut buffer).expect("it is the end");
            assert_eq!(end, None);
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let mut buffer = Vec::new();
        assert_eq!(read(b"", &mut buffer), Ok(None));
        for length in 1..WIRE.len() {
            let cut = &WIRE[..length];
            assert_eq!(read(cut, &mut buffer), Err(ErrorKind::UnexpectedEof), "{length} bytes");
            assert!(Message::from_datagram(cut).is_err(), "{length} bytes");
            assert_eq!(whole_length(cut), None, "{length} bytes");
        }
        assert_eq!(whole_length(&WIRE), Some(WIRE.len()));
    }

    #[test]
    fn what_follows_is_the_next_message_of_a_stream_and_an_error_in_a_datagram() {
        for extra in 1..=2 * WIRE.len() {
            let mut longer = WIRE.to_vec();
            longer.extend(WIRE.iter().cycle().take(extra));
            assert_eq!(read(&longer, &mut Vec::new()), Ok(Some((Kind::Text, 9))));
            assert!(Message::from_datagram(&longer).is_err(), "{extra} bytes more");
            assert_eq!(whole_length(&longer), Some(WIRE.len()));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_an_error_or_another_value() {
        let mut buffer = Vec::new();
        for bit in 0..HEADER_BYTES * 8 {
            let mut wire = WIRE;
            wire[bit / 8] ^= 1 << (bit % 8);
            let datagram = Message::from_datagram(&wire);
            let stream = Message::read(&mut &wire[..], &mut buffer);
            match bit / 8 {
                // Magic and version have one value each.
                0..=2 => assert!(datagram.is_err() && stream.is_err(), "bit {bit}"),
                // Kinds, sequences and times have many.
                3 if Kind::from_number(wire[3]).is_none() => {
                    assert!(datagram.is_err() && stream.is_err(), "bit {bit}");
                }
                3..=15 => {
                    let message = datagram.expect("it is another value");
                    assert_ne!(message, MESSAGE, "bit {bit}");
                    assert_eq!(message.to_bytes(), wire, "bit {bit}");
                    assert_eq!(stream.expect("likewise"), Some(message), "bit {bit}");
                }
                // Other lengths don't fit these bytes. On a stream, fewer do.
                _ => {
                    assert!(datagram.is_err(), "bit {bit}");
                    let announced = lengths(wire.first_chunk().expect("it is longer"));
                    match (announced, stream) {
                        (Err(_), Err(e)) => assert_eq!(e.kind(), ErrorKind::InvalidData),
                        (Ok((s, b)), Err(e)) if e.kind() == ErrorKind::UnexpectedEof => {
                            assert!(s + b > 9, "bit {bit}");
                        }
                        // The cut went through the euro.
                        (Ok((s, b)), Err(e)) => {
                            assert!(s + b < 9 || s != 3, "bit {bit}: {e}");
                        }
                        (Ok((s, b)), Ok(message)) => {
                            let message = message.expect("there is one");
                            assert_eq!((message.sender.len(), message.body.len()), (s, b));
                        }
                        (Err(why), Ok(_)) => panic!("bit {bit}: {why}"),
                    }
                }
            }
        }
    }

    #[test]
    fn limits_are_what_they_say() {
        let (name, body) = ("n".repeat(MAX_SENDER_BYTES), "b".repeat(MAX_BODY_BYTES));
        let longest = Message { sender: &name, body: &body, ..MESSAGE }.to_bytes();
        assert_eq!(read(&longest, &mut Vec::new()), Ok(Some((Kind::Text, 32 + 4096))));
        for (at, over) in [(17, 33), (18, 17)] {
            // Not a byte follows this header: nobody waits for them.
            let mut wire = longest[..HEADER_BYTES].to_vec();
            wire[at] = over;
            let mut buffer = Vec::new();
            assert_eq!(read(&wire, &mut buffer), Err(ErrorKind::InvalidData));
            assert_eq!(buffer.capacity(), 0, "nothing was allocated");
        }
        let body = &body[..MAX_DATAGRAM_BODY_BYTES];
        let longest = Message { sender: &name, body, ..MESSAGE }.to_bytes();
        assert_eq!(longest.len(), MAX_DATAGRAM_BYTES);
        assert!(Message::from_datagram(&longest).is_ok());
        let longer = Message { sender: "", body: &"b".repeat(1149), ..MESSAGE }.to_bytes();
        assert!(Message::from_datagram(&longer).is_err());
    }

    #[test]
    fn an_error_names_the_field_and_what_was_expected() {
        let wrong = |at: usize, byte: u8| {
            let mut wire = WIRE;
            wire[at] = byte;
            Message::from_datagram(&wire).err().map(|e| e.to_string())
        };
        for (at, byte, why) in [
            (1, b'X', "the magic is \"CH\", not \"CX\""),
            (2, 2, "version 2 is not spoken here; this program speaks version 1"),
            (3, 10, "kind 10 is unknown; there are kinds 1 to 9"),
            (17, 33, "the sender length is 33; the limit is 32"),
            (18, 17, "the body length is 4358; the limit is 4096"),
            (20, 0xff, "the sender is not UTF-8"),
            (28, 0xff, "the body is not UTF-8"),
        ] {
            assert_eq!(wrong(at, byte).as_deref(), Some(why));
        }
    }
}
