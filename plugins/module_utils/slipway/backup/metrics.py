# SPDX-License-Identifier: Apache-2.0
"""Metrics for Prometheus' textfile collector: a file a subject, replaced whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import atomic
from .config import Config
from .taking.runs import Run


@dataclass(frozen=True)
class Metric:
    """One gauge. ``values``: label set (``name="value"`` pairs, or empty) to its value."""

    name: str
    help: str
    values: Sequence[tuple[Mapping[str, str], float]]


def render(metrics: Sequence[Metric]) -> str:
    """The text format (https://prometheus.io/docs/instrumenting/exposition_formats/). Pure; a metric without values is left out."""
    lines = []
    for each in metrics:
        if each.values:
            lines += [f"# HELP {each.name} {each.help}", f"# TYPE {each.name} gauge"]
            lines += [f"{each.name}{_labels(labels)} {_number(value)}" for labels, value in each.values]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (
        f'{name}="' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        for name, value in labels.items()
    )
    return "{" + ",".join(pairs) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"


def plain(name: str, help: str, value: float) -> Metric:
    """A gauge with one value and no labels."""
    return Metric(name, help, [({}, value)])


def backup(config: Config, runs: Sequence[Run]) -> list[Metric]:
    """What is to be known of the backups of this host, from its runs (oldest first). Pure.

    Ages are for Prometheus to count: ``time() - slipway_backup_newest_timestamp_seconds``.
    """
    found = [
        plain("slipway_backup_interval_seconds", "Between two backups, as set.", config.interval_s),
        plain("slipway_backup_rpo_target_seconds", "Data at risk at most, by the recovery tier.", config.targets().rpo_s),
    ]  # fmt: skip
    if runs:
        last = runs[-1]
        failed = next((place for place, each in enumerate(reversed(runs)) if each.good), len(runs))
        found += [
            plain("slipway_backup_last_run_timestamp_seconds", "End of the last run, good or not.", last.finished.timestamp()),
            plain("slipway_backup_last_run_good", "Whether the last run left a whole backup.", int(last.good)),
            plain("slipway_backup_failed_runs", "Runs that failed since the last good one.", failed),
        ]  # fmt: skip
    good = [each for each in runs if each.good]
    if good:
        newest = good[-1]
        found += [
            plain("slipway_backup_newest_timestamp_seconds", "Recovery point of the newest whole backup.", (newest.taken or newest.started).timestamp()),
            plain("slipway_backup_duration_seconds", "How long the newest whole backup took.", newest.duration_ms / 1000),
            plain("slipway_backup_hash_seconds", "Time spent on counting and hashing rows, beside the dumps.", newest.hash_ms / 1000),
            plain("slipway_backup_stored_bytes", "Size of the newest whole backup in the store.", newest.stored_bytes),
            plain("slipway_backup_warnings", "What a person should look at.", len(newest.warnings)),
            plain("slipway_backup_unlisted_databases", "Databases that nobody listed; backed up all the same.", len(newest.unlisted)),
        ]  # fmt: skip
        seen = sorted(newest.databases.items())
        for name, help, values in (
            ("snapshot_held_seconds", "How long the snapshot was held.", [each.held_ms / 1000 for _, each in seen]),
            ("database_bytes", "Size of the database.", [each.bytes for _, each in seen]),
            ("database_rows", "Rows of all its tables.", [each.rows for _, each in seen]),
        ):
            labelled = [({"database": database}, value) for (database, _), value in zip(seen, values, strict=True)]
            found.append(Metric(f"slipway_backup_{name}", help, labelled))
    return found


def write(folder: Path, subject: str, made: Callable[[], Sequence[Metric]]) -> list[str]:
    """Replace ``<subject>.prom``; complaints instead of errors: metrics never fail what they tell of."""
    try:
        atomic.replace(folder / f"{subject}.prom", render(made()).encode(), 0o644, durable=False)
    except OSError as error:
        return [f"The metrics could not be written to {folder}: {error.strerror}."]
    return []
