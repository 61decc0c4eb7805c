//! 10: the chat with passwords, and with TLS. Nobody reads along, nobody can
//! be somebody else.
//!
//! Terminal 1:  cargo run --example 10_secure_chat certs lab
//!              cargo run --example 10_secure_chat adduser ann
//!              cargo run --example 10_secure_chat adduser bob
//!              cargo run --example 10_secure_chat serve --tls lab
//! Terminal 2:  cargo run --example 10_secure_chat join ann --ca lab/ca.pem
//! Browser:     http://127.0.0.1:8080/ (log in as bob)
//!
//! ann and bob are in one room, through two doors. Ctrl-C in terminal 1 closes
//! it.
//!
//! New since 09: accounts (accounts.rs), logins that can't be tried without
//! end (login.rs), and TLS by stunnel (tls.rs).
//! Still missing: nothing that the course has promised you.
//!
//! Lesson: lessons/10_secure_chat.md

mod accounts;
mod login;
mod pbkdf2;
mod tls;

use crate::accounts::{Accounts, PASSWORD_BYTES};
use crate::login::Logins;
use crate::tls::{Certificate, Tunnel};
use socket_chat::chat::client;
use socket_chat::chat::message::{Kind, Message};
use socket_chat::chat::room::{Ending, MAX_CLIENTS, Rules};
use socket_chat::chat::server::{Entrance, Server, listening_on};
use socket_chat::chat::session::{self, LoginCheck};
use socket_chat::cli::{self, Args, Failure};
use socket_chat::line::{Found, read_line};
use socket_chat::net::tcp::{self, Connection};
use socket_chat::web::browser;
use socket_chat::web::hosts::KnownHosts;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const USAGE: &str = "\
usage: 10_secure_chat serve [ADDRESS] [--web ADDRESS] [--accounts FILE]
                            [--host NAME]
                            [--tls DIR [--tls-chat ADDRESS] [--tls-web ADDRESS]]
       10_secure_chat join NAME [ADDRESS] [--ca FILE]
       10_secure_chat adduser NAME [--accounts FILE]
       10_secure_chat certs DIR
  serve      opens a room; this is also what no argument at all means
  join       enters it, and asks for the password
  adduser    asks for a password, and adds an account
  certs      makes certificates for a lab: ca.pem, server.pem and server.key
  NAME       up to 32 bytes, no spaces, no commas
  ADDRESS    HOST:PORT: for terminals 127.0.0.1:12345 if not given, for browsers
             (--web) 127.0.0.1:8080. Passwords arrive there in clear, so only
             programs on this machine may come
  --accounts FILE      names and passwords, accounts.txt if not given
  --host NAME          a name of this server in the address bar of a browser,
                       beside localhost and its IP addresses, with any port
  --tls DIR            two more doors, with TLS, which may face the network:
  --tls-chat ADDRESS   for terminals, 127.0.0.1:12346 if not given
  --tls-web ADDRESS    for browsers, 127.0.0.1:8443 if not given
  --ca FILE            join by TLS (then ADDRESS is 127.0.0.1:12346 if not
                       given), and only a server that this authority knows";

/// How long a client may take to log in.
const TIME_TO_LOG_IN: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    match args.role(&["serve", "join", "adduser", "certs"]) {
        "join" => join(args),
        "adduser" => add_user(args),
        "certs" => make_certificates(args),
        _ => serve(args),
    }
}

/// Opens one room with two doors, and two more in front of them with TLS.
fn serve(mut args: Args) -> Result<(), Failure> {
    let web = args.address_of("--web", "127.0.0.1:8080");
    let file = accounts_file(&mut args);
    let host = args.host();
    let tls = args.value("--tls", "a folder with certificates").map(|directory| {
        let chat = args.address_of("--tls-chat", "127.0.0.1:12346");
        let web = args.address_of("--tls-web", "127.0.0.1:8443");
        (directory, chat, web)
    });
    let address = args.address("127.0.0.1:12345");
    args.finish();

    // What can't be is told before a door is open.
    if Accounts::read(&file)?.is_empty() {
        let add = "cargo run --example 10_secure_chat adduser NAME";
        cli::warn(format_args!("{} has no account yet: {add}", file.display()));
    }
    let hosts = [Some(&web), tls.as_ref().map(|(_, _, web)| web), host.as_ref()];
    browser::serve_hosts(KnownHosts::new(hosts.into_iter().flatten().map(String::as_str)));
    let (chat, page) = (only_here(&address)?, only_here(&web)?);
    let tls = tls.map(|(directory, chat, web)| {
        let outside = [tcp::unused(&chat)?, tcp::unused(&web)?];
        Ok::<_, Failure>((Certificate::find(directory.as_ref())?, outside))
    });
    let tls = tls.transpose()?;
    let joining = Some(TIME_TO_LOG_IN);
    let reason = Ending::reason;
    let rules = Rules { limit: MAX_CLIENTS, heartbeat: Some(HEARTBEAT), joining, reason };
    let logins = Logins::new(file);
    let logins: Arc<LoginCheck> =
        Arc::new(move |name: &str, password: &[u8]| logins.attempt(name, password));
    let server = Server::open(
        rules,
        Some(logins),
        &[
            Entrance { address: &chat, welcome: session::welcome, sign: listening_on },
            Entrance { address: &page, welcome: browser::welcome, sign: page_on },
        ],
    )?;
    let tunnel = tls.map(|(certificate, outside)| {
        let doors: Vec<_> = outside.into_iter().zip(server.addresses()).collect();
        let tunnel = Tunnel::in_front(&certificate, &doors)?;
        cli::print(&format!("tls chat on {}", outside[0]))?;
        cli::print(&format!("tls page on https://{}/", outside[1]))?;
        Ok::<_, Failure>(tunnel)
    });
    let tunnel = tunnel.transpose()?;
    server.run()?;
    // Not before: the goodbyes have passed through it.
    drop(tunnel);
    Ok(())
}

