//! Pictures of what really crosses: each runs a program of the course, with a
//! relay in front of it, and draws what the relay has noted.

use crate::chart::Chart;
use crate::draw::{Drawing, Look};
use crate::lab;
use crate::record::{self, Crossed, FIN, Record};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program of the course. It ends with this value.
struct Running(Child);

impl Running {
    fn start(name: &str, args: &[&str]) -> Running {
        let mut command = Command::new(lab::example(name));
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    }

    /// Starts a server on any port, and returns its address.
    fn serve(name: &str, args: &[&str]) -> (Running, SocketAddr) {
        let mut server = Running::start(name, args);
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        let address = address.parse().unwrap();
        (server, address)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A connection on which the test itself is the client.
fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(lab::patience())).unwrap();
    stream
}

/// Waits for so many bytes.
fn take(mut stream: &TcpStream, count: usize) {
    stream.read_exact(&mut vec![0; count]).unwrap();
}

/// Waits for the end of a stream.
fn take_all(mut stream: &TcpStream) {
    stream.read_to_end(&mut Vec::new()).unwrap();
}

/// Draws one thing that has crossed.
fn draw_one(chart: &mut Chart, one: &Crossed, label: &str, is_end: bool) {
    let (from, to) = if one.from_client { (one.client, "server") } else { ("server", one.client) };
    chart.message(from, to, label, if is_end { Look::Hot } else { Look::Plain });
}

/// Draws all that has crossed, each with the remark of the same number.
fn draw(chart: &mut Chart, crossed: &[Crossed], remarks: &[&str]) {
    for (number, one) in crossed.iter().enumerate() {
        draw_one(chart, one, &one.what, one.what == FIN);
        if let Some(remark) = remarks.get(number) {
            chart.remark(remark);
        }
    }
}

/// Lesson 1: the server closes first.
pub fn time_wait() -> Drawing {
    let (_server, address) = Running::serve("01_bind_listen", &["127.0.0.1:0"]);
    let record = Record::default();
    let client = connect(record.relay("client", address, record::lines));
    take_all(&client);
    drop(client);
    let crossed = record.when(|crossed| record::is_closed(crossed, "client"));

    let mut chart = Chart::new(
        Drawing::new(
            "The side that closes first has the TIME-WAIT",
            "Time runs down. The server sends its greeting and closes: its system sends a FIN, which \
             says that no more will come. The client closes, too, and sends its FIN. The client's end \
             is gone at once. The server's end has closed first, so it stays in the state TIME-WAIT \
             for a minute.",
        ),
        &[("server", 12), ("client", 50)],
    );
    let remarks = ["", "the server closes first", "the client closes, too"];
    draw(&mut chart, &crossed, &remarks);
    // As Linux shows it: see states.rs.
    chart.state("server", "TIME-WAIT: a minute", Look::Hot);
    chart.state("client", "gone", Look::Faint);
    chart.finish()
}

/// Lesson 3: the client of that lesson, and a server that still has something
/// to say after the client's input has ended.
pub fn half_close() -> Drawing {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let record = Record::default();
    let address = record.relay("client", listener.local_addr().unwrap(), record::lines);
    let mut client = Running::start("03_client", &[&address.to_string()]);
    let mut keyboard = client.0.stdin.take().unwrap();
    keyboard.write_all(b"one\n").unwrap();
    let mut server = listener.accept().unwrap().0;
    take(&server, 4);
    server.write_all(b"first answer\n").unwrap();
    // The end of its input, as after Ctrl-D. It reads that after the answer.
    drop(keyboard);
    take_all(&server);
    server.write_all(b"one thing more\n").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    let crossed = record.when(|crossed| record::is_closed(crossed, "client"));

    let mut chart = Chart::new(
        Drawing::new(
            "A half-close on a time line: the client ends its direction, and the server still sends",
            "Time runs down. The client sends the line \"one\" and gets an answer. At the end of its \
             input it sends a FIN: it will send no more. The server still sends a line, which the \
             client receives, and then its own FIN. Only then the connection is over.",
        ),
        &[("client", 4), ("server", 34)],
    );
    draw(
        &mut chart,
        &crossed,
        &[
            "both directions are open",
            "",
            "half-close: the client sends no more",
            "but it still receives",
            "now the connection is over",
        ],
    );
    chart.finish()
}

/// The header of a message (lesson 6), and its two texts.
fn message(kind: u8, sender: &str, body: &str) -> Vec<u8> {
    lab::message::message(kind, sender, body).bytes()
}

