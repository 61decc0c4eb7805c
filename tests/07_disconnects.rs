//! The grading of step 07: ten tests, a point each. The last two are about the
//! client.
//!
//! For a program of your own, in any language:
//! `LAB="python3 my_07.py" cargo test --test 07_disconnects`

#![allow(clippy::unwrap_used)]

mod lab;

use lab::message::{
    LEAVE, Message, WELCOME, error, join, left, message, now, ping, pong, text, welcome,
};
use lab::secure::work;
use lab::{Chat, MockServer, NO_HEARTBEAT, Peer, Program, Rule, Story};
use lab::{disconnects, reset, resets, signs_of_life, silence, stops, two_seats, with_heartbeat};
use lab::{errors_arrive, leaves_late, never_reads, numbers_are_checked, open_room, reads_late};
use lab::{goodbye, has_ipv6, patience};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

const PROGRAM: &str = "07_disconnects";
/// A server whose heartbeat is no part of the test.
#[track_caller]
fn serve(story: &Rc<Story>) -> Program {
    open_room(story, PROGRAM, &NO_HEARTBEAT)
}

#[test]
fn each_disconnect_is_announced_once_with_its_reason() {
    let story = Story::new(Rule {
        rule: "the others get LEAVE with the reason: `left` after a LEAVE, `disconnected` where the stream ends without one, inside a message or by a reset, `protocol error` for what is no message; once, and after all that was said before",
        why: "the first that ends a connection is its reason; what is noticed later (the end of the stream after a LEAVE, a failing write) is no news",
        read: "lessons/07_disconnects.md, \"The idea\"",
        by_hand: "cargo run --example 07_disconnects join ann, in two terminals with two names; /quit in one; again, and kill -9 it",
    });
    let server = serve(&story);
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    let leave = message(LEAVE, "", "").bytes();
    let half = |bytes: usize| text(2, "half a message").bytes()[..bytes].to_vec();
    disconnects(
        &story,
        &server,
        [&ann, &bob],
        &[
            ("LEAVE", leave.clone(), "left"),
            ("nothing more", Vec::new(), "disconnected"),
            ("1 byte of a message", half(1), "disconnected"),
            ("20 bytes of a message", half(20), "disconnected"),
            ("33 of 34 bytes of a message", half(33), "disconnected"),
            ("\"GET /chat...\"", b"GET /chat HTTP/1.1\r\n\r\n".into(), "protocol error"),
            ("LEAVE, and a byte", [&leave[..], b"x"].concat(), "left"),
        ],
    );
    resets(&story, &server, [&ann, &bob]);
    story.because("LEAVE is a goodbye, and the server's turn to close; what is no message is answered with an ERROR first. A client that never joined is not announced");
    let zed = server.admit("zed", "ann, bob, zed");
    let nobody = server.visit("nobody");
    for peer in [&zed, &nobody] {
        // They close nothing themselves.
        peer.say(&message(LEAVE, "", ""));
        peer.expect_nothing_more();
    }
    let nobody = server.visit("nobody");
    nobody.send("GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n");
    nobody.gets_error("since this is no message");
    nobody.expect_end();
    for other in [&ann, &bob] {
        other.gets_next(&join("zed"));
        other.gets_next(&left("zed", "left"));
    }
    bob.say(&text(1, "just us"));
    ann.gets_next(&text(1, "just us").by("bob"));
    bob.say_goodbye();
    ann.gets_next(&left("bob", "left"));
    errors_arrive(&story, &server, &ann, "protocol error");
}

