//! The client's side of WebSocket (RFC 6455): frames, and what a peer does with
//! them. Written a second time on purpose: the grading must not share a mistake
//! with what it grades.

use super::inbox::{Codec, Event, Next};
use super::message::{ERROR, JOIN, LEAVE, Message};
use super::patience;
use super::peer::{Peer, Sender, is_reset};
use super::receiver::{silence, told};
use super::story::quote;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;

// The first byte of a frame: FIN, and what it is (section 5.2).
/// More of a message that has begun.
pub const MORE: u8 = 0x00;
/// The first part of a message of text, and of one of bytes.
pub const FIRST_TEXT: u8 = 0x01;
pub const FIRST_BINARY: u8 = 0x02;
/// The last part of a message.
pub const LAST: u8 = 0x80;
/// A whole message of text, and of bytes.
pub const TEXT_FRAME: u8 = 0x81;
pub const BINARY: u8 = 0x82;
/// Control frames.
pub const CLOSE: u8 = 0x88;
pub const PING_FRAME: u8 = 0x89;
pub const PONG_FRAME: u8 = 0x8a;

/// In place of the code of a close frame that has none (section 7.1.5).
pub const NO_CODE: u16 = 1005;
/// How a server may close when nothing was wrong.
pub const GOODBYES: [u16; 3] = [1000, 1001, NO_CODE];

/// Keys, and how they are answered. The first is RFC 6455's own (section 1.3).
pub const KEYS: [(&str, &str); 5] = [
    ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ("fok9obWpd/sXaQch9uj8vg==", "5dMEKqNQrgsm77Ux4nIhScnoEGU="),
    ("iT2htal3+xdpByH26Py+cA==", "Y8Su3xqNtnq29RJcYKKPYCLlUzc="),
    ("PaG1qXf7F2kHIfbo/L5wKQ==", "SrG4nPgaICIxpJeY0GKmxRDhnlc="),
    ("+xdpByH26Py+cCkcfGFBEg==", "czdqZrsZJ5T8XPRTlCbJNQkHAI0="),
];

/// The fields of an upgrade, as a browser sends them.
pub const UPGRADE: [&str; 4] = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];

/// A frame as a client sends it: masked (section 5.3).
pub fn masked(first: u8, key: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = unmasked(first, payload);
    let start = frame.len() - payload.len();
    frame[1] |= 0x80;
    for (n, byte) in frame[start..].iter_mut().enumerate() {
        *byte ^= key[n % 4];
    }
    frame.splice(start..start, key);
    frame
}

/// A frame as only a server may send it.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => frame.push(short),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// The header of a masked frame whose payload has so many bytes, in 64 bits.
pub fn announced(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat()
}

