# SPDX-License-Identifier: Apache-2.0
"""Filters ``slipway.vps.redis_files``, ``redis_units`` and ``redis_public``: thin wrappers on :mod:`slipway.redis.server`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.slipway.vps.plugins.module_utils.slipway.redis.server import Server, files

DOCUMENTATION = r"""
name: redis_files
short_description: From servers of Redis to their files
version_added: "0.2.0"
description: Settings, users, folder and unit of each server, as M(slipway.vps.managed_files) takes them.
positional: listen
options:
  _input: {description: "The servers, as in C(redis_servers) of the role redis.", type: list, elements: dict, required: true}
  listen: {description: Addresses they listen on; the first is used by the host itself., type: list, elements: str, required: true}
"""

EXAMPLES = r"""
- name: Show which files a server needs
  ansible.builtin.debug:
    msg: "{{ redis_servers | slipway.vps.redis_files(['127.0.0.1']) | map(attribute='path') }}"
"""

RETURN = r"""
_value: {description: "The files, some with C(secret).", type: list, elements: dict}
"""


def redis_files(servers: Iterable[Mapping[str, Any]], listen: Iterable[str]) -> list[dict[str, Any]]:
    """See DOCUMENTATION."""
    return files([Server.parse(raw) for raw in servers], listen)


def redis_units(servers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each server's unit, as ``managed_files`` takes it: restarted when a file changed that it reads at its start alone."""
    return [
        {"name": one.unit, "enabled": True, "state": "started", "restart_on": one.paths}
        for one in map(Server.parse, servers)
    ]


def redis_public(servers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each server without its password: what a plan needs to know of it."""
    return [one.public() for one in map(Server.parse, servers)]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"redis_files": redis_files, "redis_units": redis_units, "redis_public": redis_public}
