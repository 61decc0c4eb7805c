"""Messages, as steps 06 to 08 send them: their format, names, and how a client shows them."""

import itertools
import struct
import sys
import time
import typing

from common import MISTAKE, clean, typed

JOIN, TEXT, LEAVE, ERROR, PING, PONG, WELCOME, LOGIN, CHALLENGE = range(1, 10)
KIND_NAMES = ["", "JOIN", "TEXT", "LEAVE", "ERROR", "PING", "PONG", "WELCOME", "LOGIN", "CHALLENGE"]

MAGIC = b"CH"
VERSION = 1
HEADER = struct.Struct("<2sBBIQHH" if MISTAKE == "header_little_endian" else "!2sBBIQHH")
MAX_SENDER_BYTES = 32
MAX_BODY_BYTES = 4096


class NotAMessage(Exception):
    """What came is no message; says which field is wrong, and what was expected."""


class Message(typing.NamedTuple):
    """One message. What a program sends of itself has its own clock's time."""

    kind: int
    sequence: int = 0
    timestamp: int = 0
    sender: str = ""
    body: str = ""

    def bytes(self):
        sender, body = self.sender.encode(), self.body.encode()
        sender_length, body_length = len(sender), len(body)
        if MISTAKE == "lengths_count_characters":
            sender_length, body_length = len(self.sender), len(self.body)
        header = HEADER.pack(MAGIC, VERSION, self.kind, turned(self.sequence, 4, "sequence_little_endian"),
                             turned(self.time(), 8, "time_little_endian"),
                             turned(sender_length, 2, "lengths_little_endian"),
                             turned(body_length, 2, "lengths_little_endian"))
        return header + sender + body

    def time(self):
        if MISTAKE == "time_believed":
            return self.timestamp
        return time.time_ns() // (1_000_000_000 if MISTAKE == "time_in_seconds" else 1_000_000)


def turned(number, size, mistake):
    """The number itself, or, by mistake, with its bytes in the other order."""
    return int.from_bytes(number.to_bytes(size, "big"), "little") if MISTAKE == mistake else number


def parse(data, max_body_bytes=MAX_BODY_BYTES):
    """The message at the start of the data, and what follows it; None where some of it is still to come."""
    check_start(data)
    if len(data) < HEADER.size:
        return None
    _, _, kind, sequence, timestamp, sender_bytes, body_bytes = HEADER.unpack_from(data)
    sequence = turned(sequence, 4, "sequence_little_endian")
    timestamp = turned(timestamp, 8, "time_little_endian")
    sender_bytes = turned(sender_bytes, 2, "lengths_little_endian")
    body_bytes = turned(body_bytes, 2, "lengths_little_endian")
    if MISTAKE == "lengths_checked_late" and len(data) < HEADER.size + sender_bytes + body_bytes:
        return None
    check_length("sender", sender_bytes, 1 << 16 if MISTAKE == "sender_length_not_checked" else MAX_SENDER_BYTES)
    check_length("body", body_bytes, max_body_bytes + {"body_limit_too_small": -1, "body_limit_too_large": 1}.get(
        MISTAKE, 0))
    middle = HEADER.size + sender_bytes
    end = middle + body_bytes
    if len(data) < end:
        return None
    sender, body = as_text("sender", data[HEADER.size:middle]), as_text("body", data[middle:end])
    return Message(kind, sequence, timestamp, sender, body), data[end:]


def check_start(data):
    """The first four bytes, as far as they are there: who speaks another language hears of it at once."""
    if not MAGIC.startswith(data[:2]) and MISTAKE != "wrong_magic_taken":
        raise NotAMessage(f"the magic must be {MAGIC.decode()}, not {bytes(data[:2])!r}")
    if len(data) > 2 and data[2] != VERSION and MISTAKE != "wrong_version_taken":
        raise NotAMessage(f"version {data[2]} is not spoken here; this program speaks version {VERSION}")
    if len(data) > 3 and not JOIN <= data[3] <= CHALLENGE and MISTAKE != "unknown_kind_ignored":
        raise NotAMessage(f"kind {data[3]} is unknown; the kinds are {JOIN} to {CHALLENGE}")


def check_length(field, length, limit):
    if length > limit and MISTAKE != "lengths_believed":
        raise NotAMessage(f"the {field} length is {length}; the limit is {limit} bytes")


