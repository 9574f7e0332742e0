/** The demo's own server: it opens calls, hands out seats, kills nodes on request and tells what becomes of them. */

const AGAIN_MS = 1_000;
const AGAIN_AT_MOST_MS = 10_000;

/** Opens a call; `nodes` in the address says which node each side tries first. */
export function openCall() {
  const request = { chat_mode: "video", duration_seconds: 0 };
  const nodes = new URLSearchParams(location.search).get("nodes");
  if (nodes) request.nodes = nodes.split(",").map(Number);
  return post("/demo/calls", request).then(remember);
}

/** A seat in a call: the one that this tab had, or a free one. */
export function takeSeat(code) {
  const key = seatKey(code);
  return post(`/demo/calls/${encodeURIComponent(code)}/seat`, key ? { key } : {}).then(remember);
}

/** Kills a node; a seat's key for that is good for one use, and the answer brings the next one. */
export async function killNode(seat, node) {
  const { kill_key } = await post(`/demo/calls/${seat.code}/kill`, { key: seat.key, kill_key: seat.kill_key, node });
  seat.kill_key = kill_key;
}

/** Whether this tab has a seat in a call: a reload goes on where it was. */
export function seatKey(code) {
  return sessionStorage.getItem(`seat ${code}`);
}

function remember(seat) {
  sessionStorage.setItem(`seat ${seat.code}`, seat.key);
  return seat;
}

async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw Object.assign(new Error("the demo does not answer"), { code: "unreachable" });
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const { message = `the demo answered ${response.status}`, code = "unavailable" } = answer.error ?? {};
  throw Object.assign(new Error(message), { code });
}

/** Calls `listener` with what happens to the cluster's programs, until the function that it returns is called. */
export function watchCluster(listener) {
  let socket;
  let timer;
  let wait = AGAIN_MS;
  let isOver = false;
  const connect = () => {
    socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/demo/events`);
    socket.onopen = () => (wait = AGAIN_MS);
    socket.onmessage = ({ data }) => listener(JSON.parse(data));
    socket.onclose = () => {
      if (isOver) return;
      timer = setTimeout(connect, wait * (0.5 + Math.random() / 2));
      wait = Math.min(2 * wait, AGAIN_AT_MOST_MS);
    };
  };
  connect();
  return () => {
    isOver = true;
    clearTimeout(timer);
    socket.close();
  };
}
