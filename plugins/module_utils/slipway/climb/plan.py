# SPDX-License-Identifier: Apache-2.0
"""What a climb is going to do, as data and as a page for a person: found, wished, steps, impact, price, the way back. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InputError

PHASES = ("preflight", "prove", "prepare", "cut_over", "verify", "record")
"""The phases of every climb, in order. Only ``cut_over`` may be noticed by users."""
WIDTH = 96


@dataclass(frozen=True)
class Row:
    """One line of the before/after table: what it is, what runs now (empty: nothing), what shall run, what that takes.

    ``effect`` is in words for people ("PostgreSQL restarts"); empty where nothing needs to be said.
    """

    what: str
    before: str
    after: str
    effect: str = ""

    @property
    def changes(self) -> bool:
        """Whether what runs is not what shall run."""
        return self.before != self.after


@dataclass(frozen=True)
class Step:
    """One thing that will be done, in which phase, and what users notice of it (empty: nothing)."""

    phase: str
    text: str
    impact: str = ""

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise InputError(f"A step is in the phase '{self.phase}'", f"one of: {', '.join(PHASES)}")


@dataclass(frozen=True)
class Plan:
    """A climb on one host, before anything is done.

    ``impact``: what users notice, in their words. ``price``: per month, with its source. ``back``: the way back, as a
    command. ``proof``: which backup stands behind it, or how one will be had. ``interrupted``: the phase in which an earlier
    run stopped; this one then goes on from there.
    """

    climb: str
    host: str
    title: str
    rows: tuple[Row, ...]
    steps: tuple[Step, ...]
    impact: str
    price: str
    back: str
    proof: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    interrupted: str = ""

    @property
    def due(self) -> bool:
        """Whether there is anything to do: a step, or a run that was interrupted and wants its end."""
        return bool(self.steps) or bool(self.interrupted)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with ``due``."""
        return {**asdict(self), "due": self.due}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Plan:
        """The reverse of :meth:`to_dict`. Raises InputError for what is none."""
        fields = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        try:
            fields["rows"] = tuple(Row(**row) for row in fields.get("rows", ()))
            fields["steps"] = tuple(Step(**step) for step in fields.get("steps", ()))
            for name in ("notes", "warnings"):
                fields[name] = tuple(str(text) for text in fields.get(name, ()))
            return cls(**fields)
        except (TypeError, AttributeError) as error:
            raise InputError(f"This is no plan of a climb ({error})", "what Plan.to_dict gives") from error


def render(plan: Plan, *, only_looks: bool = False) -> str:
    """The plan for a terminal, at most 96 columns where words allow; no trailing newline. ``only_looks``: a --check run."""
    parts = [f"{plan.title} on {plan.host}", ""]
    if plan.interrupted:
        parts += [*_told("Interrupted", f"an earlier run stopped in the phase {plan.interrupted}; this one goes on from there."), ""]  # fmt: skip
    if plan.rows:
        parts += [*table(plan.rows), ""]
    if not plan.due:
        parts += [
            "Nothing to do: what runs is what it should be. Nothing was changed.",
            *_sentences("note", plan.notes),
            *_sentences("warning", plan.warnings),
        ]
        return "\n".join(parts)
    parts.append("Steps")
    parts += [line for step in plan.steps for line in _step(step)]
    parts += ["", *_told("Impact", plan.impact), *_told("Proof", plan.proof), *_told("Price", plan.price)]
    parts += [*_told("Back", plan.back), *_sentences("note", plan.notes), *_sentences("warning", plan.warnings)]
    if only_looks:
        parts += ["", "This was a look alone (--check): nothing was changed."]
    return "\n".join(parts)


def table(rows: Iterable[Row]) -> list[str]:
    """The before/after table; what changes is marked, and comes in the order given."""
    shown = list(rows)
    heads = ("", "now", "then")
    widths = [
        max(len(heads[0]), *(len(row.what) for row in shown)),
        max(len(heads[1]), *(len(row.before or "-") for row in shown)),
        max(len(heads[2]), *(len(row.after or "-") for row in shown)),
    ]
    lines = [f"    {heads[0]:<{widths[0]}}  {heads[1]:>{widths[1]}}  {heads[2]:>{widths[2]}}"]
    for row in shown:
        mark = ">" if row.changes else " "
        effect = row.effect if row.changes else ""
        text = f"  {mark} {row.what:<{widths[0]}}  {row.before or '-':>{widths[1]}}  {row.after or '-':>{widths[2]}}  {effect}"
        lines.append(text.rstrip())
    return lines


def _step(step: Step) -> list[str]:
    text = step.text + (f" ({step.impact})" if step.impact else "")
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"  {step.phase:<10}", subsequent_indent=" " * 12, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _told(name: str, text: str) -> list[str]:
    if not text:
        return []
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{name + ':':<12}", subsequent_indent=" " * 12, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _sentences(kind: str, sentences: Iterable[str]) -> list[str]:
    return [line for sentence in sentences for line in _told(kind.capitalize(), sentence)]
