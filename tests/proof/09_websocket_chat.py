"""09: the chat room of 07 in a browser: one request in HTTP, then frames (RFC 6455) around the same messages."""

import base64
import binascii
import codecs
import hashlib
import os
import re
import socket
import sys
import threading
import time
import typing

from common import MISTAKE, READ_BYTES, Arguments, between, listen, offer, stop_asked, visitors
from messages import LEAVE, PING, PONG, TEXT, NotAMessage, parse
from rooms import Room
from streams import CLIENT_THREAD, Connection, client_thread, drain, say_goodbye, shut

# For each test the mistakes that it must catch.
MISTAKES = {
    "the_page_is_at_the_root_and_every_other_request_gets_its_status": {
        "page_as_plain_text": "Sends the page as text/plain.",
        "page_length_in_characters": "Counts characters of the page, not bytes.",
        "page_length_too_large": "Announces more of the page than comes.",
        "query_kept": "Takes a query for a part of the path.",
        "path_by_beginning": "Takes any path that begins with /chat for the chat.",
        "every_path_is_the_page": "Has the page at every path but that of the chat.",
        "method_ignored": "Takes any method for GET.",
        "bad_request_unanswered": "Closes the connection where it does not understand a request.",
        "bad_request_ends_thread": "A request without three words ends its thread in a traceback.",
        "host_not_needed": "Takes requests without Host.",
        "two_hosts_taken": "Takes requests with two Hosts.",
        "field_without_colon_taken": "Ignores lines that are no fields.",
        "field_without_name_taken": "Takes fields that have no name.",
        "answer_left_open": "Leaves the connection open after an answer.",
        "no_upgrade_is_400": "Answers 400 to /chat without an upgrade.",
        "no_upgrade_is_404": "Answers 404 to /chat without an upgrade.",
        "upgrade_not_named": "Does not say to what to upgrade.",
        "version_ignored": "Takes any version of WebSocket.",
        "version_by_beginning": "Takes any version that begins with 13.",
        "version_not_named": "Does not say which version of WebSocket it speaks.",
        "key_not_checked": "Takes any key.",
        "connection_ignored": "Takes an upgrade that Connection does not name.",
        "refusals_without_words": "Refuses without a line that says why.",
        "page_head_with_lf": "Ends the lines of its other answers with a lone LF.",
    },
    "an_upgrade_is_answered_with_its_own_key_and_only_for_the_servers_own_page": {
        "accept_of_decoded_key": "Hashes the bytes of the key, not its base64.",
        "accept_in_hex": "Answers with the base64 of the hash in hex.",
        "accept_by_heart": "Answers each key like the one of the RFC.",
        "field_names_compared_exactly": "Knows fields only in the capitals of the RFC.",
        "upgrade_compared_exactly": "Understands WebSocket only in small letters.",
        "connection_compared_whole": "Understands Connection only where it has one value.",
        "blanks_kept": "Does not take the blanks off the value of a field.",
        "extension_granted": "Agrees to an extension that nobody asked for.",
        "protocol_granted": "Agrees to a protocol that nobody asked for.",
        "head_is_one_read": "Takes what comes with the first read for the whole head.",
        "bytes_after_head_lost": "Throws away what comes in one piece with the head.",
        "origin_ignored": "Lets every page in.",
        "origin_null_taken": "Lets pages in that hide where they are from.",
        "origin_by_beginning": "Lets pages in whose origin begins like its own.",
        "origin_by_end": "Lets pages in whose origin ends like its own.",
        "origin_without_port": "Lets pages in from any port of its host.",
        "origin_needed": "Lets nobody in without an origin.",
        "origin_of_http_only": "Lets no page in that came over TLS.",
        "origin_compared_exactly": "Lets no page in whose origin has other capitals than its Host.",
        "origin_of_listener": "Compares an origin with the address that it listens on, not with Host.",
        "accept_ends_with_lf": "Has a lone LF after the answer to the key, which base64.encodebytes puts there.",
        "switching_ends_with_lf": "Ends the head of its 101 with a lone LF.",
        "host_ignored": "Does not look whether a Host is one of its own.",
        "host_by_beginning": "Knows each Host that begins like one of its own.",
        "host_checked_for_chat_only": "Sends its page for any Host.",
        "host_option_ignored": "Does not know the name of --host.",
        "host_compared_exactly": "Knows a Host in small letters only.",
        "host_without_port_unknown": "Knows a Host only with the port where it listens.",
    },
    "a_request_head_has_8_kib_and_5_seconds_and_a_room_has_its_limit": {
        "head_unlimited": "Reads a head of any length.",
        "head_limit_per_field": "Has its limit for each field, not for all of them.",
        "head_limit_too_small": "Takes heads of up to 4 KiB.",
        "head_too_long_is_400": "Answers 400 to a head that is too long.",
        "head_too_long_reset": "Closes at once after its answer, though the client is still sending.",
        "head_may_take_for_ever": "Waits for the rest of a head for ever.",
        "head_time_per_read": "Has 5 s for each read, not for the head.",
        "silent_may_stay": "Has no time limit for a client that says nothing at all.",
        "head_late_unanswered": "Closes without a word when the time of a head is over.",
        "head_time_too_short": "Has 2 s for a head.",
        "heads_one_by_one": "Reads one head after the other.",
        "no_limit": "Takes any number of clients.",
        "limit_one_too_many": "Takes one client more than the limit.",
        "limit_counts_joined": "Counts only those who have joined.",
        "limit_counts_requests": "Counts also those who ask for the page.",
        "limit_counts_connections": "Counts all who have connected.",
        "seat_never_free": "Does not give the seat of someone who has left to the next.",
        "full_is_closed": "Closes without an answer when the room is full.",
    },
    "a_frame_is_a_frame_however_it_arrives": {
        "one_read_is_one_frame": "Takes what comes with one read for one frame.",
        "one_mask_for_all": "Takes the mask off every frame with the key of the first one.",
        "mask_without_its_end": "Takes the mask off whole groups of four bytes only.",
        "zero_mask_refused": "Refuses a key of zeros.",
        "length_little_endian": "Reads long lengths in the other byte order.",
        "sent_126_in_7_bits": "Sends a length of 126 as such.",
        "sent_in_64_bits": "Sends each length in 64 bits.",
        "fragments_are_messages": "Takes each fragment for a message.",
        "fragments_lost": "Takes the last fragment for the message.",
        "empty_fragment_ends": "Takes an empty fragment for the end of the message.",
        "ping_ends_message": "Forgets the message in the middle of which a ping comes.",
        "ping_waits": "Answers a ping when the message is complete.",
        "ping_frame_ignored": "Does not answer a ping.",
        "pong_frame_empty": "Answers a ping without its payload.",
        "pong_frame_answered": "Answers a pong with a pong.",
        "server_masks": "Masks what it sends.",
    },
    "a_violation_of_the_protocol_is_closed_with_its_code": {
        "length_signed": "Takes lengths of 64 bits for signed numbers.",
        "long_forms_taken": "Takes lengths in more bytes than they need.",
        "unmasked_taken": "Takes frames without a mask.",
        "unmasked_control_taken": "Takes control frames without a mask.",
        "reserved_bits_ignored": "Ignores the reserved bits.",
        "reserved_bit_1_only": "Looks at the first of the reserved bits only.",
        "reserved_bits_of_control_ignored": "Ignores the reserved bits of control frames.",
        "opcodes_ignored": "Ignores frames with unknown opcodes.",
        "continuation_of_nothing_taken": "Takes a continuation of nothing for a message.",
        "message_in_message_taken": "Forgets a message when the next one begins.",
        "control_in_fragments_taken": "Ignores the FIN of control frames.",
        "long_control_taken": "Takes control frames of any length.",
        "close_codes_not_checked": "Takes any code for a goodbye.",
        "close_codes_by_range": "Takes any code from 1000 to 4999 for a goodbye.",
        "close_reason_not_checked": "Takes any bytes for the reason of a close frame.",
        "close_of_one_byte_taken": "Takes a close frame of one byte for a goodbye.",
        "frame_lengths_believed": "Waits for all that a length announces.",
        "length_limit_per_frame": "Has its limit for each fragment, not for all of them.",
        "too_long_is_1002": "Closes with 1002 when a message is too long.",
        "broken_is_1000": "Closes with 1000 whatever was wrong.",
        "ends_without_close": "Ends the connection without a close frame when something was wrong.",
        "bad_text_is_1003": "Does not look whether a text is UTF-8.",
        "text_is_a_message": "Takes a text message for one of bytes.",
        "text_without_error": "Closes with 1003 without an ERROR before it.",
        "text_is_1008": "Closes with 1008 after a text message.",
        "trailing_bytes_taken": "Ignores what follows the first message in a frame.",
        "half_messages_joined": "Takes binary messages for a stream of bytes.",
        "nonsense_without_error": "Closes with 1008 without an ERROR before it.",
        "nonsense_is_1002": "Closes with 1002 after what is no message.",
        "nonsense_ignored": "Ignores what is no message.",
        "nonsense_says_disconnected": "Tells `disconnected` of someone who has broken a rule.",
        "closes_on_unread": "Closes at once after its close frame, though the client is still sending.",
        "drains_for_ever": "Waits for ever for a client that does not answer the close frame.",
        "connection_left_open": "Leaves the connection open after the close frame.",
    },
    "the_room_is_the_same_as_in_the_steps_before": {
        "passed_on_as_text": "Passes messages on as text.",
        "passed_on_in_two": "Sends header and text of a message as two messages.",
        "sender_believed": "Passes on the sender that a client claims to be.",
        "time_believed": "Passes on the timestamp that a client claims.",
        "sequence_not_passed_on": "Passes on no sequence.",
        "passed_on_uncleaned": "Passes on what a terminal would obey.",
        "empty_passed_on": "Passes on empty texts.",
        "sender_hears_itself": "Sends a text back to its sender too.",
        "newcomer_told_of_itself": "Tells a newcomer that it has joined.",
        "not_joined_hear_all": "Passes on texts to those who have not joined.",
        "text_before_join_ignored": "Does not answer a text before the JOIN.",
        "second_join_ignored": "Does not answer a second JOIN.",
        "names_doubled": "Takes names that somebody here has.",
        "ping_not_answered": "Does not answer PING.",
    },
    "each_disconnect_is_announced_once_with_its_reason": {
        "close_not_answered": "Ends the connection at a close frame, without another one.",
        "close_answered_with_1000": "Answers each close frame with 1000.",
        "close_without_code_is_1005": "Answers a close frame without a code with 1005.",
        "close_says_disconnected": "Tells `disconnected` of someone who has sent a close frame.",
        "only_1000_is_left": "Takes only 1000 for a goodbye.",
        "heard_after_close": "Hears what comes after a close frame.",
        "leave_says_disconnected": "Tells `disconnected` of someone who has sent LEAVE.",
        "leave_without_close": "Sends no close frame after LEAVE.",
        "leave_closes_1001": "Closes with 1001 after LEAVE.",
        "end_says_left": "Tells `left` of someone who has not said goodbye.",
        "half_frame_says_protocol_error": "Takes a stream that ends inside a frame for a protocol error.",
        "left_told_twice": "Tells it twice that someone has left.",
        "left_not_told": "Tells nobody that someone has left.",
        "name_not_freed": "Does not give the name of someone who has left to the next.",
        "slow_reader_blocks": "Waits until a slow reader has taken a message before it goes on.",
        "slow_reader_kept": "Keeps any amount for a client that does not read.",
        "too_slow_says_disconnected": "Tells `disconnected` of someone who was too slow.",
    },
    "a_silent_client_is_pinged_and_timed_out_and_any_frame_is_a_sign_of_life": {
        "pings_in_messages": "Sends PING, a message, in place of a ping.",
        "heartbeat_ignored": "Has its own heartbeat whatever was asked.",
        "never_pings": "Throws out without having asked.",
        "thrown_out_too_soon": "Throws out one heartbeat after its ping.",
        "never_throws_out": "Pings, and does nothing when no answer comes.",
        "not_joined_not_watched": "Has no heartbeat for someone who has not joined.",
        "pings_once": "Does not ask again someone who has been silent before.",
        "timed_out_says_disconnected": "Tells `disconnected` of someone who has timed out.",
        "sent_is_life": "Takes what it sends to someone for a sign of life.",
        "pong_is_no_life": "Does not take a pong for a sign of life.",
        "ping_is_no_life": "Does not take a ping for a sign of life.",
        "text_is_no_life": "Does not take TEXT for a sign of life.",
        "fragment_is_no_life": "Does not take a fragment for a sign of life.",
        "byte_is_life": "Takes any byte for a sign of life.",
    },
    "a_server_that_stops_says_goodbye_in_a_message_and_in_a_close_frame": {
        "quit_not_understood": "Does not stop at /quit.",
        "sigterm_not_caught": "Ends at once at SIGTERM.",
        "end_of_input_stops": "Stops at the end of its input.",
        "no_goodbye": "Stops without LEAVE, only with a close frame.",
        "goodbye_without_close": "Stops without a close frame, only with LEAVE.",
        "goodbye_after_close": "Sends the close frame before LEAVE.",
        "goodbye_to_joined_only": "Says LEAVE only to those who have joined.",
        "goodbye_closes_1000": "Closes with 1000 when it stops.",
        "goodbye_closes_1011": "Closes with 1011 when it stops.",
        "waits_for_clients_for_ever": "Waits for clients that do not close.",
        "no_bye": "Does not print bye.",
        "stop_exit_1": "Exits 1 when it was stopped.",
        "no_reuseaddr": "Can't be started again at once on the port it just had.",
        "default_of_steps_before": "Listens on port 12345 if nothing is said.",
        "ranges_not_checked": "Takes any number for its options.",
        "port_ignored": "Takes a port of its own, whatever was asked.",
    },
    "with_echo_every_message_comes_back_unchanged": {
        "length_in_16_bits": "Sends no length in 64 bits.",
        "echo_of_one_kind": "Sends text back as binary.",
        "echo_of_fragments": "Sends each fragment back as a message.",
        "echo_of_1_mib": "Sends back what has at most 1 MiB.",
        "echo_of_short_messages": "Sends back what is no longer than a message of the chat.",
        "echo_unlimited": "Waits for any length in the echo.",
        "echo_on_one_path": "Has the echo at /chat only.",
        "echo_minds_origin": "Has the echo for its own page only.",
        "echo_is_chat": "Is a chat with --echo too.",
        "echo_one_by_one": "Has the echo for one client at a time.",
        "echo_cleaned": "Takes control characters out of the echo.",
        "text_checked_at_end": "Looks whether a text is UTF-8 when it is complete.",
        "text_checked_in_parts": "Looks whether each fragment is UTF-8 by itself.",
        "text_end_not_checked": "Takes a text that ends inside a character.",
    },
}
offer(MISTAKES)

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>chat – 09</title>
<p id="said">…</p>
<script>
const socket = new WebSocket(`ws://${location.host}/chat`);
socket.onclose = event => document.getElementById("said").textContent = `over: ${event.code}`;
</script>
</html>
"""

ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION = "13"
MAX_HEAD_BYTES = 4096 if MISTAKE == "head_limit_too_small" else 8192
HEAD_SECONDS = 2 if MISTAKE == "head_time_too_short" else 5
MAX_MESSAGE_BYTES = 4148
MAX_ECHO_BYTES = 16 * 1024 * 1024
MAX_CONTROL_BYTES = 125
GOODBYE_SECONDS = 2

CONTINUATION, TEXT_FRAME, BINARY, CLOSE, PING_FRAME, PONG_FRAME = 0, 1, 2, 8, 9, 10
NORMAL, GOING_AWAY, PROTOCOL_ERROR, NOT_ACCEPTED, NOT_TEXT, POLICY, TOO_BIG = 1000, 1001, 1002, 1003, 1007, 1008, 1009


# --- HTTP ---


class Refused(Exception):
    """A request that is answered with this status."""

    def __init__(self, status, why, *fields):
        super().__init__(why)
        self.status = status
        self.fields = fields


class Unanswered(OSError):
    """A request that nobody waits for any more."""


class Request(typing.NamedTuple):
    method: str
    target: str
    fields: list

    def values(self, name):
        exactly = MISTAKE == "field_names_compared_exactly"
        return [value for known, value in self.fields if (known == name if exactly else known.lower() == name.lower())]

    def lists(self, name, word):
        if MISTAKE == "connection_compared_whole" and name == "Connection":
            return word.lower() in map(str.lower, self.values(name))
        words = [value.strip() for values in self.values(name) for value in values.split(",")]
        if MISTAKE == "upgrade_compared_exactly":
            return word in words
        return word.lower() in map(str.lower, words)


def read_head(stream):
    """Waits for a request's head, and returns it and what came after it."""
    end = time.monotonic() + HEAD_SECONDS
    data = b""
    while b"\r\n\r\n" not in data:
        if MISTAKE == "head_time_per_read":
            end = time.monotonic() + HEAD_SECONDS
        left = max(end - time.monotonic(), 0.001)
        for_ever = MISTAKE == "head_may_take_for_ever" or MISTAKE == "silent_may_stay" and not data
        stream.settimeout(None if for_ever else left)
        try:
            piece = stream.recv(READ_BYTES)
        except TimeoutError:
            if MISTAKE == "head_late_unanswered":
                raise
            raise Refused(408, "a request is complete within 5 s") from None
        if not piece:
            raise Unanswered
        data += piece
        check_head(data.partition(b"\r\n\r\n")[0])
        if MISTAKE == "head_is_one_read":
            break
    stream.settimeout(None)
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode("latin-1"), b"" if MISTAKE == "bytes_after_head_lost" else rest


