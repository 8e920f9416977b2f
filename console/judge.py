# SPDX-License-Identifier: Apache-2.0
"""From what the probe saw to lines with a judgement each: good, warn, bad or quiet (nothing to judge). Pure.

Limits are those of the ladder's triggers: disk 80 and 90 %, memory 80 and 90 %, connections 70 and 90 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from .backups import backup_rows
from .rows import MEND, Row, grade
from .style import duration, megabytes

# The journal's words for a deploy or a rollback that ended well.
GOOD_RESULTS = ("", "ok", "succeeded", "good")
CERTIFICATE_WARN_DAYS, CERTIFICATE_BAD_DAYS = 20, 7


@dataclass(frozen=True)
class Report:
    """One host: its rows, or why it could not be looked at, and what the probe saw (for JSON)."""

    host: str
    address: str
    groups: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    error: str = ""
    seen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> str:
        """The worst of its rows; bad where it could not be looked at."""
        levels = {row.level for row in self.rows}
        return "bad" if self.error or "bad" in levels else "warn" if "warn" in levels else "good"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``: host, address, groups, level, error, rows, seen."""
        return {**asdict(self), "level": self.level}


def rung(groups: Mapping[str, Sequence[str]], ram_mb: Sequence[int], *, jobs: bool = False) -> tuple[int, str]:
    """The rung that a fleet stands on, by its shape: 0 mvp or 1 resize (one host, 4 GB and more), 2 redis, 3 workers
    (``jobs``: an app has background workers), 4 split_db."""
    app, db = set(groups.get("app", ())), set(groups.get("db", ()))
    if app and db and not app & db:
        return 4, "split_db"
    if groups.get("worker") or jobs:
        return 3, "workers"
    if groups.get("redis"):
        return 2, "redis"
    return (1, "resize") if max(ram_mb, default=0) >= 3500 else (0, "mvp")


def rows_of(seen: Mapping[str, Any], app_names: Sequence[str]) -> list[Row]:
    """Every line of one host's screen, in the order in which a worried person reads."""
    rows: list[Row] = []
    rows += _apps(seen.get("apps"), app_names, seen.get("last_deploy"))
    rows += _services(seen.get("services"))
    rows += _database(seen.get("database"))
    rows += _redis(seen.get("redis") or ())
    rows += _network(seen.get("network") or {})
    rows += backup_rows(seen.get("backups"))
    rows += _climb(seen.get("climb"))
    rows += _certificates(seen.get("certificates") or ())
    rows += _system(seen.get("system"))
    failed = seen.get("failed_units") or []
    if failed:
        rows.append(Row("failed units", " ".join(failed), "bad", f"systemctl status {failed[0]}"))
    rows += _updates(seen.get("updates"), seen.get("system"))
    return rows


def apps_by_name(seen: Any) -> dict[str, Mapping[str, Any]]:
    """The apps of a host as its agent told them."""
    listed = seen.get("apps", seen) if isinstance(seen, Mapping) else seen
    if isinstance(listed, Mapping):
        listed = [{"name": name, **(value if isinstance(value, Mapping) else {})} for name, value in listed.items()]
    return {str(app.get("app") or app.get("name")): app for app in listed or () if isinstance(app, Mapping)}


def _apps(seen: Any, wanted: Sequence[str], last: Any) -> Iterable[Row]:
    found = apps_by_name(seen)
    for name in dict.fromkeys([*wanted, *found]):
        app = found.get(name)
        if app is None:
            yield Row(f"app {name}", "not deployed", "bad", MEND)
            continue
        yield _app(name, app)
        if app.get("release") and app.get("jobs"):
            yield _jobs(name, app["jobs"])
    if isinstance(last, Mapping):
        result = str(last.get("result", ""))
        what = " ".join(str(part) for part in (last.get("what"), last.get("app"), last.get("release"), result) if part)
        who = f" by {last['who']}" if last.get("who") not in (None, "", "unknown") else ""
        level = "good" if result in GOOD_RESULTS else "quiet" if result == "started" else "warn"
        yield Row("last deploy", f"{_ago(last.get('at'))}{who}: {what}", level)


def _jobs(name: str, seen: Sequence[Mapping[str, Any]]) -> Row:
    """The background workers of an app: how many of each run."""
    parts, level = [], "good"
    for job in seen:
        text = f"{job['running']} of {job['count']} {job['name']}"
        if job.get("restarts"):
            text, level = f"{text} (restarted {job['restarts']} times)", "warn" if level == "good" else level
        if job["running"] < job["count"]:
            level = "bad"
        parts.append(text)
    return Row(f"jobs {name}", ", ".join(parts), level, "" if level == "good" else f"fab logs {name}")


