//! One submission in one step: what the grading has said, and what counts.

use crate::about;
use crate::grading::Grading;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// How the grading of one submission in one step has ended.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// There is no program for this step.
    Absent,
    /// What the failed build has said.
    NotBuilt(String),
    /// The grading has ended by itself.
    Ended { said: String, code: i32, left: usize },
    /// The grading took too long. What it had said until then counts.
    TimeOver { said: String, seconds: u64 },
    /// Somebody has ended the grading, such as the program that it graded.
    Killed { said: String, how: String },
}

/// What became of one test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    Passed,
    Failed,
    Ignored,
    /// It has not ended, or it can't be believed.
    Missing,
}

/// One test of a cell.
#[derive(Debug)]
pub struct Test {
    pub name: String,
    pub verdict: Verdict,
    /// Why it has failed, as the test tells it.
    pub failure: String,
}

/// One submission in one step.
#[derive(Debug)]
pub struct Cell {
    pub step: String,
    pub tests: Vec<Test>,
    pub outcome: Outcome,
    /// What makes the output one that can't be trusted.
    doubt: Option<String>,
}

impl Cell {
    /// Reads what a grading has said. A test has passed if exactly one line says
    /// so, and the exit status, which no other process can forge, does not
    /// contradict it.
    pub fn new(grading: &Grading, outcome: Outcome) -> Cell {
        let said = match &outcome {
            Outcome::Ended { said, .. } | Outcome::TimeOver { said, .. } => said.as_str(),
            Outcome::Absent | Outcome::NotBuilt(_) | Outcome::Killed { .. } => "",
        };
        let verdicts: Vec<(&str, Verdict)> = said.lines().filter_map(verdict).collect();
        let test = |name: &String| {
            let mut own = verdicts.iter().filter(|(n, _)| n == name).map(|(_, verdict)| *verdict);
            let verdict = match (own.next(), own.next()) {
                (Some(verdict), None) => verdict,
                _ => Verdict::Missing,
            };
            Test { name: name.clone(), verdict, failure: failure(said, name) }
        };
        let mut tests: Vec<Test> = grading.tests.iter().map(test).collect();
        let is = |wanted| tests.iter().any(|test| test.verdict == wanted);
        let doubt = match outcome {
            Outcome::Ended { code, .. } if is(Verdict::Missing) => {
                Some(format!("exit status {code}, but not one line of result for each test"))
            }
            Outcome::Ended { code, .. } if (code == 0) == is(Verdict::Failed) => {
                Some(format!("exit status {code}, which contradicts the lines of result"))
            }
            _ => None,
        };
        if doubt.is_some() {
            for test in &mut tests {
                test.verdict = Verdict::Missing;
            }
        }
        Cell { step: grading.step.clone(), tests, outcome, doubt }
    }

    /// A point for each test that has passed.
    pub fn points(&self) -> usize {
        self.tests.iter().filter(|test| test.verdict == Verdict::Passed).count()
    }

    /// What a teacher should know beside the points.
    pub fn note(&self) -> Option<String> {
        let ignored = self.tests.iter().filter(|test| test.verdict == Verdict::Ignored).count();
        match &self.outcome {
            _ if self.doubt.is_some() => {
                Some(format!("look at this one: {}", self.doubt.clone().unwrap_or_default()))
            }
            Outcome::Absent => Some("not handed in".into()),
            Outcome::NotBuilt(_) => Some("does not build".into()),
            Outcome::TimeOver { seconds, .. } => Some(format!(
                "the grading was ended after {seconds} s; tests that had passed by then count"
            )),
            Outcome::Killed { how, .. } => Some(format!(
                "look at this one: something has ended the grading ({how}), so nothing counts"
            )),
            Outcome::Ended { left: 0, .. } if ignored > 0 => {
                Some(format!("{ignored} ignored: a tool is missing on this machine"))
            }
            Outcome::Ended { left: 0, .. } => self.common_cause(),
            Outcome::Ended { left, .. } => {
                Some(format!("it left {left} processes running; they were ended"))
            }
        }
    }

