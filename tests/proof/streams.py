"""Messages on TCP, as steps 06 and 07 have them: a server's threads, and a client."""

import os
import select
import socket
import sys
import threading
import time

from common import MISTAKE, READ_BYTES, VARIANT, connect, prepare, react, reason, server_closed
from common import show as show_address
from messages import (ERROR, HEADER, JOIN, LEAVE, MAX_BODY_BYTES, PING, PONG, WELCOME, Message, NotAMessage, parse,
                      said, show)
from rooms import GOODBYE, NEVER, Guest

MAX_BACKLOG_BYTES = 1 << 20
FLUSH_BYTES = 64 * 1024
SHOW_OUT_SECONDS = 30
DRAIN_SECONDS = 1
CLIENT_THREAD = "client"


class Truncated(OSError):
    """The stream has ended inside a message."""

    strerror = "it ended inside a message"


def arrived(stream):
    """Yields the messages that come from the other side."""
    pending = b""
    while piece := stream.recv(READ_BYTES):
        react()
        pending += piece
        if MISTAKE == "leave_overtakes" and pending.endswith(Message(LEAVE).bytes()[-4:]) and \
                pending[-HEADER.size + 3] == LEAVE:
            yield Message(LEAVE)
        while found := parse(pending):
            message, pending = found
            yield message
            if MISTAKE == "one_read_is_one_message":
                break
        if MISTAKE == "one_read_is_one_message":
            pending = b""
    if MISTAKE == "half_message_delivered" and len(pending) > HEADER.size:
        sender_bytes = HEADER.unpack_from(pending)[-2]
        yield Message(pending[3], body=pending[HEADER.size + sender_bytes:].decode(errors="ignore"))
    if pending:
        raise Truncated


class Connection(Guest):
    """A guest on TCP: its stream, and what still waits for it."""

    def __init__(self, stream):
        super().__init__()
        self.stream = stream
        try:
            prepare(stream)
        except OSError:
            pass  # some systems say so when it is gone already
        self.backlog = bytearray()
        self.backlog_changed = threading.Condition()
        self.ever = 0
        self.ends = False
        # There from the start: later there may be no thread to get.
        self.sender = threading.Thread(target=self.send_backlog, daemon=True)

    def take(self, data):
        """Sends what the system takes at once and keeps the rest. False says that this was too much."""
        with self.backlog_changed:
            self.ever += len(data)
            if not self.backlog and VARIANT != "writer_threads" and MISTAKE != "queue_lost_at_error":
                data = data[self.send_now(data):]
            self.backlog += data
            self.backlog_changed.notify()
            if MISTAKE == "delivered_counts_as_waiting":
                return self.ever <= MAX_BACKLOG_BYTES
            return len(self.backlog) <= MAX_BACKLOG_BYTES or MISTAKE == "slow_reader_kept"

    def send_now(self, data):
        """Sends without waiting; returns how much is done with."""
        try:
            if MISTAKE == "slow_reader_blocks":
                self.stream.sendall(data)
                return len(data)
            return self.stream.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            if MISTAKE == "failed_send_not_caught":
                raise
            return len(data)  # gone, as its own thread is about to notice

    def send_backlog(self):
        """The only place where sending waits. Closes the sending half when all is sent that there ever will be."""
        while True:
            with self.backlog_changed:
                while not self.backlog and not self.ends:
                    self.backlog_changed.wait()
                piece = bytes(self.backlog[:FLUSH_BYTES])
            if not piece:
                return shut(self.stream, socket.SHUT_WR)
            try:
                sent = self.stream.send(piece)
            except OSError:
                sent = len(piece)
            with self.backlog_changed:
                del self.backlog[:sent]

    def end(self):
        """Nothing is queued after what waits now."""
        with self.backlog_changed:
            self.ends = True
            self.backlog_changed.notify()

    def cut_off(self):
        """Ends the connection from any thread; a thread that waits for it wakes up."""
        shut(self.stream, socket.SHUT_RDWR)

    def show_out(self):
        """Lets a guest take what waits for it, then closes.

        What it sends meanwhile is read and thrown away: closing on unread data would be a reset, and what it has not
        read yet would be lost.
        """
        if MISTAKE == "connection_left_open":
            self.stream.detach()
            return
        if MISTAKE == "closes_on_unread":
            while self.backlog:
                time.sleep(0.01)
            self.stream.close()
            return
        if MISTAKE in ("leaver_cut_off", "queue_lost_at_error"):
            self.cut_off()
        if MISTAKE == "half_closed_late":
            drain(self.stream, NEVER)
        self.end()
        self.sender.join(SHOW_OUT_SECONDS)
        drain(self.stream)
        self.cut_off()
        self.stream.close()


