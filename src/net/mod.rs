//! Connections: opening them, sending without waiting, closing them so that
//! the last bytes arrive. Knows sockets and bytes, no chat.
//!
//! | module | in a sentence | step |
//! | --- | --- | --- |
//! | [`tcp`] | listening, accepting, connecting | 01, 03 |
//! | [`connection`] | a client's connection for two threads | 04 |
//! | [`send_queue`] | sending to many peers without waiting for one | 05 |
//! | [`deadline`] | reading with a deadline; the end of a connection | 05, 06 |

pub mod connection;
pub mod deadline;
pub mod send_queue;
pub mod tcp;
