# SPDX-License-Identifier: Apache-2.0
"""What a site of the reverse proxy may say: its schema, its checks, and one with every default filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from ..inventory.schema import Field, Problem, check

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SIZE = re.compile(r"([1-9][0-9]*)\s?([kmg]i?)?b?", re.IGNORECASE)
ANY_ORIGIN = "*"

RATE_LIMIT = Field(
    "mapping",
    "bans an address for a while when it asks too often",
    fields={
        "requests": Field("integer", "so many requests", required=True, minimum=1),
        "seconds": Field("integer", "within so many seconds", default=60, minimum=1, maximum=86400),
        "ban_seconds": Field("integer", "shut an address out for so long", default=600, minimum=1),
        "paths": Field(
            "list", "only requests below these paths count", items=Field("string", "a path", form="url_path")
        ),
        "statuses": Field(
            "list",
            "only answers with these statuses count",
            items=Field("integer", "an HTTP status", minimum=100, maximum=599),
        ),
    },
)

SITE = Field(
    "mapping",
    "one site",
    fields={
        "name": Field("string", "short name: of its files and its access log", required=True, form="app_name"),
        "domains": Field(
            "list", "the names it answers on; the first is the main one", required=True,
            items=Field("string", "a domain", form="domain"),
        ),
        "upstream_port": Field(
            "integer", "stable port of the application", required=True, minimum=1, maximum=65535
        ),
        "upstream_address": Field("string", "address of the application's stable port: the app network's gateway", form="address"),
        "redirects": Field(
            "list", "further domains that redirect to the main one", items=Field("string", "a domain", form="domain")
        ),
        "try_seconds": Field(
            "integer", "how long a GET waits for an application that is starting", minimum=0, maximum=300
        ),
        "drain_seconds": Field(
            "integer", "how long requests in flight may take when the proxy reloads", minimum=0, maximum=3600
        ),
        "body_limit": Field("string", "largest request body", form="size"),
        "csp": Field("string", "Content-Security-Policy; replaces the application's own"),
        "hsts": Field("string", "Strict-Transport-Security; empty leaves it out"),
        "frame_options": Field("string", "X-Frame-Options where the application sets none; empty leaves it out"),
        "referrer_policy": Field("string", "Referrer-Policy where the application sets none; empty leaves it out"),
        "headers": Field("mapping", "more response headers", values=Field("scalar", "its value; empty removes it")),
        "cors_origins": Field(
            "list", "other sites whose pages may call it; '*' alone for all of them",
            items=Field("string", "an origin", form="origin", literals=(ANY_ORIGIN,)),
        ),
        "cors_methods": Field("list", "methods they may use", items=Field("string", "a method")),
        "cors_headers": Field("list", "request headers they may send", items=Field("string", "a header")),
        "cors_expose": Field("list", "response headers they may read", items=Field("string", "a header")),
        "cors_credentials": Field("boolean", "whether they may send cookies"),
        "rate_limit": RATE_LIMIT,
        "basic_auth": Field(
            "mapping", "user name -> bcrypt hash (caddy hash-password)", values=Field("string", "a hash"), secret=True
        ),
        "tls_internal": Field("boolean", "certificate of Caddy's own authority, for names that no public one knows"),
        "compress": Field("boolean", "compress answers (zstd, gzip)"),
        "snippet": Field("string", "Caddyfile lines for the site's block"),
    },
)  # fmt: skip

DEFAULTS: dict[str, Any] = {
    "upstream_address": "127.0.0.1",
    "redirects": [],
    "try_seconds": 15,
    "drain_seconds": 30,
    "body_limit": "10MB",
    "csp": "",
    "hsts": "max-age=31536000",
    "frame_options": "SAMEORIGIN",
    "referrer_policy": "strict-origin-when-cross-origin",
    "headers": {},
    "cors_origins": [],
    "cors_methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
    "cors_headers": ["Authorization", "Content-Type", "X-Requested-With"],
    "cors_expose": [],
    "cors_credentials": False,
    "rate_limit": {},
    "basic_auth": {},
    "tls_internal": False,
    "compress": True,
    "snippet": "",
}


@dataclass(frozen=True)
class Site:
    """A site as checked and with defaults filled in; the keys are those of :data:`SITE`. ``body_limit`` is in bytes."""

    name: str
    domains: tuple[str, ...]
    upstream_port: int
    upstream_address: str
    redirects: tuple[str, ...]
    try_seconds: int
    drain_seconds: int
    body_limit: int
    csp: str
    hsts: str
    frame_options: str
    referrer_policy: str
    headers: Mapping[str, str]
    cors_origins: tuple[str, ...]
    cors_methods: tuple[str, ...]
    cors_headers: tuple[str, ...]
    cors_expose: tuple[str, ...]
    cors_credentials: bool
    tls_internal: bool
    compress: bool
    snippet: str
    basic_auth: Mapping[str, str] = field(repr=False)
    rate_limit: Mapping[str, Any] = field(default_factory=dict)

    @property
    def main_domain(self) -> str:
        """Where the redirects lead."""
        return self.domains[0]


def size_bytes(text: str) -> int:
    """``"10MB"`` as 10000000, ``"10MiB"`` as 10485760, as Caddy reads them. Raises InputError."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise InputError(f"'{text}' is no size", "a size such as 10MB")
    return int(match[1]) * _UNITS[(match[2] or "").lower()]


