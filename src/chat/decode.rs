//! Decoding: bytes become a message, or an error that says what is wrong with
//! them. A length over its limit is refused before memory is allocated for it, and
//! before its bytes are waited for.
//!
//! Knows bytes and [`Read`], no sockets. Introduced by step 06.
//!
//! Lesson: [06_message_headers](../../../../../lessons/06_message_headers.md).

use crate::chat::message::{HEADER_BYTES, Kind, MAGIC, MAX_BODY_BYTES};
use crate::chat::message::{MAX_DATAGRAM_BODY_BYTES, MAX_SENDER_BYTES, Message, VERSION};
use std::io::{self, ErrorKind, Read};
use std::{fmt, str};

/// Magic, version and kind: enough to see that something is not a message.
const START_BYTES: usize = 4;

/// Why some bytes are not a message. It names the field and what was expected.
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
    /// Reads the next message from a stream, into `buffer`. None: the stream has
    /// ended between two messages.
    ///
    /// A stream has no messages: one read may bring half a message, or three of
    /// them. So this reads exactly as many bytes as the header says, however
    /// many reads that takes; give it a [`BufReader`](io::BufReader). The
    /// lengths are checked before anything is allocated or read by them.
    ///
    /// # Errors
    ///
    /// - [`UnexpectedEof`](ErrorKind::UnexpectedEof): the stream has ended
    ///   inside a message.
    /// - [`InvalidData`](ErrorKind::InvalidData): this is not a message, and the
    ///   error says why. Nobody can know where the next message begins: end the
    ///   connection.
    /// - Others are the errors of reading.
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
        // The first byte is read alone: an end before it is an end between two
        // messages, and an end after it is inside a message.
        let mut header = [0; HEADER_BYTES];
        match input.read_exact(&mut header[..1]) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        input.read_exact(&mut header[1..START_BYTES])?;
        // A client of another protocol may never send a whole header.
        let kind = check_start(&header)?;
        input.read_exact(&mut header[START_BYTES..])?;
        let (sender, body) = lengths(&header)?;
        buffer.resize(sender + body, 0);
        input.read_exact(buffer)?;
        Ok(Some(Message::from_parts(kind, &header, buffer, sender)?))
    }

    /// Decodes a datagram, which is one whole message and nothing else.
    ///
    /// # Errors
    ///
    /// The error says what is wrong with the datagram. Unlike on a stream, the
    /// next message is not affected: it has a datagram of its own.
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

    /// Decodes the bytes of one whole message, with a body of at most `max_body`
    /// bytes.
    ///
    /// # Errors
    ///
    /// The error says what is wrong with the bytes.
    pub fn from_bytes(bytes: &'a [u8], max_body: usize) -> Result<Message<'a>, Malformed> {
        let Some((header, texts)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            let length = bytes.len();
            return Err(Malformed(format!("a header has {HEADER_BYTES} bytes, not {length}")));
        };
        let kind = check_start(header)?;
        let (sender, body) = lengths(header)?;
        check_limit("body length", body, max_body)?;
        if texts.len() != sender + body {
            return Err(Malformed(format!(
                "sender length and body length announce {} bytes, but {} follow",
                sender + body,
                texts.len()
            )));
        }
        Message::from_parts(kind, header, texts, sender)
    }

    /// Makes a message of a header that was checked and the texts after it, of
    /// which the first `sender` bytes are the sender.
    fn from_parts(
        kind: Kind,
        header: &[u8; HEADER_BYTES],
        texts: &'a [u8],
        sender: usize,
    ) -> Result<Message<'a>, Malformed> {
        let (sender, body) = texts.split_at(sender);
        let text = |field, bytes| {
            str::from_utf8(bytes).map_err(|_| Malformed(format!("the {field} is not UTF-8")))
        };
        let [_, _, _, _, s0, s1, s2, s3, t0, t1, t2, t3, t4, t5, t6, t7, ..] = *header;
        Ok(Message {
            kind,
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            timestamp: u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            sender: text("sender", sender)?,
            body: text("body", body)?,
        })
    }
}

/// The length of the message at the beginning of `bytes`, if all of it is
/// there: then reading it does not wait for the network.
pub fn whole_length(bytes: &[u8]) -> Option<usize> {
    let (sender, body) = lengths(bytes.first_chunk()?).ok()?;
    Some(HEADER_BYTES + sender + body).filter(|length| *length <= bytes.len())
}

/// The bytes of each whole message at the beginning of `bytes`.
pub fn whole_messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (first, rest) = bytes.split_at(whole_length(bytes)?);
        bytes = rest;
        Some(first)
    })
}

/// Checks magic and version, and returns the kind: the first [`START_BYTES`].
fn check_start(header: &[u8; HEADER_BYTES]) -> Result<Kind, Malformed> {
    let [c, h, version, kind, ..] = *header;
    if [c, h] != MAGIC {
        return Err(Malformed(format!("the magic is \"CH\", not \"{}\"", [c, h].escape_ascii())));
    }
    if version != VERSION {
        return Err(Malformed(format!(
            "version {version} is not spoken here; this program speaks version {VERSION}"
        )));
    }
    let count = Kind::ALL.len();
    let unknown = || Malformed(format!("kind {kind} is unknown; there are kinds 1 to {count}"));
    Kind::from_number(kind).ok_or_else(unknown)
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
    use crate::chat::message::MAX_DATAGRAM_BYTES;
    use crate::chat::message::tests::{MESSAGE, WIRE};

    /// A slow network: it gives `size` bytes at a time.
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
        assert_eq!(Message::from_datagram(&WIRE), Ok(MESSAGE));
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
                        // The new length ends inside the euro sign.
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
            // No byte follows this header, and nobody waits for one.
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