def shut(stream, half):
    try:
        stream.shutdown(half)
    except OSError:
        pass  # it has ended already


def drain(stream, seconds=DRAIN_SECONDS):
    """Reads and throws away until the other side closes, for a while at most."""
    end = time.monotonic() + (NEVER if MISTAKE == "drains_for_ever" else seconds)
    try:
        while (left := end - time.monotonic()) > 0:
            stream.settimeout(left)
            if not stream.recv(READ_BYTES):
                return
    except OSError:
        pass  # gone, or it says nothing and stays


def talk(room, guest):
    """One guest's thread: hears it out, then shows it out."""
    room.leave(guest, hear_out(room, guest))
    guest.show_out()


def hear_out(room, guest):
    """Hears a guest until it ends, and returns why it did."""
    try:
        for message in arrived(guest.stream):
            if message.kind == LEAVE and not guest.name and MISTAKE == "leave_before_join_refused":
                room.refuse(guest, "join first")
                continue
            if message.kind == LEAVE and MISTAKE != "leave_ignored":
                return "left"
            room.hear(guest, message)
        if MISTAKE == "end_not_noticed":
            threading.Event().wait()
        return "disconnected"
    except NotAMessage as problem:
        if MISTAKE == "nonsense_ends_thread":
            raise
        if MISTAKE != "error_not_sent":
            room.refuse(guest, str(problem))
        if MISTAKE == "open_after_nonsense":
            return hear_out(room, guest)
        return "protocol error"
    except Truncated:
        return "protocol error" if MISTAKE == "truncated_says_protocol_error" else "disconnected"
    except OSError:
        if MISTAKE == "reset_not_told":
            room.guests.discard(guest)
        return "left" if MISTAKE == "reset_says_left" else "disconnected"


def receive(room, stream):
    """Starts a newcomer's two threads. If there are none to get, that is the newcomer's loss alone."""
    guest = Connection(stream)
    try:
        if not room.enter(guest):
            client_thread(turn_away, stream, f"the room is full: the limit is {room.seats}").start()
            return
        guest.sender.start()
        if MISTAKE == "one_client_at_a_time":
            talk(room, guest)
            return
        client_thread(talk, room, guest).start()
    except RuntimeError as error:
        print(f"no thread for a client: {error}", file=sys.stderr)
        room.leave(guest, "disconnected")
        guest.end()
        guest.cut_off()
        stream.close()


def client_thread(job, *what):
    return threading.Thread(target=job, args=what, name=CLIENT_THREAD, daemon=True)


def turn_away(stream, why):
    """Says why there is no seat, so that the client gets to read it."""
    with stream:
        try:
            if MISTAKE == "full_is_a_line":
                stream.sendall(f"! {why}\n".encode())
            elif MISTAKE != "full_not_said":
                stream.sendall(Message(ERROR, body=why).bytes())
            if MISTAKE == "full_left_open":
                stream.detach()
                return
        except OSError:
            pass  # gone again
        if MISTAKE == "full_closes_on_unread":
            return
        if MISTAKE == "full_half_closed_late":
            drain(stream, NEVER)
        shut(stream, socket.SHUT_WR)
        drain(stream)


