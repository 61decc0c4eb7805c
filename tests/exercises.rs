//! The exercises of the lessons: two for each step, beyond its ten graded tests.
//!
//! Each test is ignored until you ask for it, because the programs of the
//! course do not do what it wants. `lessons/exercises/` has the task, and a
//! solution for each: a patch for the program of the course. The command
//! `lessons/exercises/check` proves that each test fails without its patch and
//! passes with it.
//!
//! For a program of your own, in any language:
//! `LAB="python3 my_05.py" cargo test --test exercises who_is_here -- --ignored`

#![allow(clippy::unwrap_used)]

mod lab;

use lab::message::{ERROR, LEAVE, PONG, TEXT, error, join, left, ping, pong, text, welcome};
use lab::secure::{ANN, BOB, EVE, Folder, free_port, login};
use lab::websocket::{KEYS, UPGRADE};
use lab::{MockServer, Rule, Story, UdpPeer, gather, has_ipv6, patience};
use std::fs;
use std::time::{Duration, Instant};

// --- 01 ---

#[test]
#[ignore = "an exercise of lesson 01"]
fn your_own_address() {
    let story = Story::new(Rule {
        rule: "with --address, the greeting is followed by one more line: `you are ADDRESS`, the address and the port that this connection has at the client's end",
        why: "accept returns the stream and the address of the client: print the second one for the client, too. The port is a different one for each connection, because the client's system chooses it",
        read: "lessons/exercises/01.md, \"Your own address\"",
        by_hand: "nc 127.0.0.1 12345 </dev/null, twice: two ports",
    });
    let mut hosts = vec!["127.0.0.1:0"];
    if has_ipv6() {
        hosts.push("[::1]:0");
    }
    for host in hosts {
        let server = story.serve("01_bind_listen", &[host, "--address"]);
        for name in ["ann", "bob"] {
            let client = server.connect(name);
            let address = client.stream.local_addr().unwrap();
            client.expect_line("hello from 01_bind_listen");
            client.expect_line(&format!("you are {address}"));
            client.expect_end();
        }
    }
}

#[test]
#[ignore = "an exercise of lesson 01"]
fn only_some_clients() {
    let story = Story::new(Rule {
        rule: "with --clients N the server greets N clients, and ends with exit status 0",
        why: "count what you have accepted and greeted, and leave the loop. When the program ends, the system closes its listener",
        read: "lessons/exercises/01.md, \"Only some clients\"",
        by_hand: "nc 127.0.0.1 12345 </dev/null, as often as N says; then echo $? where the server ran",
    });
    for count in [1, 3] {
        let number = count.to_string();
        let server = story.serve("01_bind_listen", &["127.0.0.1:0", "--clients", &number]);
        for _ in 0..count {
            let client = server.connect("ann");
            client.expect_line("hello from 01_bind_listen");
            client.expect_end();
        }
        server.expect_exit(0);
    }
    story.because("N is at least 1: with 0 there is nothing to do, so it is an error of the command");
    story.run("01_bind_listen", &["127.0.0.1:0", "--clients", "0"]).usage_error_about("0");
    story.run("01_bind_listen", &["127.0.0.1:0", "--clients", "some"]).usage_error_about("some");
}

// --- 02 ---

