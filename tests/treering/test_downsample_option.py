"""`max_source_resolution` and `downsample=`: what they may say, and that they reach storage."""

from pathlib import Path

import numpy as np
import pytest

import treering
from promql.resolution import AUTO
from tests.tsdb.batches import grid_batch
from treering.times import parse_resolution_ms
from tsdb.block.meta import list_blocks, new_ulid
from tsdb.block.writer import write_block
from tsdb.bucket.bucket import FolderBucket, PrefixBucket
from tsdb.compaction.downsample import plan_downsample, run_downsample
from tsdb.compaction.reclaim import delete_block
from tsdb.model.errors import BadData

D = 86_400_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [("", AUTO), ("auto", AUTO), ("raw", 0), ("0s", 0), ("0", 0), ("5m", 300_000), ("1h", 3_600_000), ("300", 300_000), ("-1", 0)],
)
def test_resolutions(text: str, ms: int) -> None:
    assert parse_resolution_ms(text) == ms


def test_no_resolution() -> None:
    with pytest.raises(BadData, match='invalid parameter "max_source_resolution": cannot parse "fine"'):
        parse_resolution_ms("fine")


def test_a_store_answers_from_windows(tmp_path: Path) -> None:
    bucket = PrefixBucket(FolderBucket(tmp_path / "bucket"), "anonymous")
    write_block(bucket, [grid_batch(3, 2 * 5760)], ulid=new_ulid(1, b"0123456789"), min_ms=0, max_ms=2 * D)
    (job,) = plan_downsample(list_blocks(bucket), now_ms=10 * D)
    run_downsample(job, bucket, ulid=new_ulid(2, b"0123456789"))
    with treering.open(str(tmp_path)) as store:
        ask = "sum(increase(m[1h]))"
        answers = [store.query_range(ask, 7200, 86400, "1h", downsample=one) for one in ("raw", "5m", "auto")]
        for other in answers[1:]:
            np.testing.assert_allclose(other.to_numpy()[1], answers[0].to_numpy()[1], rtol=1e-9)
        with pytest.raises(BadData, match="downsample"):
            store.query(ask, 7200, downsample="coarse")
    delete_block(bucket, new_ulid(1, b"0123456789"))
    with treering.open(str(tmp_path)) as store:
        assert any("max_source_resolution=5m" in text for text in store.query(ask, 7200, downsample="raw").warnings)
        assert not store.query(ask, 7200).warnings
