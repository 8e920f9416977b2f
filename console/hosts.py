# SPDX-License-Identifier: Apache-2.0
"""The inventory as the console needs it: which hosts, how to reach them, which apps. Read by Ansible's own code."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.errors import InputError
from slipway.sizing.settings import own_figures

from .vault import VaultPasswordError, inventory_of, password_for

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_USER = "ops"
NOT_A_USERS = ("example", "lab")


@dataclass(frozen=True)
class Endpoint:
    """One host: where it is, who may log in (tried in order), and what OpenSSH was told about the connection."""

    name: str
    address: str
    port: int = 22
    users: tuple[str, ...] = (DEFAULT_USER,)
    keys: tuple[str, ...] = ()
    known_hosts: tuple[str, ...] = ()
    jump: str = ""
    ssh_args: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def ssh_argv(self, command: Sequence[str] = (), *, terminal: bool = False, user: str = "") -> list[str]:
        """The ``ssh`` command line of a person who goes there; ``command`` is quoted for the shell over there."""
        quiet = ["-o", "LogLevel=ERROR"] if command else []  # no banner among the lines of an answer
        argv = [
            "ssh",
            *self.ssh_args,
            *quiet,
            "-o",
            "PreferredAuthentications=publickey",
            "-p",
            str(self.port),
            "-l",
            user or self.users[0],
        ]
        for key in self.keys:
            argv += ["-i", key]
        if terminal:
            argv.append("-t")
        argv.append(self.address)
        return [*argv, shlex.join(command)] if command else argv


@dataclass(frozen=True)
class Fleet:
    """All hosts of one inventory and the apps that run there (as in ``slipway_apps``, templates rendered)."""

    inventory: Path
    environment: str
    hosts: tuple[Endpoint, ...]
    apps: tuple[Mapping[str, Any], ...]
    overrides: Mapping[str, Any]

    @property
    def domains(self) -> list[str]:
        """Every domain that an app answers on."""
        return [str(domain) for app in self.apps for domain in app.get("domains") or ()]

    def host(self, name: str = "", group: str = "") -> Endpoint:
        """The host of that name, or the only one (of a group). Raises InputError with the choices."""
        pool = [host for host in self.hosts if not group or group in host.groups] or list(self.hosts)
        if name:
            for host in self.hosts:
                if name in (host.name, host.address):
                    return host
            raise InputError(
                f"No host '{name}' in {self.inventory}", f"one of: {', '.join(host.name for host in self.hosts)}"
            )
        if len(pool) == 1:
            return pool[0]
        raise InputError(
            f"{len(pool)} hosts to choose from", "", f"name one of: {', '.join(host.name for host in pool)}"
        )

    def app(self, name: str = "") -> Mapping[str, Any]:
        """The app of that name, or the only one. Raises InputError with the choices."""
        names = [str(app["name"]) for app in self.apps]
        for app in self.apps:
            if app["name"] == name or (not name and len(names) == 1):
                return app
        found = f"No app '{name}' in {self.inventory}" if name else f"{len(names)} apps to choose from"
        raise InputError(found, "", f"name one of: {', '.join(names)}" if names else "list an app under slipway_apps")


def choose_inventory(given: str, inventories: Path | None = None) -> Path:
    """The inventory that was named, or SLIPWAY_INVENTORY, or the only one of the user's. Raises InputError."""
    folder = inventories or ROOT / "inventories"
    named = given or os.environ.get("SLIPWAY_INVENTORY", "")
    if named:
        for path in (Path(named).expanduser(), folder / named):
            if path.exists():
                return path
        raise InputError(
            f"There is no inventory {named}", "a folder such as inventories/production", "bin/fab init makes one"
        )
    own = (
        sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if folder.is_dir()
        else []
    )
    own = [path for path in own if path.name not in NOT_A_USERS]
    if len(own) == 1:
        return own[0]
    if not own:
        raise InputError("There is no inventory yet", "", "make one: bin/fab init")
    names = ", ".join(f"-i inventories/{path.name}" for path in own)
    raise InputError(f"There are {len(own)} inventories", "", f"name one: {names}")


