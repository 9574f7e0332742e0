"""The exceptions of the SDK: one small tree under `KeeplineError`."""

from __future__ import annotations

PASSING_CODES = frozenset({"unavailable", "rate_limited"})
"""Codes of refusals after which the same request may succeed later."""


class KeeplineError(Exception):
    """The base of all exceptions that this package raises on purpose."""


class RequestFailed(KeeplineError):
    """The cluster refused a request, or would refuse it. The connection and the other rooms continue.

    `code` is one of the protocol's error codes. `retry_after` is the number of seconds after which a retry makes sense,
    or None. With `room_ended`, `reason` says why the room ended, if the cluster knows.
    """

    def __init__(
        self, code: str, message: str, retry_after: float | None = None, reason: str | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.reason = reason


class RequestTimedOut(KeeplineError, TimeoutError):
    """No answer came in time. It is unknown whether the request was carried out."""


class ConnectionLost(KeeplineError):
    """The connection broke before the answer. It is unknown whether the request was carried out.

    The client reconnects automatically. The room's snapshot then shows the result of the request.
    """


class AttemptFailed(ConnectionLost):
    """One attempt to connect failed; others follow.

    `url` is the address, `status` the HTTP status of the refusal, or None if there was no HTTP answer, `retry_after`
    the number of seconds that the server asked to wait.
    """

    def __init__(
        self, url: str, why: str, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(f"cannot connect to {url}: {why}")
        self.url = url
        self.status = status
        self.retry_after = retry_after


class ConnectionClosed(KeeplineError):
    """The client is closed for good: by the server with a close that forbids reconnecting, or by `close()`.

    `code` is the WebSocket close code. `reason` is its text, or the server's error message if it sent one.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"connection closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class ConnectFailed(KeeplineError):
    """No node could be reached in the time for the first connection, or none can ever be reached from here.

    The message and `__cause__` say why.
    """


class TokenUnavailable(KeeplineError):
    """The function that supplies tokens failed. Its exception is the `__cause__`."""


class CallEnded(KeeplineError):
    """The call has ended, or was left: nothing can be sent any more. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the call is over: {reason}")
        self.reason = reason


class SignalQueueFull(KeeplineError):
    """Too many signals wait for the peer to take them. The signal was not queued."""


class SignalLost(KeeplineError):
    """The peer will never have the signal, or it is unknown whether it had it.

    `code` is `peer_gone` if the peer's page or program is gone, possibly replaced by another one; `too_large` if the
    client moved to a node with a smaller frame limit.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class ProtocolError(KeeplineError):
    """The server violated the protocol."""
