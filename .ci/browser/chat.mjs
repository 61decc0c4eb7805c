// Chats with the page, in Chromium: two people in pages of their own, and "terminals", which speak the same messages
// without a browser. First with the server of step 09, then with servers that are not ours, then with that of step 10.
// Run by .ci/browser/run. Nothing here sleeps: each step waits for what must come.
import { execFileSync, spawn } from "node:child_process";
import { pbkdf2Sync, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { connect, serve } from "./websocket.mjs";

const { chromium } = createRequire(`${process.env.MODULES}/`)("playwright-core");
const PATIENCE_MS = 30_000 * (process.env.LAB_PATIENCE ?? 1); // only what fails has to wait so long
const [, JOIN, TEXT, LEAVE, ERROR, PING, PONG, WELCOME, LOGIN] = Array(10).keys();

// --- the message, written down once more: a test that shared the page's code would share its mistakes ---

function message(kind, sender = "", body = "", { sequence = 0, time = BigInt(Date.now()) } = {}) {
  const [from, text] = [Buffer.from(sender), Buffer.from(body)];
  const header = Buffer.from([0x43, 0x48, 1, kind, ...Array(16).fill(0)]);
  header.writeUInt32BE(sequence, 4);
  header.writeBigUInt64BE(time, 8);
  header.writeUInt16BE(from.length, 16);
  header.writeUInt16BE(text.length, 18);
  return Buffer.concat([header, from, text]);
}

function read(bytes) {
  const body = 20 + bytes.readUInt16BE(16);
  return { kind: bytes[3], sequence: bytes.readUInt32BE(4), sender: String(bytes.subarray(20, body)), body: String(bytes.subarray(body)) };
}

// --- what stands around the page ---

async function until(what, condition) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`waited ${PATIENCE_MS / 1000} s for ${what}`);
    await pause(10);
  }
}

function equal(got, expected, what) {
  [got, expected] = [JSON.stringify(got), JSON.stringify(expected)];
  if (got !== expected) throw new Error(`${what}\n  expected ${expected}\n  got      ${got}`);
}

// One of our programs: `said` are the lines on its standard output, `warned` those on standard error.
class Program {
  static all = [];
  said = [];
  warned = [];
  constructor(name, ...args) {
    this.name = name;
    this.child = spawn(`${process.env.EXAMPLES}/${name}`, args, { stdio: ["pipe", "pipe", "pipe"] });
    Program.all.push(this);
    createInterface(this.child.stdout).on("line", (line) => this.said.push(line));
    createInterface(this.child.stderr).on("line", (line) => this.warned.push(line));
    this.ended = once(this.child, "close"); // it has ended, and all that it said is read
    this.ended.then(() => { this.over = true; });
  }
  // Waits for a line, and returns what stands in it behind these words.
  says(words) {
    return until(`"${words}" from ${this.name}`, () => {
      const line = this.said.find((one) => one.includes(words));
      if (line === undefined && this.over) throw new Error(`${this.name} has ended before it said "${words}"`);
      return line && [line.slice(line.indexOf(words) + words.length)];
    }).then(([rest]) => rest);
  }
  type(line) { this.child.stdin.write(`${line}\n`); }
  async ends(line = "/quit") {
    this.type(line);
    equal(await this.ended, [0, null], `the exit of ${this.name}`);
  }
}

process.on("exit", () => { for (const { child } of Program.all) child.kill(); });

async function startServer(address = "127.0.0.1:0", ...more) {
  const program = new Program("09_websocket_chat", address, ...more);
  address = await program.says("listening on ");
  return { address, port: Number(address.split(":").at(-1)), stop: () => program.ends() };
}

// A chat client without a page.
class Terminal {
  static async join(port, name) {
    const terminal = new Terminal();
    terminal.end = await connect(port);
    terminal.send(JOIN, name);
    await terminal.hears(WELCOME, name);
    return terminal;
  }
  send(...words) { this.end.send(message(...words)); }
  hears(kind, sender, body) {
    return until(`${kind} from ${sender}: ${body}`, () => this.end.messages.map(read).find((one) =>
      one.kind === kind && one.sender === sender && (body === undefined || one.body === body)));
  }
}

// What is kept on disk: accounts, certificates, and the home of a browser that trusts our authority.
const folder = mkdtempSync(`${tmpdir()}/socket-chat-`);
process.on("exit", () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
const secure = `${process.env.EXAMPLES}/10_secure_chat`;
if (process.env.TLS) {
  execFileSync(secure, ["certs", `${folder}/lab`]);
  mkdirSync(`${folder}/.pki/nssdb`, { recursive: true });
  const trust = (...args) => execFileSync("certutil", [...args, "-d", `sql:${folder}/.pki/nssdb`]);
  trust("-N", "--empty-password");
  trust("-A", "-n", "lab", "-t", "C,,", "-i", `${folder}/lab/ca.pem`);
}

const launch = (home) => chromium.launch({
  executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  env: { ...process.env, HOME: home },
});
const browser = await launch(process.env.TLS ? folder : process.env.HOME);
const complaints = [];

async function open(url, { width = 1100, height = 760, from = browser, axe = false, ...more } = {}) {
  const page = await (await from.newContext({ viewport: { width, height }, reducedMotion: "reduce", ...more })).newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("pageerror", (error) => complaints.push(`page error: ${error.stack}`));
  page.on("console", (line) => {
    // The browser says so itself when a server is not there.
    if (!/^WebSocket connection to .* failed/.test(line.text())) complaints.push(`console: ${line.text()}`);
  });
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  });
  if (axe) await page.addInitScript({ path: `${process.env.MODULES}/node_modules/axe-core/axe.min.js` });
  await page.goto(url);
  return page;
}

const enter = async (page, name) => { await page.fill("#name", name); await page.press("#name", "Enter"); };
const logIn = async (page, password) => { await page.fill("#password", password); await page.press("#password", "Enter"); };
const focused = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.tagName);
const say = async (page, text) => { await page.fill("#draft", text); await page.press("#draft", "Enter"); };
const shows = (page, selector, text) => until(`${selector} to show ${text}`, async () =>
  (await page.locator(selector).allTextContents()).some((one) => text instanceof RegExp ? text.test(one) : one === text));
const shown = (page, selector) => page.locator(selector).allTextContents();
const state = (page, text) => shows(page, "#words", text);
const here = (page, ...names) => until(`the people ${names}`, async () => String(await shown(page, "#names li")) === String(names));
// A line that tells what has happened ends with its time.
const told = (page, text) => shows(page, "#log .event", new RegExp(`^${text}\\d\\d:\\d\\d$`));
const escape = (text) => text.replace(/[^\w\s]/g, "\\$&");

// Nothing may be wider than the window, nor stand on something else.
async function fits(page, what) {
  const wide = await page.evaluate(() => [document.scrollingElement, ...document.querySelectorAll("#log, #people, #frames, #enter, header")]
    .filter((one) => one.scrollWidth > Math.max(one.clientWidth, 0) + 1).map((one) => `${one.id || one.tagName} ${one.scrollWidth} in ${one.clientWidth}`));
  equal(wide, [], `${what}: too wide`);
}

// Which of these can't be seen, or clicked.
const covered = (page, ...selectors) => page.evaluate((all) => all.filter((one) => {
  const box = document.querySelector(one).getBoundingClientRect();
  const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return !top || !document.querySelector(one).contains(top);
}), selectors);

process.on("SIGTERM", () => process.exit(1)); // `timeout` sends it

const steps = [];
const step = (what, play) => steps.push([what, play]);

// --- the story ---

let server, ann, bob;