def read_fleet(inventory: Path) -> Fleet:
    """Read an inventory through Ansible. Raises InputError where it cannot be read or has no host."""
    from ansible.errors import AnsibleError
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.parsing.vault import VaultSecret, VaultSecretsContext
    from ansible.vars.manager import VariableManager

    _load_plugins()
    loader = DataLoader()
    try:
        password = password_for(inventory_of(inventory))
        secrets = [("default", VaultSecret(password.encode()))]
        loader.set_vault_secrets(secrets)
        if VaultSecretsContext.current(optional=True) is None:
            VaultSecretsContext.initialize(VaultSecretsContext(secrets))
        manager = InventoryManager(loader=loader, sources=[str(inventory)])
        variables = VariableManager(loader=loader, inventory=manager)
        hosts = [
            _rendered(loader, variables.get_vars(host=host, include_hostvars=False)) for host in manager.get_hosts()
        ]
    except VaultPasswordError as error:
        raise InputError(str(error)) from None
    except AnsibleError as error:
        raise InputError(f"The inventory {inventory} cannot be read: {str(error).splitlines()[0]}") from None
    if not hosts:
        raise InputError(f"The inventory {inventory} has no host", "", "name one in hosts.yml")
    first = hosts[0]
    apps = first.get("slipway_apps")
    return Fleet(
        inventory,
        str(first.get("slipway_environment", "")),
        tuple(endpoint(view) for view in hosts),
        tuple(app for app in apps if isinstance(app, Mapping)) if isinstance(apps, list) else (),
        own_figures(first.get("postgres_settings") or {}, first.get("slipway_redis_memory_mb", "auto")),
    )


@functools.cache
def _load_plugins() -> None:
    """Let Ansible find this checkout's own plugins, as its command lines do; twice would be a warning."""
    from ansible.plugins.loader import init_plugin_loader

    init_plugin_loader([str(ROOT / "collections")])


CONNECTION = ("ansible_host", "ansible_port", "ansible_user", "ansible_ssh_private_key_file", "ansible_ssh_common_args")
WANTED = (*CONNECTION, "ansible_ssh_extra_args", "slipway_admin_user", "slipway_environment", "slipway_apps", "postgres_settings", "slipway_redis_memory_mb",
          "inventory_hostname", "group_names")  # fmt: skip


def _rendered(loader: Any, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables the console reads, templates rendered; of apps everything but their secrets."""
    from ansible.template import Templar

    templar = Templar(loader=loader, variables=dict(variables))
    view = {name: variables[name] for name in WANTED if name in variables}
    if isinstance(view.get("slipway_apps"), list):
        public = [dict(app) for app in view["slipway_apps"] if isinstance(app, Mapping)]
        view["slipway_apps"] = [{key: app[key] for key in app if key not in ("secrets", "env")} for app in public]
    return {name: templar.template(value) for name, value in view.items()}


def endpoint(variables: Mapping[str, Any]) -> Endpoint:
    """How to reach one host, from its Ansible variables."""
    name = str(variables["inventory_hostname"])
    words = [
        word
        for key in ("ansible_ssh_common_args", "ansible_ssh_extra_args")
        for word in shlex.split(str(variables.get(key) or ""))
    ]
    options = parse_options(words)
    admin = str(variables.get("slipway_admin_user") or DEFAULT_USER)
    # One more try at most, and only where the inventory says so: every failed login counts towards a ban.
    users = dict.fromkeys([admin, str(variables.get("ansible_user") or admin)])
    key = variables.get("ansible_ssh_private_key_file")
    keys = [str(Path(str(key)).expanduser())] if key else []
    keys += [str(Path(path).expanduser()) for path in options.get("identityfile", [])]
    known = [
        str(Path(path).expanduser()) for text in options.get("userknownhostsfile", []) for path in shlex.split(text)
    ]
    return Endpoint(
        name, str(variables.get("ansible_host") or name), int(variables.get("ansible_port") or 22), tuple(users),
        tuple(dict.fromkeys(keys)), tuple(known), (options.get("proxyjump") or [""])[0], tuple(words),
        tuple(variables.get("group_names") or ()),
    )  # fmt: skip


def parse_options(words: Sequence[str]) -> dict[str, list[str]]:
    """OpenSSH's ``-o Name=value``, ``-i file`` and ``-J host`` by option name in lower case."""
    found: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, joined = word[:2], word[2:]
        if flag not in ("-o", "-i", "-J"):
            continue
        value = joined or (rest.pop(0) if rest else "")
        if flag == "-o":
            name, _, value = value.replace(" ", "=", 1).partition("=") if "=" not in value else value.partition("=")
            found.setdefault(name.strip().lower(), []).append(value.strip().strip('"'))
        else:
            found.setdefault("identityfile" if flag == "-i" else "proxyjump", []).append(value)
    return found
