//! The chat in a browser: HTTP, WebSocket, and what they need.

pub mod browser;
pub mod digest;
pub mod http;
pub mod websocket;
