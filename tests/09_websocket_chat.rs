//! The grading of step 09: ten tests, a point each. The test is the browser.
//!
//! For a program of your own, in any language:
//! `LAB="python3 my_09.py" cargo test --test 09_websocket_chat`

#![allow(clippy::unwrap_used)]

mod lab;

use lab::message::{
    CHALLENGE, HEADER_BYTES, LEAVE, LOGIN, Message, WELCOME, error, join, left, message, ping,
    pong, text, welcome,
};
use lab::websocket::{
    BINARY, CLOSE, FIRST_BINARY, FIRST_TEXT, KEYS, LAST, MORE, NO_CODE, PING_FRAME, PONG_FRAME,
    TEXT_FRAME, UPGRADE, announced, closing, masked, told_frame, unmasked,
};
use lab::{Inbox, NO_HEARTBEAT, Next, Peer, Program, Rule, Story};
use lab::{are_told, disconnects, resets, signs_of_life, silence, stops, two_seats};
use lab::{has_ipv6, numbers_are_checked, open_room, patience, quote};
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

const PROGRAM: &str = "09_websocket_chat";
const MIB: usize = 1024 * 1024;
const MOST_ECHOED: usize = 16 * MIB;

/// A server whose heartbeat is no part of the test.
#[track_caller]
fn serve(story: &Rc<Story>) -> Program {
    open_room(story, PROGRAM, &NO_HEARTBEAT)
}

#[test]
fn the_page_is_at_the_root_and_every_other_request_gets_its_status() {
    let story = Story::new(Rule {
        rule: "GET / is answered with the page, and a query changes nothing; another path 404, another method 405, a bad request 400, /chat without an upgrade to WebSocket 426, each with a line that says why",
        why: "a browser shows what it is told it gets: the status says whether it is what was asked for, Content-Type what it is, Content-Length (in bytes) where it ends",
        read: "lessons/09_websocket_chat.md, \"The idea\"",
        by_hand: "cargo run --example 09_websocket_chat, then curl -i http://127.0.0.1:8080/, and the same with /other, -X POST, /chat",
    });
    let server = serve(&story);
    let get = |path: &str, fields: &[&str]| server.get(path, fields);
    let page = |path: &str| {
        let page = server.asked(get(path, &["Accept: text/html"]));
        page.must_be(&[200]);
        let kind = page.field("Content-Type");
        if !kind.to_lowercase().starts_with("text/html") {
            let expected = "Content-Type: text/html";
            story.fails("server --> somebody", expected, &format!("Content-Type: {kind}"));
        }
        let text = String::from_utf8_lossy(&page.body).to_lowercase();
        if !text.contains("<html") && !text.contains("<!doctype html") {
            story.fails("server --> somebody", "a page of HTML", &text);
        }
    };
    page("/");
    story.because("what comes after the `?` is no part of the path");
    page("/?name=ann");
    page("/?back=/chat/../other");

    story.because("a path that leads nowhere is 404: also one that only begins like another");
    for path in ["/other", "/chatter", "/chat/room", "/x?/chat"] {
        server.refuses(404, get(path, &[]));
    }
    story.because("only GET is understood here");
    for method in ["POST", "PUT", "DELETE"] {
        server.refuses(405, server.head(&format!("{method} / HTTP/1.1"), &["Content-Length: 0"]));
    }
    story.because("a request begins with method, path and version, its fields have a name, a colon and a value, and HTTP/1.1 wants to know one Host: all else is answered with 400");
    let host = format!("Host: {}", server.address);
    for bad in [
        "hello\r\n\r\n".to_string(),
        format!("GET\r\n{host}\r\n\r\n"),
        format!("GET /\r\n{host}\r\n\r\n"),
        format!("GET / CHAT/1.1\r\n{host}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}\r\nthis is no field\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}\r\n: without a name\r\n\r\n"),
        "GET / HTTP/1.1\r\n\r\n".to_string(),
        format!("GET / HTTP/1.1\r\n{host}\r\nHost: chat.example\r\n\r\n"),
    ] {
        server.refuses(400, bad);
    }
    story.because(
        "an upgrade has a key of 16 bytes in base64: without one there is nothing to answer",
    );
    for key in [&[][..], &["Sec-WebSocket-Key: short"], &["Sec-WebSocket-Key: "]] {
        let fields = [&[UPGRADE[0], UPGRADE[1], UPGRADE[3]][..], key].concat();
        server.refuses(400, get("/chat", &fields));
    }

    story.because("/chat is for WebSocket alone: a client that asks without an upgrade is told to upgrade, and to what; one that asks for another version is told which one is spoken here");
    for path in ["/chat", "/chat?name=ann"] {
        server.refuses(426, get(path, &[])).must_have("Upgrade", "websocket");
    }
    for version in ["8", "12", "14", "130"] {
        let version = format!("Sec-WebSocket-Version: {version}");
        let fields = [UPGRADE[0], UPGRADE[1], UPGRADE[2], &version];
        server.refuses(426, get("/chat", &fields)).must_have("Sec-WebSocket-Version", "13");
    }
    story.because(
        "an upgrade takes both fields: `Upgrade: websocket`, and `Connection` with `Upgrade` in it",
    );
    for fields in [&UPGRADE[1..], &[UPGRADE[0], UPGRADE[2], UPGRADE[3]]] {
        server.asked(get("/chat", fields)).must_be(&[400, 426]);
    }

    story.because("each of them is somebody else: whatever one asks for, the next is served");
    page("/");
    server.admit("ann", "ann");
}

