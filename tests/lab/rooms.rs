//! Stories that several gradings share: of guests in a room of lines, and of
//! members in a room of messages, whatever carries these.

use super::inbox::{End, Next};
use super::message::{self, HEADER_BYTES, LEAVE, Message, join, left, text, welcome};
use super::peer::{Format, MockServer, Peer, ends};
use super::program::Program;
use super::receiver::{Receiver, silence as told_silence, told};
use super::story::Story;
use super::system::{self, ways_to_stop};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

const GOODBYE: &str = "server is shutting down";
/// A heartbeat that is no part of a test: it comes once in an hour.
pub const NO_HEARTBEAT: [&str; 2] = ["--heartbeat-ms", "3600000"];

/// Starts the server of a room at this address. Some steps have the word `serve`
/// before ADDRESS.
#[track_caller]
pub fn serve_at(story: &Rc<Story>, program: &str, address: &str, options: &[&str]) -> Program {
    let word: &[&str] = if Format::of_step(program).is_websocket() { &[] } else { &["serve"] };
    story.serve(program, &[word, &[address], options].concat())
}

/// The same at a free port.
#[track_caller]
pub fn open_room(story: &Rc<Story>, program: &str, options: &[&str]) -> Program {
    serve_at(story, program, "127.0.0.1:0", options)
}

/// The goodbye of the server itself.
pub fn goodbye() -> Message {
    left("", GOODBYE)
}

// --- how connections end ---

/// Zed joins, says something, sends these last bytes, and closes its sending
/// half; the others are told once, with this reason, after all that it said.
#[track_caller]
pub fn disconnects(
    story: &Story,
    server: &Program,
    others: [&Peer; 2],
    endings: &[(&str, Vec<u8>, &str)],
) {
    for (what, last, why) in endings {
        // The name is free each time.
        let zed = server.admit("zed", "ann, bob, zed");
        zed.has_said_close();
        let said = text(1, story.word());
        // All of it is there before the server looks.
        server.freeze();
        let told = format!("{}, {what}, end of stream", said.told());
        zed.sends(told, &[zed.encode(&said), last.clone()].concat());
        zed.close_sending();
        server.thaw();
        are_told(others, &said, why);
    }
}

/// Zed has come, has said something, and has left.
#[track_caller]
pub fn are_told(others: [&Peer; 2], said: &Message, why: &str) {
    for other in others {
        other.gets_next(&join("zed"));
        other.gets_next(&said.clone().by("zed"));
        other.gets_next(&left("zed", why));
    }
}

/// Zed resets its connection, between two messages and inside of one.
#[track_caller]
pub fn resets(story: &Story, server: &Program, others: [&Peer; 2]) {
    story.because(
        "a reset is an end like another: reading fails then. It ends this client, nobody else",
    );
    for unfinished in [0, 20] {
        let zed = server.admit_stream("zed");
        let said = text(1, story.word());
        story.step("zed --> server", format!("{}, {unfinished} bytes more", said.told()));
        let next = server.format.encode(&text(2, "half a message"), *b"mask");
        let all = [server.format.encode(&said, *b"mask"), next[..unfinished].to_vec()].concat();
        let _ = (&zed).write_all(&all);
        for other in others {
            other.gets_next(&join("zed"));
            other.gets_next(&said.clone().by("zed"));
        }
        reset(story, zed);
        for other in others {
            other.gets_next(&left("zed", "disconnected"));
        }
    }
}

/// Closes a connection on which something is unread: the system sends a reset.
#[track_caller]
pub fn reset(story: &Story, stream: TcpStream) {
    system::wait_for_bytes(story, &stream);
    story.step("it --> server", "reset");
    drop(stream);
}

// --- the heartbeat ---

