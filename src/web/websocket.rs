//! WebSocket (RFC 6455), the server's side: frames on a stream.
//!
//! Knows bytes, [`Read`] and nothing of sockets or chat. The handshake before
//! it is in [`web`](crate::web::http). Introduced by step 09.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! |F|R|R|R| opcode|M| payload     | payload length again, in 16   |
//! |I|S|S|S|  (4)  |A| length (7)  | bits where the 7 say 126, in  |
//! |N|V|V|V|       |S|             | 64 bits where they say 127    |
//! | |1|2|3|       |K|             |                               |
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! | masking key (32 bits), if MASK is 1           |  payload ...  |
//! +-----------------------------------------------+---------------+
//! ```
//!
//! A message is one frame, or several: the first has its opcode, the others
//! are continuations, the last has FIN. Between them control frames may stand.

use std::io::{self, Read};
use std::str;

/// The longest payload of a control frame, in bytes (section 5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// How much is read, unmasked and checked at once, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// What a frame is for (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// More of a message that has begun.
    Continuation = 0,
    /// A message of UTF-8, or its beginning.
    Text = 1,
    /// A message of bytes, or its beginning.
    Binary = 2,
    /// The end: no frame follows from this side.
    Close = 8,
    /// Are you there?
    Ping = 9,
    /// I am: with the payload of the ping.
    Pong = 10,
}

impl Opcode {
    fn from_number(number: u8) -> Option<Opcode> {
        use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
        let all = [Continuation, Text, Binary, Close, Ping, Pong];
        all.into_iter().find(|opcode| *opcode as u8 == number)
    }

