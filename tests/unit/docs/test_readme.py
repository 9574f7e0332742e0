"""README.md: the commands that it names are there, and so are the files."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from keepline.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_what_it_is_stands_in_two_sentences() -> None:
    first = README.split("\n\n")[1].replace("\n", " ")
    assert len(re.findall(r"\.(?: |$)", first)) == 2
    assert len(first) < 400


def test_the_code_of_a_call_is_fifteen_lines() -> None:
    blocks = re.findall(r"```(?:python|js)\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    assert len(lines) <= 16


def test_its_commands_and_options_exist() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"\bkeepline ([a-z-]+)", README))
    assert len(named) > 8
    assert sorted(named - commands.keys()) == []
    for name, option in re.findall(r"keepline ([a-z-]+)[^`#\n]*?(--[a-z-]+)", README):
        options = {each for parameter in commands[name].params for each in parameter.opts}
        assert option in options | {"--help"}, (name, option)


def test_its_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert sorted(set(re.findall(r"\bmake ([a-z-]+)", README)) - targets) == []


def test_its_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", README) if "://" not in link]
    assert len(links) > 12
    assert sorted(link for link in links if not (ROOT / link).exists()) == []
