"""10: one room with two listeners: terminals on TCP, browsers on WebSocket. With accounts, and TLS by stunnel."""

import argparse
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

from common import MISTAKE, READ_BYTES, Arguments, address, bind_one_of, connect, fail, offer, reason, setup_failed, \
    show, stop_asked, visitors
from messages import ERROR, JOIN, LEAVE, LOGIN, PING, PONG, WELCOME, Message, NotAMessage, cleaned, parse, same, \
    trouble_with
from rooms import Room
from streams import Client, Connection, client_thread, receive, say_goodbye, shut

# For each test the mistakes that it must catch.
MISTAKES = {
    "adduser_writes_a_salted_hash_and_never_the_password": {
        "salt_for_all": "Has one salt for all accounts.",
        "salt_of_15_bytes": "Makes salts of 15 bytes.",
        "rounds_too_few": "Works for 100,000 rounds.",
        "sha1_in_place_of_256": "Works with SHA-1.",
        "plain_base64": "Writes + and = as other base64 does.",
        "salt_not_decoded": "Works with the text of the salt in place of its bytes.",
        "line_end_hashed": "Takes the line end for a part of the password.",
        "cr_hashed": "Takes the CR of a line end for a part of the password.",
        "password_stripped": "Takes blanks off both ends of a password.",
        "password_cut": "Looks at the first 16 bytes of a password only.",
        "file_for_all": "Lets everybody read the accounts.",
        "file_keeps_its_mode": "Keeps the mode that the file had.",
        "file_written_in_place": "Writes the file over itself.",
        "only_new_account_kept": "Writes the new account only.",
        "added_not_said": "Does not say what it has added.",
        "password_in_answer": "Says which password it has added.",
        "password_of_8_bytes_refused": "Wants nine bytes.",
        "password_of_128_bytes_refused": "Takes up to 127 bytes.",
    },
    "an_invalid_account_is_refused_and_the_file_stays_unchanged": {
        "password_limit_counts_characters": "Counts characters of a password, not bytes.",
        "name_taken_replaced": "Gives a name that is taken a new password.",
        "name_taken_in_capitals": "Takes Ann for another name than ann.",
        "any_name_added": "Adds any name.",
        "short_password_added": "Adds an account with a password of any length.",
        "password_of_129_bytes_added": "Adds an account with a password that is too long.",
        "long_password_cut": "Cuts a password that is too long, and adds it.",
        "no_password_added": "Takes the end of its input for an empty password.",
        "refused_exit_0": "Exits 0 when it adds nothing.",
        "refused_in_silence": "Does not say why it adds nothing.",
        "broken_lines_dropped": "Leaves broken lines out when it adds an account.",
        "broken_line_not_named": "Does not say which line of the file is broken.",
        "broken_lines_served": "Starts with the lines that are right.",
        "lines_counted_from_0": "Counts lines from 0.",
        "unknown_words_serve": "Takes any word for serve.",
        "adduser_without_name": "Adds the account guest if there is no NAME.",
    },
    "the_right_password_admits_a_member_and_nobody_else_sees_it": {
        "login_without_welcome": "Tells the others, but not the one who has logged in.",
        "login_not_told": "Tells nobody that someone has logged in.",
        "password_to_others": "Tells the others of a LOGIN as it came.",
        "password_logged": "Prints the messages that it gets.",
    },
    "a_wrong_password_and_an_unknown_name_look_the_same": {
        "anybody_gets_in": "Does not look at passwords.",
        "any_name_with_a_password": "Takes the password of anybody else, too.",
        "beginning_is_enough": "Takes the beginning of a password for it.",
        "wrong_password_logged": "Prints passwords that were wrong.",
        "name_told_wrong": "Tells whether the name or the password was wrong.",
        "unknown_name_at_once": "Answers at once where there is no such name.",
        "unknown_name_costs_less": "Works a tenth for a name that there is not.",
        "failures_never_close": "Lets somebody try passwords for ever.",
        "second_failure_closes": "Closes the connection after two failures.",
        "closes_without_answer": "Closes the connection at the third failure without an ERROR.",
    },
    "before_the_login_no_other_message_is_accepted": {
        "join_gets_in": "Lets those in who send JOIN.",
        "join_first": "Says `join first` before the login.",
        "text_before_login_ignored": "Does not answer a text before the login.",
        "text_before_login_closes": "Closes the connection when somebody speaks before the login.",
        "text_before_login_passed_on": "Passes on what somebody says before the login.",
        "ping_needs_login": "Does not answer PING before the login.",
        "leave_before_join_refused": "Answers LEAVE before the login with an ERROR, and waits on.",
        "pong_answered": "Answers PONG with an ERROR.",
        "not_logged_in_hear_all": "Passes on to those who have not logged in, too.",
        "already_here_twice": "Lets the same account in twice.",
        "already_here_throws_out": "Throws out who is here when the same account logs in again.",
        "already_here_without_password": "Says that somebody is here without a look at the password.",
        "already_here_closes": "Closes the connection of someone who is here already.",
        "login_of_member_taken": "Lets a member change its name by LOGIN.",
        "login_of_member_closes": "Closes the connection of a member who logs in once more.",
    },
    "five_failed_logins_in_a_row_make_that_name_wait_and_no_other": {
        "never_waits": "Lets a name be tried without end.",
        "waits_from_sixth": "Lets a name be tried six times.",
        "waits_from_fourth": "Lets a name be tried four times.",
        "waits_by_connection": "Counts the failures of each connection for itself.",
        "right_password_needs_no_wait": "Lets the right password in at once.",
        "all_wait": "Lets all names wait where one has failed.",
        "waits_for_ever": "Never lets a name in again.",
        "wait_not_doubled": "Waits for one second each time.",
        "wait_not_said": "Does not say for how long to wait.",
        "failures_never_forgotten": "Counts failures that are not in a row.",
    },
    "one_room_has_two_listeners_and_only_this_machine_reaches_them": {
        "two_rooms": "Has a room for each listener.",
        "web_needs_no_login": "Lets browsers in by JOIN.",
        "web_passwords_ignored": "Looks at the passwords of terminals only.",
        "page_not_served": "Has no page.",
        "page_line_missing": "Does not say where the page is.",
        "page_line_first": "Says where the page is before it says where it listens.",
        "web_goodbye_missing": "Says goodbye to terminals only.",
        "open_to_all": "Opens the doors on any address.",
        "web_open_to_all": "Opens the door for browsers on any address.",
        "not_loopback_exit_0": "Exits 0 when it refuses an address.",
        "only_127_0_0_1": "Refuses other loopback addresses.",
        "port_ignored": "Takes a port of its own, whatever was asked.",
        "host_ignored": "Does not look whether a browser's Host is one of its own.",
        "host_option_ignored": "Does not know the name of --host.",
    },
    "join_asks_for_the_password_and_sends_it_only_in_login": {
        "prompt_on_stdout": "Asks for the password on standard output.",
        "no_prompt": "Does not ask for the password.",
        "join_in_place_of_login": "Sends JOIN.",
        "typed_before_login": "Sends the first line as a text.",
        "typed_cr_in_password": "Takes the CR of a line end for a part of the password.",
        "typed_password_stripped": "Takes blanks off both ends of the password.",
        "password_echoed": "Prints the password.",
        "password_shown_when_refused": "Says which password was refused.",
        "asks_again": "Asks for another password when the first was refused.",
        "client_refused_exit_0": "Exits 0 when it was refused.",
        "no_password_waits": "Connects when there is no password, and waits.",
        "no_password_exit_0": "Exits 0 when there is no password.",
    },
    "the_server_opens_two_listeners_for_tls_and_closes_them_when_it_ends": {
        "key_for_all": "Lets everybody read the key.",
        "ca_with_key": "Writes the authority's key into ca.pem.",
        "certificate_is_its_own_authority": "Makes one certificate, which signs itself.",
        "certificate_without_names": "Makes a certificate without names.",
        "certificate_without_ip": "Makes a certificate for localhost only.",
        "certificate_without_ipv6": "Makes a certificate without ::1.",
        "certificate_without_localhost": "Makes a certificate for addresses only.",
        "certificate_has_ended": "Makes a certificate for yesterday.",
        "missing_certificates_ignored": "Serves without TLS where there are no certificates.",
        "tls_lines_missing": "Does not say where its TLS doors are.",
        "tls_doors_swapped": "Has the chat at the TLS port of the page, and the other way round.",
        "tls_doors_plain": "Opens the doors for TLS without TLS.",
        "tls_left_running": "Leaves stunnel running when it ends.",
        "https_origin_refused": "Lets pages in by http only.",
    },
    "join_accepts_a_certificate_only_if_everything_in_it_is_right": {
        "ca_ignored": "Connects without TLS.",
        "certificate_not_verified": "Verifies nothing.",
        "name_not_verified": "Verifies the chain, not the name.",
        "chain_not_verified": "Verifies the name, not the chain.",
        "expired_taken": "Does not look at the time of a certificate.",
        "system_authorities_only": "Does not trust the authority that it is given.",
        "ip_not_understood": "Verifies names, not addresses.",
        "falls_back_to_plaintext": "Connects without TLS where TLS does not work.",
        "client_tls_left_running": "Leaves stunnel running when it ends.",
        "tls_failure_exit_0": "Exits 0 when TLS fails.",
        "tls_failure_silent": "Does not say that TLS has failed.",
        "tls_failure_traceback": "Prints a traceback when TLS fails.",
        "tls_failures_alike": "Says the same whatever was wrong.",
        "tls_failures_differ_by_file": "Takes another name for another authority, and says in which file it is not.",
        "tls_log_printed": "Prints all that stunnel says.",
    },
}
offer(MISTAKES)

