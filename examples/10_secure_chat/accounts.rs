//! Names and passwords on disk.
//!
//! Introduced by step 10. A line an account, readable by its owner alone:
//!
//! ```text
//! ann $pbkdf2-sha256$600000$SALT$HASH
//! ```
//!
//! No password stands there, only what is worked out from it, slowly, with a
//! salt of its own for each: so equal passwords don't look alike, and who
//! steals the file has to try each one 600,000 digests long. Python's passlib
//! writes and reads the same form.

use crate::pbkdf2;
use socket_chat::chat::members;
use socket_chat::cli::Failure;
use socket_chat::web::digest::{self, base64};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process;

/// How many digests long the work is for each password: what OWASP's
/// Password Storage Cheat Sheet asks of PBKDF2 with HMAC-SHA-256.
pub const ROUNDS: u32 = 600_000;

/// The shortest and the longest password, in bytes.
pub const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=128;

/// More rounds than that would be an attack on ourselves.
const MAX_ROUNDS: u32 = 10_000_000;

const SCHEME: &str = "$pbkdf2-sha256$";

/// The accounts of a file.
#[derive(Debug, Default)]
pub struct Accounts(BTreeMap<String, Secret>);

/// What proves a password.
#[derive(Debug, PartialEq, Eq)]
struct Secret {
    rounds: u32,
    salt: Vec<u8>,
    hash: [u8; 32],
}

impl Accounts {
    /// Reads a file. One that does not exist has no accounts.
    ///
    /// # Errors
    ///
    /// The file can't be read, or has a line that makes no sense: its number.
    pub fn read(path: &Path) -> Result<Accounts, Failure> {
        let place = path.display();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            Err(e) => {
                return Err(Failure::new(format!("cannot read the accounts in {place}: {e}")));
            }
        };
        let mut accounts = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let parsed = line.split_once(' ').and_then(|(name, secret)| {
                members::check_name(name).ok()?;
                Some((name.to_string(), Secret::parse(secret)?))
            });
            let is_new = parsed.map(|(name, secret)| accounts.insert(name, secret).is_none());
            if is_new != Some(true) {
                return Err(Failure::new(format!(
                    "line {number} of {place} is no account, or one that stands there already: mend it, or take it out"
                )));
            }
        }
        Ok(Accounts(accounts))
    }

    /// Reads a file to which this name can be added.
    ///
    /// # Errors
    ///
    /// Why it can't be: it is no name, or an account has it, in small or in
    /// capital letters; or those of reading.
    pub fn read_without(path: &Path, name: &str) -> Result<Accounts, Failure> {
        members::check_name(name).map_err(Failure::new)?;
        let accounts = Accounts::read(path)?;
        match accounts.0.keys().find(|other| other.to_lowercase() == name.to_lowercase()) {
            Some(other) => Err(Failure::new(format!(
                "there is an account {other} already: choose another name, or take its line out of {}",
                path.display()
            ))),
            None => Ok(accounts),
        }
    }

    /// Adds an account to a file.
    ///
    /// # Errors
    ///
    /// Why it can't be: the password, the name, the file.
    pub fn add(path: &Path, name: &str, password: &[u8]) -> Result<(), Failure> {
        if !PASSWORD_BYTES.contains(&password.len()) {
            let (low, high) = (PASSWORD_BYTES.start(), PASSWORD_BYTES.end());
            let why = format!("a password has {low} to {high} bytes: choose another");
            return Err(Failure::new(why));
        }
        // This takes a while, in which others may be added.
        let secret = Secret::new(password);
        let mut accounts = Accounts::read_without(path, name)?;
        accounts.0.insert(name.to_string(), secret);
        let cannot = |e| Failure::new(format!("cannot write {}: {e}", path.display()));
        accounts.write(path).map_err(cannot)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is the password of that account. It takes as long for a
    /// name that has none.
    pub fn proves(&self, name: &str, password: &[u8]) -> bool {
        let nobody = Secret { rounds: ROUNDS, salt: vec![0; 16], hash: [0; 32] };
        let secret = self.0.get(name).unwrap_or(&nobody);
        let hash = pbkdf2::pbkdf2(password, &secret.salt, secret.rounds);
        pbkdf2::same(&hash, &secret.hash) & self.0.contains_key(name)
    }

    /// Writes the file: whole, beside the old one, which it then replaces. Who
    /// reads finds the old accounts or the new ones, and a machine that loses
    /// its power as well (`rename(2)`, `fsync(2)`).
    ///
    /// # Errors
    ///
    /// Those of writing.
    fn write(&self, path: &Path) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.new", process::id()));
        let mut file = create_for_owner(Path::new(&beside))?;
        for (name, secret) in &self.0 {
            writeln!(file, "{name} {}", secret.to_text())?;
        }
        file.sync_all()?;
        drop(file);
        fs::rename(beside, path)
    }
}

