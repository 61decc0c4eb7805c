//! PBKDF2 with HMAC-SHA-256 (RFC 8018, RFC 2104, FIPS 180-4). Written a second
//! time on purpose: the grading must not share a mistake with what it grades.
//!
//! A password takes 1.2 million compressions, in a build without optimization.
//! There every call counts, so words are kept in `u64`, whose sums need no
//! `wrapping_add`, and the inner loops call nothing.

use std::time::Instant;

/// The bits of a word.
const WORD: u64 = 0xffff_ffff;

/// The bits of a word after its place has moved to the right, around the end.
macro_rules! rotated {
    ($word:expr, $by:expr) => {
        ($word >> $by | $word << (32 - $by)) & WORD
    };
}

type State = [u64; 8];

/// The numbers that SHA-256 starts with and adds: 32 bits of the fractional parts
/// of the square roots and the cube roots of the first primes (sections 4.2.2
/// and 5.3.3).
struct Numbers {
    start: State,
    rounds: [u64; 64],
}

impl Numbers {
    fn new() -> Numbers {
        let mut primes: Vec<u128> = Vec::new();
        for number in 2.. {
            if primes.iter().all(|prime| number % prime != 0) {
                primes.push(number);
            }
            if primes.len() == 64 {
                break;
            }
        }
        // The root of a prime times 2 to the power of 32, without its whole part.
        let fraction = |prime: u128, power: u32| {
            let (mut low, mut high) = (0_u128, 1 << 36);
            while low + 1 < high {
                let middle = u128::midpoint(low, high);
                let is_low = middle.pow(power) <= prime << (32 * power);
                *if is_low { &mut low } else { &mut high } = middle;
            }
            u64::try_from(low).unwrap() & WORD
        };
        Numbers {
            start: std::array::from_fn(|at| fraction(primes[at], 2)),
            rounds: std::array::from_fn(|at| fraction(primes[at], 3)),
        }
    }

    /// Mixes 16 words into a state (section 6.2.2).
    #[allow(clippy::many_single_char_names)] // the names of the standard
    fn compress(&self, state: &State, block: &[u64; 16]) -> State {
        let mut words = [0; 64];
        words[..16].copy_from_slice(block);
        let mut t = 16;
        while t < 64 {
            let (near, far) = (words[t - 2], words[t - 15]);
            let near = rotated!(near, 17) ^ rotated!(near, 19) ^ near >> 10;
            let far = rotated!(far, 7) ^ rotated!(far, 18) ^ far >> 3;
            words[t] = (near + words[t - 7] + far + words[t - 16]) & WORD;
            t += 1;
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
        t = 0;
        while t < 64 {
            let sum = rotated!(e, 6) ^ rotated!(e, 11) ^ rotated!(e, 25);
            let choice = e & f ^ (e ^ WORD) & g;
            let first = h + sum + choice + self.rounds[t] + words[t];
            let sum = rotated!(a, 2) ^ rotated!(a, 13) ^ rotated!(a, 22);
            let majority = a & b ^ a & c ^ b & c;
            (h, g, f, e) = (g, f, e, (d + first) & WORD);
            (d, c, b, a) = (c, b, a, (first + sum + majority) & WORD);
            t += 1;
        }
        let mixed = [a, b, c, d, e, f, g, h];
        std::array::from_fn(|at| (state[at] + mixed[at]) & WORD)
    }

    /// The state after these bytes, before which `done` others were mixed in,
    /// and their padding (section 5.1.1).
    fn finish(&self, state: State, done: usize, bytes: &[u8]) -> State {
        let mut padded = [bytes, &[0x80]].concat();
        padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
        padded.extend(((done + bytes.len()) as u64 * 8).to_be_bytes());
        padded.chunks(64).fold(state, |state, block| self.compress(&state, &words(block)))
    }
}

/// 64 bytes as words, in network byte order.
fn words(block: &[u8]) -> [u64; 16] {
    std::array::from_fn(|at| {
        block[4 * at..4 * at + 4].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
    })
}

/// The hash of a password, as an account has it; empty if it takes too long.
pub fn pbkdf2(password: &[u8], salt: &[u8], rounds: u32, until: Instant) -> Vec<u8> {
    let numbers = Numbers::new();
    let as_bytes = |state: State| -> Vec<u8> {
        state.iter().flat_map(|word| word.to_be_bytes()[4..].to_vec()).collect()
    };
    // A key of over 64 bytes is hashed first (RFC 2104, section 2).
    let mut key = password.to_vec();
    if key.len() > 64 {
        key = as_bytes(numbers.finish(numbers.start, 0, password));
    }
    key.resize(64, 0);
    let [inner, outer] = [0x36, 0x5c].map(|pad| {
        let block: Vec<u8> = key.iter().map(|byte| byte ^ pad).collect();
        numbers.compress(&numbers.start, &words(&block))
    });
    let hmac = |bytes: &[u8]| {
        let hash = as_bytes(numbers.finish(inner, 64, bytes));
        numbers.finish(outer, 64, &hash)
    };
    let mut last = hmac(&[salt, &1_u32.to_be_bytes()].concat());
    let mut all = last;
    // From here on what is hashed has always 32 bytes: one block, whose end is
    // always the same.
    let mut block = [0; 16];
    (block[8], block[15]) = (0x8000_0000, (64 + 32) * 8);
    for round in 1..rounds {
        if round % 4096 == 0 && Instant::now() > until {
            return Vec::new();
        }
        block[..8].copy_from_slice(&last);
        let hash = numbers.compress(&inner, &block);
        block[..8].copy_from_slice(&hash);
        last = numbers.compress(&outer, &block);
        let mut at = 0;
        while at < 8 {
            all[at] ^= last[at];
            at += 1;
        }
    }
    as_bytes(all)
}