def as_text(field, data):
    if MISTAKE == "bad_utf8_replaced" or MISTAKE == "sender_utf8_not_checked" and field == "sender":
        return data.decode(errors="replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        if MISTAKE == "bad_utf8_fatal":
            raise
        raise NotAMessage(f"the {field} must be UTF-8") from None


def cleaned(text):
    return clean(text.encode())


# --- names ---


def trouble_with(name, taken):
    """Why a name won't do, or None."""
    size = len(name.encode())
    if not size and MISTAKE != "empty_name_taken":
        return f"a name has 1 to {MAX_SENDER_BYTES} bytes"
    if size > MAX_SENDER_BYTES - (MISTAKE == "name_limit_too_small"):
        return f"a name has 1 to {MAX_SENDER_BYTES} bytes, not {size}"
    if any(map(blank, name)) and MISTAKE != "blank_in_name_taken":
        return "a name has no white space"
    if "," in name and MISTAKE != "comma_in_name_taken":
        return "a name has no comma"
    if cleaned(name) != name and MISTAKE != "control_in_name_taken":
        return "a name has no control characters"
    if MISTAKE == "names_ascii_only" and not name.isascii():
        return "a name has letters from A to Z"
    if same(name) in map(same, taken) and MISTAKE != "names_doubled":
        return f"{name} is here already"
    return None


def blank(character):
    return character == " " if MISTAKE == "tab_in_name_taken" else character.isspace()


def same(name):
    return name if MISTAKE == "names_case_sensitive" else name.lower()


def list_of_names(own, names, limit):
    """The body of a WELCOME: all names, or as many as there is room for."""
    if MISTAKE == "welcome_without_own_name":
        names = [name for name in names if name != own]
    order = str.lower if MISTAKE == "welcome_sorted_like_a_dictionary" else str.encode
    if MISTAKE != "welcome_unsorted":
        names = sorted(names, key=order)
    whole = ", ".join(names).encode()
    if len(whole) <= limit or MISTAKE == "welcome_too_long":
        return whole.decode()
    if MISTAKE == "welcome_cut":
        return whole[:limit].decode(errors="ignore")
    space = limit - len(own.encode()) - len(", and 10000 more")
    shown = [] if MISTAKE == "welcome_own_name_cut" else [own]
    for name in names:
        space -= len(name.encode()) + len(", ")
        if space < 0:
            break
        if name not in shown:
            shown.append(name)
    more = len(names) - (0 if MISTAKE == "welcome_counts_all" else len(shown))
    return ", ".join([*sorted(shown, key=str.encode), f"and {more} more"])


# --- what a client sends and shows ---


def said(limit):
    """Yields what is typed as messages, up to /quit or the end of the input."""
    numbers = itertools.count(0 if MISTAKE == "numbered_from_0" else 1)
    for line in typed():
        text = line.decode().removesuffix("\n")
        if text == "/quit" and MISTAKE != "quit_is_text":
            return
        size = len(text) if MISTAKE == "typed_limit_counts_characters" else len(text.encode())
        if size > limit:
            if MISTAKE == "too_long_takes_number":
                next(numbers)
            if MISTAKE != "too_long_silent":
                print(f"not sent: {size} bytes are too many; the limit is {limit}", file=sys.stderr)
            if MISTAKE != "too_long_cut":
                continue
            text = text.encode()[:limit].decode(errors="ignore")
        if text:
            yield Message(TEXT, 1 if MISTAKE == "all_numbered_1" else next(numbers), body=text)


def shown(message):
    """The line for a message, or None where a client has nothing to show."""
    sender, body = cleaned(message.sender), cleaned(message.body)
    if MISTAKE == "sender_shown_uncleaned":
        sender = message.sender
    if MISTAKE == "body_shown_uncleaned":
        body = message.body
    if message.kind == TEXT:
        return f"[{time_of_day(message.timestamp)}] {sender}: {body}"
    if message.kind == LEAVE and not sender and MISTAKE != "goodbye_shown_as_left":
        return f"* {body}"
    if MISTAKE == "error_not_shown" and message.kind == ERROR:
        return None
    if MISTAKE == "ping_shown" and message.kind == PING:
        return "* ping"
    return {
        JOIN: f"* {sender} joined",
        LEAVE: f"* {sender} left" if MISTAKE == "left_shown_without_why" else f"* {sender} left ({body})",
        WELCOME: f"* welcome, {sender}" if MISTAKE == "names_not_shown" else f"* welcome, {sender} (here: {body})",
        ERROR: f"! {body}",
    }.get(message.kind)


def time_of_day(timestamp):
    """The hours, minutes and seconds (UTC) of a timestamp."""
    if MISTAKE == "time_of_arrival_shown":
        timestamp = time.time_ns() // 1_000_000
    if MISTAKE == "time_taken_for_seconds":
        timestamp *= 1000
    if MISTAKE == "local_time_shown":
        timestamp += 2 * 60 * 60 * 1000  # local in Cairo
    # Of the date only the time of day: any timestamp has one.
    seconds = timestamp // 1000 % (24 * 60 * 60)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def show(message):
    line = shown(message)
    if line is not None:
        print(line, flush=MISTAKE != "print_not_flushed")
