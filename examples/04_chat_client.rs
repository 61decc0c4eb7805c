//! 04: a client that sends and receives at the same time, with two threads.
//!
//! Terminal 1:  cargo run --example 05_threaded_server
//! Terminal 2:  cargo run --example 04_chat_client
//! Terminal 3:  cargo run --example 04_chat_client
//!
//! Type a line in terminal 2: it appears in terminal 3, though nothing was
//! typed there. Ctrl-D (on Windows Ctrl-Z and Enter) leaves.
//!
//! New since 03: one thread for each direction.
//! Still missing: a server that passes lines on (05).
//!
//! Lesson: lessons/04_chat_client.md

use socket_chat::cli::{self, Args, Failure};
use socket_chat::line::{Found, MAX_CLIENT_LINE_BYTES, clean, read_line};
use socket_chat::tcp;
use std::io::{self, BufReader, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;

const USAGE: &str = "\
usage: 04_chat_client [ADDRESS]
  ADDRESS  HOST:PORT to connect to, 127.0.0.1:12345 if not given";

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    let address = args.address("127.0.0.1:12345");
    args.finish();

    let stream = TcpStream::connect(&address)
        .map_err(|e| tcp::cannot_connect(&address, &e, "05_threaded_server"))?;
    // Each line leaves at once, even while the one before is on its way.
    stream.set_nodelay(true)?;
    let stream = Arc::new(stream);

    // One socket, two threads: `&TcpStream` reads and writes. Receiving is the
    // main thread's, because the end of the connection ends the program. The
    // other may wait for the keyboard for ever, so it is joined only if done.
    let sending = Arc::clone(&stream);
    let typing = thread::Builder::new().name("typing".into()).spawn(move || send(&sending))?;
    receive(&stream)?;
    if typing.is_finished() {
        typing.join().map_err(|_| Failure::new("the typing thread has panicked"))??;
    }
    cli::warn("* the server has closed the connection");
    Ok(())
}

/// Sends each line of standard input, then closes the sending half.
fn send(mut stream: &TcpStream) -> Result<(), Failure> {
    let mut typed = io::stdin().lock();
    let mut line = Vec::new();
    while read_line(&mut typed, MAX_CLIENT_LINE_BYTES, &mut line)? != Found::End {
        line.push(b'\n');
        match stream.write_all(&line) {
            // The server has closed: the receiving thread says so.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            sent => sent.map_err(tcp::lost)?,
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    Ok(())
}

/// Prints each line that the server sends, until it closes.
fn receive(stream: &TcpStream) -> Result<(), Failure> {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    while read_line(&mut lines, MAX_CLIENT_LINE_BYTES, &mut line).map_err(tcp::lost)? != Found::End
    {
        // Cleaned again: this server may be careless or hostile.
        cli::print(&clean(&line))?;
    }
    Ok(())
}
