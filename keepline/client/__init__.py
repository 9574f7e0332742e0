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

It keeps to the same rules as the browser SDK: the same waits before it connects again (docs/protocol.md has the
table), the same limits that the node tells, the same texts refused before they are sent, calls that are left or ended
without a network left or ended with the next connection. What only one of them has:

- This one negotiates no media: restarting ICE and rolling back offers is up to the WebRTC library beside it.
- It notices dead connections by WebSocket pings, each 7 s (`Options.ping_interval`), which browsers cannot send; so
  it sends no `ping` frames.
- It goes through the proxy that the environment names, as browsers do by themselves. SOCKS needs the package
  python-socks; `Options(proxy=None)` uses none.
"""

from keepline.client.app_callbacks import State
from keepline.client.call import Call
from keepline.client.client import Keepline
from keepline.client.delivery import DeliveryCounts
from keepline.client.errors import (
    AttemptFailed,
    CallEnded,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    KeeplineError,
    ProtocolError,
    RequestFailed,
    RequestTimedOut,
    SignalLost,
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
    "AttemptFailed",
    "Call",
    "CallEnded",
    "ChatReceived",
    "ConnectFailed",
    "ConnectionClosed",
    "ConnectionLost",
    "DeliveryCounts",
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
    "SignalLost",
    "SignalQueueFull",
    "SignalReceived",
    "SignalRefused",
    "State",
    "TokenUnavailable",
    "Typing",
]
