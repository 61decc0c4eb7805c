//! The part of HTTP/1.1 that a WebSocket server needs: the head of a request
//! (RFC 9112, sections 2 to 5), and responses.
//!
//! This module knows bytes and [`BufRead`], but no sockets. Introduced by step
//! 09. The page that it serves is `src/web/page.html`.
//!
//! Lesson: [09_websocket_chat](../../../../../lessons/09_websocket_chat.md).

use crate::line::{LineRead, read_line};
use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, ErrorKind, Read};

/// The longest head of a request, in bytes. The heads that browsers send are
/// shorter.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// The graphical client. The nonce of each response replaces `NONCE` in it.
const PAGE: &str = include_str!("page.html");

/// The status for a request that breaks a rule of HTTP or of the handshake.
pub const BAD_REQUEST: &str = "400 Bad Request";

/// A response with a status from 400 on. The connection is closed after it.
#[derive(Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The code and the phrase of the status, as in `404 Not Found`.
    pub status: &'static str,
    /// One line for a person, which says why.
    pub reason: Cow<'static, str>,
    /// The header fields that belong to this status, each with its CR LF.
    pub fields: &'static str,
}

/// The head of a request: the request line and the header fields.
#[derive(Debug)]
pub struct Request {
    method: String,
    /// The target without its query.
    path: String,
    /// The names are in lower case.
    fields: Vec<(String, String)>,
}

impl ErrorResponse {
    /// The response to a client for which there is no room or no thread now
    /// (RFC 9110, section 15.6.4).
    pub fn unavailable(reason: impl Into<Cow<'static, str>>) -> ErrorResponse {
        ErrorResponse { status: "503 Service Unavailable", reason: reason.into(), fields: "" }
    }

    /// Makes a response without header fields of its own.
    pub const fn new(status: &'static str, reason: &'static str) -> ErrorResponse {
        ErrorResponse { status, reason: Cow::Borrowed(reason), fields: "" }
    }

    /// Makes a response with these header fields; each ends with CR LF.
    pub const fn with_fields(
        status: &'static str,
        reason: &'static str,
        fields: &'static str,
    ) -> ErrorResponse {
        ErrorResponse { status, reason: Cow::Borrowed(reason), fields }
    }

    /// The bytes of the response.
    pub fn to_bytes(&self) -> Vec<u8> {
        let ErrorResponse { status, reason, fields } = self;
        response(status, "text/plain; charset=utf-8", fields, &format!("{reason}\n"))
    }
}

impl Request {
    /// Reads the head of a request, of at most [`MAX_HEAD_BYTES`]. The bytes
    /// after it stay in `input`.
    ///
    /// Lines end with CR LF or with LF alone (RFC 9112, section 2.2).
    ///
    /// # Errors
    ///
    /// The response that says what is wrong. It is None when the stream has
    /// ended or failed, because then nobody can read a response.
    pub fn read(input: &mut impl BufRead) -> Result<Request, Option<ErrorResponse>> {
        // One byte more than the limit: when it is read, the head is too long.
        let mut head = input.by_ref().take(MAX_HEAD_BYTES as u64 + 1);
        let mut line = Vec::new();
        let mut next_line = || -> Result<String, Option<ErrorResponse>> {
            let found =
                read_line(&mut head, MAX_HEAD_BYTES, &mut line).map_err(|e| read_error(&e))?;
            // Each line of a head ends with LF. If this one does not, the limit
            // was reached, or the stream has ended.
            if found != LineRead::Line || head.limit() == 0 {
                let status = "431 Request Header Fields Too Large";
                let too_long =
                    ErrorResponse::new(status, "the head of a request has at most 8 KiB");
                return Err((head.limit() == 0).then_some(too_long));
            }
            String::from_utf8(line.clone())
                .map_err(|_| Some(bad_request("the head of a request must be UTF-8")))
        };
        let mut request_line = next_line()?;
        // A server should ignore an empty line before the request line (RFC
        // 9112, section 2.2).
        if request_line.is_empty() {
            request_line = next_line()?;
        }
        let mut fields = Vec::new();
        loop {
            let field = next_line()?;
            if field.is_empty() {
                break;
            }
            let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_token_byte);
            let Some((name, value)) = field.split_once(':').filter(|(name, _)| is_name(name))
            else {
                return Err(Some(bad_request("a header field must have the form `Name: value`")));
            };
            fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_string()));
        }
        let form = "a request must begin with `GET /path HTTP/1.1`";
        let mut words = request_line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Some(bad_request(form)));
        };
        if version != "HTTP/1.1" {
            return Err(Some(bad_request("this server only speaks HTTP/1.1")));
        }
        if !method.bytes().all(is_token_byte) || !target.starts_with('/') {
            return Err(Some(bad_request(form)));
        }
        let path = target.split('?').next().unwrap_or("").to_string();
        let request = Request { method: method.to_string(), path, fields };
        if request.values("host").count() != 1 {
            return Err(Some(bad_request("a request must have exactly one Host field")));
        }
        Ok(request)
    }

    /// The method, as in `GET`. It is case-sensitive.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of `Host`, as the client sent it.
    pub fn host(&self) -> &str {
        self.values("host").next().unwrap_or("")
    }

    /// The values of all fields with this name, which is in lower case.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether a field that is a list (RFC 9110, section 5.6.1) contains this
    /// token, in upper or lower case.
    pub fn contains_token(&self, name: &str, token: &str) -> bool {
        let mut tokens = self.values(name).flat_map(|list| list.split(','));
        tokens.any(|t| t.trim_matches([' ', '\t']).eq_ignore_ascii_case(token))
    }
}

