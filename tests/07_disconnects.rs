//! The grading of step 07: ten tests, a point each. The last two are about the
//! client.
//!
//! For a program of your own, in any language:
//! `LAB="python3 my_07.py" cargo test --test 07_disconnects`

#![allow(clippy::unwrap_used)]

mod lab;

use lab::message::{
    LEAVE, Message, PING, PONG, WELCOME, error, join, left, message, now, ping, pong, text, welcome,
};
use lab::secure::work;
use lab::{Chat, MockServer, Peer, Program, Rule, Story};
use lab::{errors_arrive, has_ipv6, leaves_late, never_reads, patience, reads_late, ways_to_stop};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

const PROGRAM: &str = "07_disconnects";
const GOODBYE: &str = "server is shutting down";

/// A server whose heartbeat is no part of the test: it comes once in an hour.
#[track_caller]
fn serve(story: &Rc<Story>) -> Program {
    story.serve(PROGRAM, &["serve", "127.0.0.1:0", "--heartbeat-ms", "3600000"])
}

/// The goodbye of the server itself.
fn goodbye() -> Message {
    left("", GOODBYE)
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
    for (what, last, why) in [
        ("LEAVE, end of stream", leave.clone(), "left"),
        ("end of stream", Vec::new(), "disconnected"),
        ("1 byte of a message, end of stream", half(1), "disconnected"),
        ("20 bytes of a message, end of stream", half(20), "disconnected"),
        ("33 of 34 bytes of a message, end of stream", half(33), "disconnected"),
        ("\"GET /chat...\", end of stream", b"GET /chat HTTP/1.1\r\n\r\n".into(), "protocol error"),
        ("LEAVE, and a byte, end of stream", [&leave[..], b"x"].concat(), "left"),
    ] {
        // The name is free each time.
        let zed = server.admit("zed", "ann, bob, zed");
        let word = story.word();
        // The last words and the end of the stream are there before the server looks.
        server.freeze();
        zed.sends(format!("TEXT 1 \"{word}\", {what}"), &[text(1, &word).bytes(), last].concat());
        zed.close_sending();
        server.thaw();
        for other in [&ann, &bob] {
            other.gets_next(&join("zed"));
            other.gets_next(&text(1, &word).by("zed"));
            other.gets_next(&left("zed", why));
        }
    }
    story.because(
        "a reset is an end like another: reading fails then. It ends this client, nobody else",
    );
    for unfinished in [0, 20] {
        let zed = server.admit_stream("zed");
        let word = story.word();
        story.step("zed --> server", format!("TEXT 1 \"{word}\", {unfinished} bytes more"));
        let _ = (&zed).write_all(&[text(1, &word).bytes(), half(unfinished)].concat());
        for other in [&ann, &bob] {
            other.gets_next(&join("zed"));
            other.gets_next(&text(1, &word).by("zed"));
        }
        // Closed with the welcome unread: the system sends a reset.
        lab::wait_for_bytes(&story, &zed);
        story.step("zed --> server", "reset");
        drop(zed);
        for other in [&ann, &bob] {
            other.gets_next(&left("zed", "disconnected"));
        }
    }
    story.because("LEAVE is a goodbye, and the server's turn to close; what is no message is answered with an ERROR first. A client that never joined is not announced");
    let zed = server.admit("zed", "ann, bob, zed");
    let nobody = server.visit("nobody");
    for peer in [&zed, &nobody] {
        // They close nothing themselves.
        peer.say(&message(LEAVE, "", ""));
        peer.gets_no_more();
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
    const HEARTBEAT: Duration = Duration::from_secs(1);
    let story = Story::new(Rule {
        rule: "a client that is silent for one heartbeat gets PING; after two more silent heartbeats it is disconnected, and the others get LEAVE with the body `timed out`. A client that has not joined is treated in the same way, and nobody is told",
        why: "a client whose cable is cut sends nothing, not even an end: its silence is all there is. What the server sends to it says nothing about it",
        read: "lessons/07_disconnects.md, \"The idea\"",
        by_hand: "cargo run --example 07_disconnects serve --heartbeat-ms 1000; then join ann and join zed, and stop zed with kill -STOP",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0", "--heartbeat-ms", "1000"]);
    // Ann answers each PING; the others don't.
    let ann = server.admit("ann", "ann");
    let mut started = Instant::now();
    let nobody = server.connect("nobody");
    let zed = server.connect("zed");
    zed.say(&join("zed"));
    zed.gets_next(&welcome("zed", "ann, zed"));
    ann.gets_next(&join("zed"));
    // Gus is silent at the same time: half a message is no sign of life.
    let gus = server.connect("gus");
    gus.say(&join("gus"));
    gus.gets_next(&welcome("gus", "ann, gus, zed"));
    for other in [&ann, &zed] {
        other.gets_next(&join("gus"));
    }
    gus.say_part(&text(1, "half a message"), 0, 25);
    // A clock that is a bit fast is forgiven; one that is late is the machine's.
    let not_before = |beats: u32, started: Instant, what: &str| {
        if started.elapsed() < HEARTBEAT * beats * 9 / 10 {
            let expected = format!("{what} not before {beats} heartbeats of silence");
            story.fails(
                "server --> client",
                &expected,
                &format!("it after {:?}", started.elapsed()),
            );
        }
    };
    zed.gets_ping();
    not_before(1, started, "PING");

    story.because("an answer is a sign of life: silence is counted anew, and there is a PING at its end again");
    started = Instant::now();
    zed.say(&pong(0));
    // Others may go meanwhile.
    if !zed.hears("PING, once more", |came| came.kind == PING) {
        story.fails("server --> zed", "PING, once more", "the end of the stream");
    }
    not_before(1, started, "the next PING");
    // It hears all, and says nothing.
    let expected = left("zed", "timed out");
    story.because("a client that hears what others say, but says nothing, not even PONG, is silent: what the server sends is no sign of life");
    // The PINGs to somebody who answers them are the clock.
    let clock = server.connect("clock");
    for beat in 1.. {
        ann.say(&text(beat, "zed, are you there?"));
        ann.say(&ping(beat));
        ann.gets(&pong(beat));
        if ann.has_heard_of("zed") {
            break;
        }
        if beat == 10 {
            story.fails("server --> ann", &expected.told(), "nothing, for many heartbeats");
        }
        clock.gets_ping();
        clock.say(&pong(0));
    }
    ann.gets(&expected);
    story.because("a heartbeat after the PING is not the end: there are two");
    not_before(3, started, &expected.told());
    story.because("a client that is timed out is disconnected: its own stream ends, too");
    closes(&story, &zed, "since its second PING was not answered");
    nobody.gets_ping();
    story.because("the heartbeat is also for a client that has not joined, or connections that nobody uses pile up; its end is told to nobody");
    closes(&story, &nobody, "since it said nothing at all");

    story.because("half a message is no sign of life, and does not stop the clock either");
    gus.gets_ping();
    ann.gets(&left("gus", "timed out"));
    // The names are free, and ann was here all the time.
    let zed = server.admit("zed", "ann, zed");
    ann.gets_next(&join("zed"));
    zed.say_goodbye();
    ann.gets_leave("zed");
}

/// The connection must end. How, is free: with a reset too.
#[track_caller]
fn closes(story: &Story, peer: &Peer, why: &str) {
    loop {
        match peer.rest() {
            lab::Next::End(..) => return story.step("server --> it", "end of the connection ok"),
            lab::Next::Some(_) => {}
            lab::Next::Silence(_) => story.fails(
                "server --> it",
                &format!("the end of the connection, {why}"),
                "nothing more, and no end",
            ),
        }
    }
}

#[test]
fn any_message_is_a_sign_of_life() {
    let story = Story::new(Rule {
        rule: "a client that sends something in each heartbeat stays, joined or not: PONG, TEXT, PING, ERROR or a refused JOIN, any message is a sign of life",
        why: "the heartbeat looks for those who are gone, not for those who keep quiet: whatever message comes, its sender is there",
        read: "lessons/07_disconnects.md, \"The idea\"",
        by_hand: "cargo run --example 07_disconnects serve --heartbeat-ms 2000; then join ann, and type a line now and then",
    });
    // On a machine that is busy elsewhere, a sign of life may come too late, and
    // then the server is right to disconnect its sender. The second time it is not.
    let mut lost = None;
    for heartbeat in ["400", "2500"] {
        lost = lost_among_the_living(&story, heartbeat);
        if lost.is_none() {
            return;
        }
        story.step("the test", "tries it once more, with more time");
    }
    story.fails("server --> them", "all of them are still here", &lost.unwrap());
}

/// Everybody gives one kind of sign, once in a heartbeat, for six heartbeats.
/// Returns who was lost.
fn lost_among_the_living(story: &Rc<Story>, heartbeat: &str) -> Option<String> {
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0", "--heartbeat-ms", heartbeat]);
    let signs = [
        ("ann, who says PONG,", pong(1)),
        ("bob, who says TEXT,", text(1, "I am here")),
        ("eve, who says PING,", ping(1)),
        ("fay, who says ERROR,", error("I am here")),
        ("gus, who says JOIN again,", join("gus")),
        ("somebody who has not joined and says PONG", pong(1)),
        ("somebody who has not joined and says PING", ping(1)),
        ("somebody who has not joined and says TEXT", text(1, "too early")),
    ];
    // None of these answers a PING by itself.
    let living: Vec<Peer> = signs.iter().map(|(who, _)| server.connect(who)).collect();
    for (peer, (who, _)) in living.iter().zip(&signs).filter(|(_, (who, _))| who.contains(',')) {
        let name = who.split(',').next().unwrap();
        try_to_say(peer, &join(name));
    }
    // Its PINGs are the clock.
    let clock = server.connect("clock");
    for _ in 0..6 {
        if !clock.hears("PING", |came| came.kind == PING) {
            return Some("somebody who has not joined and says PONG was disconnected".into());
        }
        try_to_say(&clock, &pong(0));
        for (peer, (_, sign)) in living.iter().zip(&signs) {
            try_to_say(peer, sign);
        }
        story.step("all of them", "say their message");
    }
    for (peer, (who, _)) in living.iter().zip(&signs) {
        try_to_say(peer, &ping(77));
        if !peer.hears("PONG 77", |came| came.kind == PONG && came.sequence == 77) {
            return Some(format!("{who} was disconnected"));
        }
    }
    None
}

/// If the connection is over, that is noticed later.
fn try_to_say(peer: &Peer, message: &Message) {
    let _ = (&peer.stream).write_all(&message.bytes());
}

#[test]
fn a_server_that_is_asked_to_stop_says_goodbye_to_everybody() {
    let story = Story::new(Rule {
        rule: "`/quit`, SIGTERM and Ctrl-C stop the server: every connection gets LEAVE with an empty sender and the body `server is shutting down`, after all that waits for it, and then the end of the stream; it prints `bye`, exits with 0, and its port is free. The end of its input alone stops nothing",
        why: "a program that just ends takes what was on its way with it, and nobody knows whether it will be back",
        read: "lessons/07_disconnects.md, \"Run it\"",
        by_hand: "cargo run --example 07_disconnects, then join ann in a second terminal; Ctrl-C in the first one",
    });
    let mut soonest = Duration::MAX;
    for way in ways_to_stop() {
        let server = serve(&story);
        let [ann, bob] = server.admit_all(["ann", "bob"]);
        let nobody = server.visit("nobody");
        nobody.say(&ping(1));
        nobody.gets_next(&pong(1));
        let late = server.admit_stream("late");
        for other in [&ann, &bob] {
            other.gets(&join("late"));
        }
        server.types("what is this?\n");
        let long = "x".repeat(1000);
        for n in 1..=100 {
            ann.sends(format!("TEXT {n} of 1000 bytes"), &text(n, &long).bytes());
        }
        for n in 1..=100 {
            bob.gets_next(&text(n, &long).by("ann"));
        }
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
            peer.gets_no_more();
        }
        soonest = soonest.min(asked.elapsed());
        // Late has not read a byte yet.
        let late = Peer::answering(&story, "late", "server", late);
        late.gets_next(&welcome("late", "ann, bob, late"));
        for n in 1..=100 {
            late.gets(&text(n, &long).by("ann"));
        }
        if way != "/quit" {
            late.gets(&text(1, "still open?").by("bob"));
        }
        late.gets(&goodbye());
        late.gets_no_more();
        drop((ann, bob, nobody, late));
        server.expect_last_printed("bye");
        server.expect_exit(0);
        let address = server.address.to_string();
        drop(server);
        story.serve(PROGRAM, &["serve", &address]);
    }

    // A busy machine may be late once, but not each time.
    if soonest > Duration::from_millis(1900) {
        story.because("the server closes its sending half as soon as the goodbye is sent: so the clients know that nothing more comes, and close, too. The 2 s are for clients that don't");
        let late = format!("both, but the end only after {soonest:.1?}");
        story.fails("server --> ann", "the goodbye, and right after it the end", &late);
    }

    story.because("the goodbye goes the way of all other messages: after what still waits in the server's own queue; and only then comes the end of the stream");
    let server = serve(&story);
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    let enough = never_reads(&story, &server, [&ann, &bob], None);
    story.because("the goodbye goes the way of all other messages: after what still waits in the server's own queue; and only then comes the end of the stream");
    let all = [&ann, &bob];
    let Some((late, last)) = reads_late(&story, &server, all, "late", enough) else { return };
    server.quit();
    bob.gets(&goodbye());
    let late = Peer::answering(&story, "late", "server", late);
    late.gets_next(&welcome("late", "ann, bob, late"));
    for number in 1..=last {
        late.gets(&Chat::text(number).by("ann"));
    }
    late.gets(&goodbye());
    late.gets_no_more();
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
    let hour = "3600000";
    let arguments = ["serve", "127.0.0.1:0", "--limit", "2", "--heartbeat-ms", hour];
    let server = story.serve(PROGRAM, &arguments);
    let is_full = |zed: Peer| {
        zed.gets_next(&error("the room is full: the limit is 2"));
        zed.expect_end();
    };
    let full = |who: &str| is_full(server.visit(who));
    let ann = server.admit("ann", "ann");
    // Bob takes a seat, though it has no name yet.
    let bob = server.visit("bob");
    bob.say(&ping(1));
    bob.gets_next(&pong(1));
    for _ in 0..3 {
        full("zed");
    }
    bob.say(&join("bob"));
    bob.gets_next(&welcome("bob", "ann, bob"));
    ann.gets_next(&join("bob"));
    full("zed");
    story.because("a client sends its JOIN before it knows that there is no seat for it: a server that closes the connection without having read that resets it, and the ERROR may be lost. Close the sending half, read on for a moment, and close then");
    for _ in 0..3 {
        server.freeze();
        let zed = server.visit("zed");
        zed.say(&join("zed"));
        server.thaw();
        is_full(zed);
    }
    story.because("a seat is free as soon as the others have been told, however somebody has left, and it is one seat");
    bob.say_goodbye();
    ann.gets_leave("bob");
    let bob = server.admit("bob", "ann, bob");
    ann.gets_next(&join("bob"));
    full("zed");
    bob.close_sending();
    ann.gets_leave("bob");
    let bob = server.admit_stream("bob");
    ann.gets_next(&join("bob"));
    lab::wait_for_bytes(&story, &bob);
    story.step("bob --> server", "reset");
    drop(bob);
    ann.gets_leave("bob");
    let bob = server.admit("bob", "ann, bob");
    ann.gets_next(&join("bob"));
    bob.send("GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n");
    ann.gets_leave("bob");
    let _bob = server.admit("bob", "ann, bob");
    full("zed");

    no_descriptors_left(&story);

    story.blame("every program of the course is started in the same way; a number out of range is refused, not corrected; options may come in any order", "lessons/01_bind_listen.md, \"Run it\"");
    let taken = server.address.to_string();
    story.run(PROGRAM, &["serve", &taken]).code(1).one_line_about(&taken);
    story.usual_words(PROGRAM);
    story.together(|| {
        for (option, wrongs) in [
            ("--limit", ["0", "10001", "-1", "many"]),
            ("--heartbeat-ms", ["49", "3600001", "-1", "soon"]),
        ] {
            for wrong in wrongs {
                story
                    .run(PROGRAM, &["serve", "127.0.0.1:0", option, wrong])
                    .usage_error_about(wrong);
            }
            story.run(PROGRAM, &["serve", "127.0.0.1:0", option]).usage_error_about(option);
            story
                .run(PROGRAM, &["join", "ann", "127.0.0.1:1", option, "100"])
                .usage_error_about(option);
        }
    });
    story.serve(PROGRAM, &["serve", "127.0.0.1:0", "--heartbeat-ms", "50", "--limit", "10000"]);
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
        try_to_say(&zed, &join("zed"));
        if zed.hears("WELCOME", |came| came.kind == WELCOME) {
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
    server.gets_no_more();
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
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0", "--heartbeat-ms", "1000"]);
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
