//! Plays what the lessons show.

use super::{Inbox, Next, example, missing};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The ports of the lessons. On a stage each is one that is free here.
const PORTS: [&str; 4] = ["12345", "12346", "8080", "8443"];

/// What programs ask before they hide what is typed. No line end follows it.
const PROMPT: &str = "password for ";

/// Several terminals, each with the program that runs in it.
///
/// `1$ command` starts a program in terminal 1, `1: line` is the next line that
/// appears there, `1> line` is typed, `1> ^D` ends the input, `1> ^C`
/// interrupts. What programs write is not written into the project: the stage
/// has a folder of its own, with links to the project's.
pub struct Stage {
    ports: [u16; 4],
    terminals: BTreeMap<usize, Terminal>,
    folder: Folder,
}

/// Removed when it is no longer needed.
struct Folder(PathBuf);

struct Terminal {
    child: Child,
    stdin: Option<ChildStdin>,
    screen: Inbox,
    /// A password is asked for, and the line is not ended yet.
    asked: bool,
}

impl Stage {
    /// An empty stage, in an empty folder.
    pub fn new() -> Stage {
        let ports = Stage::free_ports();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stage-{}", ports[0]));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        // Not what you have written there when you followed the lessons.
        for name in ["examples", "lessons", "src", "tests"] {
            symlink(Path::new(name).canonicalize().unwrap(), folder.join(name)).unwrap();
        }
        Stage { ports, terminals: BTreeMap::new(), folder: Folder(folder) }
    }

    /// An empty stage, with the files that were written on the one before.
    pub fn after(before: Stage) -> Stage {
        Stage { ports: Stage::free_ports(), terminals: BTreeMap::new(), folder: before.folder }
    }

    fn free_ports() -> [u16; 4] {
        // Below the ports that the system gives to others, and for this stage
        // alone, whether for TCP or for UDP.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let first = 20_000 + (std::process::id() % 100) as u16 * 100;
        loop {
            let port = first + NEXT.fetch_add(4, Ordering::Relaxed) % 1000;
            let ports = [port, port + 1, port + 2, port + 3];
            let is_free = |port: u16| {
                let place = ("127.0.0.1", port);
                TcpListener::bind(place).is_ok() && UdpSocket::bind(place).is_ok()
            };
            if ports.into_iter().all(is_free) {
                return ports;
            }
        }
    }

    /// The command as it is run here: with a free port, and the program itself
    /// where cargo would have to lock and look first. None if a tool is missing.
    pub fn command(&self, command: &str) -> Option<String> {
        for tool in ["nc", "ss", "python3", "tshark", "curl", "openssl", "stunnel", "nats-server"] {
            let runs = |part: &str| command.contains(&format!("10_secure_chat {part}"));
            let used = match tool {
                "openssl" if runs("certs") => true,
                "stunnel" => runs("serve --tls") || runs("join") && command.contains("--ca"),
                _ => command.split([' ', '|', '(', ';']).any(|word| word == tool),
            };
            let there = || {
                let look = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
                look.is_ok_and(|o| o.status.success())
            };
            if used && !there() {
                missing(tool);
                return None;
            }
        }
        // A recorded chat has the ports that it had.
        if command.starts_with("tshark -r") {
            return Some(command.to_string());
        }
        let mut parts = command.split("cargo run --example ");
        let mut result = parts.next().unwrap_or("").to_string();
        for part in parts {
            // What the shell makes of the rest of the line is its own affair.
            let end = part.find(['|', '&', ';', '<', '>', ')']).unwrap_or(part.len());
            let mut words = part[..end].split_whitespace();
            let name = words.next().unwrap();
            let mut args: Vec<&str> = words.collect();
            // What comes after `--` is for the program. Without it cargo takes
            // a first argument that begins with `-` for its own, and fails.
            match args.first() {
                Some(&"--") => drop(args.remove(0)),
                Some(first) if first.starts_with('-') => {
                    panic!("`{command}`: cargo would refuse this: write -- {first}")
                }
                _ => {}
            }
            let has_words = name >= "06" && name != "09_websocket_chat";
            // Without an address it would take the lessons' port.
            let at = match args.as_slice() {
                [] if has_words => {
                    args.push("serve");
                    Some(1)
                }
                [] => Some(0),
                ["--help", ..] => None,
                [option, ..] if !has_words && option.starts_with("--") => Some(0),
                ["serve", rest @ ..] if rest.first().is_none_or(|r| r.starts_with("--")) => Some(1),
                ["join", _, rest @ ..] if rest.first().is_none_or(|r| r.starts_with("--")) => {
                    Some(2)
                }
                _ => None,
            };
            if let Some(at) = at {
                let address = match name {
                    "09_websocket_chat" => "127.0.0.1:8080",
                    _ if args.contains(&"--ca") => "127.0.0.1:12346",
                    _ => "127.0.0.1:12345",
                };
                args.insert(at, address);
            }
            if name == "10_secure_chat" && args[0] == "serve" {
                let tls = args.contains(&"--tls").then_some([
                    ["--tls-chat", "127.0.0.1:12346"],
                    ["--tls-web", "127.0.0.1:8443"],
                ]);
                let doors = tls.into_iter().flatten().chain([["--web", "127.0.0.1:8080"]]);
                let left: Vec<_> = doors.filter(|door| !args.contains(&door[0])).collect();
                args.extend(left.concat());
            }
            result += &format!("{} {} {}", example(name).display(), args.join(" "), &part[end..]);
        }
        Some(self.with_port(&result))
    }

