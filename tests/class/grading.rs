//! The gradings: built once, run for each submission, and what they print.

use crate::about;
use crate::cell::Outcome;
use crate::options::Options;
use crate::process::{self, Limits, Marker};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The grading of one step: a program, and the names of its tests.
pub struct Grading {
    pub step: String,
    pub tests: Vec<String>,
    program: PathBuf,
}

/// Builds the gradings, copies them, and asks each for the names of its tests.
/// The copies are far from the examples, to which their path would lead.
pub fn prepare(options: &Options, state: &Path, marker: &Marker) -> io::Result<Vec<Grading>> {
    let built = match &options.gradings {
        Some(folder) => built_before(folder)?,
        None => build(&options.steps)?,
    };
    let folder = state.join("gradings");
    fs::create_dir_all(&folder).map_err(about(folder.display()))?;
    let mut gradings = Vec::new();
    for step in &options.steps {
        let is_step = |(name, _): &&(String, PathBuf)| name.starts_with(&format!("{step}_"));
        let Some((name, path)) = built.iter().find(is_step) else {
            return Err(io::Error::other(format!("there is no grading of step {step}")));
        };
        let program = folder.join(name);
        // A copy that runs can't be written over, but it can be replaced.
        let _ = fs::remove_file(&program);
        fs::copy(path, &program).map_err(about(path.display()))?;
        let mut list = Command::new(&program);
        list.arg("--list").current_dir(&folder);
        let limits = Limits { time: options.test_time, folder: &folder };
        let list = process::run(list, &limits, marker).map_err(about(program.display()))?;
        let tests = list.stdout.lines().filter_map(|line| line.strip_suffix(": test"));
        let tests: Vec<String> = tests.map(String::from).collect();
        if tests.is_empty() {
            return Err(io::Error::other(format!("{} lists no tests", program.display())));
        }
        gradings.push(Grading { step: step.clone(), program, tests });
    }
    Ok(gradings)
}

/// The programs in a folder. What follows a hyphen is cargo's.
fn built_before(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(folder).map_err(about(folder.display()))?;
    let programs = entries.flatten().filter_map(|entry| {
        let path = entry.path();
        let file = entry.file_name().into_string().ok().filter(|name| !name.contains('.'))?;
        let name = file.split('-').next()?.to_string();
        path.is_file().then_some((name, path))
    });
    Ok(programs.collect())
}

/// Builds the gradings of these steps. Cargo shows its progress on standard error.
fn build(steps: &[String]) -> io::Result<Vec<(String, PathBuf)>> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = project.join("tests");
    let mut names: Vec<String> = fs::read_dir(&tests)
        .map_err(about(tests.display()))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".rs").map(String::from))
        .filter(|name| steps.iter().any(|step| name.starts_with(&format!("{step}_"))))
        .collect();
    names.sort();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["test", "--no-run", "--message-format=json"]).current_dir(project);
    cargo.args(names.iter().flat_map(|name| ["--test", name]));
    let output = cargo.stderr(Stdio::inherit()).output().map_err(about("cargo"))?;
    if !output.status.success() {
        return Err(io::Error::other("the gradings do not compile"));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages.lines().filter(|line| line.contains("\"kind\":[\"test\"]"));
    Ok(built.filter_map(|m| Some((text(m, "name")?, text(m, "executable")?.into()))).collect())
}

/// The text that a line of JSON has for a key. Enough for what cargo writes
/// about itself: paths and names, in which only backslash and quote are escaped.
fn text(json: &str, key: &str) -> Option<String> {
    let (_, rest) = json.split_once(&format!("\"{key}\":\""))?;
    let mut text = String::new();
    let mut letters = rest.chars();
    loop {
        match letters.next()? {
            '"' => return Some(text),
            '\\' => text.push(letters.next()?),
            letter => text.push(letter),
        }
    }
}

impl Grading {
    /// Grades the program that this command starts.
    pub fn run(
        &self,
        lab: &str,
        wrap: &str,
        time: Duration,
        folder: &Path,
        marker: &Marker,
    ) -> io::Result<Outcome> {
        let mut command =
            process::shell(&format!("exec {} {wrap} \"$0\"", process::default_interrupt()), folder);
        command.arg(&self.program).env("LAB", lab).env("NO_COLOR", "1");
        let ran = process::run(command, &Limits { time, folder }, marker)
            .map_err(about(self.program.display()))?;
        let said = match ran.stdout.trim() {
            // Such as an error of the command that it was wrapped in.
            "" => ran.stderr,
            _ => ran.stdout,
        };
        Ok(match ran.status.map(|status| (status.code(), status)) {
            None => Outcome::TimeOver { said, seconds: time.as_secs() },
            // 101 is the status of a test program some of whose tests have failed.
            Some((Some(code @ (0 | 101)), _)) => Outcome::Ended { said, code, left: ran.left },
            Some((_, status)) => Outcome::Killed { said, how: status.to_string() },
        })
    }
}
