# SPDX-License-Identifier: Apache-2.0
"""The fault proxy itself: that each fault happens, once and to whom it is meant, and that it changes nothing otherwise."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from slipway.backup.stores.retry import Retry
from slipway.backup.stores.s3 import Bucket, S3Store, client_for
from slipway.backup.stores.store import MB, SMALLEST_PART, AccessError, Lock, StoreError, content_md5

from lab.fault_proxy import Fault, FaultProxy, operation_of

from .fake_s3 import FakeS3

WHOLE = bytes(range(256)) * (11 * MB // 256) + b"the end"


@pytest.fixture
def proxy(fake: FakeS3) -> Iterator[FaultProxy]:
    with FaultProxy(fake.endpoint, b2=True) as made:
        yield made


def store(url: str, attempts: int = 4) -> S3Store:
    return S3Store(Bucket("backups", url, "lab", "key", "secret"), retry=Retry(attempts, base=0.01, cap=0.05))


def send(url: str) -> None:
    with store(url).upload("data", part_size=SMALLEST_PART) as upload:
        upload.write(WHOLE)
        upload.complete()


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("PUT", "/b/k/l", ("put_object", "k/l")),
        ("PUT", "/b/k?partNumber=1&uploadId=u", ("upload_part", "k")),
        ("POST", "/b/k?uploads", ("create_multipart_upload", "k")),
        ("POST", "/b/k?uploadId=u", ("complete_multipart_upload", "k")),
        ("DELETE", "/b/k?uploadId=u", ("abort_multipart_upload", "k")),
        ("DELETE", "/b/k?versionId=v", ("delete_object", "k")),
        ("PUT", "/b/k?retention", ("put_object_retention", "k")),
        ("GET", "/b/k", ("get_object", "k")),
        ("HEAD", "/b/k", ("head_object", "k")),
        ("GET", "/b?list-type=2&prefix=k", ("list_objects_v2", "")),
        ("GET", "/b?versions", ("list_object_versions", "")),
        ("GET", "/b?uploads", ("list_multipart_uploads", "")),
        ("POST", "/b?delete", ("delete_objects", "")),
        ("GET", "/b?lifecycle", ("get_bucket", "")),
    ],
)
def test_operations_are_told_apart(method: str, path: str, expected: tuple[str, str]) -> None:
    assert operation_of(method, path) == expected


def test_it_is_not_noticed_while_it_behaves(proxy: FaultProxy) -> None:
    send(proxy.url)
    there = store(proxy.url)
    assert b"".join(there.read("data")) == WHOLE
    assert [each.key for each in there.versions()] == ["data"]
    assert there.head("nothing") is None
    assert {each.status for each in proxy.seen} == {200, 404}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", "upload_part", times=2),
        Fault("status", "create_multipart_upload", status=500, code="InternalError"),
        Fault("reset", "upload_part", times=2, after=MB),
        Fault("reset", "upload_part", after=0),
        Fault("swallow", "upload_part", times=2),
        Fault("late_error", "upload_part", status=500),
        Fault("flip", "upload_part", after=2 * MB),
        Fault("delay", "upload_part", seconds=0.1),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.operation}",
)
def test_each_fault_on_the_way_up_happens_and_runs_out(proxy: FaultProxy, fake: FakeS3, fault: Fault) -> None:
    proxy.add(fault)
    send(proxy.url)
    assert proxy.faults == []
    assert fake.objects["data"][0].body == WHOLE
    expected = 3 + (0 if fault.kind == "delay" or fault.operation != "upload_part" else fault.times)
    assert proxy.count("upload_part") == expected


def test_a_fault_is_for_its_key_alone(proxy: FaultProxy) -> None:
    proxy.add(Fault("status", "put_object", key="manifest", times=9))
    store(proxy.url).put("a/data", b"x")
    with pytest.raises(StoreError, match="ServiceUnavailable"):
        store(proxy.url, attempts=2).put("a/manifest.json", b"x")


def test_a_broken_download_is_resumed_and_a_false_one_is_not_noticed(proxy: FaultProxy) -> None:
    send(proxy.url)
    proxy.add(Fault("truncate", "get_object", times=2, after=MB + 5))
    assert b"".join(store(proxy.url).read("data")) == WHOLE
    proxy.add(Fault("cut", "get_object", after=MB))
    assert b"".join(store(proxy.url).read("data")) == WHOLE[:MB]
    proxy.add(Fault("flip", "get_object", after=7))
    read = b"".join(store(proxy.url).read("data"))
    assert (read[:7], read[8:]) == (WHOLE[:7], WHOLE[8:])
    assert read[7] != WHOLE[7]
    proxy.add(Fault("swap", "get_object", after=100))
    assert b"".join(store(proxy.url).read("data")) == WHOLE[100:200] + WHOLE[:100] + WHOLE[200:]


def test_a_lost_answer_means_that_it_was_done(proxy: FaultProxy, fake: FakeS3) -> None:
    proxy.add(Fault("swallow", "put_object", times=9))
    with pytest.raises(StoreError):
        store(proxy.url, attempts=2).put("a", b"x")
    assert len(fake.objects["a"]) == 2


def test_a_refusal_is_passed_on_in_b2s_words(proxy: FaultProxy, fake: FakeS3) -> None:
    fake.denied.add("ListObjectVersions")
    fake.denied.add("list_object_versions")
    proxy.add(Fault("status", "list_object_versions", status=403, code="AccessDenied"))
    with pytest.raises(AccessError, match="AccessDenied"):
        list(store(proxy.url).versions())


def test_what_b2_refuses_is_refused(proxy: FaultProxy) -> None:
    client = client_for(Bucket("backups", proxy.url, "lab", "key", "secret"))
    for given in ({"ChecksumAlgorithm": "CRC32"}, {}):
        with pytest.raises(ClientError) as error:
            client.put_object(Bucket="backups", Key="a", Body=b"x", **given)
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(ClientError, match="Unsupported header"):
        client.delete_objects(Bucket="backups", Delete={"Objects": [{"Key": "a"}]})


def test_a_refusal_leaves_nothing_of_the_body_on_the_connection(proxy: FaultProxy, fake: FakeS3) -> None:
    """boto3 sends in chunks what carries a checksum; what was left unread was taken for the next request."""
    where = urlsplit(proxy.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    for headers in ({"x-amz-trailer": "x-amz-checksum-crc32"}, {}):
        chunks = iter((b"x" * 100_000, b"the end"))
        connection.request(
            "PUT", "/backups/a", chunks, {"Transfer-Encoding": "chunked", **headers}, encode_chunked=True
        )
        answer = connection.getresponse()
        assert (answer.status, b"<Code>Invalid" in answer.read()) == (400, True)
    body = b"y" * 10
    given = {"Transfer-Encoding": "chunked", "Content-MD5": content_md5(body)}
    connection.request("PUT", "/backups/a", iter((body[:4], body[4:])), given, encode_chunked=True)
    assert connection.getresponse().read() == b""
    assert fake.objects["a"][0].body == body
    connection.close()


def test_a_clock_off_by_an_hour_shows_in_the_date_that_the_server_sees(proxy: FaultProxy, fake: FakeS3) -> None:
    proxy.add(Fault("skew", "put_object", seconds=-3600))
    store(proxy.url).put("a", b"x")  # the stand-in looks at no date; the real server's refusal is an integration test
    assert proxy.faults == []
    assert fake.objects["a"]


def test_locks_and_the_buckets_settings_carry_md5_where_b2_refuses_what_boto3_adds(proxy: FaultProxy) -> None:
    there = store(proxy.url)
    there.put("a", b"x")
    there.lock("a", Lock("GOVERNANCE", datetime(2031, 5, 6, tzinfo=UTC)))
    (asked,) = [each for each in proxy.seen if each.operation == "put_object_retention"]
    assert asked.status == 200
    assert "content-md5" in asked.headers


def test_each_of_several_faults_happens_to_a_request_of_its_own(proxy: FaultProxy, fake: FakeS3) -> None:
    proxy.add(Fault("swallow", "put_object", times=2), Fault("status", "put_object"), Fault("late_error", "put_object"))
    store(proxy.url, attempts=5).put("a", b"x")
    assert [each.status for each in proxy.seen] == [0, 0, 503, 503, 200]
    assert len(fake.objects["a"]) == 4
    assert proxy.faults == []
