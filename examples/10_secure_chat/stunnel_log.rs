//! What stunnel writes into its log, and what that means for a person.
//!
//! Introduced by step 10. These are the words of stunnel 5.68 and its like.

use crate::tls::HANDSHAKE_SECONDS;
use std::io;
use std::io::BufRead;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long stunnel may take to start, and then to reach a server.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The log of a running stunnel.
pub struct Log {
    lines: Receiver<String>,
    /// When [`next`](Log::next) stops waiting.
    end: Instant,
    /// The errors so far, each with a line end.
    pub errors: String,
}

impl Log {
    /// Reads the log in a thread of its own, which ends with stunnel. It goes
    /// on when this value is dropped, so that stunnel never waits for a reader.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn read(input: impl BufRead + Send + 'static) -> io::Result<Log> {
        let (sender, lines) = mpsc::channel();
        thread::Builder::new().name("stunnel log".into()).spawn(move || {
            for line in input.split(b'\n').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        })?;
        Ok(Log { lines, end: Instant::now() + TIMEOUT, errors: String::new() })
    }

    /// The next line. Waits for it until 10 s have passed since the start of
    /// the log.
    fn next(&mut self) -> Result<String, RecvTimeoutError> {
        let time = self.end.saturating_duration_since(Instant::now());
        let line = self.lines.recv_timeout(time)?;
        self.errors.extend(error_in(&line).into_iter().flat_map(|error| [error, "\n".into()]));
        Ok(line)
    }

    /// Waits until stunnel listens on `count` addresses.
    ///
    /// # Errors
    ///
    /// stunnel does not listen within 10 s. The error says why.
    pub fn wait_for_listeners(&mut self, count: usize) -> Result<(), String> {
        let mut listening = 0;
        while listening < count {
            let Ok(line) = self.next() else {
                return Err(match self.errors.lines().last() {
                    _ if self.errors.contains("TLS context") => {
                        "the certificate or its key is damaged, or they do not belong together. Make new ones: cargo run --example 10_secure_chat certs DIR".into()
                    }
                    Some(why) => why.into(),
                    None => "it does not say why".into(),
                });
            };
            listening += usize::from(line.contains(" bound to "));
        }
        Ok(())
    }

    /// Waits until stunnel has connected to a server. Returns false if it
    /// can't.
    pub fn wait_for_connection(&mut self) -> bool {
        self.end = Instant::now() + TIMEOUT;
        self.errors.clear();
        loop {
            match self.next() {
                Ok(line) if line.contains("connected: new session") => return true,
                Ok(line) if line.contains("Connection closed") => return false,
                Ok(line) if line.contains("Connection reset") => return false,
                Ok(_) => {}
                // Another version of stunnel may use other words. It still
                // passes on nothing to a server that it does not trust.
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Waits until stunnel has ended, or for at most this time. Returns whether
    /// it has ended.
    pub fn wait_for_end(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(_) if Instant::now() < end => {}
                Ok(_) | Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }
}

/// The text of an error or a warning in a line of the log:
/// `2026.11.22 21:49:06 LOG3[0]: ...` or, before it has read all, `[!] ...`.
fn error_in(line: &str) -> Option<String> {
    let (mark, text) = line.split_once("]: ").or_else(|| line.split_once("] "))?;
    let is_marked = ["LOG3[", "LOG4[", "[!"].iter().any(|error| mark.contains(error));
    // These two are errors that stunnel does not mark as such.
    let is_trouble = ["TIMEOUT", "Address already in use"].iter().any(|word| text.contains(word));
    (is_marked || is_trouble).then(|| text.to_string())
}

/// Explains to a person why there is no connection to `address`.
pub fn explain(errors: &str, address: &str, host: &str, ca: &Path) -> String {
    let ca = ca.display();
    let signed = format!(
        "the certificate of {address} is not signed by the authority in {ca}. Take ca.pem from the person who runs the server; if you have that one, somebody else answers there"
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
            "its certificate has expired: the person who runs the server has to make a new one"
                .into(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_stunnel_is_explained() {
        let explained = |log: &str| {
            let errors: Vec<String> = log.lines().filter_map(error_in).collect();
            explain(&errors.join("\n"), "localhost:12346", "localhost", Path::new("ca.pem"))
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
