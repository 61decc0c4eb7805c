// As much of WebSocket as a test needs, on both sides: whole binary messages. It knows nothing of the chat.
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import { once } from "node:events";

const accept = (key) => createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");

// One end of a connection. What comes is in `messages`, and its close code in `closed`. `received` is called with each.
class End {
  messages = [];
  closed = null;
  received = () => {};
  constructor(socket, head, masks) {
    Object.assign(this, { socket, masks, bytes: head });
    socket.on("data", (more) => { this.bytes = Buffer.concat([this.bytes, more]); this.#read(); });
    socket.on("close", () => { this.closed ??= 1006; });
    socket.on("error", () => {});
    this.#read();
  }

  #read() {
    for (;;) {
      let [at, length] = [2, this.bytes[1] & 127];
      if (this.bytes.length < 14 && this.bytes.length < 2 + length) return;
      if (length === 126) [at, length] = [4, this.bytes.readUInt16BE(2)];
      const mask = this.masks ? null : this.bytes.subarray(at, at += 4);
      if (this.bytes.length < at + length) return;
      const [opcode, body] = [this.bytes[0] & 15, Buffer.from(this.bytes.subarray(at, at + length))];
      this.bytes = this.bytes.subarray(at + length);
      if (mask) for (let i = 0; i < length; i++) body[i] ^= mask[i % 4];
      if (opcode < 3) {
        this.messages.push(body);
        this.received(body);
      }
      if (opcode === 9) this.send(body, 10);
      else if (opcode === 8) {
        this.closed = length ? body.readUInt16BE(0) : 1005;
        this.send(body, 8);
        this.socket.end();
      }
    }
  }

  send(body, opcode = 2) {
    const head = body.length < 126 ? Buffer.from([0x80 | opcode, body.length]) : Buffer.from([0x80 | opcode, 126, body.length >> 8, body.length & 255]);
    const mask = this.masks ? randomBytes(4) : Buffer.alloc(0);
    if (this.masks) head[1] |= 0x80;
    this.socket.write(Buffer.concat([head, mask, this.masks ? body.map((byte, i) => byte ^ mask[i % 4]) : body]));
  }
}

// A client, as a program without a browser would be one: it sends no Origin.
export async function connect(port) {
  const key = randomBytes(16).toString("base64");
  const request = http.get({ port, host: "127.0.0.1", path: "/chat", headers: {
    connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": 13, "sec-websocket-key": key,
  } });
  const [answer, socket, head] = await once(request, "upgrade");
  if (answer.headers["sec-websocket-accept"] !== accept(key)) throw new Error("another Sec-WebSocket-Accept was expected");
  return new End(socket, head, true);
}

// A server that has the page, with its headers, and plays what `welcome` wants. Resolves to its port and its end.
export async function serve(page, headers, welcome) {
  const server = http.createServer((_, response) => response.writeHead(200, headers).end(page));
  server.on("upgrade", (request, socket, head) => {
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept(request.headers["sec-websocket-key"])}\r\n\r\n`);
    welcome(new End(socket, head, false));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { port: server.address().port, close: () => server.close() };
}
