# SPDX-License-Identifier: Apache-2.0
"""``fab ssh``, ``fab logs`` and ``fab psql`` as argument lists for OpenSSH. Pure: the caller starts them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from slipway.errors import InputError
from slipway.inventory.suggest import closest

# Parts of a host whose logs are asked for by name, and their systemd units.
UNIT_LOGS = {
    "caddy": ("caddy.service",),
    "postgres": ("postgresql@*.service", "postgresql.service"),
    "pgbouncer": ("pgbouncer.service",),
    "docker": ("docker.service",),
    "ssh": ("ssh.service",),
    "firewall": ("slipway-firewall.service",),
    "switch": ("slipway-switch.service",),
    "deploy": ("slipway-deploy@*.service", "slipway-recover.service"),
    "backup": ("slipway-backup.service", "slipway-alarm@slipway-backup.service"),
    "drill": ("slipway-drill.service", "slipway-alarm@slipway-drill.service"),
    "restore": ("slipway-restore.service", "slipway-asked-restore.service"),
    "updates": ("unattended-upgrades.service", "apt-daily-upgrade.service"),
    "bans": ("fail2ban.service",),
}
READ_ONLY_SECONDS = 60


def sudo(user: str, *words: str) -> list[str]:
    """The command as root or as another account, without ever asking for a password."""
    return ["sudo", "-n", *(["-u", user] if user != "root" else []), "--", *words]


def logs_command(
    what: str, apps: list[str], *, follow: bool = False, since: str = "", lines: int = 100, access: bool = False,
    jobs: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:  # fmt: skip
    """What runs on the host for ``fab logs``: an app's own lines, or a service's; ``access`` for Caddy's access log.

    ``jobs`` are the background jobs of each app: their lines are among the app's own, or alone by ``notes-mail``.
    Raises InputError for a name that is none of these, with the choices.
    """
    each = {f"{app}-{job}": job for app in apps for job in (jobs or {}).get(app, ())}
    if lines < 1:
        raise InputError(f"--lines {lines} shows nothing", "1 or more")
    if what in apps and access:
        follow_words = ["--follow=name", "--retry"] if follow else []
        return sudo("root", "tail", "-n", str(lines), *follow_words, f"/var/log/caddy/{what}.access.log")
    if what in apps:
        mine = [what, *(name for name in each if name.startswith(f"{what}-"))]
        select = [f"--identifier=slipway-{name}" for name in mine]
    elif what in each:
        select = [f"--identifier=slipway-{what}"]
    elif what in UNIT_LOGS:
        select = [f"--unit={unit}" for unit in UNIT_LOGS[what]]
    else:
        near = closest(what, [*apps, *each, *UNIT_LOGS], cutoff=0.6)
        hint = f"did you mean {near}?" if near else ""
        raise InputError(
            f"Nothing called '{what}' writes logs",
            f"an app ({', '.join([*apps, *each]) or 'none yet'}) or one of: {', '.join(UNIT_LOGS)}",
            hint,
        )
    words = ["journalctl", "--no-pager", "--output=short-iso", *select]
    words += [f"--since={since_text(since)}"] if since else [f"--lines={lines}"]
    words += ["--follow"] if follow else []
    return sudo("root", *words)


def since_text(text: str) -> str:
    """``15m``, ``2h``, ``3d`` as journald understands it; its own forms (``yesterday``, ``2026-01-31 12:00``) as they are."""
    short = re.fullmatch(r"(\d+)\s?(s|m|min|h|d|w)", text)
    if not short:
        return text
    unit = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}[short[2]]
    return f"{short[1]} {unit} ago"


def psql_command(
    app: Mapping[str, object], *, write: bool = False, admin: bool = False, command: str = ""
) -> list[str]:
    """What runs on the host for ``fab psql``.

    In the app's database with the app's rights, in read-only transactions of at most 60 s, unless ``write``; ``admin``
    keeps the superuser's rights. Raises InputError for an app without a database.
    """
    name = str(app["name"])
    if app.get("database", True) is False:
        raise InputError(f"The app '{name}' has no database", "an app with database: true")
    options = [] if admin else [f"-c role={name}"]
    options += [] if write else ["-c default_transaction_read_only=on", f"-c statement_timeout={READ_ONLY_SECONDS}s"]
    mode = ("" if write else " (read only)") + (" (superuser)" if admin else "")
    words = ["env", f"PGOPTIONS={' '.join(options)}", "psql", "-X", "-d", name]
    if command:
        return sudo("postgres", *words, "-c", command)
    return sudo("postgres", *words, "-q", "-v", f"PROMPT1=%/{mode} %R%x%# ", "-v", f"PROMPT2=%/{mode} %R%x%# ")


def shown(argv: list[str]) -> str:
    """A command line as one would type it."""
    return shlex.join(argv)
