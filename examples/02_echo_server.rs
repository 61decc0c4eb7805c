//! 02: a server that sends back every byte it gets, to one client at a time.
//!
//! Terminal 1:  cargo run --example 02_echo_server
//! Terminal 2:  nc 127.0.0.1 12345
//!
//! Type a line in terminal 2: it comes back. Ctrl-D there ends your input
//! (`nc -N` also tells the server so). Ctrl-C in terminal 1 stops the server.
//!
//! New since 01: reading, and the end of a stream.
//! Still missing: a second client at the same time (05).
//!
//! Lesson: lessons/02_echo_server.md

use socket_chat::cli::{self, Args, Failure};
use socket_chat::net::tcp;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

const USAGE: &str = "\
usage: 02_echo_server [ADDRESS]
  ADDRESS  HOST:PORT to listen on, 127.0.0.1:12345 if not given";

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    let address = args.address("127.0.0.1:12345");
    args.finish();

    let listener = TcpListener::bind(&address).map_err(|e| tcp::bind_error(&address, &e))?;
    tcp::announce(&listener)?;

    loop {
        // While one client is served the next ones wait in the backlog, the
        // system's queue of connections that nobody has accepted yet.
        let (stream, peer) = tcp::accept(&listener);
        match echo(stream) {
            Ok(bytes) => drop(cli::print(&format!("{peer} sent {bytes} bytes"))),
            Err(error) => cli::warn(format_args!("{peer} was lost: {error}")),
        }
    }
}

/// Sends back what comes until the client has closed its sending half, and
/// returns the number of bytes.
fn echo(mut stream: TcpStream) -> io::Result<u64> {
    let mut buffer = [0; 4096];
    let mut total = 0;
    loop {
        // `read` waits for at least one byte, and returns what is there:
        // part of a line, or many lines. TCP knows no lines.
        let count = match stream.read(&mut buffer) {
            // No bytes: the end of the stream. The client will send no more.
            Ok(0) => return Ok(total),
            Ok(count) => count,
            // A signal came in between (signal(7)). Nothing is lost.
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        // `write` may take only a part. `write_all` goes on until all is taken.
        stream.write_all(&buffer[..count])?;
        total += count as u64;
    }
}
