//! One room on several servers of step 10, through a real NATS server, and what
//! is left of it when one of them fails. These tests carry no points.
//!
//! They need the program `nats-server`. The test of ten minutes is run by
//! `cargo test --test several_servers -- --ignored`; `SOAK_SECONDS` sets its
//! time.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod lab;

use lab::message::{
    ERROR, HEADER_BYTES, JOIN, LEAVE, LOGIN, PING, PONG, TEXT, WELCOME, message, text,
};
use lab::secure::Folder;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long something may take that must happen: generous, since a right
/// program never needs it.
const DEADLINE: Duration = Duration::from_secs(60);

/// The heartbeat of the servers, in milliseconds: short, so that a test need
/// not wait long for the loss of a server, but not so short that a busy machine
/// loses one.
const HEARTBEAT_MS: u64 = 400;

/// `correct horse` with one round: the work does not matter here.
const HASH: &str =
    "$pbkdf2-sha256$1$MDEyMzQ1Njc4OWFiY2RlZg$Yy2wRoe.n2N8tqLlzlMT/6LDwe.Z8g08lxr.xEewy.c";
const PASSWORD: &str = "correct horse";

/// A process that is ended when it is dropped.
struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A NATS server.
struct Nats {
    process: Process,
    port: u16,
    options: Vec<String>,
    log: Arc<Mutex<String>>,
}

impl Nats {
    fn start(options: &[&str]) -> Nats {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let log = Arc::default();
        Nats { process: Nats::run(port, &options, &log), port, options, log }
    }

