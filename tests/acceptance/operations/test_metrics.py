"""The metrics of running programs: held against docs/metrics.md in both directions, checked by promtool."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.harness import ON_ONE_NODE, ON_TWO_NODES, Call, Harness, Placement
from tests.helpers.cluster import Cluster
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(keepline_\w+)` \| (\w+) \|[^|]*\|([^|]*)\|", re.MULTILINE)
MOST_SERIES = 100
"""No metric has more series than that; buckets are not counted."""

SIGNALS = 64


class Documented(NamedTuple):
    kind: str
    labels: frozenset[str]


def documented() -> dict[str, Documented]:
    rows = ROW.findall(DOCUMENT.read_text())
    return {name: Documented(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


async def exposed(cluster: Cluster, url: str) -> str:
    async with cluster.http.get(f"{url}/metrics") as response:
        assert response.status == 200
        return await response.text()


async def everything(cluster: Cluster) -> list[str]:
    """What all programs expose."""
    urls = [node.http for node in cluster.nodes] + [persister["http"] for persister in cluster.persisters]
    return [await exposed(cluster, url) for url in urls]


def families(text: str) -> list[Metric]:
    return [found for found in text_string_to_metric_families(text) if found.name.startswith("keepline_")]


def sample(texts: list[str], name: str, **labels: str) -> float:
    """The sum of a sample over programs."""
    return sum(
        one.value
        for text in texts
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    )


async def test_every_metric_is_documented_and_every_documented_one_is_there(patient_cluster: Cluster) -> None:
    async with Harness(patient_cluster, ON_ONE_NODE) as harness:
        await harness.stored((await harness.call()).room)
    table = documented()
    found: set[str] = set()
    for text in await everything(patient_cluster):
        for family in families(text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found.add(name)
            assert name in table, f"{name} is not in {DOCUMENT.name}"
            kind, labels = table[name]
            assert family.type == kind, name
            series = [
                {k: v for k, v in one.labels.items() if k != "le"}
                for one in family.samples
                if not one.name.endswith("_bucket")
            ]
            assert all(one.keys() == labels for one in series), (name, series)
            assert len(series) <= MOST_SERIES, name
    assert found == table.keys()


def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on PATH (Debian, Ubuntu: apt-get install prometheus)")
    return found


async def test_prometheus_finds_nothing_to_complain_of(patient_cluster: Cluster) -> None:
    for text in await everything(patient_cluster):
        checked = subprocess.run(
            [promtool(), "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


async def negotiate(call: Call) -> None:
    """Alice offers, Bob answers."""
    padding = "a=x\r\n" * 200
    for sender, receiver, kind in (
        (call.alice.client, call.bob.client, "offer"),
        (call.bob.client, call.alice.client, "answer"),
    ):
        data = {"description": {"type": kind, "sdp": f"v=0\r\n{padding}"}}
        await sender.send("signal", room=call.room, data=data)
        await receiver.expect("signal", room=call.room)


@pytest.mark.parametrize(
    ("nodes", "timing"),
    [
        pytest.param(ON_ONE_NODE, "keepline_relay_seconds_count", id="one node"),
        pytest.param(ON_TWO_NODES, "keepline_internode_latency_seconds_count", id="two nodes"),
    ],
)
async def test_a_call_shows_in_the_metrics_once_wherever_its_ends_are(
    patient_cluster: Cluster, nodes: Placement, timing: str
) -> None:
    before = await everything(patient_cluster)
    async with Harness(patient_cluster, nodes) as harness:
        call = await harness.call()
        await negotiate(call)
        for number in range(SIGNALS):
            await call.alice.client.send("signal", room=call.room, data={"app": number})
            await call.bob.client.expect("signal", room=call.room)
        await call.alice.client.ask("end", "ok", room=call.room)

        async def grown() -> bool:
            after = await everything(patient_cluster)

            def by(name: str, **labels: str) -> float:
                return sample(after, name, **labels) - sample(before, name, **labels)

            assert by("keepline_rooms_opened_total", mode="video") == 1
            assert by("keepline_calls_met_total") == 1
            assert by("keepline_meeting_seconds_count") == 1
            assert by("keepline_offers_total", outcome="answered") == 1
            assert by("keepline_answer_seconds_count") == 1
            assert by("keepline_rooms_ended_total", reason="hangup") == 1
            assert by(timing) >= SIGNALS // 32
            return True

        await eventually(grown, what="the call shows in the metrics")


async def test_coming_back_shows_in_the_metrics(patient_cluster: Cluster) -> None:
    before = await everything(patient_cluster)
    async with Harness(patient_cluster, ON_TWO_NODES) as harness:
        call = await harness.call()
        call.bob.client.cut()
        await call.alice.client.expect("peer", room=call.room, state="reconnecting")
        again = await harness.login(call.bob.user, 0, resume=call.bob.welcome["resume"])
        assert again.welcome["resumed"]
        await call.alice.client.expect("peer", room=call.room, state="reconnected")
        moved = await harness.login(call.bob.user, 1, resume=again.welcome["resume"])
        assert moved.welcome["resumed"]
        await call.alice.client.expect("peer", room=call.room, state="reconnected")
        outdated = await harness.connect(0)
        token, secret = patient_cluster.token(call.bob.user), call.bob.welcome["resume"]
        await outdated.send("hello", token=token, resume=secret)
        assert await outdated.closed() == 4409
        moved.client.cut()
        await call.alice.client.expect("peer", room=call.room, state="reconnecting")
        late = await harness.login(call.bob.user, 1, resume=secret)
        assert not late.welcome["resumed"]
        await late.client.send("typing", room=call.room)
        await late.client.expect("error", code="not_a_member")

        async def grown() -> bool:
            after = await everything(patient_cluster)

            def by(name: str, **labels: str) -> float:
                return sample(after, name, **labels) - sample(before, name, **labels)

            assert by("keepline_resumes_total", outcome="resumed") == 2
            assert by("keepline_resumes_total", outcome="outdated") == 1
            assert by("keepline_resumes_total", outcome="stale") == 1
            assert by("keepline_absences_total", outcome="returned") == 1
            assert by("keepline_absence_seconds_count") == 1
            assert by("keepline_replaced_total") == 1
            assert by("keepline_connections_closed_total", end="4409") == 2
            assert by("keepline_connections_closed_total", end="lost") >= 1
            assert by("keepline_errors_total", code="not_a_member") == 1
            return True

        await eventually(grown, what="the reconnect shows in the metrics")
