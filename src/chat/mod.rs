//! The chat in messages, of steps 06 to 10.
//!
//! | module | in a sentence | step |
//! | --- | --- | --- |
//! | [`message`] | the format: a header, a sender, a body | 06 |
//! | [`decode`] | bytes become a message, or an error | 06 |
//! | [`names`] | who has which name | 06 |
//! | [`heartbeat`] | who is still alive | 07 |
//! | [`transport`] | how messages are put on the wire | 06, 09 |
//! | [`room_handle`] | the events and answers between clients and room | 06 |
//! | [`room`] | who gets what, and how it ends for each client | 06, 07 |
//! | [`session`] | what one client may say, and what it gets for an answer | 06 |
//! | [`web_session`] | the same for a client in a browser | 09 |
//! | [`client`] | the client in a terminal | 06 |
//! | [`server`] | a room with its listeners, and how it closes | 07 |
//!
//! A module uses only modules that are above it in this list.
//!
//! Lessons: [06_message_headers](../../../../lessons/06_message_headers.md),
//! [07_disconnects](../../../../lessons/07_disconnects.md),
//! [09_websocket_chat](../../../../lessons/09_websocket_chat.md).

pub mod client;
pub mod decode;
pub mod heartbeat;
pub mod message;
pub mod names;
pub mod room;
pub mod room_handle;
pub mod server;
pub mod session;
pub mod transport;
pub mod web_session;
