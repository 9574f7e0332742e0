"""The demo page of a cluster on this machine: on loopback, and with `--lan` over TLS for phones."""

import datetime
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from keepline.cli.base.credentials import Credentials
from keepline.cli.demo.certificate import server_context
from keepline.cli.demo.pages import find_web_folder
from keepline.cli.demo.rooms import DemoNode, Rooms
from keepline.cli.demo.server import Backend, Demo, KillByName
from keepline.cli.local.layout import LOOPBACK, Plan
from keepline.cli.local.supervisor import Notice
from keepline.ops.http import serve


def lan_url(plan: Plan) -> str | None:
    """The address of the page for other machines; None without `--lan`."""
    return f"https://{url_host(plan.lan)}:{plan.lan_port}/" if plan.lan else None


def url_host(host: str) -> str:
    """`host` in the form for a URL."""
    return f"[{host}]" if ":" in host else host


@asynccontextmanager
async def demo_site(
    plan: Plan, data: Path, credentials: Credentials, environ: Mapping[str, str], kill: KillByName
) -> AsyncIterator[Notice]:
    """Serve the page while the context is open. Yields the object that sends pages events of programs."""
    host = url_host(plan.own_host)
    nodes = [
        DemoNode(
            plan.node_name(index),
            plan.node_port(index),
            f"http://{host}:{plan.node_port(index)}/v1",
            f"http://{LOOPBACK}:{plan.node_ops_port(index)}",
        )
        for index in range(plan.nodes)
    ]
    rooms, backend = Rooms(nodes, credentials.service_key), Backend(credentials, environ)
    demo = Demo(rooms, backend, find_web_folder(), kill, lan=lan_url(plan))

    def notice(name: str, what: str, pid: int) -> None:
        demo.events.tell({"program": name, "what": what, "pid": pid})

    async with serve(demo.app(), plan.host, plan.demo_port):
        if plan.lan is None:
            yield notice
            return
        now = datetime.datetime.now(datetime.UTC)
        tls = server_context(data / "tls", plan.lan, now)
        async with serve(demo.app(), plan.lan, plan.lan_port, tls=tls):
            yield notice
