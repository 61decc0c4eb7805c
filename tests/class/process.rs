//! Commands that are not trusted: each has a time limit, what it prints is kept
//! in bounded memory, and nothing that it has started outlives it.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The environment variable by which the descendants of a command are found,
/// also those that have left its process group.
const VARIABLE: &str = "SOCKET_CHAT_MARK";
/// In the watchdog's environment: the marker of the run that it watches over.
const WATCHDOG: &str = "SOCKET_CHAT_MARK_WATCHDOG";
/// How often a command is looked at while it runs.
const LOOK: Duration = Duration::from_millis(20);
/// Of what a command prints, so many bytes are kept: the first and the last ones.
const KEPT_BYTES: usize = 1 << 20;

/// Tells the commands of one run of `mark` from all other processes.
pub struct Marker {
    run: String,
    next: AtomicUsize,
}

impl Marker {
    /// A marker that no other run has.
    pub fn new() -> Marker {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Marker { run: format!("{}-{now}.", std::process::id()), next: AtomicUsize::new(0) }
    }

    fn next(&self) -> String {
        format!("{}{}.", self.run, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// How long a command may take, and the folder that is its own.
pub struct Limits<'a> {
    pub time: Duration,
    pub folder: &'a Path,
}

/// A command that has ended, or was ended.
pub struct Ran {
    /// None: its time was over.
    pub status: Option<ExitStatus>,
    pub stdout: String,
    pub stderr: String,
    /// How many processes it had left behind. They were ended.
    pub left: usize,
}

/// What a command needs before it to be ended by SIGINT. A script that starts
/// `mark` in the background makes it ignore SIGINT, and so would all programs
/// that it starts: then right servers of steps 07 to 10 would not stop.
pub fn default_interrupt() -> &'static str {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // Signal 2 is the second bit.
    if ignored & 2 == 0 { "" } else { "env --default-signal=INT" }
}

/// A line for the shell, run in a folder.
pub fn shell(line: &str, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder);
    command
}

/// Runs a command to its end, or until its time is over.
///
/// Its output goes through socket pairs. Another process of the same user could
/// open a pipe by `/proc/PID/fd/1`, write into it, and read from it; it can't
/// open a socket that way.
pub fn run(mut command: Command, limits: &Limits, marker: &Marker) -> io::Result<Ran> {
    let started = Instant::now();
    let mark = marker.next();
    let (stdout, its_stdout) = UnixStream::pair()?;
    let (stderr, its_stderr) = UnixStream::pair()?;
    command
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(its_stdout))
        .stderr(OwnedFd::from(its_stderr));
    for (name, _) in std::env::vars_os() {
        let is_ours = |prefix: &str| name.to_string_lossy().starts_with(prefix);
        if is_ours("CARGO_") || is_ours("RUST_") || is_ours("SOCKET_CHAT_") || name == "CARGO" {
            command.env_remove(&name);
        }
    }
    command.env(VARIABLE, &mark).process_group(0);
    let mut child = command.spawn()?;
    // It holds our copies of the other ends of the sockets.
    drop(command);
    let (ended, end) = mpsc::channel::<()>();
    let readers = [&stdout, &stderr].map(|stream| {
        let ended = ended.clone();
        let read = move |stream| {
            let kept = keep(stream);
            drop(ended);
            kept
        };
        stream.try_clone().map(|stream| thread::spawn(move || read(stream)))
    });
    drop(ended);

    let deadline = started + limits.time;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            break None;
        }
        // Both streams have ended, so the command will end soon, if it is honest.
        if end.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Disconnected) {
            thread::sleep(LOOK);
        }
    };
    // Without /proc, its group is all that can be found.
    if status.is_none() || !cfg!(target_os = "linux") {
        kill(&[format!("-{}", child.id())]);
        let _ = child.kill();
        let _ = child.wait();
    }
    let left = end_all(|value| value == mark, Some(limits.folder));
    // A process that was not found may still hold the other end: it can't keep us.
    let _ = end.recv_timeout(Duration::from_secs(1));
    for stream in [stdout, stderr] {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    let [stdout, stderr] = readers.map(|reader| {
        let kept = reader.map(|reader| reader.join().unwrap_or_default()).unwrap_or_default();
        String::from_utf8_lossy(&kept).into_owned()
    });
    Ok(Ran { status, stdout, stderr, left })
}

/// Reads a stream to its end, and keeps its first and its last bytes.
fn keep(mut stream: UnixStream) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    let mut is_cut = false;
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > 2 * KEPT_BYTES {
            kept.drain(KEPT_BYTES / 2..kept.len() - KEPT_BYTES / 2);
            is_cut = true;
        }
    }
    if is_cut && kept.len() > KEPT_BYTES / 2 {
        kept.splice(KEPT_BYTES / 2..KEPT_BYTES / 2, *b"\n(some megabytes were left out)\n");
    }
    kept
}

/// Ends every process whose marker fits, and every process that works in this
/// folder, until there is none. How many there were.
fn end_all(fits: impl Fn(&str) -> bool, folder: Option<&Path>) -> usize {
    let mut seen = std::collections::BTreeSet::new();
    // A process that forks while it is looked for is found the next time.
    for _ in 0..500 {
        let found = find(&fits, folder);
        if found.is_empty() {
            break;
        }
        kill(&found);
        seen.extend(found);
        thread::yield_now();
    }
    seen.len()
}

/// Linux has all of this in `/proc`. Elsewhere only the process group is ended.
fn find(fits: &impl Fn(&str) -> bool, folder: Option<&Path>) -> Vec<String> {
    let own = std::process::id().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let names = processes.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_marked = |pid: &String| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        let has_mark = variables.any(|variable| {
            let text = String::from_utf8_lossy(variable);
            text.strip_prefix(VARIABLE).and_then(|t| t.strip_prefix('=')).is_some_and(fits)
        });
        let works_in = fs::read_link(format!("/proc/{pid}/cwd"));
        has_mark || folder.is_some_and(|f| works_in.is_ok_and(|path| path.starts_with(f)))
    };
    let is_process = |name: &String| name.bytes().all(|b| b.is_ascii_digit()) && *name != own;
    names.filter(is_process).filter(is_marked).collect()
}

/// Ends processes, or groups where a number has a minus sign.
fn kill(which: &[String]) {
    let mut kill = Command::new("kill");
    let _ = kill.args(["-KILL", "--"]).args(which).stderr(Stdio::null()).status();
}

/// Whether this process is the watchdog of another one.
pub fn is_watchdog() -> bool {
    std::env::var_os(WATCHDOG).is_some()
}

/// Starts a process that waits until this one is gone, however it ends, and then
/// ends what is left of its commands.
pub fn start_watchdog(marker: &Marker) -> io::Result<Watchdog> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(WATCHDOG, &marker.run).stdin(Stdio::piped()).stdout(Stdio::null());
    // A Ctrl-C in the terminal reaches our group: the watchdog must survive it.
    Ok(Watchdog(command.process_group(0).spawn()?))
}

/// A running watchdog. When it is dropped, it has done its work.
pub struct Watchdog(Child);

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.stdin.take();
        let _ = self.0.wait();
    }
}

/// The watchdog: its input ends when the process that has started it is gone.
pub fn watch() {
    let run = std::env::var(WATCHDOG).unwrap_or_default();
    let _ = io::stdin().read_to_end(&mut Vec::new());
    if !run.is_empty() {
        end_all(|value| value.starts_with(&run), None);
    }
}
