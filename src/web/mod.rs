//! HTTP and WebSocket, without the chat. Knows bytes, no sockets.
//!
//! | module | in a sentence | step |
//! | --- | --- | --- |
//! | [`digest`] | SHA-1 and base64 | 09 |
//! | [`http`] | one request, one response, and the page | 09 |
//! | [`websocket`] | frames: RFC 6455 on a stream | 09 |

pub mod digest;
pub mod http;
pub mod websocket;
