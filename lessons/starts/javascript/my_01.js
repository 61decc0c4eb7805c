// Step 01: a server that says hello. Contract: lessons/PROTOCOL.md, section 1.
"use strict";
const net = require("node:net");

const USAGE = `usage: my_01.js [ADDRESS]
  ADDRESS  HOST:PORT to listen on, 127.0.0.1:12345 if not given`;

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
for (const arg of args) {
  if (arg.startsWith("-")) refuse(`unknown option ${arg}`);
}
if (args.length > 1) refuse(`unexpected argument ${args[1]}`);

listen(args[0] ?? "127.0.0.1:12345", (stream) => {
  // This client may be gone already. An error without a listener would end the server.
  stream.on("error", (error) => console.error(`a client was lost: ${error.message}`));
  // end() closes only our half: destroy() closes the rest when the greeting is on its way.
  stream.end("hello from 01_bind_listen\n", () => stream.destroy());
});
