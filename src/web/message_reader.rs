//! The messages that a WebSocket client sends (RFC 6455, sections 5.4 to 5.6).
//!
//! A message is one frame or several fragments: the first has the opcode of the
//! message, the others are continuations, and the last has the FIN bit. Control
//! frames may arrive between the fragments.
//!
//! This module knows bytes and [`Read`], but no sockets and no chat. The
//! [handshake](crate::web::handshake) comes before the first frame. Introduced
//! by step 09.
//!
//! Lesson: [09_websocket_chat](../../../../../lessons/09_websocket_chat.md).

use crate::web::frame::{Error, Header, INVALID_PAYLOAD, Opcode, is_valid_close_code, unmask};
use std::io::{self, Read};
use std::str;

/// How many bytes of a payload are read, unmasked and checked at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What the client has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A whole message of text. Its bytes are valid UTF-8.
    Text(&'a [u8]),
    /// A whole message of bytes.
    Binary(&'a [u8]),
    /// A ping. The server answers with a pong that has this payload.
    Ping(&'a [u8]),
    /// A pong. The server does not answer it.
    Pong,
    /// A fragment that does not end its message. There is nothing to do, but
    /// the client is alive.
    Fragment,
    /// A close frame, with its code if it has one. The server answers with a
    /// close frame.
    Close(Option<u16>),
}

/// Reads messages and control frames from a client.
pub struct MessageReader<R> {
    input: R,
    /// The longest message, in bytes.
    limit: usize,
    /// The opcode of the message whose fragments are arriving.
    fragmented: Option<Opcode>,
    message: Vec<u8>,
    /// How many bytes at the start of a text message are known to be UTF-8.
    valid_up_to: usize,
    control: Vec<u8>,
}

impl<R: Read> MessageReader<R> {
    /// Reads from a stream after the handshake. `limit` is the longest message
    /// in bytes, with all its fragments. The payload of a frame that exceeds it
    /// is not read.
    pub fn new(input: R, limit: usize) -> MessageReader<R> {
        let (message, control) = (Vec::new(), Vec::new());
        MessageReader { input, limit, fragmented: None, message, valid_up_to: 0, control }
    }

    /// The stream, for callers that read on after the last frame.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// Waits for the next message, fragment or control frame.
    ///
    /// # Errors
    ///
    /// The stream has ended or failed, or the client broke a rule. Read no further
    /// after an error: nobody can know where the next frame begins.
    pub fn receive(&mut self) -> Result<Received<'_>, Error> {
        if self.fragmented.is_none() {
            self.message.clear();
            self.valid_up_to = 0;
        }
        // The fragments of a message share its limit.
        let header = Header::read(&mut self.input, self.limit - self.message.len())?;
        if header.opcode.is_control() {
            return self.read_control(&header);
        }
        match (header.opcode, self.fragmented) {
            (Opcode::Continuation, None) => {
                return Err(Error::protocol("a continuation must follow the start of a message"));
            }
            (Opcode::Continuation, Some(_)) => {}
            (_, Some(_)) => {
                return Err(Error::protocol("a message must end before the next one begins"));
            }
            (opcode, None) => self.fragmented = Some(opcode),
        }
        self.read_payload(&header)?;
        if !header.fin {
            return Ok(Received::Fragment);
        }
        let is_text = self.fragmented.take() == Some(Opcode::Text);
        if is_text && self.valid_up_to < self.message.len() {
            return Err(Error::Protocol(INVALID_PAYLOAD, "the text ends inside a character"));
        }
        let message = self.message.as_slice();
        Ok(if is_text { Received::Text(message) } else { Received::Binary(message) })
    }

    /// Appends a payload to the message, one chunk after the other as it
    /// arrives. So an error is found at once, and memory is allocated for
    /// chunks that arrive, not for a length that a client announces.
    fn read_payload(&mut self, header: &Header) -> Result<(), Error> {
        let mut key = header.masking_key;
        // The conversion succeeds, because the length is at most `limit`.
        let mut remaining = usize::try_from(header.length).unwrap_or(usize::MAX);
        while remaining > 0 {
            let start = self.message.len();
            self.message.resize(start + remaining.min(CHUNK_BYTES), 0);
            let read = read_some(&mut self.input, &mut self.message[start..]);
            self.message.truncate(start + *read.as_ref().unwrap_or(&0));
            let count = read?;
            remaining -= count;
            unmask(&mut self.message[start..], key);
            key.rotate_left(count % 4);
            if self.fragmented == Some(Opcode::Text) {
                self.check_utf8()?;
            }
        }
        Ok(())
    }

    /// Checks the new bytes of a text message. Its last character may be
    /// incomplete.
    fn check_utf8(&mut self) -> Result<(), Error> {
        match str::from_utf8(&self.message[self.valid_up_to..]) {
            Ok(_) => self.valid_up_to = self.message.len(),
            Err(e) if e.error_len().is_none() => self.valid_up_to += e.valid_up_to(),
            Err(_) => return Err(Error::Protocol(INVALID_PAYLOAD, "the text is not UTF-8")),
        }
        Ok(())
    }

    /// Reads the payload of a control frame, and checks that of a close frame
    /// (section 5.5.1).
    fn read_control(&mut self, header: &Header) -> Result<Received<'_>, Error> {
        // The conversion succeeds, because the length is at most 125.
        self.control.resize(usize::try_from(header.length).unwrap_or(0), 0);
        self.input.read_exact(&mut self.control)?;
        unmask(&mut self.control, header.masking_key);
        match (header.opcode, self.control.as_slice()) {
            (Opcode::Ping, payload) => Ok(Received::Ping(payload)),
            (Opcode::Close, []) => Ok(Received::Close(None)),
            (Opcode::Close, [high, low, reason @ ..]) => {
                let code = u16::from_be_bytes([*high, *low]);
                if !is_valid_close_code(code) {
                    return Err(Error::protocol("a close frame must not contain this code"));
                }
                if str::from_utf8(reason).is_err() {
                    return Err(Error::Protocol(INVALID_PAYLOAD, "the reason is not UTF-8"));
                }
                Ok(Received::Close(Some(code)))
            }
            (Opcode::Close, [_]) => Err(Error::protocol("a close code has two bytes")),
            _ => Ok(Received::Pong),
        }
    }
}

