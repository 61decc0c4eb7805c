//! Starting and ending the program under test: the shipped example, or the
//! command in `LAB`.

// The error of `assert_cmd` is large, and only used to tell it.
#![allow(clippy::result_large_err)]

use super::cleanup::{self, MARK};
use super::inbox::{Inbox, Next};
use super::peer::{Format, Peer};
use super::receiver::Receiver;
use super::story::{Collected, Story, escape, quote};
use super::{patience, system};
use assert_cmd::assert::{Assert, AssertError, OutputAssertExt};
use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::rc::Rc;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const NOT_LISTENING: &str = "print `listening on ADDRESS` first of all, when the listener is bound, with the address that the system says it has (an IPv6 address in brackets), and flush it: output to a pipe is kept back until then. (Or the program is slow to start: build it first, and try LAB_PATIENCE=3.)";
const NOT_STARTED: &str = "the program has ended before it listened, and what it said is told above. (If it could not be started at all, look at the command in LAB.)";

const TIME_WAIT: &str = "where the server was the first to close a connection, its side of it stays in TIME_WAIT for a minute (RFC 9293, section 3.6), and nobody can bind that port, unless the listener's socket is set to reuse the address: SO_REUSEADDR, before bind. Rust's std does that, and Node and Java do on Linux; C, Python and others must be told";

/// A running program. Killed when the test is over.
pub struct Process {
    /// `server` or `client`, for the report.
    role: &'static str,
    child: Arc<Mutex<Child>>,
    pid: u32,
    /// Its mark, which all the programs have that it starts.
    mark: String,
    /// To a thread that types: a program that does not read its input must not
    /// stop the test.
    keyboard: RefCell<Option<mpsc::Sender<Vec<u8>>>>,
    stdout: Inbox,
    stderr: Inbox,
    /// Whether it may end by itself.
    may_end: Cell<bool>,
    /// Whether its end was looked at: then it is no news.
    seen_off: Cell<bool>,
}

/// A program in a story.
pub struct Program {
    pub(super) story: Rc<Story>,
    /// Which program of the course it is.
    pub(super) step: String,
    /// What crosses its connections.
    pub(super) format: Format,
    process: Rc<Process>,
    /// What it prints on standard output.
    pub screen: Receiver,
    /// Where a server listens.
    pub address: SocketAddr,
}

impl Story {
    /// Starts a server and waits until it says where it listens.
    #[track_caller]
    pub fn serve(self: &Rc<Story>, name: &str, args: &[&str]) -> Program {
        self.serve_or(name, args, NOT_STARTED)
    }

    /// The same, where this is told of a server that ends instead.
    #[track_caller]
    fn serve_or(self: &Rc<Story>, name: &str, args: &[&str], ended: &str) -> Program {
        self.needs_server(name);
        let mut server = self.start("server", name, args);
        // Some programs are slow to start.
        let line = match server.process.stdout.line_within(patience() * 3 / 2) {
            Next::Some(line) => line,
            next => {
                let (rest, why) = match next {
                    Next::Silence(rest) => (rest, NOT_LISTENING),
                    Next::End(_, rest) | Next::Some(rest) => (rest, ended),
                };
                self.blame(why, "lessons/01_bind_listen.md, \"The idea\"");
                let expected = "\"listening on ADDRESS\" as its first line";
                self.fails("server --> screen", expected, &format!("{} and no more", quote(&rest)))
            }
        };
        let text = String::from_utf8_lossy(&line).into_owned();
        let address = text.trim_end_matches(['\r', '\n']).strip_prefix("listening on ");
        let address = address.and_then(|a| a.parse::<SocketAddr>().ok());
        let Some(address) = address.filter(|a| a.port() != 0) else {
            self.blame(NOT_LISTENING, "lessons/01_bind_listen.md, \"The idea\"");
            let host = args.iter().find_map(|a| a.strip_suffix(":0")).unwrap_or("127.0.0.1");
            let expected = format!("listening on {host}:PORT\n");
            self.mismatch("server --> screen", expected.as_bytes(), &line)
        };
        let asked = args.iter().find_map(|arg| arg.parse::<SocketAddr>().ok());
        if let Some(asked) =
            asked.filter(|asked| asked.port() != 0 && asked.port() != address.port())
        {
            self.blame("a server listens at the port that it was given as a part of ADDRESS; only for port 0 the system chooses one", "lessons/01_bind_listen.md, \"The idea\"");
            let expected = format!("listening on {asked}\n");
            self.mismatch("server --> screen", expected.as_bytes(), &line)
        }
        server.address = address;
        self.step("server --> screen", text.trim_end());
        server
    }

