"""What the programs share: arguments, sockets, lines, and the mistakes that several steps have in common.

Every program is right unless the environment variable MISTAKE names one of its mistakes; then it has that one.
VARIANT names another right way to write it, which the contract leaves free.
"""

import argparse
import errno
import functools
import ipaddress
import os
import re
import signal
import socket
import sys
import threading
import time

DEFAULT_ADDRESS = "127.0.0.1:12345"
ACCEPT_PAUSE_SECONDS = 0.1
READ_BYTES = 16 * 1024
CLIENT_LINE_BYTES = 64 * 1024

MISTAKE = os.environ.get("MISTAKE", "")
VARIANT = os.environ.get("VARIANT", "")


def offer(mistakes, right=()):
    """Makes sure that MISTAKE and VARIANT name what there is; with --mistakes alone it lists all of it and exits.

    `mistakes` has a dictionary of mistakes for each test that must catch them, `right` the variants that must pass
    all ten tests. "-" is the program as it is, and "skeleton" that of skeleton.py, which must end.
    """
    tests = {name: test for test, group in mistakes.items() for name in group}
    listed = ["-", "skeleton", *right, *(name for group in mistakes.values() for name in group)]
    for name in [name for name in set(listed) if listed.count(name) != 1]:
        sys.exit(f"{name} is listed {listed.count(name)} times, not once")
    if sys.argv[1:] == ["--mistakes"]:
        for name in listed:
            print(name, tests.get(name, "-"))
        sys.exit()
    if MISTAKE not in ("", *tests) or VARIANT not in ("", *right):
        sys.exit(f"neither a mistake nor a variant here is called {MISTAKE or VARIANT!r}; --mistakes lists them")
    # Ctrl-C ends these programs as the system ends a program: without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# --- arguments ---


class Arguments(argparse.ArgumentParser):
    """Takes [ADDRESS], and what the program adds; after the word join it takes NAME [ADDRESS]."""

    def __init__(self, word=None):
        program = os.path.basename(sys.argv[0])
        super().__init__(prog=f"{program} {word}" if word else program, allow_abbrev=False)
        self.words = sys.argv[2 if word else 1:]
        if word == "join":
            number = "?" if MISTAKE == "name_may_be_missing" else None
            self.add_argument("name", nargs=number, metavar="NAME", default="guest")
        self.add_argument("address", nargs="?", type=address, default=DEFAULT_ADDRESS, metavar="ADDRESS",
                          help=f"HOST:PORT, IPv6 in brackets (default: {DEFAULT_ADDRESS})")

    def parse(self):
        if MISTAKE == "unknown_arguments_ignored":
            return self.parse_known_args(self.words)[0]
        return self.parse_intermixed_args(self.words)

    def error(self, message):
        usage = "" if MISTAKE == "error_without_usage" else self.format_usage()
        print(message, usage, sep="\n", end="", file=sys.stderr)
        sys.exit(1 if MISTAKE == "usage_exit_1" else 2)

    def print_help(self, file=None):
        super().print_help(sys.stderr if MISTAKE == "help_on_stderr" else file)

    def exit(self, status=0, message=None):
        super().exit(2 if MISTAKE == "help_exit_2" else status, message)


def first_word(serve_options="", join_options=""):
    """What the program is to do: serve or join."""
    word = sys.argv[1] if len(sys.argv) > 1 else "serve"
    if word in ("serve", "join"):
        return word
    program = os.path.basename(sys.argv[0])
    usage = f"usage: {program} serve [ADDRESS]{serve_options}\n       {program} join NAME [ADDRESS]{join_options}"
    if word in ("-h", "--help"):
        print(usage)
        sys.exit()
    print(f"unrecognized arguments: {word}", usage, sep="\n", file=sys.stderr)
    sys.exit(2)


def address(text):
    """Reads HOST:PORT; argparse turns a ValueError into an error line that names the text."""
    if MISTAKE == "address_ignored":
        text = DEFAULT_ADDRESS
    if MISTAKE == "port_may_be_missing" and ":" not in text:
        text += ":12345"
    parts = re.fullmatch(r"(?:\[(.+)\]|([^:\[\]]+)):([0-9]{1,5})", text)
    if not parts or int(parts[3]) > 65535:
        raise RuntimeError if MISTAKE == "bad_address_traceback" else ValueError
    if MISTAKE == "brackets_kept" and parts[1]:
        return f"[{parts[1]}]", int(parts[3])
    if MISTAKE == "names_not_understood" and parts[2]:
        ipaddress.IPv4Address(parts[2])
    return str(ipaddress.IPv6Address(parts[1])) if parts[1] else parts[2], int(parts[3])


def between(least, most):
    """Reads a number in this range."""

    def number(text):
        digits = text.isascii() and text.isdigit()
        if not digits or not least <= int(text) <= most and MISTAKE != "ranges_not_checked":
            raise ValueError
        return int(text)

    return number


