"""05: a chat room. One thread for each guest; everybody hears everybody else."""

import contextlib
import itertools
import socket
import threading
import time

from common import MISTAKE, READ_BYTES, VARIANT, Arguments, clean, listen, offer, prepare, received, visitors

# For each test the mistakes that it must catch.
MISTAKES = {
    "a_guest_is_greeted_by_name_and_the_others_are_told": {
        "names_reused": "Gives a newcomer the lowest number that is free.",
        "names_by_headcount": "Takes the number of people for the newcomer's name.",
    },
    "a_line_goes_to_everybody_else_and_never_back_to_its_sender": {
        "sender_hears_itself": "Sends a line back to its sender too.",
        "one_client_at_a_time": "Serves the next client when the one before has left.",
        "no_newline": "Passes lines on without their ends.",
        "joined_not_told": "Tells nobody that someone has joined.",
        "welcome_counts_others": "Leaves the newcomer out of the number in its welcome.",
        "joined_counts_others": "Leaves the newcomer out of the number that the others are told.",
        "left_counts_leaver": "Still counts the one who has left.",
        "left_not_told": "Tells nobody that someone has left.",
        "left_told_twice": "Tells it twice that someone has left.",
        "end_not_noticed": "Takes the end of the stream for a pause and waits on.",
    },
    "a_line_is_a_line_however_it_arrives": {
        "quit_is_a_command": "Disconnects a client that says quit instead of passing it on.",
        "cr_kept": "Leaves the CR of a CR LF in the line.",
        "blanks_stripped": "Takes the blanks off both ends of a line.",
        "empty_lines_passed_on": "Passes on empty lines.",
        "latin1": "Takes the text for Latin-1.",
        "tab_removed": "Takes out tabs too.",
    },
    "lines_that_many_guests_send_at_once_stay_whole_and_in_order": {
        "lines_mix": "Sends the name and the line in two pieces without a lock, so two senders' lines mix.",
        "thread_per_line": "Starts a thread for each line, so one sender's lines change their order.",
        "one_read_is_one_line": "Takes what one read brings for one line.",
        "newcomer_told_of_itself": "Tells a newcomer too that it has joined.",
        "queue_of_4_kib": "Has writer threads, and a queue of 4 KiB between the room and each of them.",
    },
    "characters_that_control_a_terminal_are_removed": {
        "emptied_lines_passed_on": "Passes on lines of which cleaning leaves nothing.",
        "bad_utf8_fatal": "Disconnects a client that sends bytes that are not UTF-8.",
        "bad_utf8_dropped": "Leaves out bytes that are not UTF-8, without U+FFFD.",
        "controls_kept": "Passes control characters on.",
        "only_escape_removed": "Takes out ESC and no other control character.",
        "del_kept": "Passes DEL on.",
        "c1_kept": "Passes on the control characters U+0080 to U+009F.",
        "bidi_kept": "Passes on the bidirectional overrides.",
        "isolates_kept": "Passes on U+2066 to U+2069, takes out U+202A to U+202E only.",
        "only_printable_kept": "Takes out all that Unicode does not call printable, so that joined emoji fall apart.",
    },
    "a_line_over_the_limit_is_refused_and_the_next_one_passes": {
        "no_line_limit": "Passes on a line of any length.",
        "limit_counts_newline": "Counts the line's LF, so that 4096 bytes are too many.",
        "cr_counted": "Counts the CR of a CR LF, so that 4096 bytes are too many.",
        "limit_counts_characters": "Counts characters and not bytes.",
        "too_long_cut": "Passes on the beginning of a line that is too long.",
        "too_long_silent": "Throws a line that is too long away without a word.",
        "too_long_disconnects": "Disconnects a client for a line that is too long.",
        "too_long_answered_again": "Answers a line that is too long once for each read that it takes.",
        "too_long_rest_is_a_line": "Takes what is left of a line that is too long for the next line.",
        "too_long_takes_others_along": "Throws away all that came in one read with a line that is too long.",
        "too_long_kept_in_memory": "Keeps a line that is too long in memory until its LF has come.",
    },
    "a_guest_that_leaves_is_heard_to_the_end_gets_its_queue_and_is_closed": {
        "last_line_lost": "Loses a last line that came without its line end.",
        "connection_left_open": "Does not close the connection of a client that has left.",
    },
    "guests_that_vanish_are_announced_once_and_disturb_nobody": {
        "reset_not_told": "Tells nobody when a client has left by a reset.",
        "accept_dies_with_client": "Asks for the address of a client that is gone already, which ends the server.",
        "failed_send_not_caught": "A failed send to a client that is gone ends the one who spoke, or entered, too.",
    },
    "a_guest_that_stops_reading_delays_nobody_and_is_disconnected": {
        "new_overtakes_waiting": "Sends a new line past those that still wait for a slow reader.",
        "leaver_cut_off": "Closes at once when a client leaves, and loses what the server still kept for it.",
        "slow_reader_blocks": "Waits until a slow reader has taken a line before it goes on.",
        "slow_reader_kept": "Keeps any amount for a client that does not read.",
        "too_slow_not_said": "Disconnects a slow reader without saying why.",
        "delivered_counts_as_waiting": "Counts what a reader has taken already as waiting for it.",
    },
    "a_full_room_turns_newcomers_away_and_arguments_are_as_in_step_01": {
        "no_limit": "Takes any number of clients.",
        "limit_one_too_many": "Takes one client more than the limit.",
        "limit_one_too_few": "Takes one client less than the limit.",
        "limit_range_not_checked": "Takes any number for --limit.",
        "full_not_said": "Closes the connection without a word when the room is full.",
        "full_left_open": "Says that the room is full, but does not close the connection.",
        "full_uses_up_name": "Uses up a name for a client that it turns away.",
        "seat_never_free": "Does not give the seat of someone who has left to the next.",
        "port_ignored": "Takes a port of its own, whatever was asked.",
        "no_reuseaddr": "Can't be started again at once on the port it just had.",
    },
}
# Other ways to write it that are right, too.
RIGHT = {
    "small_send_buffer": "Has small buffers in the system, so that its own limit is reached early.",
    "slow": "Takes 50 ms before it does anything with what has come.",
    "tells_others_first": "Tells the others of a newcomer, waits 3 ms, and greets it after that.",
    "writer_threads": "Sends only in the writer thread that each guest has.",
    # Up to here the contract says only that the newcomer gets the line and is closed. That a last message
    # arrives whatever the client sends is a rule from step 06 on, and this is a mistake in 07.
    "full_closes_on_unread": "Closes right after it has said that the room is full, which is a reset if the client has sent something.",
}
offer(MISTAKES, RIGHT)

