# SPDX-License-Identifier: Apache-2.0
"""Rate limits of a site, as fail2ban jails on its access log.

Debian's Caddy has no module for rate limits. This one reacts: it shuts an address out once it has asked too often,
some seconds after the fact. It counts addresses, so visitors behind one address share a count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .site import Site

HEAD = "# Managed by Slipway (role caddy): change caddy_sites, not this file.\n"
LOGS = "/var/log/caddy"


def failregex(limit: Mapping[str, Any]) -> str:
    """What counts, as fail2ban reads it. Caddy escapes quotes in whatever a client sends: none of it can match a key."""
    # re.escape, and % doubled: fail2ban's files interpolate.
    paths = "|".join(re.escape(path).replace("%", "%%") for path in limit.get("paths") or ())
    uri = f'"uri":"(?:{paths})[^"]*",.*' if paths else ""
    statuses = "|".join(str(status) for status in limit.get("statuses") or ())
    status = f'"status":(?:{statuses}),' if statuses else '"status":\\d+,'
    return f'^.*"msg":"handled request","request":\\{{"remote_ip":"<ADDR>",.*{uri}{status}'


def filter_file(limit: Mapping[str, Any]) -> str:
    """The filter: which lines of the access log count."""
    return f'{HEAD}[Definition]\nfailregex = {failregex(limit)}\ndatepattern = "ts":{{EPOCH}}\n'


def jail_file(site: Site) -> str:
    """The jail: how many of them within which time, and for how long the address is shut out (TCP and HTTP/3)."""
    limit = site.rate_limit
    lines = [
        f"[slipway-{site.name}]",
        "enabled = true",
        f"filter = slipway-{site.name}",
        "backend = polling",
        f"logpath = {LOGS}/{site.name}.access.log",
        f"maxretry = {limit['requests']}",
        f"findtime = {limit.get('seconds', 60)}",
        f"bantime = {limit.get('ban_seconds', 600)}",
        # As long as was asked for, whatever the other jails do with those who come back.
        "bantime.increment = false",
        "port = 80,443",
        "protocol = tcp,udp",
        "banaction = nftables[type=multiport]",
    ]
    return HEAD + "\n".join(lines) + "\n"


def paths(name: str) -> list[str]:
    """Where a site's filter and its jail stand."""
    return [f"/etc/fail2ban/{folder}.d/slipway-{name}.conf" for folder in ("filter", "jail")]


def files(sites: Iterable[Site]) -> list[dict[str, Any]]:
    """The files of all sites' limits, as ``slipway.vps.managed_files`` takes them; absent where a site has none."""
    listed: list[dict[str, Any]] = []
    for site in sites:
        filter_path, jail_path = paths(site.name)
        if not site.rate_limit:
            listed += [{"path": path, "state": "absent"} for path in (filter_path, jail_path)]
            continue
        log = {"path": f"{LOGS}/{site.name}.access.log", "content": "", "force": False}
        listed += [
            # fail2ban does not begin without the file, and Caddy makes it only with the first request.
            {**log, "mode": "0600", "owner": "caddy", "group": "caddy"},
            {"path": filter_path, "content": filter_file(site.rate_limit)},
            {"path": jail_path, "content": jail_file(site)},
        ]
    return listed
