//! Step 01: a server that says hello. Contract: lessons/PROTOCOL.md, section 1.

use std::env;
use std::io::Write;
use std::net::TcpListener;
use std::process::exit;

const USAGE: &str = "usage: my_01 [ADDRESS]
  ADDRESS  HOST:PORT to listen on, 127.0.0.1:12345 if not given";

/// What can't be understood: a line that names it, the usage, and exit status 2.
fn refuse(line: &str) -> ! {
    eprintln!("{line}\n\n{USAGE}");
    exit(2);
}

/// Binds and listens, and prints where, or says in one line why it can't.
fn listen(address: &str) -> TcpListener {
    // The port follows the last colon, because an IPv6 host has colons, too.
    let is_address = address.rsplit_once(':').is_some_and(|(host, port)| {
        let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
        !host.is_empty() && is_number && port.parse::<u16>().is_ok()
    });
    if !is_address {
        refuse(&format!("an address is HOST:PORT, such as 127.0.0.1:12345, not {address}"));
    }
    // bind() also listens, and sets SO_REUSEADDR.
    let bound = TcpListener::bind(address).and_then(|l| Ok((l.local_addr()?, l)));
    match bound {
        Ok((place, listener)) => {
            // Standard output is flushed at each line end.
            println!("listening on {place}");
            listener
        }
        Err(error) => {
            eprintln!(
                "cannot listen on {address}: {error}. Who has the port: ss -tlnp. Or choose another port."
            );
            exit(1);
        }
    }
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "-h" || arg == "--help") {
        println!("{USAGE}");
        return;
    }
    if let Some(option) = args.iter().find(|arg| arg.starts_with('-')) {
        refuse(&format!("unknown option {option}"));
    }
    if let Some(surplus) = args.get(1) {
        refuse(&format!("unexpected argument {surplus}"));
    }
    let listener = listen(args.first().map_or("127.0.0.1:12345", String::as_str));
    for stream in listener.incoming() {
        // At the end of each round the stream is dropped, and that closes it.
        let greeted = stream.and_then(|mut s| s.write_all(b"hello from 01_bind_listen\n"));
        if let Err(error) = greeted {
            // This client may be gone already. That must not end the server.
            eprintln!("a client was lost: {error}");
        }
    }
}