#[test]
fn an_upgrade_is_answered_with_its_own_key_and_only_for_the_servers_own_page() {
    let story = Story::new(Rule {
        rule: "an upgrade is answered with 101, Upgrade, Connection and the hash of its key, however the request arrives and is written; with an Origin that is not this server's own Host (`null` too) it is answered with 403; with a Host that is not one of this server's, with 421",
        why: "the hash shows that the server knows WebSocket: base64 of SHA-1 of the key followed by 258EAFA5-E914-47DA-95CA-C5AB0DC85B11. The Origin shows which page asks: any page may connect to any server, so the server has to look. The Host shows by which name the browser came here: another site may give its own name the address of this server",
        read: "lessons/09_websocket_chat.md, \"The idea\"",
        by_hand: r#"curl -i http://127.0.0.1:8080/chat -H "Upgrade: websocket" -H "Connection: Upgrade" -H "Sec-WebSocket-Version: 13" -H "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==""#,
    });
    let server = serve(&story);
    let ann = server.admit("ann", "ann");
    for (key, accept) in KEYS {
        let field = format!("Sec-WebSocket-Key: {key}");
        let fields = [UPGRADE[0], UPGRADE[1], &field, UPGRADE[3]];
        server.asked(server.get("/chat", &fields)).grants(key, accept);
    }
    story.because("names of fields have no case, nor have `websocket` and `upgrade`; there may be many fields in any order, several values in one, blanks around them or none; a query is no part of the path");
    let usual = server.get("/chat", &UPGRADE);
    let heads = [
        // In capitals, but for the path and the key.
        usual
            .to_uppercase()
            .replace("/CHAT", "/chat")
            .replace(&KEYS[0].0.to_uppercase(), KEYS[0].0),
        server.get(
            "/chat",
            &[
                "sec-websocket-version:13",
                "sec-websocket-key:dGhlIHNhbXBsZSBub25jZQ==",
                "connection:keep-alive, upgrade",
                "upgrade:WEBSOCKET",
            ],
        ),
        server.get(
            "/chat",
            &[
                "Cookie: a=b; c: d",
                UPGRADE[0],
                "Connection: keep-alive, Upgrade",
                "User-Agent: Mozilla/5.0",
                UPGRADE[2],
                "Sec-WebSocket-Version:   13  ",
            ],
        ),
        server.get("/chat?name=ann&x=/other", &UPGRADE),
    ];
    for (i, head) in heads.iter().enumerate() {
        let zed = server.upgraded_by("zed", head, &[]);
        comes_and_goes(&zed, &ann, u32::try_from(i).unwrap());
    }

    story.because("a head ends at its empty line, and not with a read: it may come byte by byte, and what comes after it belongs to the first frame");
    let stream = server.connect_stream();
    stream.set_nodelay(true).unwrap();
    story.step("zed --> server", "the head of an upgrade, in pieces, its end byte by byte");
    let (start, end) = usual.as_bytes().split_at(usual.len() - 6);
    let started = Instant::now();
    for piece in start.chunks(17).chain(end.chunks(1)) {
        let _ = (&stream).write_all(piece);
        // A head has 5 s, on slow machines too.
        if started.elapsed() < Duration::from_secs(2) {
            lab::drained(&stream);
        }
    }
    server.answer("zed", &stream).grants(KEYS[0].0, KEYS[0].1);
    let zed = server.peer("zed", stream);
    comes_and_goes(&zed, &ann, 10);
    let first = masked(BINARY, [1, 2, 3, 4], &join("zed").bytes());
    let second = masked(BINARY, [5, 6, 7, 8], &text(11, "at once").bytes());
    let both = [&first[..], &second].concat();
    for cut in [first.len(), both.len(), 1, first.len() + 3] {
        let zed = server.upgraded_by("zed", &usual, &both[..cut]);
        zed.sends("the rest", &both[cut..]);
        zed.gets_next(&welcome("zed", "ann, zed"));
        ann.gets_next(&join("zed"));
        ann.gets_next(&text(11, "at once").by("zed"));
        zed.say_goodbye();
        ann.gets_leave("zed");
    }

    only_its_own_page(&story, &server, &ann);
}

#[track_caller]
fn only_its_own_page(story: &Rc<Story>, server: &Program, ann: &Peer) {
    story.because("a page from elsewhere runs in the browser of somebody who may come in here: the browser says where the page is from, and the server must not let it in. `null` is a page from nowhere, or one that hides where it is from");
    let port = server.address.port();
    let foreign = [
        "null".to_string(),
        "http://evil.example".to_string(),
        format!("http://evil.example:{port}"),
        format!("http://127.0.0.1:{port}.evil.example"),
        format!("http://evil.example/127.0.0.1:{port}"),
        format!("http://x127.0.0.1:{port}"),
        format!("http://127.0.0.1:{}", if port == 1234 { 4321 } else { 1234 }),
        format!("http://127.0.0.1:{port}1"),
        format!("http://localhost:{port}"),
    ];
    for origin in &foreign {
        let origin = format!("Origin: {origin}");
        let fields = [&UPGRADE[..], &[&origin]].concat();
        server.refuses(403, server.get("/chat", &fields));
    }
    story.because("the server's own page comes from its own Host, as the browser was told to find it, over TLS perhaps, and capitals mean nothing there; a client that sends no Origin is no browser");
    for (number, (host, origin)) in (20..).zip([
        ("127.0.0.1", "http://127.0.0.1"),
        ("localhost", "http://localhost"),
        ("LOCALHOST", "https://LocalHost"),
    ]) {
        let own = from_page(&format!("{host}:{port}"), &format!("{origin}:{port}"));
        comes_and_goes(&server.upgraded_by("zed", &own, &[]), ann, number);
    }
    story.because("the owner of evil.example may let that name point to the address of this server (\"DNS rebinding\"). Then Host and Origin are equal, but the page is still another site's: so the server must know its own names");
    is_unknown(server, "evil.example");
    is_unknown(server, "127.0.0.1.evil.example");
    is_unknown(server, "chat.example");
    story.because("--host NAME adds a name, with any port: capitals mean nothing in it");
    let usual = ["127.0.0.1:0", "--heartbeat-ms", "3600000"];
    let named = story.serve(PROGRAM, &[&usual[..], &["--host", "chat.example"]].concat());
    let bob = named.admit("ann", "ann");
    for (number, (host, origin)) in (20..).zip([
        ("chat.example", "https://chat.example"),
        ("Chat.Example:8443", "http://chat.EXAMPLE:8443"),
        ("localhost", "http://localhost"),
    ]) {
        let own = from_page(host, origin);
        comes_and_goes(&named.upgraded_by("zed", &own, &[]), &bob, number);
    }
    is_unknown(&named, "evil.example");
}

/// The upgrade that a page of this origin asks for.
fn from_page(host: &str, origin: &str) -> String {
    let fields = UPGRADE.join("\r\n");
    format!("GET /chat HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n{fields}\r\n\r\n")
}

/// A page gets nothing from a server that does not have this name.
#[track_caller]
fn is_unknown(server: &Program, name: &str) {
    let host = format!("{name}:{}", server.address.port());
    server.asked(from_page(&host, &format!("http://{host}"))).must_be(&[403, 421]);
    server.asked(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).must_be(&[403, 421]);
}

/// Zed joins, says something to ann, and goes.
#[track_caller]
fn comes_and_goes(zed: &Peer, ann: &Peer, number: u32) {
    zed.say(&join("zed"));
    zed.gets_next(&welcome("zed", "ann, zed"));
    zed.say(&text(number, "hello"));
    ann.gets_next(&join("zed"));
    ann.gets_next(&text(number, "hello").by("zed"));
    zed.say_goodbye();
    ann.gets_leave("zed");
}

