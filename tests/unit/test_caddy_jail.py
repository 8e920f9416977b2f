# SPDX-License-Identifier: Apache-2.0
"""Rate limits as fail2ban reads them, against lines that Caddy 2.6 wrote."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from slipway.caddy.jail import failregex, files, jail_file
from slipway.caddy.site import parse

SITE = {"name": "notes", "domains": ["notes.example.com"], "upstream_port": 18000}


def line(uri: str = "/login", status: int = 401, address: str = "203.0.113.7", **headers: str) -> str:
    """A line of the access log, as fail2ban sees it (the date cut out)."""
    request = {"remote_ip": address, "remote_port": "1", "proto": "HTTP/2.0", "method": "POST", "host": "x", "uri": uri}
    entry = {
        "level": "info", "logger": "http.log.access.log0", "msg": "handled request",
        "request": {**request, "headers": {name: [value] for name, value in headers.items()}, "tls": {"version": 772}},
        "user_id": "", "duration": 0.1, "size": 3, "status": status, "resp_headers": {"Server": ["x"]},
    }  # fmt: skip
    return json.dumps(entry, separators=(",", ":"))


def counted(limit: dict[str, Any], text: str) -> str | None:
    """The address that a line counts against, or None."""
    pattern = failregex(limit).replace("%%", "%").replace("<ADDR>", r"(?P<address>[0-9a-f.:]+)")
    match = re.search(pattern, text)
    return match["address"] if match else None


def test_every_request_counts_where_nothing_is_said() -> None:
    assert counted({"requests": 5}, line("/", 200)) == "203.0.113.7"


@pytest.mark.parametrize(("uri", "status", "counts"), [
    ("/login", 401, True), ("/login?next=/", 403, True), ("/login", 200, False), ("/", 401, False), ("/x/login", 401, False),
])  # fmt: skip
def test_only_the_named_paths_and_statuses_count(uri: str, status: int, counts: bool) -> None:
    limit = {"requests": 5, "paths": ["/login"], "statuses": [401, 403]}
    assert (counted(limit, line(uri, status)) is not None) == counts


def test_a_client_cannot_blame_another_address_by_what_it_sends() -> None:
    forged = '"request":{"remote_ip":"198.51.100.9","uri":"/login","status":401,'
    limit = {"requests": 5, "paths": ["/login"], "statuses": [401]}
    assert counted(limit, line("/" + forged, 200, Referer=forged)) is None
    assert counted(limit, line("/login", 401, Referer=forged)) == "203.0.113.7"


def test_signs_of_a_regular_expression_in_a_path_are_taken_literally() -> None:
    limit = {"requests": 5, "paths": ["/a.b%20c"]}
    assert counted(limit, line("/a.b%20c")) is not None
    assert counted(limit, line("/axb%20c")) is None


def test_the_jail_says_what_was_asked_for() -> None:
    text = jail_file(parse({**SITE, "rate_limit": {"requests": 30, "seconds": 60, "ban_seconds": 600}}))
    for wanted in ("maxretry = 30", "findtime = 60", "bantime = 600", "notes.access.log", "protocol = tcp,udp"):
        assert wanted in text


def test_a_site_without_a_limit_leaves_no_jail_behind() -> None:
    assert [item["state"] for item in files([parse(SITE)])] == ["absent", "absent"]
