//! What the ten programs of the course share, and in which step it comes up.
//!
//! | module | in a sentence | step |
//! | --- | --- | --- |
//! | [`cli`] | arguments, output, errors of one line | 01 |
//! | [`mod@line`] | a bounded line from a stream; cleaning text | 03, 05 |
//! | [`stop`] | Ctrl-C, SIGTERM and `/quit` | 07 |
//! | [`net`] | connections: opening them, and sending without waiting | 01 to 05 |
//! | [`chat`] | messages, the room, a server and a client | 06, 07 |
//! | [`web`] | HTTP and WebSocket | 09 |
//!
//! The programs are in `examples/`, each with a lesson of the same name in
//! `lessons/`. An idea is written out in full where it is taught: what only
//! one program needs stands there, and what two need stands here.

pub mod chat;
pub mod cli;
pub mod line;
pub mod net;
pub mod stop;
pub mod web;
