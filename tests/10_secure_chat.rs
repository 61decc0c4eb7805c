//! The grading of step 10: ten tests, a point each. In two of them the test is
//! the server. The last two need the commands `openssl` and `stunnel`; where
//! these are missing, they are ignored.
//!
//! For a program of your own, in any language:
//! `LAB="python3 my_10.py" cargo test --test 10_secure_chat`

#![allow(clippy::unwrap_used)]

mod lab;

use lab::message::{
    CHALLENGE, JOIN, LEAVE, LOGIN, Message, WELCOME, error, join, left, message, now, ping, pong,
    text, welcome,
};
use lab::pbkdf2::pbkdf2;
use lab::secure::{
    ANN, Account, BOB, Behavior, EVE, Folder, TlsClient, TlsProxy, Trap, free_port, from_ab64,
    login, make_certificates, make_readable_for_all, mode, started_by, still_running, work,
};
use lab::websocket::{GOODBYES, KEYS, UPGRADE};
use lab::{Format, MockServer, Peer, Program, Rule, Story};
use lab::{has_ipv6, patience, readable};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

const PROGRAM: &str = "10_secure_chat";
const WRONG: &str = "wrong name or password";
/// A connection that has not logged in is closed after 30 s.
const TIME_TO_LOG_IN: Duration = Duration::from_secs(29);
const GOODBYE: &str = "server is shutting down";
const AS_BEFORE: &str = "after the login it is the client of step 07: who is here and what is said is shown as there, and each typed line is a TEXT, numbered from 1";

/// A server with both of its listeners: the terminals' and the browsers'.
#[track_caller]
fn serve(story: &Rc<Story>, accounts: &str, more: &[&str]) -> (Program, Program) {
    let usual = ["serve", "127.0.0.1:0", "--web", "127.0.0.1:0", "--accounts", accounts];
    serve_as(story, &[&usual[..], more].concat())
}

#[track_caller]
fn serve_as(story: &Rc<Story>, arguments: &[&str]) -> (Program, Program) {
    let server = story.serve(PROGRAM, arguments);
    let expected = "page on http://ADDRESS/";
    let line = String::from_utf8_lossy(&server.screen.any_line(expected)).into_owned();
    let address = line.strip_prefix("page on http://").and_then(|rest| rest.strip_suffix('/'));
    let Some(address) = address.and_then(|a| a.parse().ok()) else {
        story.because("the lines come in this order: `listening on ADDRESS` for the terminals, then `page on http://ADDRESS/` for the browsers, each with the address that the system says it got");
        story.fails("server --> screen", expected, &line)
    };
    story.step("server --> screen", line);
    let web = server.listener(address, Format::WebSocket);
    (server, web)
}

/// A file with these accounts, which may be quick, and ann's, whose password takes
/// its full work.
fn one_slow_account(story: &Rc<Story>, folder: &Folder, others: &[&Account]) -> String {
    let quick = folder.quick_accounts(story, PROGRAM, others);
    let quick = fs::read_to_string(quick).unwrap();
    folder.file("accounts.txt", &format!("{}\n{quick}", ANN.line))
}

/// Logs in by a new connection, where then these are `here`.
#[track_caller]
fn enters(server: &Program, who: &Account, here: &str) -> Peer {
    let peer = server.visit(who.name);
    peer.say(&who.login());
    peer.in_time().gets_next(&welcome(who.name, here));
    peer
}

/// The goodbye of the server itself.
fn goodbye() -> Message {
    left("", GOODBYE)
}

/// None of these passwords may be in a text.
#[track_caller]
fn has_no_password(story: &Story, who: &str, text: &str, accounts: &[&Account]) {
    for account in accounts {
        if text.contains(account.password.trim()) {
            let received = format!("{:?}", text.trim_end());
            story.fails(who, &format!("no word of {}'s password", account.name), &received);
        }
    }
}

#[test]
fn adduser_writes_a_salted_hash_and_never_the_password() {
    let story = Story::new(Rule {
        rule: "adduser prints `added NAME` and writes a line `NAME $pbkdf2-sha256$600000$SALT$HASH`: 16 bytes of salt, new each time, and 32 of hash, both in passlib's base64; the file is its owner's alone, and is replaced as a whole",
        why: "a thief of the file must not find passwords in it, nor see which ones are equal; and a program that is interrupted while it writes must not lose it",
        read: "lessons/10_secure_chat.md, \"The idea\"",
        by_hand: "cargo run --example 10_secure_chat adduser ann; type a password; cat accounts.txt; ls -l accounts.txt",
    });
    let folder = Folder::new();
    let file = folder.path("people.txt");
    // The longest that there is, and the shortest.
    let passwords = [&format!(" f\u{fc}r ann {} ", "x".repeat(117)), " 8 bytes"];
    let add = |name: &str, password: &str, end: &str| {
        let typed = format!("{password}{end}");
        let added = format!("added {name}");
        let arguments = ["adduser", name, "--accounts", &file];
        let ended = story.run_typing(PROGRAM, &arguments, &typed).code(0);
        let printed = ended.printed();
        if printed.ends_with(&format!("{added}\n")) && printed.lines().last() != Some(&added) {
            story.because("the question for the password goes to standard error, where join has it too: standard output has only what came of it");
        }
        ended
            .prints(&format!("{added:?} as its last line"), |said| {
                said.lines().last() == Some(&added)
            })
            .prints("no password", |said| !said.contains(password.trim()))
            .warns("no password", |said| !said.contains(password.trim()));
        story.step(
            "the file",
            fs::read_to_string(&file).map_or("can't be read".into(), |t| format!("{t:?}")),
        );
        if mode(&file).is_some_and(|mode| mode & 0o077 != 0) {
            story.because("somebody who can read the file can try passwords against it, at home and without a limit: create it with mode 600, from its first moment");
            let received = format!("mode {:o}", mode(&file).unwrap_or(0));
            story.fails("the file", "mode 600: nobody but its owner reads it", &received);
        }
    };
    story.because("a password has 8 to 128 bytes: the shortest and the longest are passwords, too");
    add("ann", passwords[0], "\r\n");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let (salt, hash) = proof(&story, &text, "ann");
    // This takes its time, and bob can be added meanwhile.
    let expected = {
        let (password, salt) = (passwords[0].to_string(), salt.clone());
        let until = Instant::now() + Duration::from_secs(3600);
        thread::spawn(move || pbkdf2(password.as_bytes(), &salt, 600_000, until))
    };

    story.because("the new file is written beside the old one and then renamed over it: whenever the power fails, one of the two is there, whole. A program that opens the old one to write into it has neither for a moment");
    // As somebody with a careless editor leaves it.
    make_readable_for_all(&file);
    let old = folder.path("the old file");
    let is_kept = fs::hard_link(&file, &old).is_ok();
    add("bob", passwords[1], "\n");
    if is_kept && fs::read_to_string(&old).unwrap() != text {
        let received = format!("{:?}", fs::read_to_string(&old).unwrap());
        story.fails("the old file, under another name", &format!("{text:?}, as it was"), &received);
    }
    let both = fs::read_to_string(&file).unwrap_or_default();
    if both.lines().count() != 2 || !both.lines().any(|line| Some(line) == text.lines().next()) {
        let expected = format!("two lines, and this is one of them: {text:?}");
        story.fails("the file", &expected, &format!("{both:?}"));
    }
    if proof(&story, &both, "bob").0 == salt {
        story.because("with the same salt equal passwords have equal hashes, and who guesses one has guessed all of them: take 16 new bytes from the system's source of chance for each account");
        story.fails("the file", "another salt for bob than for ann", &format!("{both:?}"));
    }
    if expected.join().unwrap() != hash {
        explain_hash(&story, passwords[0], &salt, &hash);
    }
    story.step("the hash", "is that of PBKDF2 with HMAC-SHA-256, 600000 rounds ok");
}

