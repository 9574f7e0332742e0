export const ABNORMAL_CLOSURE = 1006;

/** Something that went wrong, with a stable `code` to decide by. */
export class KeeplineError extends Error {
  /**
   * @param {string} code a code of the protocol (`room_ended`, `rate_limited`, …) or of the SDK (`timeout`,
   *   `connection_lost`, `closed`, `queue_full`, `too_large`, `token_failed`, `negotiation_failed`, …)
   * @param {string} message for a developer's eyes
   * @param {{retryAfterMs?: number, room?: string, cause?: unknown}} [details]
   */
  constructor(code, message, { retryAfterMs, room, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "KeeplineError";
    this.code = code;
    this.retryAfterMs = retryAfterMs;
    this.room = room;
  }

  /** @internal */
  static fromFrame({ code, message, retry_after_ms, room }) {
    return new KeeplineError(String(code), String(message ?? code), { retryAfterMs: retry_after_ms, room });
  }
}

/**
 * What a close code of the protocol asks of a client. Codes that are not listed (1001, 1006, 1011, 1012, …) are
 * accidents of the network or of a node: another attempt is always right.
 */
export const CLOSES = new Map([
  [4400, { reason: "bad_frame", next: "stop" }],
  [4401, { reason: "unauthorized", next: "fresh_token" }],
  [4403, { reason: "origin_refused", next: "stop" }],
  [4408, { reason: "hello_timeout", next: "retry" }],
  [4409, { reason: "replaced", next: "stop" }],
  [4413, { reason: "too_large", next: "stop" }],
  [4429, { reason: "rate_limited", next: "retry_later" }],
  [4503, { reason: "draining", next: "retry" }],
  [4508, { reason: "too_slow", next: "retry" }],
]);

export const PASSING_ERRORS = new Set(["unavailable", "rate_limited", "timeout", "queue_full"]);
export const ACCIDENT = { reason: "connection_lost", next: "retry" };