fn bad_request(reason: &'static str) -> ErrorResponse {
    ErrorResponse::new(BAD_REQUEST, reason)
}

/// Whether a token may contain this byte (RFC 9110, section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The response after a read of the head has failed. Only a timeout gets one:
/// after any other error the connection is gone.
fn read_error(error: &io::Error) -> Option<ErrorResponse> {
    let timed_out = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
    let reason = "a request must be complete within 5 seconds";
    timed_out.then_some(ErrorResponse::new("408 Request Timeout", reason))
}

/// The response with the page.
///
/// Its policy allows nothing from another server, and only the scripts and
/// styles that carry the nonce. Nobody can guess the nonce, because it is
/// random for each response (Content Security Policy Level 3, section 2.3.1).
pub fn page() -> Vec<u8> {
    let random = RandomState::new();
    let nonce = format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1));
    let policy = format!(
        "Content-Security-Policy: default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    );
    response("200 OK", "text/html; charset=utf-8", &policy, &PAGE.replace("NONCE", &nonce))
}

/// A response after which the connection is closed. `fields` are further header
/// fields, each with its CR LF.
fn response(status: &str, content_type: &str, fields: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n{fields}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The path of a request; or the status of the response to it; or `closed`.
    fn read(head: &str) -> String {
        match Request::read(&mut head.as_bytes()) {
            Ok(request) => request.path,
            Err(Some(error)) => error.status[..3].into(),
            Err(None) => "closed".into(),
        }
    }

    #[test]
    fn the_lines_of_a_request_end_with_cr_lf_or_lf() {
        let head = "GET /a?b/c HTTP/1.1\r\nHost: a\r\nX:y\r\n\r\n";
        for head in [head.to_string(), head.replace("\r\n", "\n"), format!("\r\n{head}")] {
            assert_eq!(read(&head), "/a", "{head:?}");
        }
    }

    #[test]
    fn a_head_that_is_no_request_gets_its_status() {
        for (head, status) in [
            ("GET / HTTP/1.1\r\n\r\n".into(), "400"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), "400"),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".into(), "400"),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n".into(), "400"),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "400"),
            ("GET / HTTP/1.0\r\nHost: a\r\n\r\n".into(), "400"),
            ("hello\r\n\r\n".into(), "400"),
            (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(8192)), "431"),
            (format!("GET /{}", "x".repeat(100_000)), "431"),
            ("GET / HTTP/1.1\r\nHost: a\r\n".into(), "closed"),
            (String::new(), "closed"),
        ] {
            assert_eq!(read(&head), status, "{head:.80}");
        }
    }

    #[test]
    fn all_lines_of_the_head_of_a_response_end_with_cr_lf() {
        let not_found = ErrorResponse::new("404 Not Found", "no").to_bytes();
        let not_allowed =
            ErrorResponse::with_fields("405 Method Not Allowed", "no", "Allow: GET\r\n").to_bytes();
        for bytes in [page(), not_found, not_allowed] {
            let text = String::from_utf8(bytes).expect("it is text");
            let (head, body) = text.split_once("\r\n\r\n").expect("an empty line");
            assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "{head:?}");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        }
    }

    #[test]
    fn the_page_and_its_policy_have_the_same_nonce() {
        let page = String::from_utf8(page()).expect("it is text");
        let (head, body) = page.split_once("\r\n\r\n").expect("an empty line");
        let nonce = head.split("script-src 'nonce-").nth(1).and_then(|n| n.get(..32));
        let script = format!("<script nonce=\"{}\">", nonce.expect("a nonce"));
        assert!(body.contains(&script));
        assert!(!body.contains("NONCE") && !body.contains("innerHTML"));
    }
}
