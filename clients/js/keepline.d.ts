/** Types of the Keepline browser SDK; what each member does is written beside its code in `src/`. */

export type ConnectionState = "connecting" | "connected" | "reconnecting" | "closed";
export type PeerState = "absent" | "joined" | "reconnecting" | "away" | "left";
export type ChatMode = "video" | "text";
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** Times are ms since 1970. */
export interface ChatMessage {
  seq: number;
  /** UUID of the user who wrote it. */
  from: string;
  text: string;
  at: number;
}

/** A room as the cluster tells it; there may be more fields than these. */
export interface RoomSnapshot {
  room_id: string;
  user_1: string;
  user_2: string;
  chat_mode: ChatMode;
  status: "active" | "grace_period" | "ended";
  started_at: number;
  duration_seconds: number;
  grace_period_expires: number | null;
  user_1_connected: boolean;
  user_2_connected: boolean;
  messages: ChatMessage[];
  version: number;
  ended_reason: string | null;
  ended_at: number | null;
}

export interface HeldRoom {
  room: RoomSnapshot;
  side: 1 | 2;
  polite: boolean;
  peer: PeerState;
}

/** What a connection may send. */
export interface Limits {
  frames_per_second: number;
  frames_burst: number;
  frame_bytes: number;
  /** In code points. */
  chat_length: number;
  /** The longest key of a chat message; 0 or missing with nodes that know none. */
  chat_key?: number;
  ping_ms: number;
}

export interface Welcome {
  type: "welcome";
  user: string;
  session: string;
  resume: string;
  resumed: boolean;
  node: string;
  ice_servers: RTCIceServer[];
  rooms: HeldRoom[];
  /** Missing where the node is older than they are. */
  limits?: Limits;
}

export interface KeeplineOptions {
  /** WebSocket addresses of the cluster, most wanted first. */
  url: string | string[];
  /** JWT of the user; a function is asked before every attempt. */
  token: string | (() => string | Promise<string>);
  /** The room that will be joined first: a hint for the load balancer. */
  room?: string;
  backoff?: { baseMs?: number; capMs?: number };
}

/** Parts of the browser that can be replaced. */
export interface Environment {
  WebSocket: typeof WebSocket;
  RTCPeerConnection: typeof RTCPeerConnection | undefined;
  window: EventTarget | undefined;
  document: (EventTarget & { visibilityState: DocumentVisibilityState }) | undefined;
  random: () => number;
  /** A monotonic clock in ms. */
  now: () => number;
  /** A new random id of at most 64 characters. */
  newId: () => string;
  setTimeout: (callback: () => void, ms: number) => unknown;
  clearTimeout: (timer: unknown) => void;
}

export interface JoinOptions {
  /** What to send; can also come later by `call.setMedia`. */
  media?: MediaStream;
  /** An RTCPeerConnection of the app's own: the SDK negotiates on it, but neither configures nor closes it. */
  peerConnection?: RTCPeerConnection;
  /** Used in place of the cluster's. */
  iceServers?: RTCIceServer[];
}

export interface KeeplineEvents {
  state: { state: ConnectionState; reason?: string };
  welcome: Welcome;
  /** The node is busy: so many are served before us, which takes about so long. */
  queued: { ahead: number; wait_ms: number };
  ice: { ice_servers: RTCIceServer[] };
  /** What went wrong; one for each attempt to connect that failed. */
  error: KeeplineError;
}

export interface CallEvents {
  /** The room is held; `again` after a reconnect. */
  joined: HeldRoom & { again: boolean };
  peer: { state: "joined" | "reconnecting" | "reconnected" | "away" | "left"; grace_ms?: number };
  /** The peer's page was loaded anew. With an own `peerConnection`, pass a new one to `usePeerConnection`. */
  peerchanged: { stream: string };
  peerconnection: { peerConnection: RTCPeerConnection };
  track: { track: MediaStreamTrack; streams: readonly MediaStream[]; transceiver: RTCRtpTransceiver };
  connectionstate: { state: RTCPeerConnectionState };
  chat: { message: ChatMessage; own: boolean };
  typing: object;
  data: Json;
  mode: { action: "request" | "accept" | "decline" };
  inactivity: { state: "warning" | "cleared"; ends_in_ms?: number };
  ending: { ends_in_ms: number };
  /** A reason of the room (`hangup`, `grace_expired`, …), of this side (`left`, `closed`), a close or error code. */
  ended: { reason: string };
  error: KeeplineError;
}

declare class Emitter<Events> {
  /** Calls `listener` with the detail of each event; returns a function that ends it. */
  on<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): () => void;
  addEventListener<Name extends keyof Events>(name: Name, listener: Listener<Events, Name>): void;
  removeEventListener<Name extends keyof Events>(name: Name, listener: Listener<Events, Name>): void;
}

type Listener<Events, Name extends keyof Events> = (event: { type: Name; detail: Events[Name] }) => void;

export class KeeplineError extends Error {
  constructor(
    code: string,
    message: string,
    details?: { retryAfterMs?: number; room?: string; reason?: string; status?: number; cause?: unknown },
  );
  readonly name: "KeeplineError";
  readonly code: string;
  readonly retryAfterMs: number | undefined;
  readonly room: string | undefined;
  /** With `room_ended`: why the room ended. */
  readonly reason: string | undefined;
  /** With `connect_failed`: the HTTP status, where the runtime tells it. Browsers do not. */
  readonly status: number | undefined;
}

/** A room that is held, with its media, until `ended`. Made by `Keepline.join`. */
export class Call extends Emitter<CallEvents> {
  private constructor();
  readonly roomId: string;
  readonly room: RoomSnapshot | null;
  readonly side: 1 | 2 | null;
  readonly polite: boolean | null;
  readonly peerState: PeerState;
  readonly endedReason: string | null;
  /** Resolves when the room is held for the first time. */
  readonly ready: Promise<Call>;
  readonly peerConnection: RTCPeerConnection | null;
  addTrack(track: MediaStreamTrack, ...streams: MediaStream[]): void;
  setMedia(stream: MediaStream | null): Promise<void>;
  usePeerConnection(pc: RTCPeerConnection): void;
  /** `key`: the same one is the same message; drawn at random otherwise. */
  chat(text: string, options?: { key?: string }): Promise<ChatMessage>;
  typing(): void;
  /** Resolves when the peer has it; the promise may be ignored. */
  send(data: Json): Promise<void>;
  /** Rejects with `timeout` when the server could not be told within 10 s; it is told once it can be reached. */
  hangUp(): Promise<void>;
  /** As `hangUp`. */
  leave(): Promise<void>;
  requestVideo(): Promise<void>;
  acceptVideo(): Promise<void>;
  declineVideo(): Promise<void>;
  /** Tells the app's moderators about the peer, also after the end. */
  report(reason: string): Promise<void>;
}

/** The connection to the cluster, which comes back by itself. */
export class Keepline extends Emitter<KeeplineEvents> {
  /** @throws {TypeError} when an address is not a `ws:` or `wss:` URL, or the runtime has no WebSocket */
  constructor(options: KeeplineOptions, environment?: Partial<Environment>);
  readonly state: ConnectionState;
  readonly node: string | null;
  readonly user: string | null;
  connect(): Promise<Welcome>;
  close(): void;
  /** A room that is held already gives the same call, with what `options` add. */
  join(roomId: string, options?: JoinOptions): Call;
  /** Tells the app's moderators about the other member of a room. */
  report(roomId: string, reason: string): Promise<void>;
}

export {};
