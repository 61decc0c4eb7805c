//! What the ten programs of the course share, and in which step it comes up.
//!
//! | module | in a sentence | step |
//! | --- | --- | --- |
//! | [`cli`] | arguments, output, errors of one line | 01 |
//! | [`tcp`] | listening, accepting, connecting | 01, 03, 04 |
//! | [`mod@line`] | a bounded line from a stream; cleaning text | 03, 05 |
//! | [`delivery`] | sending to many peers without waiting for one | 05 |
//! | [`message`] | a header, a sender, a body: the format | 06 |
//! | [`members`] | who is here, and who is alive | 06, 07 |
//! | [`room`] | who gets what, and how it ends for each | 06, 07 |
//! | [`visitor`] | what one client may say, and what it gets for an answer | 06 |
//! | [`client`] | the client of the message steps | 06 |
//! | [`stop`] | Ctrl-C, SIGTERM and `/quit` | 07 |
//! | [`server`] | the doors of a room, and how it closes | 07 |
//! | [`digest`] | SHA-1 and base64; SHA-256, HMAC, PBKDF2 | 09, 10 |
//! | [`web`] | the little of HTTP that a WebSocket needs, and the page | 09 |
//! | [`websocket`] | frames: RFC 6455 on a stream | 09 |
//! | [`browser`] | a client that comes as browsers do | 09 |
//! | [`accounts`] | names and passwords on disk | 10 |
//! | [`login`] | passwords tried at the door | 10 |
//! | [`tls`] | stunnel and openssl, started and ended | 10 |
//!
//! The programs are in `examples/`, each with a lesson of the same name in
//! `lessons/`. An idea is written out in full where it is taught: what only
//! one program needs stands there, and what two need stands here.

pub mod accounts;
pub mod browser;
pub mod cli;
pub mod client;
pub mod delivery;
pub mod digest;
pub mod line;
pub mod login;
pub mod members;
pub mod message;
pub mod room;
pub mod server;
pub mod stop;
pub mod tcp;
pub mod tls;
pub mod visitor;
pub mod web;
pub mod websocket;
