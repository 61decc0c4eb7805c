"""Sends lines to a server of lesson 5 until the server takes no more:
python3 lessons/05_flood.py 127.0.0.1 12345
"""

import socket
import sys

stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
stream.settimeout(3)
try:
    while True:
        stream.sendall(b"blah blah blah\n" * 1000)
except socket.timeout:
    print("the server has taken nothing for 3 seconds")