/// The first frame in words, and in hex: `binary, FIN, masked, 25 bytes (82 99 ...)`.
pub fn told_frame(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().take(16).map(|b| format!("{b:02x}")).collect();
    let hex = hex.join(" ") + if bytes.len() > 16 { " ..." } else { "" };
    let [first, second, ..] = bytes else { return hex };
    let name = match first & 0x0f {
        0 => "continuation",
        1 => "text",
        2 => "binary",
        8 => "close",
        9 => "ping",
        10 => "pong",
        _ => "an unknown opcode",
    };
    let bits = [(0x80, ", FIN"), (0x40, ", RSV1"), (0x20, ", RSV2"), (0x10, ", RSV3")];
    let set: String =
        bits.iter().filter(|(bit, _)| first & bit != 0).map(|(_, name)| *name).collect();
    let masked = if second & 0x80 == 0 { "not masked" } else { "masked" };
    let length = lengths(bytes).map_or(0, |(length, _)| length);
    format!("{name}{set}, {masked}, {length} bytes ({hex})")
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The length of the first frame's payload, and the size of its header with the
/// mask. None: some of the header is still to come.
fn lengths(bytes: &[u8]) -> Option<(u64, usize)> {
    let [_, second, rest @ ..] = bytes else { return None };
    let more = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let short = u64::from(second & 0x7f);
    let length = if more == 0 { short } else { number(rest.get(..more)?) };
    Some((length, 2 + more + if second & 0x80 == 0 { 0 } else { 4 }))
}

/// The size of the first frame, if all of it is there.
pub(super) fn frame_size(bytes: &[u8]) -> Option<usize> {
    let (length, header) = lengths(bytes)?;
    let size = usize::try_from(length).ok()?.checked_add(header)?;
    (size <= bytes.len()).then_some(size)
}

/// Takes frames off a stream, answers pings and the close frame, and puts
/// messages together. What a server must not send is told.
pub struct Frames {
    sending: Arc<Sender>,
    echo: bool,
    /// A message that has begun: its opcode and what has come of it.
    begun: Option<(u8, Vec<u8>)>,
}

/// What must not come.
fn wrong<T>(why: impl Into<String>) -> Result<T, String> {
    Err(why.into())
}

impl Codec for Frames {
    fn decode(&mut self, bytes: &[u8]) -> Option<(usize, Option<Event>)> {
        let size = match size_of_legal(bytes) {
            Ok(size) => size?,
            Err(why) => return Some((0, Some(Event::Invalid(why)))),
        };
        let header = lengths(bytes).map_or(size, |(_, header)| header);
        let event = self.take(bytes[0], &bytes[header..size]);
        Some((size, event.unwrap_or_else(|why| Some(Event::Invalid(why)))))
    }

    fn ended(&mut self, failure: Option<&io::Error>) {
        if failure.is_some_and(is_reset) {
            self.sending.was_reset.store(true, Ordering::Relaxed);
        }
        if !self.sending.is_silent.load(Ordering::Relaxed) {
            // As a browser does.
            let _ = self.sending.stream.shutdown(Shutdown::Both);
        }
    }
}

/// The size of the first frame, if all of it has come and a server may send it.
fn size_of_legal(bytes: &[u8]) -> Result<Option<usize>, String> {
    let [first, second, ..] = bytes else { return Ok(None) };
    let wrong = |why: &str| wrong(format!("{why}: {}", told_frame(bytes)));
    if first & 0x70 != 0 {
        return wrong("a frame with a reserved bit: no extension was agreed on");
    }
    if second & 0x80 != 0 {
        return wrong("a masked frame: only clients mask");
    }
    if first & 0x08 != 0 && (first & 0x80 == 0 || *second > 125) {
        return wrong("a control frame of more than 125 bytes, or without FIN");
    }
    let Some((length, header)) = lengths(bytes) else { return Ok(None) };
    if header == 4 && length < 126 || header == 10 && length < 65536 {
        return wrong("a frame whose length has more bytes than it needs");
    }
    if length > 64 * 1024 * 1024 {
        return wrong("a frame that announces too much");
    }
    Ok(frame_size(bytes))
}

impl Frames {
    pub fn new(sending: Arc<Sender>, echo: bool) -> Frames {
        Frames { sending, echo, begun: None }
    }

    fn take(&mut self, first: u8, payload: &[u8]) -> Result<Option<Event>, String> {
        match first {
            PING_FRAME => {
                if !self.sending.is_silent.load(Ordering::Relaxed) {
                    let pong = masked(PONG_FRAME, self.sending.key(), payload);
                    self.sending.answer(&pong);
                }
                Ok(Some(Event::Ping))
            }
            PONG_FRAME if self.sending.wants_no_pong.load(Ordering::Relaxed) => {
                wrong("a pong: it goes on with what comes after that")
            }
            PONG_FRAME => Ok(Some(Event::Pong(payload.to_vec()))),
            CLOSE => self.close(payload).map(Some),
            _ => self.data(first, payload),
        }
    }

    fn data(&mut self, first: u8, payload: &[u8]) -> Result<Option<Event>, String> {
        let (opcode, message) = match (first & 0x0f, self.begun.take()) {
            (0, None) => return wrong("a continuation of nothing"),
            (0, Some((opcode, mut message))) => {
                message.extend(payload);
                (opcode, message)
            }
            (1 | 2, Some(_)) => return wrong("a new message before the one before has ended"),
            (1, None) if !self.echo => {
                return wrong(format!(
                    "a frame of text: {}; each message of the chat is a binary one",
                    quote(payload)
                ));
            }
            (opcode @ (1 | 2), None) => (opcode, payload.to_vec()),
            _ => return wrong(format!("a frame with the unknown opcode {}", first & 0x0f)),
        };
        if first & 0x80 == 0 {
            self.begun = Some((opcode, message));
            return Ok(None);
        }
        if self.echo {
            return Ok(Some(Event::Echo(opcode, message)));
        }
        let why = match Message::parse(&message) {
            Ok(Some((came, size))) if size == message.len() => {
                return Ok(Some(Event::Message(came)));
            }
            Ok(Some((first, _))) => format!("more than one: {}, and more", first.told()),
            Ok(None) => format!("{} bytes of a message, and not all", message.len()),
            Err(why) => why,
        };
        wrong(format!("a binary message that is not one message of the chat: {why}"))
    }

    fn close(&mut self, payload: &[u8]) -> Result<Event, String> {
        let code = match payload {
            [] => NO_CODE,
            [_] => return wrong("a close frame of one byte: a code has two"),
            [high, low, reason @ ..] => {
                if std::str::from_utf8(reason).is_err() {
                    return wrong("a close frame whose reason is not UTF-8");
                }
                let code = u16::from_be_bytes([*high, *low]);
                if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                    return wrong(format!("close {code}, a code that may not be sent"));
                }
                code
            }
        };
        let silent = self.sending.is_silent.load(Ordering::Relaxed);
        if !silent && !self.sending.has_closed.swap(true, Ordering::Relaxed) {
            // At once: nothing that this end sends counts any more.
            let frame = masked(CLOSE, self.sending.key(), payload);
            self.sending.write(&frame);
        }
        Ok(Event::Close(code))
    }
}

