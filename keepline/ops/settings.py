"""Settings of the programs, read once from the environment.

Every problem is found before any is reported: an operator who mistyped three values fixes three values, not
one per restart. Secrets are never shown, neither in an error nor in `repr`; they may come from files (`secret_files`).
"""

from __future__ import annotations

import difflib
import ipaddress
import secrets
import socket
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from keepline.ops import ice_url, origins, secret_files
from keepline.ops.postgres import urls as postgres_urls
from keepline.ops.postgres.users_table import DEFAULT_COLUMN, DEFAULT_TABLE, users_table
from keepline.ops.redis import prefix, urls
from keepline.room.keys import DEFAULT_PREFIX
from keepline.room.rules import MAX_DURATION_SECONDS, MIN_DURATION_SECONDS

PREFIX = "KEEPLINE_"
_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "._-")

AnySettings = TypeVar("AnySettings", bound="CommonSettings")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(Exception):
    """The environment cannot be used. Its text has all problems, one a line; programs print it, exit 2."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{count} in the environment:", *(f"  {line}" for line in problems)]))


def _split(value: object) -> object:
    """Take `a, b` as a list: the way lists are written in an environment variable."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _url_of(*schemes: str) -> AfterValidator:
    def check(url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in schemes:
            raise ValueError("should be a URL that starts with " + " or ".join(f"{s}://" for s in schemes))
        try:
            parts.port  # noqa: B018 - reading it is the check
        except ValueError:
            raise ValueError("should be a URL with a number as port") from None
        return url

    return AfterValidator(check)


def _check_redis_url(url: str) -> str:
    urls.parse(url)
    return url


def _check_users_table(name: str) -> str:
    users_table(name, DEFAULT_COLUMN)
    return name


def _check_users_column(name: str) -> str:
    users_table(DEFAULT_TABLE, name)
    return name


def _check_database_url(url: str) -> str:
    postgres_urls.parse(url)
    return url


def _check_origin(origin: str) -> str:
    """Accept what can match an Origin; returned as browsers write it."""
    try:
        return origins.normalised(origin)
    except ValueError as error:
        raise ValueError(
            f"should list origins such as https://app.example, https://*.app.example or null, or be *: {error}"
        ) from None


def _check_turn_url(url: str) -> str:
    try:
        ice_url.parse_turn(url)
    except ValueError:
        raise ValueError(
            "should list URLs such as turn:host:port or turns:host:port, optionally with ?transport=tcp or =udp"
        ) from None
    return url


def _check_stun_url(url: str) -> str:
    scheme, _, host = url.partition(":")
    if scheme not in ("stun", "stuns") or not host.strip("/"):
        raise ValueError("should list URLs such as stun:host:port or stuns:host:port")
    return url


def _to_network(value: object) -> object:
    try:
        return ipaddress.ip_network(value, strict=False) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("should list networks such as 10.0.0.0/8 or fd00::/8") from None


def _check_advertised(address: str) -> str:
    """Accept `host`, `host:port` or `[v6]:port`, without a scheme or a path."""
    parts = urlsplit(f"//{address}")
    try:
        plain = parts.hostname is not None and parts.netloc == address and parts.port != 0
    except ValueError:
        plain = False
    if not plain or "@" in address:
        raise ValueError("should be a host, or host:port, without a scheme")
    return address


def _check_name(name: str) -> str:
    if not 1 <= len(name) <= 64 or not _NAME_CHARACTERS.issuperset(name):
        raise ValueError("should be 1 to 64 characters of A-Z, a-z, 0-9, dot, underscore and hyphen")
    return name


def _at_least(size: int) -> AfterValidator:
    def check(secret: SecretStr) -> SecretStr:
        if len(secret.get_secret_value().encode()) < size:
            raise ValueError(f"should be at least {size} bytes long")
        return secret

    return AfterValidator(check)


def _own_name() -> str:
    """Name this process: the host for people, a random part because a host may run several."""
    host = "".join(c if c in _NAME_CHARACTERS else "-" for c in socket.gethostname())[:48]
    return f"{host or 'host'}-{secrets.token_hex(3)}"


Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, AfterValidator(_check_name)]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_check_origin)], ...], NoDecode, BeforeValidator(_split)
]
Networks = Annotated[
    tuple[Annotated[Network, BeforeValidator(_to_network)], ...], NoDecode, BeforeValidator(_split)
]
TurnUrls = Annotated[
    tuple[Annotated[str, AfterValidator(_check_turn_url)], ...], NoDecode, BeforeValidator(_split)
]
StunUrls = Annotated[
    tuple[Annotated[str, AfterValidator(_check_stun_url)], ...], NoDecode, BeforeValidator(_split)
]


