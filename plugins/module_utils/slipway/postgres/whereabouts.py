# SPDX-License-Identifier: Apache-2.0
"""Where the data lives: what each host really has of a database, held against what the inventory says of it.

:func:`look` sees one host (a few files, and one question to a server that runs); :func:`judge` is pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..commands import CommandError, run
from ..errors import SlipwayError

CLIMBS = "split_db"
"""Climbs whose names begin so move the data from host to host."""
SERVING = ("none", "open")
"""Kinds of fence with which a server may still serve."""
FIRST_USER_OID = 16384
QUESTION = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END "
    "UNION ALL SELECT datname FROM pg_database WHERE oid >= 16384 AND datallowconn"
)


@dataclass(frozen=True)
class Seen:
    """What a host has: a cluster, whether it runs and follows another one, users' databases by name, how many on disk.

    ``fence``: as the handover recorded it. ``pooler``: where PgBouncer sends the apps, a folder or an address.
    ``climb``: a climb of the database that was begun and has not ended.
    """

    cluster: bool = False
    running: bool = False
    standby: bool = False
    databases: tuple[str, ...] = ()
    on_disk: int = 0
    fence: str = "none"
    pooler: str = ""
    climb: str = ""

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Seen:
        """From facts; what is missing has its default."""
        known = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        return cls(**{**known, "databases": tuple(known.get("databases") or ())})

    def holds(self, wished: Sequence[str]) -> bool:
        """Whether it may be written to, now or once it is started, and has one of the databases."""
        if not self.cluster or self.standby or self.fence not in SERVING:
            return False
        return bool(set(self.databases) & set(wished)) if self.running else self.on_disk > 0

    @property
    def follows(self) -> bool:
        """Whether what it has is a copy: a standby, or shut for good by a handover."""
        return self.cluster and self.on_disk > 0 and (self.standby or self.fence not in SERVING)


@dataclass(frozen=True)
class Verdict:
    """``kind``: as_wished, split, split_back, two, open or elsewhere; for all but the first the message's parts."""

    kind: str
    found: str = ""
    expected: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return str(SlipwayError(self.found, self.expected, self.remedy)) if self.found else ""


def judge(hosts: Mapping[str, Seen], wished: Sequence[str], *, database: str, app: str) -> Verdict:
    """What is to be done before the inventory can be converged. ``database``, ``app``: the hosts that it names for them.

    ``hosts`` are all that could be looked at, by name; ``wished`` the apps' databases.
    """
    unfinished = [(name, seen.climb) for name, seen in sorted(hosts.items()) if seen.climb]
    if unfinished:
        name, climb = unfinished[0]
        return Verdict(
            "open", f"{climb} was begun on {name} and has not ended", "a database that stays where it is",
            f"run playbooks/grow/{climb}.yml again: it goes on, or goes back",
        )  # fmt: skip
    holders = [name for name, seen in sorted(hosts.items()) if seen.holds(wished)]
    if len(holders) > 1:
        return Verdict(
            "two", f"{' and '.join(holders)} each have a server that can be written to with the apps' databases", "exactly one",
            "find out which holds the newest data, stop the other one (systemctl stop postgresql@17-main on it), and write to "
            "nobody meanwhile; docs/database_host.md says how to tell them apart",
        )  # fmt: skip
    if holders == [database]:
        return Verdict("as_wished")
    if holders:
        return _elsewhere(holders[0], database=database, app=app)
    copies = [name for name, seen in sorted(hosts.items()) if seen.follows]
    if not copies:
        return Verdict("as_wished")
    return Verdict(
        "elsewhere", f"{' and '.join(copies)} has a copy of the database, and the server that it follows is on no host of the inventory",
        "the host that has the data, in the group db",
        "put that host back into the inventory, and into the group db",
    )  # fmt: skip


def _elsewhere(holder: str, *, database: str, app: str) -> Verdict:
    found = f"The database is on {holder}, and the inventory has it on {database or 'no host'}"
    if holder == app:
        kind, playbook = "split", "split_db"
    elif database == app:
        kind, playbook = "split_back", "split_db_rollback"
    else:
        return Verdict(
            "elsewhere", found, "the host that has the data, in the group db", f"put {holder} into the group db"
        )
    return Verdict(
        kind, found, "both the same: this playbook moves no data",
        f"put {holder} back into the group db; what will move it, playbooks/grow/{playbook}.yml, is not in this version yet",
    )  # fmt: skip


# -- on a host ------------------------------------------------------------------------------------------------------


def look(root: Path = Path("/")) -> dict[str, Any]:
    """What this host has, as plain facts (:class:`Seen`). Never raises: what cannot be read is as if it were not there."""
    data = max(root.glob("var/lib/postgresql/*/main/PG_VERSION"), default=None)
    found = _cluster(data.parent) if data else Seen()
    home = root / "var/lib/slipway"
    fence = _json(home / "handover/node.json").get("kind") or "none"
    pooler = re.search(r"^\w+ = host=(\S+)", _text(root / "etc/pgbouncer/databases.ini"), re.MULTILINE)
    plain = asdict(found) | {"fence": str(fence), "pooler": pooler[1] if pooler else ""}
    return plain | {"databases": list(found.databases), "climb": _open_climb(home / "climbs")}


def _cluster(data: Path) -> Seen:
    folders = [one.name for one in (data / "base").iterdir()] if (data / "base").is_dir() else []
    users = sum(name.isdigit() and int(name) >= FIRST_USER_OID for name in folders)
    standby = (data / "standby.signal").exists()
    pid = _text(data / "postmaster.pid").splitlines()
    if len(pid) < 4 or not Path(f"/proc/{pid[0]}").exists():
        return Seen(True, False, standby, on_disk=users)
    answer: list[str] = []
    with suppress(CommandError):
        # A server that does not answer is as one that is stopped: what is on disk counts.
        asked = ["runuser", "-u", "postgres", "--", "psql", "-XAtqw", "-p", pid[3], "-d", "postgres", "-c", QUESTION]
        answer = run(asked, timeout=15).stdout.split()
    if not answer:
        return Seen(True, False, standby, on_disk=users)
    kind = next(word for word in answer if word in ("standby", "primary"))
    names = sorted(answer)
    names.remove(kind)
    return Seen(True, True, kind == "standby", tuple(names), on_disk=users)


def _open_climb(folder: Path) -> str:
    for path in sorted(folder.glob(f"*-{CLIMBS}*.json")):
        record = _json(path)
        if record and not record.get("result"):
            return str(record.get("climb") or CLIMBS)
    return ""


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def _json(path: Path) -> dict[str, Any]:
    with suppress(ValueError):
        found = json.loads(_text(path) or "{}")
        return found if isinstance(found, dict) else {}
    return {}
