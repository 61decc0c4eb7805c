"""04: sends what is typed and prints what comes, both at once."""

import os
import socket
import threading

from common import CLIENT_LINE_BYTES, MISTAKE, offer, print_line, received, run_client, server_closed, typed

# For each test the mistakes that it must catch.
MISTAKES = {
    "lines_from_the_server_are_printed_while_nothing_is_typed": {
        "print_not_flushed": "Does not flush what it prints, so that nothing is seen before the end.",
    },
    "typed_lines_are_sent_without_waiting_for_an_answer": {
        "sends_at_end": "Keeps what is typed in a buffer until the end of its input.",
        "sent_without_newline": "Sends lines without their ends.",
    },
    "much_data_flows_both_ways_at_the_same_time": {
        "one_read_is_one_line": "Takes what one read brings for one line.",
    },
    "a_line_is_a_line_however_it_arrives": {
        "line_limit_4_kib": "Cuts lines at 4 KiB.",
        "characters_split": "Decodes every read on its own, so that a character in two reads is broken.",
        "latin1": "Takes the text for Latin-1.",
        "too_long_kept_in_memory": "Keeps all of a line that is too long.",
    },
    "the_end_of_input_closes_only_the_sending_half": {
        "last_line_lost": "Does not print a last line that came without its line end.",
        "last_typed_line_lost": "Does not send a last line that has no line end.",
    },
    "when_the_server_closes_the_client_ends_without_waiting_for_the_keyboard": {
        "stays_after_server_close": "Waits for more input when the server has closed.",
        "server_close_silent": "Does not say that the server has closed.",
    },
    "a_refused_or_reset_connection_is_one_line_and_exit_status_1": {
        "one_thread": "Reads all its input first, so that nothing is printed while nothing is typed.",
        "typed_line_printed": "Prints what was typed among the received lines.",
        "reset_exit_0": "Exits 0 after a reset.",
        "reset_traceback": "Prints a traceback after a reset.",
    },
    "characters_that_control_a_terminal_are_removed": {
        "bad_utf8_fatal": "Fails on bytes that are not UTF-8.",
        "bad_utf8_dropped": "Leaves out bytes that are not UTF-8, without U+FFFD.",
        "controls_kept": "Prints control characters as they came.",
        "only_escape_removed": "Takes out ESC and no other control character.",
        "del_kept": "Prints DEL.",
        "c1_kept": "Prints the control characters U+0080 to U+009F.",
        "bidi_kept": "Prints the bidirectional overrides.",
        "isolates_kept": "Prints U+2066 to U+2069, takes out U+202A to U+202E only.",
        "tab_removed": "Takes out tabs too.",
        "only_printable_kept": "Takes out all that Unicode does not call printable, so that joined emoji fall apart.",
    },
    "every_kind_of_line_is_sent_with_one_line_end": {
        "typed_cr_sent": "A CR LF that was typed goes out as CR LF.",
    },
    "arguments_are_as_in_step_01": {
        "no_half_close": "Does not close its sending half at the end of its input, so both sides wait.",
        "leaves_at_end_of_input": "Ends with its input, without printing what still comes.",
        "server_close_exit_1": "Exits 1 when the server has closed.",
    },
}
# Other ways to write it that are right, too.
RIGHT = {
    "child_holds_pipes": "Leaves a child running that has its standard streams.",
    "child_in_own_session": "The same, and the child is in a session of its own.",
}
offer(MISTAKES, RIGHT)


def speak(stream, failures):
    """Sends what is typed; then closes the sending half."""
    source = typed()
    if MISTAKE == "sends_at_end":
        source = [b"".join(source)]
    try:
        for line in source:
            stream.sendall(line)
            if MISTAKE == "typed_line_printed":
                print_line(line)
        if MISTAKE == "leaves_at_end_of_input":
            os._exit(0)
        if MISTAKE != "no_half_close":
            stream.shutdown(socket.SHUT_WR)
    except ConnectionResetError as error:
        failures.append(error)  # the system tells it only once: perhaps here, perhaps to the reader
    except OSError:
        pass  # the server has closed, and the reader sees that


def converse(stream):
    failures = []
    # A daemon, because nothing wakes it from reading its input when the server has closed.
    speaker = threading.Thread(target=speak, args=[stream, failures], daemon=True)
    speaker.start()
    if MISTAKE == "one_thread":
        speaker.join()
    for line in received(stream, CLIENT_LINE_BYTES):
        print_line(line)
    if failures:
        raise failures[0]
    if MISTAKE == "stays_after_server_close":
        speaker.join()
    server_closed()


run_client(converse, server="05_threaded_server")
