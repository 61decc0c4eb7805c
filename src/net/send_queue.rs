//! Outgoing streams: sending to many peers without ever waiting for one.
//!
//! Knows sockets and bytes, no chat. Introduced by step 05.
//!
//! Most writes to a socket only copy bytes into the system's buffer and return
//! at once. But when a peer stops reading, its buffer fills, and the next
//! write waits until there is room: for ever, if the peer never reads again.
//! Whoever writes to all peers in turn must not get stuck there.
//!
//! So each [`Outgoing`] writes with a very short timeout. A peer that can't
//! take all in that time gets a thread of its own, which writes what is late
//! while everybody else goes on. When it has caught up the thread ends.
//!
//! And a write costs much the same for one line as for a hundred. So a
//! [`Crowd`] collects what is new and tells it to each peer with one write.
//!
//! Servers with more clients than threads ask the system which sockets are
//! ready instead: look up `epoll`, `kqueue` and `IOCP`.

use crate::cli;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The most that waits for one peer here, in bytes. What the system keeps in
/// its own buffers comes on top: some megabytes on Linux (`tcp(7)`, `tcp_wmem`).
pub const MAX_LATE_BYTES: usize = 1024 * 1024;

/// How long a write may hold up all the others. The system rounds it up to
/// its clock tick, 1 to 10 ms.
const PATIENCE: Duration = Duration::from_millis(1);

/// How long a peer that has left may take nothing of what is late for it.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// The most peers that can have a thread of their own at once. A thread takes
/// four memory mappings, Linux has 65,530 of them (`vm.max_map_count`) and
/// 10,000 readers take most: past the last one the whole process would die.
const MAX_WRITERS: usize = 1000;

/// The most bytes that a late peer's thread writes at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Threads that write what is late, in the whole process.
static WRITERS: AtomicUsize = AtomicUsize::new(0);

/// The sending side of one connection. Its reading side may be used by another
/// thread at the same time: a socket is one, `&TcpStream` reads and writes.
pub struct Outgoing {
    stream: Arc<TcpStream>,
    late: Arc<Mutex<Late>>,
}

/// What a peer has not taken yet.
#[derive(Default)]
struct Late {
    /// Not yet in the hands of a writer.
    bytes: Vec<u8>,
    /// All that waits: `bytes`, and what the writer holds.
    waiting: usize,
    /// Whether a thread is writing.
    has_writer: bool,
    /// Whether nothing more is to come, and the sending half can be closed.
    finishing: bool,
}

/// The peer has let more than [`MAX_LATE_BYTES`] pile up. It was disconnected.
#[derive(Debug)]
pub struct TooSlow;

impl Outgoing {
    /// Takes over the sending side of `stream`, and makes small writes leave
    /// at once (`TCP_NODELAY`: otherwise a line may wait some 40 ms for the
    /// acknowledgement of the one before; RFC 896, and RFC 9293 section 3.7.4).
    pub fn new(stream: Arc<TcpStream>) -> Outgoing {
        // They fail only for a connection that is gone. Its reader finds out.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(PATIENCE));
        Outgoing { stream, late: Arc::default() }
    }

