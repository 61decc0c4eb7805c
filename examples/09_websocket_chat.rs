//! 09: the chat in a browser, over WebSocket.
//!
//! Terminal 1:  cargo run --example 09_websocket_chat
//! Browser:     http://127.0.0.1:8080/ in two windows
//!
//! Give yourself a name in each window, and talk. "Wire" shows every frame as
//! it crosses, byte by byte. Ctrl-C in terminal 1 says goodbye to both.
//!
//! New since 07: a handshake in HTTP, frames around the same messages, and a
//! page (all of src/web).
//! Still missing: anybody can be anybody, and everybody can read along (10).
//!
//! Lesson: lessons/09_websocket_chat.md

use socket_chat::chat::heartbeat;
use socket_chat::chat::room::{MAX_CLIENTS, Rules};
use socket_chat::chat::server::{Endpoint, Server};
use socket_chat::chat::web_session::WebEndpoint;
use socket_chat::cli::{self, Args, Failure};
use socket_chat::net::deadline::send_last;
use socket_chat::net::tcp;
use socket_chat::web::frame::{self, Error, Opcode, append_frame, close_frame};
use socket_chat::web::handshake;
use socket_chat::web::hosts::KnownHosts;
use socket_chat::web::message_reader::{MessageReader, Received};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

const USAGE: &str = "\
usage: 09_websocket_chat [ADDRESS] [--heartbeat-ms N] [--limit N] [--host NAME]
                         [--echo]
  ADDRESS           HOST:PORT to listen on, 127.0.0.1:8080 if not given
  --heartbeat-ms N  how long a client may be silent before it is asked whether
                    it is there, 50 to 3600000 ms, 10000 if not given
  --limit N         the most clients at once, 1 to 10000, 10000 if not given
  --host NAME       a name of this server in the address bar of a browser, beside
                    localhost and its IP addresses, with any port
  --echo            sends every message back and is no chat: what test suites
                    for WebSocket want to talk to";

/// The longest message that comes back with `--echo`, in bytes.
const MAX_ECHO_BYTES: usize = 16 * 1024 * 1024;

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    let heartbeat = heartbeat::interval_argument(&mut args);
    let limit = args.number("--limit", 1..=MAX_CLIENTS, MAX_CLIENTS);
    let host = args.host();
    let echoes = args.flag("--echo");
    let address = args.address("127.0.0.1:8080");
    args.finish();
    if echoes {
        return echo_all(&address);
    }
    let hosts = [Some(&address), host.as_ref()].into_iter().flatten();
    let hosts = KnownHosts::new(hosts.map(String::as_str));
    Server::open(Rules { limit, heartbeat }, &[Endpoint::Web(address, hosts)])?.run()
}

/// Sends back what comes, to each client in a thread of its own. This mode has
/// no room and no goodbye: Ctrl-C ends the process.
fn echo_all(address: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).map_err(|e| tcp::bind_error(address, &e))?;
    let endpoint = Arc::new(WebEndpoint::new(None));
    tcp::announce(&listener)?;
    for id in 1.. {
        let (stream, peer) = tcp::accept(&listener);
        let endpoint = Arc::clone(&endpoint);
        let thread = thread::Builder::new().name(format!("client {peer}"));
        // The JoinHandle is dropped: the thread ends with its client.
        if let Err(error) = thread.spawn(move || echo(id, &Arc::new(stream), &endpoint)) {
            cli::warn(format_args!("no thread for {peer}: {error}"));
        }
    }
    Ok(())
}

/// Sends every message back as it came. Only the client learns how it ends.
fn echo(id: u64, stream: &Arc<TcpStream>, endpoint: &WebEndpoint) {
    let Some((input, accept)) = endpoint.handshake(id, stream) else { return };
    let mut output = &**stream;
    let mut reader = MessageReader::new(input, MAX_ECHO_BYTES);
    let mut wire = handshake::switching_protocols(&accept);
    while output.write_all(&wire).is_ok() {
        wire.clear();
        match reader.receive() {
            Ok(Received::Text(text)) => append_frame(Opcode::Text, text, &mut wire),
            Ok(Received::Binary(bytes)) => append_frame(Opcode::Binary, bytes, &mut wire),
            Ok(Received::Ping(payload)) => append_frame(Opcode::Pong, payload, &mut wire),
            Ok(Received::Pong | Received::Fragment) => {}
            Ok(Received::Close(code)) => {
                return send_last(stream, &close_frame(code.unwrap_or(frame::NORMAL_CLOSURE)));
            }
            Err(Error::Protocol(code, _)) => return send_last(stream, &close_frame(code)),
            Err(Error::Io(_)) => return,
        }
    }
}
