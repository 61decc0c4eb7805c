//! 03: a client that sends a line, waits for the answer, and so on in turn.
//!
//! Terminal 1:  cargo run --example 02_echo_server
//! Terminal 2:  cargo run --example 03_client
//!
//! Type a line in terminal 2: the server's answer appears below it. Ctrl-D
//! (on Windows Ctrl-Z and Enter) ends your input, and with it the client.
//!
//! New since 02: the other end of the connection.
//! Still missing: hearing others while you type nothing (04).
//!
//! Lesson: lessons/03_client.md

use socket_chat::cli::{self, Args, Failure};
use socket_chat::line::{LineRead, MAX_CLIENT_LINE_BYTES, clean, read_line};
use socket_chat::net::tcp;
use std::io::{self, BufReader, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};

const USAGE: &str = "\
usage: 03_client [ADDRESS]
  ADDRESS  HOST:PORT to connect to, 127.0.0.1:12345 if not given";

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    let address = args.address("127.0.0.1:12345");
    args.finish();

    let stream = TcpStream::connect(&address)
        .map_err(|e| tcp::connect_error(&address, &e, "02_echo_server"))?;
    talk(&stream)?;
    cli::warn("* the server has closed the connection");
    Ok(())
}

/// Sends each line of standard input and prints the line that answers it,
/// until the server closes.
fn talk(mut stream: &TcpStream) -> Result<(), Failure> {
    // A stream has no lines. A read may bring more than one, and the reader
    // keeps the rest for later.
    let mut answers = BufReader::new(stream);
    let mut typed = io::stdin().lock();
    let mut line = Vec::new();

    while read_line(&mut typed, MAX_CLIENT_LINE_BYTES, &mut line)? != LineRead::End {
        line.push(b'\n');
        match stream.write_all(&line) {
            // The server has gone, but it may have said something before.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
            sent => sent.map_err(|e| tcp::connection_error(&e))?,
        }
        if !print_line(&mut answers, &mut line)? {
            return Ok(());
        }
    }
    // We have nothing more to say, but still listen: half a close. It fails
    // when the connection is gone already, and then reading tells why.
    let _ = stream.shutdown(Shutdown::Write);
    while print_line(&mut answers, &mut line)? {}
    Ok(())
}

/// Waits for a line from the server and prints it. Returns false at the end of
/// the stream.
fn print_line(answers: &mut BufReader<&TcpStream>, line: &mut Vec<u8>) -> Result<bool, Failure> {
    if read_line(answers, MAX_CLIENT_LINE_BYTES, line).map_err(|e| tcp::connection_error(&e))?
        == LineRead::End
    {
        return Ok(false);
    }
    // Cleaned, because a terminal obeys some of the bytes that it is sent.
    cli::print(&clean(line))?;
    Ok(true)
}
