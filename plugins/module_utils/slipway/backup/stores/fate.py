# SPDX-License-Identifier: Apache-2.0
"""What a failed request to a bucket means: whether to try again, whether it may have been done, and what to tell people."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from .store import AccessError, MissingError, StoreError, UncertainError

_AGAIN = {408, 429, 500, 502, 503, 504}
_AGAIN_CODES = {"BadDigest", "InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling"}
_REFUSED_CODES = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "Unauthorized"}


@dataclass(frozen=True)
class Fate:
    """What an exception of boto3 means. ``unsure``: the store may have done what was asked all the same."""

    code: str
    says: str
    again: bool
    unsure: bool
    status: int = 0
    asked: float = 0.0


def fate_of(error: Exception) -> Fate | None:
    """None for what is not the store's or the network's doing."""
    from botocore import exceptions as boto
    from urllib3 import exceptions as urllib3

    if isinstance(error, boto.ClientError):
        about = error.response.get("Error", {})
        meta = error.response.get("ResponseMetadata", {})
        code, status = str(about.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
        asked = str(meta.get("HTTPHeaders", {}).get("retry-after", ""))
        again = status in _AGAIN or code in _AGAIN_CODES
        says = f"{code} ({status}) {about.get('Message', '')}".strip()
        return Fate(code, says, again, status >= 500, status, float(asked) if asked.isdigit() else 0.0)
    if isinstance(error, (boto.ParamValidationError, boto.NoCredentialsError, boto.UnknownSignatureVersionError)):
        return None
    # The connection: refused, reset, too slow, cut, or gibberish. While a download streams, botocore leaves some as they are.
    if isinstance(error, (boto.BotoCoreError, urllib3.HTTPError, ssl.SSLError, ConnectionError, TimeoutError)):
        return Fate(type(error).__name__, str(error), again=True, unsure=True)
    return None


def explain(fate: Fate, what: str, attempts: int, *, unsure: bool) -> StoreError:
    """The error to raise for it. ``what``: in words; ``unsure``: whether any of the attempts may have been done all the same."""
    tries = f" after {attempts} attempts" if attempts > 1 else ""
    found = f"The store failed at {what}{tries}: {fate.says}"
    if fate.code == "RequestTimeTooSkewed":
        return StoreError(found, "this host's clock within 15 minutes of the right time", "see timedatectl")
    if fate.code in _REFUSED_CODES or fate.status in (401, 403):
        return AccessError(
            found, "a key that is valid and has this right", "see which capabilities the key was made with"
        )
    if fate.code in ("NoSuchKey", "NoSuchVersion", "404"):
        return MissingError(found, "the object to be there")
    if fate.code == "NoSuchBucket":
        return StoreError(
            found,
            "the name of the bucket as its provider shows it",
            "see slipway_backup_store, and whether somebody removed the bucket",
        )
    if unsure and what.startswith("completing"):
        return UncertainError(found, "an answer", "take the next backup: this one counts as not taken")
    return StoreError(found, "the store to answer")
