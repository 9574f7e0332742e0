"""Where clients come in, and where operators' commands find a node."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from keepline.ops.settings import NodeSettings, SettingsError, load
from signal_node.app import advertised

NODE = {"REDIS_URL": "redis://localhost", "KEEPLINE_AUTH_SECRET": "s" * 32}


def settings(**environ: str) -> NodeSettings:
    return load(NodeSettings, NODE | environ)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://127.0.0.1:9000"),
        ({"KEEPLINE_OPS_HOST": "10.0.0.7"}, "http://10.0.0.7:9000"),
        ({"KEEPLINE_OPS_HOST": "::1"}, "http://[::1]:9000"),
        ({"KEEPLINE_OPS_HOST": "0.0.0.0"}, "http://172.20.0.5:9000"),
        ({"KEEPLINE_OPS_HOST": "::"}, "http://172.20.0.5:9000"),
        ({"KEEPLINE_OPS_ADVERTISE": "node-1.internal"}, "http://node-1.internal:9000"),
        ({"KEEPLINE_OPS_ADVERTISE": "node-1.internal:81"}, "http://node-1.internal:81"),
        ({"KEEPLINE_OPS_ADVERTISE": "[fd00::7]:81"}, "http://[fd00::7]:81"),
    ],
)
def test_where_the_ops_port_is(environ: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "172.20.0.5")
    assert advertised(settings(**environ), 9000) == url


def test_a_host_that_does_not_know_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> Any:
        raise OSError("no such host")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    assert advertised(settings(KEEPLINE_OPS_HOST="0.0.0.0"), 9000) == "http://127.0.0.1:9000"


@pytest.mark.parametrize("address", ["http://host", "host/path", "host:many", "host:0", "user@host", ":81"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(SettingsError, match="KEEPLINE_OPS_ADVERTISE: should be a host"):
        settings(KEEPLINE_OPS_ADVERTISE=address)
