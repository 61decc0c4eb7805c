-- Teaches Wireshark the messages of this course, on TCP and UDP port 12345.
--
--   tshark -i lo -f 'port 12345' -X lua_script:lessons/wireshark/socket_chat.lua
--
-- A dissector is a small program that gives names to the bytes of a packet.
-- Wireshark hands it every payload on the port, and shows what it adds to the
-- tree. Format: lessons/PROTOCOL.md, section 3.

local HEADER_BYTES = 20
local MAX_SENDER_BYTES = 32
local MAX_BODY_BYTES = 4096
local MAX_BODY_BYTES_UDP = 1148 -- a datagram has at most 1200 bytes
local VERSION = 1
local START = "CH" .. string.char(VERSION) -- so begins every message
local UDP = 3 -- as Wireshark numbers what carries the ports; TCP is 2

local KINDS = {
  "JOIN", "TEXT", "LEAVE", "ERROR", "PING", "PONG", "WELCOME", "LOGIN", "CHALLENGE",
}

local chat = Proto("socket_chat", "Socket Chat")

-- A field is a piece of the message with a type, a title for the tree, and a
-- name for filters: `socket_chat.kind == 2` finds every TEXT. Numbers are
-- read in network byte order.
local field = {
  magic = ProtoField.string("socket_chat.magic", "Magic"),
  version = ProtoField.uint8("socket_chat.version", "Version"),
  kind = ProtoField.uint8("socket_chat.kind", "Kind", base.DEC, KINDS),
  sequence = ProtoField.uint32("socket_chat.sequence", "Sequence"),
  timestamp = ProtoField.uint64("socket_chat.timestamp", "Timestamp (ms)"),
  time = ProtoField.absolute_time("socket_chat.time", "Time", base.UTC),
  sender_length = ProtoField.uint16("socket_chat.sender_length", "Sender length"),
  body_length = ProtoField.uint16("socket_chat.body_length", "Body length"),
  sender = ProtoField.string("socket_chat.sender", "Sender"),
  body = ProtoField.string("socket_chat.body", "Body"),
  rest = ProtoField.bytes("socket_chat.rest", "Part of no message"),
}
chat.fields = field

-- What can be wrong: Wireshark calls it expert info, and marks it in red. It
-- has a name for filters too, such as `socket_chat.bad_length`; all of it is
-- found by `socket_chat && _ws.expert.severity == error`.
local function mistake(name, title)
  return ProtoExpert.new("socket_chat." .. name, title, expert.group.PROTOCOL, expert.severity.ERROR)
end
local wrong = {
  magic = mistake("wrong_magic", "Wrong magic"),
  version = mistake("wrong_version", "Wrong version"),
  kind = mistake("unknown_kind", "Unknown kind"),
  length = mistake("bad_length", "Bad length"),
  utf8 = mistake("not_utf8", "Not UTF-8"),
}
chat.experts = wrong

-- Makes a text fit for a line of the list: not too long, and without what a
-- terminal would obey, control characters and overrides of the direction.
local function one_line(text)
  text = text:gsub("[^\32-\126\128-\255]", "?"):gsub("\194[\128-\159]", "?")
  text = text:gsub("\226\128[\170-\174]", "?"):gsub("\226\129[\166-\169]", "?")
  if #text > 80 then -- and no half character at the end
    text = text:sub(1, 80):gsub("[\192-\255][\128-\191]*$", "") .. "..."
  end
  return text
end

