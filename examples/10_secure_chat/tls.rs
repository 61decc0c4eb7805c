//! TLS, spoken by `stunnel`: in front of the server's listeners, and between a
//! client and its server.
//!
//! Introduced by step 10. It knows nothing of the chat. TLS written here would
//! be thousands of lines in which any mistake helps attackers, and no chat
//! shows it.

use crate::certificates::Certificate;
use crate::stunnel::{Stunnel, config_value};
use crate::stunnel_log::{self, Log};
use socket_chat::cli::{self, Failure};
use socket_chat::net::connection::Connection;
use socket_chat::net::tcp;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the other side may take for its part of the handshake, in seconds.
pub const HANDSHAKE_SECONDS: u32 = 5;

/// How often it is checked whether the guard of stunnel still runs.
const GUARD_CHECK: Duration = Duration::from_secs(1);

/// A stunnel that has ended is started again after these pauses, in this order:
/// the first time at once. If all of them end within [`SHORT_LIFE`], the TLS
/// listeners stay closed.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(16)];

/// A stunnel that has run for this time has started well: the pauses begin again.
const SHORT_LIFE: Duration = Duration::from_secs(60);

/// The TLS listeners of a server. They are closed when this value is dropped.
pub struct TlsListeners(Arc<Shared>);

/// What the thread that watches stunnel shares with the server.
struct Shared {
    state: Mutex<State>,
    /// Wakes the thread that watches stunnel when the server stops.
    stopped: Condvar,
}

struct State {
    stunnel: Option<Stunnel>,
    is_stopping: bool,
}

impl TlsListeners {
    /// Opens TLS listeners: what comes to the first address of each pair is
    /// passed on to the second one, without TLS.
    ///
    /// A thread watches stunnel, and starts it again if it ends.
    ///
    /// # Errors
    ///
    /// stunnel does not start: the error says why.
    pub fn open(
        certificate: &Certificate,
        pairs: &[(SocketAddr, SocketAddr)],
    ) -> Result<TlsListeners, Failure> {
        let Certificate { certificate, key } = certificate;
        let mut services = format!("cert = {certificate}\nkey = {key}\n");
        for (outside, inside) in pairs {
            let (accept, connect) = (plain(*outside), plain(*inside));
            services += &format!("[{outside}]\naccept = {accept}\nconnect = {connect}\n");
        }
        let count = pairs.len();
        let (stunnel, log) = Stunnel::start(&services, count)?;
        let state = Mutex::new(State { stunnel: Some(stunnel), is_stopping: false });
        let shared = Arc::new(Shared { state, stopped: Condvar::new() });
        let watched = Arc::clone(&shared);
        // The JoinHandle is dropped: the thread runs until the process exits.
        thread::Builder::new()
            .name("stunnel watch".into())
            .spawn(move || watched.watch(&log, || Stunnel::start(&services, count)))?;
        Ok(TlsListeners(shared))
    }
}

impl Drop for TlsListeners {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_stopping = true;
        state.stunnel = None;
        self.0.stopped.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts stunnel again whenever it ends, until the server stops.
    fn watch(&self, log: &Log, start: impl Fn() -> Result<(Stunnel, Log), Failure>) {
        if !self.wait_for_end(log) {
            return;
        }
        cli::warn("stunnel has ended: it is started again");
        let mut pauses = PAUSES.iter();
        let mut why = Failure::new("it ended again and again");
        while let Some(pause) = pauses.next() {
            if self.stops_within(*pause) {
                return;
            }
            match start() {
                Ok((stunnel, log)) => {
                    let started = Instant::now();
                    if !self.keep(stunnel) || !self.wait_for_end(&log) {
                        return;
                    }
                    if started.elapsed() >= SHORT_LIFE {
                        cli::warn("stunnel has ended: it is started again");
                        pauses = PAUSES.iter();
                    }
                }
                Err(failed) => why = failed,
            }
        }
        cli::warn(format_args!(
            "stunnel can't be started again: {why:?}. The TLS listeners are closed until the server is started again"
        ));
    }

    /// Keeps a stunnel that was started again. Returns false if the server stops.
    fn keep(&self, stunnel: Stunnel) -> bool {
        let mut state = self.lock();
        if !state.is_stopping {
            state.stunnel = Some(stunnel);
        }
        !state.is_stopping
    }

    /// Waits until stunnel has ended, and cleans up after it. Returns false if the
    /// server stops.
    fn wait_for_end(&self, log: &Log) -> bool {
        let mut was_guarded = true;
        while !log.wait_for_end(GUARD_CHECK) {
            let mut state = self.lock();
            let is_unguarded = state.stunnel.as_mut().is_some_and(Stunnel::is_unguarded);
            if was_guarded && is_unguarded && !state.is_stopping {
                was_guarded = false;
                cli::warn(
                    "the shell that guards stunnel has ended: end stunnel yourself when the server has stopped",
                );
            }
        }
        let mut state = self.lock();
        state.stunnel = None;
        !state.is_stopping
    }

