//! Files with secrets: they are written in a private folder and renamed into
//! place.
//!
//! Introduced by step 10. No file that exists is opened for writing, so nothing
//! is written through a link that somebody else has put there, and the mode of
//! an old file does not matter.

use socket_chat::cli::Failure;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

/// How long [`lock`] waits for another program.
const LOCK_TIME: Duration = Duration::from_secs(30);

/// How long [`lock`] sleeps before it tries again.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Makes 16 random bytes. The standard library has no function for that, but
/// the keys of its hash maps are random: they come from the system.
pub fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(process::id()).to_be_bytes());
    }
    bytes
}

/// A temporary folder that only its owner can enter (mode 700). It is removed
/// with all that is in it when this value is dropped.
pub struct PrivateFolder(PathBuf);

impl PrivateFolder {
    /// Makes a folder with a random name in the folder `parent`, so that its
    /// files can be renamed into `parent`.
    ///
    /// # Errors
    ///
    /// Those of the system. It is an error if the name is in use.
    pub fn new(parent: &Path) -> io::Result<PrivateFolder> {
        let name = format!(".socket-chat-{:032x}", u128::from_be_bytes(random_bytes()));
        let path = parent.join(name);
        private_builder().create(&path)?;
        Ok(PrivateFolder(path))
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes an empty file in the folder that only its owner can read (mode 600).
    ///
    /// # Errors
    ///
    /// Those of the system. It is an error if there is a file with that name.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(self.0.join(name))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // Nobody can be told here, and the files are unreadable for others.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Windows gives a folder the rights of its parent.
fn private_builder() -> DirBuilder {
    #[allow(unused_mut)]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// The folder that a file is in.
pub fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Waits until no other program has locked this folder, and locks it until the
/// result is dropped. So programs that change its files take turns.
///
/// On Unix the folder itself is locked (`flock(2)`), so no file is left over.
/// Windows can't open a folder: there it is a file `.lock` in the folder.
///
/// # Errors
///
/// Those of the system. It is also an error if another program has held the lock
/// for 30 s.
pub fn lock(folder: &Path) -> Result<File, Failure> {
    let cannot = |why: String| Failure::new(format!("cannot lock {}: {why}", folder.display()));
    let file = if cfg!(unix) {
        File::open(folder)
    } else {
        OpenOptions::new().append(true).create(true).open(folder.join(".lock"))
    };
    let file = file.map_err(|e| cannot(e.to_string()))?;
    let end = Instant::now() + LOCK_TIME;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(cannot(e.to_string())),
            Err(TryLockError::WouldBlock) if Instant::now() > end => {
                return Err(cannot("another program has kept it locked for 30 s".into()));
            }
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn a_private_folder_and_its_files_belong_to_their_owner_and_end_with_it() {
        let parent = PrivateFolder::new(&std::env::temp_dir()).expect("a folder");
        let folder = PrivateFolder::new(parent.path()).expect("a folder in it");
        drop(folder.create("key").expect("a new file"));
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.path().join("key")), 0o600);
        assert!(folder.create("key").is_err(), "what exists is not opened");
        drop(folder);
        let left = fs::read_dir(parent.path()).expect("it is there").count();
        assert_eq!(left, 0, "nothing is left over");
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let folder = PrivateFolder::new(&std::env::temp_dir()).expect("a folder");
        let victim = folder.path().join("victim");
        fs::write(&victim, "diary").expect("a file");
        std::os::unix::fs::symlink(&victim, folder.path().join("key")).expect("a link");
        assert!(folder.create("key").is_err());
        assert_eq!(fs::read_to_string(&victim).expect("it is there"), "diary");
    }

    #[test]
    fn a_folder_is_locked_by_one_at_a_time() {
        let folder = PrivateFolder::new(&std::env::temp_dir()).expect("a folder");
        let first = lock(folder.path()).expect("it is free");
        let second = File::open(folder.path()).expect("it is there");
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        drop(first);
        second.try_lock().expect("it is free again");
    }
}
