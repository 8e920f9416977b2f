# SPDX-License-Identifier: Apache-2.0
"""Runs on a server: everything ``fab status`` shows of it, in one go, as one line of JSON. It only looks.

This file's text is sent over SSH to the server's own Python, so it stands alone: standard library, no import from here.
Every part may be missing (a bare host has no PostgreSQL); a part that cannot be read is null, never an error.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

UNITS = {
    "ssh": "ssh.service",
    "firewall": "slipway-firewall.service",
    "docker": "docker.service",
    "caddy": "caddy.service",
    "postgres": "postgresql.service",
    "pgbouncer": "pgbouncer.service",
    "switch": "slipway-switch.service",
}
PACKAGES = {
    "docker": ("docker-ce", "docker.io"),
    "caddy": ("caddy",),
    "postgres": ("postgresql-18", "postgresql-17", "postgresql-16", "postgresql-15", "postgresql-14", "postgresql-13"),
    "pgbouncer": ("pgbouncer",),
    "ssh": ("openssh-server",),
}
JOURNAL = "/var/log/slipway/journal.jsonl"
SLIPWAY = "/usr/local/sbin/slipway"


def output(argv: Sequence[str], timeout: float = 10, stdin: bytes | None = None) -> str:
    """A program's stdout; empty where it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            list(argv), check=False, capture_output=True, timeout=timeout, input=stdin, cwd="/",
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def text_of(path: str) -> str:
    """A file's text, empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def system() -> dict[str, Any]:
    """Release, kernel, uptime in seconds, load, cores, RAM and disk in MB, pending reboot."""
    release = dict(re.findall(r'^([A-Z_]+)="?(.*?)"?$', text_of("/etc/os-release"), re.MULTILINE))
    memory = {
        key: int(value) // 1024 for key, value in re.findall(r"^(\w+):\s+(\d+) kB", text_of("/proc/meminfo"), re.M)
    }
    lab = json.loads(text_of("/etc/slipway-lab.json") or "{}")
    disk = shutil.disk_usage("/")
    nodes = os.statvfs("/")
    # A lab container sees the whole machine's memory; its own share and use are its cgroup's.
    total = int(lab.get("ram_mb") or memory.get("MemTotal", 0))
    used = memory.get("MemTotal", 0) - memory.get("MemAvailable", 0)
    started = int(text_of("/proc/1/stat").rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return {
        "hostname": socket.gethostname(),
        "os": release.get("PRETTY_NAME", ""),
        "kernel": os.uname().release,
        "uptime_seconds": int(float(text_of("/proc/uptime").split()[0]) - started),
        "load": [round(value, 2) for value in os.getloadavg()],
        "cores": int(lab.get("cores") or len(os.sched_getaffinity(0))),
        "ram_mb": total,
        "ram_used_mb": None if lab else used,
        "swap_used_mb": memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
        "disk_total_mb": disk.total // 2**20,
        "disk_used_percent": round(100 * disk.used / max(1, disk.used + disk.free)),
        "inodes_used_percent": round(100 * (nodes.f_files - nodes.f_ffree) / nodes.f_files) if nodes.f_files else 0,
        "reboot_required": os.path.exists("/run/reboot-required") or os.path.exists("/var/run/reboot-required"),
        "lab": bool(lab),
    }


def services() -> dict[str, Any]:
    """Each service's state (active, failed, missing ...) and installed version."""
    wanted = [name for names in PACKAGES.values() for name in names]
    versions = {}
    listing = output(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n", *wanted]
    ) or partial_versions(wanted)
    for line in listing.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "installed":
            versions[words[1]] = words[2]
    shown = output(["systemctl", "show", "--property=Id,LoadState,ActiveState,SubState", *UNITS.values()])
    states = {}
    for block in shown.split("\n\n"):
        fields = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        if fields.get("Id"):
            loaded = fields.get("LoadState") == "loaded"
            states[fields["Id"]] = fields.get("ActiveState", "unknown") if loaded else "missing"
    found = {}
    for name, unit in UNITS.items():
        version = next((versions[package] for package in PACKAGES.get(name, ()) if package in versions), "")
        found[name] = {"state": states.get(unit, "unknown"), "version": version.split(":")[-1]}
    return found


def partial_versions(packages: Sequence[str]) -> str:
    """dpkg-query ends with 1 when any package is unknown, and still prints the others: read the status file instead."""
    lines = []
    for block in text_of("/var/lib/dpkg/status").split("\n\n"):
        name = re.match(r"Package: (\S+)", block)
        if name and name[1] in packages and "\nStatus: install ok installed" in block:
            version = re.search(r"^Version: (\S+)", block, re.MULTILINE)
            lines.append(f"installed {name[1]} {version[1] if version else ''}")
    return "\n".join(lines)


def failed_units() -> list[str]:
    """Units that systemd gave up on."""
    text = output(["systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager"])
    return [line.split()[0] for line in text.splitlines() if line.split()]


