//! The client in a terminal: it joins, shows what comes, and sends what is
//! typed.
//!
//! Introduced by step 06. It has two threads, as in step 04.
//!
//! Lesson: [06_message_headers](../../../../../lessons/06_message_headers.md).

use crate::chat::message::{Kind, MAX_BODY_BYTES, MAX_SENDER_BYTES, Message};
use crate::cli::{self, Failure};
use crate::line::{LineRead, clean, read_line};
use crate::net::connection::Connection;
use crate::net::deadline::is_timeout;
use crate::net::tcp::connection_error;
use std::io::{self, BufReader, ErrorKind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How long a server may take to answer a client that wants to join.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Chats at `address` as `name` until one side ends it. The example `server`
/// should listen there.
///
/// # Errors
///
/// One line: the name is too long, the connection or the name was refused, or
/// the connection has failed.
pub fn chat(name: &str, address: &str, server: &str) -> Result<(), Failure> {
    // Whether the name is allowed is decided by the server. But a longer one does
    // not fit into a message.
    if name.len() > MAX_SENDER_BYTES {
        let why = format!("a name has at most {MAX_SENDER_BYTES} bytes: choose a shorter one");
        return Err(Failure::new(why));
    }
    chat_on(Connection::open(address, server)?, &Message::new(Kind::Join, name, ""))
}

/// Chats on a connection that is open already. `request` asks to be let in.
///
/// # Errors
///
/// One line: the request was refused, or the connection has failed.
pub fn chat_on(connection: Connection, request: &Message) -> Result<(), Failure> {
    let connection = Arc::new(connection);
    connection.stream().set_read_timeout(Some(ANSWER_TIMEOUT))?;
    connection.send(&request.to_bytes());

    let mut input = BufReader::new(connection.stream());
    let mut buffer = Vec::new();
    let mut joined = false;
    while let Some(message) =
        Message::read(&mut input, &mut buffer).map_err(|e| explain(&e, joined))?
    {
        if message.kind == Kind::Ping {
            connection.send(&Message::pong(&message).to_bytes());
        }
        if let Some(line) = display(&message) {
            cli::print(&line)?;
        }
        match message.kind {
            Kind::Error if !joined => {
                let name = request.sender;
                return Err(Failure::new(format!("{name} was not let in, for the reason above")));
            }
            Kind::Welcome if !joined => {
                joined = true;
                connection.stream().set_read_timeout(None)?;
                let sending = Arc::clone(&connection);
                // The JoinHandle is dropped: the thread may wait for the
                // keyboard until the process exits.
                thread::Builder::new().name("sending".into()).spawn(move || send(&sending))?;
            }
            _ => {}
        }
    }
    connection.report_end()
}

/// Why a connection has failed, in words.
fn explain(error: &io::Error, joined: bool) -> Failure {
    match error.kind() {
        ErrorKind::UnexpectedEof => {
            Failure::new("the connection was lost: it ended inside a message")
        }
        ErrorKind::InvalidData => Failure::new(format!(
            "what came is not a message, so this is not a chat server: {error}"
        )),
        _ if !joined && is_timeout(error) => Failure::new(format!(
            "the server has not answered for {} s. Is this the address of a chat server?",
            ANSWER_TIMEOUT.as_secs()
        )),
        _ if !joined => Failure::new(format!(
            "the connection was lost before you were let in: {error}. Is this the address of a chat server?"
        )),
        _ => connection_error(error),
    }
}

/// Sends what is typed, then says goodbye.
fn send(connection: &Connection) {
    let is_connected = read_texts(MAX_BODY_BYTES, |text| connection.send(&text.to_bytes()));
    if is_connected {
        connection.send(&Message::new(Kind::Leave, "", "").to_bytes());
        connection.finish();
    }
}

/// Makes a TEXT message, numbered from 1, of each line of standard input, until
/// `/quit` or the end. A line of more than `limit` bytes is not sent, and standard
/// error says so.
///
/// Returns false when `send` does, because the connection is over.
pub fn read_texts(limit: usize, mut send: impl FnMut(&Message) -> bool) -> bool {
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    let mut sequence = 0;
    loop {
        let read = match read_line(&mut input, limit, &mut line) {
            Ok(read) => read,
            Err(e) => {
                cli::warn(format_args!("cannot read what you type: {e}"));
                LineRead::End
            }
        };
        let body = String::from_utf8_lossy(&line);
        if read == LineRead::End || body == "/quit" {
            return true;
        }
        if read == LineRead::TooLong || body.len() > limit {
            cli::warn(format_args!("not sent: the line is too long, the limit is {limit} bytes"));
            continue;
        }
        // The server cleans each text, and drops one that is empty then. A
        // sequence number that never arrives would look like a lost message.
        if clean(&line).is_empty() {
            continue;
        }
        sequence += 1;
        if !send(&Message { sequence, ..Message::new(Kind::Text, "", &body) }) {
            return false;
        }
    }
}

/// The line that shows a message from a server, with the time of day in UTC.
/// None: the message is not for people.
///
/// Sender and body are cleaned again: the server may be careless or hostile.
pub fn display(message: &Message) -> Option<String> {
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
        assert_eq!(display(&text).as_deref(), Some("[22:13:20] ann: hi"));
        let leave = Message { kind: Kind::Leave, sender: "", body: "bye", ..text };
        assert_eq!(display(&leave).as_deref(), Some("* bye"));
        assert_eq!(display(&Message { kind: Kind::Pong, ..text }), None);
    }
}
