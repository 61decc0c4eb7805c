//! `cargo bench`: how fast the room of step 05 is, beside the obvious way.
//!
//! Starts the program, fills the room, and lets everybody talk. The obvious
//! way, a list of streams behind a lock, is at the end of this file and runs
//! in this process. The write limit is what one thread can write to sockets
//! when nobody looks at the bytes. All three run in turn, several times: trust
//! the ratios, since a machine's speed drifts.
//!
//! `cargo bench -- --short` only shows that it runs.

#![allow(missing_docs, clippy::cast_precision_loss, clippy::naive_bytecount)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A line with its end, in bytes.
const LINE_BYTES: usize = 64;
/// Lines that a sender may have under way at once.
const WINDOW: u64 = 64;
/// At most so many clients talk; the others listen.
const SENDERS: usize = 10;

fn main() -> io::Result<()> {
    let short = std::env::args().any(|a| a == "--short");
    let (rounds, time) = if short { (1, 50) } else { (3, 400) };
    let time = Duration::from_millis(time);

    // `cargo bench` does not build examples.
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    Command::new(cargo)
        .args(["build", "--quiet", "--release", "--example", "05_threaded_server"])
        .status()?;

    println!(
        "deliveries/s (a delivery: one line of {LINE_BYTES} bytes at one client), median of {rounds}"
    );
    println!(
        "{:>8} {:>14} {:>14} {:>8} {:>14}",
        "clients", "05", "locked list", "ratio", "write limit"
    );
    for clients in [2, 10, 100] {
        let (mut ours, mut naive, mut limit) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(throughput(Room::start()?.address, clients, time)?);
            naive.push(throughput(locked_list()?, clients, time)?);
            limit.push(write_limit(clients, time)?);
        }
        let [ours, naive, limit] = [ours, naive, limit].map(median);
        let ratio = ours / naive;
        println!("{clients:>8} {ours:>14.0} {naive:>14.0} {ratio:>8.1} {limit:>14.0}");
    }

    println!("\nmicroseconds from send to receive: 100 clients, 100 lines/s, one at a time");
    println!("{:>12} {:>8} {:>8}", "", "p50", "p99");
    for (name, address) in [("05", None), ("locked list", Some(locked_list()?))] {
        let room = if address.is_none() { Some(Room::start()?) } else { None };
        let address = address.or(room.as_ref().map(|r| r.address));
        let (p50, p99) = latency(address.expect("one of the two"), if short { 10 } else { 200 })?;
        println!("{name:>12} {p50:>8} {p99:>8}");
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Program 05 in a process of its own.
struct Room {
    child: Child,
    address: SocketAddr,
}

impl Room {
    fn start() -> io::Result<Room> {
        // .../target/release/deps/bench-0123456789abcdef
        let bench = std::env::current_exe()?;
        let target: PathBuf = bench.ancestors().nth(2).expect("cargo's folders").into();
        let name = format!("05_threaded_server{}", std::env::consts::EXE_SUFFIX);
        let program = target.join("examples").join(&name);
        let mut child = Command::new(program)
            .arg("127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").and_then(|a| a.parse().ok());
        Ok(Room { child, address: address.expect("`listening on ADDRESS`") })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects `count` clients, each of which has heard the last one's words.
fn crowd(address: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        streams.push(stream);
    }
    // The first one speaks until all have heard it: then all are in the room.
    for listener in &streams[1..] {
        let mut input = BufReader::with_capacity(1, listener);
        let mut line = String::new();
        listener.set_read_timeout(Some(Duration::from_millis(20)))?;
        while !line.contains("are you there?") {
            (&streams[0]).write_all(b"are you there?\n")?;
            line.clear();
            let _ = input.read_line(&mut line);
        }
        listener.set_read_timeout(Some(Duration::from_secs(10)))?;
    }
    Ok(streams)
}

/// Lets some clients talk and all listen, and counts the lines that arrive.
fn throughput(address: SocketAddr, clients: usize, time: Duration) -> io::Result<f64> {
    let senders = clients.min(SENDERS);
    let streams: Vec<Arc<TcpStream>> = crowd(address, clients)?.into_iter().map(Arc::new).collect();
    let arrived = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + time;
    let mut threads = Vec::new();
    for stream in &streams {
        let (stream, arrived) = (Arc::clone(stream), Arc::clone(&arrived));
        threads.push(thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            // Until the stream is shut down below.
            while let Ok(count @ 1..) = (&*stream).read(&mut buffer) {
                // Only the payload has this byte, once in each line.
                let lines = buffer[..count].iter().filter(|b| **b == b'$').count();
                arrived.fetch_add(lines as u64, Ordering::Relaxed);
            }
        }));
    }
    let line = format!("{}$\n", "x".repeat(LINE_BYTES - 2));
    let start = Instant::now();
    let mut sent = 0;
    let listeners = (clients - 1) as u64;
    while Instant::now() < until {
        // A new window for each sender when the last one has arrived.
        for stream in &streams[..senders] {
            let window = line.repeat(usize::try_from(WINDOW).expect("it is small"));
            (&**stream).write_all(window.as_bytes())?;
            sent += WINDOW;
        }
        while arrived.load(Ordering::Relaxed) + WINDOW * senders as u64 * listeners / 2
            < sent * listeners
        {
            thread::yield_now();
        }
    }
    let delivered = arrived.load(Ordering::Relaxed);
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
    let streams: Vec<Arc<TcpStream>> = crowd(address, 100)?.into_iter().map(Arc::new).collect();
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
