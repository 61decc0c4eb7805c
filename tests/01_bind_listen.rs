//! The grading of step 01: ten tests, a point each.
//!
//! For a program of your own, in any language:
//! `LAB="python3 my_server.py" cargo test --test 01_bind_listen`

#![allow(clippy::unwrap_used)]

mod lab;

use lab::{Rule, Story, has_ipv6};
use std::net::{SocketAddr, TcpListener, TcpStream};

const PROGRAM: &str = "01_bind_listen";
const HELLO: &str = "hello from 01_bind_listen";

#[test]
fn the_first_line_printed_says_where_the_server_really_listens() {
    let story = Story::new(Rule {
        rule: "the first line of standard output is `listening on ADDRESS`, flushed, with the port that the system gave",
        why: "port 0 asks the system for any free port: ask the listener for its address after bind, and flush, because output to a pipe is kept back otherwise",
        read: "lessons/01_bind_listen.md, \"The idea\"",
        by_hand: "cargo run --example 01_bind_listen 127.0.0.1:0 | cat",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    assert_eq!(server.address.ip().to_string(), "127.0.0.1", "the address it was told");
    // And somebody is there.
    server.connect("ann").expect_line(HELLO);

    let second = story.serve(PROGRAM, &["127.0.0.1:0"]);
    second.connect("bob").expect_line(HELLO);
}

#[test]
fn a_client_gets_the_greeting_and_then_the_end_of_the_stream() {
    let story = Story::new(Rule {
        rule: "each client gets `hello from 01_bind_listen` and a line end, once, and is closed, without having said anything",
        why: "a server can write as soon as it has accepted; the end of the stream comes when the connection is closed, not when the function returns",
        read: "lessons/01_bind_listen.md, \"The code\"",
        by_hand: "nc 127.0.0.1 12345 </dev/null",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let ann = server.connect("ann");
    ann.expect_line(HELLO);
    ann.expect_end();
}

#[test]
fn one_client_after_another_is_served() {
    let story = Story::new(Rule {
        rule: "the server accepts one connection after another, for as long as it runs",
        why: "accept returns one connection: it belongs in a loop, and the listener must outlive it",
        read: "lessons/01_bind_listen.md, \"The code\"",
        by_hand: "for i in 1 2 3; do nc 127.0.0.1 12345 </dev/null; done",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    for _ in 0..30 {
        let ann = server.connect("ann");
        ann.expect_line(HELLO);
        ann.expect_end();
    }
}

#[test]
fn a_client_that_neither_sends_nor_closes_keeps_nobody_waiting() {
    let story = Story::new(Rule {
        rule: "a client is greeted, closed, and forgotten: the next one is served whatever the one before does",
        why: "reading from a client, or waiting until it closes, stops the server for as long as that client likes",
        read: "lessons/01_bind_listen.md, \"Break it\"",
        by_hand: "nc 127.0.0.1 12345 in one terminal, left open, and again in another",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let silent: Vec<_> = (0..5).map(|_| server.connect("zed")).collect();
    let talking = server.connect("eve");
    talking.send("is anybody there?\n");
    let ann = server.connect("ann");
    ann.expect_line(HELLO);
    ann.expect_end();
    for zed in &silent {
        zed.expect_line(HELLO);
        zed.expect_end();
    }
}

#[test]
fn clients_that_connect_at_the_same_moment_are_all_served() {
    let story = Story::new(Rule {
        rule: "clients that come while the server is busy wait in the backlog, and each is served in its turn",
        why: "the system completes connections by itself; accept only takes them out of its queue, one by one",
        read: "lessons/01_bind_listen.md, \"The idea\"",
        by_hand: "for i in 1 2 3 4 5; do nc 127.0.0.1 12345 </dev/null & done",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    // One waits already when the server wakes up. A backlog may be as short as
    // that, so the others come on their own, and the system tries again for them.
    server.freeze();
    let first = server.connect("client 0");
    let others = server.connect_later(3);
    server.thaw();
    first.expect_line(HELLO);
    first.expect_end();
    for client in others {
        let client = client.join();
        client.expect_line(HELLO);
        client.expect_end();
    }
}

#[test]
fn clients_that_vanish_do_not_end_the_server() {
    let story = Story::new(Rule {
        rule: "a client's trouble ends that client, never the server",
        why: "accept and write fail when the client has gone or has reset the connection: handle their errors inside the loop",
        read: "lessons/01_bind_listen.md, \"Break it\"",
        by_hand: "for i in 1 2 3; do nc -z 127.0.0.1 12345; done; nc 127.0.0.1 12345 </dev/null",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    story.step("3 clients", "connect and vanish before they are accepted");
    for _ in 0..3 {
        server.freeze();
        drop(server.connect_stream());
        server.thaw();
    }
    server.connect("ann").expect_line(HELLO);

    story.step("20 clients", "get the greeting and reset the connection unread");
    for _ in 0..20 {
        let stream = server.connect_stream();
        // Closed with bytes unread: the system sends a reset (RFC 2525, 2.17).
        lab::wait_for_bytes(&story, &stream);
    }
    let bob = server.connect("bob");
    bob.expect_line(HELLO);
    bob.expect_end();
}

#[test]
fn the_server_listens_on_the_given_address_and_nowhere_else() {
    let story = Story::new(Rule {
        rule: "ADDRESS is the one and only address that the server listens on",
        why: "0.0.0.0 means every network of this machine: a server for yourself should not face them",
        read: "lessons/01_bind_listen.md, \"The idea\"",
        by_hand: "cargo run --example 01_bind_listen 127.0.0.1:12399, then nc 127.0.0.2 12399",
    });
    // A port that is free now, and asked for by number.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = story.serve(PROGRAM, &[&free.to_string()]);
    if server.address != free {
        story.fails(
            "server --> screen",
            &format!("listening on {free}"),
            &server.address.to_string(),
        );
    }
    server.connect("ann").expect_line(HELLO);
    // On Linux all of 127.0.0.0/8 is this machine.
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], server.address.port()));
    if cfg!(target_os = "linux") && TcpStream::connect(elsewhere).is_ok() {
        story.fails(&format!("ann --> {elsewhere}"), "connection refused", "a connection");
    }
}

#[test]
fn an_ipv6_address_and_a_host_name_are_addresses_too() {
    let story = Story::new(Rule {
        rule: "ADDRESS is HOST:PORT, and HOST may be a name, an IPv4 address, or an IPv6 address in brackets",
        why: "the port comes after the last colon; brackets keep the colons of IPv6 apart from it",
        read: "lessons/01_bind_listen.md, \"The idea\"",
        by_hand: "cargo run --example 01_bind_listen '[::1]:12345'",
    });
    let named = story.serve(PROGRAM, &["localhost:0"]);
    named.connect("ann").expect_line(HELLO);
    // Some machines and containers have no IPv6: nothing to see there.
    if has_ipv6() {
        let server = story.serve(PROGRAM, &["[::1]:0"]);
        if !server.address.is_ipv6() {
            story.fails(
                "server --> screen",
                "listening on [::1]:PORT",
                &server.address.to_string(),
            );
        }
        server.connect("bob").expect_line(HELLO);
    }
}

#[test]
fn a_port_in_use_is_reported_in_one_line_and_a_port_just_closed_can_be_bound_again() {
    let story = Story::new(Rule {
        rule: "a server that can't bind exits with 1 and one line that names the address; started again at once on the port that it just had, it can bind",
        why: "bind fails while another program has the port. It also fails for a minute after the server's own connections, unless the listener is set to reuse the address (SO_REUSEADDR; Rust's std does)",
        read: "lessons/01_bind_listen.md, \"Break it\"",
        by_hand: "cargo run --example 01_bind_listen, twice at the same time",
    });
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let first = story.serve(PROGRAM, &[&taken]);
    story.run(PROGRAM, &[&taken]).code(1).one_line_about(&taken);

    let ann = first.connect("ann");
    ann.expect_line(HELLO);
    ann.expect_end();
    drop(ann);
    first.kill();
    let again = story.serves_again(PROGRAM, &[&taken]);
    again.connect("bob").expect_line(HELLO);
}

#[test]
fn arguments_are_explained_or_refused() {
    let story = Story::new(Rule {
        rule: "--help prints the usage and exits with 0; what can't be understood gets a line that names it, the usage, on standard error, and exit status 2",
        why: "a program that ignores what it does not understand does something else than it was told",
        read: "lessons/01_bind_listen.md, \"Run it\"",
        by_hand: "cargo run --example 01_bind_listen 12345; echo $?",
    });
    story.together(|| {
        for help in ["-h", "--help"] {
            story.run(PROGRAM, &[help]).code(0).prints("a usage", |text| !text.trim().is_empty());
        }
        for wrong in ["127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:http", "--loud"] {
            story.run(PROGRAM, &[wrong]).usage_error_about(wrong);
        }
        story.run(PROGRAM, &["127.0.0.1:0", "surplus"]).usage_error_about("surplus");
    });
}
