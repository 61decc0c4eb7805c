//! HTTP and WebSocket, without the chat. Knows bytes, no sockets.
//!
//! | module | what it does | source |
//! | --- | --- | --- |
//! | [`handshake`] | routes a request: the page, an upgrade to WebSocket, or an error | RFC 6455, section 4.2 |
//! | [`hosts`] | knows which `Host` a request may name | RFC 9110, section 7.2 |
//! | [`http`] | reads the head of a request, and writes responses | RFC 9112 |
//! | [`message_reader`] | joins a client's frames into messages | RFC 6455, sections 5.4 to 5.6 |
//! | [`frame`] | reads the header of a frame, masks, and writes frames | RFC 6455, section 5.2 |
//! | [`digest`] | SHA-1 and base64 | RFC 3174, RFC 4648 |
//!
//! Each module uses only modules that come after it in this table.
//!
//! Lesson: [09_websocket_chat](../../../../lessons/09_websocket_chat.md).

pub mod digest;
pub mod frame;
pub mod handshake;
pub mod hosts;
pub mod http;
pub mod message_reader;