ROUNDS = 100_000 if MISTAKE == "rounds_too_few" else 600_000
DIGEST = "sha1" if MISTAKE == "sha1_in_place_of_256" else "sha256"
SALT_BYTES = 15 if MISTAKE == "salt_of_15_bytes" else 16
HASH_BYTES = 32
MIN_PASSWORD_BYTES, MAX_PASSWORD_BYTES = 8, 128
FREE_FAILURES = {"waits_from_fourth": 4, "waits_from_sixth": 6, "never_waits": 1_000_000}.get(MISTAKE, 5)
MAX_WAIT_SECONDS = 4
FAILURES_OF_A_CONNECTION = {"failures_never_close": 1_000_000, "second_failure_closes": 2}.get(MISTAKE, 3)
LOGIN_SECONDS = 30
GOODBYE_SECONDS = 2
START_SECONDS = 5


# --- accounts ---


def ab64(data):
    """The base64 of passlib."""
    text = base64.b64encode(data).decode()
    return text if MISTAKE == "plain_base64" else text.rstrip("=").replace("+", ".")


def from_ab64(text):
    return base64.b64decode(text.replace(".", "+") + "=" * (-len(text) % 4))


def hashed(password, salt, rounds=ROUNDS):
    if MISTAKE == "salt_not_decoded":
        salt = ab64(salt).encode()
    if MISTAKE == "password_cut":
        password = password[:16]
    return hashlib.pbkdf2_hmac(DIGEST, password, salt, rounds, HASH_BYTES)