    /// Sends `bytes`, now or as soon as the peer takes them, in order.
    ///
    /// A peer that is gone swallows them silently: its reader finds out.
    ///
    /// # Errors
    ///
    /// [`TooSlow`] when more than [`MAX_LATE_BYTES`] wait for this peer. The
    /// connection has been shut down then.
    pub fn send(&self, mut bytes: &[u8]) -> Result<(), TooSlow> {
        let mut late = lock(&self.late);
        if late.waiting == 0 && !bytes.is_empty() {
            bytes = write_now(&self.stream, bytes);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if late.waiting + bytes.len() > MAX_LATE_BYTES {
            self.close();
            return Err(TooSlow);
        }
        late.bytes.extend_from_slice(bytes);
        late.waiting += bytes.len();
        if !late.has_writer {
            // Without a thread they wait, and the next send tries again.
            late.has_writer = self.start_writer();
        }
        Ok(())
    }

    /// Closes the sending half when all is sent. There will be no more.
    ///
    /// A peer that takes nothing of what is late for 5 s does not get the rest.
    pub fn finish(&self) {
        let mut late = lock(&self.late);
        late.finishing = true;
        if late.waiting > 0 && !late.has_writer {
            late.has_writer = self.start_writer();
        }
        if !late.has_writer {
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// Whether something waits here that the peer has not taken.
    pub fn is_late(&self) -> bool {
        lock(&self.late).waiting > 0
    }

    /// Ends the connection at once, in both directions: whoever reads from it
    /// or writes to it in another thread wakes up.
    pub fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Starts a thread that writes what is late. Nobody joins it: it ends by
    /// itself when all is written, or when the connection fails.
    fn start_writer(&self) -> bool {
        if WRITERS.fetch_add(1, Ordering::Relaxed) >= MAX_WRITERS {
            WRITERS.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let (stream, late) = (Arc::clone(&self.stream), Arc::clone(&self.late));
        let thread = thread::Builder::new().name("late".into()).stack_size(64 * 1024);
        let started = thread.spawn(move || {
            write_late(&stream, &late);
            WRITERS.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = &started {
            WRITERS.fetch_sub(1, Ordering::Relaxed);
            cli::warn(format_args!("no thread for a slow client, it has to wait: {error}"));
        }
        started.is_ok()
    }
}

/// Many peers that hear the same news, in the same order, each less its own
/// words. For whoever wants to tell everybody, without a system call for each
/// line and each peer.
///
/// What is told waits until [`deliver`](Crowd::deliver): then each peer gets
/// all that is new to it with one write.
#[derive(Default)]
pub struct Crowd {
    peers: BTreeMap<u64, Peer>,
    /// What is new since the last delivery.
    news: Vec<u8>,
    /// Peers that did not take what was sent, and have been disconnected.
    lost: Vec<u64>,
}

/// How the news is put on a peer's wire, where not as it is.
pub type Frame = fn(&[u8]) -> Vec<u8>;

struct Peer {
    outgoing: Outgoing,
    frame: Option<Frame>,
    /// How much of the news it has, or is not to get. None: it does not listen.
    told: Option<usize>,
    /// Where its own words are in the news. It does not get those.
    own: Vec<Range<usize>>,
}

impl Crowd {
    /// Adds a peer under a new number. It hears only what it is told alone,
    /// until it [listens](Crowd::listen). If words have to be framed for it,
    /// then as for all others who need that.
    pub fn add(&mut self, id: u64, outgoing: Outgoing, frame: Option<Frame>) {
        self.peers.insert(id, Peer { outgoing, frame, told: None, own: Vec::new() });
    }

    /// From here on, this peer hears the news.
    pub fn listen(&mut self, id: u64) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.told = Some(self.news.len());
        }
    }

    /// Takes out a peer, with all that it was told before sent, or waiting.
    pub fn remove(&mut self, id: u64) -> Option<Outgoing> {
        self.send_one(id, b"");
        self.peers.remove(&id).map(|peer| peer.outgoing)
    }

    /// Tells all who listen.
    pub fn tell_all(&mut self, words: &[u8]) {
        self.news.extend_from_slice(words);
    }

    /// Tells all who listen, but for one: these are its own words.
    pub fn tell_others(&mut self, id: u64, words: &[u8]) {
        let start = self.news.len();
        self.news.extend_from_slice(words);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.own.push(start..self.news.len());
        }
    }

    /// Tells one peer, behind all that it was told before.
    pub fn tell_one(&mut self, id: u64, words: &[u8]) {
        match self.peers.get(&id).and_then(|peer| peer.frame) {
            Some(frame) => self.send_one(id, &frame(words)),
            None => self.send_one(id, words),
        }
    }

    /// The same for bytes that are framed already, or need no frame.
    pub fn send_one(&mut self, id: u64, bytes: &[u8]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut text = peer.untold(&self.news);
        text.extend_from_slice(bytes);
        if peer.outgoing.send(&text).is_err() {
            self.lost.push(id);
        }
    }

    /// How many bytes of news wait for delivery.
    pub fn news_bytes(&self) -> usize {
        self.news.len()
    }

    /// Sends the news to all who listen. Returns who was lost since the last
    /// time: they were too slow and are disconnected, but not yet removed.
    pub fn deliver(&mut self) -> Vec<u64> {
        if !self.news.is_empty() {
            let mut framed = None;
            for (&id, peer) in &mut self.peers {
                let sent = if peer.told == Some(0) && peer.own.is_empty() {
                    peer.outgoing.send(match peer.frame {
                        Some(frame) => framed.get_or_insert_with(|| frame(&self.news)),
                        None => &self.news,
                    })
                } else {
                    let text = peer.untold(&self.news);
                    peer.outgoing.send(&text)
                };
                peer.told = peer.told.and(Some(0));
                if sent.is_err() {
                    self.lost.push(id);
                }
            }
            self.news.clear();
        }
        std::mem::take(&mut self.lost)
    }
}

impl Peer {
    /// What is new to this peer: the news behind `told`, less its own words.
    fn untold(&mut self, news: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        let Some(mut told) = self.told else { return text };
        for own in self.own.drain(..) {
            text.extend_from_slice(&news[told..own.start]);
            told = own.end;
        }
        text.extend_from_slice(&news[told..]);
        self.told = Some(news.len());
        match self.frame {
            Some(frame) if !text.is_empty() => frame(&text),
            _ => text,
        }
    }
}

/// Writes what the peer takes within [`PATIENCE`], and returns the rest.
fn write_now<'a>(mut stream: &TcpStream, bytes: &'a [u8]) -> &'a [u8] {
    // After a timeout Windows does not say how much was taken ("the socket
    // state is indeterminate", SO_SNDTIMEO). There the writer does it all.
    if cfg!(windows) {
        return bytes;
    }
    match stream.write(bytes) {
        Ok(taken) => &bytes[taken..],
        Err(e) if is_timeout(e.kind()) || e.kind() == ErrorKind::Interrupted => bytes,
        Err(_) => &[],
    }
}

/// Writes what is late until nothing is, or until there is no hope.
fn write_late(stream: &Arc<TcpStream>, late: &Arc<Mutex<Late>>) {
    let _ = stream.set_write_timeout(Some(LAST_PATIENCE));
    loop {
        let mut queue = lock(late);
        if queue.bytes.is_empty() {
            let _ = stream.set_write_timeout(Some(PATIENCE));
            queue.has_writer = false;
            if queue.finishing {
                let _ = stream.shutdown(Shutdown::Write);
            }
            return;
        }
        let bytes = std::mem::take(&mut queue.bytes);
        drop(queue);
        if !write_pieces(stream, late, &bytes) {
            // The peer is gone. What comes for it now is swallowed.
            let _ = stream.shutdown(Shutdown::Both);
            *lock(late) = Late::default();
            return;
        }
    }
}

/// Writes `bytes` and counts them off; false when the peer is gone.
fn write_pieces(mut stream: &TcpStream, late: &Arc<Mutex<Late>>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match stream.write(&bytes[..bytes.len().min(PIECE_BYTES)]) {
            Ok(taken) => {
                bytes = &bytes[taken..];
                lock(late).waiting -= taken;
            }
            // Slow is allowed to those who are here, not to those who leave.
            Err(e) if is_timeout(e.kind()) && !lock(late).finishing => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

/// A timed-out write is `WouldBlock` on Unix and `TimedOut` on Windows.
fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Locks, also after a panic elsewhere: each change here is complete at once.
fn lock(late: &Mutex<Late>) -> MutexGuard<'_, Late> {
    late.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says a last word to a client that can't come in, and closes.
///
/// Never waits. What the client has sent meanwhile is read and thrown away,
/// or closing would reset the connection, and the reset could overtake the
/// word (RFC 2525, section 2.17).
pub fn refuse(stream: &TcpStream, word: &[u8]) {
    let mut stream = stream;
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(word);
    let _ = stream.shutdown(Shutdown::Write);
    // Bounded: a client that sends without end gets its reset after all.
    let mut unread = [0; 4096];
    for _ in 0..16 {
        if !matches!(std::io::Read::read(&mut stream, &mut unread), Ok(1..)) {
            break;
        }
    }
}