#[test]
fn a_request_head_has_8_kib_and_5_seconds_and_a_room_has_its_limit() {
    let story = Story::new(Rule {
        rule: "a request's head of more than 8 KiB is answered with 431, one that is not complete within 5 s with 408, an upgrade past --limit with 503; nobody else waits for them",
        why: "before the upgrade a client is nobody, and may be anything: a limit for the bytes keeps it from filling the memory, one for the time (of the whole head, not of each read) from holding a thread for ever",
        read: "lessons/09_websocket_chat.md, \"Break it\"",
        by_hand: "cargo run --example 09_websocket_chat, then nc 127.0.0.1 8080, and wait",
    });
    // This one is slow all the while.
    let server = serve(&story);
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    let started = Instant::now();
    let slow = server.connect_stream();
    let silent = server.connect_stream();
    story.step("slow --> server", "GET /chat HTTP/1.1, and no end of it");
    (&slow).write_all(b"GET /chat HTTP/1.1\r\nX: ").unwrap();

    story.because("more than 8 KiB are refused, however they are made up, though the client sends on: read on for a moment and throw away, or closing is a reset that overtakes the answer");
    let long = format!("X-Long: {}", "x".repeat(9000));
    let many = format!("X-Field: {}", "x".repeat(90));
    let many = vec![many.as_str(); 100];
    server.refuses(431, server.get("/", &[&long]));
    server.refuses(431, server.get("/", &many));
    server.refuses(431, server.get("/chat", &[&UPGRADE[..], &many].concat()));
    // The end of this head never comes.
    let endless = [
        format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(2 * MIB)),
        "GET / HTTP/1.1\r\n".to_string() + &"X: y\r\n".repeat(2 * MIB / 6),
    ];
    for head in endless {
        if (0..3).all(|_| server.refuses_flood(431, &head).reset) {
            story.fails("server --> somebody", "the end of the stream", "a reset, three times");
        }
    }
    story.because("up to 8 KiB are taken");
    let most = format!("X-Long: {}", "x".repeat(7700));
    server.asked(server.get("/", &[&most])).must_be(&[200]);
    let head = server.get("/chat", &[&UPGRADE[..], &[&most]].concat());
    let zed = server.upgraded_by("zed", &head, &[]);
    zed.closes(1000, "");
    zed.gets_close(&[1000]);

    full_room(&story);

    story.because("5 s are for the whole head: each byte that comes must not start them anew");
    let answers = Inbox::of(slow.try_clone().unwrap(), ());
    let who = "server --> slow";
    let status = loop {
        match answers.line_within(Duration::from_millis(250)) {
            Next::Some(line) => break String::from_utf8_lossy(&line).trim_end().to_string(),
            Next::End(..) => story.fails(who, "HTTP 408", "the end of the stream"),
            Next::Silence(_) if started.elapsed() < Duration::from_secs(5) + patience() => {}
            Next::Silence(_) => {
                let received = format!("nothing, for {:?}", started.elapsed());
                story.fails(who, "HTTP 408 after 5 s", &received);
            }
        }
        story.step("slow --> server", "x");
        let _ = (&slow).write_all(b"x");
    };
    if started.elapsed() < Duration::from_millis(4500) || status.split(' ').nth(1) != Some("408") {
        let received = format!("\"{status}\", after {:?}", started.elapsed());
        story.fails(who, "HTTP 408, after 5 s and not before", &received);
    }
    story.step(who, "HTTP 408 ok");
    story
        .because("a client that connects and says nothing at all has no more time than the others");
    lab::ends(&story, "server --> silent", silent);
    // The limit is not for a client that has come in.
    bob.say(&text(1, "still here"));
    ann.gets_next(&text(1, "still here").by("bob"));
}

#[track_caller]
fn full_room(story: &Rc<Story>) {
    story.because("past --limit an upgrade is answered with 503; a seat is free when the others have been told that somebody left, however that was");
    let server = open_room(story, PROGRAM, &["--limit", "2", NO_HEARTBEAT[0], NO_HEARTBEAT[1]]);
    // These ask for nothing yet, and take no seat. Nor does the page.
    let asking = [server.connect_stream(), server.connect_stream()];
    let _ = (&asking[0]).write_all(b"GET /chat HTTP/1.1\r\n");
    lab::drained(&asking[0]);
    lab::accepted(server.address.port());
    let full = || {
        server.refuses(503, server.get("/chat", &UPGRADE));
        server.asked(server.get("/", &[])).must_be(&[200]);
    };
    two_seats(
        story,
        &server,
        full,
        &[
            ("a close frame", &|bob| bob.closes(1001, "")),
            ("the end of its stream", &Peer::close_sending),
            ("a text message", &|bob| bob.sends("hello", &bob.frame(TEXT_FRAME, "hello"))),
        ],
    );
}

