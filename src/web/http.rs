//! The little of HTTP/1.1 that a WebSocket needs: one request, one answer.
//!
//! Knows bytes and [`BufRead`], no sockets. Introduced by step 09. The page
//! that it serves is `src/web/page.html`.

use crate::line::{LineRead, read_line};
use crate::web::digest::{base64, from_base64, sha1};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, ErrorKind, Read};

/// The longest head of a request, in bytes: what any browser sends is shorter.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// What every WebSocket server appends to the key that it was sent (RFC 6455,
/// section 1.3). Nothing else would.
const ACCEPT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The graphical client. `NONCE` stands where its only script and style say
/// that they are ours.
const PAGE: &str = include_str!("page.html");

/// An answer that ends the connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Number and name of the status, as in `404 Not Found`.
    status: &'static str,
    /// A line for a person.
    why: &'static str,
    /// A header that belongs to this status, with its CR LF.
    header: &'static str,
}

/// The head of a request: its first line and its header fields.
#[derive(Debug)]
pub struct Request {
    method: String,
    /// Without a query.
    path: String,
    /// Names in lower case.
    fields: Vec<(String, String)>,
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The page.
    Page,
    /// A WebSocket, with this value for `Sec-WebSocket-Accept`.
    WebSocket(String),
}

const fn refusal(status: &'static str, why: &'static str) -> Refusal {
    Refusal { status, why, header: "" }
}

const BAD: &str = "400 Bad Request";

impl Refusal {
    /// The room has no seat left.
    pub const FULL: Refusal =
        refusal("503 Service Unavailable", "the room is full: try again later");

    /// There are too many requests at once.
    pub const BUSY: Refusal = refusal("503 Service Unavailable", "too many at once: try again");

    /// The bytes of the answer.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Refusal { status, why, header } = self;
        answer(status, "text/plain; charset=utf-8", header, &format!("{why}\n"))
    }
}

impl Request {
    /// Reads a request's head. What follows it stays in `input`.
    ///
    /// # Errors
    ///
    /// The answer that says what is wrong; None where nobody is there to read
    /// it, because the stream has ended or failed.
    pub fn read(input: &mut impl BufRead) -> Result<Request, Option<Refusal>> {
        // One more than the limit: then it is over it.
        let mut head = input.by_ref().take(MAX_HEAD_BYTES as u64 + 1);
        let mut line = Vec::new();
        let mut next = || -> Result<String, Option<Refusal>> {
            let found = read_line(&mut head, MAX_HEAD_BYTES, &mut line).map_err(|e| lost(&e))?;
            // All lines of a head end with LF. Without one it was cut.
            if found != LineRead::Line || head.limit() == 0 {
                let long = "431 Request Header Fields Too Large";
                let too_long = refusal(long, "a request's head has at most 8 KiB");
                return Err((head.limit() == 0).then_some(too_long));
            }
            String::from_utf8(line.clone()).map_err(|_| Some(refusal(BAD, "the head is not text")))
        };
        let mut first = next()?;
        // An empty line may stand before a request (RFC 9112, section 2.2).
        if first.is_empty() {
            first = next()?;
        }
        let mut fields = Vec::new();
        loop {
            let field = next()?;
            if field.is_empty() {
                break;
            }
            let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_token);
            let Some((name, value)) = field.split_once(':').filter(|(name, _)| is_name(name))
            else {
                return Err(Some(refusal(BAD, "a header field is `Name: value`")));
            };
            fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_string()));
        }
        let mut words = first.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Some(refusal(BAD, "a request begins with `GET /path HTTP/1.1`")));
        };
        if version != "HTTP/1.1" {
            return Err(Some(refusal(BAD, "only HTTP/1.1 is spoken here")));
        }
        if !method.bytes().all(is_token) || !target.starts_with('/') {
            return Err(Some(refusal(BAD, "a request begins with `GET /path HTTP/1.1`")));
        }
        let path = target.split('?').next().unwrap_or("").to_string();
        let request = Request { method: method.to_string(), path, fields };
        if request.all("host").count() != 1 {
            return Err(Some(refusal(BAD, "a request names one Host")));
        }
        Ok(request)
    }

    /// All values of a field.
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether one of a field's values, which commas separate, is this.
    fn lists(&self, name: &str, value: &str) -> bool {
        let mut values = self.all(name).flat_map(|values| values.split(','));
        values.any(|v| v.trim_matches([' ', '\t']).eq_ignore_ascii_case(value))
    }

    /// Finds out what is wanted. With `any` a WebSocket may be had at any path
    /// and from any page, as test suites expect it.
    ///
    /// # Errors
    ///
    /// The answer that says why it can't be had.
    pub fn wanted(&self, any: bool) -> Result<Wanted, Refusal> {
        let is_upgrade = self.lists("upgrade", "websocket");
        let any = any && is_upgrade;
        if !any && !matches!(self.path.as_str(), "/" | "/chat") {
            return Err(refusal("404 Not Found", "there is a page at / and a chat at /chat"));
        }
        if self.method != "GET" {
            let header = "Allow: GET\r\n";
            return Err(Refusal {
                header,
                ..refusal("405 Method Not Allowed", "only GET is understood here")
            });
        }
        if self.path == "/" && !any {
            return Ok(Wanted::Page);
        }
        let upgrade = "426 Upgrade Required";
        if !is_upgrade || !self.lists("connection", "upgrade") {
            let header = "Upgrade: websocket\r\n";
            return Err(Refusal { header, ..refusal(upgrade, "the chat needs a WebSocket") });
        }
        if !self.all("sec-websocket-version").eq(["13"]) {
            let header = "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n";
            let why = "only version 13 of WebSocket is spoken here";
            return Err(Refusal { header, ..refusal(upgrade, why) });
        }
        let mut keys = self.all("sec-websocket-key");
        let (Some(key), None) = (
            keys.next().filter(|k| from_base64(k).is_some_and(|key| key.len() == 16)),
            keys.next(),
        ) else {
            return Err(refusal(BAD, "a Sec-WebSocket-Key is 16 bytes in base64"));
        };
        // A page may talk to any server, but its browser says where it is from.
        // Who sends no origin is no browser.
        let mut origins = self.all("origin");
        if !any && !origins.all(|origin| self.is_ours(origin)) {
            let why = "this chat is for its own page, not for that of another server";
            return Err(refusal("403 Forbidden", why));
        }
        Ok(Wanted::WebSocket(base64(&sha1(format!("{key}{ACCEPT}").as_bytes()))))
    }

    /// Whether a page of that origin came from here.
    fn is_ours(&self, origin: &str) -> bool {
        let host = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
        host.is_some_and(|host| self.all("host").all(|here| here.eq_ignore_ascii_case(host)))
    }
}