    /// Ends a server while somebody is connected, and starts it again at once on
    /// the port that it had, with these arguments before and after ADDRESS.
    #[track_caller]
    pub fn starts_again(
        self: &Rc<Story>,
        server: &Program,
        before: &[&str],
        after: &[&str],
    ) -> Program {
        let address = server.address.to_string();
        let zed = server.connect("zed");
        system::accepted(server.address.port());
        server.kill();
        // The end of the server is the end of the stream, whatever comes before.
        while let Next::Some(_) = zed.inbox.rest() {}
        drop(zed);
        self.serves_again(&server.step, &[before, &[&address], after].concat())
    }

    /// Starts a server at once on a port that another one has just had.
    #[track_caller]
    pub fn serves_again(self: &Rc<Story>, name: &str, args: &[&str]) -> Program {
        self.step("the server", "is started again at once, on the same port");
        self.serve_or(name, args, TIME_WAIT)
    }

    /// Starts a client of `address`.
    pub fn client(self: &Rc<Story>, name: &str, address: &str) -> Program {
        self.needs_client(name);
        let client = self.start("client", name, &[address]);
        client.process.may_end.set(true);
        client
    }

    /// Starts a client that joins the room at `address` as `who`.
    pub fn joins(self: &Rc<Story>, name: &str, who: &str, address: &str) -> Program {
        self.needs_client(name);
        let client = self.start("client", name, &["join", who, address]);
        client.process.may_end.set(true);
        client
    }

    /// Starts a client with these arguments.
    pub fn client_with(self: &Rc<Story>, name: &str, args: &[&str]) -> Program {
        self.needs_client(name);
        let client = self.start("client", name, args);
        client.process.may_end.set(true);
        client
    }