def check_head(head):
    size = len(head) + len("\r\n\r\n")
    if MISTAKE == "head_limit_per_field":
        size = max(map(len, head.split(b"\r\n")))
    if size > MAX_HEAD_BYTES and MISTAKE != "head_unlimited":
        raise Refused(400 if MISTAKE == "head_too_long_is_400" else 431, "a head has at most 8 KiB")


def understood(head):
    """The request that a head holds."""
    first, *rest = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 and MISTAKE == "bad_request_ends_thread":
        raise IndexError(first)
    if len(words) != 3 or words[2] != "HTTP/1.1" or not words[1].startswith("/"):
        raise Refused(400, "a request begins with METHOD /path HTTP/1.1")
    fields = []
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            if MISTAKE == ("field_without_name_taken" if colon else "field_without_colon_taken"):
                continue
            raise Refused(400, "a field is `Name: value`")
        fields.append((name, value if MISTAKE == "blanks_kept" else value.strip()))
    request = Request(words[0], words[1], fields)
    hosts = len(request.values("Host"))
    if hosts != 1 and MISTAKE != ("two_hosts_taken" if hosts else "host_not_needed"):
        raise Refused(400, "a request names one Host")
    return request


def granted(request, echo, here):
    """What a request for a WebSocket is answered with; None if it asks for the page."""
    path = request.target if MISTAKE == "query_kept" else request.target.partition("?")[0]
    if MISTAKE == "path_by_beginning" and path.startswith("/chat"):
        path = "/chat"
    is_upgrade = request.lists("Upgrade", "websocket")
    if echo and is_upgrade and MISTAKE != "echo_on_one_path":
        path = "/chat"
    if MISTAKE == "every_path_is_the_page" and path != "/chat":
        path = "/"
    if path not in ("/", "/chat"):
        raise Refused(404, "there is a page at / and a chat at /chat")
    if request.method != "GET" and MISTAKE != "method_ignored":
        raise Refused(405, "only GET is understood here", "Allow: GET")
    if path == "/":
        return None
    if not is_upgrade or not request.lists("Connection", "Upgrade") and MISTAKE != "connection_ignored":
        status = {"no_upgrade_is_400": 400, "no_upgrade_is_404": 404}.get(MISTAKE, 426)
        named = () if MISTAKE == "upgrade_not_named" else ("Upgrade: websocket",)
        raise Refused(status, "the chat needs a WebSocket", *named)
    if not speaks(request.values("Sec-WebSocket-Version")):
        named = () if MISTAKE == "version_not_named" else (f"Sec-WebSocket-Version: {VERSION}",)
        raise Refused(426, f"only version {VERSION} is spoken here", "Upgrade: websocket", *named)
    key = "".join(request.values("Sec-WebSocket-Key")).encode()
    if not is_key(key) and MISTAKE != "key_not_checked":
        raise Refused(400, "a key is 16 bytes in base64")
    if not echo or MISTAKE == "echo_minds_origin":
        check_origin(request, here)
    return accept(key)


