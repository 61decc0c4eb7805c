//! A running `stunnel`, which speaks TLS for this program.
//!
//! Introduced by step 10.

use crate::certificates::require;
use crate::stunnel_log::Log;
use crate::tls::HANDSHAKE_SECONDS;
use socket_chat::cli::Failure;
use std::io::{self, BufReader};
use std::process::{Child, Command, Stdio};

/// The program. On Windows `stunnel` would open a window, and `tstunnel` does
/// not.
const STUNNEL: &str = if cfg!(windows) { "tstunnel" } else { "stunnel" };

/// A stunnel that ends when this value is dropped, and when this program ends
/// for whatever reason.
pub struct Stunnel(Child);

impl Stunnel {
    /// Starts stunnel with these services, of which `count` listen, and waits
    /// until all of them do. Returns its log, too.
    ///
    /// # Errors
    ///
    /// stunnel is not installed, or it does not start: the error says why.
    pub fn start(services: &str, count: usize) -> Result<(Stunnel, Log), Failure> {
        require("stunnel", STUNNEL, "-version")?;
        // With `foreground` it is a child process that logs on standard error.
        let unix = if cfg!(unix) { "foreground = yes\npid =\nsyslog = no\n" } else { "" };
        let config = format!(
            "{unix}debug = info\nsslVersionMin = TLSv1.2\nTIMEOUTbusy = {HANDSHAKE_SECONDS}\n{services}"
        );
        let mut stunnel = Stunnel(spawn(&config)?);
        let Some(output) = stunnel.0.stderr.take() else {
            return Err(Failure::new("stunnel did not start: it has no standard error"));
        };
        let mut log = Log::read(BufReader::new(output))?;
        let listening = log.wait_for_listeners(count);
        listening.map_err(|why| Failure::new(format!("stunnel did not start: {why}")))?;
        Ok((stunnel, log))
    }

    /// Whether the shell that guards stunnel has ended. Nobody else would end
    /// stunnel then if this program were killed.
    pub fn is_unguarded(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Stunnel {
    fn drop(&mut self) {
        // The shell waits for the end of its input.
        drop(self.0.stdin.take());
        if cfg!(not(unix)) {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

/// Checks a text that goes into the configuration of stunnel: a line end in it
/// would begin another option.
///
/// # Errors
///
/// It has a control character, or a blank at one of its ends, which stunnel
/// would leave out.
pub fn config_value(text: &str) -> Result<String, Failure> {
    if text.contains(char::is_control) || text.trim() != text {
        return Err(Failure::new(format!(
            "stunnel can't take the name {text:?}: choose one without control characters, and without blanks at its ends"
        )));
    }
    Ok(text.to_string())
}

/// Starts stunnel so that it ends when this program does, even if this program
/// is killed: a shell reads from a pipe whose other end only this program has,
/// and ends stunnel at the end of the input.
///
/// If the shell is killed itself, Linux ends stunnel (`setpriv --pdeathsig`,
/// from util-linux).
///
/// All are in a process group of their own, so that Ctrl-C does not end
/// stunnel before it has passed on the goodbyes of the server.
#[cfg(unix)]
fn spawn(config: &str) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    const GUARD: &str = r#"config=$1; set --
        if setpriv --pdeathsig TERM true 2>&-; then set -- setpriv --pdeathsig TERM; fi
        printf '%s\n' "$config" | "$@" stunnel -fd 0 & exec 2>&-
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
    std::fs::write(&file, config)?;
    Command::new(STUNNEL)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_can_add_a_line_to_the_configuration() {
        for right in ["ca.pem", "a b/ca.pem", "/tmp/a;b#c=d/ca.pem", "[::1]:12346"] {
            assert_eq!(config_value(right).ok().as_deref(), Some(right));
        }
        for wrong in ["ca.pem\nverifyChain = no", "a\rb", "a\0b", "a\u{85}b", " ca.pem", "ca.pem "]
        {
            assert!(config_value(wrong).is_err(), "{wrong:?}");
        }
    }
}