class CommonSettings(BaseSettings):
    """What both programs read. Fields are named after their variables, lower case and without `KEEPLINE_`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    redis_url: Annotated[str, AfterValidator(_check_redis_url)] = Field(
        validation_alias="REDIS_URL", repr=False
    )
    # What all keys and channels begin with; `none` for those of a cluster of the first releases.
    redis_prefix: Annotated[str, AfterValidator(prefix.check)] = DEFAULT_PREFIX
    database_url: Annotated[str, AfterValidator(_check_database_url)] | None = Field(
        default=None, validation_alias="DATABASE_URL", repr=False
    )
    ops_host: str = Field(default="127.0.0.1", min_length=1)
    ops_port: Port = 8081
    # What strangers may do to the ops port: connections, how long a request may take, and ms of work a second.
    limit_ops_connections: int = Field(default=256, ge=4, le=100_000)
    limit_ops_request_seconds: float = Field(default=10, ge=0.1, le=300)
    limit_ops_work_ms: float = Field(default=200, ge=10, le=1000)
    log_format: Literal["json", "text"] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    create_users: bool = False
    # The app's table of users and its column of UUIDs, to which rows refer; `none` for no table.
    users_table: Annotated[str, AfterValidator(_check_users_table)] = DEFAULT_TABLE
    users_column: Annotated[str, AfterValidator(_check_users_column)] = DEFAULT_COLUMN
    drain_seconds: float = Field(default=30, ge=0, le=3600)
    # How long a referral is good: nodes ask no longer for it, persisters remove it then.
    keep_referrals_days: float = Field(default=90, ge=0.01, le=3650)

    # Values of these fields are not shown in an error: URLs may carry passwords.
    hidden: ClassVar[frozenset[str]] = frozenset({"redis_url", "database_url", "auth_secret", "turn_secret"})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in counts: the environment is an argument of `load`."""
        return (init_settings,)

    @classmethod
    def problems_between(cls, given: set[str]) -> list[str]:
        """Name what is wrong about which fields are given together; each alone is checked by its type."""
        return []