def _redis(seen: Sequence[Mapping[str, Any]]) -> Iterable[Row]:
    """A line for each server. A queue that is full refuses jobs; a cache that is full evicts, as it should."""
    for one in seen:
        label = f"redis {one['purpose']} {one['app']}"
        if not one["up"]:
            yield Row(label, f"down: {one['reason']}", "bad", "fab ssh, then: journalctl -u 'redis-server@*' -n 50")
            continue
        used, most = int(one.get("used_memory", 0)), int(one.get("maxmemory", 0))
        percent = 100 * used // most if most else 0
        text = f"{used / 2**20:.0f} of {most // 2**20} MB, {one.get('connected_clients', '?')} clients"
        text += f", {one['evicted_keys']} evicted" if one.get("evicted_keys") else ""
        full = one["purpose"] == "queue" and percent > 80
        yield Row(
            label,
            text,
            ("bad" if percent > 95 else "warn") if full else "good",
            "let workers catch up, or give it more: docs/redis.md" if full else "",
        )


def _network(seen: Mapping[str, bool]) -> Iterable[Row]:
    silent = sorted(name for name, there in seen.items() if not there)
    if silent:
        yield Row("network", f"no answer through the tunnel from {', '.join(silent)}", "bad", "docs/private_network.md")
    elif seen:
        yield Row("network", f"{', '.join(sorted(seen))} {'answers' if len(seen) == 1 else 'answer'}", "good")


def _app(name: str, app: Mapping[str, Any]) -> Row:
    health = app.get("health")
    health = health.get("state", health.get("status", "")) if isinstance(health, Mapping) else health
    healthy = health in (True, "ok", "good", "healthy", "up", "serving")
    release = app.get("release")
    release = release.get("id", "") if isinstance(release, Mapping) else release
    if not release:
        return Row(f"app {name}", "no release", "bad", "see: fab logs " + name)
    parts = [f"release {release}"]
    parts += [str(app["colour"])] if app.get("colour") else []
    parts.append("healthy" if healthy else f"health: {health if health not in (None, False, '') else 'unknown'}")
    if app.get("since"):
        parts.append(f"since {_ago(app['since'], bare=True)}")
    if app.get("memory_mb") is not None:
        parts.append(f"{app['memory_mb']} of {app.get('memory_limit_mb') or '?'} MB")
    if app.get("restarts"):
        parts.append(f"restarted {app['restarts']} times")
    deploy = app.get("deploy")
    if isinstance(deploy, Mapping) and not deploy.get("ended"):
        parts.append(f"a {deploy.get('kind', 'deploy')} is at work: {deploy.get('phase') or 'beginning'}")
    elif isinstance(deploy, Mapping) and deploy.get("watch_until") and not deploy.get("watched"):
        parts.append(f"watched until {deploy['watch_until']}")
    held = app.get("held")
    if isinstance(held, Mapping):
        parts.append(f"{held.get('release')} was rolled back and is not tried again: {held.get('why')}")
    level = "bad" if not healthy else "warn" if isinstance(held, Mapping) or app.get("restarts") else "good"
    return Row(f"app {name}", ", ".join(parts), level, "" if level == "good" else f"fab logs {name}")


def _services(seen: Any) -> Iterable[Row]:
    if not isinstance(seen, Mapping):
        return
    words, level, hint = [], "good", ""
    for name, service in seen.items():
        state, version = service.get("state"), str(service.get("version", "")).split("-")[0].split("+")[0]
        if state == "active":
            words.append(f"{name} {version}".strip())
        elif not (state in ("missing", "unknown") and not version):
            words.append(f"{name} {str(state).upper()}")
            level, hint = "bad", hint or f"fab logs {name}"
    missing = [
        name for name, service in seen.items() if service.get("state") == "missing" and not service.get("version")
    ]
    yield Row("services", ", ".join(words) or "none", level if words else "bad", hint)
    if missing:
        yield Row("not installed", ", ".join(missing), "warn", MEND)


