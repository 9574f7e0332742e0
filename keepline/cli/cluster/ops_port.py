"""A client of the nodes' ops ports: `http.client` in threads, because importing an HTTP library takes longer than using
it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

HTTP_SECONDS = 5.0
MAX_ANSWER = 64 * 1024 * 1024
AT_ONCE = 64
"""Maximum number of concurrent requests."""


class NoAnswer(Exception):
    """There was no valid answer; the message says why."""


class OpsPorts:
    """A client of many nodes' ops ports. Call `close` when done."""

    def __init__(self, headers: Mapping[str, str], seconds: float = HTTP_SECONDS) -> None:
        """`headers` are sent with each request, which may take `seconds`."""
        self._headers = headers
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(AT_ONCE, "ops-port")

    async def ask(self, method: str, url: str, body: Any = None) -> tuple[int, Any]:
        """Make a request, and return the status and the parsed JSON. Raises NoAnswer."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._seconds):
                return await loop.run_in_executor(self._threads, self._ask, method, url, body)
        except TimeoutError:
            raise NoAnswer(f"{url} does not answer within {self._seconds:g} s") from None
        except (OSError, HTTPException, ValueError) as error:
            raise NoAnswer(f"{url} does not answer: {str(error) or type(error).__name__}") from None

    def close(self) -> None:
        """Cancel waiting requests and release the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, method: str, url: str, body: Any) -> tuple[int, Any]:
        parts, give_up_at = urlsplit(url), time.monotonic() + self._seconds
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=self._seconds)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        headers = {**self._headers, "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = bytearray()
            while chunk := response.read(65_536):
                answer += chunk
                if len(answer) > MAX_ANSWER or time.monotonic() > give_up_at:
                    raise ValueError(
                        f"the answer does not end within {self._seconds:g} s or {MAX_ANSWER:,} bytes"
                    )
            return response.status, json.loads(answer) if answer else None
        finally:
            connection.close()
