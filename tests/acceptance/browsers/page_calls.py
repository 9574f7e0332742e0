"""A call between two visitors of the demo page, and what becomes of the cluster under it."""

import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser

from tests.helpers.browsers import PHONE, WIDE, DemoPage, demo_page
from tests.helpers.cluster import Cluster
from tests.helpers.rows import row_becomes

ON_TWO_NODES, ON_ONE_NODE = (0, 1), (0, 0)
ACTIVE = {"status": "active", "user_1_connected": True, "user_2_connected": True, "ended_reason": None}


@dataclass
class Call:
    """A call between two visitors: Alice at her desk started it, Bob came with his phone."""

    cluster: Cluster
    alice: DemoPage
    bob: DemoPage
    room: str
    link: str

    @property
    def pages(self) -> tuple[DemoPage, DemoPage]:
        return self.alice, self.bob

    async def goes_on(self) -> None:
        """Both are connected and see each other move."""
        for page in self.pages:
            await page.shows(signaling_state="connected", media_state="connected", peer_state="joined")
            await page.sees_video()

    async def on_nodes(self, alice: int, bob: int) -> None:
        """Both pages say truly where either of them is."""
        alices, bobs = self.cluster.nodes[alice].id, self.cluster.nodes[bob].id
        await self.alice.shows(own_node=alices, peer_node=bobs)
        await self.bob.shows(own_node=bobs, peer_node=alices)

    async def chat(self, text: str, answer: str) -> None:
        """Alice writes, Bob answers when he has read it."""
        before = await self.alice.chat()
        await self.alice.say(text)
        await self.bob.chat_shows(*mirrored(before), ("peer", text))
        await self.bob.say(answer)
        await self.alice.chat_shows(*before, ("own", text), ("peer", answer))

    async def fits_its_windows(self, folder: Path) -> None:
        """Nobody has to scroll for nothing. Pictures go to `folder`, for whoever changes the page."""
        for name, page in zip(("desk", "phone"), self.pages, strict=True):
            await page.screenshot(folder / f"{name}.png")
            assert await page.fits()

    async def is_in_postgres(self, **expected: object) -> None:
        """Both nodes and the row in Postgres agree about the room, and it is as expected."""
        snapshot = await self.cluster.room(self.room, node=0)
        assert {name: snapshot[name] for name in expected} == expected
        assert [message["text"] for message in snapshot["messages"]] == [
            text for _, text in await self.alice.chat()
        ]
        await row_becomes(self.cluster.database_url, snapshot)
        assert await self.cluster.room(self.room, node=1) == snapshot


@asynccontextmanager
async def call_between(cluster: Cluster, browser: Browser, nodes: tuple[int, int]) -> AsyncIterator[Call]:
    """Start a call on one page, open its invitation on the other, and wait until both see each other."""
    async with (
        demo_page(browser, f"{cluster.demo}?nodes={nodes[0]},{nodes[1]}", WIDE) as alice,
        demo_page(browser, link := await invitation_of(alice), PHONE) as bob,
    ):
        await bob.join()
        call = Call(cluster, alice, bob, await alice.room(), link)
        await call.goes_on()
        await call.on_nodes(*nodes)
        yield call


async def invitation_of(page: DemoPage) -> str:
    await page.start_call()
    return await page.invitation()


def mirrored(chat: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A chat as the other side sees it."""
    return [("peer" if who == "own" else "own", text) for who, text in chat]


def kill(cluster: Cluster, *names: str) -> None:
    """Kill programs and servers of the cluster as they run now, which may be their second life."""
    line = cluster.line
    pids = {node["id"]: node["pid"] for node in line["nodes"]}
    pids |= {f"persister-{number}": worker["pid"] for number, worker in enumerate(line["persisters"], 1)}
    pids |= {name: line[name]["pid"] for name in ("redis", "postgres")}
    for name in names:
        restarts = re.findall(rf"{name} is running again \(pid (\d+)\)", cluster.up.messages)
        os.kill(int(restarts[-1]) if restarts else pids[name], signal.SIGKILL)
