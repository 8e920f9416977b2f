# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses to canonical JSON and strictly back: the form in which manifests and evidence are kept.

Canonical: keys sorted, no spaces, UTF-8, no floating-point numbers, times in UTC with microseconds. The same value
therefore always gives the same bytes, which is what hashes are taken over. Strict: an unknown key, a missing one or a
wrong type is an error that names its place.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import SlipwayError

T = TypeVar("T")


class FormatError(SlipwayError):
    """Stored text is not what it should be: cut, altered, or written by another version."""


def canonical(value: Any) -> bytes:
    """``value`` (plain data or a dataclass) as canonical JSON. Raises TypeError for a float or an unknown type."""
    text = json.dumps(to_plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


def to_plain(value: Any) -> Any:
    """``value`` as JSON's own types: dataclasses and mappings as objects, tuples as lists, times as text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError(f"{value!r} has no timezone")
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: to_plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("canonical JSON has text keys only")
        return {key: to_plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(each) for each in value]
    raise TypeError(f"canonical JSON has no form for {type(value).__name__}")


def parse_json(text: bytes | str, what: str) -> Any:
    """JSON text as plain data; ``what`` names it in the error. Raises FormatError, also for a key that occurs twice."""
    try:
        return json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not whole JSON ({error})", "the file as it was written") from error


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def decode(kind: type[T], data: Any, where: str) -> T:
    """Plain data as the dataclass ``kind``. ``where`` starts every message. Raises FormatError."""
    found: T = _decode(kind, data, where)
    return found


def _decode(kind: Any, data: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if data is None:
            return None
        (inner,) = [each for each in get_args(kind) if each is not type(None)]
        return _decode(inner, data, where)
    if origin is tuple:
        (item, _ellipsis) = get_args(kind)
        _expect(data, list, where)
        return tuple(_decode(item, each, f"{where}[{place}]") for place, each in enumerate(data))
    if origin is not None and issubclass(origin, Mapping):
        _key, item = get_args(kind)
        _expect(data, dict, where)
        return {key: _decode(item, each, f"{where}.{key}") for key, each in data.items()}
    return _decode_plain(kind, data, where)


def _decode_plain(kind: Any, data: Any, where: str) -> Any:
    if is_dataclass(kind) and isinstance(kind, type):
        return _decode_class(kind, data, where)
    if kind is datetime:
        return _time(data, where)
    _expect(data, kind, where)
    return data


def _decode_class(kind: type, data: Any, where: str) -> Any:
    _expect(data, dict, where)
    known: dict[str, Field[Any]] = {each.name: each for each in fields(kind)}
    for key in data:
        if key not in known:
            raise FormatError(f"{where} has the unknown key '{key}'", f"only {', '.join(sorted(known))}", _NEWER)
    values = {}
    for name, each in known.items():
        if name in data:
            values[name] = _decode(_hints(kind)[name], data[name], f"{where}.{name}")
        elif each.default is MISSING and each.default_factory is MISSING:
            raise FormatError(f"{where} has no '{name}'", "the file as it was written")
    try:
        return kind(**values)
    except FormatError as error:  # a rule of the class itself: say where
        raise FormatError(f"{where}: {error.found}", error.expected, error.remedy) from None


_NEWER = "if a newer Slipway wrote it, read it with that version"
_NAMES = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}


def _expect(data: Any, kind: type, where: str) -> None:
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise FormatError(f"{where} is {_short(data)}", _NAMES.get(kind, kind.__name__))


def _time(data: Any, where: str) -> datetime:
    _expect(data, str, where)
    try:
        return datetime.strptime(data, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        raise FormatError(f"{where} is {_short(data)}", "a time such as 2026-01-31T12:00:00.000000Z") from None


def _short(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
