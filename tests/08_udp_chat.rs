//! The grading of step 08: ten tests, a point each. Seven are for the server,
//! three for the client.
//!
//! For a program of your own, in any language:
//! `LAB="python3 my_chat.py" cargo test --test 08_udp_chat`

#![allow(clippy::unwrap_used)]

mod lab;

use lab::message::{
    CHALLENGE, JOIN, LEAVE, LOGIN, WELCOME, error, join, left, message, now, ping, pong, text,
    welcome,
};
use lab::{
    BODY_BYTES, OnPing, Program, Rule, Story, UdpPeer, another_loopback, has_ipv6,
    ignores_interrupts, with_heartbeat,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

const PROGRAM: &str = "08_udp_chat";
/// A time of day in UTC, some years ago.
const AT_22_13_20: u64 = 1_700_000_000_000;

#[test]
fn a_client_joins_only_with_the_cookie_for_its_own_address_and_port() {
    let story = Story::new(Rule {
        rule: "JOIN is answered with WELCOME only if its body is the cookie that the server made for that very address and port, with a key drawn at its start; with CHALLENGE otherwise; and nothing is remembered of the question",
        why: "anyone can write any address on a datagram. Only somebody who gets the answer at that address can send the cookie back: so it must be different for each address and port, and nobody may be able to guess it",
        read: "lessons/08_udp_chat.md, \"The idea\"",
        by_hand: "cargo run --example 08_udp_chat join ann, while Wireshark looks at port 12345",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let bob = server.enter("bob", "bob");

    story.because("who only asks is not here yet: neither the name nor the asker may be kept, or forged questions fill the server's memory and use up its names");
    let [ann, eve] = ["ann", "eve"].map(|name| server.udp_peer(name));
    eve.asks("ann");
    // Whether a name is free is not told to somebody who may not even be there.
    for name in ["bob", "", "no name"] {
        ann.asks(name);
    }
    let first = ann.asks_with("ann", b"").body;
    bob.gets_nothing_else();

    story.because("compare the whole body with the cookie that you would send to this address and port now: all else is one more question");
    // Cut or changed, text must still be text.
    let known = if first.is_ascii() { first.clone() } else { b"0123456789".to_vec() };
    let mut wrong = known.clone();
    wrong[0] = if wrong[0] == b'1' { b'2' } else { b'1' };
    let longer = [&known[..], b"1"].concat();
    let shorter = &known[..known.len() - 1];
    for body in [&wrong[..], &longer, shorter, b"x", &[b'x'; BODY_BYTES]] {
        ann.asks_with("ann", body);
    }
    story.because("a cookie belongs to one address and port: who got one at his own may not join with it from another's");
    let others = eve.cookie.borrow().clone();
    ann.asks_with("ann", &others);
    // The same port of another computer.
    let elsewhere = SocketAddr::new(another_loopback(), ann.address().port());
    if let Some(elsewhere) = server.udp_peer_at("ann elsewhere", elsewhere) {
        elsewhere.asks_with("ann", &first);
        let another = elsewhere.cookie.borrow().clone();
        ann.asks_with("ann", &another);
    }
    let mut cookies = BTreeSet::from([first.clone()]);
    // All at the same time: nobody gets the port of somebody before.
    let crowd: Vec<UdpPeer> = (1..=24).map(|i| server.udp_peer(&format!("zed {i}"))).collect();
    for zed in &crowd {
        let came = zed.asks_with("z", b"");
        if !cookies.insert(came.body.clone()) {
            story.fails("server --> zed", "a cookie that nobody else has", "one that came before");
        }
        let (question, answer) = (join("z").bytes().len(), came.bytes().len());
        if answer > question + 32 {
            story.because("who writes somebody else's address on his question has your server answer there: an answer that is much longer than the question makes a weapon of it");
            let expected =
                format!("CHALLENGE in at most {} bytes: JOIN had {question}", question + 32);
            story.fails("server --> zed", &expected, &format!("one of {answer} bytes"));
        }
    }
    bob.gets_nothing_else();

    story.because("a cookie that can be worked out from the address alone is no secret: draw a key when the server starts, and mix it in. (A constant key, or one made from the time in seconds, can be guessed as well.)");
    let again = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    ann.turns_to(&again);
    if ann.asks_with("ann", &first).body == first {
        let came = "the one that another server gave her";
        story.fails("server --> ann", "a cookie that no other server gives", came);
    }

    story.because("the cookie is worked out anew for each JOIN: the first one is still right, however many have asked since");
    ann.turns_to(&server);
    ann.cookie.replace(first);
    ann.asks_again("ann");
    ann.gets_next(&welcome("ann", "ann, bob"));
    bob.gets_next(&join("ann"));
}

#[test]
fn a_name_belongs_to_one_address_until_it_leaves() {
    let story = Story::new(Rule {
        rule: "a name that won't do, or that is taken, is an ERROR, and the client may ask again; a repeated JOIN from a member gets WELCOME again, told to nobody; LEAVE frees the name at once",
        why: "WELCOME may be lost: then the client asks again, and it is no second joining. Members are known by their address and port, names are compared without regard to case",
        read: "lessons/08_udp_chat.md, \"The code\"",
        by_hand: "cargo run --example 08_udp_chat join ann, in two terminals",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let [zoe, ann] = server.enter_all(["Zoe", "ann"]);
    let eve = server.udp_peer("eve");
    eve.asks("eve");
    for (name, why) in [
        ("ann", "because the name is taken"),
        ("ANN", "because the name is taken (upper and lower case alike)"),
        ("zOE", "because the name is taken (upper and lower case alike)"),
        ("", "because the name is empty"),
        ("two words", "because of the white space in it"),
        ("a\tb", "because of the white space in it"),
        ("a,b", "because of the comma in it"),
        ("\u{1b}[31mred", "because of the control character in it"),
        ("del\u{7f}", "because of the control character in it"),
        ("a\u{202e}b", "because of the bidirectional override in it"),
    ] {
        eve.asks_again(name);
        eve.gets_error(why);
    }
    eve.asks_again("émile");
    eve.gets_next(&welcome("émile", "Zoe, ann, émile"));
    for other in [&zoe, &ann] {
        other.gets_next(&join("émile"));
    }
    // With the cookie, and without: a member has shown it once.
    for body in [&eve.cookie.borrow()[..], b"", b"wrong"] {
        eve.say(&message(JOIN, "émile", body));
        eve.gets_next(&welcome("émile", "Zoe, ann, émile"));
        for name in ["fay", "ann"] {
            eve.say(&message(JOIN, name, body));
            eve.gets_next(&error("you are here as émile"));
        }
    }
    for other in [&zoe, &ann] {
        other.gets_nothing_else();
    }

    story.because(
        "a member that has left is a stranger again, and the name is free as soon as the others are told",
    );
    ann.say(&message(LEAVE, "", ""));
    for other in [&zoe, &eve] {
        other.gets_next(&left("ann", "left"));
    }
    let dan = server.enter("Ann", "Ann, Zoe, émile");
    for other in [&zoe, &eve] {
        other.gets_next(&join("Ann"));
    }
    ann.say(&text(1, "am I still here?"));
    ann.gets_after_leaving(&error("join first"));
    ann.say(&message(LEAVE, "", ""));
    ann.joins("amy", "Ann, Zoe, amy, émile");
    for other in [&zoe, &eve, &dan] {
        other.gets_next(&join("amy"));
    }
    ann.say(&text(1, "I am here again"));
    for other in [&zoe, &eve, &dan] {
        other.gets_next(&text(1, "I am here again").by("amy"));
    }
    crowd(&story);
}

/// A room with more names than there is room for in a datagram.
#[track_caller]
fn crowd(story: &Rc<Story>) {
    // So many of 32 bytes, and `, ` between them, have 1120 bytes.
    const FIT: usize = 33;
    story.because("all names are in WELCOME, in the order of their bytes, as long as its body has at most 1148 bytes; then it ends with `, and N more`, and your own is among those shown");
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let mut names: Vec<String> = (0..FIT)
        .map(|i| {
            let first = if i % 2 == 0 { 'A' } else { 'b' };
            format!("{first}{i:02}{}", story.word().repeat(4))[..32].to_string()
        })
        .collect();
    for at in (1..names.len()).rev() {
        names.swap(at, story.number(at + 1));
    }
    // The last in the order of bytes: a server that shows the first names leaves it out.
    names.push("z".repeat(32));
    let mut here: Vec<&str> = Vec::new();
    let mut guests = Vec::new();
    for name in &names[..FIT] {
        here.push(name);
        here.sort_unstable();
        let guest = server.udp_peer(&format!("guest {}", here.len()));
        guest.joins(name, &here.join(", "));
        guests.push(guest);
    }
    let last = server.udp_peer("guest 34");
    last.asks(&names[FIT]);
    last.asks_again(&names[FIT]);
    let came = last.gets_kind(WELCOME, "WELCOME");
    let body = String::from_utf8_lossy(&came.body).into_owned();
    let shown = body.rsplit_once(", and ").and_then(|(shown, more)| {
        let more: usize = more.strip_suffix(" more")?.parse().ok()?;
        let shown: Vec<&str> = shown.split(", ").collect();
        (shown.len() + more == FIT + 1).then_some(shown)
    });
    let Some(shown) = shown else {
        let expected = format!("names, and `, and N more` for the others of {}", FIT + 1);
        story.fails("server --> guest 34", &expected, &body)
    };
    let right = body.len() <= BODY_BYTES
        && shown.is_sorted()
        && shown.iter().collect::<BTreeSet<_>>().len() == shown.len()
        && shown.iter().all(|name| names.iter().any(|n| n == name));
    if !right || !shown.contains(&names[FIT].as_str()) {
        let expected =
            format!("names of those here, your own too, in order, in at most {BODY_BYTES} bytes");
        story.fails("server --> guest 34", &expected, &format!("{} bytes: {body}", body.len()));
    }
}

#[test]
fn a_text_goes_to_everybody_else_under_the_name_known_for_its_address() {
    let story = Story::new(Rule {
        rule: "TEXT goes to every other member and never back to its sender: with the name under which that address joined, the server's time and the sender's sequence; cleaned; an empty one is dropped",
        why: "UDP has no connections: the address and port of a datagram say who sent it, not its contents. The sequence is passed on as it came, so that receivers can see what is missing",
        read: "lessons/08_udp_chat.md, \"The code\"",
        by_hand: "cargo run --example 08_udp_chat join ann, and bob, and eve, in three terminals",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let [ann, bob, eve] = server.enter_all(["ann", "bob", "eve"]);
    for number in 1..=3 {
        let word = story.word();
        ann.say(&text(number, &word));
        for other in [&bob, &eve] {
            other.gets_next(&text(number, &word).by("ann"));
        }
        // Bob answers after he has heard it: an echo to ann would come first.
        bob.say(&text(number, &*format!("re: {word}")));
        for other in [&ann, &eve] {
            other.gets_next(&text(number, &*format!("re: {word}")).by("bob"));
        }
    }
    story.because("name and time are the server's: who could choose them would speak for others, and at any time");
    for (i, name) in ["ann", "bob", "eve", "nobody", "the server"].iter().enumerate() {
        let number = 17 + 1000 * u32::try_from(i).unwrap();
        let time = [0, 1, u64::MAX, now() + 3_600_000, now() - 3_600_000][i];
        let word = story.word();
        ann.say(&text(number, &word).by(name).at(time));
        for other in [&bob, &eve] {
            other.expect_now(&other.gets_next(&text(number, &word).by("ann")));
        }
    }
    bob.say(&message(LEAVE, "ann", ""));
    for other in [&ann, &eve] {
        other.gets_next(&left("bob", "left"));
    }
    let mut number = 5000;
    let mut says = |sent: &str, heard: &str| {
        number += 1;
        ann.say(&text(number, sent));
        if !heard.is_empty() {
            eve.gets_next(&text(number, heard).by("ann"));
        }
    };
    story.because("what one member sends, the terminals of all others obey: control characters but for tab, and the bidirectional overrides, are taken out; a text that is empty then is dropped");
    says(
        "\x1b[2J\x1b[31mred\x1b[0m \x07bell\x08 \x00nul \x7fdel\x0b\x0c\r\n.",
        "[2J[31mred[0m bell nul del.",
    );
    says("c1:\u{80}\u{85}\u{9b}31m\u{9f}.", "c1:31m.");
    says("\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}evil\u{2066}\u{2067}\u{2068}\u{2069}", "evil");
    let good = "a\tb caf\u{e9} € 日本 \u{1f980} e\u{301}\u{a0}\u{200d}\u{2065}\u{2029}.";
    says(good, good);
    says("", "");
    says("\u{1b}\u{7}\n\u{202e}\r\n\0", "");
    says("after nothing", "after nothing");
    ann.gets_nothing_else();
}

#[test]
fn one_datagram_is_one_message_and_strangers_learn_nothing() {
    let story = Story::new(Rule {
        rule: "a datagram that is not exactly one message, or whose body has over 1148 bytes, gets one ERROR if it came from a member, who stays one, and nothing otherwise; a stranger's PING gets PONG, a stranger's TEXT `join first`, all else nothing; ERROR and PONG are never answered",
        why: "a datagram has its borders: it must hold one whole message, and nothing else. And two programs that answer an ERROR with an ERROR never stop",
        read: "lessons/08_udp_chat.md, \"Break it\"",
        by_hand: "echo hello | nc -u -w 1 127.0.0.1 12345",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let [ann, bob] = server.enter_all(["ann", "bob"]);
    let zed = server.udp_peer("zed");
    let mut number = 0;
    let mut still_here = |of: &UdpPeer, name: &str, others: &[&UdpPeer]| {
        number += 1;
        let said = text(number, story.word());
        of.say(&said);
        for other in others {
            other.gets_next(&said.clone().by(name));
        }
    };

    for (what, bytes, about) in no_messages() {
        zed.sends(what, &bytes);
        zed.gets_nothing_else();
        ann.sends(what, &bytes);
        ann.gets_error(about);
        // She is still here, and nothing of it was passed on.
        still_here(&ann, "ann", &[&bob]);
    }
    story.because("what is no kind for clients is answered with an ERROR, and changes nothing; a stranger gets nothing");
    for kind in [WELCOME, LOGIN, CHALLENGE] {
        let said = message(kind, "ann", "hello");
        zed.say(&said);
        zed.gets_nothing_else();
        ann.say(&said);
        ann.gets_error("because this kind is not for clients");
        still_here(&ann, "ann", &[&bob]);
    }

    story.because("two programs that answer an ERROR with an ERROR, or a PONG with anything, never stop: these two are never answered, by nobody");
    for who in [&ann, &zed] {
        who.say(&error("what do you mean?"));
        who.say(&pong(7));
        who.gets_nothing_else();
    }
    story.because("to somebody who has not joined the server says as little as possible: somebody who forges an address makes the server write to that address");
    zed.say(&message(LEAVE, "ann", ""));
    zed.gets_nothing_else();
    zed.say(&text(1, "hello"));
    zed.gets_next(&error("join first"));
    for sequence in [0, 1, u32::MAX] {
        for who in [&zed, &ann] {
            who.say(&ping(sequence));
            who.gets_next(&pong(sequence));
        }
    }

    story.because("the longest message has 20 + 32 + 1148 = 1200 bytes, and is passed on whole");
    let name = "m".repeat(32);
    let max = server.enter(&name, &format!("ann, bob, {name}"));
    for other in [&ann, &bob] {
        other.gets_next(&join(&name));
    }
    for (sequence, body) in [(1, "x".repeat(BODY_BYTES)), (2, "€".repeat(382) + "ab")] {
        max.say(&text(sequence, &body));
        for other in [&ann, &bob] {
            other.gets_next(&text(sequence, &body).by(&name));
        }
    }
    still_here(&ann, "ann", &[&bob, &max]);
}

/// What is no message, its bytes, and what there is to say about it.
fn no_messages() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let whole = text(1000, "hello").bytes();
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    // With one byte more, which a buffer of 1200 bytes would not notice.
    let full = text(1001, "x".repeat(BODY_BYTES)).by("x".repeat(32)).bytes();
    let sender = text(1002, "hi").by("x".repeat(33)).bytes();
    let body = text(1003, "x".repeat(BODY_BYTES + 1)).bytes();
    let announced = [&whole[..18], &[0xff; 2], b"hello"].concat();
    vec![
        ("an empty datagram", vec![], "about a datagram of 0 bytes"),
        ("\"hello\\n\"", b"hello\n".to_vec(), "about what is no message"),
        ("19 of the 20 bytes of a header", whole[..19].to_vec(), "about half a header"),
        ("a header that announces 5 bytes, alone", whole[..20].to_vec(), "about what is missing"),
        ("TEXT without its last byte", whole[..24].to_vec(), "about what is missing"),
        ("TEXT and one byte more", [&whole[..], b"!"].concat(), "about the byte after it"),
        ("two TEXTs in one datagram", whole.repeat(2), "about the bytes after the first"),
        ("TEXT of 1200 bytes, and one more", [&full[..], b"!"].concat(), "about the byte after it"),
        ("TEXT in a datagram of 9000 bytes", [&whole[..], &[0; 8975]].concat(), "about its length"),
        ("TEXT with magic \"XH\"", with(0, b'X'), "about the magic"),
        ("TEXT with version 2", with(2, 2), "about the version"),
        ("a message of kind 0", with(3, 0), "about the kind"),
        ("a message of kind 10", with(3, 10), "about the kind"),
        ("TEXT with a sender of 33 bytes", sender, "about the sender's length"),
        ("TEXT with a body of 1149 bytes", body, "about the body's length"),
        ("TEXT that announces a body of 65535 bytes", announced, "about the body's length"),
        ("TEXT whose body is not UTF-8", with(24, 0xff), "about the body"),
    ]
}

#[test]
fn a_text_is_passed_on_once_and_never_held_back_for_its_order() {
    let story = Story::new(Rule {
        rule: "a TEXT whose sequence was seen from that sender, or is 64 or more below the highest seen, is dropped; every other is passed on as it comes, whatever the order",
        why: "the network may bring a datagram twice, or late: remember for each sender the highest sequence and which of the 63 below it were seen, in a number of 64 bits",
        read: "lessons/08_udp_chat.md, \"The code\"",
        by_hand: "cargo run --example 08_udp_chat serve, join bob; then python3 lessons/08_numbers.py 127.0.0.1:12345 5 4 7 6 1 5",
    });
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let [ann, bob] = server.enter_all(["ann", "bob"]);
    let passes = |sequences: &[u32]| {
        for sequence in sequences {
            let said = text(*sequence, story.word());
            ann.say(&said);
            bob.gets_next(&said.by("ann"));
        }
    };
    let drops = |sequences: &[u32]| {
        for sequence in sequences {
            ann.say(&text(*sequence, story.word()));
            ann.gets_nothing_else();
            bob.gets_nothing_else();
        }
    };
    passes(&[5, 4, 7, 6, 1]);
    drops(&[5, 4, 7, 1]);

    story.because(
        "63 below the highest is still in the window, if it was not seen; 64 below is not",
    );
    passes(&[200, 199]);
    drops(&[136, 1, 2]);
    passes(&[137, 138]);
    drops(&[137, 138, 199, 200]);

    story.because("when the highest goes up by 64 or more, nothing of the window is seen but the new one (a number of 64 bits can't be shifted by 64 in most languages)");
    passes(&[264, 263, 201]);
    drops(&[200, 264, 201]);
    passes(&[202, 232]);
    passes(&[264 + 65, 264 + 2, 264 + 64, 264 + 1 + 32]);
    drops(&[264, 264 + 1, 264 + 65]);

    story.because("each sender counts for itself");
    for sequence in [264, 201, 263] {
        let said = text(sequence, story.word());
        bob.say(&said);
        ann.gets_next(&said.by("bob"));
    }

    story.because("a sequence has 32 bits, without a sign");
    passes(&[u32::MAX - 1, u32::MAX, u32::MAX - 63]);
    drops(&[u32::MAX, u32::MAX - 64]);

    story.because(
        "a JOIN from a member changes nothing; a member that leaves and joins again counts from 1",
    );
    ann.asks_again("ann");
    ann.gets_next(&welcome("ann", "ann, bob"));
    drops(&[u32::MAX, 1]);
    ann.say(&message(LEAVE, "", ""));
    bob.gets_next(&left("ann", "left"));
    ann.asks_again("ann");
    ann.gets_after_leaving(&welcome("ann", "ann, bob"));
    bob.gets_next(&join("ann"));
    passes(&[1, 2]);
    drops(&[1]);
}

#[test]
fn a_silent_member_is_timed_out_and_no_other() {
    let story = Story::new(Rule {
        rule: "a member from whom nothing comes for one heartbeat gets PING; after nothing for two more the others get LEAVE, `timed out`, once; any message is a sign of life; strangers are not waited for",
        why: "in UDP nobody is told that somebody has gone: the server has to ask, and to draw its conclusion",
        read: "lessons/08_udp_chat.md, \"The idea\"",
        by_hand: "cargo run --example 08_udp_chat serve --heartbeat-ms 2000, join as ann, then kill -9 ann's process",
    });
    with_heartbeat(&story, one_member_is_silent);
}

fn one_member_is_silent(story: &Rc<Story>, heartbeat: Duration) {
    let milliseconds = heartbeat.as_millis().to_string();
    let args = ["serve", "127.0.0.1:0", "--heartbeat-ms", &milliseconds];
    let server = story.serve(PROGRAM, &args);
    let [ann, bob, eve] = server.enter_all(["ann", "bob", "eve"]);
    bob.when_pinged(OnPing::Text);
    eve.when_pinged(OnPing::Ping);
    let sue = server.udp_peer("sue");
    sue.asks("sue");

    let yan = server.enter("yan", "ann, bob, eve, yan");
    let zed = server.udp_peer("zed");
    zed.when_pinged(OnPing::Silent);
    let since = Instant::now();
    zed.joins("zed", "ann, bob, eve, yan, zed");
    for name in ["yan", "zed"] {
        for other in [&ann, &bob, &eve] {
            other.gets_next(&join(name));
        }
    }
    yan.gets_next(&join("zed"));
    yan.vanishes();

    story.because("sending to somebody who is gone may fail, now or at the next call: no reason to end, nor to leave out the others");
    for number in 1..=3 {
        let said = text(number, story.word());
        eve.say(&said);
        for other in [&ann, &bob, &zed] {
            other.gets_next(&said.clone().by("eve"));
        }
    }
    story.because("a member that answers PING, or says anything else in time, stays; one that says nothing for three heartbeats is gone, and the others are told once");
    story.step("zed and yan", "say nothing more; ann, bob and eve answer each PING at once");
    let gone = [left("zed", "timed out"), left("yan", "timed out")];
    let when = eve.gets_all(&gone);
    for other in [&ann, &bob] {
        other.gets_all(&gone);
    }
    if zed.pings() == 0 {
        let came = "LEAVE without having asked";
        story.fails("server --> zed", "PING after one heartbeat", came);
    }
    let waited = when.saturating_duration_since(since);
    if waited < heartbeat.mul_f64(2.75) {
        let waited = format!("after {} ms", waited.as_millis());
        let expected = format!("LEAVE after 3 heartbeats of {milliseconds} ms");
        story.fails("server --> eve", &expected, &waited);
    }

    story.because("a member that was timed out is a stranger again, and the name is free");
    zed.say(&text(1, "was I asleep?"));
    zed.gets_after_leaving(&error("join first"));
    let asked = zed.pings();
    zed.joins("zed", "ann, bob, eve, zed");
    for other in [&ann, &bob, &eve] {
        other.gets_next(&join("zed"));
    }
    story.because("a member that has answered is asked again when the next heartbeat is over; what the server itself sends is no sign of life");
    story.step("zed", "says nothing more; the others answer each PING, bob with a TEXT");
    for other in [&ann, &bob, &eve] {
        other.gets_next(&left("zed", "timed out"));
    }
    if zed.pings() == asked {
        story.fails("server --> zed", "PING after one heartbeat", "LEAVE without having asked");
    }

    story.because("a stranger is not known: there is nobody to wait for, and nobody to be told");
    sue.gets_nothing_else();
    if sue.pings() > 0 {
        story.fails("server --> sue", "nothing: she only asked", "PING");
    }
}

#[test]
fn the_server_stops_drops_datagrams_and_starts_as_it_is_told() {
    let story = Story::new(Rule {
        rule: "`/quit` or SIGTERM or SIGINT: every member gets LEAVE from nobody, `server is shutting down`, then the server prints `bye` and exits with 0; --loss throws away that share of what it would have sent; arguments as in step 01",
        why: "a server that is asked to stop says goodbye first: in UDP nobody would notice otherwise. With --loss you can see on one computer what a bad network does",
        read: "lessons/08_udp_chat.md, \"Run it\"",
        by_hand: "cargo run --example 08_udp_chat serve 127.0.0.1:12345 --loss 30",
    });
    story.by_hand("cargo run --example 08_udp_chat serve; join it in a second terminal; /quit in the first one");
    let arguments = ["serve", "127.0.0.1:0", "--loss", "0", "--heartbeat-ms", "3600000"];
    let server = story.serve(PROGRAM, &arguments);
    let [ann, bob] = server.enter_all(["ann", "bob"]);
    for _ in 0..50 {
        ann.gets_nothing_else();
        bob.gets_nothing_else();
    }
    stops(&server, "/quit", &[&ann, &bob]);

    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    let [ann, bob] = server.enter_all(["ann", "bob"]);
    story.because(
        "a server in the background reads from nowhere: the end of its input stops nothing",
    );
    server.ends_input();
    server.settled();
    ann.gets_nothing_else();
    stops(&server, "SIGTERM", &[&ann, &bob]);

    story.by_hand("cargo run --example 08_udp_chat serve 127.0.0.1:12345 --loss 30");
    story.because("--loss throws away each datagram with that probability: neither every answer nor none comes");
    let server =
        story.serve(PROGRAM, &["serve", "127.0.0.1:0", "--heartbeat-ms", "60000", "--loss", "30"]);
    let ann = server.udp_peer("ann");
    let answered: usize = (0..5).map(|_| ann.counts_pongs(40)).sum();
    // Outside of these a right program is less than once in 10^14 runs.
    if !(85..=185).contains(&answered) {
        let expected = "about 140 PONGs for 200 PINGs with --loss 30";
        story.fails("server --> ann", expected, &format!("{answered}"));
    }
    stops(&server, "SIGINT", &[]);

    story.because("with --loss 100 nothing is sent, to nobody");
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0", "--loss", "100"]);
    let ann = server.udp_peer("ann");
    ann.say(&join("ann"));
    ann.say(&text(1, "hello"));
    for number in 1..=5 {
        ann.say(&ping(number));
    }
    lab::emptied(server.address.port());
    server.settled();
    stops(&server, "/quit", &[]);
    if ann.unread() > 0 {
        story.fails("server --> ann", "nothing", &format!("{} datagrams", ann.unread()));
    }
    arguments_of(&story);
}

/// Stops the server. All who are here are told.
#[track_caller]
fn stops(server: &Program, how: &str, members: &[&UdpPeer]) {
    match how {
        "SIGTERM" if cfg!(unix) => server.terminate(),
        // It may be ignored where the tests run in the background.
        "SIGINT" if cfg!(unix) && !ignores_interrupts() => server.interrupt(),
        _ => server.quit(),
    }
    for member in members {
        member.gets_next(&left("", "server is shutting down"));
    }
    server.expect_last_printed("bye");
    server.expect_exit(0);
}

/// How the program takes its arguments.
#[track_caller]
fn arguments_of(story: &Rc<Story>) {
    story.because("every program of the course is started in the same way; a number out of range is refused, not corrected");
    story.together(|| {
        story.usual_words(PROGRAM);
        for (option, wrong) in [
            ("--loss", "101"),
            ("--loss", "-1"),
            ("--loss", "many"),
            ("--heartbeat-ms", "49"),
            ("--heartbeat-ms", "3600001"),
        ] {
            let arguments = ["serve", "127.0.0.1:0", option, wrong];
            story.run(PROGRAM, &arguments).usage_error_about(wrong);
        }
        story.run(PROGRAM, &["serve", "127.0.0.1:0", "--loss"]).usage_error_about("--loss");
        story
            .run(PROGRAM, &["join", "ann", "127.0.0.1:1", "--loss", "101"])
            .usage_error_about("101");
    });

    story.because("two servers can't have one port: each datagram would go to one of them, and never to the other");
    let server = story.serve(PROGRAM, &["serve", "127.0.0.1:0"]);
    story.finds_port_taken(&server, &["serve"]);
    if has_ipv6() {
        story.because("an IPv6 address is written in brackets");
        let six = story.serve(PROGRAM, &["serve", "[::1]:0"]);
        six.enter("ann", "ann");
    }
}

#[test]
fn a_client_asks_five_times_and_returns_the_cookie() {
    let story = Story::new(Rule {
        rule: "a client sends JOIN with an empty body, at most five times, 500 ms apart, until it is answered; to CHALLENGE it answers with JOIN and that cookie, and counts anew; it changes its cookie at most five times; without an answer it exits with 1; so it does when its name is refused: `! reason`; what does not come from its server is nothing",
        why: "the question may be lost, and the answer too: who asks only once may wait for ever, and who asks for ever never says that nobody is there",
        read: "lessons/08_udp_chat.md, \"The code\"",
        by_hand: "nc -u -l 127.0.0.1 12345, then cargo run --example 08_udp_chat join ann; echo $?",
    });
    story.because("CHALLENGE asks whether the client receives at its address: it proves that by a JOIN with the cookie");
    let fickle = UdpPeer::mock_server(&story, "127.0.0.1", "fay");
    let fay = story.joins(PROGRAM, "fay", &fickle.address().to_string());
    fickle.is_asked("fay");
    let cookies: Vec<String> = (1..=8).map(|i| format!("{}{i}", story.word())).collect();
    let brings_back = |cookie: &str| {
        fickle.say(&message(CHALLENGE, "", cookie));
        fickle.gets_next(&message(JOIN, "fay", cookie));
    };
    brings_back(&cookies[0]);
    story.because("a server that was started again has another key, and so another cookie: the client brings that back too, and counts its tries anew. But a server that makes up cookies without end would keep it busy for ever, so it changes its cookie at most five times in one attempt to join");
    let (taken, too_many) = cookies.split_at(5);
    for cookie in &taken[1..] {
        brings_back(cookie);
    }
    for cookie in too_many {
        fickle.say(&message(CHALLENGE, "", cookie));
    }

    // The others ask meanwhile: all of them wait for 500 ms, again and again.
    let silent = UdpPeer::mock_server(&story, "127.0.0.1", "ann");
    let address = silent.address().to_string();
    let ann = story.joins(PROGRAM, "ann", &address);
    let deaf = UdpPeer::mock_server(&story, "127.0.0.1", "dan");
    let arguments = ["join", "dan", &deaf.address().to_string(), "--loss", "100"];
    let dan = story.client_with(PROGRAM, &arguments);
    let forgetful = UdpPeer::mock_server(&story, "127.0.0.1", "bob");
    let bob = story.joins(PROGRAM, "bob", &forgetful.address().to_string());

    story.because("only what comes from the server's own address and port is from the server; and after its CHALLENGE the client has a new question, and asks it up to five times too");
    for _ in 0..3 {
        forgetful.is_asked("bob");
    }
    let eve = forgetful.stranger("eve");
    let (cookie, forged) = (story.word(), story.word());
    eve.say(&message(CHALLENGE, "", &forged));
    eve.say(&welcome("bob", "bob, eve"));
    eve.say(&error("nobody wants you here"));
    forgetful.say(&message(CHALLENGE, "", &cookie));
    forgetful.gets_next(&message(JOIN, "bob", &cookie));

    story.because("five questions without an answer are enough: the program says so, and ends");
    ann.screen.expect_end();
    ann.expect_exit(1);
    let five = "5 times JOIN ann, with an empty body, 500 ms apart";
    let asked = silent.joins_left("ann");
    if asked.len() != 5 || asked.iter().any(|(body, _)| !body.is_empty()) {
        story.fails("ann --> server", five, &format!("{} times", asked.len()));
    }
    // Two seconds, but our own clock may be late for the first of them.
    let took = asked[4].1 - asked[0].1;
    if took < Duration::from_millis(500) {
        story.fails("ann --> server", five, &format!("all within {} ms", took.as_millis()));
    }
    let said = ann.warnings();
    if !said.contains(&address) || said.trim().lines().count() > 3 {
        let expected = format!("a line that says that nobody answers at {address}");
        story.fails("ann --> standard error", &expected, &format!("{said:?}"));
    }

    story.because("a sixth cookie is no answer, so nobody answers at this address");
    fay.screen.expect_end();
    fay.expect_exit(1);
    for (cookie, _) in fickle.joins_left("fay") {
        if too_many.iter().any(|new| new.as_bytes() == cookie) {
            let came = format!("JOIN fay with a sixth one, {:?}", String::from_utf8_lossy(&cookie));
            story.fails("fay --> server", "JOIN with five different cookies at most", &came);
        }
    }

    story.because(
        "after its CHALLENGE the client has a new question, and asks it up to five times too",
    );
    bob.screen.expect_end();
    bob.expect_exit(1);
    let mut asked = forgetful.joins_left("bob");
    // One that was underway may have come after the CHALLENGE.
    asked.retain(|(body, _)| !body.is_empty());
    if asked.len() != 4 || asked.iter().any(|(body, _)| body != cookie.as_bytes()) {
        let expected = format!("5 times JOIN bob {cookie:?} in all");
        story.fails("bob --> server", &expected, &format!("{} times", asked.len() + 1));
    }

    story.because("--loss 100 throws away all that the client would have sent, so nobody answers");
    dan.screen.expect_end();
    dan.expect_exit(1);
    if deaf.unread() > 0 {
        story.fails("dan --> server", "nothing", &format!("{} datagrams", deaf.unread()));
    }

    is_refused(&story);
}

/// The name of a client is refused; and IPv6 is an address, too.
#[track_caller]
fn is_refused(story: &Rc<Story>) {
    let cookie = story.word();
    story.because(
        "a client whose name is refused has no place in the room: it shows the reason, and ends",
    );
    let strict = UdpPeer::mock_server(story, "127.0.0.1", "cat");
    let cat = story.joins(PROGRAM, "cat", &strict.address().to_string());
    strict.is_asked("cat");
    strict.say(&message(CHALLENGE, "", &cookie));
    strict.gets_next(&message(JOIN, "cat", &cookie));
    strict.say(&error("somebody is here as CAT"));
    cat.screen.expect_line("! somebody is here as CAT");
    cat.screen.expect_end();
    cat.expect_exit(1);
    if has_ipv6() {
        story.because("an IPv6 address is written in brackets");
        let six = UdpPeer::mock_server(story, "::1", "eve");
        let _eve = story.joins(PROGRAM, "eve", &six.address().to_string());
        six.is_asked("eve");
    }
}

#[test]
fn a_client_shows_what_arrives_and_counts_what_is_missing() {
    let story = Story::new(Rule {
        rule: "a client shows what its server sends as the contract has it, cleaned; a gap in the sequences of a sender as `* 3 messages from alice lost`; the first from a sender starts the count; one that comes late is shown as usual; what comes from another address is nothing",
        why: "UDP loses datagrams and tells nobody: only the sequences show it, and each sender has its own. And anybody who knows the client's port can write to it",
        read: "lessons/08_udp_chat.md, \"Break it\"",
        by_hand: "cargo run --example 08_udp_chat serve 127.0.0.1:12345 --loss 30, and join it twice",
    });
    let server = UdpPeer::mock_server(&story, "127.0.0.1", "ann");
    let client = story.joins(PROGRAM, "ann", &server.address().to_string());
    server.admits("ann", "alice, ann");
    client.screen.expect_line("* welcome, ann (here: alice, ann)");
    let says = |who: &str, sequence: u32| {
        let word = story.word();
        server.say(&text(sequence, &word).by(who).at(AT_22_13_20));
        format!("[22:13:20] {who}: {word}")
    };
    let shown = |who: &str, sequence: u32| client.screen.expect_line(&says(who, sequence));
    let with_gap = |who: &str, sequence: u32, gap: &str| {
        // Which of the two comes first is free.
        shows_both(&story, &client, &format!("* {gap} lost"), &says(who, sequence));
    };
    let times = [(0, "00:00:00"), (86_399_999, "23:59:59"), (4_102_448_523_001, "01:02:03")];
    for (sequence, (time, shown)) in (101..).zip(times) {
        server.say(&text(sequence, "hello").by("anton").at(time));
        client.screen.expect_line(&format!("[{shown}] anton: hello"));
    }
    story.because("count for each sender from the first of its messages that comes: what was said before you joined is not lost");
    shown("alice", 17);
    shown("alice", 18);
    shown("bob", 1);
    with_gap("alice", 20, "1 message from alice");
    with_gap("alice", 24, "3 messages from alice");
    story.because("one that comes late is news too, and changes nothing in the count: the highest sequence is what the next one is compared with");
    shown("alice", 19);
    shown("alice", 22);
    shown("alice", 25);
    with_gap("bob", 3, "1 message from bob");
    shown("alice", 26);
    shown("bob", 4);
    with_gap("alice", 1027, "1000 messages from alice");

    story.because("a client takes datagrams from the address of its server only: connect the socket, or compare the sender's address and port");
    let eve = server.stranger("eve");
    let forged = [
        text(2000, "I am not alice").by("alice"),
        join("eve"),
        error("nobody wants you here"),
        left("", "server is shutting down"),
    ];
    for (sequence, forged) in (5..).zip(forged) {
        eve.say(&forged);
        shown("bob", sequence);
    }
    shown("alice", 1028);

    story.because("what is no message is nothing: no reason to stop, nor to answer");
    for (what, bytes, _) in no_messages() {
        server.sends(what, &bytes);
    }
    shown("alice", 1029);

    story.because("whatever a program prints, the terminal obeys: clean it again, however well the server does");
    for (sent, line) in [
        (join("bob"), "* bob joined"),
        (left("bob", "timed out"), "* bob left (timed out)"),
        (error("you are here as ann"), "! you are here as ann"),
        (error("\u{1b}[31mred\u{7}"), "! [31mred"),
        (left("bob", "\u{9b}2Jleft"), "* bob left (2Jleft)"),
        (
            text(104, "one\r\n[00:00:00] bob: two\u{202e}\ttab €").by("anton"),
            "[00:00:00] anton: one[00:00:00] bob: two\ttab €",
        ),
    ] {
        server.say(&sent);
        client.screen.expect_line(line);
    }
    for sequence in [1, 3] {
        server.say(&text(sequence, "hi").by("e\u{1b}v\u{202e}il").at(AT_22_13_20));
        match sequence {
            1 => client.screen.expect_line("[22:13:20] evil: hi"),
            _ => shows_both(&story, &client, "* 1 message from evil lost", "[22:13:20] evil: hi"),
        }
    }
    story.because("PING and PONG are for the programs; what is left of the chat is for the person");
    server.say(&ping(7));
    server.gets_next(&pong(7));
    server.say(&pong(8));
    shown("alice", 1030);

    story.because("the server says goodbye before it ends: then there is nothing to wait for, not even for the keyboard");
    server.say(&left("", "server is shutting down"));
    client.screen.expect_line("* server is shutting down");
    client.screen.expect_end();
    client.expect_exit(0);
}

/// Both lines come, in any order.
#[track_caller]
fn shows_both(story: &Story, client: &Program, one: &str, other: &str) {
    let first = client.screen.any_line(&format!("{one:?} and {other:?}"));
    for (this, that) in [(one, other), (other, one)] {
        if first == this.as_bytes() {
            story.step("client --> screen", format!("{this:?} ok"));
            return client.screen.expect_line(that);
        }
    }
    story.mismatch("client --> screen", one.as_bytes(), &first);
}

#[test]
fn a_client_numbers_what_is_typed_and_says_how_it_ended() {
    let story = Story::new(Rule {
        rule: "each typed line is one TEXT, numbered from 1; one of over 1148 bytes is refused on standard error and not sent; PING is answered with PONG of the same sequence; at the end of the input, or at `/quit`, the client sends LEAVE and exits with 0",
        why: "the numbers are all that the others have to see what is missing: they count what was sent, without a hole. And without a LEAVE they learn only after three heartbeats who has gone",
        read: "lessons/08_udp_chat.md, \"The code\"",
        by_hand: "cargo run --example 08_udp_chat serve, join it in two more terminals; type /quit in one",
    });
    let server = UdpPeer::mock_server(&story, "127.0.0.1", "ann");
    let client = story.joins(PROGRAM, "ann", &server.address().to_string());
    server.admits("ann", "ann");
    client.screen.expect_line("* welcome, ann (here: ann)");
    for sequence in 1..=3 {
        let word = story.word();
        client.types(&format!("{word}\n"));
        server.gets_next(&text(sequence, &word));
    }
    client.types("two at\nonce, caf\u{e9} €\n");
    server.gets_next(&text(4, "two at"));
    server.gets_next(&text(5, "once, caf\u{e9} €"));

    story.because("a datagram of the chat has at most 1200 bytes, so that it fits into one packet of (nearly) every network: 1148 are left for what is typed. Count bytes, not characters; and a number that is not sent would be a message lost");
    let mut sequence = 5;
    for fits in ["x".repeat(BODY_BYTES), "€".repeat(382) + "ab"] {
        sequence += 1;
        client.types(&format!("{fits}\n"));
        server.gets_next(&text(sequence, &fits));
    }
    for long in ["x".repeat(BODY_BYTES + 1), "€".repeat(383), "x".repeat(20_000)] {
        let before = client.warned();
        client.types(&format!("{long}\n"));
        client.expect_a_warning(before, "that the line is too long");
        let word = story.word();
        sequence += 1;
        client.types(&format!("{word}\n"));
        server.gets_next(&text(sequence, &word));
    }
    story.because("a client that does not answer PING is taken for gone");
    for number in [7, 0, u32::MAX] {
        server.say(&ping(number));
        server.gets_next(&pong(number));
    }

    story.because("the last line counts without its line end; then the client says LEAVE, and ends at once: nothing in UDP would tell it that all is over");
    client.types("last words");
    client.ends_input();
    server.gets_next(&text(sequence + 1, "last words"));
    server.gets_next(&message(LEAVE, "", ""));
    client.screen.expect_end();
    client.expect_exit(0);

    let server = UdpPeer::mock_server(&story, "127.0.0.1", "bob");
    let client = story.joins(PROGRAM, "bob", &server.address().to_string());
    story.because("before WELCOME the client is nobody, and what it says is answered with `join first` at best: what is typed so early waits");
    client.types("early\n");
    server.is_asked("bob");
    server.admits("bob", "ann, bob");
    client.screen.expect_line("* welcome, bob (here: ann, bob)");
    server.gets_next(&text(1, "early"));
    client.types("/quit\n");
    server.gets_next(&message(LEAVE, "", ""));
    client.screen.expect_end();
    client.expect_exit(0);
}
