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

use lab::message::{
    JOIN, LEAVE, Message, PONG, TEXT, error, join, left, now, ping, pong, text, welcome,
};
use lab::secure::{ANN, BOB, EVE, Folder, free_port, login};
use lab::websocket::{KEYS, UPGRADE};
use lab::{MockServer, Rule, Story, gather, has_ipv6, patience};
use std::fs;
use std::net::UdpSocket;
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
        // It has ended as it had to: from now on its end is no failure.
        server.kill();
    }
    story.because(
        "N is at least 1: with 0 there is nothing to do, so it is an error of the command",
    );
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

    story.because(
        "the time begins again with each read: it limits a silence, not a whole connection",
    );
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
        let client = story.client_with("04_chat_client", &[&mock_server.address, "--log", &file]);
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
    story.because(
        "the input is still open here, and may stay open for ever: nothing more of it counts",
    );
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
    ann.gets_line("* 3 here: guest-1, guest-2, guest-3");
    bob.leave();
    eve.gets_line("* guest-2 left (2 here)");
    ann.gets_line("* guest-2 left (2 here)");

    story.because("the answer comes in its place: after what was said before it, also if all of it came with one read");
    ann.send("one\n/who\ntwo\n");
    ann.gets_line("* 2 here: guest-1, guest-3");
    story.because("nobody else gets the question or the answer");
    eve.gets_line("guest-1: one");
    eve.gets_line("guest-1: two");
    story.because("only the whole line is the command");
    ann.send("/whoever\n");
    eve.gets_line("guest-1: /whoever");

    story.because("an answer of any length to five bytes is a weapon: it needs a limit");
    let others: Vec<_> = (4..=22).map(|_| server.connect("zed")).collect();
    for (zed, number) in others.iter().zip(4..) {
        zed.gets_line(&format!("* welcome, guest-{number} ({} here)", number - 1));
        for other in [&ann, &eve] {
            other.gets_line(&format!("* guest-{number} joined ({} here)", number - 1));
        }
    }
    let first: Vec<String> =
        [1].into_iter().chain(3..=21).map(|number| format!("guest-{number}")).collect();
    eve.send("/who\n");
    eve.gets_line(&format!("* 21 here: {}, and 1 more", first.join(", ")));
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
    bob.gets_line("guest-1: one");
    bob.gets_line("guest-1: two");
    let newcomer = |number: usize, here: usize, lines: &[&str]| {
        let peer = server.connect("eve");
        peer.expect_line(&format!("* welcome, guest-{number} ({here} here)"));
        for line in lines {
            peer.expect_line(line);
        }
        for other in [&ann, &bob] {
            other.gets_line(&format!("* guest-{number} joined ({here} here)"));
        }
        peer
    };
    let eve = newcomer(3, 3, &["guest-1: one", "guest-1: two"]);
    bob.send("three\nfour\n");
    for guest in [&ann, &eve] {
        guest.gets_line("guest-2: three");
        guest.gets_line("guest-2: four");
    }
    story.because(
        "notices are no lines of guests; and what somebody has said stays when they leave",
    );
    eve.leave();
    for other in [&ann, &bob] {
        other.gets_line("* guest-3 left (2 here)");
    }
    let fay = newcomer(4, 3, &["guest-1: two", "guest-2: three", "guest-2: four"]);
    story.because("the history is sent once: what is said from now on comes once, too");
    ann.send("five\n");
    fay.expect_line("guest-1: five");
    fay.leave();
    story.because(
        "N is at most 100: the history is kept for ever, and is sent to everybody who comes",
    );
    let arguments = ["127.0.0.1:0", "--history", "101"];
    story.run("05_threaded_server", &arguments).usage_error_about("101");
}

// --- 06 ---

