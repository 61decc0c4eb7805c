//! Pictures of what does not move: who holds what, and who waits for whom.

use crate::chart::Chart;
use crate::draw::{Drawing, Heads, Look, MAX_COLUMNS};
use crate::lab::message::FIELDS;
use socket_chat::chat::message::{HEADER_BYTES, Kind, Message};
use std::fs;

/// Lesson 1: where a connection waits until the program accepts it.
pub fn backlog() -> Drawing {
    let mut d = Drawing::new(
        "The backlog: connections that wait until the program accepts them",
        "Three columns: your program, the system, and the clients. The program binds and listens: \
         the system keeps a listener. Dan connects: the system completes the connection and puts it \
         at the end of the backlog, after bob and cat. Accept takes out the first connection, bob. \
         Ann was accepted before: the program has a stream to her, and bytes go both ways.",
    );
    for (x, name) in [(10, "your program"), (38, "the system"), (67, "clients")] {
        d.centered(x, 0, name, Look::Strong);
    }
    d.boxed(0, 2, 21, &["bind, listen"], Look::Plain);
    d.boxed(26, 2, 25, &["listener, port 12345"], Look::Plain);
    d.arrow(&[(20, 3), (26, 3)], "");
    d.text(26, 6, "backlog: they wait here", Look::Faint);
    d.boxed(0, 7, 21, &["accept"], Look::Plain);
    for (x, name) in [(26, "bob"), (34, "cat"), (42, "")] {
        let look = if name.is_empty() { Look::Faint } else { Look::Hot };
        d.boxed(x, 7, 9, &[name], look);
    }
    d.boxed(58, 7, 19, &["dan: connect"], Look::Plain);
    d.arrow(&[(26, 8), (20, 8)], "");
    d.arrow(&[(58, 8), (50, 8)], "");
    d.boxed(0, 11, 21, &["stream to ann"], Look::Plain);
    d.boxed(58, 11, 19, &["ann"], Look::Plain);
    d.double_arrow(&[(20, 12), (58, 12)], "bytes, both ways");
    d
}

/// Lesson 2: what happens to bytes that nobody reads.
pub fn buffers() -> Drawing {
    let mut d = Drawing::new(
        "Buffers that fill up, and a write that waits",
        "Bytes go from the writing program into its system's send buffer, over the network, into \
         the receive buffer of the other system, and from there to the reading program. Three \
         moments are shown. First: the program reads, and both buffers are nearly empty. Second: it \
         does not read, and the receive buffer is full, so TCP tells the sender to stop. Third: the \
         send buffer is full as well, and write waits.",
    );
    for (x, name) in
        [(7, "one program"), (28, "send buffer"), (49, "receive buffer"), (69, "the other")]
    {
        d.centered(x, 0, name, Look::Strong);
    }
    let moments = [
        ("writes", "##........", "##........", "reads", "It reads: both buffers are nearly empty."),
        (
            "writes",
            "######....",
            "##########",
            "does not read",
            "It stops reading: the receive buffer fills up, and TCP stops the sender.",
        ),
        (
            "write waits",
            "##########",
            "##########",
            "does not read",
            "Now the send buffer is full, too: write waits.",
        ),
    ];
    for (number, (writer, sending, receiving, reader, what)) in moments.into_iter().enumerate() {
        let y = 1 + number * 5;
        let hot = |is_hot: bool| if is_hot { Look::Hot } else { Look::Plain };
        d.boxed(0, y, 15, &[writer], hot(writer == "write waits"));
        for (x, buffer) in [(21, sending), (42, receiving)] {
            d.frame(x, y, 15, 3, hot(!buffer.contains('.')));
            d.centered(x + 7, y + 1, buffer, Look::Code);
        }
        d.boxed(61, y, 17, &[reader], Look::Plain);
        let stops = |is_full: bool| if is_full { Look::Faint } else { Look::Plain };
        d.line(&[(14, y + 1), (21, y + 1)], Heads::End, stops(number == 2));
        d.line(&[(35, y + 1), (42, y + 1)], Heads::End, stops(number > 0));
        d.line(&[(56, y + 1), (61, y + 1)], Heads::End, stops(number > 0));
        let (first, second) = what.split_once(": ").unwrap_or((what, ""));
        d.text(0, y + 3, &format!("{}. {first}: {second}", number + 1), Look::Faint);
    }
    d
}