#[test]
fn members_that_vanish_are_announced_once_and_their_names_are_free() {
    const CROWD: usize = 40;
    let story = Story::new(Rule {
        rule: "each ending is told once, whichever part of the server notices it first, and then the name is free",
        why: "the thread that reads notices the end, and so does the thread that writes: one place must decide, tell it, and forget the name in the same moment",
        read: "lessons/07_disconnects.md, \"Break it\"",
        by_hand: "cargo run --example 07_disconnects join zed, in two terminals: kill -9 one of them, and join again under its name",
    });
    let server = serve(&story);
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    let names: Vec<String> = (0..CROWD).map(|n| format!("c{n:02}")).collect();
    for round in 1..=2_u32 {
        let mut crowd = Vec::new();
        for name in &names {
            crowd.push(server.admit_stream(name));
            for other in [&ann, &bob] {
                other.gets(&join(name));
            }
        }
        // A server may tell the others before it welcomes the newcomer.
        for stream in &crowd {
            lab::wait_for_bytes(&story, stream);
        }
        // All vanish before the server can notice, while ann speaks to all.
        server.freeze();
        story.step(
            format!("{CROWD} clients"),
            "reset their connections, half of them inside a message",
        );
        for (i, stream) in crowd.into_iter().enumerate() {
            if i % 2 == 0 {
                let _ = (&stream).write_all(b"CH\x01\x02 half");
            }
            drop(stream);
        }
        ann.say(&text(round, "who is still here?"));
        server.thaw();
        let mut told = BTreeSet::new();
        let mut heard = false;
        while told.len() < CROWD || !heard {
            let expected = format!(
                "{CROWD} times LEAVE, each once ({} so far), and TEXT {round} ann",
                told.len()
            );
            let came = bob.any_message(&expected);
            if !heard && came.told() == text(round, "who is still here?").by("ann").told() {
                heard = true;
                continue;
            }
            let name = String::from_utf8_lossy(&came.sender).into_owned();
            let right = came.kind == LEAVE && names.contains(&name);
            if !right || !told.insert(name) {
                story.fails("server --> bob", &expected, &came.told());
            }
        }
        for name in &names {
            ann.gets_leave(name);
        }
    }

    story.because(
        "when the others hear that somebody has left, the name is free: not a moment later",
    );
    for round in 0..30 {
        let zed = server.admit_stream("zed");
        for other in [&ann, &bob] {
            other.gets(&join("zed"));
        }
        // Reading and writing may find out at the same time.
        lab::wait_for_bytes(&story, &zed);
        server.freeze();
        story.step("zed --> server", "reset");
        drop(zed);
        for n in 1..=5 {
            ann.say(&text(100 + 5 * round + n, "zed?"));
        }
        server.thaw();
        bob.gets_leave("zed");
        let zed = server.admit("zed", "ann, bob, zed");
        for n in 1..=5 {
            bob.gets(&text(100 + 5 * round + n, "zed?").by("ann"));
        }
        bob.gets(&join("zed"));
        zed.say(&message(LEAVE, "", ""));
        bob.gets_leave("zed");
        ann.gets_leave("zed");
        ann.gets(&join("zed"));
        ann.gets_leave("zed");
    }
    bob.say_goodbye();
    ann.gets_leave("bob");
    ann.say_goodbye();
}

#[test]
fn a_member_that_leaves_gets_its_queue_and_one_that_never_reads_is_too_slow() {
    let story = Story::new(Rule {
        rule: "past 1 MiB in the server's own queue a client is disconnected, and the others get LEAVE with the body `too slow`; a client that says LEAVE before that gets all that waits for it, and is closed",
        why: "a write to somebody who does not read waits for ever once the system's buffers are full, and a queue without a bound fills the memory: so there is a queue for each client, with a bound. What is in it belongs to the client, also when it goes",
        read: "lessons/07_disconnects.md, \"Break it\"",
        by_hand: "cargo run --example 07_disconnects join zed, stopped with kill -STOP; yes | cargo run --example 07_disconnects join ann; and bob in a third terminal",
    });
    let server = serve(&story);
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    let enough = never_reads(&story, &server, [&ann, &bob], Some("too slow"));
    leaves_late(&story, &server, [&ann, &bob], enough);
}

#[test]
fn a_silent_client_is_pinged_and_then_timed_out() {
    let story = Story::new(Rule {
        rule: "a client that is silent for one heartbeat gets PING; after two more silent heartbeats it is disconnected, and the others get LEAVE with the body `timed out`. A client that has not joined is treated in the same way, and nobody is told",
        why: "a client whose cable is cut sends nothing, not even an end: its silence is all there is. What the server sends to it says nothing about it",
        read: "lessons/07_disconnects.md, \"The idea\"",
        by_hand: "cargo run --example 07_disconnects serve --heartbeat-ms 1000; then join ann and join zed, and stop zed with kill -STOP",
    });
    silence(&story, PROGRAM);
}

