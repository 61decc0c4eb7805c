"""08: the chat on UDP: datagrams that may be lost, doubled or overtaken, and whose senders may lie."""

import hashlib
import hmac
import os
import random
import secrets
import selectors
import socket
import sys
import threading
import time

from common import MISTAKE, Arguments, between, first_word, listen, offer, reason, stop_asked
from common import show as show_address
from messages import (CHALLENGE, ERROR, JOIN, LEAVE, PING, PONG, TEXT, WELCOME, Message, NotAMessage, cleaned, parse,
                      said, show, trouble_with)
from rooms import Guest, Room

# For each test the mistakes that it must catch.
MISTAKES = {
    "a_client_joins_only_with_the_cookie_for_its_own_address_and_port": {
        "no_cookie": "Takes a JOIN without a cookie.",
        "cookie_constant": "Gives everybody the same cookie.",
        "cookie_of_host_only": "Gives all ports of an address the same cookie.",
        "cookie_of_port_only": "Gives a port of all addresses the same cookie.",
        "cookie_without_key": "Makes its cookies without a key, so that anybody can.",
        "cookie_of_others_taken": "Takes every cookie that it has given, from whatever address.",
        "cookie_too_long": "Sends a cookie of 64 bytes to a question of 20.",
        "wrong_cookie_is_error": "Answers a wrong cookie with an error, not with the right one.",
        "name_taken_before_cookie": "Keeps a name for someone who has not brought a cookie yet.",
        "name_checked_before_cookie": "Tells someone without a cookie that a name won't do.",
    },
    "a_name_belongs_to_one_address_until_it_leaves": {
        "second_join_told_again": "Tells the others again when someone asks again.",
        "second_join_not_answered": "Does not answer someone who asks again.",
        "second_join_is_error": "Tells someone who asks again that the name is taken.",
        "second_join_challenged": "Asks someone who is here and asks again without a cookie for the cookie.",
        "second_join_renames": "Takes another JOIN with another name for a change of the name.",
        "names_case_sensitive": "Takes Alice for another name than alice.",
        "name_not_freed": "Does not give the name of someone who has left to the next.",
        "welcome_too_long": "Lists all names, in however long a body.",
        "leave_ignored": "Does not take LEAVE for an end.",
    },
    "a_text_goes_to_everybody_else_under_the_name_known_for_its_address": {
        "found_by_name": "Believes the sender that the datagram names, whatever address it comes from.",
        "sender_believed": "Passes on the sender that the client wrote.",
        "sender_hears_itself": "Sends a text back to its sender too.",
        "passed_on_uncleaned": "Passes texts on as they came.",
        "renumbered": "Numbers the messages that it passes on anew.",
        "time_believed": "Passes on the time that the client wrote.",
    },
    "one_datagram_is_one_message_and_strangers_learn_nothing": {
        "stranger_ping_not_answered": "Answers PING only to those who have joined.",
        "stranger_text_not_answered": "Does not say `join first` on UDP.",
        "stranger_nonsense_answered": "Answers what is no message, whoever sent it.",
        "stranger_leave_answered": "Answers the LEAVE of someone who has not joined.",
        "stranger_pong_answered": "Answers the PONG of someone who has not joined.",
        "stranger_kinds_answered": "Answers WELCOME, LOGIN and CHALLENGE of someone who has not joined.",
        "pong_answered": "Answers PONG with an error.",
        "error_answered": "Answers ERROR with an error.",
        "pong_sequence_0": "Answers PING with sequence 0.",
        "trailing_bytes_taken": "Takes a datagram in which more follows the message.",
        "reads_1200_bytes": "Reads 1200 bytes of a datagram, and does not notice that it has more.",
        "body_limit_4096": "Takes bodies of up to 4096 bytes, as on TCP.",
        "body_limit_too_small": "Takes bodies of up to 1147 bytes.",
        "nonsense_not_answered": "Does not tell a member that it has sent what is no message.",
        "nonsense_throws_out": "Throws out a member that has sent what is no message.",
        "nonsense_ends_server": "What is no message ends the server in a traceback.",
        "datagram_limit_1500": "Takes datagrams of up to 1500 bytes, and bodies of up to 1448.",
        "body_limit_not_checked": "Looks at the size of a datagram, but not at the length of its body.",
    },
    "a_text_is_passed_on_once_and_never_held_back_for_its_order": {
        "doubled_passed_on": "Passes on a text as often as it comes.",
        "order_kept": "Waits for a text that is missing before it passes on the next.",
        "overtaken_dropped": "Drops a text that comes after a later one.",
        "window_one_too_large": "Passes on a text that is 64 below the highest.",
        "window_one_too_small": "Drops a text that is 63 below the highest.",
        "window_endless": "Passes on a text however old it is.",
        "window_shared": "Has one window for all senders.",
        "window_kept": "Has the same window for someone who has left and comes back.",
        "window_anew_with_join": "Has a new window for someone who asks again to join.",
    },
    "a_silent_member_is_timed_out_and_no_other": {
        "icmp_ends_server": "The news that nobody is at an address any more ends the server.",
        "never_pings": "Throws out without having asked.",
        "thrown_out_without_ping": "Throws out after one heartbeat.",
        "thrown_out_too_soon": "Throws out one heartbeat after its PING.",
        "never_throws_out": "Pings, and does nothing when no answer comes.",
        "pings_once": "Does not ask again someone who has been silent before.",
        "pong_is_no_life": "Does not take PONG for a sign of life.",
        "text_is_no_life": "Does not take TEXT for a sign of life.",
        "sent_is_life": "Takes what it sends to someone for a sign of life.",
        "timed_out_says_disconnected": "Tells `disconnected` of someone who has timed out.",
    },
    "the_server_stops_drops_datagrams_and_starts_as_it_is_told": {
        "quit_not_understood": "Does not stop at /quit.",
        "sigterm_not_caught": "Ends at once at SIGTERM.",
        "sigint_not_caught": "Ends at once at SIGINT.",
        "end_of_input_stops": "Stops at the end of its input.",
        "no_goodbye": "Stops without a goodbye.",
        "no_bye": "Does not print bye.",
        "udp_port_shared": "Sets SO_REUSEADDR, so that two servers take the same port and neither says so.",
        "loss_ignored": "Loses nothing whatever was asked.",
        "loss_of_everything": "Loses everything if it is to lose something.",
        "loss_of_received": "Loses what it receives, not what it sends.",
        "ranges_not_checked": "Takes any number for its options.",
        "port_ignored": "Takes a port of its own, whatever was asked.",
    },
    "a_client_asks_five_times_and_returns_the_cookie": {
        "asks_four_times": "Asks four times to join.",
        "asks_for_ever": "Asks to join until somebody answers.",
        "asks_without_pause": "Asks to join five times at once.",
        "count_not_anew": "Asks five times in all, before and after the CHALLENGE.",
        "challenge_ignored": "Does not bring the cookie back.",
        "cookie_brought_once": "Asks again without the cookie if the answer to it is lost.",
        "no_answer_exit_0": "Exits 0 when nobody answers.",
        "refused_exit_0": "Exits 0 when its name is refused.",
        "cookies_without_end": "Brings every cookie back, however many come.",
    },
    "a_client_shows_what_arrives_and_counts_what_is_missing": {
        "any_source_taken": "Takes datagrams from any address.",
        "gap_not_told": "Does not tell that messages are lost.",
        "gap_one_too_many": "Counts the message after a gap as lost.",
        "gap_without_plural": "Says `3 message`.",
        "gap_from_1": "Counts what a sender said before it could be heard as lost.",
        "gap_shared": "Counts the messages of all senders together.",
        "gap_name_uncleaned": "Shows a name as it came when messages are lost.",
        "late_not_shown": "Does not show a message that comes late.",
        "late_moves_back": "Counts on from a message that came late.",
        "stays_after_goodbye": "Stays when the server has said goodbye.",
        "goodbye_exit_1": "Exits 1 at the server's goodbye.",
        "goodbye_shown_as_left": "Shows the server's goodbye like that of a guest without a name.",
    },
    "a_client_numbers_what_is_typed_and_says_how_it_ended": {
        "speaks_before_welcome": "Sends what is typed before it is welcome.",
        "numbered_from_0": "Numbers texts from 0.",
        "typed_limit_4096": "Sends up to 4096 bytes, as on TCP.",
        "too_long_takes_number": "Gives a number to a typed line that it does not send.",
        "quit_is_text": "Sends /quit as a text.",
        "client_answers_no_ping": "Does not answer the server's PING.",
        "client_pong_sequence_0": "Answers the server's PING with sequence 0.",
        "ends_without_leave": "Does not send LEAVE at the end.",
        "stays_at_end": "Stays when it has said goodbye.",
    },
}
offer(MISTAKES)

