# SPDX-License-Identifier: Apache-2.0
"""``fab backups`` and ``fab drills``, and their lines in ``fab status``. Pure but for the look at the host."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from slipway.errors import SlipwayError

from .hosts import Endpoint, Fleet
from .remote import look
from .rows import MEND, Row
from .style import Style, clean, duration, pad

BARS = "▁▂▃▄▅▆▇█"
VERDICTS = ("proved", "failed", "inconclusive")
LEVELS = {"proved": "good", "failed": "bad", "inconclusive": "warn"}
TAKE = "ansible-playbook -i {inventory} playbooks/take_backup.yml"
DRILL = "ansible-playbook -i {inventory} playbooks/run_drill.yml"


def backup_rows(seen: Any) -> Iterable[Row]:
    """The lines on backups and their proof, from what the host's metrics say."""
    if not isinstance(seen, Mapping):
        return
    if seen.get("takes"):
        yield _age(seen.get("backup") or {}, seen)
    if seen.get("drills"):
        yield _proof(seen.get("drill") or {}, seen)
    if seen.get("identity_here"):
        where = "on this host, with the key that opens backups, sealed"
    elif seen.get("drills"):
        where = "here by name, but the key that opens backups is not on this host"
    else:
        where = "not on this host, and neither is the key that opens backups"
    yield Row("drills run", where, "quiet")


def _age(known: Mapping[str, float], seen: Mapping[str, Any]) -> Row:
    newest, interval = known.get("newest_timestamp_seconds"), known.get("interval_seconds", 43_200.0)
    place = ", in a folder of this host" if seen.get("in_folder") else ""
    if not newest:
        return Row("backup", "none yet", "bad", TAKE)
    age = float(seen["now"]) - newest
    target = known.get("rpo_target_seconds", 86_400.0)
    # As 'slipway backup check': one interval and the longest a run may take, at most what the tier allows.
    limit = min(interval + 14_400, target) if target > interval else interval + 14_400
    text = f"{duration(age)} old{place}"
    if age > limit:
        return Row("backup", f"{text}, limit {duration(limit)}", "bad", TAKE)
    if not known.get("last_run_good", 1.0):
        return Row("backup", f"{text}; the last run failed", "warn", "fab logs backup")
    if known.get("unlisted_databases"):
        return Row("backup", f"{text}; with databases that nobody listed", "warn", "see: slipway backup show")
    return Row("backup", text)


def _proof(known: Mapping[str, float], seen: Mapping[str, Any]) -> Row:
    proof, interval = known.get("newest_proof_timestamp_seconds"), known.get("interval_seconds", 604_800.0)
    verdict = next((name for name in VERDICTS if known.get(f"verdict_{name}")), "")
    if not verdict:
        return Row("proof", "no backup has been restored yet", "warn", DRILL)
    if verdict != "proved":
        since = f"; proved {duration(float(seen['now']) - proof)} ago" if proof else "; never proved yet"
        return Row("proof", f"the last drill: {verdict}{since}", LEVELS[verdict], "fab drills")
    age = float(seen["now"]) - (proof or 0)
    text = f"proved {duration(age)} ago, back in {duration(known.get('rto_seconds', 0) or 1)}"
    if known.get("targets_missed"):
        return Row("proof", f"{text}; a target of the tier is missed", "warn", "fab drills")
    return Row("proof", text) if age <= 2 * interval else Row("proof", text, "bad", DRILL)


def sparkline(values: Sequence[float]) -> str:
    """Values as bars, oldest first; the lowest bar is zero, so that a drop looks like one."""
    top = max(values, default=0)
    return "".join(BARS[round(value / top * (len(BARS) - 1))] if top else BARS[0] for value in values)


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def gather(fleet: Fleet) -> dict[str, dict[str, Any] | str]:
    """Host name -> its history, or why it could not be seen; hosts that take backups or drill."""
    found: dict[str, dict[str, Any] | str] = {}
    for host in chosen(fleet.hosts):
        try:
            found[host.name] = dict(look(host, [], "history")["history"] or {})
        except SlipwayError as error:
            found[host.name] = clean(error)
    return found


def chosen(everyone: Sequence[Endpoint]) -> list[Endpoint]:
    """The hosts of the groups db and drill."""
    return [host for host in everyone if {"db", "drill"} & set(host.groups)]


