#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the users and the buckets of the lab's S3 server, each time it starts with an empty store.

Runs on the S3 host. The keys are drawn once and stay in ``/etc/slipway-lab/s3.json``. What each may do stands for the
capabilities of a B2 key: ``writeFiles`` can write and *hide* (a delete by name), but not read, list or destroy.
"""

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

Key = dict[str, str]
KEYS = Path("/etc/slipway-lab/s3.json")
CA = "/etc/slipway-lab/pki/ca.pem"
ENDPOINT, REGION, BUCKET, PITR = "https://localhost", "lab", "backups", "pitr"
_READ = ["GetObject", "GetObjectVersion", "GetObjectRetention"]
_LIST = ["ListBucket", "ListBucketVersions", "ListBucketMultipartUploads"]
_WRITE = ["PutObject", "DeleteObject", "PutObjectRetention", "AbortMultipartUpload", "ListMultipartUploadParts"]
ON_OBJECTS = {
    "writer": _WRITE,
    "reader": _READ,
    "pruner": [*_READ, "DeleteObject", "DeleteObjectVersion", "AbortMultipartUpload"],
}
ON_BUCKET = {
    "reader": [*_LIST, "GetBucketVersioning", "GetBucketObjectLockConfiguration"],
    "pruner": [*_LIST, "GetBucketVersioning"],
}
EVIDENCE = "*/evidence/*"
USERS = ("owner", "writer", "reader", "pruner", "evidence", "pitr")


def allow(user: str, actions: list[str], resource: str, effect: str = "Allow") -> dict[str, Any]:
    """One statement of a policy."""
    return {
        "Effect": effect,
        "Principal": {"AWS": f"arn:aws:iam:::user/{user}"},
        "Action": [f"s3:{action}" for action in actions],
        "Resource": resource,
    }


def pitr_policy() -> dict[str, Any]:
    """Point-in-time recovery's own bucket: its key reads, writes and hides, and destroys no version."""
    bucket = f"arn:aws:s3:::{PITR}"
    statements = [
        allow("pitr", [*_READ, "PutObject", "DeleteObject", "AbortMultipartUpload"], f"{bucket}/*"),
        allow("pitr", [*_LIST, "GetBucketVersioning"], bucket),
        *(allow("owner", ["*"], each) for each in (bucket, f"{bucket}/*")),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def policy() -> dict[str, Any]:
    """What each key may do in the bucket; evidence is written below ``evidence/`` alone."""
    bucket = f"arn:aws:s3:::{BUCKET}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            *(allow(user, actions, f"{bucket}/*") for user, actions in ON_OBJECTS.items()),
            *(allow(user, actions, bucket) for user, actions in ON_BUCKET.items()),
            allow("evidence", _WRITE, f"{bucket}/{EVIDENCE}"),
            # Here an object belongs to who wrote it, who might read it, and the bucket's owner might not: at B2 neither is so.
            *(allow(user, [*_READ, "PutObjectAcl"], f"{bucket}/*", "Deny") for user in ("writer", "evidence")),
            # Whoever may set a lock may shorten one under GOVERNANCE here, unless told otherwise.
            *(
                allow(user, ["BypassGovernanceRetention"], f"{bucket}/*", "Deny")
                for user in ("writer", "reader", "pruner", "evidence")
            ),
            *(allow("owner", ["*"], each) for each in (bucket, f"{bucket}/*")),
        ],
    }


def draw() -> dict[str, Key]:
    """The keys as they were drawn at the first start."""
    if not KEYS.exists():
        users = {
            user: {"key_id": f"lab{user}{secrets.token_hex(6)}", "secret": secrets.token_urlsafe(30)} for user in USERS
        }
        text = json.dumps({"region": REGION, "bucket": BUCKET, "keys": users}, indent=2)
        with os.fdopen(os.open(KEYS, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(text)
    found: dict[str, Key] = json.loads(KEYS.read_text())["keys"]
    return found


def administrator() -> Key:
    """A key that may make users. Asked for before the gateway has made its pools, this fails."""
    argv = ["radosgw-admin", "-n", "client.rgw", "user", "create", "--uid=lab", "--display-name=lab", "--caps=users=*"]
    environment = {**os.environ, "CEPH_CONF": "/etc/slipway-lab/ceph.conf"}
    done = subprocess.run(argv, env=environment, capture_output=True, check=True, timeout=50)
    found: Key = json.loads(done.stdout)["keys"][0]
    return found


def make_user(admin: Key, user: str, key: Key) -> None:
    """By the gateway's own administration API: the secret never shows in an argument list."""
    import ssl

    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    names = {"uid": user, "display-name": user, "access-key": key["key_id"], "secret-key": key["secret"]}
    request = AWSRequest("PUT", f"{ENDPOINT}/admin/user?" + urllib.parse.urlencode(names))
    S3SigV4Auth(Credentials(admin["access_key"], admin["secret_key"]), "s3", REGION).add_auth(request)
    made = urllib.request.Request(request.url, method="PUT", headers=dict(request.headers))  # noqa: S310 - https
    context = ssl.create_default_context(cafile=CA)
    urllib.request.urlopen(made, timeout=20, context=context).close()  # noqa: S310 - the same


def wait() -> None:
    """Until the gateway listens."""
    import socket

    deadline = time.monotonic() + 50
    while True:
        try:
            socket.create_connection(("127.0.0.1", 443), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def main() -> None:
    """Keys, users, buckets, policies."""
    keys = draw()
    import boto3

    wait()
    admin = administrator()
    for user, key in keys.items():
        make_user(admin, user, key)
    owner = boto3.client(
        "s3", endpoint_url=ENDPOINT, region_name=REGION, verify=CA, aws_access_key_id=keys["owner"]["key_id"],
        aws_secret_access_key=keys["owner"]["secret"],
    )  # fmt: skip
    for bucket, rights in ((BUCKET, policy()), (PITR, pitr_policy())):
        owner.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        owner.put_bucket_policy(Bucket=bucket, Policy=json.dumps(rights))


if __name__ == "__main__":
    try:
        main()
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"lab-s3-keys: {error}")
