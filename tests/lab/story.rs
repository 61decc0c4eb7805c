//! What has happened in a test, told when it fails.

use super::cleanup::{Watch, longest, time_left};
use super::inbox::Inbox;
use super::program::{Process, lab};
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::rc::{Rc, Weak};
use std::sync::{Once, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// The rule of a test, in the words that its failure prints.
#[allow(clippy::struct_field_names)]
pub struct Rule {
    /// The rule, as the contract has it.
    pub rule: &'static str,
    /// Why a program breaks it.
    pub why: &'static str,
    /// Lesson and heading.
    pub read: &'static str,
    /// A command that shows it by hand.
    pub by_hand: &'static str,
}

/// How many of the last steps a failure tells. `LAB_STORY=all` tells all.
const LAST_STEPS: usize = 10;
/// How much of a long text is shown, in characters.
const SHOWN: usize = 64;

#[derive(Clone)]
struct Step {
    /// `ann --> server`, or what else happened.
    who: String,
    what: String,
}

/// One test: its rule, its steps so far, its programs.
pub struct Story {
    rule: Rule,
    why: RefCell<String>,
    read: Cell<&'static str>,
    by_hand: RefCell<String>,
    /// Failures that are told together, while somebody collects them.
    collected: RefCell<Option<Vec<Collected>>>,
    peers: RefCell<Vec<Connected>>,
    steps: RefCell<Vec<Step>>,
    programs: RefCell<Vec<Rc<Process>>>,
    random: Cell<u64>,
    /// The name of the test.
    name: String,
    /// Whether it only finds out if the others make sense.
    is_trial: bool,
    /// The last to be dropped: it watches until all programs are gone.
    watch: Watch,
}

/// A peer that is connected to a server of this test.
struct Connected {
    who: String,
    inbox: Inbox,
    /// Whether it knows that this is over.
    is_over: Weak<Cell<bool>>,
}

/// A failure that is told with others of its kind.
pub struct Collected {
    /// The command that shows it.
    pub command: String,
    pub expected: String,
    pub received: String,
}

/// What a failure has to tell, but for the rule that was broken.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// What has happened, and what differs.
    told: String,
    why: String,
    read: String,
    by_hand: String,
}

impl Story {
    pub fn new(rule: Rule) -> Rc<Story> {
        Story::of(rule, false)
    }

    /// One that fails without a word: what it has to tell is thrown.
    pub fn of_trial() -> Rc<Story> {
        Story::of(Rule { rule: "", why: "", read: "", by_hand: "" }, true)
    }

    fn of(rule: Rule, is_trial: bool) -> Rc<Story> {
        // Other panics are mistakes of the harness: one line is enough.
        static HOOK: Once = Once::new();
        HOOK.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
        let name = test_name();
        // Different words in each test of a run, the same in each replay.
        let random = name.bytes().fold(seed(), |mix, b| next_random(mix ^ u64::from(b)));
        Rc::new(Story {
            why: RefCell::new(rule.why.into()),
            read: Cell::new(rule.read),
            by_hand: RefCell::new(rule.by_hand.into()),
            collected: RefCell::default(),
            peers: RefCell::default(),
            rule,
            steps: RefCell::default(),
            programs: RefCell::default(),
            random: Cell::new(random),
            name,
            is_trial,
            watch: Watch::new(),
        })
    }

    /// From here on, a failure is explained by this.
    pub fn because(&self, why: impl Into<String>) {
        *self.why.borrow_mut() = why.into();
    }

    /// The failure that comes now has another reason than the test's own, and
    /// is explained elsewhere.
    pub fn blame(&self, why: impl Into<String>, read: &'static str) {
        self.because(why);
        self.read.set(read);
    }

    /// From here on, this command shows a failure by hand.
    pub fn by_hand(&self, command: impl Into<String>) {
        *self.by_hand.borrow_mut() = command.into();
    }

