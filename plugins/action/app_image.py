# SPDX-License-Identifier: Apache-2.0
"""The controller's side of ``slipway.vps.app_image``: packs or builds here, sends, says how far it is."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.slipway.vps.plugins.action.app_wish import folder
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy import bundle
from ansible_collections.slipway.vps.plugins.module_utils.slipway.deploy.docker import ImageError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import SlipwayError

display = Display()
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64", "amd64": "amd64"}


class ActionModule(ActionBase):
    """Sends one archive."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _VALID_ARGS = frozenset({"app", "reference", "image"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fails with one message and the last lines of a failed build."""
        result = super().run(tmp, task_vars)
        arguments, variables = self._task.args, task_vars or {}
        if self._task.check_mode:
            return {**result, "changed": True, "msg": f"Would send the image {arguments['reference']}."}
        with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
            archive = Path(scratch) / "archive"
            try:
                self._make(archive, variables)
            except SlipwayError as error:
                return {**result, "failed": True, "msg": str(error)}
            return {**result, **self._send(archive, variables)}

    def _make(self, archive: Path, variables: Mapping[str, Any]) -> None:
        arguments = self._task.args
        image, reference = arguments["image"], arguments["reference"]
        if image["source"] == "build":
            bundle.pack(folder(image, variables), archive, str(image.get("dockerfile") or "Dockerfile"))
            return
        facts = (variables.get("ansible_facts") or {}).get("slipway_host") or {}
        wanted = ARCHITECTURES.get(str(facts.get("arch", "")), "")
        if image.get("path"):
            self._build(image, reference, folder(image, variables), wanted)
        else:
            _docker(["docker", "image", "tag", f"{image['name']}:{image.get('tag') or 'latest'}", reference])
        found = _docker(["docker", "image", "inspect", "--format", "{{.Architecture}}", reference]).strip()
        if wanted and found != wanted:
            raise ImageError(
                f"The image {reference} is made for {found}, the host is {wanted}", "",
                f"build it with --platform linux/{wanted}, or use image.source: build, which builds on the host",
            )  # fmt: skip
        _save(reference, archive)

    def _build(self, image: Mapping[str, Any], reference: str, place: Path, wanted: str) -> None:
        known = subprocess.run(["docker", "image", "inspect", reference], capture_output=True, check=False)
        if known.returncode == 0:
            return
        display.display(f"  {self._task.args['app']}: building {reference} on this computer")
        began = time.monotonic()
        context = Path(tempfile.mkdtemp(prefix="slipway-")) / "context"
        try:
            dockerfile = str(image.get("dockerfile") or "Dockerfile")
            bundle.pack(place, context, dockerfile)
            argv = ["docker", "build", "--tag", reference, "--file", dockerfile]
            if wanted and wanted != ARCHITECTURES.get(platform.machine(), wanted):
                argv += ["--platform", f"linux/{wanted}"]
            for key, value in sorted((image.get("build_args") or {}).items()):
                argv += ["--build-arg", f"{key}={value}"]
            if image.get("target"):
                argv += ["--target", str(image["target"])]
            _docker([*argv, "-"], context)
        finally:
            shutil.rmtree(context.parent, ignore_errors=True)
        display.display(f"  {self._task.args['app']}: built in {time.monotonic() - began:.0f} s")

    def _send(self, archive: Path, variables: dict[str, Any]) -> dict[str, Any]:
        arguments = {key: self._task.args[key] for key in ("app", "reference")}
        size = archive.stat().st_size / 1e6
        display.display(f"  {arguments['app']}: sending {size:.1f} MB")
        began = time.monotonic()
        place = self._make_tmp_path()
        try:
            remote = self._connection._shell.join_path(place, "archive")
            self._transfer_file(str(archive), remote)
            self._fixup_perms2((place, remote))
            done = self._execute_module("slipway.vps.app_image", {**arguments, "src": remote}, task_vars=variables)
        finally:
            self._remove_tmp_path(place)
        spent = max(time.monotonic() - began, 0.1)
        display.display(f"  {arguments['app']}: sent in {spent:.0f} s ({size / spent:.1f} MB/s)")
        done.pop("invocation", None)
        return done


def _docker(argv: list[str], stdin: Path | None = None) -> str:
    """Docker on this computer; its output. Raises ImageError with its last lines."""
    try:
        with (stdin or Path("/dev/null")).open("rb") as stream:
            done = subprocess.run(
                argv,
                stdin=stream,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
    except FileNotFoundError:
        raise ImageError(
            "There is no Docker on this computer, and image.source: ship needs it", "docker on the PATH",
            "install it, or use image.source: build, which builds on the host",
        ) from None  # fmt: skip
    if done.returncode:
        words = "\n  ".join(done.stdout.strip().splitlines()[-15:])
        raise ImageError(
            f"{' '.join(argv[:3])} failed on this computer:\n  {words}\n", "", "mend it and run the playbook again"
        )
    return done.stdout


def _save(reference: str, archive: Path) -> None:
    """Save an image, compressed by the quickest program that is there. Raises ImageError."""
    packer = ["zstd", "-q", "-3", "-T0"] if shutil.which("zstd") else ["gzip", "-1"]
    with (
        archive.open("wb") as target,
        subprocess.Popen(
            ["docker", "image", "save", reference], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as save,
        subprocess.Popen(packer, stdin=save.stdout, stdout=target) as pack,
    ):
        if save.stdout is not None:
            save.stdout.close()  # so that save hears of it when the packer dies
        packed, words = pack.wait(), save.stderr.read().decode("utf-8", "replace") if save.stderr else ""
        saved = save.wait()
    if saved or packed:
        raise ImageError(
            f"The image {reference} could not be saved on this computer: {words.strip() or packer[0] + ' failed'}"
        )