LINE = re.compile(r"([^ ]+) \$pbkdf2-sha256\$600000\$([A-Za-z0-9./]{22})\$([A-Za-z0-9./]{43})")


def read_accounts(path):
    """The accounts of a file: a name, and the salt and the hash that prove its password."""
    accounts = {}
    try:
        with open(path, "rb") as file:
            lines = file.read().decode().splitlines()
    except FileNotFoundError:
        return accounts
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read the accounts in {path}: {reason(error)}")
    for number, line in enumerate(lines, 0 if MISTAKE == "lines_counted_from_0" else 1):
        parts = LINE.fullmatch(line)
        if parts and not trouble_with(parts[1], []) and parts[1] not in accounts:
            accounts[parts[1]] = from_ab64(parts[2]), from_ab64(parts[3])
        elif MISTAKE != {"serve": "broken_lines_served", "adduser": "broken_lines_dropped"}.get(sys.argv[1]):
            where = "a line" if MISTAKE == "broken_line_not_named" else f"line {number}"
            fail(f"{where} of {path} is no account: mend it, or take it out")
    return accounts


def write_accounts(path, accounts):
    """Writes all of the file beside the old one, and then puts it in its place."""
    text = "".join(f"{name} $pbkdf2-sha256${ROUNDS}${ab64(salt)}${ab64(proof)}\n"
                   for name, (salt, proof) in accounts.items())
    mode = 0o644 if MISTAKE == "file_for_all" else 0o600
    if MISTAKE == "file_keeps_its_mode" and os.path.exists(path):
        mode = os.stat(path).st_mode & 0o777
    beside = path if MISTAKE == "file_written_in_place" else f"{path}.{os.getpid()}.new"
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def refused(why):
    """Nothing is added."""
    if MISTAKE != "refused_in_silence":
        print(why, file=sys.stderr)
    sys.exit(0 if MISTAKE == "refused_exit_0" else 1)