    /// Control frames are short, and may stand between those of a message.
    fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// What has come: a whole message, or a control frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A message of text. Its bytes are UTF-8: that is checked.
    Text(&'a [u8]),
    /// A message of bytes.
    Binary(&'a [u8]),
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// An answer to a ping.
    Pong,
    /// A part of a message. Nothing to do, but its sender is alive.
    Part,
    /// The goodbye of the other side, with its code if it gave one.
    Close(Option<u16>),
}

/// Why no more can come.
#[derive(Debug)]
pub enum Trouble {
    /// The stream has ended or failed.
    Lost(io::Error),
    /// The other side has broken the protocol: close with this code (section
    /// 7.4.1), which means that.
    Broken(u16, &'static str),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Lost(error)
    }
}

/// All is said (section 7.4.1, like the following).
pub const NORMAL: u16 = 1000;
/// The server stops.
pub const GOING_AWAY: u16 = 1001;
/// It broke a rule of the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// It sent text where bytes are wanted.
pub const NOT_ACCEPTED: u16 = 1003;
/// It sent as text what is not UTF-8.
pub const NOT_TEXT: u16 = 1007;
/// It broke a rule that is ours, not WebSocket's.
pub const POLICY: u16 = 1008;
/// It sent more than we take.
pub const TOO_BIG: u16 = 1009;

/// Reads what a client sends.
pub struct Incoming<R> {
    input: R,
    /// The most bytes of a message.
    limit: usize,
    /// The opcode of a message that has begun, and has not ended.
    begun: Option<Opcode>,
    message: Vec<u8>,
    /// How much of the message is known to be UTF-8.
    checked: usize,
    control: Vec<u8>,
}

/// The first part of a frame.
struct Header {
    is_last: bool,
    opcode: Opcode,
    length: u64,
    key: [u8; 4],
}

impl<R: Read> Incoming<R> {
    /// Takes over a stream behind the handshake. `limit` is the most bytes
    /// that a message may have; what is over it is never stored.
    pub fn new(input: R, limit: usize) -> Incoming<R> {
        let (message, control) = Default::default();
        Incoming { input, limit, begun: None, message, checked: 0, control }
    }

    /// The stream, for whoever wants to read on after the end.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// Waits for the next message, or part of one, or control frame.
    ///
    /// # Errors
    ///
    /// The connection is over then, in one way or the other.
    pub fn receive(&mut self) -> Result<Received<'_>, Trouble> {
        if self.begun.is_none() {
            self.message.clear();
            self.checked = 0;
        }
        let header = self.read_header()?;
        if header.opcode.is_control() {
            return self.read_control(&header);
        }
        match (header.opcode, self.begun) {
            (Opcode::Continuation, None) => {
                return Err(broken("there is no message to be continued"));
            }
            (Opcode::Continuation, Some(_)) => {}
            (_, Some(_)) => return Err(broken("the message before has not ended")),
            (opcode, None) => self.begun = Some(opcode),
        }
        self.read_payload(&header)?;
        if !header.is_last {
            return Ok(Received::Part);
        }
        let is_text = self.begun.take() == Some(Opcode::Text);
        if is_text && self.checked < self.message.len() {
            return Err(Trouble::Broken(NOT_TEXT, "the text ends inside a character"));
        }
        let message = self.message.as_slice();
        Ok(if is_text { Received::Text(message) } else { Received::Binary(message) })
    }

    fn read_header(&mut self) -> Result<Header, Trouble> {
        let mut start = [0; 2];
        self.input.read_exact(&mut start)?;
        let [first, second] = start;
        if first & 0x70 != 0 {
            return Err(broken("reserved bits are 0: no extension was agreed on"));
        }
        let Some(opcode) = Opcode::from_number(first & 0x0f) else {
            return Err(broken("there is no such opcode"));
        };
        let is_last = first & 0x80 != 0;
        let length = self.read_length(second & 0x7f)?;
        if opcode.is_control() && (!is_last || length > MAX_CONTROL_BYTES as u64) {
            return Err(broken("a control frame is whole, and has at most 125 bytes"));
        }
        if second & 0x80 == 0 {
            return Err(broken("a client masks its frames"));
        }
        if !opcode.is_control() && length > (self.limit - self.message.len()) as u64 {
            return Err(Trouble::Broken(TOO_BIG, "the message is too long"));
        }
        let mut key = [0; 4];
        self.input.read_exact(&mut key)?;
        Ok(Header { is_last, opcode, length, key })
    }

    fn read_length(&mut self, short: u8) -> Result<u64, Trouble> {
        let mut bytes = [0; 8];
        let (from, least) = match short {
            126 => (6, 126),
            127 => (0, 1 << 16),
            _ => return Ok(short.into()),
        };
        self.input.read_exact(&mut bytes[from..])?;
        let length = u64::from_be_bytes(bytes);
        if length < least || length > i64::MAX as u64 {
            return Err(broken("a length has as few bytes as it can, and 63 bits at most"));
        }
        Ok(length)
    }

    /// Appends a payload to the message, piece by piece as it arrives: what is
    /// wrong is noticed at once, and a length alone makes us store nothing.
    fn read_payload(&mut self, header: &Header) -> Result<(), Trouble> {
        let mut key = header.key;
        // It is at most `limit`.
        let mut left = usize::try_from(header.length).unwrap_or(usize::MAX);
        while left > 0 {
            let start = self.message.len();
            self.message.resize(start + left.min(PIECE_BYTES), 0);
            let read = read_some(&mut self.input, &mut self.message[start..]);
            self.message.truncate(start + *read.as_ref().unwrap_or(&0));
            let count = read?;
            left -= count;
            unmask(&mut self.message[start..], key);
            key.rotate_left(count % 4);
            if self.begun == Some(Opcode::Text) {
                self.check_text()?;
            }
        }
        Ok(())
    }

    /// Checks what has come of a text. The last character may be incomplete.
    fn check_text(&mut self) -> Result<(), Trouble> {
        match str::from_utf8(&self.message[self.checked..]) {
            Ok(_) => self.checked = self.message.len(),
            Err(e) if e.error_len().is_none() => self.checked += e.valid_up_to(),
            Err(_) => return Err(Trouble::Broken(NOT_TEXT, "the text is not UTF-8")),
        }
        Ok(())
    }

    fn read_control(&mut self, header: &Header) -> Result<Received<'_>, Trouble> {
        // It is at most `MAX_CONTROL_BYTES`.
        self.control.resize(usize::try_from(header.length).unwrap_or(0), 0);
        self.input.read_exact(&mut self.control)?;
        unmask(&mut self.control, header.key);
        match (header.opcode, self.control.as_slice()) {
            (Opcode::Ping, payload) => Ok(Received::Ping(payload)),
            (Opcode::Close, []) => Ok(Received::Close(None)),
            (Opcode::Close, [high, low, reason @ ..]) => {
                let code = u16::from_be_bytes([*high, *low]);
                if !may_be_sent(code) {
                    return Err(broken("that code is not for close frames"));
                }
                if str::from_utf8(reason).is_err() {
                    return Err(Trouble::Broken(NOT_TEXT, "the reason is not UTF-8"));
                }
                Ok(Received::Close(Some(code)))
            }
            (Opcode::Close, [_]) => Err(broken("a close code has two bytes")),
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

fn broken(why: &'static str) -> Trouble {
    Trouble::Broken(PROTOCOL_ERROR, why)
}

/// Whether a close frame may have this code: those that RFC 6455 and IANA's
/// registry define for it, and those left to libraries and programs (section
/// 7.4.2).
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Takes off a mask, or puts it on: byte `n` is combined with byte `n mod 4`
/// of the key (section 5.3).
///
/// The mask hides nothing, as the key stands before it. It keeps a page from
/// choosing the bytes that stand on the wire (section 10.3).
pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Eight bytes at once; the compiler makes even more of it.
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let bytes = <[u8; 8]>::try_from(&*chunk).unwrap_or_default();
        chunk.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ twice).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

/// Appends a frame to `wire`: a whole message, or a control frame. A server
/// does not mask (section 5.1).
pub fn append_frame(opcode: Opcode, payload: &[u8], wire: &mut Vec<u8>) {
    wire.push(0x80 | opcode as u8);
    let length = payload.len() as u64;
    match length {
        0..126 => wire.extend_from_slice(&length.to_be_bytes()[7..]),
        126..=0xffff => {
            wire.push(126);
            wire.extend_from_slice(&length.to_be_bytes()[6..]);
        }
        _ => {
            wire.push(127);
            wire.extend_from_slice(&length.to_be_bytes());
        }
    }
    wire.extend_from_slice(payload);
}

/// A control frame.
pub fn control_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    append_frame(opcode, payload, &mut wire);
    wire
}

/// A close frame with this code.
pub fn close_frame(code: u16) -> Vec<u8> {
    control_frame(Opcode::Close, &code.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Reads `size` bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let size = self.1.min(into.len());
            self.0.read(&mut into[..size])
        }
    }

