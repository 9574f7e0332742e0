"""The browser SDK on bad days, in real Chromium against real nodes, where the browser decides what happens."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.helpers.browsers import Side
from tests.helpers.cluster import Cluster, running_cluster
from tests.helpers.coturn import PROGRAM as TURN_PROGRAM
from tests.helpers.coturn import Coturn, coturn
from tests.helpers.fault_proxy import FaultProxy
from tests.helpers.sdk_pages import SdkPage, sdk_page

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEALED_SECONDS = 20.0
SECRET = "a-secret-that-the-turn-server-shares"
PEER_IS_THERE = "call.peerState === 'joined'"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def turn(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Coturn | None]:
    """A TURN server that may be killed and started again; None where none is installed."""
    if TURN_PROGRAM is None:
        yield None
        return
    folder: Path = tmp_path_factory.mktemp("coturn")
    async with coturn(folder, SECRET, for_peers_here=True) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(turn: Coturn | None) -> AsyncIterator[Cluster]:
    """Two nodes that tell clients of the TURN server."""
    environ = {"KEEPLINE_TURN_URLS": turn.url, "KEEPLINE_TURN_SECRET": SECRET} if turn else {}
    async with running_cluster(nodes=2, environ=environ) as cluster:
        yield cluster


async def sides(cluster: Cluster) -> tuple[Side, Side]:
    """Both sides of a new room; the first prefers the first node, the second the second one."""
    users = uuid.uuid4(), uuid.uuid4()
    room = (await cluster.open_room(*users))["room_id"]
    urls = [node.ws for node in cluster.nodes]
    alice, bob = (
        Side(room, str(user), cluster.token(user), order)
        for user, order in zip(users, (urls, urls[::-1]), strict=True)
    )
    return alice, bob


@asynccontextmanager
async def behind_proxy(side: Side, *, alone: bool = False) -> AsyncIterator[tuple[Side, FaultProxy]]:
    """The same side, whose preferred node is behind a proxy; `alone`: that is the only one it knows."""
    target = urlsplit(side.urls[0])
    assert target.hostname is not None
    assert target.port is not None
    async with FaultProxy(target.hostname, target.port) as proxy:
        urls = [f"ws://127.0.0.1:{proxy.port}/v1", *([] if alone else side.urls[1:])]
        yield Side(side.room, side.user, side.token, urls), proxy


@asynccontextmanager
async def pages(
    browser: Browser, cluster: Cluster, count: int, **options: Any
) -> AsyncIterator[list[SdkPage]]:
    """So many visitors."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(sdk_page(browser, cluster.demo, **options)) for _ in range(count)
        ]


async def meet(*both: SdkPage) -> None:
    """Wait until both know that the other is there."""
    for page in both:
        await page.until(PEER_IS_THERE, what="the peer is there")


async def ends_and_states(page: SdkPage) -> tuple[list[str], list[str]]:
    """What a page was told of its call's end, and the states of its client."""
    ended = [event["reason"] for event in await page.told("ended")]
    return ended, [event["state"] for event in await page.told("state")]


@pytest.mark.timeout(240)
async def test_what_dies_in_silence_is_noticed_and_healed(
    cluster: Cluster, turn: Coturn | None, browser: Browser
) -> None:
    """Both wait for the most part: they wait together."""
    healing = [half_open_socket(cluster, browser)]
    if turn is not None:
        healing.append(dead_paths(cluster, turn, browser))
    await asyncio.gather(*healing)


async def dead_paths(cluster: Cluster, turn: Coturn, browser: Browser) -> None:
    """Paths that die under ICE, with the socket cut or not, and with a peer that has no SDK."""
    # The one without SDK is impolite: one that takes back its first offer gets into trouble with Chromium.
    (alice, bob), (dave, carol) = await sides(cluster), await sides(cluster)
    async with (
        pages(browser, cluster, 4, relay_only=True) as everybody,
        behind_proxy(alice) as (alice, proxy),
    ):
        alices, bobs, carols, bare = everybody
        await asyncio.gather(
            alices.enter(alice, media=True),
            bobs.enter(bob, media=True),
            carols.enter(carol, media=True),
            bare.enter_without_sdk(dave),
        )
        await asyncio.gather(*(page.sees_video() for page in everybody))

        # Every allocation of the TURN server is gone; Alice's socket as well.
        await turn.kill()
        proxy.reset()
        await turn.start()
        # What was on its way may still be decoded: more than that has to come.
        await asyncio.gather(*(page.sees_video(more_frames=30, timeout=HEALED_SECONDS) for page in everybody))
        for page in (alices, bobs, carols):
            assert (await ends_and_states(page))[0] == []


