//! Stories that several gradings share: of guests in a room of lines, and of
//! members in a room of messages, whatever carries these.

use super::inbox::{End, Next};
use super::message::{self, HEADER_BYTES, LEAVE, Message, join, left, text, welcome};
use super::peer::{MockServer, Peer, ends};
use super::program::Program;
use super::receiver::{Receiver, silence, told};
use super::story::Story;
use super::system;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::Duration;

const MIB: usize = 1024 * 1024;

/// Somebody who speaks and somebody who listens, while others do not read.
pub struct Chat<'a> {
    pub story: &'a Story,
    pub speaker: &'a Peer,
    pub name: &'a str,
    pub listener: &'a Receiver,
    /// The sequence of the last message.
    pub last: u32,
    /// The bytes sent.
    pub sent: usize,
}

impl<'a> Chat<'a> {
    pub fn new(
        story: &'a Story,
        name: &'a str,
        speaker: &'a Peer,
        listener: &'a Receiver,
    ) -> Chat<'a> {
        Chat { story, speaker, name, listener, last: 0, sent: 0 }
    }

    /// A long message with a number.
    pub fn text(number: u32) -> Message {
        text(number, format!("{number:08}{}", "x".repeat(3992)))
    }

    /// Speaks until that many bytes are sent, or until it is told that somebody
    /// has left; returns that. All the while the listener must hear everything.
    #[track_caller]
    pub fn until(&mut self, bytes: usize) -> Option<Message> {
        let mut gone = None;
        while self.sent < bytes && gone.is_none() {
            let texts: Vec<Message> = (self.last + 1..=self.last + 16).map(Self::text).collect();
            // Never more on its way to the listener than it could be forgiven for.
            let what = format!("TEXT {} and 15 more, of 4000 bytes", self.last + 1);
            self.speaker.say_all(what, &texts);
            self.sent += texts.len() * (HEADER_BYTES + 4000);
            self.last += 16;
            for expected in texts.into_iter().map(|text| text.by(self.name)) {
                let mut came = self.listener.first_message(&expected.told());
                if came.kind == LEAVE && gone.is_none() {
                    self.listener.notice(&came);
                    gone = Some(self.listener.bound(&came));
                    came = self.listener.first_message(&expected.told());
                }
                let same = |a: &Message, b: &Message| (a.kind, a.sequence) == (b.kind, b.sequence);
                if !same(&came, &expected)
                    || came.sender != expected.sender
                    || came.body != expected.body
                {
                    self.listener.compare(&expected, &came);
                }
            }
        }
        gone
    }
}

/// Zed joins and does not read, until it is disconnected, with this reason if
/// it matters; nobody else waits. Returns how many bytes were said until then.
#[track_caller]
pub fn never_reads(
    story: &Story,
    server: &Program,
    [ann, bob]: [&Peer; 2],
    why: Option<&str>,
) -> usize {
    let zed = server.admit_stream("zed");
    story.because("once the system's buffers are full, a write to a client that does not read waits for ever, and a thread that writes to all clients in turn waits with it. And a queue without a bound fills the memory instead");
    for other in [ann, bob] {
        other.gets(&join("zed"));
    }
    story.step("zed", "does not read");
    let mut chat = Chat::new(story, "ann", ann, bob);
    let mut expected = left("zed", why.unwrap_or("..."));
    let Some(came) = chat.until(64 * MIB) else {
        let what = format!("only TEXTs, {} MiB of them", chat.sent / MIB);
        story.fails("server --> bob", &expected.told(), &what);
    };
    if why.is_none() {
        expected.body.clone_from(&came.body);
    }
    if came != expected {
        story.differs("server --> bob", &expected.told(), &came.told());
    }
    story.step("server --> bob", format!("{} ok", came.told()));
    if chat.sent < MIB {
        let what = format!("that, after only {} bytes", chat.sent);
        story.fails("server --> bob", "patience with zed up to 1 MiB", &what);
    }
    ann.gets(&expected);
    story.because("a client that is disconnected is closed, however much waits for it");
    ends(story, "server --> zed", zed);
    let better = text(1, "much better now");
    bob.say(&better);
    ann.gets(&better.by("bob"));
    chat.sent
}

