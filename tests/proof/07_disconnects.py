"""07: the chat room of 06, and all the ways in which a connection, and the room itself, can end."""

import os
import socket
import sys
import threading

from common import MISTAKE, Arguments, between, first_word, listen, offer, stop_asked, visitors
from rooms import Room
from streams import join, receive, say_goodbye, shut

# For each test the mistakes that it must catch.
MISTAKES = {
    "each_disconnect_is_announced_once_with_its_reason": {
        "left_says_disconnected": "Tells `disconnected` of someone who has said goodbye.",
        "end_says_left": "Tells `left` of someone who has not said goodbye.",
        "reset_says_left": "Tells `left` of someone whose connection was reset.",
        "reset_not_told": "Tells nobody when a client has left by a reset.",
        "truncated_says_protocol_error": "Takes a stream that ends inside a message for a protocol error.",
        "nonsense_says_disconnected": "Tells `disconnected` of someone who has sent what is no message.",
        "left_told_twice": "Tells it twice that someone has left.",
        "not_joined_told": "Tells it when someone leaves who has not joined.",
        "leave_overtakes": "Looks for a LEAVE before it handles what came before it.",
        "leave_ignored": "Does not take LEAVE for the end, only the end of the stream.",
        "name_not_freed": "Does not give the name of someone who has left to the next.",
        "connection_left_open": "Does not close the connection of a client that has left.",
        "closes_on_unread": "Closes right after the error, which is a reset while the client still sends.",
        "half_closed_late": "Closes its sending half after the client has closed.",
    },
    "members_that_vanish_are_announced_once_and_their_names_are_free": {
        "only_leave_frees_name": "Keeps the name of someone who has left without LEAVE.",
        "failed_send_not_caught": "A failed send to a client that is gone ends the one who spoke, or entered, too.",
    },
    "a_member_that_leaves_gets_its_queue_and_one_that_never_reads_is_too_slow": {
        "too_slow_says_disconnected": "Tells `disconnected` of someone who was too slow.",
        "thrown_out_told_twice": "Tells it once more when the thread of someone notices that it was thrown out.",
        "leaver_cut_off": "Closes at once when a client leaves, and loses what the server still kept for it.",
        "slow_reader_blocks": "Waits until a slow reader has taken a message before it goes on.",
        "slow_reader_kept": "Keeps any amount for a client that does not read.",
        "delivered_counts_as_waiting": "Counts what a reader has taken already as waiting for it.",
    },
    "a_silent_client_is_pinged_and_then_timed_out": {
        "timed_out_says_disconnected": "Tells `disconnected` of someone who has timed out.",
        "thrown_out_left_open": "Tells the others of someone who is too slow or silent, but leaves the connection open.",
        "heartbeat_ignored": "Has its own heartbeat whatever was asked.",
        "never_pings": "Throws out without having asked.",
        "thrown_out_without_ping": "Throws out after one heartbeat.",
        "thrown_out_too_soon": "Throws out one heartbeat after its PING.",
        "never_throws_out": "Pings, and does nothing when no answer comes.",
        "not_joined_not_watched": "Has no heartbeat for someone who has not joined.",
        "not_joined_never_thrown_out": "Pings someone who has not joined, and does nothing when no answer comes.",
        "pings_once": "Does not ask again someone who has been silent before.",
        "sent_is_life": "Takes what it sends to someone for a sign of life.",
        "thrown_out_too_late": "Throws out eight heartbeats after its PING.",
    },
    "any_message_is_a_sign_of_life": {
        "pong_is_no_life": "Does not take PONG for a sign of life.",
        "text_is_no_life": "Does not take TEXT for a sign of life.",
    },
    "a_server_that_is_asked_to_stop_says_goodbye_to_everybody": {
        "quit_not_understood": "Does not stop at /quit.",
        "quit_begins_alike": "Stops at each line that begins with /quit.",
        "sigterm_not_caught": "Ends at once at SIGTERM.",
        "sigint_not_caught": "Ends at once at SIGINT.",
        "end_of_input_stops": "Stops at the end of its input.",
        "no_goodbye": "Stops without a goodbye.",
        "goodbye_has_sender": "Says who says goodbye.",
        "goodbye_to_joined_only": "Says goodbye only to those who have joined.",
        "goodbye_overtakes": "Says goodbye past what waits already.",
        "goodbye_not_flushed": "Exits before the clients have taken what waits for them.",
        "each_leave_told_at_stop": "Tells everybody of everybody's end when it stops.",
        "no_reuseaddr": "Can't be started again at once on the port it just had.",
        "queue_lost_at_goodbye": "Throws away what waits when it says goodbye.",
        "goodbye_half_closed_late": "Does not close its sending half after the goodbye.",
    },
    "no_client_delays_a_server_that_stops": {
        "waits_for_clients_for_ever": "Waits for clients that do not close.",
        "waits_for_next_client": "Does not wake its accept, and waits for it.",
        "waits_for_keyboard": "Waits for the end of its input when it stops.",
        "no_bye": "Does not print bye.",
        "stop_exit_1": "Exits 1 when it was stopped.",
    },
    "a_full_room_turns_newcomers_away_and_arguments_are_checked": {
        "limit_one_too_many": "Takes one client more than the limit.",
        "limit_one_too_few": "Takes one client less than the limit.",
        "limit_counts_joined": "Counts only those who have joined.",
        "full_is_a_line": "Says that the room is full in a line, not in a message.",
        "full_not_said": "Closes the connection without a word when the room is full.",
        "full_left_open": "Says that the room is full, but does not close the connection.",
        "seat_never_free": "Does not give the seat of someone who has left to the next.",
        "ranges_not_checked": "Takes any number for its options.",
        "port_ignored": "Takes a port of its own, whatever was asked.",
        "full_closes_on_unread": "Closes right after it has said that the room is full, which is a reset if the client has sent something.",
        "full_half_closed_late": "Closes its sending half after the client that it turns away has closed.",
        "accept_failure_ends": "Ends when there is no descriptor left for a client.",
        "accept_failure_spins": "Tries again without a pause when there is no descriptor left for a client.",
    },
    "a_client_answers_each_ping_and_takes_the_servers_goodbye": {
        "client_answers_no_ping": "Does not answer the server's PING.",
        "client_pong_sequence_0": "Answers the server's PING with sequence 0.",
        "goodbye_shown_as_left": "Shows the server's goodbye like that of a guest without a name.",
        "goodbye_exit_1": "Exits 1 at the server's goodbye.",
        "reset_exit_0": "Exits 0 after a reset.",
        "truncated_exit_0": "Exits 0 when the stream ends inside a message.",
    },
    "every_client_of_a_room_is_told_how_each_of_the_others_ended": {
        "local_time_shown": "Shows the time of its time zone.",
    },
}
# Other ways to write it that are right, too.
RIGHT = {
    "small_send_buffer": "Has small buffers in the system, so that its own limit is reached early.",
    "slow": "Takes 50 ms before it does anything with what has come.",
    "tells_others_first": "Tells the others of a newcomer, waits 3 ms, and greets it after that.",
    "writer_threads": "Sends only in the writer thread that each guest has.",
    "child_holds_pipes": "Leaves a child running that has its standard streams.",
    "child_in_own_session": "The same, and the child is in a session of its own.",
}
offer(MISTAKES, RIGHT)

