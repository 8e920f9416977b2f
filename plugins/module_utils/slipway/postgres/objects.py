# SPDX-License-Identifier: Apache-2.0
"""Roles and databases of apps: from what is wished and what is there to the statements in between. Pure.

Least privilege, in a cluster that several apps share:

- an app's role owns its database and nothing else; it is no superuser and can make neither databases nor roles;
- nobody but the owner may connect to a database, and no app may connect to ``postgres`` or ``template1``;
- nothing is ever dropped: a database that is no longer wished is left alone.

For PgBouncer there is a login role without password (it comes by Unix socket) that may do a single thing: call a function
that reads the SCRAM verifier of an ordinary login role. The function belongs to a role that cannot log in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from . import scram

MAINTENANCE_DB = "postgres"
SHARED_DATABASES = (MAINTENANCE_DB, "template1")
SESSION_SUFFIX = "_session"
LOOKUP_SCHEMA, LOOKUP_FUNCTION, LOOKUP_OWNER = "slipway_pooler", "lookup", "slipway_pooler_lookup"
LOOKUP_COLUMNS = ("rolname", "rolpassword", "rolvaliduntil", "rolcanlogin", "rolsuper", "rolreplication")
LOOKUP_SOURCE = """
  SELECT rolname::text, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END
  FROM pg_authid
  WHERE rolname = wanted AND rolcanlogin AND NOT rolsuper AND NOT rolreplication
    AND rolpassword LIKE 'SCRAM-SHA-256$%'
"""
"""Superusers are left out: their verifiers are of no use to a pooler, and theirs alone would be worth stealing."""
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,54}$")
_EXTENSION = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")
_SETTING = re.compile(r"^[a-z][a-z0-9_.]{0,62}$")
RESERVED = ("postgres", "template0", "template1", "pgbouncer", "public", "slipway_auth", LOOKUP_OWNER)


@dataclass(frozen=True)
class DatabaseSpec:
    """The wish for one database and its owner. ``connection_limit`` -1: none. ``settings`` hold for the owner in it."""

    name: str
    owner: str
    password: str = field(repr=False)
    extensions: tuple[str, ...] = ()
    connection_limit: int = -1
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> DatabaseSpec:
        """From a plain mapping; raises InputError for a name or password that cannot be used."""
        name = _checked_name(raw["name"], "database")
        owner = _checked_name(raw.get("owner") or name, f"owner of database {name}")
        if name.endswith(SESSION_SUFFIX):
            raise InputError(
                f"A database is called '{name}'",
                f"a name that does not end in {SESSION_SUFFIX}, which is the pooler's",
                "rename it",
            )
        given = raw.get("connection_limit")
        limit = -1 if given is None else int(given)
        if limit < -1 or limit == 0:
            raise InputError(
                f"Database {name} has connection_limit: {limit}", "1 or more, or -1 for none", "correct it"
            )
        extensions = tuple(raw.get("extensions") or ())
        for extension in extensions:
            if not _EXTENSION.match(extension):
                raise InputError(
                    f"Database {name} asks for the extension '{extension}'",
                    "the name of an extension",
                    "correct or remove it",
                )
        settings = {key: _text(value) for key, value in (raw.get("settings") or {}).items()}
        for key in settings:
            if not _SETTING.match(key):
                raise InputError(
                    f"Database {name} has the setting '{key}'",
                    "the name of a PostgreSQL setting",
                    "correct or remove it",
                )
        password = scram.check_password(raw.get("password") or "", f"database role {owner}")
        return cls(name, owner, password, extensions, limit, settings)


@dataclass(frozen=True)
class PeerSpec:
    """A superuser without password: one user of the host's own system, told by its socket, may be it and nobody else."""

    role: str
    system_user: str

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> PeerSpec:
        """From a plain mapping; raises InputError for a name that cannot be used."""
        return cls(_checked_name(raw["role"], "role"), str(raw["system_user"]))


@dataclass(frozen=True)
class RoleFound:
    """A role as it is. ``verifier`` is what pg_authid holds; ``settings`` are database name -> setting -> value."""

    login: bool = True
    elevated: tuple[str, ...] = ()
    verifier: str | None = field(default=None, repr=False)
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class DatabaseFound:
    """A database as it is. ``public`` are privileges on it that everybody has, ``schema_public`` those on schema public.

    ``schema_owner`` is the owner of schema public, empty where there is no such schema.
    """

    owner: str
    connection_limit: int = -1
    public: frozenset[str] = frozenset()
    extensions: frozenset[str] = frozenset()
    schema_owner: str = "pg_database_owner"
    schema_public: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LookupFound:
    """The pooler's function as it is: all empty where there is none."""

    source: str = ""
    owner: str = ""
    safe: bool = False
    callers: frozenset[str] = frozenset()
    columns: frozenset[str] = frozenset()
    schema_users: frozenset[str] = frozenset()
    connect: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Found:
    """All of a cluster that the plan looks at."""

    roles: Mapping[str, RoleFound] = field(default_factory=dict)
    databases: Mapping[str, DatabaseFound] = field(default_factory=dict)
    lookup: LookupFound = LookupFound()


