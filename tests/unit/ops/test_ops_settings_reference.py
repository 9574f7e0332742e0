"""`--help` of the programs and docs/configuration.md list every setting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keepline.ops.program import answer_arguments
from keepline.ops.settings import CommonSettings, NodeSettings, PersisterSettings, variable_of
from keepline.ops.settings_reference import document, help_text, settings_of

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"
KINDS = (NodeSettings, PersisterSettings)


def test_the_document_is_generated_from_the_settings() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), (
        "run: python -m keepline.ops.settings_reference > docs/configuration.md"
    )


@pytest.mark.parametrize("kind", [CommonSettings, *KINDS])
def test_every_setting_has_a_meaning(kind: type[CommonSettings]) -> None:
    assert [setting.variable for setting in settings_of(kind) if not setting.meaning.endswith(".")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_help_lists_every_setting(kind: type[CommonSettings]) -> None:
    listed = set(re.findall(r"^  ([A-Z_]+)", help_text("program", "Purpose.", kind), re.MULTILINE))
    assert listed == {variable_of(kind, field) for field in kind.model_fields}


def test_defaults_and_values_are_those_of_the_settings() -> None:
    found = {
        setting.variable: setting for setting in (*settings_of(CommonSettings), *settings_of(NodeSettings))
    }
    assert found["REDIS_URL"].default == "required"
    assert found["KEEPLINE_GRACE_SECONDS"][1:3] == ("10", "1 to 600")
    assert found["KEEPLINE_LIMIT_WORK_MS"][1:3] == ("", "above 0 to 1,000")
    assert found["KEEPLINE_LOG_FORMAT"][1:3] == ("", "json, text")
    assert found["KEEPLINE_CREATE_USERS"][1:3] == ("false", "true, false")


@pytest.mark.parametrize("argument", ["-h", "--help"])
def test_help_ends_the_program_with_success(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        answer_arguments("persister", "Writes rooms.", PersisterSettings, [argument])
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert "KEEPLINE_BATCH_ENTRIES  (default: 500; 1 to 10,000)" in printed.out
    assert printed.err == ""


def test_other_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        answer_arguments("persister", "Writes rooms.", PersisterSettings, ["--port", "1"])
    assert ended.value.code == 2
    assert "unexpected argument --port" in capsys.readouterr().err


def test_without_arguments_the_program_starts() -> None:
    answer_arguments("persister", "Writes rooms.", PersisterSettings, [])