/// Lesson 4: two programs that wait for each other.
pub fn deadlock() -> Drawing {
    let mut d = Drawing::new(
        "A deadlock: each of the four waits for the next one",
        "A circle of four parts. The client has one thread: it waits in write, because the buffers \
         to the server are full. They are full because the server does not read. The server does \
         not read because it waits in write, because the buffers to the client are full. They are \
         full because the client does not read, because it waits in write.",
    );
    d.boxed(0, 4, 21, &["client", "waits in write,", "does not read"], Look::Hot);
    d.boxed(56, 4, 21, &["server", "waits in write,", "does not read"], Look::Hot);
    d.boxed(26, 0, 25, &["buffers to the server", "full of lines"], Look::Plain);
    d.boxed(26, 9, 25, &["buffers to the client", "full of answers"], Look::Plain);
    d.arrow(&[(10, 4), (10, 1), (26, 1)], "");
    d.arrow(&[(50, 1), (66, 1), (66, 4)], "");
    d.arrow(&[(66, 8), (66, 11), (50, 11)], "");
    d.arrow(&[(26, 11), (10, 11), (10, 8)], "");
    d.centered(38, 5, "each waits for the next:", Look::Faint);
    d.centered(38, 6, "for ever", Look::Faint);
    d
}

/// Lesson 5: how the room sends to one guest and never waits.
pub fn queue() -> Drawing {
    let mut d = Drawing::new(
        "One guest's queue: what fits is sent at once, the rest waits in the backlog",
        "The room sends what fits into the guest's send buffer at once, and never waits. What does \
         not fit goes into the backlog. The writer, a thread of its own, writes the backlog into \
         the send buffer; only the writer may wait. If the backlog would grow beyond 1 MiB, the \
         guest is disconnected.",
    );
    d.boxed(0, 0, 15, &["the room:", "one thread,", "never waits"], Look::Plain);
    d.boxed(46, 0, 15, &["", "send buffer", ""], Look::Plain);
    d.boxed(67, 0, 11, &["", "guest", ""], Look::Plain);
    d.arrow(&[(14, 2), (46, 2)], "what fits: sent at once");
    d.arrow(&[(60, 2), (67, 2)], "");
    d.boxed(12, 8, 21, &["backlog", "at most 1 MiB"], Look::Hot);
    d.boxed(39, 8, 29, &["writer: a thread", "that waits for this guest"], Look::Hot);
    d.arrow(&[(6, 4), (6, 10), (12, 10)], "");
    d.text(8, 6, "what does not fit", Look::Label);
    d.arrow(&[(32, 9), (39, 9)], "");
    d.arrow(&[(53, 8), (53, 4)], "");
    d.text(55, 6, "at the guest's speed", Look::Faint);
    d.arrow(&[(22, 11), (22, 13)], "");
    d.centered(22, 14, "over 1 MiB: the guest is disconnected", Look::Faint);
    d
}

/// Lesson 6: a message, as the library writes it.
pub fn header() -> Drawing {
    let text = Message::new(Kind::Text, "bob", "5 €?");
    let bytes = Message { sequence: 1, timestamp: 1_795_374_388_310, ..text }.to_bytes();
    let mut d = Drawing::new(
        "A message, eight bytes in each row: a header of 20 bytes, then the sender and the body",
        "Bytes 0 and 1 are the magic, byte 2 is the version, byte 3 the kind, bytes 4 to 7 are the \
         sequence, 8 to 15 the timestamp, 16 and 17 the sender length, 18 and 19 the body length. \
         The sender follows, as long as the header says, and then the body.",
    );
    let mut start = 0;
    for (name, size) in FIELDS.into_iter().chain([("sender", 3), ("body", 6)]) {
        let end = start + size;
        // A field may go on in the next row.
        while start < end {
            let (row, place) = (start / 8, start % 8);
            let count = (8 - place).min(end - start);
            let hex: Vec<String> =
                bytes[start..start + count].iter().map(|byte| format!("{byte:02x}")).collect();
            let (x, y, width) = (3 + place * 9, row * 3, count * 9 + 1);
            let is_text = start >= HEADER_BYTES;
            d.frame(x, y, width, 4, if is_text { Look::Hot } else { Look::Plain });
            d.centered(x + width / 2, y + 1, name, Look::Plain);
            d.centered(x + width / 2, y + 2, &hex.join(" "), Look::Code);
            if place == 0 {
                d.text(0, y + 2, &start.to_string(), Look::Faint);
            }
            start += count;
        }
    }
    assert_eq!(start, bytes.len());
    d
}

