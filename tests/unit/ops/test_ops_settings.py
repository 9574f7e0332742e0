"""Settings: everything wrong is told at once, secrets are told never."""

import pytest
from pydantic import SecretStr

from keepline.ops.settings import (
    CommonSettings,
    NodeSettings,
    PersisterSettings,
    SettingsError,
    load,
    unknown_names,
    variable_of,
)

SECRET = "s3cr3t-" * 6
NODE = {"REDIS_URL": "redis://:pass-word@redis:6379/0", "KEEPLINE_AUTH_SECRET": SECRET}


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = load(NodeSettings, NODE)
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)
    assert (settings.ops_host, settings.ops_port) == ("127.0.0.1", 8081)
    assert (settings.grace_seconds, settings.text_idle_seconds, settings.text_warning_seconds) == (
        10,
        120,
        60,
    )
    assert (settings.no_show_seconds, settings.drain_seconds, settings.tombstone_seconds) == (60, 30, 3600)
    assert settings.drain_linger_seconds == 5
    assert (settings.min_duration_seconds, settings.ending_seconds) == (60, 30)
    assert (settings.limit_frame_bytes, settings.limit_outgoing_bytes) == (65_536, 1_048_576)
    assert (settings.limit_frames_per_second, settings.limit_frames_burst) == (50, 200)
    assert settings.database_url is None
    assert settings.create_users is False
    assert settings.origins == ()


def test_every_value_is_read_from_its_variable() -> None:
    settings = load(
        NodeSettings,
        NODE
        | {
            "DATABASE_URL": "postgresql://db/keepline",
            "KEEPLINE_PORT": "9000",
            "KEEPLINE_NODE_ID": "node-7",
            "KEEPLINE_ORIGINS": "https://app.example, http://localhost:3000",
            "KEEPLINE_TRUSTED_PROXIES": "10.0.0.0/8,fd00::/8, 192.168.1.7/24",
            "KEEPLINE_TURN_URLS": "turn:turn.example:3478,turns:turn.example:5349",
            "KEEPLINE_TURN_SECRET": "shared",
            "KEEPLINE_CREATE_USERS": "true",
            "KEEPLINE_LIMIT_HELLO_SECONDS": "0.5",
            "KEEPLINE_HOST": "",
        },
    )
    assert settings.database_url == "postgresql://db/keepline"
    assert (settings.port, settings.node_id, settings.create_users) == (9000, "node-7", True)
    assert settings.origins == ("https://app.example", "http://localhost:3000")
    assert [str(network) for network in settings.trusted_proxies] == [
        "10.0.0.0/8",
        "fd00::/8",
        "192.168.1.0/24",
    ]
    assert settings.turn_urls == ("turn:turn.example:3478", "turns:turn.example:5349")
    assert settings.limit_hello_seconds == 0.5
    assert settings.host == "0.0.0.0"  # an empty value counts as not set


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            NodeSettings,
            {
                "DATABASE_URL": "mysql://user:hidden@db",
                "KEEPLINE_PORT": "many",
                "KEEPLINE_OPS_PORT": "70000",
                "KEEPLINE_AUTH_SECRET": "too-short",
                "KEEPLINE_ORIGINS": "https://app.example/path",
                "KEEPLINE_TRUSTED_PROXIES": "everyone",
                "KEEPLINE_NODE_ID": "white space",
                "KEEPLINE_TURN_URLS": "http://turn",
                "KEEPLINE_LOG_FORMAT": "xml",
                "KEEPLINE_GRACE_SECONDS": "nan",
            },
        )
    text = str(caught.value)
    assert text.startswith("12 problems in the environment:\n")
    for variable in (
        "REDIS_URL: required",
        "DATABASE_URL: should be a URL that starts with postgres:// or postgresql://",
        "KEEPLINE_PORT: should be a valid integer, unable to parse string as an integer, got 'many'",
        "KEEPLINE_OPS_PORT: should be less than or equal to 65535, got '70000'",
        "KEEPLINE_AUTH_SECRET: should be at least 32 bytes long",
        "KEEPLINE_ORIGINS: should list origins",
        "KEEPLINE_TRUSTED_PROXIES: should list networks",
        "KEEPLINE_NODE_ID: should be 1 to 64 characters",
        "KEEPLINE_TURN_URLS: should list URLs such as turn:host:port",
        "KEEPLINE_TURN_SECRET: required when KEEPLINE_TURN_URLS is set",
        "KEEPLINE_LOG_FORMAT: should be 'json' or 'text', got 'xml'",
        "KEEPLINE_GRACE_SECONDS: ",
    ):
        assert f"\n  {variable}" in text
    assert "hidden" not in text
    assert "too-short" not in text


