//! The arguments of `mark`.

use std::path::PathBuf;
use std::time::Duration;

/// What `--help` prints.
pub const USAGE: &str = "usage: mark SUBMISSIONS [options]
  SUBMISSIONS          a folder; each folder in it is a submission, named after its student
  --steps LIST         which steps, such as 05 or 01-05 or 01,03,06-08; 01-10 if not given
  --out DIR            where the marks go, and where an interrupted run goes on; marks if not given
  --build-seconds N    how long a submission may build, 120 if not given
  --test-seconds N     how long the grading of one step may take, 120 if not given
  --at-once N          how many submissions are graded at the same time, 2 if not given
  --again              forget what was graded before
  --prefix COMMAND     put before each command of a submission, such as a change of user
  --wrap COMMAND       put before each grading as a whole, such as unshare
  --gradings DIR       take gradings that are built already from DIR, and do not call cargo";

/// What to mark, and how.
#[derive(Debug)]
pub struct Options {
    pub submissions: PathBuf,
    /// Two digits each, in order.
    pub steps: Vec<String>,
    pub out: PathBuf,
    pub build_time: Duration,
    pub test_time: Duration,
    pub at_once: usize,
    pub again: bool,
    pub prefix: String,
    pub wrap: String,
    pub gradings: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments. `None` if help was asked for; an error names the
    /// argument that can't be understood.
    pub fn read(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut submissions = None;
        let mut options = Options {
            submissions: PathBuf::new(),
            steps: steps("01-10")?,
            out: "marks".into(),
            build_time: Duration::from_secs(120),
            test_time: Duration::from_secs(120),
            at_once: 2,
            again: false,
            prefix: String::new(),
            wrap: String::new(),
            gradings: None,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("the value after {arg} is missing"));
            match arg.as_str() {
                "-h" | "--help" => return Ok(None),
                "--steps" => options.steps = steps(&value()?)?,
                "--out" => options.out = value()?.into(),
                "--build-seconds" => options.build_time = seconds(&arg, &value()?)?,
                "--test-seconds" => options.test_time = seconds(&arg, &value()?)?,
                "--at-once" => options.at_once = number(&arg, &value()?, 64)?,
                "--again" => options.again = true,
                "--prefix" => options.prefix = value()?,
                "--wrap" => options.wrap = value()?,
                "--gradings" => options.gradings = Some(value()?.into()),
                _ if arg.starts_with('-') => return Err(format!("unknown option {arg:?}")),
                _ if submissions.is_none() => submissions = Some(arg),
                _ => return Err(format!("unexpected argument {arg:?}")),
            }
        }
        options.submissions = submissions.ok_or("SUBMISSIONS is missing")?.into();
        Ok(Some(options))
    }
}

fn number(option: &str, value: &str, most: usize) -> Result<usize, String> {
    let number = value.parse().ok().filter(|n| (1..=most).contains(n));
    number.ok_or_else(|| format!("{option} must be a number from 1 to {most}, not {value:?}"))
}

fn seconds(option: &str, value: &str) -> Result<Duration, String> {
    Ok(Duration::from_secs(number(option, value, 86_400)? as u64))
}

/// The steps in a list such as `01,03,06-08`.
fn steps(list: &str) -> Result<Vec<String>, String> {
    let one = |text: &str| {
        let step = text.parse::<u8>().ok().filter(|step| (1..=10).contains(step));
        step.ok_or_else(|| {
            format!("--steps takes 01 to 10, such as 05 or 01-05 or 01,03, not {list:?}")
        })
    };
    let mut steps = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        steps.extend(one(first)?..=one(last)?);
    }
    steps.sort_unstable();
    steps.dedup();
    if steps.is_empty() {
        return Err(format!("--steps names no step: {list:?}"));
    }
    Ok(steps.into_iter().map(|step| format!("{step:02}")).collect())
}
