# SPDX-License-Identifier: Apache-2.0
"""From an app as a playbook gives it to the files that the deploy engine reads, and to the decision what is to be done. Pure
up to :func:`decide`, which looks at the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InputError, SlipwayError
from . import compose
from . import spec as appspec
from .colours import Clock
from .docker import Docker
from .jobs import Jobs
from .releases import Store
from .spec import Image, Spec

FOREIGN = frozenset(
    {"port_base", "state", "database", "extensions", "csp", "headers", "cors_origins"}
    | {"rate_limit", "body_limit", "redirects", "caddy_snippet"}
)
"""Keys of an app that are other roles' business."""
OWN = ("env", "secrets", "image", "watch", "watch_seconds")
SOURCES = ("registry", "build", "ship")


@dataclass(frozen=True)
class Wish:
    """One app's files and what identifies them."""

    spec: Spec
    spec_text: str
    env_text: str
    hash: str

    def files(self, folder: str = "/etc/slipway/apps") -> list[dict[str, Any]]:
        """In the shape that ``managed_files`` takes."""
        home = f"{folder}/{self.spec.name}"
        return [
            {"path": home, "state": "directory", "mode": "0700"},
            {"path": f"{home}/app.json", "content": self.spec_text, "mode": "0600"},
            {"path": f"{home}/app.env", "content": self.env_text, "mode": "0600", "secret": True},
        ]


def wish(app: Mapping[str, Any], image: Image, defaults: Mapping[str, Any], network: Mapping[str, Any]) -> Wish:
    """An app's wish. ``defaults`` holds spec keys, with ``watch`` among them and ``{name}`` in its ``access_log``.

    Raises InputError or UnknownNameError, naming app and key; never quotes a secret.
    """
    name = str(app.get("name", ""))
    own = {key: value for key, value in app.items() if key not in (*FOREIGN, *OWN) and value not in (None, "auto")}
    watch = {**(defaults.get("watch") or {}), **(app.get("watch") or {})}
    if app.get("watch_seconds") is not None:
        watch["seconds"] = app["watch_seconds"]
    if watch.get("access_log"):
        watch["access_log"] = str(watch["access_log"]).replace("{name}", name)
    rest = {key: value for key, value in defaults.items() if key != "watch"}
    spec = appspec.parse(
        {**rest, **own, "watch": watch, "network": dict(network), "image": vars(image) | {"args": dict(image.args)}}
    )
    env, secrets = app.get("env") or {}, app.get("secrets") or {}
    both = sorted(set(env) & set(secrets))
    if both:
        raise InputError(
            f"App {name} has {', '.join(both)} in env and in secrets", "each variable once", "remove one of them"
        )
    env_text = appspec.environment_text({**env, **secrets}, name)
    spec_text = spec.to_json()
    return Wish(spec, spec_text, env_text, appspec.digest(spec_text, env_text))


def source(app: Mapping[str, Any]) -> Mapping[str, Any]:
    """An app's ``image`` as checked. Raises InputError."""
    name, image = app.get("name"), app.get("image")
    if not isinstance(image, Mapping) or image.get("source") not in SOURCES:
        raise InputError(f"App {name} does not say where its image comes from", f"image.source: {', '.join(SOURCES)}")
    kind = image["source"]
    if kind == "registry" and not (image.get("name") and image.get("tag")):
        raise InputError(f"App {name}: an image from a registry needs a name and a tag", "image.name and image.tag")
    if kind == "build" and not image.get("path"):
        raise InputError(f"App {name}: an image that is built needs a folder", "image.path")
    if kind == "ship" and not image.get("path") and not image.get("name"):
        raise InputError(
            f"App {name}: an image that is shipped needs a folder or a name", "image.path, or image.name and tag"
        )
    return image