    /// All that comes, in words, up to the code with which it ends (0: the end
    /// of the stream).
    fn all(wire: &[u8], size: usize) -> (Vec<String>, u16) {
        let mut incoming = Incoming::new(Pieces(wire, size), 1000);
        let mut words = Vec::new();
        loop {
            match incoming.receive() {
                Ok(received) => words.push(match received {
                    Received::Text(text) => format!("text {}", String::from_utf8_lossy(text)),
                    Received::Binary(bytes) => format!("binary {}", bytes.len()),
                    Received::Ping(bytes) => format!("ping {}", bytes.len()),
                    Received::Pong => "pong".into(),
                    Received::Part => continue,
                    Received::Close(code) => format!("close {code:?}"),
                }),
                Err(Trouble::Lost(_)) => return (words, 0),
                Err(Trouble::Broken(code, _)) => return (words, code),
            }
        }
    }

    #[test]
    fn the_examples_of_rfc_6455_are_understood() {
        // Section 5.7: "Hello", masked, in one frame; a masked pong.
        let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(masked(0x81, b"Hello"), hello);
        assert_eq!(all(hello, 1), (vec!["text Hello".to_string()], 0));
        let pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(all(pong, 1), (vec!["pong".to_string()], 0));
        let mut wire = Vec::new();
        append_frame(Opcode::Text, b"Hello", &mut wire);
        assert_eq!(wire, b"\x81\x05Hello");
        wire.clear();
        append_frame(Opcode::Binary, &[0; 256], &mut wire);
        assert_eq!(wire[..4], [0x82, 0x7e, 0x01, 0x00]);
        wire.clear();
        append_frame(Opcode::Binary, &vec![0; 65536], &mut wire);
        assert_eq!(wire[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(close_frame(1000), [0x88, 2, 0x03, 0xe8]);
    }

    #[test]
    fn a_message_is_the_same_in_however_many_frames_and_reads_it_arrives() {
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
                assert_eq!(all(&parts.concat(), size), (expected.clone(), 0), "cut at {cut}");
            }
        }
    }