@dataclass(frozen=True)
class Statement:
    """One statement to run in ``database``. ``label`` is what people see; ``sql`` may hold a verifier and is never shown."""

    sql: str = field(repr=False)
    label: str
    database: str = MAINTENANCE_DB


def _text(value: Any) -> str:
    """A setting's value as PostgreSQL reads it: YAML's booleans become on and off."""
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _checked_name(name: str, what: str) -> str:
    if not _NAME.match(name):
        raise InputError(
            f"The {what} is called '{name}'",
            "lower-case letters, digits and underscores, a letter first, at most 55 characters",
            "rename it",
        )
    if name in RESERVED or name.startswith("pg_"):
        raise InputError(
            f"The {what} is called '{name}'", "a name that PostgreSQL or the pooler does not use itself", "rename it"
        )
    return name


def quoted(name: str) -> str:
    """An identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A string constant, safe whatever standard_conforming_strings says."""
    body = value.replace("'", "''")
    return f"E'{body.replace(chr(92), chr(92) * 2)}'" if "\\" in body else f"'{body}'"


def parse(raw: Iterable[Mapping[str, Any]]) -> tuple[DatabaseSpec, ...]:
    """All wishes; raises InputError where two contradict each other."""
    specs = tuple(DatabaseSpec.parse(item) for item in raw)
    names = [spec.name for spec in specs]
    passwords: dict[str, str] = {}
    for spec in specs:
        if names.count(spec.name) > 1:
            raise InputError(f"Two databases are called '{spec.name}'", "one entry for each", "remove or rename one")
        if passwords.setdefault(spec.owner, spec.password) != spec.password:
            raise InputError(
                f"Role {spec.owner} owns several databases and is given several passwords",
                "one password",
                "make them equal",
            )
    return specs


# -- the plan ----------------------------------------------------------------------------------------------------

_PLAIN = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"


def _plan_role(name: str, password: str, found: RoleFound | None) -> list[Statement]:
    role = quoted(name)
    if found is None:
        sql = f"CREATE ROLE {role} LOGIN {_PLAIN} PASSWORD {literal(scram.verifier(password))}"
        return [Statement(sql, f"create role {name}")]
    steps: list[Statement] = []
    if not found.login or found.elevated:
        taken = f" (takes {', '.join(found.elevated)})" if found.elevated else ""
        steps.append(Statement(f"ALTER ROLE {role} LOGIN {_PLAIN}", f"give role {name} an app's rights{taken}"))
    if not scram.matches(password, found.verifier):
        sql = f"ALTER ROLE {role} PASSWORD {literal(scram.verifier(password))}"
        steps.append(Statement(sql, f"change the password of role {name}"))
    return steps


def _plan_peer(spec: PeerSpec, found: RoleFound | None) -> list[Statement]:
    role = quoted(spec.role)
    if found is None:
        sql = f"CREATE ROLE {role} LOGIN SUPERUSER"
        return [Statement(sql, f"create superuser {spec.role} for the system user {spec.system_user}")]
    steps: list[Statement] = []
    if not found.login or "superuser" not in found.elevated:
        steps.append(Statement(f"ALTER ROLE {role} LOGIN SUPERUSER", f"make role {spec.role} a superuser"))
    if found.verifier is not None:
        steps.append(Statement(f"ALTER ROLE {role} PASSWORD NULL", f"take the password of role {spec.role}"))
    return steps


def _plan_owner_settings(spec: DatabaseSpec, found: RoleFound | None) -> list[Statement]:
    there = dict(found.settings.get(spec.name, {})) if found else {}
    target = f"ALTER ROLE {quoted(spec.owner)} IN DATABASE {quoted(spec.name)}"
    # Settings that are there and not wished are left: an app's own migrations may have set them.
    return [
        Statement(
            f"{target} SET {quoted(key)} TO {literal(value)}", f"set {key} = {value} for {spec.owner} in {spec.name}"
        )
        for key, value in sorted(spec.settings.items())
        if there.get(key) != value
    ]


def _plan_database(spec: DatabaseSpec, found: DatabaseFound | None) -> list[Statement]:
    name, owner = quoted(spec.name), quoted(spec.owner)
    steps: list[Statement] = []
    if found is None:
        limit = f" CONNECTION LIMIT {spec.connection_limit}" if spec.connection_limit != -1 else ""
        steps.append(Statement(f"CREATE DATABASE {name} OWNER {owner}{limit}", f"create database {spec.name}"))
        # What a new database gives to everybody; template1 may differ, and the next look would tell.
        found = DatabaseFound(
            spec.owner, spec.connection_limit, frozenset({"CONNECT", "TEMPORARY"}), schema_public=frozenset({"USAGE"})
        )
    if found.owner != spec.owner:
        steps.append(Statement(f"ALTER DATABASE {name} OWNER TO {owner}", f"give database {spec.name} to {spec.owner}"))
    if found.connection_limit != spec.connection_limit:
        steps.append(
            Statement(
                f"ALTER DATABASE {name} CONNECTION LIMIT {spec.connection_limit}",
                f"limit database {spec.name} to {spec.connection_limit} connections",
            )
        )
    if found.public:
        steps.append(_close(spec.name))
    if found.schema_owner and found.schema_owner != "pg_database_owner":
        steps.append(
            Statement(
                "ALTER SCHEMA public OWNER TO pg_database_owner",
                f"give schema public of {spec.name} to its owner",
                spec.name,
            )
        )
    if found.schema_owner and found.schema_public:
        steps.append(
            Statement(
                "REVOKE ALL ON SCHEMA public FROM PUBLIC", f"close schema public of {spec.name} to others", spec.name
            )
        )
    for extension in spec.extensions:
        if extension not in found.extensions:
            steps.append(_extension(extension, spec.name))
    return steps


