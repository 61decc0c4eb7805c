//! Plays what the lessons show.

use super::{Feed, Next, example, missing};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// Several terminals, each with the program that runs in it.
///
/// `1$ command` starts a program in terminal 1, `1: line` is the next line that
/// appears there, `1> line` is typed, `1> ^D` ends the input, `1> ^C`
/// interrupts. The port of the lessons, 12345, is one that is free here.
pub struct Stage {
    pub port: u16,
    terminals: BTreeMap<usize, Terminal>,
}

struct Terminal {
    child: Child,
    stdin: Option<ChildStdin>,
    screen: Feed,
}

impl Stage {
    pub fn new() -> Stage {
        // Below the ports that the system gives to others, and for this stage
        // alone, whether for TCP or for UDP.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let first = 20_000 + (std::process::id() % 100) as u16 * 100;
        loop {
            let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 1000;
            let place = ("127.0.0.1", port);
            if TcpListener::bind(place).is_ok() && UdpSocket::bind(place).is_ok() {
                return Stage { port, terminals: BTreeMap::new() };
            }
        }
    }

    /// The command as it is run here: with a free port, and the program itself
    /// where cargo would have to lock and look first. None if a tool is missing.
    pub fn command(&self, command: &str) -> Option<String> {
        for tool in ["nc", "ss", "python3", "tshark"] {
            let used = command.split([' ', '|', '(', ';']).any(|word| word == tool);
            let there = || {
                let look = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
                look.is_ok_and(|o| o.status.success())
            };
            if used && !there() {
                missing(tool);
                return None;
            }
        }
        let mut parts = command.split("cargo run --example ");
        let mut result = parts.next().unwrap_or("").to_string();
        for part in parts {
            // What the shell makes of the rest of the line is its own affair.
            let end = part.find(['|', '&', ';', '<', '>', ')']).unwrap_or(part.len());
            let mut words = part[..end].split_whitespace();
            let name = words.next().unwrap();
            // What stands behind `--` is for the program, not for cargo.
            let mut args: Vec<&str> = words.filter(|word| *word != "--").collect();
            let has_words = name >= "06";
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
                args.insert(at, "127.0.0.1:12345");
            }
            result += &format!("{} {} {}", example(name).display(), args.join(" "), &part[end..]);
        }
        Some(result.replace("12345", &self.port.to_string()))
    }

    pub fn start(&mut self, number: usize, command: &str) {
        if let Some(before) = self.terminals.remove(&number) {
            before.wait(command);
        }
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec 2>&1\n{command}")])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let screen = Feed::new(child.stdout.take().unwrap());
        let stdin = child.stdin.take();
        self.terminals.insert(number, Terminal { child, stdin, screen });
    }

    pub fn types(&mut self, number: usize, text: &str, place: &str) {
        let terminal =
            self.terminals.get_mut(&number).unwrap_or_else(|| panic!("{place}: nothing runs"));
        match text {
            "^D" => drop(terminal.stdin.take()),
            // SIGINT would be Ctrl-C's own. But whoever runs the tests in the
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
            self.terminals.get(&number).unwrap_or_else(|| panic!("{place}: nothing runs"));
        let mut shown = terminal.next_line();
        // So tshark greets the administrator, whom students are not.
        while shown.starts_with("Running as user \"root\"") {
            shown = terminal.next_line();
        }
        let (expected, shown) = (self.masked(line), self.masked(&shown));
        assert_eq!(shown.trim_end(), expected.trim_end(), "{place} (shown here on the left)");
    }

    /// A line in which the lessons' port is `PORT` and every other is `ANY`,
    /// and the time of a message is `TIME`.
    fn masked(&self, line: &str) -> String {
        let mut line = line.replace("12345", &self.port.to_string());
        let is_time = |time: &str| time.split(':').all(|n| n.len() == 2 && n.parse::<u8>().is_ok());
        if line.get(1..9).is_some_and(is_time) && line.starts_with('[') {
            line.replace_range(1..9, "TIME");
        }
        let mut parts = line.split("127.0.0.1:");
        let mut masked = parts.next().unwrap_or("").to_string();
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let ours = part[..digits] == self.port.to_string();
            // Small numbers are no ports that a system gives.
            let number = if ours {
                "PORT"
            } else if digits > 4 {
                "ANY"
            } else {
                &part[..digits]
            };
            masked += &format!("127.0.0.1:{number}{}", &part[digits..]);
        }
        masked.replace(&self.port.to_string(), "PORT")
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

    fn next_line(&self) -> String {
        let (Next::Some(line) | Next::End(_, line) | Next::Silence(line)) = self.screen.line();
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Waits until its program has ended.
    fn wait(mut self, next: &str) {
        drop(self.stdin.take());
        if let Next::Silence(_) = self.screen.rest() {
            panic!("the terminal for `{next}` is still busy");
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ = self.child.wait();
    }
}