/// The salt and the hash of an account.
#[track_caller]
fn proof(story: &Story, text: &str, name: &str) -> (Vec<u8>, Vec<u8>) {
    let start = format!("{name} $pbkdf2-sha256$600000$");
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    let parts = line.and_then(|line| line.strip_prefix(&start)?.split_once('$'));
    let parts = parts.and_then(|(salt, hash)| Some((from_ab64(salt)?, from_ab64(hash)?)));
    match parts {
        Some((salt, hash)) if salt.len() == 16 && hash.len() == 32 => (salt, hash),
        _ => {
            story.because("passlib's base64 has `.` where others have `+`, and no `=` at the end: 22 letters for the 16 bytes of the salt, 43 for the 32 of the hash");
            let expected = format!("{start}SALT$HASH, with 22 and 43 letters");
            story.fails("the file", &expected, &format!("{text:?}"))
        }
    }
}

/// What went into the hash instead?
#[track_caller]
fn explain_hash(story: &Story, password: &str, salt: &[u8], hash: &[u8]) -> ! {
    let mistakes = [
        ("with the CR of the line end, which is no part of the password", format!("{password}\r")),
        ("with the line end, which is no part of the password", format!("{password}\r\n")),
        (
            "without the blanks at its ends, which are a part of the password",
            password.trim().into(),
        ),
    ];
    // It is only a hint: a busy machine goes without.
    let until = Instant::now() + patience() * 3 / 2;
    let of = |word: &str| pbkdf2(word.as_bytes(), salt, 600_000, until)[..] == *hash;
    let found = thread::scope(|scope| {
        let all = mistakes.each_ref().map(|(_, word)| scope.spawn(move || of(word)));
        all.map(|one| one.join().unwrap()).iter().position(|is_it| *is_it)
    });
    let received = match found.map(|at| &mistakes[at]) {
        Some((mistake, _)) => format!("that of the password {mistake}"),
        None => "another one".into(),
    };
    story.because("the hash is PBKDF2 (RFC 8018) with HMAC-SHA-256 of the line that was typed, without its end, and of the salt's 16 bytes, not of their letters");
    story.fails("the file", &format!("the hash of {password:?}"), &received)
}

#[test]
fn an_invalid_account_is_refused_and_the_file_stays_unchanged() {
    let story = Story::new(Rule {
        rule: "adduser refuses a name that is taken or that no name can be, and a password that has not 8 to 128 bytes: a line on standard error, exit status 1, the file as it was. A line of the file that makes no sense stops adduser and serve, with its number",
        why: "look at everything before you write anything",
        read: "lessons/10_secure_chat.md, \"The code\"",
        by_hand: "cargo run --example 10_secure_chat adduser ann, twice; the second time: echo $?",
    });
    let folder = Folder::new();
    let file = folder.accounts(&[&ANN, &BOB]);
    let before = fs::read(&file).unwrap();
    let unchanged = || {
        if fs::read(&file).is_ok_and(|after| after == before) {
            return;
        }
        let now = fs::read_to_string(&file).unwrap_or("nothing".into());
        story.fails("the file", "its two lines, as they were", &format!("{now:?}"));
    };
    let good = "a good password";
    for (name, typed, why) in [
        ("ann", good, "that this name is taken"),
        ("ANN", good, "that this name is taken: capital and small letters are alike"),
        ("an eve", good, "that a name has no blanks"),
        ("eve,bob", good, "that a name has no comma"),
        ("e\u{7}ve", good, "that a name has no control characters"),
        ("eve567890123456789012345678901234", good, "that a name has at most 32 bytes"),
        ("eve", "7 bytes", "that a password has at least 8 bytes"),
        ("eve", &"x".repeat(129), "that a password has at most 128 bytes"),
        ("eve", &"é".repeat(65), "that a password has at most 128 bytes, and not characters"),
    ] {
        story.because(format!("adduser says {why}, and adds nothing"));
        let arguments = ["adduser", name, "--accounts", &file];
        let ended = story.run_typing(PROGRAM, &arguments, &format!("{typed}\n"));
        ended.code(1).a_word_about(why).warns("no password", |said| !said.contains(typed));
        unchanged();
    }
    story.because("the end of the input is no password");
    let arguments = ["adduser", "eve", "--accounts", &file];
    story.run(PROGRAM, &arguments).code(1).a_word_about("that there is no password");
    unchanged();

    let scheme = "$pbkdf2-sha256$600000$";
    for (number, wrong) in [
        (1, "eve".to_string()),
        (3, format!("eve {scheme}c2FsdA$aGFzaA")),
        (2, EVE.line[..EVE.line.len() - 3].to_string()),
    ] {
        let mut lines = vec![ANN.line, BOB.line];
        lines.insert(number - 1, &wrong);
        let text = lines.join("\n") + "\n";
        let file = folder.file("broken.txt", &text);
        story.step("line", format!("{number} of broken.txt is {wrong:?}"));
        story.because("a line that is not understood may be a friend who can't get in, or an account that is lost with the next writing: say which line it is, and go no further");
        let about = format!("that line {number} is no account");
        let names_it = |said: &str| {
            let said = said.replace(&file, "FILE");
            said.split(|c: char| !c.is_ascii_digit()).any(|word| word == number.to_string())
        };
        for arguments in [
            &["adduser", "gus", "--accounts", &file][..],
            &["serve", "127.0.0.1:0", "--web", "127.0.0.1:0", "--accounts", &file],
        ] {
            let ended = story.run_typing(PROGRAM, arguments, &format!("{good}\n"));
            ended.code(1).a_word_about(&about).warns(&about, names_it);
        }
        if fs::read_to_string(&file).unwrap() != text {
            story.fails("the file", "its three lines, as they were", "others");
        }
    }

    story.blame(
        "every program of the course is started in the same way",
        "lessons/01_bind_listen.md, \"Run it\"",
    );
    story.run(PROGRAM, &["--help"]).code(0).prints("a usage", |said| !said.trim().is_empty());
    story.run(PROGRAM, &["dance", "127.0.0.1:0"]).usage_error_about("dance");
    for arguments in [
        &["serve", "127.0.0.1"][..],
        &["serve", "127.0.0.1:0", "--web", "127.0.0.1:99999"],
        &["join", "ann", "--loud"],
    ] {
        story.run(PROGRAM, arguments).usage_error_about(arguments[arguments.len() - 1]);
    }
    for word in ["join", "adduser", "certs"] {
        let says_more = |said: &str| said.trim_end().lines().count() > 1;
        let ended = story.run(PROGRAM, &[word]).code(2).prints("nothing", str::is_empty);
        ended.warns("a line about what is missing, then the usage", says_more);
    }
}

