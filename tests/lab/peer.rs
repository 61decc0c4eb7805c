//! The other side of a program's connections.

use super::feed::{End, Feed, Next};
use super::message::Message;
use super::program::Program;
use super::story::{Story, quote};
use super::talk::Sender;
use super::{patience, system};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// What somebody hears: a peer from a server, a person from a screen.
pub struct Receiver {
    pub(super) story: Rc<Story>,
    /// `server --> ann`.
    pub(super) who: String,
    pub(super) feed: Feed,
    /// Lines that came before the one that was listened for.
    aside: RefCell<VecDeque<String>>,
    /// All notices so far: none may come twice.
    notices: RefCell<Vec<String>>,
    /// Messages that came before the one that was listened for.
    pub(super) messages: RefCell<VecDeque<Message>>,
    /// The last that was heard of each name: JOIN or LEAVE.
    pub(super) comings: RefCell<HashMap<Vec<u8>, u8>>,
    /// The name under which it was welcomed.
    pub(super) name: RefCell<Vec<u8>>,
    /// Whether it knows that this connection is over.
    pub(super) is_over: Rc<Cell<bool>>,
}

impl Receiver {
    pub fn new(story: &Rc<Story>, who: String, feed: Feed) -> Receiver {
        let story = Rc::clone(story);
        Receiver {
            story,
            who,
            feed,
            aside: RefCell::default(),
            notices: RefCell::default(),
            messages: RefCell::default(),
            comings: RefCell::default(),
            name: RefCell::default(),
            is_over: Rc::default(),
        }
    }

    /// The next line must be this one.
    #[track_caller]
    pub fn expect_line(&self, line: &str) {
        let expected = format!("{line}\n").into_bytes();
        self.expect(&expected, self.feed.line());
    }

    /// The last line must be this one, with or without its line end, and then
    /// the end of the stream.
    #[track_caller]
    pub fn expect_last_line(&self, line: &str) {
        match self.feed.rest() {
            Next::End(End::Closed, rest)
                if rest.strip_suffix(b"\n").unwrap_or(&rest) == line.as_bytes() =>
            {
                self.story.step(&self.who, format!("{}, end of stream ok", quote(&rest)));
            }
            next => {
                self.expect(format!("{line}\n").as_bytes(), next);
                self.expect_end();
            }
        }
    }

    /// The next bytes must be these.
    #[track_caller]
    pub fn expect_bytes(&self, bytes: &[u8]) {
        self.expect(bytes, self.feed.bytes(bytes.len()));
    }

    #[track_caller]
    fn expect(&self, expected: &[u8], next: Next) {
        match next {
            Next::Some(came) if came == expected => {
                self.story.step(&self.who, format!("{} ok", quote(&came)));
            }
            Next::Some(came) => self.story.mismatch(&self.who, expected, &came),
            Next::End(End::Closed, rest) if !rest.is_empty() => {
                self.story.mismatch(&self.who, expected, &rest)
            }
            Next::End(end, rest) => {
                self.story.fails(&self.who, &quote(expected), &told(&end, &rest))
            }
            Next::Silence(rest) => {
                if self.is_screen() {
                    self.story.also(". Or it was printed, and not flushed");
                }
                self.story.fails(&self.who, &quote(expected), &silence(&rest));
            }
        }
    }

    pub(super) fn is_screen(&self) -> bool {
        self.who.ends_with("screen")
    }

    /// Nothing more may come but the end of the stream.
    #[track_caller]
    pub fn expect_end(&self) {
        let next = self.feed.rest();
        if let Next::Silence(_) = next {
            self.story.because(if self.is_screen() {
                "the program should have ended here, and its output with it"
            } else {
                "the connection is still open: close it when its time is over. (A stream ends for the other side when nobody here has it open any more, or when it is shut down.)"
            });
        }
        match next {
            Next::End(End::Closed, rest) if rest.is_empty() => {
                self.is_over.set(true);
                self.story.step(&self.who, "end of stream ok");
            }
            Next::End(End::Closed, rest) => {
                self.story.step(&self.who, format!("{} <-- here", quote(&rest)));
                self.story.fails(&self.who, "the end of the stream", &quote(&rest));
            }
            Next::End(end, rest) => {
                self.story.fails(&self.who, "the end of the stream", &told(&end, &rest));
            }
            Next::Silence(rest) | Next::Some(rest) => {
                self.story.fails(&self.who, "the end of the stream", &silence(&rest));
            }
        }
    }