#[test]
#[ignore = "an exercise of lesson 06"]
fn private_messages() {
    let story = Story::new(Rule {
        rule: "a TEXT with the body `/msg NAME WORDS` goes to the member NAME alone, as a TEXT of its sender with the body `(private) WORDS`; if nobody of that name is here, or if there are no words, the sender gets an ERROR instead, and nobody else gets anything",
        why: "the room knows which name belongs to which connection. The reader of a client only sees that this text is for one member: it hands it over as another kind of event",
        read: "lessons/exercises/06.md, \"Private messages\"",
        by_hand: "cargo run --example 06_message_headers join ann, and in two more terminals bob and eve; ann types /msg bob hi",
    });
    let server = story.serve("06_message_headers", &["serve", "127.0.0.1:0"]);
    let [ann, bob, eve] = server.admit_all(["ann", "bob", "eve"]);
    let word = story.word();
    ann.say(&text(1, format!("/msg bob {word} and more")));
    bob.gets(&text(1, format!("(private) {word} and more")).by("ann"));
    story.because("what is not understood is told, and not passed on: it may be private");
    for (number, body) in [(2, "/msg zed hi"), (3, "/msg bob"), (4, "/msg"), (5, "/msg  bob hi")] {
        ann.say(&text(number, body));
        ann.gets_error(&format!("because of \"{body}\""));
    }
    story.because("a private message keeps its place among the others, also if all of them came with one read");
    ann.say_at_once(&[text(6, "one"), text(7, "/msg bob two"), text(8, "three")]);
    bob.gets(&text(6, "one").by("ann"));
    bob.gets(&text(7, "(private) two").by("ann"));
    bob.gets(&text(8, "three").by("ann"));
    story.because("only the word /msg is the command");
    ann.say(&text(9, "/msgs"));
    story.because("a private message is for one member, and nobody else gets a byte of it");
    for (number, body) in [(6, "one"), (8, "three"), (9, "/msgs")] {
        eve.gets_next(&text(number, body).by("ann"));
    }
}

#[test]
#[ignore = "an exercise of lesson 06"]
fn another_name() {
    let story = Story::new(Rule {
        rule: "a TEXT with the body `/nick NAME` gives its sender that name: it gets a WELCOME with its new name and all who are here; the others get LEAVE from the old name with the body `is now NAME`, then JOIN from the new one. A name that is not valid or is taken gets an ERROR, and changes nothing",
        why: "told in messages that exist already, this works with clients that have never heard of it. The old name is free from then on; the new one is checked as at a JOIN",
        read: "lessons/exercises/06.md, \"Another name\"",
        by_hand: "cargo run --example 06_message_headers join ann, and in another terminal bob; ann types /nick anna",
    });
    let server = story.serve("06_message_headers", &["serve", "127.0.0.1:0"]);
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    ann.say_at_once(&[text(1, "I am ann"), text(2, "/nick anna"), text(3, "now I am anna")]);
    bob.gets_next(&text(1, "I am ann").by("ann"));
    bob.gets_next(&left("ann", "is now anna"));
    bob.gets_next(&join("anna"));
    bob.gets_next(&text(3, "now I am anna").by("anna"));
    ann.gets_next(&welcome("anna", "anna, bob"));

    story
        .because("a name belongs to one member, in upper and lower case; and a name has no spaces");
    for (number, name) in [(4, "bob"), (5, "BOB"), (6, "a b"), (7, "")] {
        ann.say(&text(number, format!("/nick {name}")));
        ann.gets_error(&format!("because of the name \"{name}\""));
    }
    ann.say(&text(8, "still anna"));
    bob.gets_next(&text(8, "still anna").by("anna"));
    story.because("one's own name is not taken for oneself: capitals may change");
    ann.say(&text(9, "/nick Anna"));
    ann.gets_next(&welcome("Anna", "Anna, bob"));
    bob.gets_next(&left("anna", "is now Anna"));
    bob.gets_next(&join("Anna"));
    story.because("the old name is free");
    let eve = server.admit("ann", "Anna, ann, bob");
    story.because("the goodbye is in the name that the others know");
    ann.gets(&join("ann"));
    bob.gets(&join("ann"));
    ann.say_goodbye();
    bob.gets_leave("Anna");
    eve.gets_leave("Anna");
}

// --- 07 ---

