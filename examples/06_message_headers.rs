//! 06: messages with headers. Who said what, and when.
//!
//! Terminal 1:  cargo run --example 06_message_headers
//! Terminal 2:  cargo run --example 06_message_headers join ann
//! Terminal 3:  cargo run --example 06_message_headers join bob
//!
//! Type a line in terminal 2, and read it, with time and name, in terminal 3.
//! `/quit` leaves. Ctrl-C in terminal 1 ends the server.
//!
//! New since 05: names of your own, times, numbers; a format in which every
//! byte has a meaning (src/chat/message.rs); a client that speaks it
//! (src/chat/client.rs).
//! Still missing: why somebody left, and who only seems to be there (07).
//!
//! Lesson: lessons/06_message_headers.md

use socket_chat::chat::client;
use socket_chat::chat::room::Room;
use socket_chat::chat::session;
use socket_chat::cli::{Args, Failure};
use socket_chat::net::tcp;
use std::net::TcpListener;

const USAGE: &str = "\
usage: 06_message_headers serve [ADDRESS]
       06_message_headers join NAME [ADDRESS]
  serve    opens a room; this is also what no argument at all means
  join     joins a room
  NAME     your name there: up to 32 bytes, no spaces, no commas
  ADDRESS  HOST:PORT of the room, 127.0.0.1:12345 if not given";

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    if args.subcommand(&["serve", "join"]) == "join" {
        let name = args.positional("NAME");
        let address = args.address("127.0.0.1:12345");
        args.finish();
        return client::chat(&name, &address, "06_message_headers serve");
    }
    let address = args.address("127.0.0.1:12345");
    args.finish();
    serve(&address)
}

/// Opens a room: a thread for each client reads, and one more thread decides.
fn serve(address: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).map_err(|e| tcp::bind_error(address, &e))?;
    // The JoinHandle is dropped: the room's thread runs until the process exits.
    let (room, _) = Room::default().start()?;
    tcp::announce(&listener)?;
    for id in 1.. {
        let (stream, _) = tcp::accept(&listener);
        session::spawn(id, stream, &room);
    }
    Ok(())
}
