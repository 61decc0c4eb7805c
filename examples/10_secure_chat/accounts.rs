//! Accounts: the names and the password hashes in a file.
//!
//! Introduced by step 10. Each line is an account, and only the owner of the
//! file can read it:
//!
//! ```text
//! ann $pbkdf2-sha256$600000$SALT$HASH
//! ```
//!
//! The file contains no password, only a hash of it that takes long to compute.
//! Each account has its own salt, so equal passwords have different hashes, and
//! a thief of the file has to compute 600,000 rounds for each guess and account.

use crate::files::{self, PrivateFolder};
use crate::password_hash::{PasswordHash, ROUNDS};
use socket_chat::chat::names;
use socket_chat::cli::Failure;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

/// The shortest and the longest password, in bytes.
pub const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=128;

/// The largest file of accounts, in bytes: room for some 30,000 of them.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The accounts of a file.
#[derive(Debug, Default)]
pub struct Accounts(BTreeMap<String, PasswordHash>);

impl Accounts {
    /// Reads a file. If it does not exist, there are no accounts.
    ///
    /// # Errors
    ///
    /// The file can't be read, it is larger than 4 MiB, or one of its lines is
    /// not an account: then the error has the number of the line.
    pub fn read(path: &Path) -> Result<Accounts, Failure> {
        let place = path.display();
        let text = match read_bounded(path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            Err(e) => {
                return Err(Failure::new(format!("cannot read the accounts in {place}: {e}")));
            }
        };
        let mut accounts = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let parsed = line.split_once(' ').and_then(|(name, hash)| {
                names::check_name(name).ok()?;
                Some((name.to_string(), PasswordHash::parse(hash)?))
            });
            let is_new = parsed.map(|(name, hash)| accounts.insert(name, hash).is_none());
            if is_new != Some(true) {
                return Err(Failure::new(format!(
                    "line {number} of {place} is not an account, or its name was used in an earlier line: correct the line, or delete it"
                )));
            }
        }
        Ok(Accounts(accounts))
    }

    /// Reads a file to which this name can be added.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Accounts::read); the name is not allowed; or an account
    /// has it already, where upper and lower case count as the same.
    pub fn read_without(path: &Path, name: &str) -> Result<Accounts, Failure> {
        names::check_name(name).map_err(Failure::new)?;
        let accounts = Accounts::read(path)?;
        match accounts.0.keys().find(|other| other.to_lowercase() == name.to_lowercase()) {
            Some(other) => Err(Failure::new(format!(
                "there is an account {other} already: choose another name, or delete its line in {}",
                path.display()
            ))),
            None => Ok(accounts),
        }
    }

    /// Adds an account to a file. Other programs may add accounts at the same
    /// time: they take turns by locking the folder of the file.
    ///
    /// # Errors
    ///
    /// The password is too short or too long; those of
    /// [`read_without`](Accounts::read_without); and those of writing.
    pub fn add(path: &Path, name: &str, password: &[u8]) -> Result<(), Failure> {
        if !PASSWORD_BYTES.contains(&password.len()) {
            let (low, high) = (PASSWORD_BYTES.start(), PASSWORD_BYTES.end());
            let why = format!("a password has {low} to {high} bytes: choose another");
            return Err(Failure::new(why));
        }
        // This is slow, so it comes before the lock.
        let hash = PasswordHash::new(password);
        let _lock = files::lock(files::folder_of(path))?;
        let mut accounts = Accounts::read_without(path, name)?;
        accounts.0.insert(name.to_string(), hash);
        let cannot = |e| Failure::new(format!("cannot write {}: {e}", path.display()));
        accounts.write(path).map_err(cannot)
    }

    /// Whether there is no account.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a name has an account.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether this is the password of that account.
    ///
    /// The time must not tell which names have an account. So the same work is
    /// done for a name that has none, with as many rounds as some account has:
    /// `random` chooses it, always the same one for the same name.
    pub fn verify(&self, name: &str, password: &[u8], random: &RandomState) -> bool {
        let nobody = PasswordHash::of_nobody(self.rounds_for_unknown(name, random));
        let hash = self.0.get(name).unwrap_or(&nobody);
        hash.verify(password) & self.0.contains_key(name)
    }

    fn rounds_for_unknown(&self, name: &str, random: &RandomState) -> u32 {
        let count = (self.0.len() as u64).max(1);
        let chosen = usize::try_from(random.hash_one(name) / 16 % count).unwrap_or(0);
        self.0.values().nth(chosen).map_or(ROUNDS, |hash| hash.rounds)
    }

    /// Writes the whole file beside the old one, then replaces that. A reader
    /// finds the old accounts or the new ones, even after a power failure
    /// (`rename(2)`, `fsync(2)`).
    fn write(&self, path: &Path) -> io::Result<()> {
        let folder = PrivateFolder::new(files::folder_of(path))?;
        let mut file = folder.create("accounts")?;
        for (name, hash) in &self.0 {
            writeln!(file, "{name} {}", hash.to_text())?;
        }
        file.sync_all()?;
        drop(file);
        fs::rename(folder.path().join("accounts"), path)
    }
}

