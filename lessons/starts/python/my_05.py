"""Step 05: a chat room for many, to be finished. Contract: lessons/PROTOCOL.md, section 2, "05, the room"."""

import queue
import socket
import sys
import threading

USAGE = """usage: my_05.py [ADDRESS] [--limit N]
  ADDRESS    HOST:PORT to listen on, 127.0.0.1:12345 if not given
  --limit N  the most guests at once, 1 to 10000, 10000 if not given"""

# What happened, in order. When it is full, the readers wait, and stop reading.
inbox = queue.Queue(1024)


def refuse(line):
    """What can't be understood: a line, the usage, and exit status 2."""
    print(f"{line}\n\n{USAGE}", file=sys.stderr)
    sys.exit(2)


def split_address(address):
    """HOST:PORT in two. The port follows the last colon, because an IPv6 host has colons, too."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        refuse(f"an address is HOST:PORT, such as 127.0.0.1:12345, not {address}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, int(port)


def listen(address):
    """Binds and listens, or says in one line why it can't."""
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, place = found[0]
        # It also sets SO_REUSEADDR: the port can be had again at once after a restart.
        listener = socket.create_server(place[:2], family=family)
    except OSError as error:
        print(f"cannot listen on {address}: {error}. Who has the port: ss -tlnp. "
              "Or choose another port.", file=sys.stderr)
        sys.exit(1)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    # Without the flush, output to a pipe is kept back.
    print(f"listening on {shown}:{port}", flush=True)
    return listener


def room(limit):
    """The only thread that knows who is here: so it needs no lock."""
    guests = {}
    while True:
        kind, *what = inbox.get()
        # TODO 1. "arrived": the guest gets the next number. It is greeted, the others are
        #         told, and a thread of its own reads from it.
        # TODO 2. "line": everybody else gets `guest-N: the line`, cleaned of what may not pass.
        # TODO 3. "left": the others are told. The stream is closed.
        # TODO 4. A guest that finds `limit` others here is told so, and closed. It uses up no number.
        # TODO 5. A guest that does not read must not hold up this thread. Each guest needs
        #         a queue of at most 1 MiB and a thread that writes. A full queue: it is out.
        if kind == "arrived":
            number, stream = len(guests) + 1, what[0]
            guests[number] = stream
            threading.Thread(target=read_from, args=(number, stream), daemon=True).start()


def read_from(number, stream):
    """Turns the bytes of one guest into events."""
    try:
        while stream.recv(65536):
            # TODO 6. Collect the bytes up to LF, drop a CR before it, and put ("line", number, line).
            #         A line of over 4096 bytes is answered once, and thrown away up to its LF.
            pass
    except OSError:
        pass  # A reset ends a guest as the end of its stream does.
    inbox.put(("left", number))


def main():
    args = sys.argv[1:]
    if "-h" in args or "--help" in args:
        print(USAGE)
        return
    address, limit = None, 10000
    while args:
        arg = args.pop(0)
        if arg == "--limit":
            if not args:
                refuse("the number after --limit is missing")
            number = args.pop(0)
            if not (number.isascii() and number.isdigit()) or not 1 <= int(number) <= 10000:
                refuse(f"--limit must be a number from 1 to 10000, not {number}")
            limit = int(number)
        elif arg.startswith("-"):
            refuse(f"unknown option {arg}")
        elif address is not None:
            refuse(f"unexpected argument {arg}")
        else:
            address = arg
    listener = listen(address or "127.0.0.1:12345")
    threading.Thread(target=room, args=(limit,), daemon=True).start()
    while True:
        try:
            stream, _ = listener.accept()
        except OSError as error:
            print(f"cannot accept a client: {error}", file=sys.stderr)
            continue
        inbox.put(("arrived", stream))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
