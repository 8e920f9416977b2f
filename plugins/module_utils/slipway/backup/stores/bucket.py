# SPDX-License-Identifier: Apache-2.0
"""The bucket that backups lie in: what is set on it, what should be, and the way from one to the other.

Done with an owner's key, from the control node, and never on a server. Rules of the lifecycle are told apart by what they
do, not by their names: B2 keeps no names. Rules that are not ours stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import InputError
from .s3 import S3Store
from .store import StoreError

_ABORT, _HIDDEN, _EXPIRE = "AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration", "Expiration"
_ABSENT = ("ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "NoSuchLifecycleConfiguration")
_UNKNOWN = ("NotImplemented", "MethodNotAllowed")


@dataclass(frozen=True)
class Wish:
    """How a bucket should be. ``default_mode``/``default_days``: the lock of what is written without one; empty for none.

    ``abort_days``: unfinished uploads go after that; ``hidden_days``: versions that are hidden or written over go after
    that. 0 for either: no such rule. A rule for hidden versions asks for Object Lock: whoever may write may hide.
    """

    object_lock: bool = True
    default_mode: str = ""
    default_days: int = 0
    abort_days: int = 3
    hidden_days: int = 0

    def __post_init__(self) -> None:
        if self.default_mode not in ("", "GOVERNANCE", "COMPLIANCE") or bool(self.default_mode) != (
            self.default_days > 0
        ):
            raise InputError("the default lock is half set", "GOVERNANCE or COMPLIANCE with days, or neither")
        if self.default_mode and not self.object_lock:
            raise InputError("a default lock is set for a bucket without Object Lock", "object_lock: true with it")
        if min(self.abort_days, self.hidden_days) < 0:
            raise InputError("a rule of the lifecycle has fewer than 0 days", "days, or 0 for no such rule")
        if self.hidden_days and not self.object_lock:
            raise InputError(
                "hidden versions would go by themselves in a bucket without Object Lock",
                "Object Lock with it: a thief of the writer's key could hide every backup and wait",
                "leave hidden_days at 0, or switch Object Lock on",
            )  # fmt: skip


@dataclass(frozen=True)
class State:
    """How a bucket is. ``others``: rules of its lifecycle that are none of ours, as the server gave them."""

    versioning: bool
    object_lock: bool
    default_mode: str
    default_days: int
    abort_days: int
    hidden_days: int
    others: tuple[Mapping[str, Any], ...] = ()

    def shown(self) -> dict[str, Any]:
        """For a diff."""
        lock = f"{self.default_mode.lower()} {self.default_days} days" if self.default_mode else "none"
        return {
            "versioning": self.versioning,
            "object_lock": self.object_lock,
            "default_lock": lock,
            "abort_uploads_after_days": self.abort_days,
            "remove_hidden_after_days": self.hidden_days,
            "other_rules": len(self.others),
        }


def look(store: S3Store) -> State:
    """Ask the server. Raises StoreError (AccessError where the key is not the owner's)."""
    versioning = store.call("get_bucket_versioning", "reading whether versions are kept").get("Status") == "Enabled"
    absent: dict[str, Callable[[bool], Any]] = dict.fromkeys(_ABSENT, lambda _unsure: {})
    lock = store.call("get_object_lock_configuration", "reading Object Lock", absent).get("ObjectLockConfiguration", {})
    retention = lock.get("Rule", {}).get("DefaultRetention", {})
    rules = store.call("get_bucket_lifecycle_configuration", "reading the lifecycle", absent).get("Rules", ())
    days = {_ABORT: 0, _HIDDEN: 0}
    others = []
    for rule in rules:
        found = _ours(rule)
        if found is None:
            others.append(rule)
        else:
            days |= found
    return State(
        versioning, lock.get("ObjectLockEnabled") == "Enabled", str(retention.get("Mode", "")),
        int(retention.get("Days", 0)) or int(retention.get("Years", 0)) * 365, days[_ABORT], days[_HIDDEN], tuple(others),
    )  # fmt: skip


def _prefix(rule: Mapping[str, Any]) -> str | None:
    """The prefix a rule is for; None where it looks at more than that."""
    filtered = rule.get("Filter") or {}
    if set(filtered) - {"Prefix"}:
        return None
    return str(rule.get("Prefix") or filtered.get("Prefix") or "")


def _ours(rule: Mapping[str, Any]) -> dict[str, int] | None:
    """Days by action of a rule for the whole bucket that does nothing but what we set; None for any other."""
    if rule.get("Status") != "Enabled" or _prefix(rule) != "":
        return None
    doing = {name for name in rule if name not in ("ID", "Status", "Filter", "Prefix")}
    if not doing or doing - {_ABORT, _HIDDEN}:
        return None
    found = {}
    if _ABORT in doing:
        found[_ABORT] = int(rule[_ABORT].get("DaysAfterInitiation", 0))
    if _HIDDEN in doing:
        if set(rule[_HIDDEN]) - {"NoncurrentDays"}:
            return None
        found[_HIDDEN] = int(rule[_HIDDEN].get("NoncurrentDays", 0))
    return found


def dangers(state: State) -> list[str]:
    """What others have set on the bucket that would make away with backups."""
    found = []
    for rule in state.others:
        if rule.get("Status") != "Enabled":
            continue
        name, below = rule.get("ID") or "without a name", _prefix(rule)
        place = "" if not below else f" below {below}"
        if rule.get(_EXPIRE, {}).get("Days") or rule.get(_EXPIRE, {}).get("Date"):
            found.append(f"the lifecycle rule {name} hides or removes what is current{place}")
        if rule.get(_HIDDEN) and not state.object_lock:
            found.append(f"the lifecycle rule {name} removes hidden versions{place}, and there is no Object Lock")
    return found


def wanted(state: State, wish: Wish) -> State:
    """How the bucket should be, given how it is. A lock that is on stays on: nobody can take it off again."""
    return State(
        True, wish.object_lock or state.object_lock, wish.default_mode, wish.default_days, wish.abort_days,
        wish.hidden_days, state.others,
    )  # fmt: skip


def converge(store: S3Store, wish: Wish, *, dry_run: bool = False) -> tuple[State, State]:
    """Bring the bucket to ``wish``; before and after. With ``dry_run`` nothing is set.

    Raises StoreError; a server that cannot do one of these is told by what to do there by hand.
    """
    before = look(store)
    after = wanted(before, wish)
    if dry_run or before == after:
        return before, after
    if not before.versioning:
        store.call("put_bucket_versioning", "switching versions on", _by_hand("switch versions on"),
                   VersioningConfiguration={"Status": "Enabled"})  # fmt: skip
    locks = ("object_lock", "default_mode", "default_days")
    if after.object_lock and any(getattr(before, name) != getattr(after, name) for name in locks):
        _lock(store, after)
    if (before.abort_days, before.hidden_days) != (after.abort_days, after.hidden_days):
        _lifecycle(store, after)
    found = look(store)
    if replace(found, others=()) != replace(after, others=()):  # what others set comes back under other names at B2
        raise StoreError(
            f"The bucket {store.bucket} did not take what was set: it says {found.shown()}", f"{after.shown()}",
            "see with its provider whether it knows these settings",
        )  # fmt: skip
    return before, after


def _lock(store: S3Store, after: State) -> None:
    made: dict[str, Any] = {"ObjectLockEnabled": "Enabled"}
    if after.default_mode:
        made["Rule"] = {"DefaultRetention": {"Mode": after.default_mode, "Days": after.default_days}}
    codes = ("InvalidBucketState", "InvalidRequest", *_UNKNOWN)
    store.call(
        "put_object_lock_configuration", "switching Object Lock on", dict.fromkeys(codes, _too_late(store.bucket)),
        ObjectLockConfiguration=made,
    )  # fmt: skip


def _too_late(bucket: str) -> Any:
    def tell(_unsure: bool) -> None:
        raise StoreError(
            f"The bucket {bucket} was made without Object Lock, and its server does not add it later", "Object Lock",
            "make a new bucket with it (docs/backblaze_b2.md), or set object_lock: false and do without",
        )  # fmt: skip

    return tell


def _by_hand(what: str) -> dict[str, Any]:
    def tell(_unsure: bool) -> None:
        raise StoreError(f"This server does not let anybody {what} by the S3 API", "", "do it by its own console")

    return dict.fromkeys(_UNKNOWN, tell)


def _lifecycle(store: S3Store, after: State) -> None:
    rules: list[Any] = list(after.others)
    about = {"Filter": {"Prefix": ""}, "Status": "Enabled"}
    if after.abort_days:
        rules.append({"ID": "slipway-uploads", **about, _ABORT: {"DaysAfterInitiation": after.abort_days}})
    if after.hidden_days:
        rules.append({"ID": "slipway-hidden", **about, _HIDDEN: {"NoncurrentDays": after.hidden_days}})
    hand = _by_hand("set a lifecycle")
    if not rules:
        store.call("delete_bucket_lifecycle", "removing the lifecycle", hand)
        return
    store.call(
        "put_bucket_lifecycle_configuration", "setting the lifecycle", hand, LifecycleConfiguration={"Rules": rules}
    )