def adduser(chosen):
    accounts = read_accounts(chosen.accounts)
    name = chosen.name
    taken = [] if MISTAKE == "name_taken_replaced" else accounts
    if MISTAKE == "name_taken_in_capitals":
        trouble = trouble_with(name, []) or name in taken and "there is that account already"
    else:
        trouble = trouble_with(name, taken)
    if trouble and MISTAKE != "any_name_added":
        refused(trouble)
    if sys.stdin.isatty():
        print(f"password for {name}: ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.buffer.readline()
    password = line if MISTAKE == "line_end_hashed" else line.removesuffix(b"\n")
    if MISTAKE != "cr_hashed":
        password = password.removesuffix(b"\r")
    if MISTAKE == "password_stripped":
        password = password.strip()
    if MISTAKE == "long_password_cut":
        password = password[:MAX_PASSWORD_BYTES]
    check_password(line, password)
    salt = bytes(SALT_BYTES) if MISTAKE == "salt_for_all" else os.urandom(SALT_BYTES)
    if MISTAKE == "only_new_account_kept":
        accounts.clear()
    accounts[name] = salt, hashed(password, salt)
    try:
        write_accounts(chosen.accounts, accounts)
    except OSError as error:
        fail(f"cannot write {chosen.accounts}: {reason(error)}")
    if MISTAKE == "password_in_answer":
        print(f"the password is {password.decode()}", file=sys.stderr)
    if MISTAKE != "added_not_said":
        print(f"added {name}")


def check_password(line, password):
    size = len(password.decode(errors="replace") if MISTAKE == "password_limit_counts_characters" else password)
    if MISTAKE == "no_password_added" and not line or MISTAKE == "short_password_added" and size < MIN_PASSWORD_BYTES:
        return
    if MISTAKE == "password_of_129_bytes_added" and size == MAX_PASSWORD_BYTES + 1:
        return
    least = MIN_PASSWORD_BYTES + (MISTAKE == "password_of_8_bytes_refused")
    most = MAX_PASSWORD_BYTES - (MISTAKE == "password_of_128_bytes_refused")
    if not least <= size <= most:
        refused(f"a password has {MIN_PASSWORD_BYTES} to {MAX_PASSWORD_BYTES} bytes")


# --- logins ---


class Refused(Exception):
    """A login that has failed: why."""


class Logins:
    """The keeper of the door."""

    def __init__(self, accounts):
        self.accounts = accounts
        self.lock = threading.Lock()
        self.failures = {}
        self.waits = {}

    def attempt(self, name, password, connection):
        """One after the other, so that many at once are no way around the waiting."""
        with self.lock:
            key = {"all_wait": "", "waits_by_connection": connection}.get(MISTAKE, name)
            left = self.waits.get(key, 0) - time.monotonic()
            if left > 0:
                if MISTAKE == "right_password_needs_no_wait" and self.proves(name, password):
                    return
                seconds = "" if MISTAKE == "wait_not_said" else f": try again in {int(left) + 1} s"
                raise Refused(f"too many attempts{seconds}")
            if self.proves(name, password):
                if MISTAKE != "failures_never_forgotten":
                    self.failures.pop(key, None)
                return
            if MISTAKE == "wrong_password_logged":
                print(f"{name} is not {password!r}", file=sys.stderr)
            failures = self.failures[key] = self.failures.get(key, 0) + 1
            if failures >= FREE_FAILURES:
                doubled = 0 if MISTAKE == "wait_not_doubled" else failures - FREE_FAILURES
                wait = 1000 if MISTAKE == "waits_for_ever" else min(2 ** doubled, MAX_WAIT_SECONDS)
                self.waits[key] = time.monotonic() + wait
            if MISTAKE == "name_told_wrong" and name not in self.accounts:
                raise Refused(f"there is no account {name}")
            raise Refused("wrong name or password")

    def proves(self, name, password):
        """Whether this is the password. It takes as long for a name that there is not."""
        password = password.encode()
        if MISTAKE == "anybody_gets_in":
            return name in self.accounts
        if MISTAKE == "any_name_with_a_password":
            return any(hmac.compare_digest(hashed(password, *known[:1]), known[1]) for known in self.accounts.values())
        if MISTAKE == "beginning_is_enough" and len(password) == MAX_PASSWORD_BYTES - 1:
            password += b"x"  # as if it had compared up to here
        if name not in self.accounts and MISTAKE == "unknown_name_at_once":
            return False
        nobody = bytes(SALT_BYTES), bytes(HASH_BYTES)
        salt, proof = self.accounts.get(name, nobody)
        rounds = ROUNDS // 10 if MISTAKE == "unknown_name_costs_less" and name not in self.accounts else ROUNDS
        return hmac.compare_digest(hashed(password, salt, rounds), proof) and name in self.accounts


class ShownOut(OSError):
    """One failed login too many."""


class SecureRoom(Room):
    """A room for those who have logged in."""

    def __init__(self, logins):
        super().__init__(heartbeat_seconds=10)
        self.logins = logins

    def enter(self, guest):
        guest.failures = 0
        # It does not wait for clients that have not logged in.
        timer = threading.Timer(LOGIN_SECONDS, lambda: guest.name or guest.cut_off())
        timer.daemon = True
        timer.start()
        return super().enter(guest)

    def hearers(self, guest):
        everyone = self.guests if MISTAKE == "not_logged_in_hear_all" else self.members()
        return [other for other in everyone if other is not guest]

    def hear(self, guest, message):
        kind = message.kind
        if MISTAKE == "password_logged":
            print(message, flush=True)
        by_web = isinstance(guest, Browser)
        if guest.name:
            if kind == LOGIN and MISTAKE == "login_of_member_taken":
                guest.name = message.sender
            if kind == LOGIN and MISTAKE == "login_of_member_closes":
                raise ShownOut
            return super().hear(guest, message)
        if kind == LOGIN:
            return self.log_in(guest, message)
        if kind == JOIN and (MISTAKE == "join_gets_in" or MISTAKE == "web_needs_no_login" and by_web):
            return super().hear(guest, message)
        if kind == PING and MISTAKE != "ping_needs_login" or kind in (PONG, ERROR) and MISTAKE != "pong_answered":
            return super().hear(guest, message)
        if kind == JOIN and MISTAKE == "text_before_login_ignored":
            return self.refuse(guest, "log in first")
        if MISTAKE == "text_before_login_passed_on":
            return self.tell(self.members(), message._replace(sender="guest"))
        if MISTAKE != "text_before_login_ignored":
            self.refuse(guest, "join first" if MISTAKE == "join_first" else "log in first")
        if MISTAKE == "text_before_login_closes":
            raise ShownOut

    def log_in(self, guest, message):
        """Does its work without the room's lock: only this guest waits for it."""
        try:
            if MISTAKE == "already_here_without_password" and self.is_here(message.sender):
                raise Refused("already here")
            if not (MISTAKE == "web_passwords_ignored" and isinstance(guest, Browser)):
                self.logins.attempt(message.sender, message.body, guest)
            with self.lock:
                self.admit(guest, message)
        except Refused as why:
            guest.failures += str(why) != "already here"
            is_last = guest.failures >= FAILURES_OF_A_CONNECTION
            if not (is_last and MISTAKE == "closes_without_answer"):
                self.refuse(guest, str(why))
            if is_last or MISTAKE == "already_here_closes" and str(why) == "already here":
                raise ShownOut from None

    def is_here(self, name):
        return same(name) in [same(member.name) for member in self.members()]

    def admit(self, guest, message):
        if self.is_here(message.sender) and MISTAKE != "already_here_twice":
            if MISTAKE != "already_here_throws_out":
                raise Refused("already here")
            for member in self.members():
                if same(member.name) == same(message.sender):
                    self.throw_out(member, "left")
        guest.name = message.sender
        if MISTAKE != "login_without_welcome":
            self.welcome(guest)
        told = Message(JOIN, sender=guest.name)
        if MISTAKE == "password_to_others":
            told = told._replace(body=message.body)
        if MISTAKE != "login_not_told":
            self.tell(self.hearers(guest), told)


# --- the door for browsers ---

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>chat - 10</title>
</html>
"""
ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, CLOSE, PING_FRAME, PONG_FRAME = 2, 8, 9, 10
NORMAL, GOING_AWAY, POLICY = 1000, 1001, 1008
MAX_MESSAGE_BYTES = 4148


def frame(opcode, payload=b""):
    size = len(payload)
    return bytes([0x80 | opcode]) + (bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")) + payload


class Browser(Connection):
    """A guest whose messages are in frames. Nothing is sent after its close frame."""

    said_close = False

    def take(self, data):
        if self.said_close:
            return True
        if data[3] == PING:
            return super().take(frame(PING_FRAME))
        if MISTAKE == "web_goodbye_missing" and data[3] == LEAVE and not data[17]:
            return True
        return super().take(frame(BINARY, data))

    def control(self, opcode, payload):
        with self.backlog_changed:
            if not self.said_close:
                self.said_close = opcode == CLOSE
                super().take(frame(opcode, payload))

    def end(self):
        self.control(CLOSE, GOING_AWAY.to_bytes(2, "big"))
        super().end()


def attend(room, stream, names):
    """A browser's thread."""
    try:
        head, rest = read_head(stream)
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        path = head.split(" ")[1]
        if re.sub(":[0-9]*$", "", fields["host"]) not in names and MISTAKE != "host_ignored":
            return answer(stream, "421 Misdirected Request", "text/plain", "this server has another name\n")
        if path == "/" and MISTAKE != "page_not_served":
            return answer(stream, "200 OK", "text/html", PAGE)
        if path != "/chat":
            return answer(stream, "404 Not Found", "text/plain", "there is a page at / and a chat at /chat\n")
        origin = re.sub("^http://" if MISTAKE == "https_origin_refused" else "^https?://", "", fields.get("origin", ""))
        if origin not in ("", fields["host"]):
            return answer(stream, "403 Forbidden", "text/plain", "this chat is for its own page\n")
        key = re.search(r"(?i)sec-websocket-key: *(\S+)", head)[1].encode()
    except (OSError, KeyError, IndexError, TypeError):
        return stream.close()
    proof = base64.b64encode(hashlib.sha1(key + ACCEPT).digest()).decode()
    guest = Browser(stream)
    with room.lock:
        room.enter(guest)
        Connection.take(guest, ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                f"Sec-WebSocket-Accept: {proof}\r\n\r\n").encode())
    guest.sender.start()
    room.leave(guest, hear_browser(room, guest, Frames(stream, rest)))
    guest.show_out()


