"""A block on an S3 server (moto's): the same samples, by range requests."""

from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from tests.tsdb.batches import grid_batch, same_samples
from tsdb.block.block import Block, list_blocks, new_ulid, verify_block, write_block
from tsdb.bucket.bucket import Bucket, PrefixBucket, S3Bucket, S3Options
from tsdb.bucket.obstore import ObstoreBucket
from tsdb.merge import merge_batches
from tsdb.model.source import MAX_MS, MIN_MS, Selection


@pytest.fixture(params=["boto3", "obstore"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = S3Options(f"http://{host}:{port}", "us-east-1", True, "key", "secret")
    s3 = S3Bucket("blocks", options)
    s3._client.create_bucket(Bucket="blocks")
    yield PrefixBucket(s3 if request.param == "boto3" else ObstoreBucket("blocks", options), "someone")
    server.stop()


def test_a_block_on_s3(bucket: Bucket) -> None:
    batch = grid_batch(500, 480)
    meta = write_block(bucket, [batch], ulid=new_ulid(1, bytes(10)), min_ms=0, max_ms=7_200_000)
    assert meta is not None and list_blocks(bucket) == [meta]
    assert same_samples(merge_batches(list(Block(bucket, meta).select(Selection((), MIN_MS, MAX_MS)))), batch)
    assert verify_block(bucket, meta) == []