-- Shows one message. `bytes` holds it from its first byte to its last.
local function show(bytes, packet, tree)
  local size = bytes:len()
  local branch = tree:add(chat, bytes())
  local summary, trouble = "not a message", ""

  local function complain(item, what, why)
    item:add_proto_expert_info(what, why)
    trouble = trouble .. " [" .. why .. "]"
  end

  local function text(which, at, length)
    local item = branch:add_packet_field(which, bytes(at, length), ENC_UTF_8)
    local raw, decoded = bytes(at, length):raw(), bytes(at, length):string(ENC_UTF_8)
    if raw:sub(1, #decoded) ~= decoded then -- bad bytes became U+FFFD
      complain(item, wrong.utf8, "not UTF-8")
    end
    return one_line(decoded)
  end

  -- Ends the branch: what stands at `at` and behind it belongs to no message.
  local function finish(at)
    if at < size then
      branch:add(field.rest, bytes(at))
    end
    local line = summary .. trouble
    branch:append_text(", " .. line)
    -- One segment may bring several messages: they share a line of the list.
    if tostring(packet.cols.protocol) == "CHAT" then
      packet.cols.info:append("; " .. line)
    else
      packet.cols.protocol = "CHAT"
      packet.cols.info = line
    end
  end

  if size < 2 or bytes(0, 2):raw() ~= START:sub(1, 2) then
    complain(branch, wrong.magic, 'does not begin with "CH"')
    return finish(0)
  end
  branch:add(field.magic, bytes(0, 2))
  if size > 2 then
    local item = branch:add(field.version, bytes(2, 1))
    local version = bytes(2, 1):uint()
    if version ~= VERSION then -- another version may have another header
      complain(item, wrong.version, "version " .. version .. ", not " .. VERSION)
      return finish(3)
    end
  end
  if size < HEADER_BYTES then
    complain(branch, wrong.length, size .. " bytes, but the header has " .. HEADER_BYTES)
    return finish(2)
  end

  local kind = bytes(3, 1):uint()
  local item = branch:add(field.kind, bytes(3, 1))
  summary = KINDS[kind] or "kind " .. kind
  if not KINDS[kind] then
    complain(item, wrong.kind, "unknown kind")
  end

  local sequence = bytes(4, 4):uint()
  branch:add(field.sequence, bytes(4, 4))
  if sequence > 0 then
    summary = summary .. " " .. sequence
  end

  -- 64 bits are too many for a number of Lua; Wireshark's UInt64 can divide.
  local ms = bytes(8, 8):uint64()
  local time = NSTime.new((ms / 1000):tonumber(), (ms % 1000):tonumber() * 1000000)
  branch:add(field.timestamp, bytes(8, 8))
  branch:add(field.time, bytes(8, 8), time):set_generated()

  local sender_length, body_length = bytes(16, 2):uint(), bytes(18, 2):uint()
  item = branch:add(field.sender_length, bytes(16, 2))
  if sender_length > MAX_SENDER_BYTES then
    complain(item, wrong.length, "sender of " .. sender_length .. " bytes, the limit is " .. MAX_SENDER_BYTES)
  end
  item = branch:add(field.body_length, bytes(18, 2))
  local max_body = packet.port_type == UDP and MAX_BODY_BYTES_UDP or MAX_BODY_BYTES
  if body_length > max_body then
    complain(item, wrong.length, "body of " .. body_length .. " bytes, the limit is " .. max_body)
  end
  local announced = HEADER_BYTES + sender_length + body_length
  local sent = bytes:reported_len() -- more than `size` if the capture cut it
  if announced ~= sent then
    complain(branch, wrong.length, announced .. " bytes announced, " .. sent .. " here")
  end

  -- Never trust a length: there may be less here than it says.
  sender_length = math.min(sender_length, size - HEADER_BYTES)
  body_length = math.min(body_length, size - HEADER_BYTES - sender_length)
  local sender = text(field.sender, HEADER_BYTES, sender_length)
  local body = text(field.body, HEADER_BYTES + sender_length, body_length)
  if sender ~= "" then
    summary = summary .. " " .. sender
  end
  if body ~= "" then
    summary = summary .. ": " .. body
  end
  finish(HEADER_BYTES + sender_length + body_length)
end

-- How many bytes has the message that begins at `at`? 0 means that this can't
-- be told yet. What is no message can't be put together, for nobody knows
-- where it ends: it is shown as far as it is here.
local function message_length(bytes, packet, at)
  local here = bytes:reported_len() - at
  if packet.can_desegment == 0 then -- switched off, or the capture cut packets
    return here
  end
  local start = math.min(here, #START)
  if bytes(at, start):raw() ~= START:sub(1, start) then
    return here
  end
  if here < HEADER_BYTES then
    return 0
  end
  local sender_length, body_length = bytes(at + 16, 2):uint(), bytes(at + 18, 2):uint()
  if sender_length > MAX_SENDER_BYTES or body_length > MAX_BODY_BYTES then
    return here
  end
  return HEADER_BYTES + sender_length + body_length
end

-- Here Wireshark comes in, with the payload of one packet. A datagram is one
-- message. But TCP is a stream: a segment may hold half a message, or three.
-- `dissect_tcp_pdus` does what your server must do: it keeps bytes until
-- `message_length` bytes have come, and then calls `show`. (It asks from the
-- first byte on, so what is no message is told at once.)
function chat.dissector(bytes, packet, tree)
  if packet.port_type == UDP then
    show(bytes, packet, tree)
  else
    dissect_tcp_pdus(bytes, tree, 1, message_length, show)
  end
end

-- The port: Edit > Preferences > Protocols > SOCKET_CHAT; or, for one capture,
-- Analyze > Decode As... In tshark: -d tcp.port==5000,socket_chat
chat.prefs.port = Pref.uint("Port", 12345, "The TCP and UDP port of the chat")
local port
local function watch_port()
  for _, transport in ipairs({ "tcp.port", "udp.port" }) do
    local ports = DissectorTable.get(transport)
    if port then
      ports:remove(port, chat)
    end
    ports:add(chat.prefs.port, chat)
  end
  port = chat.prefs.port
end
chat.prefs_changed = watch_port
watch_port()
