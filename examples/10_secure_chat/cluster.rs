//! Several servers that share one room: what they tell each other, and what
//! follows from it for the members here.
//!
//! Knows messages, no sockets. Introduced by lesson 11. What is told may be
//! lost, so each server repeats the list of its members at each heartbeat, and
//! numbers what they say: then the lists come together by themselves, and the
//! number of lost messages is known exactly.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+---------------+---------------+
//! |          magic "CR"           |  version (1)  |     kind      |
//! +-------------------------------+---------------+---------------+
//! |           id of the server: a random number (64 bits)         |
//! |                                                               |
//! +---------------------------------------------------------------+
//! |          TEXT messages of this server before this payload     |
//! |          (64 bits)                                            |
//! +---------------------------------------------------------------+
//! |  messages, as of step 06, one after the other ...             |
//! +---------------------------------------------------------------+
//! ```
//!
//! Lesson: lessons/11_beyond.md

use socket_chat::chat::decode::whole_length;
use socket_chat::chat::heartbeat::{Check, Pulse};
use socket_chat::chat::message::{Kind, MAX_BODY_BYTES, Message};
use socket_chat::chat::names::check_name;
use socket_chat::chat::room::MAX_CLIENTS;
use socket_chat::chat::room_handle::Remote;
use socket_chat::line::clean;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// The largest payload, in bytes: a list of 10,000 members has half of them.
/// NATS takes as many if nobody has changed `max_payload`.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;

/// A payload with what has happened is closed when it has so many bytes.
const EVENTS_BYTES: usize = 64 * 1024;

/// The most servers that one room can have.
const MAX_SERVERS: usize = 32;

const MAGIC: [u8; 3] = *b"CR\x01";
const HEADER_BYTES: usize = 20;

/// What the messages in a payload are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Content {
    /// JOIN, TEXT and LEAVE messages: what has happened.
    Events = 1,
    /// A JOIN message for each member: all who are here.
    Members,
    /// The same, and all other servers are asked for theirs.
    Hello,
}

/// A member, as its server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: String,
    /// When it has joined, in milliseconds since 1970, by its server's clock.
    since: u64,
}

/// Names in lower case, and who has them.
type Members = HashMap<String, Member>;

/// Another server.
struct Server {
    /// Whether it was heard within three heartbeats.
    is_here: bool,
    pulse: Pulse,
    /// How many TEXT messages it has sent, as far as is known.
    texts: u64,
    members: Members,
}

/// All servers, as one of them sees them.
pub struct Cluster {
    id: u64,
    heartbeat: Duration,
    /// TEXT messages of this server so far.
    texts: u64,
    local: Members,
    /// Those that are gone stay in here, so that it is known what was missed.
    servers: BTreeMap<u64, Server>,
    /// Messages of other servers that were lost, and that nobody was told of.
    lost: u64,
    /// What the room has to be told.
    news: Vec<Remote>,
}

impl Cluster {
    /// A cluster of which only this server is known; `id` is a random number.
    pub fn new(id: u64, heartbeat: Duration) -> Cluster {
        let (local, servers) = (Members::new(), BTreeMap::new());
        Cluster { id, heartbeat, texts: 0, local, servers, lost: 0, news: Vec::new() }
    }

    /// Takes what the room has to be told since the last call.
    pub fn take_news(&mut self) -> Vec<Remote> {
        std::mem::take(&mut self.news)
    }

    /// Takes what has happened here. Returns the payloads for the others.
    pub fn happened(&mut self, messages: &[u8]) -> Vec<Vec<u8>> {
        let mut payloads: Vec<Vec<u8>> = Vec::new();
        for (message, bytes) in split(messages).map_while(Result::ok) {
            if payloads.last().is_none_or(|payload| payload.len() + bytes.len() > EVENTS_BYTES) {
                payloads.push(self.header(Content::Events));
            }
            if let Some(payload) = payloads.last_mut() {
                payload.extend_from_slice(bytes);
            }
            let key = message.sender.to_lowercase();
            match message.kind {
                Kind::Join => drop(self.local.insert(key.clone(), Member::of(&message))),
                Kind::Leave => drop(self.local.remove(&key)),
                _ => {
                    self.texts += 1;
                    continue;
                }
            }
            self.settle(&key);
        }
        payloads
    }