#[test]
fn the_right_password_admits_a_member_and_nobody_else_sees_it() {
    let story = Story::new(Rule {
        rule: "LOGIN with the right password is answered with WELCOME, and the others get JOIN; then it is the chat of the steps before. The password is in no message to others and in no output",
        why: "a password belongs to one person and one server: what is printed ends up in files, and what is sent to others is theirs",
        read: "lessons/10_secure_chat.md, \"The idea\"",
        by_hand: "cargo run --example 10_secure_chat serve; then join ann and join bob in two terminals",
    });
    let folder = Folder::new();
    let accounts = [&ANN, &BOB, &EVE];
    let (server, _) = serve(&story, &one_slow_account(&story, &folder, &[&BOB, &EVE]), &[]);
    let right = "the line of an account has the salt and the hash of PBKDF2 with HMAC-SHA-256, 600000 rounds; a password has 8 to 128 bytes and may have any characters, blanks too";
    let announced =
        "a newcomer is announced to all who are here, by JOIN with the name and the time";
    story.because(right);
    let ann = enters(&server, &ANN, "ann");
    let bob = enters(&server, &BOB, "ann, bob");
    story.because(announced);
    let told = ann.gets_next(&join("bob"));
    ann.expect_now(&told);
    story.because(right);
    let eve = enters(&server, &EVE, "ann, bob, eve");
    story.because(announced);
    for other in [&ann, &bob] {
        other.gets_next(&join("eve"));
    }
    story.because("after the login it is the chat of step 07: sender and time are the server's, the sequence stays, and each ending is told with its reason");
    ann.say(&text(7, "hello,\x07 all").by("bob").at(12345));
    for other in [&bob, &eve] {
        let came = other.gets_next(&text(7, "hello, all").by("ann"));
        other.expect_now(&came);
    }
    bob.say(&text(1, "hello, ann"));
    ann.gets_next(&text(1, "hello, ann").by("bob"));
    eve.gets_next(&text(1, "hello, ann").by("bob"));
    ann.say(&ping(5));
    ann.gets_next(&pong(5));
    eve.close_sending();
    for other in [&ann, &bob] {
        other.gets_next(&left("eve", "disconnected"));
    }
    bob.say_goodbye();
    ann.gets_next(&left("bob", "left"));
    server.quit();
    ann.gets_next(&goodbye());
    drop(ann);
    server.expect_exit(0);
    story.because("what a server prints ends up in files, which others read: it may say who has come, but never with which password");
    let printed = String::from_utf8_lossy(&server.screen.so_far()).into_owned();
    for (who, said) in
        [("server --> screen", printed), ("server --> standard error", server.warnings())]
    {
        has_no_password(&story, who, &said, &accounts);
    }
}

#[test]
fn a_wrong_password_and_an_unknown_name_look_the_same() {
    let story = Story::new(Rule {
        rule: "a wrong password and an unknown name get the same ERROR `wrong name or password`, after the same work; the third failure closes the connection",
        why: "somebody who can tell the two apart, by the words or by the time, finds out who has an account; and somebody who may try without a limit will find a password",
        read: "lessons/10_secure_chat.md, \"The idea\"",
        by_hand: "cargo run --example 10_secure_chat join nobody, and the same with join ann and a wrong password",
    });
    let folder = Folder::new();
    let quick = fs::read_to_string(folder.quick_accounts(&story, PROGRAM, &[&ANN])).unwrap();
    let mut lines = format!("{}\n{}\n", ANN.line, BOB.line);
    if quick.contains("$1000$") {
        // No password is right here, and half of the work is enough to compare.
        lines = lines.replace("$600000$", "$300000$");
    }
    let (server, _) = serve(&story, &folder.file("accounts.txt", &lines), &[]);
    let wrong = error(WRONG);
    let work = || work(server.pid()).unwrap_or(0);
    // Somebody else's password; no account; the right one without its end.
    let attempts = [("ann", BOB.password), ("nobody", ANN.password), ("bob", &BOB.password[..127])];
    let mut works = Vec::new();
    let started = Instant::now();
    let zed = server.visit("zed");
    for (name, password) in attempts {
        let before = work();
        zed.say(&login(name, password));
        if zed.in_time().has_ended() && started.elapsed() > TIME_TO_LOG_IN {
            // This machine is too busy for three tries in time.
            return;
        }
        zed.gets_next(&wrong);
        works.push(work() - before);
    }
    story.because("three failures end a connection: say why, and close it");
    zed.expect_nothing_more();
    let printed = String::from_utf8_lossy(&server.screen.so_far()).into_owned();
    for said in [printed, server.warned_so_far()] {
        story.because(
            "a wrong password is often the right one of somewhere else, or of somebody else",
        );
        has_no_password(&story, "server --> screen", &said, &[&ANN, &BOB]);
    }
    story.because("the work of a password is its protection: 600,000 rounds for a wrong one, and just as many for a name that nobody has (against a salt and a hash of nobody)");
    let told: Vec<String> = works.iter().map(|ticks| format!("{ticks}")).collect();
    story.step("server", format!("has worked for {} ticks of the clock", told.join(", ")));
    // Where the system does not say, or another process works, there is nothing
    // to compare.
    let (known, unknown) = (works[0].min(works[2]), works[1]);
    if known >= 4 && !(known / 3..=known * 3).contains(&unknown) {
        let expected = format!(
            "as much work for an unknown name as for a wrong password, about {known} ticks"
        );
        story.fails("server", &expected, &format!("{unknown} ticks"));
    }
}

