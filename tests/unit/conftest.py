# SPDX-License-Identifier: Apache-2.0
"""Ansible's collection loader is put up before any test imports a plugin, as it is in real runs.

Otherwise the first test that needs it puts it up halfway, and plugins imported without it before break those after.

Hypothesis has no deadline: a year of backups takes what a busy machine gives it.

Temporary files are in memory where this machine lets them: a rename costs milliseconds on a busy disk, and the tests
of crashes alone make tens of thousands.

``certificate`` is for servers of tests that speak TLS.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, settings

from console.hosts import _load_plugins

MEMORY = Path("/dev/shm")
ENOUGH = 3 * 1024**3  # a drill wants 1.3 GB free, though it takes little of it


def _in_memory() -> bool:
    """Whether temporary files may go there: not against the user's word, nor where programs cannot be run (containers)."""
    try:
        runs = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
        return (
            "TMPDIR" not in os.environ and runs and os.access(MEMORY, os.W_OK)
            and shutil.disk_usage(MEMORY).free > ENOUGH
        )  # fmt: skip
    except OSError:
        return False


if _in_memory():
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None  # whoever asked before us may have settled it

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
_load_plugins()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed certificate and key for localhost, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path
