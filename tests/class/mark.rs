//! Marks a class in one command: every folder in SUBMISSIONS is graded with the
//! tests of this project, and the marks are written in the forms that teachers
//! and learning platforms read. See `lessons/teaching.md`.
//!
//! It shares nothing with the tests but what they print. The tests are built
//! once and then run as programs, so that nobody waits for cargo's lock. It is a
//! binary of its own, and not an example or a part of the library:
//! so `cargo run --example ...` never compiles it.

#[cfg(unix)]
mod cell;
#[cfg(unix)]
mod class;
#[cfg(unix)]
mod grading;
#[cfg(unix)]
mod options;
#[cfg(unix)]
mod process;
#[cfg(unix)]
mod report;
#[cfg(unix)]
mod submission;

use std::process::ExitCode;

#[cfg(unix)]
fn main() -> ExitCode {
    if process::is_watchdog() {
        process::watch();
        return ExitCode::SUCCESS;
    }
    let options = match options::Options::read(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    match class::mark(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    eprintln!(
        "mark ends what submissions leave running by the means of Unix: on Windows run it in WSL"
    );
    ExitCode::FAILURE
}

/// An error that names the file or the command that it is about.
#[cfg(unix)]
fn about(what: impl std::fmt::Display) -> impl Fn(std::io::Error) -> std::io::Error {
    move |error| std::io::Error::new(error.kind(), format!("{what}: {error}"))
}