    fn start(self: &Rc<Story>, role: &'static str, name: &str, args: &[&str]) -> Program {
        let program = lab().unwrap_or(name.to_string());
        self.step("you start", format!("{program} {}", args.join(" ")));
        let process = self.spawn(role, name, args);
        self.watch(Rc::clone(&process));
        Program {
            screen: Receiver::new(self, format!("{role} --> screen"), process.stdout.clone(), true),
            story: Rc::clone(self),
            step: name.to_string(),
            format: Format::of_step(name),
            process,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }

    fn spawn(&self, role: &'static str, name: &str, args: &[&str]) -> Rc<Process> {
        let mut command = command(name, args);
        let mark = self.mark();
        command.env(MARK, &mark);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        if lab().is_some() {
            cleanup::started(&mark, child.id());
        }
        let stdout = Inbox::of_output(child.stdout.take().unwrap());
        let stderr = Inbox::of_output(child.stderr.take().unwrap());
        let (pid, keyboard) = (child.id(), child.stdin.take().map(keyboard));
        let child = Arc::new(Mutex::new(child));
        thread::spawn({
            let (child, stdout, stderr) = (Arc::clone(&child), stdout.clone(), stderr.clone());
            move || see_to_its_end(&child, &[stdout, stderr])
        });
        Rc::new(Process {
            role,
            keyboard: RefCell::new(keyboard),
            stderr,
            child,
            pid,
            mark,
            stdout,
            may_end: Cell::new(false),
            seen_off: Cell::new(false),
        })
    }

    /// Where a server listens, another one can't: these are its arguments before
    /// ADDRESS.
    #[track_caller]
    pub fn finds_port_taken(self: &Rc<Story>, server: &Program, before: &[&str]) {
        self.because("the server that was started before has this port, so bind fails. Say that in one line with the address, and exit with status 1. A server that takes another port in its place listens where nobody looks for it");
        let taken = server.address.to_string();
        let arguments = [before, &[taken.as_str()]].concat();
        self.run(&server.step, &arguments).code(1).one_line_about(&taken);
    }

    /// What every program does with its arguments, as step 01 has it in full.
    #[track_caller]
    pub fn usual_arguments(self: &Rc<Story>, name: &str) {
        self.together(|| {
            self.run(name, &["--help"]).code(0).prints("a usage", |text| !text.trim().is_empty());
            for wrong in ["127.0.0.1", "127.0.0.1:99999", "--loud"] {
                self.run(name, &[wrong]).usage_error_about(wrong);
            }
        });
    }

    /// The same for a program that serves and joins.
    #[track_caller]
    pub fn usual_words(self: &Rc<Story>, name: &str) {
        self.serves_by_default(name, "127.0.0.1:12345");
        self.together(|| {
            self.run(name, &["--help"]).code(0).prints("a usage", |text| !text.trim().is_empty());
            for wrong in ["127.0.0.1", "127.0.0.1:99999", "--loud"] {
                self.run(name, &["serve", wrong]).usage_error_about(wrong);
            }
            self.run(name, &["serve", "127.0.0.1:0", "surplus"]).usage_error_about("surplus");
            self.run(name, &["dance", "127.0.0.1:0"]).usage_error_about("dance");
            self.run(name, &["127.0.0.1:0"]).usage_error_about("127.0.0.1:0");
            let says_more = |text: &str| text.trim_end().lines().count() > 1;
            self.run(name, &["join"])
                .code(2)
                .prints("nothing", str::is_empty)
                .warns("a line about the missing NAME, then the usage", says_more);
            self.run(name, &["join", "ann", "127.0.0.1"]).usage_error_about("127.0.0.1");
            self.run(name, &["join", "ann", "127.0.0.1:1", "surplus"]).usage_error_about("surplus");
        });
    }

    /// Without any argument it serves where the lessons do: or it can't, because
    /// somebody does already.
    #[track_caller]
    pub fn serves_by_default(self: &Rc<Story>, name: &str, address: &str) {
        let server = self.start("server", name, &[]);
        server.process.may_end.set(true);
        let expected = format!("listening on {address}\n");
        match server.screen.inbox.line() {
            Next::Some(line) if line == expected.as_bytes() => server.kill(),
            Next::End(_, rest) if rest.is_empty() && server.warnings().contains(address) => {
                server.expect_exit(1);
            }
            Next::Some(rest) | Next::End(_, rest) | Next::Silence(rest) => {
                self.because("with no argument at all it serves, and at this address");
                self.mismatch("server --> screen", expected.as_bytes(), &rest)
            }
        }
    }

    /// Runs a program that is to end by itself.
    pub fn run(self: &Rc<Story>, name: &str, args: &[&str]) -> Ended {
        self.run_typing(name, args, "")
    }

    /// The same, where this is typed.
    pub fn run_typing(self: &Rc<Story>, name: &str, args: &[&str], typed: &str) -> Ended {
        let program = lab().unwrap_or(name.to_string());
        self.step("you run", format!("{program} {}", args.join(" ")));
        if !typed.is_empty() {
            self.step("keyboard --> program", quote(typed.as_bytes()));
        }
        let process = self.spawn("program", name, args);
        if let Some(keyboard) = process.keyboard.take() {
            // It may end without having read it.
            let _ = keyboard.send(typed.as_bytes().to_vec());
        }
        let still_ran = process.runs_on().map(|seconds| {
            let asks = args.first().is_some_and(|a| ["join", "adduser", "certs"].contains(a));
            let hint = ": does it wait for the keyboard, and not for its standard input?";
            let hint = if asks { hint } else { "" };
            let seconds = seconds.as_secs_f64();
            format!("still running after {seconds:.1} s (the test ended it){hint}")
        });
        process.kill();
        let status = process.status().unwrap_or_default();
        let all = |feed: &Inbox| {
            let (Next::Some(all) | Next::End(_, all) | Next::Silence(all)) = feed.rest();
            all
        };
        let output = Output { status, stdout: all(&process.stdout), stderr: all(&process.stderr) };
        let quoted: Vec<String> = args.iter().map(|arg| in_shell(arg)).collect();
        let mut command = format!("{} {}", run_by_hand(name), quoted.join(" "));
        if !typed.is_empty() {
            command = format!("printf '%s\\n' {} | {command}", in_shell(typed.trim_end()));
        }
        Ended {
            story: Rc::clone(self),
            command,
            has_failed: false,
            assert: output.assert(),
            still_ran,
        }
    }
}

/// A program that has run to its end.
pub struct Ended {
    story: Rc<Story>,
    /// The command that shows it by hand.
    command: String,
    /// Whether a failure was told already.
    has_failed: bool,
    assert: Assert,
    /// What is told where the test had to end it.
    still_ran: Option<String>,
}

impl Ended {
    /// What it has printed on standard output.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&self.assert.get_output().stdout).into_owned()
    }