MAX_DATAGRAM_BYTES = 1200
MAX_BODY_BYTES = 1148
READ_BYTES = MAX_DATAGRAM_BYTES if MISTAKE == "reads_1200_bytes" else 64 * 1024
WINDOW = 64
TRIES = {"asks_four_times": 4, "asks_for_ever": 1 << 30}.get(MISTAKE, 5)
MAX_COOKIES = 1 << 30 if MISTAKE == "cookies_without_end" else 5
TRY_SECONDS = 0.001 if MISTAKE == "asks_without_pause" else 0.5


def message_in(datagram):
    """The one message that a datagram is."""
    longest = {"datagram_limit_1500": 1500, "body_limit_4096": 4148}.get(MISTAKE, MAX_DATAGRAM_BYTES)
    if len(datagram) > longest:
        raise NotAMessage(f"the datagram has {len(datagram)} bytes; the limit is {longest}")
    longest_body = {"datagram_limit_1500": 1448, "body_limit_4096": 4096, "body_limit_not_checked": 65535}
    found = parse(datagram, longest_body.get(MISTAKE, MAX_BODY_BYTES))
    if not found:
        raise NotAMessage("the body is longer or the datagram shorter than its header says")
    message, rest = found
    if rest and MISTAKE != "trailing_bytes_taken":
        raise NotAMessage(f"{len(rest)} bytes follow the message; a datagram is one message")
    return message


