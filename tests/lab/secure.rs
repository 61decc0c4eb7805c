//! Accounts, and TLS at both ends: what the grading of step 10 needs.
//!
//! TLS is stunnel's here too. It is given the connection itself, in place of a
//! port to listen on (its inetd mode): so nothing has to be waited for, and
//! nobody else can come in.

use super::inbox::{Inbox, Next};
use super::message::{self, LOGIN, Message};
use super::patience;
use super::program::Program;
use super::story::Story;
use super::system;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// A person with a password, and the line that proves it.
pub struct Account {
    pub name: &'static str,
    pub password: &'static str,
    pub line: &'static str,
    /// The same with 1000 rounds, for programs that take that.
    quick: &'static str,
}

// The lines are Python's: "$pbkdf2-sha256$600000$" and passlib's base64 of
// the salt and of hashlib.pbkdf2_hmac("sha256", password, salt, 600_000). Those
// with 1000 rounds are made in the same way.

/// A password of 8 bytes, the fewest.
pub const ANN: Account = Account {
    name: "ann",
    password: "ann's 8c",
    line: "ann $pbkdf2-sha256$600000$c2FsdCBvZiBhbm4ncyAxNg$KYCvthUiK819wpUTt3vhpqpv0eMsHgMIpYVw0c3Jrp0",
    quick: "ann $pbkdf2-sha256$1000$c2FsdCBvZiBhbm4ncyAxNg$m1F9rS8xlYyrSAqAeiRLetnU1F4cRzngz.T9SlJUqtQ",
};

/// A password of 128 bytes, the most.
pub const BOB: Account = Account {
    name: "bob",
    password: "bob über über über über über über über über über über über über über über über über über über über über xxxx",
    line: "bob $pbkdf2-sha256$600000$AP/..z4/....ABCD////.w$gAZKMs/U5/4fjCFSA8w70SQSGTFS7qeLKI9Oh5MMJ70",
    quick: "bob $pbkdf2-sha256$1000$AP/..z4/....ABCD////.w$90BLJyaP6uyvlsySbZhyo/6eXhkdV2TQYZXK0jpvp8E",
};

/// A password with a blank at each end.
pub const EVE: Account = Account {
    name: "eve",
    password: " two blanks, an é and a € ",
    line: "eve $pbkdf2-sha256$600000$ZXZlIGhhcyBoZXIgb3duLg$J7XOrzC8L6tuJlGibWLoT3ZbhxCsLqyUovqNUk3ejUM",
    quick: "eve $pbkdf2-sha256$1000$ZXZlIGhhcyBoZXIgb3duLg$whW3ApjIzK84T.BuoHDbIQev48CnmhS9zUS2UyQ7D.c",
};

/// What who `name` says to come in.
pub fn login(name: &str, password: &str) -> Message {
    message::message(LOGIN, name, password)
}

impl Account {
    /// The same, with the right password.
    pub fn login(&self) -> Message {
        login(self.name, self.password)
    }
}

/// A folder for one test. It is gone when the test is over.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("socket-chat-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }

    /// Writes a file that its owner alone may read.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        for_owner()
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        path
    }

    /// Writes a file with these accounts.
    pub fn accounts(&self, accounts: &[&Account]) -> String {
        let lines: Vec<String> =
            accounts.iter().map(|account| format!("{}\n", account.line)).collect();
        self.file("accounts.txt", &lines.concat())
    }

    /// The same with fewer rounds, if this program takes such accounts (that is
    /// free): for tests in which the work itself does not matter.
    pub fn quick_accounts(&self, program: &str, accounts: &[&Account]) -> String {
        static ARE_TAKEN: OnceLock<bool> = OnceLock::new();
        let lines = |accounts: &[&Account]| {
            let lines: Vec<&str> = accounts.iter().map(|account| account.quick).collect();
            lines.join("\n") + "\n"
        };
        let file = self.file("accounts.txt", &lines(&[&ANN]));
        let try_it = || {
            let story = Story::of_trial();
            let arguments = ["serve", "127.0.0.1:0", "--web", "127.0.0.1:0", "--accounts", &file];
            let ann = story.serve(program, &arguments).visit("ann");
            ann.say(&ANN.login());
            ann.in_time().gets_next(&message::welcome("ann", "ann"));
        };
        if *ARE_TAKEN.get_or_init(|| catch_unwind(AssertUnwindSafe(try_it)).is_ok()) {
            return self.file("accounts.txt", &lines(accounts));
        }
        self.accounts(accounts)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(unix)]
fn for_owner() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(not(unix))]
fn for_owner() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    options
}

/// The permissions of a file, where the system says so in this way: `rw-------`
/// is 0o600.
#[cfg(unix)]
pub fn mode(path: &str) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    Some(fs::metadata(path).ok()?.permissions().mode() & 0o777)
}