    /// It must have ended with this status.
    #[track_caller]
    pub fn code(self, code: i32) -> Ended {
        self.check(&format!("exit status {code}"), |assert| assert.try_code(code))
    }

    /// Standard output must be so.
    #[track_caller]
    pub fn prints(self, what: &str, so: impl Fn(&str) -> bool) -> Ended {
        let so = predicates::function::function(so);
        self.check(&format!("standard output: {what}"), |assert| assert.try_stdout(so))
    }

    /// Standard error must be so.
    #[track_caller]
    pub fn warns(self, what: &str, so: impl Fn(&str) -> bool) -> Ended {
        let so = predicates::function::function(so);
        self.check(&format!("standard error: {what}"), |assert| assert.try_stderr(so))
    }

    /// One line on standard error, which names `name`; nothing printed.
    #[track_caller]
    pub fn one_line_about(self, name: &str) -> Ended {
        self.prints("nothing", str::is_empty)
            .warns("one line", |text| text.trim_end().lines().count() == 1)
            .warns(&format!("it names {name}"), |text| text.contains(name))
    }

    /// A line on standard error that names `name`, then the usage, and exit
    /// status 2; nothing printed.
    #[track_caller]
    pub fn usage_error_about(self, name: &str) -> Ended {
        self.code(2)
            .prints("nothing", str::is_empty)
            .warns(&format!("a line that names \"{name}\""), |text| text.contains(name))
            .warns("then the usage", |text| text.trim_end().lines().count() > 1)
    }

    /// A word on standard error for a person. A prompt may come before it.
    #[track_caller]
    pub fn a_word_about(self, about: &str) -> Ended {
        self.warns(&format!("a line that says {about}"), |text| {
            (1..=3).contains(&text.trim().lines().count()) && !traced(text)
        })
    }

    #[track_caller]
    fn check(
        self,
        expected: &str,
        test: impl FnOnce(Assert) -> Result<Assert, AssertError>,
    ) -> Ended {
        if self.has_failed {
            return self;
        }
        let Ended { story, command, assert, still_ran, .. } = self;
        let output = assert.get_output().clone();
        if let Ok(assert) = test(assert) {
            return Ended { story, command, has_failed: false, assert, still_ran };
        }
        let received = format!(
            "{}\n  stdout    {}\n  stderr    {}",
            still_ran.as_ref().unwrap_or(&output.status.to_string()),
            quote(&output.stdout),
            readable(&String::from_utf8_lossy(&output.stderr))
        );
        let failure = || Collected {
            command: command.clone(),
            expected: expected.to_string(),
            received: received.clone(),
        };
        if !story.collects(failure) {
            story.by_hand(format!("{command}; echo $?"));
            story.fails("the program", expected, &received);
        }
        Ended { story, command, has_failed: true, assert: output.assert(), still_ran }
    }
}

