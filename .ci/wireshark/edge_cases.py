"""What no polite program sends, and how TCP may cut what it does send: bytes, and what the dissector must show of them."""

import socket
import struct
import time

JOIN, TEXT, LEAVE, ERROR, PING, PONG, WELCOME, LOGIN, CHALLENGE = range(1, 10)
KINDS = {JOIN: "JOIN", TEXT: "TEXT", LEAVE: "LEAVE", ERROR: "ERROR", PING: "PING", PONG: "PONG", WELCOME: "WELCOME",
         LOGIN: "LOGIN", CHALLENGE: "CHALLENGE"}
MAX_BODY_BYTES = {"tcp": 4096, "udp": 1148}
NOW = time.time_ns() // 1_000_000


class Case:
    """Pieces to send, one a segment or datagram, and what must be seen: (piece, fields, complaints, line in the list)."""

    def __init__(self, over, what, pieces, *expected):
        self.over, self.what, self.pieces, self.expected = over, what, pieces, expected

    def play(self, server):
        """Sends the pieces. Each is taken before the next one goes, so no two of them share a segment."""
        if self.over == "udp":
            client, reader = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), server
            client.connect(server.getsockname())
        else:
            client = socket.create_connection(server.getsockname())
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader, _ = server.accept()
        for piece in self.pieces:
            client.sendall(piece)
            assert reader.recv(len(piece), socket.MSG_WAITALL) == piece
        # Kept open, so that no other case gets its port.
        self.sockets, self.port = (client, reader), client.getsockname()[1]


def message(kind=TEXT, sequence=1, sender="ann", body="hello", *, timestamp=NOW, version=1, **lengths):
    """The bytes of a message, and the fields that must be shown."""
    sender, body = (text if isinstance(text, bytes) else text.encode() for text in (sender, body))
    lengths = {"sender_length": len(sender), "body_length": len(body), **lengths}
    header = struct.pack("!2sBBIQHH", b"CH", version, kind, sequence, timestamp, *lengths.values())
    fields = {"magic": "CH", "version": version, "kind": kind, "sequence": sequence, "timestamp": timestamp, **lengths,
              "sender": sender.decode(), "body": body.decode(errors="replace")}
    return header + sender + body, {name: str(value) for name, value in fields.items()}


def head(fields, *names, rest):
    """Only these fields, and behind them what is part of no message."""
    return {**{name: fields[name] for name in names}, "rest": rest.hex(":")}


