# SPDX-License-Identifier: Apache-2.0
"""Filters ``slipway.vps.sizing`` and ``slipway.vps.sizing_text``: thin wrappers on :mod:`slipway.sizing`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import SlipwayError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.sizing.plan import (
    Sizing,
    render_budget,
    size_from_facts,
)
from ansible_collections.slipway.vps.plugins.module_utils.slipway.sizing.settings import own_figures

DOCUMENTATION = r"""
name: sizing
short_description: From what a host is to every setting, and to a budget that fits its RAM
version_added: "0.1.0"
description:
  - Decides every PostgreSQL setting, PgBouncer's pools, workers, concurrency, memory limit and pools of each app, and Redis' memory.
  - Fails with one message where it does not fit the RAM, where an override is misspelled, or where a value cannot be.
  - C(slipway.vps.sizing_text) takes the same options and gives the budget as a table of text.
options:
  _input:
    description:
      - "C(ansible_facts.slipway_host) of M(slipway.vps.host_info): C(ram_mb), C(cores) and C(disk_total_mb) are read, and
        C(postgres_major) where the option is not given."
    type: dict
    required: true
  role:
    description: "V(shared) (apps beside the database), V(dedicated) (the database alone) or V(apps) (the database on another host)."
    type: str
    default: shared
  database: {description: "For the role V(apps): C(ansible_facts.slipway_host) of the database's host.", type: dict}
  apps:
    description: >-
      The apps on the host, as in C(slipway_apps): C(name), C(workers), C(concurrency), C(memory_mb), C(database), C(redis), C(state)
      are read (V(auto) or unset: by the rule; those with C(state=absent) are left out), everything else is passed over.
    type: list
    elements: dict
    default: []
  overrides:
    description: "The user's own figures, setting name to value with its unit. They win; C(warnings) tells which bound one breaks."
    type: dict
    default: {}
  pooler: {description: Whether PgBouncer stands before Postgres., type: bool, default: true}
  redis: {description: "Whether Redis lives on the host; by default where an app names a purpose under C(redis).", type: bool}
  postgres_major: {description: "PostgreSQL's major version; from the facts, else 17.", type: int}
  allow_overcommit: {description: Warn where the budget does not fit the RAM instead of failing., type: bool, default: false}
"""

EXAMPLES = r"""
- name: Show the memory budget
  ansible.builtin.debug:
    msg: "{{ ansible_facts.slipway_host | slipway.vps.sizing_text(apps=slipway_apps) }}"

- name: Show one setting
  ansible.builtin.debug:
    msg: "{{ (ansible_facts.slipway_host | slipway.vps.sizing(overrides={'work_mem': '12MB'})).postgres.settings.work_mem }}"
"""

RETURN = r"""
_value:
  description: >-
    C(host), C(postgres) (C(settings) as PostgreSQL reads them, and sizes in MB), C(pgbouncer), C(apps) by name, C(redis),
    C(budget) (C(lines), C(total_mb), C(ram_mb), C(free_mb), C(fits)), C(notes), C(warnings).
  type: dict
"""


def _sizing(host_facts: Mapping[str, Any], options: dict[str, Any]) -> Sizing:
    try:
        return size_from_facts(host_facts, **options)
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error
    except TypeError as error:  # an option that does not exist, or facts that are no mapping
        raise AnsibleFilterError(f"slipway.vps.sizing: {error}") from error


def sizing(host_facts: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """See DOCUMENTATION."""
    return _sizing(host_facts, options).to_dict()


def sizing_text(host_facts: Mapping[str, Any], **options: Any) -> str:
    """The budget as text."""
    return render_budget(_sizing(host_facts, options))


def sized_overrides(settings: Mapping[str, Any], redis_memory_mb: int | str = "auto") -> dict[str, Any]:
    """Of the user's own PostgreSQL settings those that the sizing reckons with (it knows no others), and Redis' memory."""
    return own_figures(settings, redis_memory_mb)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"sizing": sizing, "sizing_text": sizing_text, "sized_overrides": sized_overrides}