/// Somebody joins and does not read, while so much is said that some of it
/// waits in the server: a bit less than zed could not bear. None if the system
/// keeps less here than for zed: then there is nothing to see.
#[track_caller]
pub fn reads_late(
    story: &Story,
    server: &Program,
    [ann, bob]: [&Peer; 2],
    name: &str,
    enough: usize,
) -> Option<(TcpStream, u32)> {
    let late = server.admit_stream(name);
    for other in [ann, bob] {
        other.gets(&join(name));
    }
    story.step(name, "does not read either, for a while");
    let mut chat = Chat::new(story, "ann", ann, bob);
    match chat.until(enough - MIB / 2) {
        Some(_) => None,
        None => Some((late, chat.last)),
    }
}

/// Somebody reads late, and says LEAVE before that: all that waits must come.
#[track_caller]
pub fn leaves_late(story: &Rc<Story>, server: &Program, [ann, bob]: [&Peer; 2], enough: usize) {
    story.because("a client that has said LEAVE gets what was queued for it, in order, and then the end of the stream, though it closes nothing itself");
    let Some((gus, last)) = reads_late(story, server, [ann, bob], "gus", enough) else { return };
    story.step("gus --> server", "LEAVE");
    let _ = (&gus).write_all(&message::message(LEAVE, "", "").bytes());
    bob.gets(&left("gus", "left"));
    let gus = server.peer("gus", gus);
    gus.gets_next(&welcome("gus", "ann, bob, gus"));
    for number in 1..=last {
        gus.gets_next(&Chat::text(number).by("ann"));
    }
    gus.expect_nothing_more();
}

/// What is no message comes right after a JOIN, and then with much after it:
/// all that the server has to say must arrive, and then the end of the stream.
#[track_caller]
pub fn errors_arrive(story: &Rc<Story>, server: &Program, ann: &Peer, why: &str) {
    let nonsense = |bytes| b"GET /chat HTTP/1.1\r\n".iter().copied().cycle().take(bytes);
    // Whether the WELCOME waits somewhere when the error comes is chance: in
    // many rounds it does.
    for _ in 0..20 {
        story.because("the ERROR goes the way of all else: what was queued for this client before it, its WELCOME, is sent first; and then the end of the stream. A server that closes before its queue is empty loses what is in it");
        let zed = server.visit("zed");
        let bytes: Vec<u8> = join("zed").bytes().into_iter().chain(nonsense(40)).collect();
        zed.sends("JOIN zed, \"GET /chat...\" (in one piece)", &bytes);
        zed.gets_next(&welcome("zed", "ann, zed"));
        zed.gets_error("since the magic must be \"CH\"");
        zed.expect_end();
        ann.gets_next(&join("zed"));
        ann.gets_next(&left("zed", why));
    }
    story.because("closing a connection with unread bytes is a reset, which may overtake the ERROR: close the sending half first, read on and throw away for a moment, and close then");
    let mut ended = Next::Silence(Vec::new());
    for _ in 0..3 {
        let stream = server.connect_stream();
        let zed = server.peer("zed", stream.try_clone().unwrap());
        story.step("zed --> server", "JOIN zed, \"GET /chat...\", and 2 MiB more");
        // More than a server reads at once. It need not take all of it.
        let much: Vec<u8> = join("zed").bytes().into_iter().chain(nonsense(2 * MIB)).collect();
        let sending = std::thread::spawn(move || {
            let _ = (&stream).write_all(&much);
            let _ = stream.shutdown(Shutdown::Write);
        });
        zed.gets_next(&welcome("zed", "ann, zed"));
        zed.gets_error("since the magic must be \"CH\"");
        ended = zed.rest();
        ann.gets_next(&join("zed"));
        ann.gets_next(&left("zed", why));
        drop(zed);
        let _ = sending.join();
        if matches!(ended, Next::End(End::Closed, _)) {
            break;
        }
    }
    match ended {
        Next::End(End::Closed, rest) if rest.is_empty() => {
            story.step("server --> zed", "end of stream ok");
        }
        Next::End(end, rest) => {
            story.fails("server --> zed", "the end of the stream", &told(&end, &rest));
        }
        Next::Some(rest) | Next::Silence(rest) => {
            story.fails("server --> zed", "the end of the stream", &silence(&rest));
        }
    }
}

