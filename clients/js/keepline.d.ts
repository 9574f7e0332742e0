/** Types of the Keepline browser SDK. The code in `src/` documents each member. */

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

/** A snapshot of a room. It may have more fields than these. */
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

/** Limits on what a connection may send. */
export interface Limits {
  frames_per_second: number;
  frames_burst: number;
  frame_bytes: number;
  /** In code points. */
  chat_length: number;
  /** Maximum length of a chat message's key; 0 or missing if the node does not support keys. */
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
  /** Missing on older nodes. */
  limits?: Limits;
}

export interface KeeplineOptions {
  /** WebSocket addresses of the cluster, preferred ones first. */
  url: string | string[];
  /** JWT of the user; a function is called before every attempt. */
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
  /** Media to send. Can be set later with `call.setMedia`. */
  media?: MediaStream;
  /** The app's own RTCPeerConnection: the SDK negotiates on it, but neither configures nor closes it. */
  peerConnection?: RTCPeerConnection;
  /** Used instead of the cluster's. */
  iceServers?: RTCIceServer[];
}

export interface KeeplineEvents {
  state: { state: ConnectionState; reason?: string };
  welcome: Welcome;
  /** The node is busy: `ahead` clients are served first, which takes about `wait_ms`. */
  queued: { ahead: number; wait_ms: number };
  ice: { ice_servers: RTCIceServer[] };
  /** An error; one for each failed connection attempt. */
  error: KeeplineError;
}

export interface CallEvents {
  /** The room was joined; `again` after a reconnect. */
  joined: HeldRoom & { again: boolean };
  peer: { state: "joined" | "reconnecting" | "reconnected" | "away" | "left"; grace_ms?: number };
  /** The peer's page was reloaded. If the app has its own `peerConnection`, pass a new one to `usePeerConnection`. */
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
  /** Calls `listener` with the detail of each event. Returns a function that removes it. */
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
  /** With `connect_failed`: the HTTP status, if the runtime reports it. Browsers do not. */
  readonly status: number | undefined;
}

/** A joined room with its media, until `ended`. Created by `Keepline.join`. */
export class Call extends Emitter<CallEvents> {
  private constructor();
  readonly roomId: string;
  readonly room: RoomSnapshot | null;
  readonly side: 1 | 2 | null;
  readonly polite: boolean | null;
  readonly peerState: PeerState;
  readonly endedReason: string | null;
  /** Resolves when the room is joined for the first time. */
  readonly ready: Promise<Call>;
  readonly peerConnection: RTCPeerConnection | null;
  addTrack(track: MediaStreamTrack, ...streams: MediaStream[]): void;
  setMedia(stream: MediaStream | null): Promise<void>;
  usePeerConnection(pc: RTCPeerConnection): void;
  /** Calls with the same `key` are the same message. Random by default. */
  chat(text: string, options?: { key?: string }): Promise<ChatMessage>;
  typing(): void;
  /** Resolves when the peer has the data. The promise may be ignored. */
  send(data: Json): Promise<void>;
  /** Rejects with `timeout` if the server is unreachable for 10 s. It is told as soon as it is reachable. */
  hangUp(): Promise<void>;
  /** Like `hangUp`. */
  leave(): Promise<void>;
  requestVideo(): Promise<void>;
  acceptVideo(): Promise<void>;
  declineVideo(): Promise<void>;
  /** Reports the peer to the app's moderators, even after the end. */
  report(reason: string): Promise<void>;
}

/** The connection to the cluster. Reconnects automatically. */
export class Keepline extends Emitter<KeeplineEvents> {
  /** @throws {TypeError} if an address is not a `ws:` or `wss:` URL, or the runtime has no WebSocket */
  constructor(options: KeeplineOptions, environment?: Partial<Environment>);
  readonly state: ConnectionState;
  readonly node: string | null;
  readonly user: string | null;
  connect(): Promise<Welcome>;
  close(): void;
  /** For a room that was joined already, returns the same call and applies `options` to it. */
  join(roomId: string, options?: JoinOptions): Call;
  /** Reports the other member of a room to the app's moderators. */
  report(roomId: string, reason: string): Promise<void>;
}

export {};