#[cfg(not(unix))]
pub fn mode(_: &str) -> Option<u32> {
    None
}

/// Lets everybody read a file.
#[cfg(unix)]
pub fn make_readable_for_all(path: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

#[cfg(not(unix))]
pub fn make_readable_for_all(_: &str) {}

/// The bytes that passlib's base64 means: `.` in place of `+`, and nothing
/// to fill up.
pub fn from_ab64(text: &str) -> Option<Vec<u8>> {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes() {
        let value = letters.iter().position(|l| *l == letter)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    // What is left over of the last letter is no byte.
    (count < 6 && bits & ((1 << count) - 1) == 0).then_some(bytes)
}

/// How long a program has worked so far, in ticks of the system's clock, with
/// the programs that it has started and that have ended: `utime`, `stime`,
/// `cutime` and `cstime` in `/proc/PID/stat`, proc(5).
pub fn work(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
    fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

/// The programs that a program has started, and those that these have: the
/// parent of each is in `/proc/PID/stat`, proc(5).
pub fn started_by(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let stats = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        Some((pid, stat.rsplit(") ").next()?.split(' ').nth(1)?.parse::<u32>().ok()?))
    };
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let all: Vec<(u32, u32)> = all.flatten().filter_map(stats).collect();
    let mut at = 0;
    while at < family.len() {
        let parent = family[at];
        family.extend(all.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    family.split_off(1)
}

/// Waits until none of these runs any more; returns how many do after all.
pub fn still_running(pids: &[u32]) -> usize {
    let runs = |pid: &&u32| system::states(**pid).iter().any(|state| *state != 'Z');
    let mut left = 0;
    system::poll(|| {
        left = pids.iter().filter(runs).count();
        left == 0
    });
    left
}

/// A port that is free, and that the system gives to nobody: it gives those
/// from 32768 on.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 30_000 + (std::process::id() % 270) as u16 * 10;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 60;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

// --- TLS ---

/// A stunnel that has been given a connection.
fn stunnel(conf: &str, stream: TcpStream) -> Child {
    let (input, output) = (as_stdio(stream.try_clone().unwrap()), as_stdio(stream));
    let mut command = Command::new("stunnel");
    command.arg(conf).stdin(input).stdout(output).stderr(Stdio::piped()).spawn().unwrap()
}

#[cfg(unix)]
fn as_stdio(stream: TcpStream) -> Stdio {
    Stdio::from(std::os::fd::OwnedFd::from(stream))
}

#[cfg(not(unix))]
fn as_stdio(_: TcpStream) -> Stdio {
    unreachable!("the build script sets no_tls")
}

const CONF: &str = "foreground = yes\nsyslog = no\ndebug = info\nsslVersionMin = TLSv1.2\n";

/// A client's end of TLS.
pub struct TlsClient {
    child: Child,
    /// What goes in here comes out at the server.
    pub stream: TcpStream,
}

impl TlsClient {
    /// Connects to a server, which must prove that it is `who` (`checkHost =
    /// localhost`), by an authority in the file `ca`.
    #[track_caller]
    pub fn open(
        story: &Rc<Story>,
        folder: &Folder,
        ca: &str,
        who: &str,
        to: SocketAddr,
    ) -> TlsClient {
        let text = format!(
            "{CONF}client = yes\nconnect = {to}\nCAfile = {ca}\nverifyChain = yes\n{who}\n"
        );
        let conf = folder.file("tunnel.conf", &text);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut child = stunnel(&conf, listener.accept().unwrap().0);
        let said = Inbox::of_output(child.stderr.take().unwrap());
        let tunnel = TlsClient { child, stream };
        let what = format!("connects to {to} by TLS, with ca.pem and {who}");
        story.step("a client", &what);
        let mut log = String::new();
        loop {
            let (Next::Some(line) | Next::End(_, line) | Next::Silence(line)) = said.line();
            if line.is_empty() {
                let last = |mark| log.lines().rfind(|l| l.contains(mark));
                let why =
                    last("CERT:").or(last("LOG3")).map(|l| l.split_once("]: ").unwrap_or((l, l)).1);
                let why = why.unwrap_or("nothing that is TLS");
                story.fails("a client", "TLS, with a certificate that it can believe", why);
            }
            log += &String::from_utf8_lossy(&line);
            if log.contains(" connected: new session") {
                story.step("a client", "TLS, and the certificate is right ok");
                return tunnel;
            }
        }
    }
}

impl Drop for TlsClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// TLS in front of a server of the test.
pub struct TlsProxy {
    pub address: SocketAddr,
    children: Arc<Mutex<Vec<Child>>>,
}

impl TlsProxy {
    /// Shows this certificate of the folder to all who come, and brings them to
    /// `backend`.
    pub fn open(folder: &Folder, certificate: &str, backend: &str) -> TlsProxy {
        let path = |end: &str| folder.path(&format!("{certificate}.{end}"));
        let text =
            format!("{CONF}cert = {}\nkey = {}\nconnect = {}\n", path("pem"), path("key"), backend);
        let conf = folder.file(&format!("{certificate}.conf"), &text);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let children = Arc::<Mutex<Vec<Child>>>::default();
        let all = Arc::clone(&children);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut child = stunnel(&conf, stream);
                // Nobody reads its log, but it must not wait for that.
                drop(Inbox::of_output(child.stderr.take().unwrap()));
                all.lock().unwrap_or_else(PoisonError::into_inner).push(child);
            }
        });
        TlsProxy { address, children }
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        for child in self.children.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a trap does with clients that connect.
#[derive(Clone, Copy)]
pub enum Behavior {
    /// Only listens.
    Listens,
    /// Brings them to another server, and listens in.
    PassesOn(SocketAddr),
    /// Answers the first bytes with what is no TLS, and closes.
    Answers(&'static [u8]),
    /// Closes without a word.
    Closes,
}

/// A server that wants passwords: it notes every byte.
pub struct Trap {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    open: Arc<AtomicUsize>,
}

impl Trap {
    pub fn open(manner: Behavior) -> Trap {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let trap = Trap { address, heard: Arc::default(), open: Arc::default() };
        let (heard, open) = (Arc::clone(&trap.heard), Arc::clone(&trap.open));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (heard, open) = (Arc::clone(&heard), Arc::clone(&open));
                open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    serve_one(&mut stream, manner, |bytes| {
                        heard.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
                    });
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        trap
    }

    /// What it has heard so far.
    pub fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all who came are gone, and their bytes heard.
    pub fn waits_for_its_clients(&self) {
        system::poll(|| self.open.load(Ordering::SeqCst) == 0);
    }
}

/// Reads from one who came, until its end.
fn serve_one(stream: &mut TcpStream, manner: Behavior, note: impl Fn(&[u8])) {
    let mut backend = None;
    match manner {
        Behavior::Closes => drop(stream.shutdown(Shutdown::Write)),
        Behavior::PassesOn(address) => {
            let Ok(to) = TcpStream::connect(address) else { return };
            let (mut from, mut back) = (to.try_clone().unwrap(), stream.try_clone().unwrap());
            let answers = thread::spawn(move || {
                let _ = io::copy(&mut from, &mut back);
                let _ = back.shutdown(Shutdown::Write);
            });
            backend = Some((to, answers));
        }
        Behavior::Listens | Behavior::Answers(_) => {}
    }
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        note(&buffer[..count]);
        if let Some((to, _)) = &mut backend {
            let _ = to.write_all(&buffer[..count]);
        }
        if let Behavior::Answers(answer) = manner {
            let _ = stream.write_all(answer);
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
    if let Some((to, answers)) = backend {
        let _ = to.shutdown(Shutdown::Write);
        // Not before all of it has come through TLS.
        let _ = answers.join();
    }
}

/// Runs openssl in a folder.
fn openssl(folder: &Folder, words: &str) {
    let mut command = Command::new("openssl");
    let output = command.args(words.split(' ')).current_dir(&folder.0).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {words}: {said}");
}

const CA_CONF: &str = "\
[ca]
default_ca = lab
[lab]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = all
[all]
commonName = supplied
[req]
distinguished_name = none
[none]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
[elsewhere]
subjectAltName = DNS:elsewhere.example, IP:127.0.0.9
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
";

/// Makes two authorities, `ca.pem` and `other.pem`, and three certificates of
/// the first: `server`, `elsewhere` for another server, and `expired`.
pub fn make_certificates(folder: &Folder) {
    let new = "req -config ca.conf -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    folder.file("ca.conf", CA_CONF);
    folder.file("index", "");
    folder.file("serial", "01\n");
    for ca in ["ca", "other"] {
        openssl(
            folder,
            &format!(
                "{new} -x509 -extensions authority -days 3650 -subj /CN={ca} -keyout {ca}.key -out {ca}.pem"
            ),
        );
    }
    for (name, kind, end) in [
        ("server", "server", "20491231235959Z"),
        ("elsewhere", "elsewhere", "20491231235959Z"),
        ("expired", "server", "20200201000000Z"),
    ] {
        openssl(folder, &format!("{new} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        openssl(
            folder,
            &format!(
                "ca -config ca.conf -batch -notext -cert ca.pem -keyfile ca.key -extensions {kind} -startdate 20200101000000Z -enddate {end} -in {name}.csr -out {name}.pem"
            ),
        );
    }
}
