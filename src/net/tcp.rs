//! The first moments of a TCP connection: listening, accepting, connecting,
//! each with an error that says what to try.
//!
//! Introduced by step 01 (a server), step 03 (a client) and step 04 (a client
//! with two threads).

use crate::cli::{self, Failure};
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long [`accept`] waits after an error. Short enough that a newcomer
/// hardly notices, long enough that a server out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Says why nothing can listen on `address`, and what to try.
pub fn cannot_listen(address: &str, error: &io::Error) -> Failure {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let port = &address[host.len()..];
    let who = if cfg!(windows) {
        format!("netstat -ano | findstr {port}")
    } else if cfg!(target_os = "linux") {
        format!("ss -ltunp 'sport = {port}'")
    } else {
        format!("lsof -i {port}")
    };
    Failure::new(match error.kind() {
        ErrorKind::AddrInUse => format!(
            "cannot listen on {address}: the port is in use. Find out by whom with `{who}`, or choose another port: {host}:0 takes a free one"
        ),
        ErrorKind::AddrNotAvailable => format!(
            "cannot listen on {address}: this machine does not have that address. Try 127.0.0.1{port}"
        ),
        ErrorKind::PermissionDenied => format!(
            "cannot listen on {address}: not allowed. Ports below 1024 are for the system: try {host}:12345"
        ),
        _ => format!("cannot listen on {address}: {error}. Try 127.0.0.1{port}"),
    })
}

/// Says why `address` can't be reached, and what to try: starting `server`,
/// the name of an example.
pub fn cannot_connect(address: &str, error: &io::Error, server: &str) -> Failure {
    let start = format!("cargo run --example {server} {address}");
    Failure::new(match error.kind() {
        ErrorKind::ConnectionRefused => format!(
            "cannot connect to {address}: connection refused, so nobody listens there. Start a server first, in another terminal: {start}"
        ),
        _ => format!(
            "cannot connect to {address}: {error}. Check the address, and that a server runs there: {start}"
        ),
    })
}

/// Finds an address for somebody else to listen on: this one, with a free port
/// where it has port 0.
///
/// # Errors
///
/// Nobody can listen there: what to try.
pub fn unused(address: &str) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind(address).map_err(|e| cannot_listen(address, &e))?;
    Ok(listener.local_addr()?)
}

/// Prints `listening on ADDRESS` with the address that the system gave, which
/// tells the port even where port 0 was asked for.
///
/// # Errors
///
/// Those of asking the system and of printing.
pub fn announce(listener: &TcpListener) -> Result<(), Failure> {
    let line = format!("listening on {}", listener.local_addr()?);
    Ok(cli::print(&line)?)
}

/// Waits for the next client, however long it takes.
///
/// An error here is one client's trouble (it was gone before it was accepted,
/// `accept(2)`) or the system's (no descriptor is free): it is told once and
/// never ends the server. The pause matters in the second case: that client
/// still waits in the backlog, and trying again at once would only spin.
pub fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut told = false;
    loop {
        match listener.accept() {
            Ok(client) => return client,
            Err(error) => {
                if !told {
                    cli::warn(format_args!("cannot accept a client: {error}"));
                }
                told = true;
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Wakes the thread that waits in [`accept`] at `address`, by connecting.
///
/// # Errors
///
/// Those of connecting: then it may go on waiting.
pub fn knock(address: SocketAddr) -> io::Result<()> {
    TcpStream::connect_timeout(&reachable(address), Duration::from_millis(500)).map(drop)
}

/// Where a listener is reached from this machine. "All addresses" (`0.0.0.0`
/// and `[::]`) are good to listen on, but no place to send to.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Says that a connection has failed while it was in use.
pub fn lost(error: &io::Error) -> Failure {
    Failure::new(format!("the connection was lost: {error}"))
}

/// A client's connection, for two threads: one socket, and `&TcpStream` reads
/// and writes.
pub struct Connection {
    stream: TcpStream,
    /// How the last write went. Locked while one is under way.
    sent: Mutex<io::Result<()>>,
}

impl Connection {
    /// Connects to `address`, where `server`, an example, should listen.
    ///
    /// # Errors
    ///
    /// One line that says what to try.
    pub fn open(address: &str, server: &str) -> Result<Connection, Failure> {
        let stream =
            TcpStream::connect(address).map_err(|e| cannot_connect(address, &e, server))?;
        // Each line leaves at once, even while the one before is on its way.
        stream.set_nodelay(true)?;
        Ok(Connection { stream, sent: Mutex::new(Ok(())) })
    }

    /// The stream, to read from.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends all of `bytes`. False when the connection is over: the thread
    /// that reads says how.
    pub fn send(&self, bytes: &[u8]) -> bool {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent = (&self.stream).write_all(bytes);
        sent.is_ok()
    }

    /// Closes the sending half: there will be no more from here.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Says how the connection has ended, once its stream has.
    ///
    /// # Errors
    ///
    /// It was reset. That is told to one thread only, and it may have been the
    /// one that sends.
    pub fn ended(&self) -> Result<(), Failure> {
        // This ends a write that still waits, and with it the lock.
        let _ = self.stream.shutdown(Shutdown::Both);
        match &*self.sent.lock().unwrap_or_else(PoisonError::into_inner) {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(lost(e)),
            _ => {
                cli::warn("* the server has closed the connection");
                Ok(())
            }
        }
    }
}
