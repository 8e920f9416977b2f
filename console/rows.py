# SPDX-License-Identifier: Apache-2.0
"""One line of a host's screen, and how figures are judged. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# Filled in with the inventory by whoever renders.
MEND = "ansible-playbook -i {inventory} playbooks/site.yml"


@dataclass(frozen=True)
class Row:
    """One line of a host's screen."""

    label: str
    text: str
    level: str = "good"
    hint: str = ""


def grade(value: float, warn: float, bad: float) -> str:
    """The level of a figure that should be small."""
    return "bad" if value > bad else "warn" if value > warn else "good"
