"""Secrets are made once, kept where only their owner reads them, and never shown."""

import stat
from pathlib import Path

import pytest

from keepline.cli.base.credentials import FILE, credentials_of, read_credentials
from keepline.cli.base.errors import UsageError
from keepline.cli.base.private_files import create_private


def test_they_are_made_once_and_found_again(tmp_path: Path) -> None:
    first = credentials_of(tmp_path, {})
    assert credentials_of(tmp_path, {}) == first == read_credentials(tmp_path)
    assert len(first.auth_secret.encode()) >= 32
    assert len(first.service_key.encode()) >= 16
    assert first.auth_secret != first.service_key


def test_only_the_owner_may_read_them(tmp_path: Path) -> None:
    credentials_of(tmp_path, {})
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_the_environment_comes_first_and_is_not_kept(tmp_path: Path) -> None:
    given = credentials_of(tmp_path, {"KEEPLINE_AUTH_SECRET": "a" * 32, "KEEPLINE_SERVICE_KEY": ""})
    kept = read_credentials(tmp_path)
    assert given.auth_secret == "a" * 32
    assert given.service_key == kept.service_key
    assert kept.auth_secret != given.auth_secret


@pytest.mark.parametrize("text", ["", "{", "[]", '{"auth_secret": "x"}', "null"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UsageError, match=r"secrets\.json is damaged: remove it"):
        credentials_of(tmp_path, {})


def test_they_are_not_in_their_repr(tmp_path: Path) -> None:
    credentials = credentials_of(tmp_path, {})
    assert credentials.auth_secret not in repr(credentials)
    assert credentials.service_key not in repr(credentials)


def test_a_private_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / "file.new").write_text("left by a crash")
    create_private(path, "first")
    with pytest.raises(FileExistsError):
        create_private(path, "second")
    assert path.read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
