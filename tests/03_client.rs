//! The grading of step 03: ten tests, a point each. The test is the server.
//!
//! For a program of your own, in any language:
//! `LAB="python3 my_client.py" cargo test --test 03_client`

#![allow(clippy::unwrap_used)]

mod lab;

use lab::{MockServer, Rule, Story, client_arguments, endless_line};
use std::net::TcpListener;

const PROGRAM: &str = "03_client";

#[test]
fn a_typed_line_is_sent_and_its_answer_is_printed_at_once() {
    let story = Story::new(Rule {
        rule: "a typed line is sent with its line end, and the line that answers it is printed, flushed, while the input is still open",
        why: "output to a pipe is kept back until it is flushed; and an answer belongs on the screen before the next line is typed",
        read: "lessons/03_client.md, \"The code\"",
        by_hand: "cargo run --example 03_client, with cargo run --example 02_echo_server",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    for _ in 0..3 {
        let (question, answer) = (story.word(), story.word());
        client.types(&format!("{question}\n"));
        server.expect_line(&question);
        server.send(format!("{answer}\n"));
        client.screen.expect_line(&answer);
    }
}

#[test]
fn the_next_line_waits_for_the_answer() {
    let story = Story::new(Rule {
        rule: "one line out, one line in, in turn: the second line is sent when the first is answered",
        why: "this client has one thread: after sending it waits in read. (Both at once are step 04.)",
        read: "lessons/03_client.md, \"The idea\"",
        by_hand: r"printf 'one\ntwo\n' | cargo run --example 03_client, with nc -l 127.0.0.1 12345 as the server",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    client.types("one\ntwo\nthree\n");
    for line in ["one", "two", "three"] {
        server.expect_line(line);
        // The client has done all that it can do without an answer.
        client.settled();
        if !server.so_far().is_empty() {
            let early = lab::escape(&server.so_far());
            story.fails("client --> server", "nothing before the answer", &early);
        }
        server.send(format!("answer to {line}\n"));
        client.screen.expect_line(&format!("answer to {line}"));
    }
}

#[test]
fn an_answer_is_a_line_however_it_arrives() {
    let story = Story::new(Rule {
        rule: "an answer ends at its line end: not where a read ends",
        why: "TCP keeps bytes in order but forgets where each write ended: read on until the LF, and keep what came after it for the next answer",
        read: "lessons/03_client.md, \"The idea\"",
        by_hand: "nc -l 127.0.0.1 12345 as the server: answer in two pieces (Ctrl-D sends half a line), then with two lines at once",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();

    client.types("one\n");
    server.expect_line("one");
    for piece in ["an", "swer ", "€".get(0..3).unwrap_or(""), " one"] {
        server.send_piece(piece);
    }
    // It must not go on before the line is whole.
    client.types("two\n");
    client.settled();
    if !server.so_far().is_empty() {
        story.fails("client --> server", "nothing before the whole answer", "the next line");
    }
    server.send("\n");
    client.screen.expect_line("answer € one");

    story.because("two lines may come with one read: the second is the answer to the next line, not part of the first, and not lost");
    server.expect_line("two");
    server.send("answer two\nanswer three\nanswer four\n");
    client.screen.expect_line("answer two");
    client.types("three\n");
    server.expect_line("three");
    client.screen.expect_line("answer three");
    client.types("four\n");
    server.expect_line("four");
    client.screen.expect_line("answer four");
    // A euro sign cut in the middle.
    client.types("five\n");
    server.expect_line("five");
    server.send_piece(b"5 \xe2\x82");
    server.send(b"\xac\n");
    client.screen.expect_line("5 €");
}

#[test]
fn the_end_of_input_closes_only_the_sending_half() {
    let story = Story::new(Rule {
        rule: "at the end of its input the client closes its sending half, prints what still comes, and exits with 0 when the server has closed",
        why: "close would throw away what is still on its way: shutdown of the sending half says that you are done, and reading goes on",
        read: "lessons/03_client.md, \"Break it\"",
        by_hand: "echo hello | cargo run --example 03_client",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    client.types("hello\n");
    server.expect_line("hello");
    server.send("answer\n");
    client.screen.expect_line("answer");
    client.ends_input();
    server.expect_end();
    client.settled();
    server.send_piece("one more\nand ");
    server.send("another\nand the last without a line end");
    drop(server);
    client.screen.expect_line("one more");
    client.screen.expect_line("and another");
    story.because("what comes before the end of the stream is the last line, also without a line end: it is printed as a line");
    client.screen.expect_line("and the last without a line end");
    client.screen.expect_end();
    client.expect_exit(0);
}

#[test]
fn every_kind_of_line_is_sent_with_one_line_end() {
    let story = Story::new(Rule {
        rule: "each line of input is sent: an empty one too, the last one even without its line end; a CR LF typed goes out as LF",
        why: "on the wire a line ends with one LF, whatever the keyboard or a file had",
        read: "lessons/03_client.md, \"The code\"",
        by_hand: r"printf 'one\r\n\ntwo' | cargo run --example 03_client",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    client.types("one\r\n\n  two \t\ncaf\u{e9} €\nthe last");
    client.ends_input();
    for line in ["one", "", "  two \t", "caf\u{e9} €", "the last"] {
        server.expect_line(line);
        server.send("ok\n");
        client.screen.expect_line("ok");
    }
    server.expect_end();
    drop(server);
    client.expect_exit(0);
}

#[test]
fn long_lines_pass_both_ways() {
    let story = Story::new(Rule {
        rule: "lines of up to 64 KiB are sent and printed whole",
        why: "a line may be longer than one read gives: go on until its LF, and write all of it",
        read: "lessons/03_client.md, \"The code\"",
        by_hand: "head -c 60000 /dev/zero | tr '\\0' x | cargo run --example 03_client",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    for length in [1000, 4096, 8192, 60_000] {
        let line: String = story.word().chars().cycle().take(length).collect();
        client.types(&format!("{line}\n"));
        server.expect_line(&line);
        let answer: String = story.word().chars().cycle().take(length).collect();
        server.send(format!("{answer}\n"));
        client.screen.expect_line(&answer);
    }
    // Characters of three bytes, so that some read ends inside one.
    for shift in ["", "a", "ab"] {
        let answer = format!("{shift}{}", "€".repeat(1500));
        client.types("long\n");
        server.expect_line("long");
        server.send(format!("{answer}\n"));
        client.screen.expect_line(&answer);
    }
    client.types("endless\n");
    server.expect_line("endless");
    endless_line(&story, &client, &server);
}

#[test]
fn characters_that_control_a_terminal_are_removed() {
    let story = Story::new(Rule {
        rule: "control characters but for tab, and the bidirectional overrides, are taken out of what is printed; bytes that are not UTF-8 become U+FFFD",
        why: "a terminal obeys ESC and its relatives: a server could clear the screen, or make a line look like somebody else's",
        read: "lessons/PROTOCOL.md, \"What may not pass\"",
        by_hand: r"printf '\033[31mred\033[0m\n' | nc -l 127.0.0.1 12345, with cargo run --example 03_client",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    let answer = |sent: &[u8], shown: &str| {
        client.types("?\n");
        server.expect_line("?");
        server.send([sent, b"\n"].concat());
        client.screen.expect_line(shown);
    };
    answer(b"a\tb c", "a\tb c");
    answer(b"\x1b[31mred\x1b[0m \x07bell\x08 \x00nul \x7fdel", "[31mred[0m bell nul del");
    answer(b"carriage\rreturn", "carriagereturn");
    answer("c1:\u{80}\u{9b}31m\u{9f}.".as_bytes(), "c1:31m.");
    answer(
        "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}evil\u{2066}\u{2067}\u{2068}\u{2069}".as_bytes(),
        "evil",
    );
    answer(
        "caf\u{e9} € 日本 \u{1f980} e\u{301}\u{a0}.".as_bytes(),
        "caf\u{e9} € 日本 \u{1f980} e\u{301}\u{a0}.",
    );
    story.because("bytes that are not UTF-8 are no reason to lose the line, or to end: each bad sequence becomes U+FFFD");
    story
        .by_hand(r"printf '\377one\n' | nc -l 127.0.0.1 12345, with cargo run --example 03_client");
    answer(b"\xffone", "\u{fffd}one");
}

#[test]
fn a_server_that_closes_first_is_reported_and_is_no_failure() {
    let story = Story::new(Rule {
        rule: "when the server closes first the client says so on standard error, when it next reads, and exits with 0",
        why: "a read of no bytes is the end of the stream: not an empty line, not an error",
        read: "lessons/03_client.md, \"What is still wrong\"",
        by_hand: "cargo run --example 03_client against 02_echo_server; stop the server; type a line",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let server = mock_server.accept();
    client.types("one\n");
    server.expect_line("one");
    server.send("answer\n");
    client.screen.expect_line("answer");
    client.types("two\n");
    server.expect_line("two");
    server.close_sending();
    client.screen.expect_end();
    client.expect_exit(0);
    story.because("a person must see that it was the server that has ended the chat: a line on standard error says so");
    client.expect_a_word("that the server has closed");
}

#[test]
fn a_refused_or_reset_connection_is_one_line_and_exit_status_1() {
    let story = Story::new(Rule {
        rule: "a client that can't connect exits with 1 and one line that names the address; a reset is a line and exit status 1 too",
        why: "connect and read can fail: say what failed, where, and what to try, in words and not in a trace",
        read: "lessons/03_client.md, \"Break it\"",
        by_hand: "cargo run --example 03_client 127.0.0.1:1; echo $?",
    });
    // A port that was free a moment ago: nobody listens there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    story.run(PROGRAM, &[&nobody]).code(1).one_line_about(&nobody);

    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client(PROGRAM, &mock_server.address);
    let stream = mock_server.accept_stream();
    client.types("never read\n");
    // Closed with bytes unread: the system sends a reset.
    lab::wait_for_bytes(&story, &stream);
    story.step("server --> client", "reset");
    drop(stream);
    client.screen.expect_end();
    client.expect_exit(1);
    client.expect_a_word("that the connection was lost");
}

#[test]
fn arguments_are_as_in_step_01() {
    let story = Story::new(Rule {
        rule: "ADDRESS, --help, and exit status 2 for what can't be understood: as in step 01; standard output has only what the server said",
        why: "what a program has to say about itself goes to standard error, so that its output can be used",
        read: "lessons/01_bind_listen.md, \"Run it\"",
        by_hand: "cargo run --example 03_client 12345; echo $?",
    });
    client_arguments(&story, PROGRAM);
}
