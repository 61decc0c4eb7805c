//! What was handed in: a folder, and how the program of each step in it is
//! built and started.

use crate::about;
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

/// What is not copied: it is big, and it is made anew.
const LEFT_OUT: [&str; 4] = [".git", "target", "node_modules", "__pycache__"];

/// Programs of one file: the end of its name, how it is built, how it is
/// started. `@` is the name without that end.
const LANGUAGES: [(&str, &str, &str); 12] = [
    ("py", "", "python3 @.py"),
    ("js", "", "node @.js"),
    ("mjs", "", "node @.mjs"),
    ("c", "cc -O2 -pthread -o @.out @.c", "./@.out"),
    ("cpp", "c++ -O2 -pthread -o @.out @.cpp", "./@.out"),
    ("go", "go build -o @.out @.go", "./@.out"),
    ("rs", "rustc --edition=2024 -O -o @.out @.rs", "./@.out"),
    // Compiled before it is started: `java FILE.java` compiles at each start.
    // It must have the name of its class, if that is public.
    (
        "java",
        "mkdir -p @.classes && cp @.java @.classes/#.java && javac -d @.classes @.classes/#.java",
        "java -cp @.classes #",
    ),
    ("rb", "", "ruby @.rb"),
    ("pl", "", "perl @.pl"),
    ("sh", "", "bash @.sh"),
    ("out", "", "./@.out"),
];

/// A folder that was handed in.
#[derive(Debug)]
pub struct Submission {
    /// The folder's name: the student's.
    pub name: String,
    folder: PathBuf,
    /// What `lab.toml` says, if there is one.
    lab: BTreeMap<String, String>,
}

/// How the program of one step is built and started.
#[derive(Debug, PartialEq)]
pub struct Command {
    pub build: Option<String>,
    /// What goes into `LAB`.
    pub lab: String,
}

/// All submissions in a folder, by name.
pub fn find(folder: &Path) -> io::Result<Vec<Submission>> {
    let mut submissions = Vec::new();
    for entry in fs::read_dir(folder).map_err(about(folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && !name.starts_with('.') {
            let folder = entry.path();
            let lab = fs::read(folder.join("lab.toml")).unwrap_or_default();
            let lab = assignments(&String::from_utf8_lossy(&lab));
            submissions.push(Submission { name, folder, lab });
        }
    }
    submissions.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(submissions)
}

/// The lines `KEY = "VALUE"` of a text. `#` begins a comment. In a value in
/// quotes, `\"` is a quote and `\\` a backslash.
fn assignments(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim();
        let value = match value.strip_prefix('\'') {
            Some(plain) => plain.split('\'').next()?.to_string(),
            None => unescape(value.strip_prefix('"')?)?,
        };
        Some((key.trim().trim_matches('"').to_string(), value))
    });
    pairs.collect()
}

fn unescape(quoted: &str) -> Option<String> {
    let mut value = String::new();
    let mut letters = quoted.chars();
    loop {
        match letters.next()? {
            '"' => return Some(value),
            '\\' => value.push(letters.next()?),
            letter => value.push(letter),
        }
    }
}

impl Submission {
    /// The command that builds all of it, if it has one.
    pub fn build_command(&self) -> Option<String> {
        let script = is_executable(&self.folder.join("build")).then(|| "./build".to_string());
        self.lab.get("build").cloned().or(script)
    }

    /// How a step's program is started: as `lab.toml` says, else the file
    /// `my_NN.*`, else the script `run`.
    pub fn command(&self, step: &str) -> Option<Command> {
        if let Some(lab) = self.lab.get(step).or_else(|| self.lab.get(&format!("my_{step}"))) {
            return Some(Command { build: None, lab: lab.clone() });
        }
        let name = format!("my_{step}");
        for (end, build, start) in LANGUAGES {
            let file = self.folder.join(format!("{name}.{end}"));
            if file.is_file() {
                let class = if end == "java" { main_class(&file) } else { String::new() };
                let fill = |text: &str| text.replace('@', &name).replace('#', &class);
                let build = (!build.is_empty()).then(|| fill(build));
                return Some(Command { build, lab: fill(start) });
            }
        }
        if is_executable(&self.folder.join(&name)) {
            return Some(Command { build: None, lab: format!("./{name}") });
        }
        let run = is_executable(&self.folder.join("run"));
        run.then(|| Command { build: None, lab: format!("./run {step}") })
    }

    /// A number that changes when a file of the submission does.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut files = Vec::new();
        let _ = each_file(&self.folder, Path::new(""), &mut |path, metadata| {
            files.push((path.to_path_buf(), metadata.len(), metadata.modified().ok()));
            Ok(())
        });
        files.sort();
        files.hash(&mut hasher);
        hasher.finish()
    }

    /// Copies it into a new folder. Links are copied as links, and what is
    /// neither a file nor a folder is left out.
    pub fn copy_to(&self, target: &Path, for_others: bool) -> io::Result<()> {
        if target.exists() {
            fs::remove_dir_all(target).map_err(about(target.display()))?;
        }
        fs::create_dir_all(target).map_err(about(target.display()))?;
        each_file(&self.folder, Path::new(""), &mut |path, metadata| {
            let (from, to) = (self.folder.join(path), target.join(path));
            if metadata.is_dir() {
                fs::create_dir_all(&to)
            } else if metadata.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&from)?, &to)
            } else if metadata.is_file() {
                fs::copy(&from, &to).map(drop)
            } else {
                Ok(())
            }
            .map_err(about(from.display()))
        })?;
        if for_others {
            // Another user builds and runs it.
            Process::new("chmod").args(["-R", "a+rwX"]).arg(target).status()?;
        }
        Ok(())
    }
}

/// Calls `visit` with each file and folder below a folder, folders first.
fn each_file(
    folder: &Path,
    below: &Path,
    visit: &mut dyn FnMut(&Path, &fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(below)).map_err(about(folder.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let path = below.join(entry.file_name());
        if metadata.is_dir() && LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        visit(&path, &metadata)?;
        if metadata.is_dir() {
            each_file(folder, &path, visit)?;
        }
    }
    Ok(())
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The last class before `main` in a Java file.
fn main_class(file: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let before = text.split("void main(").next().unwrap_or("");
    let is_code = |line: &&str| !line.trim_start().starts_with(['/', '*']);
    let mut names = before.lines().filter(is_code).filter_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "class");
        words.nth(1)
    });
    let name = names.next_back().unwrap_or("Main");
    name.chars().take_while(|c| c.is_alphanumeric() || "_$".contains(*c)).collect()
}
