# SPDX-License-Identifier: Apache-2.0
"""A host's own key with a certificate that it signed itself, for TLS between hosts. Needs the program ``openssl``.

Whoever trusts such a certificate trusts this one key and nothing else: it is no authority (CA:FALSE), so its key cannot
vouch for another name. The key is made on the host and never leaves it; the certificate is public.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..commands import run

DAYS = 3650
RENEW_SECONDS = 30 * 86_400
"""A certificate that ends sooner than this is made anew."""


@dataclass(frozen=True)
class Certificate:
    """The wish: where key and certificate lie, whose they are, the subject's common name, names and addresses it stands for."""

    key: Path
    path: Path
    common_name: str
    names: tuple[str, ...] = ()
    owner: str = "root"
    group: str = "root"


def alternative(name: str) -> str:
    """A name or address as the extension subjectAltName writes it."""
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def argv(wish: Certificate, key: Path, path: Path) -> list[str]:
    """What makes both files in one go."""
    names = [f"subjectAltName={','.join(map(alternative, wish.names))}"] if wish.names else []
    extensions = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature",
                  "extendedKeyUsage=serverAuth,clientAuth", *names]  # fmt: skip
    return [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc",
        "-days", str(DAYS), "-subj", f"/CN={wish.common_name}",
        *(word for extension in extensions for word in ("-addext", extension)),
        "-keyout", str(key), "-out", str(path),
    ]  # fmt: skip


def parse(text: str) -> tuple[str, frozenset[str], str]:
    """Common name, alternative names (as :func:`alternative` writes them) and public key, from what ``openssl x509`` says."""
    name, names, key = "", set(), []
    inside = False
    for line in text.splitlines():
        word = line.strip()
        if word.startswith("-----"):
            inside = "BEGIN" in word
        elif inside:
            key.append(word)
        elif word.startswith("subject="):
            name = word.removeprefix("subject=").removeprefix("CN=")
        elif word.startswith(("DNS:", "IP Address:")):
            names = {alternative(each.strip().partition(":")[2]) for each in word.split(", ")}
    return name, frozenset(names), "".join(key)


def lacking(wish: Certificate) -> str:
    """Why key and certificate have to be made; empty where both are there and as wished."""
    for path in (wish.key, wish.path):
        if not path.exists():
            return f"there is no {path.name}"
    seen = run(["openssl", "x509", "-in", str(wish.path), "-noout", "-pubkey", "-subject", "-nameopt", "RFC2253",
                "-ext", "subjectAltName", "-checkend", str(RENEW_SECONDS)], check=False)  # fmt: skip
    name, names, public = parse(seen.stdout)
    if not public:
        return f"{wish.path.name} cannot be read"
    pair = run(["openssl", "pkey", "-in", str(wish.key), "-pubout"], check=False)
    if not pair.ok or parse(pair.stdout)[2] != public:
        return f"{wish.key.name} belongs to another certificate"
    if name != wish.common_name or not names >= set(map(alternative, wish.names)):
        return f"{wish.path.name} stands for {', '.join(sorted({name, *names}))}"
    return "" if seen.ok else f"{wish.path.name} ends within {RENEW_SECONDS // 86_400} days"


def converge(wish: Certificate, *, dry_run: bool = False) -> tuple[str, str]:
    """Make both where one is lacking; the reason (empty: nothing was done) and the certificate as PEM text.

    With ``dry_run`` the text of one that would be made is empty.
    """
    why = lacking(wish)
    if why and dry_run:
        return why, ""
    if why:
        _make(wish)
    return why, wish.path.read_text()


def _make(wish: Certificate) -> None:
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=wish.key.parent))  # mode 0700
    try:
        key, path = folder / "key", folder / "certificate"
        run(argv(wish, key, path))
        os.chmod(key, 0o600)
        os.chmod(path, 0o644)
        # The key lands first: killed in between, the two are no pair and are made anew.
        for source, target in ((key, wish.key), (path, wish.path)):
            shutil.chown(source, wish.owner, wish.group)
            with source.open("rb") as file:
                os.fsync(file.fileno())
            source.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
