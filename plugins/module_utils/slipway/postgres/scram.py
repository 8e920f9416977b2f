# SPDX-License-Identifier: Apache-2.0
"""SCRAM-SHA-256 verifiers as PostgreSQL keeps them in ``pg_authid.rolpassword``. Pure.

The server is handed the verifier, never the password: statements can end in logs and in pg_stat_statements.
Format and derivation: RFC 5802 and 7677, PostgreSQL's ``src/common/scram-common.c``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re

from ..errors import InputError

ITERATIONS = 4096
"""PostgreSQL's own default. Slipway's generated passwords are random, so more rounds would only cost CPU at login."""
SALT_BYTES = 16
LEAST_LENGTH = 12
_VERIFIER = re.compile(r"^SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)$")


def check_password(password: str, whose: str) -> str:
    """``password`` if it can be used for login; raises InputError, which never shows it.

    Printable ASCII alone: SASLprep leaves it as it is, and it can be quoted in a URL by every client.
    """
    if len(password) < LEAST_LENGTH:
        raise InputError(
            f"The password of {whose} has {len(password)} characters",
            f"at least {LEAST_LENGTH}",
            "generate one with 'openssl rand -hex 24' and put it into the vault",
        )
    if any(not 0x21 <= ord(char) <= 0x7E for char in password):
        raise InputError(
            f"The password of {whose} has a space, a control character or a character beyond ASCII",
            "printable ASCII without spaces",
            "generate one with 'openssl rand -hex 24' and put it into the vault",
        )
    return password


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """The verifier of ``password``; with no ``salt`` a fresh random one is taken."""
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    parts = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    encoded_salt, encoded_stored, encoded_server = parts
    return f"SCRAM-SHA-256${iterations}:{encoded_salt}${encoded_stored}:{encoded_server}"


def matches(password: str, stored: str | None) -> bool:
    """Whether ``stored`` is a verifier of ``password``; False for none, for md5 and for anything unreadable."""
    found = _VERIFIER.match(stored or "")
    if not found:
        return False
    try:
        salt = base64.b64decode(found[2], validate=True)
    except binascii.Error:
        return False
    return hmac.compare_digest(verifier(password, salt, int(found[1])), stored or "")
