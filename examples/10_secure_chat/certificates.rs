//! Certificates: made by `openssl`, and found for the server.
//!
//! Introduced by step 10.

use crate::files::{self, PrivateFolder};
use crate::stunnel;
use socket_chat::cli::Failure;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// How many days a certificate is valid. Browsers accept at most 398.
const VALID_DAYS: &str = "365";

/// What openssl writes into the two certificates (`x509v3_config(5)`).
const OPENSSL_CONFIG: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
";

/// The files of a server's certificate and its key, which prove who it is.
pub struct Certificate {
    /// The path of the certificate.
    pub certificate: String,
    /// The path of the key.
    pub key: String,
}

impl Certificate {
    /// Finds `server.pem` and `server.key` in a folder.
    ///
    /// # Errors
    ///
    /// They can't be read, or stunnel can't take their paths.
    pub fn find(directory: &Path) -> Result<Certificate, Failure> {
        let file = |name: &str| {
            let path = directory.join(name);
            let cannot = |e| {
                let (file, folder) = (path.display(), directory.display());
                Failure::new(format!(
                    "cannot read {file}: {e}. Make it first: cargo run --example 10_secure_chat certs {folder}"
                ))
            };
            File::open(&path).map_err(cannot)?;
            stunnel::config_value(&path.display().to_string())
        };
        Ok(Certificate { certificate: file("server.pem")?, key: file("server.key")? })
    }
}

/// Makes a certificate authority for a lab, and a certificate that it has
/// signed, for the names of this machine for itself: `ca.pem`, `server.pem` and
/// `server.key` in `directory`. Files with these names are replaced.
///
/// All is made in a private folder and renamed into place, so an error leaves
/// the old files as they were. The key of the authority never leaves that
/// folder: it is deleted, and can't sign anything later.
///
/// # Errors
///
/// There is no openssl, or the folder can't be written.
pub fn make(directory: &Path) -> Result<(), Failure> {
    require("openssl", "openssl", "version")?;
    let is_new = !directory.exists();
    let made = fs::create_dir_all(directory)
        .map_err(|e| Failure::new(e.to_string()))
        .and_then(|()| make_in(directory));
    made.map_err(|why| {
        if is_new {
            // That fails if somebody else has put a file there: then it stays.
            let _ = fs::remove_dir(directory);
        }
        Failure::new(format!("cannot make certificates in {}: {why:?}", directory.display()))
    })
}

fn make_in(directory: &Path) -> Result<(), Failure> {
    // Files that are only needed on the way.
    const CONFIG: &str = "lab.cnf";
    const AUTHORITY_KEY: &str = "ca.key";
    const REQUEST: &str = "server.csr";
    let folder = PrivateFolder::new(directory)?;
    folder.create(CONFIG)?.write_all(OPENSSL_CONFIG.as_bytes())?;
    // openssl writes the keys into files that nobody else can read.
    folder.create(AUTHORITY_KEY)?;
    folder.create("server.key")?;
    let new_key = ["req", "-config", CONFIG, "-newkey", "rsa:2048", "-nodes"];
    let authority = ["-x509", "-extensions", "authority", "-keyout", AUTHORITY_KEY];
    let subject = ["-subj", "/CN=socket chat lab authority", "-out", "ca.pem"];
    let server = ["-keyout", "server.key", "-out", REQUEST, "-subj", "/CN=localhost"];
    let sign = ["x509", "-req", "-in", REQUEST, "-CA", "ca.pem", "-CAkey", AUTHORITY_KEY];
    let signed = ["-CAcreateserial", "-extfile", CONFIG, "-extensions", "server"];
    let days = ["-days", VALID_DAYS];
    for arguments in [
        [&new_key[..], &authority, &subject, &days].concat(),
        [&new_key[..], &server].concat(),
        [&sign[..], &signed, &["-out", "server.pem"], &days].concat(),
    ] {
        run_openssl(&arguments, folder.path())?;
    }
    put_in_place(&folder, directory)
}

fn run_openssl(arguments: &[&str], folder: &Path) -> Result<(), Failure> {
    let run = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?;
    if run.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&run.stderr);
    let why = said.lines().last().unwrap_or("it does not say why");
    Err(Failure::new(format!("openssl failed: {why}")))
}

/// Renames the three files into `directory`. Two runs at the same time take
/// turns, so the files that are left belong together.
fn put_in_place(folder: &PrivateFolder, directory: &Path) -> Result<(), Failure> {
    const FILES: [&str; 3] = ["server.key", "server.pem", "ca.pem"];
    let _lock = files::lock(directory)?;
    // Checked for all before the first one is replaced.
    for file in FILES {
        let is_folder = fs::symlink_metadata(directory.join(file)).is_ok_and(|old| old.is_dir());
        if is_folder {
            return Err(Failure::new(format!("{file} is a folder there")));
        }
    }
    for file in FILES {
        fs::rename(folder.path().join(file), directory.join(file))?;
    }
    Ok(())
}

/// Makes sure that a program is installed, by running it with the argument
/// `version`.
///
/// # Errors
///
/// It is not: the error says how to install it.
pub fn require(name: &str, program: &str, version: &str) -> Result<(), Failure> {
    let run = Command::new(program)
        .arg(version)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match run {
        Err(e) if e.kind() == ErrorKind::NotFound => Err(Failure::new(format!(
            "{name} is not installed. Debian, Ubuntu: sudo apt install {}; Fedora: sudo dnf install {name}; macOS: brew install {name}; Windows: the installer from stunnel.org has both stunnel and openssl (put its bin folder into PATH)",
            if name == "stunnel" { "stunnel4" } else { name },
        ))),
        Err(e) => Err(Failure::new(format!("cannot start {program}: {e}"))),
        Ok(_) => Ok(()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn has_openssl() -> bool {
        require("openssl", "openssl", "version").is_ok()
    }

    fn folder() -> PrivateFolder {
        PrivateFolder::new(&std::env::temp_dir()).expect("a folder")
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("it is there");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> =
            entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_in_the_folder_is_neither_followed_nor_trusted() {
        if !has_openssl() {
            return;
        }
        let folder = folder();
        let lab = folder.path().join("lab");
        let diary = folder.path().join("diary");
        fs::create_dir(&lab).expect("a folder");
        for file in [diary.clone(), lab.join("ca.key"), lab.join("server.pem")] {
            fs::write(file, "mine").expect("a file");
        }
        symlink(&diary, lab.join("server.key")).expect("a link");

        make(&lab).expect("certificates");
        assert_eq!(names(&lab), ["ca.key", "ca.pem", "server.key", "server.pem"]);
        for kept in [diary, lab.join("ca.key")] {
            assert_eq!(fs::read_to_string(kept).expect("it is there"), "mine");
        }
        let key = fs::symlink_metadata(lab.join("server.key")).expect("a key");
        assert!(key.is_file(), "no link any more");
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_run_that_fails_leaves_everything_as_it_was() {
        if !has_openssl() {
            return;
        }
        let folder = folder();
        fs::create_dir(folder.path().join("server.pem")).expect("a folder");
        fs::write(folder.path().join("server.key"), "old").expect("a file");
        assert!(make(folder.path()).is_err());
        assert_eq!(names(folder.path()), ["server.key", "server.pem"]);
        assert_eq!(fs::read_to_string(folder.path().join("server.key")).expect("a key"), "old");
    }
}
