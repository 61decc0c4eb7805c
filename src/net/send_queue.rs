//! Sending to many peers without ever waiting for one of them.
//!
//! Knows sockets and bytes, no chat. Introduced by step 05.
//!
//! Sending on a socket only copies bytes into the system's send buffer. While a
//! peer does not read, the buffer fills up, and then an ordinary write waits: for
//! ever, if the peer never reads again. So a [`SendQueue`] sends only what fits
//! into the buffer at once. The rest is that peer's backlog, and a thread of its
//! own writes it while all others go on.
//!
//! And a write costs much the same for one line as for a hundred. So what all
//! peers are to get is collected in a [`Batch`], and each queue sends its part
//! of it with one call, [`flush`](SendQueue::flush):
//!
//! ```text
//!               excluded: her own line
//! batch    | * bob joined | ann: hello | bob: hi |
//! ann's      '- pending -'              ^ cursor: the rest is sent from here
//! ```
//!
//! Servers with more clients than threads ask the system which sockets are
//! ready instead: look up `epoll`, `kqueue` and `IOCP`.
//!
//! Lesson: [05_threaded_server](../../../../../lessons/05_threaded_server.md).

use crate::cli;
use crate::net::deadline::{is_timeout, linger};
use crate::system::send_now;
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The largest backlog of one peer, in bytes. What the system keeps in its own
/// buffers comes on top: some megabytes on Linux (`tcp(7)`, `tcp_wmem`).
pub const MAX_BACKLOG_BYTES: usize = 1024 * 1024;

/// A peer that has left and then takes nothing for this time loses the rest.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The most threads that write backlogs at once. A thread takes four memory
/// mappings, Linux has 65,530 (`vm.max_map_count`), and 10,000 readers take most
/// of them: without any left, the process would abort.
const MAX_WRITERS: usize = 1000;

/// The number of threads that write backlogs now.
static WRITERS: AtomicUsize = AtomicUsize::new(0);

/// What all peers are to get in one round.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// The same bytes for all backlogs: however many peers are slow, there is
    /// one copy of them.
    shared: OnceCell<Arc<[u8]>>,
}

impl Batch {
    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: &[u8]) {
        self.shared.take();
        self.bytes.extend_from_slice(bytes);
    }

    /// Where the batch ends: the number of its bytes.
    pub fn end(&self) -> usize {
        self.bytes.len()
    }

    /// Begins the next round.
    pub fn clear(&mut self) {
        self.shared.take();
        self.bytes.clear();
    }
}

/// The sending side of one connection. Another thread may read from the same
/// stream meanwhile: `&TcpStream` both reads and writes.
pub struct SendQueue {
    stream: Arc<TcpStream>,
    /// Where in the batch the bytes begin that this peer has yet to get.
    /// None: the peer is not subscribed.
    cursor: Option<usize>,
    /// What the peer gets before those bytes.
    pending: Vec<u8>,
    backlog: Arc<Mutex<Backlog>>,
}

/// What did not fit into the system's send buffer.
#[derive(Default)]
struct Backlog {
    /// What the writer thread has not fetched yet. Each part counts from there.
    parts: VecDeque<(Arc<[u8]>, usize)>,
    /// How many bytes are not written yet, with those that the writer has fetched.
    bytes: usize,
    has_writer: bool,
    /// Whether nothing more will come, so that the sending half is to be closed.
    is_last: bool,
}

/// The peer's backlog would be over [`MAX_BACKLOG_BYTES`]. Its connection has
/// been closed.
#[derive(Debug)]
pub struct TooSlow;

impl SendQueue {
    /// Takes over the sending side of `stream`, and makes small writes leave at
    /// once: otherwise a line may wait some 40 ms for the acknowledgement of the
    /// one before (`TCP_NODELAY`; RFC 896, and RFC 9293 section 3.7.4).
    pub fn new(stream: Arc<TcpStream>) -> SendQueue {
        // Both fail only for a connection that is gone. Its reader finds out.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
        SendQueue { stream, cursor: None, pending: Vec::new(), backlog: Arc::default() }
    }

    /// From here on, the peer gets what is added to the batch.
    pub fn subscribe(&mut self, batch: &Batch) {
        self.cursor = Some(batch.end());
    }

    /// Queues bytes for this peer alone, after what is in the batch so far.
    pub fn push(&mut self, batch: &Batch, bytes: &[u8]) {
        self.catch_up(batch, batch.end());
        self.pending.extend_from_slice(bytes);
    }

    /// Excludes the peer from the end of the batch, from `start` on: these are
    /// its own lines.
    pub fn exclude(&mut self, batch: &Batch, start: usize) {
        self.catch_up(batch, start);
        self.cursor = self.cursor.and(Some(batch.end()));
    }

    /// Moves the peer's part of the batch, up to `end`, to its pending bytes.
    fn catch_up(&mut self, batch: &Batch, end: usize) {
        if let Some(cursor) = self.cursor {
            self.pending.extend_from_slice(&batch.bytes[cursor..end]);
            self.cursor = Some(end);
        }
    }

