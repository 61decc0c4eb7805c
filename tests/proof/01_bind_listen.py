"""01: accepts one client after another, greets it, and closes the connection."""

import socket
import struct
import sys
import threading

from common import MISTAKE, Arguments, listen, offer, visitors

# For each test the mistakes that it must catch.
MISTAKES = {
    "the_first_line_printed_says_where_the_server_really_listens": {
        "requested_port_printed": "Prints the port that was asked for, so 0 for port 0.",
    },
    "a_client_gets_the_greeting_and_then_the_end_of_the_stream": {
        "waits_for_client_to_close": "Waits until the client has closed before it closes and serves the next.",
        "closes_with_reset": "Closes with SO_LINGER 0, so that the client gets a reset where the end should be.",
    },
    "one_client_after_another_is_served": {
        "one_client_only": "Ends after the first client.",
        "stops_after_ten": "Accepts ten clients, and then no more.",
    },
    "a_client_that_neither_sends_nor_closes_keeps_nobody_waiting": {
        "greets_twice": "Sends the greeting twice.",
    },
    "clients_that_connect_at_the_same_moment_are_all_served": {
        "never_closes": "Leaves the connection open after the greeting.",
    },
    "clients_that_vanish_do_not_end_the_server": {
        "dies_when_client_is_gone": "A client that has gone before its greeting ends the server.",
    },
    "the_server_listens_on_the_given_address_and_nowhere_else": {
        "client_must_speak_first": "Greets only after the client has sent something.",
        "no_newline": "The greeting has no line end.",
        "wrong_text": "The greeting is another one.",
        "listening_not_flushed": "Prints the listening line into a buffer that nobody flushes.",
        "banner_first": "Prints another line before the listening line.",
        "address_ignored": "Listens on the default address whatever was asked.",
        "all_interfaces": "Listens on every address of the machine whatever was asked.",
    },
    "an_ipv6_address_and_a_host_name_are_addresses_too": {
        "printed_without_brackets": "Prints an IPv6 address without brackets.",
        "brackets_kept": "Looks up an IPv6 address with its brackets, so it can't bind.",
        "names_not_understood": "Takes numeric addresses only, not localhost.",
    },
    "a_port_in_use_is_reported_in_one_line_and_a_port_just_closed_can_be_bound_again": {
        "no_reuseaddr": "Can't be started again at once on the port it just had.",
        "port_shared": "Sets SO_REUSEPORT, so that two servers take the same port and neither says so.",
        "failure_traceback": "A port in use ends in a traceback.",
        "failure_exit_0": "Exits 0 when the port is in use.",
        "failure_exit_2": "Exits 2 when the port is in use.",
        "port_ignored": "Takes a port of its own, whatever was asked.",
    },
    "arguments_are_explained_or_refused": {
        "port_may_be_missing": "Takes an address without a port.",
        "unknown_arguments_ignored": "Ignores arguments that it does not know.",
        "usage_exit_1": "Exits 1 when the arguments can't be understood.",
        "error_without_usage": "Names the bad argument, but prints no usage.",
        "bad_address_traceback": "An address that can't be understood ends in a traceback.",
        "help_exit_2": "--help exits 2.",
        "help_on_stderr": "--help prints to standard error.",
    },
}
RIGHT = {
    "child_holds_pipes": "Leaves a child running that has its standard streams.",
    "child_in_own_session": "The same, and the child is in a session of its own.",
    "slow": "Takes 50 ms before it does anything with what has come.",
    "failure_without_hint": "Says that the port is in use, but not what to try: the words are free.",
}
offer(MISTAKES, RIGHT)

GREETING = b"hello from 01_bind_listen\n"
if MISTAKE == "no_newline":
    GREETING = GREETING.rstrip()
if MISTAKE == "wrong_text":
    GREETING = b"Hello!\n"
if MISTAKE == "greets_twice":
    GREETING *= 2


def greet(stream):
    if MISTAKE == "client_must_speak_first":
        stream.recv(1)
    stream.sendall(GREETING)
    if MISTAKE == "waits_for_client_to_close":
        while stream.recv(1024):
            pass
    if MISTAKE == "closes_with_reset":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if MISTAKE == "dies_when_client_is_gone":
        stream.shutdown(socket.SHUT_RDWR)


def main():
    listener = listen(Arguments().parse().address)
    for served, stream in enumerate(visitors(listener)):
        if MISTAKE == "stops_after_ten" and served == 10:
            threading.Event().wait()
        with stream:
            try:
                greet(stream)
            except OSError:
                # That client is gone; the next one is waiting.
                if MISTAKE == "dies_when_client_is_gone":
                    raise
            if MISTAKE == "never_closes":
                stream.detach()
        if MISTAKE == "one_client_only":
            sys.exit()


main()