MAX_LINE_BYTES = 4096
MAX_BACKLOG_BYTES = 4096 if MISTAKE == "queue_of_4_kib" else 1 << 20
FLUSH_BYTES = 64 * 1024
SHOW_OUT_SECONDS = 30
REFUSAL_SECONDS = 1


class Guest:
    """One client: its connection, and what still waits for it."""

    def __init__(self, stream, name):
        self.stream = stream
        prepare(stream)
        self.name = name
        self.lock = threading.Lock()
        self.backlog = bytearray()
        self.ever = 0
        self.flusher = None

    def take(self, data):
        """Sends what the system takes at once and keeps the rest. False says that this was too much."""
        with self.lock:
            if len(self.backlog) > MAX_BACKLOG_BYTES and MISTAKE != "slow_reader_kept":
                return True  # told before, and on its way out
            self.ever += len(data)
            waiting = bool(self.backlog)
            only_queued = VARIANT == "writer_threads" or MISTAKE == "queue_of_4_kib"
            if not only_queued and (not waiting or MISTAKE == "new_overtakes_waiting"):
                data = data[self.send_now(data):]
            self.backlog += data
            if self.backlog and not waiting:
                self.flusher = threading.Thread(target=self.flush, daemon=True)
                self.flusher.start()
            if MISTAKE == "delivered_counts_as_waiting":
                return self.ever <= MAX_BACKLOG_BYTES
            return len(self.backlog) <= MAX_BACKLOG_BYTES or MISTAKE == "slow_reader_kept"

    def send_now(self, data):
        """Sends without waiting; returns how much is done with."""
        try:
            return self.stream.send(data, 0 if MISTAKE == "slow_reader_blocks" else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            if MISTAKE == "failed_send_not_caught":
                raise
            return len(data)  # gone, as its own thread is about to notice

    def flush(self):
        """Sends the backlog, in a thread that lives as long as there is one: only here does sending wait."""
        while True:
            try:
                sent = self.stream.send(self.backlog[:FLUSH_BYTES])
            except OSError:
                sent = len(self.backlog)
            with self.lock:
                del self.backlog[:sent]
                if not self.backlog:
                    return

    def cut_off(self):
        """Ends the connection from any thread; a thread that waits for it wakes up."""
        try:
            self.stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already

    def show_out(self):
        """Lets a guest that has left take what waits for it, then closes."""
        if MISTAKE == "connection_left_open":
            self.stream.detach()
            return
        if self.flusher and MISTAKE != "leaver_cut_off":
            self.flusher.join(SHOW_OUT_SECONDS)
        self.cut_off()
        self.stream.close()


class Room:
    """Who is here. Its lock makes each event one event for all."""

    def __init__(self, limit):
        self.limit = limit
        self.guests = set()
        self.numbers = itertools.count(1)
        self.lock = threading.RLock()

    def welcome(self, stream):
        """Gives a newcomer a seat and a name, or returns None: the room is full."""
        with self.lock:
            if len(self.guests) >= self.limit:
                if MISTAKE == "full_uses_up_name":
                    next(self.numbers)
                return None
            guest = Guest(stream, f"guest-{self.next_number()}")
            self.guests.add(guest)
            here = len(self.guests)
            welcome = [guest], f"* welcome, {guest.name} ({here - (MISTAKE == 'welcome_counts_others')} here)"
            others = self.guests if MISTAKE == "newcomer_told_of_itself" else self.guests - {guest}
            if MISTAKE == "joined_not_told":
                others = []
            joined = others, f"* {guest.name} joined ({here - (MISTAKE == 'joined_counts_others')} here)"
            if VARIANT == "tells_others_first":
                self.tell(*joined)
                time.sleep(0.003)
                self.tell(*welcome)
            else:
                self.tell(*welcome)
                self.tell(*joined)
            return guest

    def next_number(self):
        if MISTAKE == "names_by_headcount":
            return len(self.guests) + 1
        if MISTAKE == "names_reused":
            taken = {guest.name for guest in self.guests}
            return next(n for n in itertools.count(1) if f"guest-{n}" not in taken)
        return next(self.numbers)

    def hear(self, guest, line):
        """Passes a guest's line on to the others."""
        if MISTAKE == "blanks_stripped":
            line = line.strip()
        text = clean(line[:MAX_LINE_BYTES] if MISTAKE == "too_long_cut" else line)
        with contextlib.nullcontext() if MISTAKE == "lines_mix" else self.lock:
            if guest not in self.guests:
                return  # too slow; its last lines come too late
            if too_long(line):
                self.refuse_line(guest)
            elif not says_nothing(line, text):
                hearers = self.guests if MISTAKE == "sender_hears_itself" else self.guests - {guest}
                self.tell(hearers, f"{guest.name}: {text}")

    def refuse_line(self, guest):
        if MISTAKE != "too_long_silent":
            self.tell([guest], f"! line too long: the limit is {MAX_LINE_BYTES} bytes")
        if MISTAKE == "too_long_disconnects":
            guest.cut_off()

    def tell(self, guests, text):
        """Sends a line to each; a guest for which too much waits has to leave."""
        data = text.encode() + (b"" if MISTAKE == "no_newline" else b"\n")
        pieces = data.partition(b": ") if MISTAKE == "lines_mix" else [data]
        for guest in [guest for guest in guests if not all([guest.take(piece) for piece in pieces])]:
            guest.cut_off()
            self.leave(guest, "" if MISTAKE == "too_slow_not_said" else " (too slow)")

    def leave(self, guest, why=""):
        """Tells the others, once, and frees the seat."""
        with self.lock:
            if guest not in self.guests:
                return
            self.guests.remove(guest)
            if MISTAKE == "seat_never_free":
                self.limit -= 1
            here = len(self.guests) + (MISTAKE == "left_counts_leaver")
            for _ in range({"left_not_told": 0, "left_told_twice": 2}.get(MISTAKE, 1)):
                self.tell(self.guests, f"* {guest.name} left{why} ({here} here)")


def says_nothing(line, text):
    if MISTAKE == "emptied_lines_passed_on":
        return not line
    if MISTAKE == "empty_lines_passed_on":
        return line and not text
    return not text


def too_long(line):
    if MISTAKE in ("no_line_limit", "too_long_cut"):
        return False
    if MISTAKE == "limit_counts_characters":
        line = line.decode(errors="replace")
    return len(line) + (MISTAKE == "limit_counts_newline") > MAX_LINE_BYTES


def talk(room, guest):
    """One guest's thread: hears it out, then shows it out."""
    try:
        for line in received(guest.stream, MAX_LINE_BYTES):
            if MISTAKE == "quit_is_a_command" and line == b"quit":
                break
            if MISTAKE == "thread_per_line":
                threading.Thread(target=room.hear, args=[guest, line], daemon=True).start()
                continue
            room.hear(guest, line)
        if MISTAKE == "end_not_noticed":
            threading.Event().wait()
    except OSError:
        if MISTAKE == "reset_not_told":
            room.guests.discard(guest)
    finally:
        room.leave(guest)
        guest.show_out()


def turn_away(stream, seats):
    """Tells a client that the room is full, so that it gets to read it.

    What the client sends meanwhile is read and thrown away: closing on unread data would be a reset.
    """
    end = time.monotonic() + REFUSAL_SECONDS
    stream.settimeout(REFUSAL_SECONDS)
    with stream:
        try:
            if MISTAKE != "full_not_said":
                stream.sendall(f"! the room is full: the limit is {seats}\n".encode())
            if MISTAKE == "full_left_open":
                stream.detach()
                return
            if VARIANT == "full_closes_on_unread":
                return
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(READ_BYTES) and time.monotonic() < end:
                pass
        except OSError:
            pass  # gone, or it says nothing and stays


def limit(text):
    number = int(text)
    if not 1 <= number <= 10000 and MISTAKE != "limit_range_not_checked":
        raise ValueError
    return number


def seats(number):
    """How many clients the room takes."""
    return {"no_limit": 1 << 30, "limit_one_too_many": number + 1, "limit_one_too_few": number - 1}.get(MISTAKE, number)


def main():
    arguments = Arguments()
    arguments.add_argument("--limit", type=limit, default=10000, metavar="N", help="at most N clients (1 to 10000)")
    chosen = arguments.parse()
    room = Room(seats(chosen.limit))
    for stream in visitors(listen(chosen.address)):
        guest = room.welcome(stream)
        if MISTAKE == "accept_dies_with_client":
            print("welcomed", stream.getpeername())
        if MISTAKE == "one_client_at_a_time":
            talk(room, guest)
            continue
        job, what = (talk, [room, guest]) if guest else (turn_away, [stream, chosen.limit])
        threading.Thread(target=job, args=what, daemon=True).start()


main()