#[test]
#[ignore = "an exercise of lesson 07"]
fn not_too_much_at_once() {
    let story = Story::new(Rule {
        rule: "with --rate N, a member may send N TEXTs in a second: each further one is dropped, and its sender gets an ERROR. A second begins with the first TEXT after the second before is over",
        why: "what one member sends is sent to all others: a flood costs the server that many times more than its sender. Count before the room hears of it, in the thread that reads from this client",
        read: "lessons/exercises/07.md, \"Not too much at once\"",
        by_hand: "cargo run --example 07_disconnects join ann, and paste twenty lines",
    });
    let server = story.serve("07_disconnects", &["serve", "127.0.0.1:0", "--rate", "5"]);
    let [ann, bob] = server.admit_all(["ann", "bob"]);
    let texts: Vec<_> = (1..=8).map(|number| text(number, format!("text {number}"))).collect();
    ann.say_at_once(&texts);
    for accepted in &texts[..5] {
        bob.gets(&accepted.clone().by("ann"));
    }
    for _ in 6..=8 {
        ann.gets_error("because this is more than 5 in a second");
    }
    story.because(
        "each member has a second of its own: one that floods takes nothing from the others",
    );
    bob.say(&text(1, "I am slow"));
    ann.gets(&text(1, "I am slow").by("bob"));

    story.because("a second later it goes on: a flood is dropped, its sender is not");
    let deadline = Instant::now() + patience();
    let mut number = 9;
    loop {
        ann.say_at_once(&[text(number, format!("text {number}")), ping(number)]);
        let answer = ann.any_message("ERROR, or PONG after a TEXT that was passed on");
        if answer.kind == PONG {
            break;
        }
        let answer = ann.any_message("PONG");
        if Instant::now() > deadline {
            story.fails(
                "server --> ann",
                "no ERROR for the first TEXT of a new second",
                &answer.told(),
            );
        }
        number += 1;
    }
    bob.gets(&text(number, format!("text {number}")).by("ann"));
    bob.say(&ping(3));
    let answer = bob.any_message("PONG 3, and nothing of what was dropped");
    if answer.kind != PONG {
        story.fails("server --> bob", "PONG 3, and nothing of what was dropped", &answer.told());
    }
}

#[test]
#[ignore = "an exercise of lesson 07"]
fn the_client_comes_back() {
    let story = Story::new(Rule {
        rule: "with --reconnect, a client that was in the room and loses its connection connects again and joins under its name: after 100 ms, then after 200 ms and so on, each wait twice as long, for up to 8 tries, also if its JOIN is refused. It stays away after the goodbye of the server, and after its own",
        why: "the network comes back, but a connection never does: the client needs a new one. Its old one may still seem alive to the server, so its name may be taken for some seconds",
        read: "lessons/exercises/07.md, \"The client comes back\"",
        by_hand: "cargo run --example 07_disconnects join ann 127.0.0.1:12345 --reconnect; kill -9 the server, and start it again",
    });
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let arguments = ["join", "ann", &mock_server.address, "--reconnect"];
    let client = story.client_with("07_disconnects", &arguments);
    // When a message shows that came after the WELCOME, the client is in.
    let admits = || {
        let server = mock_server.admits("ann");
        client.screen.expect_line("* welcome, ann (here: ann)");
        server.say(&join("bob").at(now()));
        client.screen.expect_line("* bob joined");
        server
    };
    let server = admits();
    client.types("one\n");
    server.gets(&text(1, "one"));
    drop(server);
    story.because("the numbers go on: they are the sender's, not the connection's");
    let server = admits();
    client.types("two\n");
    server.gets(&text(2, "two"));
    drop(server);

    story.because("a refusal is no reason to give up, here: the server does not know yet that the old connection is dead");
    let server = mock_server.visited();
    server.gets_next(&join("ann"));
    server.say(&error("the name ann is taken: choose another"));
    client.screen.expect_line("! the name ann is taken: choose another");
    drop(server);
    let server = admits();
    client.types("three\n");
    server.gets(&text(3, "three"));

    story.because("after a goodbye nobody comes back: the server has closed on purpose");
    server.say(&left("", "server is shutting down"));
    drop(server);
    client.expect_exit(0);

    story.because("a client that leaves stays away, too");
    let client = story.client_with("07_disconnects", &arguments);
    let server = mock_server.admits("ann");
    client.types("/quit\n");
    server.reads_until("LEAVE", |message| message.kind == LEAVE);
    drop(server);
    client.expect_exit(0);

    story.because("before its first WELCOME, a refusal is final: the name may be another person's");
    let client = story.client_with("07_disconnects", &arguments);
    let server = mock_server.visited();
    server.gets_next(&join("ann"));
    server.say(&error("the name ann is taken: choose another"));
    drop(server);
    client.expect_exit(1);
}

// --- 08 ---