step("a name that is taken is refused at the field, and another one asked for on the same connection", async () => {
  server = await startServer();
  [ann, bob] = [await open(`http://${server.address}/`), await open(`http://${server.address}/`, { width: 360, height: 640 })];
  equal(await ann.evaluate(() => document.activeElement.id), "name", "where typing begins");
  await state(ann, "not connected");
  await enter(ann, "ann");
  await state(ann, "connected as ann");
  await enter(bob, "ANN");
  await shows(bob, "#refusal", /taken/);
  equal(await bob.getAttribute("#name", "aria-invalid"), "true", "the field says so too");
  await enter(bob, "x".repeat(33));
  await shows(bob, "#refusal", "a name has at most 32 bytes; this one has 33");
  await enter(bob, "bob");
  await state(bob, "connected as bob");
  equal(await bob.evaluate(() => records.filter((one) => /open/.test(one.words)).length), 1, "connections");
  equal(await bob.evaluate(() => document.activeElement.id), "draft", "where typing goes on");
});

step("what one says the other reads, with name and time, and one's own stands apart", async () => {
  await told(ann, "bob joined");
  await say(ann, "hello bob");
  await shows(bob, "#log .text:not(.own) .body", "hello bob");
  await shows(bob, "#log .text:not(.own)", /^annhello bob\d\d:\d\d$/);
  await say(bob, "5 €? 👋 ");
  await shows(ann, "#log .text:not(.own) .body", "5 €? 👋 ");
  equal(await shown(ann, "#log .own .body"), ["hello bob"], "ann's own");
  equal(await ann.inputValue("#draft"), "", "what was sent is no draft");
  await here(ann, "ann", "bob");
  await shows(bob, "#here", "Here (2)");
});

step("a screen reader hears the others, not oneself", async () => {
  equal(await shown(ann, "#spoken[role=log][aria-live=polite] p"), ["bob joined", "bob: 5 €? 👋 "], "ann hears");
  equal(await shown(bob, "#spoken p"), ["ann: hello bob"], "bob hears");
  const hears = (text) => bob.evaluate((said) => [...document.querySelectorAll("[aria-live], [role=log], [role=status], [role=alert]")]
    .filter((one) => one.textContent.includes(said)).map((one) => one.id), text);
  equal([await hears("hello bob"), await hears("connected as bob")], [["spoken"], ["words"]], "each is announced once, by");
});

step("the keyboard alone suffices", async () => {
  const cleo = await open(`http://${server.address}/`);
  const press = async (...keys) => { for (const key of keys) await cleo.keyboard.press(key); };
  await cleo.keyboard.type("cleo");
  await press("Enter");
  await until("the way to the draft", async () => (await focused(cleo)) === "draft");
  await cleo.keyboard.type("no mouse here");
  await press("Enter");
  await shows(bob, "#log .body", "no mouse here");
  await cleo.keyboard.type("nor here");
  await press("Tab");
  equal(await focused(cleo), "send", "behind the draft");
  await press("Space");
  await shows(bob, "#log .body", "nor here");
  await until("the confirmation of both", async () => (await shown(cleo, "#log .own")).length === 2 && (await shown(cleo, ".mark")).length === 0);
  await press("Shift+Tab", "Shift+Tab");
  equal(await cleo.evaluate(() => document.activeElement === [...document.querySelectorAll("#log .when")].at(-1)), true, "before the draft is the newest message");
  await press("Shift+Tab");
  equal(await focused(cleo), "people", "before the messages");
  await press("Shift+Tab");
  equal(await focused(cleo), "open-wire", "before the people");
  await press("Enter");
  equal(await cleo.isVisible("#wire"), true, "the wire view");
  await shows(cleo, ".frame .head b", "WELCOME");
  const seen = [];
  for (let i = 0; i < 8; i++) {
    await press("Tab");
    seen.push(await cleo.evaluate(() => document.activeElement.id || document.activeElement.dataset.field || document.activeElement.tagName));
  }
  equal(seen, ["people", "BUTTON", "draft", "send", "clear-wire", "close-wire", "SUMMARY", "magic"], "behind the wire view's button");
  await press("Escape");
  equal([await cleo.isVisible("#wire"), await focused(cleo)], [false, "open-wire"], "behind Escape");
  await press("Shift+Tab");
  equal(await focused(cleo), "leave", "before the wire view");
  await press("Enter");
  await state(cleo, "you have left");
  equal([await focused(cleo), await cleo.inputValue("#name")], ["name", "cleo"], "where Leave leads");
  await told(bob, "cleo left \\(left\\)");
  await cleo.context().close();
});

step("terminals and pages talk; how each of them ends is told", async () => {
  const [zed, una, joe] = [await Terminal.join(server.port, "zed"), await Terminal.join(server.port, "una"), await Terminal.join(server.port, "joe")];
  await here(ann, "ann", "bob", "joe", "una", "zed");
  zed.send(TEXT, "who believes this?", "from a terminal", { sequence: 1 });
  await shows(bob, "#log .body", "from a terminal");
  await say(ann, "to all");
  equal((await zed.hears(TEXT, "ann", "to all")).sequence, 2, "ann's second text has");
  zed.send(LEAVE);
  await told(ann, "zed left \\(left\\)");
  una.end.socket.destroy();
  await told(ann, "una left \\(disconnected\\)");
  joe.end.send(Buffer.from("this is no message"));
  await told(ann, "joe left \\(protocol error\\)");
  await until("the close code", () => joe.end.closed === 1008);
  await here(ann, "ann", "bob");
});

