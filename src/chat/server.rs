//! A server with a room: its listeners, and how it closes.
//!
//! Introduced by step 07, and used by all later steps.
//!
//! Lesson: [07_disconnects](../../../../../lessons/07_disconnects.md).

use crate::chat::room::{Room, Rules};
use crate::chat::room_handle::{Event, LoginCheck, RoomHandle};
use crate::chat::session;
use crate::chat::web_session::{self, WebEndpoint};
use crate::cli::{self, Failure};
use crate::net::tcp;
use crate::stop::Stop;
use crate::web::hosts::KnownHosts;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// Where clients can connect, and which transport they use there.
#[derive(Clone)]
pub enum Endpoint {
    /// Messages on TCP, at this address.
    Tcp(String),
    /// The page and a WebSocket, at this address, for requests that name one of
    /// these hosts.
    Web(String, KnownHosts),
}

/// A room with its listeners.
pub struct Server {
    stop: Stop,
    room: RoomHandle,
    room_thread: JoinHandle<()>,
    stopping: Arc<AtomicBool>,
    /// The threads that accept clients, each with the address of its listener.
    acceptors: Vec<(SocketAddr, JoinHandle<()>)>,
}

impl Server {
    /// Opens a room, and listens at these endpoints. Prints `listening on` with
    /// the address of the first one.
    ///
    /// # Errors
    ///
    /// One line: nothing can listen at an address, and what to try.
    pub fn open(rules: Rules, endpoints: &[Endpoint]) -> Result<Server, Failure> {
        Server::start(rules, None, endpoints)
    }

    /// The same for a room that only clients with a password can join.
    ///
    /// # Errors
    ///
    /// As [`open`](Server::open).
    pub fn open_with_login(
        rules: Rules,
        login_check: Arc<LoginCheck>,
        endpoints: &[Endpoint],
    ) -> Result<Server, Failure> {
        Server::start(rules, Some(login_check), endpoints)
    }

    fn start(
        rules: Rules,
        login_check: Option<Arc<LoginCheck>>,
        endpoints: &[Endpoint],
    ) -> Result<Server, Failure> {
        let stop = Stop::prepare()?;
        let mut listeners = Vec::new();
        for endpoint in endpoints {
            let (Endpoint::Tcp(address) | Endpoint::Web(address, _)) = endpoint;
            let listener = TcpListener::bind(address).map_err(|e| tcp::bind_error(address, &e))?;
            listeners.push((listener, endpoint.clone()));
        }
        let (mut room, room_thread) = Room::with_rules(rules).start()?;
        room.login_check = login_check;
        let stopping = Arc::new(AtomicBool::new(false));
        let mut server = Server { stop, room, room_thread, stopping, acceptors: Vec::new() };
        let next_id = Arc::new(AtomicU64::new(1));
        for (listener, endpoint) in listeners {
            if server.acceptors.is_empty() {
                tcp::announce(&listener)?;
            }
            server.accept_on(listener, endpoint, Arc::clone(&next_id))?;
        }
        Ok(server)
    }

    /// Starts the thread that accepts the clients of one listener.
    fn accept_on(
        &mut self,
        listener: TcpListener,
        endpoint: Endpoint,
        next_id: Arc<AtomicU64>,
    ) -> Result<(), Failure> {
        let address = listener.local_addr()?;
        let (stopping, room) = (Arc::clone(&self.stopping), self.room.clone());
        let web = match endpoint {
            Endpoint::Tcp(_) => None,
            Endpoint::Web(_, hosts) => Some(Arc::new(WebEndpoint::new(Some(hosts)))),
        };
        let thread = thread::Builder::new().name("acceptor".into()).spawn(move || {
            loop {
                let (stream, _) = tcp::accept(&listener);
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let id = next_id.fetch_add(1, Ordering::Relaxed);
                match &web {
                    None => session::spawn(id, stream, &room),
                    Some(web) => web_session::spawn(id, stream, &room, web),
                }
            }
        })?;
        self.acceptors.push((address, thread));
        Ok(())
    }

    /// The addresses of the listeners, in the order of the endpoints.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.acceptors.iter().map(|(address, _)| *address).collect()
    }

    /// The way to the room, for a thread of your own. When the server closes, it
    /// waits up to 2 s until that thread has dropped the handle.
    pub fn room(&self) -> RoomHandle {
        self.room.clone()
    }

    /// Serves until it is asked to stop, and has said goodbye.
    ///
    /// # Errors
    ///
    /// A thread has panicked.
    pub fn run(mut self) -> Result<(), Failure> {
        self.wait_for_stop();
        self.close()
    }

    /// Sleeps until the server is asked to stop.
    pub fn wait_for_stop(&mut self) {
        self.stop.wait();
    }

    /// Says goodbye to all clients, waits up to 2 s for them to close, and
    /// prints `bye`.
    ///
    /// # Errors
    ///
    /// A thread has panicked.
    pub fn close(self) -> Result<(), Failure> {
        let panicked = || Failure::new("a thread of the server has panicked");
        self.stopping.store(true, Ordering::Relaxed);
        self.room.tell(Event::Stop);
        for (address, thread) in self.acceptors {
            // The acceptor waits for a client, and none may ever come: so the
            // server connects to itself.
            if tcp::wake_acceptor(address).is_ok() {
                thread.join().map_err(|_| panicked())?;
            }
        }
        // The room waits for all handles to be dropped, and so for all readers.
        drop(self.room);
        self.room_thread.join().map_err(|_| panicked())?;
        // If nobody reads the output, that is no reason to fail: all is done.
        let _ = cli::print("bye");
        Ok(())
    }
}
