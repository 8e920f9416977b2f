# SPDX-License-Identifier: Apache-2.0
"""Settings, read from the environment once and typed. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - inside a container only the published port can be reached


class SettingError(Exception):
    """A setting is missing or malformed; the message names it and what was expected, never a secret's value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the service can be told.

    ``database_url`` goes through transaction pooling, ``session_url`` through session pooling (migrations).
    Times are in seconds. ``fail_*`` are switches for tests of deploys.
    """

    database_url: str
    session_url: str
    secret_key: str
    port: int = 8000
    host: str = ANY_ADDRESS
    workers: int = 1
    concurrency: int = 100
    pool_size: int = 10
    pool_overflow: int = 20
    grace_seconds: int = 15
    release: str = "dev"
    colour: str = "none"
    log_level: str = "info"
    access_log: bool = False
    trusted_proxies: str = "*"
    fail_ready: bool = False
    fail_rate: float = 0.0
    fail_migration: bool = False
    fail_jobs: bool = False

    @property
    def pool_max(self) -> int:
        """Most connections one worker opens."""
        return self.pool_size + self.pool_overflow


def from_environment(env: Mapping[str, str]) -> Settings:
    """Build `Settings`, or raise `SettingError` naming the first variable that does not fit."""
    database_url = _postgres_url(env, "DATABASE_URL", None)
    return Settings(
        database_url=database_url,
        session_url=_postgres_url(env, "DATABASE_SESSION_URL", database_url),
        secret_key=_secret(env, "SECRET_KEY"),
        port=_integer(env, "PORT", 8000, 1, 65535),
        host=env.get("HOST") or ANY_ADDRESS,
        workers=_integer(env, "WORKERS", 1, 1, 64),
        concurrency=_integer(env, "CONCURRENCY", 100, 1, 10_000),
        pool_size=_integer(env, "POOL_SIZE", 10, 1, 1000),
        pool_overflow=_integer(env, "POOL_OVERFLOW", 20, 0, 1000),
        grace_seconds=_integer(env, "GRACE_SECONDS", 15, 1, 3600),
        release=env.get("RELEASE") or "dev",
        colour=env.get("COLOUR") or env.get("SLIPWAY_COLOUR") or "none",
        log_level=_choice(env, "LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
        access_log=_flag(env, "ACCESS_LOG"),
        trusted_proxies=env.get("TRUSTED_PROXIES") or "*",
        fail_ready=_flag(env, "FAIL_READY"),
        fail_rate=_fraction(env, "FAIL_RATE"),
        fail_migration=_flag(env, "FAIL_MIGRATION"),
        fail_jobs=_flag(env, "FAIL_JOBS"),
    )


def _postgres_url(env: Mapping[str, str], name: str, default: str | None) -> str:
    value = env.get(name) or default
    if not value:
        raise SettingError(f"{name} is not set; expected postgresql://user:password@host:port/database")
    if urlsplit(value).scheme not in {"postgresql", "postgres"}:
        raise SettingError(f"{name} is not a PostgreSQL URL; expected postgresql://user:password@host:port/database")
    return value


def _secret(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if len(value) < 16:
        raise SettingError(f"{name} has {len(value)} characters; expected a random secret of 16 or more")
    return value


def _integer(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name) or str(default)
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise SettingError(f"{name} is {text!r}; expected a whole number from {low} to {high}")
    return value


def _fraction(env: Mapping[str, str], name: str) -> float:
    text = env.get(name) or "0"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise SettingError(f"{name} is {text!r}; expected a number from 0 to 1")
    return value


def _flag(env: Mapping[str, str], name: str) -> bool:
    text = (env.get(name) or "0").lower()
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off"}:
        return False
    raise SettingError(f"{name} is {text!r}; expected 1 or 0")


def _choice(env: Mapping[str, str], name: str, default: str, allowed: tuple[str, ...]) -> str:
    value = (env.get(name) or default).lower()
    if value not in allowed:
        raise SettingError(f"{name} is {value!r}; expected one of {', '.join(allowed)}")
    return value
