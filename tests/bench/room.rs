//! `cargo bench`: how fast the rooms of steps 05, 07 and 08 are, beside the
//! obvious ways.
//!
//! Starts the programs, fills their rooms, and lets everybody talk. The
//! obvious way for lines, a list of streams behind a lock, is at the end of
//! this file and runs in this process; for datagrams it is a loop in Python.
//! The write limit is what one thread can write to sockets when nobody looks
//! at the bytes. All run in turn, several times: trust the ratios, since a
//! machine's speed drifts.
//!
//! `cargo bench -- --short` only shows that it runs. `cargo bench -- --figure`
//! measures again what the picture in lesson 5 shows, and draws it.

#![allow(missing_docs, clippy::cast_precision_loss)]

mod figure;
mod servers;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A line with its end, in bytes.
const LINE_BYTES: usize = 64;
/// The same as a room passes it on, behind `guest-1: `.
const NAMED_BYTES: usize = 9 + LINE_BYTES;
/// The same as the body of a message, without the line end, with a sender of
/// four bytes.
const MESSAGE_BYTES: usize = 20 + 4 + LINE_BYTES - 1;
/// Lines that a sender may have under way at once.
const WINDOW: u64 = 64;
/// At most so many clients talk; the others listen. Their names in a room of
/// lines, guest-1 to guest-9, are of one length.
const SENDERS: usize = 9;

/// What the clients of a room speak.
#[derive(Clone, Copy)]
enum Language {
    /// Step 05: lines.
    Lines,
    /// Step 07: messages, whose body is the line without its end.
    Messages,
}

/// The bytes of a message, as the contract draws them.
fn message(kind: u8, sender: &str, body: &str) -> Vec<u8> {
    let mut bytes = vec![b'C', b'H', 1, kind];
    bytes.extend([0; 12]);
    for text in [sender, body] {
        bytes.extend(u16::try_from(text.len()).expect("it is short").to_be_bytes());
    }
    bytes.extend([sender, body].concat().into_bytes());
    bytes
}

impl Language {
    /// What client number `number` sends to come in. All names are as long.
    fn join(self, number: usize) -> Vec<u8> {
        match self {
            Language::Lines => Vec::new(),
            Language::Messages => message(JOIN, &format!("g{number:03}"), ""),
        }
    }

    /// A line of [`LINE_BYTES`], with its end or as a body.
    fn say(self, text: &str) -> Vec<u8> {
        match self {
            Language::Lines => format!("{text}\n").into_bytes(),
            Language::Messages => message(TEXT, "", text),
        }
    }
}

const JOIN: u8 = 1;
const TEXT: u8 = 2;
const WELCOME: u8 = 7;
const CHALLENGE: u8 = 9;

