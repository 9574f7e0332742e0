"""Settings of the programs, read once from the environment.

All problems are reported together, so that an operator with three wrong values does not need three restarts. Secrets
are never shown, neither in an error nor in `repr`. They may come from files (`secret_files`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from keepline.ops import secret_files
from keepline.ops.postgres.users_table import DEFAULT_COLUMN, DEFAULT_TABLE
from keepline.ops.setting_values import (
    Advertised,
    DatabaseUrl,
    Name,
    Networks,
    Origins,
    Port,
    Prefix,
    RedisUrl,
    StunUrls,
    TurnUrls,
    UsersColumn,
    UsersTable,
    at_least,
    own_name,
    url_of,
)
from keepline.room.keys import DEFAULT_PREFIX
from keepline.room.rules import MAX_DURATION_SECONDS, MIN_DURATION_SECONDS

PREFIX = "KEEPLINE_"

AnySettings = TypeVar("AnySettings", bound="CommonSettings")


class SettingsError(Exception):
    """The environment is invalid. The message has all problems, one per line. Programs print it and exit with 2."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{count} in the environment:", *(f"  {line}" for line in problems)]))


class CommonSettings(BaseSettings):
    """Settings of both programs. A field is named after its variable, in lower case and without `KEEPLINE_`.

    The docstring of a field is its meaning in `--help` and docs/configuration.md.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    redis_url: RedisUrl = Field(validation_alias="REDIS_URL", repr=False)
    """Redis or Valkey: one server, Sentinels or a cluster (`redis://`, `rediss://`, `unix://`, `redis+sentinel://`,
    `redis+cluster://`).
    """
    redis_prefix: Prefix = DEFAULT_PREFIX
    """Prefix of every key and channel. Give each cluster its own. `none`: no prefix, as in the first releases."""
    database_url: DatabaseUrl | None = Field(default=None, validation_alias="DATABASE_URL", repr=False)
    """Postgres (`postgresql://`). Required for persisters. A node without it cannot restore rooms that Redis has
    lost.
    """
    ops_host: str = Field(default="127.0.0.1", min_length=1)
    """Address on which the ops port listens: health, metrics and the HTTP API. Do not expose it to the internet."""
    ops_port: Port = 8081
    """The ops port."""
    limit_ops_connections: int = Field(default=256, ge=4, le=100_000)
    """Maximum number of connections to the ops port. Beyond it, idle ones are closed."""
    limit_ops_request_seconds: float = Field(default=10, ge=0.1, le=300)
    """How long a request to the ops port may take to arrive."""
    limit_ops_work_ms: float = Field(default=200, ge=10, le=1000)
    """Event loop time per second that requests to the ops port may use, in ms."""
    log_format: Literal["json", "text"] | None = None
    """Format of the log on stderr. By default text on a terminal, otherwise JSON."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged."""
    users_table: UsersTable = DEFAULT_TABLE
    """The app's table of users, to which rows refer. `none`: no references."""
    users_column: UsersColumn = DEFAULT_COLUMN
    """The UUID column of that table."""
    create_users: bool = False
    """Whether persisters add unknown members of rooms to `users`. Leave it off if your app writes its users."""
    drain_seconds: float = Field(default=30, ge=0, le=3600)
    """How long a node takes to move its clients to other nodes before it stops."""
    keep_referrals_days: float = Field(default=90, ge=0.01, le=3650)
    """Lifetime of a referral. Use the same value for nodes and persisters."""

    # Errors do not show values of these fields, because URLs may contain passwords.
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
        """Use only arguments: the environment is an argument of `load`."""
        return (init_settings,)

    @classmethod
    def problems_between(cls, given: set[str]) -> list[str]:
        """Problems with combinations of fields. Each type checks its own field."""
        return []


