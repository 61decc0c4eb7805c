//! No test runs for ever, and no program outlives its test.
//!
//! Each program gets a mark in its environment, which the programs that it
//! starts inherit. So they are found again, whatever session or process group
//! they have moved to. Where there is no `/proc`, process groups have to do.

use super::patience_factor;
use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The variable that holds a program's mark.
pub const MARK: &str = "LAB_RUN";

/// How long a test may take where `LAB_PATIENCE` is 1.
const TEST_SECONDS: u64 = 120;
/// How much later it must have noticed that its programs were ended.
const LAST_SECONDS: u64 = 20;

thread_local! {
    /// When the test of this thread must be over.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// How long the test of this thread may still take.
pub fn time_left() -> Duration {
    let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
    DEADLINE.get().map_or(Duration::MAX, left)
}

/// How long a whole test may take.
pub fn longest() -> Duration {
    Duration::from_secs(TEST_SECONDS).mul_f64(patience_factor())
}

/// A test that is watched.
struct Test {
    number: usize,
    name: String,
    deadline: Instant,
    /// Whether its programs were ended because it took too long.
    ended: bool,
}

static TESTS: Mutex<Vec<Test>> = Mutex::new(Vec::new());
/// Marks, and the process groups of their programs, where there is no `/proc`.
static GROUPS: Mutex<Vec<(String, u32)>> = Mutex::new(Vec::new());

/// The beginning of all marks of this run.
static RUN: LazyLock<String> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-", std::process::id(), now.as_nanos())
});

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches one test until it is dropped.
pub struct Watch {
    number: usize,
    /// When the test must be over of which this is a part.
    before: Option<Instant>,
}

impl Watch {
    /// Watches the test of this thread.
    pub fn new() -> Watch {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        static WATCHER: Once = Once::new();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let deadline = Instant::now() + longest();
        let before = DEADLINE.get();
        let deadline = before.map_or(deadline, |before| before.min(deadline));
        DEADLINE.set(Some(deadline));
        let name = thread::current().name().unwrap_or("a test").to_string();
        lock(&TESTS).push(Test { number, name, deadline, ended: false });
        WATCHER.call_once(|| drop(thread::spawn(watch)));
        Watch { number, before }
    }

    /// The mark of the next program of this test.
    pub fn mark(&self) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        start_guard();
        format!("{}{}-{}-", *RUN, self.number, NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&TESTS).retain(|test| test.number != self.number);
        DEADLINE.set(self.before);
    }
}

/// Ends the programs of a test that takes too long: then whatever it waits for
/// comes to its end. If that does not help, the whole run ends.
fn watch() {
    loop {
        thread::park_timeout(Duration::from_millis(200));
        let now = Instant::now();
        let (mut late, mut hung) = (Vec::new(), None);
        for test in lock(&TESTS).iter_mut().filter(|test| now > test.deadline) {
            if !std::mem::replace(&mut test.ended, true) {
                late.push(format!("{}{}-", *RUN, test.number));
            }
            if now > test.deadline + Duration::from_secs(LAST_SECONDS) {
                hung = Some(test.name.clone());
            }
        }
        for mark in late {
            end_marked(&mark);
        }
        if let Some(name) = hung {
            let seconds = longest().as_secs();
            eprintln!("\n{name} has not ended after {seconds} s: this run ends here");
            end_marked(&RUN);
            std::process::exit(101);
        }
    }
}

/// Notes that the program with this mark leads this process group.
pub fn started(mark: &str, group: u32) {
    if !cfg!(target_os = "linux") {
        lock(&GROUPS).push((mark.to_string(), group));
        if let Some(guard) = lock(&GUARD).as_mut() {
            let _ = writeln!(guard, "{group}");
        }
    }
}

/// Ends all processes whose mark begins so.
pub fn end_marked(mark: &str) {
    let targets: Vec<String> = if cfg!(target_os = "linux") {
        marked(mark).iter().map(u32::to_string).collect()
    } else {
        let is_it = |(m, _): &mut (String, u32)| m.starts_with(mark);
        lock(&GROUPS).extract_if(.., is_it).map(|(_, group)| format!("-{group}")).collect()
    };
    if !targets.is_empty() {
        let mut kill = Command::new("kill");
        let _ = kill.args(["-KILL", "--"]).args(targets).stderr(Stdio::null()).status();
    }
}

/// The processes whose mark begins so: `/proc/PID/environ`, proc(5).
fn marked(mark: &str) -> Vec<u32> {
    let wanted = format!("{MARK}={mark}");
    let has_mark = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|text| text.starts_with(wanted.as_bytes()))
    };
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(has_mark).collect()
}

/// The guard reads the process groups from here, and learns that we have ended.
static GUARD: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Starts the guard: a shell that waits until this process is gone, however it
/// has ended (Ctrl-C, a kill), and then ends what is left of its programs.
fn start_guard() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let script = format!(
            "trap '' INT TERM HUP
            while read -r group; do groups=\"$groups -$group\"; done
            for file in $(grep -ls \"{MARK}=$1\" /proc/[0-9]*/environ); do
                pid=${{file#/proc/}}
                kill -KILL \"${{pid%/environ}}\"
            done
            [ -z \"$groups\" ] || kill -KILL -- $groups"
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "guard", RUN.as_str()]);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let guard = in_own_group(&mut shell).spawn();
        *lock(&GUARD) = guard.ok().and_then(|mut shell| shell.stdin.take());
    });
}

/// Lets a command lead a process group: what a terminal sends to ours (at
/// Ctrl-C) does not reach it.
#[cfg(unix)]
pub fn in_own_group(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    command.process_group(0)
}

#[cfg(not(unix))]
pub fn in_own_group(command: &mut Command) -> &mut Command {
    command
}