fn main() -> io::Result<()> {
    let has = |option: &str| std::env::args().any(|argument| argument == option);
    if has("--locked-list") {
        // This is a process that the figure needs.
        println!("listening on {}", locked_list()?);
        loop {
            thread::park();
        }
    }
    let short = has("--short");
    let (rounds, time) = if short { (1, 50) } else { (3, 400) };
    let time = Duration::from_millis(time);

    // `cargo bench` does not build examples.
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    Command::new(cargo).args(["build", "--quiet", "--release", "--examples"]).status()?;

    if has("--figure") {
        return figure::draw(time);
    }
    println!(
        "deliveries/s (a delivery: one line of {LINE_BYTES} bytes at one client), median of {rounds}"
    );
    println!(
        "{:>8} {:>12} {:>12} {:>6} {:>12} {:>6} {:>12}",
        "clients", "05", "locked list", "05 is", "07", "07 is", "write limit"
    );
    for clients in [2, 10, 100] {
        let (mut lines, mut naive, mut messages, mut limit) =
            <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
        for _ in 0..rounds {
            let room = Room::start("05_threaded_server", &[])?;
            lines.push(throughput(room.address, clients, time, Language::Lines, NAMED_BYTES)?);
            let room = Room::start("07_disconnects", &["serve"])?;
            messages.push(throughput(
                room.address,
                clients,
                time,
                Language::Messages,
                MESSAGE_BYTES,
            )?);
            naive.push(throughput(locked_list()?, clients, time, Language::Lines, LINE_BYTES)?);
            limit.push(write_limit(clients, time)?);
        }
        let [lines, naive, messages, limit] = [lines, naive, messages, limit].map(median);
        let (ratio, of_lines) = (lines / naive, messages / lines);
        println!(
            "{clients:>8} {lines:>12.0} {naive:>12.0} {ratio:>5.0}x {messages:>12.0} {of_lines:>5.2}x {limit:>12.0}"
        );
    }
    println!("(05 is so many times the locked list, 07 so many times 05)");

    println!("\ndatagrams/s passed on by 08, and by a loop of 10 lines of Python");
    println!("{:>8} {:>12} {:>12} {:>6}", "clients", "08", "Python", "ratio");
    for clients in [2, 10] {
        let (mut ours, mut python) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let room = Room::start("08_udp_chat", &["serve"])?;
            ours.push(datagrams(room.address, clients, time, true)?);
            if let Ok(room) = Room::python() {
                python.push(datagrams(room.address, clients, time, false)?);
            }
        }
        let ours = median(ours);
        if python.is_empty() {
            println!("{clients:>8} {ours:>12.0} {:>12}", "no python3");
            continue;
        }
        let python = median(python);
        println!("{clients:>8} {ours:>12.0} {python:>12.0} {:>5.2}x", ours / python);
    }

    println!("\nmicroseconds from send to receive: 100 clients, 100 lines/s, one at a time");
    println!("{:>12} {:>8} {:>8}", "", "p50", "p99");
    for (name, address) in [("05", None), ("locked list", Some(locked_list()?))] {
        let room = address.is_none().then(|| Room::start("05_threaded_server", &[])).transpose()?;
        let address = address.or(room.as_ref().map(|r| r.address));
        let (p50, p99) = latency(address.expect("one of the two"), if short { 10 } else { 200 })?;
        println!("{name:>12} {p50:>8} {p99:>8}");
    }
    servers::measure(rounds, time)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A server in a process of its own.
struct Room {
    child: Child,
    address: SocketAddr,
}

impl Room {
    /// Starts an example.
    fn start(name: &str, words: &[&str]) -> io::Result<Room> {
        Room::start_with(name, words, &[])
    }

    /// The same with options after the address.
    fn start_with(name: &str, words: &[&str], options: &[&str]) -> io::Result<Room> {
        // .../target/release/deps/bench-0123456789abcdef
        let bench = std::env::current_exe()?;
        let target: PathBuf = bench.ancestors().nth(2).expect("cargo's folders").into();
        let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        let program = target.join("examples").join(&name);
        Room::run(Command::new(program).args(words).arg("127.0.0.1:0").args(options))
    }

    /// The obvious way to pass on datagrams.
    fn python() -> io::Result<Room> {
        Room::run(Command::new("python3").args(["-c", PYTHON]))
    }

    fn run(command: &mut Command) -> io::Result<Room> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        // The other end stays open: a program that can't print may end.
        BufReader::new(child.stdout.as_mut().expect("it is piped")).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").and_then(|a| a.parse().ok());
        Ok(Room { child, address: address.expect("`listening on ADDRESS`") })
    }
}

/// A room of anybody who has sent a datagram: no names, no format, no limits.
const PYTHON: &str = r#"
import socket
room = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
room.bind(("127.0.0.1", 0))
print("listening on %s:%d" % room.getsockname(), flush=True)
peers = set()
while True:
    datagram, sender = room.recvfrom(2048)
    peers.add(sender)
    for peer in peers:
        if peer != sender:
            room.sendto(datagram, peer)