impl Program {
    /// Another listener of the same server.
    pub fn listener(&self, address: SocketAddr, format: Format) -> Program {
        Program {
            story: Rc::clone(&self.story),
            step: self.step.clone(),
            format,
            process: Rc::clone(&self.process),
            screen: Receiver::new(
                &self.story,
                self.screen.who.clone(),
                self.process.stdout.clone(),
                true,
            ),
            address,
        }
    }

    /// Connects to this server.
    #[track_caller]
    pub fn connect(&self, name: &str) -> Peer {
        let stream = self.connect_stream();
        self.story.step(name, "connects");
        Peer::new(&self.story, name, "server", stream, Format::Lines)
    }

    /// Connects to a listener that may still be about to open.
    #[track_caller]
    pub fn connect_in_time(&self) -> TcpStream {
        let mut stream = None;
        system::poll(|| {
            stream = TcpStream::connect(self.address).ok();
            stream.is_some()
        });
        stream.unwrap_or_else(|| self.connect_stream())
    }

    /// Connects, and leaves the reading (or not reading) to the test.
    #[track_caller]
    pub fn connect_stream(&self) -> TcpStream {
        match TcpStream::connect_timeout(&self.address, patience()) {
            Ok(stream) => stream,
            Err(e) => {
                if e.kind() == io::ErrorKind::ConnectionReset {
                    self.story.also(". (A connection is reset where it is closed with something unread, or with SO_LINGER and a time of 0)");
                }
                let expected = format!("a server that accepts at {}", self.address);
                self.story.fails("a client connects", &expected, &e.to_string())
            }
        }
    }

    /// Connects `count` times from threads of their own: the system may not let
    /// them in before the server has accepted others.
    pub fn connect_later(&self, count: usize) -> Vec<Connecting> {
        let address = self.address;
        let connect = move |number| Connecting {
            name: format!("client {number}"),
            story: Rc::clone(&self.story),
            stream: thread::spawn(move || TcpStream::connect_timeout(&address, patience())),
        };
        (1..=count).map(connect).collect()
    }

    /// Types into the program's standard input.
    pub fn types(&self, text: &str) {
        self.story.step(format!("keyboard --> {}", self.process.role), quote(text.as_bytes()));
        if let Some(keyboard) = self.process.keyboard.borrow().as_ref() {
            // If the program has ended, the next step of the story tells.
            let _ = keyboard.send(text.as_bytes().to_vec());
        }
    }

    /// Ends the program's standard input, like Ctrl-D.
    pub fn ends_input(&self) {
        self.story.step(format!("keyboard --> {}", self.process.role), "end of input");
        self.process.keyboard.borrow_mut().take();
    }

    /// Waits until the program has ended, with this status.
    #[track_caller]
    pub fn expect_exit(&self, code: i32) {
        let mut status = None;
        system::poll(|| {
            status = self.process.status();
            status.is_some()
        });
        let who = format!("{} exits", self.process.role);
        match status {
            Some(status) if status.code() == Some(code) => {
                self.process.seen_off.set(true);
                self.story.step(who, format!("status {code} ok"));
            }
            Some(status) => {
                self.story.fails(&who, &format!("exit status {code}"), &status.to_string())
            }
            None => self.story.fails(&who, &format!("exit status {code}"), "it still runs"),
        }
    }

    /// Its output must end now, and this must be its last line.
    #[track_caller]
    pub fn expect_last_printed(&self, line: &str) {
        let next = self.screen.rest();
        let (Next::End(_, all) | Next::Some(all) | Next::Silence(all)) = &next;
        let last = all.trim_ascii_end().rsplit(|b| *b == b'\n').next().unwrap_or(b"");
        let who = format!("{} --> screen", self.process.role);
        if let Next::Silence(_) = next {
            self.story.fails(
                &who,
                "its end",
                &format!("it still runs, and printed {}", quote(all)),
            );
        }
        if last != line.as_bytes() {
            self.story.mismatch(&who, line.as_bytes(), last);
        }
        self.story.step(who, format!("{} ok", quote(last)));
    }

