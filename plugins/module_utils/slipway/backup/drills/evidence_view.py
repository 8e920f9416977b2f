# SPDX-License-Identifier: Apache-2.0
"""A drill's evidence as Markdown: what an auditor reads, and what goes into a ticket. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ..verdict import span
from .evidence import Drill, Note, Record

_SIGNS = {"passed": "passed", "failed": "**FAILED**", "skipped": "**not run**", "not applicable": "not applicable"}


def markdown(record: Record, digest: str, notes: Sequence[Note] = ()) -> str:
    """The page of one drill. ``digest``: the record's hash, as in its line; ``notes``: what people added since.

    Raises ValueError for a record that holds no drill.
    """
    drill = record.drill
    if drill is None:
        raise ValueError("the record holds no drill")
    lines = [f"# Restore drill {drill.drill_id}: {drill.verdict}", ""]
    lines += _table(
        ("", ""),
        [
            ("Verdict", f"**{drill.verdict}**"),
            ("Drill host", drill.host),
            ("Started by", drill.started_by),
            ("From, to (UTC)", f"{_at(drill.started)}, {_at(drill.finished)}"),
            ("Versions", ", ".join(f"{name} {version}" for name, version in sorted(drill.versions.items()))),
            ("Record", f"{record.number}, SHA-256 `{digest}`"),
            ("Record before it", f"`{record.previous}`"),
        ],
    )
    lines += ["", "## Backups tried", ""]
    lines += _table(
        ("backup", "of host", "snapshot (UTC)", "manifest SHA-256", "verdict", "because"),
        [
            (t.backup_id, t.host, _at(t.taken), f"`{t.manifest_sha256}`", t.verdict, "; ".join(t.reasons))
            for t in drill.tried
        ],
    )
    lines += ["", "## Checks", ""]
    rows = [(check.name, _SIGNS[check.status], check.expected, check.actual) for check in drill.checks]
    lines += _table(("check", "result", "expected", "found"), rows)
    skipped = [check.name for check in drill.checks if check.status == "skipped"]
    lines += ["", f"Not run: {', '.join(skipped) or 'none'}.", "", *_recovery(drill)]
    lines += ["", "## Findings", "", *[f"- {_cell(each)}" for each in drill.findings]] if drill.findings else []
    lines += ["", "## Worth knowing", "", *[f"- {_cell(each)}" for each in drill.notes]] if drill.notes else []
    lines += ["", "## Objects", ""]
    objects = [(key, f"`{digest}`") for tried in drill.tried for key, digest in sorted(tried.objects.items())]
    lines += _table(("object", "SHA-256"), objects)
    lines += ["", "## Remediation and sign-off", ""]
    added = [(note.by, note.remediation, note.sign_off) for note in notes] or [("", "", "")]
    lines += _table(("by", "remediation", "sign-off"), added)
    return "\n".join(lines) + "\n"


def _recovery(drill: Drill) -> list[str]:
    lines = ["## Times against targets", ""]
    if drill.steps:
        steps = drill.steps
        timed = [("fetch", steps.fetch_ms), ("decrypt", steps.decrypt_ms), ("restore", steps.restore_ms),
                 ("verify", steps.verify_ms), ("in all", steps.total_ms)]  # fmt: skip
        lines += [*_table(("step", "time"), [(name, span(each)) for name, each in timed]), ""]
    found = drill.recovery
    if found is None:
        return [*lines, "Nothing was proved, so no recovery time or point can be promised."]
    lines += _table(
        (f"tier {found.tier}", "measured", "target"),
        [
            ("RTO", span(found.rto_ms), span(found.rto_target_ms)),
            ("RPO at the time of the drill", span(found.rpo_now_ms), span(found.rpo_target_ms)),
            ("RPO at worst", span(found.rpo_worst_ms), span(found.rpo_target_ms)),
        ],
    )
    return [*lines, "", f"Missed: {'; '.join(found.misses)}." if found.misses else "Targets met."]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["none"]
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]


def _cell(text: str) -> str:
    """Text that cannot end its cell, nor become markup where the page is rendered as HTML."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _at(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")
