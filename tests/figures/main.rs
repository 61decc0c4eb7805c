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

mod chart;
mod draw;
#[path = "../lab/mod.rs"]
mod lab;
mod record;
mod recorded;
mod still;

use draw::Drawing;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const FOLDER: &str = "lessons/figures";

const FIGURES: [(&str, fn() -> Drawing); 13] = [
    ("01_backlog", still::backlog),
    ("01_time_wait", still::time_wait),
    ("02_buffers", still::buffers),
    ("03_half_close", recorded::half_close),
    ("04_deadlock", still::deadlock),
    ("05_queue", still::queue),
    ("06_close", recorded::close),
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

#[test]
fn pictures_show_what_the_programs_do() {
    let renew = std::env::var("FIGURES").is_ok_and(|word| word == "renew");
    for (name, figure) in FIGURES {
        let files = [format!("{FOLDER}/{name}.svg"), format!("{FOLDER}/{name}.txt")];
        let draw = || {
            let drawing = figure();
            [drawing.to_svg(), drawing.to_text()]
        };
        if renew {
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
            "{FOLDER}/{name} shows\n{}\nbut now it is\n{}\nIf that is right: \
             FIGURES=renew cargo test --test figures",
            kept[1],
            drawn[1]
        );
    }
}

#[test]
fn each_picture_has_its_place_and_no_file_is_left_over() {
    let known: BTreeSet<String> = FIGURES.iter().map(|(name, _)| (*name).to_string()).collect();
    let files = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let stems = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    let kept: BTreeSet<String> = files.map(|path| stems(&path)).collect();
    assert_eq!(kept, known);
}
