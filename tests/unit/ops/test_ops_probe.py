"""The health check of a container: an exit code for what the ops endpoint says."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from keepline.ops import probe
from tests.helpers.ports import free_port


class Endpoint(HTTPServer):
    """Answers every request with the same status."""

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.status = status
        self.asked: list[str] = []


class Answer(BaseHTTPRequestHandler):
    server: Endpoint

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"because")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    with Endpoint(request.param) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=10)


@pytest.mark.parametrize(("endpoint", "code"), [(200, 0), (503, 1)], indirect=["endpoint"])
def test_the_exit_code_is_readiness(
    endpoint: Endpoint, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"KEEPLINE_OPS_HOST": "0.0.0.0", "KEEPLINE_OPS_PORT": str(endpoint.server_port)}
    assert probe.main(environ) == code
    assert endpoint.asked == ["/readyz"]
    assert capsys.readouterr().err == ("because\n" if code else "")


def test_who_does_not_answer_is_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main({"KEEPLINE_OPS_PORT": str(free_port())}) == 1
    assert "ConnectionRefusedError" in capsys.readouterr().err