/// Lesson 7: the states of both ends.
pub fn tcp_states() -> Drawing {
    let mut c = Chart::new(
        Drawing::new(
            "The states of both ends of a connection while it closes",
            "Time runs down. Both ends are established. The side that closes first sends a FIN and \
             is in FIN-WAIT-1; the other side gets it and is in CLOSE-WAIT. Its ACK takes the first \
             side to FIN-WAIT-2. When the other side has closed, too, it sends a FIN and is in \
             LAST-ACK. The first side answers with an ACK and stays in TIME-WAIT for a minute. With \
             that ACK the other side is gone.",
        ),
        &[("closes first", 14), ("the other side", 60)],
    );
    let (first, other) = ("closes first", "the other side");
    c.state(first, "ESTAB", Look::Plain);
    c.state(other, "ESTAB", Look::Plain);
    c.row += 3;
    c.message(first, other, "FIN: I will send no more", Look::Hot);
    c.state(first, "FIN-WAIT-1", Look::Plain);
    c.state(other, "CLOSE-WAIT", Look::Hot);
    c.row += 3;
    c.message(other, first, "ACK: I have got this", Look::Plain);
    c.state(first, "FIN-WAIT-2", Look::Plain);
    let (middle, y) = (37, c.row + 1);
    c.row += 3;
    c.drawing.centered(middle, y, "the program there may still", Look::Faint);
    c.drawing.centered(middle, y + 1, "send; it has not closed yet", Look::Faint);
    c.message(other, first, "FIN: nor will I", Look::Hot);
    c.state(first, "TIME-WAIT", Look::Hot);
    c.state(other, "LAST-ACK", Look::Plain);
    c.row += 3;
    c.message(first, other, "ACK", Look::Plain);
    c.state(other, "gone", Look::Faint);
    c.row += 1;
    c.drawing.text(16, c.row, "one minute on Linux", Look::Faint);
    c.row += 1;
    c.state(first, "gone", Look::Faint);
    c.finish()
}

/// Lesson 8: which sequence numbers the server knows of a member.
pub fn window() -> Drawing {
    let mut d = Drawing::new(
        "The window of 64 sequence numbers, before and after number 102",
        "Two rows of cells. The numbers 96, 98, 99 and 100 have come: the window is 37 to 100, and \
         97 is missing. A number in the window that has come is a duplicate; 97 would be new, though \
         late; what is below the window is too old. Then 102 comes: the window moves up by two, to \
         39 to 102, and 97 and 101 are missing.",
    );
    let seen = [96, 98, 99, 100];
    let row = |d: &mut Drawing, y: usize, highest: u32, seen: &[u32]| {
        let lowest = highest - 63;
        d.text(0, y + 1, "number", Look::Faint);
        d.text(0, y + 3, "has come", Look::Faint);
        let cells = [lowest, lowest + 1].into_iter().map(Some).chain([None]);
        let cells = cells.chain((highest - 7..=highest).map(Some));
        for (place, number) in cells.enumerate() {
            let x = 10 + place * 6;
            let Some(number) = number else {
                d.centered(x + 3, y + 1, "...", Look::Plain);
                d.centered(x + 3, y + 3, "...", Look::Plain);
                continue;
            };
            let has_come = seen.contains(&number);
            d.centered(x + 3, y + 1, &number.to_string(), Look::Plain);
            let (text, look) = if has_come { ("1", Look::Hot) } else { ("0", Look::Plain) };
            d.boxed(x, y + 2, 7, &[text], look);
        }
    };
    d.text(0, 0, "96, 98, 100 and 99 have come: 100 is the highest.", Look::Strong);
    row(&mut d, 0, 100, &seen);
    d.text(
        0,
        6,
        "97 is in the window and has not come: it would be new, though late.",
        Look::Faint,
    );
    d.text(
        0,
        7,
        "98 has come: once more would be a duplicate. 36 or less is too old.",
        Look::Faint,
    );
    d.text(0, 9, "102 comes: the window moves up by 2, and 37 and 38 fall out.", Look::Strong);
    row(&mut d, 9, 102, &[&seen[..], &[102]].concat());
    d.text(0, 15, "Now 97 and 101 are missing; both may still come.", Look::Faint);
    d
}