/// Plays a story with a quick heartbeat. On a machine that is busy elsewhere, an
/// answer of the test may come too late for that, and then the server is right
/// to disconnect it: so a story that fails is played again, slowly, and only
/// this failure counts.
#[track_caller]
pub fn with_heartbeat(story: &Rc<Story>, play: impl Fn(&Rc<Story>, Duration)) {
    let quickly = || play(&Story::of_trial(), Duration::from_millis(300));
    if catch_unwind(AssertUnwindSafe(quickly)).is_err() {
        story.step("the test", "has time for slow machines");
        play(story, Duration::from_millis(1200));
    }
}

/// Clients are silent, each in its own way, and are timed out.
#[track_caller]
pub fn silence(story: &Rc<Story>, program: &str) {
    with_heartbeat(story, |story, heartbeat| silent_for(story, program, heartbeat));
}

#[track_caller]
fn silent_for(story: &Rc<Story>, program: &str, heartbeat: Duration) {
    let milliseconds = heartbeat.as_millis().to_string();
    let server = open_room(story, program, &["--heartbeat-ms", &milliseconds]);
    // Ann answers each ping; the others don't.
    let ann = server.admit("ann", "ann");
    let started = Instant::now();
    // The pings to a client that answers them are the clock.
    let clock = server.visit("clock");
    let nobody = server.visit("nobody");
    nobody.falls_silent();
    let zed = server.admit("zed", "ann, zed");
    zed.falls_silent();
    ann.gets_next(&join("zed"));
    // A clock that is a bit fast is forgiven; one that is late is the machine's.
    let not_before = |beats: u32, started: Instant, what: &str| {
        if started.elapsed() < heartbeat * beats * 9 / 10 {
            let expected = format!("{what} not before {beats} heartbeats of silence");
            let received = format!("it after {:?}", started.elapsed());
            story.fails("server --> client", &expected, &received);
        }
    };
    zed.gets_ping();
    not_before(1, started, "a ping");
    story.because("an answer is a sign of life: silence is counted anew, and there is a ping at its end again");
    let answered = Instant::now();
    zed.answers_ping();
    let gus = server.admit("gus", "ann, gus, zed");
    gus.falls_silent();
    ann.gets_next(&join("gus"));
    zed.gets_ping();
    not_before(1, answered, "the next ping");

    story.because("the heartbeat is also for a client that has not joined, or connections that nobody uses pile up; its end is told to nobody. A heartbeat after the ping is not the end: there are two");
    nobody.gets_ping();
    nobody.ends("since it said nothing at all");
    not_before(3, started, "the end");
    let beats = clock.pings();
    if beats > 6 {
        let received = format!("it after {beats} heartbeats");
        story.fails("server --> nobody", "the end after 3 heartbeats of silence", &received);
    }

    story.because("a client that hears what others say, but answers nothing, is silent: what the server sends is no sign of life. Nor is half a message, and it does not stop the clock either");
    let message = gus.encode(&text(1, "half a message is none"));
    story.step("gus --> server", "a byte of a message now and then");
    let lost = ["zed", "gus"];
    for (beat, byte) in (1..).zip(&message) {
        let missing = lost.into_iter().find(|name| !ann.has_news_of(name));
        let Some(missing) = missing else { break };
        if beat == 7 {
            let expected = left(missing, "timed out").told();
            story.fails("server --> ann", &expected, "nothing, for many heartbeats");
        }
        gus.tries(&[*byte]);
        ann.say(&text(beat, "are you there?"));
        clock.gets_ping();
        // With its answer the text was passed on: clients that join later don't get it.
        ann.say(&message::ping(beat));
        ann.gets(&message::pong(beat));
    }
    for name in lost {
        ann.gets(&left(name, "timed out"));
    }
    not_before(3, answered, "the end");
    story.because("a client that is timed out is disconnected: its own stream ends, too");
    zed.ends("since its second ping was not answered");
    // The name is free, and ann was here all the time.
    let zed = server.admit("zed", "ann, zed");
    ann.gets_next(&join("zed"));
    zed.say_goodbye();
    ann.gets_leave("zed");
}

/// What a client sends in a round of [`signs_of_life`].
pub type Sign<'a> = &'a dyn Fn(&Peer, u32) -> Vec<u8>;

