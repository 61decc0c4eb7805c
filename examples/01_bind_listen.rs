//! 01: a server that says hello to everybody who calls, and hangs up.
//!
//! Terminal 1:  cargo run --example 01_bind_listen
//! Terminal 2:  nc 127.0.0.1 12345
//!
//! Terminal 2 shows `hello from 01_bind_listen`. End it with Ctrl-C and run its
//! command again: the server is still there. Ctrl-C in terminal 1 stops it.
//!
//! Still missing: listening to what the client says (02).
//!
//! Lesson: lessons/01_bind_listen.md

use socket_chat::cli::{self, Args, Failure};
use socket_chat::net::tcp;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};

const USAGE: &str = "\
usage: 01_bind_listen [ADDRESS]
  ADDRESS  HOST:PORT to listen on, 127.0.0.1:12345 if not given";

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    let address = args.address("127.0.0.1:12345");
    args.finish();

    // `bind` asks the system for the port and listens on it, in one call.
    let listener = TcpListener::bind(&address).map_err(|e| tcp::bind_error(&address, &e))?;
    tcp::announce(&listener)?;

    loop {
        let (stream, peer) = tcp::accept(&listener);
        // If nobody reads our output, that is no reason to stop serving.
        let _ = cli::print(&format!("{peer} called"));
        if let Err(error) = greet(stream) {
            // One client's trouble ends that client, never the server.
            cli::warn(format_args!("{peer} was lost: {error}"));
        }
    }
}

/// Says hello. The connection closes when `stream` goes out of scope.
fn greet(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"hello from 01_bind_listen\n")
}
