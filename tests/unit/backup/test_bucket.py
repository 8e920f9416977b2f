# SPDX-License-Identifier: Apache-2.0
"""The settings of the bucket: what is told apart, what is set, and what is left alone."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from slipway.backup.stores import bucket
from slipway.backup.stores.bucket import Wish
from slipway.backup.stores.retry import Retry
from slipway.backup.stores.s3 import Bucket, S3Store
from slipway.backup.stores.store import StoreError
from slipway.errors import InputError

OTHERS = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 7}}


class Client:
    """boto3's words for a bucket's settings, over plain attributes."""

    def __init__(self, *, lockable: bool = True, forgetful: bool = False, refuse: str = "") -> None:
        self.versioning, self.lock, self.rules = "", {}, list[dict[str, Any]]()
        self.lockable, self.forgetful, self.refuse = lockable, forgetful, refuse
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("put_", "delete_")):
            self.calls.append(name)
            if name == self.refuse:
                return lambda **_given: _raise("NotImplemented", 501)
        return super().__getattribute__(name)

    def get_bucket_versioning(self, **_: Any) -> Any:
        return {"Status": self.versioning} if self.versioning else {}

    def get_object_lock_configuration(self, **_: Any) -> Any:
        return (
            {"ObjectLockConfiguration": self.lock} if self.lock else _raise("ObjectLockConfigurationNotFoundError", 404)
        )

    def get_bucket_lifecycle_configuration(self, **_: Any) -> Any:
        return {"Rules": self.rules} if self.rules else _raise("NoSuchLifecycleConfiguration", 404)

    def put_bucket_versioning(self, **given: Any) -> Any:
        self.versioning = given["VersioningConfiguration"]["Status"]

    def put_object_lock_configuration(self, **given: Any) -> Any:
        if not self.lockable:
            _raise("InvalidBucketState", 409)
        self.lock = given["ObjectLockConfiguration"]

    def put_bucket_lifecycle_configuration(self, **given: Any) -> Any:
        # as B2 does: each action a rule of its own, and the names are its own
        self.rules = [] if self.forgetful else [
            {**{k: v for k, v in rule.items() if k in ("Status", "Filter")}, "ID": f"b2-{n}", action: rule[action]}
            for n, rule in enumerate(given["LifecycleConfiguration"]["Rules"])
            for action in rule if action not in ("ID", "Status", "Filter")
        ]  # fmt: skip

    def delete_bucket_lifecycle(self, **_: Any) -> Any:
        self.rules = []


def _raise(code: str, status: int) -> Any:
    raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "any")  # type: ignore[typeddict-item]


def store(client: Client) -> S3Store:
    return S3Store(Bucket("b", "https://x.test", "r", "k", "s"), retry=Retry(1), client=client)


def test_a_new_bucket_gets_everything_and_a_second_run_sets_nothing() -> None:
    client = Client()
    wish = Wish(True, "GOVERNANCE", 14, abort_days=3, hidden_days=30)
    before, after = bucket.converge(store(client), wish)
    assert before != after
    assert client.calls == [
        "put_bucket_versioning",
        "put_object_lock_configuration",
        "put_bucket_lifecycle_configuration",
    ]
    assert bucket.look(store(client)).shown() == after.shown()
    client.calls.clear()
    again = bucket.converge(store(client), wish)
    assert again == (after, after)
    assert client.calls == []


def test_a_dry_run_says_the_same_and_sets_nothing() -> None:
    client = Client()
    dry = bucket.converge(store(client), Wish(), dry_run=True)
    assert client.calls == []
    assert dry == bucket.converge(store(client), Wish())


def test_rules_of_others_stay_whatever_is_set() -> None:
    client = Client()
    client.rules = [OTHERS]
    bucket.converge(store(client), Wish(abort_days=5))
    bucket.converge(store(client), Wish(abort_days=0))
    assert [rule["Filter"]["Prefix"] for rule in client.rules] == ["logs/"]


def test_no_rule_left_removes_the_lifecycle() -> None:
    client = Client()
    bucket.converge(store(client), Wish(abort_days=3))
    bucket.converge(store(client), Wish(abort_days=0))
    assert client.rules == []
    assert client.calls[-1] == "delete_bucket_lifecycle"


@pytest.mark.parametrize(
    ("rule", "locked", "said"),
    [
        (OTHERS, True, "hides or removes what is current below logs/"),
        ({**OTHERS, "Status": "Disabled"}, True, ""),
        ({**OTHERS, "Filter": {"Prefix": ""}}, True, "hides or removes what is current"),
        ({"Status": "Enabled", "Prefix": "db1/", "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}, False, "no Object Lock"),
        ({"Status": "Enabled", "Prefix": "db1/", "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}, True, ""),
        ({"Status": "Enabled", "Prefix": "", "Expiration": {"ExpiredObjectDeleteMarker": True}}, False, ""),
    ],
)  # fmt: skip
def test_a_rule_that_makes_away_with_backups_is_named(rule: dict[str, Any], locked: bool, said: str) -> None:
    client = Client()
    client.rules, client.lock = [rule], {"ObjectLockEnabled": "Enabled"} if locked else {}
    found = "; ".join(bucket.dangers(bucket.look(store(client))))
    assert said in found
    assert bool(found) == bool(said)


def test_a_bucket_made_without_object_lock_is_told_apart_from_a_failure() -> None:
    with pytest.raises(StoreError, match=r"made without Object Lock(.|\n)*docs/backblaze_b2.md"):
        bucket.converge(store(Client(lockable=False)), Wish(object_lock=True))


def test_a_lock_that_is_on_is_left_on() -> None:
    client = Client()
    client.lock, client.versioning = {"ObjectLockEnabled": "Enabled"}, "Enabled"
    before, after = bucket.converge(store(client), Wish(object_lock=False, abort_days=0))
    assert before == after
    assert after.object_lock


@pytest.mark.parametrize("operation", ["put_bucket_versioning", "put_bucket_lifecycle_configuration"])
def test_a_server_that_cannot_be_told_by_the_api_is_said_to_be_one(operation: str) -> None:
    with pytest.raises(StoreError, match=r"does not let anybody(.|\n)*console"):
        bucket.converge(store(Client(refuse=operation)), Wish())


def test_a_server_that_takes_a_setting_and_forgets_it_is_not_believed() -> None:
    with pytest.raises(StoreError, match="did not take what was set"):
        bucket.converge(store(Client(forgetful=True)), Wish())


@pytest.mark.parametrize(
    "given",
    [
        {"default_mode": "GOVERNANCE"},
        {"default_days": 3},
        {"default_mode": "SOMETIMES", "default_days": 3},
        {"object_lock": False, "default_mode": "GOVERNANCE", "default_days": 3},
        {"abort_days": -1},
        {"object_lock": False, "hidden_days": 30},
    ],
)
def test_wishes_that_contradict_themselves_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Wish(**given)


def test_years_count_as_days() -> None:
    client = Client()
    client.lock = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Years": 1}}}
    assert bucket.look(store(client)).default_days == 365
