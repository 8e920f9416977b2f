# SPDX-License-Identifier: Apache-2.0
"""Filters on climbs: thin wrappers on :mod:`slipway.climb`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.climb import plan as climb_plan
from ansible_collections.slipway.vps.plugins.module_utils.slipway.climb import prices, proof
from ansible_collections.slipway.vps.plugins.module_utils.slipway.climb import redis as climb_redis_plan
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import SlipwayError


def climb_text(plan: Mapping[str, Any], only_looks: bool = False) -> str:
    """The plan as a page for a terminal."""
    try:
        return climb_plan.render(climb_plan.Plan.from_dict(plan), only_looks=only_looks)
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error


def climb_whole(plan: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The plan of a climb with what every climb adds (``proof``, ``price``, ``interrupted`` ...), checked."""
    try:
        return climb_plan.Plan.from_dict({**plan, **more}).to_dict()
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error


def climb_redis(resize: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The plan of adding Redis: that of a resize with the servers beside it."""
    try:
        return climb_redis_plan.plan(climb_plan.Plan.from_dict(resize), **more).to_dict()
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error


def climb_beside_redis(plan: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A climb's plan with what its sizes change in the servers of Redis that are there."""
    try:
        return climb_redis_plan.beside(climb_plan.Plan.from_dict(plan), **more).to_dict()
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error


def climb_redis_left(wished: Sequence[Mapping[str, Any]], seen: Sequence[Mapping[str, Any]]) -> list[str]:
    """Servers that do not run as wished."""
    return climb_redis_plan.left(wished, seen)


def climb_price(raw: Mapping[str, Any], rung: str, now: int, own: Mapping[str, object] | None = None) -> str:
    """What a rung costs, from the data file; ``now`` is the host's clock in seconds since the epoch."""
    try:
        return prices.line(prices.parse(raw), rung, datetime.fromtimestamp(now, UTC).date(), own)
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error


def climb_proof(
    backups: str, drills: Sequence[str], tier: str, targets: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Whether a backup stands behind the climb: from what ``slipway backup list`` and ``slipway drill list`` said as JSON."""
    try:
        listed = json.loads(backups)["backups"] if backups.strip() else []
        known = [drill for text in drills if text.strip() for drill in json.loads(text)["drills"]]
        return proof.judge(listed, known, proof.limit_s(tier, targets)).to_dict()
    except SlipwayError as error:
        raise AnsibleFilterError(str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise AnsibleFilterError(f"The records of backups and drills cannot be read: {error}") from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "climb_text": climb_text,
            "climb_whole": climb_whole,
            "climb_price": climb_price,
            "climb_redis": climb_redis,
            "climb_beside_redis": climb_beside_redis,
            "climb_redis_left": climb_redis_left,
            "climb_proof": climb_proof,
        }
