//! 10: the chat with passwords and with TLS. Nobody on the network can read it,
//! and nobody can take the name of another person.
//!
//! Terminal 1:  cargo run --example 10_secure_chat certs lab
//!              cargo run --example 10_secure_chat adduser ann
//!              cargo run --example 10_secure_chat adduser bob
//!              cargo run --example 10_secure_chat serve --tls lab
//! Terminal 2:  cargo run --example 10_secure_chat join ann --ca lab/ca.pem
//! Browser:     http://127.0.0.1:8080/ (log in as bob)
//!
//! ann and bob are in one room, by two listeners. Ctrl-C in terminal 1 closes
//! it.
//!
//! New since 09: accounts (accounts.rs, password_hash.rs), a fair queue for
//! logins (login.rs, login_order.rs, login_names.rs), and TLS by stunnel (tls.rs, stunnel.rs).
//! This is the last step. With --nats several servers share one room: link.rs,
//! cluster.rs and nats.rs, explained in lessons/11_beyond.md.
//!
//! Lesson: lessons/10_secure_chat.md

mod accounts;
mod accounts_file;
mod certificates;
mod cluster;
mod files;
mod link;
mod login;
mod login_names;
mod login_order;
mod nats;
mod password;
mod password_hash;
mod pbkdf2;
mod stunnel;
mod stunnel_log;
mod tls;

use crate::accounts::Accounts;
use crate::accounts_file::AccountsFile;
use crate::certificates::Certificate;
use crate::login::LoginQueue;
use crate::tls::TlsListeners;
use socket_chat::chat::client;
use socket_chat::chat::message::{Kind, Message};
use socket_chat::chat::names::check_name;
use socket_chat::chat::room::{MAX_CLIENTS, Rules};
use socket_chat::chat::room_handle::{LoginAttempt, LoginCheck};
use socket_chat::chat::server::{Endpoint, Server};
use socket_chat::cli::{self, Args, Failure};
use socket_chat::net::connection::Connection;
use socket_chat::net::tcp;
use socket_chat::web::hosts::KnownHosts;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const USAGE: &str = "\
usage: 10_secure_chat serve [ADDRESS] [--web ADDRESS] [--accounts FILE]
                            [--host NAME]
                            [--tls DIR [--tls-chat ADDRESS] [--tls-web ADDRESS]]
                            [--nats ADDRESS [--nats-ca FILE]
                             [--nats-heartbeat-ms N]]
       10_secure_chat join NAME [ADDRESS] [--ca FILE]
       10_secure_chat adduser NAME [--accounts FILE]
       10_secure_chat certs DIR
  serve      opens a room; without any argument the program does this, too
  join       asks for the password, and enters a room
  adduser    asks for a password, and adds an account
  certs      makes certificates for a lab: ca.pem, server.pem and server.key
  NAME       1 to 32 bytes, without spaces, commas and control characters
  ADDRESS    HOST:PORT to listen on for terminals, 127.0.0.1:12345 if not given.
             Passwords arrive there without encryption, so it must be an address
             that only this machine can reach, and so must that of --web
  --web ADDRESS        for browsers, 127.0.0.1:8080 if not given
  --accounts FILE      names and hashed passwords, accounts.txt if not given
  --host NAME          a name of this server in the address bar of a browser,
                       beside localhost and its IP addresses, with any port
  --tls DIR            two more listeners, with TLS and the certificate in DIR,
                       for the network. With the usual limit of 1024 open files
                       (ulimit -n) they take about 500 clients
  --tls-chat ADDRESS   for terminals, 127.0.0.1:12346 if not given
  --tls-web ADDRESS    for browsers, 127.0.0.1:8443 if not given
  --nats ADDRESS       one room with other servers, through the NATS server there
  --nats-ca FILE       reach NATS by TLS: the authority in FILE has signed it
  --nats-heartbeat-ms N  how often a server tells the others who is here, 50 to
                       3600000 milliseconds, 3000 if not given
  --ca FILE            join by TLS (then ADDRESS is 127.0.0.1:12346 if not
                       given) a server that the authority in FILE has signed";

/// How long a client may be silent before it is asked for a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Failure> {
    let mut args = Args::new(USAGE);
    match args.subcommand(&["serve", "join", "adduser", "certs"]) {
        "join" => join(args),
        "adduser" => add_user(args),
        "certs" => make_certificates(args),
        _ => serve(args),
    }
}

/// The values of `--tls` and its options.
struct TlsOptions {
    directory: String,
    chat: String,
    web: String,
}

