# SPDX-License-Identifier: Apache-2.0
"""New keys of age (X25519): a secret identity and the recipient that belongs to it, as ``age-keygen`` prints them.

Made on this computer, where age need not be installed. The format is BIP 173's bech32, as age's specification has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


@dataclass(frozen=True)
class AgeKey:
    """``identity`` opens what was encrypted to ``recipient``, and nobody but its owner may have it."""

    identity: str = field(repr=False)
    recipient: str


def new_key() -> AgeKey:
    """A fresh pair."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    secret = X25519PrivateKey.generate()
    return AgeKey(
        bech32("age-secret-key-", secret.private_bytes_raw()).upper(),
        bech32("age", secret.public_key().public_bytes_raw()),
    )


def bech32(prefix: str, data: bytes) -> str:
    """``data`` behind ``prefix`` and a 1, with a checksum of six letters."""
    number = int.from_bytes(data, "big") << (-8 * len(data) % 5)
    count = (8 * len(data) + 4) // 5
    words = [number >> 5 * (count - 1 - place) & 31 for place in range(count)]
    spread = [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]
    check = _polymod([*spread, *words, 0, 0, 0, 0, 0, 0]) ^ 1
    words += [check >> 5 * (5 - place) & 31 for place in range(6)]
    return f"{prefix}1{''.join(_LETTERS[word] for word in words)}"


def _polymod(words: list[int]) -> int:
    value = 1
    for word in words:
        top = value >> 25
        value = (value & 0x1FFFFFF) << 5 ^ word
        for bit, generator in enumerate(_GENERATOR):
            value ^= generator if top >> bit & 1 else 0
    return value
