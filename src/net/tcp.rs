//! Opening connections: listening, accepting, connecting, each with an error
//! that says what to try.
//!
//! Introduced by step 01 (a server) and step 03 (a client).
//!
//! Lessons: [01_bind_listen](../../../../../lessons/01_bind_listen.md),
//! [03_client](../../../../../lessons/03_client.md).

use crate::cli::{self, Failure};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// How long [`accept`] waits after an error: short enough that a newcomer
/// hardly notices, long enough that a server without descriptors uses no CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Says why nothing can listen on `address`, and what to try.
pub fn bind_error(address: &str, error: &io::Error) -> Failure {
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
pub fn connect_error(address: &str, error: &io::Error, server: &str) -> Failure {
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

/// Finds an address that another program can listen on: this one, with a free
/// port in place of port 0. Nothing reserves the port: if a third program takes
/// it first, the other program reports that.
///
/// # Errors
///
/// Nothing can listen there. The error says what to try.
pub fn free_address(address: &str) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind(address).map_err(|e| bind_error(address, &e))?;
    Ok(listener.local_addr()?)
}

/// Prints `listening on ADDRESS` with the address that the system gave, which
/// tells the port even where port 0 was asked for.
///
/// # Errors
///
/// The system does not tell the address, or standard output can't be written.
pub fn announce(listener: &TcpListener) -> Result<(), Failure> {
    let line = format!("listening on {}", listener.local_addr()?);
    Ok(cli::print(&line)?)
}

/// Waits for the next client, however long it takes.
///
/// An error here concerns one client (it was gone before it was accepted,
/// `accept(2)`) or the system (no descriptor is free). It is reported once and
/// never ends the server. The pause matters in the second case: that client is
/// still in the backlog, and trying again at once would be a busy loop.
pub fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut reported = false;
    loop {
        match listener.accept() {
            Ok(client) => return client,
            Err(error) => {
                if !reported {
                    cli::warn(format_args!("cannot accept a client: {error}"));
                }
                reported = true;
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Wakes the thread that waits in [`accept`] at `address`, by connecting to it.
/// Waits up to 500 ms for the connection.
///
/// # Errors
///
/// The connection fails. Then the thread may go on waiting.
pub fn wake_acceptor(address: SocketAddr) -> io::Result<()> {
    TcpStream::connect_timeout(&reachable(address), Duration::from_millis(500)).map(drop)
}

/// The address at which a listener is reached from this machine. A server can
/// listen on "all addresses" (`0.0.0.0` or `[::]`), but nobody can send there.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Says that a connection has failed while it was in use.
pub fn connection_error(error: &io::Error) -> Failure {
    Failure::new(format!("the connection was lost: {error}"))
}
