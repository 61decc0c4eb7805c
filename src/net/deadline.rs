//! Reading with a deadline, and closing a connection so that its last bytes
//! arrive.
//!
//! Introduced by step 06.
//!
//! Lesson: [06_message_headers](../../../../../lessons/06_message_headers.md).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a connection that is over may stay open, so that its client can
/// read the last bytes.
const LINGER: Duration = Duration::from_secs(1);

/// The most connections that linger at once: each of them has a thread.
const MAX_LINGERING: usize = 1000;

/// The number of connections that linger now.
static LINGERING: AtomicUsize = AtomicUsize::new(0);

/// Reads from a stream until a deadline, if there is one.
pub struct DeadlineReader<'a> {
    stream: &'a TcpStream,
    deadline: Option<Instant>,
}

impl<'a> DeadlineReader<'a> {
    /// All reads together may take `time`, from now on. After that, a read fails
    /// with [`TimedOut`](ErrorKind::TimedOut).
    pub fn new(stream: &'a TcpStream, time: Duration) -> DeadlineReader<'a> {
        DeadlineReader { stream, deadline: Some(Instant::now() + time) }
    }

    /// Takes the deadline away.
    pub fn clear(&mut self) {
        self.deadline = None;
        // It fails only for a connection that is gone. The next read tells.
        let _ = self.stream.set_read_timeout(None);
    }
}

impl Read for DeadlineReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
        }
        self.stream.read(buffer)
    }
}

/// Whether a read or write took longer than the timeout of its socket. The kind
/// of that error is `WouldBlock` on Unix and `TimedOut` on Windows.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Reads and throws away what the client still sends, until the client has
/// closed, but at most for 1 s. Then the connection can be closed. If 1000
/// connections linger already, this one does not.
///
/// Closing a socket with unread bytes makes TCP send a reset, and that may
/// destroy the last bytes on their way to the client (RFC 2525, section 2.17).
pub fn linger(stream: &TcpStream) {
    if LINGERING.fetch_add(1, Ordering::Relaxed) < MAX_LINGERING {
        let _ = io::copy(&mut DeadlineReader::new(stream, LINGER), &mut io::sink());
    }
    LINGERING.fetch_sub(1, Ordering::Relaxed);
}

/// Sends the last bytes of a connection, closes the sending half, and gives the
/// client up to 1 s to read them. Each write may wait up to 1 s, too.
pub fn send_last(mut stream: &TcpStream, bytes: &[u8]) {
    let _ = stream.set_write_timeout(Some(LINGER));
    if stream.write_all(bytes).is_ok() {
        let _ = stream.shutdown(Shutdown::Write);
        linger(stream);
    }
}

/// The same for a thread that must not wait: sends the last bytes to a client
/// that can't come in, and reads only what it has sent already.
pub fn refuse(mut stream: &TcpStream, bytes: &[u8]) {
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    // Bounded: a client that sends without end gets a reset after all.
    let mut unread = [0; 4096];
    for _ in 0..16 {
        if !matches!(stream.read(&mut unread), Ok(1..)) {
            break;
        }
    }
}