#[test]
fn a_frame_is_a_frame_however_it_arrives() {
    let story = Story::new(Rule {
        rule: "a frame ends where its length says, and a message with the frame that has FIN: several may come with one read, and one in many, cut at any byte; control frames may come between the fragments of a message",
        why: "a frame is no more one read than a line or a header was. Its length is in 7, 16 or 64 bits, then comes the key; byte n of the payload is combined with byte n mod 4 of the key. Continuations are collected until FIN",
        read: "lessons/09_websocket_chat.md, \"The code\"",
        by_hand: "cargo run --example 09_websocket_chat, and http://127.0.0.1:8080/ in two windows",
    });
    let server = serve(&story);
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    story.because("the key is drawn anew for each frame: any key, and nothing of the payload is what it looks like");
    for (n, key) in (1..).zip([[0; 4], [0xff; 4], [1, 2, 3, 4], *b"CH\x01\x02", [0x80, 0, 0, 0x7f]])
    {
        let said = text(n, "masked with this");
        let told = format!("{}, masked with {key:02x?}", said.told());
        bob.sends(told, &masked(BINARY, key, &said.bytes()));
        ann.gets_next(&said.by("bob"));
    }

    story.because("lengths up to 125 have 7 bits, those up to 65535 have 16 after a 126, in network byte order: in both directions");
    for (n, size) in (10..).zip([1, 2, 3, 4, 102, 103, 104, 105, 106, 107, 235, 236, 4096]) {
        // From bob 20 bytes more, to ann 23.
        let said = text(n, "x".repeat(size));
        bob.sends(format!("TEXT {n}, of {} bytes in all", size + HEADER_BYTES), &bob.encode(&said));
        ann.gets_next(&said.by("bob"));
    }
    let most = text(30, "x".repeat(4096)).by("b".repeat(32));
    bob.sends("TEXT 30 of 4148 bytes in all", &bob.encode(&most));
    ann.gets_next(&most.by("bob"));

    story.because("TCP forgets where each write ended: read until the header is there, then until the payload is; what comes after it is the next frame");
    let many: Vec<Message> = (100..400).map(|n| text(n, format!("number {n}"))).collect();
    let frames: Vec<u8> = many.iter().flat_map(|m| bob.encode(m)).collect();
    bob.sends("TEXT 100 to TEXT 399, a frame each (in one piece)", &frames);
    for text in many {
        ann.gets_next(&text.by("bob"));
    }
    let whole = text(500, "a euro: € ".to_string() + &"x".repeat(100));
    let length = bob.encode(&whole).len();
    // Through the header, the key, the message's own header; and near the end.
    for cut in (1..32).chain([63, length - 2, length - 1]) {
        let frame = bob.encode(&whole);
        bob.sends_part(format!("bytes 1 to {cut} of a frame of {length}"), &frame[..cut]);
        if cut % 10 == 0 {
            ann.say(&text(500, "half a frame stops nobody"));
            bob.gets_next(&text(500, "half a frame stops nobody").by("ann"));
        }
        bob.sends_part(format!("bytes {} to {length}", cut + 1), &frame[cut..]);
        ann.gets_next(&whole.clone().by("bob"));
    }
    let frame = bob.encode(&whole);
    for at in 0..32 {
        bob.sends_part(format!("byte {}", at + 1), &frame[at..=at]);
    }
    bob.sends_part("the rest of it", &frame[32..]);
    ann.gets_next(&whole.clone().by("bob"));

    fragments(&story, &ann, &bob, &whole);
    bob.say_goodbye();
    ann.gets_next(&left("bob", "left"));
}

#[track_caller]
fn fragments(story: &Story, ann: &Peer, bob: &Peer, whole: &Message) {
    story.because("the parts of a fragmented message are put together, whatever their sizes (0 too): the first says what it is, continuations have the opcode 0, the last has FIN");
    let bytes = whole.bytes();
    for cut in [0, 1, 19, 20, 33, bytes.len() - 1, bytes.len()] {
        let frames = [bob.frame(FIRST_BINARY, &bytes[..cut]), bob.frame(LAST, &bytes[cut..])];
        bob.sends(format!("TEXT 500 in two fragments, the first of {cut} bytes"), &frames.concat());
        ann.gets_next(&whole.clone().by("bob"));
    }
    let first = bob.frame(FIRST_BINARY, &bytes[..1]);
    let others = bytes[1..].iter().flat_map(|byte| bob.frame(MORE, [*byte]));
    let singles: Vec<u8> = first.into_iter().chain(others).chain(bob.frame(LAST, "")).collect();
    bob.sends("TEXT 500 in fragments of a byte, and an empty one", &singles);
    ann.gets_next(&whole.clone().by("bob"));

    story.because("a ping is answered with a pong of the same payload, at once, also between the fragments of a message: the message goes on after it");
    for payload in [&b""[..], b"p", b"\x00\xff\x80 ping", &[b'x'; 125]] {
        bob.sends("a ping", &bob.frame(PING_FRAME, payload));
        bob.gets_pong(payload);
    }
    let word = story.word();
    bob.sends("the first fragment of TEXT 500", &bob.frame(FIRST_BINARY, &bytes[..30]));
    bob.sends("a ping", &bob.frame(PING_FRAME, &word));
    bob.gets_pong(word.as_bytes());
    bob.sends(
        "the second fragment, a pong, a ping",
        &[
            bob.frame(MORE, &bytes[30..60]),
            bob.frame(PONG_FRAME, "nobody asked"),
            bob.frame(PING_FRAME, "again"),
        ]
        .concat(),
    );
    bob.gets_pong(b"again");
    // In the middle of a message of its own, a client is still told of others.
    ann.say(&text(501, "go on"));
    bob.gets_next(&text(501, "go on").by("ann"));
    bob.sends("the last fragment", &bob.frame(LAST, &bytes[60..]));
    ann.gets_next(&whole.clone().by("bob"));
    let pinging = bob.frame(PING_FRAME, "in pieces");
    for at in 0..pinging.len() {
        bob.sends_part(format!("byte {} of a ping", at + 1), &pinging[at..=at]);
    }
    bob.gets_pong(b"in pieces");
    story.because("a pong that nobody asked for is ignored (section 5.5.3)");
    bob.sends(
        "a pong, a ping",
        &[bob.frame(PONG_FRAME, ""), bob.frame(PING_FRAME, "last")].concat(),
    );
    bob.gets_pong(b"last");
    bob.has_no_pong();
}

