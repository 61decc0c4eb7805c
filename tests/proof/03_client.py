"""03: sends each line of its input, waits for one line, and prints it."""

import socket
import sys

from common import CLIENT_LINE_BYTES, MISTAKE, offer, print_line, received, run_client, server_closed, typed

# For each test the mistakes that it must catch.
MISTAKES = {
    "a_typed_line_is_sent_and_its_answer_is_printed_at_once": {
        "does_not_wait": "Sends the next line without waiting for the answer to the one before.",
        "print_not_flushed": "Does not flush what it prints, so that nothing is seen before the end.",
        "printed_with_blank_line": "Prints an empty line after every line.",
        "prompt_on_stdout": "Prints a prompt among the received lines.",
        "status_on_stdout": "Says on standard output that it is connected.",
    },
    "the_next_line_waits_for_the_answer": {
        "sent_without_newline": "Sends the line without its end.",
    },
    "an_answer_is_a_line_however_it_arrives": {
        "one_read_is_one_line": "Takes what one read brings for one line.",
    },
    "the_end_of_input_closes_only_the_sending_half": {
        "last_line_lost": "Does not print a last line that came without its line end.",
    },
    "every_kind_of_line_is_sent_with_one_line_end": {
        "typed_cr_sent": "A CR LF that was typed goes out as CR LF.",
        "empty_line_not_sent": "Does not send an empty line.",
        "typed_blanks_stripped": "Takes the blanks off both ends of what was typed.",
        "last_typed_line_lost": "Does not send a last line that has no line end.",
    },
    "long_lines_pass_both_ways": {
        "line_limit_4_kib": "Cuts lines at 4 KiB.",
        "too_long_kept_in_memory": "Keeps all of a line that is too long.",
    },
    "characters_that_control_a_terminal_are_removed": {
        "bad_utf8_fatal": "Fails on bytes that are not UTF-8.",
        "controls_kept": "Prints control characters as they came.",
    },
    "a_server_that_closes_first_is_reported_and_is_no_failure": {
        "end_is_empty_line": "Takes the end of the stream for an empty line.",
        "server_close_silent": "Does not say that the server has closed.",
        "server_close_exit_1": "Exits 1 when the server has closed.",
    },
    "a_refused_or_reset_connection_is_one_line_and_exit_status_1": {
        "reset_exit_0": "Exits 0 after a reset.",
        "reset_traceback": "Prints a traceback after a reset.",
        "failure_exit_0": "Exits 0 when nobody listens.",
        "failure_traceback": "Prints a traceback when nobody listens.",
    },
    "arguments_are_as_in_step_01": {
        "no_half_close": "Does not close its sending half at the end of its input, so both sides wait.",
        "leaves_at_end_of_input": "Ends with its input, without printing what still comes.",
        "ipv4_only": "Can't connect to an IPv6 address.",
    },
}
RIGHT = {
    "child_holds_pipes": "Leaves a child running that has its standard streams.",
    "child_in_own_session": "The same, and the child is in a session of its own.",
    "failure_without_hint": "Says that nobody listens, but not which server to start: the words are free.",
}
offer(MISTAKES, RIGHT)


def converse(stream):
    replies = received(stream, CLIENT_LINE_BYTES)
    if MISTAKE == "prompt_on_stdout":
        print("> ", end="", flush=True)
    for line in typed():
        send(stream, line)
        if MISTAKE == "does_not_wait":
            continue
        reply = next(replies, b"" if MISTAKE == "end_is_empty_line" else None)
        if reply is None:
            return server_closed()
        print_line(reply)
    if MISTAKE == "leaves_at_end_of_input":
        sys.exit()
    if MISTAKE != "no_half_close":
        stream.shutdown(socket.SHUT_WR)
    for reply in replies:
        print_line(reply)


def send(stream, line):
    try:
        stream.sendall(line)
    except BrokenPipeError:
        pass  # the server has closed: what it sent before can still be read, and then the end


run_client(converse, server="02_echo_server")
