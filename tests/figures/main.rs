//! The pictures of the lessons, in `lessons/figures`: each as an SVG file, and
//! as text for a terminal, both drawn from one description.
//!
//! The pictures of what crosses a connection are recorded: a program of the
//! course runs, with a relay in front of it (`recorded.rs`). The test records
//! anew and compares with the files. To write the files anew:
//!
//! ```sh
//! FIGURES=renew cargo test --test figures
//! ```

#![allow(clippy::unwrap_used)]
// The end of a connection looks different on Windows.
#![cfg(unix)]

mod chart;
mod draw;
#[path = "../lab/mod.rs"]
mod lab;
mod record;
mod recorded;
#[cfg(target_os = "linux")]
mod states;
mod still;

use draw::Drawing;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FOLDER: &str = "lessons/figures";

/// The name of a picture's files, and what draws it.
type Figure = (&'static str, fn() -> Drawing);

const FIGURES: [Figure; 14] = [
    ("01_backlog", still::backlog),
    ("01_time_wait", recorded::time_wait),
    ("02_buffers", still::buffers),
    ("03_half_close", recorded::half_close),
    ("04_deadlock", still::deadlock),
    ("05_queue", still::queue),
    ("06_close", recorded::close),
    ("06_header", still::header),
    ("07_heartbeat", recorded::heartbeat),
    ("07_tcp_states", still::tcp_states),
    ("08_window", still::window),
    ("09_fragments", recorded::fragments),
    ("10_certificates", still::certificates),
    ("chat_three_terminals", still::three_terminals),
];

/// How often a picture is recorded before it counts as different: on a busy
/// machine an interval of a heartbeat may seem longer than it was.
const TRIES: usize = 3;

const RENEW: &str = "If that is right: FIGURES=renew cargo test --test figures";

fn renew() -> bool {
    std::env::var("FIGURES").is_ok_and(|word| word == "renew")
}

#[test]
fn pictures_show_what_the_programs_do() {
    for (name, figure) in FIGURES {
        let files = [format!("{FOLDER}/{name}.svg"), format!("{FOLDER}/{name}.txt")];
        let draw = || {
            let drawing = figure();
            [drawing.to_svg(), drawing.to_text()]
        };
        if renew() {
            for (file, drawn) in files.iter().zip(draw()) {
                fs::write(file, drawn).unwrap();
            }
            continue;
        }
        let kept = files.map(|file| fs::read_to_string(&file).unwrap_or_default());
        let mut drawn = draw();
        for _ in 1..TRIES {
            if drawn == kept {
                break;
            }
            drawn = draw();
        }
        assert!(
            drawn == kept,
            "{FOLDER}/{name} shows\n{}\nbut now it is\n{}\n{RENEW}",
            kept[1],
            drawn[1]
        );
    }
    pages_show_pictures_as_text_too();
}

/// The pages on which pictures may be.
fn pages() -> impl Iterator<Item = PathBuf> {
    let lessons = fs::read_dir("lessons").unwrap().map(|entry| entry.unwrap().path());
    lessons.filter(|path| path.extension().is_some_and(|e| e == "md")).chain(["README.md".into()])
}

/// Below each picture a page has the same picture as text, in a fold.
fn pages_show_pictures_as_text_too() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let right = with_folds(&text);
        if renew() {
            fs::write(&page, right).unwrap();
        } else {
            let page = page.display();
            assert!(text == right, "{page}: a picture lacks its text, or has an old one. {RENEW}");
        }
    }
}

const FOLD: &str = "<details><summary>The picture as text</summary>";

/// A page, with the text of each picture in a fold below it.
fn with_folds(page: &str) -> String {
    let mut right = String::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        right += &format!("{line}\n");
        let link = line.strip_prefix("![").and_then(|rest| rest.split_once("figures/"));
        let Some((_, file)) = link else { continue };
        let name = file.split(".svg").next().unwrap();
        let text = fs::read_to_string(format!("{FOLDER}/{name}.txt"))
            .unwrap_or_else(|e| panic!("figures/{name}.txt: {e}"));
        right += &format!("\n{FOLD}\n\n```text\n{text}```\n\n</details>\n");
        // The fold that is there, and the empty line before it.
        let rest: Vec<&str> = lines.clone().take(2).collect();
        if rest == ["", FOLD] {
            lines.find(|line| *line == "</details>");
        }
    }
    right
}

#[test]
fn each_picture_is_shown_on_a_page_and_no_file_is_left_over() {
    let mut known: BTreeSet<String> = FIGURES.iter().map(|(name, _)| (*name).to_string()).collect();
    // This one is made by `cargo bench -- --figure`.
    known.insert("05_measured".into());
    let files = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let stem = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    let kept: BTreeSet<String> = files.map(|path| stem(&path)).collect();
    assert_eq!(kept, known);
    let pages: Vec<String> = pages().map(|page| fs::read_to_string(page).unwrap()).collect();
    for name in known {
        let is_shown = pages.iter().any(|page| page.contains(&format!("figures/{name}.svg)")));
        assert!(is_shown, "no page shows {name}");
    }
}
