// Node's `ws` as a peer of the tests. It does what stdin says, one JSON line each, and prints what happens.
//
//   ["serve", DEFLATE, CERTIFICATE, KEY]   echoes, and prints its port and how connections end
//   ["stop"]                               ends that
//   ["connect", URI, DEFLATE, CA]          opens a connection; the other actions are for this one
"use strict";
const fs = require("fs");
const { WebSocket, WebSocketServer } = require("ws");

const print = (...values) => process.stdout.write(JSON.stringify(values) + "\n");
const read = (path) => path && fs.readFileSync(path);
const limits = { maxPayload: 4 * 2 ** 20 };
let server, sockets, socket;

function sendFragments(socket, pieces) {
  pieces.forEach((piece, i) => {
    if (piece === "(ping)") socket.ping("between");
    else socket.send(piece, { fin: i === pieces.length - 1 });
  });
}

const actions = {
  serve(perMessageDeflate, cert, key) {
    print("started");
    server = cert
      ? require("https").createServer({ cert: read(cert), key: read(key) })
      : require("http").createServer();
    sockets = new WebSocketServer({ server, perMessageDeflate, ...limits });
    sockets.on("connection", (socket) => {
      socket.on("close", (code, reason) => print("end", code, reason.toString()));
      socket.on("message", (data, isBinary) => {
        const words = isBinary ? [] : data.toString().split(" ");
        if (words[0] === "fragments") sendFragments(socket, words.slice(1));
        else if (words[0] === "close") socket.close(Number(words[1]), words[2]);
        else socket.send(data, { binary: isBinary });
      });
    });
    server.listen(0, "127.0.0.1", () => print("port", server.address().port));
  },
  stop() {
    sockets.clients.forEach((socket) => socket.terminate());
    server.close(() => print("stopped"));
  },
  connect(uri, perMessageDeflate, ca) {
    if (socket) socket.removeAllListeners().on("error", () => {}).terminate();
    print("started");
    socket = new WebSocket(uri, { perMessageDeflate, ca: read(ca), ...limits });
    socket.on("open", () => print("open"));
    socket.on("error", (error) => print("error", error.message));
    socket.on("message", (data, isBinary) => print("message", isBinary, data.toString("base64")));
    socket.on("pong", (data) => data.toString() === "between" || print("pong"));
    socket.on("close", (code, reason) => print("close", code, reason.toString()));
  },
  text: (data) => socket.send(data),
  binary: (data) => socket.send(Buffer.from(data, "base64")),
  fragments: (...pieces) => sendFragments(socket, pieces),
  ping: () => socket.ping(),
  close: (code, reason) => socket.close(code, reason),
};

require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const [action, ...values] = JSON.parse(line);
  try {
    actions[action](...values);
  } catch (error) {
    print("error", error.message);
  }
});