class Door:
    """A socket, which loses what it is told to lose."""

    def __init__(self, door, loss_percent):
        self.socket = door
        self.loss_percent = {"loss_ignored": 0, "loss_of_everything": 100}.get(MISTAKE, loss_percent) \
            if loss_percent else 0

    def loses(self, received=False):
        return random.randrange(100) < self.loss_percent and received == (MISTAKE == "loss_of_received")

    def send(self, data, place=None):
        if self.loses():
            return
        if place:
            self.socket.sendto(data, place)
            return
        try:
            self.socket.send(data)
        except ConnectionRefusedError:
            # That was about an earlier datagram. The thread that receives is told if this one fails, too.
            self.socket.send(data)

    def receive(self):
        """The next datagram, and where it came from."""
        while True:
            datagram, place = self.socket.recvfrom(READ_BYTES)
            if not self.loses(received=True):
                return datagram, place


# --- the server ---


class Window:
    """Which of a sender's sequences have come: the highest, and the 63 below it."""

    def __init__(self):
        self.highest = None
        self.seen = set()

    def is_new(self, sequence):
        if self.highest is None:
            self.highest = sequence
        size = {"window_one_too_large": WINDOW + 1, "window_one_too_small": WINDOW - 1, "window_endless": 1 << 32,
                "overtaken_dropped": 1}.get(MISTAKE, WINDOW)
        if MISTAKE == "doubled_passed_on":
            self.seen.clear()
        if sequence in self.seen or sequence <= self.highest - size:
            return False
        self.highest = max(self.highest, sequence)
        self.seen = {s for s in self.seen if s > self.highest - size} | {sequence}
        return True


SHARED_WINDOW = Window()


