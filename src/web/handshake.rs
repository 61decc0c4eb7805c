//! What a request asks for: the page, or the opening handshake of a WebSocket
//! (RFC 6455, section 4.2).
//!
//! Introduced by step 09.
//!
//! Lesson: [09_websocket_chat](../../../../../lessons/09_websocket_chat.md).

use crate::web::digest::{base64, from_base64, sha1};
use crate::web::hosts::KnownHosts;
use crate::web::http::{BAD_REQUEST, ErrorResponse, Request};
use std::borrow::Cow;
use std::net::IpAddr;

/// Every WebSocket server appends this text to the key of the client (RFC 6455,
/// section 1.3). No other protocol uses it.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// The page.
    Page,
    /// A WebSocket, with this value for `Sec-WebSocket-Accept`.
    WebSocket(String),
}

impl Request {
    /// Finds out what the request asks for.
    ///
    /// `local` is the address of the connection's local end. If `hosts` is
    /// None, an upgrade is accepted at any path, for any host and from any
    /// origin, as test suites for WebSocket need it.
    ///
    /// # Errors
    ///
    /// The response that says why the server refuses the request.
    pub fn route(&self, hosts: Option<&KnownHosts>, local: IpAddr) -> Result<Route, ErrorResponse> {
        let is_upgrade = self.contains_token("upgrade", "websocket");
        let accepts_any = hosts.is_none() && is_upgrade;
        if let Some(hosts) = hosts.filter(|hosts| !hosts.contains(self.host(), local)) {
            return Err(misdirected_request(hosts));
        }
        if !accepts_any && !matches!(self.path(), "/" | "/chat") {
            let reason = "there is a page at / and a chat at /chat";
            return Err(ErrorResponse::new("404 Not Found", reason));
        }
        if self.method() != "GET" {
            let status = "405 Method Not Allowed";
            let reason = "only GET is allowed here";
            return Err(ErrorResponse::with_fields(status, reason, "Allow: GET\r\n"));
        }
        if self.path() == "/" && !accepts_any {
            return Ok(Route::Page);
        }
        let accept = self.accept_value()?;
        // A page may connect to any server, but its browser says which origin
        // the page has. A client that sends no origin is no browser.
        if !accepts_any && !self.values("origin").all(|origin| self.is_same_origin(origin)) {
            let reason = "this chat is only for its own page, not for pages of other servers";
            return Err(ErrorResponse::new("403 Forbidden", reason));
        }
        Ok(Route::WebSocket(accept))
    }

    /// Checks the fields of an upgrade (RFC 6455, section 4.2.1), and computes
    /// the value of `Sec-WebSocket-Accept` (section 4.2.2).
    fn accept_value(&self) -> Result<String, ErrorResponse> {
        let status = "426 Upgrade Required";
        if !self.contains_token("upgrade", "websocket")
            || !self.contains_token("connection", "upgrade")
        {
            let fields = "Upgrade: websocket\r\n";
            return Err(ErrorResponse::with_fields(status, "the chat needs a WebSocket", fields));
        }
        if !self.values("sec-websocket-version").eq(["13"]) {
            let fields = "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n";
            let reason = "this server only speaks version 13 of WebSocket";
            return Err(ErrorResponse::with_fields(status, reason, fields));
        }
        let mut keys = self.values("sec-websocket-key");
        match (keys.next(), keys.next()) {
            (Some(key), None) if from_base64(key).is_some_and(|bytes| bytes.len() == 16) => {
                Ok(base64(&sha1(format!("{key}{WEBSOCKET_GUID}").as_bytes())))
            }
            _ => {
                let reason = "a request must have one Sec-WebSocket-Key: 16 bytes in base64";
                Err(ErrorResponse::new(BAD_REQUEST, reason))
            }
        }
    }

    /// Whether a page of this origin came from this server: then the origin is
    /// `http://` or `https://`, and the `Host` of this request (RFC 6454,
    /// section 7). A TLS proxy may have taken off the `s`.
    fn is_same_origin(&self, origin: &str) -> bool {
        let host = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
        host.is_some_and(|host| self.host().eq_ignore_ascii_case(host))
    }
}

