//! The client of the message steps: joins, shows what comes, sends what is
//! typed.
//!
//! Introduced by step 06. Two threads, as in step 04.

use crate::chat::message::{Kind, Message};
use crate::cli::{self, Failure};
use crate::line::{Found, clean, read_line};
use crate::net::tcp::{self, Connection};
use std::io::{self, BufReader, ErrorKind};
use std::sync::Arc;
use std::thread;

/// Chats at `address` as `name` until one side leaves. `server` is the example
/// that should listen there.
///
/// # Errors
///
/// No connection, no entry under that name, or a connection that ended in the
/// middle of something: one line says which.
pub fn chat(name: &str, address: &str, server: &str) -> Result<(), Failure> {
    talk(Connection::open(address, server)?, &Message::new(Kind::Join, name, ""))
}

/// The same on a connection that is there already, and with any `hello` that
/// lets its sender in.
///
/// # Errors
///
/// No entry, or a connection that ended in the middle of something: one line
/// says which.
pub fn talk(connection: Connection, hello: &Message) -> Result<(), Failure> {
    let connection = Arc::new(connection);
    connection.send(&hello.to_bytes());

    let mut input = BufReader::new(connection.stream());
    let mut buffer = Vec::new();
    let mut inside = false;
    while let Some(message) =
        Message::read(&mut input, &mut buffer).map_err(|e| ended(&e, inside))?
    {
        if message.kind == Kind::Ping {
            connection.send(&Message::pong(&message).to_bytes());
        }
        if let Some(line) = shown(&message) {
            cli::print(&line)?;
        }
        match message.kind {
            Kind::Error if !inside => {
                let name = hello.sender;
                return Err(Failure::new(format!("{name} was not let in, for the reason above")));
            }
            Kind::Welcome if !inside => {
                inside = true;
                let typing = Arc::clone(&connection);
                // Nobody joins it: it may wait for the keyboard.
                thread::Builder::new().name("typing".into()).spawn(move || send(&typing))?;
            }
            _ => {}
        }
    }
    connection.ended()
}

/// Why a connection has failed, in words.
fn ended(error: &io::Error, inside: bool) -> Failure {
    match error.kind() {
        ErrorKind::UnexpectedEof => {
            Failure::new("the connection was lost: it ended inside a message")
        }
        ErrorKind::InvalidData => {
            Failure::new(format!("what came is no message, so this is no chat server: {error}"))
        }
        _ if !inside => Failure::new(format!(
            "the connection was lost before you were let in: {error}. Is this the address of a chat server? (A door with TLS, as in step 10, needs --ca FILE)"
        )),
        _ => tcp::lost(error),
    }
}

/// Sends what is typed, then says goodbye.
fn send(connection: &Connection) {
    let alive =
        typed(crate::chat::message::MAX_BODY_BYTES, |text| connection.send(&text.to_bytes()));
    if alive {
        connection.send(&Message::new(Kind::Leave, "", "").to_bytes());
        connection.finish();
    }
}

/// Makes a TEXT message, numbered from 1, of each line of standard input,
/// until `/quit` or the end. A body over `limit` bytes is refused.
///
/// Returns false when `send` did, as it does when nobody listens any more.
pub fn typed(limit: usize, mut send: impl FnMut(&Message) -> bool) -> bool {
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    let mut sequence = 0;
    loop {
        let found = match read_line(&mut input, limit, &mut line) {
            Ok(found) => found,
            Err(e) => {
                cli::warn(format_args!("cannot read what you type: {e}"));
                Found::End
            }
        };
        let body = String::from_utf8_lossy(&line);
        if found == Found::End || body == "/quit" {
            return true;
        }
        if found == Found::LongLine || body.len() > limit {
            cli::warn(format_args!("not sent: the line is too long, the limit is {limit} bytes"));
            continue;
        }
        // Nothing to say, nothing to send.
        if body.is_empty() {
            continue;
        }
        sequence += 1;
        if !send(&Message { sequence, ..Message::new(Kind::Text, "", &body) }) {
            return false;
        }
    }
}

/// How a message from a server is shown. None: it is not for people.
///
/// Sender and body are cleaned again: this server may be careless or hostile.
pub fn shown(message: &Message) -> Option<String> {
    let (sender, body) = (clean(message.sender.as_bytes()), clean(message.body.as_bytes()));
    match message.kind {
        Kind::Text => {
            let second = message.timestamp / 1000 % (24 * 60 * 60);
            let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
            Some(format!("[{hour:02}:{minute:02}:{second:02}] {sender}: {body}"))
        }
        Kind::Join => Some(format!("* {sender} joined")),
        Kind::Leave if sender.is_empty() => Some(format!("* {body}")),
        Kind::Leave => Some(format!("* {sender} left ({body})")),
        Kind::Welcome => Some(format!("* welcome, {sender} (here: {body})")),
        Kind::Error => Some(format!("! {body}")),
        Kind::Ping | Kind::Pong | Kind::Login | Kind::Challenge => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_shown_clean_and_with_the_time_of_day() {
        let text = Message {
            kind: Kind::Text,
            sequence: 1,
            timestamp: 1_700_000_000_123,
            sender: "a\u{1b}nn",
            body: "\u{202e}hi",
        };
        assert_eq!(shown(&text).as_deref(), Some("[22:13:20] ann: hi"));
        let leave = Message { kind: Kind::Leave, sender: "", body: "bye", ..text };
        assert_eq!(shown(&leave).as_deref(), Some("* bye"));
        assert_eq!(shown(&Message { kind: Kind::Pong, ..text }), None);
    }
}