/// Each of these gives one kind of sign, once in a heartbeat, for five
/// heartbeats, and stays. Those whose story begins with `NAME,` have joined.
#[track_caller]
pub fn signs_of_life(story: &Rc<Story>, program: &str, signs: &[(&str, Sign)]) {
    with_heartbeat(story, |story, heartbeat| {
        let milliseconds = heartbeat.as_millis().to_string();
        let server = open_room(story, program, &["--heartbeat-ms", &milliseconds]);
        let living: Vec<Peer> = signs.iter().map(|(who, _)| server.visit(who)).collect();
        for (peer, (who, _)) in living.iter().zip(signs) {
            peer.falls_silent();
            if let Some((name, _)) = who.split_once(',') {
                peer.tries(&peer.encode(&join(name)));
            }
        }
        // Its pings are the clock.
        let clock = server.visit("clock");
        let expected = "all of them are still here";
        for round in 0..5 {
            if !clock.is_pinged() {
                let received = "somebody who answers each ping was disconnected";
                story.fails("server --> them", expected, received);
            }
            for (peer, (_, sign)) in living.iter().zip(signs) {
                peer.tries(&sign(peer, round));
            }
            story.step("all of them", "send what they have");
        }
        for (peer, (who, _)) in living.iter().zip(signs) {
            if !peer.is_alive() {
                story.fails("server --> them", expected, &format!("{who} was disconnected"));
            }
        }
    });
}

// --- the stop ---

/// A server is asked to stop in each way, and says goodbye to everybody.
#[track_caller]
pub fn stops(story: &Rc<Story>, program: &str) {
    let mut soonest = Duration::MAX;
    let mut stopping = Vec::new();
    for way in ways_to_stop() {
        let server = open_room(story, program, &NO_HEARTBEAT);
        let [ann, bob] = server.admit_all(["ann", "bob"]);
        let nobody = server.visit("nobody");
        nobody.is_alive();
        let late = server.admit_stream("late");
        for other in [&ann, &bob] {
            other.gets(&join("late"));
        }
        let mut held = Vec::new();
        let mut rude = None;
        if way == "/quit" {
            // These ask for nothing yet.
            held.extend([server.connect_stream(), server.connect_stream()]);
            let _ = (&held[0]).write_all(b"CH");
            // And rude will not answer, in the middle of a message.
            let peer = server.admit("rude", "ann, bob, late, rude");
            peer.falls_silent();
            let half = peer.encode(&text(1, "half a message"));
            peer.sends("20 bytes of a message", &half[..20]);
            for other in [&ann, &bob] {
                other.gets(&join("rude"));
            }
            rude = Some(peer);
        }
        let long = "x".repeat(1000);
        for n in 1..=100 {
            ann.sends(format!("TEXT {n} of 1000 bytes"), &ann.encode(&text(n, &long)));
        }
        for n in 1..=100 {
            bob.gets_next(&text(n, &long).by("ann"));
        }
        server.types("what is this?\n/quitting\n");
        match way {
            "/quit" => server.quit(),
            other => {
                server.ends_input();
                server.settled();
                bob.say(&text(1, "still open?"));
                ann.gets_next(&text(1, "still open?").by("bob"));
                if other == "SIGTERM" { server.terminate() } else { server.interrupt() }
            }
        }
        let asked = Instant::now();
        for peer in [&ann, &bob, &nobody] {
            peer.gets(&goodbye());
            peer.is_closed_with(1001);
        }
        soonest = soonest.min(asked.elapsed());
        // Late has not read a byte yet.
        let late = server.peer("late", late);
        late.gets_next(&welcome("late", "ann, bob, late"));
        if way == "/quit" {
            late.gets(&join("rude"));
        }
        for n in 1..=100 {
            late.gets(&text(n, &long).by("ann"));
        }
        if way != "/quit" {
            late.gets(&text(1, "still open?").by("bob"));
        }
        late.gets(&goodbye());
        late.is_closed_with(1001);
        // What the server waits for, it waits for while others stop.
        stopping.push((way, server, held, rude));
    }
    // A busy machine may be late once, but not each time.
    if soonest > Duration::from_millis(1900) {
        story.because("the server closes as soon as the goodbye is sent: so the clients know that nothing more comes, and close, too. The 2 s are for clients that don't");
        let late = format!("both, but the end only after {soonest:.1?}");
        story.fails("server --> ann", "the goodbye, and right after it the end", &late);
    }
    for (way, server, held, rude) in stopping {
        story.because("clients that neither answer nor go, or that have not even asked for anything, must not hold up the stop");
        story.step("the server", format!("was stopped by {way}"));
        server.expect_last_printed("bye");
        server.expect_exit(0);
        let address = server.address.to_string();
        drop((server, held, rude));
        let word: &[&str] = if Format::of_step(program).is_websocket() { &[] } else { &["serve"] };
        story.serves_again(program, &[word, &[&address]].concat());
    }
}

