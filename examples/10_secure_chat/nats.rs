//! The client's side of NATS: lines over TCP, and payloads whose length is in
//! the line before them.
//!
//! Knows bytes, no chat. Introduced by lesson 11. The protocol:
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol>
//!
//! ```text
//! server                                    client
//! INFO {"max_payload":1048576, ...}   -->
//!                                     <--   CONNECT {"echo":false, ...}
//!                                     <--   SUB socket-chat 1
//!                                     <--   PING
//! PONG                                -->
//!                                     <--   PUB socket-chat 5
//!                                           hello
//! MSG socket-chat 1 3                 -->
//! bye
//! ```
//!
//! Nothing is kept or waited for by what the server announces: lines and
//! payloads have limits, and what is not NATS ends the connection.
//!
//! Lesson: lessons/11_beyond.md

use socket_chat::line::clean;
use std::io::{self, BufRead, Read};

/// The subject of the room: servers publish there, and subscribe to it.
const SUBJECT: &str = "socket-chat";

/// The longest line, in bytes with its end. NATS itself takes 4096; INFO may be
/// longer, because it lists all servers of a cluster.
const MAX_LINE_BYTES: u64 = 16 * 1024;

/// What a NATS server sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Op {
    /// A payload has come. It is in the buffer.
    Msg,
    /// It wants a PONG.
    Ping,
    /// The answer to a PING: it has taken all that was sent before.
    Pong,
    /// It has something to tell that does not matter here.
    Other,
}

/// Reads the INFO that begins a connection.
///
/// # Errors
///
/// One line: this is no NATS server, or one that this program can't use.
pub fn read_info(input: &mut impl BufRead, max_payload: usize) -> Result<(), String> {
    let mut line = Vec::new();
    let line = read_line(input, &mut line)?;
    let Some(info) = line.strip_prefix("INFO {") else { return Err(no_nats(line)) };
    // Enough of JSON for these: a name, a colon, and what comes before the comma.
    let field = |name: &str| {
        let (_, rest) = info.split_once(&format!("\"{name}\":"))?;
        rest.split([',', '}']).next().map(str::trim)
    };
    if field("tls_required") == Some("true") {
        return Err("it wants TLS after its first line: let it speak TLS from the first byte (handshake_first, or stunnel in front of it), and use --nats-ca".into());
    }
    if field("auth_required") == Some("true") {
        return Err("it wants a user and a password, and this program has none".into());
    }
    match field("max_payload").and_then(|number| number.parse::<usize>().ok()) {
        Some(limit) if limit >= max_payload => Ok(()),
        Some(limit) => Err(format!("its max_payload is {limit}: set it to {max_payload}")),
        None => Err(no_nats(line)),
    }
}

/// What a client answers: who it is, what it wants to get, and a PING, so that
/// it knows when all this was taken. With `echo` off, it does not get what it
/// has published itself.
pub fn hello() -> String {
    let options = r#"{"verbose":false,"pedantic":false,"echo":false,"protocol":1,"lang":"rust","version":"1","name":"socket-chat"}"#;
    format!("CONNECT {options}\r\nSUB {SUBJECT} 1\r\nPING\r\n")
}

/// Appends what publishes a payload.
pub fn publish(payload: &[u8], wire: &mut Vec<u8>) {
    wire.extend_from_slice(format!("PUB {SUBJECT} {}\r\n", payload.len()).as_bytes());
    wire.extend_from_slice(payload);
    wire.extend_from_slice(b"\r\n");
}

/// Reads what comes next. The payload of a MSG goes into `payload`; it has at
/// most `limit` bytes.
///
/// # Errors
///
/// One line: the connection has ended, or this is not NATS, or NATS has sent
/// an error.
pub fn read_op(
    input: &mut impl BufRead,
    payload: &mut Vec<u8>,
    limit: usize,
) -> Result<Op, String> {
    let mut buffer = Vec::new();
    let line = read_line(input, &mut buffer)?;
    let mut words = line.split_ascii_whitespace();
    match words.next() {
        Some("MSG") => {
            // MSG subject subscription [reply-to] length
            let words: Vec<&str> = words.collect();
            let [SUBJECT, "1", .., length] = words[..] else { return Err(no_nats(line)) };
            let length = length.parse().ok().filter(|length| *length <= limit);
            let length = length.ok_or_else(|| {
                format!(
                    "it announces a payload that is over the limit of {limit} bytes: {}",
                    start_of(line)
                )
            })?;
            payload.resize(length + 2, 0);
            input.read_exact(payload).map_err(|e| ended(&e))?;
            if !payload.ends_with(b"\r\n") {
                return Err(
                    "a payload is longer than it has announced: it does not speak NATS".into()
                );
            }
            payload.truncate(length);
            Ok(Op::Msg)
        }
        Some("PING") => Ok(Op::Ping),
        Some("PONG") => Ok(Op::Pong),
        Some("+OK" | "INFO") => Ok(Op::Other),
        Some("-ERR") => Err(format!("it says {}", start_of(line))),
        _ => Err(no_nats(line)),
    }
}

