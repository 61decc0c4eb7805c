//! 07: how connections end. Goodbyes, resets, silence, and a server that stops.
//!
//! Terminal 1:  cargo run --example 07_disconnects
//! Terminal 2:  cargo run --example 07_disconnects join ann
//! Terminal 3:  cargo run --example 07_disconnects join bob
//!
//! Type `/quit` in terminal 2, and bob reads why ann has left. If you close the
//! window of terminal 3 instead, that is another reason. After Ctrl-C or `/quit`
//! in terminal 1, everybody gets a goodbye.
//!
//! New since 06: the reason for every end; a heartbeat that finds clients which
//! only seem to be connected; a polite stop (src/stop.rs).
//! Still missing: a chat without connections (08), browsers (09), secrets (10).
//!
//! Lesson: lessons/07_disconnects.md

use socket_chat::chat::client;
use socket_chat::chat::heartbeat;
use socket_chat::chat::room::{MAX_CLIENTS, Rules};
use socket_chat::chat::server::{Endpoint, Server};
use socket_chat::cli::{Args, Failure};

const USAGE: &str = "\
usage: 07_disconnects serve [ADDRESS] [--heartbeat-ms N] [--limit N]
       07_disconnects join NAME [ADDRESS]
  serve             opens a room; this is also what no argument at all means
  join              joins a room
  NAME              your name there: up to 32 bytes, no spaces, no commas
  ADDRESS           HOST:PORT of the room, 127.0.0.1:12345 if not given
  --heartbeat-ms N  how long a client may be silent before it is asked whether
                    it is there, 50 to 3600000 ms, 10000 if not given
  --limit N         the most clients at once, 1 to 10000, 10000 if not given";

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    if args.subcommand(&["serve", "join"]) == "join" {
        let name = args.positional("NAME");
        let address = args.address("127.0.0.1:12345");
        args.finish();
        return client::chat(&name, &address, "07_disconnects serve");
    }
    let heartbeat = heartbeat::interval_argument(&mut args);
    let limit = args.number("--limit", 1..=MAX_CLIENTS, MAX_CLIENTS);
    let address = args.address("127.0.0.1:12345");
    args.finish();
    Server::open(Rules { limit, heartbeat }, &[Endpoint::Tcp(address)])?.run()
}
