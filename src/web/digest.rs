//! SHA-1 (RFC 3174) and base64 (RFC 4648) for the handshake of WebSocket,
//! because the standard library has neither.
//!
//! This module knows only bytes. Introduced by step 09.
//!
//! SHA-1 is broken for signatures, because an attacker can make two texts with
//! the same digest. The handshake does not depend on that: the digest only
//! shows that the server understands WebSocket (RFC 6455, section 10.8).
//!
//! Lesson: [09_websocket_chat](../../../../../lessons/09_websocket_chat.md).

/// The SHA-1 digest of `message` (RFC 3174; FIPS 180-4).
///
/// ```
/// let digest = socket_chat::web::digest::sha1(b"abc");
/// assert_eq!(digest[..4], [0xa9, 0x99, 0x3e, 0x36]);
/// ```
#[allow(clippy::many_single_char_names)] // the names of the RFC
pub fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in padded(message, 0).chunks_exact(64) {
        let mut words = [0; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for t in 16..80 {
            words[t] = (words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (t, word) in words.into_iter().enumerate() {
            let (mix, constant) = match t {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mix)
                .wrapping_add(e)
                .wrapping_add(word)
                .wrapping_add(constant);
            [a, b, c, d, e] = [next, a, b.rotate_left(30), c, d];
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// Pads a message to whole blocks of 64 bytes: after the message come a bit 1,
/// zeros, and the length in bits (RFC 3174, section 4; SHA-256 does the same).
/// The length includes `before` bytes that were hashed before the message.
pub fn padded(message: &[u8], before: usize) -> Vec<u8> {
    let mut blocks = message.to_vec();
    blocks.push(0x80);
    blocks.resize(blocks.len().next_multiple_of(64), 0);
    if message.len() % 64 > 55 {
        blocks.resize(blocks.len() + 64, 0);
    }
    let end = blocks.len() - 8;
    blocks[end..].copy_from_slice(&((before + message.len()) as u64 * 8).to_be_bytes());
    blocks
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes bytes as text: three bytes become four of 64 characters, and `=` fills
/// up the last four (RFC 4648, section 4).
///
/// ```
/// assert_eq!(socket_chat::web::digest::base64(b"foob"), "Zm9vYg==");
/// ```
pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            // Characters that contain no bit of a byte become `=`.
            let character = ALPHABET[(bits >> (18 - 6 * n) & 63) as usize];
            text.push(if n <= three.len() { character.into() } else { '=' });
        }
    }
    text
}

/// Decodes a base64 text. The result is None if the text is not base64, or if
/// one of its unused bits is not 0 (RFC 4648, section 3.5).
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let data = text.trim_end_matches('=');
    let fill = text.len() - data.len();
    if !text.len().is_multiple_of(4) || fill > 2 {
        return None;
    }
    let (mut bytes, mut bits) = (Vec::new(), 0);
    for (n, character) in (1..).zip(data.bytes()) {
        let value = ALPHABET.iter().position(|a| *a == character)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        if n % 4 == 0 {
            bytes.extend_from_slice(&bits.to_be_bytes()[1..]);
            bits = 0;
        }
    }
    // `bits` still holds 12 bits that contain one byte, or 18 that contain two.
    let unused = 2 * fill;
    let rest = (bits >> unused << (8 * fill)).to_be_bytes();
    bytes.extend_from_slice(&rest[1..4 - fill][..if fill == 0 { 0 } else { 3 - fill }]);
    (bits & ((1 << unused) - 1) == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    #[test]
    fn sha1_gives_the_published_digests() {
        for (message, digest) in [
            ("", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            ("abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
            ),
            (&"a".repeat(1_000_000), "34aa973cd4c4daa4f61eeb2bdbad27316534016f"),
        ] {
            assert_eq!(hex(&sha1(message.as_bytes())), digest);
        }
        // The padding depends on the length. This is the digest of the digests
        // of all lengths up to two blocks, as Python's hashlib computes it.
        let all: Vec<u8> = (0..=129).flat_map(|length| sha1(&vec![b'x'; length])).collect();
        assert_eq!(hex(&sha1(&all)), "917e149b75e688b99b568bb19d9a8970db0ffe1c");
    }

    #[test]
    fn base64_gives_the_published_texts() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
        assert_eq!(from_base64("+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
        for wrong in ["Z", "Zg", "Zg=", "Zg===", "Zh==", "Z=g=", "Zm9v\n", "Zm9_", "===="] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_accept_value_is_that_of_rfc_6455() {
        let joined = "dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        assert_eq!(base64(&sha1(joined.as_bytes())), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
