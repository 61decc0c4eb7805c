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
use socket_chat::line::{LineRead, MAX_CLIENT_LINE_BYTES, clean, read_line};
use socket_chat::net::connection::Connection;
use socket_chat::net::tcp;
use std::io::{self, BufReader};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

const USAGE: &str = "\
usage: 04_chat_client [ADDRESS]
  ADDRESS  HOST:PORT to connect to, 127.0.0.1:12345 if not given";

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    let address = args.address("127.0.0.1:12345");
    args.finish();

    let connection = Arc::new(Connection::open(&address, "05_threaded_server")?);

    // The main thread receives, because the end of the connection ends the
    // program. The JoinHandle of the other thread is dropped: that thread may
    // wait for the keyboard until the process exits.
    let typing = Arc::clone(&connection);
    thread::Builder::new().name("typing".into()).spawn(move || send(&typing))?;
    receive(connection.stream())?;
    connection.report_end()
}

/// Sends each line of standard input, then closes the sending half.
fn send(connection: &Connection) {
    let mut typed = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        match read_line(&mut typed, MAX_CLIENT_LINE_BYTES, &mut line) {
            Ok(LineRead::End) => break,
            Ok(LineRead::Line | LineRead::TooLong) => line.push(b'\n'),
            Err(e) => {
                cli::warn(format_args!("cannot read what you type: {e}"));
                break;
            }
        }
        if !connection.send(&line) {
            return;
        }
    }
    connection.finish();
}

/// Prints each line that the server sends, until it closes.
fn receive(stream: &TcpStream) -> Result<(), Failure> {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    while read_line(&mut lines, MAX_CLIENT_LINE_BYTES, &mut line)
        .map_err(|e| tcp::connection_error(&e))?
        != LineRead::End
    {
        // Cleaned again: this server may be careless or hostile.
        cli::print(&clean(&line))?;
    }
    Ok(())
}
