# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server on this host: connecting as its superuser by Unix socket, reading what is there, running statements.

Needs psycopg 3 (Debian: python3-psycopg), imported where used. Only root, or the user itself, can become that user.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..commands import run
from ..errors import SlipwayError
from .conf import Running
from .objects import (
    LOOKUP_FUNCTION,
    LOOKUP_SCHEMA,
    MAINTENANCE_DB,
    DatabaseFound,
    Found,
    LookupFound,
    RoleFound,
    Statement,
)

SOCKET_DIR = "/var/run/postgresql"
ELEVATED = ("superuser", "createdb", "createrole", "replication", "bypassrls")
# Statements with a verifier in them must not end in the server's log, nor as text in pg_stat_statements.
QUIET = (
    "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic'; "
    "SET log_duration = off"
)


class ServerError(SlipwayError):
    """The server cannot be reached, or refused a statement."""


@contextmanager
def as_user(name: str) -> Iterator[None]:
    """Be the OS user ``name`` for a while (effective ids): what peer authentication looks at."""
    before = os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise ServerError(
            f"There is no user {name} on the host", "the one its package brings", "install the package"
        ) from error
    if entry.pw_uid == before[0]:
        yield
        return
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])


def connect(
    dbname: str = MAINTENANCE_DB,
    *,
    port: int = 5432,
    user: str = "postgres",
    socket_dir: str = SOCKET_DIR,
    options: str | None = "-c lock_timeout=10s",
) -> Any:
    """An autocommit psycopg connection by Unix socket as the OS and database user ``user``. Raises ServerError.

    ``options`` are for the server; PgBouncer's console takes none. Text is text also where the database's encoding is
    SQL_ASCII, for which psycopg would else give bytes.
    """
    try:
        import psycopg
    except ImportError as error:
        raise ServerError(
            "Python's psycopg is missing on the host", "Debian's package", "install python3-psycopg"
        ) from error
    with as_user(user):
        try:
            return psycopg.connect(
                host=socket_dir, port=port, user=user, dbname=dbname, autocommit=True, connect_timeout=10,
                application_name="slipway", options=options, client_encoding="UTF8",
            )  # fmt: skip
        except psycopg.Error as error:
            raise ServerError(
                f"Cannot log in to database {dbname} as {user} by {socket_dir} port {port}: {_said(error)}",
                "a running server that lets this user in by peer authentication",
                "look at 'systemctl status postgresql@*' and the server's log",
            ) from error


