//! The grading of step 02: ten tests, a point each.
//!
//! For a program of your own, in any language:
//! `LAB="python3 my_server.py" cargo test --test 02_echo_server`

#![allow(clippy::unwrap_used)]

mod lab;

use lab::{Rule, Story, drained};
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const PROGRAM: &str = "02_echo_server";

#[test]
fn bytes_come_back_at_once_without_waiting_for_a_line_end() {
    let story = Story::new(Rule {
        rule: "each byte is sent back as it comes; no line end is needed",
        why: "read returns what is there, as soon as anything is there: pass on exactly that, and flush what buffers",
        read: "lessons/02_echo_server.md, \"The idea\"",
        by_hand: "printf hel | nc 127.0.0.1 12345",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let ann = server.connect("ann");
    for piece in ["h", "el", "lo", "\n", "wor"] {
        ann.send(piece);
        ann.expect_bytes(piece.as_bytes());
    }
    ann.leave();
}

#[test]
fn every_byte_comes_back_unchanged() {
    let story = Story::new(Rule {
        rule: "all 256 values of a byte come back, in order, nothing added, nothing taken away",
        why: "an echo server knows bytes, no text: no decoding, no stripping, no translating of line ends",
        read: "lessons/02_echo_server.md, \"The idea\"",
        by_hand: r"printf 'a\r\nb\000\377c' | nc -N 127.0.0.1 12345 | od -c",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let ann = server.connect("ann");
    let word = story.word();
    ann.send(&word);
    ann.expect_bytes(word.as_bytes());
    for bytes in [
        &b"\r\n"[..],
        b"\n",
        b" \t ",
        b"\0",
        b"caf\xc3\xa9",
        b"\xc3",
        b"\xff\xfe",
        b"\x04\x1a\x03",
        b"quit\n",
        b"/quit\r\n",
    ] {
        ann.send_piece(bytes);
        ann.expect_bytes(bytes);
    }
    let all: Vec<u8> = (0..=255).collect();
    ann.send(&all);
    ann.expect_bytes(&all);
    ann.leave();
}

#[test]
fn a_megabyte_comes_back_whole() {
    let story = Story::new(Rule {
        rule: "however much is sent, all of it comes back, in order",
        why: "one read gets only a part, and one write may take only a part: both belong in a loop",
        read: "lessons/02_echo_server.md, \"The code\"",
        by_hand: "head -c 1000000 /dev/urandom | tee sent | nc -N 127.0.0.1 12345 | cmp - sent",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let ann = server.connect("ann");
    let sent: Vec<u8> = (0..1_000_000).map(|_| pattern(story.number(251))).collect();
    ann.send(&sent);
    ann.expect_bytes(&sent);
    ann.leave();

    story.because("a client that reads late stops the server's write, or lets it take a part only: wait until all is taken, and throw nothing away");
    let eve = server.connect_stream();
    let bytes = fill(&story, &eve);
    eve.shutdown(Shutdown::Write).unwrap();
    let eve = server.peer("eve", eve);
    eve.expect_bytes(&(0..bytes).map(pattern).collect::<Vec<u8>>());
    eve.expect_end();
}

/// Sends until nothing more goes in, because the server waits for its client
/// to read; returns the number of bytes.
fn fill(story: &Story, mut stream: &TcpStream) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut bytes = 0;
    loop {
        let piece: Vec<u8> = (bytes..bytes + 64 * 1024).map(pattern).collect();
        match stream.write(&piece) {
            Ok(n) if bytes < 64 * 1024 * 1024 => bytes += n,
            Err(e) if !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                story.fails("client --> server", "a server that takes it", &e.to_string());
            }
            _ => break,
        }
    }
    story.step("client --> server", format!("{bytes} bytes, reading nothing"));
    bytes
}

/// The byte at a place: one that is missing is noticed at the next.
fn pattern(place: usize) -> u8 {
    u8::try_from(place % 251).unwrap()
}

#[test]
fn bytes_sent_before_the_end_come_back_before_the_server_closes() {
    let story = Story::new(Rule {
        rule: "a client that closes its sending half still gets everything back, and then the server closes",
        why: "the end of the stream says that no more will come, not that nobody listens: send what you have, then close",
        read: "lessons/02_echo_server.md, \"Break it\"",
        by_hand: "printf 'no line end' | nc -N 127.0.0.1 12345",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let ann = server.connect("ann");
    let last = format!("{} without a line end", story.word());
    // Bytes and the end of the stream lie there before the server looks.
    server.freeze();
    ann.send(&last);
    ann.close_sending();
    server.thaw();
    ann.expect_bytes(last.as_bytes());
    ann.expect_end();

    let bob = server.connect("bob");
    let much = vec![b'x'; 300_000];
    bob.send(&much);
    bob.close_sending();
    bob.expect_bytes(&much);
    bob.expect_end();

    // One who says nothing at all.
    let eve = server.connect("eve");
    eve.leave();
}

#[test]
fn one_client_is_served_at_a_time() {
    let story = Story::new(Rule {
        rule: "the server serves one client at a time: the next one waits, and is served when the first has gone",
        why: "this step has one thread: accept comes again when the first client is done. (Many at once are step 05.)",
        read: "lessons/02_echo_server.md, \"What is still wrong\"",
        by_hand: "nc 127.0.0.1 12345 in two terminals: type in the second one first",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let ann = server.connect("ann");
    ann.send("first");
    ann.expect_bytes(b"first");

    let bob = server.connect("bob");
    bob.send("second");
    // A server that had accepted bob would answer him while it answers ann.
    for _ in 0..50 {
        ann.send("ping");
        ann.expect_bytes(b"ping");
    }
    server.settled();
    if !bob.so_far().is_empty() {
        story.fails("server --> bob", "nothing while ann is here", "his bytes");
    }
    ann.leave();
    bob.expect_bytes(b"second");
    bob.leave();
}

#[test]
fn clients_are_served_one_after_another() {
    let story = Story::new(Rule {
        rule: "when one client has gone the next one is served, as often as one comes",
        why: "the end of a client's stream ends its turn, not the server; and nothing of it is left for the next",
        read: "lessons/02_echo_server.md, \"The code\"",
        by_hand: "for i in 1 2 3; do echo $i | nc -N 127.0.0.1 12345; done",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    for _ in 0..30 {
        story.because("the end of a client's stream ends its turn, not the server. And what comes back is as much as read has returned: not the whole buffer, in which there are zeros, or the bytes of the client before");
        let word = story.word();
        let ann = server.connect("ann");
        ann.send(&word);
        ann.close_sending();
        ann.expect_bytes(word.as_bytes());
        ann.expect_end();
    }
}

#[test]
fn a_client_that_resets_the_connection_does_not_end_the_server() {
    let story = Story::new(Rule {
        rule: "a client's trouble ends that client, never the server",
        why: "a client that closes without having read resets the connection: read and write fail then. Their errors end this client's turn only",
        read: "lessons/02_echo_server.md, \"Break it\"",
        by_hand: "yes | timeout -s KILL 1 nc 127.0.0.1 12345 | sleep 2; echo hello | nc -N 127.0.0.1 12345",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    for _ in 0..20 {
        let zed = server.connect_stream();
        let _ = (&zed).write_all(b"never read");
        // Closed with the echo unread: the system sends a reset.
        lab::wait_for_bytes(&story, &zed);
    }
    story.step("20 clients", "reset the connection, one after another");
    server.freeze();
    let zed = server.connect_stream();
    let _ = (&zed).write_all(b"gone before it was accepted");
    drop(zed);
    server.thaw();
    let ann = server.connect("ann");
    ann.send("still there?");
    ann.expect_bytes(b"still there?");
    ann.leave();
}

#[test]
fn a_client_that_never_reads_is_given_up_when_it_disconnects() {
    let story = Story::new(Rule {
        rule: "a client that sends and never reads holds the server up only until it goes",
        why: "a write waits while the client's buffers are full, and fails when the client is gone: both end",
        read: "lessons/02_echo_server.md, \"Break it\"",
        by_hand: "yes | timeout -s KILL 5 nc 127.0.0.1 12345 | sleep 6; echo hello | nc -N 127.0.0.1 12345",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let zed = server.connect_stream();
    fill(&story, &zed);
    drop(zed);
    let ann = server.connect("ann");
    ann.send("my turn");
    ann.expect_bytes(b"my turn");
    ann.leave();
}

#[test]
fn a_pause_is_not_the_end() {
    let story = Story::new(Rule {
        rule: "a client may pause between two bytes for as long as it likes, also before its first",
        why: "only a read of no bytes is the end of the stream; no timeout ends a client in this step",
        read: "lessons/02_echo_server.md, \"The idea\"",
        by_hand: "(sleep 5; echo late) | nc -N 127.0.0.1 12345",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let ann = server.connect("ann");
    // Each time the server has nothing to do but to wait for ann.
    for round in 0..5 {
        server.settled();
        // A signal interrupts its read (signal(7)): that is no error either.
        server.freeze();
        server.thaw();
        let text = format!("round {round}\n");
        ann.send(&text);
        drained(&ann.stream);
        ann.expect_bytes(text.as_bytes());
    }
    ann.leave();
}

#[test]
fn addresses_and_arguments_are_as_in_step_01() {
    let story = Story::new(Rule {
        rule: "ADDRESS, `listening on`, --help, exit status 1 for a port in use and 2 for what can't be understood: as in step 01",
        why: "every program of the course is started in the same way",
        read: "lessons/01_bind_listen.md, \"Run it\"",
        by_hand: "cargo run --example 02_echo_server 12345; echo $?",
    });
    story.usual_arguments(PROGRAM);
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    story.finds_port_taken(&server, &[]);
    let server = story.starts_again(&server, &[], &[]);
    let ann = server.connect("ann");
    ann.send("here again");
    ann.expect_bytes(b"here again");
    ann.leave();
    if lab::has_ipv6() {
        let server = story.serve(PROGRAM, &["[::1]:0"]);
        let ann = server.connect("ann");
        ann.send("six");
        ann.expect_bytes(b"six");
        ann.leave();
    }
}
