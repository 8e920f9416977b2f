# SPDX-License-Identifier: Apache-2.0
"""From ``slipway_apps`` as a user types it to what each role needs: ports, database addresses, numbers from the sizing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..errors import InputError
from ..sizing.redis import PURPOSES

FIRST_PORT, PORT_STEP, APPS_MOST = 18000, 10, 100
FIRST_REDIS_PORT = 6500
PASSWORD_LEAST = 12
SESSION_SUFFIX = "_session"
SITE_KEYS = ("csp", "headers", "cors_origins", "rate_limit", "body_limit", "redirects", "caddy_snippet")
"""What the proxy alone needs to know."""
REPLACED_KEYS = (
    "name",
    "port",
    "env",
    "secrets",
    "database",
    "redis",
    "extensions",
    "port_base",
    "domains",
    "workers",
    "concurrency",
)
"""What :func:`resolve` turns into something else."""


@dataclass(frozen=True)
class Network:
    """Where an app in its container finds the pooler: ``gateway`` is the host's address on the app network."""

    gateway: str = "10.213.87.1"
    pooler_port: int = 6432


def stable_port(index: int, base: int | None = None) -> int:
    """The port that the proxy dials for the app at ``index`` (from 0); ``base`` is the app's own ``port_base``.

    Raises InputError beyond 100 apps.
    """
    if base is None and index >= APPS_MOST:
        raise InputError(
            f"There are more than {APPS_MOST} apps", f"{APPS_MOST} at most on one host", "spread them over hosts"
        )
    return base if base is not None else FIRST_PORT + PORT_STEP * index