#[test]
fn any_message_is_a_sign_of_life() {
    let story = Story::new(Rule {
        rule: "a client that sends something in each heartbeat stays, joined or not: PONG, TEXT, PING, ERROR or a refused JOIN, any message is a sign of life",
        why: "the heartbeat looks for those who are gone, not for those who keep quiet: whatever message comes, its sender is there",
        read: "lessons/07_disconnects.md, \"The idea\"",
        by_hand: "cargo run --example 07_disconnects serve --heartbeat-ms 2000; then join ann, and type a line now and then",
    });
    let says = |message: Message| move |peer: &Peer, _| peer.encode(&message);
    signs_of_life(
        &story,
        PROGRAM,
        &[
            ("ann, who says PONG,", &says(pong(1))),
            ("bob, who says TEXT,", &says(text(1, "I am here"))),
            ("eve, who says PING,", &says(ping(1))),
            ("fay, who says ERROR,", &says(error("I am here"))),
            ("gus, who says JOIN again,", &says(join("gus"))),
            ("somebody who has not joined and says PONG", &says(pong(1))),
            ("somebody who has not joined and says PING", &says(ping(1))),
            ("somebody who has not joined and says TEXT", &says(text(1, "too early"))),
        ],
    );
}

#[test]
fn a_server_that_is_asked_to_stop_says_goodbye_to_everybody() {
    let story = Story::new(Rule {
        rule: "`/quit`, SIGTERM and Ctrl-C stop the server: every connection gets LEAVE with an empty sender and the body `server is shutting down`, after all that waits for it, and then the end of the stream; it prints `bye`, exits with 0, and its port is free. The end of its input alone stops nothing",
        why: "a program that just ends takes what was on its way with it, and nobody knows whether it will be back",
        read: "lessons/07_disconnects.md, \"Run it\"",
        by_hand: "cargo run --example 07_disconnects, then join ann in a second terminal; Ctrl-C in the first one",
    });
    stops(&story, PROGRAM);
    story.because("the goodbye goes the way of all other messages: after what still waits in the server's own queue; and only then comes the end of the stream");
    let server = serve(&story);
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    let enough = never_reads(&story, &server, [&ann, &bob], None);
    story.because("the goodbye goes the way of all other messages: after what still waits in the server's own queue; and only then comes the end of the stream");
    let all = [&ann, &bob];
    let Some((late, last)) = reads_late(&story, &server, all, "late", enough) else { return };
    server.quit();
    bob.gets(&goodbye());
    let late = server.peer("late", late);
    late.gets_next(&welcome("late", "ann, bob, late"));
    for number in 1..=last {
        late.gets(&Chat::text(number).by("ann"));
    }
    late.gets(&goodbye());
    late.expect_nothing_more();
    drop((ann, bob, late));
    server.expect_exit(0);
}