    /// Collects the failures of the programs that are run here, and tells all of
    /// them together.
    #[track_caller]
    pub fn together(&self, runs: impl FnOnce()) {
        if self.collected.borrow().is_some() {
            return runs();
        }
        *self.collected.borrow_mut() = Some(Vec::new());
        runs();
        let collected = self.collected.take().unwrap_or_default();
        let Some(first) = collected.first() else { return };
        self.by_hand(format!("{}; echo $?", first.command));
        let mut difference = String::new();
        for Collected { command, expected, received } in &collected {
            let _ = writeln!(difference, "  you run   {command}");
            let _ = writeln!(difference, "  expected  {expected}\n  received  {received}");
        }
        self.steps.borrow_mut().clear();
        self.fail(&difference)
    }

    /// Notes a failure, if somebody collects them.
    pub fn collects(&self, failure: impl FnOnce() -> Collected) -> bool {
        let mut collected = self.collected.borrow_mut();
        collected.as_mut().is_some_and(|all| {
            all.push(failure());
            true
        })
    }

    /// Somebody is connected to a server, and hears this. The cell is true when it
    /// knows that this is over.
    pub fn is_connected(&self, who: &str, inbox: &Inbox, is_over: &Rc<Cell<bool>>) {
        let (who, inbox, is_over) = (who.to_string(), inbox.clone(), Rc::downgrade(is_over));
        self.peers.borrow_mut().push(Connected { who, inbox, is_over });
    }

    /// Whose connections have ended, though nobody has asked for that.
    fn dropped(&self) -> Vec<String> {
        // There each connection ends soon.
        if step_name().starts_with("01") {
            return Vec::new();
        }
        let peers = self.peers.borrow();
        let was_dropped = |peer: &&Connected| {
            peer.inbox.has_ended() && peer.is_over.upgrade().is_some_and(|is_over| !is_over.get())
        };
        peers.iter().filter(was_dropped).map(|peer| peer.who.clone()).collect()
    }

    /// The failure that comes now may have one more reason.
    pub fn also(&self, why: &str) {
        self.why.borrow_mut().push_str(why);
    }

    /// A random number below `limit`.
    pub fn number(&self, limit: usize) -> usize {
        self.random.set(next_random(self.random.get()));
        (self.random.get() >> 33) as usize % limit
    }

    /// A random word that no program can know.
    pub fn word(&self) -> String {
        let letters = b"bcdfghjkmnprstvwxyz";
        (0..8).map(|_| letters[self.number(letters.len())] as char).collect()
    }

    /// Notes a step: `ann --> server`, and what was said.
    pub fn step(&self, who: impl Into<String>, what: impl Into<String>) {
        self.steps.borrow_mut().push(Step { who: who.into(), what: what.into() });
    }

    /// The name of the test.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this only finds out if the tests make sense.
    pub fn is_trial(&self) -> bool {
        self.is_trial
    }

    /// The mark of this test's next program.
    pub fn mark(&self) -> String {
        self.watch.mark()
    }

    pub fn watch(&self, program: Rc<Process>) {
        self.programs.borrow_mut().push(program);
    }

    /// Whether the program that was started last is a client, and has ended.
    pub fn client_has_ended(&self) -> bool {
        self.programs.borrow().last().is_some_and(|program| program.is_ended_client())
    }

    /// Fails: something else came than what had to.
    #[track_caller]
    pub fn mismatch(&self, who: &str, expected: &[u8], received: &[u8]) -> ! {
        self.mismatch_in(who, &quote(received), expected, received)
    }

    /// The same, where what came is told as `step`, and these bytes are the part
    /// of it that is wrong.
    #[track_caller]
    pub fn mismatch_in(&self, who: &str, step: &str, expected: &[u8], received: &[u8]) -> ! {
        let same = expected.iter().zip(received).take_while(|(a, b)| a == b).count();
        // A long text is shown around the first difference.
        let from = same.saturating_sub(SHOWN / 2);
        let cut = if from > 0 { "..." } else { "" };
        let column = 1 + cut.len() + escape(&received[from..same]).chars().count();
        let note = match (expected.get(same), received.get(same)) {
            (Some(_), None) => "it ends here, too early".to_string(),
            (None, Some(_)) => "it should end here".to_string(),
            _ => format!("byte {} is the first wrong one", same + 1),
        };
        self.step(who, format!("{step} <-- here"));
        self.fail(&format!(
            "  expected  {}\n  received  {}\n            {}^ {note}\n",
            quote_from(expected, from, cut),
            quote_from(received, from, cut),
            " ".repeat(column),
        ))
    }