def _database(seen: Any) -> Iterable[Row]:
    if not isinstance(seen, Mapping):
        return
    used, limit = seen.get("connections", 0), seen.get("max_connections", 1)
    sizes = {name: mb for name, mb in (seen.get("databases_mb") or {}).items() if name != "postgres"}
    shown = ", ".join(f"{name} {megabytes(mb)}" for name, mb in sizes.items()) or "no database yet"
    role = " (standby)" if seen.get("standby") else ""
    yield Row("database", f"PostgreSQL {seen.get('version')}{role}: {shown}")
    yield Row(
        "connections", f"{used} of {limit} ({100 * used // max(1, limit)} %)", grade(100 * used / max(1, limit), 70, 90)
    )
    pools = seen.get("pools")
    if pools:
        waiting = sum(pool["cl_waiting"] for pool in pools)
        longest = max(pool["maxwait"] for pool in pools)
        active, idle = sum(pool["sv_active"] for pool in pools), sum(pool["sv_idle"] for pool in pools)
        clients = sum(pool["cl_active"] for pool in pools)
        text = f"{clients} clients on {active + idle} server connections, {active} busy"
        text += f", {waiting} waiting for up to {longest} s" if waiting else ", nobody waits"
        yield Row("pool", text, "bad" if longest >= 5 else "warn" if waiting else "good")
    elif pools is None:
        yield Row("pool", "PgBouncer does not answer", "warn", "fab logs pgbouncer")


def _climb(seen: Any) -> Iterable[Row]:
    """The rung's last move: one that was cut off wants to be run again."""
    if not isinstance(seen, Mapping):
        return
    if seen.get("result"):
        yield Row("last climb", f"{seen['climb']}, {seen['result']} {_ago(seen.get('ended'))}", "quiet")
        return
    text = f"{seen['climb']} is in the phase {seen.get('phase')}, begun {_ago(seen.get('started'))}"
    again = f"unless it is at work now: ansible-playbook -i {{inventory}} playbooks/grow/{seen['climb']}.yml"
    yield Row("climb", text, "warn", again)


def _certificates(seen: Iterable[Mapping[str, Any]]) -> Iterable[Row]:
    for one in seen:
        days = one.get("days_left")
        if days is None:
            yield Row("certificate", f"{one['domain']}: {one.get('problem', 'unknown')}", "bad", "fab logs caddy")
            continue
        level = "bad" if days < CERTIFICATE_BAD_DAYS else "warn" if days < CERTIFICATE_WARN_DAYS else "good"
        # A short-lived certificate (a private authority's) has few days left from its first hour on.
        text = f"{one['domain']}: {days} days left" if days >= 0 else f"{one['domain']}: expired {-days} days ago"
        yield Row(
            "certificate",
            text + (f" ({one['issuer']})" if one.get("issuer") else ""),
            level,
            "fab logs caddy" if level != "good" else "",
        )


def _system(seen: Any) -> Iterable[Row]:
    if not isinstance(seen, Mapping):
        return
    disk = seen["disk_used_percent"]
    inodes = seen.get("inodes_used_percent", 0)
    text = f"{disk} % of {megabytes(seen['disk_total_mb'])}" + (f", {inodes} % of inodes" if inodes > 60 else "")
    yield Row("disk", text, grade(max(disk, inodes), 80, 90), "docker system df" if disk > 80 else "")
    if seen.get("ram_used_mb") is not None:
        percent = 100 * seen["ram_used_mb"] // max(1, seen["ram_mb"])
        swap = f", {megabytes(seen['swap_used_mb'])} of swap used" if seen.get("swap_used_mb") else ""
        yield Row("memory", f"{percent} % of {megabytes(seen['ram_mb'])}{swap}", grade(percent, 80, 90))
    else:
        yield Row("memory", f"{megabytes(seen['ram_mb'])} (lab host)", "quiet")
    load = seen["load"]
    # A lab host sees the load of the whole machine.
    yield Row(
        "load",
        f"{load[0]} {load[1]} {load[2]} on {seen['cores']} cores",
        "quiet" if seen.get("lab") else grade(100 * load[1] / max(1, seen["cores"]), 90, 200),
    )
    yield Row("system", f"{seen['os']}, kernel {seen['kernel']}, up {duration(seen['uptime_seconds'])}", "quiet")


def _updates(seen: Any, system: Any) -> Iterable[Row]:
    if isinstance(system, Mapping) and system.get("reboot_required"):
        yield Row(
            "reboot",
            "pending: an update waits for it",
            "warn",
            "it comes by itself in the reboot window, where one is set",
        )
    if isinstance(seen, Mapping) and seen.get("all"):
        security = seen.get("security", 0)
        text = f"{seen['all']} pending, {security} of them for security"
        yield Row(
            "updates",
            text,
            "warn" if security else "quiet",
            "security updates install themselves daily" if security else "",
        )


def _ago(at: Any, *, bare: bool = False) -> str:
    """ISO 8601 time as ``3 h 5 min ago``; what is no time as it is."""
    try:
        then = (
            datetime.fromisoformat(str(at).replace("Z", "+00:00"))
            if not isinstance(at, (int, float))
            else datetime.fromtimestamp(at).astimezone()
        )
        text = duration((datetime.now(then.tzinfo) - then).total_seconds())
    except ValueError:
        return str(at)
    return text if bare else f"{text} ago"
