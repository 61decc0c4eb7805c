//! A server with a room: its doors, its stop.
//!
//! Introduced by step 07; used by all that follow.

use crate::chat::room::{Event, MAX_EVENTS, Room, Rules};
use crate::chat::session::{Lobby, LoginCheck};
use crate::cli::{self, Failure};
use crate::net::tcp;
use crate::stop::Stop;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

/// One way into the room.
pub struct Entrance<'a> {
    /// Where it is.
    pub address: &'a str,
    /// What becomes of a newcomer, who gets this number.
    pub welcome: fn(u64, TcpStream, &Lobby),
    /// The line that says where it is.
    pub sign: fn(SocketAddr) -> String,
}

/// A room with open doors.
pub struct Server {
    stop: Stop,
    lobby: Lobby,
    room: JoinHandle<()>,
    stopping: Arc<AtomicBool>,
    /// Each with the address where it is.
    doors: Vec<(SocketAddr, JoinHandle<()>)>,
}

impl Server {
    /// Opens a room with these entrances, and prints where they are.
    ///
    /// # Errors
    ///
    /// One line: where nothing can listen, and what to try.
    pub fn open(
        rules: Rules,
        logins: Option<Arc<LoginCheck>>,
        entrances: &[Entrance],
    ) -> Result<Server, Failure> {
        let stop = Stop::prepare()?;
        let mut listeners = Vec::new();
        for Entrance { address, welcome, sign } in entrances {
            let listener =
                TcpListener::bind(address).map_err(|e| tcp::cannot_listen(address, &e))?;
            listeners.push((listener, *welcome, *sign));
        }
        let (events, inbox) = mpsc::sync_channel(MAX_EVENTS);
        let lobby = Lobby { room: events, logins };
        let room = Room::new(rules);
        let room = thread::Builder::new().name("room".into()).spawn(move || room.run(&inbox))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let ids = Arc::new(AtomicU64::new(1));
        let mut doors = Vec::new();
        for (listener, welcome, sign) in listeners {
            let here = listener.local_addr()?;
            cli::print(&sign(here))?;
            let (stopping, ids, lobby) = (Arc::clone(&stopping), Arc::clone(&ids), lobby.clone());
            let door = thread::Builder::new().name("door".into()).spawn(move || {
                loop {
                    let (stream, _) = tcp::accept(&listener);
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    welcome(ids.fetch_add(1, Ordering::Relaxed), stream, &lobby);
                }
            })?;
            doors.push((here, door));
        }
        Ok(Server { stop, lobby, room, stopping, doors })
    }

    /// Where its doors are.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.doors.iter().map(|(here, _)| *here).collect()
    }

    /// Serves until it is asked to stop, then closes.
    ///
    /// # Errors
    ///
    /// Those of [`close`](Server::close).
    pub fn run(mut self) -> Result<(), Failure> {
        self.wait_for_stop();
        self.close()
    }

    /// Sleeps until the server is asked to stop.
    pub fn wait_for_stop(&mut self) {
        self.stop.wait();
    }

    /// Says goodbye to all clients, closes the listeners, and prints `bye`.
    ///
    /// # Errors
    ///
    /// That of printing, and a thread that has panicked.
    pub fn close(self) -> Result<(), Failure> {
        self.stopping.store(true, Ordering::Relaxed);
        let panicked = || Failure::new("a thread of the server has panicked");
        self.lobby.room.send(Event::Stop).map_err(|_| panicked())?;
        // The room ends when all have had their goodbye and all readers are done.
        self.room.join().map_err(|_| panicked())?;
        for (here, door) in self.doors {
            // It waits for a client that may never come: so one comes.
            if tcp::knock(here).is_ok() {
                door.join().map_err(|_| panicked())?;
            }
        }
        Ok(cli::print("bye")?)
    }
}

/// The first line that a server prints.
pub fn listening_on(address: SocketAddr) -> String {
    format!("listening on {address}")
}