// --- lines ---

/// Joins a chat room of step 05 as its `number`th guest, of whom `here` are
/// here then, and waits for the greeting.
#[track_caller]
pub fn enter_as_guest(server: &Program, name: &str, number: usize, here: usize) -> Peer {
    let peer = server.connect(name);
    peer.expect_line(&format!("* welcome, guest-{number} ({here} here)"));
    peer
}

/// Fills an empty room of step 05: each has heard all that the others joined.
#[track_caller]
pub fn gather<const N: usize>(server: &Program, names: [&str; N]) -> [Peer; N] {
    let mut peers: Vec<Peer> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let peer = enter_as_guest(server, name, i + 1, i + 1);
        for other in &peers {
            other.hear(&format!("* guest-{} joined ({} here)", i + 1, i + 1));
        }
        peers.push(peer);
    }
    peers.try_into().unwrap_or_else(|_| unreachable!())
}

/// A line without an end must not pile up in a client's memory.
#[track_caller]
pub fn endless_line(story: &Story, client: &Program, server: &Peer) {
    const MUCH: usize = 20_000_000;
    story.because("a client takes lines up to 64 KiB, and cuts or splits what is longer: one that waits for the line end without a limit keeps whatever a server sends, until its memory is full");
    let x = vec![b'x'; 64 * 1024];
    let sends = |bytes: usize| {
        let mut sent = 0;
        while sent < bytes {
            // It may stop reading, too: then nothing piles up in it.
            match (&server.stream).write(&x) {
                Ok(count) => sent += count,
                Err(_) => return false,
            }
        }
        system::drained(&server.stream);
        true
    };
    server.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let reads = sends(MUCH / 20);
    // Not for a program whose memory comes and goes by the hundred megabytes.
    let before = system::memory(client.pid()).filter(|before| *before < 32_000_000);
    if let Some(before) = before.filter(|_| reads && sends(MUCH)) {
        let grown = system::memory(client.pid()).unwrap_or(0).saturating_sub(before);
        story.step("server --> client", format!("a line of {MUCH} bytes, and no end of it"));
        if grown > MUCH / 2 {
            let grown = format!("its memory has grown by {grown} bytes");
            story.fails("server --> client", "at most 64 KiB of a line kept in memory", &grown);
        }
    }
}

/// What every client does with its arguments: those of every program, and a
/// connection by name, and over IPv6 where the machine has it. Standard output
/// has only what the server said.
#[track_caller]
pub fn client_arguments(story: &Rc<Story>, program: &str) {
    story.together(|| {
        story.usual_arguments(program);
        story.run(program, &["127.0.0.1:1", "surplus"]).usage_error_about("surplus");
    });

    let named = MockServer::open(story, "127.0.0.1:0");
    let mut mock_servers = vec![(named.address.replace("127.0.0.1", "localhost"), named)];
    if system::has_ipv6() {
        let six = MockServer::open(story, "[::1]:0");
        mock_servers.push((six.address.clone(), six));
    }
    for (address, mock_server) in mock_servers {
        let client = story.client(program, &address);
        let server = mock_server.accept();
        client.ends_input();
        server.expect_end();
        server.send("only this\n");
        drop(server);
        client.screen.expect_line("only this");
        client.screen.expect_end();
        client.expect_exit(0);
    }
}
