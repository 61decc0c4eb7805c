//! Holds the lessons to the code: what a lesson shows is in the files that it
//! names, compiles, or is printed by the programs, here and now.
//!
//! | block | what is done with it |
//! | --- | --- |
//! | `rust FILE` | its lines must stand in that file, one after the other |
//! | `rust` | must compile as a program of its own |
//! | `terminals` | is played, line by line (see `lab/stage.rs`) |
//! | `console` | each `$ command` is run, and prints exactly what follows it |
//! | `python` | must be valid Python 3 |
//! | `text` | diagrams and reports: not checked |

#![allow(clippy::unwrap_used)]

mod lab;

use lab::missing;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const STEPS: [&str; 10] = [
    "01_bind_listen",
    "02_echo_server",
    "03_client",
    "04_chat_client",
    "05_threaded_server",
    "06_message_headers",
    "07_disconnects",
    "08_udp_chat",
    "09_websocket_chat",
    "10_secure_chat",
];

const HEADINGS: [&str; 10] = [
    "You will have",
    "See it fail",
    "The idea",
    "The code",
    "Run it",
    "Break it",
    "What is still wrong",
    "Check yourself",
    "Your turn",
    "Go further",
];

/// A page and its fenced blocks.
struct Page {
    path: PathBuf,
    text: String,
}

/// A fenced block: the words after its first fence, and its lines.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
#[derive(Clone)]
struct Block {
    kind: String,
    line: usize,
    /// The number of the `##` section that it is in.
    section: usize,
    text: String,
}

fn pages() -> Vec<Page> {
    let mut paths = vec![PathBuf::from("README.md")];
    paths.extend(fs::read_dir("lessons").unwrap().map(|entry| entry.unwrap().path()));
    paths.retain(|path| path.extension().is_some_and(|e| e == "md"));
    paths.sort();
    paths.into_iter().map(|path| Page { text: fs::read_to_string(&path).unwrap(), path }).collect()
}

