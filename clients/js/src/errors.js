const RATE_LIMIT_PAUSE_MS = 1_000;

/** An error with a stable `code`. */
export class KeeplineError extends Error {
  /**
   * @param {string} code a code of the protocol (`room_ended`, `rate_limited`, …), the name of a close code
   *   (`replaced`, `origin_refused`, …) or one of the SDK (`connect_failed`, `token_failed`, `connection_lost`,
   *   `timeout`, `unknown`, `closed`, `queue_full`, `too_large`, `media_failed`, `negotiation_failed`)
   * @param {string} message for developers
   * @param {{retryAfterMs?: number, room?: string, reason?: string, status?: number, cause?: unknown}} [details]
   */
  constructor(code, message, { retryAfterMs, room, reason, status, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "KeeplineError";
    this.code = code;
    this.retryAfterMs = retryAfterMs;
    this.room = room;
    /** With `room_ended`: why the room ended. */
    this.reason = reason;
    /** With `connect_failed`: the HTTP status, if the runtime reports it. Browsers do not. */
    this.status = status;
  }

  /** @internal */
  static fromFrame({ code, message, retry_after_ms, room, reason }) {
    return new KeeplineError(String(code), String(message ?? code), { retryAfterMs: retry_after_ms, room, reason });
  }

  /** @internal */
  static fromClose(code, sentence) {
    const name = CLOSES.get(code) ?? "connection_lost";
    const retryAfterMs = name === "rate_limited" ? RATE_LIMIT_PAUSE_MS : undefined;
    return new KeeplineError(name, `The connection was closed (${code}: ${sentence || name})`, { retryAfterMs });
  }
}

/**
 * The close codes of the protocol. Other codes (1001, 1006, 1011, 1012, …) are failures of the network or of a node.
 */
export const CLOSES = new Map([
  [4400, "bad_frame"],
  [4401, "unauthorized"],
  [4403, "origin_refused"],
  [4408, "hello_timeout"],
  [4409, "replaced"],
  [4413, "too_large"],
  [4429, "rate_limited"],
  [4503, "draining"],
  [4508, "too_slow"],
]);

const FINAL = new Set(["bad_frame", "bad_request", "origin_refused", "replaced", "too_large"]);
const PASSING = new Set(["unavailable", "rate_limited", "timeout", "queue_full", "connection_lost"]);

/** Whether a connection that failed like this must `stop`, needs a `fresh_token`, or may `retry`. */
export function nextStep({ code }) {
  if (FINAL.has(code)) return "stop";
  return code === "unauthorized" ? "fresh_token" : "retry";
}

/** Whether the same request may succeed later. */
export function isPassing({ code }) {
  return PASSING.has(code);
}