// --- limits and arguments ---

/// A room with two seats: a connection takes one, joined or not, and however
/// a client leaves, it is one seat that is free then. `full` is a newcomer that
/// must be refused.
#[allow(clippy::type_complexity)]
#[track_caller]
pub fn two_seats(
    story: &Story,
    server: &Program,
    full: impl Fn(),
    ways: &[(&str, &dyn Fn(&Peer))],
) -> [Peer; 2] {
    let ann = server.admit("ann", "ann");
    // Bob takes a seat, though it has no name yet.
    let mut bob = server.visit("bob");
    bob.is_alive();
    for _ in 0..3 {
        full();
    }
    bob.say(&join("bob"));
    bob.gets_next(&welcome("bob", "ann, bob"));
    ann.gets_next(&join("bob"));
    full();
    for (way, leaves) in ways {
        story.because("a seat is free as soon as the others have been told, however somebody has left, and it is one seat");
        story.step("bob", format!("goes, with {way}"));
        leaves(&bob);
        ann.gets_leave("bob");
        bob = server.admit("bob", "ann, bob");
        ann.gets_next(&join("bob"));
        full();
    }
    [ann, bob]
}

/// What a room does with `--limit` and `--heartbeat-ms`, at their limits and
/// beyond.
#[track_caller]
pub fn numbers_are_checked(story: &Rc<Story>, program: &str) {
    let word: &[&str] = if Format::of_step(program).is_websocket() { &[] } else { &["serve"] };
    let run = |more: &[&str]| story.run(program, &[word, &["127.0.0.1:0"], more].concat());
    for (option, wrongs) in [
        ("--limit", ["0", "10001", "-1", "many"]),
        ("--heartbeat-ms", ["49", "3600001", "-1", "soon"]),
    ] {
        for wrong in wrongs {
            run(&[option, wrong]).usage_error_about(wrong);
        }
        run(&[option]).usage_error_about(option);
    }
    open_room(story, program, &["--heartbeat-ms", "50", "--limit", "10000"]);
}

// --- clients that do not read ---

const MIB: usize = 1024 * 1024;

/// A member that sends and a member that receives, while others do not read.
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

    /// Sends until that many bytes are sent, or until the listener is told that a
    /// member has left; returns that. The listener must get everything meanwhile.
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
/// it matters; no other member waits. Returns how many bytes were sent until then.
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

/// A member joins and does not read, while so much is sent that some of it
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

/// A member reads late, and sends LEAVE before that: all that waits must come.
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
            story.fails("server --> zed", "the end of the stream", &told_silence(&rest));
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

/// Fills an empty room of step 05; each guest has been told of the others.
#[track_caller]
pub fn gather<const N: usize>(server: &Program, names: [&str; N]) -> [Peer; N] {
    let mut peers: Vec<Peer> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let peer = enter_as_guest(server, name, i + 1, i + 1);
        for other in &peers {
            other.gets_line(&format!("* guest-{} joined ({} here)", i + 1, i + 1));
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

    story.by_hand(format!(
        "nc -l 127.0.0.1 12345, then cargo run --example {program} localhost:12345 </dev/null"
    ));
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
