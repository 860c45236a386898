// Node's `ws` as a peer of the tests.
//
//   node peer.js server [CERTIFICATE KEY]     echoes, and prints its port and how connections end
//   node peer.js client URI [CA]              does what stdin says, one JSON line each, and prints what comes
"use strict";
const fs = require("fs");
const { WebSocket, WebSocketServer } = require("ws");

const [role, ...options] = process.argv.slice(2);
const print = (...values) => process.stdout.write(JSON.stringify(values) + "\n");
const limits = { perMessageDeflate: false, maxPayload: 4 * 2 ** 20 };

function sendFragments(socket, pieces) {
  pieces.forEach((piece, i) => socket.send(piece, { fin: i === pieces.length - 1 }));
}

if (role === "server") {
  const [cert, key] = options.map((path) => fs.readFileSync(path));
  const server = cert ? require("https").createServer({ cert, key }) : require("http").createServer();
  new WebSocketServer({ server, ...limits }).on("connection", (socket) => {
    socket.on("close", (code, reason) => print(code, reason.toString()));
    socket.on("message", (data, isBinary) => {
      const words = isBinary ? [] : data.toString().split(" ");
      if (words[0] === "fragments") sendFragments(socket, words.slice(1));
      else if (words[0] === "close") socket.close(Number(words[1]), words[2]);
      else socket.send(data, { binary: isBinary });
    });
  });
  server.listen(0, "127.0.0.1", () => print(server.address().port));
} else {
  const [uri, ca] = options;
  const socket = new WebSocket(uri, { ...limits, ca: ca && fs.readFileSync(ca) });
  socket.on("message", (data, isBinary) => print("message", isBinary, data.toString("base64")));
  socket.on("pong", () => print("pong"));
  socket.on("close", (code, reason) => print("close", code, reason.toString()));
  socket.on("open", () => {
    require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
      const [action, ...values] = JSON.parse(line);
      if (action === "text") socket.send(values[0]);
      else if (action === "binary") socket.send(Buffer.from(values[0], "base64"));
      else if (action === "fragments") sendFragments(socket, values);
      else if (action === "ping") socket.ping();
      else if (action === "close") socket.close(...values);
    });
  });
}