    /// The next line *about the same guest* must be this one.
    ///
    /// What one guest does is told in order. What two guests do may be told in
    /// any order, so lines about others are set aside until they are heard.
    #[track_caller]
    pub fn hear(&self, line: &str) {
        let about = subject(line);
        let mut aside = self.aside.borrow_mut();
        if let Some(at) = aside.iter().position(|l| subject(l) == about) {
            let came = aside.remove(at).unwrap_or_default();
            return self.check(line, came);
        }
        loop {
            let Next::Some(bytes) = self.still(line) else { unreachable!() };
            let text = String::from_utf8_lossy(&bytes[..bytes.len() - 1]).into_owned();
            // Where nobody is told to have said it, it can't be set aside.
            if subject(&text) == about || subject(&text).is_empty() {
                if String::from_utf8(bytes.clone()).is_err() {
                    self.story.mismatch(&self.who, format!("{line}\n").as_bytes(), &bytes);
                }
                return self.check(line, text);
            }
            self.story.step(&self.who, format!("{} (for later)", quote(&bytes)));
            aside.push_back(text);
        }
    }

    /// Waits for a line, whatever it says.
    #[track_caller]
    fn still(&self, line: &str) -> Next {
        match self.feed.line() {
            Next::Some(line) => Next::Some(line),
            Next::End(End::Closed, rest) if !rest.is_empty() => {
                self.story.mismatch(&self.who, format!("{line}\n").as_bytes(), &rest)
            }
            Next::End(end, rest) => {
                self.story.fails(&self.who, &quote(line.as_bytes()), &told(&end, &rest))
            }
            Next::Silence(rest) => {
                self.story.fails(&self.who, &quote(line.as_bytes()), &silence(&rest))
            }
        }
    }

    #[track_caller]
    fn check(&self, line: &str, came: String) {
        if came != line {
            let (line, came) = (format!("{line}\n"), format!("{came}\n"));
            self.story.mismatch(&self.who, line.as_bytes(), came.as_bytes());
        }
        self.story.step(&self.who, format!("{} ok", quote(came.as_bytes())));
        if came.starts_with("* ") {
            self.notices.borrow_mut().push(came);
        }
    }

    /// Waits for any line: for those who count rather than compare.
    #[track_caller]
    pub fn any_line(&self, waiting_for: &str) -> Vec<u8> {
        if let Some(line) = self.aside.borrow_mut().pop_front() {
            return line.into_bytes();
        }
        let Next::Some(mut line) = self.still(waiting_for) else { unreachable!() };
        line.pop();
        line
    }

    /// Reads to the end of the stream. Nothing more may come but notices that
    /// were not heard yet: everything else was not meant for this receiver.
    #[track_caller]
    pub fn expect_nothing_more(&self) {
        self.nothing_more(true);
    }

    #[track_caller]
    fn nothing_more(&self, must_end: bool) {
        // A server that does not close once never does: wait for it only once.
        static LEFT_OPEN: AtomicBool = AtomicBool::new(false);
        loop {
            let wait = !must_end && LEFT_OPEN.load(Ordering::Relaxed);
            let wait = if wait { patience() / 10 } else { patience() };
            let line = match self.aside.borrow_mut().pop_front() {
                Some(line) => line,
                None => match self.feed.line_within(wait) {
                    Next::Silence(rest) if rest.is_empty() && !must_end => {
                        LEFT_OPEN.store(true, Ordering::Relaxed);
                        self.story.step(&self.who, "nothing more");
                        return;
                    }
                    Next::Some(line) => {
                        String::from_utf8_lossy(&line[..line.len() - 1]).into_owned()
                    }
                    Next::End(End::Closed, rest) if rest.is_empty() => break,
                    Next::End(end, rest) => {
                        self.story.fails(&self.who, "the end of the stream", &told(&end, &rest))
                    }
                    Next::Silence(rest) => {
                        self.story.because("the connection is still open: close it when the client has closed its half, and everything is sent");
                        self.story.fails(&self.who, "the end of the stream", &silence(&rest))
                    }
                },
            };
            let twice = self.notices.borrow().contains(&line);
            if twice || !line.starts_with("* ") {
                let what = if twice { "a second time" } else { "and should not have come" };
                self.story.fails(
                    &self.who,
                    "nothing more, then the end of the stream",
                    &format!("{} {what}", quote(line.as_bytes())),
                );
            }
            self.notices.borrow_mut().push(line);
        }
        self.is_over.set(true);
        self.story.step(&self.who, "end of stream ok");
    }

