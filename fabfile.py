# SPDX-License-Identifier: Apache-2.0
"""What ``fab`` can do: it looks at servers and never changes them (that is what playbooks are for).

Without ``-i`` the only inventory under inventories/ is taken, or what SLIPWAY_INVENTORY names.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT / "plugins" / "module_utils")]
# Ansible's own files (ansible.cfg, the collection) are found from the checkout, wherever fab was started.
os.environ.setdefault("ANSIBLE_CONFIG", str(ROOT / "ansible.cfg"))

from invoke.collection import Collection  # noqa: E402
from invoke.context import Context  # noqa: E402
from invoke.exceptions import Exit  # noqa: E402
from invoke.tasks import task  # noqa: E402
from slipway.errors import InputError, SlipwayError  # noqa: E402

from console import bare_words, hosts, style, ways_in  # noqa: E402
from console import init as new  # noqa: E402
from console import status as screen  # noqa: E402

F = TypeVar("F", bound=Callable[..., Any])
INVENTORY = "inventory folder, such as inventories/production"


def told(function: F) -> F:
    """Errors end as one message and exit code 1; Ctrl-C and Ctrl-D as one line and 130."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except SlipwayError as error:
            raise Exit(f"fab: {error}", code=1) from None
        except (KeyboardInterrupt, EOFError):
            raise Exit("\nfab: stopped, nothing was changed.", code=130) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit(code=0) from None

    return wrapper  # type: ignore[return-value]


def fleet_of(inventory: str) -> hosts.Fleet:
    """The inventory that was named, read."""
    return hosts.read_fleet(hosts.choose_inventory(inventory))


def go(argv: list[str]) -> None:
    """Become ``argv``: its terminal, its signals and its exit code are the user's."""
    sys.stdout.flush()
    try:
        os.execvp(argv[0], argv)  # noqa: S606  (an argv list, no shell)
    except FileNotFoundError:
        raise InputError(f"The program {argv[0]} is not installed", "OpenSSH's client") from None


@task(
    help={
        "name": "the inventory's name: production, staging ...",
        "host": "the server's IP address or name",
        "domain": "domain the app answers on",
        "email": "your address, for the certificate authority",
        "app": "the app's name",
        "image": "folder with a Dockerfile, or name:tag of an image",
        "source": "registry, build (on the server) or ship (built here); taken from --image otherwise",
        "port": "port the app listens on in its container",
        "health": "path that answers 2xx when the app is healthy",
        "tier": "recovery tier: startup, growth or enterprise",
        "drills": "where backups are proved: here (on the server) or elsewhere",
        "key": "public key file, or several with commas; otherwise one of ~/.ssh",
        "environment": "production, staging or lab; taken from the name otherwise",
    }
)
@told
def init(
    _ctx: Context, *,
    name: str = "", host: str = "", domain: str = "", email: str = "", app: str = "", image: str = "", source: str = "",
    port: str = "", health: str = "", tier: str = "", drills: str = "", key: str = "", environment: str = "",
) -> None:  # fmt: skip
    """Make inventories/<name>/ from a few questions (or flags), secrets included."""
    given = {
        "name": name, "host": host, "domain": domain, "email": email, "app": app, "image": image, "source": source,
        "port": port, "health": health, "tier": tier, "drills": drills, "key": key, "environment": environment,
    }  # fmt: skip
    new.run(given, ROOT / "inventories")


@task(default=True, name="status", help={"inventory": INVENTORY, "json": "as JSON, with all that was seen"})
@told
def show_status(_ctx: Context, *, inventory: str = "", json: bool = False) -> None:
    """Show all hosts on one screen. Exit code 1 when something is bad."""
    fleet = fleet_of(inventory)
    found = screen.reports(fleet)
    print(screen.as_json(fleet, found) if json else screen.render(fleet, found, style.Style(style.wants_colour())))
    if any(report.level == "bad" for report in found):
        raise Exit(code=1)


@task(name="backups", help={"inventory": INVENTORY, "json": "as JSON"})
@told
def show_backups(_ctx: Context, *, inventory: str = "", json: bool = False) -> None:
    """Show the backups: age, size, proof, sizes over time. Exit code 1 when they are not as they should be."""
    _history(inventory, "backups", json)


