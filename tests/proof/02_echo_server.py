"""02: sends back every byte that it receives, one client at a time."""

import contextlib
import socket
import struct
import threading

from common import MISTAKE, Arguments, listen, offer, react, visitors

# For each test the mistakes that it must catch.
MISTAKES = {
    "bytes_come_back_at_once_without_waiting_for_a_line_end": {
        "stripped": "Takes white space off the ends of what it has read.",
    },
    "every_byte_comes_back_unchanged": {
        "crlf_to_lf": "Turns CR LF into LF.",
        "nul_ends_text": "Takes a NUL for the end of the text.",
        "decodes": "Decodes as UTF-8 and replaces what is none.",
        "quit_is_a_command": "Closes when the client sends the line quit.",
    },
    "a_megabyte_comes_back_whole": {
        "partial_sends": "Sends without waiting and does not look how much was taken, so a slow client loses bytes.",
    },
    "bytes_sent_before_the_end_come_back_before_the_server_closes": {
        "one_client_only": "Ends after the first client.",
    },
    "one_client_is_served_at_a_time": {
        "two_at_once": "Serves several clients at the same time.",
    },
    "clients_are_served_one_after_another": {
        "whole_buffer_sent": "Sends the whole buffer and not just what was read into it.",
        "newline_added": "Adds a newline where a read does not end in one.",
        "upper_case": "Sends back upper-case letters.",
        "greets": "Greets the client before it echoes.",
        "resets_at_end": "Closes with SO_LINGER 0, so that what is still on its way is lost.",
        "never_closes": "Leaves the connection open after the end, and serves the next.",
        "end_not_noticed": "Takes the end of the stream for a pause and waits on.",
    },
    "a_client_that_resets_the_connection_does_not_end_the_server": {
        "dies_on_reset": "A client's reset ends the server.",
    },
    "a_client_that_never_reads_is_given_up_when_it_disconnects": {
        "stops_after_1_mib": "Echoes the first 1 MiB and closes.",
        "decodes_strictly": "Decodes as UTF-8 and ends at the first byte that is none.",
    },
    "a_pause_is_not_the_end": {
        "waits_for_end": "Collects everything and sends it back when the client has closed its half.",
        "one_read_only": "Echoes what the first read brings, then closes.",
    },
    "addresses_and_arguments_are_as_in_step_01": {
        "waits_for_newline": "Sends nothing back before a line end has come.",
        "port_ignored": "Takes a port of its own, whatever was asked.",
        "no_reuseaddr": "Can't be started again at once on the port it just had.",
    },
}
# Other ways to write it that are right, too.
RIGHT = {
    "slow": "Takes 50 ms before it does anything with what has come.",
}
offer(MISTAKES, RIGHT)

PIECE_BYTES = 64 * 1024


def changed(piece):
    """What comes back for a piece: the piece."""
    return {
        "stripped": lambda: piece.strip(),
        "newline_added": lambda: piece if piece.endswith(b"\n") else piece + b"\n",
        "crlf_to_lf": lambda: piece.replace(b"\r\n", b"\n"),
        "nul_ends_text": lambda: piece.partition(b"\0")[0],
        "upper_case": lambda: piece.upper(),
        "decodes": lambda: piece.decode(errors="replace").encode(),
        "decodes_strictly": lambda: piece.decode().encode(),
        "whole_buffer_sent": lambda: piece.ljust(1024, b"\0"),
    }.get(MISTAKE, lambda: piece)()


def pieces(stream):
    """Yields what comes, as it comes."""
    total = 0
    while piece := stream.recv(PIECE_BYTES):
        react()
        yield piece
        total += len(piece)
        if MISTAKE == "one_read_only" or MISTAKE == "stops_after_1_mib" and total >= 1 << 20:
            return
        if MISTAKE == "quit_is_a_command" and piece.strip() == b"quit":
            return


def echo(stream):
    source = pieces(stream)
    if MISTAKE == "greets":
        stream.sendall(b"welcome to the echo server\n")
    if MISTAKE == "waits_for_newline":
        source = stream.makefile("rb")
    if MISTAKE == "waits_for_end":
        source = [b"".join(source)]
    for piece in source:
        if MISTAKE == "partial_sends":
            with contextlib.suppress(BlockingIOError):
                stream.send(piece, socket.MSG_DONTWAIT)
            continue
        stream.sendall(changed(piece))
    if MISTAKE == "end_not_noticed":
        threading.Event().wait()
    if MISTAKE == "resets_at_end":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def serve(stream):
    with stream:
        try:
            echo(stream)
        except OSError:
            # That client is gone; the next one is waiting.
            if MISTAKE == "dies_on_reset":
                raise
        if MISTAKE == "never_closes":
            stream.detach()


def main():
    listener = listen(Arguments().parse().address)
    for stream in visitors(listener):
        if MISTAKE == "two_at_once":
            threading.Thread(target=serve, args=[stream], daemon=True).start()
            continue
        serve(stream)
        if MISTAKE == "one_client_only":
            return


main()