async def half_open_socket(cluster: Cluster, browser: Browser) -> None:
    """Not a byte comes through any more, and nobody says so: the call goes on over the other node."""
    alice, bob = await sides(cluster)
    async with (
        pages(browser, cluster, 2) as (alices, bobs),
        behind_proxy(alice) as (alice, proxy),
    ):
        await alices.enter(alice)
        await bobs.enter(bob)
        await meet(alices, bobs)
        for direction in (proxy.to_server, proxy.to_client):
            direction.hold()
        await alices.until(
            "told.filter(([name, it]) => name === 'state' && it.state === 'connected').length === 2",
            what="Alice is connected again",
            timeout=HEALED_SECONDS,
        )
        assert await alices.get("client.node") == cluster.nodes[1].id
        await alices.run("call.send('here again')")
        await bobs.until("told.some(([name, it]) => it === 'here again')", what="Bob hears her")
        assert [(await ends_and_states(page))[0] for page in (alices, bobs)] == [[], []]


async def test_the_device_that_comes_back_by_itself_does_not_throw_out_the_one_in_use(
    cluster: Cluster, browser: Browser
) -> None:
    alice, bob = await sides(cluster)
    async with (
        pages(browser, cluster, 3) as (phone, laptop, bobs),
        behind_proxy(alice, alone=True) as (alices_phone, proxy),
    ):
        await phone.enter(alices_phone)
        await bobs.enter(bob)
        await meet(phone, bobs)
        proxy.cut()
        await laptop.enter(alice)
        await laptop.run("call.send('from the laptop')")
        await bobs.until("told.some(([name, it]) => it === 'from the laptop')", what="Bob hears the laptop")
        proxy.restore()
        await phone.until("client.state === 'closed'", what="the phone gives way")
        assert (await ends_and_states(phone))[0] == ["replaced"]
        assert await ends_and_states(laptop) == ([], ["connecting", "connected"])

        # Its user takes it up again: then it is what Bob hears.
        await phone.enter(alices_phone)
        await phone.run("call.send('from the phone')")
        await bobs.until("told.some(([name, it]) => it === 'from the phone')", what="Bob hears the phone")
        await laptop.until("client.state === 'closed'", what="the laptop gives way")


async def test_a_full_queue_arrives_in_order_after_one_reconnect(cluster: Cluster, browser: Browser) -> None:
    alice, bob = await sides(cluster)
    async with (
        pages(browser, cluster, 2) as (alices, bobs),
        behind_proxy(alice, alone=True) as (alice, proxy),
    ):
        await alices.enter(alice)
        await bobs.enter(bob)
        await meet(alices, bobs)
        proxy.cut()
        await alices.until("client.state === 'reconnecting'", what="Alice is away")
        await alices.run("for (let i = 0; i < 256; i += 1) call.send(i)")
        proxy.restore()
        await bobs.until("told.filter(([name]) => name === 'data').length >= 256", what="all 256 have come")
        assert await bobs.told("data") == list(range(256))
        states = (await ends_and_states(alices))[1]
        assert states == ["connecting", "connected", "reconnecting", "connected"]
        assert {error["code"] for error in await alices.told("error")} <= {"connect_failed"}


async def test_both_pages_reload_at_once_and_the_call_goes_on(cluster: Cluster, browser: Browser) -> None:
    alice, bob = await sides(cluster)
    async with pages(browser, cluster, 2) as (alices, bobs):
        await asyncio.gather(alices.enter(alice, media=True), bobs.enter(bob, media=True))
        await asyncio.gather(alices.sees_video(), bobs.sees_video())
        await asyncio.gather(alices.reload(), bobs.reload())
        await asyncio.gather(alices.enter(alice, media=True), bobs.enter(bob, media=True))
        await asyncio.gather(alices.sees_video(), bobs.sees_video())
        assert [(await ends_and_states(page))[0] for page in (alices, bobs)] == [[], []]


