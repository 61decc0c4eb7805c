"""Step 01: a server that says hello. Contract: lessons/PROTOCOL.md, section 1."""

import socket
import sys

USAGE = "usage: my_01.py [ADDRESS]\n  ADDRESS  HOST:PORT to listen on, 127.0.0.1:12345 if not given"


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


def main():
    args = sys.argv[1:]
    if "-h" in args or "--help" in args:
        print(USAGE)
        return
    for arg in args:
        if arg.startswith("-"):
            refuse(f"unknown option {arg}")
    if len(args) > 1:
        refuse(f"unexpected argument {args[1]}")
    listener = listen(args[0] if args else "127.0.0.1:12345")
    while True:
        try:
            stream, _ = listener.accept()
            with stream:
                stream.sendall(b"hello from 01_bind_listen\n")
        except OSError as error:
            # This client may be gone already. That must not end the server.
            print(f"a client was lost: {error}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