#[test]
fn before_the_login_no_other_message_is_accepted() {
    let story = Story::new(Rule {
        rule: "before its login a client gets ERROR `log in first` for everything but PING, PONG, LEAVE and LOGIN, and hears nothing of the others; a name that is here already gets `already here`, but only for its password",
        why: "a login that can be walked around is none. Check that in one place: until WELCOME, that place decides what is understood",
        read: "lessons/10_secure_chat.md, \"The code\"",
        by_hand: r"(printf 'CH\1\1'; head -c 12 /dev/zero; printf '\0\3\0\0zed'; sleep 1) | nc 127.0.0.1 12345",
    });
    let folder = Folder::new();
    let (server, _) = serve(&story, &folder.quick_accounts(&story, PROGRAM, &[&ANN, &BOB]), &[]);
    let nobody = server.visit("nobody");
    let ann = server.visit("ann");
    for early in [join("ann"), text(1, "let me in"), join("bob"), text(2, "please")] {
        ann.say(&early);
        ann.gets_next(&error("log in first"));
    }
    for kind in [WELCOME, CHALLENGE] {
        ann.say(&message(kind, "ann", "ann"));
        ann.gets_error("for a kind that is the server's");
    }
    ann.say(&ping(3));
    ann.gets_next(&pong(3));
    // Not answered: what comes next is that to PING.
    ann.say(&pong(4));
    ann.say(&ping(5));
    ann.gets_next(&pong(5));
    story.because("all of this is no failed login: the connection goes on, and the right password still lets in");
    ann.say(&ANN.login());
    ann.in_time().gets_next(&welcome("ann", "ann"));

    story.because(
        "a client that has not logged in has no name: it is told nothing, and nobody is told of it",
    );
    ann.say(&text(1, "is anybody here?"));
    nobody.say(&ping(6));
    nobody.gets_next(&pong(6));
    nobody.say(&message(LEAVE, "", ""));
    nobody.expect_nothing_more();
    let twin = server.visit("twin");
    twin.say(&text(1, "ann, it is me"));
    twin.gets_next(&error("log in first"));

    story.because("whether somebody is here is not told without the password");
    twin.say(&login("ann", BOB.password));
    twin.in_time().gets_next(&error(WRONG));
    let twin = server.visit("twin");
    story.because("an account is one person: a second one of that name is `already here`, the first one stays, and the connection goes on");
    twin.say(&ANN.login());
    twin.in_time().gets_next(&error("already here"));
    twin.say(&text(2, "but it is me"));
    twin.gets_next(&error("log in first"));
    let bob = enters(&server, &BOB, "ann, bob");
    ann.gets_next(&join("bob"));

    story.because("a client that has logged in has a name: another LOGIN or JOIN gets an ERROR, and the chat goes on");
    for again in [join("eve"), login("ann", "another one")] {
        bob.say(&again);
        bob.in_time().gets_error("for somebody who is in");
    }
    bob.say(&text(3, "still here"));
    ann.gets_next(&text(3, "still here").by("bob"));
}

#[test]
fn five_failed_logins_in_a_row_make_that_name_wait_and_no_other() {
    let story = Story::new(Rule {
        rule: "five failures in a row for one name, by whatever connections, make that name wait: `too many attempts: try again in N s`, even for the right password; N is 1, doubles with each failure more, and then it may try again",
        why: "a computer tries passwords by the thousand: waiting stops it, and costs a person a second. But a server that locks a name for ever lets any stranger lock people out",
        read: "lessons/10_secure_chat.md, \"The idea\"",
        by_hand: "cargo run --example 10_secure_chat join ann, with a wrong password, five times; then with the right one",
    });
    let folder = Folder::new();
    let (server, _) = serve(&story, &folder.quick_accounts(&story, PROGRAM, &[&ANN, &BOB]), &[]);
    let wrong = |number: u32| login("ann", &format!("wrong password {number}"));
    // Each by a connection of its own, which has 30 s.
    let fails = |login: Message| {
        let zed = server.visit("zed");
        zed.say(&login);
        zed.in_time().gets_next(&error(WRONG));
    };

    story.because("in a row: the right password makes the failures before it forgotten");
    fails(wrong(0));
    enters(&server, &ANN, "ann").say_goodbye();

    story.because("the failures of a name count, whatever connections they come by: up to the fifth each is a try");
    for number in 1..=4 {
        fails(wrong(number));
    }
    let gus = server.visit("gus");
    gus.say_at_once(&[wrong(5), ANN.login()]);
    gus.in_time().gets_next(&error(WRONG));
    story.because("after the fifth failure the name has to wait, and even the right password: else a thief just tries on, and sees which one is right");
    let seconds = told_to_wait(&story, &gus, 1..=2);
    let until = Instant::now() + Duration::from_secs(seconds);
    story.because("one name has to wait, and nobody else");
    let bob = enters(&server, &BOB, "bob");

    story.because("when the time is over there is one more try, and if it fails, twice the time");
    waits(&story, until);
    let hal = server.visit("hal");
    hal.say_at_once(&[wrong(6), ANN.login()]);
    hal.in_time().gets_next(&error(WRONG));
    let seconds = told_to_wait(&story, &hal, 2..=3);
    waits(&story, Instant::now() + Duration::from_secs(seconds));
    story.because(
        "a name is never locked for ever: when the time is over, the right password lets in",
    );
    let _ann = enters(&server, &ANN, "ann, bob");
    bob.gets_next(&join("ann"));
}