/// Lesson 6: the server closes so that its last bytes arrive.
pub fn close() -> Drawing {
    let (_server, address) = Running::serve("06_message_headers", &["serve", "127.0.0.1:0"]);
    let record = Record::default();
    let relay = record.relay("client", address, record::messages);
    let mut client = connect(relay);
    client.write_all(b"hello\n").unwrap();
    take_all(&client);
    client.write_all(b"what was on its way\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let crossed = record.when(|crossed| record::is_closed(crossed, "client"));

    let mut chart = Chart::new(
        Drawing::new(
            "The order in which the server closes, so that its last message arrives",
            "Time runs down. The client sends something that is not a message. The server sends \
             what still waits, with an ERROR at the end; then a FIN. It goes on reading, and throws \
             away what comes, until the client has sent its own FIN. Only then it closes its socket.",
        ),
        &[("client", 4), ("server", 48)],
    );
    draw(
        &mut chart,
        &crossed,
        &[
            "not a message",
            "1. the queue, to its end",
            "2. the sending half closes",
            "3. read, thrown away ...",
            "   ... for 1 s at most",
        ],
    );
    chart.row += 1;
    chart.remark("4. the socket is closed");
    chart.finish()
}

/// Lesson 7: a client that answers one PING, and not the next.
pub fn heartbeat() -> Drawing {
    let interval = Duration::from_millis(500);
    let milliseconds = interval.as_millis().to_string();
    let args = ["serve", "127.0.0.1:0", "--heartbeat-ms", &milliseconds];
    let (_server, address) = Running::serve("07_disconnects", &args);
    let record = Record::default();
    let relay = record.relay("ann", address, record::messages).to_string();
    let _ann = Running::start("07_disconnects", &["join", "ann", &relay]);
    record.when(|crossed| crossed.iter().any(|one| one.what.starts_with("WELCOME")));
    let mut zed = connect(record.relay("zed", address, record::messages));
    zed.write_all(&message(1, "zed", "")).unwrap();
    let pings = |crossed: &[Crossed], count| {
        crossed.iter().filter(|one| one.client == "zed" && one.what == "PING").count() == count
    };
    record.when(|crossed| pings(crossed, 1));
    zed.write_all(&message(6, "", "")).unwrap();
    let end = |one: &Crossed| one.client == "zed" && one.what == FIN;
    let told = |one: &Crossed| one.client == "ann" && one.what.starts_with("LEAVE");
    let crossed = record.when(|all| all.iter().any(end) && all.iter().any(told));

    let start = crossed.iter().find(|one| one.client == "zed" && one.what.starts_with("WELCOME"));
    let start = start.unwrap().time;
    let tick = |time: Instant| record::intervals(start, time, interval);
    // Of ann only what she hears of zed: she has a heartbeat of her own.
    let mut shown: Vec<&Crossed> = crossed
        .iter()
        .filter(|one| one.time >= start && (one.client == "zed" || told(one)))
        .collect();
    shown.sort_by_key(|one| (tick(one.time), one.client == "ann"));

    let mut chart = Chart::new(
        Drawing::new(
            "The heartbeat on a time line: a PING that is answered, and one that is not",
            "Time runs down, and is counted in intervals. Zed joins and is silent for one interval: \
             the server sends PING, and zed answers PONG, so the count begins again. After one \
             more silent interval comes the next PING. There is no answer for two intervals: zed is \
             disconnected, and ann reads that zed has timed out.",
        ),
        &[("ann", 16), ("server", 46), ("zed", 66)],
    );
    chart.drawing.text(0, 0, "interval", Look::Faint);
    let mut last = None;
    for one in shown {
        let now = tick(one.time);
        if last.is_some_and(|last| last < now) {
            let silent = now - last.unwrap_or(0);
            chart.row += usize::try_from(silent).unwrap();
        }
        if last != Some(now) {
            chart.drawing.text(3, chart.row, &now.to_string(), Look::Strong);
        }
        last = Some(now);
        // The list of names in the WELCOME does not matter here.
        let label = one.what.split(" zed \"ann").next().unwrap_or("");
        draw_one(&mut chart, one, label, one.what == FIN || one.client == "ann");
    }
    chart.finish()
}

/// A frame of a client (lesson 9), masked with zeros, which change nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// Lesson 9: a message in two fragments, with a ping between them.
pub fn fragments() -> Drawing {
    let (_server, address) = Running::serve("09_websocket_chat", &["127.0.0.1:0", "--echo"]);
    let record = Record::default();
    let relay = record.relay("client", address, record::frames);
    let mut client = connect(relay);
    let upgrade = format!(
        "GET /chat HTTP/1.1\r\nHost: {relay}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    client.write_all(upgrade.as_bytes()).unwrap();
    let count = |count| record.when(|crossed| crossed.len() >= count);
    count(2);
    client.write_all(&frame(0x01, b"hel")).unwrap();
    client.write_all(&frame(0x89, b"there?")).unwrap();
    count(5);
    client.write_all(&frame(0x80, b"lo")).unwrap();
    count(7);
    client.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
    take_all(&client);
    drop(client);
    let mut crossed = record.when(|crossed| record::is_closed(crossed, "client"));

    let mut chart = Chart::new(
        Drawing::new(
            "A message in two fragments, with a ping between them",
            "Time runs down. After the upgrade the client sends the text \"hel\" as a frame without \
             the FIN bit: more will follow. Then it sends a ping, and the server answers it at once \
             with a pong. Then comes the continuation \"lo\" with the FIN bit, and only now the \
             message \"hello\" is whole, and the server echoes it. At the end both send a close frame.",
        ),
        &[("client", 5), ("server", 46)],
    );
    // How TCP ends is not what the picture is about.
    crossed.retain(|one| one.what != FIN);
    draw(
        &mut chart,
        &crossed,
        &[
            "the upgrade",
            "",
            "the message begins",
            "a control frame between",
            "is answered at once",
            "the message ends",
            "so this is the echo",
            "goodbye",
        ],
    );
    chart.finish()
}