def updates() -> dict[str, int] | None:
    """How many packages have a newer version in the lists that are on the host, and how many of them mend security."""
    text = output(["apt-get", "-s", "-o", "Debug::NoLocking=1", "dist-upgrade"], timeout=20)
    lines = [line for line in text.splitlines() if line.startswith("Inst ")]
    return {"all": len(lines), "security": sum("Security" in line for line in lines)} if text else None


def psql(query: str, *, database: str = "postgres", host: str = "", port: str = "") -> list[list[str]] | None:
    """Rows of a query as the system user postgres, over the socket; None where it cannot be asked."""
    argv = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-F", "\t", "-w", "-d", database, "-c", query]
    argv += ["-h", host] if host else []
    argv += ["-p", port] if port else []
    if not shutil.which("psql"):
        return None
    text = output(argv, timeout=8)
    return [line.split("\t") for line in text.splitlines()] if text else None


def database() -> dict[str, Any] | None:
    """PostgreSQL's version, connections used and allowed, and each database's size in MB."""
    head = psql(
        "select current_setting('server_version'), current_setting('max_connections'), "
        "(select count(*) from pg_stat_activity where backend_type = 'client backend'), pg_is_in_recovery()"
    )
    if not head:
        return None
    sizes = (
        psql("select datname, pg_database_size(oid) / 1048576 from pg_database where not datistemplate order by 1")
        or []
    )
    version, limit, used, standby = head[0]
    return {
        "version": version.split()[0],
        "max_connections": int(limit),
        "connections": int(used),
        "standby": standby == "t",
        "databases_mb": {name: int(mb) for name, mb in sizes},
        "pools": pools(),
    }


def pools() -> list[dict[str, Any]] | None:
    """PgBouncer's pools as it shows them: clients active and waiting, servers in use and free, the longest wait (s)."""
    for folder in ("/run/pgbouncer", "/var/run/postgresql", "/tmp"):  # noqa: S108  (where Debian may put its socket)
        if not os.path.exists(os.path.join(folder, ".s.PGSQL.6432")):
            continue
        for user in ("postgres", "pgbouncer"):
            argv = ["runuser", "-u", user, "--", "psql", "-XAq", "-F", "\t", "-P", "footer=off", "-w",
                    "-h", folder, "-p", "6432", "-U", user, "-d", "pgbouncer", "-c", "SHOW POOLS"]  # fmt: skip
            lines = output(argv, timeout=5).splitlines()
            if lines:
                rows = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=False)) for line in lines[1:]]
                return [pool_line(row) for row in rows if row.get("database") != "pgbouncer"]
    return None


def pool_line(row: dict[str, str]) -> dict[str, Any]:
    """One line of SHOW POOLS, the columns that matter."""
    number = {
        key: int(float(row.get(key) or 0)) for key in ("cl_active", "cl_waiting", "sv_active", "sv_idle", "maxwait")
    }
    return {
        "database": row.get("database", ""),
        "user": row.get("user", ""),
        "mode": row.get("pool_mode", ""),
        **number,
    }


def certificate(domain: str) -> dict[str, Any]:
    """The certificate this host really serves for ``domain``: days left and issuer, or why there is none."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # looked at, not trusted: even an expired one shall be shown
    try:
        with (
            socket.create_connection(("127.0.0.1", 443), 4) as plain,
            context.wrap_socket(plain, server_hostname=domain) as tls,
        ):
            der = tls.getpeercert(True)
    except (OSError, ValueError) as error:
        reason = (
            "nothing listens on 443" if isinstance(error, ConnectionRefusedError) else "no certificate is served yet"
        )
        return {"domain": domain, "days_left": None, "issuer": "", "problem": reason}
    text = output(
        ["openssl", "x509", "-inform", "der", "-noout", "-enddate", "-issuer", "-dateopt", "iso_8601"], stdin=der
    )
    end = re.search(r"notAfter=(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)", text)
    issuer = re.search(r"(?:O|CN) ?= ?([^,\n]+)", text.partition("issuer=")[2])
    if not end:
        return {"domain": domain, "days_left": None, "issuer": "", "problem": "the certificate could not be read"}
    expires = ssl.cert_time_to_seconds(
        time.strftime("%b %d %H:%M:%S %Y GMT", time.strptime(" ".join(end.groups()), "%Y-%m-%d %H:%M:%S"))
    )
    return {
        "domain": domain,
        "days_left": int((expires - time.time()) // 86400),
        "issuer": issuer[1] if issuer else "",
        "problem": "",
    }


def apps() -> Any:
    """What the host's own ``slipway`` command says about its apps; null where it is not installed."""
    try:
        return json.loads(output([SLIPWAY, "app", "status", "--json"], timeout=15) or "null")
    except ValueError:
        return None


def last_deploy() -> dict[str, Any] | None:
    """The journal's last line about a deploy or a rollback."""
    for line in reversed(text_of(JOURNAL).splitlines()[-500:]):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if any(word in str(entry.get("what", "")) for word in ("deploy", "rollback")):
            return dict(entry)
    return None


CLIMBS = "/var/lib/slipway/climbs"


