//! Step 05: a chat room for many, to be finished.
//! Contract: lessons/PROTOCOL.md, section 2, "05, the room".

use std::collections::HashMap;
use std::env;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::exit;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

const USAGE: &str = "usage: my_05 [ADDRESS] [--limit N]
  ADDRESS    HOST:PORT to listen on, 127.0.0.1:12345 if not given
  --limit N  the most guests at once, 1 to 10000, 10000 if not given";

/// What has happened. Where there is a number, it is the guest's.
enum Event {
    Arrived(TcpStream),
    #[allow(dead_code)] // until readers send it
    Line(u64, Vec<u8>),
    Left(u64),
}

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

/// The only thread that knows who is here: so it needs no lock.
fn room(limit: usize, inbox: &Receiver<Event>, events: &SyncSender<Event>) {
    let mut guests: HashMap<u64, TcpStream> = HashMap::new();
    let mut last = 0;
    for event in inbox {
        match event {
            Event::Arrived(_) if guests.len() >= limit => {
                // TODO 1. Tell it that the room is full. It uses up no number.
            }
            Event::Arrived(stream) => {
                let Ok(input) = stream.try_clone() else { continue };
                last += 1;
                let number = last;
                guests.insert(number, stream);
                // TODO 2. Greet it, and tell the others.
                let events = events.clone();
                thread::spawn(move || read_from(number, input, &events));
            }
            Event::Line(_number, _line) => {
                // TODO 3. Everybody else gets `guest-N: the line`, cleaned of what may not pass.
                // TODO 4. A guest that does not read must not hold up this thread. Each guest needs
                //         a queue of at most 1 MiB and a thread that writes. A full queue: it is out.
            }
            Event::Left(number) => {
                guests.remove(&number);
                // TODO 5. Tell the others.
            }
        }
    }
}

/// Turns the bytes of one guest into events.
fn read_from(number: u64, mut input: TcpStream, events: &SyncSender<Event>) {
    let mut bytes = vec![0; 65536];
    // A reset ends a guest as the end of its stream does.
    while let Ok(1..) = input.read(&mut bytes) {
        // TODO 6. Collect the bytes up to LF, drop a CR before it, and send Event::Line.
        //         A line of over 4096 bytes is answered once, and thrown away up to its LF.
    }
    // If the room has ended, there is nobody to tell.
    let _ = events.send(Event::Left(number));
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "-h" || arg == "--help") {
        println!("{USAGE}");
        return;
    }
    let mut address = None;
    let mut limit = 10_000;
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "--limit" {
            let Some(number) = words.next() else {
                refuse("the number after --limit is missing");
            };
            match number.parse() {
                Ok(number @ 1..=10_000) => limit = number,
                _ => refuse(&format!("--limit must be a number from 1 to 10000, not {number}")),
            }
        } else if word.starts_with('-') {
            refuse(&format!("unknown option {word}"));
        } else if address.is_some() {
            refuse(&format!("unexpected argument {word}"));
        } else {
            address = Some(word);
        }
    }
    let listener = listen(address.map_or("127.0.0.1:12345", String::as_str));
    // When it is full, the readers wait, and stop reading.
    let (events, inbox) = sync_channel(1024);
    let for_readers = events.clone();
    thread::spawn(move || room(limit, &inbox, &for_readers));
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => drop(events.send(Event::Arrived(stream))),
            Err(error) => eprintln!("cannot accept a client: {error}"),
        }
    }
}
