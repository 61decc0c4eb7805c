//! The grading of step 06: ten tests, a point each. In the last three the test
//! is the server.
//!
//! For a program of your own, in any language:
//! `LAB="python3 my_06.py" cargo test --test 06_message_headers`

#![allow(clippy::unwrap_used)]

mod lab;

use lab::message::{
    CHALLENGE, JOIN, LEAVE, LOGIN, Message, WELCOME, error, join, left, message, now, ping, pong,
    text, welcome,
};
use lab::{MockServer, Peer, Rule, Story};
use lab::{errors_arrive, has_ipv6, leaves_late, never_reads, refused};
use std::collections::HashMap;
use std::net::TcpListener;
use std::rc::Rc;

const PROGRAM: &str = "06_message_headers";

#[test]
fn a_client_that_joins_is_welcomed_and_the_others_are_told() {
    let story = Story::new(Rule {
        rule: "JOIN is answered with WELCOME: your name, and the names here in the order of their bytes, yours included; the others get JOIN, and later LEAVE with the body `left`; a client that has not joined is told nothing",
        why: "a connection is nobody until it has a name: keep those who have joined apart from those who are only connected",
        read: "lessons/06_message_headers.md, \"The idea\"",
        by_hand: "cargo run --example 06_message_headers join ann, in three terminals with three names",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    // Connected before all others, and nobody yet.
    let zoe = server.visit("zoe");
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    story.because("the order is that of the bytes: capital letters come before small ones, and what is not ASCII comes after them");
    let zed = server.admit("Zed", "Zed, ann, bob");
    let eva = server.admit("\u{e9}va", "Zed, ann, bob, \u{e9}va");
    for other in [&ann, &bob] {
        let told = other.gets(&join("Zed"));
        other.expect_no_number(&told);
        other.expect_now(&told);
        other.gets(&join("\u{e9}va"));
    }
    zed.gets(&join("\u{e9}va"));

    story.because("a client that says LEAVE has left, and so has a client whose stream ends or is reset: the others are told once, and in this step in one way");
    bob.say_goodbye();
    for other in [&ann, &zed, &eva] {
        let told = other.gets(&left("bob", "left"));
        other.expect_no_number(&told);
        other.expect_now(&told);
    }
    zed.close_sending();
    for other in [&ann, &eva] {
        other.gets(&left("Zed", "left"));
    }
    zed.expect_nothing_more();
    let gus = server.admit_stream("gus");
    for other in [&ann, &eva] {
        other.gets(&join("gus"));
    }
    story.step("gus --> server", "reset");
    // Closed with the welcome unread: the system sends a reset.
    lab::wait_for_bytes(&story, &gus);
    drop(gus);
    for other in [&ann, &eva] {
        other.gets(&left("gus", "left"));
    }
    story.because("writing to somebody who has gone fails: that ends neither the one who spoke nor the loop over all of them");
    let names = ["z0", "z1", "z2", "z3", "z4", "z5", "z6", "z7"];
    let crowd = names.map(|name| server.admit_stream(name));
    for (name, other) in names.iter().flat_map(|name| [(name, &ann), (name, &eva)]) {
        other.gets(&join(name));
    }
    // A server may tell the others before it welcomes the newcomer.
    for stream in &crowd {
        lab::wait_for_bytes(&story, stream);
    }
    server.freeze();
    story.step("all of them", "reset their connections");
    drop(crowd);
    ann.say(&text(1, "who is still here?"));
    server.thaw();
    eva.gets(&text(1, "who is still here?").by("ann"));
    for (name, other) in names.iter().flat_map(|name| [(name, &ann), (name, &eva)]) {
        other.gets(&left(name, "left"));
    }
    story.because("a client that never joined has no name, and nobody is told when it goes");
    let nobody = server.visit("nobody");
    nobody.say_goodbye();
    eva.say_goodbye();
    ann.gets_next(&left("\u{e9}va", "left"));

    story.because(
        "a client that has not joined is told nothing: its first message is its own WELCOME",
    );
    zoe.say(&join("zoe"));
    let welcomed = zoe.gets_next(&welcome("zoe", "ann, zoe"));
    zoe.expect_no_number(&welcomed);
    ann.gets(&join("zoe"));
    ann.say_goodbye();
    zoe.gets(&left("ann", "left"));
    zoe.say_goodbye();

    large_room(&story);
}

/// 120 names of 32 bytes fit into WELCOME's body, with `, ` between them.
fn large_room(story: &Rc<Story>) {
    story.because("a body has at most 4096 bytes: where the names don't all fit, it ends with `, and N more`, and the newcomer's own name is among those shown, wherever it is in the order");
    let name = |number: usize| format!("{number:03}{}", "x".repeat(29));
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let mut crowd = Vec::new();
    let mut names = Vec::new();
    // The greatest first, so that the last to come are the first in order, and
    // one who belongs to the end comes when there is no room any more.
    for number in (1..=121).rev().chain([500, 0]) {
        let stream = server.connect_stream();
        let label = format!("client {}", crowd.len() + 1);
        let peer = server.peer(&label, stream);
        let me = name(number);
        peer.sends(format!("JOIN {me}"), &join(&me).bytes());
        names.push(me.clone());
        names.sort();
        let here = names.join(", ");
        if here.len() <= 4096 {
            // Told in the ladder only where it may go wrong.
            if names.len() < 119 {
                let came = peer.any_message("WELCOME");
                if came.told() != welcome(&me, &here).told() || came.body != here.as_bytes() {
                    story.mismatch("server --> a client", here.as_bytes(), &came.body);
                }
            } else {
                peer.gets_next(&welcome(&me, &here));
            }
        } else {
            let came = peer.any_message("WELCOME, whose body ends with \", and N more\"");
            let body = String::from_utf8_lossy(&came.body).into_owned();
            let cut = body.rsplit_once(", and ");
            let more = cut.and_then(|(_, more)| more.strip_suffix(" more")?.parse::<usize>().ok());
            let shown: Vec<&str> = cut.map_or("", |(shown, _)| shown).split(", ").collect();
            let in_order = shown.is_sorted_by(|a, b| a < b);
            let known = shown.iter().all(|n| names.iter().any(|name| name == n));
            if came.kind != WELCOME || !in_order || !known || !shown.contains(&me.as_str()) {
                let expected = format!(
                    "WELCOME with some of the {} names in order, {me} among them, and \", and N more\"",
                    names.len()
                );
                let end: String =
                    body.chars().skip(body.chars().count().saturating_sub(80)).collect();
                story.fails("server --> a client", &expected, &format!("{} ...{end}", came.told()));
            }
            if more != Some(names.len() - shown.len()) {
                let expected = format!(
                    "\", and {} more\" after {} names",
                    names.len() - shown.len(),
                    shown.len()
                );
                story.fails("server --> a client", &expected, &format!("\", and {more:?} more\""));
            }
        }
        crowd.push(peer);
    }
}

#[test]
fn a_text_goes_to_everybody_else_under_the_name_and_clock_of_the_server() {
    let story = Story::new(Rule {
        rule: "a TEXT goes to every other client, never to its sender; sender and timestamp are the server's, the sequence stays; it is cleaned, and dropped if nothing is left",
        why: "what a client writes into the header is what it claims: the connection tells who speaks, and the time by the server's own clock. The sequence alone is passed on unchanged, in all its 32 bits",
        read: "lessons/06_message_headers.md, \"The idea\"",
        by_hand: "cargo run --example 06_message_headers join ann, in three terminals with three names; type in one of them",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let [ann, bob, eve] = server.admit_all(["ann", "bob", "eve"]);
    for sequence in [1, 2, 0x0102_0304, 0x8000_0000, u32::MAX, 3] {
        let word = story.word();
        // Ann says that she is bob, and that it is 1970.
        ann.say(&text(sequence, &word).by("bob").at(12345));
        for other in [&bob, &eve] {
            let came = other.gets(&text(sequence, &word).by("ann"));
            other.expect_now(&came);
        }
        // Bob answers after he has heard it: an echo to ann would come first.
        bob.say(&text(sequence / 2 + 1, format!("re: {word}")));
        for other in [&ann, &eve] {
            other.gets(&text(sequence / 2 + 1, format!("re: {word}")).by("bob"));
        }
    }

    story.blame("what one client sends, the terminals of all others obey: control characters but for tab, and the bidirectional overrides, are taken out before a text is passed on; all else stays as it is", "lessons/PROTOCOL.md, \"What may not pass\"");
    let mut sequence = 10;
    let mut say = |sent: &str, heard: &str| {
        sequence += 1;
        ann.say(&text(sequence, sent));
        bob.gets(&text(sequence, heard).by("ann"));
    };
    say(
        "\x1b[2J\x1b[31mred\x1b[0m \x07bell\x08 \0nul \x7fdel\x0b\x0c",
        "[2J[31mred[0m bell nul del",
    );
    say("one\r\ntwo\n", "onetwo");
    say("c1:\u{80}\u{85}\u{9b}31m\u{9f}.", "c1:31m.");
    say("\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}evil\u{2066}\u{2067}\u{2068}\u{2069}", "evil");
    let all_else = "a\tb caf\u{e9} € 日本 \u{1f980} e\u{301}\u{a0}\u{200d}\u{2065}\u{2029}.";
    say(all_else, all_else);
    say("  /quit ", "  /quit ");

    story.because("a text that is empty, or empty once cleaned, has nothing to say: it is dropped");
    for nothing in ["", "\n", "\u{1b}\u{7}\0", "\u{202e}"] {
        ann.say(&text(sequence, nothing));
    }
    ann.say(&text(99, "after nothing"));
    bob.gets(&text(99, "after nothing").by("ann"));
    // To the end of each stream, to see that nothing came twice or came back.
    ann.say_goodbye();
    bob.gets(&left("ann", "left"));
    bob.say_goodbye();
}

#[test]
fn a_message_is_a_message_however_it_arrives() {
    let story = Story::new(Rule {
        rule: "a message ends where its header says: several may come with one read, and one in many, cut at any byte",
        why: "TCP keeps bytes in order but forgets where each write ended: read until 20 bytes are there, then until the bytes that they announce are there, and keep what comes after them for the next message",
        read: "lessons/06_message_headers.md, \"The code\"",
        by_hand: r"(printf 'CH\1\1'; sleep 1; head -c 12 /dev/zero; printf '\0\3\0'; sleep 1; printf '\0zed'; sleep 5) | nc 127.0.0.1 12345 | od -c",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let ann = server.admit("ann", "ann");
    // All at once, the JOIN too.
    let bob = server.visit("bob");
    bob.say_at_once(&[join("bob"), text(1, "one"), text(2, "two"), text(3, "three")]);
    bob.gets_next(&welcome("bob", "ann, bob"));
    ann.gets_next(&join("bob"));
    for (sequence, word) in [(1, "one"), (2, "two"), (3, "three")] {
        ann.gets_next(&text(sequence, word).by("bob"));
    }
    let many: Vec<Message> = (4..404).map(|n| text(n, format!("number {n}"))).collect();
    bob.sends(
        "TEXT 4 to TEXT 403 (in one piece)",
        &many.iter().flat_map(Message::bytes).collect::<Vec<u8>>(),
    );
    for text in many {
        ann.gets_next(&text.by("bob"));
    }

    story.because("a read may end after any byte: inside a header, a name, a character; wait for the rest, and let nobody else wait");
    let whole = text(500, "a euro: €").by("somebody").at(now());
    let length = whole.bytes().len();
    for cut in 1..length {
        bob.say_part(&whole, 0, cut);
        if cut % 10 == 0 {
            ann.say(&text(500, "half a message stops nobody"));
            bob.gets_next(&text(500, "half a message stops nobody").by("ann"));
        }
        bob.say_part(&whole, cut, length);
        ann.gets_next(&whole.clone().by("bob"));
    }
    for at in 0..length {
        bob.say_part(&whole, at, at + 1);
    }
    ann.gets_next(&whole.clone().by("bob"));
    let eve = server.visit("eve");
    eve.say_part(&join("eve"), 0, 21);
    ann.say(&text(501, "eve is on her way"));
    bob.gets_next(&text(501, "eve is on her way").by("ann"));
    eve.say_part(&join("eve"), 21, 23);
    eve.gets_next(&welcome("eve", "ann, bob, eve"));
    for other in [&ann, &bob] {
        other.gets_next(&join("eve"));
    }
    // One and a half, then the other half and one more.
    let (first, second, third) = (text(601, "first"), text(602, "second"), text(603, "third"));
    let bytes = [first.bytes(), second.bytes(), third.bytes()].concat();
    bob.sends("TEXT 601, and 10 bytes of TEXT 602", &bytes[..first.bytes().len() + 10]);
    ann.gets_next(&first.clone().by("bob"));
    bob.sends("the rest of TEXT 602, and TEXT 603", &bytes[first.bytes().len() + 10..]);
    ann.gets_next(&second.by("bob"));
    ann.gets_next(&third.by("bob"));

    story.because("lengths count bytes, not characters, and up to the limit all of it is passed on: 32 bytes of sender, 4096 of body");
    let mut longest = vec!["x".repeat(4096), "CH".repeat(2048)];
    for shift in ["x", "xx", ""] {
        longest.push(format!("{shift}{}", "€".repeat((4096 - shift.len()) / 3)));
    }
    for (n, body) in (700..).zip(longest) {
        bob.sends(
            format!("TEXT {n} of {} bytes, sender of 32", body.len()),
            &text(n, &body).by("é".repeat(16)).bytes(),
        );
        ann.gets_next(&text(n, body).by("bob"));
    }

    story.because("messages are handled in the order in which they came: what was said before LEAVE is passed on before it");
    bob.say_at_once(&[text(801, "last"), text(802, "words"), message(LEAVE, "", "")]);
    for (sequence, word) in [(801, "last"), (802, "words")] {
        ann.gets_next(&text(sequence, word).by("bob"));
    }
    ann.gets_next(&left("bob", "left"));
}

#[test]
fn many_members_talk_at_once_and_one_that_does_not_read_delays_nobody() {
    const TEXTS: usize = 200;
    const NAMES: [&str; 6] = ["ann", "bob", "eve", "fay", "gus", "hal"];
    let story = Story::new(Rule {
        rule: "messages of several clients never mix, none is lost, and each client's keep their order; one who stops reading delays nobody, and past 1 MiB it is disconnected",
        why: "what one thread sends must not come between the pieces of what another sends: one place decides the order, and writes whole messages",
        read: "lessons/06_message_headers.md, \"The code\"",
        by_hand: "seq 10000 | cargo run --example 06_message_headers join ann, and the same as bob, at the same time; eve joins in a third terminal",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let clients: [Peer; 6] = server.admit_all(NAMES);
    let mut texts: HashMap<&[u8], Vec<Message>> = HashMap::new();
    for name in NAMES {
        let body = |n| format!("{n} of {name} {}", story.word().repeat(1 + story.number(20)));
        let all = (1..=TEXTS).map(|n| text(u32::try_from(n).unwrap(), body(n)).by(name));
        texts.insert(name.as_bytes(), all.collect());
    }
    // Cut anywhere, and all at the same time.
    let bytes =
        NAMES.map(|n| texts[n.as_bytes()].iter().flat_map(Message::bytes).collect::<Vec<u8>>());
    let mut sent = [0; 6];
    while sent.iter().zip(&bytes).any(|(sent, bytes)| *sent < bytes.len()) {
        for (i, client) in clients.iter().enumerate() {
            let end = bytes[i].len().min(sent[i] + 1 + story.number(1500));
            if sent[i] < end {
                client.sends(
                    format!("bytes {} to {end} of {TEXTS} TEXTs", sent[i] + 1),
                    &bytes[i][sent[i]..end],
                );
            }
            sent[i] = end;
        }
    }
    for (client, me) in clients.iter().zip(NAMES) {
        let mut next: HashMap<&[u8], usize> = HashMap::new();
        for heard in 0..TEXTS * (NAMES.len() - 1) {
            let waiting = format!("{TEXTS} TEXTs of each of the others; {heard} have come in all");
            let came = client.any_message(&waiting);
            let Some((name, texts)) = texts.get_key_value(&came.sender[..]) else {
                story.fails("server --> a client", &waiting, &came.told());
            };
            let next = next.entry(name).or_default();
            let expected = texts.get(*next).map_or("no more of this sender".into(), Message::told);
            if came.told() != expected || came.body != texts[*next].body || *name == me.as_bytes() {
                story.differs(&format!("server --> {me}"), &expected, &came.told());
            }
            *next += 1;
        }
    }
    let [ann, bob, rest @ ..] = clients;
    for (client, name) in rest.iter().zip(&NAMES[2..]) {
        client.say_goodbye();
        for other in [&ann, &bob] {
            other.gets(&left(name, "left"));
        }
    }

    let enough = never_reads(&story, &server, [&ann, &bob], Some("left"));
    leaves_late(&story, &server, [&ann, &bob], enough);
}

#[test]
fn a_refused_name_gets_an_error_and_the_client_may_try_another() {
    let story = Story::new(Rule {
        rule: "a name has 1 to 32 bytes, no white space, no control character, no comma, and is nobody's here, upper and lower case alike; otherwise ERROR says why, and the client may ask again on the same connection",
        why: "a name must not be mistaken for another one, nor for something that the server says: it is shown in the list of names, and in front of every text",
        read: "lessons/06_message_headers.md, \"Run it\"",
        by_hand: "cargo run --example 06_message_headers join ann, in two terminals",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    let zed = server.visit("zed");
    for (name, why) in [
        ("", "because a name has at least one byte"),
        ("an na", "because there is a space in the name"),
        ("zed ", "because there is a space in the name"),
        (" ", "because there is a space in the name"),
        ("z\ted", "because a tab is white space"),
        ("zed\n", "because LF is white space, and a control character"),
        ("zed,bob", "because a comma divides names"),
        ("z\x1b[31med", "because there is a control character (ESC) in the name"),
        ("zed\0", "because there is a control character (NUL) in the name"),
        ("z\x7f", "because there is a control character (DEL) in the name"),
        ("z\u{9b}", "because there is a control character (U+009B) in the name"),
        ("\u{202e}dez", "because there is an override (U+202E) in the name"),
        ("ann", "because ann is here"),
        ("BOB", "because bob is here: upper and lower case are alike"),
        ("aNn", "because ann is here: upper and lower case are alike"),
    ] {
        story.because(format!("the name {name:?} must be refused, {why}"));
        zed.say(&join(name));
        zed.gets_error(why);
    }
    story.because("a refused name is no reason to lose the connection: the client may ask for another one. And a name that only resembles another is free");
    zed.say(&join("Anna"));
    zed.gets_next(&welcome("Anna", "Anna, ann, bob"));
    for other in [&ann, &bob] {
        // Nothing of what was refused has been told.
        other.gets_next(&join("Anna"));
    }
    zed.say(&text(1, "at last"));
    for other in [&ann, &bob] {
        other.gets_next(&text(1, "at last").by("Anna"));
    }

    story.because("a name has up to 32 bytes, and may have any other characters");
    let mut here = vec!["Anna", "ann", "bob"];
    let longest = ["x".repeat(32), "\u{e9}".repeat(16), "a.b-c_d!".into(), "日本".into()];
    let mut guests = Vec::new();
    for name in &longest {
        here.push(name);
        here.sort_unstable();
        guests.push(server.admit(name, &here.join(", ")));
    }
    drop(guests);

    story.because("the name of somebody who has left is free, for anybody, at once; and a client that was refused holds no name");
    let eve = server.visit("eve");
    eve.say(&join("bob"));
    eve.gets_error("because bob is here");
    bob.say_goodbye();
    ann.gets(&left("bob", "left"));
    eve.say(&join("Bob"));
    let came = eve.any_message("WELCOME Bob");
    if (came.kind, &came.sender[..]) != (WELCOME, b"Bob") {
        story.differs("server --> eve", "WELCOME Bob", &came.told());
    }
    ann.gets(&join("Bob"));
}

#[test]
fn a_message_at_the_wrong_time_gets_an_error_and_the_connection_stays_open() {
    let story = Story::new(Rule {
        rule: "before WELCOME all but JOIN, PING, PONG, ERROR and LEAVE gets ERROR `join first`, a second JOIN gets `you are here as NAME`, kinds that are not for clients get an ERROR; PING is answered with PONG of the same sequence at any time; the connection goes on",
        why: "a good message at a wrong time is a mistake of a person or a program, not an attack: say what is wrong, and go on",
        read: "lessons/06_message_headers.md, \"The code\"",
        by_hand: r"(printf 'CH\1\2'; head -c 12 /dev/zero; printf '\0\0\0\2hi'; sleep 5) | nc 127.0.0.1 12345 | od -c",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let ann = server.admit("ann", "ann");
    let zed = server.visit("zed");
    zed.say(&text(1, "hello?"));
    zed.gets_next(&error("join first"));
    for sequence in [7, 0, u32::MAX] {
        zed.say(&ping(sequence));
        zed.gets_next(&pong(sequence));
    }
    let ignored = |peer: &Peer, sequence: u32| {
        // Nothing comes before the answer to the PING after them.
        peer.say(&pong(5));
        peer.say(&error("it is your fault"));
        peer.say(&ping(sequence));
        peer.gets_next(&pong(sequence));
    };
    ignored(&zed, 8);
    for (kind, name) in [(WELCOME, "WELCOME"), (CHALLENGE, "CHALLENGE"), (LOGIN, "LOGIN")] {
        zed.say(&message(kind, "zed", "zed"));
        zed.gets_error(&format!("since {name} is not for a client to say here"));
    }
    zed.say(&text(1, "and now?"));
    zed.gets_next(&error("join first"));
    zed.say(&join("zed"));
    zed.gets_next(&welcome("zed", "ann, zed"));
    // All that was between zed and the server alone.
    ann.gets_next(&join("zed"));

    story.because("a client that has joined can't join again, under whatever name");
    for name in ["zed", "ann", "somebody", ""] {
        zed.say(&join(name));
        zed.gets_next(&error("you are here as zed"));
    }
    story.because("PONG and ERROR are never answered, or two programs would answer each other for ever; the other kinds are the server's own");
    ignored(&zed, 0x0a0b_0c0d);
    for (kind, name) in [(WELCOME, "WELCOME"), (CHALLENGE, "CHALLENGE"), (LOGIN, "LOGIN")] {
        zed.say(&message(kind, "ann", "ann, bob"));
        zed.gets_error(&format!("since {name} is not for clients in this step"));
    }
    zed.say(&text(2, "still here"));
    ann.gets_next(&text(2, "still here").by("zed"));

    story.because("all of this holds in the same way when it comes at once: one message after the other, in order");
    let gus = server.visit("gus");
    gus.say_at_once(&[
        text(1, "too early"),
        ping(3),
        join("ann"),
        join("gus"),
        text(2, "now"),
        join("gus"),
        ping(4),
    ]);
    gus.gets_next(&error("join first"));
    gus.gets_next(&pong(3));
    gus.gets_error("since ann is here");
    gus.gets_next(&welcome("gus", "ann, gus, zed"));
    gus.gets_next(&error("you are here as gus"));
    gus.gets_next(&pong(4));
    ann.gets_next(&join("gus"));
    ann.gets_next(&text(2, "now").by("gus"));

    story.because("a client that says LEAVE before it has joined is closed like anybody else");
    let nobody = server.visit("nobody");
    nobody.say(&message(LEAVE, "", ""));
    nobody.close_sending();
    nobody.expect_nothing_more();
    gus.say_goodbye();
    ann.gets_next(&left("gus", "left"));
}

#[test]
fn a_malformed_message_gets_an_error_and_the_end_of_the_stream() {
    let story = Story::new(Rule {
        rule: "wrong magic or version, an unknown kind, a length over its limit, text that is not UTF-8: one ERROR, then the end of the stream; the others get LEAVE; half a message at the end of a stream is no message",
        why: "after bytes that are no message nobody knows where the next message begins: say what is wrong, and end this connection, no other",
        read: "lessons/06_message_headers.md, \"Break it\"",
        by_hand: "(echo GET / HTTP/1.1; echo Host: localhost; sleep 5) | nc 127.0.0.1 12345 | od -c",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let ann = server.admit("ann", "ann");
    let header = |start: &[u8], sender: u16, body: u16| {
        let mut bytes = start.to_vec();
        bytes.resize(16, 0);
        bytes.extend([sender.to_be_bytes(), body.to_be_bytes()].concat());
        bytes
    };
    let no_messages: [(&str, Vec<u8>); 14] = [
        ("the magic must be \"CH\"", b"GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("the magic must be \"CH\"", header(b"HC\x01\x02", 0, 0)),
        ("the magic must be \"CH\"", header(b"Ch\x01\x02", 0, 0)),
        ("the version must be 1", header(b"CH\x02\x02", 0, 0)),
        ("the version must be 1", header(b"CH\x00\x02", 0, 0)),
        ("there is no kind 0", header(b"CH\x01\x00", 0, 0)),
        ("there is no kind 10", header(b"CH\x01\x0a", 0, 0)),
        ("there is no kind 255", header(b"CH\x01\xff", 0, 0)),
        // Lengths are checked before anything is waited for: none of it comes.
        ("a sender of 33 bytes is too long", header(b"CH\x01\x02", 33, 0)),
        ("a body of 4097 bytes is too long", header(b"CH\x01\x02", 0, 4097)),
        ("lengths of 65535 are too long", header(b"CH\x01\x02", 65535, 65535)),
        ("a sender of 256 bytes is too long", header(b"CH\x01\x01", 256, 0)),
        ("the body must be UTF-8", text(2, b"caf\xe9").bytes()),
        ("the body must be UTF-8", text(2, b"\xed\xa0\x80").bytes()),
    ];
    for (why, bytes) in &no_messages {
        story.because(format!("{why}: the answer is an ERROR that says so, then the end of the stream, at once, whatever was announced"));
        let zed = server.admit("zed", "ann, zed");
        ann.gets_next(&join("zed"));
        let before = text(1, story.word());
        let after = text(2, "after it nothing counts");
        // What came before it counts, and what comes after it does not.
        zed.say(&before);
        let told = format!("{}, and TEXT 2", hex(bytes));
        zed.sends(told, &[&bytes[..], &after.bytes()[..]].concat());
        let said = zed.gets_error(&format!("since {why}"));
        if why.contains("version") && !said.to_lowercase().contains("version") {
            story.fails("server --> zed", "an ERROR that names the version", &said);
        }
        zed.expect_end();
        ann.gets_next(&before.by("zed"));
        ann.gets_next(&left("zed", "left"));
    }
    story.because("the same holds before WELCOME, and then it is nobody's news");
    let mut nobodies = Vec::new();
    for (why, bytes) in [
        ("a name has at most 32 bytes", join("x".repeat(33)).bytes()),
        ("a name has at most 32 bytes, however few characters", join("\u{e9}".repeat(17)).bytes()),
        ("the name must be UTF-8", join(b"z\xe9d").bytes()),
        ("there is no kind 77", header(b"CH\x01\x4d", 0, 0)),
        ("a body of 65535 bytes is too long", header(b"CH\x01\x01", 3, 65535)),
    ] {
        let nobody = server.visit("nobody");
        nobody.sends(hex(&bytes), &bytes);
        nobody.gets_error(&format!("since {why}"));
        nobody.expect_end();
        nobodies.push(nobody);
    }
    story.because("the server reads on for at most 1 s, so that the ERROR arrives, and then closes the connection altogether, though the client does not");
    for nobody in nobodies {
        story.step("nobody --> server", "sends on");
        if !refused(&nobody.stream) {
            story.fails("nobody --> server", "a reset, after 1 s", "all that is sent is taken");
        }
    }

    story.because("a stream that ends inside a message is the end of a client, not a message");
    for cut in [1, 19, 20, 23, 24] {
        let zed = server.admit("zed", "ann, zed");
        ann.gets_next(&join("zed"));
        zed.say_part(&text(1, "hello"), 0, cut);
        zed.close_sending();
        ann.gets_next(&left("zed", "left"));
        zed.expect_nothing_more();
    }

    errors_arrive(&story, &server, &ann, "left");
}

/// The first bytes, as `od -tx1` shows them.
fn hex(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().take(24).map(|b| format!("{b:02x}")).collect();
    hex.join(" ") + if bytes.len() > 24 { " ..." } else { "" }
}

#[test]
fn a_client_shows_each_message_however_it_arrives() {
    let story = Story::new(Rule {
        rule: "a client shows TEXT as `[22:13:20] bob: hello` (UTC), JOIN and LEAVE as `* bob joined`, `* bob left (why)`, WELCOME as `* welcome, ann (here: ann, bob)`, ERROR as `! reason`, cleaned, at once; it answers PING with PONG of the same sequence",
        why: "what the server sends arrives in pieces too: read 20 bytes, then as many as they announce. And a client can't know how careful its server is: it cleans again what it shows",
        read: "lessons/06_message_headers.md, \"Run it\"",
        by_hand: "cargo run --example 06_message_headers join ann, while others talk",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.joins(PROGRAM, "ann", &mock_server.address);
    let server = mock_server.visited();
    server.gets_next(&join("ann"));
    let show = |message: &Message, line: &str| {
        server.say(message);
        client.screen.expect_line(line);
    };
    story.because("WELCOME is shown at once as `* welcome, NAME (here: NAMES)`, with the sender and the body of the message");
    show(&welcome("ann", "ann, bob"), "* welcome, ann (here: ann, bob)");
    let hello = text(1, "hello").by("bob").at(1_700_000_000_999);
    story.because("a text is shown with the time of day of its timestamp, in UTC: not the local time, and not the time at which it arrived");
    show(&hello, "[22:13:20] bob: hello");
    story.because("each kind of message is shown in its own way, one line for each message");
    show(&join("eve"), "* eve joined");
    show(&left("eve", "left"), "* eve left (left)");
    show(&error("you are here as ann"), "! you are here as ann");
    story.because("the timestamp counts milliseconds since 1970-01-01T00:00:00Z, in 64 bits: what is shown is the time of day in UTC, whatever the time zone here");
    for (timestamp, shown) in [
        (0, "00:00:00"),
        (86_399_999, "23:59:59"),
        (1_000_000_000_000, "01:46:40"),
        (4_102_444_799_000, "23:59:59"),
    ] {
        show(&text(2, "time").by("bob").at(timestamp), &format!("[{shown}] bob: time"));
    }

    story.because("TCP forgets where each write ended: several messages may come with one read, and one in many, cut at any byte");
    let told: Vec<Message> = (3..203).map(|n| text(n, format!("number {n}")).by("bob")).collect();
    server.sends(
        "TEXT 3 to TEXT 202 (in one piece)",
        &told.iter().flat_map(Message::bytes).collect::<Vec<u8>>(),
    );
    for n in 3..203 {
        client.screen.expect_line(&format!("[00:00:00] bob: number {n}"));
    }
    let whole = text(300, "a euro: €").by("b\u{f6}b").at(1_700_000_000_000);
    for cut in 1..whole.bytes().len() {
        server.say_part(&whole, 0, cut);
        server.say_part(&whole, cut, whole.bytes().len());
        client.screen.expect_line("[22:13:20] b\u{f6}b: a euro: €");
    }
    for shift in ["", "x", "xx"] {
        let body = format!("{shift}{}", "€".repeat(1364));
        server.sends(
            "TEXT of more than 4000 bytes, sender of 32",
            &text(301, &body).by("b".repeat(32)).bytes(),
        );
        client.screen.expect_line(&format!("[00:00:00] {}: {body}", "b".repeat(32)));
    }

    story.because("PING asks whether anybody is there: the answer is PONG with the same sequence, at any time. PONG itself is not answered, nor shown");
    for sequence in [1, 0x0102_0304, u32::MAX] {
        server.say(&pong(9));
        server.say(&ping(sequence));
        server.gets_next(&pong(sequence));
    }
    show(&text(302, "after the pings").by("bob"), "[00:00:00] bob: after the pings");

    story.blame("a terminal obeys control characters and overrides: they are taken out of all that is shown, of names and bodies alike", "lessons/PROTOCOL.md, \"What may not pass\"");
    show(&text(303, "\x1b[31mred\x07\r\n\u{9b}. a\tb").by("bob"), "[00:00:00] bob: [31mred. a\tb");
    show(&text(304, "\u{202e}evil\u{2066}").by("b\x1b[1mob"), "[00:00:00] b[1mob: evil");
    show(&join("\x1b]0;eve\x07"), "* ]0;eve joined");
    show(&left("e\x08ve", "le\x1bft"), "* eve left (left)");
    show(&error("you\x1b[2J are\n"), "! you[2J are");
    show(&text(305, "the end").by("bob"), "[00:00:00] bob: the end");
}

#[test]
fn a_client_joins_numbers_what_is_typed_and_says_goodbye() {
    let story = Story::new(Rule {
        rule: "a client sends JOIN with its name first, then each typed line as TEXT, numbered from 1; `/quit` and the end of its input are LEAVE and the end of the sending half; it prints what still comes, and exits with 0 when the server has closed",
        why: "numbers go out in network byte order, lengths count bytes; and a client that leaves says so, and reads on until the server has closed",
        read: "lessons/06_message_headers.md, \"Run it\"",
        by_hand: "nc -l 127.0.0.1 12345 | od -c, then cargo run --example 06_message_headers join ann",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.joins(PROGRAM, "ann", &mock_server.address);
    let server = mock_server.visited();
    let asked = server.gets_next(&join("ann"));
    server.expect_no_number(&asked);
    story.because("before WELCOME a client has no name, and what it says is answered with `join first`: what is typed so early waits");
    client.types("as soon as I am in\n");
    client.settled();
    if !server.so_far().is_empty() {
        let received = "the TEXT that was typed";
        story.fails("client --> server", "nothing more before it is welcome", received);
    }
    server.say(&welcome("ann", "ann").at(now()));
    client.screen.expect_line("* welcome, ann (here: ann)");
    server.gets_next(&text(1, "as soon as I am in"));
    for n in 2..=3 {
        let word = story.word();
        client.types(&format!("{word}\n"));
        server.gets_next(&text(n, word));
    }
    client.types("caf\u{e9} €\n  two \t spaces\n");
    server.gets_next(&text(4, "caf\u{e9} €"));
    server.gets_next(&text(5, "  two \t spaces"));

    story.because("a body has at most 4096 bytes: what is longer is refused with a line on standard error, and not sent, nor numbered; bytes count, not characters");
    for (n, long) in (6..).step_by(2).zip(["x".repeat(4097), "€".repeat(1366), "x".repeat(200_000)])
    {
        let before = client.warned();
        client.types(&format!("{long}\n"));
        client.expect_a_warning(before, "that the line is too long");
        client.types("the next\n");
        server.gets_next(&text(n, "the next"));
        let most = "x".repeat(4096);
        client.types(&format!("{most}\n"));
        server.gets_next(&text(n + 1, most));
    }
    let lines: Vec<String> = (12..=300).map(|n| format!("line {n}\n")).collect();
    client.types(&lines.concat());
    for n in 12..=300 {
        server.gets_next(&text(n, format!("line {n}")));
    }

    story.because("`/quit` is the end of the input: LEAVE, then the end of the sending half; others go on talking, and that is still printed");
    client.types("/quit\nbehind /quit nothing counts\n");
    let goodbye = |server: &Peer| {
        let goodbye = server.gets_next(&message(LEAVE, "", ""));
        server.expect_no_number(&goodbye);
        server.expect_nothing_more();
    };
    goodbye(&server);
    server.say(&join("bob"));
    client.screen.expect_line("* bob joined");
    server.close_sending();
    client.screen.expect_end();
    client.expect_exit(0);

    story.because("the end of the input is the end, also after a last line without a line end");
    let client = story.joins(PROGRAM, "ann", &mock_server.address);
    let server = mock_server.admits("ann");
    client.screen.expect_line("* welcome, ann (here: ann)");
    client.types("the last");
    client.ends_input();
    server.gets_next(&text(1, "the last"));
    goodbye(&server);
    server.say(&left("bob", "left"));
    client.screen.expect_line("* bob left (left)");
    server.close_sending();
    client.expect_exit(0);
}

#[test]
fn a_client_exits_with_the_status_for_how_it_ended() {
    let story = Story::new(Rule {
        rule: "a server that closes between two messages is said, and exit status 0; a refused name, a stream that ends inside a message, what is no message, a reset, a refused connection: a line, and exit status 1. Arguments are as in step 01",
        why: "scripts see only the status: 0 is an end as it should be, 1 a failure, 2 a command that was not understood",
        read: "lessons/06_message_headers.md, \"Break it\"",
        by_hand: "cargo run --example 06_message_headers join ann 127.0.0.1:1; echo $?",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let start = || {
        let client = story.joins(PROGRAM, "ann", &mock_server.address);
        let server = mock_server.admits("ann");
        client.screen.expect_line("* welcome, ann (here: ann)");
        (client, server)
    };
    let (client, server) = start();
    server.say(&join("bob"));
    server.close_sending();
    client.screen.expect_line("* bob joined");
    client.screen.expect_end();
    client.expect_exit(0);
    story.because("a person must see that it was the server that has ended the chat: a line on standard error says so");
    client.expect_a_word("that the server has closed");

    story.because("an ERROR before WELCOME is a refused name: there is nothing to wait for");
    let client = story.joins(PROGRAM, "ann", &mock_server.address);
    let server = mock_server.visited();
    server.gets_next(&join("ann"));
    server.say(&error("ann is here already"));
    client.screen.expect_line("! ann is here already");
    // The server leaves the connection open: it may be asked again.
    client.expect_exit(1);

    story.because("a stream that ends inside a message is a failure: something is missing");
    for cut in [1, 20, 30] {
        let (client, server) = start();
        server.say(&join("bob"));
        server.say_part(&text(2, "not whole").by("bob"), 0, cut);
        server.close_sending();
        client.screen.expect_line("* bob joined");
        client.screen.expect_end();
        client.expect_exit(1);
        client.expect_a_word("that the connection ended inside a message");
    }

    story.because("what is no message can't be understood, and neither can anything after it: that is a failure, at once, whatever lengths are announced");
    let mut lengths = message(JOIN, "", "").bytes();
    lengths[16..].fill(0xff);
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &lengths] {
        let (client, server) = start();
        server.send(bytes);
        client.screen.expect_end();
        client.expect_exit(1);
        client.expect_a_word("what was wrong");
    }

    story.because("a reset is no goodbye: read fails then, instead of returning no bytes");
    let client = story.joins(PROGRAM, "ann", &mock_server.address);
    let stream = mock_server.accept_stream();
    // The client has sent its JOIN. Closed with it unread, that is a reset.
    lab::wait_for_bytes(&story, &stream);
    client.settled();
    story.step("server --> client", "reset");
    drop(stream);
    client.expect_exit(1);
    client.expect_a_word("that the connection was lost");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    story.run(PROGRAM, &["join", "ann", &nobody]).code(1).one_line_about(&nobody);

    story.blame("every program of the course is started in the same way; ADDRESS may have a name, or an IPv6 address in brackets", "lessons/01_bind_listen.md, \"Run it\"");
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let taken = server.address.to_string();
    story.finds_port_taken(&server, &["serve"]);
    let _again = story.starts_again(&server, &["serve"], &[]);
    story.usual_words(PROGRAM);
    let client = story.joins(PROGRAM, "ann", &taken.replace("127.0.0.1", "localhost"));
    client.screen.expect_line("* welcome, ann (here: ann)");
    client.ends_input();
    client.expect_exit(0);
    if has_ipv6() {
        let server = story.serve(PROGRAM, &["serve", "[::1]:0"]);
        let client = story.joins(PROGRAM, "ann", &server.address.to_string());
        client.screen.expect_line("* welcome, ann (here: ann)");
    }
}
