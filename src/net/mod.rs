//! Connections: opening them, sending without waiting, closing them so that
//! the last bytes arrive. Knows sockets and bytes, no chat.
//!
//! | module | in a sentence | step |
//! | --- | --- | --- |
//! | [`tcp`] | listening, accepting, connecting | 01, 03 |
//! | [`connection`] | a client's connection for two threads | 04 |
//! | [`send_queue`] | sending to many peers without waiting for one | 05 |
//! | [`deadline`] | reading with a deadline; the end of a connection | 05, 06 |
//!
//! Lessons: [01_bind_listen](../../../../lessons/01_bind_listen.md),
//! [03_client](../../../../lessons/03_client.md),
//! [04_chat_client](../../../../lessons/04_chat_client.md),
//! [05_threaded_server](../../../../lessons/05_threaded_server.md),
//! [06_message_headers](../../../../lessons/06_message_headers.md).

pub mod connection;
pub mod deadline;
pub mod send_queue;
pub mod tcp;
