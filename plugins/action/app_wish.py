# SPDX-License-Identifier: Apache-2.0
"""The controller's side of ``slipway.vps.app_wish``: secrets go to the host inside a module's input and into no result."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy import bundle
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy import wish as appwish
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy.spec import Image
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import InputError, SlipwayError
from ansible_collections.slipway.vps.plugins.plugin_utils.swift import SwiftAction


def folder(image: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Path:
    """The folder that an image is built from; a relative one is relative to the inventory."""
    path = Path(str(image["path"])).expanduser()
    return path if path.is_absolute() else (Path(str(task_vars.get("inventory_dir") or ".")) / path).resolve()


def local_image(app: str, image: Mapping[str, Any]) -> str:
    """The id of an image on this computer. Raises InputError when it is not there."""
    reference = f"{image['name']}:{image.get('tag') or 'latest'}"
    try:
        done = subprocess.run(
            ["docker", "image", "inspect", "--format", "{{.Id}}", reference],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise InputError(
            f"App {app} ships the image {reference} from this computer, but there is no Docker on it",
            "docker on the PATH", "install it, or use image.source: build, which needs none here",
        ) from None  # fmt: skip
    if done.returncode:
        raise InputError(
            f"App {app} ships the image {reference}, which is not on this computer",
            "",
            f"build it: docker build -t {reference} .",
        )
    return done.stdout.strip()


class ActionModule(SwiftAction):
    """Local work first, then one look at the host, then one write."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset({"apps", "defaults", "network", "tag"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fails with one message; no secret in it."""
        result = super().run(tmp, task_vars)
        arguments = self._task.args
        variables = task_vars or {}
        try:
            wishes = [
                appwish.wish(
                    app, self._image(app, variables), arguments.get("defaults") or {}, arguments.get("network") or {}
                )
                for app in arguments["apps"]
                if app.get("state", "present") == "present"
            ]
        except SlipwayError as error:
            return {**result, "failed": True, "msg": str(error)}
        wanted = [
            {"name": wish.spec.name, "wish": wish.hash, "reference": wish.spec.image.reference,
             "source": wish.spec.image.source, "stable_port": wish.spec.stable_port}
            for wish in wishes
        ]  # fmt: skip
        look = self._execute_module("slipway.vps.app_info", {"apps": wanted}, task_vars=variables)
        if look.get("failed") or look.get("unreachable"):
            return {**result, **_bare(look)}
        problems = [one["problem"] for one in look["apps"] if one["problem"]]
        if problems:
            return {**result, "failed": True, "msg": "\n".join(problems)}
        done: dict[str, Any] = {"changed": False}
        if wishes:
            files = [file for wish in wishes for file in wish.files()]
            done = self._execute_module("slipway.vps.managed_files", {"files": files}, task_vars=variables)
        apps = [
            {**found, "wish": want["wish"], "reference": want["reference"], "source": want["source"]}
            for found, want in zip(look["apps"], wanted, strict=True)
        ]
        gone = [str(app["name"]) for app in arguments["apps"] if app.get("state", "present") == "absent"]
        return {**result, **_bare(done), "apps": apps, "absent": [name for name in gone if name in look["present"]]}

    def _image(self, app: Mapping[str, Any], variables: Mapping[str, Any]) -> Image:
        image, name = dict(appwish.source(app)), str(app.get("name"))
        if self._task.args.get("tag") and image["source"] != "build" and not image.get("path"):
            image["tag"] = self._task.args["tag"]
        if image["source"] == "registry":
            return appwish.from_registry(image)
        if image.get("path"):
            args = {str(key): str(value) for key, value in (image.get("build_args") or {}).items()}
            place = folder(image, variables)
            dockerfile = str(image.get("dockerfile") or "Dockerfile")
            digest = bundle.digest(place, dockerfile, args, str(image.get("target") or ""))
            return appwish.from_folder(name, image, digest)
        return appwish.from_laptop(name, image, local_image(name, image))


def _bare(result: dict[str, Any]) -> dict[str, Any]:
    """A module's result without its input, which holds secrets."""
    return {key: value for key, value in result.items() if key != "invocation"}