#[test]
#[ignore = "an exercise of lesson 08"]
fn the_server_confirms() {
    let story = Story::new(Rule {
        rule: "with --confirm, the server answers each TEXT of a member with a PONG of the same number, also one that came before; a TEXT that came twice is still passed on once",
        why: "UDP tells nobody what has arrived: the receiver has to. A confirmation may be lost as well, so a TEXT that comes again is confirmed again",
        read: "lessons/exercises/08.md, \"The server confirms\"",
        by_hand: "lessons/08_numbers.py shows what comes",
    });
    let server = story.serve("08_udp_chat", &["serve", "127.0.0.1:0", "--confirm"]);
    let [ann, bob] = server.enter_all(["ann", "bob"]);
    ann.say(&text(1, "hello"));
    ann.gets(&pong(1));
    bob.gets(&text(1, "hello").by("ann"));
    story.because("the confirmation of the first one was lost, perhaps: so it comes again");
    ann.say(&text(1, "hello"));
    ann.gets(&pong(1));
    story.because("an order is not promised: each number is confirmed for itself");
    for number in [5, 3] {
        ann.say(&text(number, "more"));
        ann.gets(&pong(number));
        bob.gets(&text(number, "more").by("ann"));
    }
    bob.gets_nothing_else();
    story.because("somebody who has not joined gets no confirmation, because nothing was accepted");
    let zed = server.udp_peer("zed");
    zed.say(&text(1, "let me in"));
    zed.gets_error("because it has not joined");
}

#[test]
#[ignore = "an exercise of lesson 08"]
fn the_client_sends_again() {
    let story = Story::new(Rule {
        rule: "with --confirm, the client sends a TEXT again every 300 ms until a PONG with its number comes, at most 5 times in all; after that it says on standard error that the message was not confirmed, and goes on",
        why: "what is lost must be sent again by its sender, who keeps a copy until the confirmation. Without a limit, a server that is gone would be sent the same bytes for ever",
        read: "lessons/exercises/08.md, \"The client sends again\"",
        by_hand: "both with --loss 30 and --confirm: type ten lines, and count those that arrive",
    });
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let client = story.client_with("08_udp_chat", &["join", "ann", &address, "--confirm"]);
    let receives = |expected: &str| {
        let mut buffer = [0; 2000];
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            story.fails("client --> server", expected, "nothing");
        };
        let Ok(Some((message, _))) = Message::parse(&buffer[..length]) else {
            story.fails("client --> server", expected, "no message");
        };
        story.step("client --> server", message.told());
        (message, from)
    };
    let receives_text = |number: u32, body: &str| {
        let expected = text(number, body).told();
        let (came, _) = receives(&expected);
        if (came.kind, came.sequence, &came.body[..]) != (TEXT, number, body.as_bytes()) {
            story.fails("client --> server", &expected, &came.told());
        }
    };
    let (asked, ann) = receives("JOIN ann");
    if asked.kind != JOIN {
        story.fails("client --> server", "JOIN ann", &asked.told());
    }
    let say = |message: Message| {
        story.step("server --> client", message.told());
        socket.send_to(&message.bytes(), ann).unwrap();
    };
    say(welcome("ann", "ann").at(now()));

    client.types("one\n");
    for _ in 1..=5 {
        receives_text(1, "one");
    }
    if !client.warns_soon() {
        let expected = "a line about message 1, which was not confirmed";
        story.fails("client --> standard error", expected, "nothing");
    }
    story.because("after the fifth time it is not sent again, and the chat goes on");
    client.types("two\n");
    receives_text(2, "two");
    receives_text(2, "two");
    say(pong(2));
    client.types("three\n");
    story.because("what is confirmed is not sent again; one copy may have been on its way");
    let (came, _) = receives("TEXT 3");
    if came.sequence != 3 {
        receives_text(3, "three");
    }
    say(pong(3));
    client.types("/quit\n");
    client.expect_exit(0);
}

// --- 09 ---

