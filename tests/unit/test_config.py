"""The environment, parsed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import KNOWN_NAMES, Settings
from app.environment import NavEntry, is_loopback, parse_size
from app.errors import ConfigError


def settings(**env: str) -> Settings:
    return Settings.from_environment(env)


def refusal(**env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(**env)
    return str(caught.value)


def test_the_defaults_are_the_contracts() -> None:
    found = settings()
    assert found.libvirt_uri == "qemu:///system"
    assert (found.dump_dir, found.log_dir, found.state_dir) == (
        Path("var/dumps").absolute(), Path("var/log").absolute(), Path("var/state").absolute(),
    )  # fmt: skip
    assert found.state_file == found.state_dir / "memory-dumps.sqlite3"
    assert (found.influx_url, found.influx_db, found.influx_token) == (None, "vmstats", None)
    assert (found.host, found.port, found.public_urls) == ("127.0.0.1", 8000, ())
    assert (found.max_concurrent_dumps, found.dump_timeout_sec) == (2, 300.0)
    assert (found.mode, found.compression, found.auth) == ("auto", "gzip", "token")
    assert (found.max_pause_ms, found.fallback_pause_ms, found.spool_memory_bytes) == (300, 10_000, None)


@pytest.mark.parametrize("name", sorted(KNOWN_NAMES))
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_value_is_as_good_as_none(name: str, empty: str) -> None:
    assert settings(**{name: empty}) == settings()


def test_a_name_that_is_unknown_is_named_and_others_peoples_names_are_left_alone() -> None:
    assert "MEMDUMP_PROT" in refusal(MEMDUMP_PROT="1", MEMDUMP_ZZZ="2")
    assert settings(MEMORY="1", memdump_port="x") == settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MEMDUMP_PORT", "65536"), ("MEMDUMP_PORT", "+80"), ("MEMDUMP_PORT", "8_0"), ("MEMDUMP_PORT", "８０"),
        ("MEMDUMP_MAX_CONCURRENT_DUMPS", "0"), ("MEMDUMP_MAX_CONCURRENT_DUMPS", "65"),
        ("MEMDUMP_DUMP_TIMEOUT_SEC", "-1"), ("MEMDUMP_DUMP_TIMEOUT_SEC", "inf"), ("MEMDUMP_DUMP_TIMEOUT_SEC", "1e3"),
        ("MEMDUMP_MODE", "dead"), ("MEMDUMP_COMPRESSION", "xz"), ("MEMDUMP_AUTH", "basic"),
        ("MEMDUMP_MAX_PAUSE_MS", "0"), ("MEMDUMP_FALLBACK_PAUSE_MS", "-1"), ("MEMDUMP_SPOOL_MEMORY", "1.5G"),
        ("MEMDUMP_PUBLIC_URL", "ftp://x"), ("MEMDUMP_PUBLIC_URL", "https://"), ("MEMDUMP_PUBLIC_URL", "http://x:99999"),
        ("MEMDUMP_NAV", "Backups"), ("MEMDUMP_NAV", "{}"), ("MEMDUMP_NAV", "null"), ("MEMDUMP_NAV", "[1]"),
        ("MEMDUMP_NAV", "[" * 10_000), ("MEMDUMP_NAV", '[{"name": "x"}]'),
        ("MEMDUMP_NAV", '[{"name": "x", "url": "/x", "new": 1}]'),
        ("MEMDUMP_PUBLIC_URL", "http://[::1"), ("MEMDUMP_PUBLIC_URL", "https://a.example,b.example"),
        ("MEMDUMP_TRUSTED_PROXIES", "proxy"), ("MEMDUMP_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("MEMDUMP_TRUSTED_PROXIES", "127.0.0.1, ::/0"),
        ("MEMDUMP_GROUP_ROLES", "soc=viewer"),
        ("MEMDUMP_GROUP_ROLES", "{}"), ("MEMDUMP_GROUP_ROLES", '[["a", "viewer"]]'), ("MEMDUMP_GROUP_ROLES", '{"a": "root"}'),
        ("MEMDUMP_GROUP_ROLES", '{"a": "viewer", "a": "viewer"}'), ("MEMDUMP_GROUP_ROLES", '{"": "viewer"}'),
        ("INFLUX_URL", "localhost"), ("INFLUX_URL", "http://a http://b"),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_on_one_line_that_names_it(name: str, value: str) -> None:
    line = refusal(**{name: value})
    assert name in line
    assert "\n" not in line


PROXY = {"MEMDUMP_AUTH": "proxy", "MEMDUMP_TRUSTED_PROXIES": "127.0.0.1 10.0.0.0/24,::1", "MEMDUMP_GROUP_ROLES": '{"b": "viewer"}'}


@pytest.mark.parametrize("name", ["MEMDUMP_TRUSTED_PROXIES", "MEMDUMP_GROUP_ROLES"])
def test_a_proxy_says_who_is_asking_only_where_it_is_named_and_groups_have_roles(name: str) -> None:
    found = settings(**PROXY)
    assert [str(network) for network in found.trusted_proxies] == ["127.0.0.1/32", "10.0.0.0/24", "::1/128"]
    assert name in refusal(**{**PROXY, name: ""})


def test_groups_keep_their_order_for_the_first_counts() -> None:
    found = settings(MEMDUMP_GROUP_ROLES='{"z": "operator", "a": "administrator", "*": "viewer"}')
    assert found.group_roles == (("z", "operator"), ("a", "administrator"), ("*", "viewer"))


def test_a_group_with_a_comma_could_never_be_told_by_a_proxy() -> None:
    assert "MEMDUMP_GROUP_ROLES" in refusal(**{**PROXY, "MEMDUMP_GROUP_ROLES": '{"cn=a,ou=b": "viewer"}'})


OIDC = {"MEMDUMP_AUTH": "oidc", "MEMDUMP_OIDC_ISSUER": "https://login.example.org/", "MEMDUMP_OIDC_CLIENT_ID": "x"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("MEMDUMP_OIDC_ISSUER", ""), ("MEMDUMP_OIDC_ISSUER", "http://login.example.org"), ("MEMDUMP_OIDC_ISSUER", "login.example.org"),
     ("MEMDUMP_OIDC_ISSUER", "https://a:b@login.example.org"), ("MEMDUMP_OIDC_CLIENT_ID", ""), ("MEMDUMP_GROUP_ROLES", ""),
     ("MEMDUMP_OIDC_SCOPE", "profile")],
)  # fmt: skip
def test_a_provider_is_used_only_where_everything_that_it_takes_is_set(name: str, value: str) -> None:
    given = {**OIDC, "MEMDUMP_GROUP_ROLES": '{"cn=a,ou=b": "viewer"}'}
    assert settings(**given).oidc.issuer == "https://login.example.org/"  # a slash at its end is part of its name
    assert name in refusal(**{**given, name: value})


def test_words_are_taken_in_any_case() -> None:
    assert settings(MEMDUMP_MODE="Paused").mode == "paused"


def test_no_time_limit_is_zero_and_fractions_of_seconds_may_be() -> None:
    assert settings(MEMDUMP_DUMP_TIMEOUT_SEC="0").dump_timeout_sec == 0
    assert settings(MEMDUMP_DUMP_TIMEOUT_SEC="2.5").dump_timeout_sec == 2.5


def test_folders_are_absolute_and_know_a_home() -> None:
    found = settings(DUMP_DIR="~/dumps", MEMDUMP_STATE_DIR="state")
    assert found.dump_dir == Path.home() / "dumps"
    assert found.state_dir == Path.cwd() / "state"


def test_public_urls_are_apart_by_commas_or_spaces_and_have_no_slash_at_the_end() -> None:
    assert settings(MEMDUMP_PUBLIC_URL=" https://a.example/, http://b.example:81 ").public_urls == (
        "https://a.example", "http://b.example:81",
    )  # fmt: skip


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_without_a_login_loopback_is_allowed(host: str) -> None:
    assert settings(MEMDUMP_AUTH="none", MEMDUMP_HOST=host).auth == "none"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "dumps.example.org", "localhost.example.org"])  # noqa: S104
def test_without_a_login_nothing_but_loopback_is_allowed(host: str) -> None:
    assert "MEMDUMP_AUTH=none" in refusal(MEMDUMP_AUTH="none", MEMDUMP_HOST=host)


def test_without_a_login_no_proxy_brings_others_in() -> None:
    assert "MEMDUMP_PUBLIC_URL is https://dumps.example.org" in refusal(
        MEMDUMP_AUTH="none", MEMDUMP_PUBLIC_URL="http://127.0.0.1:8000,https://dumps.example.org"
    )
    assert settings(MEMDUMP_AUTH="none", MEMDUMP_PUBLIC_URL="http://localhost:8443").auth == "none"


@pytest.mark.parametrize(("host", "loopback"), [("[::1]", True), ("", False), ("127.0.0.1.nip.io", False), ("2130706433", False)])
def test_loopback_is_what_this_machine_alone_can_reach(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@given(
    count=st.integers(0, 10**9),
    unit=st.sampled_from("kmgt"),
    suffix=st.sampled_from(["", "b", "ib", "iB", "B"]),
    upper=st.booleans(),
)
def test_a_size_is_binary_whatever_its_unit_looks_like(count: int, unit: str, suffix: str, upper: bool) -> None:
    text = f"{count}{unit.upper() if upper else unit}{suffix}"
    assert parse_size(text) == count * 1024 ** ("kmgt".index(unit) + 1)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("0", 0), ("1048576", 1 << 20), (" 2 GiB ", 2 << 30), ("512M", 512 << 20), ("7b", 7)]
)
def test_a_size_may_be_plain_bytes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "-1", "1.5G", "G", "1P", "1 G G", "0x10", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


def test_an_influx_url_that_is_none_is_answered_with_one_of_influxdb() -> None:
    with pytest.raises(ConfigError, match=r"http://influx\.example\.org:8181"):
        Settings.from_environment({"INFLUX_URL": "ftp://x"})


# --- other pages in the navigation bar


def nav(*entries: object) -> str:
    return json.dumps(entries)


def test_other_pages_in_the_navigation_bar_are_names_and_addresses() -> None:
    assert settings().nav == ()
    value = nav({"name": " Backups ", "url": "https://backups.example.org/a?b=c#d"}, {"url": "/grafana/", "name": "Graphs →"})
    assert settings(MEMDUMP_NAV=value).nav == (
        NavEntry("Backups", "https://backups.example.org/a?b=c#d"), NavEntry("Graphs →", "/grafana/"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)", "data:text/html,x", "ftp://x", "//elsewhere.example", "/\\elsewhere.example", "relative", "", "https://",
        "http://x y", "http://x\n", "/a\tb", "https://x:99999", 7, None,
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_on_one_line_that_names_it(url: object) -> None:
    line = refusal(MEMDUMP_NAV=nav({"name": "fine", "url": "/fine"}, {"name": "x", "url": url}))
    assert line.startswith("MEMDUMP_NAV: ")
    assert "entry 2" in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["", " ", "x" * 61, "a\nb", "\u202ex", "\ud800", 1, None, ["x"]])
def test_a_name_that_could_not_be_shown_is_refused(name: object) -> None:
    assert "entry 1" in refusal(MEMDUMP_NAV=nav({"name": name, "url": "/x"}))


def test_nobody_needs_more_than_twenty_of_them() -> None:
    assert len(settings(MEMDUMP_NAV=nav(*[{"name": "x", "url": "/x"}] * 20)).nav) == 20
    assert "21" in refusal(MEMDUMP_NAV=nav(*[{"name": "x", "url": "/x"}] * 21))
