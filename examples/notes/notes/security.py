# SPDX-License-Identifier: Apache-2.0
"""Form tokens: a visitor's form is accepted only with the token signed for that visitor."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

_VISITOR = re.compile(r"[0-9a-f]{32}")


def new_visitor() -> str:
    """A fresh random visitor id for the cookie."""
    return secrets.token_hex(16)


def known_visitor(cookie: str | None) -> str | None:
    """The visitor id in a cookie, or None when it is absent or not one of ours."""
    return cookie if cookie and _VISITOR.fullmatch(cookie) else None


def form_token(secret_key: str, visitor: str) -> str:
    """The token a form must carry for this visitor (HMAC-SHA256, hexadecimal)."""
    return hmac.new(secret_key.encode(), f"form:{visitor}".encode(), hashlib.sha256).hexdigest()


def token_fits(secret_key: str, visitor: str | None, token: str) -> bool:
    """Whether the token was issued to this visitor; compared in constant time."""
    return visitor is not None and hmac.compare_digest(form_token(secret_key, visitor).encode(), token.encode())
