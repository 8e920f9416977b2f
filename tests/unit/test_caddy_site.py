# SPDX-License-Identifier: Apache-2.0
"""Sites of the reverse proxy: what is refused, with which words, and what the defaults are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.caddy.site import check_braces, parse, problems, size_bytes
from slipway.errors import InputError

SITE: dict[str, Any] = {"name": "notes", "domains": ["notes.example.com"], "upstream_port": 18000}


def words(*sites: Any, defaults: dict[str, Any] | None = None) -> str:
    return " ".join(str(problem) for problem in problems(list(sites), defaults))


def test_a_plain_site_has_no_problem_and_gets_the_defaults() -> None:
    assert words(SITE) == ""
    site = parse(SITE)
    assert site.body_limit == 10_000_000
    assert site.hsts == "max-age=31536000"
    assert site.main_domain == "notes.example.com"


def test_defaults_for_all_sites_lose_against_a_sites_own_value() -> None:
    defaults = {"body_limit": "1MB", "hsts": ""}
    assert words(SITE, defaults=defaults) == ""
    assert parse(SITE, defaults).body_limit == 1_000_000
    assert parse({**SITE, "body_limit": "2MiB"}, defaults).body_limit == 2 * 2**20


def test_a_value_of_none_counts_as_absent() -> None:
    assert words({**SITE, "csp": None}) == ""
    assert parse({**SITE, "csp": None}).csp == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"domain": "x"}, "did you mean 'domains'"),
        ({"upstream_port": "18000"}, "take the quotes away"),
        ({"upstream_port": 70000}, "too large"),
        ({"domains": []}, "name at least one"),
        ({"domains": ["https://notes.example.com"]}, "no https:// and no path"),
        ({"body_limit": "huge"}, "a size such as 10MB"),
        ({"csp": "default-src 'self';\nscript-src 'none'"}, "has to be one line"),
        ({"headers": {"X Y": "1"}}, "no header name"),
        ({"headers": {"X-Y": "1\n2"}}, "has to be one line"),
        ({"cors_origins": ["https://a.example.com/path"]}, "without a path"),
        ({"cors_origins": ["*", "https://a.example.com"]}, "keep either"),
        ({"cors_origins": ["*"], "cors_credentials": True}, "name the origins"),
        ({"cors_methods": ["GET, POST"]}, "not a name"),
        ({"redirects": ["notes.example.com"]}, "there twice"),
        ({"snippet": "handle /x {\n  respond ok\n"}, "opened in line 1 is never closed"),
        ({"rate_limit": {"requests": 0}}, "too small"),
        ({"upstream_address": "localhost"}, "an IP address"),
    ],
)
def test_what_cannot_work_is_refused_and_the_remedy_named(change: dict[str, Any], said: str) -> None:
    text = words({**SITE, **change})
    assert said.lower() in text.lower()
    assert text.startswith("caddy_sites[0]")
    with pytest.raises(InputError):
        parse({**SITE, **change})


def test_two_sites_cannot_share_a_name_or_a_domain() -> None:
    other = {**SITE, "name": "other"}
    assert "domain notes.example.com is there twice: also in the site 'notes'" in words(SITE, other)
    assert "site notes is there twice" in words(SITE, {**SITE, "domains": ["else.example.com"]})


def test_a_password_hash_is_never_quoted_in_a_message() -> None:
    assert "$2a$14$abc" not in words({**SITE, "basic_auth": {"ops": ["$2a$14$abc"]}})
    assert "$2a$14$abc" not in repr(parse({**SITE, "basic_auth": {"ops": "$2a$14$abc"}}))


@pytest.mark.parametrize(
    ("text", "size"), [("10MB", 10**7), ("10 MB", 10**7), ("1MiB", 2**20), ("5k", 5000), ("7", 7), ("2GiB", 2**31)]
)
def test_sizes_are_read_as_caddy_reads_them(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    "snippet",
    [
        'handle /x {\n  respond "}"\n}\n',
        "respond `{`",
        "# a comment with }\nrespond ok",
        "header X {http.request.uuid}",
        "",
    ],
)
def test_braces_in_texts_comments_and_placeholders_are_no_blocks(snippet: str) -> None:
    assert list(check_braces(snippet)) == []


def test_a_brace_that_would_close_the_sites_own_block_is_named_by_line() -> None:
    (problem,) = check_braces("respond ok\n}\nabort {\n")
    assert "line 2 closes a block" in str(problem)


@given(st.integers(0, 6), st.integers(0, 6))
def test_blocks_are_accepted_exactly_when_they_are_balanced(opened: int, closed: int) -> None:
    snippet = "handle {\n" * opened + "}\n" * closed
    assert (list(check_braces(snippet)) == []) == (opened == closed)
