# SPDX-License-Identifier: Apache-2.0
"""The same database backed up by others: pgBackRest, and ``pg_dump | zstd | age | rclone rcat`` into the same bucket."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.meter import Cost, Meter

_NEEDS = {"rclone": "rclone", "pgbackrest": "pgbackrest"}


def needs(name: str) -> str:
    """The program, and Debian's package, that this one needs; empty for what is not another's tool."""
    return _NEEDS.get(name, "")


def missing(name: str) -> str:
    """The package that this one needs and that is not there; else an empty string."""
    return needs(name) if needs(name) and shutil.which(needs(name)) is None else ""


def rclone(meter: Meter, where: str, sealing: str, endpoint: str) -> Cost:
    """The plain tools, with rclone at their end. Into the bucket's stand-in, which looks at no signature."""
    settings = {
        "RCLONE_CONFIG": "/dev/null", "RCLONE_S3_PROVIDER": "Other", "RCLONE_S3_ENDPOINT": endpoint,
        "RCLONE_S3_ACCESS_KEY_ID": "k", "RCLONE_S3_SECRET_ACCESS_KEY": "s", "RCLONE_S3_REGION": "r",
        "RCLONE_S3_NO_CHECK_BUCKET": "true", "RCLONE_S3_FORCE_PATH_STYLE": "true",
        "AWS_CA_BUNDLE": "",  # rclone fails where one is set; the stand-in speaks plain HTTP
    }  # fmt: skip
    script = f"set -o pipefail; pg_dump -Fc -Z0 -d '{where}' {sealing} | rclone rcat :s3:b/dump"
    return meter.run(["bash", "-c", script], settings)


def pgbackrest(meter: Meter, socket: str, data: Path, home: Path, cores: int) -> Cost:
    """A full backup of the cluster's files into a folder, compressed and encrypted as well.

    Its own setting of ``zst`` (level 3) and AES-256. No WAL is asked for: the server archives none.
    """
    folder = home / "pgbackrest"
    options = [
        "pgbackrest", "--stanza=bench", f"--pg1-path={data}", f"--pg1-socket-path={socket}", "--pg1-user=postgres",
        f"--repo1-path={folder}", "--repo1-cipher-type=aes-256-cbc", f"--log-path={home}",
        f"--lock-path={home}/lock", "--config=/dev/null", "--log-level-console=warn", "--log-level-file=off",
    ]  # fmt: skip
    secret = {"PGBACKREST_REPO1_CIPHER_PASS": "only-for-this-benchmark"}
    try:
        meter.run([*options, "--no-online", "stanza-create"], secret)
        cost = meter.run(
            [*options, "--type=full", "--repo1-retention-full=1", "--compress-type=zst", f"--process-max={max(1, cores // 2)}", "--start-fast",
             "--no-archive-check", "backup"], secret,
        )  # fmt: skip
        cost.told["stored"] = sum(each.stat().st_size for each in (folder / "backup").rglob("*") if each.is_file())
        return cost
    finally:
        shutil.rmtree(folder, ignore_errors=True)