/// Reads at least one byte.
fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::frame::append_frame;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A frame as a client sends it.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        append_frame(Opcode::Binary, payload, &mut wire);
        let header = wire.len() - payload.len();
        wire[0] = first;
        wire[1] |= 0x80;
        unmask(&mut wire[header..], KEY);
        wire.splice(header..header, KEY);
        wire
    }

    /// Returns at most this many bytes from each read.
    struct ShortReads<'a>(&'a [u8], usize);

    impl Read for ShortReads<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let size = self.1.min(into.len());
            self.0.read(&mut into[..size])
        }
    }

    /// All that a reader receives, in words, and the close code of the error
    /// that ends it (0: the end of the stream).
    fn receive_all(wire: &[u8], size: usize) -> (Vec<String>, u16) {
        let mut reader = MessageReader::new(ShortReads(wire, size), 1000);
        let mut words = Vec::new();
        loop {
            match reader.receive() {
                Ok(received) => words.push(match received {
                    Received::Text(text) => format!("text {}", String::from_utf8_lossy(text)),
                    Received::Binary(bytes) => format!("binary {}", bytes.len()),
                    Received::Ping(bytes) => format!("ping {}", bytes.len()),
                    Received::Pong => "pong".into(),
                    Received::Fragment => continue,
                    Received::Close(code) => format!("close {code:?}"),
                }),
                Err(Error::Io(_)) => return (words, 0),
                Err(Error::Protocol(code, _)) => return (words, code),
            }
        }
    }

    #[test]
    fn the_masked_examples_of_rfc_6455_are_read() {
        // Section 5.7: "Hello", masked, in one frame; a masked pong.
        let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(masked(0x81, b"Hello"), hello);
        assert_eq!(receive_all(hello, 1), (vec!["text Hello".to_string()], 0));
        let pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(receive_all(pong, 1), (vec!["pong".to_string()], 0));
    }

    #[test]
    fn a_message_does_not_depend_on_its_fragments_and_reads() {
        let text = "\u{20ac}\u{1f980} x".repeat(40);
        for cut in 0..=text.len() {
            let (a, b) = text.as_bytes().split_at(cut);
            let parts = [
                masked(0x01, a),
                masked(0x89, b"ping"),
                masked(0x00, b""),
                masked(0x80, b),
                masked(0x82, &[7; 126]),
            ];
            let expected = vec!["ping 4".into(), format!("text {text}"), "binary 126".into()];
            for size in [1, 2, 3, 7, 4096] {
                assert_eq!(
                    receive_all(&parts.concat(), size),
                    (expected.clone(), 0),
                    "cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn every_broken_rule_has_its_close_code() {
        let big = |length: u64| [&b"\x82\xff"[..], &length.to_be_bytes(), &KEY].concat();
        for (wire, code) in [
            (b"\x81\x05Hello".to_vec(), 1002), // not masked
            (masked(0xc1, b"x"), 1002),        // reserved bits
            (masked(0xa1, b"x"), 1002),
            (masked(0x91, b"x"), 1002),
            (masked(0x83, b"x"), 1002), // unknown opcodes
            (masked(0x8b, b""), 1002),
            (masked(0x80, b"x"), 1002), // no message has begun
            ([masked(0x01, b"x"), masked(0x81, b"y")].concat(), 1002),
            (masked(0x09, b"x"), 1002),      // control frames in fragments
            (masked(0x89, &[0; 126]), 1002), // control frames over 125 bytes
            (b"\x81\xfe\x00\x7d\0\0\0\0".to_vec(), 1002), // lengths in too many bytes
            (big(65535), 1002),
            (big(1 << 63), 1002),
            (big(1 << 62), 1009),
            (masked(0x82, &[0; 1001]), 1009),
            ([masked(0x02, &[0; 600]), masked(0x80, &[0; 401])].concat(), 1009),
            (masked(0x81, b"\xff"), 1007),
            (masked(0x81, b"\xed\xa0\x80"), 1007), // a surrogate
            (masked(0x81, b"\xe2\x82"), 1007),     // the text ends inside a character
            (masked(0x88, b"\x03"), 1002),         // a close code of one byte
            (masked(0x88, b"\x03\xe8\xff"), 1007),
        ] {
            assert_eq!(receive_all(&wire, 4096), (vec![], code), "{wire:02x?}");
            assert_eq!(receive_all(&wire, 1), (vec![], code), "{wire:02x?}");
        }
        for code in 0..=u16::MAX {
            let right = is_valid_close_code(code);
            let expected =
                if right { (vec![format!("close {:?}", Some(code))], 0) } else { (vec![], 1002) };
            assert_eq!(receive_all(&masked(0x88, &code.to_be_bytes()), 4096), expected);
            let reserved = matches!(code, 0..=999 | 1004..=1006 | 1015..=2999 | 5000..);
            assert_eq!(right, !reserved, "{code}");
        }
    }

    #[test]
    fn invalid_text_is_an_error_before_the_rest_of_it_arrives() {
        // The header announces 1000 bytes. Three of them have arrived.
        let wire = &masked(0x81, &[&b"a\xffb"[..], &[b'x'; 997]].concat())[..8 + 3];
        assert_eq!(receive_all(wire, 1), (vec![], 1007));
    }
}
