"""06: a chat room with messages instead of lines: names, kinds, sequence numbers, times."""

from common import MISTAKE, Arguments, first_word, listen, offer, visitors
from rooms import Room
from streams import join, receive

# For each test the mistakes that it must catch.
MISTAKES = {
    "a_client_that_joins_is_welcomed_and_the_others_are_told": {
        "server_numbers_its_own": "Numbers what the server says of itself, too.",
        "not_joined_hear_all": "Those who have not joined hear everything too.",
        "names_ascii_only": "Takes names of ASCII only.",
        "name_in_lower_case": "Makes the letters of a name small.",
        "welcome_unsorted": "Lists the names in no order.",
        "welcome_sorted_like_a_dictionary": "Lists alice before Bob.",
        "welcome_without_own_name": "Leaves the newcomer out of the list.",
        "welcome_without_sender": "Does not say in the sender who is welcome.",
        "welcome_too_long": "Lists all names, in however long a body.",
        "welcome_cut": "Cuts the list at the limit.",
        "welcome_own_name_cut": "Leaves the newcomer's name out of a list that is too long.",
        "welcome_counts_all": "Counts all names after `and`, not only those that are not shown.",
        "joined_not_told": "Tells nobody that someone has joined.",
        "newcomer_told_of_itself": "Tells a newcomer too that it has joined.",
        "left_not_told": "Tells nobody that someone has left.",
        "left_told_twice": "Tells it twice that someone has left.",
        "leaver_told_of_itself": "Tells someone who leaves that it has left.",
        "not_joined_told": "Tells it when someone leaves who has not joined.",
        "why_told": "Tells why someone has left, which comes in step 07.",
        "reset_not_told": "Tells nobody when a client has left by a reset.",
        "leave_ignored": "Does not take LEAVE for the end, only the end of the stream.",
        "connection_left_open": "Does not close the connection of a client that has left.",
        "one_client_at_a_time": "Serves the next client when the one before has left.",
    },
    "a_text_goes_to_everybody_else_under_the_name_and_clock_of_the_server": {
        "time_little_endian": "Writes and reads the timestamp with the lowest byte first.",
        "time_in_seconds": "Writes the time in seconds.",
        "sender_believed": "Passes on the sender that the client wrote.",
        "time_believed": "Passes on the time that the client wrote.",
        "renumbered": "Numbers the messages that it passes on anew.",
        "sequence_not_passed_on": "Passes messages on without their sequence.",
        "sender_hears_itself": "Sends a text back to its sender too.",
        "passed_on_uncleaned": "Passes texts on as they came.",
        "controls_kept": "Keeps control characters.",
        "c1_kept": "Keeps the control characters U+0080 to U+009F.",
        "isolates_kept": "Keeps U+2066 to U+2069, takes out U+202A to U+202E only.",
        "only_printable_kept": "Takes out all that Unicode does not call printable, so that joined emoji fall apart.",
        "empty_passed_on": "Passes on empty texts.",
        "emptied_passed_on": "Passes on texts of which cleaning leaves nothing.",
    },
    "a_message_is_a_message_however_it_arrives": {
        "one_read_is_one_message": "Takes what one read brings for one message.",
        "header_little_endian": "Writes and reads all numbers with the lowest byte first.",
        "lengths_little_endian": "Writes and reads the lengths with the lowest byte first.",
        "lengths_count_characters": "Announces the number of characters, not of bytes.",
        "body_limit_too_small": "Takes bodies of up to 4095 bytes.",
    },
    "many_members_talk_at_once_and_one_that_does_not_read_delays_nobody": {
        "leaver_cut_off": "Closes at once when a client leaves, and loses what the server still kept for it.",
        "slow_reader_blocks": "Waits until a slow reader has taken a message before it goes on.",
        "slow_reader_kept": "Keeps any amount for a client that does not read.",
        "delivered_counts_as_waiting": "Counts what a reader has taken already as waiting for it.",
    },
    "a_refused_name_gets_an_error_and_the_client_may_try_another": {
        "error_without_words": "Sends errors with an empty body.",
        "del_kept": "Keeps DEL.",
        "empty_name_taken": "Takes an empty name.",
        "blank_in_name_taken": "Takes a name with a blank in it.",
        "tab_in_name_taken": "Looks for blanks in a name, but for no other white space.",
        "comma_in_name_taken": "Takes a name with a comma in it.",
        "control_in_name_taken": "Takes a name with a control character in it.",
        "name_limit_too_small": "Takes names of up to 31 bytes.",
        "names_doubled": "Takes a name that somebody has.",
        "names_case_sensitive": "Takes Alice for another name than alice.",
        "name_stripped": "Takes the blanks off both ends of a name, and then takes it.",
        "refused_name_silent": "Does not answer when it refuses a name.",
        "refused_name_disconnects": "Disconnects a client whose name it refuses.",
        "name_not_freed": "Does not give the name of someone who has left to the next.",
    },
    "a_message_at_the_wrong_time_gets_an_error_and_the_connection_stays_open": {
        "text_before_join_passed_on": "Passes on what someone says who has not joined.",
        "text_before_join_disconnects": "Disconnects someone who speaks before joining.",
        "second_join_renames": "Takes another JOIN for a change of the name.",
        "second_join_ignored": "Does not answer another JOIN.",
        "second_join_welcomed": "Answers another JOIN with the same name with another WELCOME, which comes in step 08.",
        "second_join_disconnects": "Disconnects someone who sends another JOIN.",
        "leave_before_join_refused": "Answers LEAVE before JOIN with an error, and waits on.",
        "server_kinds_ignored": "Does not answer WELCOME, LOGIN and CHALLENGE.",
        "server_kinds_disconnect": "Disconnects someone who sends WELCOME, LOGIN or CHALLENGE.",
        "ping_not_answered": "Does not answer PING.",
        "ping_needs_join": "Answers PING only to those who have joined.",
        "pong_sequence_0": "Answers PING with sequence 0.",
        "pong_answered": "Answers PONG with an error.",
        "error_answered": "Answers ERROR with an error.",
    },
    "a_malformed_message_gets_an_error_and_the_end_of_the_stream": {
        "half_message_delivered": "Passes on what it has of a message when the stream ends inside it.",
        "lengths_believed": "Waits for as many bytes as a header announces, and takes them.",
        "lengths_checked_late": "Looks whether a message is too long when all of it has come.",
        "body_limit_too_large": "Takes bodies of up to 4097 bytes.",
        "sender_length_not_checked": "Takes senders of any length.",
        "wrong_magic_taken": "Does not look at the magic.",
        "wrong_version_taken": "Does not look at the version.",
        "unknown_kind_ignored": "Ignores a message of a kind that there is not.",
        "bad_utf8_fatal": "Text that is not UTF-8 ends the thread in a traceback.",
        "bad_utf8_replaced": "Takes text that is not UTF-8, with U+FFFD in it.",
        "sender_utf8_not_checked": "Takes a sender that is not UTF-8.",
        "nonsense_ends_thread": "What is no message ends the thread in a traceback; the guest stays in the room.",
        "error_not_sent": "Closes without a word when it gets what is no message.",
        "open_after_nonsense": "Goes on reading after what is no message.",
        "closes_on_unread": "Closes right after the error, which is a reset while the client still sends.",
        "drains_for_ever": "Reads on after the error for as long as the client sends.",
        "only_leave_frees_name": "Keeps the name of someone who has left without LEAVE.",
        "queue_lost_at_error": "Has writer threads, and closes at once after an error, so that what still waits is lost.",
        "half_closed_late": "Closes its sending half after the client has closed.",
    },
    "a_client_shows_each_message_however_it_arrives": {
        "bidi_kept": "Keeps the bidirectional overrides.",
        "tab_removed": "Takes out tabs too.",
        "client_answers_pong": "Answers the server's PONG with another PONG.",
        "client_pong_sequence_0": "Answers the server's PING with sequence 0.",
        "one_thread": "Reads all its input first, so that nothing is shown while nothing is typed.",
        "local_time_shown": "Shows the time of its time zone.",
        "time_of_arrival_shown": "Shows when a text came, not its timestamp.",
        "time_taken_for_seconds": "Takes the timestamp for seconds.",
        "body_shown_uncleaned": "Shows texts as they came.",
        "sender_shown_uncleaned": "Shows names as they came.",
        "left_shown_without_why": "Does not show why someone has left.",
        "names_not_shown": "Does not show who is here.",
        "error_not_shown": "Does not show errors.",
        "ping_shown": "Shows a PING.",
        "print_not_flushed": "Does not flush what it shows, so that nothing is seen before the end.",
    },
    "a_client_joins_numbers_what_is_typed_and_says_goodbye": {
        "sequence_little_endian": "Writes and reads the sequence with the lowest byte first.",
        "speaks_before_welcome": "Sends what is typed before it is welcome.",
        "numbered_from_0": "Numbers texts from 0.",
        "all_numbered_1": "Gives each text the number 1.",
        "too_long_cut": "Sends the beginning of a typed line that is too long.",
        "too_long_silent": "Does not say that it has not sent a typed line that is too long.",
        "too_long_takes_number": "Gives a number to a typed line that it does not send.",
        "typed_limit_counts_characters": "Counts characters of a typed line, not bytes.",
        "typed_blanks_stripped": "Takes the blanks off both ends of what was typed.",
        "last_typed_line_lost": "Does not send a last line that has no line end.",
        "quit_is_text": "Sends /quit as a text.",
        "ends_without_leave": "Does not send LEAVE at the end.",
        "no_half_close": "Does not close its sending half at the end of its input, so both sides wait.",
        "typed_before_welcome_lost": "Throws away what was typed before it is welcome.",
        "typed_line_printed": "Shows what was typed among what came.",
        "ends_with_input": "Ends with its input, without showing what still comes.",
    },
    "a_client_exits_with_the_status_for_how_it_ended": {
        "stays_when_refused": "Waits on when its name is refused.",
        "refused_exit_0": "Exits 0 when its name is refused.",
        "stays_after_server_close": "Stays when the server has closed.",
        "server_close_silent": "Does not say that the server has closed.",
        "server_close_exit_1": "Exits 1 when the server has closed.",
        "truncated_exit_0": "Exits 0 when the stream ends inside a message.",
        "reset_traceback": "Prints a traceback after a reset.",
        "name_may_be_missing": "Joins as guest if there is no NAME.",
        "port_ignored": "Takes a port of its own, whatever was asked.",
        "no_reuseaddr": "Can't be started again at once on the port it just had.",
        "reset_exit_0": "Exits 0 after a reset.",
    },
}
# Other ways to write it that are right, too.
RIGHT = {
    "small_send_buffer": "Has small buffers in the system, so that its own limit is reached early.",
    "slow": "Takes 50 ms before it does anything with what has come.",
    "tells_others_first": "Tells the others of a newcomer, waits 3 ms, and greets it after that.",
    "writer_threads": "Sends only in the writer thread that each guest has.",
}
offer(MISTAKES, RIGHT)


def serve(chosen):
    room = Room(always_why=None if MISTAKE == "why_told" else "left")
    for stream in visitors(listen(chosen.address)):
        receive(room, stream)


def main():
    word = first_word()
    chosen = Arguments(word).parse()
    if word == "join":
        join(chosen, server="06_message_headers serve")
    else:
        serve(chosen)


main()
