"""A video call without a browser: the Python SDK for signaling, aiortc for media.

The glue is the perfect negotiation of the WebRTC specification, bent to what aiortc does not have. It cannot take
an offer back and cannot go on with a peer whose page was loaded anew; in both cases another RTCPeerConnection
takes the first one's place. It gathers all its candidates before it offers or answers, so it sends none apart.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any
from unittest.mock import patch

import aioice.ice
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, MediaStreamTrack, VideoStreamTrack
from aiortc.sdp import candidate_from_sdp

from keepline.client import Call, ChatReceived, Ended, Keepline, PeerChanged, SignalReceived

_MOST_EARLY_CANDIDATES = 64
_STOP_SECONDS = 10.0


class AiortcPeer:
    """One side of a call: sends picture and sound, counts the frames it gets, remembers what it is told."""

    def __init__(self, client: Keepline, call: Call) -> None:
        self.call = call
        self.frames: Counter[str] = Counter()
        self.chat: list[str] = []
        self.ended: str | None = None
        self._client = client
        self._early: deque[dict[str, Any]] = deque(maxlen=_MOST_EARLY_CANDIDATES)
        self._readers: list[asyncio.Task[None]] = []
        self._connection = self._new_connection()
        self._remote: RTCSessionDescription | None = None

    @property
    def connection_state(self) -> str:
        """State of the media connection, as RTCPeerConnection.connectionState."""
        state: str = self._connection.connectionState
        return state

    async def run(self) -> None:
        """Take part in the call until it has ended."""
        if self.call.peer == "joined":
            await self._offer()
        async for event in self.call.events():
            match event:
                case PeerChanged(state="joined"):
                    await self._offer()
                case SignalReceived(data={"description": {"type": kind, "sdp": sdp}}):
                    await self._on_description(RTCSessionDescription(sdp, kind))
                case SignalReceived(data={"candidate": dict(candidate)}):
                    await self._on_candidate(candidate)
                case ChatReceived(message=message):
                    self.chat.append(message.text)
                case Ended(reason=reason):
                    self.ended = reason

    async def close(self) -> None:
        """Stop sending and receiving media."""
        await self._connection.close()
        for reader in self._readers:
            reader.cancel()
        if self._readers:
            await asyncio.wait(self._readers, timeout=_STOP_SECONDS)

    def _new_connection(self) -> RTCPeerConnection:
        servers = [RTCIceServer(**asdict(server)) for server in self._client.ice_servers]
        connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        connection.addTrack(AudioStreamTrack())
        connection.addTrack(VideoStreamTrack())
        connection.on("track", self._read)
        return connection

    async def _replace_connection(self) -> None:
        await self._connection.close()
        self._connection, self._remote = self._new_connection(), None

    async def _set_remote(self, description: RTCSessionDescription) -> None:
        await self._connection.setRemoteDescription(description)
        self._remote = description

    async def _offer(self) -> None:
        if self._connection.signalingState == "stable":
            await self._describe()

    async def _describe(self) -> None:
        """Offer, or answer the offer that has come."""
        await self._connection.setLocalDescription()
        await self.call.signal(description=asdict(self._connection.localDescription))

    async def _on_description(self, description: RTCSessionDescription) -> None:
        if description.type == "answer":
            if self._connection.signalingState == "have-local-offer":
                await self._set_remote(description)
            return
        if self._connection.signalingState == "have-local-offer":
            if not self.call.polite:
                return
            await self._replace_connection()
        elif self._is_of_another_page(description):
            await self._replace_connection()
        await self._set_remote(description)
        await self._describe()
        for candidate in [self._early.popleft() for _ in range(len(self._early))]:
            await self._on_candidate(candidate)

    def _is_of_another_page(self, description: RTCSessionDescription) -> bool:
        return self._remote is not None and not _fingerprints(self._remote) & _fingerprints(description)

    async def _on_candidate(self, raw: dict[str, Any]) -> None:
        if self._remote is None or f"a=ice-ufrag:{raw['usernameFragment']}\r\n" not in self._remote.sdp:
            self._early.append(raw)  # it overtook its description, or belongs to an offer that we ignore
            return
        candidate = candidate_from_sdp(raw["candidate"].removeprefix("candidate:"))
        candidate.sdpMid, candidate.sdpMLineIndex = raw["sdpMid"], raw["sdpMLineIndex"]
        await self._connection.addIceCandidate(candidate)

    def _read(self, track: MediaStreamTrack) -> None:
        self._readers.append(asyncio.create_task(self._count(track), name=f"read {track.kind}"))

    async def _count(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):  # the track has ended
            while True:
                await track.recv()
                self.frames[track.kind] += 1


@asynccontextmanager
async def _media_on_loopback() -> AsyncIterator[None]:
    # Left to itself, aioice takes every address but this one, and on some machines there is no other.
    with patch.object(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"]):
        yield


def _fingerprints(description: RTCSessionDescription) -> set[str]:
    return {line for line in description.sdp.splitlines() if line.startswith("a=fingerprint:")}


@asynccontextmanager
async def aiortc_peer(urls: list[str], token: str, room: str) -> AsyncIterator[AiortcPeer]:
    """Join a room and take part in its call while the context is open. Media stays on loopback."""
    async with _media_on_loopback(), Keepline(urls, token, room_hint=room) as client:
        peer = AiortcPeer(client, await client.join(room))
        taking_part = asyncio.create_task(peer.run(), name="aiortc peer")
        try:
            yield peer
        finally:
            taking_part.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await taking_part
            await peer.close()
