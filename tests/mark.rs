//! `mark` from outside. The grading is a script here: it lists two tests, and
//! then says what the submission tells it to say.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const GRADING: &str = "#!/bin/sh
if [ \"$1\" = --list ]; then printf 'it_listens: test\\nit_greets: test\\n'; exit; fi
eval \"exec $LAB\"
";

const ALL_PASS: &str = "echo 'test it_listens ... ok'; echo 'test it_greets ... ok'";

const ONE_FAILS: &str = "cat <<'END'
test it_listens ... ok
test it_greets ... FAILED

failures:

---- it_greets stdout ----
  rule      a client is greeted
  expected  \"hello & welcome\"

failures:
    it_greets
END
exit 101";

/// A folder with a grading, and with submissions.
struct Class(PathBuf);

impl Class {
    fn new(name: &str) -> Class {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mark-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("gradings")).unwrap();
        fs::create_dir_all(folder.join("class")).unwrap();
        write(&folder.join("gradings/01_bind_listen"), GRADING);
        Class(folder)
    }

    /// Hands in a file.
    fn hands_in(&self, student: &str, file: &str, text: &str) -> &Class {
        let folder = self.0.join("class").join(student);
        fs::create_dir_all(&folder).unwrap();
        write(&folder.join(file), text);
        self
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mark"));
        command.args(["class", "--steps", "01", "--gradings", "gradings", "--out", "marks"]);
        command.args(more).current_dir(&self.0);
        command
    }

    fn mark(&self, more: &[&str]) -> String {
        let output = self.command(more).output().unwrap();
        let said = said(&output);
        assert!(output.status.success(), "{said}");
        said
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join("marks").join(file)).unwrap()
    }

    /// The line of a student in the table of marks.
    fn line_of(&self, student: &str) -> String {
        let marks = self.read("marks.csv");
        let line = marks.lines().find(|line| line.split(',').next() == Some(student));
        line.unwrap_or_else(|| panic!("no {student} in:\n{marks}")).to_string()
    }
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Whether a process is running whose command line is this.
fn runs(command_line: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim_end() == command_line
    })
}

#[test]
fn a_class_is_marked_and_each_report_tells_the_same() {
    let class = Class::new("reports");
    class
        .hands_in("ann", "my_01.sh", ALL_PASS)
        .hands_in("bob", "my_01.sh", ONE_FAILS)
        .hands_in("cyd", "notes.txt", "no program")
        .hands_in("dan", "run", &format!("#!/bin/sh\n[ $1 = 01 ] && {ALL_PASS}"))
        .hands_in(
            "eve",
            "lab.toml",
            "build = 'echo \"$0\" > built'\n01 = \"cat built 01.txt\" # odd",
        )
        .hands_in("eve", "01.txt", "test it_listens ... ok\ntest it_greets ... ignored, no tool\n");
    let progress = class.mark(&[]);
    for line in ["ann 01  2 of 2\n", "bob 01  1 of 2\n", "cyd 01  0 of 2: not handed in\n"] {
        assert!(progress.contains(line), "{line} is missing in:\n{progress}");
    }
    let marks = class.read("marks.csv");
    let expected = "student,01,total,of,notes
ann,2,2,2,
bob,1,1,2,
cyd,0,0,2,01: not handed in
dan,2,2,2,
eve,1,1,2,01: 1 ignored: a tool is missing on this machine
";
    assert_eq!(marks, expected);

    let page = class.read("students/bob/failures.md");
    assert!(page.contains("- passed: `it_listens`"), "{page}");
    assert!(page.contains("  expected  \"hello & welcome\"\n"), "{page}");
    let json = class.read("students/bob/results.json");
    assert!(json.contains("\"score\": 1,\n"), "{json}");
    assert!(json.contains("expected  \\\"hello & welcome\\\""), "{json}");
    let junit = class.read("junit.xml");
    assert!(junit.contains("expected  &quot;hello &amp; welcome&quot;</failure>"), "{junit}");
    assert!(junit.contains("<testsuite name=\"cyd.01\" tests=\"2\" failures=\"0\" errors=\"2\""));
}

#[test]
fn a_result_that_is_forged_or_contradicts_the_exit_status_counts_nothing() {
    let class = Class::new("forged");
    let twice = "echo 'test it_listens ... ok'; ";
    class
        .hands_in("twice", "my_01.sh", &format!("{twice}{ONE_FAILS}"))
        .hands_in("status", "my_01.sh", &ONE_FAILS.replace("exit 101", "exit 0"))
        .hands_in("cut", "my_01.sh", "echo 'test it_listens ... ok'")
        .hands_in("killed", "my_01.sh", &format!("{ALL_PASS}; kill -KILL $$"));
    class.mark(&[]);
    for student in ["twice", "status", "cut", "killed"] {
        let line = class.line_of(student);
        assert!(line.starts_with(&format!("{student},0,0,2,")), "{line}");
        assert!(line.contains("look at this one"), "{line}");
    }
}

