//! Asking a person for a password.
//!
//! Introduced by step 10.

use crate::accounts::PASSWORD_BYTES;
use socket_chat::cli::{self, Failure};
use socket_chat::line::{LineRead, read_line};
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::{Command, Stdio};

/// Asks for a password on standard error, and reads it from the first line of
/// standard input. A terminal does not show what is typed, so that nobody can
/// read it over the shoulder of the person.
///
/// # Errors
///
/// There is no line, it is empty, it has over 128 bytes, or it is not UTF-8.
pub fn ask(name: &str) -> Result<String, Failure> {
    // If nobody can read the question, that is no reason to fail.
    let _ = write!(io::stderr(), "password for {name}: ");
    let hidden = if io::stdin().is_terminal() { read_hidden() } else { None };
    let password = match hidden {
        Some(line) => read_password(&mut &line[..]),
        None => read_password(&mut io::stdin().lock()),
    };
    // The terminal has not shown the Enter either.
    cli::warn("");
    password
}

/// Reads one line while the terminal shows nothing. None: this system has no
/// `stty`, so it can't be hidden.
///
/// The standard library can't tell a terminal to show nothing, but the command
/// `stty` can. A shell does all of it, so that the terminal shows again what is
/// typed even after Ctrl-C.
fn read_hidden() -> Option<Vec<u8>> {
    const READ: &str = r#"stty -echo || exit 2
        trap 'stty echo' EXIT; trap 'exit 1' HUP INT TERM
        IFS= read -r line && printf '%s' "$line""#;
    let mut shell = Command::new("sh");
    shell.args(["-c", READ]).stdin(Stdio::inherit()).stderr(Stdio::inherit());
    let done = shell.output().ok().filter(|done| done.status.code() != Some(2));
    if done.is_none() {
        let _ = write!(io::stderr(), "(it will be shown: there is no `stty`) ");
    }
    Some(done?.stdout)
}

/// Reads the first line of `input`, and leaves the rest there.
fn read_password(input: &mut impl BufRead) -> Result<String, Failure> {
    let (longest, mut line) = (*PASSWORD_BYTES.end(), Vec::new());
    if read_line(input, longest, &mut line)? == LineRead::TooLong {
        return Err(Failure::new(format!("a password has at most {longest} bytes")));
    }
    if line.is_empty() {
        return Err(Failure::new("no password was given: type one, then press Enter"));
    }
    String::from_utf8(line).map_err(|_| Failure::new("a password must be text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_of_text_of_at_most_128_bytes() {
        let read = |mut input: &[u8]| read_password(&mut input).map_err(|why| format!("{why:?}"));
        assert_eq!(read(b" correct horse \r\nhello\n"), Ok(" correct horse ".into()));
        assert_eq!(read(&[b'x'; 128]), Ok("x".repeat(128)));
        for (wrong, why) in [
            (&[b'x'; 129][..], "at most 128"),
            (&[0xff; 1500], "at most 128"),
            (&[0xff; 20], "UTF-8"),
            (b"\n", "no password"),
            (b"", "no password"),
        ] {
            assert!(read(wrong).is_err_and(|said| said.contains(why)), "{why}");
        }
    }
}
