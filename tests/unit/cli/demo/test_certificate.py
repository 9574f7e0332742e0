"""The certificate of the page on the local network."""

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from keepline.cli.demo.certificate import server_context

NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize("address", ["192.168.1.7", "fe80::1", "laptop.local"])
def test_it_names_the_address_and_only_its_owner_may_read_the_key(tmp_path: Path, address: str) -> None:
    assert isinstance(server_context(tmp_path / "tls", address, NOW), ssl.SSLContext)
    (path,) = (tmp_path / "tls").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    names = x509.load_pem_x509_certificate(path.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert [str(name.value) for name in names.value] == [address]


def test_it_stays_until_it_is_about_to_expire_or_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "tls"

    def text_after(days: int) -> str:
        server_context(folder, "192.168.1.7", NOW + datetime.timedelta(days=days))
        (path,) = folder.iterdir()
        return path.read_text()

    first = text_after(0)
    assert text_after(300) == first
    second = text_after(340)
    assert second != first
    (path,) = folder.iterdir()
    path.write_text(second[:100])
    assert text_after(341) not in (first, second)
