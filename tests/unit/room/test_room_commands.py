"""What commands are called where later releases read it."""

from __future__ import annotations

from typing import get_args

from keepline.room import commands

KINDS = {
    commands.Open: "open",
    commands.Join: "join",
    commands.Leave: "leave",
    commands.Lose: "lose",
    commands.Post: "post",
    commands.RequestVideo: "requestvideo",
    commands.AcceptVideo: "acceptvideo",
    commands.DeclineVideo: "declinevideo",
    commands.End: "end",
    commands.Revive: "revive",
    commands.Tick: "tick",
}


def test_kinds_are_what_they_always_were() -> None:
    assert {command: command.kind for command in get_args(commands.Command)} == KINDS
