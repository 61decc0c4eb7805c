//! The states that the pictures of TCP show are those that Linux shows.

use super::FOLDER;
use std::fs;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

/// The state of one end of a connection, as `/proc/net/tcp` has it (in
/// hexadecimal: see tcp(7) and the kernel's `tcp_states.h`). None: it is gone.
fn state(own: SocketAddr, peer: SocketAddr) -> Option<&'static str> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let ends = [own, peer].map(|end| format!(":{:04X}", end.port()));
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut row = row.filter(|row| row[1].ends_with(&ends[0]) && row[2].ends_with(&ends[1]));
    Some(match row.next()?[3] {
        "01" => "ESTAB",
        "04" => "FIN-WAIT-1",
        "05" => "FIN-WAIT-2",
        "06" => "TIME-WAIT",
        "08" => "CLOSE-WAIT",
        "09" => "LAST-ACK",
        _ => "another",
    })
}

#[test]
fn linux_shows_the_states_of_the_pictures() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let first = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let other = listener.accept().unwrap().0;
    let ends = (first.local_addr().unwrap(), first.peer_addr().unwrap());
    let both = || [state(ends.0, ends.1), state(ends.1, ends.0)];
    // The system passes through some states too fast to be seen.
    let wait_for = |states| {
        let end = Instant::now() + crate::lab::patience();
        while both() != states {
            assert!(Instant::now() < end, "the states are {:?}, not {states:?}", both());
            std::thread::yield_now();
        }
    };
    wait_for([Some("ESTAB"), Some("ESTAB")]);
    first.shutdown(Shutdown::Write).unwrap();
    wait_for([Some("FIN-WAIT-2"), Some("CLOSE-WAIT")]);
    drop(other);
    wait_for([Some("TIME-WAIT"), None]);

    let states = fs::read_to_string(format!("{FOLDER}/07_tcp_states.txt")).unwrap();
    let mut rest = &*states;
    for seen in ["ESTAB", "CLOSE-WAIT", "FIN-WAIT-2", "TIME-WAIT", "gone"] {
        rest = rest.split_once(seen).unwrap_or_else(|| panic!("no {seen} in\n{rest}")).1;
    }
}