/// The next message says for how long to wait.
#[track_caller]
fn told_to_wait(story: &Story, peer: &Peer, about: std::ops::RangeInclusive<u64>) -> u64 {
    let who = format!("a wait of {} s", about.start());
    let expected = format!("ERROR \"too many attempts: try again in {} s\"", about.start());
    let said = peer.in_time().gets_error(&who);
    let seconds = said.strip_prefix("too many attempts: try again in ");
    let seconds = seconds.and_then(|rest| rest.strip_suffix(" s")?.parse().ok());
    match seconds.filter(|seconds| about.contains(seconds)) {
        Some(seconds) => seconds,
        None => story.fails("server", &expected, &format!("{said:?}")),
    }
}

/// Waits as it was told.
fn waits(story: &Story, until: Instant) {
    let time = until.saturating_duration_since(Instant::now());
    story.step("ann", format!("waits for {:.1} s more", time.as_secs_f64()));
    thread::sleep(time + Duration::from_millis(50));
}

#[test]
fn one_room_has_two_listeners_and_only_this_machine_reaches_them() {
    let story = Story::new(Rule {
        rule: "terminals come by TCP and browsers by WebSocket into one room, and log in alike; the page is served beside it. Both listeners take loopback addresses only: another one is refused with a line, exit status 1. Only a page of a loopback host or of the --host may connect",
        why: "a room knows messages, not how they came: put the frames around them where they leave. And what crosses a network in clear, everybody on the way can read: passwords too",
        read: "lessons/10_secure_chat.md, \"The code\"",
        by_hand: "cargo run --example 10_secure_chat serve; then join ann, and http://127.0.0.1:8080/ in a browser",
    });
    let folder = Folder::new();
    let accounts = folder.quick_accounts(&story, PROGRAM, &[&ANN, &BOB]);
    let (server, web) = serve(&story, &accounts, &[]);
    shows_the_page(&story, &web.connect_stream(), &web);
    let ann = enters(&server, &ANN, "ann");
    story.because("a browser logs in as a terminal does, with the same words: a second way in must not be an open one");
    let bob = web.visit("bob");
    bob.say(&join("bob"));
    bob.gets_next(&error("log in first"));
    bob.say(&login("bob", ANN.password));
    bob.in_time().gets_next(&error(WRONG));
    drop(bob);
    let bob = web.visit("bob");
    bob.say(&BOB.login());
    story.because(
        "both listeners serve one room: its names are those of all, and all hear what is said",
    );
    bob.in_time().gets_next(&welcome("bob", "ann, bob"));
    ann.gets_next(&join("bob"));
    ann.say(&text(1, "hello, browser"));
    bob.gets_next(&text(1, "hello, browser").by("ann"));
    bob.say(&text(2, "hello, terminal"));
    ann.gets_next(&text(2, "hello, terminal").by("bob"));
    story.because("a server that stops says goodbye to the clients of both listeners");
    server.quit();
    ann.gets_next(&goodbye());
    bob.gets_next(&goodbye());
    bob.gets_close(&GOODBYES);
    drop((ann, bob));
    server.expect_exit(0);

    story.because(
        "each listener is at the address that it was given, with the port that was asked for",
    );
    let [chat, page] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let asked = ["serve", &chat, "--web", &page, "--accounts", &accounts];
    let (_server, web) = serve_as(&story, &asked);
    if web.address.to_string() != page {
        let expected = format!("page on http://{page}/");
        story.fails("server --> screen", &expected, &format!("page on http://{}/", web.address));
    }

    story.because("without TLS a listener takes a loopback address, 127.0.0.1 or ::1: what goes there never leaves the machine. For all else there is --tls");
    let about = "why this address is refused";
    let mut outside = vec!["0.0.0.0:0"];
    if has_ipv6() {
        outside.push("[::]:0");
    }
    for address in outside {
        for arguments in [
            ["serve", address, "--web", "127.0.0.1:0", "--accounts", &accounts],
            ["serve", "127.0.0.1:0", "--web", address, "--accounts", &accounts],
        ] {
            story.run(PROGRAM, &arguments).code(1).a_word_about(about);
        }
    }
    let named = ["serve", "localhost:0", "--web", "localhost:0", "--accounts", &accounts];
    let more = ["--host", "chat.example"];
    let (_server, web) = serve_as(&story, &[&named[..], &more].concat());
    story.because("a page must come from a name of this server: a loopback name, or the one of --host. Another site may give its own name the address of this server (\"DNS rebinding\"): then Host and Origin are equal, and the page is still not ours");
    let fields = UPGRADE.join("\r\n");
    for (host, statuses) in
        [("localhost:8080", &[101][..]), ("chat.example", &[101]), ("evil.example", &[403, 421])]
    {
        let head = format!(
            "GET /chat HTTP/1.1\r\nHost: {host}\r\nOrigin: https://{host}\r\n{fields}\r\n\r\n"
        );
        web.asked(head).must_be(statuses);
    }
    if has_ipv6() {
        serve_as(&story, &["serve", "[::1]:0", "--web", "[::1]:0", "--accounts", &accounts]);
    }
}

/// Asks for the page by this connection.
#[track_caller]
fn shows_the_page(story: &Story, mut stream: &TcpStream, web: &Program) {
    story.step("a browser --> server", "GET / HTTP/1.1");
    let _ = stream.write_all(web.get("/", &["Connection: close"]).as_bytes());
    let page = web.answer("a browser", stream);
    page.must_be(&[200]);
    let kind = page.field("Content-Type").to_lowercase();
    if !kind.starts_with("text/html") {
        let received = format!("Content-Type: {kind}");
        story.fails("server --> a browser", "a page: Content-Type: text/html", &received);
    }
}