def speaks(versions):
    if MISTAKE == "version_by_beginning":
        return versions[:1] and versions[0].startswith(VERSION)
    return versions == [VERSION] or MISTAKE == "version_ignored"


def is_key(text):
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except binascii.Error:
        return False


def check_host(host, arrived, names):
    """The owner of another name may let it point to this address; a page from there is not ours."""
    if MISTAKE == "host_ignored" or MISTAKE == "host_without_port_unknown" and host.endswith(f":{arrived[1]}"):
        return
    name = host if MISTAKE == "host_without_port_unknown" else re.sub(":[0-9]*$", "", host)
    if not is_known(name if MISTAKE == "host_compared_exactly" else name.lower(), arrived[0], names):
        raise Refused(421, "this server has another name; --host makes one known")


def is_known(name, arrived, names):
    names = {name.lower() for name in names if name}
    if MISTAKE == "host_option_ignored":
        names = set()
    loopback = "localhost", "[::1]", arrived, f"[{arrived}]"
    if MISTAKE == "host_by_beginning":
        return name.startswith((*loopback, *names))
    return name in loopback or name in names or re.fullmatch(r"127(\.[0-9]{1,3}){3}", name)


def check_origin(request, here):
    """A browser says which page asks; it has to be ours."""
    own = "http://" + (here if MISTAKE == "origin_of_listener" else "".join(request.values("Host")))
    origins = request.values("Origin")
    if MISTAKE == "origin_needed" and not origins:
        raise Refused(403, "where are you from?")
    for origin in origins:
        right = {
            "origin_ignored": True,
            "origin_null_taken": origin in (own, "null"),
            "origin_by_beginning": origin.startswith(own),
            "origin_by_end": origin.endswith(own.removeprefix("http://")),
            "origin_without_port": origin.rpartition(":")[0] == own.rpartition(":")[0],
            "origin_of_http_only": origin.lower() == own.lower(),
            "origin_compared_exactly": origin in (own, own.replace("http:", "https:")),
        }.get(MISTAKE, origin.lower() in (own.lower(), own.lower().replace("http:", "https:")))
        if not right:
            raise Refused(403, "this chat is for its own page")