def _close(database: str) -> Statement:
    return Statement(f"REVOKE ALL ON DATABASE {quoted(database)} FROM PUBLIC", f"close database {database} to others")


def _extension(name: str, database: str) -> Statement:
    return Statement(
        f"CREATE EXTENSION IF NOT EXISTS {quoted(name)}", f"create extension {name} in {database}", database
    )


def wished_lookup(pooler: str) -> LookupFound:
    """The pooler's function as it should be."""
    return LookupFound(
        LOOKUP_SOURCE,
        LOOKUP_OWNER,
        True,
        frozenset({pooler}),
        frozenset(LOOKUP_COLUMNS),
        frozenset({pooler}),
        frozenset({pooler}),
    )


def _plan_lookup(pooler: str, found: Found) -> list[Statement]:
    """Role of the pooler, owner of the function, and the function; written anew as a whole when anything differs."""
    steps: list[Statement] = []
    user, owner, schema = quoted(pooler), quoted(LOOKUP_OWNER), quoted(LOOKUP_SCHEMA)
    for name, kind in ((pooler, "LOGIN"), (LOOKUP_OWNER, "NOLOGIN")):
        role = found.roles.get(name)
        if role is None:
            steps.append(Statement(f"CREATE ROLE {quoted(name)} {kind} {_PLAIN}", f"create role {name}"))
        elif role.login != (kind == "LOGIN") or role.elevated:
            steps.append(
                Statement(
                    f"ALTER ROLE {quoted(name)} {kind} {_PLAIN}", f"give role {name} the rights it needs and no more"
                )
            )
        if role is not None and role.verifier is not None:
            steps.append(Statement(f"ALTER ROLE {quoted(name)} PASSWORD NULL", f"take the password of role {name}"))
    if found.lookup == wished_lookup(pooler):
        return steps
    function = f"{schema}.{quoted(LOOKUP_FUNCTION)}"
    body = (
        f"GRANT CONNECT ON DATABASE {quoted(MAINTENANCE_DB)} TO {user}",
        f"CREATE SCHEMA IF NOT EXISTS {schema}",
        f"REVOKE ALL ON SCHEMA {schema} FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA {schema} TO {user}",
        f"GRANT SELECT ({', '.join(LOOKUP_COLUMNS)}) ON pg_catalog.pg_authid TO {owner}",
        f"DROP FUNCTION IF EXISTS {function}(text)",
        f"CREATE FUNCTION {function}(wanted text) RETURNS TABLE (username text, password text) LANGUAGE sql STABLE STRICT "
        f"SECURITY DEFINER SET search_path = pg_catalog AS {literal(LOOKUP_SOURCE)}",
        f"ALTER FUNCTION {function}(text) OWNER TO {owner}",
        f"REVOKE ALL ON FUNCTION {function}(text) FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {function}(text) TO {user}",
    )
    # One string: the simple protocol runs it as one transaction, so that the pooler is never without the function.
    return [*steps, Statement("; ".join(body), f"create the pooler's lookup function for role {pooler}")]


def plan(
    specs: Iterable[DatabaseSpec],
    found: Found,
    *,
    pooler: str = "",
    extensions: Iterable[str] = (),
    peers: Iterable[PeerSpec] = (),
) -> list[Statement]:
    """The statements that bring what is found to what is wished, in order; empty when all is as wished.

    ``pooler`` names PgBouncer's login role (empty: none). ``extensions`` are for the maintenance database. ``peers`` are
    superusers that come by a system user of their own.
    """
    steps: list[Statement] = []
    maintenance = found.databases.get(MAINTENANCE_DB, DatabaseFound("postgres"))
    steps += [_extension(name, MAINTENANCE_DB) for name in extensions if name not in maintenance.extensions]
    steps += [_close(name) for name in SHARED_DATABASES if (there := found.databases.get(name)) and there.public]
    if pooler:
        steps += _plan_lookup(pooler, found)
    for peer in peers:
        steps += _plan_peer(peer, found.roles.get(peer.role))
    done: set[str] = set()
    for spec in specs:
        if spec.owner not in done:
            steps += _plan_role(spec.owner, spec.password, found.roles.get(spec.owner))
            done.add(spec.owner)
        steps += _plan_database(spec, found.databases.get(spec.name))
        steps += _plan_owner_settings(spec, found.roles.get(spec.owner))
    return steps
