//! 06: messages with headers. Who said what, and when.
//!
//! Terminal 1:  cargo run --example 06_message_headers
//! Terminal 2:  cargo run --example 06_message_headers join ann
//! Terminal 3:  cargo run --example 06_message_headers join bob
//!
//! Type a line in terminal 2; read it, with time and name, in terminal 3.
//! `/quit` leaves. Ctrl-C in terminal 1 closes the room.
//!
//! New since 05: names of your own, times, numbers; a format in which every
//! byte has a meaning (src/chat/message.rs); a client that speaks it (src/chat/client.rs).
//! Still missing: why somebody left, and who only seems to be there (07).
//!
//! Lesson: lessons/06_message_headers.md

use socket_chat::chat::client;
use socket_chat::chat::room::{MAX_CLIENTS, MAX_EVENTS, Room, Rules};
use socket_chat::chat::session::{self, Lobby};
use socket_chat::cli::{Args, Failure};
use socket_chat::net::tcp;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

const USAGE: &str = "\
usage: 06_message_headers serve [ADDRESS]
       06_message_headers join NAME [ADDRESS]
  serve    opens a room; this is also what no argument at all means
  join     enters it
  NAME     your name there: up to 32 bytes, no spaces, no commas
  ADDRESS  HOST:PORT of the room, 127.0.0.1:12345 if not given";

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    if args.role(&["serve", "join"]) == "join" {
        let name = args.word("NAME");
        let address = args.address("127.0.0.1:12345");
        args.finish();
        return client::chat(&name, &address, "06_message_headers serve");
    }
    let address = args.address("127.0.0.1:12345");
    args.finish();
    serve(&address)
}

/// Opens a room: a thread for each client reads, one more decides.
fn serve(address: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).map_err(|e| tcp::cannot_listen(address, &e))?;
    let (events, inbox) = mpsc::sync_channel(MAX_EVENTS);
    // Nobody gets to know why somebody left. And whoever says nothing stays.
    let rules = Rules { limit: MAX_CLIENTS, heartbeat: None, joining: None, reason: |_| "left" };
    let lobby = Lobby { room: events, logins: None };
    let room = Room::new(rules);
    // Nobody joins it: the room is open until the process ends.
    thread::Builder::new().name("room".into()).spawn(move || room.run(&inbox))?;
    tcp::announce(&listener)?;
    for id in 1.. {
        let (stream, _) = tcp::accept(&listener);
        session::welcome(id, stream, &lobby);
    }
    Ok(())
}