#[test]
#[ignore = "an exercise of lesson 02"]
fn silence_ends_a_client() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let story = Story::new(Rule {
        rule: "with --timeout-ms N, a client that sends nothing for N milliseconds gets the line `! nothing for N ms: goodbye`, and is closed; the next client is served then",
        why: "a server that serves one client at a time is blocked by one that says nothing. Give the stream a read timeout: then read returns an error (WouldBlock or TimedOut) instead of waiting for ever",
        read: "lessons/exercises/02.md, \"Silence ends a client\"",
        by_hand: "nc 127.0.0.1 12345 in two terminals, and type in the second one",
    });
    let server = story.serve("02_echo_server", &["127.0.0.1:0", "--timeout-ms", "300"]);
    let ann = server.connect("ann");
    let bob = server.connect("bob");
    bob.send("here is bob\n");
    ann.send("hi\n");
    ann.expect_line("hi");
    ann.expect_last_line("! nothing for 300 ms: goodbye");
    // Bob has waited in the backlog, and his bytes too.
    bob.expect_line("here is bob");

    story.because("the time begins again with each read: it limits a silence, not a whole connection");
    let start = Instant::now();
    while start.elapsed() < TIMEOUT * 3 {
        bob.send("and more\n");
        bob.expect_line("and more");
    }
    bob.expect_last_line("! nothing for 300 ms: goodbye");
}

#[test]
#[ignore = "an exercise of lesson 02"]
fn a_last_word_after_the_end() {
    let story = Story::new(Rule {
        rule: "with --count, after the end of a client's stream the server sends it `N bytes` and a line end, and closes then",
        why: "the end of one direction is not the end of the other: a client that has closed its sending half still reads. So the server can answer after it has everything",
        read: "lessons/exercises/02.md, \"A last word after the end\"",
        by_hand: "printf 'hello\\n' | nc -N 127.0.0.1 12345",
    });
    let server = story.serve("02_echo_server", &["127.0.0.1:0", "--count"]);
    for sent in ["hello\n".to_string(), String::new(), "x".repeat(9999) + "\n"] {
        let ann = server.connect("ann");
        if !sent.is_empty() {
            ann.send(&sent);
            ann.expect_bytes(sent.as_bytes());
        }
        ann.close_sending();
        ann.expect_last_line(&format!("{} bytes", sent.len()));
    }
}

// --- 03 ---

