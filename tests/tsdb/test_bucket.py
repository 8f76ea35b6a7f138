"""One table of what every bucket does, run over a folder, a prefix of one, and S3 (moto's server)."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tsdb.bucket.bucket import Bucket, FolderBucket, PrefixBucket, S3Bucket, S3Options, open_bucket
from tsdb.bucket.obstore import ObstoreBucket
from tsdb.model.errors import BadData, NotFound, Unavailable

CLIENTS = {"boto3": S3Bucket, "obstore": ObstoreBucket}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The endpoint of an S3 server."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def boto3_bucket(s3: str) -> Bucket:
    """One client for all tests: making one takes longer than a test."""
    return open_bucket(new_s3_bucket(s3, "bucket", "boto3"))


@pytest.fixture(scope="module")
def obstore_bucket(s3: str) -> Bucket:
    return open_bucket(new_s3_bucket(s3, "other", "obstore"))


@pytest.fixture(params=["folder", "prefix", "boto3", "boto3-prefix", "obstore", "obstore-prefix"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """An empty bucket."""
    if request.param == "folder":
        return FolderBucket(tmp_path / "data")
    if request.param == "prefix":
        return PrefixBucket(FolderBucket(tmp_path), "tenant")
    client = request.param.removesuffix("-prefix")
    found: Bucket = request.getfixturevalue(f"{client}_bucket")
    assert isinstance(found, CLIENTS[client])
    for info in list(found.list()):
        found.delete(info.key)
    return PrefixBucket(found, "some/prefix") if request.param.endswith("-prefix") else found


@pytest.fixture(params=["boto3", "obstore"])
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def new_s3_bucket(endpoint: str, name: str, client: str) -> str:
    url = f"s3://{name}?endpoint={endpoint}&region=us-east-1&path_style=true&access_key=key&secret_key=secret&client={client}"
    options = S3Options(endpoint, "us-east-1", True, "key", "secret")
    S3Bucket(name, options)._client.create_bucket(Bucket=name)
    return url


def test_what_is_put_can_be_got_whole_and_by_range(bucket: Bucket) -> None:
    data = bytes(range(256)) * 40
    bucket.put("a/b/object", data)
    assert bucket.get("a/b/object") == data
    assert bucket.get("a/b/object", 10, 20) == data[10:30]
    assert bucket.get("a/b/object", 10_000) == data[10_000:]
    assert bucket.get("a/b/object", len(data) - 1, 1) == data[-1:]
    assert bucket.get("a/b/object", 5, 0) == b"" and bucket.get("a/b/object", len(data)) == b""
    assert bucket.size("a/b/object") == len(data) and bucket.exists("a/b/object")
    bucket.put("a/b/object", b"")
    assert bucket.get("a/b/object") == b"" and bucket.size("a/b/object") == 0


@pytest.mark.parametrize(("start", "size"), [(0, 6), (5, 1), (3, 3), (-1, 2), (0, -1), (100, None), (100, 10)])
def test_a_range_that_leaves_the_object_is_refused(bucket: Bucket, start: int, size: int | None) -> None:
    bucket.put("five", b"12345")
    with pytest.raises(BadData, match="five"):
        bucket.get("five", start, size)


def test_what_is_not_there(bucket: Bucket) -> None:
    bucket.put("folder/object", b"x")
    for key in ("nothing", "folder", "folder/object/below", "folder/other"):
        assert not bucket.exists(key)
        for ask in (bucket.get, bucket.size, lambda key: bucket.get(key, 0, 5)):
            with pytest.raises(NotFound, match=key):
                ask(key)
        bucket.delete(key)
    assert bucket.exists("folder/object")


def test_listing_is_recursive_sorted_and_by_prefix(bucket: Bucket) -> None:
    keys = ["b", "a/z", "a/b/c", "a.txt", "a-1/x", "ab", "é/ü", "a/b0"]
    for key in keys:
        bucket.put(key, key.encode())
    found = list(bucket.list())
    assert [info.key for info in found] == sorted(keys, key=str.encode)
    assert [info.size_bytes for info in found] == [len(info.key.encode()) for info in found]
    assert all(info.modified_ms > 1_600_000_000_000 for info in found)
    assert [info.key for info in bucket.list("a/")] == ["a/b/c", "a/b0", "a/z"]
    assert [info.key for info in bucket.list("a/b")] == ["a/b/c", "a/b0"]
    assert [info.key for info in bucket.list("a")] == ["a-1/x", "a.txt", "a/b/c", "a/b0", "a/z", "ab"]
    assert not list(bucket.list("none/")) and not list(bucket.list("zzz"))


def test_delete_is_idempotent_and_leaves_neighbours(bucket: Bucket) -> None:
    bucket.put("a/b/one", b"1")
    bucket.put("a/two", b"2")
    bucket.delete("a/b/one")
    bucket.delete("a/b/one")
    assert [info.key for info in bucket.list()] == ["a/two"]


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a/./b", "a\0b", "a\nb", "a\\b", "a~b", "x" * 901, "é" * 101]
)
def test_bad_keys_are_refused(bucket: Bucket, key: str) -> None:
    for ask in (bucket.get, bucket.size, bucket.exists, bucket.delete, lambda key: bucket.put(key, b"")):
        with pytest.raises(BadData):
            ask(key)


def test_many_threads_put_and_delete_beside_each_other(bucket: Bucket) -> None:
    def work(i: int) -> None:
        for j in range(10):
            bucket.put(f"shared/{i}/{j}", b"x" * j)
            bucket.delete(f"shared/{i}/{j - 1}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [info.key for info in bucket.list()] == [f"shared/{i}/9" for i in range(4)]


def test_listing_passes_the_thousand_of_one_answer(s3: str) -> None:
    bucket = open_bucket(new_s3_bucket(s3, "many", "boto3"))
    for i in range(1005):
        bucket.put(f"k{i:05d}", b"")
    assert len(list(bucket.list())) == 1005


def test_an_interrupted_put_is_not_listed(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    bucket.put("a/object", b"whole")
    (tmp_path / "a" / "object~0123").write_bytes(b"ha")
    assert [info.key for info in bucket.list()] == ["a/object"]


def test_a_failed_put_keeps_the_old_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = FolderBucket(tmp_path)
    bucket.put("object", b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Unavailable, match=r"put 'object' of 3 bytes.*No space"):
        bucket.put("object", b"new")
    monkeypatch.undo()
    assert bucket.get("object") == b"old" and os.listdir(tmp_path) == ["object"]


def test_an_s3_server_that_is_away_is_unavailable(client: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: nobody else takes the port
        options = S3Options(f"http://127.0.0.1:{held.getsockname()[1]}", "us-east-1", True, "key", "secret")
        bucket = CLIENTS[client]("bucket", options)
        with pytest.raises(Unavailable, match=r"s3 bucket 'bucket': size of 'some/key'"):
            bucket.size("some/key")


def test_a_bucket_that_does_not_exist_is_told(s3: str, client: str) -> None:
    bucket = CLIENTS[client]("absent", S3Options(s3, "us-east-1", True, "key", "secret"))
    with pytest.raises(Unavailable, match="NoSuchBucket"):
        bucket.put("key", b"")


def test_a_prefix_of_an_s3_bucket(s3: str, client: str) -> None:
    url = new_s3_bucket(s3, f"prefixed-{client}", client)
    open_bucket(url.replace("?", "/some/prefix/?")).put("key", b"1")
    assert [info.key for info in open_bucket(url).list()] == ["some/prefix/key"]


def test_keys_of_others_are_listed_and_break_no_listing(s3: str, client: str) -> None:
    bucket = open_bucket(new_s3_bucket(s3, f"foreign-{client}", client))
    keys = ["a//b", "back\\slash", "dir/", "dir/x", "new\x01line", "per%cent/%41", "t~x", "ü é #?&+="]
    for key in keys:
        bucket._client.put_object(Bucket=f"foreign-{client}", Key=key, Body=b"123")
    assert [info.key for info in bucket.list()] == sorted(keys, key=str.encode)
    assert list(bucket.folders()) == ["a", "dir", "per%cent"]
    for key in ("per%cent/%41", "ü é #?&+=", "dir/x"):
        assert bucket.get(key, 1, 1) == b"2"


def test_the_client_is_the_faster_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "s3://bucket?endpoint=http://127.0.0.1:1&access_key=a&secret_key=b"
    assert type(open_bucket(place)) is ObstoreBucket
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert type(open_bucket(place)) is S3Bucket
    with pytest.raises(BadData, match=r"treering\[s3\]"):
        open_bucket(f"{place}&client=obstore")


@pytest.mark.parametrize("place", ["s3://", "gs://bucket", "s3://b?endpont=x", "s3://b?path_style=maybe", "s3://b?client=curl"])
def test_places_that_are_no_bucket(place: str) -> None:
    with pytest.raises(BadData, match="bucket"):
        open_bucket(place)


def test_places_that_are(tmp_path: Path) -> None:
    assert open_bucket(str(tmp_path)) == open_bucket(tmp_path) == open_bucket(f"file://{tmp_path}") == FolderBucket(tmp_path)
    assert open_bucket("relative/path") == FolderBucket(Path("relative/path"))


def test_folders_are_the_next_parts_of_keys(bucket: Bucket) -> None:
    for key in ("a/1/x", "a/2/x", "a/2/y", "b/x", "top", "a/file"):
        bucket.put(key, b"x")
    assert list(bucket.folders()) == ["a", "b"]
    assert list(bucket.folders("a/")) == ["1", "2"]
    assert list(bucket.folders("b/")) == [] and list(bucket.folders("none/")) == []


def test_what_a_cut_off_put_left_is_swept_by_age(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    bucket.put("a/b/object", b"x")
    left = tmp_path / "a" / "b" / "object~0123"
    left.write_bytes(b"half")
    written_ms = left.stat().st_mtime_ns // 1_000_000
    assert bucket.sweep(written_ms) == 0 and left.exists()
    assert PrefixBucket(bucket, "a").sweep(written_ms + 1) == 1 and not left.exists()
    assert bucket.get("a/b/object") == b"x"
