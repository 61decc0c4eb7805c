//! The command line: arguments, output, and errors of one line.
//!
//! Introduced by step 01.
//!
//! Lesson: [01_bind_listen](../../../../lessons/01_bind_listen.md).

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddrV6;
use std::ops::RangeInclusive;
use std::process;

/// Why a program fails: one line for the person at the terminal.
///
/// `main` returns it, so the line goes to standard error, and the exit status
/// is 1. It says what failed, where, and what to try.
pub struct Failure(String);

impl Failure {
    /// Makes a failure of one line, which should also say what to try.
    pub fn new(line: impl Into<String>) -> Failure {
        Failure(line.into())
    }
}

// When `main` returns an error, Rust prints it with `{:?}`. A derived `Debug`
// would print the name of the type and quotes around the line.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure(error.to_string())
    }
}

/// The arguments of the program. Take the [subcommand](Args::subcommand) first,
/// if there is one, then the options, then the positional arguments; then
/// [`finish`](Args::finish) refuses what is left.
///
/// An argument that can't be understood ends the program: one line that names
/// it, then the usage, on standard error, and exit status 2.
pub struct Args {
    usage: &'static str,
    left: Vec<String>,
}

impl Args {
    /// Takes the arguments of this process. For `-h` and `--help` it prints
    /// the usage and ends the program with exit status 0.
    pub fn new(usage: &'static str) -> Args {
        // `env::args` would panic on bytes that are not UTF-8.
        let left = std::env::args_os().skip(1);
        let left: Vec<String> = left.map(|a| a.to_string_lossy().into_owned()).collect();
        if left.iter().any(|a| a == "-h" || a == "--help") {
            // If nobody reads the output, that is no reason to fail.
            let _ = print(usage);
            process::exit(0);
        }
        Args { usage, left }
    }

    /// Takes the first argument, which must be one of these subcommands. Without
    /// any argument, the result is the first subcommand of the list.
    pub fn subcommand(&mut self, subcommands: &[&'static str]) -> &'static str {
        if self.left.is_empty() {
            return subcommands[0];
        }
        let given = self.left.remove(0);
        match subcommands.iter().find(|subcommand| **subcommand == given) {
            Some(subcommand) => subcommand,
            None => self.refuse(&format!(
                "\"{given}\" is unknown here: begin with {}",
                subcommands.join(" or ")
            )),
        }
    }

    /// Takes the next positional argument, which the usage calls `what`.
    pub fn positional(&mut self, what: &str) -> String {
        self.next().unwrap_or_else(|| self.refuse(&format!("{what} is missing")))
    }

    /// Takes the next positional argument, if there is one. An argument that
    /// begins with `-` is an option.
    fn next(&mut self) -> Option<String> {
        let is_option = self.left.first()?.starts_with('-');
        (!is_option).then(|| self.left.remove(0))
    }

    /// Takes out `option` and its value, the argument after it; None if the
    /// option is not given. An error message calls the value `what`.
    pub fn value(&mut self, option: &str, what: &str) -> Option<String> {
        let at = self.left.iter().position(|a| a == option)?;
        self.left.remove(at);
        if at == self.left.len() {
            self.refuse(&format!("{option} needs {what}"));
        }
        Some(self.left.remove(at))
    }

    /// Takes out `option` and the whole number after it, which must be in
    /// `range`; `default` if the option is not given.
    pub fn number(&mut self, option: &str, range: RangeInclusive<usize>, default: usize) -> usize {
        let what = format!("a number from {} to {}", range.start(), range.end());
        let Some(given) = self.value(option, &what) else {
            return default;
        };
        match given.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => self.refuse(&format!("{option} must be {what}, not \"{given}\"")),
        }
    }

    /// Takes out `option` and the address after it; `default` if the
    /// option is not given.
    pub fn address_of(&mut self, option: &str, default: &str) -> String {
        let given = self.value(option, "an address, as in 127.0.0.1:8080");
        given.map_or_else(|| default.to_string(), |address| self.checked(address))
    }

    /// Takes out `--host`: a further name or address, without a port, that the
    /// `Host` field of a request may name.
    pub fn host(&mut self) -> Option<String> {
        let name = self.value("--host", "a name, as in chat.example")?;
        if name.contains('/') || check_address(&format!("{name}:0")).is_err() {
            self.refuse(&format!("--host needs a name without a port, not \"{name}\""));
        }
        Some(name)
    }

    /// Takes out an option without a value. Returns whether it was given.
    pub fn flag(&mut self, option: &str) -> bool {
        let at = self.left.iter().position(|a| a == option);
        at.map(|at| self.left.remove(at)).is_some()
    }

    /// Takes the next positional argument as an address, `HOST:PORT`; `default`
    /// if there is none.
    pub fn address(&mut self, default: &str) -> String {
        self.next().map_or_else(|| default.to_string(), |address| self.checked(address))
    }

    /// Returns an address that has the right form, and refuses any other.
    fn checked(&self, address: String) -> String {
        match check_address(&address) {
            Ok(()) => address,
            Err(why) => self.refuse(&format!("\"{address}\" is no address: {why}")),
        }
    }

    /// Refuses the first argument that was not taken.
    pub fn finish(self) {
        if let Some(unknown) = self.left.first() {
            self.refuse(&format!("unexpected argument \"{unknown}\""));
        }
    }

    /// Ends the program because of its arguments: prints what is wrong with them
    /// and the usage on standard error. The exit status is 2.
    pub fn refuse(&self, trouble: &str) -> ! {
        warn(format_args!("{trouble}\n\n{}", self.usage));
        process::exit(2)
    }
}

/// Checks that `address` has the form `HOST:PORT`, and says what it lacks.
///
/// Whether the host exists is found out by the system, when the address is used.
fn check_address(address: &str) -> Result<(), &'static str> {
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err("it has no port, as in 127.0.0.1:12345");
    };
    if host.contains(':') && address.parse::<SocketAddrV6>().is_err() {
        return Err("an IPv6 address is written in brackets, as in [::1]:12345");
    }
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err("it has no host, as in 127.0.0.1:12345");
    }
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    if !digits || port.parse::<u16>().is_err() {
        return Err("the port is a number from 0 to 65535, as in 127.0.0.1:12345");
    }
    Ok(())
}

/// Prints one line on standard output, at once.
///
/// # Errors
///
/// Standard output can't be written: its reader has ended, or a disk is full.
/// (`println!` would panic.)
pub fn print(line: &str) -> io::Result<()> {
    // One write for the line and its end: nothing can come between them.
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// Prints one line on standard error. If nobody reads it, that is no reason to
/// fail. (`eprintln!` would panic.)
pub fn warn(line: impl fmt::Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::check_address;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for right in
            ["127.0.0.1:12345", "localhost:0", "[::1]:65535", "[fe80::1%2]:80", "chat.example:80"]
        {
            assert_eq!(check_address(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "12345",
            "localhost",
            "localhost:",
            ":12345",
            "localhost:65536",
            "localhost:-1",
            "localhost:+80",
            "localhost:http",
            "::1",
            "::1:12345",
            "[::1]",
            "[::1:80",
            "[localhost]:x:80",
            "a b:80",
        ] {
            assert!(check_address(wrong).is_err(), "{wrong}");
        }
    }
}