    /// The same with this stage's ports in place of those of the lessons.
    fn with_port(&self, text: &str) -> String {
        PORTS.iter().zip(self.ports).fold(text.to_string(), |text, (lesson, here)| {
            let here = here.to_string();
            if lesson.len() == 5 {
                return text.replace(lesson, &here);
            }
            // Not where it is a part of another number.
            let text = text.replace(&format!(":{lesson}"), &format!(":{here}"));
            text.replace(&format!(" {lesson}"), &format!(" {here}"))
        })
    }

    pub fn start(&mut self, number: usize, command: &str) {
        if let Some(before) = self.terminals.remove(&number) {
            before.wait(command);
        }
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec 2>&1\n{command}")])
            .current_dir(&self.folder.0)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let screen = Inbox::of_output(child.stdout.take().unwrap());
        let stdin = child.stdin.take();
        self.terminals.insert(number, Terminal { child, stdin, screen, asked: false });
    }

    pub fn types(&mut self, number: usize, text: &str, place: &str) {
        let terminal =
            self.terminals.get_mut(&number).unwrap_or_else(|| panic!("{place}: nothing runs"));
        match text {
            "^D" => drop(terminal.stdin.take()),
            // SIGINT would be Ctrl-C's own. But where the tests run in the
            // background has it ignored, and programs inherit that.
            "^C" => terminal.signal("TERM"),
            _ => {
                let stdin =
                    terminal.stdin.as_mut().unwrap_or_else(|| panic!("{place}: input has ended"));
                stdin.write_all(format!("{text}\n").as_bytes()).unwrap();
            }
        }
    }

    pub fn expect(&mut self, number: usize, line: &str, place: &str) {
        let terminal =
            self.terminals.get_mut(&number).unwrap_or_else(|| panic!("{place}: nothing runs"));
        let mut shown = if line.starts_with(PROMPT) {
            terminal.prompt(line.len() + 1)
        } else {
            terminal.next_line()
        };
        // So tshark greets the administrator, whom students are not.
        while shown.starts_with("Running as user \"root\"") {
            shown = terminal.next_line();
        }
        let (expected, shown) = (self.masked(line), self.masked(&shown));
        assert_eq!(shown.trim_end(), expected.trim_end(), "{place} (shown here on the left)");
    }

    /// A line with the ports of the lessons in place of the stage's; `ANY` is
    /// every other, and `TIME` the time of a message.
    fn masked(&self, line: &str) -> String {
        let mut line = line.to_string();
        for (lesson, here) in PORTS.iter().zip(self.ports) {
            line = line.replace(&here.to_string(), lesson);
        }
        let is_time = |time: &str| time.split(':').all(|n| n.len() == 2 && n.parse::<u8>().is_ok());
        if line.get(1..9).is_some_and(is_time) && line.starts_with('[') {
            line.replace_range(1..9, "TIME");
        }
        let mut parts = line.split("127.0.0.1:");
        let mut masked = parts.next().unwrap_or("").to_string();
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let number = &part[..digits];
            // Small numbers are no ports that a system gives.
            let is_any = digits > 4 && !PORTS.contains(&number);
            let number = if is_any { "ANY" } else { number };
            masked += &format!("127.0.0.1:{number}{}", &part[digits..]);
        }
        masked
    }

    pub fn end(&mut self) {
        self.terminals.clear();
    }
}

impl Terminal {
    fn signal(&self, signal: &str) {
        let group = format!("-{}", self.child.id());
        let mut kill = Command::new("kill");
        let _ = kill.args([&format!("-{signal}"), "--", &group]).stderr(Stdio::null()).status();
    }

    fn next_line(&mut self) -> String {
        let line = text(self.screen.line_within(LINE_TIME));
        // The line end that is typed after a password is not shown.
        if std::mem::take(&mut self.asked) && line == "\n" { self.next_line() } else { line }
    }

    /// Waits for a question of so many bytes.
    fn prompt(&mut self, bytes: usize) -> String {
        self.asked = true;
        text(self.screen.bytes(bytes))
    }

    /// Waits until its program has ended.
    fn wait(mut self, next: &str) {
        drop(self.stdin.take());
        if let Next::Silence(_) = self.screen.rest() {
            panic!("the terminal for `{next}` is still busy");
        }
    }
}

/// How long a line may take. Some programs hash a password first, and all
/// lessons are played at the same time.
const LINE_TIME: Duration = Duration::from_secs(60);

/// What has come, as text.
fn text(next: Next) -> String {
    let (Next::Some(bytes) | Next::End(_, bytes) | Next::Silence(bytes)) = next;
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ = self.child.wait();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
