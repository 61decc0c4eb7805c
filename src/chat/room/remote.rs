//! Members of other servers that share this room.
//!
//! Introduced by step 10. In a room without other servers nothing of this
//! happens.
//!
//! Lesson: [11_beyond](../../../../../../lessons/11_beyond.md).

use super::Room;
use crate::chat::message::{Kind, Message};
use crate::chat::room_handle::{DisconnectReason, Remote};

impl Room {
    /// Handles what other servers tell.
    pub(super) fn handle_remote(&mut self, event: Remote) {
        match event {
            Remote::Joined(name) => {
                if self.names.reserve(&name).is_ok() {
                    self.show(&Message::new(Kind::Join, &name, "").to_bytes());
                    self.remote.insert(name);
                }
            }
            Remote::Left(name, why) => {
                if self.remote.remove(&name) {
                    self.names.free(&name);
                    self.show(&Message::new(Kind::Leave, &name, &why).to_bytes());
                }
            }
            Remote::Said(messages) => self.show(&messages),
            Remote::Expel(name) => {
                let mut clients = self.clients.iter();
                let found = clients.find(|(_, client)| client.name.as_deref() == Some(&name));
                let Some((&id, client)) = found else { return };
                let error = Message::error("already here: you came in earlier on another server");
                let error = client.transport.encode(&error).into_owned();
                self.end(id, DisconnectReason::AlreadyHere, &error);
            }
        }
    }
}