    /// Everything that has come so far and was not listened to.
    pub fn so_far(&self) -> Vec<u8> {
        self.feed.so_far()
    }
}

/// Whom a line of a chat server is about: `guest-3` of `guest-3: hello` and of
/// `* guest-3 left (2 here)`. Empty where it has no such form.
fn subject(line: &str) -> &str {
    if line.starts_with("! ") {
        return "!";
    }
    let name = match line.strip_prefix("* ") {
        Some(notice) => notice.split([' ', ',']).next(),
        None => line.split_once(": ").map(|(name, _)| name).filter(|n| !n.contains(' ')),
    };
    name.unwrap_or("")
}

pub(super) fn told(end: &End, rest: &[u8]) -> String {
    let end = match end {
        End::Closed => "the end of the stream",
        End::Failed(why) | End::Flooded(why) => why,
    };
    if rest.is_empty() { end.to_string() } else { format!("{}, then {end}", quote(rest)) }
}

pub(super) fn silence(rest: &[u8]) -> String {
    let seconds = patience().as_secs();
    let but = if rest.is_empty() { String::new() } else { format!(", but {}", quote(rest)) };
    format!("nothing for {seconds} s{but}")
}

/// The other side of one connection. It reads all the time, in a thread of its
/// own: nobody ever waits for it.
pub struct Peer {
    receiving: Receiver,
    me: String,
    other: &'static str,
    pub stream: TcpStream,
    sending: Arc<Sender>,
}

impl Deref for Peer {
    type Target = Receiver;

    fn deref(&self) -> &Receiver {
        &self.receiving
    }
}

impl Peer {
    pub fn new(story: &Rc<Story>, me: &str, other: &'static str, stream: TcpStream) -> Peer {
        Peer::with(story, me, other, stream, |stream, _| Feed::new(stream))
    }

    /// With another kind of reader.
    pub(super) fn with(
        story: &Rc<Story>,
        me: &str,
        other: &'static str,
        stream: TcpStream,
        feed: impl FnOnce(TcpStream, Arc<Sender>) -> Feed,
    ) -> Peer {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(None).unwrap();
        stream.set_write_timeout(Some(patience())).unwrap();
        let sending = Arc::new(Sender::new(stream.try_clone().unwrap()));
        let feed = feed(stream.try_clone().unwrap(), Arc::clone(&sending));
        let receiving = Receiver::new(story, format!("{other} --> {me}"), feed);
        if other == "server" {
            story.is_connected(me, &receiving.feed, &receiving.is_over);
        }
        Peer { receiving, me: me.to_string(), other, stream, sending }
    }

    /// Sends bytes, in one piece if they are few.
    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.sends(quote(bytes), bytes);
    }

    /// Sends bytes, told as `what`.
    #[track_caller]
    pub fn sends(&self, what: impl Into<String>, bytes: &[u8]) {
        let who = format!("{} --> {}", self.me, self.other);
        self.receiving.story.step(&who, what);
        if let Err(e) = self.sending.send(bytes) {
            let expected = format!("the {} takes what {} sends", self.other, self.me);
            self.receiving.story.fails(&who, &expected, &e.to_string());
        }
    }

    /// Sends bytes, and waits until the program has read them: what comes
    /// next is found by another read.
    #[track_caller]
    pub fn send_piece(&self, bytes: impl AsRef<[u8]>) {
        self.send(bytes);
        system::drained(&self.stream);
    }

    /// Closes the sending half: there will be no more from here.
    pub fn close_sending(&self) {
        let who = format!("{} --> {}", self.me, self.other);
        self.receiving.is_over.set(true);
        self.receiving.story.step(who, "end of stream");
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes the sending half and reads to the end, where nothing more may come.
    /// That the end comes is a rule of its own: here its absence costs nothing.
    #[track_caller]
    pub fn leave(&self) {
        self.close_sending();
        self.receiving.nothing_more(false);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The reading thread has the stream too: dropping ours closes nothing.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Where the test is the server of a client.
pub struct MockServer {
    pub(super) story: Rc<Story>,
    pub address: String,
    /// What is told where nobody comes.
    pub awaited: String,
    accepted: mpsc::Receiver<TcpStream>,
}

impl MockServer {
    pub fn open(story: &Rc<Story>, address: &str) -> MockServer {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (send, accepted) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if send.send(stream).is_err() {
                    return;
                }
            }
        });
        let awaited = format!("a connection to {address}");
        MockServer { story: Rc::clone(story), address, awaited, accepted }
    }

    /// Waits for the client to connect.
    #[track_caller]
    pub fn accept(&self) -> Peer {
        Peer::new(&self.story, "server", "client", self.accept_stream())
    }

    /// The same, but leaves the reading (or not reading) to the test.
    #[track_caller]
    pub fn accept_stream(&self) -> TcpStream {
        let until = Instant::now() + patience() * 3;
        loop {
            // A client that has ended does not come any more.
            let is_last = Instant::now() > until || self.story.client_has_ended();
            if let Ok(stream) = self.accepted.recv_timeout(Duration::from_millis(100)) {
                self.story.step("client", "connects");
                return stream;
            }
            if is_last {
                self.story.fails("client --> server", &self.awaited, "none");
            }
        }
    }
}

