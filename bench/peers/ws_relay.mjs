// The least that lets clients in and relays, on ws: answers a hello and a join, forwards to the other of the room.
// Usage: node ws_relay.mjs PORT. No tokens, no limits, no record of the rooms.
import { WebSocketServer } from "ws";

const rooms = new Map();
const server = new WebSocketServer({ port: Number(process.argv[2]), host: "127.0.0.1", perMessageDeflate: false });

server.on("connection", (socket) => {
  let room;
  socket.on("message", (data) => {
    const text = data.toString();
    const frame = JSON.parse(text);
    if (frame.type === "hello") {
      socket.send('{"type":"welcome"}');
    } else if (frame.type === "join") {
      room = rooms.get(frame.room) ?? new Set();
      rooms.set(frame.room, room.add(socket));
      socket.send('{"type":"joined"}');
    } else if (frame.type === "signal" && room) {
      for (const peer of room) {
        if (peer !== socket) peer.send(text);
      }
    }
  });
  socket.on("close", () => room?.delete(socket));
});
