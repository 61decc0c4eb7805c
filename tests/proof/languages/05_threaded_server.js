// The room of 05 in JavaScript: one thread, and a socket keeps what its guest has not taken yet.
"use strict";
const net = require("node:net");

const MAX_LINE_BYTES = 4096;
const MAX_BACKLOG_BYTES = 1 << 20;
const CLOSE_MILLISECONDS = 30_000;
const REFUSAL_MILLISECONDS = 1000;
const USAGE = "usage: 05_threaded_server [ADDRESS] [--limit N]";
const UNWANTED = /[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;
const LF = 10;
const CR = 13;

const guests = new Set();
let names = 0;

function tell(hearers, text) {
  const slow = [];
  for (const guest of hearers) {
    guest.socket.write(text + "\n");
    if (guest.socket.writableLength > MAX_BACKLOG_BYTES) slow.push(guest);
  }
  for (const guest of slow) {
    guest.socket.destroy();
    leave(guest, " (too slow)");
  }
}

const others = (guest) => [...guests].filter((other) => other !== guest);
const here = () => ` (${guests.size} here)`;

function welcome(socket, limit) {
  socket.setNoDelay(true);
  if (guests.size >= limit) return turnAway(socket, limit);
  const guest = { socket, name: `guest-${++names}`, pending: Buffer.alloc(0) };
  guests.add(guest);
  tell([guest], `* welcome, ${guest.name}${here()}`);
  tell(others(guest), `* ${guest.name} joined${here()}`);
  socket.on("data", (piece) => read(guest, piece));
  socket.on("error", () => leave(guest, ""));
  socket.on("close", () => leave(guest, ""));
  socket.on("end", () => {
    hear(guest, guest.pending);
    leave(guest, "");
    socket.end();
    setTimeout(() => socket.destroy(), CLOSE_MILLISECONDS).unref();
  });
}

function read(guest, piece) {
  let start = 0;
  for (let end = piece.indexOf(LF); end >= 0; end = piece.indexOf(LF, start)) {
    hear(guest, Buffer.concat([guest.pending, piece.subarray(start, end)]));
    guest.pending = Buffer.alloc(0);
    start = end + 1;
  }
  // Of a line that is too long: one byte over the limit, and perhaps a CR.
  guest.pending = Buffer.concat([guest.pending, piece.subarray(start)]).subarray(0, MAX_LINE_BYTES + 2);
}

function hear(guest, bytes) {
  const line = bytes.at(-1) === CR ? bytes.subarray(0, -1) : bytes;
  const text = line.toString("utf8").replace(UNWANTED, "");
  if (!guests.has(guest)) return;
  if (line.length > MAX_LINE_BYTES) tell([guest], `! line too long: the limit is ${MAX_LINE_BYTES} bytes`);
  else if (text) tell(others(guest), `${guest.name}: ${text}`);
}

function leave(guest, why) {
  if (guests.delete(guest)) tell([...guests], `* ${guest.name} left${why}${here()}`);
}

function turnAway(socket, limit) {
  socket.on("error", () => {});
  socket.end(`! the room is full: the limit is ${limit}\n`);
  // To close on unread data would be a reset, and the line would be lost.
  socket.resume();
  setTimeout(() => socket.destroy(), REFUSAL_MILLISECONDS);
}

function exit(status, line) {
  console.error(status === 2 ? `${line}\n${USAGE}` : line);
  process.exit(status);
}

function main(words) {
  let address;
  let limit = 10000;
  while (words.length > 0) {
    const word = words.shift();
    if (word === "-h" || word === "--help") return console.log(USAGE);
    if (word === "--limit") {
      const number = words.shift() ?? "nothing";
      limit = /^[0-9]+$/.test(number) ? Number(number) : 0;
      if (limit < 1 || limit > 10000) exit(2, `--limit must be a number from 1 to 10000, not ${number}`);
    } else if (word.startsWith("-") || address !== undefined) exit(2, `unknown argument ${word}`);
    else address = word;
  }
  address ??= "127.0.0.1:12345";
  const parts = /^(?:\[(.+)\]|([^:[\]]+)):([0-9]{1,5})$/.exec(address);
  if (!parts || Number(parts[3]) > 65535) exit(2, `an address is HOST:PORT, not ${address}`);
  const server = net.createServer({ allowHalfOpen: true }, (socket) => welcome(socket, limit));
  server.on("error", (error) =>
    exit(1, `cannot listen on ${address}: ${error.code}; try another port, such as 127.0.0.1:0`));
  server.listen({ host: parts[1] ?? parts[2], port: Number(parts[3]), backlog: 4096 }, () => {
    const bound = server.address();
    const host = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
    console.log(`listening on ${host}:${bound.port}`);
  });
}

main(process.argv.slice(2));
