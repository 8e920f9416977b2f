# SPDX-License-Identifier: Apache-2.0
"""``fab init``: a few questions, then a whole inventory with its secrets."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from slipway.errors import InputError
from slipway.inventory.settings import TIERS

from . import new_inventory
from .answers import (
    DRILLS_MEANING,
    JUDGES,
    TIER_MEANING,
    Answers,
    Image,
    ask,
    exposed_port,
    find_keys,
    parse_image,
    read_key,
)

QUESTIONS = {
    "name": "Name of this environment",
    "host": "The server's IP address or name",
    "domain": "Domain the app answers on",
    "email": "Your e-mail address (for the certificate authority)",
    "app": "The app's name (and its database's)",
    "port": "Port it listens on in its container",
    "health": "Path that answers 2xx when it is healthy",
    "tier": "Recovery tier",
    "drills": "Where backups are proved by restoring them",
}


class Interview:
    """Takes each answer from the flags, else from the user, else from its default."""

    def __init__(self, given: Mapping[str, str], *, interactive: bool, checkout: Path) -> None:
        self.given = {key: value for key, value in given.items() if value}
        self.interactive = interactive
        self.checkout = checkout

    def require(self) -> None:
        """Without a terminal everything that has no default must be a flag. Raises InputError naming all that miss."""
        missing = [f"--{key}" for key in ("host", "domain", "email") if key not in self.given]
        if missing and not self.interactive:
            raise InputError(
                f"{', '.join(missing)} missing, and there is no terminal to ask on", "", "give them as flags"
            )

    def take(self, key: str, default: str = "", *, asked: bool = True) -> str:
        """One answer, judged. Raises InputError for a flag that is wrong."""
        judge = JUDGES[key]
        if key in self.given:
            try:
                return judge(self.given[key])
            except InputError as error:
                raise InputError(f"--{key}: {error.found}", error.expected, error.remedy) from None
        if self.interactive and asked:
            return ask(QUESTIONS[key], judge, default)
        return judge(default)

    def image(self) -> Image:
        """The app's image: a folder or name:tag."""
        source = self.given.get("source", "")
        example = str(self.checkout / "examples" / "notes")
        if "image" in self.given:
            return parse_image(self.given["image"], source)
        if not self.interactive:
            return parse_image(example, source)
        print("The app's image: a folder with a Dockerfile, or an image such as registry.example.com/notes:1.4.2")

        def judge(text: str) -> str:
            parse_image(text, source)
            return text

        shown = "examples/notes" if Path.cwd().resolve() == self.checkout.resolve() else example
        return parse_image(ask("Folder or image", judge, shown), source)

    def keys(self) -> tuple[str, ...]:
        """Public keys: the ones given, else chosen from those found on this computer."""
        if "key" in self.given:
            return tuple(read_key(part) for part in self.given["key"].split(",") if part)
        found = find_keys()
        if not found:
            raise InputError(
                "No SSH key that a hardened server takes was found in ~/.ssh or the agent",
                "an ed25519 or RSA key", "make one: ssh-keygen -t ed25519",
            )  # fmt: skip
        if len(found) == 1 or not self.interactive:
            print(f"SSH key that may log in: {found[0][0]}")
            return (found[0][1],)
        print("SSH keys that may log in:")
        for number, (place, line) in enumerate(found, 1):
            print(f"  {number}  {place}  {' '.join(line.split()[2:])}")

        def judge(text: str) -> str:
            numbers = text.replace(",", " ").split()
            if not all(part.isdigit() and 1 <= int(part) <= len(found) for part in numbers):
                raise InputError(f"'{text}' is not right here", f"numbers from 1 to {len(found)}, such as: 1 2")
            return " ".join(numbers)

        chosen = ask("Which ones", judge, "1").split()
        return tuple(found[int(part) - 1][1] for part in dict.fromkeys(chosen))


def interview(given: Mapping[str, str], inventories: Path, *, interactive: bool) -> Answers:
    """All answers. Raises InputError, and before the first question where the inventory exists already."""
    talk = Interview(given, interactive=interactive, checkout=inventories.parent)
    talk.require()
    name = talk.take("name", "production")
    new_inventory.refuse_existing(inventories / name)
    host = talk.take("host")
    domain = talk.take("domain")
    email = talk.take("email")
    image = talk.image()
    example = new_inventory.is_example(image)
    app = talk.take("app", "notes" if example else "app")
    port = talk.take("port", exposed_port(image), asked=not example)
    health = talk.take("health", "/readyz" if example else "/healthz", asked=not example)
    if interactive and "tier" not in given:
        print("How soon must you be back after a loss, and how much data may be gone?")
        for tier in TIERS:
            print(f"  {tier:<11} {TIER_MEANING[tier]}")
    tier = talk.take("tier", "startup")
    if interactive and "drills" not in given:
        print("Backups are taken from the first day on. Where shall drills restore them, to prove them?")
        for place, meaning in DRILLS_MEANING.items():
            print(f"  {place:<11} {meaning}")
    drills = talk.take("drills", "here")
    environment = talk.take("environment", "staging" if "staging" in name else "production", asked=False)
    return Answers(name, environment, host, domain, email, app, image, int(port), health, tier, talk.keys(), drills)


def run(given: Mapping[str, str], inventories: Path, *, interactive: bool | None = None) -> Path:
    """Ask, write, and say what comes next. Returns the new inventory's folder."""
    on_terminal = sys.stdin.isatty() if interactive is None else interactive
    answers = interview(given, inventories, interactive=on_terminal)
    target, secret_file = new_inventory.write(answers, inventories)
    folder = f"inventories/{answers.name}"
    home = str(Path.home())
    place = str(secret_file).replace(home, "~", 1) if str(secret_file).startswith(home) else str(secret_file)
    print(f"""
Written: {folder}/
  hosts.yml                    the server
  group_vars/all/main.yml      settings
  group_vars/all/apps.yml      the app
  group_vars/all/backups.yml   who can read the backups, where they go
  group_vars/all/vault.yml     its secrets, random and encrypted
  {new_inventory.RECOVERY}             your own key to the backups

{new_inventory.RECOVERY} opens every backup and is on no server. MOVE IT OFF this computer now (a password manager, paper, a
  stick in a drawer): if the servers and this computer are lost, it is what brings the data back.

Vault password: {place}
  Ansible finds it by itself. Keep a copy somewhere else (a password manager): without it the secrets are lost.

Next:
  1. Point {answers.domain} to {answers.host} (a DNS record of type {"AAAA" if ":" in answers.host else "A"}).
  2. ansible-playbook -i {folder} playbooks/site.yml
  3. fab status -i {folder}""")
    return target