/// The response to a request with an unknown `Host` (RFC 9110, section
/// 15.5.20).
fn misdirected_request(hosts: &KnownHosts) -> ErrorResponse {
    let reason = format!(
        "the Host of this request is unknown here. This server knows {hosts}. Start it with --host NAME to add a name"
    );
    ErrorResponse { status: "421 Misdirected Request", reason: Cow::Owned(reason), fields: "" }
}

/// The response that opens a WebSocket (RFC 6455, section 4.2.2).
pub fn switching_protocols(accept: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    const UPGRADE: &str = "GET /chat?x=1 HTTP/1.1\r\nHost: localhost:8080\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    /// The route of a request, in a word; or the status of the response.
    fn route_for(hosts: Option<&KnownHosts>, head: &str) -> String {
        let request = Request::read(&mut head.as_bytes()).expect("a request");
        match request.route(hosts, LOCAL) {
            Ok(Route::Page) => "page".into(),
            Ok(Route::WebSocket(accept)) => accept,
            Err(error) => error.status[..3].into(),
        }
    }

    fn route(head: &str) -> String {
        route_for(Some(&KnownHosts::default()), head)
    }

    #[test]
    fn the_handshake_of_rfc_6455_gets_its_accept_value() {
        assert_eq!(route(&format!("{UPGRADE}\r\n")), ACCEPT);
        assert_eq!(route(&format!("{UPGRADE}\r\n").replace("\r\n", "\n")), ACCEPT);
    }

    #[test]
    fn all_lines_of_the_response_to_an_upgrade_end_with_cr_lf() {
        let head = String::from_utf8(switching_protocols(ACCEPT)).expect("it is text");
        assert!(head.ends_with("\r\n\r\n"));
        assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "{head:?}");
    }

    #[test]
    fn only_a_page_of_the_same_origin_gets_a_websocket() {
        for own in ["http://localhost:8080", "https://LOCALHOST:8080"] {
            assert_eq!(route(&format!("{UPGRADE}Origin: {own}\r\n\r\n")), ACCEPT);
        }
        for other in ["null", "http://localhost", "http://evil.example", "localhost:8080", ""] {
            let head = format!("{UPGRADE}Origin: {other}\r\n\r\n");
            assert_eq!(route(&head), "403", "{other}");
            assert_eq!(route_for(None, &head.replace("/chat", "/any")), ACCEPT, "{other}");
        }
    }

    #[test]
    fn a_name_that_was_rebound_to_this_server_gets_nothing() {
        let page = "GET / HTTP/1.1\r\nHost: localhost:8080\r\n\r\n".to_string();
        let upgrade = format!("{UPGRADE}Origin: http://localhost:8080\r\n\r\n");
        for (head, answer) in [(page, "page"), (upgrade, ACCEPT)] {
            let foreign = head.replace("localhost", "evil.example");
            assert_eq!(route(&foreign), "421", "{foreign}");
            let hosts = KnownHosts::new(["evil.example"]);
            assert_eq!(route_for(Some(&hosts), &foreign), answer, "{foreign}");
        }
    }

    #[test]
    fn the_response_to_an_unknown_host_says_what_to_do() {
        let line = misdirected_request(&KnownHosts::new(["chat.example:80"])).reason;
        assert!(line.contains("chat.example, localhost") && line.contains("--host"), "{line}");
    }

    #[test]
    fn a_refused_request_gets_its_status() {
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(route(&get("/")), "page");
        assert_eq!(route(&get("/?a/b")), "page");
        let upgrade = format!("{UPGRADE}\r\n");
        for (head, status) in [
            (get("/other"), "404"),
            (get("/chat"), "426"),
            (get("/").replace("GET", "POST"), "405"),
            (get("/").replace("GET", "HEAD"), "405"),
            (upgrade.replace("13", "8"), "426"),
            (upgrade.replace("==", ""), "400"),
            (upgrade.replace("Sec-WebSocket-Key", "X"), "400"),
            (upgrade.replace("Connection", "X"), "426"),
        ] {
            assert_eq!(route(&head), status, "{head:.80}");
        }
    }
}
