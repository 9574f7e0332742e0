"""docs/asyncapi.yaml and the tables of docs/protocol.md, held against the code."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from keepline.client.close_codes import COME_BACK, NORMAL_CLOSURE, ComeBack
from signal_node.protocol import client_frames, close_codes, error_codes, server_frames
from tests.unit.docs.schemas import (
    DOCS,
    canonical,
    first_columns,
    load,
    references,
    resolve,
    section,
    violations,
)

DOCUMENT = load("asyncapi.yaml")
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]
CLIENT = {str(kind.__struct_config__.tag): kind for kind in client_frames.AnyClientFrame.__args__}
SERVER = {str(kind.__struct_config__.tag): kind for kind in server_frames.SERVER_FRAMES}
FORWARDED = {"signal": "peerSignal", "ack": "peerAck", "typing": "peerTyping"}
ALSO_FROM_CLIENTS = {"chat": "peerChat", "mode": "peerMode"}


def in_code(kind: Any, *, bounds: bool) -> Any:
    """A frame's schema as msgspec understands the class."""
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/{name}")
    return canonical(schema, components, bounds=bounds)


def in_document(message: str, *, bounds: bool) -> Any:
    return canonical(MESSAGES[message]["payload"], DOCUMENT, bounds=bounds)


def without_ice(form: Any) -> Any:
    """The code leaves open what an ICE server looks like."""
    if "ice_servers" in form["fields"]:
        form["fields"]["ice_servers"] = form["fields"]["ice_servers"]["type"]
    return form


@pytest.mark.parametrize("tag", CLIENT)
def test_client_frames_agree_in_every_detail(tag: str) -> None:
    assert in_document(tag, bounds=True) == in_code(CLIENT[tag], bounds=True)


@pytest.mark.parametrize("tag", SERVER)
def test_server_frames_agree_and_are_open(tag: str) -> None:
    documented = in_document(ALSO_FROM_CLIENTS.get(tag, tag), bounds=False)
    assert without_ice(documented) == without_ice(in_code(SERVER[tag], bounds=False))


@pytest.mark.parametrize("tag", FORWARDED)
def test_forwarded_frames_are_the_clients_without_id(tag: str) -> None:
    sent = in_document(tag, bounds=True)
    del sent["fields"]["id"]
    sent["closed"] = False
    assert in_document(FORWARDED[tag], bounds=True) == sent


def test_there_is_a_message_for_each_type_and_no_other() -> None:
    server = {ALSO_FROM_CLIENTS.get(tag, tag) for tag in SERVER}
    assert set(MESSAGES) == set(CLIENT) | server | set(FORWARDED.values())


@pytest.mark.parametrize("name", MESSAGES)
def test_examples_are_what_they_are_examples_of(name: str) -> None:
    message = MESSAGES[name]
    assert message["examples"]
    for example in message["examples"]:
        assert violations(example["payload"], message["payload"], DOCUMENT) == []


@pytest.mark.parametrize("tag", CLIENT)
def test_the_node_understands_the_examples(tag: str) -> None:
    for example in MESSAGES[tag]["examples"]:
        assert type(client_frames.decode(json.dumps(example["payload"]))) is CLIENT[tag]


def test_the_document_holds_together() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    for reference in references(DOCUMENT):
        resolve(DOCUMENT, reference)
    channel = DOCUMENT["channels"]["session"]
    assert {name: {"$ref": f"#/components/messages/{name}"} for name in MESSAGES} == channel["messages"]


def test_each_message_belongs_to_an_operation_in_its_direction() -> None:
    received: set[str] = set()
    sent: set[str] = set()
    for operation in DOCUMENT["operations"].values():
        assert operation["channel"] == {"$ref": "#/channels/session"}
        names = {reference.rsplit("/", 1)[1] for reference in references(operation["messages"])}
        (received if operation["action"] == "receive" else sent).update(names)
        reply = operation.get("reply", {"messages": []})
        sent.update(reference.rsplit("/", 1)[1] for reference in references(reply["messages"]))
    assert received == set(CLIENT)
    assert sent == set(MESSAGES) - set(CLIENT)


def test_error_codes() -> None:
    codes = [code.value for code in error_codes.ErrorCode]
    assert DOCUMENT["components"]["schemas"]["errorCode"]["enum"] == codes
    table = first_columns(section("protocol.md", "## Errors"))
    assert [row[0] for row in table] == codes


def test_close_codes_of_the_document() -> None:
    documented = DOCUMENT["channels"]["session"]["x-close-codes"]
    in_code = [
        {"code": close.code, "reason": close.reason, "may_reconnect": close.may_reconnect}
        for close in close_codes.CLOSES
    ]
    assert documented == in_code


def test_close_codes_of_the_text() -> None:
    words = {"no": "no", "yes": "yes", "fresh_token": "with a fresh token"}
    rows = {row[0]: row[2] for row in first_columns(section("protocol.md", "## Close codes"))}
    documented = {code: may for code, may in rows.items() if re.fullmatch(r"4\d\d\d", code)}
    assert documented == {str(close.code): words[close.may_reconnect] for close in close_codes.CLOSES}


def test_close_codes_of_the_python_sdk() -> None:
    meaning = {
        ComeBack.NEVER: "no",
        ComeBack.BACKOFF: "yes",
        ComeBack.AFTER_GOODBYE: "yes",
        ComeBack.FRESH_TOKEN: "fresh_token",
    }
    in_sdk = {code: meaning[rule] for code, rule in COME_BACK.items() if code != NORMAL_CLOSURE}
    assert in_sdk == {close.code: close.may_reconnect for close in close_codes.CLOSES}


def _headings(heading: str) -> list[str]:
    lines = section("protocol.md", heading).splitlines()
    return [name for line in lines if line.startswith("### ") for name in re.findall(r"`(\w+)`", line)]


def test_the_text_describes_each_frame() -> None:
    assert set(_headings("## What the client sends")) == set(CLIENT)
    assert set(_headings("## What the server sends")) == set(SERVER) | set(FORWARDED)


def _json_examples() -> list[tuple[str, Any]]:
    examples = []
    for heading, own in (("## What the client sends", True), ("## What the server sends", False)):
        for text in re.findall(r"```json\n(.*?)```", section("protocol.md", heading), re.DOTALL):
            frame = json.loads(text)
            tag = frame["type"]
            examples.append((tag if own else ALSO_FROM_CLIENTS.get(tag, tag), frame))
    return examples


@pytest.mark.parametrize(("name", "frame"), _json_examples())
def test_the_examples_of_the_text_are_right(name: str, frame: Any) -> None:
    assert violations(frame, MESSAGES[name]["payload"], DOCUMENT) == []


def _transcript() -> list[tuple[bool, str]]:
    text = (DOCS / "protocol.md").read_text()
    lines = re.findall(r"^[AB]([→←]) (.*)$", text, re.MULTILINE)
    return [(arrow == "→", frame) for arrow, frame in lines]


@pytest.mark.parametrize(("from_client", "line"), _transcript())
def test_the_transcript_is_right(from_client: bool, line: str) -> None:
    """Short ids and left-out snapshots aside, its frames are frames: every field is known and none is missing."""
    frame = json.loads(line.replace("{…}", "{}").replace("[…]", "[]"))
    name = frame["type"]
    if not from_client:
        name = (ALSO_FROM_CLIENTS | FORWARDED).get(name, name)
    form = in_document(name, bounds=False)
    assert set(form["required"]) <= set(frame) <= set(form["fields"])