    /// Waits for this time, or until the server stops. Returns whether it stops.
    fn stops_within(&self, pause: Duration) -> bool {
        let state = self.lock();
        let waited = self.stopped.wait_timeout_while(state, pause, |state| !state.is_stopping);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_stopping
    }
}

/// Connects to `address` by TLS. The certificate there must be signed by the
/// authority in the file `ca`, be for this host, and be valid now. Until that is
/// certain, stunnel passes on no byte.
///
/// The connection ends when the returned stunnel is dropped.
///
/// # Errors
///
/// One line: stunnel is not installed, no server answers, or the server could
/// not prove who it is.
pub fn connect(address: &str, ca: &Path) -> Result<(Stunnel, Connection), Failure> {
    let known = fs::read_to_string(ca).map_err(|e| {
        Failure::new(format!("cannot read the authority's certificate in {}: {e}", ca.display()))
    })?;
    if !known.contains("BEGIN CERTIFICATE") {
        let why = "is not a certificate: take ca.pem from the person who runs the server";
        return Err(Failure::new(format!("{} {why}", ca.display())));
    }
    let target = config_value(&address.replace(['[', ']'], ""))?;
    let file = config_value(&ca.display().to_string())?;
    let host = target.rsplit_once(':').map_or("", |(host, _)| host);
    let check = if host.parse::<IpAddr>().is_ok() { "checkIP" } else { "checkHost" };
    let here = tcp::free_address("127.0.0.1:0")?;
    let (stunnel, mut log) = Stunnel::start(
        &format!(
            "[chat]\nclient = yes\naccept = {here}\nconnect = {target}\nCAfile = {file}\nverifyChain = yes\n{check} = {host}\n",
        ),
        1,
    )?;
    let connection = Connection::open(&here.to_string(), "10_secure_chat serve")?;
    if log.wait_for_connection() {
        return Ok((stunnel, connection));
    }
    Err(Failure::new(stunnel_log::explain(&log.errors, address, host, ca)))
}

/// An address as stunnel wants it: without brackets around an IPv6 address.
fn plain(address: SocketAddr) -> String {
    format!("{}:{}", address.ip(), address.port())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::certificates;
    use crate::files::PrivateFolder;
    use std::net::TcpStream;
    use std::process::Command;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// The processes that this one has started, and those that they have
    /// started: their numbers and names. The threads of this process are asked
    /// one by one, since each knows only its own.
    fn started_by(process: &str) -> Vec<(String, String)> {
        let read = |file: String| fs::read_to_string(file).unwrap_or_default();
        let tasks = fs::read_dir(format!("/proc/{process}/task"));
        let tasks = tasks.into_iter().flatten().flatten();
        let children = tasks.map(|task| read(format!("{}/children", task.path().display())));
        let children: String = children.collect();
        let all = children.split_whitespace().flat_map(|child| {
            let name = read(format!("/proc/{child}/comm")).trim().to_string();
            [vec![(child.to_string(), name)], started_by(child)].concat()
        });
        all.collect()
    }

    fn kill(process: &str) {
        let done = Command::new("kill").args(["-9", process]).status();
        assert!(done.is_ok_and(|status| status.success()), "kill -9 {process}");
    }

    /// Waits until this is so.
    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !is_so() {
            assert!(Instant::now() < end, "not within 20 s: {what}");
            thread::yield_now();
        }
    }

    #[test]
    fn stunnel_comes_back_when_it_or_its_guard_is_killed_and_ends_with_the_server() {
        let Ok(folder) = PrivateFolder::new(&std::env::temp_dir()) else { panic!("no folder") };
        // Without these programs there is nothing to test.
        if certificates::make(folder.path()).is_err() || Stunnel::start("", 0).is_err() {
            return;
        }
        let certificate = Certificate::find(folder.path()).expect("it was made");
        let outside = tcp::free_address("127.0.0.1:0").expect("a free port");
        let inside = tcp::free_address("127.0.0.1:0").expect("a free port");
        let listeners = TlsListeners::open(&certificate, &[(outside, inside)]).expect("stunnel");
        let is_open = || TcpStream::connect(outside).is_ok();
        let own = std::process::id().to_string();
        assert!(is_open());
        for name in ["stunnel", "sh"] {
            let all = started_by(&own);
            let (old, _) = all.iter().find(|(_, found)| found == name).expect("it runs");
            kill(old);
            wait_until("another one runs", || {
                let all = started_by(&own);
                all.iter().any(|(number, found)| found == name && number != old)
            });
            wait_until("the listener is open again", is_open);
        }
        drop(listeners);
        // If stunnel is just being started again, the watching thread ends it.
        wait_until("the listener is closed", || !is_open());
    }
}
