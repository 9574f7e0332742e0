"""The code of the README is a call: its backend opens the room, its lines show the video in two browsers."""

from __future__ import annotations

import asyncio
import re
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from tests.helpers.browsers import MEDIA_SECONDS
from tests.helpers.cluster import Cluster
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

README = (Path(__file__).resolve().parents[3] / "README.md").read_text()


def code(language: str) -> str:
    """The block of code in the section "Use it"."""
    section = README.split("\n## Use it\n", 1)[1].split("\n## ", 1)[0]
    (block,) = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return str(block)


async def runs(page: Page, token: str, room: str, url: str) -> None:
    """Run the browser's lines in a page that has what they name."""
    lines = code("js")
    assert "ws://127.0.0.1:8080/v1" in lines
    await page.evaluate(
        """([token, room]) => {
            document.body.innerHTML = "<video id=remoteVideo autoplay muted></video>";
            Object.assign(window, { token, room, ended: null, showEnd: (reason) => (ended = reason) });
        }""",
        [token, room],
    )
    await page.add_script_tag(content=lines.replace("ws://127.0.0.1:8080/v1", url), type="module")


async def sees_video(page: Page) -> None:
    async def does() -> bool:
        return bool(await page.evaluate("remoteVideo.videoWidth > 0 && remoteVideo.currentTime > 0"))

    await eventually(does, timeout=MEDIA_SECONDS, interval=0.1, what="the other side's video is shown")


async def test_its_lines_are_a_call(
    two_nodes: Cluster, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPLINE_SERVICE_KEY", two_nodes.line["service_key"])
    monkeypatch.setenv("KEEPLINE_AUTH_SECRET", two_nodes.line["auth_secret"])
    backend = code("python")
    assert "http://127.0.0.1:8081" in backend
    names: dict[str, Any] = {}
    exec(backend.replace("http://127.0.0.1:8081", two_nodes.nodes[0].http), names)
    caller, callee = str(uuid.uuid4()), str(uuid.uuid4())
    room, *tokens = await asyncio.to_thread(names["start_call"], caller, callee)
    async with AsyncExitStack() as stack:
        pages = []
        for token, node in zip(tokens, two_nodes.nodes, strict=True):
            context = await browser.new_context(bypass_csp=True)
            stack.push_async_callback(context.close)
            page = await context.new_page()
            await page.goto(
                f"{two_nodes.demo}keepline.js"
            )  # a page of an origin that has the SDK, and nothing else
            await runs(page, token, room, node.ws)
            pages.append(page)
        for page in pages:
            await sees_video(page)
        await two_nodes.end_room(room)
        for page in pages:
            await eventually(lambda: page.evaluate("ended === 'deleted'"), what="it is told of the end")  # noqa: B023
