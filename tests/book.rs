//! The lessons as a book: every page is in it, the words are explained, and
//! lessons and code link to each other. That the book builds, and that all its
//! links lead somewhere, is checked by `.ci/book/run`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files with this extension in a folder, and in the folders in it.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A path with `/` on every system.
fn slashed(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

#[test]
fn the_book_has_every_page() {
    let summary = read("lessons/SUMMARY.md");
    for page in files("lessons", "md") {
        let page = slashed(page.strip_prefix("lessons").unwrap());
        if page != "SUMMARY.md" {
            assert!(summary.contains(&format!("]({page})")), "SUMMARY.md lacks {page}");
        }
    }
}

/// The comment at the head of a file that says what it is for.
fn head(code: &str) -> String {
    let lines: Vec<&str> = code.lines().take_while(|line| line.starts_with("//!")).collect();
    lines.join("\n")
}

#[test]
fn each_module_links_to_its_lessons_and_they_link_to_it() {
    for file in files("src", "rs") {
        let path = slashed(&file);
        let head = head(&read(&file));
        // Where its documentation is: target/doc/socket_chat/chat/room/index.html.
        let module = path.trim_end_matches("/mod.rs").trim_end_matches("/lib.rs");
        let up = "../".repeat(2 + module.split('/').count());
        let links: Vec<&str> =
            head.split("](").skip(1).filter_map(|l| l.split(')').next()).collect();
        let lessons: Vec<&str> = links.iter().filter_map(|l| l.strip_prefix(&*up)).collect();
        assert!(
            !lessons.is_empty(),
            "{path} links to no lesson; such a link begins with {up}lessons"
        );
        let back = format!("](../{path})");
        let is_one = |lesson: &&str| lesson.starts_with("lessons/");
        assert!(lessons.iter().all(is_one), "{path} links to {lessons:?}");
        // A folder is in its lessons by the files in it.
        if !path.ends_with("mod.rs") && !path.ends_with("lib.rs") {
            let found = lessons.iter().any(|lesson| read(lesson).contains(&back));
            assert!(found, "none of {lessons:?} has a link that ends in {back}");
        }
    }
}

#[test]
fn each_program_names_its_lesson_and_the_lesson_links_to_it() {
    let programs = files("examples", "rs");
    let programs = programs
        .iter()
        .map(|file| slashed(file))
        .filter(|path| path.ends_with("/main.rs") || path.matches('/').count() == 1);
    for path in programs {
        let head = head(&read(&path));
        let lesson =
            head.split("//! Lesson: ").nth(1).unwrap_or_else(|| panic!("{path}: no lesson"));
        let lesson = lesson.lines().next().unwrap();
        let back = format!("](../{path})");
        assert!(read(lesson).contains(&back), "{lesson} has no link that ends in {back}");
    }
}

#[test]
fn each_word_of_the_glossary_names_the_lesson_that_introduces_it() {
    let glossary = read("lessons/glossary.md");
    let entries = glossary.lines().filter_map(|line| line.strip_prefix("- **"));
    let lessons = lessons();
    let mut last = String::new();
    let mut count = 0;
    for entry in entries {
        let (word, text) = entry.split_once("**: ").unwrap_or_else(|| panic!("{entry}: no text"));
        let named = text.rsplit("](").next().unwrap().trim_end_matches(')');
        let lower = word.to_lowercase();
        let (_, prose) = lessons.iter().find(|(file, _)| file == named).unwrap();
        assert!(prose.contains(&lower), "{named} has no \"{word}\"");
        // A word in bold or in italics is new there.
        let is_new =
            |prose: &str| ["*", "**"].iter().any(|mark| prose.contains(&format!(" {mark}{lower}")));
        if let Some((first, _)) = lessons.iter().find(|(_, prose)| is_new(prose)) {
            assert_eq!(first, named, "the lesson that introduces \"{word}\"");
        }
        assert!(last <= lower, "the glossary has \"{word}\" after \"{last}\"");
        last = lower;
        count += 1;
    }
    assert!(count > 50, "entries are looked for in the wrong way: {count} found");
}

/// The names of the lessons, and what is written in them, in lower case.
fn lessons() -> Vec<(String, String)> {
    let files = files("lessons", "md").into_iter().filter_map(|path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let is_lesson = path.parent()? == Path::new("lessons")
            && name.starts_with(|c: char| c.is_ascii_digit());
        is_lesson.then(|| (name, prose(&read(path)).to_lowercase()))
    });
    files.collect()
}

/// A page without its blocks of code, and with a space for each line end.
fn prose(page: &str) -> String {
    page.split("\n```").step_by(2).collect::<String>().replace('\n', " ")
}

/// The number with which a text begins.
fn number(text: &str) -> Option<u32> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[test]
fn the_minutes_of_a_lesson_are_the_same_on_all_pages() {
    let (way, teaching) = (read("lessons/README.md"), read("lessons/teaching.md"));
    for (name, _) in lessons() {
        let text = read(format!("lessons/{name}"));
        let title = text.lines().next().unwrap().trim_start_matches("# ");
        let Some((_, time)) = text.split_once("**Time:** ") else { continue };
        let minutes = number(time);
        // A row has: the lesson, what you will have, the minutes, the points.
        let row = way.lines().find_map(|row| row.strip_prefix(&format!("| [{title}]({name}) | ")));
        let row = row.unwrap_or_else(|| panic!("lessons/README.md has no row for {title}"));
        assert_eq!(row.split_once(" | ").and_then(|(_, r)| number(r)), minutes, "{title}");
        let row = teaching.lines().find_map(|row| row.strip_prefix(&format!("| {title} | ")));
        let row = row.unwrap_or_else(|| panic!("lessons/teaching.md has no row for {title}"));
        assert_eq!(number(row), minutes, "{title}");
    }
}
