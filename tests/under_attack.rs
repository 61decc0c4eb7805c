//! What the programs of the course withstand beyond the contract: these tests
//! carry no points, and run the shipped examples only.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod lab;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long something may take that must happen: generous, since a right
/// program never needs it.
const DEADLINE: Duration = Duration::from_secs(60);

const JOIN: u8 = 1;
const TEXT: u8 = 2;
const LEAVE: u8 = 3;
const ERROR: u8 = 4;
const PING: u8 = 5;
const PONG: u8 = 6;
const WELCOME: u8 = 7;

/// A server of the course, ended when it is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(name: &str, arguments: &[&str]) -> Server {
        let mut child = Command::new(lab::example(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().expect(&line);
        Server { child, address }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Client(stream)
    }

    /// The most memory that it has had so far, in KiB: `VmHWM` in proc(5).
    #[cfg(target_os = "linux")]
    fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that speaks messages by TCP.
struct Client(TcpStream);

impl Client {
    fn send(&mut self, kind: u8, sender: &str, body: &str) {
        let mut wire = vec![b'C', b'H', 1, kind];
        wire.extend([0; 12]);
        for text in [sender, body] {
            wire.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        }
        wire.extend_from_slice(sender.as_bytes());
        wire.extend_from_slice(body.as_bytes());
        self.0.write_all(&wire).unwrap();
    }

    /// The kind and body of the next message; None at the end of the stream.
    fn receive(&mut self) -> Option<(u8, String)> {
        let mut header = [0; 20];
        self.0.read_exact(&mut header).ok()?;
        let length = |at| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
        let mut texts = vec![0; length(16) + length(18)];
        self.0.read_exact(&mut texts).ok()?;
        Some((header[3], String::from_utf8(texts.split_off(length(16))).unwrap()))
    }

    /// The answer to a JOIN under this name.
    fn join(&mut self, name: &str) -> Option<(u8, String)> {
        self.send(JOIN, name, "");
        self.receive()
    }
}

#[test]
fn a_name_with_an_invisible_character_is_refused() {
    let server = Server::start("07_disconnects", &["serve", "127.0.0.1:0"]);
    let mut ann = server.connect();
    for name in ["ann\u{200b}", "\u{feff}ann", "a\u{ad}nn", "ann\u{fe0f}"] {
        assert_eq!(ann.join(name).map(|(kind, _)| kind), Some(ERROR), "{name:?}");
    }
    assert_eq!(ann.join("ann").map(|(kind, _)| kind), Some(WELCOME));
}

#[test]
fn a_client_that_never_joins_gives_its_seat_to_one_that_does() {
    // The server's PINGs are our clock: one newcomer tries after each of them.
    let arguments = ["serve", "127.0.0.1:0", "--limit", "1", "--heartbeat-ms", "1000"];
    let server = Server::start("07_disconnects", &arguments);
    let (mut idle, start) = (server.connect(), Instant::now());
    loop {
        let asked = idle.receive();
        assert_eq!(asked, Some((PING, String::new())), "the idle client is still there");
        idle.send(PONG, "", "");
        match server.connect().join("ann") {
            Some((WELCOME, _)) => break,
            Some((ERROR, why)) => assert!(why.contains("the room is full"), "{why}"),
            // The server had closed before our JOIN came.
            _ => {}
        }
        assert!(start.elapsed() < DEADLINE, "ann waits for the seat of a client that never joins");
    }
    assert!(start.elapsed() > Duration::from_secs(9), "it has 10 seconds to join");
    assert_eq!(idle.receive().map(|(kind, _)| kind), Some(ERROR), "it is told why");
    assert_eq!(idle.receive(), None, "it is closed");
}

/// Each could cost a megabyte, and once did.
#[test]
#[cfg(target_os = "linux")]
fn the_backlogs_of_clients_that_do_not_read_share_their_memory() {
    const COUNT: usize = 200;
    let server = Server::start("07_disconnects", &["serve", "127.0.0.1:0"]);
    let idle: Vec<Client> = (0..COUNT)
        .map(|number| {
            let mut client = server.connect();
            assert!(client.join(&format!("idle-{number}")).is_some());
            client
        })
        .collect();
    let (mut ann, mut bob) = (server.connect(), server.connect());
    assert!(ann.join("ann").is_some() && bob.join("bob").is_some());
    // Ann talks until all who do not read have been found too slow.
    let text = "x".repeat(4000);
    let (mut gone, start) = (0, Instant::now());
    while gone < COUNT {
        ann.send(TEXT, "", &text);
        loop {
            match bob.receive() {
                Some((TEXT, _)) => break,
                Some((LEAVE, why)) => {
                    assert_eq!(why, "too slow");
                    gone += 1;
                }
                other => assert!(matches!(other, Some((JOIN, _))), "{other:?}"),
            }
        }
        assert!(start.elapsed() < DEADLINE * 2, "{gone} of {COUNT} were found too slow");
    }
    let memory = server.peak_memory();
    assert!(memory < 60_000, "{memory} KiB for {COUNT} backlogs of a megabyte");
    drop(idle);
}

#[test]
fn a_client_refuses_a_name_that_does_not_fit_into_a_message() {
    for step in ["06_message_headers", "07_disconnects", "08_udp_chat"] {
        let output = Command::new(lab::example(step))
            .args(["join", &"n".repeat(33), "127.0.0.1:1"])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{step}: {said}");
        assert!(said.contains("32 bytes") && said.lines().count() == 1, "{step}: {said}");
    }
}
