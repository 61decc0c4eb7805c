//! TLS, spoken by programs that others have kept well for decades: `stunnel`
//! speaks it, `openssl` makes certificates. Here they are started and ended,
//! and what they say is put in our words.
//!
//! Introduced by step 10. Knows no chat. A TLS of our own would be thousands
//! of lines in which any mistake opens the door, and none shows in a test.

use crate::accounts::create_for_owner;
use socket_chat::cli::Failure;
use socket_chat::net::tcp::{self, Connection};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long stunnel may take to start, and to reach a server.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the other side may take for its part of the handshake.
const HANDSHAKE_SECONDS: u32 = 5;

/// What proves who a server is: the files of a certificate and its key.
pub struct Certificate {
    certificate: String,
    key: String,
}

impl Certificate {
    /// Finds `server.pem` and `server.key` in a folder.
    ///
    /// # Errors
    ///
    /// They can't be read, or stunnel, which needs them, is not installed: one
    /// line that says what to try.
    pub fn find(directory: &Path) -> Result<Certificate, Failure> {
        need("stunnel", STUNNEL, "-version")?;
        let file = |name: &str| {
            let path = directory.join(name);
            let cannot = |e| {
                let (file, folder) = (path.display(), directory.display());
                Failure::new(format!(
                    "cannot read {file}: {e}. Make it first: cargo run --example 10_secure_chat certs {folder}"
                ))
            };
            File::open(&path).map_err(cannot)?;
            Ok::<_, Failure>(path.display().to_string())
        };
        Ok(Certificate { certificate: file("server.pem")?, key: file("server.key")? })
    }
}

/// A stunnel that runs, until this is dropped.
pub struct Tunnel(Child);

impl Tunnel {
    /// Puts TLS in front of doors: what comes to the first address of each
    /// pair goes on to the second in clear.
    ///
    /// # Errors
    ///
    /// No such address, or a certificate that stunnel does not take: one line
    /// that says what to try.
    pub fn in_front(
        Certificate { certificate, key }: &Certificate,
        doors: &[(SocketAddr, SocketAddr)],
    ) -> Result<Tunnel, Failure> {
        let mut services = format!("cert = {certificate}\nkey = {key}\n");
        for (outside, inside) in doors {
            services += &format!(
                "[{outside}]\naccept = {}\nconnect = {}\n",
                plain(*outside),
                plain(*inside)
            );
        }
        let (tunnel, _) = Tunnel::start(&services, doors.len())?;
        Ok(tunnel)
    }

    /// Connects to `address` through TLS. The certificate there must be signed
    /// by the authority in the file `ca`, and be for this host: before that is
    /// sure, stunnel passes on no byte.
    ///
    /// # Errors
    ///
    /// One line: no stunnel, no server, or none that could prove who it is.
    pub fn to(address: &str, ca: &Path) -> Result<(Tunnel, Connection), Failure> {
        need("stunnel", STUNNEL, "-version")?;
        let known = fs::read_to_string(ca).map_err(|e| {
            Failure::new(format!(
                "cannot read the authority's certificate in {}: {e}",
                ca.display()
            ))
        })?;
        if !known.contains("BEGIN CERTIFICATE") {
            let why = "is no certificate: take ca.pem from who runs the server";
            return Err(Failure::new(format!("{} {why}", ca.display())));
        }
        let target = address.replace(['[', ']'], "");
        let host = target.rsplit_once(':').map_or("", |(host, _)| host);
        let check = if host.parse::<IpAddr>().is_ok() { "checkIP" } else { "checkHost" };
        let here = tcp::unused("127.0.0.1:0")?;
        let (tunnel, mut log) = Tunnel::start(
            &format!(
                "[chat]\nclient = yes\naccept = {here}\nconnect = {target}\nCAfile = {}\nverifyChain = yes\n{check} = {host}\n",
                ca.display()
            ),
            1,
        )?;
        let connection = Connection::open(&here.to_string(), "10_secure_chat serve")?;
        if log.tells_of_a_connection() {
            return Ok((tunnel, connection));
        }
        Err(Failure::new(in_our_words(&log.errors, address, host, ca)))
    }

    /// Starts stunnel with these services, and waits until all of them listen.
    /// Returns also what it has to say from then on.
    fn start(services: &str, count: usize) -> Result<(Tunnel, Log), Failure> {
        // `foreground` makes it a child of ours that logs on standard error.
        let unix = if cfg!(unix) { "foreground = yes\npid =\nsyslog = no\n" } else { "" };
        let config = format!(
            "{unix}debug = info\nsslVersionMin = TLSv1.2\nTIMEOUTbusy = {HANDSHAKE_SECONDS}\n{services}"
        );
        let mut child = spawn(&config)?;
        let (tell, told) = mpsc::channel();
        let lines = child.stderr.take().map(BufReader::new);
        let tunnel = Tunnel(child);
        // Nobody joins it: it ends with stunnel. What nobody waits for any
        // more it throws away, so that stunnel never has to wait.
        thread::Builder::new().name("stunnel".into()).spawn(move || {
            for line in lines.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                let _ = tell.send(line);
            }
        })?;

