"""Which client a request is from: two are never taken for one, nor one for two."""

import logging

import pytest

from service.middleware.client_address import TrustedProxies, parse_address
from service.middleware.rate_limit import client_id
from service.settings import Settings, SettingsError, settings

PROXIES = "127.0.0.1, 10.0.0.0/8, 2001:db8:f::/48"


@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),  # not a proxy of ours: it may write what it likes
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),  # the first was written by the client
        ("127.0.0.1", ["203.0.113.9, 198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.9", "198.51.100.1"], "198.51.100.1"),  # two lines are one list
        ("127.0.0.1", ["198.51.100.1", "10.1.2.3"], "198.51.100.1"),
        ("127.0.0.1", ["10.9.9.9, 10.1.2.3"], "10.9.9.9"),
        ("127.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("127.0.0.1", ["[2001:db8::7]:443"], "2001:db8::7"),
        ("127.0.0.1", ['"[2001:db8::7]"'], "2001:db8::7"),
        ("127.0.0.1", ["2001:DB8:0::7"], "2001:db8::7"),
        ("127.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("::ffff:127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("2001:db8:f::1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1, unknown, 10.1.2.3"], "10.1.2.3"),
        ("127.0.0.1", ["_hidden, 010.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", [",".join(["198.51.100.1", *["10.0.0.1"] * 5000])], "10.0.0.1"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_client_id_is_the_last_untrusted_address(peer: str, lines: list[str], client: str) -> None:
    headers = [
        (b"host", b"x"),
        *((b"x-forwarded-for", line.encode()) for line in lines),
        (b"forwarded", b"for=1.1.1.1"),
    ]
    assert TrustedProxies(PROXIES).client(peer, headers) == client


def test_trusted_proxies_star_trusts_one_hop() -> None:
    headers = [(b"x-forwarded-for", b"203.0.113.9, 198.51.100.1")]
    assert TrustedProxies("*").client("192.0.2.1", headers) == "198.51.100.1"
    assert TrustedProxies("*, 198.51.100.0/24").client("192.0.2.1", headers) == "203.0.113.9"


def test_trusted_proxies_unlisted_proxy_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    proxies = TrustedProxies(None)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert proxies.client("172.17.0.1", [(b"x-forwarded-for", b"198.51.100.1")]) == "172.17.0.1"
        assert proxies.client("172.17.0.1", []) == "172.17.0.1"
    assert caplog.text.count("ATELIER_TRUSTED_PROXIES") == 1


@pytest.mark.parametrize("name", ["ATELIER_TRUSTED_PROXIES", "FORWARDED_ALLOW_IPS"])
def test_trusted_proxies_with_a_host_name_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "127.0.0.1,nginx")
    settings.cache_clear()
    with pytest.raises(SettingsError, match=f"^{name} is '127.0.0.1,nginx': 'nginx' is neither an address nor"):
        settings()
    monkeypatch.setenv(name, "127.0.0.1, 10.0.0.1/8")
    assert Settings().trusted_proxies == "127.0.0.1, 10.0.0.1/8"
    settings.cache_clear()


def test_client_id_unwraps_embedded_ipv4_addresses() -> None:
    assert client_id("::ffff:198.51.100.1") == client_id("198.51.100.1") != client_id("::ffff:198.51.100.2")
    assert client_id("64:ff9b::c633:6401") == "198.51.100.1"  # NAT64
    assert client_id("2002:c633:6401:7::1") == client_id("2002:c633:6401:8::1") == "198.51.100.1"  # 6to4
    assert client_id("2001:0:4136:e378:8000:63bf:39cc:9bfe") == "198.51.100.1"  # Teredo: the client's bits, inverted
    assert client_id("fe80::1%eth0") == "fe80::1" != client_id("fe80::2%eth0")  # one segment, many machines
    assert client_id("2001:db8::1") == client_id("2001:0DB8:0:0:ffff::2") == "2001:db8::/64"


@pytest.mark.parametrize(
    "text", ["", "unknown", "_x", "1.2.3", "1.2.3.4.5", "[::1", "[x]", ":80", "a:b", "é", "1" * 10**5]
)
def test_parse_address_invalid_returns_none(text: str) -> None:
    assert parse_address(text) in (None, parse_address("::1") if text == "[::1" else None)


def test_client_id_of_a_long_text_is_bounded() -> None:
    """A proxy that uvicorn trusts passes on what it likes, and names of clients are kept in memory."""
    assert client_id("x" * 60_000) == "x" * 64