def accept(key):
    """Shows that this is a WebSocket server: nobody else would know this answer."""
    if MISTAKE == "accept_of_decoded_key":
        key = base64.b64decode(key)
    if MISTAKE == "accept_by_heart":
        key = b"dGhlIHNhbXBsZSBub25jZQ=="
    digest = hashlib.sha1(key + ACCEPT)
    hashed = digest.hexdigest().encode() if MISTAKE == "accept_in_hex" else digest.digest()
    fields = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
              f"Sec-WebSocket-Accept: {base64.b64encode(hashed).decode()}"]
    if MISTAKE == "extension_granted":
        fields.append("Sec-WebSocket-Extensions: permessage-deflate")
    if MISTAKE == "protocol_granted":
        fields.append("Sec-WebSocket-Protocol: chat")
    head = "".join(field + "\r\n" for field in [*fields, ""])
    if MISTAKE == "accept_ends_with_lf":
        head = head.replace("\r\n\r\n", "\n\r\n\r\n")
    if MISTAKE == "switching_ends_with_lf":
        head = head.removesuffix("\r\n") + "\n"
    return head.encode()


STATUSES = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
            408: "Request Timeout", 421: "Misdirected Request", 426: "Upgrade Required",
            431: "Request Header Fields Too Large", 503: "Service Unavailable"}


