# SPDX-License-Identifier: Apache-2.0
"""Filters on point-in-time recovery's settings: thin wrappers on :mod:`slipway.backup.pitr.conf`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.backup.pitr import conf
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import SlipwayError


def _settings(found: Mapping[str, Any]) -> conf.Settings:
    return conf.settings({**found, "repository": dict(found["repository"])})


def pitr_conf(found: Mapping[str, Any]) -> str:
    """``pgbackrest.conf``, without secrets."""
    try:
        return conf.render(_settings(found))
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error


def pitr_secrets(found: Mapping[str, Any], passphrase: str, key: Mapping[str, str] | None = None) -> str:
    """``conf.d/secrets.conf``."""
    try:
        return conf.render_secrets(_settings(found), passphrase, key)
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error


def pitr_problem(found: Mapping[str, Any], passphrase: str, key: Mapping[str, str] | None = None) -> str:
    """What is wrong with the settings, as one message without a secret; empty when nothing is."""
    try:
        conf.render(_settings(found))
        conf.render_secrets(_settings(found), passphrase, key)
    except SlipwayError as error:
        return str(error)
    return ""


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "pitr_conf": pitr_conf,
            "pitr_secrets": pitr_secrets,
            "pitr_problem": pitr_problem,
            "pitr_queue_mb": conf.queue_mb,
            "pitr_archive_command": conf.archive_command,
        }
