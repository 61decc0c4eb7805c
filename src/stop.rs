//! Stopping a server when it is asked to: by Ctrl-C, by SIGTERM, by `/quit`.
//!
//! Introduced by step 07.
//!
//! Lesson: [07_disconnects](../../../../lessons/07_disconnects.md).

use crate::line::{LineRead, read_line};
use crate::system::{self, StopSignal};
use std::io;
use std::thread;

/// The line on standard input that stops a server.
const QUIT: &[u8] = b"/quit";

/// Waits until the server is asked to stop.
pub struct Stop(StopSignal);

impl Stop {
    /// From here on, Ctrl-C and SIGTERM no longer end the program, and the
    /// line `/quit` on standard input has a meaning.
    ///
    /// Call this once, before the server listens.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or no thread left.
    pub fn prepare() -> io::Result<Stop> {
        let signal = StopSignal::catch()?;
        // The JoinHandle is dropped: the thread may wait for the keyboard until
        // the process exits.
        thread::Builder::new().name("keyboard".into()).spawn(|| {
            let (mut input, mut line) = (io::stdin().lock(), Vec::new());
            loop {
                match read_line(&mut input, QUIT.len(), &mut line) {
                    Ok(LineRead::Line) if line == QUIT => return system::request_stop(),
                    // A longer line may begin with `/quit`, and is another line.
                    Ok(LineRead::Line | LineRead::TooLong) => {}
                    // The end of the input stops nothing: a server in the
                    // background has no input.
                    Ok(LineRead::End) | Err(_) => return,
                }
            }
        })?;
        Ok(Stop(signal))
    }

    /// Sleeps until the server is asked to stop.
    pub fn wait(&mut self) {
        self.0.wait();
    }
}