    /// What it has said on standard error, after its end.
    pub fn warnings(&self) -> String {
        match self.process.stderr.rest() {
            Next::End(_, all) | Next::Some(all) | Next::Silence(all) => {
                String::from_utf8_lossy(&all).into_owned()
            }
        }
    }

    /// After its end: it has said something on standard error, and it is for a
    /// person, not a trace of calls.
    #[track_caller]
    pub fn expect_a_word(&self, about: &str) {
        let text = self.warnings();
        let lines = text.trim().lines().count();
        if lines == 0 || lines > 3 || traced(&text) {
            let who = format!("{} --> standard error", self.process.role);
            self.story.fails(&who, &format!("a line that says {about}"), &quote(text.as_bytes()));
        }
    }

    /// What it says on standard error now, more than `before`: a line for a
    /// person.
    #[track_caller]
    pub fn expect_a_warning(&self, before: usize, about: &str) {
        let said = || self.process.stderr.so_far().split_off(before);
        system::poll(|| said().ends_with(b"\n"));
        if said().trim_ascii().is_empty() || traced(&String::from_utf8_lossy(&said())) {
            let who = format!("{} --> standard error", self.process.role);
            self.story.fails(&who, &format!("a line that says {about}"), &quote(&said()));
        }
    }

    /// What it has said on standard error so far.
    pub fn warned_so_far(&self) -> String {
        String::from_utf8_lossy(&self.process.stderr.so_far()).into_owned()
    }

    /// Waits until it says something on standard error; false if it does not.
    pub fn warns_soon(&self) -> bool {
        system::poll(|| self.warned() > 0 || self.has_ended()) && self.warned() > 0
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.process.status().is_some()
    }

    /// How much it has said on standard error.
    pub fn warned(&self) -> usize {
        self.process.stderr.so_far().len()
    }

    /// Waits until it has done all that it can by itself.
    pub fn settled(&self) -> bool {
        system::settled(self.pid())
    }

