# SPDX-License-Identifier: Apache-2.0
"""Images that were sent to a host: taken in once, by the deploy or before it."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import pytest
from slipway.commands import CommandError
from slipway.deploy import images
from slipway.deploy.docker import ImageError
from slipway.deploy.releases import Store
from slipway.deploy.spec import Image

SHIPPED = Image("ship", "slipway/notes:src-1")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An app whose image was sent."""
    made = Store("notes", tmp_path / "wishes", tmp_path / "states")
    made.incoming.mkdir(parents=True)
    (made.incoming / images.archive_name(SHIPPED.reference)).write_bytes(b"an image")
    monkeypatch.setattr(Store, "desired", lambda _self: (MagicMock(image=SHIPPED), {}, "wish"))
    return made


def docker(*, fails: bool = False) -> MagicMock:
    """A Docker that has no image until one was loaded."""
    engine = MagicMock()
    engine.image_id.return_value = None

    def load(_archive: Path) -> None:
        if fails:
            raise CommandError("docker load ended with code 1: no space left on device")
        engine.image_id.return_value = "sha256:1"

    engine.load.side_effect = load
    return engine


def test_an_image_sent_before_docker_ran_is_loaded_once(store: Store) -> None:
    engine, said = docker(), []
    images.bring_waiting([store], engine, said.append)
    assert said == ["notes: slipway/notes:src-1 is on the host"]
    assert images.bring(store, engine, SHIPPED) == "sha256:1"
    images.bring_waiting([store], engine, said.append)
    assert engine.load.call_count == 1
    assert not list(store.incoming.iterdir())


def test_what_fails_ahead_is_tried_and_told_by_the_deploy(store: Store) -> None:
    said: list[str] = []
    images.bring_waiting([store], docker(fails=True), said.append)
    assert "could not be loaded: docker load ended with code 1: no space left" in said[0]
    assert images.bring(store, docker(), SHIPPED) == "sha256:1"


def test_an_app_whose_wish_cannot_be_read_holds_up_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    wish, unreadable = Store.desired, Store("other", store.wishes, store.states)
    monkeypatch.setattr(Store, "desired", lambda self: _refuse() if self is unreadable else wish(self))
    engine = docker()
    images.bring_waiting([unreadable, store], engine, lambda _text: None)
    assert engine.load.call_count == 1


def test_an_image_that_never_came_says_what_to_run(store: Store) -> None:
    (store.incoming / images.archive_name(SHIPPED.reference)).unlink()
    with pytest.raises(ImageError, match=r"was not sent to the host.*run deploy\.yml"):
        images.bring(store, docker(), SHIPPED)


def _refuse() -> None:
    raise CommandError("the wish cannot be read")
