# SPDX-License-Identifier: Apache-2.0
"""What others are told of drills: metrics for Prometheus, and the event for pings and alarms. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..alarms import Event
from ..config import Config
from ..metrics import Metric, plain
from ..verdict import FAILED, PASSED, SKIPPED, span
from .evidence import Drill, Tried

VERDICTS = ("proved", "failed", "inconclusive")


def newest_failed(drill: Drill) -> bool:
    """Whether the backup that it began with failed, though an older one may have been proved."""
    return any(each.verdict == "failed" for each in drill.tried)


def proved(drill: Drill) -> Tried | None:
    """The backup that it proved, if any."""
    return drill.tried[-1] if drill.verdict == "proved" else None


def metrics(config: Config, drills: Sequence[Drill]) -> list[Metric]:
    """What is to be known of the drills of a host, oldest first."""
    targets = config.targets()
    found = [
        plain("slipway_drill_interval_seconds", "Between two drills, as set.", config.drill_interval_s),
        plain("slipway_drill_rto_target_seconds", "Time to be back at most.", targets.rto_s),
        plain("slipway_drill_rpo_target_seconds", "Data at risk at most.", targets.rpo_s),
    ]
    if not drills:
        return found
    last = drills[-1]
    found += [
        plain("slipway_drill_last_run_timestamp_seconds", "End of the last drill.", last.finished.timestamp()),
        plain("slipway_drill_last_run_good", "Whether it proved the newest backup.", int(last.verdict == "proved" and not newest_failed(last))),
        plain("slipway_drill_duration_seconds", "How long the last drill took.", (last.finished - last.started).total_seconds()),
        Metric("slipway_drill_verdict", "Its verdict.", [({"verdict": each}, int(each == last.verdict)) for each in VERDICTS]),
        Metric("slipway_drill_checks", "Its checks by how they went.", [
            ({"status": each}, sum(check.status == each for check in last.checks)) for each in (PASSED, FAILED, SKIPPED)]),
        plain("slipway_drill_backups_tried", "How many backups it took.", len(last.tried)),
        plain("slipway_drill_findings", "What is not as the settings ask for, such as locks.", len(last.findings)),
    ]  # fmt: skip
    good = next((each for each in reversed(drills) if each.verdict == "proved"), None)
    if good is None:
        return found
    found += [
        plain("slipway_drill_newest_proof_timestamp_seconds", "End of the newest drill that proved a backup.", good.finished.timestamp()),
        plain("slipway_drill_proved_backup_timestamp_seconds", "Recovery point of the newest proved backup.", good.tried[-1].taken.timestamp()),
    ]  # fmt: skip
    if good.recovery:
        found += [
            plain("slipway_drill_rto_seconds", "Time to be back, as measured.", good.recovery.rto_ms / 1000),
            plain("slipway_drill_rpo_seconds", "Data at risk at the time of the drill.", good.recovery.rpo_now_ms / 1000),
            plain("slipway_drill_rpo_worst_seconds", "Data at risk at the worst moment.", good.recovery.rpo_worst_ms / 1000),
            plain("slipway_drill_targets_missed", "Targets of the tier that were missed.", len(good.recovery.misses)),
        ]  # fmt: skip
    if good.steps:
        named = [("fetch", good.steps.fetch_ms), ("decrypt", good.steps.decrypt_ms), ("restore", good.steps.restore_ms),
                 ("verify", good.steps.verify_ms)]  # fmt: skip
        values = [({"step": name}, each / 1000) for name, each in named]
        found.append(Metric("slipway_drill_step_seconds", "How long each step took.", values))
    return found


def event(config: Config, drill: Drill) -> Event:
    """What there is to tell of a drill. Good is one that proved the newest backup, met its targets and found nothing."""
    text = [f"The restore drill {drill.drill_id} of {config.host}: {drill.verdict.upper()}."]
    for each in drill.tried:
        text += [f"{each.backup_id}: {each.verdict}. {'; '.join(each.reasons)}".strip()]
    if not drill.tried and drill.checks:
        text.append(drill.checks[0].actual)
    if (good := proved(drill)) and newest_failed(drill):
        text.append(f"What can be restored is of {good.taken:%Y-%m-%d %H:%M} UTC.")
    if drill.recovery:
        text.append(f"RTO {span(drill.recovery.rto_ms)}, RPO {span(drill.recovery.rpo_now_ms)}.")
        text += drill.recovery.misses
    text += drill.findings
    fine = drill.verdict == "proved" and not newest_failed(drill)
    missed = bool(drill.recovery and drill.recovery.misses)
    details = {"id": drill.drill_id, "verdict": drill.verdict, "backups": [each.backup_id for each in drill.tried]}
    return Event(
        "drill",
        config.host,
        "good" if fine and not missed and not drill.findings else "failed",
        "\n".join(text),
        details,
    )