    /// Takes note of TEXT messages from here that will not be sent.
    pub fn dropped(&mut self, count: u64) {
        self.texts += count;
    }

    /// The payload that lists the members here.
    pub fn list(&self, content: Content) -> Vec<u8> {
        let mut payload = self.header(content);
        for Member { name, since } in self.local.values() {
            let join = Message::new(Kind::Join, name, "");
            Message { timestamp: *since, ..join }.append_to(&mut payload);
        }
        payload
    }

    /// The last payloads of this server: its members leave.
    pub fn goodbye(&mut self) -> Vec<Vec<u8>> {
        let mut leaves = Vec::new();
        for Member { name, .. } in self.local.values() {
            Message::new(Kind::Leave, name, "server is shutting down").append_to(&mut leaves);
        }
        self.happened(&leaves)
    }

    fn header(&self, content: Content) -> Vec<u8> {
        let kind = [content as u8];
        [&MAGIC[..], &kind, &self.id.to_be_bytes(), &self.texts.to_be_bytes()].concat()
    }

    /// Takes a payload. Returns whether its sender needs the list of this server.
    ///
    /// # Errors
    ///
    /// It is not from a server of this chat. Nothing has changed.
    pub fn receive(&mut self, payload: &[u8], now: Instant) -> Result<bool, String> {
        let (content, id, before, messages) = decode(payload)?;
        if id == self.id {
            return Ok(false);
        }
        let texts = messages.iter().filter(|message| message.kind == Kind::Text).count() as u64;
        if !self.servers.contains_key(&id) && self.servers.len() >= MAX_SERVERS {
            let gone = self.servers.iter().find(|(_, server)| !server.is_here);
            let gone = gone.map(|(id, _)| *id).ok_or("there are too many servers")?;
            self.servers.remove(&gone);
        }
        let server = self.servers.entry(id).or_insert_with(|| Server {
            is_here: false,
            pulse: Pulse::new(now),
            texts: before,
            members: Members::new(),
        });
        // What was taken already is not taken twice.
        let Some(missed) = before.checked_sub(server.texts) else { return Ok(false) };
        let is_new = !std::mem::replace(&mut server.is_here, true);
        server.pulse.touch(now);
        server.texts = before.saturating_add(texts);
        self.lost = self.lost.saturating_add(missed);
        if content == Content::Events {
            self.replay(id, &messages);
        } else {
            let listed = messages.iter().map(|m| (m.sender.to_lowercase(), Member::of(m)));
            self.replace(id, &listed.collect(), "left");
        }
        Ok(is_new || content == Content::Hello)
    }

    /// Takes what has happened at another server, in that order.
    fn replay(&mut self, id: u64, messages: &[Message]) {
        let mut said = Vec::new();
        for message in messages {
            let key = message.sender.to_lowercase();
            let Some(server) = self.servers.get_mut(&id) else { return };
            match message.kind {
                Kind::Text => {
                    // Its JOIN was lost, if it is not known.
                    if !server.members.contains_key(&key) {
                        server.members.insert(key.clone(), Member::of(message));
                        self.settle(&key);
                    }
                    if self.owner(&key).is_some_and(|(owner, _)| owner == id) {
                        let body = clean(message.body.as_bytes());
                        Message { body: &body, ..*message }.append_to(&mut said);
                    }
                    continue;
                }
                Kind::Join => {
                    let before = server.members.insert(key.clone(), Member::of(message));
                    self.flush(&mut said);
                    // Its LEAVE was lost, and `Ann` is `ann` now.
                    if let Some(before) = before.filter(|before| before.name != message.sender) {
                        self.remove(&before.name, "left");
                    }
                }
                _ => {
                    let before = server.members.remove(&key);
                    self.flush(&mut said);
                    if let Some(before) = before {
                        self.remove(&before.name, &clean(message.body.as_bytes()));
                    }
                }
            }
            self.settle(&key);
        }
        self.flush(&mut said);
    }

