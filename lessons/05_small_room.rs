use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

enum Event {
    Connected(TcpStream),
    Line(u64, String),
    Left(u64),
}

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:12345".into());
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let (events, inbox) = mpsc::sync_channel(1024);
    let events_of_readers = events.clone();
    thread::spawn(move || room(&inbox, &events_of_readers));
    loop {
        let (stream, _) = listener.accept()?;
        let _ = events.send(Event::Connected(stream));
    }
}

fn room(inbox: &Receiver<Event>, events: &SyncSender<Event>) {
    let mut guests = BTreeMap::new();
    let mut last_id = 0;
    for event in inbox {
        match event {
            Event::Connected(mut stream) => {
                let Ok(reading) = stream.try_clone() else { continue };
                last_id += 1;
                let (id, events) = (last_id, events.clone());
                thread::spawn(move || read_loop(id, reading, &events));
                let _ = stream.write_all(format!("* welcome, guest-{id}\n").as_bytes());
                guests.insert(id, stream);
                tell_others(&guests, id, &format!("* guest-{id} joined\n"));
            }
            Event::Line(id, line) => tell_others(&guests, id, &format!("guest-{id}: {line}\n")),
            Event::Left(id) => {
                guests.remove(&id);
                tell_others(&guests, id, &format!("* guest-{id} left\n"));
            }
        }
    }
}

fn tell_others(guests: &BTreeMap<u64, TcpStream>, sender: u64, text: &str) {
    for (id, mut stream) in guests {
        if *id != sender {
            let _ = stream.write_all(text.as_bytes());
        }
    }
}

fn read_loop(id: u64, stream: TcpStream, events: &SyncSender<Event>) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        let _ = events.send(Event::Line(id, line));
    }
    let _ = events.send(Event::Left(id));
}