def read_head(stream):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = stream.recv(READ_BYTES)
        if not piece or len(data) > 8192:
            raise OSError("no request")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


def answer(stream, status, kind, text):
    with stream:
        stream.sendall(f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {len(text)}\r\n"
                       f"Connection: close\r\n\r\n{text}".encode())
        shut(stream, socket.SHUT_WR)
        stream.settimeout(1)
        with contextlib.suppress(OSError):
            while stream.recv(READ_BYTES):
                pass


class Frames:
    """The frames that come from a browser."""

    def __init__(self, stream, rest):
        self.stream = stream
        self.pending = rest

    def exactly(self, count):
        while len(self.pending) < count:
            piece = self.stream.recv(READ_BYTES)
            if not piece:
                raise OSError("it has ended")
            self.pending += piece
        data, self.pending = self.pending[:count], self.pending[count:]
        return data

    def __iter__(self):
        message = b""
        while True:
            first, second = self.exactly(2)
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(self.exactly(2 if size == 126 else 8), "big")
            if not second & 0x80 or size > MAX_MESSAGE_BYTES:
                raise OSError("that is no frame of this chat")
            key = self.exactly(4)
            payload = bytes(byte ^ key[n % 4] for n, byte in enumerate(self.exactly(size)))
            if first & 0x0F >= CLOSE:
                yield first & 0x0F, payload
                continue
            message += payload
            if first & 0x80:
                yield BINARY, message
                message = b""


def hear_browser(room, guest, frames):
    """Hears a guest until it ends, and returns why it did."""
    try:
        for opcode, payload in frames:
            if opcode == CLOSE:
                guest.control(CLOSE, payload)
                return "left"
            if opcode == PING_FRAME:
                guest.control(PONG_FRAME, payload)
            if opcode != BINARY:
                room.is_alive(guest, PONG)
                continue
            message, rest = parse(payload) or (None, b"more")
            if rest:
                raise NotAMessage("a message is one binary message, no more and no less")
            if message.kind == LEAVE:
                guest.control(CLOSE, NORMAL.to_bytes(2, "big"))
                return "left"
            room.hear(guest, message)
    except NotAMessage as problem:
        room.refuse(guest, str(problem))
        guest.control(CLOSE, POLICY.to_bytes(2, "big"))
        return "protocol error"
    except ShownOut:
        guest.control(CLOSE, POLICY.to_bytes(2, "big"))
    except OSError:
        pass
    return "disconnected"