/// Joins a chat room of step 05 as its `number`th guest, of whom `here` are
/// here then, and waits for the greeting.
#[track_caller]
pub fn join(server: &Program, name: &str, number: usize, here: usize) -> Peer {
    let peer = server.connect(name);
    peer.expect_line(&format!("* welcome, guest-{number} ({here} here)"));
    peer
}

/// Fills an empty room of step 05: each has heard all that the others joined.
#[track_caller]
pub fn gather<const N: usize>(server: &Program, names: [&str; N]) -> [Peer; N] {
    let mut peers: Vec<Peer> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let peer = join(server, name, i + 1, i + 1);
        for other in &peers {
            other.hear(&format!("* guest-{} joined ({} here)", i + 1, i + 1));
        }
        peers.push(peer);
    }
    peers.try_into().unwrap_or_else(|_| unreachable!())
}

/// A line without an end must not pile up in a client's memory.
#[track_caller]
pub fn endless_line(story: &Story, client: &Program, server: &Peer) {
    const MUCH: usize = 20_000_000;
    story.because("a client takes lines up to 64 KiB, and cuts or splits what is longer: one that waits for the line end without a limit keeps whatever a server sends, until its memory is full");
    let x = vec![b'x'; 64 * 1024];
    let sends = |bytes: usize| {
        let mut sent = 0;
        while sent < bytes {
            // It may stop reading, too: then nothing piles up in it.
            match (&server.stream).write(&x) {
                Ok(count) => sent += count,
                Err(_) => return false,
            }
        }
        system::drained(&server.stream);
        true
    };
    server.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let reads = sends(MUCH / 20);
    // Not for a program whose memory comes and goes by the hundred megabytes.
    let before = system::memory(client.pid()).filter(|before| *before < 32_000_000);
    if let Some(before) = before.filter(|_| reads && sends(MUCH)) {
        let grown = system::memory(client.pid()).unwrap_or(0).saturating_sub(before);
        story.step("server --> client", format!("a line of {MUCH} bytes, and no end of it"));
        if grown > MUCH / 2 {
            let grown = format!("its memory has grown by {grown} bytes");
            story.fails("server --> client", "at most 64 KiB of a line kept in memory", &grown);
        }
    }
}

/// What every client does with its arguments: those of every program, and a
/// connection by name, and over IPv6 where the machine has it. Standard output
/// has only what the server said.
#[track_caller]
pub fn client_arguments(story: &Rc<Story>, program: &str) {
    story.together(|| {
        story.usual_arguments(program);
        story.run(program, &["127.0.0.1:1", "surplus"]).usage_error_about("surplus");
    });

    let named = MockServer::open(story, "127.0.0.1:0");
    let mut mock_servers = vec![(named.address.replace("127.0.0.1", "localhost"), named)];
    if system::has_ipv6() {
        let six = MockServer::open(story, "[::1]:0");
        mock_servers.push((six.address.clone(), six));
    }
    for (address, mock_server) in mock_servers {
        let client = story.client(program, &address);
        let server = mock_server.accept();
        client.ends_input();
        server.expect_end();
        server.send("only this\n");
        drop(server);
        client.screen.expect_line("only this");
        client.screen.expect_end();
        client.expect_exit(0);
    }
}
