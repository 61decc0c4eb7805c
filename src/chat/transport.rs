//! Transports: how messages are put on the wire of a client.
//!
//! The room speaks in messages. What is different from one kind of connection
//! to the other is here, so that the room need not know it. Introduced by step
//! 06 (TCP) and step 09 (WebSocket).
//!
//! Lessons: [06_message_headers](../../../../../lessons/06_message_headers.md),
//! [09_websocket_chat](../../../../../lessons/09_websocket_chat.md).

use crate::chat::decode;
use crate::chat::message::{Kind, Message};
use crate::web::frame::{self, Opcode};
use std::borrow::Cow;

/// The kind of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// Messages follow each other on a TCP stream, with nothing between them.
    Tcp,
    /// Each message is one binary message of a WebSocket (RFC 6455).
    WebSocket,
}

impl Transport {
    /// Encodes whole messages for this transport.
    pub fn encode(self, messages: &[u8]) -> Cow<'_, [u8]> {
        if self == Transport::Tcp {
            return Cow::Borrowed(messages);
        }
        let mut wire = Vec::with_capacity(messages.len() + messages.len() / 8);
        for message in decode::whole_messages(messages) {
            frame::append_frame(Opcode::Binary, message, &mut wire);
        }
        Cow::Owned(wire)
    }

    /// What asks a client for a sign of life.
    pub fn ping(self) -> Vec<u8> {
        match self {
            Transport::Tcp => Message::new(Kind::Ping, "", "").to_bytes(),
            Transport::WebSocket => frame::control_frame(Opcode::Ping, b""),
        }
    }

    /// What tells a client that the server is shutting down.
    pub fn goodbye(self) -> Vec<u8> {
        let leave = Message::new(Kind::Leave, "", "server is shutting down").to_bytes();
        let mut wire = self.encode(&leave).into_owned();
        if self == Transport::WebSocket {
            wire.extend(frame::close_frame(frame::GOING_AWAY));
        }
        wire
    }
}