class Visitor(Guest):
    """The sender at an address. Nothing is remembered of it, unless it joins."""

    def __init__(self, place, door):
        super().__init__()
        self.place = place
        self.door = door
        self.window = SHARED_WINDOW if MISTAKE == "window_shared" else Window()
        self.waiting = {}  # by mistake: texts that wait for those before them
        self.next = 1

    def take(self, data):
        try:
            self.door.send(data, self.place)
        except OSError:
            if MISTAKE == "icmp_ends_server":
                raise
            # No room for it, or nobody there: datagrams may be lost.
        return True

    def cut_off(self):
        pass  # there is no connection


class UdpRoom(Room):
    """The room of 06 and 07, by address and without connections."""

    def __init__(self, door, heartbeat_seconds):
        super().__init__(heartbeat_seconds=heartbeat_seconds, max_body_bytes=MAX_BODY_BYTES)
        self.door = door
        self.key = b"" if MISTAKE == "cookie_without_key" else secrets.token_bytes(32)
        self.places = {}
        self.windows = {}
        self.given = set()

    def cookie(self, place):
        """What only the owner of this address can know, since it was sent there."""
        known = {"cookie_constant": "", "cookie_of_host_only": place[0], "cookie_of_port_only": place[1]}
        known = repr(known.get(MISTAKE, place[:2])).encode()
        cookie = hmac.new(self.key, known, hashlib.sha256).hexdigest()
        cookie = cookie if MISTAKE == "cookie_too_long" else cookie[:32]
        self.given.add(cookie)
        return cookie

    def is_right(self, cookie, place):
        if MISTAKE == "no_cookie" or MISTAKE == "cookie_of_others_taken" and cookie in self.given:
            return True
        return hmac.compare_digest(cookie.encode(), self.cookie(place).encode())

    def arrives(self, datagram, place):
        member = self.places.get(place)
        try:
            message = message_in(datagram)
        except NotAMessage as problem:
            return self.object_to(member, place, str(problem))
        if MISTAKE == "found_by_name" and message.kind != JOIN:
            member = next((member for member in self.members() if member.name == message.sender), member)
        if not member:
            self.meet(Visitor(place, self.door), message)
        elif message.kind == LEAVE and MISTAKE != "leave_ignored":
            self.leave(member, "left")
        else:
            if MISTAKE == "second_join_challenged" and message.kind == JOIN and not message.body:
                self.tell([member], Message(CHALLENGE, body=self.cookie(place)))
                return
            self.hear(member, message)

    def object_to(self, member, place, problem):
        """Answers what is no message, if it is a member's."""
        if MISTAKE == "nonsense_ends_server":
            raise NotAMessage(problem)
        if member and MISTAKE != "nonsense_not_answered":
            self.refuse(member, problem)
        if member and MISTAKE == "nonsense_throws_out":
            self.leave(member, "protocol error")
        if not member and MISTAKE == "stranger_nonsense_answered":
            self.door.send(Message(ERROR, body=problem).bytes(), place)

    def meet(self, stranger, message):
        """Answers someone who has not joined, with little, and believes nothing."""
        answered = {"stranger_leave_answered": [LEAVE], "stranger_pong_answered": [PONG],
                    "stranger_kinds_answered": [WELCOME, CHALLENGE]}.get(MISTAKE, [])
        if message.kind == PING and MISTAKE != "stranger_ping_not_answered":
            self.answer_ping(stranger, message.sequence)
        elif message.kind == TEXT and MISTAKE != "stranger_text_not_answered" or message.kind in answered:
            self.tell([stranger], Message(ERROR, body="join first"))
        elif message.kind == JOIN:
            self.admit(stranger, message.sender, message.body)

    def admit(self, stranger, name, cookie):
        """Lets someone in who has brought the right cookie back."""
        trouble = trouble_with(name, [member.name for member in self.members()])
        if self.is_right(cookie, stranger.place):
            self.enter(stranger)
            self.join(stranger, name)
            if stranger.name:
                self.places[stranger.place] = stranger
                if MISTAKE == "window_kept":
                    stranger.window = self.windows.setdefault(stranger.place, stranger.window)
            else:
                self.guests.discard(stranger)
        elif MISTAKE == "name_checked_before_cookie" and trouble:
            self.tell([stranger], Message(ERROR, body=trouble))
        elif MISTAKE == "wrong_cookie_is_error" and cookie:
            self.tell([stranger], Message(ERROR, body="wrong cookie"))
        else:
            self.tell([stranger], Message(CHALLENGE, body=self.cookie(stranger.place)))
            if MISTAKE == "name_taken_before_cookie":
                stranger.name = name
                self.guests.add(stranger)
                self.places[stranger.place] = stranger

    def join(self, guest, name):
        if name != guest.name or not name or MISTAKE == "second_join_is_error":
            super().join(guest, name)
        elif MISTAKE != "second_join_not_answered":
            self.welcome(guest)  # the first one was lost
        if MISTAKE == "second_join_told_again" and name == guest.name:
            self.tell(self.hearers(guest), Message(JOIN, sender=name))
        if MISTAKE == "window_anew_with_join":
            guest.window = Window()

    def pass_on(self, guest, message):
        if MISTAKE == "order_kept":
            guest.waiting[message.sequence] = message
            while guest.next in guest.waiting:
                super().pass_on(guest, guest.waiting.pop(guest.next))
                guest.next += 1
        elif guest.window.is_new(message.sequence):
            super().pass_on(guest, message)

    def leave(self, guest, why):
        self.places.pop(guest.place, None)
        super().leave(guest, why)