impl Page {
    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        let mut section = 0;
        for (number, line) in self.text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(kind)) => {
                    let kind = kind.trim().to_string();
                    open = Some(Block { kind, line: number + 1, section, text: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text += &format!("{line}\n"),
                (None, None) if line.starts_with("## ") => section += 1,
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", self.path.display());
        blocks
    }

    /// The page without its blocks.
    fn prose(&self) -> String {
        let mut inside = false;
        let lines = self.text.lines().filter(|line| {
            let fence = line.starts_with("```");
            inside ^= fence;
            !inside && !fence
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn place(&self, block: &Block) -> String {
        format!("{}:{}", self.path.display(), block.line)
    }
}

#[test]
fn each_step_has_a_program_a_lesson_and_a_grading_of_ten() {
    for step in STEPS {
        let read =
            |path: String| fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let program = read(program_file(step));
        assert!(program.contains(&format!("//! Lesson: lessons/{step}.md")), "{step}");
        read(format!("lessons/{step}.md"));
        let grading = read(format!("tests/{step}.rs"));
        assert_eq!(tests_of(&grading).len(), 10, "tests/{step}.rs");
        assert!(!grading.contains("#[ignore"), "tests/{step}.rs");
    }
}

/// Where a step's program begins: it is a file, or a folder with several.
fn program_file(step: &str) -> String {
    let folder = format!("examples/{step}/main.rs");
    if Path::new(&folder).exists() { folder } else { format!("examples/{step}.rs") }
}

/// The names of a grading's tests: the functions after `#[test]`, and perhaps
/// after further attributes.
fn tests_of(grading: &str) -> Vec<&str> {
    let marked = grading.split("\n#[test]\n").skip(1);
    marked.filter_map(|rest| rest.split_once("fn ")?.1.split('(').next()).collect()
}

/// Those of all steps.
fn all_tests() -> BTreeSet<String> {
    let gradings = STEPS.iter().map(|step| fs::read_to_string(format!("tests/{step}.rs")).unwrap());
    gradings.flat_map(|g| tests_of(&g).into_iter().map(String::from).collect::<Vec<_>>()).collect()
}

#[test]
fn lessons_have_one_shape() {
    for page in pages() {
        let name = page.path.file_stem().unwrap().to_string_lossy().into_owned();
        if !STEPS.contains(&name.as_str()) {
            continue;
        }
        let prose = page.prose();
        let found: Vec<&str> = prose.lines().filter_map(|l| l.strip_prefix("## ")).collect();
        assert_eq!(found, HEADINGS, "{name}");
        let words = prose.split_whitespace().count();
        assert!(words >= 400, "{name} has {words} words; at least 400 are right");
        assert!(prose.contains("<details>"), "{name} folds no answer");
    }
}

#[test]
fn rust_blocks_stand_in_the_files_they_name_or_compile() {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for page in pages() {
        for block in page.blocks() {
            let Some(file) = block.kind.strip_prefix("rust").map(str::trim) else { continue };
            let place = page.place(&block);
            if file.is_empty() {
                let source = scratch.join(place.replace(['/', '\\', ':', '.'], "_") + ".rs");
                fs::write(&source, &block.text).unwrap();
                if !compiles(&source, &place) {
                    return;
                }
                continue;
            }
            let code = fs::read_to_string(file).unwrap_or_else(|e| panic!("{place}: {file}: {e}"));
            let code: Vec<&str> = code.lines().collect();
            let shown: Vec<&str> = block.text.lines().collect();
            // A block may leave out the indentation that all its lines share.
            let same = |window: &[&str]| {
                let first = window[0].len() - window[0].trim_start().len();
                let given = shown[0].len() - shown[0].trim_start().len();
                let margin = " ".repeat(first.saturating_sub(given));
                window.iter().zip(&shown).all(|(code, shown)| {
                    code == shown || code.strip_prefix(margin.as_str()) == Some(*shown)
                })
            };
            assert!(
                !shown.is_empty() && code.windows(shown.len()).any(same),
                "{place} is not (or no longer) in {file}"
            );
        }
    }
}

#[test]
fn rust_files_in_the_lessons_compile() {
    let files = fs::read_dir("lessons").unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.extension().is_some_and(|e| e == "rs")) {
        if !compiles(&file, &file.display().to_string()) {
            return;
        }
    }
}

/// Compiles a program of its own, and fails with the compiler's errors. False:
/// there is no compiler.
fn compiles(source: &Path, place: &str) -> bool {
    let output = Command::new("rustc")
        .args(["--edition=2024", "--emit=metadata", "--out-dir", env!("CARGO_TARGET_TMPDIR")])
        .arg(source)
        .output();
    let Ok(output) = output else {
        missing("rustc");
        return false;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{place} does not compile:\n{errors}");
    true
}

#[test]
fn cargo_commands_name_programs_and_tests_that_exist() {
    let mut found = 0;
    for page in pages() {
        let words: Vec<&str> = page.text.split_whitespace().collect();
        for pair in words.windows(2) {
            // In a picture of terminals the edge of a window may follow.
            let name = pair[1].trim_end_matches(['`', ',', '.', ';', ':', ')', '"', '\'', '|']);
            let path = match pair[0] {
                "--example" => program_file(name),
                "--test" => format!("tests/{name}.rs"),
                _ => continue,
            };
            assert!(Path::new(&path).exists(), "{}: {} {}", page.path.display(), pair[0], pair[1]);
            found += 1;
        }
    }
    assert!(found > 20, "commands are looked for in the wrong place: {found} found");
}

#[test]
fn tests_that_are_named_exist() {
    let tests = all_tests();
    let mut found = 0;
    for page in pages() {
        // In the output of a grading, or in the text.
        let shown = page.text.lines().filter_map(|l| l.strip_prefix("test ")?.split_once(" ... "));
        let prose = page.prose();
        let named = prose.split('`').skip(1).step_by(2).filter(|word| {
            let is_name = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
            word.matches('_').count() > 3 && word.chars().all(is_name)
        });
        for name in shown.map(|(name, _)| name).chain(named) {
            assert!(tests.contains(name), "{}: there is no test {name}", page.path.display());
            found += 1;
        }
    }
    assert!(found > 5, "names are looked for in the wrong place: {found} found");
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let folder = page.path.parent().unwrap();
        for link in page.prose().split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.starts_with("http") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = if file.is_empty() { page.path.clone() } else { folder.join(file) };
            let place = page.path.display();
            assert!(path.exists(), "{place}: {link} leads nowhere");
            if !heading.is_empty() {
                let text = fs::read_to_string(&path).unwrap();
                let found =
                    text.lines().filter(|l| l.starts_with('#')).any(|l| anchor(l) == heading);
                assert!(found, "{place}: {link} has no such heading");
            }
        }
    }
}

/// A heading as a link names it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn failures_name_lessons_and_headings_that_exist() {
    for step in STEPS {
        let grading = fs::read_to_string(format!("tests/{step}.rs")).unwrap();
        for read in grading.lines().filter_map(|l| l.trim().strip_prefix("read: \"")) {
            let (file, heading) = read.split_once(", \\\"").unwrap();
            let heading = heading.split("\\\"").next().unwrap();
            let lesson = fs::read_to_string(file).unwrap_or_else(|e| panic!("{file}: {e}"));
            let found = lesson.lines().any(|l| l.trim_start_matches('#').trim() == heading);
            assert!(found, "tests/{step}.rs sends its reader to {file}, \"{heading}\"");
        }
    }
}

#[test]
fn python_blocks_are_python() {
    for page in pages() {
        for block in page.blocks().iter().filter(|b| b.kind == "python") {
            let check = "import ast, sys; ast.parse(sys.stdin.read())";
            let python = Command::new("python3")
                .args(["-c", check])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let Ok(mut python) = python else { return missing("python3") };
            python.stdin.take().unwrap().write_all(block.text.as_bytes()).unwrap();
            let output = python.wait_with_output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}:\n{errors}", page.place(block));
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn console_blocks_print_what_they_show() {
    for page in pages() {
        for block in page.blocks().iter().filter(|b| b.kind == "console") {
            let mut stage = lab::Stage::new();
            for run in block.text.split("$ ").skip(1) {
                let (command, shown) = run.split_once('\n').unwrap();
                if command.contains("cargo test") || command.starts_with("git clone") {
                    continue;
                }
                let Some(command) = stage.command(command) else { continue };
                let place = page.place(block);
                stage.start(1, &command);
                // A server is shown until it is stopped: its last line is free.
                for line in shown.lines() {
                    stage.expect(1, line, &place);
                }
                stage.end();
            }
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn terminals_show_what_the_lessons_show() {
    std::thread::scope(|scope| {
        for page in pages() {
            let mut runs: Vec<Vec<Block>> = Vec::new();
            let mut section = 0;
            for block in page.blocks().into_iter().filter(|b| b.kind == "terminals") {
                let is_new = block.section != section || block.text.starts_with("1$");
                section = block.section;
                match runs.last_mut() {
                    Some(run) if !is_new => run.push(block),
                    _ => runs.push(vec![block]),
                }
            }
            let page = std::sync::Arc::new(page);
            // Some runs need the files that an earlier one has made.
            let together = page.path.ends_with("10_secure_chat.md");
            for runs in runs.chunk_by(|_, run| together || run[0].text.contains("$ ./")) {
                let (page, runs) = (std::sync::Arc::clone(&page), runs.to_vec());
                scope.spawn(move || play(&page, &runs));
            }
        }
    });
}

/// Plays runs one after the other, each on a stage of its own. A run is one or
/// more `terminals` blocks: it begins with a section, or with a block that
/// begins in terminal 1.
#[cfg(target_os = "linux")]
fn play(page: &Page, runs: &[Vec<Block>]) {
    let mut stage = lab::Stage::new();
    for run in runs {
        if !play_run(page, run, &mut stage) {
            return;
        }
        stage = lab::Stage::after(stage);
    }
}

/// Plays one run. False: a tool is missing.
#[cfg(target_os = "linux")]
fn play_run(page: &Page, run: &[Block], stage: &mut lab::Stage) -> bool {
    for block in run {
        for (number, line) in block.text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let place = format!("{}:{}: {line}", page.path.display(), block.line + number + 1);
            let terminal = line[..1].parse().unwrap_or_else(|_| panic!("{place}: no terminal"));
            let rest = line.get(2..).unwrap_or("").strip_prefix(' ').unwrap_or("");
            match &line[1..2] {
                "$" => match stage.command(rest) {
                    Some(command) => stage.start(terminal, &command),
                    None => return false,
                },
                ">" => stage.types(terminal, rest, &place),
                ":" => stage.expect(terminal, rest, &place),
                _ => panic!("{place}: neither a command, nor typed, nor shown"),
            }
        }
    }
    true
}
