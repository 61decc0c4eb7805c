//! What the programs of the course withstand beyond the contract: these tests
//! carry no points, and run the shipped examples only. Those that only wait
//! are ignored: `cargo test --test under_attack -- --ignored` runs them.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod lab;

use lab::message::{ERROR, HEADER_BYTES, JOIN, LEAVE, LOGIN, PING, PONG, TEXT, WELCOME, message};
use lab::secure::Folder;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long something may take that must happen: generous, since a right
/// program never needs it.
const DEADLINE: Duration = Duration::from_secs(60);

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

    /// Asks it to stop.
    fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    /// Asks it to stop, and waits until it has. Its exit status.
    fn stop(mut self) -> Option<i32> {
        self.terminate();
        let start = Instant::now();
        // The end of its output comes when the process has ended.
        let mut output = self.child.stdout.take().unwrap();
        let ended = std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        while !ended.is_finished() {
            assert!(start.elapsed() < DEADLINE, "the server does not stop");
            std::thread::yield_now();
        }
        self.child.wait().unwrap().code()
    }

    /// The number of its threads: the entries of /proc/PID/task.
    #[cfg(target_os = "linux")]
    fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
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
        self.0.write_all(&message(kind, sender, body).bytes()).unwrap();
    }

    /// The kind and body of the next message; None at the end of the stream.
    fn receive(&mut self) -> Option<(u8, String)> {
        let mut header = [0; HEADER_BYTES];
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
#[ignore = "it takes the 10 seconds that a client has to join"]
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
    let memory = lab::peak_memory(server.child.id()).unwrap() / 1024;
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

/// The server accepts the connection, and then says nothing.
#[test]
#[ignore = "it takes the 30 seconds that a client waits for an answer"]
fn a_client_gives_up_on_a_server_that_does_not_answer() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let start = Instant::now();
    let output = Command::new(lab::example("06_message_headers"))
        .args(["join", "ann", &address])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("has not answered for 30 s"), "{said}");
    assert!(start.elapsed() >= Duration::from_secs(30), "a slow server has 30 s to answer");
}

/// `server | head -1`: the program that reads its output has ended.
#[test]
fn a_server_whose_output_nobody_reads_stops_as_usual() {
    let mut server = Server::start("07_disconnects", &["serve", "127.0.0.1:0"]);
    drop(server.child.stdout.take());
    let mut idle = server.connect();
    idle.send(PING, "", "");
    assert_eq!(idle.receive().map(|(kind, _)| kind), Some(PONG));
    server.terminate();
    assert_eq!(idle.receive().map(|(kind, _)| kind), Some(LEAVE), "it says goodbye");
    assert_eq!(idle.receive(), None, "it closes");
    drop(idle);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

/// A server of step 10 without accounts.
fn server_with_logins(folder: &Folder) -> Server {
    let file = folder.path("accounts.txt");
    let arguments = ["serve", "127.0.0.1:0", "--web", "127.0.0.1:0", "--accounts", &file];
    Server::start("10_secure_chat", &arguments)
}

#[test]
fn logins_that_wait_do_not_hold_up_a_server_that_stops() {
    let folder = Folder::new();
    let server = server_with_logins(&folder);
    let mut clients: Vec<Client> = (0..60).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(LOGIN, &format!("nobody-{number}"), "a wrong password");
    }
    // All of them would be more than a minute of work.
    assert_eq!(server.stop(), Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn logins_whose_clients_have_gone_leave_no_thread() {
    let folder = Folder::new();
    let server = server_with_logins(&folder);
    let start = Instant::now();
    for number in 0..200 {
        server.connect().send(LOGIN, &format!("nobody-{number}"), "a wrong password");
    }
    // All of them would be more than four minutes of work.
    // Connections are accepted in order: after this one, all of them were.
    let mut last = server.connect();
    last.send(PING, "", "");
    assert_eq!(last.receive().map(|(kind, _)| kind), Some(PONG));
    drop(last);
    // The server itself has five: main, keyboard, room, and two acceptors.
    while server.threads() > 5 {
        assert!(start.elapsed() < DEADLINE, "{} threads are left", server.threads());
        std::thread::yield_now();
    }
}

#[test]
fn accounts_that_are_added_at_the_same_time_are_all_in_the_file() {
    let folder = Folder::new();
    let file = folder.path("accounts.txt");
    let names = ["ann", "bob", "eve", "zed"];
    let programs = names.map(|name| {
        let mut program = Command::new(lab::example("10_secure_chat"))
            .args(["adduser", name, "--accounts", &file])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        program.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
        program
    });
    for program in programs {
        let output = program.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let accounts = std::fs::read_to_string(&file).unwrap();
    let mut added: Vec<&str> = accounts.lines().filter_map(|line| line.split(' ').next()).collect();
    added.sort_unstable();
    assert_eq!(added, names);
}