/// Lesson 10: who signs what, and what a client checks.
pub fn certificates() -> Drawing {
    let mut d = Drawing::new(
        "Which certificate signs which, and what the client checks",
        "The authority has a secret key, ca.key, and a certificate, ca.pem, which it has signed \
         itself. With ca.key it signs the server's certificate, server.pem, which has the server's \
         names, an end date and the server's public key. The server keeps the secret half, \
         server.key. The client has ca.pem only. It checks four things, and stops at the first one \
         that fails: the signature, the date, the name, and that the server has the secret key. Only \
         then it sends the password.",
    );
    d.centered(18, 0, "the authority", Look::Strong);
    d.boxed(0, 1, 37, &["ca.key: secret"], Look::Hot);
    d.boxed(0, 6, 37, &["ca.pem: certificate", "the authority's public key"], Look::Plain);
    d.arrow(&[(10, 3), (10, 6)], "");
    d.text(12, 4, "signs itself", Look::Faint);
    d.centered(61, 0, "the server", Look::Strong);
    d.boxed(46, 1, 31, &["server.key: secret"], Look::Hot);
    let fields = ["server.pem: certificate", "names: localhost, 127.0.0.1", "an end date"];
    d.boxed(46, 6, 31, &[&fields[..], &["the server's public key"]].concat(), Look::Plain);
    d.arrow(&[(36, 2), (41, 2), (41, 8), (46, 8)], "");
    d.text(40, 4, "signs", Look::Label);
    d.double_arrow(&[(61, 3), (61, 6)], "");
    d.text(63, 4, "a pair", Look::Faint);
    d.centered(18, 13, "the client", Look::Strong);
    d.boxed(0, 14, 37, &["a copy of ca.pem, and no more"], Look::Plain);
    d.arrow(&[(10, 9), (10, 14)], "");
    d.text(12, 11, "is copied by a person", Look::Faint);
    d.arrow(&[(61, 11), (61, 15), (36, 15)], "");
    d.text(42, 13, "is sent at each connect", Look::Faint);
    d.text(0, 18, "The client checks, and stops at the first one that fails:", Look::Strong);
    let checks = [
        "1. Is server.pem signed by the authority of ca.pem?",
        "2. Is it valid today? (It has an end date.)",
        "3. Is the name that I connect to among its names?",
        "4. Has the other side the secret key? (It signs this handshake with it.)",
        "Only then it sends LOGIN, with the password.",
    ];
    for (number, check) in checks.iter().enumerate() {
        d.text(2, 19 + number, check, Look::Plain);
    }
    d
}

/// README: the first run of that page, as three people see it.
pub fn three_terminals() -> Drawing {
    let readme = fs::read_to_string("README.md").unwrap();
    let run = readme.split("```terminals\n").nth(1).unwrap().split("```").next().unwrap();
    let names = ["1: the server", "2: ann", "3: bob"];
    let mut d = Drawing::new(
        "A chat in three terminals: the server, ann and bob",
        "In the first terminal the server runs, in the second ann has joined, in the third bob. Bob \
         says hello, and ann reads it with the time and his name. Bob leaves, and ann is told. The \
         server is asked to stop, and ann gets a goodbye.",
    );
    let width = MAX_COLUMNS / 2 - 1;
    let mut screens: [Vec<(String, Look)>; 3] = Default::default();
    for line in run.lines() {
        let (terminal, sign, rest) = (&line[..1], &line[1..2], &line[3..]);
        let shown = if sign == "$" { format!("$ {rest}") } else { rest.to_string() };
        let look = if sign == ":" { Look::Code } else { Look::Typed };
        let screen = &mut screens[terminal.parse::<usize>().unwrap() - 1];
        screen.extend(wrapped(&shown, width - 2).into_iter().map(|line| (line, look)));
    }
    // The server and bob on the left, one below the other, and ann on the right.
    let below = screens[0].len() + 4;
    let places = [(0, 0), (width + 2, 0), (0, below)];
    let height = below + screens[2].len();
    for (number, (screen, (x, y))) in screens.iter().zip(places).enumerate() {
        let lines = if number == 1 { height } else { screen.len() };
        d.centered(x + width / 2, y, names[number], Look::Strong);
        d.frame(x, y + 1, width, lines + 2, Look::Plain);
        for (row, (line, look)) in screen.iter().enumerate() {
            d.text(x + 1, y + 2 + row, line, *look);
        }
    }
    d
}

/// A line as a narrow terminal shows it: what does not fit goes on in the next
/// row. An option and its value stay together.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in line.replace("--example ", "--example\u{a0}").split(' ') {
        let row = rows.last_mut().unwrap();
        let space = usize::from(!row.is_empty());
        if row.chars().count() + space + word.chars().count() <= width {
            *row += &format!("{}{word}", if space == 1 { " " } else { "" });
        } else {
            rows.push(word.to_string());
        }
    }
    rows.iter().map(|row| row.replace('\u{a0}', " ")).collect()
}
