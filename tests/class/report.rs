//! Marks in the forms that teachers, students and learning platforms read.

use crate::about;
use crate::cell::{Cell, Test, Verdict};
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

/// A student and all that was graded.
pub struct Student {
    pub name: String,
    pub cells: Vec<Cell>,
}

impl Student {
    fn points(&self) -> usize {
        self.cells.iter().map(Cell::points).sum()
    }

    fn most(&self) -> usize {
        self.cells.iter().map(|cell| cell.tests.len()).sum()
    }
}

/// Writes all reports into a folder.
pub fn write(out: &Path, students: &[Student]) -> io::Result<()> {
    let write = |path: &Path, text: String| fs::write(path, text).map_err(about(path.display()));
    write(&out.join("marks.csv"), csv(students))?;
    write(&out.join("junit.xml"), junit(students))?;
    for student in students {
        let folder = out.join("students").join(&student.name);
        fs::create_dir_all(&folder).map_err(about(folder.display()))?;
        write(&folder.join("results.json"), gradescope(student))?;
        write(&folder.join("failures.md"), page(student))?;
    }
    Ok(())
}

/// One line for each student.
fn csv(students: &[Student]) -> String {
    let steps = students.first().map_or(&[][..], |student| &student.cells[..]);
    let mut text = String::from("student");
    for cell in steps {
        let _ = write!(text, ",{}", cell.step);
    }
    text += ",total,of,notes\n";
    for student in students {
        text += &field(&student.name);
        for cell in &student.cells {
            let _ = write!(text, ",{}", cell.points());
        }
        let notes = student.cells.iter().filter_map(|c| Some(format!("{}: {}", c.step, c.note()?)));
        let notes = notes.collect::<Vec<_>>().join("; ");
        let _ = writeln!(text, ",{},{},{}", student.points(), student.most(), field(&notes));
    }
    text
}

/// A field of CSV (RFC 4180). A spreadsheet must not take it for a formula.
fn field(text: &str) -> String {
    let safe =
        if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.into() };
    if safe.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", safe.replace('"', "\"\""))
    } else {
        safe
    }
}

/// A suite for each student and step.
fn junit(students: &[Student]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for student in students {
        for cell in &student.cells {
            let count = |wanted: &[Verdict]| {
                cell.tests.iter().filter(|test| wanted.contains(&test.verdict)).count()
            };
            let suite = xml(&format!("{}.{}", student.name, cell.step));
            let _ = writeln!(
                text,
                "  <testsuite name=\"{suite}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">",
                cell.tests.len(),
                count(&[Verdict::Failed]),
                count(&[Verdict::Missing]),
                count(&[Verdict::Ignored])
            );
            for test in &cell.tests {
                let _ = write!(
                    text,
                    "    <testcase classname=\"{suite}\" name=\"{}\"",
                    xml(&test.name)
                );
                let why = xml(&reason(cell, test));
                let inside = match test.verdict {
                    Verdict::Passed => "/>\n".into(),
                    Verdict::Failed => format!("><failure>{why}</failure></testcase>\n"),
                    Verdict::Missing => format!("><error>{why}</error></testcase>\n"),
                    Verdict::Ignored => "><skipped/></testcase>\n".into(),
                };
                text += &inside;
            }
            text += "  </testsuite>\n";
        }
    }
    text + "</testsuites>\n"
}

/// Why a test gives no point.
fn reason(cell: &Cell, test: &Test) -> String {
    if test.failure.is_empty() {
        cell.note().unwrap_or_else(|| "the grading does not say why".into())
    } else {
        test.failure.clone()
    }
}

/// Text for XML 1.0, which has no way to write most control characters.
fn xml(text: &str) -> String {
    let mut safe = String::new();
    for letter in text.chars() {
        match letter {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\n' | '\t' => safe.push(letter),
            letter if letter.is_control() || "\u{fffe}\u{ffff}".contains(letter) => {
                safe.push('\u{fffd}');
            }
            letter => safe.push(letter),
        }
    }
    safe
}

/// What Gradescope reads as `results.json`.
fn gradescope(student: &Student) -> String {
    let mut tests = Vec::new();
    for cell in &student.cells {
        for (number, test) in cell.tests.iter().enumerate() {
            let passed = test.verdict == Verdict::Passed;
            let output = if passed { String::new() } else { reason(cell, test) };
            tests.push(format!(
                "    {{\"number\": \"{}.{}\", \"name\": {}, \"score\": {}, \"max_score\": 1, \"status\": \"{}\", \"output\": {}}}",
                cell.step.trim_start_matches('0'),
                number + 1,
                json(&test.name.replace('_', " ")),
                u8::from(passed),
                if passed { "passed" } else { "failed" },
                json(&output)
            ));
        }
    }
    let notes = student.cells.iter().filter_map(|c| Some(format!("{}: {}\n", c.step, c.note()?)));
    let output =
        format!("{} of {}\n{}", student.points(), student.most(), notes.collect::<String>());
    format!(
        "{{\n  \"score\": {},\n  \"output\": {},\n  \"visibility\": \"visible\",\n  \"tests\": [\n{}\n  ]\n}}\n",
        student.points(),
        json(&output),
        tests.join(",\n")
    )
}

/// A string of JSON (RFC 8259, section 7).
fn json(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted += "\\\"",
            '\\' => quoted += "\\\\",
            '\n' => quoted += "\\n",
            letter if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

/// A page for the student: what is missing, in full.
fn page(student: &Student) -> String {
    let mut text = format!("# {}: {} of {}\n\n", student.name, student.points(), student.most());
    text += "| step | points | note |\n| --- | ---: | --- |\n";
    for cell in &student.cells {
        let note = cell.note().unwrap_or_default();
        let _ = writeln!(
            text,
            "| {} | {} of {} | {note} |",
            cell.step,
            cell.points(),
            cell.tests.len()
        );
    }
    for cell in &student.cells {
        let _ =
            writeln!(text, "\n## Step {}: {} of {}\n", cell.step, cell.points(), cell.tests.len());
        for (verdict, what) in [
            (Verdict::Passed, "passed"),
            (Verdict::Ignored, "ignored"),
            (Verdict::Missing, "no result"),
        ] {
            for test in cell.tests.iter().filter(|test| test.verdict == verdict) {
                let _ = writeln!(text, "- {what}: `{}`", test.name);
            }
        }
        if let Some(note) = cell.note() {
            let _ = writeln!(text, "\nNote: {note}.");
        }
        if let Some(said) = cell.said() {
            text += &fenced(said);
        }
        for test in cell.tests.iter().filter(|test| !test.failure.is_empty()) {
            let _ = writeln!(text, "\n### failed: `{}`", test.name);
            text += &fenced(&test.failure);
        }
    }
    text
}

/// A block whose fence is longer than any in the text.
fn fenced(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let shown = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    let clean: String = text.chars().map(shown).collect();
    format!("\n{fence}text\n{}\n{fence}\n", clean.trim_end())
}