/// Reads a line, without its end.
fn read_line<'a>(input: &mut impl BufRead, line: &'a mut Vec<u8>) -> Result<&'a str, String> {
    let count = input.take(MAX_LINE_BYTES).read_until(b'\n', line).map_err(|e| ended(&e))?;
    if line.pop() != Some(b'\n') {
        return Err(if count as u64 == MAX_LINE_BYTES {
            format!("a line has more than {MAX_LINE_BYTES} bytes: it does not speak NATS")
        } else {
            "it has closed the connection".into()
        });
    }
    let line =
        std::str::from_utf8(line).map_err(|_| "it does not speak NATS: a line is not UTF-8")?;
    Ok(line.trim_end_matches('\r'))
}

/// Says why reading has ended.
fn ended(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "it does not answer".into(),
        io::ErrorKind::UnexpectedEof => "it has closed the connection".into(),
        _ => format!("the connection was lost: {error}"),
    }
}

fn no_nats(line: &str) -> String {
    format!("it does not speak NATS: {}", start_of(line))
}

/// The start of a line that a stranger has sent, fit for a terminal.
fn start_of(line: &str) -> String {
    clean(line.as_bytes()).chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nats_sends_is_read_as_it_is_written_in_its_protocol() {
        let mut input: &[u8] = b"PING\r\nMSG socket-chat 1 5\r\nhe\r\no\r\n+OK\r\nMSG socket-chat 1 answers 0\r\n\r\nPONG\r\n";
        let mut payload = Vec::new();
        let mut next = || read_op(&mut input, &mut payload, 5).map(|op| (op, payload.clone()));
        assert_eq!(next(), Ok((Op::Ping, vec![])));
        assert_eq!(next(), Ok((Op::Msg, b"he\r\no".to_vec())));
        assert_eq!(next().map(|(op, _)| op), Ok(Op::Other));
        assert_eq!(next(), Ok((Op::Msg, vec![])));
        assert_eq!(next().map(|(op, _)| op), Ok(Op::Pong));
        assert!(next().is_err_and(|why| why.contains("closed")));
    }

    #[test]
    fn what_is_not_nats_is_refused_with_a_reason() {
        for (input, words) in [
            ("HTTP/1.1 400 Bad Request\r\n", "does not speak NATS: HTTP/1.1"),
            ("-ERR 'Slow Consumer'\r\n", "'Slow Consumer'"),
            ("MSG socket-chat 1 6\r\nhello!\r\n", "over the limit of 5"),
            ("MSG socket-chat 1 -1\r\n", "over the limit"),
            ("MSG other 1 2\r\n", "does not speak NATS"),
            ("MSG socket-chat 1 2\r\nabcdef\r\n", "longer than it has announced"),
            ("MSG socket-chat 1 5\r\nab", "closed"),
            ("PIN", "closed"),
            (&"x".repeat(20_000), "more than 16384 bytes"),
        ] {
            let why = read_op(&mut input.as_bytes(), &mut Vec::new(), 5);
            assert!(why.as_ref().is_err_and(|why| why.contains(words)), "{why:?}");
        }
        for (info, words) in [
            (r#"{"max_payload":1048576,"proto":1}"#, ""),
            (r#"{"max_payload": 99}"#, "max_payload is 99"),
            (r#"{"tls_required":true,"max_payload":1048576}"#, "TLS"),
            (r#"{"auth_required":true,"max_payload":1048576}"#, "password"),
            ("{}", "does not speak NATS"),
        ] {
            let read = read_info(&mut format!("INFO {info}\r\n").as_bytes(), 1_048_576);
            assert_eq!(read.is_ok(), words.is_empty(), "{info}");
            assert!(read.err().unwrap_or_default().contains(words), "{info}");
        }
    }
}