class NodeSettings(CommonSettings):
    """Settings of a signal node. Times are seconds, sizes bytes."""

    # Where operators' commands find the ops port, as host or host:port, if not where OPS_HOST and OPS_PORT say.
    ops_advertise: Annotated[str, AfterValidator(_check_advertised)] | None = None

    host: str = Field(default="0.0.0.0", min_length=1)  # noqa: S104 - clients come from other hosts
    port: Port = 8080
    node_id: Name = Field(default_factory=_own_name)

    # TLS on the node itself: files in PEM, the certificate with its chain and the key, which may be in the same one.
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    auth_secret: Annotated[SecretStr, _at_least(32)] | None = None
    jwks_url: Annotated[str, _url_of("https", "http")] | None = None
    auth_issuer: str | None = None
    auth_audience: str | None = None
    # Without a service key the HTTP API answers 503: nothing is open by accident.
    service_key: Annotated[SecretStr, _at_least(16)] | None = None
    # Requests that carry an Origin come from browsers and are refused unless it is listed; others pass.
    origins: Origins = ()
    # They alone may say, by X-Forwarded-For or a PROXY header, whose connection theirs is.
    trusted_proxies: Networks = ()
    # How long the port stays open when a drain has begun: until load balancers have learned that it has.
    drain_linger_seconds: float = Field(default=5, ge=0, le=3600)

    grace_seconds: float = Field(default=10, ge=1, le=600)
    # How long a side that was lost with its node may be away while the cluster is taking in a crowd.
    crowd_grace_seconds: float = Field(default=60, ge=1, le=600)
    cold_start_grace_seconds: float = Field(default=30, ge=1, le=600)
    text_idle_seconds: float = Field(default=120, ge=1, le=86_400)
    text_warning_seconds: float = Field(default=60, ge=1, le=86_400)
    no_show_seconds: float = Field(default=60, ge=1, le=86_400)
    # The shortest agreed length of a call, and how long before its end both are told.
    min_duration_seconds: int = Field(default=MIN_DURATION_SECONDS, ge=1, le=MAX_DURATION_SECONDS)
    ending_seconds: float = Field(default=30, ge=1, le=MAX_DURATION_SECONDS)
    tombstone_seconds: float = Field(default=3600, ge=60, le=604_800)

    stun_urls: StunUrls = ()
    turn_urls: TurnUrls = ()
    turn_secret: SecretStr | None = None
    # How often each TURN server is asked for a relay; 0 for never.
    turn_check_seconds: float = Field(default=30, ge=0, le=3600)

    limit_frame_bytes: int = Field(default=65_536, ge=1024, le=1_048_576)
    limit_bad_frames: int = Field(default=10, ge=1, le=1000)
    limit_frames_per_second: float = Field(default=50, ge=1, le=100_000)
    limit_frames_burst: int = Field(default=200, ge=1, le=1_000_000)
    # Milliseconds of the node's time a second, and at once, that a connection may cost, and an address. What is not set
    # follows from the limits of frames and connections: a fifth of the frames, a fifth of all connections.
    limit_work_ms: float | None = Field(default=None, gt=0, le=1000)
    limit_work_burst_ms: float | None = Field(default=None, gt=0, le=100_000)
    limit_address_work_ms: float | None = Field(default=None, gt=0, le=1_000_000)
    limit_address_work_burst_ms: float | None = Field(default=None, gt=0, le=100_000_000)
    limit_header_bytes: int = Field(default=16_384, ge=1024, le=262_144)
    # Connections of this process altogether; if not set, what the limit of descriptors allows, less a reserve.
    limit_connections: int | None = Field(default=None, ge=1, le=10_000_000)
    # Logins with good tokens of one address on a node; if not set, a quarter of its connections each second.
    limit_logins_per_second: float | None = Field(default=None, gt=0, le=1_000_000)
    # Logins with good tokens of one user on a node; bursts are 20 times that.
    limit_user_logins_per_second: float = Field(default=1, gt=0, le=1_000_000)
    # Connections of this process that have not said hello; beyond it the one that has waited for longest is dropped.
    limit_connections_before_hello: int = Field(default=5_000, ge=1, le=10_000_000)
    limit_connections_per_ip: int = Field(default=100, ge=1, le=1_000_000)
    limit_failed_logins: int = Field(default=6, ge=1, le=10_000)
    limit_failed_login_window_seconds: float = Field(default=600, ge=1, le=86_400)
    limit_reports_per_room: int = Field(default=5, ge=1, le=1000)
    limit_outgoing_bytes: int = Field(default=1_048_576, ge=65_536, le=1_073_741_824)
    limit_hello_seconds: float = Field(default=5, ge=0.1, le=300)
    # How long a hello or a join may wait for its turn when many come in at once. Clients are told that they wait.
    limit_hello_wait_seconds: float = Field(default=12, ge=0.1, le=300)
    limit_ping_seconds: float = Field(default=20, ge=0.1, le=600)
    limit_pong_seconds: float = Field(default=20, ge=0.1, le=600)

    hidden: ClassVar[frozenset[str]] = CommonSettings.hidden | {"service_key"}

    @classmethod
    def problems_between(cls, given: set[str]) -> list[str]:
        """A node needs a way to check tokens, and TURN needs both its parts."""
        problems = []
        if not given & {"auth_secret", "jwks_url"}:
            problems.append("KEEPLINE_AUTH_SECRET or KEEPLINE_JWKS_URL: one of them is required")
        if "turn_urls" in given and "turn_secret" not in given:
            problems.append("KEEPLINE_TURN_SECRET: required when KEEPLINE_TURN_URLS is set")
        if "tls_key" in given and "tls_certificate" not in given:
            problems.append("KEEPLINE_TLS_CERTIFICATE: required when KEEPLINE_TLS_KEY is set")
        if "turn_secret" in given and "turn_urls" not in given:
            problems.append("KEEPLINE_TURN_URLS: required when KEEPLINE_TURN_SECRET is set")
        return problems