/// A close frame in words.
pub(super) fn told_close(code: u16) -> String {
    if code == NO_CODE { "close, without a code".into() } else { format!("close {code}") }
}

/// The payload of a close frame.
pub fn closing(code: u16, reason: &str) -> Vec<u8> {
    if code == NO_CODE {
        return Vec::new();
    }
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// What a peer does beyond messages where its format is WebSocket.
impl Peer {
    /// A masked frame.
    pub fn frame(&self, first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
        masked(first, self.sending.key(), payload.as_ref())
    }

    /// Sends a part of a frame, and waits until the program has read it: what
    /// comes next is found by another read.
    #[track_caller]
    pub fn sends_part(&self, what: impl Into<String>, part: &[u8]) {
        self.sends(what, part);
        super::drained(&self.stream);
    }

    /// Sends a close frame.
    #[track_caller]
    pub fn closes(&self, code: u16, reason: &str) {
        self.has_said_close();
        self.sends(told_close(code), &self.frame(CLOSE, closing(code, reason)));
    }

    /// Its own close frame is on its way: it does not answer the server's.
    pub fn has_said_close(&self) {
        self.sending.has_closed.store(true, Ordering::Relaxed);
    }

    /// From now on a ping must not be answered any more.
    pub fn expects_no_pong(&self) {
        self.sending.wants_no_pong.store(true, Ordering::Relaxed);
    }

    /// The server must close with one of these codes, and end the stream. News
    /// of others may come before it; an ERROR too, if that is no goodbye.
    #[track_caller]
    pub fn gets_close(&self, codes: &[u16]) {
        let told_codes: Vec<String> = codes.iter().map(|code| told_close(*code)).collect();
        let expected = told_codes.join(" or ");
        loop {
            let aside = self.aside.borrow_mut().pop_front();
            let next = || match self.inbox.event_within(patience(), false) {
                Next::Some((event, _)) => event,
                Next::End(end, rest) => self.fails(&expected, &told(&end, &rest)),
                Next::Silence(rest) => self.fails(&expected, &silence(&rest)),
            };
            match aside.unwrap_or_else(next) {
                Event::Close(code) if codes.contains(&code) => {
                    self.ok(&told_close(code));
                    break;
                }
                Event::Message(m)
                    if matches!(m.kind, JOIN | LEAVE) && !m.sender.is_empty()
                        || m.kind == ERROR && !codes.contains(&1000) =>
                {
                    self.story.step(&self.who, format!("{} (let pass)", m.told()));
                }
                other @ (Event::Close(_) | Event::Invalid(_)) => {
                    self.fails(&expected, &other.told())
                }
                other => {
                    let received = format!("{}, which should not have come", other.told());
                    self.fails(&expected, &received)
                }
            }
        }
        match self.rest() {
            Next::End(_, rest) if rest.is_empty() => {
                self.is_over.set(true);
                self.ok("end of stream");
            }
            Next::End(_, rest) | Next::Some(rest) => {
                let expected = "nothing after the close frame but the end of the stream";
                self.fails(expected, &format!("{} bytes more", rest.len()));
            }
            Next::Silence(_) => {
                self.story.because("the connection is still open: when close frames have gone both ways, it is the server who ends the stream (RFC 6455, section 7.1.1); where no answer comes it does so after a moment");
                self.fails("the end of the stream", "nothing more, and no end");
            }
        }
    }

    /// Whether the system has told of a reset.
    pub fn was_reset(&self) -> bool {
        self.sending.was_reset.load(Ordering::Relaxed)
    }

    /// The next pong must be this one.
    #[track_caller]
    pub fn gets_pong(&self, payload: &[u8]) {
        let expected = Event::Pong(payload.to_vec()).told();
        match self.inbox.only(|event| matches!(event, Event::Pong(_))) {
            Next::Some(Some(Event::Pong(came))) if came == payload => self.ok(&expected),
            Next::Some(Some(came)) => self.story.differs(&self.who, &expected, &came.told()),
            Next::Some(None) => {
                let last = |event: &Event| matches!(event, Event::Close(_) | Event::Invalid(_));
                let Next::Some(Some(last)) = self.inbox.only(last) else { unreachable!() };
                self.fails(&expected, &last.told())
            }
            Next::End(end, rest) => self.fails(&expected, &told(&end, &rest)),
            Next::Silence(_) => self.fails(&expected, &silence(b"")),
        }
    }

    /// Whether such a pong comes, sooner or later, before the connection ends.
    #[track_caller]
    pub fn is_ponged(&self, payload: &[u8]) -> bool {
        match self.inbox.only(|event| matches!(event, Event::Pong(came) if came == payload)) {
            Next::Some(came) => came.is_some(),
            Next::End(..) => false,
            Next::Silence(_) => self.fails(&Event::Pong(payload.to_vec()).told(), &silence(b"")),
        }
    }

    /// No pong may have come that was not asked for.
    #[track_caller]
    pub fn has_no_pong(&self) {
        if let Some(pong) = self.inbox.now(|event| matches!(event, Event::Pong(_))) {
            self.fails("no more pongs than pings", &format!("one more: {}", pong.told()));
        }
    }

    /// The next message of an echo must be this one.
    #[track_caller]
    pub fn gets_back(&self, first: u8, payload: &[u8]) {
        let told_echo = |opcode: u8, payload: &[u8]| {
            format!("{} {}", if opcode == 1 { "text" } else { "binary" }, quote(payload))
        };
        let expected = told_echo(first & 0x0f, payload);
        match self.inbox.event_within(patience(), false) {
            Next::Some((Event::Echo(opcode, came), _)) => {
                if opcode != first & 0x0f {
                    self.fails(&expected, &told_echo(opcode, &came));
                }
                if came != payload {
                    self.story.mismatch(&self.who, payload, &came);
                }
                self.ok(&expected);
            }
            Next::Some((other, _)) => self.fails(&expected, &other.told()),
            Next::End(end, rest) => self.fails(&expected, &told(&end, &rest)),
            Next::Silence(_) => self.fails(&expected, &silence(b"")),
        }
    }
}