        let mut log = Log::new(told);
        let mut listening = 0;
        while listening < count {
            let Ok(line) = log.next() else {
                let why = match log.errors.lines().last() {
                    _ if log.errors.contains("TLS context") => {
                        "a certificate or its key is damaged, or they are no pair. Make them anew: cargo run --example 10_secure_chat certs DIR"
                    }
                    Some(why) => why,
                    None => "it does not say why",
                };
                return Err(Failure::new(format!("stunnel did not start: {why}")));
            };
            listening += usize::from(line.contains(" bound to "));
        }
        Ok((tunnel, Log::new(log.lines)))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // The end of its input is what the shell waits for.
        drop(self.0.stdin.take());
        if cfg!(not(unix)) {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

/// What stunnel is called: on Windows the program with that name opens a
/// window, and this one does not.
const STUNNEL: &str = if cfg!(windows) { "tstunnel" } else { "stunnel" };

/// Starts stunnel so that it ends when we do, however that happens: a shell
/// waits for the end of a pipe of which only we hold the other end.
///
/// In a process group of its own, it does not hear the Ctrl-C that is meant
/// for us, and lives until the goodbyes have passed.
#[cfg(unix)]
fn spawn(config: &str) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    const GUARD: &str = r#"printf '%s\n' "$1" | stunnel -fd 0 & exec 2>&-
        read -r end; kill $!; wait $!"#;
    Command::new("sh")
        .args(["-c", GUARD, "sh", config])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

#[cfg(not(unix))]
fn spawn(config: &str) -> io::Result<Child> {
    let file = std::env::temp_dir().join(format!("socket-chat-{}.conf", std::process::id()));
    fs::write(&file, config)?;
    Command::new(STUNNEL)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// stunnel wants no brackets around an IPv6 address.
fn plain(address: SocketAddr) -> String {
    format!("{}:{}", address.ip(), address.port())
}

/// What stunnel says from one moment on, for as long as we have patience.
struct Log {
    lines: Receiver<String>,
    end: Instant,
    /// What was wrong so far, a line each.
    errors: String,
}

impl Log {
    fn new(lines: Receiver<String>) -> Log {
        Log { lines, end: Instant::now() + PATIENCE, errors: String::new() }
    }

    fn next(&mut self) -> Result<String, RecvTimeoutError> {
        let time = self.end.saturating_duration_since(Instant::now());
        let line = self.lines.recv_timeout(time)?;
        self.errors.extend(error_in(&line).into_iter().flat_map(|error| [error, "\n".into()]));
        Ok(line)
    }

    /// Waits until stunnel has made a connection. False: it can't.
    fn tells_of_a_connection(&mut self) -> bool {
        loop {
            match self.next() {
                Ok(line) if line.contains("connected: new session") => return true,
                Ok(line) if line.contains("Connection closed") => return false,
                Ok(line) if line.contains("Connection reset") => return false,
                Ok(_) => {}
                // A stunnel that says it in other words would still pass on
                // nothing to a server that it does not trust.
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

/// What is behind an error's or a warning's mark in a line of stunnel's log:
/// `2026.11.22 21:49:06 LOG3[0]: ...` or, before it has read all, `[!] ...`.
fn error_in(line: &str) -> Option<String> {
    let (mark, text) = line.split_once("]: ").or_else(|| line.split_once("] "))?;
    let is_marked = ["LOG3[", "LOG4[", "[!"].iter().any(|error| mark.contains(error));
    // These two come with less than they are.
    let is_trouble = ["TIMEOUT", "Address already in use"].iter().any(|word| text.contains(word));
    (is_marked || is_trouble).then(|| text.to_string())
}

/// Why there is no connection to `address`.
fn in_our_words(errors: &str, address: &str, host: &str, ca: &Path) -> String {
    let ca = ca.display();
    let signed = format!(
        "the certificate of {address} is not signed by the authority in {ca}. Take ca.pem from who runs the server; if that is what you have, somebody else answers there"
    );
    let causes = [
        ("Connection refused", "nobody listens there. Is a server running, with --tls?".into()),
        ("resolv", format!("the host {host} is unknown: check the address")),
        ("local issuer", signed.clone()),
        ("self", signed.clone()),
        ("signature failure", signed),
        (
            "Subject checks",
            format!("its certificate is not for {host}: use a name that it was made for"),
        ),
        (
            "has expired",
            "its certificate has expired: who runs the server has to make a new one".into(),
        ),
        (
            "not yet valid",
            "its certificate is not valid yet: check the date of both computers".into(),
        ),
        (
            "TIMEOUT",
            format!(
                "it did not begin to speak TLS within {HANDSHAKE_SECONDS} s: is this the port of `tls chat on`?"
            ),
        ),
        ("SSL_connect", "it does not speak TLS: is this the port of `tls chat on`?".into()),
    ];
    let known = causes.into_iter().find(|(mark, _)| errors.contains(mark));
    let why = known.map_or_else(|| errors.lines().last().unwrap_or("").to_string(), |(_, why)| why);
    format!("cannot connect to {address}, and nothing was sent: {why}")
}

/// Makes a certificate authority for a lab in `directory`, and a certificate
/// that it has signed, for this machine's names for itself: `ca.pem`,
/// `server.pem`, `server.key`. What is there already is replaced.
///
/// The authority's own key is thrown away: it never signs again.
///
/// # Errors
///
/// One line: no openssl, or a folder that can't be written.
pub fn make_certificates(directory: &Path) -> Result<(), Failure> {
    // Files that are only needed on the way.
    const CONFIG: &str = "lab.cnf";
    const AUTHORITY_KEY: &str = "ca.key";
    const REQUEST: &str = "server.csr";
    need("openssl", "openssl", "version")?;
    let place = directory.display();
    let cannot = |e: io::Error| Failure::new(format!("cannot make certificates in {place}: {e}"));
    fs::create_dir_all(directory).map_err(cannot)?;
    fs::write(directory.join(CONFIG), OPENSSL_CONFIG).map_err(cannot)?;
    for key in [AUTHORITY_KEY, "server.key"] {
        create_for_owner(&directory.join(key)).map_err(cannot)?;
    }
    let days = VALID_DAYS.to_string();
    let new_key = ["req", "-config", CONFIG, "-newkey", "rsa:2048", "-nodes"];
    let authority = ["-x509", "-extensions", "authority", "-keyout", AUTHORITY_KEY];
    let server = ["-keyout", "server.key", "-out", REQUEST, "-subj", "/CN=localhost"];
    let sign = ["x509", "-req", "-in", REQUEST, "-CA", "ca.pem", "-CAkey", AUTHORITY_KEY];
    let signed =
        ["-CAcreateserial", "-CAserial", "ca.srl", "-extfile", CONFIG, "-extensions", "server"];
    let subject = ["-subj", "/CN=socket chat lab authority", "-out", "ca.pem", "-days", &days];
    for arguments in [
        [&new_key[..], &authority, &subject].concat(),
        [&new_key[..], &server].concat(),
        [&sign[..], &signed, &["-out", "server.pem", "-days", &days]].concat(),
    ] {
        let run = Command::new("openssl").args(arguments).current_dir(directory).output();
        let run = run.map_err(cannot)?;
        if !run.status.success() {
            let said = String::from_utf8_lossy(&run.stderr);
            let why = said.lines().last().unwrap_or("openssl does not say why");
            return Err(Failure::new(format!("cannot make certificates in {place}: {why}")));
        }
    }
    for file in [CONFIG, AUTHORITY_KEY, REQUEST, "ca.srl"] {
        fs::remove_file(directory.join(file)).map_err(cannot)?;
    }
    Ok(())
}

/// How long a certificate is good. Browsers take none over 398 days.
const VALID_DAYS: u32 = 365;

/// What openssl is to know of the two certificates (`x509v3_config(5)`).
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

/// Makes sure that a program is installed.
fn need(name: &str, program: &str, version: &str) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stunnel_says_is_told_in_our_words() {
        let explained = |log: &str| {
            let errors: Vec<String> = log.lines().filter_map(error_in).collect();
            in_our_words(&errors.join("\n"), "localhost:12346", "localhost", Path::new("ca.pem"))
        };
        // As stunnel 5.68 writes them.
        for (log, words) in [
            (
                "2026.11.22 21:49:06 LOG4[0]: CERT: Pre-verification error: unable to get local issuer certificate\n2026.11.22 21:49:06 LOG3[0]: SSL_connect: ../ssl/statem/statem_clnt.c:1889: error:0A000086:SSL routines::certificate verify failed",
                "not signed by",
            ),
            ("2026.11.22 21:49:07 LOG4[0]: CERT: Subject checks failed", "not for localhost"),
            (
                "2026.11.22 21:49:09 LOG4[0]: CERT: Pre-verification error: certificate has expired",
                "expired",
            ),
            (
                "2026.11.22 21:49:10 LOG3[0]: SSL_connect: ../ssl/statem/statem_clnt.c:396: error:0A0000F4:SSL routines::unexpected message",
                "does not speak TLS",
            ),
            (
                "2026.11.22 21:49:11 LOG3[0]: s_connect: connect 127.0.0.1:1: Connection refused (111)\n2026.11.22 21:49:11 LOG3[0]: No more addresses to connect",
                "nobody listens",
            ),
            (
                "2026.11.22 21:49:12 LOG3[0]: Error resolving \"localhost\": Neither nodename nor servname known (EAI_NONAME)",
                "is unknown",
            ),
            (
                "2026.11.22 21:49:16 LOG6[0]: ssl_start: s_poll_wait: TIMEOUTbusy exceeded: sending reset",
                "within 5 s",
            ),
            (
                "2026.11.22 21:49:16 LOG6[0]: Peer certificate required\n[!] Something new",
                ": Something new",
            ),
        ] {
            let explained = explained(log);
            assert!(explained.contains(words), "{explained}");
        }
    }
}