def serve(chosen):
    stop = stop_asked()
    listener = listen(chosen.address, socket.SOCK_DGRAM)
    door = Door(listener, chosen.loss)
    if MISTAKE == "icmp_ends_server":
        listener.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR (Linux)
    room = UdpRoom(door, chosen.heartbeat_ms / 1000)
    events = selectors.DefaultSelector()
    events.register(stop, selectors.EVENT_READ)
    events.register(listener, selectors.EVENT_READ)
    while True:
        ready = [key.fileobj for key, _ in events.select(room.look_around())]
        if stop in ready:
            break
        if listener in ready:
            try:
                datagram, place = door.receive()
            except OSError as error:
                if MISTAKE == "icmp_ends_server":
                    raise
                print(f"could not receive: {reason(error)}", file=sys.stderr)
                continue
            room.arrives(datagram, place)
    room.close()
    if MISTAKE != "no_bye":
        print("bye", flush=True)


# --- the client ---


class Lost:
    """Notices which of each sender's messages are missing."""

    def __init__(self):
        self.highest = {}

    def before(self, message):
        """How many messages were lost before this one; less than 0 if it comes late."""
        sender = "all" if MISTAKE == "gap_shared" else message.sender
        if message.kind in (JOIN, LEAVE):
            self.highest.pop(sender, None)  # who comes back starts anew
        if message.kind != TEXT:
            return 0
        highest = self.highest.get(sender, 0 if MISTAKE == "gap_from_1" else message.sequence - 1)
        self.highest[sender] = message.sequence if MISTAKE == "late_moves_back" else max(highest, message.sequence)
        return message.sequence - highest - 1

    def show(self, count, sender):
        """Tells it."""
        if MISTAKE == "gap_one_too_many":
            count += 1
        messages = "message" if count == 1 or MISTAKE == "gap_without_plural" else "messages"
        sender = sender if MISTAKE == "gap_name_uncleaned" else cleaned(sender)
        if MISTAKE != "gap_not_told":
            print(f"* {count} {messages} from {sender} lost", flush=True)