#[test]
fn join_asks_for_the_password_and_sends_it_only_in_login() {
    let story = Story::new(Rule {
        rule: "join asks for the password on standard error and takes the first line of its input for it; it sends LOGIN first of all, and shows the password nowhere. A wrong one is `! wrong name or password`, exit status 1",
        why: "the arguments of a program can be seen by everybody on the machine; what is printed stays on the screen. A password is asked for, sent once, and forgotten",
        read: "lessons/10_secure_chat.md, \"The code\"",
        by_hand: "cargo run --example 10_secure_chat join ann, with the right password and with a wrong one",
    });
    let folder = Folder::new();
    let mock_server = MockServer::open(&story, "127.0.0.1:0");
    let client = starts(&story, "eve", &[&mock_server.address]);
    let word = story.word();
    client.types(&format!("{}\nfirst {word}\n", EVE.password));
    story.because("with the first line of its input it has all that it needs: it connects");
    let server = mock_server.visited();
    gets_login(&story, &server, &EVE);
    server.say(&ping(1));
    story.because(
        "what is typed after the password waits until the client is welcome; a PING does not",
    );
    server.gets_next(&pong(1));
    story.because(AS_BEFORE);
    server.say(&welcome("eve", "ann, eve").at(now()));
    client.screen.expect_line("* welcome, eve (here: ann, eve)");
    story.because("what was typed after the password is sent as soon as the client is welcome");
    server.gets_next(&text(1, format!("first {word}")));
    story.because(AS_BEFORE);
    server.say(&text(1, "hello, eve").by("ann").at(0));
    client.screen.expect_line("[00:00:00] ann: hello, eve");
    client.types("second\n/quit\n");
    server.gets_next(&text(2, "second"));
    story.because("/quit is LEAVE, then the end of what the client sends; it prints what still comes, and ends when the server closes");
    server.gets_next(&message(LEAVE, "", ""));
    server.expect_nothing_more();
    drop(server);
    client.screen.expect_end();
    client.expect_exit(0);
    story.because(
        "a password that is shown stays on the screen, and in the files where this output goes",
    );
    has_no_password(&story, "client --> standard error", &client.warnings(), &[&EVE]);

    let client = starts(&story, "bob", &[&mock_server.address]);
    // As Windows types it.
    client.types(&format!("{}\r\n", BOB.password));
    story.because("with the first line of its input it has all that it needs: it connects");
    let server = mock_server.visited();
    gets_login(&story, &server, &BOB);
    story.because(
        "an ERROR before WELCOME is the end: it is shown, and the exit status says it too",
    );
    server.say(&error(WRONG));
    client.screen.expect_line("! wrong name or password");
    client.screen.expect_end();
    client.expect_exit(1);
    story.because(
        "a wrong password is often the right one of somewhere else: it is not shown either",
    );
    has_no_password(&story, "client --> standard error", &client.warnings(), &[&BOB]);

    let client = starts(&story, "ann", &[&mock_server.address]);
    story.because("without a password there is nothing to say: exit status 1, and not an empty password, which would be a failure of that name");
    client.ends_input();
    client.expect_exit(1);

    let (server, _) = serve(&story, &folder.quick_accounts(&story, PROGRAM, &[&ANN, &BOB]), &[]);
    let client = starts(&story, "ann", &[&server.address.to_string()]);
    client.types(&format!("{}\n", ANN.password));
    story.because(
        "server and client together: each half may be right by the contract alone; here they meet",
    );
    client.screen.in_time().expect_line("* welcome, ann (here: ann)");
    client.types("/quit\n");
    client.screen.expect_end();
    client.expect_exit(0);
}

/// Starts a client, which must ask for the password.
#[track_caller]
fn starts(story: &Rc<Story>, name: &str, more: &[&str]) -> Program {
    let client = story.client_with(PROGRAM, &[&["join", name], more].concat());
    if !client.warns_soon() {
        story.because("without a question nobody knows that it is time to type a password. The question goes to standard error, and is flushed: standard output may be a file, and has only the chat");
        story.fails("client --> standard error", "a word that asks for the password", "nothing");
    }
    client.settled();
    story.step("client --> standard error", format!("{:?}", client.warned_so_far()));
    client
}

/// The first message must be LOGIN, with name and password.
#[track_caller]
fn gets_login(story: &Story, server: &Peer, who: &Account) {
    story.because("the first message is LOGIN, and the only one before WELCOME: the name is its sender, the password its body. JOIN was for rooms where nobody has to prove who he is");
    let came = server.gets_next(&who.login());
    story.because("the password is the line that was typed without its end, LF or CRLF, and all the rest of it: blanks at its ends belong to it. The name is the one of the arguments");
    if came.sender != who.name.as_bytes() || came.body != who.password.as_bytes() {
        story.differs("client --> server", &who.login().told(), &came.told());
    }
    server.expect_no_number(&came);
}