class PersisterSettings(CommonSettings):
    """Settings of a persister. Times are seconds."""

    # A worker that is started again under its old name finds its own unfinished entries at once.
    worker_id: Name = Field(default_factory=_own_name)
    batch_entries: int = Field(default=500, ge=1, le=10_000)
    claim_idle_seconds: float = Field(default=30, ge=1, le=3600)
    retry_cap_seconds: float = Field(default=10, ge=0.1, le=300)

    # How long rows are kept: rooms after their end was written, and after that their bare ids.
    keep_ended_seconds: float = Field(default=3600, ge=2, le=31_536_000)
    keep_removed_days: float = Field(default=7, ge=0.01, le=3650)
    cleanup_seconds: float = Field(default=60, ge=0.1, le=86_400)

    @classmethod
    def problems_between(cls, given: set[str]) -> list[str]:
        """A persister without a database has nothing to do."""
        return [] if "database_url" in given else ["DATABASE_URL: required, the persister writes to it"]


class _Environ(EnvSettingsSource):
    """Reads a mapping that is passed in instead of the process's own environment."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self.env_vars = {name.lower(): value for name, value in environ.items() if value}

    def given(self) -> dict[str, Any]:
        """Return the raw values by field name or alias."""
        return dict(self())


def variable_of(settings: type[CommonSettings], field: str) -> str:
    """Return the name of the environment variable that sets a field."""
    alias = settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field.upper()


def load(settings: type[AnySettings], environ: Mapping[str, str]) -> AnySettings:
    """Read settings from an environment and the files of secrets that it names; empty values count as not set.

    Raises `SettingsError` with every problem there is.
    """
    fields = {variable_of(settings, name): name for name in settings.model_fields}
    unread: Mapping[str, str] = {}
    try:
        environ = secret_files.read_secret_files(environ)
    except secret_files.SecretFileError as error:
        environ = error.environ
        unread = {variable: text for variable, text in error.problems.items() if variable in fields}
    given = {field for variable, field in fields.items() if environ.get(variable) or variable in unread}
    problems = settings.problems_between(given)
    loaded = None
    try:
        loaded = settings(**_Environ(settings, environ).given())
    except ValidationError as error:
        found = _field_problems(settings, fields, error, environ)
        # What could not be read is not there; that it is missing goes without saying.
        problems = [text for variable, text in found.items() if variable not in unread] + problems
    problems = [*unread.values(), *problems]
    if loaded is None or problems:
        raise SettingsError(problems)
    return loaded


def _field_problems(
    settings: type[CommonSettings],
    fields: Mapping[str, str],
    error: ValidationError,
    environ: Mapping[str, str],
) -> dict[str, str]:
    problems: dict[str, str] = {}
    for detail in error.errors(include_url=False, include_context=False):
        name = str(detail["loc"][0])
        field = fields.get(name, name)
        variable = variable_of(settings, field)
        if detail["type"] == "missing":
            expectation = "required"
        else:
            expectation = detail["msg"].removeprefix("Value error, ").replace("Input should", "should")
            if field not in settings.hidden:
                expectation += f", got {environ.get(variable, '')!r}"
        problems.setdefault(variable, f"{variable}: {expectation}")
    return problems


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """Describe each `KEEPLINE_` variable that no program reads, with the nearest known name (typos)."""
    known = {
        variable_of(settings, field)
        for settings in (NodeSettings, PersisterSettings)
        for field in settings.model_fields
    } | {variable + secret_files.SUFFIX for variable in secret_files.SECRETS}
    messages = []
    for name in sorted(n for n in environ if n.startswith(PREFIX) and n not in known):
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        messages.append(f"{name} is not a setting{hint}")
    return messages