#[test]
#[ignore = "an exercise of lesson 03"]
fn an_answer_that_never_comes() {
    let story = Story::new(Rule {
        rule: "with --timeout-ms N, the client waits for an answer for at most N milliseconds: then it says so on standard error, and ends with exit status 1",
        why: "a server that has accepted may still never answer: it may be busy, frozen, or of another protocol. Give the stream a read timeout before the first read",
        read: "lessons/exercises/03.md, \"An answer that never comes\"",
        by_hand: "nc -l 127.0.0.1 12345 as the server, which answers only what you type",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let asks = |milliseconds: &str| {
        let arguments = [&mock_server.address, "--timeout-ms", milliseconds];
        let client = story.client_with("03_client", &arguments);
        (client, mock_server.accept())
    };
    let (patient, its_server) = asks("100");
    let (client, server) = asks("1000");
    client.types("are you there?\n");
    server.expect_line("are you there?");
    server.send("yes\n");
    client.screen.expect_line("yes");
    client.types("and now?\n");
    server.expect_line("and now?");
    client.screen.expect_end();
    client.expect_exit(1);
    client.expect_a_word("that no answer has come");

    story.because("nobody waits for an answer before a question is sent: the time that a person takes to type does not count. Here a client with a timeout of 100 ms has waited for its keyboard for more than a second");
    patient.types("late\n");
    its_server.expect_line("late");
}

#[test]
#[ignore = "an exercise of lesson 03"]
fn the_client_tries_again() {
    let story = Story::new(Rule {
        rule: "with --tries N, a client that cannot connect says so on standard error, waits 100 ms and tries again, and then after 200 ms, 400 ms, and so on, each wait twice as long; after N tries it ends with exit status 1",
        why: "a server that is being started, or started again, is back in a moment. Waits that grow give it time, and keep thousands of clients from asking all at once, again and again",
        read: "lessons/exercises/03.md, \"Try again\"",
        by_hand: "start the client first, and the server a second later",
    });
    let address = format!("127.0.0.1:{}", free_port());
    let start = Instant::now();
    let ended = story.run("03_client", &[&address, "--tries", "4"]).code(1);
    let time = start.elapsed();
    ended.warns("a line for each of the 4 tries", |text| text.lines().count() >= 4);
    if time < Duration::from_millis(700) {
        let received = format!("it has ended after {} ms", time.as_millis());
        story.fails("the client", "waits of 100, 200 and 400 ms", &received);
    }

    let client = story.client_with("03_client", &[&address, "--tries", "8"]);
    if !client.warns_soon() {
        story.fails("client --> standard error", "a line about the first try", "nothing");
    }
    let mock_server = MockServer::open(&story, &address);
    let server = mock_server.accept();
    client.types("at last\n");
    server.expect_line("at last");
    server.send("welcome\n");
    client.screen.expect_line("welcome");
    client.ends_input();
    server.expect_end();
    drop(server);
    client.expect_exit(0);
}

// --- 04 ---

#[test]
#[ignore = "an exercise of lesson 04"]
fn a_log_of_the_chat() {
    let story = Story::new(Rule {
        rule: "with --log FILE, the client appends to FILE each line that it shows, as `< line`, and each line that it sends, as `> line`; a line is in the file before it is shown or sent",
        why: "two threads write to one file: open it for appending, and write each line with one call. A line that is kept in a buffer is lost if the program ends",
        read: "lessons/exercises/04.md, \"A log of the chat\"",
        by_hand: "tail -f chat.log beside the client",
    });
    let folder = Folder::new();
    let file = folder.path("chat.log");
    let logged = |expected: &str| {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if text != expected {
            story.fails("the file", &format!("{expected:?}"), &format!("{text:?}"));
        }
    };
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let chat = || {
        let client =
            story.client_with("04_chat_client", &[&mock_server.address, "--log", &file]);
        (client, mock_server.accept())
    };
    let (client, server) = chat();
    server.send("* welcome\n");
    client.screen.expect_line("* welcome");
    logged("< * welcome\n");
    client.types("hello\n");
    server.expect_line("hello");
    logged("< * welcome\n> hello\n");
    drop(server);
    client.screen.expect_end();
    client.expect_exit(0);

    story.because("a second run adds to the log: nobody wants to lose the first one");
    let (client, server) = chat();
    server.send("again\x1b[2J\n");
    client.screen.expect_line("again[2J");
    story.because("a log is read in a terminal, too: what a terminal would obey is taken out of it, as it is on the screen");
    logged("< * welcome\n> hello\n< again[2J\n");
}

#[test]
#[ignore = "an exercise of lesson 04"]
fn quit_leaves() {
    let story = Story::new(Rule {
        rule: "the line `/quit` ends the client's input like Ctrl-D: it is not sent, the client closes its sending half, and shows what still comes until the server closes",
        why: "leaving is the client's business: no server has to understand a word for it. The server learns it from the end of the stream",
        read: "lessons/exercises/04.md, \"A word for leaving\"",
        by_hand: "nc -l 127.0.0.1 12345 as the server; type /quit in the client",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = story.client("04_chat_client", &mock_server.address);
    let server = mock_server.accept();
    story.because("only the whole line is the command");
    for line in ["/quitter", "say /quit", "quit"] {
        client.types(&format!("{line}\n"));
        server.expect_line(line);
    }
    story.because("the input is still open here, and may stay open for ever: nothing more of it counts");
    client.types("/quit\nnot sent\n");
    server.expect_end();
    server.send("goodbye\n");
    client.screen.expect_line("goodbye");
    drop(server);
    client.screen.expect_end();
    client.expect_exit(0);
}

// --- 05 ---

#[test]
#[ignore = "an exercise of lesson 05"]
fn who_is_here() {
    let story = Story::new(Rule {
        rule: "a guest that sends the line `/who` gets `* N here: guest-1, guest-2, ...`, in the order in which they came; nobody else gets anything. Of more than 20 guests the first 20 are named, and then `, and N more`",
        why: "the list belongs to the room: only the room's thread knows who is here at this point of the conversation. So the reader hands over the question as an event, in its place among the lines",
        read: "lessons/exercises/05.md, \"Who is here\"",
        by_hand: "nc 127.0.0.1 12345 in three terminals; type /who in one of them",
    });
    let server = story.serve("05_threaded_server", &["127.0.0.1:0"]);
    let [ann, bob, eve] = gather(&server, ["ann", "bob", "eve"]);
    ann.send("/who\n");
    ann.hear("* 3 here: guest-1, guest-2, guest-3");
    bob.leave();
    eve.hear("* guest-2 left (2 here)");
    ann.hear("* guest-2 left (2 here)");

    story.because("the answer comes in its place: after what was said before it, also if all of it came with one read");
    ann.send("one\n/who\ntwo\n");
    ann.hear("* 2 here: guest-1, guest-3");
    story.because("nobody else gets the question or the answer");
    eve.hear("guest-1: one");
    eve.hear("guest-1: two");
    story.because("only the whole line is the command");
    ann.send("/whoever\n");
    eve.hear("guest-1: /whoever");

    story.because("an answer of any length to five bytes is a weapon: it needs a limit");
    let others: Vec<_> = (4..=22).map(|_| server.connect("zed")).collect();
    for (zed, number) in others.iter().zip(4..) {
        zed.hear(&format!("* welcome, guest-{number} ({} here)", number - 1));
        for other in [&ann, &eve] {
            other.hear(&format!("* guest-{number} joined ({} here)", number - 1));
        }
    }
    let first: Vec<String> =
        [1].into_iter().chain(3..=21).map(|number| format!("guest-{number}")).collect();
    eve.send("/who\n");
    eve.hear(&format!("* 21 here: {}, and 1 more", first.join(", ")));
}

#[test]
#[ignore = "an exercise of lesson 05"]
fn history_for_newcomers() {
    let story = Story::new(Rule {
        rule: "with --history N, a newcomer gets the last N lines that guests have said, oldest first, right after its welcome",
        why: "the room keeps the lines, because the room alone knows their order. What a newcomer gets from the history must not come a second time, and nothing may be missing between the two",
        read: "lessons/exercises/05.md, \"History for newcomers\"",
        by_hand: "nc 127.0.0.1 12345; type a few lines; nc again in another terminal",
    });
    let server = story.serve("05_threaded_server", &["127.0.0.1:0", "--history", "3"]);
    let [ann, bob] = gather(&server, ["ann", "bob"]);
    ann.send("one\ntwo\n");
    bob.hear("guest-1: one");
    bob.hear("guest-1: two");
    let newcomer = |number: usize, here: usize, lines: &[&str]| {
        let peer = server.connect("eve");
        peer.expect_line(&format!("* welcome, guest-{number} ({here} here)"));
        for line in lines {
            peer.expect_line(line);
        }
        for other in [&ann, &bob] {
            other.hear(&format!("* guest-{number} joined ({here} here)"));
        }
        peer
    };
    let eve = newcomer(3, 3, &["guest-1: one", "guest-1: two"]);
    bob.send("three\nfour\n");
    for guest in [&ann, &eve] {
        guest.hear("guest-2: three");
        guest.hear("guest-2: four");
    }
    story.because("notices are no lines of guests; and what somebody has said stays when they leave");
    eve.leave();
    for other in [&ann, &bob] {
        other.hear("* guest-3 left (2 here)");
    }
    let fay = newcomer(4, 3, &["guest-1: two", "guest-2: three", "guest-2: four"]);
    story.because("the history is sent once: what is said from now on comes once, too");
    ann.send("five\n");
    fay.expect_line("guest-1: five");
    fay.leave();
    story.because("N is at most 100: the history is kept for ever, and is sent to everybody who comes");
    let arguments = ["127.0.0.1:0", "--history", "101"];
    story.run("05_threaded_server", &arguments).usage_error_about("101");
}