fn page_on(address: SocketAddr) -> String {
    format!("page on http://{address}/")
}

/// Refuses an address that other machines can reach.
fn only_here(address: &str) -> Result<String, Failure> {
    let mut all = address.to_socket_addrs().map_err(|e| tcp::cannot_listen(address, &e))?;
    let Some(first) = all.find(|one| one.ip().is_loopback()) else {
        return Err(Failure::new(format!(
            "no door on {address}: passwords would cross the network in clear. Listen on 127.0.0.1 here, and let the network in by TLS: --tls DIR --tls-chat {address}"
        )));
    };
    Ok(first.to_string())
}

/// Enters a room, in clear on this machine or by TLS.
fn join(mut args: Args) -> Result<(), Failure> {
    let ca = args.value("--ca", "the file of an authority's certificate").map(PathBuf::from);
    let name = args.word("NAME");
    let default = if ca.is_some() { "127.0.0.1:12346" } else { "127.0.0.1:12345" };
    let address = args.address(default);
    args.finish();

    let password = ask_password(&name)?;
    let hello = Message::new(Kind::Login, &name, &password);
    if let Some(ca) = ca {
        let (_tunnel, connection) = Tunnel::to(&address, &ca)?;
        return client::talk(connection, &hello);
    }
    let server = "10_secure_chat serve";
    let connection = Connection::open(&address, server)?;
    if !connection.stream().peer_addr()?.ip().is_loopback() {
        return Err(Failure::new(format!(
            "your password was not sent to {address}: it would cross the network in clear. Use TLS: --ca FILE"
        )));
    }
    client::talk(connection, &hello)
}

/// Adds an account.
fn add_user(mut args: Args) -> Result<(), Failure> {
    let file = accounts_file(&mut args);
    let name = args.word("NAME");
    args.finish();
    // What can't be is told before somebody has typed a password for it.
    Accounts::read_without(&file, &name)?;
    Accounts::add(&file, &name, ask_password(&name)?.as_bytes())?;
    Ok(cli::print(&format!("added {name}"))?)
}

fn make_certificates(mut args: Args) -> Result<(), Failure> {
    let directory = args.word("DIR");
    args.finish();
    tls::make_certificates(directory.as_ref())?;
    let made =
        format!("made {directory}/ca.pem, {directory}/server.pem and {directory}/server.key");
    Ok(cli::print(&made)?)
}

fn accounts_file(args: &mut Args) -> PathBuf {
    args.value("--accounts", "a file").unwrap_or_else(|| "accounts.txt".into()).into()
}

/// Asks for a password, and does not show it: nobody is to read it over your
/// shoulder.
fn ask_password(name: &str) -> Result<String, Failure> {
    // That nobody reads the question is no reason to fail.
    let _ = write!(io::stderr(), "password for {name}: ");
    let hidden = if io::stdin().is_terminal() { read_hidden() } else { None };
    let password = hidden.map_or_else(read_first_line, Ok);
    // The Enter was not shown either.
    cli::warn("");
    let password = password?;
    if password.is_empty() {
        return Err(Failure::new("no password was given: type one, and Enter"));
    }
    Ok(password)
}

/// Reads a line that the terminal does not show. None: it can't be hidden here.
///
/// The standard library can't tell a terminal to show nothing, but the command
/// `stty` can. A shell does all of it, so that even Ctrl-C leaves a terminal
/// that shows what is typed.
fn read_hidden() -> Option<String> {
    const READ: &str = r#"stty -echo || exit 2
        trap 'stty echo' EXIT; trap 'exit 1' HUP INT TERM
        IFS= read -r line && printf '%s' "$line""#;
    let mut shell = Command::new("sh");
    shell.args(["-c", READ]).stdin(Stdio::inherit()).stderr(Stdio::inherit());
    let done = shell.output().ok().filter(|done| done.status.code() != Some(2));
    if done.is_none() {
        let _ = write!(io::stderr(), "(it will be seen: there is no `stty`) ");
    }
    Some(String::from_utf8_lossy(&done?.stdout).into_owned())
}

/// Takes the first line of the input; what follows it is typed text.
fn read_first_line() -> Result<String, Failure> {
    let (longest, mut line) = (*PASSWORD_BYTES.end(), Vec::new());
    if read_line(&mut io::stdin().lock(), longest, &mut line)? == Found::LongLine {
        return Err(Failure::new(format!("a password has at most {longest} bytes")));
    }
    String::from_utf8(line).map_err(|_| Failure::new("a password is text, in UTF-8"))
}