class NodeSettings(CommonSettings):
    """Settings of a signal node. Times are seconds, sizes bytes."""

    ops_advertise: Advertised | None = None
    """Address of the ops port for the `keepline` command, as host or host:port, if it is not that of OPS_HOST and
    OPS_PORT.
    """

    host: str = Field(default="0.0.0.0", min_length=1)  # noqa: S104 - clients come from other hosts
    """Address on which the port for clients listens."""
    port: Port = 8080
    """The port for clients."""
    node_id: Name = Field(default_factory=own_name)
    """Name of the node, unique in the cluster."""

    tls_certificate: Path | None = None
    """PEM file with a certificate and its chain, for TLS on the port for clients. Reloaded on SIGHUP."""
    tls_key: Path | None = None
    """PEM file with the key, if it is not in the same file as the certificate."""

    auth_secret: Annotated[SecretStr, at_least(32)] | None = None
    """Secret of the app's tokens (HS256), at least 32 bytes. Either this or KEEPLINE_JWKS_URL is required."""
    jwks_url: Annotated[str, url_of("https", "http")] | None = None
    """URL of the public keys of the app's tokens (RS256, ES256)."""
    auth_issuer: str | None = None
    """Required `iss` of tokens. Not checked by default."""
    auth_audience: str | None = None
    """Required `aud` of tokens. Not checked by default."""
    service_key: Annotated[SecretStr, at_least(16)] | None = None
    """Key of the HTTP API, at least 16 bytes. Without it the API answers 503."""
    origins: Origins = ()
    """Origins of pages that may connect, or `*` for any. Clients without Origin, such as native apps, may always
    connect.
    """
    trusted_proxies: Networks = ()
    """Networks of proxies that may report a client's address, by X-Forwarded-For or a PROXY header."""
    drain_linger_seconds: float = Field(default=5, ge=0, le=3600)
    """How long the port for clients stays open after a drain has started, until load balancers have noticed."""

    grace_seconds: float = Field(default=10, ge=1, le=600)
    """Grace period: how long an absent side of a video call has to return."""
    crowd_grace_seconds: float = Field(default=60, ge=1, le=600)
    """Grace period of a side that was lost with its node, while the cluster is letting in a crowd."""
    cold_start_grace_seconds: float = Field(default=30, ge=1, le=600)
    """Grace period after a restart of the whole cluster."""
    text_idle_seconds: float = Field(default=120, ge=1, le=86_400)
    """Text rooms: silence of one side after which both get a warning."""
    text_warning_seconds: float = Field(default=60, ge=1, le=86_400)
    """Text rooms: time from the warning to the end."""
    no_show_seconds: float = Field(default=60, ge=1, le=86_400)
    """How long both members have to join an opened room."""
    min_duration_seconds: int = Field(default=MIN_DURATION_SECONDS, ge=1, le=MAX_DURATION_SECONDS)
    """Shortest agreed length of a call."""
    ending_seconds: float = Field(default=30, ge=1, le=MAX_DURATION_SECONDS)
    """How long before the agreed end of a call both members are told."""
    tombstone_seconds: float = Field(default=3600, ge=60, le=604_800)
    """How long Redis keeps ended rooms."""

    stun_urls: StunUrls = ()
    """STUN servers for clients: `stun:host:port`."""
    turn_urls: TurnUrls = ()
    """TURN servers for clients: `turn:host:port`, optionally with `?transport=tcp`."""
    turn_secret: SecretStr | None = None
    """Secret that the TURN servers share (coturn: `static-auth-secret`). Required with KEEPLINE_TURN_URLS."""
    turn_check_seconds: float = Field(default=30, ge=0, le=3600)
    """How often each TURN server is asked for a relay; 0 for never."""

    limit_frame_bytes: int = Field(default=65_536, ge=1024, le=1_048_576)
    """Maximum size of a frame."""
    limit_bad_frames: int = Field(default=10, ge=1, le=1000)
    """Refused frames within a minute after which a connection is closed."""
    limit_frames_per_second: float = Field(default=50, ge=1, le=100_000)
    """Average frames per second of a connection."""
    limit_frames_burst: int = Field(default=200, ge=1, le=1_000_000)
    """Burst of frames of a connection."""
    limit_work_ms: float | None = Field(default=None, gt=0, le=1000)
    """Event loop time per second that a connection may use, in ms. By default derived from the frame limits."""
    limit_work_burst_ms: float | None = Field(default=None, gt=0, le=100_000)
    """Burst of event loop time of a connection, in ms. By default derived from the frame limits."""
    limit_address_work_ms: float | None = Field(default=None, gt=0, le=1_000_000)
    """Event loop time per second that all connections of an address may use, in ms. By default derived from the
    limits on frames and connections.
    """
    limit_address_work_burst_ms: float | None = Field(default=None, gt=0, le=100_000_000)
    """Burst of event loop time of an address, in ms. By default derived from the limits on frames and connections."""
    limit_header_bytes: int = Field(default=16_384, ge=1024, le=262_144)
    """Maximum size of a handshake's request line and headers."""
    limit_connections: int | None = Field(default=None, ge=1, le=10_000_000)
    """Maximum number of client connections of a node. By default the limit of file descriptors, less a reserve."""
    limit_logins_per_second: float | None = Field(default=None, gt=0, le=1_000_000)
    """Valid logins per second of an IP address on a node. By default a quarter of KEEPLINE_LIMIT_CONNECTIONS_PER_IP."""
    limit_user_logins_per_second: float = Field(default=1, gt=0, le=1_000_000)
    """Valid logins per second of a user on a node, with bursts of 20 times that."""
    limit_connections_before_hello: int = Field(default=5_000, ge=1, le=10_000_000)
    """Maximum number of connections that have not sent hello. Beyond it, the oldest is dropped."""
    limit_connections_per_ip: int = Field(default=100, ge=1, le=1_000_000)
    """Open connections of an IP address, over all nodes."""
    limit_failed_logins: int = Field(default=6, ge=1, le=10_000)
    """Failed logins of an IP address within the window, after which it is blocked."""
    limit_failed_login_window_seconds: float = Field(default=600, ge=1, le=86_400)
    """The window for failed logins."""
    limit_reports_per_room: int = Field(default=5, ge=1, le=1000)
    """Reports of one room by one user within an hour."""
    limit_outgoing_bytes: int = Field(default=1_048_576, ge=65_536, le=1_073_741_824)
    """Unread data of a client beyond which signals to it are refused. At twice that it is disconnected."""
    limit_hello_seconds: float = Field(default=5, ge=0.1, le=300)
    """How long a client may take for the handshake, and then for hello."""
    limit_hello_wait_seconds: float = Field(default=12, ge=0.1, le=300)
    """How long a hello or a join may wait in the queue when many clients log in at once."""
    limit_ping_seconds: float = Field(default=20, ge=0.1, le=600)
    """Silence after which a client is pinged."""
    limit_pong_seconds: float = Field(default=20, ge=0.1, le=600)
    """How long a client may take to answer a ping."""

    hidden: ClassVar[frozenset[str]] = CommonSettings.hidden | {"service_key"}

    @classmethod
    def problems_between(cls, given: set[str]) -> list[str]:
        """A node needs a way to check tokens, and TURN needs both its settings."""
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

    worker_id: Name = Field(default_factory=own_name)
    """Name of the persister. One that restarts under its old name continues its unfinished entries at once."""
    batch_entries: int = Field(default=500, ge=1, le=10_000)
    """Maximum number of events in a batch."""
    claim_idle_seconds: float = Field(default=30, ge=1, le=3600)
    """How long entries of a silent persister stay unclaimed."""
    retry_cap_seconds: float = Field(default=10, ge=0.1, le=300)
    """Longest delay between retries."""

    keep_ended_seconds: float = Field(default=3600, ge=2, le=31_536_000)
    """How long Postgres keeps ended rooms."""
    keep_removed_days: float = Field(default=7, ge=0.01, le=3650)
    """How long the ids of deleted rooms are kept, so that no late event restores them."""
    cleanup_seconds: float = Field(default=60, ge=0.1, le=86_400)
    """Interval of deleting expired rows."""

    @classmethod
    def problems_between(cls, given: set[str]) -> list[str]:
        """A persister needs a database."""
        return [] if "database_url" in given else ["DATABASE_URL: required, the persister writes to it"]


class _Environ(EnvSettingsSource):
    """Reads a given mapping instead of the process' environment."""

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
    """Read settings from an environment and its files of secrets. Empty values count as not set.

    Raises `SettingsError` with all problems.
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
        # A secret whose file could not be read is reported once, not also as missing.
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
    """Describe each `KEEPLINE_` variable that is not a setting, with the most similar one, in case of a typo."""
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
