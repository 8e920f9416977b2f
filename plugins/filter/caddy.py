# SPDX-License-Identifier: Apache-2.0
"""Filters on the sites of the reverse proxy: thin wrappers on :mod:`slipway.caddy_site` and :mod:`slipway.caddyfile`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.vps.plugins.module_utils.slipway import caddy_site, caddyfile
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import SlipwayError


def caddy_problems(sites: Sequence[Any], defaults: Mapping[str, Any] | None = None) -> list[str]:
    """What is wrong with ``caddy_sites``, one sentence each; an empty list when nothing is."""
    return [str(problem) for problem in caddy_site.problems(sites, defaults)]


def caddy_files(
    sites: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any] | None = None
) -> list[Mapping[str, str]]:
    """The sites' files, as ``slipway.vps.managed_files`` takes them."""
    try:
        return caddyfile.files(caddy_site.parse(raw, defaults) for raw in sites)
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"caddy_problems": caddy_problems, "caddy_files": caddy_files}
