"""What deploy/ promises without an engine: pinned images, limits, no secret in sight, what is mounted exists."""

import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from keepline.ops.secret_files import SECRETS, SUFFIX
from keepline.ops.settings import NodeSettings, PersisterSettings, unknown_names, variable_of

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ENV_EXAMPLE = (DEPLOY / "env.example").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
RUNS_ONCE = {"migrate"}
OURS = {"node", "persister", "migrate"}

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}")


def filled(text: str) -> str:
    """The text with the defaults of its variables."""
    return _VARIABLE.sub(lambda match: match["default"] or "", text)


def seconds(text: str) -> float:
    return float(filled(text).removesuffix("s"))


@pytest.mark.parametrize("service", SERVICES)
def test_images_are_pinned_to_a_version(service: str) -> None:
    name, _, tag = filled(SERVICES[service]["image"]).rpartition(":")
    assert name
    assert re.search(r"\d+\.\d+\.\d+|\d+\.\d+", tag), tag


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_limited_and_locked_down(service: str) -> None:
    described = SERVICES[service]
    limits = described["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory", "pids"}
    assert described["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in described["security_opt"]
    assert described.get("read_only") is True or service == "grafana"
    assert described["logging"]["options"]["max-size"]
    assert "privileged" not in described


@pytest.mark.parametrize("service", sorted(SERVICES.keys() - RUNS_ONCE))
def test_every_service_comes_back_and_says_how_it_is(service: str) -> None:
    described = SERVICES[service]
    assert described["restart"] == "unless-stopped"
    # Our own image has its health check in the Dockerfile.
    assert service in OURS or described["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


def test_services_start_in_order() -> None:
    for service in ("node", "persister"):
        waits = {name: how["condition"] for name, how in SERVICES[service]["depends_on"].items()}
        assert waits == {"redis": "service_healthy", "migrate": "service_completed_successfully"}
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_a_node_may_drain_for_as_long_as_it_is_told() -> None:
    grace = seconds(SERVICES["node"]["stop_grace_period"])
    assert grace > seconds(SERVICES["node"]["environment"]["KEEPLINE_DRAIN_SECONDS"]) + 5


def test_secrets_are_files_and_made_by_the_script(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    made = {path.name for path in make_secrets(tmp_path)}
    assert made == set(COMPOSE["secrets"])
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert used == made
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    environment = [
        (name, value)
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
    ]
    for name, value in environment:
        assert name not in SECRETS
        if name.endswith(SUFFIX):
            assert str(value).removeprefix("/run/secrets/") in made


def test_the_script_keeps_the_secrets_that_are_there(tmp_path: Path) -> None:
    before = {path.name: path.read_text() for path in make_secrets(tmp_path)}
    after = {path.name: path.read_text() for path in make_secrets(tmp_path)}
    assert before == after
    password = before["redis_auth"].removeprefix("requirepass ").strip()
    assert before["redis_url"] == f"redis://:{password}@redis:6379/0\n"
    assert before["postgres_password"].strip() in before["database_url"]
    assert len(set(before.values())) == len(before)


def make_secrets(folder: Path) -> list[Path]:
    """Run a copy of the script, so that no `.env` appears beside the original."""
    shutil.copy(DEPLOY / "secrets.sh", folder)
    shutil.copy(DEPLOY / "env.example", folder)
    subprocess.run(["bash", folder / "secrets.sh"], check=True, timeout=20, stdout=subprocess.DEVNULL)
    return list((folder / "secrets").iterdir())


def test_programs_are_given_settings_that_they_have() -> None:
    for service, settings in (("node", NodeSettings), ("persister", PersisterSettings)):
        names = SERVICES[service]["environment"].keys()
        own = {variable_of(settings, field) for field in settings.model_fields}
        own |= {variable + SUFFIX for variable in SECRETS}
        assert names <= own
        assert unknown_names(dict.fromkeys(names, "x")) == []


def test_the_proxies_that_are_trusted_are_those_of_the_network() -> None:
    subnet = COMPOSE["networks"]["edge"]["ipam"]["config"][0]["subnet"]
    assert SERVICES["node"]["environment"]["KEEPLINE_TRUSTED_PROXIES"] == subnet
    others = {name for name, service in SERVICES.items() if "edge" in service.get("networks", [])}
    assert others == {"haproxy", "node"}


def test_two_containers_share_at_most_one_network() -> None:
    """Else a name has two addresses, and every container would be balanced to, or scraped, twice."""
    networks = {name: set(service["networks"]) for name, service in SERVICES.items()}
    for finder, found in (("haproxy", "node"), ("prometheus", "node"), ("prometheus", "haproxy")):
        assert len(networks[finder] & networks[found]) == 1


def test_only_what_clients_need_is_open_to_the_world() -> None:
    ports = {
        (service, port.rpartition(":")[2])
        for service, described in SERVICES.items()
        for port in map(filled, described.get("ports", []))
        if not port.startswith("127.0.0.1:")
    }
    assert ports == {
        ("haproxy", "8080"),
        ("coturn", "3478/tcp"),
        ("coturn", "3478/udp"),
        ("coturn", "49160-49199/udp"),
    }


def test_every_variable_of_the_example_is_used_and_none_is_a_secret() -> None:
    names = set(re.findall(r"^#?([A-Z_]+)=", ENV_EXAMPLE, re.MULTILINE))
    text = (DEPLOY / "compose.yaml").read_text() + (DEPLOY / "compose.tls.yaml").read_text()
    used = {match["name"] for match in _VARIABLE.finditer(text)}
    assert names <= used
    assert not names & set(SECRETS)


def test_mounted_files_are_there() -> None:
    for described in SERVICES.values():
        for volume in described.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).exists(), source


def test_redis_is_set_up_to_lose_nothing() -> None:
    lines = (DEPLOY / "valkey/valkey.conf").read_text().splitlines()
    assert {"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction"} <= set(lines)
    assert any(line.startswith("maxmemory ") for line in lines)


def test_the_image_is_built_from_hashes_and_runs_as_nobody_in_particular() -> None:
    assert "syntax=" not in DOCKERFILE  # nothing is fetched to read this file
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases == ["${PYTHON}"] * 2
    assert re.search(r"^ARG PYTHON=python:\d+\.\d+\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert DOCKERFILE.count("--require-hashes") == DOCKERFILE.count(" -r requirements/") == 2
    assert re.search(r"^USER \d+:\d+$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE
    assert not re.search(r"\b(curl|wget|apt-get)\b", DOCKERFILE)


def test_what_the_image_is_built_from_reaches_the_engine() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored or f"!{Path(source).parent}/*{Path(source).suffix}" in ignored


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not on PATH")
def test_haproxy_takes_its_configuration() -> None:
    checked = subprocess.run(
        ["haproxy", "-c", "-f", str(DEPLOY / "haproxy/haproxy.cfg")],
        check=False,
        timeout=20,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr
