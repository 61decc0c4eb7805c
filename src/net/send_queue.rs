//! A queue of bytes for one peer: sending to many peers without ever waiting
//! for one of them.
//!
//! Knows sockets and bytes, no chat. Introduced by step 05.
//!
//! Sending on a socket only copies bytes into the system's send buffer. While a
//! peer does not read, its buffer fills up, and an ordinary write then waits
//! until there is room: for ever, if the peer never reads again. A thread that
//! writes to all peers in turn must not be stopped by one of them.
//!
//! So a [`SendQueue`] sends only what fits into the buffer at once. The rest is
//! that peer's backlog, and a thread of its own writes it while all others go
//! on. When the backlog is empty, the thread ends.
//!
//! And a write costs much the same for one line as for a hundred. So whoever
//! broadcasts collects what is new in a batch, and each queue sends its part of
//! the batch with one call, [`flush`](SendQueue::flush):
//!
//! ```text
//! batch     | joined | ann's line | bob's line | ...
//!                                 ^
//! ann       excluded from her own line: her cursor is after it,
//!           and what came before it is in her `pending` bytes
//! ```
//!
//! Servers with more clients than threads ask the system which sockets are
//! ready instead: look up `epoll`, `kqueue` and `IOCP`.

use crate::cli;
use crate::net::deadline::{is_timeout, linger};
use crate::system::send_now;
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

/// The most threads that write backlogs at once, in the whole process. A thread
/// takes four memory mappings. Linux has 65,530 of them (`vm.max_map_count`),
/// and 10,000 readers take most: without any left, the process would abort.
const MAX_WRITERS: usize = 1000;

/// The most bytes that a writer thread writes at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The number of threads that write backlogs now.
static WRITERS: AtomicUsize = AtomicUsize::new(0);

/// The sending side of one connection. Another thread may read from the same
/// stream meanwhile: `&TcpStream` both reads and writes.
pub struct SendQueue {
    stream: Arc<TcpStream>,
    /// Where in the batch the bytes begin that this peer has yet to get.
    /// None: it is not subscribed.
    cursor: Option<usize>,
    /// What it gets before them.
    pending: Vec<u8>,
    backlog: Arc<Mutex<Backlog>>,
}

/// What did not fit into the system's send buffer.
#[derive(Default)]
struct Backlog {
    /// What the writer thread has not fetched yet.
    bytes: Vec<u8>,
    /// How many bytes it has fetched and not written yet.
    fetched: usize,
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
    /// once (`TCP_NODELAY`: otherwise a line may wait some 40 ms for the
    /// acknowledgement of the one before; RFC 896, and RFC 9293 section 3.7.4).
    pub fn new(stream: Arc<TcpStream>) -> SendQueue {
        // They fail only for a connection that is gone. Its reader finds out.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
        SendQueue { stream, cursor: None, pending: Vec::new(), backlog: Arc::default() }
    }

    /// From here on, the peer gets what is added to the batch.
    pub fn subscribe(&mut self, batch: &[u8]) {
        self.cursor = Some(batch.len());
    }

    /// Queues bytes for this peer alone, after what is in the batch so far.
    pub fn push(&mut self, batch: &[u8], bytes: &[u8]) {
        self.catch_up(batch, batch.len());
        self.pending.extend_from_slice(bytes);
    }

    /// Excludes the peer from the end of the batch, from `start` on: these are
    /// its own lines.
    pub fn exclude(&mut self, batch: &[u8], start: usize) {
        self.catch_up(batch, start);
        self.cursor = self.cursor.and(Some(batch.len()));
    }

    /// Moves the peer's part of the batch, up to `end`, to its pending bytes.
    fn catch_up(&mut self, batch: &[u8], end: usize) {
        if let Some(cursor) = self.cursor {
            self.pending.extend_from_slice(&batch[cursor..end]);
            self.cursor = Some(end);
        }
    }

