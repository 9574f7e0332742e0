// A room relay on socket.io: join a room, forward to the others in it.
// Usage: node socketio_relay.mjs PORT [REDIS_URL]. With a Redis URL its Redis adapter connects several of them.
import { createServer } from "node:http";
import { Server } from "socket.io";

const [port, redisUrl] = process.argv.slice(2);
const http = createServer();
const io = new Server(http, { transports: ["websocket"], serveClient: false });

if (redisUrl) {
  const { createClient } = await import("redis");
  const { createAdapter } = await import("@socket.io/redis-adapter");
  const publisher = createClient({ url: redisUrl });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  io.adapter(createAdapter(publisher, subscriber));
}

io.on("connection", (socket) => {
  socket.on("join", async (frame, answer) => {
    await socket.join(frame.room);
    answer({ type: "joined" });
  });
  socket.on("signal", (frame) => {
    if (socket.rooms.has(frame.room)) {
      socket.to(frame.room).emit("signal", frame);
    }
  });
});

http.listen(Number(port), "127.0.0.1");
