"""The Python SDK: join calls, signal and chat, and stay in them while connections and nodes come and go.

A peer that answers every offer, with `make_answer` from a WebRTC library::

    from keepline.client import ChatReceived, Keepline, SignalReceived

    async with Keepline("wss://signal.example.org/v1", fetch_token) as client:
        call = await client.join(room_id)
        async for event in call.events():
            match event:
                case SignalReceived(data={"description": {"type": "offer", "sdp": sdp}}):
                    await call.signal(description={"type": "answer", "sdp": await make_answer(sdp)})
                case ChatReceived(message=message):
                    await call.chat(f"You said: {message.text}")

It needs websockets and orjson, nothing of the cluster's programs.
"""

from keepline.client.call import Call
from keepline.client.client import Keepline, State
from keepline.client.errors import (
    CallEnded,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    KeeplineError,
    ProtocolError,
    RequestFailed,
    RequestTimedOut,
    SignalQueueFull,
    TokenUnavailable,
)
from keepline.client.events import (
    ChatReceived,
    Ended,
    Ending,
    Event,
    EventsLost,
    IceServersChanged,
    Inactivity,
    ModeChanged,
    PeerChanged,
    Rejoined,
    SignalReceived,
    SignalRefused,
    Typing,
)
from keepline.client.models import IceServer, Membership, Message, RoomSnapshot
from keepline.client.options import Options

__all__ = [
    "Call",
    "CallEnded",
    "ChatReceived",
    "ConnectFailed",
    "ConnectionClosed",
    "ConnectionLost",
    "Ended",
    "Ending",
    "Event",
    "EventsLost",
    "IceServer",
    "IceServersChanged",
    "Inactivity",
    "Keepline",
    "KeeplineError",
    "Membership",
    "Message",
    "ModeChanged",
    "Options",
    "PeerChanged",
    "ProtocolError",
    "Rejoined",
    "RequestFailed",
    "RequestTimedOut",
    "RoomSnapshot",
    "SignalQueueFull",
    "SignalReceived",
    "SignalRefused",
    "State",
    "TokenUnavailable",
    "Typing",
]