    fn run(port: u16, options: &[String], log: &Arc<Mutex<String>>) -> Process {
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap());
        let mut child = Command::new("nats-server")
            .env("PATH", path)
            .args(["-a", "127.0.0.1", "-p", &port.to_string()])
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        while !lines.next().expect("it starts").unwrap().contains("Server is ready") {}
        let log = Arc::clone(log);
        thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| *log.lock().unwrap() += &line);
        });
        Process(child)
    }

    fn restart(&mut self) {
        self.process = Nats::run(self.port, &self.options, &self.log);
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// A way to NATS that can be cut off.
struct Cable {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cable {
    fn to(nats: &Nats) -> Cable {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (is_cut, ends): (Arc<AtomicBool>, Arc<Mutex<Vec<TcpStream>>>) = Default::default();
        let (cut, all, nats) = (Arc::clone(&is_cut), Arc::clone(&ends), nats.address());
        thread::spawn(move || {
            for here in listener.incoming().map_while(Result::ok) {
                let Ok(there) = TcpStream::connect(&nats) else { continue };
                let mut all = all.lock().unwrap();
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                for (from, to) in [(&here, &there), (&there, &here)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                        let _ = from.shutdown(Shutdown::Both);
                    });
                }
                all.extend([here, there]);
            }
        });
        Cable { address, is_cut, ends }
    }

    fn cut(&self) {
        let mut ends = self.ends.lock().unwrap();
        self.is_cut.store(true, Ordering::SeqCst);
        for end in ends.drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

/// A server of step 10.
struct Server {
    process: Process,
    address: SocketAddr,
    /// What it prints, on standard output and standard error.
    lines: Receiver<String>,
    /// What was read of that.
    log: Vec<String>,
    /// What came before the line `listening on`, and was not asked for yet.
    early: Vec<String>,
    _folder: Folder,
}

impl Server {
    /// Starts a server with these accounts, and waits until it has reached NATS.
    fn start(nats: &str, names: &[&str]) -> Server {
        let mut server = Server::start_alone(nats, names, &[]);
        server.prints("connected to NATS");
        server
    }

    fn start_alone(nats: &str, names: &[&str], more: &[&str]) -> Server {
        let interval = HEARTBEAT_MS.to_string();
        let more = [&["--nats-heartbeat-ms", &interval], more].concat();
        Server::start_with(nats, names, &more)
    }

    /// Starts a server with these options.
    fn start_with(nats: &str, names: &[&str], options: &[&str]) -> Server {
        let folder = Folder::new();
        let accounts: Vec<String> = names.iter().map(|name| format!("{name} {HASH}\n")).collect();
        let accounts = folder.file("accounts.txt", &accounts.concat());
        let mut child = Command::new(lab::example("10_secure_chat"))
            .args(["serve", "127.0.0.1:0", "--web", "127.0.0.1:0", "--accounts", &accounts])
            .args(["--nats", nats])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let other = sender.clone();
        thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        thread::spawn(move || {
            BufReader::new(err).lines().map_while(Result::ok).try_for_each(|l| other.send(l))
        });
        let process = Process(child);
        let mut server = Server {
            process,
            address: "127.0.0.1:0".parse().unwrap(),
            lines,
            log: Vec::new(),
            early: Vec::new(),
            _folder: folder,
        };
        let line = server.prints("listening on ");
        // Lines on standard error may come before this one.
        server.early.clone_from(&server.log);
        server.address = line.rsplit(' ').next().unwrap().parse().unwrap();
        server
    }

    /// Waits for a line with these words.
    #[track_caller]
    fn prints(&mut self, words: &str) -> String {
        if let Some(at) = self.early.iter().position(|line| line.contains(words)) {
            return self.early.remove(at);
        }
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("no line with {words:?}: {:?}", self.log));
            self.log.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    /// The lines so far that have these words.
    fn printed(&mut self, words: &str) -> Vec<String> {
        self.log.extend(self.lines.try_iter());
        self.log.iter().filter(|line| line.contains(words)).cloned().collect()
    }

    #[track_caller]
    fn enter(&self, name: &str) -> Client {
        match self.try_enter(name) {
            Ok(client) => client,
            Err(why) => panic!("{name} is not let in: {why}"),
        }
    }

    fn try_enter(&self, name: &str) -> Result<Client, String> {
        let mut client = Client::connect(self.address, name);
        client.stream.write_all(&message(LOGIN, name, PASSWORD).bytes()).unwrap();
        client.until(|c| c.is_in || !c.errors.is_empty());
        if client.is_in { Ok(client) } else { Err(client.errors.remove(0)) }
    }

    /// The most memory that it has had so far, in KiB.
    #[cfg(target_os = "linux")]
    fn peak_memory(&self) -> usize {
        lab::peak_memory(self.process.0.id()).unwrap() / 1024
    }
}

/// A member, and all that it was shown. Whatever comes is checked: nobody joins
/// who is here, nobody leaves who is not, and nobody hears its own words.
struct Client {
    name: String,
    stream: TcpStream,
    is_in: bool,
    has_ended: bool,
    here: BTreeSet<String>,
    /// Sender and text.
    heard: Vec<(String, String)>,
    /// Name and reason.
    left: Vec<(String, String)>,
    errors: Vec<String>,
    said: u32,
}

impl Client {
    fn connect(address: SocketAddr, name: &str) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let (here, heard, left, errors) = Default::default();
        let (name, is_in, has_ended, said) = (name.to_string(), false, false, 0);
        Client { name, stream, is_in, has_ended, here, heard, left, errors, said }
    }

    fn say(&mut self, body: &str) {
        self.said += 1;
        self.stream.write_all(&text(self.said, body).bytes()).unwrap();
    }

    /// Takes what comes until this is so.
    #[track_caller]
    fn until(&mut self, is_so: impl Fn(&Client) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !is_so(self) {
            assert!(Instant::now() < end && !self.has_ended, "{}", self.story());
            self.receive();
        }
    }

    fn story(&self) -> String {
        let last = self.heard.len().saturating_sub(3);
        format!(
            "{}: here {:?}, left {:?}, errors {:?}, heard {} with {:?} at the end",
            self.name,
            self.here,
            self.left,
            self.errors,
            self.heard.len(),
            &self.heard[last..]
        )
    }

    /// Takes one message.
    #[track_caller]
    fn receive(&mut self) {
        let mut header = [0; HEADER_BYTES];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                panic!("nothing comes. {}", self.story())
            }
            Err(_) => {
                self.has_ended = true;
                return;
            }
        }
        let length = |at| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
        let mut texts = vec![0; length(16) + length(18)];
        self.stream.read_exact(&mut texts).unwrap();
        let body = String::from_utf8(texts.split_off(length(16))).unwrap();
        let sender = String::from_utf8(texts).unwrap();
        let story = |this: &Client| format!("{sender} {body}. {}", this.story());
        match header[3] {
            WELCOME => {
                self.is_in = true;
                self.here = body.split(", ").map(String::from).collect();
            }
            JOIN => assert!(self.here.insert(sender.clone()), "is shown twice: {}", story(self)),
            LEAVE if sender.is_empty() => {}
            LEAVE => {
                assert!(self.here.remove(&sender), "leaves, but was not here: {}", story(self));
                self.left.push((sender, body));
            }
            TEXT => {
                assert_ne!(sender, self.name, "an echo: {}", story(self));
                assert!(self.here.contains(&sender), "is not here: {}", story(self));
                self.heard.push((sender, body));
            }
            ERROR => self.errors.push(body),
            PING => drop(self.stream.write_all(&message(PONG, "", "").bytes())),
            kind => panic!("kind {kind}: {}", story(self)),
        }
    }

    #[track_caller]
    fn sees(&mut self, names: &[&str]) {
        let names: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
        self.until(|c| c.here == names);
    }

    /// Waits for these words, and checks that nothing else was heard before.
    #[track_caller]
    fn hears(&mut self, sender: &str, body: &str) {
        let count = self.heard.len() + 1;
        self.until(|c| c.heard.len() == count);
        let (who, what) = self.heard.last().unwrap();
        assert_eq!((who.as_str(), what.as_str()), (sender, body), "{}", self.story());
    }

    /// Takes one message, if it is there already or comes within the timeout.
    fn receive_if_there(&mut self) {
        if self.stream.peek(&mut [0]).is_ok() {
            self.receive();
        }
    }

    fn leave(mut self) {
        self.stream.write_all(&message(LEAVE, "", "").bytes()).unwrap();
        while !self.has_ended {
            self.receive();
        }
    }
}