def show(place):
    """Writes an address as HOST:PORT."""
    host, port = place[:2]
    if ":" in host and MISTAKE != "printed_without_brackets":
        host = f"[{host}]"
    return f"{host}:{port}"


# --- connections ---


def fail(message):
    print(message, file=sys.stderr)
    sys.exit(1)


def setup_failed(deed, place, error, hint):
    """Ends a program that can't bind or connect: what failed, the address, what to try."""
    if MISTAKE == "failure_traceback":
        raise error
    if VARIANT == "failure_without_hint":
        hint = ""
    print(f"cannot {deed} {show(place)}: {reason(error)}{hint}", file=sys.stderr)
    sys.exit({"failure_exit_0": 0, "failure_exit_2": 2}.get(MISTAKE, 1))


def reason(error):
    return getattr(error, "strerror", None) or error


def bind(family, place, kind):
    listener = socket.socket(family, kind)
    if kind == socket.SOCK_DGRAM:
        # Without SO_REUSEADDR: with it, two servers on UDP could have the same port.
        if MISTAKE == "udp_port_shared":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        return listener
    if MISTAKE == "port_shared":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    elif MISTAKE != "no_reuseaddr":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::" if family == socket.AF_INET6 else "", place[1]) if MISTAKE == "all_interfaces" else place)
    listener.listen(socket.SOMAXCONN)
    return listener


def bind_one_of(host, port, kind):
    """Binds the first of the host's addresses that can be bound."""
    failure = None
    for family, _, _, _, place in socket.getaddrinfo(host, port, type=kind):
        try:
            return bind(family, place, kind)
        except OSError as error:
            failure = error
    raise failure


def listen(place, kind=socket.SOCK_STREAM):
    """Listens, and says where."""
    if MISTAKE == "port_ignored":
        place = (place[0], 0)
    try:
        listener = bind_one_of(*place, kind)
    except (OSError, UnicodeError) as error:
        hint = "; check the address, or choose another, such as 127.0.0.1:0"
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            command = " ".join([sys.argv[0], *(word for word in sys.argv[1:2] if word == "serve")])
            sockets = "-ltnp" if kind == socket.SOCK_STREAM else "-lunp"
            hint = f"; who holds it: ss {sockets} 'sport = :{place[1]}'; another port: {command} {show((place[0], 0))}"
        setup_failed("listen on", place, error, hint)
    start_child()
    bound = listener.getsockname()
    if MISTAKE == "all_interfaces":
        bound = (place[0], bound[1])  # as if it were the one that was asked for
    if MISTAKE == "requested_port_printed":
        bound = place
    if MISTAKE == "banner_first":
        print("server starting")
    print("listening on", show(bound), flush=MISTAKE != "listening_not_flushed")
    return listener


def visitors(listener, until=None):
    """Yields one connection after another, until that event. One that fails is no reason to end."""
    while True:
        try:
            stream = listener.accept()[0]
            react()
            yield stream
        except OSError as error:
            if until and until.is_set():
                return
            if MISTAKE == "accept_failure_spins":
                continue
            if MISTAKE == "accept_failure_ends":
                os._exit(1)
            print(f"could not accept a client: {reason(error)}", file=sys.stderr)
            time.sleep(ACCEPT_PAUSE_SECONDS)


def react():
    """Called when something has come. A slow program takes its time."""
    if VARIANT == "slow":
        time.sleep(0.05)


def start_child():
    """Leaves a child running that lives longer than the program, if it is the variant that does."""
    if VARIANT.startswith("child_") and os.fork() == 0:
        if VARIANT == "child_in_own_session":
            os.setsid()
        os.execvp("sleep", ["sleep", "1000"])


