"""Ports and environments of a cluster on one machine."""

import pytest

from keepline.cli.base.credentials import Credentials
from keepline.cli.base.errors import UsageError
from keepline.cli.local.layout import MOST, Plan, node_environment, persister_environment, shared_environment
from keepline.cli.local.site import lan_url, url_host
from keepline.cli.local.up import check_settings
from keepline.ops.settings import NodeSettings, PersisterSettings, load

CREDENTIALS = Credentials("a" * 32, "k" * 32)
REDIS, DATABASE = "redis://127.0.0.1:8086/0", "postgresql://127.0.0.1:8087/keepline"


def shared(**environ: str) -> dict[str, str]:
    return shared_environment(environ, CREDENTIALS, REDIS, DATABASE)


def test_ports_are_where_the_documentation_says() -> None:
    plan = Plan(nodes=2, persisters=2, port=9000)
    assert [plan.node_port(i) for i in range(2)] == [9000, 9010]
    assert [plan.node_ops_port(i) for i in range(2)] == [9001, 9011]
    assert [plan.persister_ops_port(i) for i in range(2)] == [9005, 9015]
    assert (plan.demo_port, plan.redis_port, plan.postgres_port) == (9003, 9006, 9007)


def test_no_two_listeners_share_a_port() -> None:
    listeners = Plan(nodes=MOST, persisters=MOST).listeners(redis=True, postgres=True)
    ports = [port for _, _, port in listeners]
    assert len(ports) == len(set(ports)) == 3 * MOST + 3


def test_servers_that_others_run_need_no_port() -> None:
    names = {name for name, _, _ in Plan().listeners(redis=False, postgres=False)}
    assert names == {"node-1", "node-2", "persister-1", "the demo page"}


def test_only_clients_and_the_demo_page_leave_loopback() -> None:
    listeners = Plan(host="0.0.0.0").listeners(redis=True, postgres=True)
    assert {port for _, host, port in listeners if host == "0.0.0.0"} == {8080, 8090, 8083}
    assert Plan(host="0.0.0.0").own_host == "127.0.0.1"
    assert Plan(host="192.0.2.7").own_host == "192.0.2.7"


def test_with_lan_the_page_alone_leaves_loopback_over_tls() -> None:
    plan = Plan(lan="192.0.2.7")
    away = [entry for entry in plan.listeners(redis=True, postgres=True) if entry[1] != "127.0.0.1"]
    assert away == [("the demo page over TLS", "192.0.2.7", 8084)]
    assert lan_url(plan) == "https://192.0.2.7:8084/"
    assert lan_url(Plan()) is None


@pytest.mark.parametrize(
    ("nodes", "persisters", "port", "option"),
    [
        (0, 1, 8080, "--nodes"),
        (MOST + 1, 1, 8080, "--nodes"),
        (1, -1, 8080, "--persisters"),
        (1, 1, 0, "--port"),
        (1, 1, 65_530, "--port"),
        (2, 1, 65_520, "--port"),
    ],
)
def test_numbers_that_cannot_work_are_refused(nodes: int, persisters: int, port: int, option: str) -> None:
    with pytest.raises(UsageError, match=option):
        Plan(nodes=nodes, persisters=persisters, port=port)


def test_the_last_block_of_ports_can_be_used() -> None:
    assert Plan(nodes=2, port=65_516).node_port(1) == 65_526


def test_a_node_gets_settings_that_it_accepts() -> None:
    settings = load(NodeSettings, node_environment(Plan(), 1, shared()))
    assert (settings.host, settings.port, settings.ops_host, settings.ops_port) == (
        "127.0.0.1",
        8090,
        "127.0.0.1",
        8091,
    )
    assert settings.node_id == "node-2"
    assert settings.origins == ("*",)
    assert (settings.drain_seconds, settings.drain_linger_seconds) == (2, 0)
    assert settings.create_users


def test_a_persister_gets_settings_that_it_accepts() -> None:
    settings = load(PersisterSettings, persister_environment(Plan(persisters=2), 1, shared()))
    assert (settings.ops_host, settings.ops_port, settings.worker_id) == ("127.0.0.1", 8095, "persister-2")
    assert (settings.redis_url, settings.database_url) == (REDIS, DATABASE)


def test_the_users_own_settings_pass_through_but_do_not_move_ports() -> None:
    environ = shared(
        KEEPLINE_GRACE_SECONDS="3",
        KEEPLINE_DRAIN_SECONDS="7",
        KEEPLINE_CREATE_USERS="",
        KEEPLINE_ORIGINS="https://app.example",
        KEEPLINE_PORT="1",
        KEEPLINE_NODE_ID="mine",
        REDIS_URL="redis://elsewhere",
        HOME="/home/dev",
    )
    node = node_environment(Plan(), 0, environ)
    settings = load(NodeSettings, node)
    assert (settings.grace_seconds, settings.drain_seconds, settings.create_users) == (3, 7, True)
    assert settings.origins == ("https://app.example",)
    assert (settings.port, settings.node_id, settings.redis_url) == (8080, "node-1", REDIS)
    assert node["HOME"] == "/home/dev"


def test_all_problems_of_the_users_settings_are_found_before_the_start() -> None:
    with pytest.raises(UsageError) as caught:
        check_settings(Plan(), {"KEEPLINE_GRACE_SECONDS": "soon", "KEEPLINE_AUTH_SECRET": "short"})
    assert "KEEPLINE_GRACE_SECONDS" in str(caught.value)
    assert "KEEPLINE_AUTH_SECRET" in str(caught.value)
    assert "short" not in str(caught.value)
    check_settings(Plan(), {})


def test_an_ipv6_address_is_bracketed_in_urls() -> None:
    assert url_host("::1") == "[::1]"
    assert url_host("127.0.0.1") == "127.0.0.1"
