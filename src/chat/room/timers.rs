//! The room's timers: clients that are silent, and clients that do not join.
//!
//! Introduced by step 07. The room of step 06 has no timers.
//!
//! Lesson: [07_disconnects](../../../../../../lessons/07_disconnects.md).

use super::{Client, Room};
use crate::chat::heartbeat::Check;
use crate::chat::message::Message;
use crate::chat::room_handle::DisconnectReason;
use std::time::{Duration, Instant};

/// How long a client may take to join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that has not joined keeps its seat for this time even if the room
/// is full.
const JOIN_GRACE: Duration = Duration::from_secs(10);

impl Client {
    /// When this client has to be checked at the latest.
    pub(super) fn due(&self, heartbeat: Duration) -> Instant {
        let pulse = self.pulse.due(heartbeat);
        if self.name.is_some() { pulse } else { pulse.min(self.connected + JOIN_TIMEOUT) }
    }
}

impl Room {
    /// Asks silent clients for a sign of life, and ends those whose time is over.
    pub(super) fn check_timers(&mut self) {
        let now = Instant::now();
        let (Some(rules), Some(planned)) = (&self.rules, self.next_check) else { return };
        let Some(late) = now.checked_duration_since(planned) else { return };
        let heartbeat = rules.heartbeat;
        // A client that connects or gives a sign of life after this check is not
        // due earlier than this.
        let mut next_check = now + heartbeat.min(JOIN_TIMEOUT);
        let (mut expired, mut unjoined) = (Vec::new(), Vec::new());
        for (&id, client) in &mut self.clients {
            match client.pulse.check(now, heartbeat, late) {
                Check::Alive => {}
                Check::Ping => {
                    let batch = &self.batches[&client.transport];
                    client.queue.push(batch, &client.transport.ping());
                }
                Check::Expired => {
                    expired.push(id);
                    continue;
                }
            }
            if client.name.is_none() && client.connected + JOIN_TIMEOUT <= now {
                unjoined.push(id);
                continue;
            }
            next_check = next_check.min(client.due(heartbeat));
        }
        self.next_check = Some(next_check).filter(|_| !self.clients.is_empty());
        for id in expired {
            self.end(id, DisconnectReason::TimedOut, b"");
        }
        for id in unjoined {
            let seconds = JOIN_TIMEOUT.as_secs();
            self.end_unjoined(id, &format!("you did not join within {seconds} seconds"));
        }
    }

    /// Takes the seat of the oldest client that has not joined, if that client
    /// has had 10 s to join. Returns whether there is a free seat now.
    pub(super) fn free_a_seat(&mut self) -> bool {
        let mut unjoined = self.clients.iter().filter(|(_, client)| client.name.is_none());
        let oldest = unjoined.next().map(|(&id, client)| (id, client.connected.elapsed()));
        let Some((id, time)) = oldest else { return false };
        let gives_way = self.rules.is_some() && time >= JOIN_GRACE;
        if gives_way {
            self.end_unjoined(id, "the room is full, and others want to join");
        }
        gives_way
    }

    /// Ends a client that has not joined, and tells it why.
    fn end_unjoined(&mut self, id: u64, why: &str) {
        let Some(client) = self.clients.get(&id) else { return };
        let error = client.transport.encode(&Message::error(why)).into_owned();
        self.end(id, DisconnectReason::NotJoined, &error);
    }
}