def prepare(stream):
    """Sets the options of a connection."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # short data does not wait for an ACK
    if VARIANT == "small_send_buffer":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)


def run_client(converse, server):
    """Connects, talks, and ends with one line and exit 1 if the connection fails."""
    place = Arguments().parse().address
    with connect(place, server) as stream:
        try:
            converse(stream)
        except OSError as error:
            if MISTAKE == "reset_traceback":
                raise
            if MISTAKE == "reset_exit_0":
                sys.exit()
            fail(f"the connection to {show(place)} failed: {reason(error)}")


def connect(place, server):
    try:
        if MISTAKE == "ipv4_only":
            socket.getaddrinfo(*place, family=socket.AF_INET)
        stream = socket.create_connection(place)
    except (OSError, UnicodeError) as error:
        setup_failed("connect to", place, error, f"; start a server there first: {server} {show(place)}")
    start_child()
    if MISTAKE == "status_on_stdout":
        print("connected to", show(place), flush=True)
    return stream


def server_closed():
    """What a client says when the server has closed first."""
    if MISTAKE != "server_close_silent":
        print("the server has closed the connection", file=sys.stderr)
    if MISTAKE == "server_close_exit_1":
        sys.exit(1)


# --- stopping ---


def stop_asked():
    """A pipe to read from. A byte comes when the program is to stop: by SIGINT, SIGTERM, or the line /quit."""
    reading, writing = os.pipe()

    def stop(*_):
        os.write(writing, b"!")

    if MISTAKE != "sigint_not_caught":
        signal.signal(signal.SIGINT, stop)
    if MISTAKE != "sigterm_not_caught":
        signal.signal(signal.SIGTERM, stop)
    # Without this, reading from a terminal in the background would stop the server like Ctrl-Z.
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    threading.Thread(target=obey, args=[stop], name="keyboard", daemon=True).start()
    return reading


def obey(stop):
    """Waits for /quit. The end of the input alone stops nothing."""
    try:
        asks = (lambda line: line.startswith(b"/quit")) if MISTAKE == "quit_begins_alike" else (lambda line: line == b"/quit\n")
        if any(map(asks, typed() if sys.stdin else [])) and MISTAKE != "quit_not_understood":
            stop()
        if MISTAKE == "end_of_input_stops":
            stop()
    except OSError:
        pass  # no input to read from


# --- lines ---


def lines(read, limit, lose_last=False):
    """Yields each line that read() brings in pieces, without its end.

    A line over the limit may come out cut, but still over the limit, so that the caller can tell.
    """
    pending = bytearray()
    while piece := read():
        *ends, beginning = piece.split(b"\n")
        for end in ends:
            line = bytes(pending + end)
            pending.clear()
            yield line if MISTAKE in ("cr_kept", "cr_counted", "typed_cr_sent") else line.removesuffix(b"\r")
            if MISTAKE == "too_long_takes_others_along" and len(line) > limit:
                break
        pending += beginning
        if len(pending) > limit + 1:
            if MISTAKE in ("too_long_answered_again", "too_long_rest_is_a_line"):
                yield bytes(pending)
            if MISTAKE == "too_long_rest_is_a_line":
                pending.clear()
            if MISTAKE != "too_long_kept_in_memory":
                del pending[limit + 2:]  # one over the limit, and perhaps a CR
    if pending and not lose_last:
        yield bytes(pending)


def received(stream, limit):
    """Yields the lines that come from the other side."""

    def read():
        piece = stream.recv(READ_BYTES)
        react()
        return piece.decode(errors="replace").encode() if MISTAKE == "characters_split" else piece

    if MISTAKE == "one_read_is_one_line":
        return iter(read, b"")
    return lines(read, limit, lose_last=MISTAKE == "last_line_lost")


def typed():
    """Yields the lines of standard input as they are to be sent."""
    read = functools.partial(os.read, sys.stdin.fileno(), READ_BYTES)
    for line in lines(read, CLIENT_LINE_BYTES, lose_last=MISTAKE == "last_typed_line_lost"):
        text = line.decode(errors="replace")
        if MISTAKE == "empty_line_not_sent" and not text:
            continue
        if MISTAKE == "typed_blanks_stripped":
            text = text.strip()
        yield text.encode() + (b"" if MISTAKE == "sent_without_newline" else b"\n")


C0_BUT_TAB, DEL, C1 = "\x00-\x08\x0a-\x1f", "\x7f", "\x80-\x9f"
OVERRIDES, ISOLATES = "\u202a-\u202e", "\u2066-\u2069"
UNWANTED = {
    "c1_kept": C0_BUT_TAB + DEL + OVERRIDES + ISOLATES,
    "del_kept": C0_BUT_TAB + C1 + OVERRIDES + ISOLATES,
    "bidi_kept": C0_BUT_TAB + DEL + C1,
    "isolates_kept": C0_BUT_TAB + DEL + C1 + OVERRIDES,
    "tab_removed": "\t" + C0_BUT_TAB + DEL + C1 + OVERRIDES + ISOLATES,
    "only_escape_removed": "\x1b\r",
    "cr_kept": "\x00-\x08\x0a-\x0c\x0e-\x1f" + DEL + C1 + OVERRIDES + ISOLATES,
}.get(MISTAKE, C0_BUT_TAB + DEL + C1 + OVERRIDES + ISOLATES)
DECODING_ERRORS = {"bad_utf8_fatal": "strict", "bad_utf8_dropped": "ignore"}.get(MISTAKE, "replace")


def clean(line):
    """The text of a line, without what a terminal would obey."""
    text = line.decode("latin-1" if MISTAKE == "latin1" else "utf-8", DECODING_ERRORS)
    if MISTAKE == "controls_kept":
        return text
    if MISTAKE == "only_printable_kept":
        return "".join(c for c in text if c.isprintable() or c == "\t")
    return re.sub(f"[{UNWANTED}]", "", text)


def print_line(line):
    """Writes a received line to standard output."""
    limit = 4096 if MISTAKE == "line_limit_4_kib" else CLIENT_LINE_BYTES
    end = b"\n\n" if MISTAKE == "printed_with_blank_line" else b"\n"
    sys.stdout.buffer.write(clean(line[:limit]).encode() + end)
    if MISTAKE != "print_not_flushed":
        sys.stdout.flush()
