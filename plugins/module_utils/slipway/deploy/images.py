# SPDX-License-Identifier: Apache-2.0
"""Where an app's image comes from: a registry, or an archive that the control node has sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from .. import lock
from ..errors import SlipwayError
from .docker import Docker, ImageError
from .releases import Store
from .spec import Image


def archive_name(reference: str) -> str:
    """The file name under which the archive for an image waits on the host."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in reference) + ".tar"


def bring(store: Store, docker: Docker, image: Image) -> str:
    """The id of the wished image, fetched, built or loaded. Waits for whoever is at it. Raises ImageError."""
    try:
        if image.source == "registry":
            docker.pull(image.reference)
        else:
            with lock.waited(store.home / "image.lock"):
                _take_in(store, docker, image)
    except ImageError:
        raise
    except SlipwayError as error:
        verb = {"registry": "pulled", "build": "built", "ship": "loaded"}[image.source]
        remedy = (
            "check its name and tag, and the registry's credentials (docker_registries)"
            if image.source == "registry" else "mend what the lines above say and deploy again"
        )  # fmt: skip
        raise ImageError(f"The image {image.reference} could not be {verb}: {error.found}", "", remedy) from error
    found = docker.image_id(image.reference)
    if found is None:
        raise ImageError(f"The image {image.reference} is not on the host", "it in the archive that was sent")
    return found


def _take_in(store: Store, docker: Docker, image: Image) -> None:
    """Load or build what was sent, unless the image is there already."""
    if docker.image_id(image.reference) is not None:
        return
    archive = store.incoming / archive_name(image.reference)
    if not archive.exists():
        raise ImageError(f"The image {image.reference} was not sent to the host", "", "run deploy.yml")
    if image.source == "build":
        docker.build(archive, image.reference, image.dockerfile, image.args, image.target)
    else:
        docker.load(archive)
    archive.unlink()


def bring_waiting(stores: Iterable[Store], docker: Docker, say: Callable[[str], None]) -> None:
    """Take in what was sent before Docker ran, so that the deploy finds it. What fails is left to the deploy to tell."""
    for store in stores:
        with suppress(SlipwayError):
            spec, _, _ = store.desired()
            if (store.incoming / archive_name(spec.image.reference)).exists():
                try:
                    bring(store, docker, spec.image)
                except ImageError as error:
                    say(f"{store.app}: {error}")
                else:
                    say(f"{store.app}: {spec.image.reference} is on the host")