/// So many messages were lost, as a member is told: it adds up all it was told.
fn lost(client: &Client) -> usize {
    let counts = client.errors.iter().filter(|e| e.contains("lost"));
    counts.map(|e| e.split(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

macro_rules! nats_tests {
    ($($(#[$more:meta])* fn $name:ident() $body:block)*) => {$(
        #[test]
        #[cfg_attr(no_nats, ignore = "nats-server is not installed (sudo apt install nats-server)")]
        $(#[$more])*
        fn $name() $body
    )*};
}

const ALL: [&str; 4] = ["ann", "bob", "eve", "zed"];

nats_tests! {

fn each_message_reaches_the_members_of_all_servers_once_and_in_order() {
    const COUNT: usize = 2000;
    let nats = Nats::start(&[]);
    let servers = [(); 3].map(|()| Server::start(&nats.address(), &ALL));
    let mut members: Vec<Client> =
        servers.iter().zip(ALL).map(|(server, name)| server.enter(name)).collect();
    for member in &mut members {
        member.sees(&ALL[..3]);
    }
    for number in 0..COUNT {
        for member in &mut members {
            member.say(&number.to_string());
        }
    }
    for member in &mut members {
        member.until(|m| m.heard.len() == 2 * COUNT);
        for sender in ALL[..3].iter().filter(|name| **name != member.name) {
            let from = member.heard.iter().filter(|(who, _)| who == sender);
            let expected = (0..COUNT).map(|number| number.to_string());
            assert!(from.map(|(_, text)| text.clone()).eq(expected), "{sender}'s, in order");
        }
        assert!(member.errors.is_empty(), "{:?}", member.errors);
    }
}

fn who_is_here_covers_all_servers_also_those_that_come_late() {
    let nats = Nats::start(&[]);
    let one = Server::start(&nats.address(), &ALL);
    let mut ann = one.enter("ann");
    let other = Server::start(&nats.address(), &ALL);
    let mut bob = other.enter("bob");
    bob.sees(&["ann", "bob"]);
    ann.sees(&["ann", "bob"]);
    bob.leave();
    ann.sees(&["ann"]);
    assert_eq!(ann.left, [("bob".into(), "left".into())]);
    other.process.signal("-TERM");
    let mut third = Server::start(&nats.address(), &ALL);
    third.enter("eve").sees(&["ann", "eve"]);
    third.printed("");
}

fn a_server_that_connects_gets_the_lists_of_the_others_without_waiting_for_a_heartbeat() {
    let mut nats = Nats::start(&[]);
    let mut servers = [(); 2].map(|()| {
        let hour = ["--nats-heartbeat-ms", "3600000"];
        let mut server = Server::start_with(&nats.address(), &ALL, &hour);
        server.prints("connected to NATS");
        server
    });
    let (mut ann, mut bob) = (servers[0].enter("ann"), servers[1].enter("bob"));
    ann.sees(&["ann", "bob"]);
    bob.sees(&["ann", "bob"]);
    // So does one that connects again, if something has happened meanwhile.
    nats.process.kill();
    for server in &mut servers {
        server.prints("cannot use NATS");
    }
    let mut eve = servers[0].enter("eve");
    eve.sees(&["ann", "bob", "eve"]);
    nats.restart();
    bob.sees(&["ann", "bob", "eve"]);
}

fn a_name_that_is_in_at_another_server_is_refused() {
    let nats = Nats::start(&[]);
    let one = Server::start(&nats.address(), &ALL);
    let other = Server::start(&nats.address(), &["ann", "Ann", "bob"]);
    let (mut ann, mut bob) = (one.enter("ann"), other.enter("bob"));
    bob.sees(&["ann", "bob"]);
    for name in ["ann", "Ann"] {
        assert_eq!(other.try_enter(name).err().as_deref(), Some("already here"), "{name}");
    }
    ann.say("bye");
    ann.leave();
    bob.sees(&["bob"]);
    let mut again = other.enter("Ann");
    again.sees(&["Ann", "bob"]);
}

fn of_two_logins_in_the_same_moment_the_same_one_stays_at_all_servers() {
    let nats = Nats::start(&[]);
    let servers = [(); 2].map(|()| Server::start(&nats.address(), &["ann", "bob", "eve"]));
    let mut bob = servers[0].enter("bob");
    let mut eve = servers[1].enter("eve");
    eve.sees(&["bob", "eve"]);
    let mut races = 0;
    for _ in 0..100 {
        let mut both = servers.each_ref().map(|server| Client::connect(server.address, "ann"));
        for ann in &mut both {
            ann.stream.write_all(&message(LOGIN, "ann", PASSWORD).bytes()).unwrap();
        }
        // One of them is refused, or is let in and then removed.
        for ann in &mut both {
            ann.until(|c| c.is_in || !c.errors.is_empty());
        }
        let were_in = both.iter().filter(|ann| ann.is_in && ann.errors.is_empty()).count();
        if were_in == 2 {
            races += 1;
            // Whoever is removed first tells which one stays.
            let [one, other] = &mut both;
            for ann in [&mut *one, &mut *other] {
                ann.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            }
            let end = Instant::now() + DEADLINE;
            while !one.has_ended && !other.has_ended {
                assert!(Instant::now() < end, "both stay");
                for ann in [&mut *one, &mut *other] {
                    ann.receive_if_there();
                }
            }
        }
        let [one, other] = &both;
        let stays = usize::from(one.has_ended || !one.is_in);
        let loser = &both[1 - stays];
        assert!(loser.errors[0].starts_with("already here"), "{:?}", loser.errors);
        assert!(!(one.has_ended && other.has_ended), "both were removed");
        for member in [&mut bob, &mut eve] {
            member.until(|m| m.here.contains("ann"));
        }
        // Both hear the one that has stayed.
        both[stays].say("hello");
        bob.until(heard_hello);
        eve.until(heard_hello);
        for member in [&mut bob, &mut eve] {
            member.heard.clear();
        }
        let [one, other] = both;
        for ann in [one, other] {
            let _ = ann.stream.shutdown(Shutdown::Both);
        }
        for member in [&mut bob, &mut eve] {
            member.until(|m| !m.here.contains("ann"));
        }
    }
    println!("{races} of 100 were in at both servers");
}

fn when_nats_is_killed_local_chat_goes_on_and_after_a_restart_the_room_comes_together() {
    let mut nats = Nats::start(&[]);
    let mut servers = [(); 2].map(|()| Server::start(&nats.address(), &ALL));
    let (mut ann, mut bob) = (servers[0].enter("ann"), servers[1].enter("bob"));
    let mut eve = servers[0].enter("eve");
    for member in [&mut ann, &mut bob, &mut eve] {
        member.sees(&["ann", "bob", "eve"]);
    }
    nats.process.kill();
    for server in &mut servers {
        server.prints("cannot use NATS");
    }
    for number in 0..7 {
        ann.say(&number.to_string());
        eve.hears("ann", &number.to_string());
    }
    // Bob's server is lost for ann, and ann's for bob.
    ann.sees(&["ann", "eve"]);
    bob.sees(&["bob"]);
    assert_eq!(ann.left, [("bob".into(), "server lost".into())]);
    let mut zed = servers[1].enter("zed");
    zed.sees(&["bob", "zed"]);
    nats.restart();
    for member in [&mut ann, &mut bob, &mut eve, &mut zed] {
        member.sees(&ALL);
    }
    for member in [&mut bob, &mut zed] {
        member.until(|m| lost(m) == 7);
    }
    zed.say("all here");
    ann.hears("zed", "all here");
    eve.hears("zed", "all here");
    for server in &mut servers {
        assert_eq!(server.printed("cannot use NATS").len(), 1, "an outage is told once");
    }
    assert_eq!((lost(&ann), ann.errors.len()), (0, 0), "{:?}", ann.errors);
}

fn when_nats_stops_for_a_moment_nothing_is_lost_and_when_it_hangs_local_chat_goes_on() {
    let nats = Nats::start(&[]);
    let mut servers = [(); 2].map(|()| Server::start(&nats.address(), &ALL));
    let (mut ann, mut bob) = (servers[0].enter("ann"), servers[1].enter("bob"));
    let mut eve = servers[0].enter("eve");
    bob.sees(&["ann", "bob", "eve"]);
    ann.sees(&["ann", "bob", "eve"]);
    nats.process.signal("-STOP");
    ann.say("one");
    eve.hears("ann", "one");
    nats.process.signal("-CONT");
    bob.hears("ann", "one");
    nats.process.signal("-STOP");
    for server in &mut servers {
        server.prints("cannot use NATS");
    }
    ann.say("two");
    eve.hears("ann", "two");
    ann.sees(&["ann", "eve"]);
    nats.process.signal("-CONT");
    ann.sees(&["ann", "bob", "eve"]);
    bob.sees(&["ann", "bob", "eve"]);
    bob.until(|b| lost(b) == 1);
}

fn the_members_of_a_server_that_is_killed_leave_after_three_heartbeats() {
    let nats = Nats::start(&[]);
    let one = Server::start(&nats.address(), &ALL);
    let mut other = Server::start(&nats.address(), &ALL);
    let (mut ann, _bob, _eve) = (one.enter("ann"), other.enter("bob"), other.enter("eve"));
    ann.sees(&["ann", "bob", "eve"]);
    let start = Instant::now();
    other.process.kill();
    ann.sees(&["ann"]);
    let time = start.elapsed();
    assert!(ann.left.iter().all(|(_, why)| why == "server lost"), "{:?}", ann.left);
    assert!(time >= Duration::from_millis(2 * HEARTBEAT_MS), "too early: {time:?}");
    // The name is free again.
    one.enter("bob").sees(&["ann", "bob"]);
}

fn the_members_of_a_server_that_stops_leave_at_once() {
    let nats = Nats::start(&[]);
    let (one, mut other) =
        (Server::start(&nats.address(), &ALL), Server::start(&nats.address(), &ALL));
    let (mut ann, mut bob) = (one.enter("ann"), other.enter("bob"));
    ann.sees(&["ann", "bob"]);
    bob.say("bye");
    other.process.signal("-TERM");
    ann.sees(&["ann"]);
    assert_eq!(ann.left, [("bob".into(), "server is shutting down".into())]);
    assert_eq!(ann.heard, [("bob".into(), "bye".into())], "its last words arrive");
    other.prints("bye");
}

fn servers_that_were_cut_off_from_each_other_are_one_room_again() {
    let nats = Nats::start(&[]);
    let cable = Cable::to(&nats);
    let one = Server::start(&nats.address(), &ALL);
    let mut other = Server::start(&cable.address.to_string(), &ALL);
    let (mut ann, mut bob) = (one.enter("ann"), other.enter("bob"));
    ann.sees(&["ann", "bob"]);
    bob.sees(&["ann", "bob"]);
    cable.cut();
    other.prints("cannot use NATS");
    ann.sees(&["ann"]);
    bob.sees(&["bob"]);
    for _ in 0..5 {
        ann.say("nobody hears that");
        bob.say("nor that");
    }
    // Each side lets eve in. The first one stays.
    let mut first = one.enter("eve");
    let mut second = other.enter("eve");
    bob.sees(&["bob", "eve"]);
    cable.mend();
    second.until(|c| !c.errors.is_empty());
    assert!(second.errors[0].starts_with("already here"), "{:?}", second.errors);
    bob.until(|b| b.left.contains(&("eve".into(), "already here".into())));
    for member in [&mut ann, &mut bob, &mut first] {
        member.sees(&["ann", "bob", "eve"]);
    }
    ann.until(|a| lost(a) == 5);
    bob.until(|b| lost(b) == 5);
    first.say("hello");
    ann.hears("eve", "hello");
    bob.hears("eve", "hello");
}

fn what_nats_drops_because_a_server_is_slow_is_told_as_a_count() {
    let folder = Folder::new();
    let config = folder.file("nats.conf", "max_pending: 2MB\nwrite_deadline: \"1s\"\n");
    let nats = Nats::start(&["-c", &config]);
    let (one, mut other) =
        (Server::start(&nats.address(), &ALL), Server::start(&nats.address(), &ALL));
    let (mut ann, mut bob, mut eve) = (one.enter("ann"), other.enter("bob"), one.enter("eve"));
    bob.sees(&["ann", "bob", "eve"]);
    eve.sees(&["ann", "bob", "eve"]);
    // Bob's server does nothing for a while, and ann talks until NATS drops it.
    other.process.signal("-STOP");
    let reader = thread::spawn(move || {
        eve.until(|e| e.heard.last().is_some_and(|(_, text)| text == "end"));
        eve
    });
    let (body, end, mut count) = ("x".repeat(1000), Instant::now() + DEADLINE, 1);
    while !nats.log.lock().unwrap().contains("Slow Consumer") {
        assert!(Instant::now() < end, "NATS keeps everything");
        (0..100).for_each(|_| ann.say(&body));
        count += 100;
    }
    other.process.signal("-CONT");
    ann.say("end");
    let eve = reader.join().unwrap();
    assert_eq!((eve.heard.len(), lost(&eve)), (count, 0), "local chat is complete");
    bob.until(|b| b.heard.len() + lost(b) == count);
    assert!(lost(&bob) > 0, "{}", bob.story());
    bob.sees(&["ann", "bob", "eve"]);
    other.prints("cannot use NATS");
}

fn a_flood_while_nats_hangs_is_counted_and_delays_nobody_here() {
    const COUNT: usize = 30_000;
    let nats = Nats::start(&[]);
    let (one, other) =
        (Server::start(&nats.address(), &ALL), Server::start(&nats.address(), &ALL));
    let (mut ann, mut bob, mut eve) = (one.enter("ann"), other.enter("bob"), one.enter("eve"));
    bob.sees(&["ann", "bob", "eve"]);
    eve.sees(&["ann", "bob", "eve"]);
    nats.process.signal("-STOP");
    let reader = thread::spawn(move || {
        eve.until(|e| e.heard.len() == COUNT);
        eve
    });
    let body = "x".repeat(1000);
    (0..COUNT).for_each(|_| ann.say(&body));
    let eve = reader.join().unwrap();
    assert_eq!(lost(&eve), 0);
    #[cfg(target_os = "linux")]
    assert!(one.peak_memory() < 20_000, "{} KiB for 30 MB", one.peak_memory());
    nats.process.signal("-CONT");
    bob.until(|b| b.heard.len() + lost(b) == COUNT);
    assert!(lost(&bob) > 0, "{}", bob.story());
    bob.sees(&["ann", "bob", "eve"]);
}

fn something_else_in_place_of_nats_gets_one_clear_line_and_local_chat_goes_on() {
    const INFO: &str = "INFO {\"server_id\":\"x\",\"max_payload\":1048576}\r\n";
    let liars: [(&str, Vec<u8>); 8] = [
        ("does not speak NATS", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("more than 16384 bytes", vec![b'x'; 1 << 20]),
        ("does not speak NATS", b"\xff\xfe\r\n".to_vec()),
        ("max_payload", b"INFO {\"max_payload\":1000}\r\n".to_vec()),
        ("over the limit", format!("{INFO}PONG\r\nMSG socket-chat 1 99999999999\r\n").into()),
        ("over the limit", format!("{INFO}PONG\r\nMSG socket-chat 1 -5\r\n").into()),
        ("longer than it has announced", format!("{INFO}PONG\r\nMSG socket-chat 1 2\r\nabcdef").into()),
        ("Authorization", format!("{INFO}-ERR 'Authorization Violation'\r\n").into()),
    ];
    for (words, bytes) in liars {
        let liar = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = liar.local_addr().unwrap().to_string();
        let (calls, counted) = (Arc::new(AtomicU64::new(0)), words.to_string());
        let called = Arc::clone(&calls);
        thread::spawn(move || {
            for mut stream in liar.incoming().map_while(Result::ok) {
                called.fetch_add(1, Ordering::SeqCst);
                thread::spawn({
                    let bytes = bytes.clone();
                    move || {
                        let _ = stream.write_all(&bytes);
                        let _ = stream.read_to_end(&mut Vec::new());
                    }
                });
            }
        });
        let mut server = Server::start_alone(&address, &ALL, &[]);
        let line = server.prints("cannot use NATS");
        assert!(line.contains(&counted), "{line}");
        let (mut ann, mut bob) = (server.enter("ann"), server.enter("bob"));
        ann.say("hello");
        bob.hears("ann", "hello");
        // It tries again, and does not say so again.
        let end = Instant::now() + DEADLINE;
        while calls.load(Ordering::SeqCst) < 4 {
            assert!(Instant::now() < end, "it is not tried again");
            thread::yield_now();
        }
        assert_eq!(server.printed("cannot use NATS").len(), 1, "{:?}", server.log);
        #[cfg(target_os = "linux")]
        assert!(server.peak_memory() < 20_000, "{} KiB", server.peak_memory());
    }
}

fn what_strangers_publish_is_ignored() {
    let nats = Nats::start(&[]);
    let mut server = Server::start(&nats.address(), &ALL);
    let mut ann = server.enter("ann");
    let mut stranger = TcpStream::connect(nats.address()).unwrap();
    let mut publish = |payload: &[u8]| {
        let pub_line = format!("PUB socket-chat {}\r\n", payload.len());
        stranger.write_all(&[pub_line.as_bytes(), payload, b"\r\n"].concat()).unwrap();
    };
    let head = |kind: u8, count: u64| {
        [&b"CR\x01"[..], &[kind], &7_u64.to_be_bytes(), &count.to_be_bytes()].concat()
    };
    publish(b"hello");
    publish(&[0xff; 5000]);
    publish(&[&head(9, 0)[..], &message(JOIN, "bob", "").bytes()].concat());
    publish(&[&head(1, 0)[..], &message(JOIN, "b ob", "").bytes()].concat());
    publish(&[&head(1, 0)[..], &message(JOIN, "bob", "").bytes()[..10]].concat());
    publish(&[&head(1, 0)[..], &message(ERROR, "bob", "boo").bytes()].concat());
    publish(&[&head(2, 0)[..], &message(TEXT, "bob", "boo").bytes()].concat());
    server.prints("ignored");
    // What it says is cleaned, once it is a server.
    publish(&[&head(1, 0)[..], &message(JOIN, "bob", "").bytes(), &message(TEXT, "bob", "\x1b[31mred").bytes()].concat());
    ann.hears("bob", "[31mred");
    // The same again, and an older one.
    publish(&[&head(1, 0)[..], &message(TEXT, "bob", "twice").bytes()].concat());
    publish(&[&head(1, 1)[..], &message(TEXT, "bob", "new").bytes()].concat());
    ann.hears("bob", "new");
    assert_eq!(server.printed("ignored").len(), 1);
}

#[cfg_attr(no_tls, ignore = "openssl or stunnel is not installed (sudo apt install openssl stunnel4)")]
fn nats_is_reached_by_tls_and_only_if_its_certificate_is_right() {
    let nats = Nats::start(&[]);
    let folder = Folder::new();
    for name in ["lab", "other"] {
        let made = Command::new(lab::example("10_secure_chat"))
            .args(["certs", &folder.path(name)])
            .output();
        assert!(made.unwrap().status.success());
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "foreground = yes\npid =\nsyslog = no\ndebug = info\n[nats]\naccept = 127.0.0.1:{port}\nconnect = {}\ncert = {}\nkey = {}\n",
        nats.address(),
        folder.path("lab/server.pem"),
        folder.path("lab/server.key"),
    );
    let config = folder.file("stunnel.conf", &config);
    let mut child = Command::new("stunnel").arg(config).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let _stunnel = Process(child);
    while !log.next().expect("it starts").unwrap().contains("bound to") {}
    thread::spawn(move || log.map_while(Result::ok).for_each(drop));
    let address = format!("127.0.0.1:{port}");
    let mut wrong = Server::start_alone(&address, &ALL, &["--nats-ca", &folder.path("other/ca.pem")]);
    let line = wrong.prints("cannot use NATS");
    assert!(line.contains("not signed by"), "{line}");
    let mut one = Server::start_alone(&address, &ALL, &["--nats-ca", &folder.path("lab/ca.pem")]);
    one.prints("connected to NATS");
    let other = Server::start(&nats.address(), &ALL);
    let (mut ann, mut bob) = (one.enter("ann"), other.enter("bob"));
    ann.sees(&["ann", "bob"]);
    bob.sees(&["ann", "bob"]);
    ann.say("by TLS");
    bob.hears("ann", "by TLS");
}

}

/// What a member of the crowd has seen so far.
struct Watched {
    client: Mutex<Client>,
    /// How often each message has come, by its number.
    counts: Mutex<Vec<u8>>,
    sending: TcpStream,
    server: usize,
    /// It stays in from its first to its last message.
    is_steady: bool,
}

impl Watched {
    fn start(client: Client, server: usize, is_steady: bool) -> Arc<Watched> {
        let (sending, peeking) =
            (client.stream.try_clone().unwrap(), client.stream.try_clone().unwrap());
        let (client, counts) = (Mutex::new(client), Mutex::default());
        let watched = Arc::new(Watched { client, counts, sending, server, is_steady });
        let this = Arc::clone(&watched);
        thread::spawn(move || {
            // Only this thread reads. It holds the lock for one message.
            while let Ok(1) = peeking.peek(&mut [0]) {
                let mut client = this.client.lock().unwrap();
                client.receive();
                let mut counts = this.counts.lock().unwrap();
                for (_, number) in client.heard.drain(..) {
                    let number: usize = number.parse().unwrap();
                    if counts.len() <= number {
                        counts.resize(number + 1, 0);
                    }
                    counts[number] += 1;
                }
            }
            this.client.lock().unwrap().has_ended = true;
        });
        watched
    }

    fn say(&self, number: usize) {
        let bytes = text(1, number.to_string()).bytes();
        let _ = (&self.sending).write_all(&bytes);
    }
}

/// 300 members at three servers come, go and talk, while NATS is killed and
/// restarted twice, and then one server is killed.
#[test]
#[ignore = "it takes ten minutes: cargo test --test several_servers -- --ignored"]
#[allow(clippy::too_many_lines)]
fn every_message_that_is_said_while_nats_is_up_arrives_once_at_every_member() {
    const EACH: usize = 100;
    const STEADY: usize = 80;
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(600);
    let heartbeat = Duration::from_millis(HEARTBEAT_MS);
    let names: Vec<String> = (0..3 * EACH).map(|number| format!("m{number:03}")).collect();
    let accounts: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut nats = Nats::start(&[]);
    let mut servers: Vec<Server> =
        (0..3).map(|_| Server::start(&nats.address(), &accounts)).collect();
    let mut crowd: BTreeMap<&str, Arc<Watched>> = BTreeMap::new();
    let enter = |servers: &[Server], number: usize| {
        let server = number / EACH;
        let client = servers[server].enter(accounts[number]);
        Watched::start(client, server, number % EACH < STEADY)
    };
    for (number, name) in accounts.iter().enumerate().take(3 * EACH) {
        crowd.insert(name, enter(&servers, number));
    }
    // How long it takes until all lists are the list of all who are in.
    let agree = |crowd: &BTreeMap<&str, Arc<Watched>>, what: &str| {
        let start = Instant::now();
        let all: BTreeSet<String> = crowd.keys().map(ToString::to_string).collect();
        let mut last = String::new();
        for member in crowd.values() {
            loop {
                let here = member.client.lock().unwrap().here.clone();
                if here == all {
                    break;
                }
                if start.elapsed() > heartbeat * 20 {
                    last = format!("{:?}", here.symmetric_difference(&all).collect::<Vec<_>>());
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        let beats = start.elapsed().as_secs_f64() / heartbeat.as_secs_f64();
        println!("{what}: all lists agree after {beats:.2} heartbeats");
        assert!(last.is_empty(), "{what}: {last}");
        beats
    };
    agree(&crowd, "300 have come");
    // Each message with its server, and with the members that must get it.
    let (mut said, mut came_and_went, mut unknown) = (Vec::new(), 0, 0);
    let mut outages = [0.2, 0.45].map(|part| Duration::from_secs(seconds).mul_f64(part)).to_vec();
    let mut server_dies = Some(Duration::from_secs(seconds).mul_f64(0.7));
    let (start, mut round, mut random) = (Instant::now(), 0_usize, 12_345_u64);
    let mut next = move |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % limit
    };
    while start.elapsed() < Duration::from_secs(seconds) {
        round += 1;
        // A tenth of a second: ten talk, and sometimes one comes or goes.
        for _ in 0..10 {
            let members: Vec<&Arc<Watched>> = crowd.values().filter(|m| m.is_steady).collect();
            let member = members[next(members.len())];
            member.say(said.len());
            said.push((member.client.lock().unwrap().name.clone(), true));
        }
        if round.is_multiple_of(3) {
            let number = next(3) * EACH + STEADY + next(EACH - STEADY);
            let name = accounts[number];
            if let Some(member) = crowd.remove(name) {
                let _ = (&member.sending).write_all(&message(LEAVE, "", "").bytes());
                came_and_went += 1;
            } else if number / EACH < servers.len() {
                // The name may not be free yet at its own server.
                if let Ok(client) = servers[number / EACH].try_enter(name) {
                    crowd.insert(name, Watched::start(client, number / EACH, false));
                }
            }
        }
        if outages.first().is_some_and(|at| start.elapsed() >= *at) {
            outages.remove(0);
            let long = outages.is_empty();
            // What is under way arrives.
            thread::sleep(heartbeat);
            nats.process.kill();
            for server in &mut servers {
                server.prints("cannot use NATS");
            }
            let down = heartbeat * if long { 8 } else { 2 };
            let end = Instant::now() + down;
            while Instant::now() < end {
                let member = crowd.values().nth(next(crowd.len())).unwrap();
                member.say(said.len());
                said.push((String::new(), false));
                unknown += 1;
                thread::sleep(Duration::from_millis(10));
            }
            nats.restart();
            for server in &mut servers {
                server.prints("connected to NATS");
            }
            let beats = agree(&crowd, if long { "a long outage" } else { "a short outage" });
            assert!(beats < 3.5, "{beats}");
        }
        if server_dies.is_some_and(|at| start.elapsed() >= at) {
            server_dies = None;
            thread::sleep(heartbeat);
            let gone: Vec<_> =
                crowd.values().filter(|member| member.server == 2).cloned().collect();
            check(&gone, &said, "the members of the killed server");
            servers.pop().unwrap().process.kill();
            crowd.retain(|_, member| member.server != 2);
            let beats = agree(&crowd, "a server was killed");
            assert!(beats < 4.5, "{beats}");
        }
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(heartbeat * 3);
    agree(&crowd, "the end");
    let all: Vec<_> = crowd.values().cloned().collect();
    check(&all, &said, "the members at the end");
    let lost: Vec<usize> =
        all.iter().filter(|m| m.is_steady).map(|m| lost(&m.client.lock().unwrap())).collect();
    println!(
        "{} messages ({unknown} of them during outages), {came_and_went} came and went; members were told of {} to {} lost messages",
        said.len(),
        lost.iter().min().unwrap(),
        lost.iter().max().unwrap()
    );
}

/// Steady members have got each message once, but for their own and those that
/// were said while NATS was down; nobody has got one twice.
fn check(members: &[Arc<Watched>], said: &[(String, bool)], who: &str) {
    let mut deliveries = 0;
    for member in members {
        let name = member.client.lock().unwrap().name.clone();
        let counts = member.counts.lock().unwrap();
        for (number, (sender, is_up)) in said.iter().enumerate() {
            let count = counts.get(number).copied().unwrap_or(0);
            assert!(count <= 1, "{name} got {number} {count} times");
            if member.is_steady && *is_up && *sender != name {
                assert_eq!(count, 1, "{name} has not got {number} of {sender}");
                deliveries += 1;
            }
        }
    }
    println!("{who}: {deliveries} deliveries that must come have come, once each");
}

fn heard_hello(client: &Client) -> bool {
    client.heard.last().is_some_and(|(_, text)| text == "hello")
}

#[test]
fn nats_on_another_machine_is_refused_without_tls() {
    let output = Command::new(lab::example("10_secure_chat"))
        .args(["serve", "127.0.0.1:0", "--web", "127.0.0.1:0", "--nats", "192.0.2.1:4222"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--nats-ca"), "{said}");
}
