# SPDX-License-Identifier: Apache-2.0
"""The Caddyfile of a site: what each setting becomes. That Caddy accepts it is tested on a real one (integration)."""

from __future__ import annotations

from typing import Any

from slipway.caddy.caddyfile import block, files, quote, render
from slipway.caddy.site import parse


def text(**changes: Any) -> str:
    return render(parse({"name": "notes", "domains": ["notes.example.com"], "upstream_port": 18000, **changes}))


def test_blocks_are_indented_by_tabs() -> None:
    assert block("a", block("b", ["c"])) == ["a {", "\tb {", "\t\tc", "\t}", "}"]


def test_quotes_inside_a_value_are_escaped() -> None:
    assert quote('say "hi"') == '"say \\"hi\\""'


def test_only_reads_wait_for_a_starting_application() -> None:
    lines = text(try_seconds=9)
    reads, _, others = lines.partition("reverse_proxy @tries_once")
    assert "lb_try_duration 9s" in reads
    assert "lb_try_duration" not in others
    assert lines.count("keepalive off") == 2


def test_the_proxy_dials_the_stable_port_at_its_address() -> None:
    assert "reverse_proxy @waits 10.213.87.1:18010 {" in text(upstream_address="10.213.87.1", upstream_port=18010)


def test_headers_the_user_names_replace_the_defaults_and_an_empty_one_is_removed() -> None:
    lines = text(headers={"x-frame-options": "DENY", "X-Powered-By": ""})
    assert 'x-frame-options "DENY"' in lines
    assert "SAMEORIGIN" not in lines
    assert "\t\t-X-Powered-By\n" in lines


def test_an_own_policy_replaces_the_applications_while_the_default_gives_way() -> None:
    lines = text(csp="default-src 'self'")
    assert "\t\tContent-Security-Policy \"default-src 'self'\"" in lines
    assert '\theader ?X-Frame-Options "SAMEORIGIN"' in lines


def test_without_origins_cors_is_the_applications_own_business() -> None:
    assert "cors" not in text().lower().replace("access-control", "cors")
    assert "header_down -Access-Control-Allow-Origin" in text(cors_origins=["https://a.example.com"])


def test_every_origin_allows_any_page_but_names_none_back() -> None:
    lines = text(cors_origins=["*"])
    assert 'Access-Control-Allow-Origin "*"' in lines
    assert "{http.request.header.Origin}" not in lines


def test_further_domains_redirect_to_the_main_one_over_https() -> None:
    lines = text(redirects=["www.example.com"])
    assert "http://notes.example.com, http://www.example.com {" in lines
    assert "https://www.example.com {" in lines
    assert "redir https://notes.example.com{uri} 308" in lines


def test_a_snippet_is_a_file_of_its_own_and_goes_when_it_is_no_longer_wanted() -> None:
    with_snippet = parse({"name": "a", "domains": ["a.example.com"], "upstream_port": 1, "snippet": "respond /x ok"})
    without = parse({"name": "b", "domains": ["b.example.com"], "upstream_port": 2})
    made = {item["path"]: item for item in files([with_snippet, without])}
    assert made["/etc/caddy/snippets.d/a.caddy"]["content"] == "respond /x ok\n"
    assert made["/etc/caddy/snippets.d/b.caddy"]["state"] == "absent"
    assert "import /etc/caddy/snippets.d/a.caddy" in made["/etc/caddy/sites.d/a.caddy"]["content"]


def test_files_that_may_hold_password_hashes_are_not_for_everybody() -> None:
    site = parse({"name": "a", "domains": ["a.example.com"], "upstream_port": 1, "basic_auth": {"ops": "$2a$14$x"}})
    made = files([site])[0]
    assert (made["mode"], made["group"]) == ("0640", "caddy")
    assert '"ops" "$2a$14$x"' in made["content"]


def test_the_text_is_the_same_every_time() -> None:
    assert text(headers={"B": "1", "A": "2"}) == text(headers={"B": "1", "A": "2"})