def test_secrets_do_not_show() -> None:
    settings = load(
        NodeSettings, NODE | {"KEEPLINE_SERVICE_KEY": "k" * 16, "DATABASE_URL": "postgres://u:pw@h"}
    )
    for text in (repr(settings), str(settings)):
        assert SECRET not in text
        assert "pass-word" not in text
        assert "pw@" not in text
        assert "kkk" not in text


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"REDIS_URL": "redis://r"}, "KEEPLINE_AUTH_SECRET or KEEPLINE_JWKS_URL: one of them is required"),
        (NODE | {"KEEPLINE_TURN_SECRET": "x"}, "KEEPLINE_TURN_URLS: required"),
        (NODE | {"REDIS_URL": "http://r"}, "REDIS_URL: should be a URL that starts with redis:// or"),
        (NODE | {"REDIS_URL": "redis://r:port"}, "REDIS_URL: should be a URL with a number as port"),
        (NODE | {"REDIS_URL": "redis+sentinel://r"}, "REDIS_URL: should name the service"),
        (NODE | {"REDIS_URL": "redis+cluster://r/1"}, "REDIS_URL: should not name a database"),
        (NODE | {"KEEPLINE_SERVICE_KEY": "short"}, "KEEPLINE_SERVICE_KEY: should be at least 16 bytes long"),
        (NODE | {"KEEPLINE_LIMIT_BAD_FRAMES": "0"}, "KEEPLINE_LIMIT_BAD_FRAMES: should be greater"),
    ],
)
def test_a_single_problem_is_told_by_its_variable(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(NodeSettings, environ)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(problem)


def test_a_key_set_by_url_is_enough_to_check_tokens() -> None:
    settings = load(NodeSettings, {"REDIS_URL": "redis://r", "KEEPLINE_JWKS_URL": "https://idp.example/jwks"})
    assert settings.auth_secret is None


def test_the_persister_needs_a_database() -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL: required, the persister writes to it"):
        load(PersisterSettings, {"REDIS_URL": "redis://r"})
    assert (
        load(PersisterSettings, {"REDIS_URL": "redis://r", "DATABASE_URL": "postgres://d"}).batch_entries > 0
    )


def test_names_are_given_to_processes_that_have_none() -> None:
    first, second = load(NodeSettings, NODE), load(NodeSettings, NODE)
    assert first.node_id != second.node_id


def test_settings_can_be_made_by_field_name() -> None:
    settings = NodeSettings(redis_url="redis://r", auth_secret=SecretStr(SECRET), port=1)
    assert (settings.redis_url, settings.port) == ("redis://r", 1)


def test_the_process_environment_is_not_read_behind_our_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPLINE_PORT", "1234")
    assert load(NodeSettings, NODE).port == 8080


def test_a_misspelt_variable_is_told_with_the_nearest_one() -> None:
    assert unknown_names(
        {"KEEPLINE_ORIGIN": "x", "KEEPLINE_ZEBRA": "x", "OTHER": "x", "KEEPLINE_PORT": "1"}
    ) == [
        "KEEPLINE_ORIGIN is not a setting; did you mean KEEPLINE_ORIGINS?",
        "KEEPLINE_ZEBRA is not a setting",
    ]


def test_variables_of_the_other_program_are_known() -> None:
    assert unknown_names({"KEEPLINE_WORKER_ID": "w", "KEEPLINE_NODE_ID": "n"}) == []


def test_fields_know_their_variables() -> None:
    assert variable_of(CommonSettings, "redis_url") == "REDIS_URL"
    assert variable_of(CommonSettings, "log_level") == "KEEPLINE_LOG_LEVEL"
