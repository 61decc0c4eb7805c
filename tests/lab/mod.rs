//! The tools of the grading: they start a program, talk with it, and say in
//! words what went wrong. They see it only from outside, as the contract
//! (`lessons/PROTOCOL.md`) describes it, so it may be written in any language.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `LAB` | the command that runs in place of the shipped example |
//! | `LAB_PATIENCE` | multiplies every deadline, for a slow machine (1) |
//! | `LAB_SEED` | repeats a run with the random words of an earlier one |
//! | `LAB_STORY` | `all` tells all steps of a failed test, not only the last ten |
//!
//! | module | what is in it |
//! | --- | --- |
//! | `story` | a test: its rule, its steps, and the failure that it prints |
//! | `program` | starting, stopping and ending programs; what they do with their arguments |
//! | `first` | what most tests of a step build on, tried once |
//! | `inbox` | what arrives, and the one way to wait for it; codecs make events of bytes |
//! | `receiver` | what arrives, compared with what must: lines and messages |
//! | `peer` | the other side of a connection, in one of three formats; a server for clients |
//! | `message` | messages of the chat: encoding, decoding, and their fields in words |
//! | `websocket`, `http` | frames, and the requests before them |
//! | `datagram` | the other side where there are no connections |
//! | `rooms` | stories that several gradings share |
//! | `secure`, `pbkdf2` | accounts, TLS at both ends, hashes of passwords |
//! | `system` | what Linux knows and can't be seen from outside |
//! | `cleanup` | no test runs for ever, no program outlives its test |
//! | `stage` | the terminals of the lessons (only for tests/lessons.rs) |
//! | `missing_tools` | the package's build script: which tools are missing |

// Each grading uses a part of this.
#![allow(dead_code, unused_imports)]
// A test that can't go on fails, here and now.
#![allow(clippy::unwrap_used)]

mod cleanup;
mod datagram;
mod first;
mod http;
mod inbox;
pub mod message;
pub mod pbkdf2;
mod peer;
mod program;
mod receiver;
mod rooms;
pub mod secure;
#[cfg(target_os = "linux")]
mod stage;
mod story;
mod system;
pub mod websocket;

pub use datagram::{BODY_BYTES, OnPing, UdpPeer, another_loopback};
pub use inbox::{End, Inbox, Next};
pub use peer::{Format, MockServer, Peer, ends};
pub use program::{Program, example, readable};
pub use rooms::{
    Chat, NO_HEARTBEAT, Sign, are_told, client_arguments, disconnects, endless_line,
    enter_as_guest, errors_arrive, gather, goodbye, leaves_late, never_reads, numbers_are_checked,
    open_room, reads_late, reset, resets, serve_at, signs_of_life, silence, stops, two_seats,
    with_heartbeat,
};
#[cfg(target_os = "linux")]
pub use stage::Stage;
pub use story::{Rule, Story, escape, quote};
pub use system::{
    accepted, drained, emptied, has_ipv6, ignores_interrupts, memory, peak_memory, refused,
    wait_for_bytes, ways_to_stop,
};

use std::time::Duration;

/// How long nothing may happen where something must. A right program never
/// meets it: whatever arrives starts it anew. Never more than what is left of
/// the time for the whole test.
pub fn patience() -> Duration {
    let time = Duration::from_secs(10).mul_f64(patience_factor());
    time.min(cleanup::time_left()).max(Duration::from_millis(1))
}

/// What `LAB_PATIENCE` says.
fn patience_factor() -> f64 {
    let factor = std::env::var("LAB_PATIENCE").ok().and_then(|n| n.parse().ok());
    factor.filter(|f: &f64| f.is_finite() && *f > 0.0).unwrap_or(1.0).min(1000.0)
}

/// A tool is missing: told here, and an error where everything must be there.
pub fn missing(tool: &str) {
    eprintln!("not checked, because {tool} is not installed");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{tool} is not installed");
}
