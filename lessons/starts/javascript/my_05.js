// Step 05: a chat room for many, to be finished.
// Contract: lessons/PROTOCOL.md, section 2, "05, the room".
"use strict";
const net = require("node:net");

const USAGE = `usage: my_05.js [ADDRESS] [--limit N]
  ADDRESS    HOST:PORT to listen on, 127.0.0.1:12345 if not given
  --limit N  the most guests at once, 1 to 10000, 10000 if not given`;

// What can't be understood: a line that names it, the usage, and exit status 2.
function refuse(line) {
  console.error(`${line}\n\n${USAGE}`);
  process.exit(2);
}

// HOST:PORT in two. The port follows the last colon, because an IPv6 host has colons, too.
function splitAddress(address) {
  const parts = /^(.+):(\d{1,5})$/.exec(address);
  if (!parts || Number(parts[2]) > 65535) {
    refuse(`an address is HOST:PORT, such as 127.0.0.1:12345, not ${address}`);
  }
  return { host: parts[1].replace(/^\[(.*)\]$/, "$1"), port: Number(parts[2]) };
}

// Listens, prints where, and calls `arrived` with each connection.
function listen(address, arrived) {
  const server = net.createServer(arrived);
  server.on("error", (error) => {
    console.error(
      `cannot listen on ${address}: ${error.code}. Who has the port: ss -tlnp. Or choose another port.`,
    );
    process.exit(1);
  });
  server.listen(splitAddress(address), () => {
    const { address: host, port } = server.address();
    console.log(`listening on ${host.includes(":") ? `[${host}]` : host}:${port}`);
  });
}

const args = process.argv.slice(2);
if (args.includes("-h") || args.includes("--help")) {
  console.log(USAGE);
  process.exit(0);
}
let address;
let limit = 10000;
while (args.length > 0) {
  const arg = args.shift();
  if (arg === "--limit") {
    const number = args.shift() ?? refuse("the number after --limit is missing");
    limit = Number(number);
    if (!/^\d{1,5}$/.test(number) || limit < 1 || limit > 10000) {
      refuse(`--limit must be a number from 1 to 10000, not ${number}`);
    }
  } else if (arg.startsWith("-")) {
    refuse(`unknown option ${arg}`);
  } else if (address !== undefined) {
    refuse(`unexpected argument ${arg}`);
  } else {
    address = arg;
  }
}

// The guests by number. Node runs one callback after the other, so there is nothing to lock.
const guests = new Map();
let lastNumber = 0;

listen(address ?? "127.0.0.1:12345", (stream) => {
  stream.on("error", () => {}); // After it comes "close".
  if (guests.size >= limit) {
    // TODO 1. Tell it that the room is full. It uses up no number.
    stream.destroy();
    return;
  }
  lastNumber += 1;
  const number = lastNumber;
  guests.set(number, stream);
  // TODO 2. Greet it, and tell the others.

  stream.on("data", (bytes) => {
    // TODO 3. Collect the bytes up to LF, drop a CR before it, and send `guest-N: the line` to
    //         everybody else, cleaned of what may not pass. Bytes first, then text: a character
    //         may arrive in two pieces. A line of over 4096 bytes is answered once.
    // TODO 4. A guest that does not read: its writableLength grows. Over 1 MiB it is out.
    void bytes;
  });
  stream.on("close", () => {
    guests.delete(number);
    // TODO 5. Tell the others.
  });
});