def cases():
    hello, fields = message()
    euro, euro_fields = message(sequence=2, body="grüße, € 😀")
    seen_hello, seen_euro = (fields, set(), "TEXT 1 ann: hello"), (euro_fields, set(), "TEXT 2 ann: grüße, € 😀")

    def garbage(piece, data):
        return piece, head({}, rest=data), {"wrong_magic"}, 'not a message [does not begin with "CH"]'

    # TCP cuts and joins as it likes.
    yield Case("tcp", "two messages in a segment", [hello + euro], (0, *seen_hello), (0, *seen_euro))
    yield Case("tcp", "a byte a segment", [bytes([byte]) for byte in euro], (len(euro) - 1, *seen_euro))
    yield Case("tcp", "the end of one, a whole one, and the head of the next",
               [hello[:21], hello[21:] + euro + hello[:3], hello[3:]], (1, *seen_hello), (1, *seen_euro), (2, *seen_hello))
    longest, fields = message(sequence=2**32 - 1, sender="n" * 32, body="x" * 4096, timestamp=2**41 + 7)
    line = f"TEXT 4294967295 {'n' * 32}: {'x' * 80}..."
    yield Case("tcp", "the longest message", [longest], (0, fields, set(), line))
    yield Case("tcp", "the longest message in five segments", [longest[i:i + 1000] for i in range(0, len(longest), 1000)],
               (4, fields, set(), line))

    # What may stand in a message.
    for kind, name in KINDS.items():
        data, fields = message(kind, 0, "", "")
        yield Case("tcp", f"a bare {name}", [data], (0, fields, set(), name))
    data, fields = message(body="\x1b[2Jé\u009b\u202e!" + "é" * 40)
    del fields["body"]  # each version of tshark writes an ESC in its own way
    yield Case("tcp", "what a terminal would obey", [data], (0, fields, set(), f"TEXT 1 ann: ?[2Jé??!{'é' * 35}..."))
    data, fields = message(body=b"caf\xe9!")
    yield Case("tcp", "a body that is not UTF-8", [data, euro],
               (0, fields, {"not_utf8"}, "TEXT 1 ann: caf\ufffd [not UTF-8]"), (1, *seen_euro))
    data, fields = message(77)
    yield Case("tcp", "an unknown kind", [data + euro],
               (0, fields, {"unknown_kind"}, "kind 77 1 ann: hello [unknown kind]"), (0, *seen_euro))

    # What is no message is told at once, and not put together.
    for data in b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"hello\n":
        yield Case("tcp", f"another protocol: {data}", [data], garbage(0, data))
    yield Case("tcp", "wrong at the second byte", [b"C", b"R"], garbage(1, b"CR"))
    data = b"ch" + hello[2:]
    yield Case("tcp", "wrong magic behind a message", [hello + data, euro], (0, *seen_hello), garbage(0, data), (1, *seen_euro))
    for version in 0, 2:
        data, fields = message(version=version)
        seen = (head(fields, "magic", "version", rest=data[3:]), {"wrong_version"}, f"not a message [version {version}, not 1]")
        for over in "tcp", "udp":
            yield Case(over, f"version {version}", [data, euro], (0, *seen), (1, *seen_euro))
    data, fields = message(sender="n" * 33)
    line = f"TEXT 1 {'n' * 33}: hello [sender of 33 bytes, the limit is 32]"
    for over in "tcp", "udp":
        yield Case(over, "a sender of 33 bytes", [data], (0, fields, {"bad_length"}, line))
    data, fields = message(body="", body_length=4097)
    line = "TEXT 1 ann [body of 4097 bytes, the limit is 4096] [4120 bytes announced, 23 here]"
    yield Case("tcp", "a body of 4097 bytes", [data, euro], (0, fields, {"bad_length"}, line), (1, *seen_euro))
    data, fields = message(sender="", body="", sender_length=65535, body_length=65535)
    line = ("TEXT 1 [sender of 65535 bytes, the limit is 32] [body of 65535 bytes, the limit is 4096] "
            "[131090 bytes announced, 20 here]")
    yield Case("tcp", "lengths of 65535", [data, euro], (0, fields, {"bad_length"}, line), (1, *seen_euro))

    # A datagram is one message.
    _, fields = message()
    yield Case("udp", "two datagrams", [hello, euro], (0, *seen_hello), (1, *seen_euro))
    data, longest = message(sender="n" * 32, body="x" * 1148)
    yield Case("udp", "1200 bytes", [data], (0, longest, set(), f"TEXT 1 {'n' * 32}: {'x' * 80}..."))
    data, too_long = message(body="x" * 1149)
    line = f"TEXT 1 ann: {'x' * 80}... [body of 1149 bytes, the limit is 1148]"
    yield Case("udp", "a body of 1149 bytes", [data], (0, too_long, {"bad_length"}, line))
    line = f"TEXT 1 ann: hello [28 bytes announced, {28 + len(euro)} here]"
    yield Case("udp", "trailing bytes", [hello + euro], (0, head(fields, *fields, rest=euro), {"bad_length"}, line))
    no_header = "not a message [{} bytes, but the header has 20]"
    yield Case("udp", "cut short", [hello[:26], hello[:21], hello[:19], hello[:2], hello[:1]],
               (0, {**fields, "body": "hel"}, {"bad_length"}, "TEXT 1 ann: hel [28 bytes announced, 26 here]"),
               (1, {**fields, "sender": "a", "body": ""}, {"bad_length"}, "TEXT 1 a [28 bytes announced, 21 here]"),
               (2, head(fields, "magic", "version", rest=hello[2:19]), {"bad_length"}, no_header.format(19)),
               (3, {"magic": "CH"}, {"bad_length"}, no_header.format(2)),
               garbage(4, hello[:1]))
    yield Case("udp", "another protocol", [b"hello\n", hello], garbage(0, b"hello\n"), (1, *seen_hello))
