//! What the ten programs of the course share, and in which step it comes up.
//!
//! | module | in a sentence | step |
//! | --- | --- | --- |
//! | [`cli`] | arguments, output, errors of one line | 01 |
//! | [`mod@line`] | a bounded line from a stream; cleaning text | 03, 05 |
//! | [`system`] | what the standard library can't do | 05, 07 |
//! | [`stop`] | Ctrl-C, SIGTERM and `/quit` | 07 |
//! | [`net`] | connections: opening them, sending without waiting | 01 to 05 |
//! | [`web`] | HTTP and WebSocket, without the chat | 09 |
//! | [`chat`] | messages, the room, a server and a client | 06, 07, 09 |
//!
//! A module uses only modules that are above it in this list. The programs are
//! in `examples/`, each with a lesson of the same name in `lessons/`. What only
//! one program uses is in that program; what two use is here.
//!
//! The course begins in [lessons/README.md](../../../lessons/README.md).

pub mod chat;
pub mod cli;
pub mod line;
pub mod net;
pub mod stop;
pub mod system;
pub mod web;