def from_registry(image: Mapping[str, Any]) -> Image:
    """The image of a registry: by tag, or by digest where the tag is one."""
    name, tag = str(image["name"]), str(image["tag"])
    joint = "@" if tag.startswith("sha256:") else ":"
    return Image("registry", f"{name}{joint}{tag}", tag.removeprefix("sha256:")[:12] if joint == "@" else tag)


def from_folder(app: str, image: Mapping[str, Any], digest: str) -> Image:
    """The image of a folder, named after the folder's content, so that a changed folder is another image."""
    kind: Literal["build", "ship"] = "build" if image["source"] == "build" else "ship"
    args = {str(key): str(value) for key, value in (image.get("build_args") or {}).items()}
    return Image(
        kind, f"slipway/{app}:src-{digest[:12]}", digest[:8], str(image.get("dockerfile") or "Dockerfile"), args,
        str(image.get("target") or ""),
    )  # fmt: skip


def from_laptop(app: str, image: Mapping[str, Any], image_id: str) -> Image:
    """An image that is on the control node already, named after its id."""
    short = image_id.removeprefix("sha256:")[:12]
    return Image("ship", f"slipway/{app}:img-{short}", str(image.get("tag") or short[:8]))


# -- on the host ----------------------------------------------------------------------------------------------------


def decide(store: Store, docker: Docker, *, wish: str, reference: str, source: str, stable_port: int) -> dict[str, Any]:
    """What is to be done for one app: plain data with ``deploy``, ``why``, ``held``, ``image_present`` and ``problem``."""
    state = store.load()
    result: dict[str, Any] = {
        "app": store.app, "release": state.current.release if state.current else None, "deploy": False, "why": "",
        "held": "", "problem": _port_problem(store, stable_port), "image_present": source == "registry",
    }  # fmt: skip
    try:
        if source != "registry":
            result["image_present"] = docker.image_id(reference) is not None
        result.update(_decision(store, docker, wish))
    except SlipwayError:  # no Docker here yet (check mode on a bare host): nothing runs
        result.update(deploy=True, why="Docker does not run here yet")
    return result


def _decision(store: Store, docker: Docker, wish: str) -> dict[str, Any]:
    state = store.load()
    if state.deploy is not None and not state.deploy.over:
        return {"deploy": True, "why": "a deploy is not finished"}
    if state.current is None:
        return {"deploy": True, "why": "nothing serves yet"}
    if store.get(state.current.release).spec_hash != wish:
        if state.held.get("spec_hash") == wish:
            return {"held": f"{state.held['release']}: {state.held['why']}"}
        return {"deploy": True, "why": "its image or settings changed"}
    found = docker.inspect(compose.container(store.app, state.current.colour))
    spec, _ = store.content(state.current.release)
    lacking = ""
    if found is None or not (found.running or found.restarting):
        lacking = "its container"
    elif Jobs(store.app, docker, Clock()).missing(spec, state.current.release, state.current.colour):
        lacking = "a background container of it"
    return {"deploy": True, "why": f"{lacking} does not run"} if lacking else {}


def _port_problem(store: Store, stable_port: int) -> str:
    """The stable port is where the proxy's configuration and the switch meet: moving it under traffic mixes up apps."""
    for state in store.neighbours():
        try:
            route = Store(state.app, store.wishes, store.states).route(state)
        except SlipwayError:
            continue
        if route is None:
            continue
        if state.app == store.app and route.stable_port != stable_port:
            return (
                f"App {store.app} has the stable port {route.stable_port} on this host, now it would get {stable_port}: its "
                f"place in slipway_apps has changed. To mend it: give it port_base: {route.stable_port}, or put the apps back "
                "in their old order and add new ones at the end."
            )
        if state.app != store.app and route.stable_port == stable_port:
            return (
                f"App {store.app} would get the stable port {stable_port}, which {state.app} still has on this host. To mend "
                f"it: keep {state.app} in slipway_apps with state: absent until it is gone, or give {store.app} a port_base."
            )
    return ""
