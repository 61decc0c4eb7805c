//! Runs the tests of a grading whose last ones need tools that may be missing.
//! The usual harness can't leave out a test at run time, and say so: this one
//! can (`harness = false` in Cargo.toml). What it takes and prints is the same.
//!
//! Each test runs in a process of its own: what it says is kept, and what it
//! starts is ended with it.

use super::program;
use std::env;
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// In a process for one test: its name.
const ONE: &str = "LAB_ONE_TEST";

/// A test, and what it needs on this machine.
pub struct Test {
    pub name: &'static str,
    /// Says what is missing.
    pub missing: fn() -> Option<String>,
    pub run: fn(),
}

/// Options that are followed by a value. Of those that are not known here, none
/// changes what passes.
const WITH_VALUE: [&str; 6] =
    ["--test-threads", "--skip", "--format", "--color", "--logfile", "--shuffle-seed"];

/// What comes after `--` of `cargo test -- ...`.
#[derive(Default)]
struct Chosen {
    filters: Vec<String>,
    skipped: Vec<String>,
    flags: Vec<String>,
    threads: Option<usize>,
    terse: bool,
}

impl Chosen {
    fn read() -> Chosen {
        let mut chosen = Chosen::default();
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) => (option.to_string(), Some(value.to_string())),
                None => (word, None),
            };
            if WITH_VALUE.contains(&option.as_str()) {
                let value = value.or_else(|| words.next()).unwrap_or_default();
                match option.as_str() {
                    "--test-threads" => chosen.threads = value.parse().ok(),
                    "--skip" => chosen.skipped.push(value),
                    "--format" => chosen.terse |= value == "terse",
                    _ => {}
                }
            } else if option.starts_with('-') {
                chosen.flags.push(option);
            } else {
                chosen.filters.push(option);
            }
        }
        chosen
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    fn takes(&self, name: &str) -> bool {
        let fits = |part: &String| name == part || !self.has("--exact") && name.contains(part);
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skipped.iter().any(fits)
    }
}

/// How a test has ended.
enum Verdict {
    Passed,
    Failed(Output),
    Ignored(String),
}

/// Whether this process is there for one test.
pub fn runs_one() -> bool {
    env::var_os(ONE).is_some()
}

/// Runs the tests of this step that are asked for.
pub fn run(step: &str, tests: &[Test]) -> ExitCode {
    if let Ok(name) = env::var(ONE) {
        return tests.iter().find(|t| t.name == name).map_or(ExitCode::FAILURE, run_here);
    }
    let chosen = Chosen::read();
    let only_ignored = chosen.has("--ignored");
    let is_selected =
        |t: &&Test| chosen.takes(t.name) && (!only_ignored || (t.missing)().is_some());
    let selected: Vec<&Test> = tests.iter().filter(is_selected).collect();
    let why_ignored = |test: &Test| {
        (test.missing)().filter(|_| !only_ignored && !chosen.has("--include-ignored"))
    };
    if chosen.has("--list") {
        for test in &selected {
            println!("{}: test", test.name);
        }
        if !chosen.terse {
            println!("\n{} tests, 0 benchmarks", selected.len());
        }
        return ExitCode::SUCCESS;
    }

    let started = Instant::now();
    let plural = if selected.len() == 1 { "" } else { "s" };
    println!("\nrunning {} test{plural}", selected.len());
    if selected.iter().any(|t| why_ignored(t).is_none()) {
        program::announce(step);
        // Once, before all of them start.
        if program::lab().is_none() {
            program::example(step);
        }
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let given = env::var("RUST_TEST_THREADS").ok().and_then(|n| n.parse().ok());
    let threads = chosen.threads.or(given).unwrap_or(cores).max(1);
    let is_quiet = chosen.has("--quiet") || chosen.has("-q");
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let ignored = AtomicUsize::new(0);
    let work = || {
        while let Some(test) = selected.get(next.fetch_add(1, Ordering::Relaxed)) {
            let verdict = match why_ignored(test) {
                Some(why) => Verdict::Ignored(why),
                None => {
                    run_apart(test.name, chosen.has("--nocapture") || chosen.has("--no-capture"))
                }
            };
            let mut failed = failed.lock().unwrap();
            let (letter, word) = match &verdict {
                Verdict::Passed => (".", "ok".into()),
                Verdict::Failed(_) => ("F", "FAILED".into()),
                Verdict::Ignored(why) => ("i", format!("ignored, {why}")),
            };
            if is_quiet {
                print!("{letter}");
            } else {
                println!("test {} ... {word}", test.name);
            }
            let _ = io::stdout().flush();
            match verdict {
                Verdict::Passed => {}
                Verdict::Failed(output) => failed.push((test.name, output)),
                Verdict::Ignored(_) => drop(ignored.fetch_add(1, Ordering::Relaxed)),
            }
        }
    };
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));

    let mut failed = failed.into_inner().unwrap();
    failed.sort_by_key(|(name, _)| *name);
    let ignored = ignored.into_inner();
    if !failed.is_empty() {
        println!("\nfailures:");
        for (name, output) in &failed {
            let said = [&output.stdout[..], &output.stderr].concat();
            // What was not kept back was seen already.
            if !said.is_empty() {
                println!("\n---- {name} stdout ----\n{}", String::from_utf8_lossy(&said));
            }
        }
        println!("\nfailures:");
        for (name, _) in &failed {
            println!("    {name}");
        }
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    let passed = selected.len() - failed.len() - ignored;
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; {ignored} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        failed.len(),
        tests.len() - selected.len(),
        started.elapsed().as_secs_f64()
    );
    ExitCode::from(if failed.is_empty() { 0 } else { 101 })
}

/// Runs one test in a process of its own.
fn run_apart(name: &str, shows_all: bool) -> Verdict {
    let mut command = Command::new(env::current_exe().unwrap());
    // The program was built already: without cargo, it is not built again.
    command.env(ONE, name).env("CARGO", "").stdin(Stdio::piped());
    if !shows_all {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    lead_group(&mut command);
    let mut child = command.spawn().unwrap();
    let group = child.id();
    // Held open until it has ended: so it notices when we are gone.
    let held = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(held);
    end_group(group);
    if output.status.success() { Verdict::Passed } else { Verdict::Failed(output) }
}

/// Runs one test, as the usual harness would.
fn run_here(test: &Test) -> ExitCode {
    // The runner holds this input open: if it ends, nobody waits any
    // more for this test, nor for what it has started.
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        end_group(std::process::id());
        std::process::exit(101);
    });
    let thread = thread::Builder::new().name(test.name.into()).spawn(test.run).unwrap();
    ExitCode::from(if thread.join().is_ok() { 0 } else { 101 })
}

#[cfg(unix)]
fn lead_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(not(unix))]
fn lead_group(_: &mut Command) {}

/// Ends what a test has started, and what that has started in its turn.
fn end_group(group: u32) {
    if cfg!(unix) {
        let mut kill = Command::new("kill");
        let _ = kill.args(["-KILL", "--", &format!("-{group}")]).stderr(Stdio::null()).status();
    }
}
