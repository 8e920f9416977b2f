# SPDX-License-Identifier: Apache-2.0
"""A small language for saying what a setting may hold, and the check of a value against it.

Fields are plain data: the inventory's schema (``inventory_schema``) is written in them, the example inventory's
documentation is compared with them, and nothing here knows a setting's name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .suggest import closest

Path = tuple[str | int, ...]
Kind = Literal["string", "integer", "number", "boolean", "list", "mapping", "scalar"]


@dataclass(frozen=True)
class Field:
    """One setting: its type, its bounds and a sentence of documentation.

    ``literals``: values allowed besides the type (``auto``). ``items``: what a list holds. ``fields``: the keys of a
    closed mapping. ``values``: what an open mapping (any key) holds, ``keys`` the form of its keys. ``form``: a named
    check (``expected_form``). ``secret``: no message quotes a value below here.
    """

    kind: Kind
    doc: str
    default: Any = None
    required: bool = False
    choices: tuple[str, ...] = ()
    literals: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    form: str = ""
    items: Field | None = None
    fields: Mapping[str, Field] = field(default_factory=dict)
    values: Field | None = None
    keys: str = ""
    secret: bool = False


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an inventory: where (``path`` below a variable, in a file), what, and the way out."""

    found: str
    remedy: str = ""
    path: Path = ()
    file: str = ""
    line: int = 0

    @property
    def place(self) -> str:
        """``file:line``, ``file`` or an empty string."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file

    def __str__(self) -> str:
        parts = [f"{self.place}: " if self.place else "", f"{spell(self.path)}: " if self.path else "", self.found]
        text = "".join(parts)
        text += "" if text[-1] in ".?!" else "."
        return f"{text} {self.remedy[:1].upper()}{self.remedy[1:]}" if self.remedy else text


def spell(path: Path) -> str:
    """``('slipway_apps', 0, 'image', 'tag')`` as ``slipway_apps[0].image.tag``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_PATTERNS: dict[str, tuple[re.Pattern[str], str]] = {
    "app_name": (re.compile(r"[a-z][a-z0-9_]{0,30}"), "a lower-case letter, then at most 30 letters, digits or _"),
    "user_name": (re.compile(r"[a-z_][a-z0-9_-]{0,31}"), "a Linux user name in lower case"),
    "email": (re.compile(r"[^@\s\"<>]+@[^@\s]+\.[^@\s.]+"), "an e-mail address such as you@example.com"),
    "env_name": (re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "letters, digits and _, not starting with a digit"),
    "image_name": (
        re.compile(r"[a-z0-9][a-z0-9._/-]*(:[0-9]+/[a-z0-9._/-]+)?"),
        "an image name without its tag, such as registry.example.com/notes",
    ),
    "image_tag": (re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"), "an image tag such as 1.4.2"),
    "url_path": (re.compile(r"/[^\s]*"), "a path that starts with /, such as /readyz"),
    "size": (re.compile(r"[1-9][0-9]*\s?([kKMG]i?)?B?"), "a size such as 10MB"),
    "public_key": (
        re.compile(r"((ssh-(ed25519|rsa)|sk-ssh-ed25519@openssh\.com) AAAA[A-Za-z0-9+/=]+)( .*)?"),
        "one line of a .pub file, of type ed25519 (best) or rsa: 'ssh-ed25519 AAAA... name'",
    ),
    "time_zone": (re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*"), "a zone such as UTC or Europe/Berlin"),
    "variable_name": (re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?"), "a variable name (a * at its end stands for the rest)"),
    "absolute_path": (re.compile(r"/[^\s]+"), "an absolute path such as /var/backups/slipway"),
    "bucket": (re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"), "a bucket's name: lower-case letters, digits, - and ."),
    "age_recipient": (
        re.compile(r"age1[02-9ac-hj-np-z]{58}"),
        "a public key of age: age1 and 58 letters (never AGE-SECRET-KEY, which stays with its owner)",
    ),
    "age_identity": (re.compile(r"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}"), "a secret key of age"),
    "https_url": (re.compile(r"https://[^\s/]+(/[^\s]*)?"), "an https:// address"),
    "origin": (re.compile(r"https?://[^\s/]+"), "an origin such as https://www.example.com, without a path"),
}


def _domain(value: str) -> str:
    if len(value) <= 253 and _DOMAIN.fullmatch(value):
        return ""
    if "://" in value or "/" in value:
        return "a bare domain: no https:// and no path"
    if value != value.lower():
        return f"a domain in lower case: '{value.lower()}'"
    return "a domain such as notes.example.com"


def _address(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return "an IP address or network such as 203.0.113.7 or 2001:db8::/64"
    return ""


_FORMS: dict[str, Callable[[str], str]] = {"domain": _domain, "address": _address}


def expected_form(form: str, value: str) -> str:
    """Why ``value`` is not of the named ``form``, as the noun phrase of what is expected; empty when it is."""
    if form in _FORMS:
        return _FORMS[form](value)
    pattern, expected = _PATTERNS[form]
    return "" if pattern.fullmatch(value) else expected


_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "text"),
    "integer": ((int,), "a whole number"),
    "number": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
    "list": ((list, tuple), "a list"),
    "mapping": ((dict, Mapping), "a mapping of keys to values"),
    "scalar": ((str, int, float, bool), "text or a number"),
}


def _type_name(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, str):
        return f"the text '{value}'" if len(value) <= 40 else "a text"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "a list" if isinstance(value, (list, tuple)) else "a mapping"


def check(value: Any, wanted: Field, path: Path, *, secret: bool = False) -> Iterator[Problem]:
    """Every problem of ``value`` against ``wanted``; ``path`` is where it stands. With ``secret`` the value is never quoted."""
    if value in wanted.literals and not isinstance(value, (list, dict)):
        return
    types, expected = _TYPES[wanted.kind]
    right = isinstance(value, types) and not (isinstance(value, bool) and wanted.kind in ("integer", "number"))
    if not right:
        literals = "".join(f", or '{literal}'" for literal in wanted.literals if literal not in ("", None))
        shown = "a value of another type" if secret else _type_name(value)
        hint = ""
        if wanted.kind in ("integer", "boolean") and isinstance(value, str) and not secret:
            hint = "take the quotes away if there are any"
        elif wanted.kind == "list" and isinstance(value, str):
            hint = f"write it as a list: [{value}]" if not secret else "write it as a list"
        elif wanted.kind == "string" and not isinstance(value, (dict, list)) and value is not None and not secret:
            hint = f'put it in quotes: "{value}"'
        yield Problem(f"found {shown}, expected {expected}{literals}", hint, path)
        return
    yield from _check_bounds(value, wanted, path, secret=secret)
    if wanted.kind == "list" and wanted.items:
        for index, item in enumerate(value):
            yield from check(item, wanted.items, (*path, index), secret=secret)
    if wanted.kind == "mapping":
        yield from _check_mapping(value, wanted, path, secret=secret)


def _check_bounds(value: Any, wanted: Field, path: Path, *, secret: bool) -> Iterator[Problem]:
    shown = "the value" if secret else f"'{value}'"
    if wanted.choices and value not in wanted.choices:
        near = closest(str(value), wanted.choices, cutoff=0.6)
        remedy = f"did you mean '{near}'?" if near else ""
        yield Problem(f"{shown} is none of {', '.join(wanted.choices)}", remedy, path)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if wanted.minimum is not None and value < wanted.minimum:
            yield Problem(f"{shown} is too small, expected at least {wanted.minimum:g}", "", path)
        if wanted.maximum is not None and value > wanted.maximum:
            yield Problem(f"{shown} is too large, expected at most {wanted.maximum:g}", "", path)
    if wanted.form and isinstance(value, str):
        expected = expected_form(wanted.form, value)
        if expected:
            yield Problem(f"{shown} is not right here, expected {expected}", "", path)


def _check_mapping(value: Mapping[Any, Any], wanted: Field, path: Path, *, secret: bool) -> Iterator[Problem]:
    if wanted.fields:
        for key, inner in value.items():
            if key in wanted.fields:
                yield from check(inner, wanted.fields[key], (*path, key), secret=secret)
            else:
                near = closest(str(key), wanted.fields)
                remedy = f"did you mean '{near}'?" if near else f"the keys here are: {', '.join(wanted.fields)}"
                yield Problem("unknown key", remedy, (*path, key))
        for key, inner_field in wanted.fields.items():
            if inner_field.required and key not in value:
                yield Problem(f"'{key}' is missing", f"add {key}: {inner_field.doc}", path)
    elif wanted.values:
        for key, inner in value.items():
            expected = expected_form(wanted.keys, str(key)) if wanted.keys else ""
            if expected:
                yield Problem(f"'{key}' is not a name that works here", f"use {expected}", (*path, key))
            yield from check(inner, wanted.values, (*path, key), secret=secret or wanted.secret)
