//! What a `SendQueue` promises (src/net/send_queue.rs), on real connections.

#![allow(clippy::unwrap_used)]

use socket_chat::net::send_queue::{Batch, MAX_BACKLOG_BYTES, SendQueue};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// A queue, and the peer that reads from its other end.
fn queue_and_peer() -> (SendQueue, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    (SendQueue::new(Arc::new(listener.accept().unwrap().0)), peer)
}

/// All that the peer gets until the end of its stream.
fn read_all(mut peer: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn each_peer_gets_what_is_for_it_in_order_and_not_its_own_lines() {
    let (mut ann, ann_reads) = queue_and_peer();
    let (mut bob, bob_reads) = queue_and_peer();
    let (mut guest, guest_reads) = queue_and_peer();
    let mut batch = Batch::default();
    ann.subscribe(&batch);
    batch.push(b"bob joined, ");
    bob.subscribe(&batch);
    bob.push(&batch, b"welcome bob, ");
    guest.push(&batch, b"join first");
    for (sender, line) in [("ann", "ann: 1, "), ("bob", "bob: 1, "), ("ann", "ann: 2, ")] {
        let start = batch.end();
        batch.push(line.as_bytes());
        if sender == "ann" { &mut ann } else { &mut bob }.exclude(&batch, start);
    }
    for queue in [&mut ann, &mut bob, &mut guest] {
        queue.flush(&batch).unwrap();
    }
    batch.clear();
    batch.push(b"the end");
    for queue in [ann, bob, guest] {
        queue.finish(&batch);
    }
    assert_eq!(String::from_utf8_lossy(&read_all(ann_reads)), "bob joined, bob: 1, the end");
    assert_eq!(
        String::from_utf8_lossy(&read_all(bob_reads)),
        "welcome bob, ann: 1, ann: 2, the end"
    );
    assert_eq!(String::from_utf8_lossy(&read_all(guest_reads)), "join first");
}

/// How many bytes a queue takes for a peer that does not read: those in the
/// system's buffers, and a backlog of a megabyte.
fn capacity() -> usize {
    let (mut queue, peer) = queue_and_peer();
    let mut batch = Batch::default();
    queue.subscribe(&batch);
    let (line, mut taken) = ([b'x'; 16 * 1024], 0);
    loop {
        batch.push(&line);
        if queue.flush(&batch).is_err() {
            break;
        }
        taken += line.len();
        batch.clear();
        assert!(taken < 1 << 30, "a gigabyte was taken for a peer that never reads");
    }
    // It was closed: what the system had in its buffers arrives, then the end.
    assert!(read_all(peer).len() <= taken);
    taken
}

#[test]
fn a_peer_that_never_reads_is_too_slow_after_a_megabyte_and_is_closed() {
    let taken = capacity();
    assert!(taken > MAX_BACKLOG_BYTES - 32 * 1024, "it was given up after {taken} bytes");
}

#[test]
fn a_peer_that_reads_late_gets_all_bytes_in_order() {
    // Half a megabyte less than it takes: there is a backlog, and it fits.
    let size = capacity() - MAX_BACKLOG_BYTES / 2;
    let (mut queue, peer) = queue_and_peer();
    let mut batch = Batch::default();
    queue.subscribe(&batch);
    let mut expected = Vec::new();
    while expected.len() < size {
        let line = format!("{:>999}\n", expected.len());
        batch.push(line.as_bytes());
        queue.push(&batch, b"for you alone\n");
        expected.extend_from_slice(line.as_bytes());
        expected.extend_from_slice(b"for you alone\n");
        assert!(queue.flush(&batch).is_ok(), "it may be late by a megabyte");
        batch.clear();
    }
    queue.finish(&batch);
    assert!(read_all(peer) == expected, "some bytes are missing, or in another order");
}
