"""A room, as steps 06 to 08 have it: who is here, and what goes to whom. It knows nothing of sockets."""

import itertools
import threading
import time

from common import MISTAKE, VARIANT
from messages import (CHALLENGE, ERROR, JOIN, KIND_NAMES, LEAVE, MAX_BODY_BYTES, PING, PONG, TEXT, WELCOME, Message,
                      cleaned, list_of_names, trouble_with)

GOODBYE = Message(LEAVE, body="server is shutting down")
if MISTAKE == "goodbye_has_sender":
    GOODBYE = GOODBYE._replace(sender="server")

NEVER = 1_000_000

# By mistake: the reason as it should be, and as it is told.
WRONG_REASONS = {
    "left_says_disconnected": ("left", "disconnected"),
    "end_says_left": ("disconnected", "left"),
    "nonsense_says_disconnected": ("protocol error", "disconnected"),
    "timed_out_says_disconnected": ("timed out", "disconnected"),
    "too_slow_says_disconnected": ("too slow", "disconnected"),
}
SHOWN_OUT_BY_ERROR = {
    "text_before_join_disconnects": "join first",
    "second_join_disconnects": "you are here as",
    "refused_name_disconnects": "a name has",
    "server_kinds_disconnect": "is not for clients",
}


class Guest:
    """One client. Without a name it has not joined."""

    def __init__(self):
        self.name = ""
        self.heard_at = time.monotonic()
        self.pinged_at = None
        self.pings = 0

    def take(self, data):
        """Gets a message on its way, without waiting. False says that too much waits already."""
        raise NotImplementedError

    def cut_off(self):
        """Ends the connection at once."""