def resolve(
    apps: Iterable[Mapping[str, Any]],
    sizing: Mapping[str, Any],
    vault: Mapping[str, Mapping[str, Any]],
    network: Network | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """What the roles need, as ``{apps, sites, databases, redis}``.

    ``sizing`` is :meth:`Sizing.to_dict`, ``vault`` the inventory's ``vault_apps`` (name -> ``database_password``, ``redis_password``). Ports follow the order of the list, so an app that is taken away keeps its
    place with ``state: absent`` until the ones behind it may move. Raises InputError where two apps share a port or a
    database has no password in the vault.
    """
    network = network or Network()
    result: dict[str, list[dict[str, Any]]] = {"apps": [], "sites": [], "databases": [], "redis": []}
    taken: dict[int, str] = {}
    for index, app in enumerate(apps):
        name = str(app["name"])
        port = stable_port(index, app.get("port_base"))
        if port in taken:
            raise InputError(
                f"Apps {taken[port]} and {name} would both use port {port}",
                "a stable port of its own for each",
                f"give {name} another port_base",
            )
        taken[port] = name
        numbers = sizing["apps"].get(name, {})
        present = app.get("state", "present") == "present"
        password = _password(app, vault, "database") if present and _has_database(app) else ""
        servers = _redis(app, index, sizing, vault) if present and app.get("redis") else []
        result["redis"] += servers
        told = redis_secrets(servers, network)
        if password:
            told["DATABASE_URL"] = database_url(name, password, network)
            told["DATABASE_SESSION_URL"] = database_url(name, password, network, session=True)
        result["apps"].append(_app(app, port, numbers, told))
        if not present:
            continue
        if app.get("domains"):
            result["sites"].append(_site(app, port, network))
        if _has_database(app):
            result["databases"].append(_database(app, numbers, password))
    return result


def _has_database(app: Mapping[str, Any]) -> bool:
    return bool(app.get("database", True))


def _password(app: Mapping[str, Any], vault: Mapping[str, Mapping[str, Any]], kind: str) -> str:
    """The app's password for its database, or for Redis (``kind``)."""
    name = str(app["name"])
    password = (vault.get(name) or {}).get(f"{kind}_password")
    wants, way_out = (
        ("has a database", "set database: false") if kind == "database" else ("wants Redis", "remove redis:")
    )
    if not password:
        raise InputError(
            f"App {name} {wants}, but the vault holds no password for it",
            f"vault_apps.{name}.{kind}_password",
            f"add it with 'ansible-vault edit' to group_vars/all/vault.yml (any long random text), or {way_out}",
        )
    if len(str(password)) < PASSWORD_LEAST:
        raise InputError(
            f"vault_apps.{name}.{kind}_password has {len(str(password))} characters",
            f"at least {PASSWORD_LEAST}",
            "generate one with 'openssl rand -hex 24' and put it into the vault",
        )
    return str(password)


def redis_port(index: int, purpose: str) -> int:
    """The port of the Redis that serves ``purpose`` for the app at ``index`` (from 0)."""
    return FIRST_REDIS_PORT + len(PURPOSES) * index + PURPOSES.index(purpose)


def _redis(
    app: Mapping[str, Any], index: int, sizing: Mapping[str, Any], vault: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The app's servers of Redis, in the order it named them."""
    name, password = str(app["name"]), _password(app, vault, "redis")
    sized = {(one["app"], one["purpose"]): one for one in (sizing.get("redis") or {}).get("servers", ())}
    found = []
    for purpose in map(str, app["redis"]):
        numbers = sized.get((name, purpose))
        if numbers is None:
            raise InputError(
                f"App {name} wants Redis as '{purpose}', and the sizing of its host has no memory for it",
                f"one or both of {', '.join(PURPOSES)}",
                "correct redis: in slipway_apps",
            )
        found.append(
            {
                "app": name,
                "purpose": purpose,
                "port": redis_port(index, purpose),
                "password": password,
                "maxmemory_mb": numbers["maxmemory_mb"],
                "limit_mb": numbers["limit_mb"],
            }
        )
    return found


def redis_secrets(servers: Iterable[Mapping[str, Any]], network: Network) -> dict[str, str]:
    """What an app is told: ``REDIS_URL`` is its first server, ``REDIS_CACHE_URL`` and ``REDIS_QUEUE_URL`` name the purpose."""
    told: dict[str, str] = {}
    for server in servers:
        url = f"redis://{server['app']}:{quote(server['password'], safe='')}@{network.gateway}:{server['port']}/0"
        told.setdefault("REDIS_URL", url)
        told[f"REDIS_{server['purpose'].upper()}_URL"] = url
    return told


def database_url(name: str, password: str, network: Network, *, session: bool = False) -> str:
    """A libpq URL to the pooler; user and database bear the app's name."""
    database = name + (SESSION_SUFFIX if session else "")
    return f"postgresql://{name}:{quote(password, safe='')}@{network.gateway}:{network.pooler_port}/{database}"


def _app(app: Mapping[str, Any], stable: int, numbers: Mapping[str, Any], told: Mapping[str, str]) -> dict[str, Any]:
    """``told``: the secret addresses that Slipway gives it; the app's own of the same name win."""
    name = str(app["name"])
    container_port = int(app.get("port", 8000))
    computed: dict[str, str] = {
        "PORT": str(container_port),
        "WORKERS": str(numbers.get("workers", 1)),
        "WEB_CONCURRENCY": str(numbers.get("workers", 1)),
        "CONCURRENCY": str(numbers.get("concurrency", 100)),
    }
    secrets = {**told, **{str(key): str(value) for key, value in (app.get("secrets") or {}).items()}}
    if "DATABASE_URL" in told:
        computed["POOL_SIZE"] = str(numbers.get("client_pool", 10))
        computed["POOL_OVERFLOW"] = str(numbers.get("client_overflow", 20))
    own = {str(key): _plain(value) for key, value in (app.get("env") or {}).items()}
    kept = {key: value for key, value in app.items() if key not in REPLACED_KEYS and key not in SITE_KEYS}
    kept |= {"name": name, "port": container_port, "stable_port": stable, "domains": list(app.get("domains") or [])}
    kept |= {"env": {**computed, **own}, "secrets": secrets}
    kept["memory_mb"] = int(numbers.get("memory_mb", 256))
    return kept


def _plain(value: Any) -> str:
    """Environment variables are text: true and false are written as such, numbers as they are."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _site(app: Mapping[str, Any], stable: int, network: Network) -> dict[str, Any]:
    site = {key: app[key] for key in (*SITE_KEYS, "drain_seconds") if key in app}
    if "caddy_snippet" in site:
        site["snippet"] = site.pop("caddy_snippet")
    # The stable port is on the app network's own address, not on loopback: see switch.py.
    upstream = {"upstream_address": network.gateway, "upstream_port": stable}
    return {**site, "name": str(app["name"]), "domains": list(app["domains"]), **upstream}


def _database(app: Mapping[str, Any], numbers: Mapping[str, Any], password: str) -> dict[str, Any]:
    return {
        "name": str(app["name"]),
        "owner": str(app["name"]),
        "password": password,
        "extensions": list(app.get("extensions") or []),
        "pool_size": numbers.get("server_pool", 4),
        "session_pool_size": numbers.get("session_pool", 2),
    }
