//! What is stored of a password, and its text form.
//!
//! Introduced by step 10. The form is that of Python's passlib:
//! `$pbkdf2-sha256$ROUNDS$SALT$HASH`.

use crate::files::random_bytes;
use crate::pbkdf2;
use socket_chat::web::digest::{base64, from_base64};

/// The iterations of PBKDF2 for a new password: the number that OWASP's
/// Password Storage Cheat Sheet asks for with HMAC-SHA-256.
pub const ROUNDS: u32 = 600_000;

/// The most iterations that a hash in the file may have. More would only keep
/// the server busy.
const MAX_ROUNDS: u32 = 10_000_000;

/// How the text form of a hash begins.
const SCHEME: &str = "$pbkdf2-sha256$";

/// A salted hash of a password.
#[derive(Debug, PartialEq, Eq)]
pub struct PasswordHash {
    /// The iterations of PBKDF2.
    pub rounds: u32,
    salt: Vec<u8>,
    hash: [u8; 32],
}

impl PasswordHash {
    /// Hashes a password with a new random salt. That takes about half a second.
    pub fn new(password: &[u8]) -> PasswordHash {
        let salt = random_bytes().to_vec();
        let hash = pbkdf2::pbkdf2(password, &salt, ROUNDS);
        PasswordHash { rounds: ROUNDS, salt, hash }
    }

    /// The hash of no password at all: checking one against it takes as long as
    /// against a hash with so many rounds.
    pub fn of_nobody(rounds: u32) -> PasswordHash {
        PasswordHash { rounds, salt: vec![0; 16], hash: [0; 32] }
    }

    /// Whether this is the hash of that password.
    pub fn verify(&self, password: &[u8]) -> bool {
        let hash = pbkdf2::pbkdf2(password, &self.salt, self.rounds);
        pbkdf2::constant_time_eq(&hash, &self.hash)
    }

    /// Reads the text form. None: it is wrong, or has 0 or over 10 million rounds.
    pub fn parse(text: &str) -> Option<PasswordHash> {
        let mut parts = text.strip_prefix(SCHEME)?.split('$');
        let (rounds, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let rounds = rounds.parse().ok().filter(|rounds| (1..=MAX_ROUNDS).contains(rounds))?;
        let (salt, hash) = (from_ab64(salt)?, from_ab64(hash)?);
        let is_complete = parts.next().is_none() && !salt.is_empty();
        let hash = hash.try_into().ok()?;
        is_complete.then_some(PasswordHash { rounds, salt, hash })
    }

    /// Writes the text form.
    pub fn to_text(&self) -> String {
        let PasswordHash { rounds, salt, hash } = self;
        format!("{SCHEME}{rounds}${}${}", ab64(salt), ab64(hash))
    }
}

/// The base64 of passlib: `.` in place of `+`, and no `=` at the end.
fn ab64(bytes: &[u8]) -> String {
    base64(bytes).trim_end_matches('=').replace('+', ".")
}

fn from_ab64(text: &str) -> Option<Vec<u8>> {
    let padding = "===".get(..(4 - text.len() % 4) % 4)?;
    let bytes = from_base64(&format!("{}{padding}", text.replace('.', "+")))?;
    (!text.contains(['+', '='])).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by passlib: `pbkdf2_sha256.using(rounds=1000).hash("correct horse")`.
    const PASSLIB: &str =
        "$pbkdf2-sha256$1000$mROCEOJci7H2vlfKeQ9B6A$mgkkjAWUdnYD3m8C6fwX4U1x/T7mIyN74teXLE.BwzU";

    #[test]
    fn the_text_is_what_passlib_writes_and_reads() {
        let hash = PasswordHash::parse(PASSLIB).expect("it is right");
        assert_eq!(hash.to_text(), PASSLIB);
        assert!(hash.verify(b"correct horse"));
        assert!(!hash.verify(b"correct horsf"));
        for wrong in [
            "",
            "$pbkdf2-sha256$",
            &PASSLIB[1..],
            &PASSLIB[..PASSLIB.len() - 1],
            &PASSLIB.replace("$1000$", "$0$"),
            &PASSLIB.replace("$1000$", "$99999999$"),
            &PASSLIB.replace("sha256", "sha512"),
            &format!("{PASSLIB}$"),
        ] {
            assert_eq!(PasswordHash::parse(wrong), None, "{wrong}");
        }
    }
}
