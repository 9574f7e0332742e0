"""Secrets from files: read like variables, their problems told with all others, their content never."""

from pathlib import Path

import pytest

from keepline.ops.secret_files import SECRETS, SecretFileError, read_secret_files
from keepline.ops.settings import (
    NodeSettings,
    PersisterSettings,
    SettingsError,
    load,
    unknown_names,
    variable_of,
)

SECRET = "s3cr3t-" * 6


def test_a_file_sets_the_variable_it_is_named_after(tmp_path: Path) -> None:
    redis, auth = tmp_path / "redis", tmp_path / "auth"
    redis.write_text("redis://:pass-word@redis:6379/0\n")
    auth.write_text(SECRET + "\r\n")
    settings = load(NodeSettings, {"REDIS_URL_FILE": str(redis), "KEEPLINE_AUTH_SECRET_FILE": str(auth)})
    assert settings.redis_url == "redis://:pass-word@redis:6379/0"
    assert settings.auth_secret is not None
    assert settings.auth_secret.get_secret_value() == SECRET


def test_every_hidden_setting_can_be_a_file() -> None:
    hidden = {variable_of(NodeSettings, field) for field in NodeSettings.hidden}
    assert hidden == set(SECRETS)
    assert unknown_names({f"{variable}_FILE": "x" for variable in SECRETS}) == []


def test_what_is_read_takes_the_place_of_the_name(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://u:p@db/keepline")
    environ = {"DATABASE_URL_FILE": str(file), "HOME": "/root", "KEEPLINE_TURN_SECRET_FILE": ""}
    assert read_secret_files(environ) == {"DATABASE_URL": "postgresql://u:p@db/keepline", "HOME": "/root"}


def test_problems_of_files_are_told_with_all_others_and_once(tmp_path: Path) -> None:
    empty, binary, large = tmp_path / "empty", tmp_path / "binary", tmp_path / "large"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe")
    large.write_text("x" * 70_000)
    with pytest.raises(SettingsError) as caught:
        load(
            NodeSettings,
            {
                "REDIS_URL_FILE": str(tmp_path / "absent"),
                "DATABASE_URL_FILE": str(empty),
                "KEEPLINE_AUTH_SECRET_FILE": str(binary),
                "KEEPLINE_SERVICE_KEY_FILE": str(large),
                "KEEPLINE_TURN_SECRET": "also",
                "KEEPLINE_TURN_SECRET_FILE": str(empty),
                "KEEPLINE_TURN_URLS": "turn:host",
                "KEEPLINE_PORT": "many",
            },
        )
    problems = caught.value.problems
    assert problems[:5] == (
        f"REDIS_URL_FILE: cannot read {tmp_path / 'absent'}: No such file or directory",
        f"DATABASE_URL_FILE: {empty} is empty",
        f"KEEPLINE_AUTH_SECRET_FILE: {binary} is not UTF-8 text",
        f"KEEPLINE_SERVICE_KEY_FILE: {large} is larger than 65536 bytes",
        "KEEPLINE_TURN_SECRET_FILE: set this or KEEPLINE_TURN_SECRET, not both",
    )
    assert [problem.partition(":")[0] for problem in problems[5:]] == ["KEEPLINE_PORT"]


def test_a_bad_secret_in_a_file_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "auth"
    file.write_text("too-short")
    with pytest.raises(SettingsError) as caught:
        load(NodeSettings, {"REDIS_URL": "redis://r", "KEEPLINE_AUTH_SECRET_FILE": str(file)})
    assert str(caught.value).endswith("KEEPLINE_AUTH_SECRET: should be at least 32 bytes long")
    assert "too-short" not in str(caught.value)


def test_a_program_does_not_mind_files_of_settings_it_does_not_have(tmp_path: Path) -> None:
    environ = {
        "REDIS_URL": "redis://r",
        "DATABASE_URL": "postgres://d",
        "KEEPLINE_AUTH_SECRET_FILE": str(tmp_path / "absent"),
    }
    assert load(PersisterSettings, environ).redis_url == "redis://r"


def test_all_problems_of_files_are_in_the_error(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    with pytest.raises(SecretFileError, match=r"REDIS_URL_FILE: .*; DATABASE_URL_FILE: ") as caught:
        read_secret_files({"REDIS_URL_FILE": absent, "DATABASE_URL_FILE": absent, "A": "b"})
    assert caught.value.environ == {"A": "b"}