    /// Fails: both are told in words, and differ from one word on.
    #[track_caller]
    pub fn differs(&self, who: &str, expected: &str, received: &str) -> ! {
        let same = expected.chars().zip(received.chars()).take_while(|(a, b)| a == b).count();
        self.step(who, format!("{received} <-- here"));
        self.fail(&format!(
            "  expected  {expected}\n  received  {received}\n            {}^ here they differ\n",
            " ".repeat(same),
        ))
    }

    /// Fails: what came is told in words.
    #[track_caller]
    pub fn fails(&self, who: &str, expected: &str, received: &str) -> ! {
        self.step(who, "<-- here");
        self.fail(&format!("  expected  {expected}\n  received  {received}\n"))
    }

    #[track_caller]
    fn fail(&self, difference: &str) -> ! {
        let mut text = String::new();
        let steps = shortened(&self.steps.borrow());
        let tells_all = std::env::var("LAB_STORY").is_ok_and(|story| story == "all");
        let most = if tells_all { usize::MAX } else { LAST_STEPS };
        let hidden = steps.len().saturating_sub(most);
        let mut label = "so far";
        if hidden > 0 {
            let _ = writeln!(text, "  so far    ({hidden} steps before; LAB_STORY=all shows them)");
            label = "";
        }
        let wide = steps[hidden..].iter().map(|s| s.who.len()).max().unwrap_or(0);
        for step in &steps[hidden..] {
            let _ = writeln!(text, "  {label:<8}  {:<wide$}  {}", step.who, step.what);
            label = "";
        }
        text.push_str(difference);
        let who = steps.last().map(|step| step.who.clone()).unwrap_or_default();
        let mut dropped = self.dropped();
        dropped.retain(|name| !who.ends_with(&format!(" {name}")));
        dropped.dedup();
        if !dropped.is_empty() {
            let names = dropped.join(", ");
            let _ = writeln!(text, "  also      ended before this: the connection of {names}");
        }
        let [expected, received] = ["  expected", "  received"]
            .map(|label| difference.lines().find(|line| line.starts_with(label)).unwrap_or(""));
        if received.contains("too slow") && !expected.contains("too slow") {
            self.because("the server has given up a client that reads at once. The limit is 1 MiB that waits in the server's own queue: count bytes, not lines or messages, and only what still waits");
        }
        for program in self.programs.borrow().iter() {
            text.push_str(&program.last_words());
        }
        if time_left().is_zero() {
            let seconds = longest().as_secs();
            self.because(format!("this test has taken {seconds} s, and that is the most that a test may take: its programs were ended. What it waited for is told above"));
        }
        let (why, read) = (self.why.borrow().clone(), self.read.get().to_string());
        let by_hand = self.by_hand.borrow().clone();
        self.throw(Failure { told: text, why, read, by_hand })
    }

    /// Fails as a trial has failed.
    pub fn tells(&self, failure: &Failure) -> ! {
        self.throw(failure.clone())
    }

    fn throw(&self, failure: Failure) -> ! {
        if self.is_trial {
            std::panic::resume_unwind(Box::new(failure));
        }
        let Failure { told, why, read, by_hand } = failure;
        // What a trial has to say goes before the test's own words, or after them.
        let or = |own: &str, of: String| match of.strip_prefix(". ") {
            Some(_) => own.to_string() + &of,
            None if of.is_empty() => own.to_string(),
            None => of,
        };
        let mut text = told;
        let _ = writeln!(text, "  why       {}", or(&self.why.borrow(), why));
        let _ = writeln!(text, "  read      {}", or(self.read.get(), read));
        let step = step_name();
        let (mut by_hand, mut set) = (or(&self.by_hand.borrow(), by_hand), String::new());
        if let Some(lab) = lab() {
            // What `--` divides are cargo's arguments from the program's.
            let run = format!("cargo run --example {step}");
            by_hand = by_hand.replace(&format!("{run} --"), &run).replace(&run, &lab);
            set = format!("LAB=\"{lab}\" ");
        }
        let _ = writeln!(text, "  by hand   {by_hand}");
        let (seed, name) = (seed(), &self.name);
        let again = format!("{set}LAB_SEED={seed} cargo test --test {step} {name}");
        self.ends(&format!("{text}  again     {again}\n"))
    }