#[test]
fn no_submission_disturbs_another_whatever_it_does() {
    let class = Class::new("hostile");
    let pid = std::process::id();
    let daemon = format!("sleep 98{pid}");
    let hidden = format!("sleep 99{pid}");
    let megabytes = "head -c 9000000 /dev/zero | tr '\\0' x";
    class
        .hands_in("hangs", "my_01.sh", "echo 'test it_listens ... ok'; read line <>/dev/ptmx")
        .hands_in("floods", "my_01.sh", &format!("{ALL_PASS}; {megabytes}"))
        .hands_in("broken", "build", "#!/bin/sh\necho 'error: line 7'; exit 3")
        .hands_in("broken", "my_01.sh", ALL_PASS)
        .hands_in("waits", "build", "#!/bin/sh\nread line <>/dev/ptmx")
        .hands_in("forks", "my_01.sh", &format!("setsid {daemon} & {ALL_PASS}"))
        .hands_in("hides", "my_01.sh", &format!("setsid env -i {hidden} & {ALL_PASS}"))
        .hands_in("good", "my_01.sh", ALL_PASS);
    class.mark(&["--test-seconds", "1", "--build-seconds", "1"]);
    let lines = [
        "hangs,1,1,2,01: the grading was ended after 1 s; tests that had passed by then count",
        "floods,2,2,2,",
        "broken,0,0,2,01: does not build",
        "waits,0,0,2,01: does not build",
        "forks,2,2,2,01: it left 1 processes running; they were ended",
        "hides,2,2,2,01: it left 1 processes running; they were ended",
        "good,2,2,2,",
    ];
    for line in lines {
        assert_eq!(class.line_of(line.split(',').next().unwrap()), line);
    }
    assert!(!runs(&daemon) && !runs(&hidden), "a daemon is still running");
    assert!(class.read("students/broken/failures.md").contains("error: line 7"));
    let kept = fs::metadata(class.0.join("marks/.mark/cells/floods/01")).unwrap().len();
    assert!(kept < 3_000_000, "{kept} bytes were kept");
}

#[test]
fn what_was_graded_is_not_graded_again_until_it_changes() {
    let class = Class::new("resumes");
    class.hands_in("ann", "my_01.sh", ALL_PASS).hands_in("bob", "my_01.sh", ALL_PASS);
    assert!(!class.mark(&[]).contains("graded before"));
    class.hands_in("bob", "my_01.sh", ONE_FAILS);
    let progress = class.mark(&[]);
    assert!(progress.contains("ann 01  2 of 2, graded before\n"), "{progress}");
    assert!(progress.contains("bob 01  1 of 2\n"), "{progress}");
    assert!(!class.mark(&["--again"]).contains("graded before"));
}

#[test]
fn a_run_that_is_killed_leaves_nothing_running() {
    let class = Class::new("killed");
    let fifo = class.0.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // The first opens the other end when it runs. Its child is in a session of its own.
    let script = format!("exec 3>{}; echo x >&3; setsid sleep 9999", fifo.display());
    class.hands_in("ann", "my_01.sh", &script);
    let mut mark = class.command(&[]).stdout(Stdio::null()).process_group(0).spawn().unwrap();
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let mut pipe = fs::File::open(fifo).unwrap();
        sender.send(pipe.read(&mut [0; 2])).unwrap();
        // The end comes when nobody holds the other end any more.
        sender.send(pipe.read(&mut [0])).unwrap();
    });
    let limit = Duration::from_secs(20);
    assert_eq!(ended.recv_timeout(limit).expect("it starts").unwrap(), 2);
    let started = Instant::now();
    mark.kill().unwrap();
    mark.wait().unwrap();
    let end = ended.recv_timeout(limit).expect("what the submission has started ends");
    assert_eq!(end.unwrap(), 0, "after {:?}", started.elapsed());
}

#[test]
fn the_environment_of_a_submission_does_not_lead_to_the_project() {
    let class = Class::new("environment");
    class.hands_in("ann", "my_01.sh", &format!("env | sort; {ALL_PASS}; exit 3"));
    let mut command = class.command(&[]);
    command.env("CARGO_MANIFEST_DIR", "/project").env("CARGO", "/bin/cargo").output().unwrap();
    let page = class.read("students/ann/failures.md");
    assert!(page.contains("PATH="), "{page}");
    assert!(!page.contains("CARGO"), "{page}");
}

#[test]
fn a_submission_can_be_interrupted_where_mark_itself_can_not() {
    let class = Class::new("interrupt");
    class.hands_in("ann", "my_01.sh", "kill -INT $$; echo 'test it_listens ... ok'");
    let mark = class.command(&[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' INT; exec \"$0\" \"$@\""]).arg(mark.get_program());
    shell.args(mark.get_args()).current_dir(&class.0).output().unwrap();
    let line = class.line_of("ann");
    assert!(line.contains("something has ended the grading (signal: 2 (SIGINT))"), "{line}");
}

#[test]
fn arguments_that_cannot_be_understood_are_refused() {
    let class = Class::new("arguments");
    for (wrong, named) in [
        (&["--steps", "00"][..], "\"00\""),
        (&["--steps", "05-"], "\"05-\""),
        (&["--at-once", "0"], "\"0\""),
        (&["--loud"], "--loud"),
        (&["surplus"], "surplus"),
        (&["--out"], "--out"),
    ] {
        let output = class.command(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(said(&output).lines().next().unwrap().contains(named), "{}", said(&output));
    }
    let output = class.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "a folder without submissions");
    assert!(said(&output).contains("holds no folder"));
}