GOODBYE_SECONDS = 2
WAKE_SECONDS = 0.5


def serve(chosen):
    stop = stop_asked()
    stopping = threading.Event()
    heartbeat_ms = 10_000 if MISTAKE == "heartbeat_ignored" else chosen.heartbeat_ms
    room = Room(seats=chosen.limit, heartbeat_seconds=heartbeat_ms / 1000)
    listener = listen(chosen.address)
    accepting = threading.Thread(target=accept, args=[room, listener, stopping], daemon=True)
    accepting.start()
    threading.Thread(target=room.watch, daemon=True).start()
    os.read(stop, 1)
    stopping.set()
    if MISTAKE == "waits_for_next_client":
        accepting.join()
    shut(listener, socket.SHUT_RD)  # wakes the thread that accepts
    accepting.join(WAKE_SECONDS)
    listener.close()
    say_goodbye(room, GOODBYE_SECONDS)
    if MISTAKE == "waits_for_keyboard":
        keyboard = next(thread for thread in threading.enumerate() if thread.name == "keyboard")
        keyboard.join()
    if MISTAKE != "no_bye":
        print("bye", flush=True)
    sys.exit(1 if MISTAKE == "stop_exit_1" else 0)


def accept(room, listener, stopping):
    for stream in visitors(listener, until=stopping):
        receive(room, stream)


def main():
    word = first_word(serve_options=" [--heartbeat-ms N] [--limit N]")
    arguments = Arguments(word)
    if word == "join":
        return join(arguments.parse(), server="07_disconnects serve")
    arguments.add_argument("--heartbeat-ms", type=between(50, 3_600_000), default=10_000, metavar="N",
                           help="ping who is silent for N ms (50 to 3,600,000)")
    arguments.add_argument("--limit", type=between(1, 10_000), default=10_000, metavar="N",
                           help="at most N clients (1 to 10000)")
    serve(arguments.parse())


main()
