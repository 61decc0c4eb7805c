//! The frames of WebSocket (RFC 6455, section 5), as a server reads and writes
//! them.
//!
//! This module knows bytes and [`Read`], but no sockets and no chat. Introduced
//! by step 09.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! |F|R|R|R| opcode|M| payload     | extended payload length: 16   |
//! |I|S|S|S|  (4)  |A| length (7)  | bits if the 7 bits say 126,   |
//! |N|V|V|V|       |S|             | 64 bits if they say 127       |
//! | |1|2|3|       |K|             |                               |
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! | masking key (32 bits), if MASK is 1           |  payload ...  |
//! +-----------------------------------------------+---------------+
//! ```
//!
//! Lesson: [09_websocket_chat](../../../../../lessons/09_websocket_chat.md).

use std::io::{self, Read};

/// The longest payload of a control frame, in bytes (section 5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// What a frame is for (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0,
    /// A message of UTF-8 text, or its first fragment.
    Text = 1,
    /// A message of bytes, or its first fragment.
    Binary = 2,
    /// The sender of this frame sends no frame after it.
    Close = 8,
    /// The receiver must answer with a pong.
    Ping = 9,
    /// The answer to a ping, with the payload of the ping.
    Pong = 10,
}

impl Opcode {
    fn from_number(number: u8) -> Option<Opcode> {
        use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
        let all = [Continuation, Text, Binary, Close, Ping, Pong];
        all.into_iter().find(|opcode| *opcode as u8 == number)
    }

    /// Whether frames with this opcode are control frames. They may arrive
    /// between the fragments of a message (section 5.5).
    pub fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// The conversation is over. This and the following close codes have the names
/// of sections 7.4.1 and 11.7.
pub const NORMAL_CLOSURE: u16 = 1000;
/// The server stops.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke a rule of RFC 6455.
pub const PROTOCOL_ERROR: u16 = 1002;
/// The peer sent a type of message that the receiver does not accept, as text.
pub const UNSUPPORTED_DATA: u16 = 1003;
/// The peer sent a text that is not UTF-8.
pub const INVALID_PAYLOAD: u16 = 1007;
/// The peer broke a rule of the receiver, which RFC 6455 does not have.
pub const POLICY_VIOLATION: u16 = 1008;
/// The peer sent a message that is too long for the receiver.
pub const MESSAGE_TOO_BIG: u16 = 1009;

/// Why no further frame can be read.
#[derive(Debug)]
pub enum Error {
    /// The stream has ended or failed.
    Io(io::Error),
    /// The peer broke a rule. The receiver closes with this code; the text says
    /// which rule.
    Protocol(u16, &'static str),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

impl Error {
    /// The peer broke a rule of RFC 6455: [`PROTOCOL_ERROR`].
    pub fn protocol(rule: &'static str) -> Error {
        Error::Protocol(PROTOCOL_ERROR, rule)
    }
}

/// The header of a frame from a client.
pub struct Header {
    /// Whether this is the last frame of its message.
    pub fin: bool,
    /// What the frame is for.
    pub opcode: Opcode,
    /// The length of the payload in bytes.
    pub length: u64,
    /// The key that [`unmask`] needs.
    pub masking_key: [u8; 4],
}

impl Header {
    /// Reads the header of a frame, up to its payload. `max_payload` is the
    /// longest payload of a data frame, in bytes.
    ///
    /// # Errors
    ///
    /// The stream has ended or failed, or the client broke a rule of section 5.2,
    /// 5.1 (masking) or 5.5 (control frames), or the payload is too long. Each
    /// rule is checked as soon as the bytes for it have arrived.
    pub fn read(input: &mut impl Read, max_payload: usize) -> Result<Header, Error> {
        let mut start = [0; 2];
        input.read_exact(&mut start)?;
        let [first, second] = start;
        if first & 0x70 != 0 {
            return Err(Error::protocol("a reserved bit must be 0 without an extension"));
        }
        let Some(opcode) = Opcode::from_number(first & 0x0f) else {
            return Err(Error::protocol("the opcode is unknown"));
        };
        let fin = first & 0x80 != 0;
        let length = read_length(input, second & 0x7f)?;
        if opcode.is_control() && (!fin || length > MAX_CONTROL_BYTES as u64) {
            return Err(Error::protocol(
                "a control frame must be one frame of at most 125 bytes of payload",
            ));
        }
        if second & 0x80 == 0 {
            return Err(Error::protocol("a client must mask its frames"));
        }
        if !opcode.is_control() && length > max_payload as u64 {
            return Err(Error::Protocol(MESSAGE_TOO_BIG, "the message is too long"));
        }
        let mut masking_key = [0; 4];
        input.read_exact(&mut masking_key)?;
        Ok(Header { fin, opcode, length, masking_key })
    }
}

/// Reads the extended payload length, if the 7 bits say that there is one.
fn read_length(input: &mut impl Read, seven_bits: u8) -> Result<u64, Error> {
    let mut bytes = [0; 8];
    let (start, least) = match seven_bits {
        126 => (6, 126),
        127 => (0, 1 << 16),
        length => return Ok(length.into()),
    };
    input.read_exact(&mut bytes[start..])?;
    let length = u64::from_be_bytes(bytes);
    if length < least || length > i64::MAX as u64 {
        return Err(Error::protocol(
            "a length must use as few bytes as possible, and at most 63 bits",
        ));
    }
    Ok(length)
}

/// Whether a close frame may contain this code: RFC 6455 or IANA's registry
/// defines it for close frames, or it is reserved for libraries and
/// applications (section 7.4.2).
pub fn is_valid_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Removes the mask of a payload, or adds it: byte `n` is combined by XOR with
/// byte `n mod 4` of the key (section 5.3).
///
/// The mask hides nothing, because the key is sent before the payload. Because
/// of the mask a page cannot choose the bytes that a browser sends (section
/// 10.3).
pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let key_twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // The loop handles eight bytes at once. The compiler uses vector
    // instructions for several such steps.
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let bytes = <[u8; 8]>::try_from(&*chunk).unwrap_or_default();
        chunk.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ key_twice).to_ne_bytes());
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

/// Makes a control frame. Its payload has at most [`MAX_CONTROL_BYTES`].
pub fn control_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    append_frame(opcode, payload, &mut wire);
    wire
}

/// Makes a close frame with this code and no reason.
pub fn close_frame(code: u16) -> Vec<u8> {
    control_frame(Opcode::Close, &code.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_written_as_in_the_examples_of_rfc_6455() {
        // Section 5.7.
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
    fn unmasking_is_the_same_for_every_length() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let payload: Vec<u8> = (0..=255).collect();
        for length in 0..payload.len() {
            let mut plain = payload[..length].to_vec();
            unmask(&mut plain, key);
            for (n, byte) in plain.iter().enumerate() {
                assert_eq!(*byte, payload[n] ^ key[n % 4], "byte {n} of {length}");
            }
        }
    }
}
