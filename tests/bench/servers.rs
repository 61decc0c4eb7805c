//! Several servers of step 10 that share a room through NATS: how much they
//! pass on, and how long it takes.

use super::{LINE_BYTES, Language, MESSAGE_BYTES, Room, TEXT, WELCOME, median, message, talk};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The clients of all servers together.
const CLIENTS: usize = 60;

/// `correct horse` with one round: the work does not matter here.
const HASH: &str =
    "$pbkdf2-sha256$1$MDEyMzQ1Njc4OWFiY2RlZg$Yy2wRoe.n2N8tqLlzlMT/6LDwe.Z8g08lxr.xEewy.c";
const LOGIN: u8 = 8;

/// A NATS server.
struct Nats(Child, SocketAddr);

impl Nats {
    fn start() -> io::Result<Nats> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("nats-server")
            .env("PATH", format!("{path}:/usr/sbin"))
            .args(["-a", "127.0.0.1", "-p", &address.port().to_string()])
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        while !log.next().expect("it starts")?.contains("Server is ready") {}
        thread::spawn(move || log.for_each(drop));
        Ok(Nats(child, address))
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The accounts of all clients: their names have four bytes.
fn accounts() -> io::Result<PathBuf> {
    let file = std::env::temp_dir().join(format!("socket-chat-bench-{}", std::process::id()));
    let lines = (0..CLIENTS).map(|number| format!("g{number:03} {HASH}\n"));
    fs::write(&file, lines.collect::<String>())?;
    Ok(file)
}

/// Starts so many servers. Without a NATS server they are alone.
fn start(count: usize, nats: Option<&Nats>, accounts: &str) -> io::Result<Vec<Room>> {
    let nats = nats.map(|nats| nats.1.to_string());
    let words = ["--web", "127.0.0.1:0", "--accounts", accounts];
    let nats = nats.iter().flat_map(|address| ["--nats", address]);
    let words: Vec<&str> = words.into_iter().chain(nats).collect();
    (0..count).map(|_| Room::start_with("10_secure_chat", &["serve"], &words)).collect()
}

/// Lets clients in, by turns at each server, and waits until each of them has
/// heard of all others.
fn enter(rooms: &[Room], clients: usize) -> io::Result<Vec<TcpStream>> {
    let mut streams = Vec::new();
    for number in 0..clients {
        let mut stream = TcpStream::connect(rooms[number % rooms.len()].address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&message(LOGIN, &format!("g{number:03}"), "correct horse"))?;
        while receive(&mut stream)?.0 != WELCOME {}
        streams.push(stream);
    }
    // Whoever hears the last one's words knows all who are here.
    let (last, others) = streams.split_last_mut().expect("there are some");
    for other in others {
        other.set_read_timeout(Some(Duration::from_millis(20)))?;
        loop {
            last.write_all(&message(TEXT, "", "here"))?;
            let heard = std::iter::from_fn(|| receive(other).ok());
            if heard.into_iter().any(|(kind, _)| kind == TEXT) {
                break;
            }
        }
        other.set_read_timeout(None)?;
    }
    Ok(streams)
}

/// The kind and body of the next message.
fn receive(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 20];
    stream.read_exact(&mut header)?;
    let length = |at| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let mut texts = vec![0; length(16) + length(18)];
    stream.read_exact(&mut texts)?;
    Ok((header[3], texts.split_off(length(16))))
}

/// One text at a time, from the first client to the second one: microseconds.
fn latency(rooms: &[Room], texts: usize) -> io::Result<(u128, u128)> {
    let mut streams = enter(rooms, 2)?;
    let [from, to] = &mut streams[..] else { unreachable!("there are two") };
    let mut samples = Vec::new();
    for number in 0..texts {
        let body = format!("number {number}");
        let start = Instant::now();
        from.write_all(&message(TEXT, "", &body))?;
        while receive(to)?.1 != body.as_bytes() {}
        samples.push(start.elapsed().as_micros());
    }
    samples.sort_unstable();
    Ok((samples[texts / 2], samples[texts * 99 / 100]))
}

/// Prints two tables.
pub fn measure(rounds: usize, time: Duration) -> io::Result<()> {
    println!(
        "\ndeliveries/s of 10: {CLIENTS} clients at one server or several, {LINE_BYTES} bytes"
    );
    let Ok(nats) = Nats::start() else {
        println!("not measured, because nats-server is not installed");
        return Ok(());
    };
    let file = accounts()?;
    let accounts = file.display().to_string();
    for (name, servers, nats) in [
        ("alone", 1, None),
        ("1 with NATS", 1, Some(&nats)),
        ("2 with NATS", 2, Some(&nats)),
        ("3 with NATS", 3, Some(&nats)),
    ] {
        let mut measured = Vec::new();
        for _ in 0..rounds {
            let rooms = start(servers, nats, &accounts)?;
            let streams = enter(&rooms, CLIENTS)?;
            measured.push(talk(streams, time, Language::Messages, MESSAGE_BYTES)?);
        }
        println!("{name:>12} {:>12.0}", median(measured));
    }
    println!("\nmicroseconds from a member to another one: one text at a time");
    println!("{:>12} {:>8} {:>8}", "", "p50", "p99");
    for (name, servers) in [("one server", 1), ("two", 2)] {
        let rooms = start(servers, Some(&nats), &accounts)?;
        let (p50, p99) = latency(&rooms, rounds * 300)?;
        println!("{name:>12} {p50:>8} {p99:>8}");
    }
    let _ = fs::remove_file(file);
    Ok(())
}