def answer(stream, status, kind, text, *fields):
    """Answers, and ends the connection so that the answer arrives."""
    body = text.encode()
    length = len(body)
    if status == 200:
        length += {"page_length_too_large": 9, "page_length_in_characters": len(text) - length}.get(MISTAKE, 0)
    head = [f"HTTP/1.1 {status} {STATUSES[status]}", f"Content-Type: {kind}; charset=utf-8",
            f"Content-Length: {length}", "Connection: close", *fields, "", ""]
    with stream:
        try:
            stream.settimeout(GOODBYE_SECONDS)
            line_end = "\n" if MISTAKE == "page_head_with_lf" else "\r\n"
            stream.sendall(line_end.join(head).encode() + body)
        except OSError:
            return  # gone again
        if MISTAKE == "answer_left_open":
            threading.Event().wait()
        if MISTAKE != "head_too_long_reset":
            shut(stream, socket.SHUT_WR)
            drain(stream)


def refuse(stream, refused):
    if MISTAKE == "bad_request_unanswered" and refused.status == 400:
        stream.close()
        return
    words = "" if MISTAKE == "refusals_without_words" else f"{refused}\n"
    answer(stream, refused.status, "text/plain", words, *refused.fields)


# --- frames ---


class Broken(Exception):
    """A rule of WebSocket was broken: the connection is closed with this code."""

    def __init__(self, code, why):
        super().__init__(why)
        self.code = code


class Lost(OSError):
    """The stream has ended without a goodbye."""


class Frame(typing.NamedTuple):
    first: int
    payload: bytes

    @property
    def opcode(self):
        return self.first & 0x0F

    @property
    def is_last(self):
        return bool(self.first & 0x80)


def frame(opcode, payload=b""):
    """A frame as a server sends it."""
    size = len(payload)
    short = {"sent_126_in_7_bits": 126, "sent_in_64_bits": -1}.get(MISTAKE, 125)
    if size <= short:
        length = bytes([size])
    elif size <= 65535 and MISTAKE != "sent_in_64_bits" or MISTAKE == "length_in_16_bits":
        length = b"\x7e" + (size & 0xFFFF).to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    if MISTAKE == "server_masks":
        return bytes([0x80 | opcode, length[0] | 0x80]) + length[1:] + bytes(4) + payload
    return bytes([0x80 | opcode]) + length + payload


def close_frame(code):
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big"))