#[test]
fn no_client_delays_a_server_that_stops() {
    let story = Story::new(Rule {
        rule: "the server waits at most 2 s for its clients to take what waits and to close, and has exited after 3 s, whatever they do",
        why: "a thread that reads from a client which never closes ends when the server shuts that connection down, and not by itself: wait for clients, but not for ever",
        read: "lessons/07_disconnects.md, \"Break it\"",
        by_hand: "cargo run --example 07_disconnects, then nc 127.0.0.1 12345 in a second terminal; Ctrl-C in the first one",
    });
    let mut stopping = Vec::new();
    for who in ["nobody", "idle clients", "a client that does not read", "a client that talks on"] {
        story.because(format!("the server must exit when it is asked to, with {who} in the room"));
        let server = serve(&story);
        let mut held: Vec<TcpStream> = Vec::new();
        let mut chatter = None;
        match who {
            "idle clients" => {
                // Joined, not joined, inside a message.
                for name in ["ann", "bob"] {
                    held.push(server.admit_stream(name));
                }
                held.push(server.connect_stream());
                held.push(server.connect_stream());
                let _ = (&held[3]).write_all(b"CH\x01");
                // Half of them do read.
                for stream in [&held[0], &held[2]] {
                    let mut stream = stream.try_clone().unwrap();
                    std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
                }
                lab::drained(&held[3]);
                lab::accepted(server.address.port());
            }
            "a client that talks on" => {
                let stream = server.admit_stream("ann");
                // Until it is welcome.
                lab::wait_for_bytes(&story, &stream);
                held.push(stream.try_clone().unwrap());
                stream.set_write_timeout(Some(patience())).unwrap();
                let texts: Vec<u8> = (1..=100).flat_map(|n| text(n, "and on").bytes()).collect();
                chatter = Some(std::thread::spawn(move || {
                    // Until the connection is gone.
                    while (&stream).write_all(&texts).is_ok() {}
                }));
            }
            "a client that does not read" => {
                let [ann, bob] = server.admit_all(["ann", "bob"]);
                let enough = never_reads(&story, &server, [&ann, &bob], None);
                let late = reads_late(&story, &server, [&ann, &bob], "gus", enough);
                held.extend(late.map(|(late, _)| late));
                story.because(format!(
                    "the server must exit when it is asked to, with {who} in the room"
                ));
            }
            _ => {}
        }
        server.settled_unless(chatter.is_some());
        story.step(who, "are there, and close nothing");
        server.quit();
        // They may take their 2 s at the same time.
        stopping.push((who, server, held, chatter));
    }
    for (who, server, held, chatter) in stopping {
        story.because(format!("the server must exit when it is asked to, with {who} in the room"));
        story.step("/quit was typed", format!("with {who} in the room"));
        server.expect_exit(0);
        server.expect_last_printed("bye");
        for stream in held {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(chatter) = chatter {
            let _ = chatter.join();
        }
    }
}

#[test]
fn a_full_room_turns_newcomers_away_and_arguments_are_checked() {
    let story = Story::new(Rule {
        rule: "past --limit a newcomer gets ERROR `the room is full: the limit is 2`, and is closed; connections count, joined or not; a seat is free when the others have been told that somebody left. Arguments are as in step 01",
        why: "each connection costs a thread and a descriptor, before it has a name: count when it is accepted, and down again however it ends",
        read: "lessons/07_disconnects.md, \"Run it\"",
        by_hand: "cargo run --example 07_disconnects serve --limit 2, then join ann, bob and eve in three terminals",
    });
    let server = open_room(&story, PROGRAM, &["--limit", "2", NO_HEARTBEAT[0], NO_HEARTBEAT[1]]);
    let is_full = |zed: Peer| {
        zed.gets_next(&error("the room is full: the limit is 2"));
        zed.expect_end();
    };
    let full = || is_full(server.visit("zed"));
    let [ann, bob] = two_seats(
        &story,
        &server,
        full,
        &[
            ("LEAVE", &Peer::say_goodbye),
            ("the end of its stream", &Peer::close_sending),
            ("bytes that are no message", &|bob| bob.send("GET /chat HTTP/1.1\r\n\r\n")),
        ],
    );
    story.because("a client sends its JOIN before it knows that there is no seat for it: a server that closes the connection without having read that resets it, and the ERROR may be lost. Close the sending half, read on for a moment, and close then");
    for _ in 0..3 {
        server.freeze();
        let zed = server.visit("zed");
        zed.say(&join("zed"));
        server.thaw();
        is_full(zed);
    }
    story.because("a seat is free as soon as the others have been told, after a reset too");
    bob.say_goodbye();
    ann.gets_leave("bob");
    let bob = server.admit_stream("bob");
    ann.gets_next(&join("bob"));
    reset(&story, bob);
    ann.gets_leave("bob");
    let _bob = server.admit("bob", "ann, bob");
    full();

    no_descriptors_left(&story);

    story.blame("every program of the course is started in the same way; a number out of range is refused, not corrected; options may come in any order", "lessons/01_bind_listen.md, \"Run it\"");
    story.finds_port_taken(&server, &["serve"]);
    story.usual_words(PROGRAM);
    story.together(|| {
        numbers_are_checked(&story, PROGRAM);
        for option in ["--limit", "--heartbeat-ms"] {
            let arguments = ["join", "ann", "127.0.0.1:1", option, "100"];
            story.run(PROGRAM, &arguments).usage_error_about(option);
        }
    });
    if has_ipv6() {
        story.serve(PROGRAM, &["serve", "[::1]:0"]).admit("ann", "ann");
    }
}

/// The same when it is the system that is full.
#[track_caller]
#[allow(clippy::cast_precision_loss)]
fn no_descriptors_left(story: &Rc<Story>) {
    story.because("when the descriptors run out, accepting fails: that costs the newcomers, not those who are here, and is no reason to stop accepting");
    let server = serve(story);
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    if !server.leave_descriptors(2) {
        return;
    }
    let crowd: Vec<TcpStream> = (0..10).map(|_| server.connect_stream()).collect();
    story.step("10 clients", "connect");
    let (before, started) = (work(server.pid()), Instant::now());
    let rests = server.settled();
    let ticks = before.and_then(|before| Some(work(server.pid())? - before)).unwrap_or(0);
    // A tick is 10 ms.
    let part = 10.0 * ticks as f64 / started.elapsed().as_millis().max(1) as f64;
    if !rests && part > 0.25 {
        story.because("when accepting fails for want of descriptors, it fails again at once: wait a moment (say 100 ms) before the next try");
        let received = format!("it never does, and takes {:.0} % of a processor", 100.0 * part);
        story.fails("server", "it rests until there may be a descriptor again", &received);
    }
    ann.say(&text(1, "crowded here"));
    bob.gets_next(&text(1, "crowded here").by("ann"));
    drop(crowd);
    story.step("10 clients", "go");
    ann.say(&text(2, "gone again"));
    bob.gets_next(&text(2, "gone again").by("ann"));
    // The first ones may still find no place.
    for _ in 0..50 {
        let zed = server.visit("zed");
        zed.tries(&join("zed").bytes());
        if zed.reads_until("WELCOME", |came| came.kind == WELCOME) {
            return;
        }
    }
    story.fails("server --> zed", "WELCOME", "the end of the stream, 50 times");
}

#[test]
fn a_client_answers_each_ping_and_takes_the_servers_goodbye() {
    let story = Story::new(Rule {
        rule: "a client answers PING with PONG of the same sequence at any time; at LEAVE with an empty sender it prints `* server is shutting down` and exits with 0; a reset is a line and exit status 1",
        why: "a thread that waits for the keyboard can't answer a PING: the thread that reads from the server answers. And a server that says goodbye is no failure",
        read: "lessons/07_disconnects.md, \"The code\"",
        by_hand: "cargo run --example 07_disconnects serve --heartbeat-ms 200; then join ann, type nothing, and /quit the server after a while",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.joins(PROGRAM, "ann", &mock_server.address);
    let server = mock_server.visited();
    server.gets_next(&join("ann"));
    // Before it is welcome.
    server.say(&ping(1));
    server.gets_next(&pong(1));
    server.say(&welcome("ann", "ann, bob").at(now()));
    client.screen.expect_line("* welcome, ann (here: ann, bob)");
    client.types("half a line");
    for sequence in [2, 0, u32::MAX] {
        server.say(&ping(sequence));
        server.gets_next(&pong(sequence));
    }
    client.types(" is no line\n");
    server.gets_next(&text(1, "half a line is no line"));
    server.say_at_once(&[ping(3), join("eve"), ping(4), ping(4), join("fay")]);
    for sequence in [3, 4, 4] {
        server.gets_next(&pong(sequence));
    }
    for name in ["eve", "fay"] {
        client.screen.expect_line(&format!("* {name} joined"));
    }
    client.types("two\n");
    server.gets_next(&text(2, "two"));
    for why in ["left", "disconnected", "protocol error", "timed out", "too slow"] {
        server.say(&left("bob", why));
        client.screen.expect_line(&format!("* bob left ({why})"));
    }
    server.say_at_once(&[text(2, "last words").by("eve"), goodbye()]);
    server.close_sending();
    client.screen.expect_line("[00:00:00] eve: last words");
    client.screen.expect_line("* server is shutting down");
    client.screen.expect_end();
    client.expect_exit(0);

    story.because("a client that has said goodbye may still hear the server's goodbye");
    let client = story.joins(PROGRAM, "ann", &mock_server.address);
    let server = mock_server.admits("ann");
    client.screen.expect_line("* welcome, ann (here: ann)");
    client.types("/quit\n");
    server.gets_next(&message(LEAVE, "", ""));
    server.expect_nothing_more();
    server.say(&goodbye());
    server.close_sending();
    client.screen.expect_line("* server is shutting down");
    client.expect_exit(0);

    story.because("an ERROR before WELCOME ends the client: it was not let in");
    let client = story.joins(PROGRAM, "ann", &mock_server.address);
    let server = mock_server.visited();
    server.gets_next(&join("ann"));
    server.say(&error("the room is full: the limit is 2"));
    server.close_sending();
    client.screen.expect_line("! the room is full: the limit is 2");
    client.expect_exit(1);

    story.because("a stream that ends inside a message is a failure: something is missing");
    for cut in [1, 20, 25] {
        let client = story.joins(PROGRAM, "ann", &mock_server.address);
        let server = mock_server.admits("ann");
        client.screen.expect_line("* welcome, ann (here: ann)");
        server.say_part(&text(1, "not whole").by("bob"), 0, cut);
        server.close_sending();
        client.screen.expect_end();
        client.expect_exit(1);
        client.expect_a_word("that the connection ended inside a message");
    }

    story.because("a server that vanishes is a failure: a line says so, and the exit status");
    let client = story.joins(PROGRAM, "ann", &mock_server.address);
    let stream = mock_server.accept_stream();
    // The client's JOIN lies there unread: the system sends a reset.
    lab::wait_for_bytes(&story, &stream);
    client.settled();
    story.step("server --> client", "reset");
    drop(stream);
    client.expect_exit(1);
    client.expect_a_word("that the connection was lost");
}

#[test]
fn every_client_of_a_room_is_told_how_each_of_the_others_ended() {
    let story = Story::new(Rule {
        rule: "server and clients together: a client that types `/quit` has `left`, one that is killed is `disconnected`, one that is stopped is `timed out`, one that types nothing stays; when the server stops, all say so and exit with 0",
        why: "each half may be right by the contract alone; here they meet",
        read: "lessons/07_disconnects.md, \"Run it\"",
        by_hand: "cargo run --example 07_disconnects serve --heartbeat-ms 1000; then join ann, bob, eve in three terminals",
    });
    with_heartbeat(&story, clients_end);
}

fn clients_end(story: &Rc<Story>, heartbeat: Duration) {
    let milliseconds = heartbeat.as_millis().to_string();
    let server = open_room(story, PROGRAM, &["--heartbeat-ms", &milliseconds]);
    let address = server.address.to_string();
    let ann = story.joins(PROGRAM, "ann", &address);
    ann.screen.expect_line("* welcome, ann (here: ann)");
    let come = |name: &str| {
        let client = story.joins(PROGRAM, name, &address);
        client.screen.expect_line(&format!("* welcome, {name} (here: ann, {name})"));
        ann.screen.expect_line(&format!("* {name} joined"));
        client
    };
    let bob = come("bob");
    let word = story.word();
    bob.types(&format!("{word}\n/quit\n"));
    let line = String::from_utf8_lossy(&ann.screen.any_line("[HH:MM:SS] bob: ...")).into_owned();
    let time = line.strip_prefix('[').and_then(|l| l.strip_suffix(&format!("] bob: {word}")));
    let time = time.and_then(|t| {
        let parts: Vec<u64> = t.split(':').map_while(|part| part.parse().ok()).collect();
        (t.len() == 8 && parts.len() == 3).then(|| parts[0] * 3600 + parts[1] * 60 + parts[2])
    });
    // A day has a midnight.
    let right = time.is_some_and(|t| {
        let late = (now() / 1000 + 86_400 - t) % 86_400;
        late.min(86_400 - late) < 300
    });
    if !right {
        let clock = now() / 1000 % 86_400;
        let (hours, minutes, seconds) = (clock / 3600, clock / 60 % 60, clock % 60);
        let expected = format!("[{hours:02}:{minutes:02}:{seconds:02}] bob: {word}");
        story.fails("client --> screen", &format!("{expected}, or about that time (UTC)"), &line);
    }
    ann.screen.expect_line("* bob left (left)");
    bob.expect_exit(0);

    let eve = come("eve");
    eve.kill();
    ann.screen.expect_line("* eve left (disconnected)");
    if cfg!(unix) {
        story.because("a client that is stopped answers nothing, as if its cable were cut; a client whose person is silent answers every PING by itself");
        let zed = come("zed");
        zed.freeze();
        ann.screen.expect_line("* zed left (timed out)");
        zed.kill();
    }
    story.because("when the server stops it says so to all, and all say so and end");
    let fay = come("fay");
    server.quit();
    for client in [&ann, &fay] {
        client.screen.expect_line("* server is shutting down");
        client.expect_exit(0);
    }
    server.expect_last_printed("bye");
    server.expect_exit(0);
}