/// Whether a name may have this byte (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Why a read of the head has failed. Nobody reads an answer, unless the time
/// was over.
fn lost(error: &io::Error) -> Option<Refusal> {
    let late = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
    late.then_some(refusal("408 Request Timeout", "a request is complete within 5 seconds"))
}

/// The answer that opens a WebSocket (RFC 6455, section 4.2.2).
pub fn switching(accept: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// The answer with the page.
///
/// Its policy: nothing from elsewhere, and of scripts only ours. It is known
/// by a number that nobody can guess, because it is drawn each time (Content
/// Security Policy Level 3, section 2.3.1).
pub fn page() -> Vec<u8> {
    let random = RandomState::new();
    let nonce = format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1));
    let header = format!(
        "Content-Security-Policy: default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    );
    answer("200 OK", "text/html; charset=utf-8", &header, &PAGE.replace("NONCE", &nonce))
}

/// An answer behind which the connection is closed.
fn answer(status: &str, kind: &str, header: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n{header}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADE: &str = "GET /chat?x=1 HTTP/1.1\r\nHost: localhost:8080\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    /// What a head is answered with: the status, or what is wanted.
    fn asked(head: &str, any: bool) -> String {
        let mut input = head.as_bytes();
        match Request::read(&mut input).and_then(|r| r.wanted(any).map_err(Some)) {
            Ok(Wanted::Page) => "page".into(),
            Ok(Wanted::WebSocket(accept)) => accept,
            Err(Some(refusal)) => refusal.status[..3].into(),
            Err(None) => "lost".into(),
        }
    }

    #[test]
    fn the_handshake_of_rfc_6455_is_answered() {
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert_eq!(asked(&format!("{UPGRADE}\r\n"), false), accept);
        assert_eq!(asked(&format!("{UPGRADE}\r\n").replace("\r\n", "\n"), false), accept);
        for ours in ["http://localhost:8080", "https://LOCALHOST:8080"] {
            assert_eq!(asked(&format!("{UPGRADE}Origin: {ours}\r\n\r\n"), false), accept);
        }
        let elsewhere = ["null", "http://localhost", "http://evil.example", "localhost:8080", ""];
        for other in elsewhere {
            let head = format!("{UPGRADE}Origin: {other}\r\n\r\n");
            assert_eq!(asked(&head, false), "403", "{other}");
            assert_eq!(asked(&head.replace("/chat", "/any"), true), accept, "{other}");
        }
    }

    #[test]
    fn what_can_not_be_had_is_answered_with_its_status() {
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(asked(&get("/"), false), "page");
        assert_eq!(asked(&get("/?a/b"), false), "page");
        assert_eq!(asked(&format!("\r\n{}", get("/")), false), "page");
        for (head, status) in [
            (get("/other"), "404"),
            (get("/chat"), "426"),
            (get("/").replace("GET", "POST"), "405"),
            (get("/").replace("GET", "HEAD"), "405"),
            (format!("{UPGRADE}\r\n").replace("13", "8"), "426"),
            (format!("{UPGRADE}\r\n").replace("==", ""), "400"),
            (format!("{UPGRADE}\r\n").replace("Sec-WebSocket-Key", "X"), "400"),
            (format!("{UPGRADE}\r\n").replace("Connection", "X"), "426"),
            ("GET / HTTP/1.1\r\n\r\n".into(), "400"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), "400"),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".into(), "400"),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n".into(), "400"),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "400"),
            ("GET / HTTP/1.0\r\nHost: a\r\n\r\n".into(), "400"),
            ("hello\r\n\r\n".into(), "400"),
            (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(8192)), "431"),
            (format!("GET /{}", "x".repeat(100_000)), "431"),
            ("GET / HTTP/1.1\r\nHost: a\r\n".into(), "lost"),
            (String::new(), "lost"),
        ] {
            assert_eq!(asked(&head, false), status, "{head:.80}");
        }
    }

    #[test]
    fn the_page_is_complete_and_knows_its_script() {
        let page = String::from_utf8(page()).expect("it is text");
        let (head, body) = page.split_once("\r\n\r\n").expect("an empty line");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        let nonce = head.split("script-src 'nonce-").nth(1).and_then(|n| n.get(..32));
        let script = format!("<script nonce=\"{}\">", nonce.expect("a nonce"));
        assert!(body.contains(&script));
        assert!(!body.contains("NONCE") && !body.contains("innerHTML"));
    }
}
