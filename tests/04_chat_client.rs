//! The grading of step 04: ten tests, a point each. The test is the server.
//!
//! For a program of your own, in any language:
//! `LAB="python3 my_client.py" cargo test --test 04_chat_client`

#![allow(clippy::unwrap_used)]

mod lab;

use lab::{MockServer, Rule, Story, client_arguments, endless_line};
use std::net::TcpListener;

const PROGRAM: &str = "04_chat_client";

#[test]
fn lines_from_the_server_are_printed_while_nothing_is_typed() {
    let story = Story::new(Rule {
        rule: "what the server sends is printed at once, though nothing was typed",
        why: "a thread that waits for the keyboard can't wait for the server too: each needs its own",
        read: "lessons/04_chat_client.md, \"The idea\"",
        by_hand: "nc -l 127.0.0.1 12345, then cargo run --example 04_chat_client; type into nc",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    for _ in 0..3 {
        let word = story.word();
        server.send(format!("{word}\n"));
        client.screen.expect_line(&word);
    }
    // And it still sends.
    client.types("hello\n");
    server.expect_line("hello");
}

#[test]
fn typed_lines_are_sent_without_waiting_for_an_answer() {
    let story = Story::new(Rule {
        rule: "each typed line is sent at once, though the server says nothing",
        why: "a chat has no turns: sending must not wait for something to come",
        read: "lessons/04_chat_client.md, \"The idea\"",
        by_hand: "nc -l 127.0.0.1 12345, then cargo run --example 04_chat_client; type there",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    for _ in 0..5 {
        let word = story.word();
        client.types(&format!("{word}\n"));
        server.expect_line(&word);
    }
    client.types("two at\nonce\n");
    server.expect_line("two at");
    server.expect_line("once");
}

#[test]
fn much_data_flows_both_ways_at_the_same_time() {
    let story = Story::new(Rule {
        rule: "sending and receiving go on at the same time, however much it is",
        why: "when a full buffer stops one direction, the other must go on, or both wait for each other for ever",
        read: "lessons/04_chat_client.md, \"The idea\"",
        by_hand: "yes | head -n 100000 | cargo run --example 04_chat_client, with 02_echo_server",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    let mut expected = Vec::new();
    let mut text = String::new();
    for number in 0..3000 {
        let line = format!("{number} {}", story.word().repeat(10));
        text += &format!("{line}\n");
        expected.push(line);
    }
    client.types(&text);
    server.send(&text);
    for line in &expected {
        server.expect_line(line);
    }
    for line in &expected {
        client.screen.expect_line(line);
    }
}

#[test]
fn a_line_is_a_line_however_it_arrives() {
    let story = Story::new(Rule {
        rule: "a line ends at its LF: not where a read ends, and never inside a character",
        why: "TCP forgets where each write ended: collect bytes until the LF, and only then make text of them",
        read: "lessons/04_chat_client.md, \"The code\"",
        by_hand: "nc -l 127.0.0.1 12345 as the server: Ctrl-D sends half a line",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    for piece in ["guest-1: in", " three ", "pieces"] {
        server.send_piece(piece);
    }
    server.send("\n");
    client.screen.expect_line("guest-1: in three pieces");
    server.send("one\ntwo\nthr");
    client.screen.expect_line("one");
    client.screen.expect_line("two");
    server.send("ee\n");
    client.screen.expect_line("three");
    server.send_piece(b"a euro: \xe2");
    server.send_piece(b"\x82");
    server.send(b"\xac\r\n");
    client.screen.expect_line("a euro: €");
    // Whatever the size of a read is, one of these has its end in a character.
    for shift in ["", "a", "ab"] {
        let line = format!("{shift}{}", "€".repeat(1500));
        server.send(format!("{line}\n"));
        client.screen.expect_line(&line);
    }
    endless_line(&story, &client, &server);
}

#[test]
fn the_end_of_input_closes_only_the_sending_half() {
    let story = Story::new(Rule {
        rule: "at the end of its input the client closes its sending half, prints what still comes, and exits with 0 when the server has closed",
        why: "others go on talking: leaving the program at the end of the input loses what is on its way",
        read: "lessons/04_chat_client.md, \"Break it\"",
        by_hand: "echo bye | cargo run --example 04_chat_client",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    client.types("bye");
    client.ends_input();
    server.expect_last_line("bye");
    client.settled();
    for word in ["still", "talking", "here"] {
        server.send_piece(format!("{word}\n"));
        client.screen.expect_line(word);
    }
    server.send("and the last without a line end");
    drop(server);
    client.screen.expect_line("and the last without a line end");
    client.screen.expect_end();
    client.expect_exit(0);
}

#[test]
fn when_the_server_closes_the_client_ends_without_waiting_for_the_keyboard() {
    let story = Story::new(Rule {
        rule: "when the server closes first the client says so on standard error and exits with 0, though its input is still open",
        why: "one of the two threads waits for the keyboard: the end of the other one must end the program",
        read: "lessons/04_chat_client.md, \"The code\"",
        by_hand: "cargo run --example 04_chat_client, then Ctrl-C in the server's terminal",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    client.types("hello\n");
    server.expect_line("hello");
    server.send("last words\n");
    server.close_sending();
    client.screen.expect_line("last words");
    client.screen.expect_end();
    client.expect_exit(0);
    story.because("a person must see that it was the server that has ended the chat: a line on standard error says so");
    client.expect_a_word("that the server has closed");
}

#[test]
fn a_refused_or_reset_connection_is_one_line_and_exit_status_1() {
    let story = Story::new(Rule {
        rule: "a client that can't connect exits with 1 and one line that names the address; a reset is a line and exit status 1 too",
        why: "a reset is no goodbye: read fails, instead of returning no bytes",
        read: "lessons/04_chat_client.md, \"Break it\"",
        by_hand: "cargo run --example 04_chat_client 127.0.0.1:1; echo $?",
    });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    story.run(PROGRAM, &[&nobody]).code(1).one_line_about(&nobody);

    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let stream = mock_server.accept_stream();
    client.types("never read\n");
    lab::wait_for_bytes(&story, &stream);
    // The client waits for the server and for the keyboard now.
    client.settled();
    story.step("server --> client", "reset");
    drop(stream);
    client.screen.expect_end();
    client.expect_exit(1);
    client.expect_a_word("that the connection was lost");
}

#[test]
fn characters_that_control_a_terminal_are_removed() {
    let story = Story::new(Rule {
        rule: "control characters but for tab, and the bidirectional overrides, are taken out of what is printed; bytes that are not UTF-8 become U+FFFD",
        why: "a terminal obeys ESC and its relatives: never print what a stranger sent without cleaning it",
        read: "lessons/PROTOCOL.md, \"What may not pass\"",
        by_hand: r"printf '\033[31mred\033[0m\n' | nc -l 127.0.0.1 12345, with cargo run --example 04_chat_client",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    let show = |sent: &[u8], shown: &str| {
        server.send([sent, b"\n"].concat());
        client.screen.expect_line(shown);
    };
    show(b"guest-1: a\tb c", "guest-1: a\tb c");
    show(b"\x1b[2J\x1b[31mred\x1b[0m \x07bell\x08 \x00nul \x7fdel", "[2J[31mred[0m bell nul del");
    show(b"guest-1: x\rguest-2: y", "guest-1: xguest-2: y");
    show("c1:\u{80}\u{85}\u{9b}31m\u{9f}.".as_bytes(), "c1:31m.");
    show(
        "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}evil\u{2066}\u{2067}\u{2068}\u{2069}".as_bytes(),
        "evil",
    );
    show(
        "caf\u{e9} € 日本 \u{1f980} e\u{301}\u{a0}.".as_bytes(),
        "caf\u{e9} € 日本 \u{1f980} e\u{301}\u{a0}.",
    );
    story.because("bytes that are not UTF-8 are no reason to lose the line, or to end: each bad sequence becomes U+FFFD");
    story.by_hand(
        r"printf '\377one\n' | nc -l 127.0.0.1 12345, with cargo run --example 04_chat_client",
    );
    show(b"\xffone", "\u{fffd}one");
}

#[test]
fn every_kind_of_line_is_sent_with_one_line_end() {
    let story = Story::new(Rule {
        rule: "each line of input is sent whole: an empty one, a long one, the last one without its line end; a CR LF typed goes out as LF",
        why: "on the wire a line ends with one LF; and what is typed is sent as it is, to its last byte",
        read: "lessons/04_chat_client.md, \"The code\"",
        by_hand: r"printf 'one\r\n\ntwo' | cargo run --example 04_chat_client",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    let long = story.word().repeat(7500);
    client.types("one\r\n\n  two \t\ncaf\u{e9} €\n");
    client.types(&format!("{long}\nthe last"));
    client.ends_input();
    for line in ["one", "", "  two \t", "caf\u{e9} €", &long] {
        server.expect_line(line);
    }
    server.expect_last_line("the last");
    // And a long one comes back.
    server.send(format!("{long}\n"));
    client.screen.expect_line(&long);
    drop(server);
    client.expect_exit(0);
}

#[test]
fn arguments_are_as_in_step_01() {
    let story = Story::new(Rule {
        rule: "ADDRESS, --help, and exit status 2 for what can't be understood: as in step 01; standard output has only what the server said",
        why: "what a program has to say about itself goes to standard error, so that its output can be used",
        read: "lessons/01_bind_listen.md, \"Run it\"",
        by_hand: "cargo run --example 04_chat_client 12345; echo $?",
    });
    client_arguments(&story, PROGRAM);
}