#[cfg_attr(no_tls, ignore = "openssl or stunnel is missing: see README.md")]
#[test]
fn the_server_opens_two_listeners_for_tls_and_closes_them_when_it_ends() {
    let story = Story::new(Rule {
        rule: "`certs DIR` makes ca.pem, server.pem and server.key for localhost, 127.0.0.1 and ::1; `serve --tls DIR` opens two listeners for TLS and says where; who trusts ca.pem chats there, with a browser too. When the server ends, these listeners are gone",
        why: "a certificate is a name, a key and the word of an authority for it: the client checks all three. And what a program starts, it ends",
        read: "lessons/10_secure_chat.md, \"Run it\"",
        by_hand: "cargo run --example 10_secure_chat certs lab, then serve --tls lab; then openssl s_client -CAfile lab/ca.pem -connect 127.0.0.1:12346",
    });
    let folder = Folder::new();
    let lab = folder.path("lab");
    fs::create_dir(&lab).unwrap();
    story.because("openssl makes the three files, and must not ask anything: -subj and -addext (or a file of extensions) say what it would ask for");
    story.run(PROGRAM, &["certs", &lab]).code(0);
    let [ca, certificate, key] =
        ["ca.pem", "server.pem", "server.key"].map(|name| format!("{lab}/{name}"));
    let texts = [&ca, &certificate, &key].map(|file| fs::read_to_string(file).unwrap_or_default());
    for (file, text, inside) in [
        (&ca, &texts[0], "CERTIFICATE"),
        (&certificate, &texts[1], "CERTIFICATE"),
        (&key, &texts[2], "PRIVATE KEY"),
    ] {
        if !text.contains(&format!("{inside}-----")) {
            story.fails(file, &format!("a file in PEM with a {inside}"), &format!("{text:?}"));
        }
    }
    if mode(&key).is_some_and(|mode| mode & 0o077 != 0) {
        story.because(
            "anybody who has the key can pass for the server: the file of the key is its owner's alone",
        );
        let received = format!("mode {:o}", mode(&key).unwrap_or(0));
        story.fails("server.key", "mode 600: nobody but its owner reads it", &received);
    }
    story.because("ca.pem goes to everybody who is to trust it: the authority's key stays out of it, and it is not the server's certificate, which changes every year");
    if texts[0].contains("PRIVATE KEY") || texts[0] == texts[1] {
        let expected = "the authority's certificate, and nothing else";
        story.fails("ca.pem", expected, &format!("{:?}", texts[0]));
    }

    let accounts = folder.quick_accounts(&story, PROGRAM, &[&ANN, &BOB]);
    story.because(
        "without certificates there is no TLS: say which file is missing, and don't serve without",
    );
    let nowhere = folder.path("nowhere");
    let [chat, web] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let listeners = ["--tls-chat", &chat, "--tls-web", &web];
    let usual = ["serve", "127.0.0.1:0", "--web", "127.0.0.1:0", "--accounts", &accounts];
    let arguments = [&usual[..], &["--tls", &nowhere], &listeners].concat();
    story.run(PROGRAM, &arguments).code(1).a_word_about("that there are no certificates");

    let listeners = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let more = ["--tls", &lab, "--tls-chat", &listeners[0], "--tls-web", &listeners[1]];
    let (server, _) = serve(&story, &accounts, &more);
    story.because("after `page on` come two more lines, when these listeners are open: `tls chat on ADDRESS` and `tls page on https://ADDRESS/`, with the addresses of --tls-chat and --tls-web. All these lines are on standard output");
    server.screen.expect_line(&format!("tls chat on {}", listeners[0]));
    server.screen.expect_line(&format!("tls page on https://{}/", listeners[1]));
    let [chat, web] = [(0, Format::Messages), (1, Format::WebSocket)]
        .map(|(at, format)| server.listener(listeners[at].parse().unwrap(), format));
    for listener in [&chat, &web] {
        story.because("a listener that was announced is open");
        drop(listener.connect_in_time());
    }
    story.because("a client looks for the name that it was given among those of the certificate: localhost, 127.0.0.1 and ::1 all have to be there, and the authority in ca.pem has to have signed it");
    for name in ["checkHost = localhost", "checkIP = 127.0.0.1", "checkIP = ::1"] {
        let tunnel = TlsClient::open(&story, &folder, &ca, name, web.address);
        shows_the_page(&story, &tunnel.stream, &web);
    }

    story.because(
        "clients that come by TLS are in the same room: stunnel passes on what it decrypts",
    );
    let to_chat = TlsClient::open(&story, &folder, &ca, "checkHost = localhost", chat.address);
    let ann = chat.peer("ann", to_chat.stream.try_clone().unwrap());
    ann.say(&ANN.login());
    ann.in_time().gets_next(&welcome("ann", "ann"));
    let to_web = TlsClient::open(&story, &folder, &ca, "checkIP = 127.0.0.1", web.address);
    story.because("a page that came by https has an origin that begins so; its host is still that of the request, so it is the server's own");
    let origin = format!("Origin: https://{}", listeners[1]);
    let head = web.get("/chat", &[&UPGRADE[..], &[&origin]].concat());
    story.step("bob --> server", format!("GET /chat HTTP/1.1, {origin}"));
    let _ = (&to_web.stream).write_all(head.as_bytes());
    web.answer("bob", &to_web.stream).grants(KEYS[0].0, KEYS[0].1);
    let bob = web.peer("bob", to_web.stream.try_clone().unwrap());
    bob.say(&BOB.login());
    bob.in_time().gets_next(&welcome("bob", "ann, bob"));
    ann.gets_next(&join("bob"));
    ann.say(&text(1, "nobody reads along"));
    bob.gets_next(&text(1, "nobody reads along").by("ann"));
    bob.say(&text(1, "I hope so"));
    ann.gets_next(&text(1, "I hope so").by("bob"));

    story.because(
        "a server that stops says goodbye, also to clients that come by TLS: only then it ends the program that brings the goodbye there",
    );
    let helpers = started_by(server.pid());
    server.quit();
    ann.gets_next(&goodbye());
    bob.gets_next(&goodbye());
    drop((ann, bob, to_chat, to_web));
    story.because("the server ends what it has started: otherwise these listeners stay open without a server, and the next start finds their ports in use");
    server.expect_exit(0);
    gone(&story, &helpers);
    for listener in &listeners {
        is_closed(&story, listener);
    }
}

