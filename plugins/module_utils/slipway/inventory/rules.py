# SPDX-License-Identifier: Apache-2.0
"""The check of a whole inventory: names, values, and what one setting says about another. Pure.

The controller's plugin reads the files and renders the templates; here plain data goes in and problems come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..deploy.apps import FIRST_PORT, PORT_STEP
from ..postgres.names import PG_SETTINGS
from .backup_settings import check_backups
from .redis_rules import check_redis, check_redis_hosts
from .schema import Path, Problem, check
from .settings import CONNECTION_VARIABLES, GROUPS, PLACEHOLDER, PLAYBOOK_VARIABLES, RESERVED_APP_NAMES, SETTINGS
from .shape_rules import check_shape
from .suggest import closest


@dataclass(frozen=True)
class Source:
    """One file of the inventory: its name for messages, the variables it sets, whether it is encrypted, and lines.

    ``lines`` maps a path below the file's top (``("slipway_apps", 0, "name")``) to its line, from 1. ``raw`` holds the
    variables before any template is rendered (not for encrypted files).
    """

    file: str
    names: tuple[str, ...]
    encrypted: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[Path, int] = field(default_factory=dict)


def check_names(
    sources: Iterable[Source], role_variables: Iterable[str], extra: Sequence[str] = (), *, command_line: bool = False
) -> Iterator[Problem]:
    """Variables that nothing reads. ``extra``: the user's own names, a ``*`` at the end stands for the rest.

    With ``command_line`` the names were given by ``-e``, where playbooks' own variables are known too.
    """
    known = set(SETTINGS) | set(role_variables) | CONNECTION_VARIABLES
    if command_line:
        known |= PLAYBOOK_VARIABLES
    exact = {name for name in extra if not name.endswith("*")}
    prefixes = tuple(name[:-1] for name in extra if name.endswith("*"))
    for source in sources:
        for name in source.names:
            if name in known or name in exact or name.startswith(("vault_", *prefixes)):
                continue
            near = closest(name, known)
            remedy = f"did you mean '{near}'?" if near else "if it is yours, name it under slipway_extra_variables"
            yield Problem("unknown variable", remedy, (name,), source.file, source.lines.get((name,), 0))


def check_values(variables: Mapping[str, Any]) -> Iterator[Problem]:
    """The ``slipway_*`` settings of one host, templates rendered: types, forms, bounds, and required ones."""
    for name, wanted in SETTINGS.items():
        if name in variables:
            yield from check(variables[name], wanted, (name,))
        elif wanted.required:
            yield Problem(f"{name} is not set", f"add it to group_vars/all/main.yml: {wanted.doc}")
    yield from _check_postgres(variables.get("postgres_settings"))
    yield from check_backups(variables)
    apps = variables.get("slipway_apps")
    if isinstance(apps, (list, tuple)):
        yield from check_apps(apps)
        yield from _check_passwords(apps, variables.get("vault_apps"))
        yield from check_redis(apps, variables.get("vault_apps"), variables.get("slipway_redis_memory_mb", "auto"))


def _check_postgres(settings: Any) -> Iterator[Problem]:
    """PostgreSQL settings that look misspelled. One that resembles none is left for PostgreSQL itself to judge."""
    for name in settings if isinstance(settings, Mapping) else ():
        if str(name) not in PG_SETTINGS and "." not in str(name):
            near = closest(str(name), PG_SETTINGS, cutoff=0.8)
            if near:
                yield Problem(
                    "PostgreSQL has no such setting", f"did you mean '{near}'?", ("postgres_settings", str(name))
                )


def _check_passwords(apps: Sequence[Any], vault: Any) -> Iterator[Problem]:
    """Apps with a database whose password the vault does not hold."""
    for index, app in enumerate(apps):
        if not isinstance(app, Mapping) or app.get("database", True) is not True or app.get("state") == "absent":
            continue
        name = str(app.get("name", ""))
        own = vault.get(name) if isinstance(vault, Mapping) else None
        if name and not (isinstance(own, Mapping) and own.get("database_password")):
            yield Problem(
                f"the app '{name}' has a database, but vault_apps.{name}.database_password is not set",
                "add it to vault.yml (any long random text), or set database: false",
                ("slipway_apps", index),
            )


def check_apps(apps: Sequence[Any]) -> Iterator[Problem]:
    """What the applications say about each other and within themselves."""
    names: dict[str, int] = {}
    domains: dict[str, str] = {}
    ports: dict[int, str] = {}
    for index, app in enumerate(apps):
        if not isinstance(app, Mapping):
            continue
        name = str(app.get("name", ""))
        at: Path = ("slipway_apps", index)
        yield from _check_name(name, names, index)
        for key in ("domains", "redirects"):
            listed = app.get(key)
            for place, domain in enumerate(listed if isinstance(listed, (list, tuple)) else ()):
                if str(domain) in domains:
                    taken = domains[str(domain)]
                    other = "listed twice" if taken == name else f"taken by the app '{taken}' already"
                    yield Problem(
                        f"the domain '{domain}' is {other}", "give each domain to one app, once", (*at, key, place)
                    )
                domains.setdefault(str(domain), name)
        if isinstance(app.get("domains"), (list, tuple)) and not app["domains"]:
            yield Problem("an app needs at least one domain", "", (*at, "domains"))
        yield from _check_image(app.get("image"), (*at, "image"))
        yield from _check_port(app, index, name, ports)
        yield from _check_jobs(app.get("jobs"), (*at, "jobs"))
        env, secrets = app.get("env"), app.get("secrets")
        if isinstance(env, Mapping) and isinstance(secrets, Mapping):
            for both in sorted(set(env) & set(secrets)):
                yield Problem("set under env and under secrets", "keep one of the two", (*at, "env", both))


def _check_name(name: str, names: dict[str, int], index: int) -> Iterator[Problem]:
    path: Path = ("slipway_apps", index, "name")
    if not name:
        return
    if name in RESERVED_APP_NAMES or name.startswith("pg_"):
        yield Problem(f"'{name}' is a name PostgreSQL or Slipway needs itself", f"call it '{name}_app' or so", path)
    if name in names:
        yield Problem(f"the app '{name}' is listed twice", "give each app a name of its own", path)
    elif name.endswith("_session") and name.removesuffix("_session") in names:
        yield Problem(
            f"'{name}' is the session pool of the app '{name.removesuffix('_session')}'", "choose another name", path
        )
    names.setdefault(name, index)


def _check_image(image: Any, path: Path) -> Iterator[Problem]:
    if not isinstance(image, Mapping):
        return
    source = image.get("source")
    if source == "registry":
        for key in ("name", "tag"):
            if not image.get(key):
                yield Problem(f"'{key}' is missing for an image from a registry", "", path)
        if image.get("path"):
            yield Problem("a registry image has no path", "remove it, or set source: build", (*path, "path"))
    if source == "build" and not image.get("path"):
        yield Problem("'path' is missing: the folder with the Dockerfile", "", path)
    if source == "ship" and not image.get("path") and not (image.get("name") and image.get("tag")):
        yield Problem(
            "a shipped image needs either path (it is built here) or name and tag (it is here already)", "", path
        )
    if image.get("tag") == "latest":
        yield Problem("the tag 'latest' says nothing about what runs", "name a version", (*path, "tag"))


def _check_jobs(jobs: Any, path: Path) -> Iterator[Problem]:
    names: set[str] = set()
    for index, job in enumerate(jobs if isinstance(jobs, (list, tuple)) else ()):
        if not isinstance(job, Mapping):
            continue
        name, command = str(job.get("name", "")), job.get("command")
        if name and name in names:
            yield Problem(f"the job '{name}' is listed twice", "raise its count, or rename one", (*path, index, "name"))
        names.add(name)
        if isinstance(command, (list, tuple)) and not command:
            yield Problem(
                "an empty command", "write it as a list of words: [python, -m, jobs]", (*path, index, "command")
            )


def _check_port(app: Mapping[str, Any], index: int, name: str, ports: dict[int, str]) -> Iterator[Problem]:
    port = app.get("port_base", FIRST_PORT + PORT_STEP * index)
    if not isinstance(port, int) or isinstance(port, bool):
        return
    if port in ports:
        yield Problem(
            f"its stable port {port} is that of the app '{ports[port]}' too",
            "give it another port_base",
            ("slipway_apps", index, "port_base"),
        )
    ports.setdefault(port, name)


def check_groups(groups: Mapping[str, Sequence[str]], extra: Sequence[str] = ()) -> Iterator[Problem]:
    """Group names nothing reads, an inventory with no host, and hosts that no playbook would touch.

    ``groups``: group name -> host names, with Ansible's own ``all`` and ``ungrouped``.
    """
    known = set(GROUPS) | set(extra) | {"all", "ungrouped"}
    unknown = [name for name in groups if name not in known]
    if unknown:
        for name in unknown:
            near = closest(name, GROUPS, cutoff=0.6)
            remedy = f"did you mean '{near}'?" if near else "if it is yours, name it under slipway_extra_groups"
            yield Problem(f"unknown group '{name}'", remedy)
        return  # what else is odd follows from the misspelled name
    if not groups.get("all"):
        yield Problem("the inventory has no host", "name one in hosts.yml, or run: bin/fab init")
        return
    for host in groups.get("ungrouped", ()):
        yield Problem(
            f"the host '{host}' is in no group, so nothing would be done there",
            f"put it into {', '.join(GROUPS)} as needed",
        )
    for host in sorted(set(groups.get("worker", ())) - set(groups.get("app", ()))):
        yield Problem(
            f"the host '{host}' is to run background jobs alone",
            "take it out of the group worker: a host of their own needs the private network of a later rung. jobs of an app "
            "(slipway_apps) run beside it",
        )
    yield from check_shape(groups)
    yield from check_redis_hosts(groups)


def check_placeholders(value: Any, path: Path) -> Iterator[Problem]:
    """Every place below ``value`` that still holds the example's placeholder."""
    if isinstance(value, str) and PLACEHOLDER in value:
        yield Problem(f"still says {PLACEHOLDER}", "fill it in; bin/fab init writes a whole inventory for you", path)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from check_placeholders(inner, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from check_placeholders(inner, (*path, index))


def check_secrets(source: Source, environment: str) -> Iterator[Problem]:
    """Secrets in plain text: unencrypted ``vault_*`` variables, and literal values under an app's ``secrets``.

    The lab's secrets guard nothing and are exempt.
    """
    if environment == "lab" or source.encrypted:
        return
    for name in source.names:
        if name.startswith("vault_") and not is_encrypted(source.raw.get(name)):
            yield Problem(
                "secrets in a file that is not encrypted",
                f"run: ansible-vault encrypt {source.file} (and change the secrets if the file was ever committed)",
                (name,), source.file, source.lines.get((name,), 0),
            )  # fmt: skip
    apps = source.raw.get("slipway_apps")
    for index, app in enumerate(apps if isinstance(apps, list) else ()):
        secrets = app.get("secrets") if isinstance(app, Mapping) else None
        for key, value in secrets.items() if isinstance(secrets, Mapping) else ():
            if isinstance(value, str) and "{{" not in value:
                path: Path = ("slipway_apps", index, "secrets", str(key))
                yield Problem(
                    "a secret in plain text",
                    f'put it into vault.yml under vault_apps and write "{{{{ vault_apps.{app.get("name", "app")}.{str(key).lower()} }}}}" here',
                    path, source.file, source.lines.get(path, 0),
                )  # fmt: skip


def is_encrypted(value: Any) -> bool:
    """Whether nothing below ``value`` is readable text: the plugin leaves ``!vault`` values out as None."""
    if isinstance(value, Mapping):
        return all(is_encrypted(inner) for inner in value.values())
    if isinstance(value, (list, tuple)):
        return all(is_encrypted(inner) for inner in value)
    return value is None
