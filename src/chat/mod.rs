//! The chat of the message steps, 06 to 10.

pub mod client;
pub mod heartbeat;
pub mod members;
pub mod message;
pub mod room;
pub mod server;
pub mod session;