def climb() -> dict[str, Any] | None:
    """The climb that is at work or was cut off, else the last one that ended; null on a host that never climbed."""
    known = []
    for name in sorted(os.listdir(CLIMBS)) if os.path.isdir(CLIMBS) else []:
        if name.endswith(".json") and not name.startswith("."):
            one = json.loads(text_of(f"{CLIMBS}/{name}"))
            phase = one["phases"][-1]["name"] if one["phases"] else ""
            known.append({key: one[key] for key in ("climb", "started", "ended", "result")} | {"phase": phase})
    return next((one for one in reversed(known) if not one["result"]), known[-1] if known else None)


PEERS = "/etc/slipway/private_network/peers.conf"


def network() -> dict[str, bool] | None:
    """Which of the other hosts answer through the tunnel; null on a host that has none."""
    peers = dict(
        re.findall(r"^# host: (\S+)\n(?:(?!# host).*\n)*?AllowedIPs = ([0-9.]+)/32", text_of(PEERS), re.MULTILINE)
    )
    if not peers:
        return None
    # All at once: one that is silent costs two seconds, however many are.
    asked = {
        name: subprocess.Popen(
            ["ping", "-n", "-q", "-c", "1", "-W", "2", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for name, address in peers.items()
    }
    return {name: process.wait(10) == 0 for name, process in asked.items()}


def redis() -> list[dict[str, Any]] | None:
    """What the host's own command says of its servers of Redis; null where there is none."""
    if not os.path.exists("/etc/slipway/redis.json"):
        return None
    servers = (answer([SLIPWAY, "redis", "status", "--json"]) or {}).get("redis") or []
    kept = ("used_memory", "maxmemory", "evicted_keys", "connected_clients")
    return [
        {key: one[key] for key in ("app", "purpose", "up", "reason")}
        | {key: int(one["numbers"][key]) for key in kept if key in one["numbers"]}
        for one in servers
    ]


BACKUP = "/etc/slipway/backup"
METRICS = "/var/lib/slipway/metrics"


def backups() -> dict[str, Any] | None:
    """What the metrics of backups and drills say, and which of both this host does; null where it does neither."""
    takes = os.path.exists("/etc/systemd/system/slipway-backup.timer")
    drills = os.path.exists("/etc/systemd/system/slipway-drill.timer")
    if not (takes or drills):
        return None
    return {
        "takes": takes,
        "drills": drills,
        "identity_here": os.path.exists(BACKUP + "/credentials/identity.cred"),
        "in_folder": json.loads(text_of(BACKUP + "/config.json") or "{}").get("place", {}).get("kind") == "directory",
        "now": time.time(),
        **{name: metrics(text_of(f"{METRICS}/{name}.prom"), f"slipway_{name}_") for name in ("backup", "drill")},
    }


def metrics(text: str, prefix: str) -> dict[str, float]:
    """Samples of a file for Prometheus, without prefix; those with labels are left out, but for the verdict that is 1."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith(prefix) and "{" not in name:
            found[name[len(prefix) :]] = float(value)
        elif name.startswith(prefix + "verdict{") and float(value) == 1:
            found["verdict_" + name.split('"')[1]] = 1.0
    return found


def history() -> dict[str, Any]:
    """Backups and drills as the host's own command lists them, newest first, what is not shown left out."""
    listed = answer([SLIPWAY, "backup", "list", "--json"])
    drills = []
    for one in (answer([SLIPWAY, "drill", "list", "--json", "--lines", "60"]) or {}).get("drills", []):
        tried = one.get("tried") or [{}]
        reasons = [reason for each in tried for reason in each.get("reasons", [])]
        kept = ("drill_id", "started", "finished", "verdict", "started_by", "recovery", "steps")
        drills.append({**{key: one.get(key) for key in kept}, "backup": tried[-1].get("backup_id"), "reasons": reasons})
    return {
        "backups": listed,
        "check": answer([SLIPWAY, "backup", "check", "--json"]),
        "drills": drills,
        "now": time.time(),
    }


def answer(argv: Sequence[str]) -> Any:
    """A program's JSON, whatever its exit code says; null where it has none."""
    try:
        done = subprocess.run(list(argv), check=False, capture_output=True, timeout=40, cwd="/")
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def safely(part: Callable[[], Any]) -> Any:
    """The part, or null where this host is not as it expects."""
    try:
        return part()
    except Exception:  # one odd part must not hide the others; null is shown as unknown
        return None


def main(domains: Sequence[str], only: str = "") -> None:
    """Print everything as one line of JSON; ``only`` names a single part."""
    parts: dict[str, Callable[[], Any]] = {
        "system": system,
        "services": services,
        "failed_units": failed_units,
        "updates": updates,
        "database": database,
        "redis": redis,
        "network": network,
        "apps": apps,
        "last_deploy": last_deploy,
        "certificates": lambda: [certificate(domain) for domain in domains],
        "backups": backups,
        "climb": climb,
    }
    if only == "history":  # takes its time, so only when asked for
        parts = {only: history}
    json.dump({name: safely(part) for name, part in parts.items() if only in ("", name)}, sys.stdout)