#[test]
#[ignore = "an exercise of lesson 09"]
fn a_subprotocol() {
    const FIELD: &str = "Sec-WebSocket-Protocol";
    let story = Story::new(Rule {
        rule: "a client that offers the subprotocol `socket-chat.v1` in Sec-WebSocket-Protocol, alone or in a list, gets `Sec-WebSocket-Protocol: socket-chat.v1` in the response; a client that offers only others, or none, gets no such field",
        why: "the handshake agrees on WebSocket, but not on what is inside its messages: that is the subprotocol (RFC 6455, section 1.9). The server chooses one of those that were offered, or none (section 4.2.2)",
        read: "lessons/exercises/09.md, \"A subprotocol\"",
        by_hand: "new WebSocket(\"ws://127.0.0.1:8080/chat\", [\"socket-chat.v1\"]).protocol, in the console of the page",
    });
    let server = story.serve("09_websocket_chat", &["127.0.0.1:0"]);
    let (key, accept) = KEYS[0];
    let key_field = format!("Sec-WebSocket-Key: {key}");
    let asks = |offer: &[&str]| {
        let upgrade =
            ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", &key_field];
        let fields: Vec<&str> = upgrade.iter().chain(offer).copied().collect();
        let answer = server.asked(server.get("/chat", &fields));
        answer.must_be(&[101]);
        answer.must_have("Sec-WebSocket-Accept", accept);
        answer.field(FIELD)
    };
    for offer in [
        &["Sec-WebSocket-Protocol: socket-chat.v1"][..],
        &["Sec-WebSocket-Protocol: socket-chat.v2, socket-chat.v1,soap"],
        &["Sec-WebSocket-Protocol: soap", "sec-websocket-protocol: socket-chat.v1"],
    ] {
        let chosen = asks(offer);
        if chosen != "socket-chat.v1" {
            let expected = format!("{FIELD}: socket-chat.v1");
            story.fails("server --> somebody", &expected, &format!("{FIELD}: {chosen}"));
        }
    }
    story.because("a browser closes a connection whose server chooses what it did not offer (section 4.1). The name of a subprotocol is compared as it is written");
    for offer in [
        &[][..],
        &["Sec-WebSocket-Protocol: soap, mqtt"],
        &["Sec-WebSocket-Protocol: socket-chat.v12"],
        &["Sec-WebSocket-Protocol: SOCKET-CHAT.V1"],
    ] {
        let chosen = asks(offer);
        if !chosen.is_empty() {
            let expected = format!("no {FIELD}, because socket-chat.v1 was not offered");
            story.fails("server --> somebody", &expected, &format!("{FIELD}: {chosen}"));
        }
    }
}

#[test]
#[ignore = "an exercise of lesson 09"]
fn a_page_from_elsewhere() {
    let story = Story::new(Rule {
        rule: "with --origin ORIGIN, a page of that origin may connect, too: scheme, host and port must all be equal. Every other origin is still answered with 403",
        why: "the page may be on another server than the chat. The list of those that may connect is short, and each is written out: a comparison of the beginning or the end of an origin lets others in",
        read: "lessons/exercises/09.md, \"A page from elsewhere\"",
        by_hand: "python3 -m http.server in another folder, with a page that connects to ws://127.0.0.1:8080/chat",
    });
    let arguments = ["127.0.0.1:0", "--origin", "https://page.example"];
    let server = story.serve("09_websocket_chat", &arguments);
    let asks = |origin: &str| {
        let origin = format!("Origin: {origin}");
        let fields: Vec<&str> = UPGRADE.iter().copied().chain([origin.as_str()]).collect();
        server.asked(server.get("/chat", &fields))
    };
    asks("https://page.example").must_be(&[101]);
    asks(&format!("http://{}", server.address)).must_be(&[101]);
    for origin in [
        "http://page.example",
        "https://page.example:8443",
        "https://page.example.evil.example",
        "https://evil-page.example",
        "https://evil.example/https://page.example",
        "https://evil.example",
        "null",
    ] {
        story.because(format!("{origin} is another origin than https://page.example"));
        asks(origin).must_be(&[403]);
    }
    story.because("an origin has a scheme, `http://` or `https://`, a host, and nothing after its port: anything else can never be equal to what a browser sends");
    for wrong in ["page.example", "https://page.example/", "ftp://page.example", "https://"] {
        let arguments = ["127.0.0.1:0", "--origin", wrong];
        story.run("09_websocket_chat", &arguments).usage_error_about(wrong);
    }
}

// --- 10 ---