@task(name="drills", help={"inventory": INVENTORY, "json": "as JSON"})
@told
def show_drills(_ctx: Context, *, inventory: str = "", json: bool = False) -> None:
    """Show the restore drills: verdicts, RTO and RPO over time. Exit code 1 when the last one proved nothing."""
    _history(inventory, "drills", json)


def _history(inventory: str, what: str, as_json: bool) -> None:
    from console import backups

    text, good = backups.show(fleet_of(inventory), what, as_json=as_json, style=style.Style(style.wants_colour()))
    print(text)
    if not good:
        raise Exit(code=1)


@task(
    help={
        "what": "an app, or caddy, postgres, pgbouncer, docker, ssh, firewall, deploy, backup, drill, restore, updates, bans",
        "inventory": INVENTORY,
        "follow": "go on with new lines until Ctrl-C",
        "since": "from then on: 15m, 2h, 3d, yesterday, '2026-01-31 12:00'",
        "lines": "how many of the last lines",
        "access": "an app's access log at the edge",
        "host": "the host, where there are several",
    },
)
@told
def logs(
    _ctx: Context, *, what: str = "", inventory: str = "", follow: bool = False, since: str = "", lines: int = 100,
    access: bool = False, host: str = "",
) -> None:  # fmt: skip
    """Show logs of an app, or of a part of the host."""
    fleet = fleet_of(inventory)
    names = [str(app["name"]) for app in fleet.apps]
    what = what or str(fleet.app()["name"])
    jobs = {str(app["name"]): [str(job["name"]) for job in app.get("jobs") or []] for app in fleet.apps}
    command = ways_in.logs_command(what, names, follow=follow, since=since, lines=lines, access=access, jobs=jobs)
    group = (
        "app" if what.partition("-")[0] in names and not access else {"caddy": "edge", "postgres": "db"}.get(what, "")
    )
    go(fleet.host(host, group).ssh_argv(command, terminal=follow and sys.stdout.isatty()))


@task(
    help={
        "app": "the app whose database is meant",
        "inventory": INVENTORY,
        "write": "let statements change data (without it: read-only transactions of at most 60 s)",
        "admin": "with the superuser's rights instead of the app's",
        "command": "run one statement and end",
    },
)
@told
def psql(
    _ctx: Context, *, app: str = "", inventory: str = "", write: bool = False, admin: bool = False, command: str = ""
) -> None:
    """Open psql in an app's database, read only unless --write."""
    fleet = fleet_of(inventory)
    words = ways_in.psql_command(fleet.app(app), write=write, admin=admin, command=command)
    go(fleet.host(group="db").ssh_argv(words, terminal=not command and sys.stdin.isatty()))


@task(
    help={"host": "the host, where there are several", "inventory": INVENTORY, "user": "log in as someone else"},
)
@told
def ssh(_ctx: Context, *, host: str = "", inventory: str = "", user: str = "") -> None:
    """Log in to a host as the admin user."""
    go(fleet_of(inventory).host(host).ssh_argv(user=user))


@task(
    help={
        "inventory": INVENTORY,
        "ram": "RAM in MB, for a server that does not exist yet",
        "cores": "its cores",
        "disk": "its disk in GB",
        "dedicated": "a database alone on its host",
        "json": "as JSON",
    }
)
@told
def sizing(
    _ctx: Context,
    *,
    inventory: str = "",
    ram: int = 0,
    cores: int = 0,
    disk: int = 40,
    dedicated: bool = False,
    json: bool = False,
) -> None:
    """Show what each part gets of a host's memory, and the settings that follow."""
    from console import budget

    print(budget.show(inventory, ram=ram, cores=cores, disk_gb=disk, dedicated=dedicated, as_json=json))


# The argument that a word without a flag is taken for.
bare_words.accept({"logs": "what", "psql": "app", "ssh": "host"})
namespace = Collection(init, show_status, show_backups, show_drills, logs, psql, ssh, sizing)