    /// Fails, because something else must work before.
    pub fn was_not_tried(&self, why: &str) -> ! {
        self.ends(&format!("  not tried {why}\n"))
    }

    fn ends(&self, told: &str) -> ! {
        // The report says all that there is to say. A panic would add where in
        // the harness it was written, and that is no news.
        eprintln!("\n\n  rule      {}\n{told}", self.rule.rule);
        std::panic::resume_unwind(Box::new("the test has failed"))
    }
}

/// Of many steps of one kind in a row, the first and the last are told.
fn shortened(steps: &[Step]) -> Vec<Step> {
    let kind = |step: &Step| (step.who.clone(), step.what.split(' ').next().map(str::to_string));
    let mut told = Vec::new();
    for run in steps.chunk_by(|a, b| kind(a) == kind(b)) {
        match run {
            [first, between @ .., last] if between.len() > 2 => {
                let what = format!("({} more)", between.len());
                told.push(first.clone());
                told.push(Step { who: first.who.clone(), what });
                told.push(last.clone());
            }
            _ => told.extend_from_slice(run),
        }
    }
    told
}

impl Drop for Story {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for program in self.programs.borrow().iter() {
                program.check_health(self);
            }
        }
    }
}

/// The grading that runs: `.../05_threaded_server-0123456789abcdef`.
fn step_name() -> String {
    let test = std::env::current_exe().unwrap();
    let name = test.file_stem().unwrap().to_string_lossy().into_owned();
    name.rsplit_once('-').map_or(name.clone(), |(step, _)| step.to_string())
}

/// The name of the test that runs: that of its thread. Where tests have no
/// threads of their own (`--test-threads 1`) it is looked for among the calls.
fn test_name() -> String {
    let thread = std::thread::current().name().unwrap_or("main").to_string();
    if thread != "main" {
        return thread;
    }
    let calls = std::backtrace::Backtrace::force_capture().to_string();
    let step = format!("{}::", step_name());
    let names = calls.lines().filter_map(|line| line.split_once(&step).map(|(_, name)| name));
    let name = names.rev().find(|name| !name.contains("lab::") && !name.starts_with("main"));
    let name = name.and_then(|name| name.split("::").next()).unwrap_or("main");
    name.trim_matches(['{', '}']).to_string()
}

/// The seed of this run.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let given = std::env::var("LAB_SEED").ok().and_then(|s| s.parse().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        given.unwrap_or(u64::from(now.subsec_nanos()))
    })
}

/// Sebastiano Vigna's `SplitMix64`, enough for test words.
pub(super) fn next_random(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes as they are written in a string: `one\ntwo\xff`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '"' || c == '\'' {
                text.push(c);
            } else {
                text.extend(c.escape_debug());
            }
        }
        for b in chunk.invalid() {
            let _ = write!(text, "\\x{b:02x}");
        }
    }
    text
}

/// Bytes in quotes, shortened if long.
pub fn quote(bytes: &[u8]) -> String {
    quote_from(bytes, 0, "")
}

fn quote_from(bytes: &[u8], from: usize, cut: &str) -> String {
    // Of a long text only what can be shown: it may have megabytes.
    let shown = &bytes[from.min(bytes.len())..];
    let text = escape(&shown[..shown.len().min(4 * SHOWN)]);
    if text.chars().count() <= SHOWN + 16 && shown.len() <= 4 * SHOWN {
        return format!("\"{cut}{text}\"");
    }
    let short: String = text.chars().take(SHOWN).collect();
    let length = match bytes {
        [line @ .., b'\r', b'\n'] => format!("{} bytes and CR LF", line.len()),
        [line @ .., b'\n'] => format!("{} bytes and LF", line.len()),
        _ => format!("{} bytes", bytes.len()),
    };
    format!("\"{cut}{short}...\" ({length})")
}
