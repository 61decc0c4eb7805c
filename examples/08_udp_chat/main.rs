//! 08: the same messages without connections. Each message travels in a
//! datagram of its own.
//!
//! Terminal 1:  cargo run --example 08_udp_chat
//! Terminal 2:  cargo run --example 08_udp_chat join ann --loss 30
//! Terminal 3:  cargo run --example 08_udp_chat join bob
//!
//! Type some lines in terminal 2. Three of ten are thrown away on purpose, and
//! bob reads how many of ann's messages are lost. `/quit` leaves.
//!
//! New since 07: UDP has no connections. Datagrams get lost and change their
//! order, nobody is told when the other side ends, and anybody can send a
//! datagram with a forged source address.
//! Still missing: browsers (09) and secrets (10).
//!
//! The server is in server.rs and replay_window.rs, the client in client.rs. This
//! file has what both need: arguments, and the simulated loss.
//!
//! Lesson: lessons/08_udp_chat.md

mod client;
mod replay_window;
mod server;

use socket_chat::chat::heartbeat;
use socket_chat::cli::{Args, Failure};
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};

const USAGE: &str = "\
usage: 08_udp_chat serve [ADDRESS] [--heartbeat-ms N] [--loss PERCENT]
       08_udp_chat join NAME [ADDRESS] [--loss PERCENT]
  serve             opens a room; this is also what no argument at all means
  join              joins a room
  NAME              your name there: up to 32 bytes, no spaces, no commas
  ADDRESS           HOST:PORT of the room, 127.0.0.1:12345 if not given
  --heartbeat-ms N  how long a client may be silent before it is asked whether
                    it is there, 50 to 3600000 ms, 10000 if not given
  --loss PERCENT    throws away that share of what would be sent, 0 to 100";

/// The size of a receive buffer, in bytes: more than any datagram has. The
/// system cuts off what does not fit, and then a datagram that is too long would
/// look like one that is not.
const BUFFER_BYTES: usize = 64 * 1024;

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    let subcommand = args.subcommand(&["serve", "join"]);
    let loss = Loss::new(args.number("--loss", 0..=100, 0));
    if subcommand == "join" {
        let name = args.positional("NAME");
        let address = args.address("127.0.0.1:12345");
        args.finish();
        return client::join(&name, &address, loss);
    }
    let heartbeat = heartbeat::interval_argument(&mut args);
    let address = args.address("127.0.0.1:12345");
    args.finish();
    server::serve(&address, heartbeat, loss)
}

/// Throws away a share of what would be sent, as a bad network does.
struct Loss {
    percent: u64,
    random: RandomState,
    /// How many datagrams there were so far.
    count: AtomicU64,
}

impl Loss {
    fn new(percent: usize) -> Loss {
        Loss { percent: percent as u64, random: RandomState::new(), count: AtomicU64::new(0) }
    }

    /// Whether the next datagram is to be thrown away.
    fn drops(&self) -> bool {
        // The standard library has no random numbers. The hashes of 0, 1, 2, ...
        // under a random key are as good here.
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        self.percent > 0 && self.random.hash_one(count) % 100 < self.percent
    }
}

/// Whether an error of receiving says only that no datagram has come this time,
/// so that the program can go on. Windows reports `ConnectionReset` if nobody
/// was at the address of an earlier datagram.
fn is_transient(kind: ErrorKind) -> bool {
    use ErrorKind::{ConnectionReset, Interrupted, TimedOut, WouldBlock};
    matches!(kind, WouldBlock | TimedOut | Interrupted | ConnectionReset)
}
