"""The command line: what it prints, and one line for each mistake."""

import uuid
from pathlib import Path

import jwt
import pytest

from keepline.cli.base.credentials import credentials_of
from keepline.cli.local.layout import Plan
from keepline.cli.main import main
from keepline.cli.reports.greeting import show

USER = str(uuid.UUID(int=7))


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("KEEPLINE_AUTH_SECRET", "KEEPLINE_AUTH_ISSUER", "KEEPLINE_AUTH_AUDIENCE"):
        monkeypatch.delenv(name, raising=False)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["keepline", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    code = caught.value.code
    return code if isinstance(code, int) else 0


def test_token_prints_a_token_signed_with_the_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEEPLINE_AUTH_SECRET", "s" * 32)
    assert call(monkeypatch, "token", "--user", USER, "--ttl", "90") == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), "s" * 32, algorithms=["HS256"])
    assert claims["sub"] == USER
    assert claims["exp"] - claims["iat"] == 90


def test_token_uses_the_secret_that_up_made_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = tmp_path / ".keepline"
    data.mkdir()
    secret = credentials_of(data, {}).auth_secret
    assert call(monkeypatch, "token", "--user", USER) == 0
    assert jwt.decode(capsys.readouterr().out.strip(), secret, algorithms=["HS256"])["sub"] == USER


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        (("token", "--user", USER), "KEEPLINE_AUTH_SECRET"),
        (("token", "--user", "me"), "--user"),
        (("token",), "--user"),
        (("token", "--user", USER, "--ttl", "0"), "--ttl"),
        (("up", "--nodes", "0"), "--nodes"),
        (("up", "--port", "70000"), "--port"),
        (("up", "--host", "203.0.113.1"), "--host"),
        (("dance",), "dance"),
    ],
)
def test_a_mistake_is_one_line_that_names_it_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    about: str,
) -> None:
    assert call(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("keepline: ")
    assert printed.err.count("\n") == 1
    assert about in printed.err


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("keepline 0.")


def test_migrate_passes_the_exit_code_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert call(monkeypatch, "migrate", "--check") == 2
    assert "DATABASE_URL" in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [("kill", "node-1")])
def test_a_command_for_the_cluster_here_says_when_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert call(monkeypatch, *arguments) == 1
    assert capsys.readouterr().err == (
        "keepline: keepline up is not running on .keepline: start it, or set its folder with --data\n"
    )


def test_a_phone_is_shown_the_way_in(capsys: pytest.CaptureFixture[str]) -> None:
    show({**CLUSTER, "lan": "https://192.168.1.7:8084/"}, Plan(nodes=1, lan="192.168.1.7"), Path("data"))
    printed = capsys.readouterr().out
    assert "https://192.168.1.7:8084/" in printed
    assert "keepline kill node-1 --data data" in printed


CLUSTER = {
    "nodes": [{"id": "node-1", "ws": "ws://127.0.0.1:8080/v1", "http": "http://127.0.0.1:8081", "pid": 1}],
    "persisters": [{"http": "http://127.0.0.1:8085", "pid": 2}],
    "redis": {"url": "redis://127.0.0.1:8086", "pid": 3},
    "postgres": {"url": "postgresql://elsewhere", "pid": None},
    "demo": "http://127.0.0.1:8083/",
    "auth_secret": "the-auth-secret",
    "service_key": "the-service-key",
}


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_person_is_told_where_to_go_and_no_secret(capsys: pytest.CaptureFixture[str], host: str) -> None:
    show(CLUSTER, Plan(nodes=1, host=host), Path(".keepline"))
    printed = capsys.readouterr().out
    for text in (
        "http://127.0.0.1:8083/",
        "ws://127.0.0.1:8080/v1",
        "http://127.0.0.1:8085/healthz",
        ".keepline",
        "node-1       pid 1 ",
        "persister-1  pid 2 ",
        "redis        pid 3",
        "keepline kill node-1",
    ):
        assert text in printed
    assert "postgres" not in printed, "it is none of ours"
    assert ("From other machines" in printed) == (host == "0.0.0.0")
    assert "the-auth-secret" not in printed
    assert "the-service-key" not in printed