    /// Sends all that is queued, as far as it fits into the system's buffer.
    /// The rest is sent as soon as the peer takes it. Never waits.
    ///
    /// Afterwards the batch has to be emptied, for all peers together.
    ///
    /// A peer that is gone swallows its bytes silently: its reader finds out.
    ///
    /// # Errors
    ///
    /// [`TooSlow`] if the backlog would be over [`MAX_BACKLOG_BYTES`].
    pub fn flush(&mut self, batch: &[u8]) -> Result<(), TooSlow> {
        let unsent = self.cursor.map_or(&[][..], |cursor| &batch[cursor..]);
        self.cursor = self.cursor.and(Some(0));
        if self.pending.is_empty() {
            return self.send(unsent);
        }
        let mut bytes = std::mem::take(&mut self.pending);
        bytes.extend_from_slice(unsent);
        self.send(&bytes)
    }

    fn send(&self, mut bytes: &[u8]) -> Result<(), TooSlow> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut backlog = lock(&self.backlog);
        if backlog.is_empty() {
            bytes = &bytes[send_now(&self.stream, bytes).unwrap_or(bytes.len())..];
            if bytes.is_empty() {
                return Ok(());
            }
        }
        if backlog.len() + bytes.len() > MAX_BACKLOG_BYTES {
            self.close();
            return Err(TooSlow);
        }
        backlog.bytes.extend_from_slice(bytes);
        self.ensure_writer(&mut backlog);
        Ok(())
    }

    /// Closes the sending half when everything queued has been sent.
    ///
    /// A peer that takes nothing for 5 s meanwhile does not get the rest.
    pub fn finish(mut self, batch: &[u8]) {
        if self.flush(batch).is_err() {
            return;
        }
        let mut backlog = lock(&self.backlog);
        backlog.is_last = true;
        if backlog.is_empty() {
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

    /// Starts the thread that writes the backlog, if there is none. When there
    /// are no more threads, the backlog has to wait for the next flush.
    ///
    /// The JoinHandle is dropped: the thread ends when the backlog is written,
    /// or when the connection fails.
    fn ensure_writer(&self, backlog: &mut Backlog) {
        if backlog.has_writer {
            return;
        }
        let is_free = WRITERS.fetch_add(1, Ordering::Relaxed) < MAX_WRITERS;
        let (stream, shared) = (Arc::clone(&self.stream), Arc::clone(&self.backlog));
        let writer = thread::Builder::new().name("backlog".into()).stack_size(64 * 1024);
        let started = is_free.then(|| {
            writer.spawn(move || {
                write_backlog(&stream, &shared);
                WRITERS.fetch_sub(1, Ordering::Relaxed);
            })
        });
        backlog.has_writer = matches!(started, Some(Ok(_)));
        if !backlog.has_writer {
            WRITERS.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(Err(error)) = started {
            cli::warn(format_args!("no thread for a slow client, it has to wait: {error}"));
        }
    }
}

impl Backlog {
    fn len(&self) -> usize {
        self.bytes.len() + self.fetched
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes a backlog until it is empty, or until the connection fails.
fn write_backlog(stream: &TcpStream, shared: &Mutex<Backlog>) {
    loop {
        let mut backlog = lock(shared);
        let bytes = std::mem::take(&mut backlog.bytes);
        backlog.fetched = bytes.len();
        backlog.has_writer = !bytes.is_empty();
        let is_last = backlog.is_last;
        drop(backlog);
        if bytes.is_empty() {
            if is_last {
                let _ = stream.shutdown(Shutdown::Write);
                linger(stream);
            }
            return;
        }
        if !write_all(stream, shared, &bytes) {
            // The peer is gone. What is queued for it now is swallowed.
            let _ = stream.shutdown(Shutdown::Both);
            *lock(shared) = Backlog::default();
            return;
        }
    }
}

/// Writes `bytes` and counts them off. False: the peer is gone.
fn write_all(mut stream: &TcpStream, shared: &Mutex<Backlog>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match stream.write(&bytes[..bytes.len().min(CHUNK_BYTES)]) {
            Ok(count) => {
                bytes = &bytes[count..];
                lock(shared).fetched = bytes.len();
            }
            // A peer that is here may be slow. One that has left may not.
            Err(e) if is_timeout(&e) && !lock(shared).is_last => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

/// Locks, also after a panic elsewhere: each change is complete under its lock.
fn lock(backlog: &Mutex<Backlog>) -> MutexGuard<'_, Backlog> {
    backlog.lock().unwrap_or_else(PoisonError::into_inner)
}
