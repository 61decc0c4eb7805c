"""Joins the room of lesson 8 as eve, says something under each number given, and
ends without a goodbye: python3 lessons/08_numbers.py 127.0.0.1:12345 1 2 2 5 4
"""

import socket
import struct
import sys

JOIN, TEXT = 1, 2


def message(kind, number, sender, body):
    lengths = len(sender), len(body)
    return struct.pack("!2sBBIQHH", b"CH", 1, kind, number, 0, *lengths) + sender + body


host, port = sys.argv[1].rsplit(":", 1)
room = socket.socket(type=socket.SOCK_DGRAM)
room.settimeout(2)
room.connect((host, int(port)))

room.send(message(JOIN, 0, b"eve", b""))
cookie = room.recv(1200)[20:]
room.send(message(JOIN, 0, b"eve", cookie))
room.recv(1200)  # WELCOME

for number in sys.argv[2:]:
    room.send(message(TEXT, int(number), b"", b"number %d" % int(number)))