    /// The same, unless it has no rest.
    pub fn settled_unless(&self, busy: bool) {
        if !busy {
            self.settled();
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Stops it in the middle of whatever it does, until [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        self.story.step(self.process.role, "is stopped (kill -STOP)");
        self.process.signal("STOP");
        if cfg!(target_os = "linux") {
            system::poll(|| system::states(self.pid()).iter().all(|s| matches!(s, 'T' | 't')));
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.story.step(self.process.role, "goes on (kill -CONT)");
        self.process.signal("CONT");
    }

    /// Lets it open only so many files and connections more. False where the
    /// system has no way to do that.
    pub fn leave_descriptors(&self, more: usize) -> bool {
        let Ok(open) = std::fs::read_dir(format!("/proc/{}/fd", self.pid())) else { return false };
        let limit = open.count() + more;
        let mut prlimit = Command::new("prlimit");
        prlimit.args([format!("--pid={}", self.pid()), format!("--nofile={limit}:")]);
        let done = prlimit.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if done {
            self.story.step(self.process.role, format!("may open {more} descriptors more"));
        }
        done
    }

    /// Asks it to stop, as `kill PID` does.
    pub fn terminate(&self) {
        self.story.step(self.process.role, "gets SIGTERM (kill)");
        self.process.may_end.set(true);
        self.process.signal_only("TERM");
    }

    /// Asks it to stop, as Ctrl-C does: all that belongs to it gets the signal.
    pub fn interrupt(&self) {
        self.story.step(self.process.role, "gets SIGINT (Ctrl-C)");
        self.process.may_end.set(true);
        self.process.signal("INT");
    }

    /// Types `/quit`, which ends it.
    pub fn quit(&self) {
        self.process.may_end.set(true);
        self.types("/quit\n");
    }

    /// Ends it at once, as Ctrl-C would end it in steps 01 to 06.
    pub fn kill(&self) {
        self.story.step(self.process.role, "is killed");
        self.process.seen_off.set(true);
        self.process.may_end.set(true);
        self.process.kill();
    }
}

/// A client that is still connecting.
pub struct Connecting {
    story: Rc<Story>,
    name: String,
    stream: JoinHandle<io::Result<TcpStream>>,
}

impl Connecting {
    /// Waits until it has connected.
    #[track_caller]
    pub fn join(self) -> Peer {
        match self.stream.join().unwrap() {
            Ok(stream) => {
                self.story.step(&self.name, "connects");
                Peer::new(&self.story, &self.name, "server", stream, Format::Lines)
            }
            Err(e) => self.story.fails(&self.name, "a server that accepts it", &e.to_string()),
        }
    }
}

impl Process {
    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Waits until it has ended. If it does not, says how long that took.
    fn runs_on(&self) -> Option<Duration> {
        let started = Instant::now();
        let limit = patience() * 3;
        let mut listens = None;
        loop {
            if self.status().is_some() {
                return None;
            }
            // A server that listens does not end any more.
            if self.stdout.so_far().starts_with(b"listening on ") {
                listens.get_or_insert_with(Instant::now);
            }
            let serves = self.stdout.is_flooded()
                || listens.is_some_and(|since| since.elapsed() > patience() / 5);
            if serves || started.elapsed() > limit || cleanup::time_left().is_zero() {
                return Some(started.elapsed());
            }
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Sends a signal, on systems that have them.
    fn signal(&self, signal: &str) {
        if cfg!(unix) {
            let pid = self.pid;
            // A command in LAB leads a process group (see `command`).
            let target = if lab().is_some() { format!("-{pid}") } else { pid.to_string() };
            let mut kill = Command::new("kill");
            // It may have ended by itself. That is no news here.
            let _ =
                kill.args([&format!("-{signal}"), "--", &target]).stderr(Stdio::null()).status();
        }
    }

    /// Sends a signal to the program alone.
    fn signal_only(&self, signal: &str) {
        let pid = self.pid.to_string();
        let mut kill = Command::new("kill");
        let _ = kill.args([&format!("-{signal}"), "--", &pid]).stderr(Stdio::null()).status();
    }

    /// Whether it is a client, and has ended.
    pub fn is_ended_client(&self) -> bool {
        self.role == "client" && self.status().is_some()
    }

    /// Ends it, and all that it has started.
    fn kill(&self) {
        let _ = self.child().kill();
        cleanup::end_marked(&self.mark);
        system::poll(|| self.status().is_some());
    }

    /// How it ended and what it said last, if there is anything to tell.
    pub fn last_words(&self) -> String {
        if self.seen_off.get() {
            return String::new();
        }
        // Its connections close a moment before it is gone.
        let mut looks = 0;
        system::poll(|| {
            looks += 1;
            looks > 100 || self.status().is_some()
        });
        let mut text = String::new();
        // A server that was asked to stop is no news.
        let stopped =
            |status: &ExitStatus| self.role == "server" && self.may_end.get() && status.success();
        if let Some(status) = self.status().filter(|status| !stopped(status)) {
            text += &format!("  died      the {} has ended, {status}\n", self.role);
        }
        let said = String::from_utf8_lossy(&self.stderr.so_far()).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        let mut label = "it said";
        for line in &lines[lines.len().saturating_sub(8)..] {
            text += &format!("  {label:<8}  {line}\n");
            label = "";
        }
        text
    }

    /// A server does not end by itself, and nothing in it panics.
    pub fn check_health(&self, story: &Story) {
        if self.may_end.get() {
            return;
        }
        if let Some(status) = self.status() {
            story.fails(
                self.role,
                "it runs until it is stopped",
                &format!("it has ended, {status}"),
            );
        }
        let said = String::from_utf8_lossy(&self.stderr.so_far()).into_owned();
        if said.contains("panicked at") {
            story.fails(self.role, "no thread of it panics", "see below");
        }
    }
}

/// Waits until a program has ended, and sees to it that its output ends, too: a
/// process that it has left behind may hold it open.
fn see_to_its_end(child: &Mutex<Child>, outputs: &[Inbox]) {
    let mut ended = None;
    loop {
        if ended.is_none() {
            let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
            ended = child.try_wait().map_or(true, |status| status.is_some()).then(Instant::now);
        }
        // All are looked at, each time.
        let open = |since| outputs.iter().filter(|o| !o.ends_with_its_program(since)).count();
        if ended.is_some_and(|since| open(since) == 0) {
            return;
        }
        thread::park_timeout(Duration::from_millis(5));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Types what comes through the channel, and ends the input when it is closed.
fn keyboard(mut stdin: ChildStdin) -> mpsc::Sender<Vec<u8>> {
    let (keyboard, typed) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        for text in typed {
            let _ = stdin.write_all(&text).and_then(|()| stdin.flush());
        }
    });
    keyboard
}

/// Of what a program has said, the first line and the last ones, below each
/// other: the end of a trace tells more than its middle.
pub fn readable(said: &str) -> String {
    let lines = said.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let mut lines: Vec<String> = lines.map(|line| escape(line.as_bytes())).collect();
    if lines.is_empty() {
        return "nothing".into();
    }
    if lines.len() > 7 {
        let between = lines.len() - 6;
        lines.splice(1..=between, [format!("({between} lines more)")]);
    }
    lines.join("\n            ")
}

/// Whether a text is a trace of calls, which tells a user nothing.
fn traced(text: &str) -> bool {
    ["Traceback (most", "panicked at", "\tat ", "    at ", "goroutine "]
        .iter()
        .any(|mark| text.contains(mark))
}

/// How a person runs a step's program.
fn run_by_hand(name: &str) -> String {
    // Without `--` cargo takes an option for its own.
    lab().unwrap_or(format!("cargo run --example {name} --"))
}

/// An argument as it is written in a shell.
fn in_shell(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/,=@".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_string();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

/// The command in `LAB`, if there is one.
pub fn lab() -> Option<String> {
    std::env::var("LAB").ok().filter(|lab| !lab.trim().is_empty())
}

/// How to run a step's program: the command in `LAB`, or the example.
fn command(name: &str, args: &[&str]) -> Command {
    announce(name);
    let mut command = match lab() {
        Some(lab) => lab_command(&lab),
        None => Command::new(example(name)),
    };
    command.args(args);
    // How it is graded is no business of the program.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_ours =
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_", "CARGO_TARGET_TMP", "LAB"];
        if name == "CARGO" || is_ours.iter().any(|start| name.starts_with(start)) {
            command.env_remove(&*name);
        }
    }
    // Times are shown in UTC, wherever the program runs.
    command.env("TZ", "Asia/Kolkata");
    command
}

/// Says once what is graded, past the test's capture: it is no part of one test,
/// and always of use.
pub fn announce(name: &str) {
    static GRADED: Once = Once::new();
    GRADED.call_once(|| {
        let graded = lab().unwrap_or(format!("examples/{name}.rs (LAB is not set)"));
        let _ = writeln!(io::stderr(), "this grades {graded}");
    });
}

/// The shell splits the command as the person who typed it expects. `exec`
/// puts the program in the shell's place: the process is the program. What it
/// starts in its turn is ended with it, as one group.
#[cfg(unix)]
fn lab_command(lab: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {lab} \"$@\""), "lab"]).process_group(0);
    // With it Python flushes what its author forgot to flush.
    command.env_remove("PYTHONUNBUFFERED");
    command
}

#[cfg(not(unix))]
fn lab_command(lab: &str) -> Command {
    let mut words = lab.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or(""));
    command.args(words);
    command
}

/// The example as it is written now: `cargo test --test X` does not build
/// examples, so yesterday's program would be graded.
pub fn example(name: &str) -> PathBuf {
    static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    // .../target/debug/deps/05_threaded_server-0123456789abcdef
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    // A failed build has told its reason: each test may try again.
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !built.iter().any(|b| b == name) {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        build.args(["build", "--quiet", "--example", name]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        // Where there is no cargo to run, the tests run what was built with them.
        if let Ok(output) = build.output() {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "\n\n{name} does not compile:\n{said}");
        }
        built.push(name.to_string());
    }
    profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}
