"""What can go wrong for a user of the SDK: one small tree under `KeeplineError`."""

from __future__ import annotations

PASSING_CODES = frozenset({"unavailable", "rate_limited"})
"""Codes of refusals after which the same request may succeed."""


class KeeplineError(Exception):
    """The base of all errors that this package raises on purpose."""


class RequestFailed(KeeplineError):
    """The cluster refused a request, or is known to refuse it. The connection and the other rooms go on.

    `code` is one of the protocol's error codes, `retry_after` the seconds after which trying again makes
    sense, or None. With `room_ended`, `reason` says why the room has ended, where the cluster knows.
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
    """No answer came in time. Whether the request was carried out is not known."""


class ConnectionLost(KeeplineError):
    """The connection broke before the answer came. Whether the request was carried out is not known.

    The client reconnects by itself; the room's snapshot shows what has become of the request.
    """


class AttemptFailed(ConnectionLost):
    """One attempt to connect came to nothing; others follow.

    `url` is the address that was tried, `status` the HTTP status with which it refused, or None where no HTTP
    answer came, `retry_after` the seconds that it asked to wait.
    """

    def __init__(
        self, url: str, why: str, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(f"cannot connect to {url}: {why}")
        self.url = url
        self.status = status
        self.retry_after = retry_after


class ConnectionClosed(KeeplineError):
    """The client is closed for good: by the server with a close that forbids coming back, or by `close()`.

    `code` is the WebSocket close code and `reason` its text, or the server's sentence where it sent one.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"connection closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class ConnectFailed(KeeplineError):
    """No node could be reached in the time given for the first connection, or none ever can be from here.

    Its text and `__cause__` say why.
    """


class TokenUnavailable(KeeplineError):
    """The function that supplies tokens failed. Its own error is the `__cause__`."""


class CallEnded(KeeplineError):
    """The call is over, or was left: nothing can be sent any more. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the call is over: {reason}")
        self.reason = reason


class SignalQueueFull(KeeplineError):
    """Too many signals wait for the peer to take them. The signal was not queued."""


class SignalLost(KeeplineError):
    """The peer will never have the signal, or nobody can say whether it had it.

    `code` is `peer_gone` when the peer's page or program is gone, and another one may have come in its place;
    `too_large` when the node that the client came to takes less than the one before.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class ProtocolError(KeeplineError):
    """The server sent what the protocol does not allow."""