async def test_mistakes_of_an_app_end_no_call(cluster: Cluster, browser: Browser) -> None:
    alice, bob = await sides(cluster)
    async with pages(browser, cluster, 2) as (alices, bobs):
        # The same tracks by join, by addTrack and by setMedia, and three of them on both sides at once.
        for page, side in ((alices, alice), (bobs, bob)):
            await page.connect(side)
            await page.run(
                f"""const media = await camera();
                const [track] = media.getTracks();
                for (let i = 0; i < 2; i += 1) media.addTrack(track.clone());
                join("{side.room}", {{ media }});
                for (const again of media.getTracks()) call.addTrack(again, media);
                await call.setMedia(media);
                await call.ready;"""
            )
        for page in (alices, bobs):
            await page.until(
                "told.filter(([name]) => name === 'track').length >= 3", what="three tracks come"
            )
            await page.sees_video()
            assert await page.get("call.peerConnection.getSenders().length") == 3

        # An offer that no frame holds is taken back and told; the media that flow go on.
        await alices.run("for (let i = 0; i < 40; i += 1) call.peerConnection.addTransceiver('video')")
        await alices.until(
            "told.some(([name, it]) => name === 'error' && it.code === 'too_large')", what="told"
        )
        await alices.until("call.peerConnection.signalingState === 'stable'", what="the offer is taken back")
        for page in (alices, bobs):
            await page.sees_video()
            assert await page.get("call.peerConnection.signalingState") == "stable"

        # Eleven chats that are too long, or cut through an emoji.
        codes = await alices.get(
            """Promise.all(Array.from({ length: 11 }, (_, i) =>
              call.chat(i % 2 ? "x".repeat(501) : "\\ud83d").catch(({ code }) => code)))"""
        )
        assert codes == ["bad_request"] * 11
        await alices.run("await call.chat('\\u{1F680}'.repeat(500))")
        assert [(await ends_and_states(page))[0] for page in (alices, bobs)] == [[], []]


async def test_ice_servers_that_the_browser_refuses_give_the_side_back(
    cluster: Cluster, browser: Browser
) -> None:
    alice, bob = await sides(cluster)
    async with pages(browser, cluster, 2) as (alices, bobs):
        await bobs.enter(bob)
        await alices.connect(alice)
        await alices.run(f"join('{alice.room}', {{ iceServers: [{{ urls: 'stn:one.example' }}] }})")
        await alices.until("call.endedReason === 'media_failed'", what="the call is over")
        ((error,), ended) = await alices.told("error"), await alices.told("ended")
        assert error["code"] == "media_failed"
        assert "stn:one.example" in error["message"]
        assert ended == [{"reason": "media_failed"}]
        await bobs.until("call.peerState === 'left'", what="Alice has left")


async def test_leave_and_join_at_once_hang_up_offline_and_from_pagehide(
    cluster: Cluster, browser: Browser
) -> None:
    alice, bob = await sides(cluster)
    async with (
        pages(browser, cluster, 2) as (alices, bobs),
        behind_proxy(alice, alone=True) as (alice, proxy),
    ):
        await bobs.enter(bob)
        # An effect of React in strict mode: run, cleaned up, and run again.
        await alices.connect(alice)
        await alices.run(
            f"""join("{alice.room}"); const first = call; call.leave();
            join("{alice.room}"); if (call === first) throw new Error("the dying call");
            await call.ready;"""
        )
        await meet(alices, bobs)
        await alices.run("await call.leave(); join(call.roomId); await call.ready;")
        await meet(alices, bobs)
        await alices.run("call.send('hello')")
        await bobs.until("told.some(([name, it]) => it === 'hello')", what="Bob hears the new call")

        # Without a network, the call is hung up; the resume does not revive it.
        proxy.cut()
        await alices.until("client.state === 'reconnecting'", what="Alice is away")
        await alices.run("call.hangUp()")
        proxy.restore()
        await bobs.until("call.endedReason === 'hangup'", what="Bob is told")

    alice, bob = await sides(cluster)
    async with pages(browser, cluster, 2) as (alices, bobs):
        await bobs.enter(bob)
        await alices.enter(alice)
        await meet(alices, bobs)
        await alices.run("addEventListener('pagehide', () => { call.hangUp(); client.close(); })")
        await alices.leave_page()
        await bobs.until("call.endedReason === 'hangup'", what="Bob is told")
