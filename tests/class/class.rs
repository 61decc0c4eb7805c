//! One run over all submissions: who is graded when, what is kept, and what is
//! told meanwhile.

use crate::about;
use crate::cell::{Cell, Outcome};
use crate::grading::{self, Grading};
use crate::options::Options;
use crate::process::{self, Limits, Marker};
use crate::report::{self, Student};
use crate::submission::{self, Submission};
use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Marks all submissions, and writes the reports.
pub fn mark(options: &Options) -> io::Result<()> {
    let submissions = submission::find(&options.submissions)?;
    if submissions.is_empty() {
        let place = options.submissions.display();
        return Err(io::Error::other(format!(
            "{place} holds no folder: each folder in it is a submission"
        )));
    }
    let state = options.out.join(".mark");
    if options.again && state.exists() {
        fs::remove_dir_all(&state).map_err(about(state.display()))?;
    }
    fs::create_dir_all(&state).map_err(about(state.display()))?;
    // Programs are started in other folders: a relative path would not be found there.
    let state = state.canonicalize()?;
    let marker = Marker::new();
    // Held until the end: when it closes, whatever is left of this run is ended.
    let _watchdog = process::start_watchdog(&marker)?;
    let gradings = grading::prepare(options, &state, &marker)?;

    let all = submissions.len() * gradings.len();
    let done = AtomicUsize::new(0);
    let waiting = Mutex::new(submissions.into_iter().collect::<VecDeque<_>>());
    let students = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    let work = || {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(submission) = next else { return };
            let run = Run { options, state: &state, marker: &marker, done: &done, all };
            match run.grade(&submission, &gradings) {
                Ok(cells) => students
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Student { name: submission.name, cells }),
                // Such as a full disk: it would hit the next submission as well.
                Err(error) => {
                    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        }
    };
    thread::scope(|scope| (0..options.at_once).for_each(|_| drop(scope.spawn(work))));
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut students = students.into_inner().unwrap_or_else(PoisonError::into_inner);
    students.sort_by(|a, b| a.name.cmp(&b.name));
    report::write(&options.out, &students)?;
    println!("marks are in {}", options.out.join("marks.csv").display());
    Ok(())
}

/// What the grading of one submission needs to know of the whole run.
struct Run<'a> {
    options: &'a Options,
    state: &'a Path,
    marker: &'a Marker,
    done: &'a AtomicUsize,
    all: usize,
}

impl Run<'_> {
    /// Grades all steps of a submission. What was graded before is read again.
    fn grade(&self, submission: &Submission, gradings: &[Grading]) -> io::Result<Vec<Cell>> {
        let fingerprint = submission.fingerprint();
        let mut work: Option<Result<PathBuf, String>> = None;
        let mut cells = Vec::new();
        for grading in gradings {
            let file = self.state.join("cells").join(&submission.name).join(&grading.step);
            let name = &submission.name;
            if let Some(cell) = Cell::load(&file, grading, fingerprint) {
                self.tell(name, &cell, ", graded before");
                cells.push(cell);
                continue;
            }
            if work.is_none() {
                work = Some(self.copy_and_build(submission)?);
            }
            let outcome = match &work {
                Some(Ok(folder)) => self.grade_step(submission, folder, grading)?,
                Some(Err(said)) => Outcome::NotBuilt(said.clone()),
                None => continue,
            };
            let cell = Cell::new(grading, outcome);
            cell.save(&file, fingerprint)?;
            self.tell(name, &cell, "");
            cells.push(cell);
        }
        // Big build folders of a whole class would fill the disk.
        let _ = fs::remove_dir_all(self.work_folder(submission));
        Ok(cells)
    }

    fn work_folder(&self, submission: &Submission) -> PathBuf {
        self.state.join("work").join(&submission.name)
    }

    /// Copies a submission, so that nothing changes what was handed in, and runs
    /// its build command. An `Err` within is what a failed build has said.
    fn copy_and_build(&self, submission: &Submission) -> io::Result<Result<PathBuf, String>> {
        let folder = self.work_folder(submission);
        submission.copy_to(&folder, !self.options.prefix.is_empty())?;
        let built = match submission.build_command() {
            Some(build) => self.build(&build, &folder)?,
            None => Ok(()),
        };
        Ok(built.map(|()| folder))
    }

    fn build(&self, build: &str, folder: &Path) -> io::Result<Result<(), String>> {
        let script = format!("{} sh -c '{}'", self.options.prefix, build.replace('\'', "'\\''"));
        let limits = Limits { time: self.options.build_time, folder };
        let ran = process::run(process::shell(&script, folder), &limits, self.marker)
            .map_err(about(build))?;
        let why = match ran.status {
            Some(status) if status.success() => return Ok(Ok(())),
            Some(status) => status.to_string(),
            None => format!("it was ended after {} s", limits.time.as_secs()),
        };
        Ok(Err(format!("$ {build}\n{}{}\n({why})", ran.stdout, ran.stderr)))
    }

    fn grade_step(
        &self,
        submission: &Submission,
        folder: &Path,
        grading: &Grading,
    ) -> io::Result<Outcome> {
        let Some(command) = submission.command(&grading.step) else {
            return Ok(Outcome::Absent);
        };
        if let Some(build) = &command.build
            && let Err(said) = self.build(build, folder)?
        {
            return Ok(Outcome::NotBuilt(said));
        }
        let lab = format!("{} {}", self.options.prefix, command.lab);
        grading.run(lab.trim(), &self.options.wrap, self.options.test_time, folder, self.marker)
    }

    /// A line of progress for each cell.
    fn tell(&self, name: &str, cell: &Cell, more: &str) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let note = cell.note().map_or(String::new(), |note| format!(": {note}"));
        let line = format!(
            "[{done}/{}] {name} {}  {} of {}{more}{note}\n",
            self.all,
            cell.step,
            cell.points(),
            cell.tests.len()
        );
        // That nobody reads our output is no reason to stop marking.
        let _ = io::stdout().write_all(line.as_bytes());
    }
}