/// Waits until a listener is closed.
#[track_caller]
fn is_closed(story: &Story, listener: &str) {
    let until = Instant::now() + patience();
    while TcpStream::connect(listener).is_ok() {
        if Instant::now() > until {
            story.fails("a client connects", &format!("nobody at {listener}"), "somebody");
        }
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// What a program has started must have ended with it.
#[track_caller]
fn gone(story: &Story, helpers: &[u32]) {
    let left = still_running(helpers);
    if left > 0 {
        let expected = "nothing is left of what the program has started";
        story.fails("the system", expected, &format!("{left} of its processes still run"));
    }
}

#[cfg_attr(no_tls, ignore = "openssl or stunnel is missing: see README.md")]
#[test]
fn join_accepts_a_certificate_only_if_everything_in_it_is_right() {
    let story = Story::new(Rule {
        rule: "join --ca FILE joins by TLS; before anything is sent, the certificate must be signed by an authority in FILE, be for the host that was named, and be of today. Otherwise: one line that says what was wrong, exit status 1, and not a byte of the password",
        why: "encryption alone helps nobody who talks to the wrong server: a thief encrypts too. And a client that tries again without TLS does what the thief wants",
        read: "lessons/10_secure_chat.md, \"Break it\"",
        by_hand: "cargo run --example 10_secure_chat join ann localhost:12346 --ca lab/ca.pem; then with the ca.pem of another `certs`",
    });
    let folder = Folder::new();
    make_certificates(&folder);
    let ca = folder.path("ca.pem");
    let mut mock_server = MockServer::open(&story, "127.0.0.1:0");
    mock_server.awaited = "a connection through TLS, to the server".into();
    let front = TlsProxy::open(&folder, "server", &mock_server.address);
    let mut prompt = String::new();
    for host in ["127.0.0.1", "localhost"] {
        let address = format!("{host}:{}", front.address.port());
        let client = starts(&story, "ann", &[&address, "--ca", &ca]);
        prompt = client.warned_so_far();
        client.types(&format!("{}\nhello\n", ANN.password));
        story.because(format!("the certificate is for localhost and 127.0.0.1, of today, and signed by the authority in ca.pem: {host} is the right server"));
        let server = mock_server.visited();
        gets_login(&story, &server, &ANN);
        story.because(
            "by TLS it is the same chat as without: what is typed goes out, what comes is shown",
        );
        server.say(&welcome("ann", "ann").at(now()));
        client.screen.expect_line("* welcome, ann (here: ann)");
        server.gets_next(&text(1, "hello"));
        server.say(&text(1, "hello, ann").by("bob").at(0));
        client.screen.expect_line("[00:00:00] bob: hello, ann");
        let helpers = started_by(client.pid());
        story.because("/quit is LEAVE; the server closes then, and that is the end, with exit status 0. (Not all of TLS can close one half: it is free here whether the client does.)");
        client.types("/quit\n");
        server.gets_next(&message(LEAVE, "", ""));
        story.step("server --> client", "end of stream");
        drop(server);
        client.screen.expect_end();
        client.expect_exit(0);
        gone(&story, &helpers);
    }

    let localhost = |port: u16| format!("localhost:{port}");
    let mut reasons: Vec<(&str, [String; 2])> = Vec::new();
    for (what, certificate, authority) in [
        ("a certificate of another authority", "server", "other.pem"),
        ("a certificate for another name", "elsewhere", "ca.pem"),
        ("a certificate that has expired", "expired", "ca.pem"),
    ] {
        // It hears what comes through TLS, and the other one all that comes.
        let backend = Trap::open(Behavior::Listens);
        let front = TlsProxy::open(&folder, certificate, &backend.address.to_string());
        let before = Trap::open(Behavior::PassesOn(front.address));
        let address = localhost(before.address.port());
        let authority = folder.path(authority);
        let arguments = [&address, "--ca", &authority];
        let said = keeps_its_password(&story, &[&before, &backend], what, &arguments, &prompt);
        let reason = without_names(&said, &address, &authority);
        let same = reasons.iter().find(|(_, [_, other])| *other == reason);
        if let Some((before, [other, _])) = same {
            story.because("somebody who reads the line has to know what to do: another ca.pem, another address, or a new certificate. The names of the file and of the host in it don't tell. stunnel's log tells these three apart");
            let expected = format!("other words than for {before}, which got {other:?}");
            story.fails("client --> standard error", &expected, &format!("{said:?}"));
        }
        reasons.push((what, [said, reason]));
    }
    for (what, manner) in [
        ("a server without TLS", Behavior::Answers(b"CH\x01\x04 this is no TLS, but who minds?")),
        ("a server that closes without a word", Behavior::Closes),
    ] {
        let trap = Trap::open(manner);
        let address = localhost(trap.address.port());
        keeps_its_password(&story, &[&trap], what, &[&address, "--ca", &ca], &prompt);
    }
    let address = localhost(free_port());
    keeps_its_password(&story, &[], "no server at all", &[&address, "--ca", &ca], &prompt);
}

/// What a line says beside the names that the client was given, and numbers.
fn without_names(said: &str, address: &str, authority: &str) -> String {
    let host = address.split(':').next().unwrap_or("");
    let file = authority.rsplit(['/', '\\']).next().unwrap_or("");
    let words = said.replace(authority, "FILE").replace(file, "FILE").replace(host, "HOST");
    without_digits(&words)
}

fn without_digits(said: &str) -> String {
    said.replace(|c: char| c.is_ascii_digit(), "")
}

/// What comes after the question for the password, in which numbers may
/// differ.
fn after_prompt<'a>(said: &'a str, prompt: &str) -> &'a str {
    let prompt = without_digits(prompt);
    if !without_digits(said).starts_with(&prompt) {
        return said;
    }
    let mut others = said.char_indices().filter(|(_, c)| !c.is_ascii_digit());
    let last = prompt.chars().count().checked_sub(1).and_then(|last| others.nth(last));
    last.map_or(said, |(at, c)| &said[at + c.len_utf8()..])
}

/// A client must not give its password to such a server. Returns what it says
/// after its question.
#[track_caller]
fn keeps_its_password(
    story: &Rc<Story>,
    traps: &[&Trap],
    what: &str,
    arguments: &[&str],
    prompt: &str,
) -> String {
    story.because(format!(
        "{what} is not the right server: a line says so, and nothing of the password is sent"
    ));
    story.step("next comes", what);
    let client = story.client_with(PROGRAM, &[&["join", "ann"], arguments].concat());
    // It may ask first, or look at the server first.
    client.warns_soon();
    let helpers = started_by(client.pid());
    client.types(&format!("{}\n", ANN.password));
    // A server that has got it may keep its client waiting for ever.
    let until = Instant::now() + patience();
    let got = |trap: &&&Trap| {
        let heard = trap.heard();
        let has = |what: &[u8]| heard.windows(what.len()).any(|bytes| bytes == what);
        has(ANN.password.as_bytes()) || has(&[b'C', b'H', 1, LOGIN]) || has(&[b'C', b'H', 1, JOIN])
    };
    let got_it = || traps.iter().any(|trap| got(&trap));
    while !client.has_ended() && !got_it() && Instant::now() < until {
        thread::park_timeout(Duration::from_millis(5));
    }
    if client.has_ended() {
        for trap in traps {
            trap.waits_for_its_clients();
        }
    }
    if got_it() {
        let in_clear = traps.iter().take(1).any(|trap| got(&trap));
        let received = if in_clear { "all of it, without TLS" } else { "all of it, through TLS" };
        story.fails("client --> server", "not a byte of the password", received);
    }
    client.screen.expect_end();
    client.expect_exit(1);
    story.because("what a client has started it ends, when it fails too");
    gone(story, &helpers);
    story.because(format!("{what}: one line says so, for a person who has to do something about it. What the library or stunnel says is for you: find in it what that line needs"));
    let said = client.warnings();
    let said = after_prompt(&said, prompt).trim();
    if said.lines().count() != 1 || said.starts_with("Traceback") {
        let expected = "one line that says what was wrong";
        story.fails("client --> standard error", expected, &readable(said));
    }
    story.step("client --> standard error", format!("{said:?} ok"));
    said.to_string()
}