"#;

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects `count` clients, each of which has heard the last one's words.
fn crowd(address: SocketAddr, count: usize, language: Language) -> io::Result<Vec<TcpStream>> {
    let mut streams = Vec::new();
    for number in 0..count {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(&language.join(number))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        streams.push(stream);
    }
    // The first one speaks until all have heard it: then all are in the room.
    for mut listener in &streams[1..] {
        let mut heard = Vec::new();
        listener.set_read_timeout(Some(Duration::from_millis(20)))?;
        while !heard.windows(4).any(|w| w == b"here") {
            (&streams[0]).write_all(&language.say("here"))?;
            let mut piece = [0; 4096];
            let length = listener.read(&mut piece).unwrap_or(0);
            heard.extend_from_slice(&piece[..length]);
        }
        listener.set_read_timeout(Some(Duration::from_secs(10)))?;
    }
    Ok(streams)
}

/// Lets some clients talk and all listen, and counts the lines that arrive:
/// each has `line_bytes` then.
fn throughput(
    address: SocketAddr,
    clients: usize,
    time: Duration,
    language: Language,
    line_bytes: usize,
) -> io::Result<f64> {
    talk(crowd(address, clients, language)?, time, language, line_bytes)
}

/// The same for clients that are in already.
fn talk(
    streams: Vec<TcpStream>,
    time: Duration,
    language: Language,
    line_bytes: usize,
) -> io::Result<f64> {
    let (each, clients) = (line_bytes as u64, streams.len());
    let senders = clients.min(SENDERS);
    let streams: Vec<Arc<TcpStream>> = streams.into_iter().map(Arc::new).collect();
    let arrived = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + time;
    let mut threads = Vec::new();
    for stream in &streams {
        let (stream, arrived) = (Arc::clone(stream), Arc::clone(&arrived));
        threads.push(thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            // Until the stream is shut down below.
            while let Ok(count @ 1..) = (&*stream).read(&mut buffer) {
                arrived.fetch_add(count as u64, Ordering::Relaxed);
            }
        }));
    }
    let line = language.say(&format!("{}$", "x".repeat(LINE_BYTES - 2)));
    let window = line.repeat(usize::try_from(WINDOW).expect("it is small"));
    // Words of greeting that still arrive are few.
    let start = Instant::now();
    let mut sent = 0;
    let listeners = (clients - 1) as u64;
    while Instant::now() < until {
        // A new window for each sender when the last one has arrived.
        for stream in &streams[..senders] {
            (&**stream).write_all(&window)?;
            sent += WINDOW;
        }
        while arrived.load(Ordering::Relaxed) / each + WINDOW * senders as u64 * listeners / 2
            < sent * listeners
        {
            thread::yield_now();
        }
    }
    let delivered = arrived.load(Ordering::Relaxed) / each;
    let seconds = start.elapsed().as_secs_f64();
    for stream in &streams {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
    Ok(delivered as f64 / seconds)
}