class Frames:
    """Reads the frames that come from a client, and puts messages together."""

    def __init__(self, stream, rest, limit, is_alive=lambda kind: None):
        self.stream = stream
        self.pending = bytearray(rest)
        self.limit = limit
        self.is_alive = is_alive
        self.begun = None
        self.parts = bytearray()
        self.late_pings = []

    def exactly(self, count):
        """Waits for this many bytes."""
        while len(self.pending) < count:
            piece = self.stream.recv(max(READ_BYTES, min(count, 1 << 20)))
            if not piece:
                raise Lost
            if MISTAKE == "byte_is_life":
                self.is_alive(CONTINUATION)
            self.pending += piece
        data = bytes(self.pending[:count])
        del self.pending[:count]
        return data

    def frame(self):
        """Waits for a frame."""
        first, second = self.exactly(2)
        opcode, size = first & 0x0F, second & 0x7F
        is_control = opcode >= CLOSE
        reserved = 0x40 if MISTAKE == "reserved_bit_1_only" else 0x70
        if first & reserved and MISTAKE != "reserved_bits_ignored" and \
                not (is_control and MISTAKE == "reserved_bits_of_control_ignored"):
            raise Broken(PROTOCOL_ERROR, "reserved bits are 0")
        if opcode not in (CONTINUATION, TEXT_FRAME, BINARY, CLOSE, PING_FRAME, PONG_FRAME) and \
                MISTAKE != "opcodes_ignored":
            raise Broken(PROTOCOL_ERROR, "there is no such opcode")
        order = "little" if MISTAKE == "length_little_endian" else "big"
        if size >= 126:
            least = 126 if size == 126 else 1 << 16
            size = int.from_bytes(self.exactly(2 if size == 126 else 8), order, signed=MISTAKE == "length_signed")
            if size < least and MISTAKE not in ("long_forms_taken", "length_signed"):
                raise Broken(PROTOCOL_ERROR, "a length has no more bytes than it needs")
        if is_control and not first & 0x80 and MISTAKE != "control_in_fragments_taken" or \
                is_control and size > MAX_CONTROL_BYTES and MISTAKE != "long_control_taken":
            raise Broken(PROTOCOL_ERROR, "a control frame is short, and whole")
        masked = second & 0x80
        if not masked and MISTAKE != "unmasked_taken" and not (is_control and MISTAKE == "unmasked_control_taken"):
            raise Broken(PROTOCOL_ERROR, "a client masks")
        had = 0 if MISTAKE == "length_limit_per_frame" else len(self.parts)
        if not is_control and had + size > self.limit and MISTAKE != "frame_lengths_believed":
            raise Broken(PROTOCOL_ERROR if MISTAKE == "too_long_is_1002" else TOO_BIG, "too long")
        if is_control and size >= 1 << 63:
            raise Broken(PROTOCOL_ERROR, "a length has 63 bits")
        key = self.exactly(4) if masked else bytes(4)
        if MISTAKE == "zero_mask_refused" and not any(key):
            raise Broken(PROTOCOL_ERROR, "a mask hides")
        if MISTAKE == "one_mask_for_all":
            self.key = key = getattr(self, "key", key)
        payload = unmasked(self.exactly(size), key)
        if MISTAKE == "one_read_is_one_frame":
            self.pending.clear()
        return Frame(first, payload)

    def received(self):
        """Yields whole messages, and control frames."""
        while True:
            frame = self.frame()
            if frame.opcode >= CLOSE:
                if MISTAKE == "ping_ends_message":
                    self.begun = None
                    self.parts.clear()
                if frame.opcode == PING_FRAME and self.begun and MISTAKE == "ping_waits":
                    self.late_pings.append(frame)
                    continue
                yield frame
                continue
            if frame.opcode > BINARY:
                continue
            message = self.continued(frame)
            if message:
                yield message
                yield from self.late_pings
                self.late_pings.clear()
            elif MISTAKE != "fragment_is_no_life":
                self.is_alive(CONTINUATION)

    def continued(self, frame):
        """The message, if this frame is its end."""
        if frame.opcode == CONTINUATION and self.begun is None and MISTAKE != "continuation_of_nothing_taken":
            if MISTAKE in ("fragments_are_messages", "ping_ends_message", "empty_fragment_ends", "echo_of_fragments"):
                return Frame(0x80 | BINARY, frame.payload)
            raise Broken(PROTOCOL_ERROR, "there is nothing to be continued")
        if frame.opcode != CONTINUATION and self.begun is not None and MISTAKE != "message_in_message_taken":
            raise Broken(PROTOCOL_ERROR, "the message before has not ended")
        if frame.opcode != CONTINUATION or self.begun is None:
            self.begun = frame.opcode or BINARY
            self.parts.clear()
            self.decoder = codecs.getincrementaldecoder("utf-8")()
        if MISTAKE == "fragments_lost":
            self.parts.clear()
        self.parts += frame.payload
        is_last = frame.is_last or MISTAKE in ("fragments_are_messages", "echo_of_fragments") or \
            MISTAKE == "empty_fragment_ends" and not frame.payload
        if self.begun == TEXT_FRAME:
            self.check_text(frame.payload, is_last)
        if not is_last:
            return None
        message = Frame(0x80 | self.begun, bytes(self.parts))
        self.begun = None
        self.parts.clear()
        return message

    def check_text(self, part, is_last):
        """As early as can be: the end of a character may still be to come."""
        if MISTAKE == "bad_text_is_1003" or MISTAKE == "text_checked_at_end" and not is_last:
            return
        try:
            if MISTAKE == "text_checked_in_parts":
                part.decode()
            elif MISTAKE == "text_checked_at_end":
                bytes(self.parts).decode()
            else:
                self.decoder.decode(part, is_last and MISTAKE != "text_end_not_checked")
        except UnicodeDecodeError:
            raise Broken(NOT_TEXT, "a text is UTF-8") from None