    #[test]
    fn every_broken_rule_ends_it_with_its_code() {
        let big = |length: u64| [&b"\x82\xff"[..], &length.to_be_bytes(), &KEY].concat();
        for (wire, code) in [
            (b"\x81\x05Hello".to_vec(), 1002), // not masked
            (masked(0xc1, b"x"), 1002),        // reserved bits
            (masked(0xa1, b"x"), 1002),
            (masked(0x91, b"x"), 1002),
            (masked(0x83, b"x"), 1002), // opcodes without a meaning
            (masked(0x8b, b""), 1002),
            (masked(0x80, b"x"), 1002), // nothing to be continued
            ([masked(0x01, b"x"), masked(0x81, b"y")].concat(), 1002),
            (masked(0x09, b"x"), 1002),      // control frames in pieces,
            (masked(0x89, &[0; 126]), 1002), // and long
            (b"\x81\xfe\x00\x7d\0\0\0\0".to_vec(), 1002), // lengths longer than need be
            (big(65535), 1002),
            (big(1 << 63), 1002),
            (big(1 << 62), 1009),
            (masked(0x82, &[0; 1001]), 1009),
            ([masked(0x02, &[0; 600]), masked(0x80, &[0; 401])].concat(), 1009),
            (masked(0x81, b"\xff"), 1007),
            (masked(0x81, b"\xed\xa0\x80"), 1007), // a surrogate
            (masked(0x81, b"\xe2\x82"), 1007),     // an end inside a character
            (masked(0x88, b"\x03"), 1002),         // a code of one byte
            (masked(0x88, b"\x03\xe8\xff"), 1007),
        ] {
            assert_eq!(all(&wire, 4096), (vec![], code), "{wire:02x?}");
            assert_eq!(all(&wire, 1), (vec![], code), "{wire:02x?}");
        }
        for code in 0..=u16::MAX {
            let right = may_be_sent(code);
            let expected =
                if right { (vec![format!("close {:?}", Some(code))], 0) } else { (vec![], 1002) };
            assert_eq!(all(&masked(0x88, &code.to_be_bytes()), 4096), expected);
            let reserved = matches!(code, 0..=999 | 1004..=1006 | 1015..=2999 | 5000..);
            assert_eq!(right, !reserved, "{code}");
        }
    }

    #[test]
    fn what_is_wrong_is_noticed_before_the_rest_has_come() {
        // A text of 1000 bytes is announced. Three have come.
        let wire = &masked(0x81, &[&b"a\xffb"[..], &[b'x'; 997]].concat())[..8 + 3];
        assert_eq!(all(wire, 1), (vec![], 1007));
    }

    #[test]
    fn a_mask_taken_off_in_pieces_is_the_same_mask() {
        let payload: Vec<u8> = (0..=255).collect();
        for length in 0..payload.len() {
            let mut plain = payload[..length].to_vec();
            unmask(&mut plain, KEY);
            for (n, byte) in plain.iter().enumerate() {
                assert_eq!(*byte, payload[n] ^ KEY[n % 4], "byte {n} of {length}");
            }
        }
    }
}
