"""The checker itself: it has to find each kind of fault, and none where there is none."""

from __future__ import annotations

import pytest

from tests.helpers.checker import Ledger, Line, differences


def line(seq: int, text: str, sender: str = "alice") -> Line:
    return {"seq": seq, "from": sender, "text": text, "at": 1_800_000_000_000 + seq}


ONE, TWO, THREE = line(1, "one"), line(2, "two", "bob"), line(3, "three")


@pytest.fixture
def ledger() -> Ledger:
    """Two of three lines were acknowledged, the answer to another was lost, and one never arrived."""
    ledger = Ledger()
    for text in ("one", "two", "three", "never arrived"):
        ledger.will_send(text)
    ledger.was_acknowledged("alice", ONE)
    ledger.was_acknowledged("bob", TWO)
    ledger.was_received("bob", ONE)
    ledger.was_received("bob", THREE)
    for number in (1, 2, 5):
        ledger.signal_received("alice", number)
    return ledger


def test_all_is_well(ledger: Ledger) -> None:
    assert ledger.problems([ONE, TWO, THREE]) == []


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        ([ONE, THREE], "gaps or doubles"),
        ([ONE, TWO], "which is not stored"),
        ([ONE, line(2, "three"), line(3, "two", "bob")], "acknowledged to bob"),
        ([ONE, TWO, THREE, line(4, "two", "bob")], "more than once: ['two']"),
        ([ONE, TWO, THREE, line(4, "what?")], "sent by nobody: ['what?']"),
        ([line(1, "one", "bob"), TWO, THREE], "acknowledged to alice"),
    ],
)
def test_a_fault_of_what_is_stored_is_found(ledger: Ledger, stored: list[Line], problem: str) -> None:
    assert any(problem in found for found in ledger.problems(stored)), ledger.problems(stored)


def test_a_fault_of_what_was_told_is_found(ledger: Ledger) -> None:
    ledger.was_acknowledged("alice", THREE)
    ledger.was_received("bob", THREE)
    ledger.signal_received("alice", 5)
    found = ledger.problems([ONE, TWO, THREE])
    assert [words.split(" twice")[0] for words in found] == ["bob was told of lines", "alice got signals"]
    ledger.was_acknowledged("alice", ONE)
    assert "alice's lines were stored in another order than sent" in ledger.problems([ONE, TWO, THREE])


def test_views_are_compared_field_by_field() -> None:
    room = {"status": "active", "version": 3}
    assert differences({"node-1": room, "node-2": dict(room), "Postgres": dict(room)}) == []
    assert differences({"node-1": room, "Postgres": {"status": "active", "version": 2}}) == [
        "version: node-1 has 3, Postgres has 2"
    ]
    assert differences({"node-1": room, "Postgres": None}) == ["Postgres has no room"]
    assert differences({"node-1": None, "Postgres": room}) == ["node-1 has no room"]