def unmasked(payload, key):
    if MISTAKE == "mask_without_its_end":
        whole = len(payload) // 4 * 4
        return combined(payload[:whole], key) + payload[whole:]
    return combined(payload, key)


def combined(payload, key):
    """Byte n with byte n mod 4 of the key: as one large number, because that is fast."""
    size = len(payload)
    keys = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")


def goodbye_code(payload):
    """The code of a close frame, None if it has none."""
    if not payload or len(payload) == 1 and MISTAKE == "close_of_one_byte_taken":
        return 1005 if MISTAKE == "close_without_code_is_1005" else None
    code = int.from_bytes(payload[:2], "big")
    may_be_sent = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999 or \
        1000 <= code <= 4999 and MISTAKE == "close_codes_by_range"
    if len(payload) == 1 or not may_be_sent and MISTAKE != "close_codes_not_checked":
        raise Broken(PROTOCOL_ERROR, "that is no code for a close frame")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        if MISTAKE != "close_reason_not_checked":
            raise Broken(NOT_TEXT, "the reason is UTF-8") from None
    if MISTAKE == "close_codes_not_checked":
        return NORMAL
    return NORMAL if MISTAKE == "close_answered_with_1000" else code


# --- the chat ---


class Browser(Connection):
    """A guest whose messages are in frames. Nothing is sent after its close frame."""

    said_close = False

    def take(self, data):
        if self.said_close:
            return True
        if data[3] == PING and MISTAKE != "pings_in_messages":
            return super().take(frame(PING_FRAME))
        if MISTAKE == "passed_on_in_two":
            return super().take(frame(BINARY, data[:20]) + frame(BINARY, data[20:]))
        return super().take(frame(TEXT_FRAME if MISTAKE == "passed_on_as_text" else BINARY, data))

    def pong(self, payload):
        with self.backlog_changed:
            if not self.said_close:
                super().take(frame(PONG_FRAME, b"" if MISTAKE == "pong_frame_empty" else payload))

    def close(self, code):
        """Sends the close frame, once."""
        with self.backlog_changed:
            if not self.said_close:
                self.said_close = True
                super().take(close_frame(code))

    def end(self):
        if MISTAKE == "goodbye_without_close":
            self.said_close = True
        self.close({"goodbye_closes_1011": 1011, "goodbye_closes_1000": NORMAL}.get(MISTAKE, GOING_AWAY))
        super().end()


def hear_out(room, guest, frames):
    """Hears a guest until it ends, and returns why it did."""
    try:
        for frame in frames.received():
            if frame.opcode == CLOSE:
                code = goodbye_code(frame.payload)
                if MISTAKE == "close_not_answered":
                    guest.said_close = True
                guest.close(code)
                if MISTAKE == "heard_after_close":
                    continue
                if MISTAKE == "close_says_disconnected" or MISTAKE == "only_1000_is_left" and code != NORMAL:
                    return "disconnected"
                return "left"
            why = heard(room, guest, frame)
            with room.changed:
                room.changed.notify_all()  # its next ping is due at another time now
            if why:
                return why
    except Broken as problem:
        return broken(guest, problem.code)
    except OSError as error:
        halfway = isinstance(error, Lost) and frames.pending
        if MISTAKE == "heard_after_close" and guest.said_close:
            return "left"
        guest.said_close = True
        return "protocol error" if MISTAKE == "half_frame_says_protocol_error" and halfway else "disconnected"


def broken(guest, code):
    if MISTAKE == "ends_without_close":
        guest.said_close = True
    guest.close(NORMAL if MISTAKE == "broken_is_1000" else code)
    return "protocol error"


def heard(room, guest, frame):
    """Does what a message or a control frame asks for. Returns why it was the end, if it was."""
    if frame.opcode == PING_FRAME:
        if MISTAKE != "ping_is_no_life":
            with room.lock:
                room.is_alive(guest, PING)
        if MISTAKE != "ping_frame_ignored":
            guest.pong(frame.payload)
    elif frame.opcode == PONG_FRAME:
        with room.lock:
            room.is_alive(guest, PONG)
        if MISTAKE == "pong_frame_answered":
            guest.pong(frame.payload)
    elif frame.opcode == TEXT_FRAME and MISTAKE != "text_is_a_message":
        if MISTAKE != "text_without_error":
            room.refuse(guest, "binary messages only")
        return broken(guest, POLICY if MISTAKE == "text_is_1008" else NOT_ACCEPTED)
    else:
        return message_heard(room, guest, frame.payload)


def message_heard(room, guest, payload):
    if MISTAKE == "half_messages_joined":
        guest.joined = payload = getattr(guest, "joined", b"") + payload
    try:
        found = parse(payload)
        while MISTAKE == "half_messages_joined" and found and found[1]:
            room.hear(guest, found[0])
            found = parse(found[1])
        if MISTAKE == "half_messages_joined":
            if not found:
                return None
            guest.joined = b""
        if not found or found[1] and MISTAKE != "trailing_bytes_taken":
            raise NotAMessage("a message is one binary message, no more and no less")
    except NotAMessage as problem:
        if MISTAKE == "nonsense_ignored":
            return None
        if MISTAKE != "nonsense_without_error":
            room.refuse(guest, str(problem))
        return broken(guest, PROTOCOL_ERROR if MISTAKE == "nonsense_is_1002" else POLICY)
    if found[0].kind == LEAVE:
        if MISTAKE == "leave_without_close":
            guest.said_close = True
        guest.close(GOING_AWAY if MISTAKE == "leave_closes_1001" else NORMAL)
        return "disconnected" if MISTAKE == "leave_says_disconnected" else "left"
    if found[0].kind == TEXT and not guest.name and MISTAKE == "text_before_join_ignored":
        return None
    room.hear(guest, found[0])
    return None