step("what is unread is counted in the title while the page is hidden", async () => {
  const hide = (hidden) => ann.evaluate((is) => {
    Object.defineProperty(document, "hidden", { value: is, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  await hide(true);
  await say(bob, "are you there?");
  await say(bob, "ann?");
  await until("the title", async () => await ann.title() === "(2) socket chat");
  await hide(false);
  equal(await ann.title(), "socket chat", "the title");
});

step("bytes are counted, and what is too long is not sent", async () => {
  const zed = await Terminal.join(server.port, "zed");
  const long = "€".repeat(1365);
  await ann.fill("#draft", `${long}ab`);
  equal([await shown(ann, "#counter.over"), await shown(ann, "#why-not")], [["4097 of 4096 bytes"], ["too long: 4096 bytes at most"]], "the counter");
  equal(await ann.isDisabled("#send"), true, "the button is off");
  await ann.press("#draft", "Enter");
  await ann.press("#draft", "End");
  await ann.press("#draft", "Backspace");
  equal(await shown(ann, "#counter"), ["4096 of 4096 bytes"], "the counter");
  await ann.press("#draft", "Enter");
  await zed.hears(TEXT, "ann", `${long}a`);
  equal(zed.end.messages.map(read).filter((one) => one.kind === TEXT).length, 1, "the longer one was not sent; texts");
  zed.send(LEAVE);
  await told(bob, "zed left \\(left\\)");
  await fits(bob, "a long text on a phone");
});

step("markup stays text, and what turns text around is taken out", async () => {
  const [name, text] = ["<img/src=x/onerror=hacked()>", "<script>hacked()</script><b>bold</b>&lt;"];
  const zed = await Terminal.join(server.port, name);
  zed.send(TEXT, "", text, { sequence: 1 });
  zed.send(TEXT, "", "a\u202eb\u0007c\u2066d", { sequence: 2 });
  zed.send(TEXT, "", "z̸̛̳̬̪̱͎̯̈́͆̄̍̎̽͑͘͝".repeat(30), { sequence: 3 });
  zed.send(LEAVE);
  for (const page of [ann, bob]) {
    await told(page, `${escape(name)} left \\(left\\)`);
    await shows(page, "#log .body", text);
    await shows(page, "#log .body", "abcd");
    equal(await page.locator("#log :is(img, b, script)").count(), 0, "elements made of markup");
    await fits(page, "hostile text");
  }
});

step("names that nobody can see are refused; names and texts that cover others are shown for what they are", async () => {
  const hidden = await connect(server.port);
  for (const name of ["ann\u200b", "\u200d\u2060", "\u3164", "👩\u200d👧", "❤\ufe0f"]) hidden.send(message(JOIN, name));
  await until("five refusals", () => hidden.messages.map(read).filter((one) => one.kind === ERROR).length === 5);
  const names = {
    ["\u0301".repeat(16)]: "[U+0301]×16", ["W".repeat(32)]: "W".repeat(32), "\u0645\u0631\u064a\u0645": "\u0645\u0631\u064a\u0645",
  };
  const crowd = [];
  for (const name of Object.keys(names)) {
    const one = await Terminal.join(server.port, name);
    one.send(TEXT, "", "x".repeat(4096), { sequence: 1 });
    one.send(TEXT, "", "\u0301\u200b".repeat(800), { sequence: 2 });
    crowd.push(one);
  }
  for (const page of [ann, bob]) {
    await here(page, ...["ann", "bob", ...Object.keys(names)].sort().map((name) => names[name] ?? name));
    await fits(page, "a crowd of strange names");
    for (const name of Object.values(names)) await shows(page, "#log .who", name);
  }
  for (const one of crowd) one.send(LEAVE);
  await here(ann, "ann", "bob");
});

step("the wire view shows a message byte by byte, for the pointer and for the keyboard", async () => {
  await ann.click("#open-wire");
  equal(await ann.getAttribute("#open-wire", "aria-expanded"), "true", "aria-expanded");
  const before = Date.now();
  await say(ann, "5 €");
  const sent = ann.locator(".frame.sent", { hasText: "TEXT" }).last();
  await until("the sent message", async () => (await sent.locator(".size").textContent()) === "25 bytes");
  const field = (frame, key) => frame.locator(`.hex [data-field="${key}"]`);
  const bytes = async (frame, key) => (await field(frame, key).allTextContents()).join("");
  const number = await ann.evaluate(() => sequence);
  equal([await bytes(sent, "start"), await bytes(sent, "length"), await bytes(sent, "key")], ["82", "99", "?? ?? ?? ??"], "frame header");
  equal([await bytes(sent, "magic"), await bytes(sent, "version"), await bytes(sent, "kind")], ["43 48", "01", "02"], "the start");
  equal(await bytes(sent, "sequence"), number.toString(16).padStart(8, "0").match(/../g).join(" "), "sequence");
  const time = Number(`0x${(await bytes(sent, "timestamp")).replaceAll(" ", "")}`);
  equal(time >= before && time <= Date.now(), true, `timestamp ${time} is between ${before} and now`);
  equal([await bytes(sent, "senderLength"), await bytes(sent, "bodyLength"), await bytes(sent, "sender"), await bytes(sent, "body")],
    ["00 00", "00 05", "", "35 20 e2 82 ac"], "lengths and texts");
  equal(await sent.locator(".letters").last().textContent().then((all) => [all.slice(0, 2), all.slice(-5)]), ["CH", "5 ···"], "letters");

  const explained = (title, place, value) => until(`the explanation of ${title}`, async () => {
    const [head, said] = (await shown(ann, "#explanation p")).map((line) => line.trim());
    return head === title + place && said.startsWith(value);
  });
  await field(sent, "body").hover();
  await explained("body", "bytes 20 to 24", "“5 €” (3 characters, 5 bytes)");
  equal(await sent.locator(".on").count(), 2, "lit up: hex and letters");
  await ann.hover("#wire-title");
  await sent.locator(".hex .magic").focus();
  await explained("magic", "bytes 0 to 1", "“CH”");
  await ann.keyboard.press("ArrowRight");
  await ann.keyboard.press("ArrowRight");
  await explained("kind", "byte 3", "2 = TEXT");
  await ann.keyboard.press("ArrowRight");
  await ann.keyboard.press("ArrowRight");
  await explained("timestamp", "bytes 8 to 15", time.toLocaleString("en"));
  await ann.keyboard.press("ArrowUp");
  equal(await ann.evaluate(() => document.activeElement.closest(".frame") === document.activeElement.closest("ol").lastElementChild), false, "the frame before");
  await ann.hover('#diagram [data-field="senderLength"]');
  equal(await ann.locator(".frame .hex .on").count() > 5, true, "the legend lights up the field of all messages");

  await say(bob, "seen?");
  const came = ann.locator(".frame.received").last();
  await until("the received message", async () => (await bytes(came, "body")) === "73 65 65 6e 3f");
  equal([await bytes(came, "start"), await bytes(came, "length"), await bytes(came, "sender")], ["82", "1c", "62 6f 62"], "bob's message");
  await ann.keyboard.press("Escape");
  equal(await ann.isVisible("#wire"), false, "the panel");
  equal(await ann.evaluate(() => document.activeElement.id), "open-wire", "where Escape leads");
  await bob.click("#tab-wire");
  await shows(bob, ".frame .head b", "TEXT");
  await fits(bob, "the wire view on a phone");
  await bob.locator(".frame button", { hasText: "Show all" }).last().click();
  await fits(bob, "a long message on a phone");
  await bob.click("#tab-chat");
});

step("a message and its line lead to each other, by mouse and by keyboard", async () => {
  const line = (page, text) => page.locator("#log li", { has: page.locator(".body", { hasText: text }) }).last();
  const pointed = (page) => page.evaluate(() => [...document.querySelectorAll(".pointed")].map((one) => one.querySelector(".body, .head b").textContent));
  await line(ann, "seen?").locator(".body").click();
  await until("the frame", async () => await ann.isVisible("#wire") && String(await pointed(ann)) === "seen?,TEXT");
  const frame = ann.locator(".frame.pointed");
  equal(await frame.locator('.hex [data-field="body"]').textContent(), "73 65 65 6e 3f", "the bytes of the line that was clicked");
  equal(await ann.evaluate(() => document.activeElement.dataset.field), "kind", "where the keyboard is");
  await shows(ann, "#explanation .meaning", "Somebody says something.");
  // On from there by keyboard: to the chat, one line up, and to the frame of that line.
  await ann.keyboard.press("Shift+Tab");
  equal(await focused(ann), "BUTTON", "before the field is the way to the chat");
  await ann.keyboard.press("Enter");
  equal(await ann.evaluate(() => document.activeElement.closest("#log li").querySelector(".body").textContent), "seen?", "the line");
  await ann.keyboard.press("ArrowUp");
  await ann.keyboard.press("Enter");
  await until("the frame of the line above", async () => String(await pointed(ann)) === "5 €,TEXT");
  equal(await frame.evaluate((one) => one.classList.contains("sent")), true, "it was sent");
  await frame.locator(".to-line").click();
  equal(await ann.evaluate(() => document.activeElement.closest("#log li").querySelector(".body").textContent), "5 €", "and back");
  await ann.keyboard.press("Escape");
  // On a phone one tab leads to the other.
  await line(bob, "seen?").locator(".body").click();
  await until("the tab", async () => await bob.getAttribute("#tab-wire", "aria-selected") === "true");
  await until("the frame", async () => String(await pointed(bob)) === "seen?,TEXT");
  await bob.locator(".frame.pointed .to-line").click();
  equal([await bob.isVisible("#log"), await bob.isVisible("#wire"), await pointed(bob)], [true, false, ["seen?", "TEXT"]], "back in the chat");
});

step("each kind and each value of a message is explained", async () => {
  await ann.click("#open-wire");
  const means = async (way, kind, key, ...words) => {
    const field = ann.locator(`.frame.${way}`, { has: ann.locator(".head b", { hasText: new RegExp(`^${kind}$`) }) }).last().locator(`.hex [data-field="${key}"]`);
    await field.focus();
    const text = (await shown(ann, "#explanation p")).join(" ");
    equal(words.filter((one) => !text.includes(one)), [], `${kind} ${key}: the explanation ${text} lacks`);
    equal((await field.getAttribute("aria-label")).includes((await shown(ann, "#explanation .meaning"))[0]), true, "a screen reader hears it too");
  };
  await means("sent", "JOIN", "kind", "1 = JOIN", "You ask to be let in.");
  await means("sent", "JOIN", "sequence", "In all other kinds it is 0");
  await means("sent", "JOIN", "senderLength", "3 bytes", "It begins at byte 20. It is the name that you ask for.");
  await means("sent", "JOIN", "bodyLength", "0 bytes", "It is empty here. This kind has no body.");
  await means("received", "WELCOME", "body", "“ann”", "the names of all who are here");
  await means("sent", "TEXT", "senderLength", "It is empty here. A client leaves it empty");
  await means("sent", "TEXT", "timestamp", "the time of this computer");
  await means("received", "TEXT", "timestamp", "the time of the server");
  await means("received", "TEXT", "sender", "“bob”", "the member who says it");
  await means("sent", "TEXT", "length", "MASK is 1: the bytes are masked. The message has 25 bytes.");
  await means("received", "TEXT", "length", "MASK is 0: the bytes are not masked.");
  await means("received", "PONG", "sequence", "the server has your texts up to number");
  await means("received", "LEAVE", "body", "It says why.");
  await ann.click("#close-wire");
});

step("consecutive lines of one sender form a group", async () => {
  await say(ann, "zero");
  await shows(bob, "#log .body", "zero");
  await say(bob, "one");
  await say(bob, "two");
  await shows(ann, "#log .body", "two");
  await say(ann, "three");
  await say(bob, "four");
  await shows(ann, "#log .body", "four");
  const zed = await Terminal.join(server.port, "zed");
  await told(bob, "zed joined");
  zed.send(TEXT, "", "five");
  await shows(ann, "#log .body", "five");
  await say(bob, "six");
  await shows(ann, "#log .body", "six");
  const ends = (page) => page.evaluate(() => [...document.querySelectorAll("#log .text")].slice(-6).map((line) => line.matches(".again")));
  const expected = [false, true, false, false, false, false];
  equal([await ends(ann), await ends(bob)], [expected, expected], "which lines continue a group");
  zed.send(LEAVE);
  await told(ann, "zed left \\(left\\)");
});

step("only addresses that say where they lead become links", async () => {
  const links = async (text) => {
    await say(bob, text);
    await shows(ann, "#log .body", text);
    const line = ann.locator("#log .text", { has: ann.locator(".body") }).last();
    return line.locator("a").evaluateAll((all) => all.map((one) => [one.textContent, one.getAttribute("href"), one.target, one.rel, one.dir].join(" ")));
  };
  const link = (address) => `${address} ${address} _blank noopener noreferrer ltr`;
  for (const [text, ...addresses] of [
    ["See https://example.com/a?b=c&d=%20#e-f, or http://127.0.0.1:8080/!", "https://example.com/a?b=c&d=%20#e-f", "http://127.0.0.1:8080/"],
    ["(https://example.com) <http://[::1]:8080/x> “https://example.com/it's”…", "https://example.com", "http://[::1]:8080/x", "https://example.com/it's"],
    ["https://example.com/wiki/Rust_(programming_language), https://example.com/x).", "https://example.com/wiki/Rust_(programming_language)", "https://example.com/x"],
    ["HTTPS://Example.COM/Path?", "HTTPS://Example.COM/Path"],
    ["https://xn--pple-43d.com/", "https://xn--pple-43d.com/"], // shown as what it is
    ["\u0645\u0631\u062d\u0628\u0627 https://example.com/1.2 \u0645", "https://example.com/1.2"],
  ]) equal(await links(text), addresses.map(link), `links in ${text}`);
  for (const text of [
    "javascript:alert(1) javascript://example.com/%0aalert(1) JAVASCRIPT:https://example.com/", "data:text/html,<script>hacked()</script>", "file:///etc/passwd ftp://example.com/ ws://example.com/ vbscript:x blob:https://example.com/x",
    "https://bank.example@evil.example/", "https://bank.example:443@evil.example", "http://user:password@evil.example/",
    "https://bank.example\\@evil.example/", "https:\\\\evil.example/ https:/evil.example/ https:///evil.example/", "https://evil%2eexample/ https://ex%61mple.com/",
    "https://\u0430pple.com/", "https://example.com\uff0fevil/ https://ex\u00adample.com/ https://example\u3002com/", "http://2130706433/ http://0x7f.1/ http://127.1/",
    "https://example.com/\u200fmoc.live", "https://example.com/\u05d0\u05d1", "https://example.com/\u200b", "https:// http://: https://[ https://a:99999/ https://?", "xhttps://example.com/",
  ]) equal(await links(text), [], `links in ${text}`);
  // An override is removed, so what is left is read as it leads.
  await say(bob, "https://example.com/\u202egpj.exe");
  await shows(ann, "#log a", "https://example.com/gpj.exe");
  const opened = await ann.evaluate(() => {
    const link = [...document.querySelectorAll("#log a")].at(-1);
    let allowed;
    addEventListener("click", (event) => { allowed = !event.defaultPrevented; event.preventDefault(); }, { once: true });
    link.click();
    return [allowed, document.querySelector("#wire").hidden];
  });
  equal(opened, [true, true], "a click on a link opens it, and not the wire view");
  const long = `${"https://example.com/".repeat(100)} ${")".repeat(1000)} https://example.com/${"(".repeat(400)}${")".repeat(500)}`;
  await say(bob, long);
  await shows(ann, "#log .body", long);
  await fits(bob, "long addresses");
});

step("a draft grows with its text, and is one line for the server", async () => {
  const height = () => bob.evaluate(() => document.querySelector("#draft").offsetHeight);
  const [low, received] = [await height(), (await shown(ann, "#log .body")).length];
  await bob.fill("#draft", "a draft that is much longer than one line of a phone ".repeat(5));
  const high = await height();
  equal(high > 3 * low, true, `the field grows, here from ${low} to ${high} pixels`);
  await bob.fill("#draft", "a draft that is much longer than one line of a phone ".repeat(70));
  equal(await height() < 640 / 2, true, "it leaves the half of the window to the chat");
  equal(await covered(bob, "#log", "#send", "#leave"), [], "covered by something");
  await bob.fill("#draft", "");
  equal(await height(), low, "an empty field is low again");
  await bob.focus("#draft");
  await bob.evaluate(() => document.execCommand("insertText", false, "pasted\nin three\r\nlines"));
  equal(/^pasted in three {1,2}lines$/.test(await bob.inputValue("#draft")), true, "line ends become spaces");
  await bob.press("#draft", "Shift+Enter");
  await shows(bob, "#why-not", "a message is one line; Enter sends it");
  await bob.evaluate(() => document.querySelector("#draft").dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true })));
  equal([(await bob.inputValue("#draft")).startsWith("pasted"), (await shown(ann, "#log .body")).length], [true, received], "neither Shift+Enter nor Enter of an input method sends");
  await bob.press("#draft", "Enter");
  await shows(ann, "#log .body", /^pasted in three {1,2}lines$/);
  equal([await bob.inputValue("#draft"), await height()], ["", low], "after sending");
});

step("on a phone tabs lead to people, chat and wire, and count what is new", async () => {
  const panels = () => bob.evaluate(() => ["people", "chat", "wire"].filter((id) => document.getElementById(id).offsetParent));
  const crowd = [];
  for (let i = 0; i < 40; i++) crowd.push(await Terminal.join(server.port, `guest-${i + 10}`));
  await shows(bob, "#tab-people", "People (42)");
  await bob.focus("#tab-chat");
  await bob.keyboard.press("ArrowLeft");
  equal([await focused(bob), await panels(), await bob.getAttribute("#people", "role")], ["tab-people", ["people"], "tabpanel"], "to the left");
  await bob.locator("#names li").last().scrollIntoViewIfNeeded();
  equal(await covered(bob, "#names li:last-child"), [], "the last of all who are here can't be seen");
  await fits(bob, "people on a phone");
  await say(ann, "news");
  await shows(bob, "#tab-chat", "Chat (1 new)");
  equal(await bob.title(), "(1) socket chat", "the title");
  await bob.keyboard.press("ArrowLeft");
  equal(await panels(), ["wire"], "once around");
  await bob.keyboard.press("ArrowRight");
  await bob.keyboard.press("ArrowRight");
  equal([await panels(), await shown(bob, "#tab-chat"), await bob.title()], [["chat"], ["Chat"], "socket chat"], "in the chat nothing is new");
  equal(await bob.evaluate(() => document.querySelector("#log").scrollHeight - document.querySelector("#log").scrollTop - document.querySelector("#log").clientHeight < 40), true, "the newest line is in sight");
  for (const one of crowd) one.send(LEAVE);
  await here(bob, "ann", "bob");
  equal(await ann.getAttribute("#people", "role"), null, "in a wide window there are no tabs: the role of the panel");
});

step("a lost server: the draft stays, pauses grow, both are back under their names", async () => {
  await bob.fill("#draft", "not sent yet");
  await server.stop();
  await told(bob, "server is shutting down");
  await state(bob, "connection lost");
  await shows(bob, "#countdown", /^trying again in \d+ s$/);
  await state(ann, /^connection lost/);
  equal([await bob.isDisabled("#send"), await shown(bob, "#why-not")], [true, ["not connected: your text stays here"]], "the form of bob");
  await bob.press("#draft", "Enter");
  // ann is in a hurry. Each try in vain makes the pause twice as long, up to about 30 s.
  const pauses = [];
  for (let tries = 0; tries < 8; tries++) {
    await ann.click("#now");
    pauses.push(await until("the next pause", async () => Number((await shown(ann, "#countdown"))[0].match(/\d+/))));
  }
  equal(pauses.slice(5).filter((one) => one < 12 || one > 36), [], `of the pauses ${pauses} the last three are about 30 s, but for`);
  server = await startServer(server.address);
  await ann.click("#now");
  await state(ann, "connected as ann");
  await state(bob, "connected as bob"); // by itself
  await told(ann, "bob joined");
  await told(bob, "you are back as bob");
  await here(bob, "ann", "bob");
  equal(await bob.inputValue("#draft"), "not sent yet", "the draft");
  await bob.press("#draft", "Enter");
  await shows(ann, "#log .body", "not sent yet");
  equal(await bob.evaluate(() => sequence), 1, "a new connection counts from");
});

step("leaving says goodbye and closes with 1000; coming back is a click away", async () => {
  await bob.click("#leave");
  await told(ann, "bob left \\(left\\)");
  await state(bob, "you have left");
  await until("the close", () => bob.evaluate(() => records.some((one) => one.words === "WebSocket closed, code 1000")));
  equal(await bob.inputValue("#name"), "bob", "the name is still there");
  await bob.press("#name", "Enter");
  await state(bob, "connected as bob");
  await bob.close();
  await told(ann, "bob left \\(left\\)");
});

step("where the room is full, the page says that this may be so, and gets in when somebody has left", async () => {
  const small = await startServer("127.0.0.1:0", "--limit", "1");
  const first = await Terminal.join(small.port, "first");
  const second = await open(`http://${small.address}/`, { width: 360, height: 640 });
  await enter(second, "second");
  await state(second, "no connection: the server is away, or the room is full");
  await shows(second, "#countdown", /^trying again in \d+ s$/);
  await fits(second, "trying again");
  first.send(LEAVE);
  await until("the end", () => first.end.closed === 1000);
  await second.click("#now");
  await state(second, "connected as second");
  await second.context().close();
  await small.stop();
});

// What axe-core finds wrong on the page as it is now, and borders of a contrast below 3:1, which it does not look for.
async function isAccessible(page, what) {
  const { violations } = await page.evaluate(() => axe.run());
  const found = violations.flatMap(({ id, help, nodes }) => nodes.map((one) => `${id}: ${help}: ${one.target} ${one.any.map(({ message }) => message)}`));
  const faint = await page.evaluate(() => {
    const rgb = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((one) => one / 255).map((one) => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
      .reduce((sum, one, i) => sum + one * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (one) => {
      for (; one; one = one.parentElement) {
        const colour = rgb(getComputedStyle(one).backgroundColor);
        if (colour[3] !== 0) return colour;
      }
    };
    return [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility() && parseFloat(getComputedStyle(one).borderTopWidth) > 0).flatMap((one) => {
      const pair = [light(rgb(getComputedStyle(one).borderTopColor)), light(behind(one.parentElement))].sort();
      const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
      return contrast < 3 ? [`border of ${one.id || one.className || one.tagName}: ${contrast.toFixed(2)}:1`] : [];
    });
  });
  equal([...new Set([...found, ...faint])], [], what);
}

for (const colorScheme of ["light", "dark"]) step(`axe-core finds nothing wrong, with ${colorScheme} colours`, async () => {
  const other = await Terminal.join(server.port, "tom");
  const visit = async (size, name) => {
    const page = await open(`http://${server.address}/`, { ...size, colorScheme, axe: true });
    await isAccessible(page, `the form, ${size.width} pixels wide`);
    await enter(page, " ");
    await shows(page, "#refusal", /./);
    await isAccessible(page, `a refusal, ${size.width} pixels wide`);
    await enter(page, name);
    await state(page, `connected as ${name}`);
    await say(page, "hello");
    for (const text of ["hello, see https://example.com/", "again", "x ".repeat(500)]) other.send(TEXT, "", text);
    await shows(page, "#log .body", /^x x/);
    await until("no sending", async () => (await page.locator(".mark").count()) === 0);
    await isAccessible(page, `the chat, ${size.width} pixels wide`);
    return page;
  };
  const wide = await visit({ width: 1100, height: 500 }, "kim");
  await wide.click("#open-wire");
  await shows(wide, ".frame .head b", "TEXT");
  await wide.locator('.hex [data-field="timestamp"]').last().hover();
  await isAccessible(wide, "the wire view");
  await wide.evaluate(() => { confirmTexts = () => {}; });
  await say(wide, "not confirmed");
  await shows(wide, "#log .mark", "sending …");
  await isAccessible(wide, "an unconfirmed line");
  await wide.evaluate(() => reconnectLater());
  await shows(wide, "#log .mark", "not confirmed");
  await isAccessible(wide, "a lost connection");
  await wide.context().close();
  const phone = await visit({ width: 360, height: 640 }, "lee");
  for (const tab of ["people", "wire"]) {
    await phone.click(`#tab-${tab}`);
    await isAccessible(phone, `the tab ${tab}`);
  }
  await phone.context().close();
  const large = await visit({ width: 1920, height: 1080 }, "max");
  await large.context().close();
  other.send(LEAVE);
  await until("the end", () => other.end.closed === 1000);
});

// --- servers that are not ours ---

let false_server, guest, eve;
let answersPings = true;

// A server has a new connection: from now on `eve` is its end, which answers a PING as the contract wants it.
function welcome(end) {
  eve = end;
  end.received = (bytes) => { if (answersPings && bytes[3] === PING) end.send(message(PONG, "", "", { sequence: read(bytes).sequence })); };
}
const asksFor = (kind, from = () => eve) => until(`a message of kind ${kind}`, () => from()?.messages.map(read).filter((one) => one.kind === kind).at(-1));

step("a hostile server: what is no message is reported, and nothing breaks", async () => {
  const answer = await fetch(`http://${server.address}/`);
  const policy = { "content-type": "text/html", "content-security-policy": answer.headers.get("content-security-policy") };
  equal(/default-src 'none'/.test(policy["content-security-policy"]), true, "there is a policy");
  false_server = await serve(await answer.text(), policy, welcome);
  guest = await open(`http://127.0.0.1:${false_server.port}/`, { width: 360, height: 640 });
  await enter(guest, "guest");
  await until("JOIN", () => eve?.messages.some((one) => read(one).kind === JOIN));
  eve.send(message(WELCOME, "guest", "guest, \u202enaïve, <b>x</b>, and 7 more"));
  await state(guest, "connected as guest");
  await shows(guest, "#here", "Here (10)");
  await here(guest, "<b>x</b>", "guest (you)".replace(" (you)", ""), "naïve", "and 7 more");

  await guest.click("#tab-wire");
  const wire = message(TEXT, "eve", "hi");
  const but = (at, ...bytes) => { const copy = Buffer.from(wire); copy.set(bytes, at); return copy; };
  const broken = [
    [Buffer.alloc(0), "it has 0 bytes, a header alone has 20"],
    [wire.subarray(0, 19), "it has 19 bytes, a header alone has 20"],
    [but(0, 0x63), "the magic is not “CH”"],
    [but(2, 2), "version 2 is not spoken here"],
    [but(3, 0), "kind 0 is unknown"],
    [but(3, 10), "kind 10 is unknown"],
    [but(16, 0xff, 0xff), "the sender length is 65535; the limit is 32"],
    [but(18, 0x10, 0x01), "the body length is 4097; the limit is 4096"],
    [but(19, 3), "its header announces 26 bytes, it has 25"],
    [Buffer.concat([wire, wire]), "its header announces 25 bytes, it has 50"],
    [but(20, 0xff), "the sender is not UTF-8"],
    [but(24, 0xe2), "the body is not UTF-8"],
    [Buffer.alloc(20_000, 0x41), "the magic is not “CH”"],
  ];
  for (const [bytes] of broken) eve.send(bytes);
  eve.send(Buffer.from("text"), 1);
  const whys = [...broken.map(([, why]) => why), "it is a text message, here all are binary"];
  await until("all of them", async () => (await shown(guest, "#log .error .body")).length === whys.length);
  equal(await shown(guest, "#log .error .body"), whys.map((why) => `the server has sent what is no message: ${why}`), "in the chat");
  await until("the wire view", async () => (await shown(guest, ".frame .wrong")).length === whys.length);
  equal(await shown(guest, ".frame .wrong"), whys, "in the wire view");
  await fits(guest, "what is no message");

  const [markup, turned] = ["<script>hacked()</script>", "\u202e\u2066\u0000\u001b[31m\u009b"];
  for (const kind of [JOIN, TEXT, LEAVE, ERROR, PONG, WELCOME, LOGIN, 9]) {
    eve.send(message(kind, `<i>${turned}`, `${markup}${turned}`.repeat(3), { time: 2n ** 64n - 1n, sequence: 2 ** 32 - 1 }));
    eve.send(message(kind, "W".repeat(32), "W".repeat(4096), { time: 0n }));
    eve.send(message(kind, "\u0644".repeat(16), "\u0644\u034f\u0301".repeat(600)));
    eve.send(message(kind));
  }
  eve.send(message(PING, "", "", { sequence: 77 }));
  await until("PONG", () => eve.messages.some((one) => read(one).kind === PONG && read(one).sequence === 77));
  eve.send(message(WELCOME, "guest", Array.from({ length: 700 }, (_, i) => i).join(", ")));
  await shows(guest, "#here", "Here (700)");
  equal((await shown(guest, "#names li")).length, 700, "the names that are shown");
  await fits(guest, "hostile fields");
  equal(await guest.locator("#log :is(i, script), #names :is(i, script), #wire script").count(), 0, "elements made of markup");
  equal(await guest.evaluate(() => /[\0-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/.test(document.body.innerText)), false, "what a page might obey is left");
  eve.send(message(WELCOME, "guest", `guest, and ${"9".repeat(400)} more`));
  await shows(guest, "#here", "Here (2)");
  await guest.click("#tab-chat");
  equal(await covered(guest, "#state", "#leave", "#tab-wire", "#draft", "#send"), [], "covered by something");
});

step("a flood leaves the page bounded and obedient", async () => {
  await guest.setViewportSize({ width: 1100, height: 640 }); // with the wire view beside the chat
  await guest.click("#open-wire");
  const flood = {
    "short texts": [10_000, (i) => message(TEXT, "eve", `flood ${i}`, { sequence: i })],
    "towers of accents": [50, (i) => message(TEXT, "eve", "\u0301".repeat(2040) + i)],
    "people": [10_100, (i) => message(JOIN, `n${i}`)],
    "questions": [2000, (i) => message(PING, "", "", { sequence: i })],
    "nonsense": [2000, () => Buffer.alloc(10)],
  };
  for (const [what, [count, make]] of Object.entries(flood)) {
    eve.socket.cork();
    for (let i = 0; i < count; i++) eve.send(make(i));
    eve.send(message(TEXT, "eve", `the end of the ${what}`));
    eve.socket.uncork();
    await guest.fill("#draft", `what ${what}`); // while they come
    await guest.press("#draft", "Enter");
    await until(`the text behind ${what}`, () => eve.messages.some((one) => read(one).body === `what ${what}`));
    await until(`the last lines of ${what}`, () => guest.evaluate((end) => [...$("log").children].slice(-2).some((line) => line.querySelector(".body").textContent === end), `the end of the ${what}`));
    eve.messages.length = 0;
  }
  await until("the wire view", async () => (await guest.locator("#frames > li").count()) === 200);
  equal(await guest.evaluate(() => ["log", "names", "spoken"].filter((id) => $(id).childElementCount > 1001)), [], "lists without end");
  equal(await guest.evaluate(() => [records.length, lines.length, people.size <= 10_000]), [200, 0, true], "what is kept");
  await shows(guest, "#here", /^Here \(101\d\d\)$/);
  await fits(guest, "after a flood");
});

step("an explanation goes with its frame", async () => {
  const field = guest.locator('.frame .hex [data-field="magic"]').first();
  await field.focus();
  await shows(guest, "#explanation p", /^magic/);
  for (let i = 0; i < 200; i++) eve.send(message(PONG));
  await shows(guest, "#explanation p", /^Point at a byte/);
  equal(await guest.locator(".hex [tabindex='0']").count(), 1, "Tab still comes to a field; fields");
});

step("a text is unconfirmed until the server has answered the PING after it", async () => {
  const marks = () => guest.evaluate(() => [...document.querySelectorAll("#log .own")].slice(-3).map((line) => line.querySelector(".mark")?.textContent ?? "confirmed"));
  const becomes = (...expected) => until(`the marks ${expected}`, async () => String(await marks()) === String(expected));
  answersPings = false;
  eve.messages.length = 0;
  for (const text of ["first", "second", "third"]) await say(guest, text);
  await becomes("sending …", "sending …", "sending …");
  const number = read(eve.messages.find((one) => read(one).body === "first")).sequence;
  equal((await asksFor(PING)).sequence, number, "the PING has the number of the text");
  eve.send(message(TEXT, "eve", "I say something else", { sequence: number }));
  await shows(guest, "#log .body", "I say something else");
  await becomes("sending …", "sending …", "sending …");
  eve.send(message(PONG, "", "", { sequence: number + 2 })); // answers no PING
  eve.send(message(TEXT, "eve", "I say more"));
  await shows(guest, "#log .body", "I say more");
  await becomes("sending …", "sending …", "sending …");
  eve.send(message(PONG, "", "", { sequence: number }));
  await becomes("confirmed", "sending …", "sending …");
  await until("a PING for the others", async () => (await asksFor(PING)).sequence === number + 2);
  eve.send(message(PONG, "", "", { sequence: number + 2 }));
  await becomes("confirmed", "confirmed", "confirmed");
  await say(guest, "into the void");
  await becomes("confirmed", "confirmed", "sending …");
  await asksFor(TEXT);
  answersPings = true;
  const before = eve;
  before.socket.destroy();
  await becomes("confirmed", "confirmed", "not confirmed");
  await told(guest, "connection lost; a message of yours may have reached nobody");
  await shows(guest, "#spoken p", "connection lost; a message of yours may have reached nobody");
  await until("the next JOIN", () => eve !== before && eve.messages.some((one) => read(one).kind === JOIN));
  eve.send(message(WELCOME, "guest", "guest"));
  await state(guest, "connected as guest");
  await say(guest, "once more");
  await becomes("confirmed", "not confirmed", "confirmed");
});

step("a refusal without end hides no button", async () => {
  const other = await open(`http://127.0.0.1:${false_server.port}/`, { width: 360, height: 640 });
  const before = eve;
  await enter(other, "other");
  await until("JOIN", () => eve !== before && eve.messages.some((one) => read(one).kind === JOIN));
  eve.send(message(ERROR, "", "log in first"));
  await shows(other, "#refusal", "This server wants a password.");
  eve.send(message(ERROR, "", "<b>y</b> ".repeat(400)));
  await shows(other, "#refusal", /<b>y<.b>/);
  await fits(other, "a long refusal");
  equal(await covered(other, "#name", "#password", "#enter button", "#tab-wire"), [], "covered by something");
  await other.context().close();
  eve = before;
});

step("a server that wants a password gets it, and the wire view hides it", async () => {
  const login = () => until("LOGIN", () => eve.messages.map(read).filter((one) => one.kind === LOGIN).at(-1));
  await guest.click("#leave");
  await until("the close", () => eve.closed === 1000);
  equal(read(eve.messages.at(-1)).kind, LEAVE, "the last message is of kind");
  await guest.press("#name", "Enter");
  await until("JOIN", () => eve.closed === null && eve.messages.some((one) => read(one).kind === JOIN));
  eve.send(message(ERROR, "", "log in first"));
  await shows(guest, "#refusal", "This server wants a password.");
  equal(await guest.evaluate(() => [document.activeElement.id, document.activeElement.autocomplete]), ["password", "current-password"], "the field");
  await guest.keyboard.type("open sesame");
  await guest.keyboard.press("Enter");
  equal(await login().then(({ sender, body }) => [sender, body]), ["guest", "open sesame"], "account and password");
  // Until the server answers, the form is locked: what is typed there is not taken, so it can't be lost.
  await shows(guest, "#join", "Checking the password …");
  await state(guest, "connected, checking the password …");
  await guest.keyboard.type(" hello everybody");
  await guest.keyboard.press("Enter");
  await guest.keyboard.press("Shift+Tab");
  await guest.keyboard.type("x");
  equal([await guest.inputValue("#name"), await guest.inputValue("#password"), await guest.isDisabled("#join"), await guest.getAttribute("#enter", "aria-busy")],
    ["guest", "open sesame", true, "true"], "a locked form");
  equal(eve.messages.map(read).filter((one) => one.kind === LOGIN).length, 1, "logins");
  equal(await shown(guest, "#leave"), ["Cancel"], "the way out");
  const frame = guest.locator(".frame.sent").last();
  await until("dots", async () => (await frame.locator('.hex [data-field="body"]').textContent()) === Array(11).fill("••").join(" "));
  equal(await guest.evaluate(() => [document.body.innerText.includes("sesame"), JSON.stringify(records.map((one) => [...one.bytes ?? []])).includes("115,101,115,97,109,101")]),
    [false, false], "the password is on the page, or in the record");
  equal(await guest.locator(".frame.sent .remark").count(), 1, "the remark about the hidden bytes");
  for (const why of ["wrong name or password", "too many attempts: try again in 4 s"]) {
    eve.send(message(ERROR, "", why));
    await shows(guest, "#refusal", why);
    equal(await guest.inputValue("#password"), "", "the password's field");
    eve.messages.length = 0;
    await guest.fill("#password", "Open Sesame");
    await guest.press("#password", "Enter");
    equal((await login()).body, "Open Sesame", "the next try");
  }
  eve.send(message(WELCOME, "guest", "guest"));
  await state(guest, "connected as guest");
  const first = eve;
  first.socket.destroy();
  await state(guest, "connection lost");
  await until("the login that comes by itself", () => eve !== first && eve.messages.some((one) => read(one).kind === LOGIN && read(one).body === "Open Sesame"));
  const second = eve; // which still knows the lost connection, as if that had not ended
  second.send(message(ERROR, "", "already here"));
  await state(guest, "not back in yet: already here");
  await until("the next login", () => eve !== second && eve.messages.some((one) => read(one).kind === LOGIN));
  eve.send(message(WELCOME, "guest", "guest"));
  await state(guest, "connected as guest");
  await guest.click("#leave");
  equal(await guest.evaluate(() => password), null, "the password after leaving");
});

// --- the server of step 10 ---

const accounts = `${folder}/accounts.txt`;
const passwords = { ann: "correct horse", bob: "tr0ub4dor & 3", zoe: "<b>zoe's</b> pässword" };

// Writes an account as another program would: with few rounds, so that what is tried here is the page. ann's is our own.
function account(name, password) {
  const [salt, rounds] = [randomBytes(16), 1000];
  const text = (bytes) => bytes.toString("base64").replaceAll("+", ".").replaceAll("=", "");
  const others = readFileSync(accounts, "utf8").split("\n").filter((line) => line && !line.startsWith(`${name} `));
  const secret = `$pbkdf2-sha256$${rounds}$${text(salt)}$${text(pbkdf2Sync(password, salt, rounds, 32, "sha256"))}`;
  writeFileSync(accounts, [...others, `${name} ${secret}`, ""].join("\n"));
}

async function startSecure(chat = "127.0.0.1:0", web = "127.0.0.1:0", ...more) {
  const program = new Program("10_secure_chat", "serve", chat, "--web", web, "--accounts", accounts, ...more);
  return { program, chat: await program.says("listening on "), web: (await program.says("page on http://")).replace("/", "") };
}

async function join(name, password, ...more) {
  const terminal = new Program("10_secure_chat", "join", name, ...more);
  terminal.type(password);
  await terminal.says(`* welcome, ${name} (`);
  return terminal;
}

// Wherever a script on the page, or whoever looks at the page, could find this text.
const holds = (page, text) => page.evaluate(async (secret) => {
  const hex = [...new TextEncoder().encode(secret)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  const places = {
    elements: document.documentElement.outerHTML.replaceAll("&amp;", "&").replaceAll("&lt;", "<").replaceAll("&gt;", ">"),
    bytes: records.map((one) => [...one.bytes ?? []].map((byte) => byte.toString(16).padStart(2, "0")).join(" ")).join(),
    fields: [...document.querySelectorAll("input, textarea")].map((one) => one.value).join("\n"),
    title: document.title, address: location.href, history: JSON.stringify(history.state), cookie: document.cookie,
    storage: JSON.stringify([{ ...localStorage }, { ...sessionStorage }, await indexedDB.databases(), await globalThis.caches?.keys()]),
  };
  return Object.keys(places).filter((one) => places[one].includes(secret) || places[one].includes(hex));
}, text);

let doors, terminal;

step("10: who has an account is asked for the password; a wrong one is refused, and the name stays", async () => {
  const added = new Program("10_secure_chat", "adduser", "ann", "--accounts", accounts);
  await added.ends(passwords.ann);
  equal(added.said, ["added ann"], "adduser");
  account("bob", passwords.bob);
  account("zoe", passwords.zoe);
  doors = await startSecure();
  [ann, bob] = [null, await open(`http://${doors.web}/`, { width: 360, height: 640 })];
  equal(await bob.isVisible("#password"), false, "a field for a password that nobody wants yet");
  await enter(bob, "ann"); // whose password takes the server a moment: it has as many rounds as adduser gives it
  await shows(bob, "#refusal", "This server wants a password.");
  equal(await focused(bob), "password", "where typing goes on");
  await logIn(bob, "open sesame");
  await shows(bob, "#join", "Checking the password …");
  await bob.keyboard.type("hello everybody");
  equal([await bob.inputValue("#password"), await bob.isEditable("#name")], ["open sesame", false], "while the server checks, the form is locked");
  await shows(bob, "#refusal", "wrong name or password");
  equal([await bob.isEditable("#password"), await bob.isEditable("#name")], [true, true], "after a refusal the form is open");
  await bob.fill("#name", "bob");
  await logIn(bob, "open sesame");
  await shows(bob, "#join", "Join");
  await shows(bob, "#refusal", "wrong name or password");
  equal([await bob.inputValue("#name"), await bob.inputValue("#password"), await focused(bob)], ["bob", "", "password"], "name, password, focus");
  equal([await bob.getAttribute("#name", "aria-invalid"), await bob.getAttribute("#password", "aria-invalid")], ["false", "true"], "the field that is wrong");
  await fits(bob, "a wrong password");
  await bob.keyboard.type(passwords.bob);
  await bob.keyboard.press("Enter");
  await state(bob, "connected as bob");
  equal(await focused(bob), "draft", "where typing goes on");
});

step("10: a page and a terminal chat through two doors", async () => {
  terminal = await join("ann", passwords.ann, doors.chat);
  await told(bob, "ann joined");
  terminal.type("hello from TCP");
  await shows(bob, "#log .text:not(.own) .body", "hello from TCP");
  await say(bob, "hello from the page");
  await terminal.says("bob: hello from the page");
  await here(bob, "ann", "bob");
});

step("10: the password is nowhere on the page, in no storage, and dots in the wire view", async () => {
  await bob.click("#tab-wire");
  const login = bob.locator(".frame.sent", { hasText: "LOGIN" });
  await until("all logins", async () => (await login.count()) === 3);
  const dots = (password) => Array(Buffer.byteLength(password)).fill("••").join(" ");
  equal(await login.locator('.hex [data-field="body"]').allTextContents(), ["open sesame", "open sesame", passwords.bob].map(dots), "the bodies of LOGIN");
  await login.locator('.hex [data-field="body"]').last().hover();
  await shows(bob, "#explanation .value", "hidden: it is a password");
  for (const password of ["open sesame", passwords.bob]) equal(await holds(bob, password), [], "it is in");
  equal(await holds(bob, "hello from the page"), ["elements", "bytes"], "a text that is no secret is in");
  equal([...doors.program.said, ...doors.program.warned].filter((line) => /sesame|tr0ub/.test(line)), [], "what the server prints");
  await bob.click("#tab-chat");
});

step("10: three wrong passwords close the connection; the page and the account go on", async () => {
  const zoe = await open(`http://${doors.web}/`);
  await enter(zoe, "zoe");
  await shows(zoe, "#refusal", "This server wants a password.");
  for (let tries = 1; tries <= 3; tries++) {
    await logIn(zoe, `wrong ${tries}`);
    await until(`refusal ${tries}`, () => zoe.evaluate((count) => records.filter((one) => one.bytes?.[3] === 4).length === 1 + count, tries));
    await shows(zoe, "#refusal", "wrong name or password");
  }
  await until("the end", () => zoe.evaluate(() => records.some((one) => /^WebSocket closed/.test(one.words))));
  await state(zoe, "not connected");
  await shows(zoe, "#refusal", "wrong name or password");
  equal(await zoe.isVisible("#countdown"), false, "nobody tries again");
  equal(await zoe.inputValue("#name"), "zoe", "the name");
  await logIn(zoe, passwords.zoe);
  await state(zoe, "connected as zoe");
  await told(bob, "zoe joined");
  equal(await holds(zoe, passwords.zoe), [], "the password is in");
  await zoe.click("#leave");
  await told(bob, "zoe left \\(left\\)");
  equal(await zoe.evaluate(() => password), null, "the password after leaving");
  await zoe.context().close();
});

step("10: after a restart the page logs in again by itself; draft and name survive even a changed password", async () => {
  await bob.fill("#draft", "half a thought");
  await doors.program.ends();
  await terminal.says("* server is shutting down");
  equal(await terminal.ended, [0, null], "the exit of join");
  await state(bob, /^connection lost/);
  doors = await startSecure(doors.chat, doors.web);
  await state(bob, "connected as bob");
  await told(bob, "you are back as bob");
  equal(await bob.inputValue("#draft"), "half a thought", "the draft");

  await doors.program.ends();
  account("bob", "another password");
  doors = await startSecure(doors.chat, doors.web);
  await shows(bob, "#refusal", "wrong name or password");
  equal([await bob.inputValue("#name"), await bob.isVisible("#password")], ["bob", true], "name and field");
  await logIn(bob, "another password");
  await state(bob, "connected as bob");
  equal([await bob.inputValue("#draft"), await focused(bob)], ["half a thought", "draft"], "the draft, and where typing goes on");
  await bob.context().close();
  await doors.program.ends();
});

// A port that is free, below those that the system gives away by itself.
async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const probe = createServer().listen(port, "127.0.0.1");
    const free = await new Promise((done) => probe.on("listening", () => done(true)).on("error", () => done(false)));
    if (free) await new Promise((done) => probe.close(done));
    if (free) return port;
  }
}

const byTls = async () => {
  const [chat, web] = [await freePort(), await freePort()];
  doors = await startSecure("127.0.0.1:0", "127.0.0.1:0", "--tls", `${folder}/lab`, "--tls-chat", `127.0.0.1:${chat}`, "--tls-web", `127.0.0.1:${web}`);
  equal([await doors.program.says("tls chat on "), await doors.program.says("tls page on ")], [`127.0.0.1:${chat}`, `https://127.0.0.1:${web}/`], "the doors");
  for (const host of ["127.0.0.1", "localhost"]) {
    const page = await open(`https://${host}:${web}/`);
    await enter(page, "bob");
    await shows(page, "#refusal", "This server wants a password.");
    await logIn(page, "another password");
    await state(page, "connected as bob");
    equal(await page.evaluate(() => [socket.url, isSecureContext]), [`wss://${host}:${web}/chat`, true], "the WebSocket");
    if (host === "localhost") {
      const zoe = await join("zoe", passwords.zoe, `127.0.0.1:${chat}`, "--ca", `${folder}/lab/ca.pem`);
      await told(page, "zoe joined");
      await say(page, "nobody reads along");
      await zoe.says("bob: nobody reads along");
      zoe.type("really?");
      await shows(page, "#log .text:not(.own) .body", "really?");
      await zoe.ends();
      await told(page, "zoe left \\(left\\)");
    }
    await page.click("#leave");
    await page.context().close();
  }
  const stranger = await launch(process.env.HOME);
  const refused = await open(`https://localhost:${web}/`, { from: stranger }).then(() => "it loads the page", (error) => error.message);
  await stranger.close();
  equal(/ERR_CERT_AUTHORITY_INVALID/.test(refused), true, `a browser that does not know the authority: ${refused}; it was refused`);
  await doors.program.ends();
};
if (process.env.TLS) step("10: the same by TLS, in a browser that trusts our authority; another one refuses", byTls);

// --- the picture in the README ---

async function picture(file) {
  const server = await startServer();
  const page = await open(`http://${server.address}/`, { width: 1180, height: 760 });
  await enter(page, "ann");
  await state(page, "connected as ann");
  const [bob, eve] = [await Terminal.join(server.port, "bob"), await Terminal.join(server.port, "eve")];
  bob.send(TEXT, "", "Lunch at one?", { sequence: 1 });
  await shows(page, "#log .body", /Lunch/);
  await say(page, "Yes! Who else?");
  eve.send(TEXT, "", "Me. <b>Is this bold?</b>", { sequence: 1 });
  await shows(page, "#log .body", /bold/);
  await say(page, "No, it is text. Look at the bytes.");
  eve.send(LEAVE);
  await told(page, "eve left \\(left\\)");
  await page.click("#open-wire");
  bob.send(TEXT, "", "Soup is 5 €", { sequence: 2 });
  await shows(page, ".frame .size", "36 bytes");
  await page.locator('.hex [data-field="body"]').last().hover();
  await page.screenshot({ path: file });
  await server.stop();
}

// --- all of it ---

let failed = false;
if (process.argv[2] === "--picture") {
  await picture(process.argv[3]);
} else {
  for (const [what, play] of steps) {
    const start = Date.now();
    try {
      await play();
      equal(complaints, [], "the browser complains");
      console.log(`ok: ${what} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
    } catch (error) {
      console.log(`FAILED: ${what}\n${error.stack}`);
      for (const { name, warned } of Program.all) for (const line of warned) console.log(`${name}: ${line}`);
      failed = true;
      break; // one step leads to the next
    }
  }
  if (!failed) await server.stop();
  if (!process.env.TLS) console.log("NOT CHECKED: the page by TLS");
}
await browser.close();
process.exit(failed ? 1 : 0);