#[test]
fn a_violation_of_the_protocol_is_closed_with_its_code() {
    let story = Story::new(Rule {
        rule: "what breaks RFC 6455 is closed with 1002, text that is not UTF-8 with 1007, more than 4148 bytes with 1009, a text message with ERROR `binary messages only` and 1003, what is no message with ERROR and 1008; the others get LEAVE with `protocol error`",
        why: "a header says all that is needed to refuse a frame: reserved bits, opcode, mask, length. Look before you wait for the payload, or make room for it",
        read: "lessons/09_websocket_chat.md, \"Break it\"",
        by_hand: "cargo run --example 09_websocket_chat; then new WebSocket(\"ws://127.0.0.1:8080/chat\").send(\"text\") in the console of a page from there",
    });
    let server = serve(&story);
    let ann = server.admit("ann", "ann");
    let frame = |first: u8, payload: &[u8]| masked(first, [9, 8, 7, 6], payload);
    let hello = text(2, "hello").bytes();
    let is_closed = |why: &str, bytes: &[u8], after: &[u8], codes: &[u16]| {
        story.because(format!("{why}: the server closes with that code at once, and does nothing of what comes after it"));
        let zed = server.admit("zed", "ann, zed");
        ann.gets_next(&join("zed"));
        let before = text(1, story.word());
        zed.say(&before);
        ann.gets_next(&before.by("zed"));
        if bytes[0] == CLOSE {
            // It need not be answered.
            zed.has_said_close();
        }
        let more = if after.is_empty() { "" } else { ", TEXT 3, a ping" };
        zed.expects_no_pong();
        zed.sends(format!("{}{more}", told_frame(bytes)), &[bytes, after].concat());
        zed.gets_close(codes);
        ann.gets_next(&left("zed", "protocol error"));
    };
    let after = frame(BINARY, &text(3, "after it nothing counts").bytes());
    let after = [after, frame(PING_FRAME, b"nor this")].concat();
    let begun = frame(FIRST_BINARY, &hello[..9]);
    let (half, rest) = (pong(1).bytes()[..9].to_vec(), pong(1).bytes()[9..].to_vec());
    let whole = [frame(FIRST_BINARY, &half), frame(LAST, &rest)].concat();
    for (why, bytes) in [
        ("a client masks its frames", unmasked(BINARY, &hello)),
        ("a client masks its control frames too", unmasked(PING_FRAME, b"")),
        ("no extension was agreed on: RSV1 is 0", frame(BINARY | 0x40, &hello)),
        ("RSV2 is 0", frame(BINARY | 0x20, &hello)),
        ("RSV3 is 0, in control frames too", frame(PING_FRAME | 0x10, b"")),
        ("there is no opcode 3", frame(0x83, &hello)),
        ("there is no opcode 7", frame(0x87, b"")),
        ("there is no opcode 11", frame(0x8b, b"")),
        ("there is no opcode 15", frame(0x8f, b"")),
        ("there is nothing to be continued", frame(LAST, &hello)),
        ("there is nothing to be continued any more", [whole, frame(MORE, b"")].concat()),
        ("the message before has not ended", [begun, frame(BINARY, &hello)].concat()),
        ("a control frame is never fragmented", frame(0x09, b"ping")),
        ("a control frame has at most 125 bytes", frame(PING_FRAME, &[b'x'; 126])),
        ("a length has no more bytes than it needs", long_form(2, &hello)),
        ("a length that fits into 16 bits has no 64", long_form(8, &hello.repeat(7))),
        ("a close code has two bytes", frame(CLOSE, b"\x03")),
    ] {
        is_closed(why, &bytes, &after, &[1002]);
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2999] {
        let bytes = frame(CLOSE, &code.to_be_bytes());
        is_closed("that code may not be in a close frame", &bytes, &after, &[1002]);
    }
    let bytes = frame(CLOSE, b"\x03\xe8\xff\xfe");
    is_closed("the reason of a close frame is UTF-8", &bytes, &after, &[1007]);
    for bytes in [&b"caf\xe9"[..], b"\xed\xa0\x80", b"\xff"] {
        is_closed("what is no UTF-8 is no text", &frame(TEXT_FRAME, bytes), &after, &[1007]);
    }
    let most = "a message has at most 4148 bytes";
    is_closed(most, &frame(BINARY, &[0; 4149]), &after, &[1009]);
    let parts = [frame(FIRST_BINARY, &[b'C'; 2000]), frame(MORE, &[b'H'; 2000])].concat();
    let parts = [parts, frame(MORE, &[0; 149])].concat();
    is_closed(
        "a message has at most 4148 bytes in all its fragments together",
        &parts,
        &after,
        &[1009],
    );
    // What is announced here never comes.
    for (first, length, codes) in [
        (PING_FRAME, 126, &[1002][..]),
        (BINARY, 70_000, &[1009]),
        (BINARY, 1 << 32, &[1009]),
        (BINARY, 1 << 62, &[1009]),
        (BINARY, 1 << 63, &[1002, 1009]),
        (BINARY, u64::MAX, &[1002, 1009]),
    ] {
        let why = format!("a length of {length} says enough: what is too long is not waited for");
        is_closed(&why, &announced(first, length), b"", codes);
    }
    no_messages_of_the_chat(&story, &server, &ann);
    last_words(&story, &server, &ann);
}

#[track_caller]
fn no_messages_of_the_chat(story: &Story, server: &Program, ann: &Peer) {
    story.because("the chat has its own rules too: each message of it is one binary message, no more and no less; a text message is answered with ERROR `binary messages only` and closed with 1003");
    let zed = server.admit("zed", "ann, zed");
    ann.gets_next(&join("zed"));
    let nobody = server.visit("nobody");
    for peer in [&zed, &nobody] {
        peer.sends("a text message", &peer.frame(TEXT_FRAME, "caf\u{e9} \u{1f980}"));
        peer.gets_next(&error("binary messages only"));
        peer.gets_close(&[1003]);
    }
    ann.gets_next(&left("zed", "protocol error"));
    let hello = text(2, "hello").bytes();
    let other = |at: usize, byte: u8| {
        let mut other = hello.clone();
        other[at] = byte;
        other
    };
    for (why, bytes) in [
        ("an empty message is no message of the chat", Vec::new()),
        ("a header has 20 bytes", hello[..HEADER_BYTES - 1].to_vec()),
        ("the body is shorter than its length says", hello[..hello.len() - 1].to_vec()),
        ("there is a byte after the message", [&hello[..], b"x"].concat()),
        ("there are two messages in one", hello.repeat(2)),
        ("the magic must be \"CH\"", other(0, b'c')),
        ("the version must be 1", other(2, 2)),
        ("there is no kind 77", other(3, 77)),
        ("a sender has at most 32 bytes", join("x".repeat(33)).bytes()),
        ("the body must be UTF-8", text(2, b"caf\xe9").bytes()),
    ] {
        story.because(format!("{why}: ERROR says so, and the server closes with 1008"));
        let zed = server.admit("zed", "ann, zed");
        ann.gets_next(&join("zed"));
        let after = [zed.encode(&text(9, "after it")), zed.frame(PING_FRAME, "")].concat();
        zed.expects_no_pong();
        let frames = [zed.frame(BINARY, &bytes), after].concat();
        zed.sends(format!("{}, TEXT 9, a ping", quote(&bytes)), &frames);
        zed.gets_error(&format!("since {why}"));
        zed.gets_close(&[1008]);
        ann.gets_next(&left("zed", "protocol error"));
    }
}

