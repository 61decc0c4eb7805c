//! SHA-256, HMAC and PBKDF2: they turn a password into a hash that can be stored.
//!
//! Introduced by step 10.

use socket_chat::web::digest::padded;

/// The state of SHA-256 before the first block: the first 32 bits of the
/// fractional parts of the square roots of the first 8 primes (FIPS 180-4, section 5.3.3).
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// One constant for each round: the first 32 bits of the fractional parts of
/// the cube roots of the first 64 primes (section 4.2.2).
#[rustfmt::skip]
static ROUNDS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// Mixes a block of 16 words into the state (section 6.2.2).
///
/// A round of PBKDF2 needs two compressions, so one password needs 1.2 million,
/// and students run them unoptimized. Calls would make that slower: so there are
/// plain loops in place of iterators, and shifts in place of `rotate_right`, as
/// the standard writes them too.
#[allow(clippy::many_single_char_names, clippy::manual_rotate)] // the names of the standard
fn compress(state: &mut [u32; 8], block: &[u32; 16]) {
    let mut words = [0_u32; 64];
    let mut t = 0;
    while t < 64 {
        words[t] = if t < 16 {
            block[t]
        } else {
            let (near, far) = (words[t - 2], words[t - 15]);
            let near = (near >> 17 | near << 15) ^ (near >> 19 | near << 13) ^ near >> 10;
            let far = (far >> 7 | far << 25) ^ (far >> 18 | far << 14) ^ far >> 3;
            near.wrapping_add(words[t - 7]).wrapping_add(far).wrapping_add(words[t - 16])
        };
        t += 1;
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    t = 0;
    while t < 64 {
        let sum = (e >> 6 | e << 26) ^ (e >> 11 | e << 21) ^ (e >> 25 | e << 7);
        let choice = e & f ^ !e & g;
        let first =
            h.wrapping_add(sum).wrapping_add(choice).wrapping_add(ROUNDS[t]).wrapping_add(words[t]);
        let sum = (a >> 2 | a << 30) ^ (a >> 13 | a << 19) ^ (a >> 22 | a << 10);
        let majority = a & b ^ a & c ^ b & c;
        let second = sum.wrapping_add(majority);
        (h, g, f, e) = (g, f, e, d.wrapping_add(first));
        (d, c, b, a) = (c, b, a, first.wrapping_add(second));
        t += 1;
    }
    let values = [a, b, c, d, e, f, g, h];
    t = 0;
    while t < 8 {
        state[t] = state[t].wrapping_add(values[t]);
        t += 1;
    }
}

/// Turns the words of a state into bytes, the highest byte of each first.
fn digest_of(state: [u32; 8]) -> [u8; 32] {
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// The SHA-256 digest of `message` (FIPS 180-4; RFC 6234).
pub fn sha256(message: &[u8]) -> [u8; 32] {
    let mut state = START;
    absorb(&mut state, &padded(message, 0));
    digest_of(state)
}

/// Mixes whole blocks of bytes into the state.
fn absorb(state: &mut [u32; 8], blocks: &[u8]) {
    for block in blocks.chunks_exact(64) {
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        compress(state, &words);
    }
}

/// HMAC-SHA-256 (RFC 2104): a digest that nobody can make without the key. The
/// work on the key is done once, for any number of messages.
#[derive(Clone)]
pub struct Hmac {
    /// The state after the key, before the message.
    inner: [u32; 8],
    /// The state after the key, before the inner digest.
    outer: [u32; 8],
}

impl Hmac {
    /// Takes a key of any length.
    pub fn new(key: &[u8]) -> Hmac {
        let mut block = [0; 64];
        if key.len() > block.len() {
            block[..32].copy_from_slice(&sha256(key));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let state = |mask: u8| {
            let mut state = START;
            absorb(&mut state, &block.map(|byte| byte ^ mask));
            state
        };
        Hmac { inner: state(0x36), outer: state(0x5c) }
    }

    /// The digest of `message`. The tests compare it with published digests.
    #[cfg(test)]
    pub fn digest(&self, message: &[u8]) -> [u8; 32] {
        digest_of(self.words(message))
    }

    fn words(&self, message: &[u8]) -> [u32; 8] {
        let mut inner = self.inner;
        absorb(&mut inner, &padded(message, 64));
        self.finish(inner)
    }

    fn finish(&self, inner: [u32; 8]) -> [u32; 8] {
        let mut state = self.outer;
        compress(&mut state, &last_block(inner));
        state
    }

    /// The digest of a message of 8 words.
    fn words_again(&self, message: [u32; 8]) -> [u32; 8] {
        let mut inner = self.inner;
        compress(&mut inner, &last_block(message));
        self.finish(inner)
    }
}

/// The last block of an input that is one block of key and 8 words, padded as
/// [`padded`] does it.
fn last_block(message: [u32; 8]) -> [u32; 16] {
    let mut block = [0; 16];
    block[..8].copy_from_slice(&message);
    block[8] = 1 << 31;
    block[15] = (64 + 32) * 8; // bits
    block
}

/// PBKDF2 with HMAC-SHA-256 (RFC 8018, section 5.2), for a key of 32 bytes:
/// slow on purpose, so that somebody who has stolen the result can't try many
/// passwords. `rounds` is the number of iterations.
pub fn pbkdf2(password: &[u8], salt: &[u8], rounds: u32) -> [u8; 32] {
    let hmac = Hmac::new(password);
    let mut last = hmac.words(&[salt, &1_u32.to_be_bytes()].concat());
    let mut key = last;
    for _ in 1..rounds {
        last = hmac.words_again(last);
        for (sum, word) in key.iter_mut().zip(last) {
            *sum ^= word;
        }
    }
    digest_of(key)
}

/// Whether two secrets are equal. The time that this takes does not depend on
/// the place where they differ.
pub fn constant_time_eq(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    #[test]
    fn sha256_gives_the_published_answers() {
        for (message, digest) in [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                &"a".repeat(1_000_000),
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
            ),
        ] {
            assert_eq!(hex(&sha256(message.as_bytes())), digest);
        }
        let all: Vec<u8> = (0..=129).flat_map(|length| sha256(&vec![b'x'; length])).collect();
        assert_eq!(
            hex(&sha256(&all)),
            "6d0989028287a2bd990515b95658bb810cf688b69517dfc49e4b3778e0b6d923"
        );
    }

    #[test]
    fn hmac_gives_the_answers_of_rfc_4231() {
        for (key, message, digest) in [
            (
                vec![0x0b; 20],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            assert_eq!(hex(&Hmac::new(&key).digest(message)), digest);
        }
    }

    #[test]
    fn pbkdf2_gives_the_published_answers() {
        // RFC 7914, section 11: the first 32 bytes of its 64.
        for (password, salt, rounds, key) in [
            (
                "passwd",
                "salt",
                1,
                "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc",
            ),
            (
                "password",
                "salt",
                1,
                "120fb6cffcf8b32c43e7225256c4f837a86548c92ccc35480805987cb70be17b",
            ),
            (
                "password",
                "salt",
                2,
                "ae4d0c95af6b46d32d0adff928f06dd02a303f8ef3c251dfd6e2d85a95474c43",
            ),
            (
                "password",
                "salt",
                4096,
                "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a",
            ),
        ] {
            assert_eq!(hex(&pbkdf2(password.as_bytes(), salt.as_bytes(), rounds)), key);
        }
        assert!(constant_time_eq(&[7; 32], &[7; 32]));
        for at in 0..32 {
            let mut other = [7; 32];
            other[at] ^= 1;
            assert!(!constant_time_eq(&[7; 32], &other));
        }
    }
}