class Client:
    def __init__(self, door, place, name):
        self.door = door
        self.place = None
        self.name = name
        if MISTAKE == "any_source_taken":
            self.place = place
        else:
            door.socket.connect(place)  # so that the system takes datagrams from the server's address only

    def send(self, message):
        self.door.send(message.bytes(), self.place)

    def received(self, until=None):
        """The next message, or None when the time is up."""
        while until is None or time.monotonic() < until:
            self.door.socket.settimeout(None if until is None else max(0.001, until - time.monotonic()))
            try:
                return message_in(self.door.receive()[0])
            except (NotAMessage, socket.timeout):
                pass
        return None

    def ask_to_join(self):
        """Returns the server's WELCOME or ERROR. Any datagram may be lost, so it asks again."""
        cookie = ""
        cookies = 0
        tries = 0
        while tries < TRIES:
            tries += 1
            self.send(Message(JOIN, sender=self.name, body=cookie))
            if MISTAKE == "cookie_brought_once":
                cookie = ""
            until = time.monotonic() + TRY_SECONDS
            while message := self.received(until):
                if message.kind == CHALLENGE and message.body != cookie and cookies < MAX_COOKIES \
                        and MISTAKE != "challenge_ignored":
                    cookie = message.body
                    cookies += 1
                    tries = tries if MISTAKE == "count_not_anew" else 0
                    break
                if message.kind == PING:
                    self.answer(message)
                if message.kind in (WELCOME, ERROR):
                    return message
        return None

    def answer(self, ping):
        if MISTAKE != "client_answers_no_ping":
            self.send(Message(PONG, 0 if MISTAKE == "client_pong_sequence_0" else ping.sequence))

    def speak(self):
        """Sends what is typed, says goodbye, and ends the program."""
        try:
            for message in said(4096 if MISTAKE == "typed_limit_4096" else MAX_BODY_BYTES):
                self.send(message)
            if MISTAKE != "ends_without_leave":
                self.send(Message(LEAVE))
        except OSError as error:
            print(f"could not send: {reason(error)}", file=sys.stderr, flush=True)
            os._exit(1)
        if MISTAKE != "stays_at_end":
            os._exit(0)

    def start_speaking(self):
        # A daemon, because nothing wakes it from reading its input when the server stops.
        threading.Thread(target=self.speak, daemon=True).start()

    def converse(self):
        if MISTAKE != "speaks_before_welcome":
            self.start_speaking()
        lost = Lost()
        while True:
            message = self.received()
            count = lost.before(message)
            if count > 0:
                lost.show(count, message.sender)
            if message.kind == PING:
                self.answer(message)
            elif message.kind != WELCOME and (count >= 0 or MISTAKE != "late_not_shown"):
                show(message)
            if message.kind == LEAVE and not message.sender and MISTAKE != "stays_after_goodbye":
                sys.exit(1 if MISTAKE == "goodbye_exit_1" else 0)


def join(chosen):
    """Runs a client, with the first of the server's addresses where somebody answers."""
    server = show_address(chosen.address)
    failure = "no answer"
    try:
        for family, kind, _, _, place in socket.getaddrinfo(*chosen.address, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind) as stream:
                try:
                    client = Client(Door(stream, chosen.loss), place, chosen.name)
                    if MISTAKE == "speaks_before_welcome":
                        client.start_speaking()
                    answer = client.ask_to_join()
                except OSError as error:
                    failure = reason(error)
                    continue
                if answer:
                    show(answer)
                    if answer.kind == ERROR:
                        sys.exit(0 if MISTAKE == "refused_exit_0" else 1)
                    client.converse()
    except (OSError, UnicodeError) as error:
        failure = reason(error)
    print(f"cannot chat with {server}: {failure}; start a server there first: 08_udp_chat serve {server}",
          file=sys.stderr)
    sys.exit(0 if MISTAKE == "no_answer_exit_0" else 1)


def main():
    word = first_word(" [--heartbeat-ms N] [--loss PERCENT]", " [--loss PERCENT]")
    arguments = Arguments(word)
    arguments.add_argument("--loss", type=between(0, 100), default=0, metavar="PERCENT",
                           help="lose this share of what is sent (0 to 100)")
    if word == "join":
        return join(arguments.parse())
    arguments.add_argument("--heartbeat-ms", type=between(50, 3_600_000), default=10_000, metavar="N",
                           help="ping who is silent for N ms (50 to 3,600,000)")
    serve(arguments.parse())


main()
