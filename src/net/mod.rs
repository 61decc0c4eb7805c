//! Connections: opening them, and sending without waiting.

pub mod send_queue;
pub mod tcp;