impl Secret {
    fn new(password: &[u8]) -> Secret {
        let salt = random_salt().to_vec();
        let hash = pbkdf2::pbkdf2(password, &salt, ROUNDS);
        Secret { rounds: ROUNDS, salt, hash }
    }

    fn parse(text: &str) -> Option<Secret> {
        let mut parts = text.strip_prefix(SCHEME)?.split('$');
        let (rounds, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let rounds = rounds.parse().ok().filter(|rounds| (1..=MAX_ROUNDS).contains(rounds))?;
        let (salt, hash) = (from_ab64(salt)?, from_ab64(hash)?);
        let is_all = parts.next().is_none() && !salt.is_empty();
        Some(Secret { rounds, salt, hash: hash.try_into().ok()? }).filter(|_| is_all)
    }

    fn to_text(&self) -> String {
        let Secret { rounds, salt, hash } = self;
        format!("{SCHEME}{rounds}${}${}", ab64(salt), ab64(hash))
    }
}

/// passlib's base64: `.` for `+`, and nothing to fill up.
fn ab64(bytes: &[u8]) -> String {
    base64(bytes).trim_end_matches('=').replace('+', ".")
}

fn from_ab64(text: &str) -> Option<Vec<u8>> {
    let fill = "===".get(..(4 - text.len() % 4) % 4)?;
    let bytes = digest::from_base64(&format!("{}{fill}", text.replace('.', "+")))?;
    (!text.contains(['+', '='])).then_some(bytes)
}

/// 16 bytes that nobody has had before. The standard library has no source of
/// chance but the keys of its hash maps, which come from the system.
fn random_salt() -> [u8; 16] {
    let mut salt = [0; 16];
    for half in salt.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(process::id()).to_be_bytes());
    }
    salt
}

/// Makes an empty file, or makes it empty, that only its owner may read.
///
/// # Errors
///
/// Those of the system.
#[cfg(unix)]
pub fn create_for_owner(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// The same. Windows gives a file the rights of its folder.
///
/// # Errors
///
/// Those of the system.
#[cfg(not(unix))]
pub fn create_for_owner(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by passlib: `pbkdf2_sha256.using(rounds=1000).hash("correct horse")`.
    const PASSLIB: &str =
        "$pbkdf2-sha256$1000$mROCEOJci7H2vlfKeQ9B6A$mgkkjAWUdnYD3m8C6fwX4U1x/T7mIyN74teXLE.BwzU";

    #[test]
    fn a_line_is_what_passlib_writes_and_reads() {
        let secret = Secret::parse(PASSLIB).expect("it is right");
        assert_eq!(secret.to_text(), PASSLIB);
        let accounts = Accounts(BTreeMap::from([("ann".to_string(), secret)]));
        assert!(accounts.proves("ann", b"correct horse"));
        assert!(!accounts.proves("ann", b"correct horsf"));
        assert!(!accounts.proves("Ann", b"correct horse"));
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
            assert_eq!(Secret::parse(wrong), None, "{wrong}");
        }
    }
}