#[track_caller]
fn last_words(story: &Story, server: &Program, ann: &Peer) {
    story.because("closing a connection with unread bytes is a reset, which may overtake the last words: close the sending half first, read on and throw away for a moment, and close then");
    let flooded = || {
        let zed = server.admit("zed", "ann, zed");
        ann.gets_next(&join("zed"));
        story.step("zed --> server", "a text message, and 2 MiB more");
        let after = zed.encode(&text(4, "x".repeat(4000))).repeat(500);
        let sending = server.floods(&zed.stream, &[zed.frame(TEXT_FRAME, "hello"), after].concat());
        zed.gets_next(&error("binary messages only"));
        zed.gets_close(&[1003]);
        ann.gets_next(&left("zed", "protocol error"));
        let was_reset = zed.was_reset();
        drop(zed);
        sending.join().unwrap() || was_reset
    };
    // On a slow machine its moment may be over too soon, but not each time.
    if (0..3).all(|_| flooded()) {
        story.fails("server --> zed", "the end of the stream", "a reset, three times");
    }
    story.because(
        "a client that neither answers a close frame nor goes is waited for, but not for ever",
    );
    let zed = server.admit("zed", "ann, zed");
    ann.gets_next(&join("zed"));
    zed.falls_silent();
    zed.sends("a text message", &zed.frame(TEXT_FRAME, "hello"));
    zed.gets_next(&error("binary messages only"));
    zed.gets_close(&[1003]);
    ann.gets_next(&left("zed", "protocol error"));
    story.because("the server reads on for at most 1 s, and then closes the connection altogether, though the client does not");
    story.step("zed --> server", "sends on");
    if !lab::refused(&zed.stream) {
        story.fails("zed --> server", "a reset, after 1 s", "all that is sent is taken");
    }
}

/// A binary frame whose length has so many bytes, though it needs fewer.
fn long_form(bytes: usize, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_be_bytes();
    let header = [BINARY, 0x80 | if bytes == 2 { 126 } else { 127 }];
    [&header[..], &length[8 - bytes..], &[0; 4], payload].concat()
}

#[test]
fn the_room_is_the_same_as_in_the_steps_before() {
    let story = Story::new(Rule {
        rule: "JOIN is answered with WELCOME and told to the others; TEXT goes to every other client under the name and clock of the server, cleaned; before WELCOME there is ERROR `join first`, and after it `you are here as NAME`: each message is one binary WebSocket message",
        why: "frames are a way to carry messages, no more: the room needs to know nothing of them",
        read: "lessons/09_websocket_chat.md, \"The code\"",
        by_hand: "cargo run --example 09_websocket_chat, and http://127.0.0.1:8080/ in two windows",
    });
    let server = serve(&story);
    let early = server.visit("early");
    let [ann, bob, eve] = server.admit_all(["ann", "bob", "eve"]);
    for sequence in [1, 2, 0x0102_0304, u32::MAX, 3] {
        let word = story.word();
        // Ann says that she is bob, and that it is 1970.
        ann.say(&text(sequence, &word).by("bob").at(12345));
        for other in [&bob, &eve] {
            let came = other.gets_next(&text(sequence, &word).by("ann"));
            other.expect_now(&came);
        }
        // Bob answers after he has heard it: an echo to ann would come first.
        bob.say(&text(7, format!("re: {word}")));
        for other in [&ann, &eve] {
            other.gets_next(&text(7, format!("re: {word}")).by("bob"));
        }
    }
    story.because("several messages in one segment are several messages, each in its own frame: they are handled in order, and passed on each in a binary message of its own");
    let many: Vec<Message> = (100..200).map(|n| text(n, format!("number {n}"))).collect();
    ann.say_at_once(&many);
    for said in many {
        for other in [&bob, &eve] {
            other.gets_next(&said.clone().by("ann"));
        }
    }

    story.blame("what one client sends, the browsers and terminals of all others show: control characters but for tab, and the bidirectional overrides, are taken out before a text is passed on; all else stays as it is. What is empty then is dropped", "lessons/PROTOCOL.md, \"What may not pass\"");
    for (said, heard) in [
        ("\x1b[31mred\x1b[0m \x07bell \0nul\x7f\r\n", "[31mred[0m bell nul"),
        ("c1:\u{80}\u{9b}31m. \u{202e}evil\u{2066}", "c1:31m. evil"),
        (
            "a\tb caf\u{e9} 日本 \u{1f980} <b>&amp;</b>",
            "a\tb caf\u{e9} 日本 \u{1f980} <b>&amp;</b>",
        ),
    ] {
        ann.say_at_once(&[text(1, ""), text(2, "\u{1b}\u{202e}"), text(3, said)]);
        bob.gets_next(&text(3, heard).by("ann"));
    }

    story.blame("a client that has not joined may ask for a name, ping, and leave; all else is answered with ERROR `join first`, and the connection goes on", "lessons/09_websocket_chat.md, \"The idea\"");
    early.say_at_once(&[text(1, "hello?"), pong(1), error("yours"), ping(7)]);
    early.gets_next(&error("join first"));
    early.gets_next(&pong(7));
    for name in ["", "an na", "z\ted", "a,b", "ANN", "z\u{202e}"] {
        early.say(&join(name));
        early.gets_error(&format!("since {name:?} is no name, or somebody's"));
    }
    early.say(&join("Zed"));
    let welcomed = early.gets_next(&welcome("Zed", "Zed, ann, bob, eve"));
    early.expect_no_number(&welcomed);
    early.expect_now(&welcomed);
    for other in [&ann, &bob] {
        let told = other.gets(&join("Zed"));
        other.expect_no_number(&told);
    }
    story.because("a client that has joined can't join again, and kinds that are the server's own are refused; PING is answered with PONG of the same sequence, PONG and ERROR never. The connection goes on");
    early.say_at_once(&[join("Zoe"), ping(8)]);
    early.gets_next(&error("you are here as Zed"));
    early.gets_next(&pong(8));
    for kind in [WELCOME, CHALLENGE, LOGIN] {
        early.say(&message(kind, "ann", "ann"));
        early.gets_error(&format!("since kind {kind} is not for clients in this step"));
    }
    early.say_at_once(&[pong(5), error("yours"), ping(u32::MAX)]);
    early.gets_next(&pong(u32::MAX));
    early.say(&text(9, "at last"));
    for other in [&ann, &bob] {
        other.gets(&text(9, "at last").by("Zed"));
    }
    story.because(
        "LEAVE is a goodbye: the others are told, the server closes, and the name is free",
    );
    early.say_goodbye();
    for other in [&ann, &bob] {
        other.gets(&left("Zed", "left"));
    }
    let zed = server.admit("zed", "ann, bob, eve, zed");
    ann.gets(&join("zed"));
    // One who goes as nobody is nobody's news.
    let nobody = server.visit("nobody");
    nobody.say_goodbye();
    zed.say_goodbye();
    ann.gets_next(&left("zed", "left"));
    // To the end, to see that nothing came twice or came back.
    ann.say_goodbye();
}

