"""docs/openapi.yaml and docs/http.md, held against the routes and the bodies of the code."""

from __future__ import annotations

import re
from typing import Any, cast
from uuid import uuid4

import msgspec
import pytest
from openapi_spec_validator import validate
from prometheus_client import CollectorRegistry

from keepline.ops.health import Health
from keepline.ops.http import create_app
from keepline.room.commands import Open
from keepline.room.record import ChatMode
from keepline.room.rules import MAX_DURATION_SECONDS, MIN_DURATION_SECONDS, Rules
from keepline.room.state import apply
from signal_node.http.node_api import DrainNode, NodeApi
from signal_node.http.referral_api import MakeReferral, ReferralAnswer, ReferralApi
from signal_node.http.repairs import Repair, Repairs
from signal_node.http.rooms_api import OpenRoom, RoomsApi
from signal_node.protocol import snapshots
from tests.unit.docs.schemas import (
    canonical,
    first_columns,
    load,
    references,
    resolve,
    section,
    violations,
)

DOCUMENT = load("openapi.yaml")
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
METHODS = {"get", "post", "put", "patch", "delete"}


def registered() -> set[tuple[str, str]]:
    """Methods and paths that a signal node serves."""
    no: Any = None
    api = RoomsApi(no, no, no, no, no, "key")
    referrals = ReferralApi(cast(Any, None), "key")
    repairs = Repairs("node-1", no, no, no, no, no, no, no, no, Rules())
    operators = NodeApi("node-1", no, no, no, no, repairs, "key", status=dict, now=lambda: 0)
    served = [*api.routes(), *referrals.routes(), *operators.routes()]
    app = create_app(Health(lambda: 0.0), CollectorRegistry(), served)
    routes = {(route.method.lower(), route.resource) for route in app.router.routes()}
    return {
        (method, resource.canonical)
        for method, resource in routes
        if resource is not None and method in METHODS
    }


def documented() -> set[tuple[str, str]]:
    return {
        (method, path) for path, item in DOCUMENT["paths"].items() for method in item if method in METHODS
    }


def test_the_document_is_openapi() -> None:
    validate(cast(Any, DOCUMENT))


def test_it_names_the_routes_that_there_are() -> None:
    assert documented() == registered()


def test_only_the_api_needs_the_key() -> None:
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS & set(item):
            assert ("security" not in item[method]) == path.startswith("/v1/"), path


def test_the_text_names_the_same_routes() -> None:
    rows = first_columns(section("http.md", "## Rooms and users"))
    found = (re.match(r"(GET|POST|DELETE) (/v1/[^`? ]+)", row[0]) for row in rows)
    operations = {(row[0], "get") for row in first_columns(section("http.md", "## Health and metrics"))}
    in_text = {(match[1].lower(), match[2]) for match in found if match}
    assert in_text | {(method, path) for path, method in operations} == documented()


def test_the_body_that_opens_a_room() -> None:
    (schema,), components = msgspec.json.schema_components([OpenRoom], ref_template="#/{name}")
    in_code = canonical(schema, components, bounds=True)
    assert canonical(SCHEMAS["OpenRoom"], DOCUMENT, bounds=True) == in_code


def test_the_body_that_drains_a_node() -> None:
    (schema,), components = msgspec.json.schema_components([DrainNode], ref_template="#/{name}")
    in_code = canonical(schema, components, bounds=True)
    assert canonical(SCHEMAS["DrainNode"], DOCUMENT, bounds=True) == in_code


@pytest.mark.parametrize(("kind", "name"), [(MakeReferral, "MakeReferral"), (ReferralAnswer, "Referral")])
def test_a_referral_and_the_body_that_makes_it(kind: Any, name: str) -> None:
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/{name}")
    in_code = canonical(schema, components, bounds=True)
    assert canonical(SCHEMAS[name], DOCUMENT, bounds=True) == in_code


def test_the_body_of_a_repair_is_one_of_those_in_the_code() -> None:
    in_document = [canonical(each, DOCUMENT, bounds=True) for each in SCHEMAS["Repair"]["oneOf"]]
    in_code = []
    for kind in Repair.__args__:
        (schema,), components = msgspec.json.schema_components([kind], ref_template="#/{name}")
        in_code.append(canonical(schema, components, bounds=True))
    assert in_document == in_code


@pytest.mark.parametrize(
    ("schema", "value", "valid"),
    [
        ("OpenRoom", {"duration_seconds": 0}, True),
        ("OpenRoom", {"duration_seconds": 1}, False),
        ("OpenRoom", {"duration_seconds": MIN_DURATION_SECONDS - 1}, False),
        ("OpenRoom", {"duration_seconds": MIN_DURATION_SECONDS}, True),
        ("OpenRoom", {"duration_seconds": MAX_DURATION_SECONDS}, True),
        ("OpenRoom", {"duration_seconds": MAX_DURATION_SECONDS + 1}, False),
        ("Repair", {"type": "cache", "room": "r"}, True),
        ("Repair", {"type": "cache", "room": "r", "node": "n"}, False),
        ("Repair", {"type": "user", "user": "u"}, False),
    ],
)
def test_what_a_node_refuses_the_document_does_not_call_valid(
    schema: str, value: dict[str, Any], *, valid: bool
) -> None:
    if schema == "OpenRoom":
        value = {"user_1": str(uuid4()), "user_2": str(uuid4()), **value}
    assert (violations(value, SCHEMAS[schema], DOCUMENT) == []) is valid


def test_a_room_is_what_clients_see() -> None:
    (schema,), components = msgspec.json.schema_components([snapshots.Snapshot], ref_template="#/{name}")
    in_code = canonical(schema, components, bounds=False)
    assert canonical(SCHEMAS["Room"], DOCUMENT, bounds=False) == in_code


def test_a_real_room_fits() -> None:
    alice, bob = "2f1c7f0e-52f4-4b86-8d6c-64f1d5f6a001", "9a0e7b1d-3c55-4f0e-a0b3-1f6f8b1ca002"
    opening = Open("7d3c2a52-6a4e-4f5f-9d0a-0a4b6b1f6f01", alice, bob, ChatMode.VIDEO, 600)
    room, _ = apply(None, opening, now=1, rules=Rules())
    seen = msgspec.to_builtins(snapshots.snapshot(room, []))
    assert violations(seen, SCHEMAS["Room"], DOCUMENT) == []


def test_a_real_health_report_fits() -> None:
    health = Health(lambda: 5.0)
    health.probe("redis").succeeded()
    health.probe("postgres").failed("refused")
    health.require("drain", lambda: "the node is draining")
    assert violations(health.report(), SCHEMAS["Health"], DOCUMENT) == []


def _examples(node: Any) -> list[tuple[Any, Any]]:
    """Media types' examples with their schemas."""
    if isinstance(node, list):
        return [found for item in node for found in _examples(item)]
    if not isinstance(node, dict):
        return []
    own = []
    if "schema" in node and "examples" in node:
        for example in node["examples"].values():
            target = resolve(DOCUMENT, example["$ref"]) if "$ref" in example else example
            own.append((target["value"], node["schema"]))
    return own + [found for item in node.values() for found in _examples(item)]


@pytest.mark.parametrize(("value", "schema"), _examples(DOCUMENT))
def test_examples_are_what_they_are_examples_of(value: Any, schema: Any) -> None:
    assert violations(value, schema, DOCUMENT) == []


def test_the_references_lead_somewhere() -> None:
    for reference in references(DOCUMENT):
        resolve(DOCUMENT, reference)