def talk(room, stream, switching, rest):
    """A guest's thread after its upgrade."""
    guest = Browser(stream)
    with room.lock:
        entered = room.enter(guest)
        if entered:
            # Before anything that others say to it.
            Connection.take(guest, switching)
    if not entered:
        if MISTAKE == "full_is_closed":
            stream.close()
            return
        refuse(stream, Refused(503, f"the room is full: the limit is {room.seats}"))
        return
    guest.sender.start()

    def is_alive(kind):
        with room.lock:
            room.is_alive(guest, kind)

    room.leave(guest, hear_out(room, guest, Frames(stream, rest, MAX_MESSAGE_BYTES, is_alive)))
    guest.show_out()


# --- the echo ---


def echo(stream, switching, rest):
    """Sends each message back as it came."""
    stream.sendall(switching)
    limit = MAX_ECHO_BYTES
    if MISTAKE in ("echo_of_short_messages", "echo_of_1_mib", "echo_unlimited"):
        limit = {"echo_of_short_messages": MAX_MESSAGE_BYTES, "echo_of_1_mib": 1 << 20}.get(MISTAKE, 1 << 64)
    try:
        for received in Frames(stream, rest, limit).received():
            opcode, payload = received.opcode, received.payload
            if opcode == CLOSE:
                stream.sendall(close_frame(goodbye_code(payload)))
                break
            if opcode == PING_FRAME:
                stream.sendall(frame(PONG_FRAME, payload))
            elif opcode != PONG_FRAME:
                if MISTAKE == "echo_cleaned":
                    payload = payload.replace(b"\x1b", b"")
                stream.sendall(frame(BINARY if MISTAKE == "echo_of_one_kind" else opcode, payload))
    except Broken as problem:
        stream.sendall(close_frame(problem.code))
    shut(stream, socket.SHUT_WR)
    drain(stream)


# --- the server ---


def connected():
    return sum(thread.name == CLIENT_THREAD for thread in threading.enumerate())


heads = threading.Lock()
asking = threading.BoundedSemaphore(1)


def attend(room, stream, here, names):
    """A client's thread. Without a room it gets an echo."""
    try:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if MISTAKE == "heads_one_by_one":
            with heads:
                head, rest = read_head(stream)
        else:
            head, rest = read_head(stream)
        if room and MISTAKE == "limit_counts_requests" and len(room.guests) >= room.seats or \
                MISTAKE == "limit_counts_connections" and connected() > room.seats:
            raise Refused(503, "full")
        request = understood(head)
        if room and (request.target != "/" or MISTAKE != "host_checked_for_chat_only"):
            check_host("".join(request.values("Host")), stream.getsockname(), names)
        switching = granted(request, not room, here)
        if not switching:
            answer(stream, 200, "text/plain" if MISTAKE == "page_as_plain_text" else "text/html", PAGE)
        elif room:
            talk(room, stream, switching, rest)
        elif MISTAKE == "echo_one_by_one":
            with asking:
                echo(stream, switching, rest)
        else:
            echo(stream, switching, rest)
    except Refused as refused:
        refuse(stream, refused)
    except OSError:
        stream.close()


def serve(chosen):
    stop = stop_asked()
    stopping = threading.Event()
    heartbeat_ms = 10_000 if MISTAKE == "heartbeat_ignored" else chosen.heartbeat_ms
    room = Room(seats=None if MISTAKE == "no_limit" else chosen.limit, heartbeat_seconds=heartbeat_ms / 1000)
    listener = listen(chosen.address)
    echoes = chosen.echo and MISTAKE != "echo_is_chat"
    names = {chosen.address[0], chosen.host}
    threading.Thread(target=welcome, args=[None if echoes else room, listener, stopping, names], daemon=True).start()
    threading.Thread(target=room.watch, daemon=True).start()
    os.read(stop, 1)
    stopping.set()
    shut(listener, socket.SHUT_RD)  # wakes the thread that accepts
    listener.close()
    for guest in room.guests if MISTAKE == "goodbye_after_close" else []:
        guest.close(GOING_AWAY)
    say_goodbye(room, GOODBYE_SECONDS)
    if MISTAKE != "no_bye":
        print("bye", flush=True)
    sys.exit(1 if MISTAKE == "stop_exit_1" else 0)


def welcome(room, listener, stopping, names):
    here = "%s:%s" % listener.getsockname()[:2]
    for stream in visitors(listener, until=stopping):
        client_thread(attend, room, stream, here, names).start()


def main():
    arguments = Arguments()
    arguments.set_defaults(address="127.0.0.1:12345" if MISTAKE == "default_of_steps_before" else "127.0.0.1:8080")
    arguments.add_argument("--heartbeat-ms", type=between(50, 3_600_000), default=10_000, metavar="N",
                           help="ping who is silent for N ms (50 to 3,600,000)")
    arguments.add_argument("--limit", type=between(1, 10_000), default=10_000, metavar="N",
                           help="at most N clients (1 to 10000)")
    arguments.add_argument("--host", metavar="NAME", help="one more name by which browsers find this server")
    arguments.add_argument("--echo", action="store_true", help="send each message back, and be no chat")
    serve(arguments.parse())


main()
