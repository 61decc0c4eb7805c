//! What can't be seen from outside a program, asked from Linux. On other
//! systems these fall back to a short pause: a test may miss a mistake there,
//! but never fails a right program.

use super::cleanup::time_left;
use super::{Story, patience};
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Waits until `done`, looking again and again; false if it never is.
pub fn poll(mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + patience();
    while !done() {
        if Instant::now() > until || time_left().is_zero() {
            return false;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    true
}

/// The sockets of `tcp` or `udp`: the port here, the port there, and `rx_queue`,
/// the bytes not yet read; of a listener (port 0 there), the connections not yet
/// accepted. They are in `/proc/net/tcp`, proc(5). Programs may listen on IPv4
/// through an IPv6 socket, so addresses are left out.
fn sockets(protocol: &str) -> Vec<(u16, u16, usize)> {
    let table = |version| fs::read_to_string(format!("/proc/net/{protocol}{version}"));
    let parse = |row: &str| {
        let fields: Vec<&str> = row.split_whitespace().collect();
        let hex = |at: usize| {
            let last = fields.get(at)?.rsplit(':').next()?;
            usize::from_str_radix(last, 16).ok()
        };
        Some((u16::try_from(hex(1)?).ok()?, u16::try_from(hex(2)?).ok()?, hex(4)?))
    };
    let text: String = ["", "6"].map(|version| table(version).unwrap_or_default()).concat();
    text.lines().filter_map(parse).collect()
}

/// The `rx_queue` of the TCP socket with these ports.
fn rx_queue(local: u16, remote: u16) -> Option<usize> {
    let mut all = sockets("tcp").into_iter();
    all.find(|socket| (socket.0, socket.1) == (local, remote)).map(|socket| socket.2)
}

/// Waits until the program has read all that was sent to this UDP port.
pub fn emptied(port: u16) {
    if !cfg!(target_os = "linux") {
        thread::park_timeout(Duration::from_millis(50));
        return;
    }
    poll(|| sockets("udp").iter().all(|(local, _, waiting)| *local != port || *waiting == 0));
}

/// Waits until the other side has taken all that we sent on `stream`, so that
/// what we send next is found by a separate read.
pub fn drained(stream: &TcpStream) {
    let (Ok(here), Ok(there)) = (stream.local_addr(), stream.peer_addr()) else { return };
    if !cfg!(target_os = "linux") {
        thread::park_timeout(Duration::from_millis(50));
        return;
    }
    // A socket that is gone has nothing left to take.
    poll(|| rx_queue(there.port(), here.port()).unwrap_or(0) == 0);
}

/// Waits until the other side has closed all of the connection, so that what
/// we send is refused (with a reset); false if it never does.
pub fn refused(mut stream: &TcpStream) -> bool {
    poll(|| stream.write_all(b"x").is_err())
}

/// Waits until every thread of a process sleeps: it has done all that it could
/// do by itself, and waits for others. False if it never does.
pub fn settled(pid: u32) -> bool {
    if !cfg!(target_os = "linux") {
        thread::park_timeout(Duration::from_millis(50));
        return true;
    }
    // Between two steps a thread may sleep for a moment: look several times.
    let mut calm = 0;
    poll(|| {
        calm = if states(pid).iter().all(|s| *s == 'S') { calm + 1 } else { 0 };
        calm == 5
    })
}

/// The state of each thread: the letter after the name in
/// `/proc/PID/task/*/stat`, proc(5).
pub fn states(pid: u32) -> Vec<char> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let stats = tasks.flatten().filter_map(|t| fs::read_to_string(t.path().join("stat")).ok());
    stats.filter_map(|s| s.rsplit(") ").next()?.chars().next()).collect()
}

/// Waits until the server has accepted all who have connected.
pub fn accepted(port: u16) {
    poll(|| rx_queue(port, 0).unwrap_or(0) == 0);
}

/// The memory of a process, in bytes: `VmRSS` in `/proc/PID/status`, proc(5).
pub fn memory(pid: u32) -> Option<usize> {
    status(pid, "VmRSS:")
}

/// The most memory that a process has had so far, in bytes: `VmHWM` there.
pub fn peak_memory(pid: u32) -> Option<usize> {
    status(pid, "VmHWM:")
}

/// A row of `/proc/PID/status`, in bytes. The file has KiB.
fn status(pid: u32, name: &str) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let row = status.lines().find_map(|l| l.strip_prefix(name))?;
    Some(row.split_whitespace().next()?.parse::<usize>().ok()? * 1024)
}

/// Whether programs started here have SIGINT (2) ignored, as those in the
/// background of some shells have: `SigIgn` in `/proc/self/status`, proc(5).
pub fn ignores_interrupts() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).is_some_and(|m| m & 0b10 != 0)
}

/// How a server can be asked to stop here.
pub fn ways_to_stop() -> Vec<&'static str> {
    let mut ways = vec!["/quit"];
    if cfg!(unix) {
        ways.push("SIGTERM");
        if ignores_interrupts() {
            eprintln!(
                "not checked: SIGINT, which is ignored here, and in what is started from here"
            );
        } else {
            ways.push("SIGINT");
        }
    }
    ways
}

/// Whether this machine has IPv6 on its loopback interface.
pub fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// Waits until the other side has sent something on `stream`, which is left
/// there, or until the connection is over. The test fails if neither comes.
#[track_caller]
pub fn wait_for_bytes(story: &Story, stream: &TcpStream) {
    let before = stream.read_timeout().unwrap_or(None);
    let _ = stream.set_read_timeout(Some(patience()));
    let peeked = stream.peek(&mut [0]);
    let _ = stream.set_read_timeout(before);
    if peeked.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)) {
        let silence = format!("nothing for {} s", patience().as_secs_f64());
        story.fails("the program --> its peer", "at least one byte", &silence);
    }
}