/// Opens one room with two listeners, and two more with TLS in front of them.
fn serve(mut args: Args) -> Result<(), Failure> {
    let web = args.address_of("--web", "127.0.0.1:8080");
    let accounts = accounts_path(&mut args);
    let host = args.host();
    let tls = tls_options(&mut args);
    let nats = nats_options(&mut args);
    let address = args.address("127.0.0.1:12345");
    args.finish();

    // All that can go wrong is checked before the first listener is open.
    let file = AccountsFile::open(accounts.clone())?;
    if file.current().is_empty() {
        let add = "cargo run --example 10_secure_chat adduser NAME";
        cli::warn(format_args!("{} has no account yet: {add}", accounts.display()));
    }
    let hosts = [Some(&web), tls.as_ref().map(|tls| &tls.web), host.as_ref()];
    let hosts = KnownHosts::new(hosts.into_iter().flatten().map(String::as_str));
    let (chat, page) = (loopback(&address)?, loopback(&web)?);
    let tls = tls.map(|options| {
        let outside = [tcp::free_address(&options.chat)?, tcp::free_address(&options.web)?];
        Ok::<_, Failure>((Certificate::find(options.directory.as_ref())?, outside))
    });
    let tls = tls.transpose()?;
    if let Some(link::Options { address, ca: None, .. }) = &nats {
        check_nats_address(address)?;
    }

    let rules = Rules { limit: MAX_CLIENTS, heartbeat: HEARTBEAT };
    let logins = Arc::new(LoginQueue::new(file));
    let queue = Arc::clone(&logins);
    let check: Arc<LoginCheck> = Arc::new(move |attempt: &LoginAttempt| queue.attempt(attempt));
    let endpoints = [Endpoint::Tcp(chat), Endpoint::Web(page, hosts)];
    let mut server = Server::open_with_login(rules, check, &endpoints)?;
    cli::print(&format!("page on http://{}/", server.addresses()[1]))?;
    let tls = tls.map(|(certificate, outside)| {
        let pairs: Vec<_> = outside.into_iter().zip(server.addresses()).collect();
        let listeners = TlsListeners::open(&certificate, &pairs)?;
        cli::print(&format!("tls chat on {}", outside[0]))?;
        cli::print(&format!("tls page on https://{}/", outside[1]))?;
        Ok::<_, Failure>(listeners)
    });
    let tls = tls.transpose()?;
    if let Some(options) = nats {
        link::open(options, server.room())?;
    }

    server.wait_for_stop();
    // The server waits for all sessions, so none may wait for its turn.
    logins.close();
    let closed = server.close();
    // Only now, because the goodbyes have passed through stunnel.
    drop(tls);
    closed
}

/// Takes the options about TLS. None: there is no `--tls`.
fn tls_options(args: &mut Args) -> Option<TlsOptions> {
    let Some(directory) = args.value("--tls", "a folder with certificates") else {
        for option in ["--tls-chat", "--tls-web"] {
            if args.value(option, "an address").is_some() {
                args.refuse(&format!("{option} needs --tls DIR, too: the certificate is there"));
            }
        }
        return None;
    };
    let chat = args.address_of("--tls-chat", "127.0.0.1:12346");
    let web = args.address_of("--tls-web", "127.0.0.1:8443");
    Some(TlsOptions { directory, chat, web })
}

/// Takes the options about NATS. None: there is no `--nats`.
fn nats_options(args: &mut Args) -> Option<link::Options> {
    let ca = args.value("--nats-ca", "the file of an authority's certificate").map(PathBuf::from);
    let interval = args.number("--nats-heartbeat-ms", 50..=3_600_000, 3000);
    let heartbeat = Duration::from_millis(interval as u64);
    let address = args.address_of("--nats", "");
    if address.is_empty() {
        if ca.is_some() {
            args.refuse("--nats-ca needs --nats ADDRESS, too: NATS is there");
        }
        return None;
    }
    Some(link::Options { address, ca, heartbeat })
}

/// Refuses a NATS server that can't be reached without crossing the network.
fn check_nats_address(address: &str) -> Result<(), Failure> {
    // A name that is unknown now may be known later: that is tried again.
    let addresses = address.to_socket_addrs();
    if addresses.is_ok_and(|mut all| all.any(|one| !one.ip().is_loopback())) {
        return Err(Failure::new(format!(
            "cannot use NATS at {address} without TLS: what is said would cross the network without encryption. Use TLS: --nats-ca FILE"
        )));
    }
    Ok(())
}

/// Refuses an address that other machines can reach.
fn loopback(address: &str) -> Result<String, Failure> {
    let mut all = address.to_socket_addrs().map_err(|e| tcp::bind_error(address, &e))?;
    let Some(first) = all.find(|one| one.ip().is_loopback()) else {
        return Err(Failure::new(format!(
            "cannot listen on {address} without TLS: passwords would cross the network without encryption. Listen on 127.0.0.1 here, and let the network in by TLS: --tls DIR --tls-chat {address}"
        )));
    };
    Ok(first.to_string())
}

/// Enters a room: by TLS, or without it on this machine.
fn join(mut args: Args) -> Result<(), Failure> {
    let ca = args.value("--ca", "the file of an authority's certificate").map(PathBuf::from);
    let name = args.positional("NAME");
    let default = if ca.is_some() { "127.0.0.1:12346" } else { "127.0.0.1:12345" };
    let address = args.address(default);
    args.finish();

    check_name(&name).map_err(Failure::new)?;
    let password = password::ask(&name)?;
    let hello = Message::new(Kind::Login, &name, &password);
    if let Some(ca) = ca {
        let (_stunnel, connection) = tls::connect(&address, &ca)?;
        return client::chat_on(connection, &hello);
    }
    let connection = Connection::open(&address, "10_secure_chat serve")?;
    if !connection.stream().peer_addr()?.ip().is_loopback() {
        return Err(Failure::new(format!(
            "your password was not sent to {address}: it would cross the network without encryption. Use TLS: --ca FILE"
        )));
    }
    client::chat_on(connection, &hello)
}

/// Adds an account.
fn add_user(mut args: Args) -> Result<(), Failure> {
    let file = accounts_path(&mut args);
    let name = args.positional("NAME");
    args.finish();
    // The name is checked before somebody has typed a password for it.
    Accounts::read_without(&file, &name)?;
    Accounts::add(&file, &name, password::ask(&name)?.as_bytes())?;
    Ok(cli::print(&format!("added {name}"))?)
}

fn make_certificates(mut args: Args) -> Result<(), Failure> {
    let directory = args.positional("DIR");
    args.finish();
    certificates::make(Path::new(&directory))?;
    let made =
        format!("made {directory}/ca.pem, {directory}/server.pem and {directory}/server.key");
    Ok(cli::print(&made)?)
}

fn accounts_path(args: &mut Args) -> PathBuf {
    args.value("--accounts", "a file").unwrap_or_else(|| "accounts.txt".into()).into()
}
