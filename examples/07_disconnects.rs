//! 07: how connections end. Goodbyes, resets, silence, and closing the room.
//!
//! Terminal 1:  cargo run --example 07_disconnects
//! Terminal 2:  cargo run --example 07_disconnects join ann
//! Terminal 3:  cargo run --example 07_disconnects join bob
//!
//! Type `/quit` in terminal 2: bob reads why ann has left. Close terminal 3's
//! window instead: that is another reason. Ctrl-C or `/quit` in terminal 1:
//! everybody gets a goodbye.
//!
//! New since 06: the reason for every end; a heartbeat that finds those who
//! only seem to be there; a polite stop (src/stop.rs).
//! Still missing: a chat without connections (08), browsers (09), secrets (10).
//!
//! Lesson: lessons/07_disconnects.md

use socket_chat::cli::{self, Args, Failure};
use socket_chat::room::{Ending, Event, MAX_CLIENTS, MAX_EVENTS, Room, Rules};
use socket_chat::stop::Stop;
use socket_chat::{client, tcp, visitor};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

const USAGE: &str = "\
usage: 07_disconnects serve [ADDRESS] [--heartbeat-ms N] [--limit N]
       07_disconnects join NAME [ADDRESS]
  serve             opens a room; this is also what no argument at all means
  join              enters it
  NAME              your name there: up to 32 bytes, no spaces, no commas
  ADDRESS           HOST:PORT of the room, 127.0.0.1:12345 if not given
  --heartbeat-ms N  how long a client may be silent before it is asked whether
                    it is there, 50 to 3600000 ms, 10000 if not given
  --limit N         the most clients at once, 1 to 10000, 10000 if not given";

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    if args.role(&["serve", "join"]) == "join" {
        let name = args.word("NAME");
        let address = args.address("127.0.0.1:12345");
        args.finish();
        return client::chat(&name, &address, "07_disconnects serve");
    }
    let heartbeat = args.heartbeat();
    let limit = args.number("--limit", 1..=MAX_CLIENTS, MAX_CLIENTS);
    let address = args.address("127.0.0.1:12345");
    args.finish();
    serve(&address, Rules { limit, heartbeat: Some(heartbeat), reason: Ending::reason })
}

/// Opens a room, until it is asked to close.
fn serve(address: &str, rules: Rules) -> Result<(), Failure> {
    let mut stop = Stop::prepare()?;
    let listener = TcpListener::bind(address).map_err(|e| tcp::cannot_listen(address, &e))?;
    let here = listener.local_addr()?;
    let (events, inbox) = mpsc::sync_channel(MAX_EVENTS);
    let room = Room::new(rules);
    let room = thread::Builder::new().name("room".into()).spawn(move || room.run(&inbox))?;
    tcp::announce(&listener)?;

    let stopping = Arc::new(AtomicBool::new(false));
    let (closed, newcomers) = (Arc::clone(&stopping), events.clone());
    let door = thread::Builder::new().name("door".into()).spawn(move || {
        for id in 1.. {
            let (stream, _) = tcp::accept(&listener);
            if closed.load(Ordering::Relaxed) {
                return;
            }
            visitor::welcome(id, stream, &newcomers);
        }
    })?;

    stop.wait();
    stopping.store(true, Ordering::Relaxed);
    let panicked = || Failure::new("a thread of the server has panicked");
    events.send(Event::Stop).map_err(|_| panicked())?;
    // The room ends when all have had their goodbye and all readers are done.
    room.join().map_err(|_| panicked())?;
    // The door waits for a client that may never come: so one comes.
    if tcp::knock(here).is_ok() {
        door.join().map_err(|_| panicked())?;
    }
    Ok(cli::print("bye")?)
}