class Room:
    """Its lock makes each event one event for all."""

    def __init__(self, seats=None, heartbeat_seconds=None, max_body_bytes=MAX_BODY_BYTES, always_why=None):
        self.guests = set()
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.seats = seats
        self.heartbeat_seconds = heartbeat_seconds
        self.max_body_bytes = max_body_bytes
        self.always_why = always_why
        self.closed = False
        self.ghosts = []  # names that are kept by mistake
        self.numbers = itertools.count(1)

    def enter(self, guest):
        """Gives a newcomer a seat. False says that there is none."""
        with self.lock:
            if self.closed or self.seats is not None and self.seats_taken() >= self.seats:
                return False
            self.guests.add(guest)
            self.changed.notify_all()
            return True

    def seats_taken(self):
        return len({
            "limit_one_too_many": list(self.guests)[1:],
            "limit_one_too_few": [*self.guests, None],
            "limit_counts_joined": self.members(),
            "seat_never_free": [*self.guests, *self.ghosts],
        }.get(MISTAKE, self.guests))

    def members(self):
        return [guest for guest in self.guests if guest.name]

    def hearers(self, guest):
        """Who hears what a guest says and does."""
        everyone = self.guests if MISTAKE == "not_joined_hear_all" else self.members()
        return [other for other in everyone if other is not guest]

    def hear(self, guest, message):
        """Does what a message asks for."""
        with self.lock:
            if guest not in self.guests or self.closed:
                return  # its last words come too late
            self.is_alive(guest, message.kind)
            if message.kind == PING:
                self.answer_ping(guest, message.sequence)
            elif message.kind in (PONG, ERROR):
                self.ignore(guest, message.kind)
            elif message.kind == JOIN:
                self.join(guest, message.sender)
            elif not guest.name and MISTAKE != "text_before_join_passed_on":
                self.refuse(guest, "join first")
            elif message.kind == TEXT:
                self.pass_on(guest, message)
            elif JOIN <= message.kind <= CHALLENGE and MISTAKE != "server_kinds_ignored":
                self.refuse(guest, f"{KIND_NAMES[message.kind]} is not for clients")

    def answer_ping(self, guest, sequence):
        if MISTAKE == "ping_needs_join" and not guest.name:
            self.refuse(guest, "join first")
        elif MISTAKE != "ping_not_answered":
            self.tell([guest], Message(PONG, 0 if MISTAKE == "pong_sequence_0" else sequence))

    def ignore(self, guest, kind):
        if MISTAKE == "pong_answered" and kind == PONG or MISTAKE == "error_answered" and kind == ERROR:
            self.refuse(guest, f"{KIND_NAMES[kind]} is not for clients")

    def join(self, guest, name):
        if MISTAKE == "second_join_welcomed" and guest.name == name != "":
            self.welcome(guest)
            return
        if guest.name and MISTAKE != "second_join_renames":
            if MISTAKE != "second_join_ignored":
                self.refuse(guest, f"you are here as {guest.name}")
            return
        if MISTAKE == "name_stripped":
            name = name.strip()
        trouble = trouble_with(name, self.ghosts + [member.name for member in self.members()])
        if trouble:
            if MISTAKE != "refused_name_silent":
                self.refuse(guest, trouble)
            return
        guest.name = name.lower() if MISTAKE == "name_in_lower_case" else name
        if VARIANT == "tells_others_first":
            self.tell(self.hearers(guest), Message(JOIN, sender=guest.name))
            time.sleep(0.003)
        self.welcome(guest)
        if MISTAKE != "joined_not_told" and VARIANT != "tells_others_first":
            itself = [guest] if MISTAKE == "newcomer_told_of_itself" else []
            self.tell(self.hearers(guest) + itself, Message(JOIN, self.number(), sender=guest.name))

    def welcome(self, guest):
        names = [member.name for member in self.members()]
        body = list_of_names(guest.name, names, self.max_body_bytes)
        sender = "" if MISTAKE == "welcome_without_sender" else guest.name
        self.tell([guest], Message(WELCOME, self.number(), sender=sender, body=body))

    def number(self):
        """The sequence of what the server says of itself."""
        return next(self.numbers) if MISTAKE == "server_numbers_its_own" else 0

    def pass_on(self, guest, message):
        text = message.body if MISTAKE == "passed_on_uncleaned" else cleaned(message.body)
        if text or MISTAKE == "emptied_passed_on" and message.body or MISTAKE == "empty_passed_on" and not message.body:
            itself = [guest] if MISTAKE == "sender_hears_itself" else []
            sender = message.sender if MISTAKE == "sender_believed" else guest.name
            sequence = {"renumbered": next(self.numbers), "sequence_not_passed_on": 0}.get(MISTAKE, message.sequence)
            self.tell(self.hearers(guest) + itself, message._replace(sequence=sequence, sender=sender, body=text))

    def refuse(self, guest, why):
        with self.lock:
            if guest in self.guests and not self.closed:
                self.tell([guest], Message(ERROR, body="" if MISTAKE == "error_without_words" else why))
        if MISTAKE in SHOWN_OUT_BY_ERROR and SHOWN_OUT_BY_ERROR[MISTAKE] in why:
            self.throw_out(guest, "disconnected")

    def tell(self, guests, message):
        """Sends a message to each; a guest for which too much waits has to leave."""
        data = message.bytes()
        for guest in [guest for guest in guests if not guest.take(data)]:
            self.throw_out(guest, "too slow")
        if MISTAKE == "sent_is_life" and message.kind != PING:
            for guest in guests:
                self.is_alive(guest, message.kind)

    def throw_out(self, guest, why):
        if MISTAKE != "thrown_out_left_open":
            guest.cut_off()
        self.leave(guest, why)

    def leave(self, guest, why):
        """Frees the name and the seat, and tells the others, once."""
        with self.lock:
            if self.closed or guest not in self.guests and not self.tells_again(guest):
                return
            self.guests.discard(guest)
            if MISTAKE in ("name_not_freed", "seat_never_free") or MISTAKE == "only_leave_frees_name" and why != "left":
                self.ghosts.append(guest.name)
            if not guest.name and MISTAKE != "not_joined_told" or MISTAKE == "left_not_told":
                return
            right, wrong = WRONG_REASONS.get(MISTAKE, ("", ""))
            why = wrong if why == right else self.always_why or why
            itself = [guest] if MISTAKE == "leaver_told_of_itself" else []
            for _ in range(2 if MISTAKE == "left_told_twice" else 1):
                self.tell(self.hearers(guest) + itself, Message(LEAVE, self.number(), sender=guest.name, body=why))

    def tells_again(self, guest):
        """By mistake the guest's own thread tells what was told already by the one that threw it out."""
        return MISTAKE == "thrown_out_told_twice" and guest.name

    def close(self):
        """Says goodbye to everyone, and takes no more part. Returns who was here."""
        with self.lock:
            if MISTAKE == "each_leave_told_at_stop":
                for member in self.members()[1:]:
                    self.leave(member, "server is shutting down")
            self.closed = True
            if MISTAKE != "no_goodbye":
                self.tell(self.members() if MISTAKE == "goodbye_to_joined_only" else self.guests, GOODBYE)
            self.changed.notify_all()
            return list(self.guests)

    # --- the heartbeat ---

    def is_alive(self, guest, kind):
        """Any message is a sign of life."""
        if kind == {"pong_is_no_life": PONG, "text_is_no_life": TEXT}.get(MISTAKE):
            return
        guest.heard_at = time.monotonic()
        if MISTAKE != "pings_once":
            guest.pinged_at = None

    def watch(self):
        """Looks after those who are silent, in a thread of its own."""
        with self.changed:
            while not self.closed:
                self.changed.wait(self.look_around())

    def look_around(self):
        """Pings who was silent for a heartbeat, throws out who was for two more. Returns the seconds to the next."""
        now = time.monotonic()
        for guest in list(self.guests):
            if self.due(guest) > now:
                continue
            if guest.pinged_at is None and MISTAKE != "thrown_out_without_ping":
                guest.pinged_at = now
                guest.pings += 1
                if MISTAKE != "never_pings":
                    self.tell([guest], Message(PING, guest.pings))
            else:
                self.throw_out(guest, "timed out")
        return max(0, min(map(self.due, self.guests)) - now) if self.guests else None

    def due(self, guest):
        """When silence has a consequence."""
        heartbeats = 1 if guest.pinged_at is None else 2
        if MISTAKE == "pings_once" and guest.pinged_at:
            return guest.heard_at + 3 * self.heartbeat_seconds
        if MISTAKE == "not_joined_not_watched" and not guest.name:
            heartbeats = NEVER
        if guest.pinged_at:
            if MISTAKE == "never_throws_out" or MISTAKE == "not_joined_never_thrown_out" and not guest.name:
                heartbeats = NEVER
            heartbeats = {"thrown_out_too_soon": 1, "thrown_out_too_late": 8}.get(MISTAKE, heartbeats)
        return (guest.pinged_at or guest.heard_at) + heartbeats * self.heartbeat_seconds
