//! The grading of step 05: ten tests, a point each.
//!
//! For a program of your own, in any language:
//! `LAB="python3 my_server.py" cargo test --test 05_threaded_server`

#![allow(clippy::unwrap_used)]

mod lab;

use lab::{Peer, Rule, Story, accepted, enter_as_guest, gather, has_ipv6, memory, patience};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::time::{Duration, Instant};

const PROGRAM: &str = "05_threaded_server";
const TOO_LONG: &str = "! line too long: the limit is 4096 bytes";

#[test]
fn a_guest_is_greeted_by_name_and_the_others_are_told() {
    let story = Story::new(Rule {
        rule: "each connection gets the next name, guest-1, guest-2, ..., never twice; it is greeted, the others are told that it joined and later that it left, each with the number of those here",
        why: "the server greets without being spoken to; count names and people separately: names only go up, people come and go",
        read: "lessons/05_threaded_server.md, \"The code\"",
        by_hand: "nc 127.0.0.1 12345 in three terminals; Ctrl-C in one of them; nc again",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let [ann, bob, eve] = gather(&server, ["ann", "bob", "eve"]);
    bob.leave();
    ann.gets_line("* guest-2 left (2 here)");
    eve.gets_line("* guest-2 left (2 here)");

    story.because(
        "a name is never used again: a newcomer that gets guest-2 now would be taken for the guest that has left",
    );
    let fay = enter_as_guest(&server, "fay", 4, 3);
    ann.gets_line("* guest-4 joined (3 here)");
    eve.gets_line("* guest-4 joined (3 here)");
    for (i, guest) in [(4, &fay), (1, &ann)] {
        guest.leave();
        eve.gets_line(&format!("* guest-{i} left ({} here)", if i == 4 { 2 } else { 1 }));
    }
    eve.leave();
    // The room is empty now, and still open. Nobody else can hear of guest-5.
    let gus = enter_as_guest(&server, "gus", 5, 1);
    gus.leave();
}

#[test]
fn a_line_goes_to_everybody_else_and_never_back_to_its_sender() {
    let story = Story::new(Rule {
        rule: "a line goes to every other guest, once, as `guest-1: the line`, and never back to its sender",
        why: "the sender sees on its own screen what it typed; everybody else needs the name in front of it",
        read: "lessons/05_threaded_server.md, \"The idea\"",
        by_hand: "nc 127.0.0.1 12345 in three terminals; type in one of them",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let [ann, bob, eve] = gather(&server, ["ann", "bob", "eve"]);
    for _ in 0..3 {
        let word = story.word();
        ann.send(format!("{word}\n"));
        bob.gets_line(&format!("guest-1: {word}"));
        eve.gets_line(&format!("guest-1: {word}"));
        // Bob answers after he has heard it: an echo to ann would come first.
        bob.send(format!("re: {word}\n"));
        ann.gets_line(&format!("guest-2: re: {word}"));
        eve.gets_line(&format!("guest-2: re: {word}"));
    }
    // To the end of each stream, to see that nothing came twice or came back.
    ann.leave();
    bob.gets_line("* guest-1 left (2 here)");
    bob.leave();
    eve.gets_line("* guest-2 left (1 here)");
    eve.leave();
}

#[test]
fn a_line_is_a_line_however_it_arrives() {
    let story = Story::new(Rule {
        rule: "a line ends at its LF, and a CR before it is no part of it; an empty line is dropped",
        why: "TCP keeps bytes in order but forgets where each write ended: two lines may come with one read, and one line in many",
        read: "lessons/05_threaded_server.md, \"The idea\"",
        by_hand: r"(printf 'one\ntwo\nth'; sleep 1; printf 'ree\r\n') | nc -N 127.0.0.1 12345",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let [ann, bob] = gather(&server, ["ann", "bob"]);
    ann.send("one\ntwo\nthree\n");
    for line in ["one", "two", "three"] {
        bob.gets_line(&format!("guest-1: {line}"));
    }
    for piece in ["in ", "three ", "pie"] {
        ann.send_piece(piece);
    }
    // Half a line is nobody's business yet, and stops nobody.
    bob.send("meanwhile\n");
    ann.gets_line("guest-2: meanwhile");
    ann.send_piece("ces\nnext");
    bob.gets_line("guest-1: in three pieces");
    ann.send("\n");
    bob.gets_line("guest-1: next");

    story.because("telnet and PuTTY end lines with CR LF, which may be cut in two as well");
    ann.send("from telnet\r\nfrom nc\n");
    bob.gets_line("guest-1: from telnet");
    bob.gets_line("guest-1: from nc");
    ann.send_piece("cut\r");
    ann.send("\n\n\r\n\nafter empty lines\n");
    bob.gets_line("guest-1: cut");
    bob.gets_line("guest-1: after empty lines");

    story.because(
        "a read may end inside a character: collect bytes until the LF, then make text of them",
    );
    ann.send_piece(b"a euro: \xe2");
    ann.send_piece(b"\x82");
    ann.send(b"\xac\n");
    bob.gets_line("guest-1: a euro: €");
    // Whatever the size of a read is, one of these has its end in a character.
    for shift in ["", "a", "ab"] {
        let line = format!("{shift}{}", "€".repeat(1300));
        ann.send(format!("{line}\n"));
        bob.gets_line(&format!("guest-1: {line}"));
    }
    story.because("in this step every line is for the others: there are no commands");
    for line in ["quit", "/quit", "exit"] {
        ann.send(format!("{line}\n"));
        bob.gets_line(&format!("guest-1: {line}"));
    }
    ann.send("  spaces stay, \t tabs too  \n");
    bob.gets_line("guest-1:   spaces stay, \t tabs too  ");
    bob.leave();
}

#[test]
fn lines_that_many_guests_send_at_once_stay_whole_and_in_order() {
    const LINES: usize = 200;
    let story = Story::new(Rule {
        rule: "lines of several guests never mix within a line, none is lost, and one guest's lines keep their order",
        why: "what one thread sends must not come between the pieces of what another sends: one place decides the order, and writes whole lines",
        read: "lessons/05_threaded_server.md, \"The idea\"",
        by_hand: "seq 10000 | nc -N 127.0.0.1 12345 in two terminals, nc 127.0.0.1 12345 | sort | uniq -d in a third",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let guests: [Peer; 6] = gather(&server, ["ann", "bob", "eve", "fay", "gus", "hal"]);
    let mut texts = Vec::new();
    for number in 1..=guests.len() {
        let line = |n| format!("{n} of {number} {}", story.word().repeat(1 + story.number(20)));
        texts.push((0..LINES).map(line).collect::<Vec<String>>());
    }
    // Cut anywhere, and all at the same time.
    let bytes: Vec<Vec<u8>> = texts.iter().map(|t| (t.join("\n") + "\n").into_bytes()).collect();
    let mut sent = [0; 6];
    while sent.iter().zip(&bytes).any(|(sent, bytes)| *sent < bytes.len()) {
        for (i, guest) in guests.iter().enumerate() {
            let end = bytes[i].len().min(sent[i] + 1 + story.number(1500));
            if sent[i] < end {
                guest.send(&bytes[i][sent[i]..end]);
            }
            sent[i] = end;
        }
    }
    for (i, guest) in guests.iter().enumerate() {
        let mut next = [0; 6];
        for _ in 0..LINES * (guests.len() - 1) {
            let waiting = format!("{LINES} lines of each of the others, so far {next:?}");
            let line = String::from_utf8_lossy(&guest.any_line(&waiting)).into_owned();
            let speaker =
                line.strip_prefix("guest-").and_then(|l| l.split(':').next()?.parse().ok());
            let Some(speaker) = speaker.filter(|s: &usize| (1..=6).contains(s) && *s != i + 1)
            else {
                story.fails("server --> a guest", "a line of one of the others", &line);
            };
            let expected =
                texts[speaker - 1].get(next[speaker - 1]).map_or("no more", String::as_str);
            let expected = format!("guest-{speaker}: {expected}");
            if line != expected {
                story.mismatch("server --> a guest", expected.as_bytes(), line.as_bytes());
            }
            next[speaker - 1] += 1;
        }
    }
    for guest in &guests {
        guest.leave();
    }
}

#[test]
fn characters_that_control_a_terminal_are_removed() {
    let story = Story::new(Rule {
        rule: "control characters but for tab, and the bidirectional overrides, are taken out; bytes that are not UTF-8 become U+FFFD; a line that is empty then is dropped; the connection goes on",
        why: "what one guest sends, the terminals of all others obey: a server passes on text, and only text",
        read: "lessons/PROTOCOL.md, \"What may not pass\"",
        by_hand: r"printf '\033[31mred\033[0m\n' | nc -N 127.0.0.1 12345",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let [ann, bob] = gather(&server, ["ann", "bob"]);
    let say = |sent: &[u8], heard: &str| {
        ann.send([sent, b"\n"].concat());
        bob.gets_line(&format!("guest-1: {heard}"));
    };
    say(
        b"\x1b[2J\x1b[31mred\x1b[0m \x07bell\x08 \x00nul \x7fdel\x0b\x0c",
        "[2J[31mred[0m bell nul del",
    );
    say(b"carriage\rreturn", "carriagereturn");
    say("c1:\u{80}\u{85}\u{9b}31m\u{9f}.".as_bytes(), "c1:31m.");
    say(
        "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}evil\u{2066}\u{2067}\u{2068}\u{2069}".as_bytes(),
        "evil",
    );
    // Everything else is text, and stays.
    let text = "a\tb caf\u{e9} € 日本 \u{1f980} e\u{301}\u{a0}\u{200d}\u{2065}\u{2029}.";
    say(text.as_bytes(), text);

    story.because("a line that has nothing left to say is dropped like an empty one");
    ann.send("\u{1b}\u{7}\n\u{202e}\n\0\n");
    say(b"after nothing", "after nothing");

    story.because("bytes that are not UTF-8 are no reason to lose the line, the guest, or the server: telnet sends some for Ctrl-C. Decode with replacement");
    for broken in [&b"caf\xe9"[..], b"\xff\xf4\xff\xfd\x06", b"\xc3(", b"\xe2\x82", b"\xed\xa0\x80"]
    {
        ann.send([b"<", broken, b">\n"].concat());
        let heard = bob.any_line("guest-1: < what is not UTF-8 as U+FFFD >");
        let heard = String::from_utf8_lossy(&heard).into_owned();
        let inner = heard.strip_prefix("guest-1: <").and_then(|h| h.strip_suffix('>'));
        // How many for a bad sequence is free; the good bytes must be there.
        let good = String::from_utf8_lossy(broken).replace(['\u{fffd}', '\u{6}'], "");
        let right =
            inner.is_some_and(|i| i.contains('\u{fffd}') && i.replace('\u{fffd}', "") == good);
        if !right {
            let expected = format!(
                "guest-1: <{}>, with U+FFFD for each bad sequence",
                lab::escape(good.as_bytes())
            );
            story.fails("server --> bob", &expected, &lab::escape(heard.as_bytes()));
        }
    }
    say(b"still here", "still here");
    ann.leave();
}

#[test]
fn a_line_over_the_limit_is_refused_and_the_next_one_passes() {
    let story = Story::new(Rule {
        rule: "a line has at most 4096 bytes without its line end; a longer one is answered once with `! line too long: the limit is 4096 bytes` and thrown away up to its LF; the connection goes on",
        why: "a server that waits for a line end without a limit stores whatever a stranger sends; count bytes as they came, not characters, and neither LF nor CR LF",
        read: "lessons/05_threaded_server.md, \"Break it\"",
        by_hand: "head -c 5000 /dev/zero | tr '\\0' x | nc -N 127.0.0.1 12345",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let [ann, bob] = gather(&server, ["ann", "bob"]);
    let x = |bytes: usize| "x".repeat(bytes);

    for (line, end) in
        [(x(4096), "\n"), (x(4096), "\r\n"), (format!("x{}", "€".repeat(1365)), "\n")]
    {
        story.because(format!("{} bytes and {end:?} are a line: the limit is 4096 bytes without the line end, LF or CR LF, and bytes count, not characters", line.len()));
        story.by_hand(r"(head -c 4096 /dev/zero | tr '\0' x; printf '\r\n') | nc -N 127.0.0.1 12345, with another nc that listens");
        ann.send(format!("{line}{end}"));
        bob.gets_line(&format!("guest-1: {line}"));
    }
    story.because("what counts is the bytes that came: bytes that are not UTF-8 become longer when they are replaced by U+FFFD, and that is no matter of the limit");
    // Non-UTF-8 grows when it is replaced: what counts is what came.
    ann.send([&[0xff; 4096][..], b"\n"].concat());
    let heard = bob.any_line("guest-1: and U+FFFD for 4096 bytes");
    if !heard.starts_with(b"guest-1: \xef\xbf\xbd") {
        story.mismatch("server --> bob", "guest-1: \u{fffd}".as_bytes(), &heard);
    }
    story.by_hand("head -c 5000 /dev/zero | tr '\\0' x | nc -N 127.0.0.1 12345");
    story.because("a server that waits for a line end without a limit keeps whatever a stranger sends: a line of more than 4096 bytes is answered with that one line, whether LF or CR LF ends it, and the next line passes");
    for long in [x(4097) + "\n", x(4097) + "\r\n", "€".repeat(1366) + "\n", x(200_000) + "\n"] {
        ann.send(long);
        ann.gets_line(TOO_LONG);
        // The next line passes, and nothing of the long one has.
        let word = story.word();
        ann.send(format!("{word}\n"));
        bob.gets_line(&format!("guest-1: {word}"));
    }

    story.because("a line that was too long is thrown away up to its LF: its tail is no line of its own, and it is answered once");
    ann.send_piece(x(5000));
    ann.send_piece(x(5000));
    bob.send("a long line stops nobody\n");
    ann.gets_line("guest-2: a long line stops nobody");
    ann.send("the tail\n");
    ann.gets_line(TOO_LONG);
    ann.send("the next line\n");
    bob.gets_line("guest-1: the next line");

    story.because("megabytes without a line end must not pile up in the server's memory, and cost nobody else anything");
    ann.send_piece(x(1_000_000));
    // Not for a program that takes its time, nor for one whose memory comes and
    // goes by the hundred megabytes anyway.
    let started = Instant::now();
    ann.send_piece(x(100_000));
    let quick = started.elapsed() < Duration::from_millis(100);
    let before = memory(server.pid()).filter(|before| quick && *before < 32_000_000);
    if let Some(before) = before {
        for _ in 0..20 {
            ann.send_piece(x(1_000_000));
        }
        let grown = memory(server.pid()).unwrap_or(0).saturating_sub(before);
        if grown > 12_000_000 {
            let grown = format!("its memory has grown by {grown} bytes");
            story.fails("ann --> server", "at most 64 KiB of a line kept in memory", &grown);
        }
    }
    ann.send("\nthe last line\n");
    ann.gets_line(TOO_LONG);
    bob.gets_line("guest-1: the last line");
    ann.leave();
    bob.gets_line("* guest-1 left (1 here)");
    bob.leave();
}

#[test]
fn a_guest_that_leaves_is_heard_to_the_end_gets_its_queue_and_is_closed() {
    let story = Story::new(Rule {
        rule: "a client that closes its sending half is leaving: its last line is passed on, with or without a line end, then the others are told once; it gets what was queued for it, and is closed",
        why: "the end of a stream is an event like a line: it comes after what was sent before, and it is not a reason to stop sending",
        read: "lessons/05_threaded_server.md, \"Break it\"",
        by_hand: "printf 'last words' | nc -N 127.0.0.1 12345",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let [ann, bob, eve] = gather(&server, ["ann", "bob", "eve"]);
    // Lines and the end of the stream lie there before the server looks.
    server.freeze();
    ann.send("first\nlast words");
    ann.close_sending();
    server.thaw();
    for other in [&bob, &eve] {
        other.gets_line("guest-1: first");
        other.gets_line("guest-1: last words");
        other.gets_line("* guest-1 left (2 here)");
    }
    ann.expect_nothing_more();

    story.because("what was said before somebody left is still for them: send it, then close");
    let gus = server.connect_stream();
    for other in [&bob, &eve] {
        other.gets_line("* guest-4 joined (3 here)");
    }
    let line = "x".repeat(1000);
    for _ in 0..200 {
        bob.send(format!("{line}\n"));
    }
    for _ in 0..200 {
        eve.gets_line(&format!("guest-2: {line}"));
    }
    // Gus has not read a byte yet, and goes.
    let _ = gus.shutdown(Shutdown::Write);
    eve.gets_line("* guest-4 left (2 here)");
    let gus = server.peer("gus", gus);
    gus.gets_line("* welcome, guest-4 (3 here)");
    for _ in 0..200 {
        gus.gets_line(&format!("guest-2: {line}"));
    }
    gus.expect_nothing_more();

    story.because(
        "one line that was not finished when the stream ended is the last line: it counts",
    );
    bob.leave();
    eve.gets_line("* guest-2 left (1 here)");
    eve.leave();
}

#[test]
fn guests_that_vanish_are_announced_once_and_disturb_nobody() {
    const CROWD: usize = 40;
    let story = Story::new(Rule {
        rule: "a guest whose connection is reset has left: the others are told once, and the room goes on",
        why: "reading from or writing to somebody who has gone fails: that ends this guest, not the loop over all of them, and not the server",
        read: "lessons/05_threaded_server.md, \"Break it\"",
        by_hand: "nc 127.0.0.1 12345 in three terminals; end one of them with kill -9; type in another",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let [ann, bob] = gather(&server, ["ann", "bob"]);
    let mut crowd = Vec::new();
    for number in 3..3 + CROWD {
        crowd.push(server.connect_stream());
        for guest in [&ann, &bob] {
            guest.gets_line(&format!("* guest-{number} joined ({number} here)"));
        }
    }
    // A server may tell the others before it greets the newcomer.
    for stream in &crowd {
        lab::wait_for_bytes(&story, stream);
    }
    // All vanish before the server can notice, while ann speaks to all.
    server.freeze();
    story.step(format!("{CROWD} guests"), "reset their connections");
    drop(crowd);
    let word = story.word();
    ann.send(format!("{word}\n"));
    server.thaw();
    let mut told = BTreeSet::new();
    let mut heard = false;
    while told.len() < CROWD || !heard {
        let waiting =
            format!("{CROWD} notices of who left ({} so far), and guest-1: {word}", told.len());
        let line = String::from_utf8_lossy(&bob.any_line(&waiting)).into_owned();
        if line == format!("guest-1: {word}") && !heard {
            heard = true;
            continue;
        }
        let name = line.strip_prefix("* ").and_then(|l| l.split_once(" left ("));
        if !name.is_some_and(|(name, _)| told.insert(name.to_string())) {
            story.fails("server --> bob", &format!("{waiting}, each once"), &line);
        }
    }
    // In the middle of a line, and while nobody says anything.
    let zed = enter_as_guest(&server, "zed", 3 + CROWD, 3);
    zed.send_piece("half a li");
    drop(zed);
    bob.gets_line(&format!("* guest-{} joined (3 here)", 3 + CROWD));
    bob.gets_line(&format!("guest-{}: half a li", 3 + CROWD));
    bob.gets_line(&format!("* guest-{} left (2 here)", 3 + CROWD));
    let eve = enter_as_guest(&server, "eve", 3 + CROWD + 1, 3);
    eve.send("who is still here?\n");
    bob.gets_line(&format!("* guest-{} joined (3 here)", 3 + CROWD + 1));
    bob.gets_line(&format!("guest-{}: who is still here?", 3 + CROWD + 1));

    story.because("a client may be gone before it is accepted: then even asking for its address fails. That is no reason to stop accepting");
    for _ in 0..10 {
        server.freeze();
        drop(server.connect_stream());
        server.thaw();
    }
    accepted(server.address.port());
    server.settled();
    let gus = server.connect("gus");
    let welcome = gus.any_line("* welcome, guest-...");
    if !welcome.starts_with(b"* welcome, guest-") {
        story.mismatch("server --> gus", b"* welcome, guest-", &welcome);
    }
    eve.send("and now?\n");
    bob.gets_line(&format!("guest-{}: and now?", 3 + CROWD + 1));
    bob.leave();
}

#[test]
fn a_guest_that_stops_reading_delays_nobody_and_is_disconnected() {
    let story = Story::new(Rule {
        rule: "a client that stops reading never delays the others; what the server keeps for it is bounded: past 1 MiB it is disconnected, and the others are told `* guest-3 left (too slow) (2 here)`",
        why: "once the system's buffers are full, a write to a client that does not read waits for ever, and a thread that writes to all clients in turn waits with it. And a queue without a bound fills the memory instead",
        read: "lessons/05_threaded_server.md, \"Break it\"",
        by_hand: "nc 127.0.0.1 12345 | sleep 1000 in one terminal, yes | nc 127.0.0.1 12345 in the second, nc 127.0.0.1 12345 in the third",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0"]);
    let [ann, bob] = gather(&server, ["ann", "bob"]);
    let mut zed = server.connect_stream();
    for guest in [&ann, &bob] {
        guest.gets_line("* guest-3 joined (3 here)");
    }
    story.step("zed", "does not read");
    let mut chat = Chat { story: &story, speaker: &ann, listener: &bob, line: 0, sent: 0 };
    let expected = "* guest-3 left (too slow) (2 here)";
    match chat.until(64 * MIB) {
        Some(told) if told == expected => story.step("server --> bob", format!("{told} ok")),
        Some(told) => story.mismatch("server --> bob", expected.as_bytes(), told.as_bytes()),
        None => {
            let what = format!("only lines, {} MiB of them", chat.sent / MIB);
            story.fails("server --> bob", expected, &what);
        }
    }
    let enough = chat.sent;
    if enough < MIB {
        let what = format!("that, after only {enough} bytes");
        story.fails("server --> bob", "patience with zed up to 1 MiB", &what);
    }
    ann.gets_line(expected);
    bob.send("much better now\n");
    ann.gets_line("guest-2: much better now");

    story.because("a client that is disconnected is closed, however much waits for it");
    zed.set_read_timeout(Some(patience())).unwrap();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match zed.read(&mut buffer) {
            Ok(1..) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                story.fails(
                    "server --> zed",
                    "the end of the connection",
                    "nothing more, and no end",
                );
            }
            Ok(0) | Err(_) => break,
        }
    }

    story.because("a guest that reads late, but within 1 MiB, has missed nothing, and gets all of it in order: new lines come after the old ones. A guest that leaves still gets what waits for it");
    let [mut gus, hal] = [4, 5].map(|number| {
        let stream = server.connect_stream();
        stream.set_read_timeout(Some(patience())).unwrap();
        for guest in [&ann, &bob] {
            guest.gets_line(&format!("* guest-{number} joined ({} here)", number - 1));
        }
        stream
    });
    story.step("gus and hal", "do not read either, for a while");
    let mut chat = Chat { story: &story, speaker: &ann, listener: &bob, line: 0, sent: 0 };
    // A bit less than zed could not bear: some of it waits in the server. If
    // the system keeps less for them than for zed, there is nothing to see.
    if chat.until(enough - MIB / 2).is_some() {
        return;
    }
    let _ = hal.shutdown(Shutdown::Write);
    if bob.any_line("* guest-5 left (3 here)") != b"* guest-5 left (3 here)" {
        return;
    }
    let hal = server.peer("hal", hal);
    hal.gets_line("* welcome, guest-5 (4 here)");
    for number in 0..chat.line {
        hal.gets_line(&format!("guest-1: {}", Chat::text(number)));
    }
    hal.expect_nothing_more();

    // Gus reads a little, while more is said: there is room for the new before
    // the old is gone.
    let mut heard = Vec::new();
    for _ in 0..4 {
        if chat.until(chat.sent + 1).is_some() {
            return;
        }
        let mut piece = vec![0; 64 * 1024];
        if gus.read_exact(&mut piece).is_err() {
            break;
        }
        heard.extend(piece);
    }
    let _ = gus.shutdown(Shutdown::Write);
    let ended = gus.read_to_end(&mut heard);
    // Once more: if the system keeps less for him, there is nothing to see.
    if bob.any_line("* guest-4 left (2 here)").starts_with(b"* guest-4 left (too slow)") {
        return;
    }
    if let Err(e) = ended {
        story.fails("server --> gus", "all that was said, then the end", &e.to_string());
    }
    let mut lines = heard.split(|b| *b == b'\n').filter(|line| !line.starts_with(b"* "));
    for number in 0..chat.line {
        let expected = format!("guest-1: {}", Chat::text(number));
        let line = lines.next().unwrap_or(b"");
        if line != expected.as_bytes() {
            story.mismatch("server --> gus", expected.as_bytes(), line);
        }
    }
}

const MIB: usize = 1024 * 1024;

/// Somebody who speaks and somebody who listens, while others do not read.
struct Chat<'a> {
    story: &'a Story,
    speaker: &'a Peer,
    listener: &'a Peer,
    /// The number of the next line.
    line: usize,
    /// The bytes sent.
    sent: usize,
}

impl Chat<'_> {
    /// A long line with a number.
    fn text(number: usize) -> String {
        format!("{number:08}{}", "x".repeat(3992))
    }

    /// Speaks until that many bytes are sent, or until it is told that somebody
    /// has left; returns that. All the while the listener must hear everything.
    fn until(&mut self, bytes: usize) -> Option<String> {
        let mut told = None;
        while self.sent < bytes && told.is_none() {
            let lines: Vec<String> = (self.line..self.line + 16).map(Self::text).collect();
            let text = lines.join("\n") + "\n";
            // Never more on its way to the listener than it could be forgiven for.
            self.speaker.send(&text);
            self.sent += text.len();
            self.line += lines.len();
            let mut next = lines.iter();
            while next.len() > 0 {
                let heard = self.listener.any_line("the next line, while others do not read");
                let text = String::from_utf8_lossy(&heard);
                // Two who are late may be given up in the same moment.
                if text.starts_with("* ") && told.as_deref() != Some(&*text) {
                    told = Some(text.into_owned());
                    continue;
                }
                let expected = format!("guest-1: {}", next.next().map_or("", String::as_str));
                if heard != expected.as_bytes() {
                    self.story.mismatch("server --> bob", expected.as_bytes(), &heard);
                }
            }
        }
        told
    }
}

#[test]
fn a_full_room_turns_newcomers_away_and_arguments_are_as_in_step_01() {
    let story = Story::new(Rule {
        rule: "past --limit a newcomer gets `! the room is full: the limit is 2`, is closed and uses up no name; a seat is free when the others have been told that somebody left",
        why: "each guest costs a thread and a descriptor: without a limit strangers decide when the server falls over. Count people, not connections so far",
        read: "lessons/05_threaded_server.md, \"Run it\"",
        by_hand: "cargo run --example 05_threaded_server -- --limit 2, then nc in three terminals",
    });
    let server = story.serve(PROGRAM, &["127.0.0.1:0", "--limit", "2"]);
    let [ann, bob] = gather(&server, ["ann", "bob"]);
    for _ in 0..3 {
        let zed = server.connect("zed");
        zed.expect_line("! the room is full: the limit is 2");
        zed.expect_end();
    }
    // Those who are here have noticed nothing.
    bob.send("are we alone?\n");
    ann.gets_line("guest-2: are we alone?");
    bob.leave();
    ann.gets_line("* guest-2 left (1 here)");
    let eve = enter_as_guest(&server, "eve", 3, 2);
    ann.gets_line("* guest-3 joined (2 here)");
    let zed = server.connect("zed");
    zed.expect_line("! the room is full: the limit is 2");
    zed.expect_end();
    eve.leave();
    ann.leave();

    story.because("every program of the course is started in the same way; a number out of range is refused, not corrected");
    story.finds_port_taken(&server, &[]);
    enter_as_guest(&story.starts_again(&server, &[], &[]), "ann", 1, 1);
    story.together(|| {
        story.usual_arguments(PROGRAM);
        for wrong in ["0", "10001", "-1", "many"] {
            story.run(PROGRAM, &["127.0.0.1:0", "--limit", wrong]).usage_error_about(wrong);
        }
        story.run(PROGRAM, &["127.0.0.1:0", "--limit"]).usage_error_about("--limit");
    });
    if has_ipv6() {
        let six = story.serve(PROGRAM, &["[::1]:0"]);
        enter_as_guest(&six, "ann", 1, 1).leave();
    }
}