    /// One mistake often fails several tests: what most of them say, if they do.
    fn common_cause(&self) -> Option<String> {
        let part = |test: &Test, label: &str| {
            let line = test.failure.lines().find_map(|line| line.trim().strip_prefix(label))?;
            Some(line.trim().chars().take(80).collect::<String>())
        };
        let mut causes = BTreeMap::<String, usize>::new();
        for test in &self.tests {
            if let (Some(expected), Some(received)) =
                (part(test, "expected "), part(test, "received "))
            {
                *causes.entry(format!("expected {expected}, received {received}")).or_default() +=
                    1;
            }
        }
        let (cause, count) = causes.into_iter().max_by_key(|(_, count)| *count)?;
        (2 * count >= self.tests.len()).then(|| format!("{count} tests failed alike: {cause}"))
    }

    /// What was said where no test could tell it.
    pub fn said(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Absent => None,
            Outcome::NotBuilt(said)
            | Outcome::Killed { said, .. }
            | Outcome::TimeOver { said, .. } => Some(said),
            Outcome::Ended { said, .. } => self.doubt.is_some().then_some(said.as_str()),
        }
    }

    /// Keeps this cell, whole or not at all.
    pub fn save(&self, file: &Path, fingerprint: u64) -> io::Result<()> {
        let (kind, number, said) = match &self.outcome {
            Outcome::Absent => ("absent", String::new(), ""),
            Outcome::NotBuilt(said) => ("not built", String::new(), said.as_str()),
            Outcome::Ended { said, code, left } => {
                ("ended", format!("{code} {left}"), said.as_str())
            }
            Outcome::TimeOver { said, seconds } => {
                ("time over", seconds.to_string(), said.as_str())
            }
            Outcome::Killed { said, how } => ("killed", how.clone(), said.as_str()),
        };
        let text = format!("{fingerprint:x}\n{kind}\n{number}\n{said}");
        let new = file.with_extension("new");
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(about(folder.display()))?;
        }
        fs::write(&new, text).and_then(|()| fs::rename(&new, file)).map_err(about(file.display()))
    }

    /// A cell that was kept, if the submission is still the same.
    pub fn load(file: &Path, grading: &Grading, fingerprint: u64) -> Option<Cell> {
        let text = fs::read_to_string(file).ok()?;
        let mut parts = text.splitn(4, '\n');
        if parts.next()? != format!("{fingerprint:x}") {
            return None;
        }
        let (kind, number, said) = (parts.next()?, parts.next()?, parts.next()?.to_string());
        let outcome = match kind {
            "absent" => Outcome::Absent,
            "not built" => Outcome::NotBuilt(said),
            "time over" => Outcome::TimeOver { said, seconds: number.parse().ok()? },
            "killed" => Outcome::Killed { said, how: number.into() },
            "ended" => {
                let (code, left) = number.split_once(' ')?;
                Outcome::Ended { said, code: code.parse().ok()?, left: left.parse().ok()? }
            }
            _ => return None,
        };
        Some(Cell::new(grading, outcome))
    }
}

/// The test that a line is about, and what became of it.
fn verdict(line: &str) -> Option<(&str, Verdict)> {
    let (name, word) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let verdict = match word.trim_end() {
        "ok" => Verdict::Passed,
        "FAILED" => Verdict::Failed,
        word if word.starts_with("ignored") => Verdict::Ignored,
        _ => return None,
    };
    Some((name, verdict))
}

/// What a test has said about its failure: the block below its name.
fn failure(said: &str, name: &str) -> String {
    let heading = format!("---- {name} stdout ----\n");
    let Some((_, rest)) = said.split_once(&heading) else { return String::new() };
    let ends = ["\n---- ", "\nfailures:\n"].map(|end| rest.find(end).unwrap_or(rest.len()));
    let block = &rest[..ends[0].min(ends[1])];
    let lines = block.lines().map(str::trim_end).filter(|line| !line.starts_with("note: run with"));
    lines.collect::<Vec<_>>().join("\n").trim_matches('\n').to_string()
}