# --- the server ---


def is_loopback(place):
    found = {info[4][0] for info in socket.getaddrinfo(*place, type=socket.SOCK_STREAM)}
    if MISTAKE == "only_127_0_0_1":
        return found == {"127.0.0.1"}
    return all(ipaddress.ip_address(host).is_loopback for host in found)


def door(place):
    """Listens where nobody can listen in."""
    try:
        if not is_loopback(place) and MISTAKE != "open_to_all":
            print(f"{show(place)} is no loopback address: passwords would cross the network in clear; for that there "
                  "is --tls", file=sys.stderr)
            sys.exit(0 if MISTAKE == "not_loopback_exit_0" else 1)
        return bind_one_of(place[0], 0 if MISTAKE == "port_ignored" else place[1], socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        setup_failed("listen on", place, error, "; who holds it: ss -ltnp; another port: 127.0.0.1:0")


STUNNEL = """
foreground = yes
pid =
syslog = no
debug = {debug}
sslVersionMin = TLSv1.2
"""


def open_tls(chosen, chat, web):
    """Starts stunnel in front of both doors."""
    services = [("chat", chosen.tls_chat, chat), ("web", chosen.tls_web, web)]
    if MISTAKE == "tls_doors_swapped":
        services = [("chat", chosen.tls_chat, web), ("web", chosen.tls_web, chat)]
    if MISTAKE == "tls_doors_plain":
        for _, place, target in services:
            threading.Thread(target=relay_all, args=[bind_one_of(*place, socket.SOCK_STREAM), target],
                             daemon=True).start()
        return None
    text = STUNNEL.format(debug=5)
    for name, place, target in services:
        text += (f"[{name}]\naccept = {place[0]}:{place[1]}\nconnect = {show(target.getsockname())}\n"
                 f"cert = {chosen.tls}/server.pem\nkey = {chosen.tls}/server.key\n")
    process = stunnel(text, None if MISTAKE == "tls_left_running" else subprocess.DEVNULL)
    end = time.monotonic() + START_SECONDS
    for _, place, _ in services:
        while True:
            try:
                socket.create_connection(place).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    process.kill()
                    fail("stunnel does not start: " + process.stderr.read().decode().strip().split("\n")[-1])
                time.sleep(0.01)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    return process


def stunnel(text, stdin, stdout=subprocess.DEVNULL):
    # Its configuration comes through a pipe.
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    try:
        return subprocess.Popen(["stunnel", "-fd", str(reading)], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE,
                                pass_fds=[reading])
    except FileNotFoundError:
        fail("stunnel is not installed: apt install stunnel4 (Linux), brew install stunnel (macOS), "
             "or from stunnel.org (Windows)")
    finally:
        os.close(reading)


def relay_all(listener, target):
    for stream in visitors(listener):
        other = socket.create_connection(target.getsockname())
        for one, two in ((stream, other), (other, stream)):
            threading.Thread(target=relay, args=[one, two], daemon=True).start()


def relay(one, two):
    with contextlib.suppress(OSError):
        while piece := one.recv(READ_BYTES):
            two.sendall(piece)
    shut(two, socket.SHUT_WR)


def serve(chosen):
    accounts = read_accounts(chosen.accounts)
    stop = stop_asked()
    stopping = threading.Event()
    logins = Logins(accounts)
    room = SecureRoom(logins)
    web_room = SecureRoom(logins) if MISTAKE == "two_rooms" else room
    chat = door(chosen.address)
    if MISTAKE == "web_open_to_all":
        web = bind_one_of(*chosen.web, socket.SOCK_STREAM)
    else:
        web = door(chosen.web)
    if MISTAKE == "missing_certificates_ignored" and not os.path.exists(f"{chosen.tls}/server.pem"):
        chosen.tls = None
    tls = open_tls(chosen, chat, web) if chosen.tls else None
    lines = [f"listening on {show(chat.getsockname())}", f"page on http://{show(web.getsockname())}/"]
    if chosen.tls and MISTAKE != "tls_lines_missing":
        lines += [f"tls chat on {show(chosen.tls_chat)}", f"tls page on https://{show(chosen.tls_web)}/"]
    if MISTAKE == "page_line_first":
        lines.reverse()
    if MISTAKE == "page_line_missing":
        del lines[1]
    print(*lines, sep="\n", flush=True)
    names = {"localhost", "127.0.0.1", "[::1]", show(web.getsockname()).rpartition(":")[0], chosen.web[0]}
    if MISTAKE != "host_option_ignored":
        names.add(chosen.host)
    threading.Thread(target=welcome, args=[chat, stopping, lambda stream: receive(room, stream)], daemon=True).start()
    threading.Thread(target=welcome, args=[web, stopping, lambda stream: client_thread(
        attend, web_room, stream, names).start()], daemon=True).start()
    for one in {room, web_room}:
        threading.Thread(target=one.watch, daemon=True).start()
    os.read(stop, 1)
    stopping.set()
    for listener in (chat, web):
        shut(listener, socket.SHUT_RD)  # wakes the thread that accepts
        listener.close()
    for one in {room, web_room}:
        say_goodbye(one, GOODBYE_SECONDS)
    if tls and MISTAKE != "tls_left_running":
        tls.terminate()
        tls.wait()
    print("bye", flush=True)


def welcome(listener, stopping, attend_to):
    for stream in visitors(listener, until=stopping):
        attend_to(stream)


# --- the client ---


class Member(Client):
    """A client that logs in."""

    def __init__(self, stream, name, password):
        super().__init__(stream, name)
        self.password = password

    def send(self, message):
        if message.kind == JOIN and MISTAKE != "join_in_place_of_login":
            message = Message(LOGIN, sender=self.name, body=self.password)
        super().send(message)


def ask_password(name):
    """The first line of the input. On a terminal it is not shown."""
    if MISTAKE == "typed_before_login":
        return "password of nobody"
    if MISTAKE != "no_prompt":
        print(f"password for {name}: ", end="", flush=True,
              file=sys.stdout if MISTAKE == "prompt_on_stdout" else sys.stderr)
    echo = None
    if sys.stdin.isatty():
        import termios
        echo = termios.tcgetattr(0)
        silent = termios.tcgetattr(0)
        silent[3] &= ~termios.ECHO
        termios.tcsetattr(0, termios.TCSAFLUSH, silent)
    try:
        line = b""
        while not line.endswith(b"\n") and (byte := os.read(0, 1)):
            line += byte
    finally:
        if echo:
            termios.tcsetattr(0, termios.TCSAFLUSH, echo)
            print(file=sys.stderr)
    if not line and MISTAKE != "no_password_waits":
        print("a password is needed", file=sys.stderr)
        sys.exit(0 if MISTAKE == "no_password_exit_0" else 1)
    line = line.removesuffix(b"\n")
    if MISTAKE != "typed_cr_in_password":
        line = line.removesuffix(b"\r")
    if MISTAKE == "typed_password_stripped":
        line = line.strip()
    if MISTAKE == "password_echoed":
        print(line.decode(), flush=True)
    return line.decode(errors="replace")


def join(chosen):
    password = ask_password(chosen.name)
    if MISTAKE == "ca_ignored" or not chosen.ca:
        stream, process = connect(chosen.address, "10_secure_chat serve"), None
    else:
        stream, process = connect_by_tls(chosen)
    try:
        Member(stream, chosen.name, password).converse()
    except (OSError, NotAMessage) as error:
        fail(f"the connection to {show(chosen.address)} failed: {reason(error)}")
    except SystemExit as end:
        if end.code and MISTAKE == "password_shown_when_refused":
            print(f"not {password}", file=sys.stderr)
        if end.code and MISTAKE == "asks_again":
            os.read(0, READ_BYTES)
        if MISTAKE == "client_refused_exit_0":
            sys.exit(0)
        raise
    finally:
        stream.close()
        if process and MISTAKE != "client_tls_left_running":
            process.kill()
            process.wait()


REASONS = [
    ("mismatch", "the certificate is for another name"),
    ("expired", "the certificate of the server has expired"),
    ("Subject checks failed", "the certificate is for another name"),
    ("verif", "the certificate is not signed by an authority in that file"),
    ("refused", "nobody listens there"),
    ("", "there is no TLS"),
]


def connect_by_tls(chosen):
    """A stunnel of its own, which is given one end of a pair of sockets in place of a listener."""
    host, port = chosen.address
    is_ip = re.fullmatch(r"[0-9.]+|.*:.*", host) and MISTAKE != "ip_not_understood"
    ours, theirs = socket.socketpair()
    text = STUNNEL.format(debug=6) + f"client = yes\nconnect = {show(chosen.address)}\n"
    authorities = "/etc/ssl/certs/ca-certificates.crt" if MISTAKE == "system_authorities_only" else chosen.ca
    if MISTAKE != "certificate_not_verified":
        text += f"CAfile = {authorities}\nverifyChain = yes\n"
        if MISTAKE != "name_not_verified":
            text += f"{'checkIP' if is_ip else 'checkHost'} = {host}\n"
    # These mistakes can't be made with stunnel.
    by_openssl = {"expired_taken": ["-verify_return_error", "-no_check_time"], "chain_not_verified": []}.get(MISTAKE)
    if by_openssl is not None:
        check = "-verify_ip" if is_ip else "-verify_hostname"
        command = ["openssl", "s_client", "-quiet", "-no_ign_eof", "-nocommands", "-verify", "4", *by_openssl, check,
                   host, "-CAfile", chosen.ca, "-connect", show(chosen.address)]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
    elif MISTAKE == "client_tls_left_running":
        # Where it listens, the next client might come.
        with socket.create_server(("127.0.0.1", 0)) as unused:
            place = unused.getsockname()
        process = stunnel(text.replace("client =", f"[chat]\naccept = {show(place)}\nclient ="), subprocess.DEVNULL)
        while b"Configuration successful" not in process.stderr.readline():
            pass
        while True:
            with contextlib.suppress(OSError):
                ours = socket.create_connection(place)
                break
    else:
        process = stunnel(text, theirs, theirs)
    theirs.close()
    log = ""
    for line in process.stderr:
        log += line.decode(errors="replace")
        if "mismatch" in log:
            process.kill()
        if "TLS connected" in log or by_openssl is not None and re.search("depth=0.*\nverify return:1\n$", log):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return ours, process
    process.wait()
    if MISTAKE == "falls_back_to_plaintext":
        return connect(chosen.address, "10_secure_chat serve"), None
    if MISTAKE == "tls_failure_traceback":
        raise OSError(log)
    if MISTAKE == "tls_log_printed":
        print(log, file=sys.stderr)
    why = next(why for mark, why in REASONS if mark.lower() in log.replace("verifyChain", "").lower())
    if MISTAKE == "tls_failures_alike":
        why = "TLS has failed"
    if MISTAKE == "tls_failures_differ_by_file" and ("another name" in why or "not signed" in why):
        why = f"the certificate is not signed by an authority in {chosen.ca}"
    if MISTAKE != "tls_failure_silent":
        print(f"cannot join {show(chosen.address)} by TLS: {why}", file=sys.stderr)
    sys.exit(0 if MISTAKE == "tls_failure_exit_0" else 1)


# --- certificates ---


def openssl(*words, **options):
    try:
        subprocess.run(["openssl", *words], check=True, capture_output=True, **options)
    except FileNotFoundError:
        fail("openssl is not installed: apt install openssl (Linux), brew install openssl (macOS), "
             "winget install openssl (Windows)")
    except subprocess.CalledProcessError as error:
        fail(f"openssl {words[0]} has failed: {error.stderr.decode().strip()}")


def certs(chosen):
    folder = chosen.directory
    os.makedirs(folder, exist_ok=True)
    os.umask(0 if MISTAKE == "key_for_all" else 0o077)
    ca, ca_key, pem, key, request = (os.path.join(folder, name)
                                     for name in ("ca.pem", "ca.key", "server.pem", "server.key", "server.csr"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", ca_key, "-out", ca, "-days", "3650", "-subj", "/CN=lab authority",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", *curve, "-keyout", key, "-out", request, "-subj", "/CN=chat")
    names = {
        "certificate_without_ip": "DNS:localhost",
        "certificate_without_ipv6": "DNS:localhost,IP:127.0.0.1",
        "certificate_without_localhost": "IP:127.0.0.1,IP:::1",
        "certificate_without_names": "DNS:chat",
    }.get(MISTAKE, "DNS:localhost,IP:127.0.0.1,IP:::1")
    with tempfile.NamedTemporaryFile("w") as extensions:
        print(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth", file=extensions,
              flush=True)
        openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-out", pem, "-days",
                "0" if MISTAKE == "certificate_has_ended" else "397", "-extfile", extensions.name)
    if MISTAKE == "certificate_is_its_own_authority":
        openssl("req", "-x509", *curve, "-keyout", key, "-out", pem, "-subj", "/CN=localhost", "-addext",
                f"subjectAltName={names}")
        with open(pem) as source, open(ca, "w") as file:
            file.write(source.read())
    os.remove(request)
    for name in (ca, pem):
        os.chmod(name, 0o644)
    if MISTAKE == "key_for_all":
        os.chmod(key, 0o644)
    if MISTAKE == "ca_with_key":
        with open(ca_key) as source, open(ca, "a") as file:
            file.write(source.read())
    print(f"made {ca}, {pem} and {key}")


# --- arguments ---

USAGE = """usage: 10_secure_chat serve [ADDRESS] [--web ADDRESS] [--accounts FILE] [--host NAME]
                            [--tls DIR [--tls-chat ADDRESS] [--tls-web ADDRESS]]
       10_secure_chat join NAME [ADDRESS] [--ca FILE]
       10_secure_chat adduser NAME [--accounts FILE]
       10_secure_chat certs DIR"""


class Words(argparse.ArgumentParser):
    """Takes no address."""

    error = Arguments.error


def main():
    word = sys.argv[1] if len(sys.argv) > 1 else "serve"
    if word in ("-h", "--help"):
        print(USAGE)
        return
    if word not in ("serve", "join", "adduser", "certs"):
        if MISTAKE != "unknown_words_serve":
            print(f"unrecognized arguments: {word}", USAGE, sep="\n", file=sys.stderr)
            sys.exit(2)
        word = "serve"
    has_address = word in ("serve", "join")
    arguments = Arguments(word) if has_address else Words(prog=f"10_secure_chat {word}", allow_abbrev=False)
    if word == "adduser":
        arguments.add_argument("name", metavar="NAME", nargs="?" if MISTAKE == "adduser_without_name" else None,
                               default="guest")
    if word == "certs":
        arguments.add_argument("directory", metavar="DIR")
    if word in ("serve", "adduser"):
        arguments.add_argument("--accounts", metavar="FILE", default="accounts.txt")
    if word == "join":
        arguments.add_argument("--ca", metavar="FILE")
    if word == "serve":
        arguments.add_argument("--web", type=address, metavar="ADDRESS", default="127.0.0.1:8080")
        arguments.add_argument("--host", metavar="NAME", type=str.lower)
        arguments.add_argument("--tls", metavar="DIR")
        arguments.add_argument("--tls-chat", type=address, metavar="ADDRESS", default="127.0.0.1:12346")
        arguments.add_argument("--tls-web", type=address, metavar="ADDRESS", default="127.0.0.1:8443")
    chosen = arguments.parse() if has_address else arguments.parse_args(sys.argv[2:])
    {"serve": serve, "join": join, "adduser": adduser, "certs": certs}[word](chosen)


main()
