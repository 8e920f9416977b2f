# SPDX-License-Identifier: Apache-2.0
"""Figures with their bounds, and how they are written down."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".cache" / "benchmarks"


@dataclass(frozen=True)
class Figure:
    """One measured value. ``limit`` is the most it may be; None when it is only told."""

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def met(self) -> bool:
        """Whether the bound holds. A value that is not a number meets none."""
        return self.limit is None or self.value <= self.limit

    def row(self) -> str:
        """A row of the Markdown table."""
        verdict = "" if self.limit is None else ("met" if self.met else "MISSED")
        limit = "" if self.limit is None else f"at most {number(self.limit)}"
        return f"| {self.name} | {number(self.value)} {self.unit} | {limit} | {verdict} |"


@dataclass
class Result:
    """What one benchmark found; ``detail`` is JSON-safe and goes into the file alone."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """All bounds hold, and there was something to hold."""
        return bool(self.figures) and all(one.met for one in self.figures)

    def markdown(self) -> str:
        """The table, and the notes below it."""
        lines = ["| figure | measured | bound | |", "|---|---|---|---|", *(one.row() for one in self.figures)]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)])

    def save(self) -> Path:
        """Write JSON and Markdown under .cache/benchmarks; return the JSON file's path."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps({**asdict(self), "met": self.met, "machine": machine()}, indent=2) + "\n")
        path.with_suffix(".md").write_text(self.markdown() + "\n")
        return path

    def finish(self) -> int:
        """Print, save, and return the exit code."""
        print(self.markdown())
        print(f"\nsaved as {self.save().relative_to(ROOT)}")
        for one in self.figures:
            if not one.met:
                print(f"{one.name}: {number(one.value)} {one.unit}, at most {number(one.limit or 0)} was promised")
        return 0 if self.met else 1


def number(value: float) -> str:
    """Whole numbers without, others with as many decimals as say something."""
    if math.isnan(value):
        return "not measured"
    if value == int(value):
        return str(int(value))
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    load = os.getloadavg()[0]
    return {"cores": os.cpu_count(), "memory_mb": memory, "kernel": platform.release(), "load": round(load, 2)}


def busy() -> str:
    """What to note when others keep this machine busy, else an empty string. Our own work counts for one or two."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load <= cores + 2:
        return ""
    return f"The machine was busy with other work (load {load:.1f} on {cores} cores): these wall times say little."


def progress(text: str) -> None:
    """One line for whoever waits; not part of the result."""
    print(text, file=sys.stderr, flush=True)


def median(values: Sequence[float]) -> float:
    """The middle one (the upper of two)."""
    return sorted(values)[len(values) // 2]