    fn flush(&mut self, said: &mut Vec<u8>) {
        if !said.is_empty() {
            self.news.push(Remote::Said(std::mem::take(said)));
        }
    }

    /// Takes the list of another server's members. Those that are not in it have
    /// left, for this reason.
    fn replace(&mut self, id: u64, listed: &Members, why: &str) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        let before = std::mem::replace(&mut server.members, listed.clone());
        for (key, member) in &before {
            if listed.get(key).is_none_or(|now| now.name != member.name) {
                self.remove(&member.name, why);
                self.settle(key);
            }
        }
        for key in listed.keys().filter(|key| before.get(*key) != listed.get(*key)) {
            self.settle(key);
        }
    }

    /// Who has a name: the server that let its member in first. If it was the
    /// same millisecond, the server with the lowest id. All servers find the
    /// same, whatever order the messages have.
    fn owner(&self, key: &str) -> Option<(u64, &Member)> {
        let remote = self.servers.iter().map(|(id, server)| (*id, &server.members));
        let all = remote.chain([(self.id, &self.local)]);
        let having = all.filter_map(|(id, members)| Some((id, members.get(key)?)));
        having.min_by_key(|(id, member)| (member.since, *id))
    }

    /// Takes a name away, if another server does not have it.
    fn remove(&mut self, name: &str, why: &str) {
        let owner = self.owner(&name.to_lowercase());
        if owner.is_none_or(|(id, member)| id == self.id || member.name != name) {
            self.news.push(Remote::Left(name.into(), why.into()));
        }
    }

    /// Tells the room who has a name now. To tell it twice does no harm.
    fn settle(&mut self, key: &str) {
        let Some((id, owner)) = self.owner(key) else { return };
        if id == self.id {
            return;
        }
        let owner = owner.name.clone();
        // `Ann` and `ann` are one name.
        let others = self.servers.values().filter_map(|server| server.members.get(key));
        let others = others.filter(|member| member.name != owner);
        let others = others.map(|member| Remote::Left(member.name.clone(), "already here".into()));
        let expelled = self.local.get(key).map(|member| Remote::Expel(member.name.clone()));
        let news: Vec<_> = others.chain(expelled).collect();
        self.news.extend(news);
        self.news.push(Remote::Joined(owner));
    }

    /// Finds servers that have said nothing for three heartbeats, and tells how
    /// much was lost. It is to be called several times in each heartbeat; `late`
    /// is how late that is.
    pub fn check(&mut self, now: Instant, late: Duration) {
        let here = self.servers.iter_mut().filter(|(_, server)| server.is_here);
        let silent: Vec<u64> = here
            .filter_map(|(id, server)| {
                let check = server.pulse.check(now, self.heartbeat, late);
                (check == Check::Expired).then_some(*id)
            })
            .collect();
        for id in silent {
            if let Some(server) = self.servers.get_mut(&id) {
                server.is_here = false;
            }
            self.replace(id, &Members::new(), "server lost");
        }
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            let why = match lost {
                1 => "1 message from another server was lost".into(),
                _ => format!("{lost} messages from other servers were lost"),
            };
            self.news.push(Remote::Said(Message::error(&why)));
        }
    }
}

impl Member {
    /// The sender of a message, who was here at its time.
    fn of(message: &Message) -> Member {
        Member { name: message.sender.into(), since: message.timestamp }
    }
}