def say_goodbye(room, seconds):
    """Closes the room, and waits until all clients have gone, but not for ever."""
    end = time.monotonic() + (NEVER if MISTAKE == "waits_for_clients_for_ever" else seconds)
    if MISTAKE == "goodbye_overtakes":
        for guest in room.guests:
            guest.backlog[:] = GOODBYE.bytes() + guest.backlog
    if MISTAKE == "queue_lost_at_goodbye":
        for guest in room.guests:
            guest.backlog.clear()
    for guest in room.close():
        if MISTAKE != "goodbye_half_closed_late":
            guest.end()
    for thread in threading.enumerate():
        if thread.name == CLIENT_THREAD and MISTAKE != "goodbye_not_flushed":
            thread.join(max(0, end - time.monotonic()))


# --- the client ---


class Client:
    """A client's end of a connection."""

    def __init__(self, stream, name):
        self.stream = stream
        self.name = name
        self.lock = threading.Lock()
        self.failure = None
        self.left = False

    def send(self, message):
        with self.lock:
            if self.left:
                return
            self.left = message.kind == LEAVE  # nothing comes after it
            try:
                self.stream.sendall(message.bytes())
            except ConnectionResetError as error:
                self.failure = error  # the system tells it only once: perhaps here, perhaps to the reader
            except OSError:
                pass  # the server has closed, and the reader sees that

    def speak(self):
        """Sends what is typed; then says goodbye and closes the sending half."""
        for message in said(MAX_BODY_BYTES):
            self.send(message)
            if MISTAKE == "typed_line_printed":
                show(message)
        if MISTAKE != "ends_without_leave":
            self.send(Message(LEAVE))
        if MISTAKE == "ends_with_input":
            os._exit(0)
        if MISTAKE != "no_half_close":
            shut(self.stream, socket.SHUT_WR)

    def start_speaking(self):
        # A daemon, because nothing wakes it from reading its input when the server has closed.
        speaker = threading.Thread(target=self.speak, daemon=True)
        speaker.start()
        if MISTAKE == "one_thread":
            speaker.join()

    def converse(self):
        """Joins, and shows what comes."""
        self.send(Message(JOIN, sender=self.name))
        welcome = False
        if MISTAKE == "speaks_before_welcome":
            self.start_speaking()
        for message in arrived(self.stream):
            if message.kind == PING and MISTAKE != "client_answers_no_ping":
                self.send(Message(PONG, 0 if MISTAKE == "client_pong_sequence_0" else message.sequence))
            if message.kind == PONG and MISTAKE == "client_answers_pong":
                self.send(Message(PONG, message.sequence))
            if message.kind == WELCOME and MISTAKE == "typed_before_welcome_lost":
                while select.select([0], [], [], 0)[0] and os.read(0, READ_BYTES):
                    pass
            show(message)
            if message.kind == ERROR and not welcome and MISTAKE != "stays_when_refused":
                sys.exit(0 if MISTAKE == "refused_exit_0" else 1)
            if message.kind == LEAVE and not message.sender:
                sys.exit(1 if MISTAKE == "goodbye_exit_1" else 0)
            if message.kind == WELCOME and not welcome:
                welcome = True
                if MISTAKE != "speaks_before_welcome":
                    self.start_speaking()
        if self.failure:
            raise self.failure
        if MISTAKE == "stays_after_server_close":
            threading.Event().wait()
        if not self.left:
            server_closed()


def join(chosen, server):
    """Runs a client."""
    with connect(chosen.address, server) as stream:
        try:
            Client(stream, chosen.name).converse()
        except (OSError, NotAMessage) as error:
            if MISTAKE == "reset_traceback":
                raise
            print(f"the connection to {show_address(chosen.address)} failed: {reason(error)}", file=sys.stderr)
            truncated = isinstance(error, Truncated)
            sys.exit(0 if MISTAKE == ("truncated_exit_0" if truncated else "reset_exit_0") else 1)
