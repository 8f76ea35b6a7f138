"""Blocks of Prometheus, Thanos, Cortex and Mimir as parts of an import."""

from collections.abc import Callable, Iterator, Sequence

from treering.transfer.import_part import Content, Part, Wanted, any_of, fingerprint
from tsdb.block.meta import META
from tsdb.bucket.bucket import Bucket
from tsdb.model.errors import BadData, Corrupt, NotFound, TreeringError
from tsdb.model.series import SeriesBatch
from tsdb.model.source import Selection
from tsdb.prometheus.block import PrometheusBlock, open_prometheus_block, resolution_text
from tsdb.prometheus.chunk import AGGREGATES
from tsdb.prometheus.meta import PrometheusMeta, find_prometheus_blocks, read_prometheus_meta


def find_blocks(bucket: Bucket, prefix: str = "") -> list[str]:
    """The folders of all blocks below a prefix that have no deletion mark; [""] if the place itself is a block. BadData if none."""
    found = [""] if not prefix and bucket.exists(META) else find_prometheus_blocks(bucket, prefix)
    if not found:
        raise BadData(f"no block {'below ' + prefix if prefix else 'there'}: want folders named by ulids, each with a {META}")
    return found


def owners_of(bucket: Bucket) -> list[str]:
    """The first parts of the folders that blocks lie in: the owners of a Mimir or Cortex bucket."""
    return sorted({folder.split("/")[0] for folder in find_prometheus_blocks(bucket) if folder.count("/") == 1})


def block_parts(bucket: Bucket, folders: Sequence[str], wanted: Wanted, *, downsampled: bool = False) -> Iterator[Part]:
    """One part a block, oldest first, of those that overlap the wanted range; downsampled ones only if asked for, then one part an
    aggregate. A block whose meta.json cannot be read is a part that cannot be opened."""
    for folder in folders:
        try:
            meta = read_prometheus_meta(bucket, folder)
        except (BadData, Corrupt, NotFound) as error:
            yield Part(f"block {folder}", fingerprint("unreadable", folder), 0, _refusing(error))
            continue
        if meta.max_ms < wanted.start_ms or meta.min_ms >= wanted.end_ms or (meta.resolution_ms and not downsampled):
            continue
        for aggregate in AGGREGATES if meta.resolution_ms else ("",):
            yield _part(bucket, folder, meta, wanted, aggregate)


def _refusing(error: TreeringError) -> Callable[[], Content]:
    def refuse() -> Content:
        raise error

    return refuse


def _part(bucket: Bucket, folder: str, meta: PrometheusMeta, wanted: Wanted, aggregate: str) -> Part:
    name = f"block {folder or meta.ulid}" + (f" ({aggregate} of {resolution_text(meta.resolution_ms)})" if aggregate else "")

    def open_content() -> Content:
        block = open_prometheus_block(bucket, folder, labels=dict(wanted.labels), aggregate=aggregate)
        return _content(block, wanted)

    return Part(name, fingerprint("prometheus", meta.ulid, meta.digest, aggregate), meta.samples, open_content)


def _content(block: PrometheusBlock, wanted: Wanted) -> Content:
    index = block.index
    if len(index.t_min) == 0:
        return Content(0, 0, lambda start_ms, end_ms: iter(()))
    low, high = max(int(index.t_min.min()), wanted.start_ms), min(int(index.t_max.max()) + 1, wanted.end_ms)
    matchers = wanted.sets[0] if len(wanted.sets) == 1 else ()

    def read(start_ms: int, end_ms: int) -> Iterator[SeriesBatch]:
        for batch in block.select(Selection(matchers, max(start_ms, low), min(end_ms, high))):
            chosen = any_of(batch, wanted.sets)
            if len(chosen):
                yield chosen

    return Content(low, max(low, high), read)
