//! The accounts of a running server: the file may change at any time.
//!
//! Introduced by step 10.

use crate::accounts::Accounts;
use socket_chat::cli::{self, Failure};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// A file of accounts that is read again when it has changed.
///
/// If it can't be read then (somebody has saved half of it), the accounts of
/// the last good file stay in force, and standard error says so once.
pub struct AccountsFile {
    path: PathBuf,
    last: Mutex<Last>,
}

struct Last {
    accounts: Arc<Accounts>,
    /// The version that was read last, whether it was good or not.
    version: Option<Version>,
    /// Whether that version was bad. Then standard error has said so already.
    is_bad: bool,
}

/// What tells one version of a file from the next: its length in bytes and
/// when it was modified.
type Version = (u64, SystemTime);

impl AccountsFile {
    /// Reads a file. If it does not exist, there are no accounts.
    ///
    /// # Errors
    ///
    /// Those of [`Accounts::read`].
    pub fn open(path: PathBuf) -> Result<AccountsFile, Failure> {
        // The version first: if the file changes in between, it is read again.
        let version = version(&path);
        let accounts = Arc::new(Accounts::read(&path)?);
        Ok(AccountsFile { path, last: Mutex::new(Last { accounts, version, is_bad: false }) })
    }

    /// The accounts now.
    pub fn current(&self) -> Arc<Accounts> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let version = version(&self.path);
        if version != last.version {
            last.version = version;
            let read = match version {
                Some(_) => Accounts::read(&self.path),
                None => Err(Failure::new(format!("cannot find {}", self.path.display()))),
            };
            match read {
                Ok(accounts) => {
                    if last.is_bad {
                        cli::warn(format_args!("{} is in force again", self.path.display()));
                    }
                    (last.accounts, last.is_bad) = (Arc::new(accounts), false);
                }
                Err(why) if !last.is_bad => {
                    cli::warn(format_args!("{why:?}. The accounts of before stay in force"));
                    last.is_bad = true;
                }
                Err(_) => {}
            }
        }
        Arc::clone(&last.accounts)
    }
}

/// The version of a file. None: there is no such file, or the system does not
/// tell about it.
fn version(path: &Path) -> Option<Version> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::PrivateFolder;

    #[test]
    fn while_the_file_is_broken_the_last_good_accounts_stay_in_force() {
        const HASH: &str =
            "$pbkdf2-sha256$1$MDEyMzQ1Njc4OWFiY2RlZg$Yy2wRoe.n2N8tqLlzlMT/6LDwe.Z8g08lxr.xEewy.c";
        let folder = PrivateFolder::new(&std::env::temp_dir()).expect("a folder");
        let path = folder.path().join("accounts.txt");
        let file = AccountsFile::open(path.clone()).expect("no file, no accounts");
        assert!(file.current().is_empty());

        fs::write(&path, format!("ann {HASH}\n")).expect("a file");
        assert!(file.current().contains("ann"), "a new account needs no new start");

        fs::write(&path, format!("ann {HASH}\nbo")).expect("a file");
        assert!(file.current().contains("ann"), "half a file");
        assert!(file.last.lock().expect("not poisoned").is_bad);
        fs::remove_file(&path).expect("it was there");
        assert!(file.current().contains("ann"), "no file");

        fs::write(&path, format!("bob {HASH}\n")).expect("a file");
        assert!(file.current().contains("bob") && !file.current().contains("ann"));
        assert!(!file.last.lock().expect("not poisoned").is_bad);
    }
}