def filled(raw: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """``raw`` over ``defaults`` over :data:`DEFAULTS`; a key with no value (None) counts as absent."""
    layers = (DEFAULTS, defaults, {key: value for key, value in raw.items() if value is not None})
    return {key: value for layer in layers for key, value in layer.items()}


def problems(sites: Sequence[Any], defaults: Mapping[str, Any] | None = None) -> list[Problem]:
    """Everything wrong with ``caddy_sites`` (and ``caddy_site_defaults``), in the order it is written."""
    defaults = defaults or {}
    found = [
        problem
        for problem in check(defaults, SITE, ("caddy_site_defaults",))
        if not problem.found.endswith("is missing")  # defaults need not name a site
    ]
    owners: dict[str, str] = {}
    for index, raw in enumerate(sites):
        path = ("caddy_sites", index)
        typed = {key: value for key, value in raw.items() if value is not None} if isinstance(raw, Mapping) else raw
        mine = list(check(typed, SITE, path))
        found += mine
        if not mine:
            found += _check_site(filled(typed, defaults), path, owners)
    return found


def _check_site(site: Mapping[str, Any], path: tuple[str | int, ...], owners: dict[str, str]) -> Iterator[Problem]:
    if not site["domains"]:
        yield Problem("no domain", "name at least one", (*path, "domains"))
    for key, what in (("name", site["name"]), *(("domains", d) for d in (*site["domains"], *site["redirects"]))):
        mark = f"{'site' if key == 'name' else 'domain'} {what}"
        if mark in owners:
            yield Problem(
                f"the {mark} is there twice: also in the site '{owners[mark]}'", "keep one of them", (*path, key)
            )
        owners.setdefault(mark, site["name"])
    for name, value in site["headers"].items():
        if not _HEADER_NAME.fullmatch(str(name)):
            yield Problem(f"'{name}' is no header name", "use letters, digits and -", (*path, "headers"))
        yield from _one_line(str(value), (*path, "headers", str(name)))
    for key in ("csp", "hsts", "frame_options", "referrer_policy"):
        yield from _one_line(site[key], (*path, key))
    for key in ("cors_methods", "cors_headers", "cors_expose"):
        for word in site[key]:
            if not _HEADER_NAME.fullmatch(word):
                yield Problem(f"'{word}' is not a name that works here", "use letters, digits and -", (*path, key))
    yield from check_braces(site["snippet"], (*path, "snippet"))
    if ANY_ORIGIN in site["cors_origins"]:
        if len(site["cors_origins"]) > 1:
            yield Problem("'*' stands beside other origins", "keep either", (*path, "cors_origins"))
        if site["cors_credentials"]:
            yield Problem(
                "cookies for every origin would let any page act as the user",
                "name the origins, or set cors_credentials: false", (*path, "cors_origins"),
            )  # fmt: skip


_PART = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|(?<!\S)\#[^\n]*|\n|[^\s"`]+', re.DOTALL)


def check_braces(snippet: str, path: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """A snippet that leaves its block open, or closes the site's own: Caddy's message on it would point elsewhere."""
    opened: list[int] = []
    line = 1
    for part in _PART.findall(snippet):
        if part == "{":
            opened.append(line)
        elif part == "}":
            if not opened:
                yield Problem(f"line {line} closes a block that the snippet has not opened", "remove that '}'", path)
                return
            opened.pop()
        line += part.count("\n")
    if opened:
        yield Problem(f"the block opened in line {opened[-1]} is never closed", "add a line with '}'", path)


def _one_line(value: str, path: tuple[str | int, ...]) -> Iterator[Problem]:
    if any(ord(letter) < 32 for letter in value):
        yield Problem("a header's value has to be one line", "use '>-' in YAML to fold lines", path)
    if value.endswith("\\"):
        yield Problem("a header's value cannot end in a backslash", "", path)


def parse(raw: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Site:
    """A :class:`Site` from a mapping that has no :func:`problems`. Raises InputError for the first one that it has."""
    for problem in problems([raw], defaults):
        raise InputError(str(problem))
    site = filled(raw, defaults or {})
    site["body_limit"] = size_bytes(site["body_limit"])
    site["headers"] = {str(name): str(value) for name, value in site["headers"].items()}
    for key, value in site.items():
        if isinstance(value, list):
            site[key] = tuple(value)
    return Site(**site)
