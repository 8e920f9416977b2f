# SPDX-License-Identifier: Apache-2.0
"""An app's specification and environment: what is taken, what is refused, and that both come back as they were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.deploy import spec as appspec
from slipway.deploy import wish as appwish
from slipway.errors import InputError, UnknownNameError

IMAGE = {"source": "registry", "reference": "r/notes:1"}
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))


def spec(**changes: Any) -> appspec.Spec:
    """A spec of app notes."""
    return appspec.parse({"name": "notes", "image": IMAGE, **changes})


@given(st.dictionaries(NAMES, VALUES))
def test_environment_comes_back_as_it_was(values: dict[str, str]) -> None:
    assert appspec.parse_environment(appspec.environment_text(values)) == values


def test_spec_comes_back_as_it_was() -> None:
    one = spec(
        release_command=["a", "b"], health={"path": "/x", "timeout": 5}, watch={"seconds": 0}, domains=["a.example"]
    )
    assert appspec.parse(json.loads(one.to_json())) == one


def test_numbers_may_come_as_text_as_templates_make_them() -> None:
    assert spec(memory_mb="256", drain_seconds="7").memory_mb == 256


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory_mbb": 1}, "did you mean|memory_mb instead"),
        ({"memory_mb": "lots"}, "memory_mb is 'lots'"),
        ({"memory_mb": True}, "memory_mb is True"),
        ({"read_only": "yes"}, "true or false"),
        ({"health": {"pth": "/"}}, "path instead"),
        ({"health": "up"}, "a mapping with path"),
        ({"health": {"path": "readyz"}}, "starts with /"),
        ({"release_command": "python -m x"}, r"write release_command: \[\.\.\.\]"),
        ({"name": "Notes!"}, "cannot be used"),
        ({"port": 70000}, "1 to 65535"),
        ({"drain_seconds": -1}, "negative"),
        ({"image": {"source": "ftp", "reference": "x"}}, "registry, build, ship"),
        ({"image": {"source": "build"}}, "lacks reference"),
    ],
)
def test_wrong_settings_are_refused_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises((InputError, UnknownNameError), match=words):
        spec(**changes)


def test_no_message_quotes_a_secret() -> None:
    with pytest.raises(InputError) as caught:
        appspec.environment_text({"KEY": ["planted-secret"]})
    assert "planted-secret" not in str(caught.value)


def test_a_variable_in_both_env_and_secrets_is_refused() -> None:
    image = appspec.Image("registry", "r/notes:1")
    with pytest.raises(InputError, match="KEY in env and in secrets"):
        appwish.wish({"name": "notes", "env": {"KEY": "1"}, "secrets": {"KEY": "2"}}, image, {}, {})


def test_the_hash_changes_with_setting_environment_and_image_and_with_nothing_else() -> None:
    def wish(**changes: Any) -> str:
        image = appspec.Image("registry", changes.pop("reference", "r/notes:1"))
        return appwish.wish(
            {"name": "notes", "env": {"A": "1", "B": "2"}, **changes}, image, {"memory_mb": 100}, {}
        ).hash

    same = wish()
    assert wish(env={"B": "2", "A": "1"}) == same
    assert wish(csp="default-src 'self'", database=True) == same
    assert len({same, wish(env={"A": "1"}), wish(memory_mb=200), wish(reference="r/notes:2")}) == 4


def test_defaults_stand_until_the_app_says_otherwise() -> None:
    image = appspec.Image("registry", "r/notes:1")
    defaults = {"memory_mb": 100, "watch": {"seconds": 900, "access_log": "/var/log/caddy/{name}.access.log"}}
    one = appwish.wish({"name": "notes", "memory_mb": "auto"}, image, defaults, {}).spec
    assert (one.memory_mb, one.watch.seconds, one.watch.access_log) == (100, 900, "/var/log/caddy/notes.access.log")
    assert appwish.wish({"name": "notes", "watch_seconds": 0}, image, defaults, {}).spec.watch.seconds == 0


def test_the_environment_file_is_secret_and_root_only() -> None:
    image = appspec.Image("registry", "r/notes:1")
    files = appwish.wish({"name": "notes", "secrets": {"K": "v"}}, image, {}, {}).files()
    env = next(file for file in files if file["path"].endswith("app.env"))
    assert (env["mode"], env["secret"]) == ("0600", True)
    assert next(file for file in files if file.get("state") == "directory")["mode"] == "0700"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"source": "registry", "name": "x"}, "needs a name and a tag"),
        ({"source": "build"}, "needs a folder"),
        ({"source": "ship"}, "a folder or a name"),
        ({"name": "x"}, "where its image comes from"),
        (None, "where its image comes from"),
    ],
)
def test_an_image_that_says_too_little_is_refused(image: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        appwish.source({"name": "notes", "image": image})


def test_an_image_by_digest_is_joined_with_an_at_sign() -> None:
    assert appwish.from_registry({"name": "r/notes", "tag": "sha256:abc"}).reference == "r/notes@sha256:abc"
    assert appwish.from_registry({"name": "r/notes", "tag": "1.4"}).reference == "r/notes:1.4"


def test_rollback_keeps_todays_port_and_network() -> None:
    old = spec(stable_port=18000, memory_mb=100)
    now = spec(stable_port=18010, memory_mb=200)
    merged, env = appspec.for_rollback(old, {"DATABASE_URL": "old", "A": "old"}, now, {"A": "new", "REDIS_URL": "now"})
    assert (merged.stable_port, merged.memory_mb) == (18010, 100)
    assert env == {"A": "old", "REDIS_URL": "now"}
