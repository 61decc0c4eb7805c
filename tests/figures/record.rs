//! A relay between a client and a server that notes what crosses it: whole
//! lines, messages or frames, and the end of each direction.

use crate::lab::escape;
use crate::lab::message::Message;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What has crossed: one unit of the protocol, or the end of a direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Crossed {
    pub client: &'static str,
    pub from_client: bool,
    pub what: String,
    pub time: Instant,
}

/// What a FIN is called in a record.
pub const FIN: &str = "FIN";

/// Takes the next whole unit off the beginning of the bytes, and names it.
pub type Decoder = fn(&mut Vec<u8>) -> Option<String>;

/// The record, which several threads write.
#[derive(Clone, Default)]
pub struct Record(Arc<(Mutex<Vec<Crossed>>, Condvar)>);

impl Record {
    /// Opens a relay to a server, for one client, and returns its address.
    pub fn relay(&self, client: &'static str, server: SocketAddr, decode: Decoder) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let record = self.clone();
        thread::spawn(move || {
            let near = Arc::new(listener.accept().unwrap().0);
            let far = Arc::new(TcpStream::connect(server).unwrap());
            let other = record.clone();
            let (from, to) = (Arc::clone(&far), Arc::clone(&near));
            thread::spawn(move || other.pass_on(client, false, &from, &to, decode));
            record.pass_on(client, true, &near, &far, decode);
        });
        address
    }

    /// One direction of a connection. What crosses is noted before it is passed
    /// on, so an answer is always noted after what it answers.
    fn pass_on(
        &self,
        client: &'static str,
        from_client: bool,
        mut from: &TcpStream,
        mut to: &TcpStream,
        decode: Decoder,
    ) {
        let (mut chunk, mut bytes) = ([0; 4096], Vec::new());
        loop {
            let count = from.read(&mut chunk).unwrap_or(0);
            bytes.extend_from_slice(&chunk[..count]);
            while let Some(what) = decode(&mut bytes) {
                self.note(client, from_client, what);
            }
            if count == 0 {
                self.note(client, from_client, FIN.into());
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            if to.write_all(&chunk[..count]).is_err() {
                return;
            }
        }
    }

    fn note(&self, client: &'static str, from_client: bool, what: String) {
        let (crossed, more) = &*self.0;
        crossed.lock().unwrap().push(Crossed { client, from_client, what, time: Instant::now() });
        more.notify_all();
    }

    /// All that has crossed, as soon as `is_whole` says so.
    pub fn when(&self, is_whole: impl Fn(&[Crossed]) -> bool) -> Vec<Crossed> {
        let (crossed, more) = &*self.0;
        let limit = crate::lab::patience();
        let (crossed, timeout) = more
            .wait_timeout_while(crossed.lock().unwrap(), limit, |crossed| !is_whole(crossed))
            .unwrap();
        assert!(!timeout.timed_out(), "after {limit:?} no more has crossed than {crossed:#?}");
        crossed.clone()
    }
}

/// Both directions of a client have ended.
pub fn is_closed(crossed: &[Crossed], client: &str) -> bool {
    crossed.iter().filter(|c| c.client == client && c.what == FIN).count() == 2
}

/// Lines, with the name that each has in a program's text.
pub fn lines(bytes: &mut Vec<u8>) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    Some(quoted(&bytes.drain(..end).collect::<Vec<u8>>()))
}

/// Messages of lesson 6. What is not one is shown as it is.
pub fn messages(bytes: &mut Vec<u8>) -> Option<String> {
    match Message::parse(bytes) {
        Ok(None) => None,
        Ok(Some((message, size))) => {
            bytes.drain(..size);
            Some(message.told().replace("\\\"", "\""))
        }
        Err(_) => Some(quoted(&std::mem::take(bytes))),
    }
}

/// A head of HTTP, then frames of WebSocket (RFC 6455, section 5.2) of at most
/// 125 bytes.
pub fn frames(bytes: &mut Vec<u8>) -> Option<String> {
    if matches!(bytes.first(), Some(b'G' | b'H')) {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head: Vec<u8> = bytes.drain(..end).collect();
        return Some(String::from_utf8_lossy(&head).lines().next()?.to_string());
    }
    let [first, second, ..] = bytes[..] else { return None };
    let (is_masked, length) = (second & 0x80 != 0, usize::from(second & 0x7f));
    let start = if is_masked { 6 } else { 2 };
    if bytes.len() < start + length {
        return None;
    }
    let mut payload = bytes[start..start + length].to_vec();
    if is_masked {
        payload.iter_mut().zip(bytes[2..6].iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    }
    bytes.drain(..start + length);
    let kind = match first & 0x0f {
        0 => "continuation",
        1 => "text",
        8 => "close",
        9 => "ping",
        10 => "pong",
        _ => "unknown",
    };
    let payload = match payload[..] {
        [high, low] if kind == "close" => u16::from_be_bytes([high, low]).to_string(),
        _ => quoted(&payload),
    };
    Some(format!("{} {kind} {payload}", if first & 0x80 == 0 { "FIN=0" } else { "FIN=1" }))
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", escape(bytes))
}

/// How many intervals have passed between two moments, to the nearest one.
pub fn intervals(from: Instant, to: Instant, interval: Duration) -> u128 {
    (to.duration_since(from) + interval / 2).as_millis() / interval.as_millis()
}