/// Reads a regular file of at most 4 MiB. A device or a pipe might never end.
fn read_bounded(path: &Path) -> io::Result<String> {
    let check = |is_file: bool| {
        let why = || io::Error::new(ErrorKind::InvalidInput, "it is not a regular file");
        is_file.then_some(()).ok_or_else(why)
    };
    // Opening a named pipe would wait for a writer, so it is checked before;
    // and after, since the file may have been replaced in between.
    check(fs::metadata(path)?.is_file())?;
    let file = File::open(path)?;
    check(file.metadata()?.is_file())?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "it is larger than 4 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `correct horse`, with one round and with two in place of 600,000.
    const ONE: &str =
        "$pbkdf2-sha256$1$MDEyMzQ1Njc4OWFiY2RlZg$Yy2wRoe.n2N8tqLlzlMT/6LDwe.Z8g08lxr.xEewy.c";

    fn accounts(lines: &[(&str, &str)]) -> Accounts {
        let hash = |text: &str| PasswordHash::parse(text).expect("it is right");
        Accounts(lines.iter().map(|(name, text)| ((*name).to_string(), hash(text))).collect())
    }

    #[test]
    fn only_the_right_password_of_that_very_name_is_accepted() {
        let (accounts, random) = (accounts(&[("ann", ONE)]), RandomState::new());
        assert!(accounts.verify("ann", b"correct horse", &random));
        assert!(!accounts.verify("ann", b"correct horsf", &random));
        assert!(!accounts.verify("Ann", b"correct horse", &random));
    }

    #[test]
    fn an_unknown_name_costs_as_many_rounds_as_some_account() {
        let random = RandomState::new();
        let (rounds, hundred) = (ONE, ONE.replace("$1$", "$100$"));
        let accounts = accounts(&[("ann", rounds), ("bob", &hundred)]);
        let of = |name: &str| accounts.rounds_for_unknown(name, &random);
        let all: Vec<u32> = (0..64).map(|n| of(&format!("nobody{n}"))).collect();
        assert!(all.contains(&1) && all.contains(&100), "{all:?}");
        assert_eq!(all.iter().find(|n| ![1, 100].contains(*n)), None);
        assert_eq!(of("nobody7"), of("nobody7"));
        assert_eq!(Accounts::default().rounds_for_unknown("zed", &random), ROUNDS);
    }

    #[test]
    fn accounts_that_are_added_at_the_same_time_are_all_in_the_file() {
        let folder = PrivateFolder::new(&std::env::temp_dir()).expect("a folder");
        let file = folder.path().join("accounts.txt");
        let names = ["ann", "bob", "eve", "gus"];
        std::thread::scope(|scope| {
            for name in names {
                let file = &file;
                scope.spawn(move || {
                    let _lock = files::lock(files::folder_of(file)).expect("a lock");
                    let mut all = Accounts::read_without(file, name).expect("it is new");
                    all.0.insert(name.into(), PasswordHash::parse(ONE).expect("it is right"));
                    all.write(file).expect("it can be written");
                });
            }
        });
        let all = Accounts::read(&file).expect("it can be read");
        assert_eq!(all.0.keys().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
        let left = fs::read_dir(folder.path()).expect("it is there").count();
        assert_eq!(left, 1, "only the accounts are left");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_without_end_is_refused() {
        let why = format!("{:?}", Accounts::read(Path::new("/dev/zero")).expect_err("no end"));
        assert!(why.contains("not a regular file"), "{why}");
        let folder = PrivateFolder::new(&std::env::temp_dir()).expect("a folder");
        let large = folder.path().join("large");
        let file = File::create(&large).expect("a file");
        file.set_len(MAX_FILE_BYTES + 1).expect("a hole");
        let why = format!("{:?}", Accounts::read(&large).expect_err("too large"));
        assert!(why.contains("larger than 4 MiB"), "{why}");
    }
}