/// One line at a time, a hundred a second: microseconds until it arrives, of
/// the middle and of the slowest hundredth.
fn latency(address: SocketAddr, lines: usize) -> io::Result<(u128, u128)> {
    let streams: Vec<Arc<TcpStream>> =
        crowd(address, 100, Language::Lines)?.into_iter().map(Arc::new).collect();
    let start = Instant::now();
    let all = Arc::new(Mutex::new(Vec::new()));
    let mut threads = Vec::new();
    for stream in &streams {
        let (stream, all) = (Arc::clone(stream), Arc::clone(&all));
        threads.push(thread::spawn(move || {
            let mut samples = Vec::new();
            for line in BufReader::new(&*stream).lines().map_while(Result::ok) {
                let sent = line.split_once('@').and_then(|(_, sent)| sent.parse::<u128>().ok());
                samples.extend(sent.map(|sent| start.elapsed().as_micros() - sent));
            }
            all.lock().expect("no thread panics here").extend(samples);
        }));
    }
    for number in 0..lines {
        thread::sleep(Duration::from_millis(10));
        let line = format!("@{}\n", start.elapsed().as_micros());
        (&*streams[number % streams.len()]).write_all(line.as_bytes())?;
    }
    thread::sleep(Duration::from_millis(200));
    for stream in &streams {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
    let mut samples = all.lock().expect("no thread panics here").clone();
    samples.sort_unstable();
    Ok((samples[samples.len() / 2], samples[samples.len() * 99 / 100]))
}

/// Lets one client talk and all others listen, and counts the datagrams that
/// arrive. A few at a time: what finds no room in a buffer is lost.
fn datagrams(address: SocketAddr, clients: usize, time: Duration, joins: bool) -> io::Result<f64> {
    const FEW: u64 = 16;
    let mut sockets = Vec::new();
    for number in 0..clients {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let name = format!("g{number:03}");
        let mut buffer = [0; 2048];
        // Python's loop lets in everybody who says anything.
        socket.send(&message(JOIN, &name, ""))?;
        while joins && buffer[3] != WELCOME {
            let length = socket.recv(&mut buffer)?;
            if buffer[3] == CHALLENGE {
                let cookie = String::from_utf8_lossy(&buffer[20..length]).into_owned();
                socket.send(&message(JOIN, &name, &cookie))?;
            }
        }
        sockets.push(Arc::new(socket));
    }
    let arrived = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for socket in &sockets[1..] {
        let (socket, arrived, over) = (Arc::clone(socket), Arc::clone(&arrived), Arc::clone(&over));
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        threads.push(thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !over.load(Ordering::Relaxed) {
                // Notices of who has joined are shorter.
                if socket.recv(&mut buffer).is_ok_and(|length| length > LINE_BYTES) {
                    arrived.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    let text = "x".repeat(LINE_BYTES - 1);
    let listeners = clients as u64 - 1;
    let (start, mut sent, mut lost) = (Instant::now(), 0, 0);
    while start.elapsed() < time {
        for _ in 0..FEW {
            sent += 1;
            let mut datagram = message(TEXT, "", &text);
            datagram[4..8].copy_from_slice(&u32::try_from(sent).unwrap_or(0).to_be_bytes());
            sockets[0].send(&datagram)?;
        }
        let patience = Instant::now() + Duration::from_millis(50);
        while arrived.load(Ordering::Relaxed) + lost < sent * listeners {
            if Instant::now() > patience {
                lost = sent * listeners - arrived.load(Ordering::Relaxed);
            }
            thread::yield_now();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    for thread in threads {
        let _ = thread.join();
    }
    Ok(arrived.load(Ordering::Relaxed) as f64 / seconds)
}

/// What one thread can write, 16 KiB at a time, while others only drain.
fn write_limit(clients: usize, time: Duration) -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut streams = Vec::new();
    for _ in 1..clients {
        let drain = TcpStream::connect(listener.local_addr()?)?;
        streams.push(listener.accept()?.0);
        thread::spawn(move || io::copy(&mut &drain, &mut io::sink()));
    }
    let piece = vec![b'x'; 16 * 1024];
    let start = Instant::now();
    let mut bytes = 0;
    while start.elapsed() < time {
        for stream in &mut streams {
            stream.write_all(&piece)?;
            bytes += piece.len();
        }
    }
    Ok((bytes / LINE_BYTES) as f64 / start.elapsed().as_secs_f64())
}

/// The obvious way: a list of streams behind a lock, a thread for each client,
/// and each line written to each other client at once. One client that does
/// not read stops it for good.
fn locked_list() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let room: Arc<Mutex<Vec<Arc<TcpStream>>>> = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Otherwise it would mostly wait for acknowledgements.
            let _ = stream.set_nodelay(true);
            let stream = Arc::new(stream);
            let room = Arc::clone(&room);
            room.lock().expect("no thread panics here").push(Arc::clone(&stream));
            thread::spawn(move || {
                let mut input = BufReader::new(&*stream);
                let mut line = String::new();
                while input.read_line(&mut line).is_ok_and(|count| count > 0) {
                    for other in &*room.lock().expect("no thread panics here") {
                        if !Arc::ptr_eq(other, &stream) {
                            let _ = (&**other).write_all(line.as_bytes());
                        }
                    }
                    line.clear();
                }
                room.lock().expect("no thread panics here").retain(|s| !Arc::ptr_eq(s, &stream));
            });
        }
    });
    Ok(address)
}
