# SPDX-License-Identifier: Apache-2.0
"""Filters on the sites of the reverse proxy: thin wrappers on :mod:`slipway.caddy.site`, :mod:`slipway.caddy.caddyfile`, :mod:`slipway.caddy.jail`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.caddy import caddyfile
from ansible_collections.slipway.vps.plugins.module_utils.slipway.caddy import jail as caddy_jail
from ansible_collections.slipway.vps.plugins.module_utils.slipway.caddy import site as caddy_site
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import SlipwayError


def caddy_problems(sites: Sequence[Any], defaults: Mapping[str, Any] | None = None) -> list[str]:
    """What is wrong with ``caddy_sites``, one sentence each; an empty list when nothing is."""
    return [str(problem) for problem in caddy_site.problems(sites, defaults)]


def caddy_files(
    sites: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any] | None = None, absent: Sequence[str] = ()
) -> list[Mapping[str, Any]]:
    """The sites' files and those of their rate limits, as ``slipway.vps.managed_files`` takes them.

    ``absent``: names of sites whose files shall go.
    """
    try:
        parsed = [caddy_site.parse(raw, defaults) for raw in sites]
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error
    gone = [
        {"path": path, "state": "absent"} for name in absent for path in caddyfile.paths(name) + caddy_jail.paths(name)
    ]
    return [*caddyfile.files(parsed), *caddy_jail.files(parsed), *gone]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"caddy_problems": caddy_problems, "caddy_files": caddy_files}