#[test]
fn each_disconnect_is_announced_once_with_its_reason() {
    let story = Story::new(Rule {
        rule: "the others get LEAVE: `left` after a close frame, with any code that is allowed or none, and after a LEAVE; `disconnected` where the stream ends without either; `too slow` past 1 MiB in the server's queue. A close frame is answered with one of the same code",
        why: "a browser that closes a window says so in a close frame; one that crashes does not. The end that TCP sees is the same",
        read: "lessons/09_websocket_chat.md, \"The idea\"",
        by_hand: "cargo run --example 09_websocket_chat, and http://127.0.0.1:8080/ in two windows: close one",
    });
    let server = serve(&story);
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    for (code, reason) in [
        (1000, ""),
        (1000, "caf\u{e9}"),
        (1001, "the window is closed"),
        (1003, ""),
        (1011, ""),
        (3000, ""),
        (4999, "x"),
        (NO_CODE, ""),
    ] {
        story.because("a close frame is a goodbye, whatever its code: it is answered with the same code, and the server ends the stream");
        let zed = server.admit("zed", "ann, bob, zed");
        let said = text(1, story.word());
        zed.has_said_close();
        let frames = [
            zed.encode(&said),
            zed.frame(CLOSE, closing(code, reason)),
            zed.encode(&text(2, "after it nothing counts")),
        ];
        zed.sends(format!("{}, close {code} \"{reason}\", TEXT 2", said.told()), &frames.concat());
        zed.gets_close(if code == NO_CODE {
            &[1000, NO_CODE]
        } else {
            std::slice::from_ref(&code)
        });
        are_told([&ann, &bob], &said, "left");
    }
    let half = text(2, "half a message").bytes();
    let leave = masked(BINARY, [1; 4], &message(LEAVE, "", "").bytes());
    let close = masked(CLOSE, [2; 4], &closing(1000, ""));
    let fragment = masked(FIRST_BINARY, [3; 4], &half[..9]);
    story.because("what was said before the end is passed on before it; only a goodbye is `left`, a stream that just ends is `disconnected`, inside a frame or a message too. The first that ends a connection is its reason");
    disconnects(
        &story,
        &server,
        [&ann, &bob],
        &[
            ("LEAVE", leave.clone(), "left"),
            ("LEAVE and close 1000", [&leave[..], &close].concat(), "left"),
            ("a fragment, and close 1000", [&fragment[..], &close].concat(), "left"),
            ("nothing more", Vec::new(), "disconnected"),
            ("a byte of a frame", vec![BINARY], "disconnected"),
            ("half a frame", masked(BINARY, [4; 4], &half)[..20].to_vec(), "disconnected"),
            ("half of a close frame", close[..7].to_vec(), "disconnected"),
            ("a fragment of a message", fragment.clone(), "disconnected"),
        ],
    );
    resets(&story, &server, [&ann, &bob]);
    story.because("a client that never joined is not announced");
    let nobody = server.visit("nobody");
    nobody.closes(1000, "");
    nobody.gets_close(&[1000]);
    drop(server.visit("nobody"));
    lab::never_reads(&story, &server, [&ann, &bob], Some("too slow"));
    story.because("LEAVE is a goodbye too: the server closes with 1000, and nobody is told twice");
    bob.say(&message(LEAVE, "", ""));
    bob.gets_close(&[1000]);
    ann.gets_next(&left("bob", "left"));
}

#[test]
fn a_silent_client_is_pinged_and_timed_out_and_any_frame_is_a_sign_of_life() {
    let story = Story::new(Rule {
        rule: "a client that is silent for one heartbeat gets a WebSocket ping; after two more silent heartbeats it is disconnected, and the others get LEAVE with the body `timed out`. A client that has not joined is treated in the same way, and nobody is told. Any frame is a sign of life",
        why: "browsers answer WebSocket's ping by themselves, but know nothing of the chat's PING. What the server sends to a client says nothing about it; whatever comes from it does",
        read: "lessons/09_websocket_chat.md, \"The idea\"",
        by_hand: "cargo run --example 09_websocket_chat 127.0.0.1:8080 --heartbeat-ms 1000, and http://127.0.0.1:8080/ in two browsers; stop one of them with kill -STOP",
    });
    silence(&story, PROGRAM);

    story.because("any frame is a sign of life: a pong, a ping, any message of the chat, a fragment of one. The heartbeat looks for those who are gone, not for those who keep quiet");
    let says = |message: Message| move |peer: &Peer, _: u32| peer.encode(&message);
    let frame =
        |first: u8, payload: &'static str| move |peer: &Peer, _: u32| peer.frame(first, payload);
    // Of a message that never ends, and would be too long in the end.
    let fragments =
        |peer: &Peer, round: u32| peer.frame(if round == 0 { FIRST_BINARY } else { MORE }, "CH");
    signs_of_life(
        &story,
        PROGRAM,
        &[
            ("ann, who sends pongs,", &frame(PONG_FRAME, "")),
            ("bob, who sends pings,", &frame(PING_FRAME, "I am here")),
            ("eve, who says TEXT,", &says(text(1, "I am here"))),
            ("fay, who says ERROR,", &says(error("I am here"))),
            ("gus, who says PONG,", &says(pong(1))),
            ("hal, who says JOIN again,", &says(join("hal"))),
            ("ida, who sends fragments,", &fragments),
            ("somebody who has not joined and sends pongs", &frame(PONG_FRAME, "x")),
            ("somebody who has not joined and says PING", &says(ping(1))),
        ],
    );
}

#[test]
fn a_server_that_stops_says_goodbye_in_a_message_and_in_a_close_frame() {
    let story = Story::new(Rule {
        rule: "`/quit`, SIGTERM and Ctrl-C stop the server: every client gets LEAVE with an empty sender and the body `server is shutting down`, a close frame, and the end of the stream; it prints `bye` and exits with 0 after 3 s at most. Arguments are as in step 01",
        why: "the message is for the person, the close frame for the browser: without it, it would take the end for an accident. And a client that does not answer must not hold up the stop",
        read: "lessons/09_websocket_chat.md, \"Run it\"",
        by_hand: "cargo run --example 09_websocket_chat, and http://127.0.0.1:8080/; Ctrl-C in the terminal",
    });
    stops(&story, PROGRAM);
    arguments(&story);
}

#[track_caller]
fn arguments(story: &Rc<Story>) {
    story.blame("every program of the course is started in the same way; a number out of range is refused, not corrected; options may come in any order", "lessons/01_bind_listen.md, \"Run it\"");
    let server = story.serve(PROGRAM, &["--limit", "7", "127.0.0.1:0", "--heartbeat-ms", "70"]);
    story.finds_port_taken(&server, &[]);
    story.serves_by_default(PROGRAM, "127.0.0.1:8080");
    story.together(|| {
        story.usual_arguments(PROGRAM);
        story.run(PROGRAM, &["127.0.0.1:0", "surplus"]).usage_error_about("surplus");
        numbers_are_checked(story, PROGRAM);
    });
    if has_ipv6() {
        story.serve(PROGRAM, &["[::1]:0"]).admit("ann", "ann");
    }
}