/// The parts of a payload, all of them checked: a stranger may have sent it.
fn decode(payload: &[u8]) -> Result<(Content, u64, u64, Vec<Message<'_>>), String> {
    let Some((start, id, before, rest)) = header(payload) else {
        return Err(format!("a payload has at least {HEADER_BYTES} bytes"));
    };
    let [m0, m1, m2, kind] = start;
    if [m0, m1, m2] != MAGIC {
        return Err("it is not a payload of version 1".into());
    }
    let content = match kind {
        1 => Content::Events,
        2 => Content::Members,
        3 => Content::Hello,
        _ => return Err(format!("kind {kind} is unknown")),
    };
    let mut messages = Vec::new();
    for message in split(rest) {
        let (message, _) = message?;
        let (name, kind) = (message.sender, message.kind);
        check_name(name)?;
        let is_event = matches!(kind, Kind::Join | Kind::Text | Kind::Leave);
        if !is_event || content != Content::Events && kind != Kind::Join {
            return Err(format!("kind {} is not for other servers", kind as u8));
        }
        messages.push(message);
    }
    if content != Content::Events && messages.len() > MAX_CLIENTS {
        return Err(format!("a server has at most {MAX_CLIENTS} members"));
    }
    Ok((content, id, before, messages))
}

/// The start of a payload, the server's id, its count, and the rest.
fn header(payload: &[u8]) -> Option<([u8; 4], u64, u64, &[u8])> {
    let (start, rest) = payload.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk()?;
    let (before, rest) = rest.split_first_chunk()?;
    Some((*start, u64::from_be_bytes(*id), u64::from_be_bytes(*before), rest))
}