def _said(error: Exception) -> str:
    """The first line of a database error: details can hold values."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    return str(primary or str(error).strip().splitlines()[0])


def rows(connection: Any, query: str, parameters: tuple[Any, ...] | None = None) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return list(cursor.fetchall())


# -- settings ----------------------------------------------------------------------------------------------------


def running_settings(connection: Any) -> dict[str, Running]:
    """Every row of pg_settings."""
    query = (
        "SELECT name, setting, coalesce(unit, ''), vartype, context, pending_restart, "
        "CASE WHEN source = 'default' THEN '' ELSE coalesce(sourcefile, source) END FROM pg_settings"
    )
    return {row[0].lower(): Running(*row[1:]) for row in rows(connection, query)}


def file_errors(connection: Any) -> list[str]:
    """What the server would object to in its configuration files, were it to read them now."""
    # Those two are said of settings that only wait for a restart.
    settings = rows(
        connection,
        "SELECT sourcefile, sourceline, name, error FROM pg_file_settings WHERE error IS NOT NULL "
        "AND error <> 'setting could not be applied' AND error NOT LIKE '%cannot be changed without restarting the server'",
    )
    # That TLS is off now says nothing of the settings that are about to be read.
    rules = rows(
        connection,
        "SELECT file_name, line_number, error FROM pg_hba_file_rules "
        "WHERE error IS NOT NULL AND error NOT LIKE '%because SSL is disabled'",
    )
    found = [f"{path} line {line}: {name}: {error}" for path, line, name, error in settings]
    return found + [f"{path} line {line}: {error}" for path, line, error in rules]


# -- objects -----------------------------------------------------------------------------------------------------

_PUBLIC = "ARRAY(SELECT privilege_type::text FROM aclexplode(coalesce({acl}, acldefault('{kind}', {owner}))) WHERE grantee = 0)"


def _roles(connection: Any) -> dict[str, RoleFound]:
    settings: dict[str, dict[str, dict[str, str]]] = {}
    pairs = rows(
        connection,
        "SELECT r.rolname, d.datname, s.setconfig FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole "
        "JOIN pg_database d ON d.oid = s.setdatabase",
    )
    for role, database, config in pairs:
        settings.setdefault(role, {})[database] = dict(item.split("=", 1) for item in config)
    query = (
        "SELECT rolname, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolpassword "
        "FROM pg_authid WHERE rolname !~ '^pg_'"
    )
    return {
        name: RoleFound(
            login, tuple(word for word, on in zip(ELEVATED, flags, strict=True) if on), verifier, settings.get(name, {})
        )
        for name, login, *flags, verifier in rows(connection, query)
    }


def _inside(connection: Any, owner: str, limit: int, public: list[str]) -> DatabaseFound:
    """What can only be seen from within a database."""
    extensions = {row[0] for row in rows(connection, "SELECT extname FROM pg_extension")}
    acl = _PUBLIC.format(acl="nspacl", kind="n", owner="nspowner")
    schema = rows(connection, f"SELECT nspowner::regrole::text, {acl} FROM pg_namespace WHERE nspname = 'public'")  # noqa: S608 constants
    schema_owner, schema_public = schema[0] if schema else ("", [])
    return DatabaseFound(owner, limit, frozenset(public), frozenset(extensions), schema_owner, frozenset(schema_public))


def _lookup(connection: Any) -> LookupFound:
    found = rows(
        connection,
        "SELECT p.prosrc, p.proowner::regrole::text, p.prosecdef AND p.proconfig = ARRAY['search_path=pg_catalog'], "
        "ARRAY(SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END FROM "
        "aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) WHERE grantee <> p.proowner), "
        "ARRAY(SELECT a.attname::text FROM pg_attribute a, aclexplode(a.attacl) x "
        "WHERE a.attrelid = 'pg_authid'::regclass AND x.grantee = p.proowner), "
        "ARRAY(SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END FROM "
        "aclexplode(n.nspacl) WHERE grantee <> n.nspowner), "
        "ARRAY(SELECT x.grantee::regrole::text FROM pg_database d, aclexplode(d.datacl) x "
        "WHERE d.datname = current_database() AND x.privilege_type = 'CONNECT' AND x.grantee NOT IN (0, d.datdba)) "
        "FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = %s AND p.proname = %s",
        (LOOKUP_SCHEMA, LOOKUP_FUNCTION),
    )
    if not found:
        return LookupFound()
    source, owner, safe, *grants = found[0]
    return LookupFound(source, owner, bool(safe), *(frozenset(names) for names in grants))


def look(port: int, wanted: Iterable[str]) -> Found:
    """Roles, and those databases of ``wanted`` (and the shared ones) that exist."""
    acl = _PUBLIC.format(acl="datacl", kind="d", owner="datdba")
    with connect(port=port) as connection:
        query = f"SELECT datname, datdba::regrole::text, datconnlimit, {acl} FROM pg_database WHERE datallowconn"  # noqa: S608 constants
        listed = {name: rest for name, *rest in rows(connection, query)}
        roles, lookup = _roles(connection), _lookup(connection)
    databases: dict[str, DatabaseFound] = {}
    for name in (*wanted, MAINTENANCE_DB, "template1"):
        if name in listed and name not in databases:
            with connect(name, port=port) as inside:
                databases[name] = _inside(inside, *listed[name])
    return Found(roles, databases, lookup)


def apply(statements: Iterable[Statement], port: int) -> None:
    """Run ``statements`` in order, each in its database. Raises ServerError with the label, never with the SQL."""
    import psycopg

    open_connections: dict[str, Any] = {}
    try:
        for statement in statements:
            if statement.database not in open_connections:
                connection = open_connections[statement.database] = connect(statement.database, port=port)
                connection.execute(QUIET)
                if rows(connection, "SELECT 1 FROM pg_settings WHERE name = 'pg_stat_statements.track_utility'"):
                    connection.execute("SET pg_stat_statements.track_utility = off")
            try:
                open_connections[statement.database].execute(statement.sql)
            except psycopg.Error as error:
                raise ServerError(
                    f"PostgreSQL refused to {statement.label}: {_said(error)}",
                    "",
                    "mend what it names and run the playbook again: what is done already is recognised",
                ) from error
    finally:
        for connection in open_connections.values():
            connection.close()


# -- sockets -----------------------------------------------------------------------------------------------------

_LISTENING = re.compile(r"^\S+\s+\d+\s+\d+\s+(\S+):(\d+)\s")


def parse_listening(text: str, port: int) -> list[str]:
    """Addresses that listen on TCP ``port``, from ``ss -Hltn``: ``127.0.0.1``, ``::1``; ``*`` for all."""
    found = set()
    for line in text.splitlines():
        match = _LISTENING.match(line)
        if match and int(match[2]) == port:
            address = match[1].strip("[]").partition("%")[0]
            found.add("*" if address in ("*", "0.0.0.0", "::") else address)  # noqa: S104 read, not bound
    return sorted(found)


def listening(port: int) -> list[str]:
    """Addresses of this host that listen on TCP ``port``."""
    return parse_listening(run(["ss", "-Hltn"]).stdout, port)


def expected_addresses(listen: Iterable[str]) -> set[str]:
    """The addresses that ``listen_addresses`` allows, spelled as :func:`parse_listening` does; names are resolved."""
    import socket

    allowed: set[str] = set()
    for item in listen:
        if item in ("*", "0.0.0.0", "::"):  # noqa: S104 read, not bound
            allowed.add("*")
        elif item == "localhost":
            allowed |= {"127.0.0.1", "::1"}
        else:
            try:
                allowed |= {str(info[4][0]) for info in socket.getaddrinfo(item, None, type=socket.SOCK_STREAM)}
            except socket.gaierror as error:
                raise ServerError(
                    f"The listen address {item} cannot be resolved", "an address of this host", "correct it"
                ) from error
    return allowed


def check_listening(port: int, listen: Iterable[str], service: str) -> list[str]:
    """The addresses that listen on ``port``; raises ServerError where one is not allowed by ``listen``, or none is there."""
    wished = list(listen)
    allowed, found = expected_addresses(wished), listening(port)
    beyond = [address for address in found if address not in allowed and "*" not in allowed]
    missing = [item for item in wished if item not in ("localhost", "") and not expected_addresses([item]) & set(found)]
    if beyond or missing or not found:
        raise ServerError(
            f"{service} listens on port {port} of {', '.join(found) or 'no address'}",
            f"{', '.join(wished)} and nothing else",
            f"see who holds the port with 'ss -ltnp sport = :{port}', and that the addresses exist with 'ip address'",
        )
    return found


def summary(found: Mapping[str, Running], names: Iterable[str]) -> dict[str, str]:
    """Values of ``names`` as they run, for people."""
    return {name: found[name.lower()].shown for name in names if name.lower() in found}