#[test]
#[ignore = "an exercise of lesson 10"]
fn a_log_of_logins() {
    const PROGRAM: &str = "10_secure_chat";
    let story = Story::new(Rule {
        rule: "with --log FILE, each login appends a line `TIME RESULT NAME ADDRESS` to FILE before it is answered: the time in milliseconds since 1970, `right` or `wrong`, the name, or `?` if it is not a valid name, and the address of the client; never a password",
        why: "the owner of a server must be able to see attacks: many wrong logins from one address. The name is what a stranger sent: with a line end in it, it could add a line of its own to the log",
        read: "lessons/exercises/10.md, \"A log of logins\"",
        by_hand: "tail -f logins.txt beside the server; log in with a wrong password",
    });
    let folder = Folder::new();
    let accounts = folder.quick_accounts(&story, PROGRAM, &[&ANN, &BOB, &EVE]);
    let log = folder.path("logins.txt");
    let usual = ["serve", "127.0.0.1:0", "--web", "127.0.0.1:0", "--accounts", &accounts];
    let server = story.serve(PROGRAM, &[&usual[..], &["--log", &log]].concat());
    let mut expected = Vec::new();
    let check = |expected: &[String]| {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let now = u128::from(now());
        for line in &lines {
            let time = line.split(' ').next().and_then(|time| time.parse::<u128>().ok());
            if time.is_none_or(|time| now.abs_diff(time) > 120_000) {
                let wanted = "a line that begins with the time now, in milliseconds since 1970";
                story.fails("the log", wanted, line);
            }
        }
        let rest: Vec<&str> =
            lines.iter().map(|line| line.split_once(' ').map_or("", |(_, rest)| rest)).collect();
        if rest != *expected {
            let wanted = format!("after the times {expected:?}");
            story.fails("the log", &wanted, &format!("{rest:?}"));
        }
    };
    let ann = server.visit("ann");
    ann.say(&ANN.login());
    ann.in_time().gets_next(&welcome("ann", "ann"));
    expected.push(format!("right ann {}", ann.stream.local_addr().unwrap()));
    check(&expected);
    for (name, password, logged) in [
        ("bob", EVE.password, "bob"),
        ("nobody", "let me in, please", "nobody"),
        ("bob\n1 right bob 127.0.0.1:1", "let me in, please", "?"),
    ] {
        let zed = server.visit("zed");
        zed.say(&login(name, password));
        zed.in_time().gets_error("because of its password");
        expected.push(format!("wrong {logged} {}", zed.stream.local_addr().unwrap()));
        check(&expected);
    }
}

#[test]
#[ignore = "an exercise of lesson 10"]
fn another_password() {
    const PROGRAM: &str = "10_secure_chat";
    let story = Story::new(Rule {
        rule: "`passwd NAME` asks for the password of that account, then for a new one, changes its line in the accounts, and prints `changed NAME`. With a wrong password, an account that does not exist, or a new password of the wrong length, the file stays as it is, and the exit status is 1",
        why: "a password that may have been seen must be changed at once. The new line needs a new salt, and the file is replaced as a whole, so that a server that reads it meanwhile finds the old accounts or the new ones",
        read: "lessons/exercises/10.md, \"Another password\"",
        by_hand: "cargo run --example 10_secure_chat passwd ann",
    });
    let folder = Folder::new();
    let accounts = folder.quick_accounts(&story, PROGRAM, &[&ANN, &BOB]);
    let before = fs::read_to_string(&accounts).unwrap();
    let new = "a new one, für ann";
    let usual = ["serve", "127.0.0.1:0", "--web", "127.0.0.1:0", "--accounts", &accounts];
    let server = story.serve(PROGRAM, &usual);
    let passwd = |name: &str, typed: [&str; 2]| {
        let typed = format!("{}\n{}\n", typed[0], typed[1]);
        let arguments = ["passwd", name, "--accounts", &accounts];
        story.run_typing(PROGRAM, &arguments, &typed)
    };
    let line_of = |text: &str, name: &str| {
        let mine = |line: &&str| line.split(' ').next() == Some(name);
        text.lines().find(mine).map(str::to_string)
    };
    for (name, typed) in [
        ("ann", [BOB.password, new]),
        ("zed", [ANN.password, new]),
        ("ann", [ANN.password, "short"]),
        ("ann", [ANN.password, ""]),
    ] {
        passwd(name, typed).code(1).prints("nothing", str::is_empty);
        let after = fs::read_to_string(&accounts).unwrap();
        if after != before {
            story.fails("the accounts", &format!("{before:?}"), &format!("{after:?}"));
        }
    }
    let ended = passwd("ann", [ANN.password, new]).code(0);
    ended
        .prints("\"changed ann\" as its last line", |said| {
            said.lines().last() == Some("changed ann")
        })
        .prints("no password", |said| !said.contains(new))
        .warns("no password", |said| !said.contains(new));
    let after = fs::read_to_string(&accounts).unwrap();
    story.because(
        "the other accounts stay as they are, and ann's line has another salt and another hash",
    );
    if line_of(&after, "bob") != line_of(&before, "bob")
        || line_of(&after, "ann").is_none_or(|line| before.contains(&line))
    {
        story.fails("the accounts", "bob's line as before, and a new one of ann", &after);
    }
    story.because("a server that runs already must not accept the old password any more");
    let ann = server.visit("ann");
    ann.say(&ANN.login());
    ann.in_time().gets_error("because the password is the old one");
    ann.say(&login("ann", new));
    ann.in_time().gets_next(&welcome("ann", "ann"));
}