/// The messages in some bytes, each also as its bytes. It ends with the first
/// error.
fn split(mut bytes: &[u8]) -> impl Iterator<Item = Result<(Message<'_>, &[u8]), String>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let length = whole_length(bytes).unwrap_or(bytes.len());
        let (first, rest) = bytes.split_at(length);
        bytes = rest;
        let message = Message::from_bytes(first, MAX_BODY_BYTES);
        if message.is_err() {
            bytes = b"";
        }
        Some(message.map(|message| (message, first)).map_err(|why| why.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(3);
    const ON_TIME: Duration = Duration::ZERO;

    /// The bytes of a message of this moment of 1970.
    fn message(kind: Kind, sender: &str, body: &str, timestamp: u64) -> Vec<u8> {
        Message { timestamp, ..Message::new(kind, sender, body) }.to_bytes()
    }

    fn joined(name: &str, timestamp: u64) -> Vec<u8> {
        message(Kind::Join, name, "", timestamp)
    }

    fn cluster(id: u64) -> Cluster {
        Cluster::new(id, HEARTBEAT)
    }

    /// Takes payloads, and returns what the room is told, in short.
    fn told(cluster: &mut Cluster, payloads: &[Vec<u8>]) -> Vec<String> {
        for payload in payloads {
            cluster.receive(payload, Instant::now()).expect("it is a payload");
        }
        news(cluster)
    }

    fn news(cluster: &mut Cluster) -> Vec<String> {
        let news = cluster.take_news().into_iter();
        news.flat_map(|news| match news {
            Remote::Joined(name) => vec![format!("{name} joined")],
            Remote::Left(name, why) => vec![format!("{name} left ({why})")],
            Remote::Expel(name) => vec![format!("{name} has to go")],
            Remote::Said(messages) => {
                let messages = split(&messages).map(|message| message.expect("it is one").0);
                messages.map(|m| format!("{}: {}", m.sender, m.body)).collect()
            }
        })
        .collect()
    }

    #[test]
    fn what_happens_at_one_server_is_told_at_the_other_once() {
        let (mut one, mut other) = (cluster(1), cluster(2));
        let said = message(Kind::Text, "ann", "hi", 2);
        let left = message(Kind::Leave, "ann", "timed out", 3);
        let payloads = one.happened(&[joined("ann", 1), said, left].concat());
        let all = ["ann joined", "ann: hi", "ann left (timed out)"];
        assert_eq!(told(&mut other, &payloads), all);
        assert_eq!(told(&mut other, &payloads), [""; 0], "the same again");
        assert_eq!(told(&mut one, &payloads), [""; 0], "its own");
    }

    #[test]
    fn what_was_lost_is_counted_and_a_list_replaces_what_is_not_true() {
        let (mut one, mut other) = (cluster(1), cluster(2));
        let said = message(Kind::Text, "ann", "hi", 2);
        let seen = one.happened(&[joined("ann", 1), joined("bob", 1), said.clone()].concat());
        told(&mut other, &seen);
        one.happened(&[joined("eve", 3), message(Kind::Leave, "bob", "left", 3)].concat());
        one.happened(&[said.clone(), said].concat());
        one.dropped(3);
        let list = one.list(Content::Members);
        assert_eq!(told(&mut other, &[list]), ["bob left (left)", "eve joined"]);
        other.check(Instant::now(), ON_TIME);
        assert_eq!(news(&mut other), [": 5 messages from other servers were lost"]);
    }

    #[test]
    fn who_came_first_has_the_name_at_all_servers_whatever_arrives_first() {
        for (since_one, since_other, winner) in [(10, 11, 1), (11, 10, 2), (10, 10, 1)] {
            let (mut one, mut other, mut third) = (cluster(1), cluster(2), cluster(3));
            let of_one = one.happened(&joined("ann", since_one));
            let of_other = other.happened(&joined("Ann", since_other));
            let expelled = [told(&mut one, &of_other), told(&mut other, &of_one)];
            let expected: [&[&str]; 2] = match winner {
                1 => [&[], &["Ann has to go", "ann joined"]],
                _ => [&["ann has to go", "Ann joined"], &[]],
            };
            assert_eq!(expelled, expected);
            let name = if winner == 1 { "ann" } else { "Ann" };
            for order in [[&of_one, &of_other], [&of_other, &of_one]] {
                third = Cluster { servers: BTreeMap::new(), ..third };
                told(&mut third, order[0]);
                told(&mut third, order[1]);
                let owner = third.owner("ann").expect("one of them has it");
                assert_eq!((owner.0, owner.1.name.as_str()), (winner, name));
            }
        }
    }

    #[test]
    fn a_server_is_lost_after_three_heartbeats_and_comes_back_with_its_count() {
        let (mut one, mut other) = (cluster(1), cluster(2));
        told(&mut other, &one.happened(&joined("ann", 1)));
        let start = Instant::now();
        let mut silence = Duration::ZERO;
        while news(&mut other) != ["ann left (server lost)"] {
            silence += HEARTBEAT / 4;
            other.check(start + silence, ON_TIME);
        }
        assert!((HEARTBEAT * 3..HEARTBEAT * 4).contains(&silence), "{silence:?}");
        one.happened(&message(Kind::Text, "ann", "lost", 2));
        let back = one.happened(&message(Kind::Text, "ann", "back", 3));
        assert_eq!(told(&mut other, &back), ["ann joined", "ann: back"]);
        other.check(Instant::now(), ON_TIME);
        assert_eq!(news(&mut other), [": 1 message from another server was lost"]);
    }

    #[test]
    fn what_is_no_payload_changes_nothing() {
        let mut one = cluster(1);
        let right = cluster(2).happened(&[joined("ann", 1), joined("bob", 1)].concat()).remove(0);
        for length in 0..right.len() {
            if length != HEADER_BYTES && length != HEADER_BYTES + 23 {
                assert!(one.receive(&right[..length], Instant::now()).is_err(), "{length}");
            }
        }
        for (at, byte) in [(0, b'X'), (2, 2), (3, 0), (3, 4), (23, 5), (40, b' '), (65, 0xff)] {
            let mut wrong = right.clone();
            wrong[at] = byte;
            assert!(one.receive(&wrong, Instant::now()).is_err(), "byte {at}");
        }
        assert!(one.servers.is_empty() && news(&mut one).is_empty());
        for id in 2..100 {
            let _ = one.receive(&cluster(id).list(Content::Hello), Instant::now());
        }
        assert_eq!(one.servers.len(), MAX_SERVERS);
    }
}
