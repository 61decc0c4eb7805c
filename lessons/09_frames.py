"""A WebSocket by hand: sends the bytes that you type, in hex, and shows each frame
that comes: python3 lessons/09_frames.py 127.0.0.1:8080

It masks nothing by itself: you type the mask, too. Ctrl-D half-closes.
"""

import contextlib
import os
import socket
import sys
import threading
from pathlib import Path

OPCODES = {1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
KINDS = "? JOIN TEXT LEAVE ERROR PING PONG WELCOME LOGIN CHALLENGE".split()


def show(start, payload):
    """The first two bytes of a frame as they are, then what it says."""
    opcode = start[0] & 15
    if opcode == 8:
        words = int.from_bytes(payload[:2], "big")
    elif opcode == 2:  # a message of lesson 6; its number and time are left out
        sender = 20 + payload[17]
        words = (KINDS[payload[3]], payload[20:sender].decode(), payload[sender:].decode())
        words = " ".join(filter(None, words))
    else:
        words = payload.decode()
    print(start.hex(" "), OPCODES[opcode], words, flush=True)


def send_what_is_typed():
    for line in sys.stdin:
        try:
            stream.sendall(bytes.fromhex(line))
        except ValueError:
            print("that is not hex:", line.strip(), flush=True)
        except OSError:  # the server has left, which the other thread tells
            return
    with contextlib.suppress(OSError):
        stream.shutdown(socket.SHUT_WR)


address = sys.argv[1]
host, port = address.rsplit(":", 1)
try:
    stream = socket.create_connection((host, int(port)))
except OSError as error:
    sys.exit(f"cannot connect to {address}: {error.strerror}. Is the server running?")
upgrade = Path(__file__).with_name("09_upgrade.txt").read_text()
head = f"GET /chat HTTP/1.1\nHost: {address}\n{upgrade}\n"
stream.sendall(head.replace("\n", "\r\n").encode())
incoming = stream.makefile("rb")
print(incoming.readline().decode().strip(), flush=True)
while incoming.readline().strip():
    pass

threading.Thread(target=send_what_is_typed, daemon=True).start()
while len(start := incoming.read(2)) == 2:
    length = start[1]
    if length == 126:
        length = int.from_bytes(incoming.read(2), "big")
    show(start, incoming.read(length))
print("the end", flush=True)
os._exit(0)  # the other thread waits for the keyboard
