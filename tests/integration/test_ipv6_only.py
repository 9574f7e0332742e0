"""A host that has only IPv6: a network namespace of its own, whose loopback has no other address."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

WITHOUT_IPV4 = "ip link set lo up && ip addr del 127.0.0.1/8 dev lo && ip -6 addr show dev lo | grep -q ::1"


async def in_namespace(command: str, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(
            "unshare",
            "--map-root-user",
            "--net",
            "sh",
            "-c",
            f"{WITHOUT_IPV4} && {command}",
            "sh",
            *arguments,
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, out.decode(), said.decode()


@pytest.mark.timeout(150)
async def test_nodes_serve_and_are_found_where_there_is_no_ipv4(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("no unshare or no ip (util-linux, iproute2) is on this machine")
    code, _, said = await in_namespace("true")
    if code:
        pytest.skip(f"no host with IPv6 only can be made here: {said.strip()[:200]}")
    program = "exec " + '"$@"'
    code, out, said = await in_namespace(
        program, sys.executable, "-m", "tests.integration.ipv6_only_host", str(tmp_path)
    )
    assert code == 0, said
    found = json.loads(out)
    nodes = {node["node"]: node for node in found["status"]["nodes"]}
    assert {name: node["state"] for name, node in nodes.items()} == {"node-1": "ready", "node-2": "ready"}
    assert all(node["ops"].startswith("http://[::1]:") for node in nodes.values())
    assert '"ops":"http://[::1]:' in found["log"]