#[test]
fn with_echo_every_message_comes_back_unchanged() {
    let story = Story::new(Rule {
        rule: "with --echo each message comes back as it was, text as text and binary as binary, up to 16 MiB, in however many fragments it came; on any path and from any Origin; nobody joins anything",
        why: "this is what the suites that test WebSocket want to talk to. Lengths over 65535 have 64 bits; text is checked while it comes, and a character may be cut by the end of a fragment",
        read: "lessons/09_websocket_chat.md, \"Run it\"",
        by_hand: "cargo run --example 09_websocket_chat 127.0.0.1:8080 --echo; then new WebSocket(\"ws://127.0.0.1:8080/\") in the console of a browser",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0", "--echo"]);
    let at = |path: &str, more: &[&str]| server.get(path, &[&UPGRADE[..], more].concat());
    let silent = server.echoing("silent", &at("/chat", &[]));
    silent.sends("half of a message", &silent.frame(FIRST_TEXT, "half of a mess"));
    let ann = server.echoing("ann", &at("/", &[]));
    let returns = |peer: &Peer, first: u8, payload: &[u8]| {
        peer.sends(format!("a message of {} bytes", payload.len()), &peer.frame(first, payload));
        peer.gets_back(first, payload);
    };
    returns(&ann, TEXT_FRAME, "hello, caf\u{e9} \u{1f980}".as_bytes());
    returns(&ann, BINARY, b"\x00\xff\xfe\x80 no text");
    // A message of the chat is nothing special here, and nobody else gets it.
    returns(&ann, BINARY, &join("ann").bytes());
    returns(&ann, BINARY, &message(LEAVE, "", "").bytes());
    returns(&ann, TEXT_FRAME, b"\x1b[31mred\x00\r\n");
    story.because(
        "the upgrade is taken on any path, and from any Origin: a suite is no page of ours",
    );
    for (path, origin) in
        [("/any/path?case=1", "Origin: http://evil.example"), ("/chat", "Origin: null")]
    {
        let other = server.echoing("other", &at(path, &[origin]));
        returns(&other, TEXT_FRAME, b"here too");
    }

    story.because("lengths up to 125 have 7 bits, those up to 65535 have 16 after a 126, and all others 64 after a 127: in both directions");
    for length in [0, 1, 125, 126, 127, 128, 255, 256, 65535, 65536, 65537, 100_000, MIB] {
        let payload: Vec<u8> = (0..=250).cycle().take(length).collect();
        returns(&ann, BINARY, &payload);
        returns(&ann, TEXT_FRAME, &vec![b'x'; length]);
    }
    story.because("16 MiB are not too much here");
    returns(&ann, BINARY, &vec![b'x'; MOST_ECHOED]);
    story.because("fragments are put together, also large ones, and characters that are cut between them; a ping between them is answered at once");
    let large = "\u{20ac}\u{1f980}".repeat(MIB / 7);
    let parts: Vec<&[u8]> = large.as_bytes().chunks(MIB / 8 + 1).collect();
    for (i, part) in parts.iter().enumerate() {
        let first = match i {
            0 => FIRST_TEXT,
            i if i + 1 == parts.len() => LAST,
            _ => MORE,
        };
        ann.sends(format!("fragment {}, of {} bytes", i + 1, part.len()), &ann.frame(first, part));
        if first != LAST {
            let word = story.word();
            ann.sends("a ping", &ann.frame(PING_FRAME, &word));
            ann.gets_pong(word.as_bytes());
        }
    }
    ann.gets_back(TEXT_FRAME, large.as_bytes());
    let several = [
        ann.frame(FIRST_BINARY, "one"),
        ann.frame(MORE, ""),
        ann.frame(LAST, " whole"),
        ann.frame(TEXT_FRAME, "two"),
        ann.frame(BINARY, "three"),
    ];
    ann.sends("three messages in five frames (in one piece)", &several.concat());
    ann.gets_back(BINARY, b"one whole");
    ann.gets_back(TEXT_FRAME, b"two");
    ann.gets_back(BINARY, b"three");
    silent.sends("the rest of it", &silent.frame(LAST, "age"));
    silent.gets_back(TEXT_FRAME, b"half of a message");

    echo_refuses(&story, &server);
    returns(&ann, TEXT_FRAME, b"the end");
    ann.has_no_pong();
}

#[track_caller]
fn echo_refuses(story: &Story, server: &Program) {
    story.because("text that can't become UTF-8 any more is closed with 1007 as soon as that is known: the rest of the message need not come. Binary messages may have any bytes");
    let head = server.get("/", &UPGRADE);
    for (what, start) in [
        ("a byte that no character has", &b"a\xffb"[..]),
        ("a character cut short", b"caf\xc3("),
        ("a surrogate", b"\xed\xa0\x80"),
        ("beyond U+10FFFF", b"\xf4\x90\x80\x80"),
        ("longer than it need be", b"\xc0\xaf"),
    ] {
        let zed = server.echoing("zed", &head);
        let frames = [zed.frame(FIRST_TEXT, start), zed.frame(PING_FRAME, "")].concat();
        zed.expects_no_pong();
        zed.sends(format!("a first fragment with {what}, a ping"), &frames);
        zed.gets_close(&[1007]);
    }
    let zed = server.echoing("zed", &head);
    zed.sends("a text that ends inside a character", &zed.frame(TEXT_FRAME, b"a euro: \xe2\x82"));
    zed.gets_close(&[1007]);
    story.because(
        "what is over 16 MiB is refused with 1009 before it comes, and RFC 6455 holds here too",
    );
    for (frames, code) in [
        (announced(BINARY, 1 << 40), 1009),
        (announced(BINARY, MOST_ECHOED as u64 + 1), 1009),
        (unmasked(TEXT_FRAME, b"not masked"), 1002),
        (masked(0x83, [0; 4], b"x"), 1002),
    ] {
        let zed = server.echoing("zed", &head);
        zed.sends(told_frame(&frames), &frames);
        zed.gets_close(&[code]);
    }
    for code in [1000, 1001, 4000] {
        let zed = server.echoing("zed", &head);
        zed.closes(code, "bye");
        zed.gets_close(&[code]);
    }
}