def render_backups(name: str, seen: Mapping[str, Any], style: Style, lines: int = 15) -> tuple[str, bool]:
    """One host's backups as text, and whether they are as they should be."""
    listed = seen.get("backups") or {}
    found = list(listed.get("backups") or ())
    check = seen.get("check") or {}
    good = bool(check.get("good"))
    out = [style.paint(name, "bold", "cyan") + f"  {clean(listed.get('source', 'no backups are set up here'))}"]
    for problem in check.get("problems") or ():
        out.append("  " + style.level(f"✗ {clean(problem)}", "bad"))
    for warning in [*(check.get("warnings") or ()), *(listed.get("notes") or ())]:
        out.append("  " + style.level(f"! {clean(warning)}", "warn"))
    if good and found:
        out.append(
            "  "
            + style.level("✓", "good")
            + f" the newest is {duration(check['age_s'])} old, limit {duration(check['limit_s'])}"
        )
    for one in found[:lines]:
        proof = "damaged" if one.get("problem") else str(one.get("proof"))
        level = "bad" if one.get("problem") else LEVELS.get(proof, "quiet")
        held = f"  held: {one['held']}" if one.get("held") else ""
        shown = style.level(pad("not drilled" if proof == "none" else proof, 14), level)
        when = str(one["taken"])[:16].replace("T", " ")
        out.append(
            f"  {when}  {duration(one['age_s']):>12}  {size(one['bytes']):>9}  {shown}{clean(one['id'])}{clean(held)}"
        )
    if len(found) > lines:
        out.append(style.paint(f"  and {len(found) - lines} older ones", "dim"))
    sizes = [float(one["bytes"]) for one in reversed(found) if not one.get("problem")]
    if len(sizes) > 1:
        out.append(f"  sizes {sparkline(sizes[-60:])}  {size(min(sizes))} to {size(max(sizes))}")
    return "\n".join(out), good


def render_drills(name: str, seen: Mapping[str, Any], style: Style, lines: int = 15) -> tuple[str, bool]:
    """One host's drills as text, and whether the last one proved its backup."""
    found = list(seen.get("drills") or ())
    out = [style.paint(name, "bold", "cyan")]
    if not found:
        return "\n".join([*out, "  " + style.level(f"! no drill is on record: {DRILL}", "warn")]), False
    for one in found[:lines]:
        recovery = one.get("recovery") or {}
        times = f"RTO {_ms(recovery.get('rto_ms')):>9}  RPO {_ms(recovery.get('rpo_now_ms')):>12}" if recovery else ""
        verdict = style.level(pad(str(one["verdict"]), 13), LEVELS.get(str(one["verdict"]), "warn"))
        when = str(one["started"])[:16].replace("T", " ")
        out.append(
            f"  {when}  {verdict} {times:<32}  {clean(one.get('backup') or 'no backup')}  by {clean(one.get('started_by'))}"
        )
        out += [style.paint(f"      {clean(reason)}", "dim") for reason in (one.get("reasons") or ())[:3]]
    newest = found[0].get("recovery") or {}
    if newest:
        out.append(
            f"  tier {newest['tier']}: back in {_ms(newest['rto_ms'])} (target {_ms(newest['rto_target_ms'])}), "
            f"at risk at worst {_ms(newest['rpo_worst_ms'])} (target {_ms(newest['rpo_target_ms'])})"
        )
        out += ["  " + style.level(f"! {clean(miss)}", "warn") for miss in newest.get("misses") or ()]
    rtos = [float(one["recovery"]["rto_ms"]) for one in reversed(found) if one.get("recovery")]
    if len(rtos) > 1:
        out.append(f"  RTO {sparkline(rtos[-60:])}  {_ms(min(rtos))} to {_ms(max(rtos))}")
    age = (
        datetime.now(UTC).timestamp()
        - datetime.fromisoformat(str(found[0]["finished"]).replace("Z", "+00:00")).timestamp()
    )
    out.append(style.paint(f"  the last one ended {duration(age)} ago", "dim"))
    return "\n".join(out), found[0]["verdict"] == "proved"


def _ms(milliseconds: Any) -> str:
    """Milliseconds for people."""
    seconds = float(milliseconds or 0) / 1000
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def show(fleet: Fleet, what: str, *, as_json: bool, style: Style) -> tuple[str, bool]:
    """The screen for ``backups`` or ``drills``, and whether all is well; the inventory is filled into its hints."""
    found = gather(fleet)
    if as_json:
        good = all(isinstance(seen, dict) for seen in found.values())
        return json.dumps({"inventory": str(fleet.inventory), "hosts": found}, indent=2, ensure_ascii=False), good
    texts, verdicts = [], []
    for name, seen in found.items():
        if isinstance(seen, str):
            texts.append(style.paint(name, "bold", "cyan") + "\n  " + style.level(f"✗ unreachable: {seen}", "bad"))
            verdicts.append(False)
            continue
        if what == "drills" and not seen.get("drills") and len(found) > 1:
            continue  # they run on another host
        if what == "backups" and not seen.get("backups"):
            texts.append(f"{name}\n  " + style.level(f"! no backups are set up here: {MEND}", "warn"))
            verdicts.append(False)
            continue
        text, good = (render_backups if what == "backups" else render_drills)(name, seen, style)
        texts.append(text)
        verdicts.append(good)
    text = "\n\n".join(texts) or f"No host has {what} on record."
    return text.replace("{inventory}", str(fleet.inventory)), bool(verdicts) and all(verdicts)