    /// Sends all that is queued, as far as it fits into the system's buffer.
    /// The rest is sent as soon as the peer takes it. Never waits.
    ///
    /// After the calls for all peers, [clear](Batch::clear) the batch. Bytes for
    /// a peer that is gone are thrown away without an error: its reader finds
    /// out that it is gone.
    ///
    /// # Errors
    ///
    /// [`TooSlow`] if the backlog would be over [`MAX_BACKLOG_BYTES`]. The
    /// connection is closed then.
    pub fn flush(&mut self, batch: &Batch) -> Result<(), TooSlow> {
        let start = self.cursor.unwrap_or(batch.end());
        self.cursor = self.cursor.and(Some(0));
        // The buffer is kept only for peers that need it in each round.
        let mut pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return self.send(&batch.bytes[start..], || {
                let shared = batch.shared.get_or_init(|| batch.bytes.as_slice().into());
                (Arc::clone(shared), start)
            });
        }
        pending.extend_from_slice(&batch.bytes[start..]);
        let sent = self.send(&pending, || (pending.as_slice().into(), 0));
        pending.clear();
        self.pending = pending;
        sent
    }

    /// Sends `bytes`. If not all of them fit, `part` returns a copy that the
    /// backlog can keep, and the place in the copy where `bytes` begin.
    fn send(&self, bytes: &[u8], part: impl FnOnce() -> (Arc<[u8]>, usize)) -> Result<(), TooSlow> {
        let mut backlog = lock(&self.backlog);
        // Nothing may overtake the backlog. After an error all bytes count as sent.
        let may_send = backlog.bytes == 0 && !bytes.is_empty();
        let sent = if may_send { send_now(&self.stream, bytes).unwrap_or(bytes.len()) } else { 0 };
        if sent == bytes.len() {
            return Ok(());
        }
        backlog.bytes += bytes.len() - sent;
        if backlog.bytes > MAX_BACKLOG_BYTES {
            self.close();
            return Err(TooSlow);
        }
        let (shared, start) = part();
        backlog.parts.push_back((shared, start + sent));
        self.ensure_writer(&mut backlog);
        Ok(())
    }

    /// Closes the sending half when everything queued has been sent.
    ///
    /// A peer that takes nothing for 5 s meanwhile does not get the rest.
    pub fn finish(mut self, batch: &Batch) {
        if self.flush(batch).is_err() {
            return;
        }
        let mut backlog = lock(&self.backlog);
        backlog.is_last = true;
        if backlog.bytes == 0 {
            let _ = self.stream.shutdown(Shutdown::Write);
        } else {
            self.ensure_writer(&mut backlog);
        }
    }

    /// Closes the connection at once, in both directions. A thread that reads
    /// from it or writes to it wakes up.
    pub fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Starts the thread that writes the backlog, if there is none. Without a
    /// thread the backlog waits until more is sent to this peer. The JoinHandle is dropped:
    /// the thread ends when all is written, or when the connection fails.
    fn ensure_writer(&self, backlog: &mut Backlog) {
        if backlog.has_writer || WRITERS.load(Ordering::Relaxed) >= MAX_WRITERS {
            return;
        }
        let (stream, shared) = (Arc::clone(&self.stream), Arc::clone(&self.backlog));
        let thread = thread::Builder::new().name("backlog".into()).stack_size(64 * 1024);
        WRITERS.fetch_add(1, Ordering::Relaxed);
        let started = thread.spawn(move || {
            write_backlog(&stream, &shared);
            WRITERS.fetch_sub(1, Ordering::Relaxed);
        });
        backlog.has_writer = started.is_ok();
        if let Err(error) = started {
            WRITERS.fetch_sub(1, Ordering::Relaxed);
            cli::warn(format_args!("no thread for a slow client, it has to wait: {error}"));
        }
    }
}

/// Writes a backlog until it is empty, or until the connection fails.
fn write_backlog(mut stream: &TcpStream, shared: &Mutex<Backlog>) {
    loop {
        let mut backlog = lock(shared);
        let Some((part, mut start)) = backlog.parts.pop_front() else {
            backlog.has_writer = false;
            if backlog.is_last {
                drop(backlog);
                let _ = stream.shutdown(Shutdown::Write);
                linger(stream);
            }
            return;
        };
        drop(backlog);
        while start < part.len() {
            match stream.write(&part[start..]) {
                Ok(count) => {
                    start += count;
                    lock(shared).bytes -= count;
                }
                // A peer that is here may be slow. One that has left has 5 s.
                Err(e) if is_timeout(&e) && !lock(shared).is_last => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    // The peer is gone. What is queued for it is swallowed.
                    let _ = stream.shutdown(Shutdown::Both);
                    *lock(shared) = Backlog::default();
                    return;
                }
            }
        }
    }
}

/// Locks, also after a panic elsewhere: each change is complete under its lock.
fn lock(backlog: &Mutex<Backlog>) -> MutexGuard<'_, Backlog> {
    backlog.lock().unwrap_or_else(PoisonError::into_inner)
}
