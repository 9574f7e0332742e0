"""The client of nodes' ops ports, against real sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from keepline.cli.cluster import ops_port
from keepline.cli.cluster.ops_port import NoAnswer, OpsPorts
from tests.helpers.ports import free_port

SHORT_SECONDS = 0.2


class Handler(BaseHTTPRequestHandler):
    """Answers by path; the last request is kept for the test."""

    last: ClassVar[dict[str, Any]] = {}
    may_end = threading.Event()

    def do_GET(self) -> None:
        self._note(None)
        if self.path == "/silent":
            self.may_end.wait(10)
        self._answer(200, b"<html>" if self.path == "/html" else json.dumps({"path": self.path}).encode())

    def do_POST(self) -> None:
        self._note(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(404, b'{"error": {"message": "no such room"}}')

    def _note(self, body: Any) -> None:
        Handler.last = {"key": self.headers["Authorization"], "body": body}

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    Handler.may_end.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        Handler.may_end.set()
        server.shutdown()


@pytest.fixture
def ports() -> Iterator[OpsPorts]:
    ports = OpsPorts({"Authorization": "Bearer key"})
    yield ports
    ports.close()


async def test_an_answer_with_its_status(url: str, ports: OpsPorts) -> None:
    assert await ports.ask("GET", f"{url}/v1/rooms?status=open") == (200, {"path": "/v1/rooms?status=open"})
    assert Handler.last["key"] == "Bearer key"
    status, answer = await ports.ask("POST", f"{url}/v1/rooms", {"seconds": 5})
    assert (status, answer["error"]["message"]) == (404, "no such room")
    assert Handler.last["body"] == {"seconds": 5}


async def test_nobody_is_there(ports: OpsPorts) -> None:
    with pytest.raises(NoAnswer, match=r"does not answer: .*refused"):
        await ports.ask("GET", f"http://127.0.0.1:{free_port()}/healthz")


async def test_an_answer_that_is_no_json(url: str, ports: OpsPorts) -> None:
    with pytest.raises(NoAnswer, match="does not answer"):
        await ports.ask("GET", f"{url}/html")


async def test_an_answer_that_is_too_large(
    url: str, ports: OpsPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops_port, "MAX_ANSWER", 5)
    with pytest.raises(NoAnswer, match="5 bytes"):
        await ports.ask("GET", url)


async def test_a_node_that_says_nothing(url: str) -> None:
    ports = OpsPorts({}, SHORT_SECONDS)
    with pytest.raises(NoAnswer, match=f"within {SHORT_SECONDS} s|timed out"):
        await ports.ask("GET", f"{url}/silent")
    ports.close()
