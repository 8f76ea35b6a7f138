"""`PrometheusBlock`: a block of Prometheus, Thanos, Cortex or Mimir as a `Source`, where it lies.

<folder>/meta.json       what it is (`tsdb.prometheus.meta`)
<folder>/index           which series, and where their chunks are (`tsdb.prometheus.index`); read whole
<folder>/chunks/000001…  chunks (`tsdb.prometheus.chunk`), read by ranges: magic u32 | version u8 | 0 0 0 | chunks
<folder>/tombstones      what was deleted; may be absent

chunk := size uvarint | encoding u8 | `size` bytes | crc32c of encoding and bytes
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tsdb.bucket.bucket import Bucket
from tsdb.head.fragment import Fragment, settle
from tsdb.kernel.crc32c import first_damaged
from tsdb.merge import merge_batches
from tsdb.model.errors import BadData, Corrupt, NotFound
from tsdb.model.histogram import ragged
from tsdb.model.labels import METRIC_NAME
from tsdb.model.matcher import select_rows
from tsdb.model.series import I64, SeriesBatch, SeriesTable, strings
from tsdb.model.source import Selection
from tsdb.prometheus.chunk import AGGREGATE, AGGREGATES, Chunks, ChunkSamples, decode_chunks, padded, pick_aggregate
from tsdb.prometheus.counter import join_counters
from tsdb.prometheus.index import PrometheusIndex, read_index
from tsdb.prometheus.meta import PrometheusMeta, read_prometheus_meta, read_tombstones

SEGMENT_MAGIC, SEGMENT_FORMAT = 0x85BD40DD, 1
_SEGMENT_HEAD = 8
BATCH_BYTES = 8 << 20
"""Chunk bytes in one batch: about 6 M samples at Prometheus' usual 1.3 bytes each."""
BATCH_CHUNKS = 16 << 10
"""Two million samples at the usual 120 a chunk, however well they are compressed."""
GAP_BYTES = 64 << 10
"""Two wanted chunks with less between them are read at once."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A chunk file: its key and size."""

    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PrometheusBlock:
    """The samples of one block; `series` of `index` have the external labels already. Every byte that is read is checked.

    Memory: the index, and one batch of at most BATCH_BYTES of chunks or one series' chunks, decoded.
    Errors: Corrupt and BadData, which name object and place.
    """

    bucket: Bucket
    folder: str
    meta: PrometheusMeta
    index: PrometheusIndex
    segments: tuple[Segment, ...]
    tombstones: Mapping[int, list[tuple[int, int]]]
    aggregate: str = ""
    """Which of AGGREGATES is read of a downsampled block; "counter" has the resets put right."""

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """See `Source.select`."""
        table, rows = self._rows(selection)
        index = self.index
        counts = np.diff(index.chunk_at)[rows]
        _, chunk = ragged(index.chunk_at, rows)
        wanted = (index.t_max[chunk] >= selection.start_ms) & (index.t_min[chunk] < selection.end_ms)
        row = np.repeat(np.arange(len(rows)), counts)[wanted]
        chunk = chunk[wanted]
        start, end, segment = self._places(chunk)
        for a, b in _batches(_same_as_before(table.take(rows)), row, end - start):
            at = slice(int(np.searchsorted(row, a)), int(np.searchsorted(row, b)))
            if at.start < at.stop:
                chunks = self._read(start[at], end[at], segment[at])
                batch = self._batch(table.take(rows[a:b]), index.ref[rows[a:b]], row[at] - a, chunks, selection)
                if len(batch):
                    yield batch

    def series(self, selection: Selection) -> SeriesTable:
        """See `Source.series`."""
        table, rows = self._rows(selection)
        if len(rows) == 0:
            return SeriesTable.empty()
        inside = (self.index.t_max >= selection.start_ms) & (self.index.t_min < selection.end_ms)
        before = np.concatenate([[0], np.cumsum(inside)])[self.index.chunk_at]
        found = table.take(rows[np.diff(before)[rows] > 0])
        return found.take(~_same_as_before(found))

    def chunks(self, chunk: I64) -> Chunks:
        """The chunks of these numbers (see `PrometheusIndex`), read and checked, in the order asked for."""
        return self._read(*self._places(chunk))

    def _rows(self, selection: Selection) -> tuple[SeriesTable, I64]:
        """(all series, the places of the matching ones in the order of series)."""
        table = self.index.series
        rows = np.flatnonzero(select_rows(table, selection.matchers))
        return table, rows[table.take(rows).order()]

    def _places(self, chunk: I64) -> tuple[I64, I64, I64]:
        """(first byte, byte behind the last possible, segment) of chunks: a chunk ends before the next one of its segment."""
        ref = self.index.chunk_ref
        segment = ref[chunk] >> 32
        if len(chunk) and (int(segment.min()) < 0 or int(segment.max()) >= len(self.segments)):
            raise Corrupt(f"{self.folder}/index: names segment {int(segment.max())} of {len(self.segments)}")
        sizes = np.array([part.size_bytes for part in self.segments], np.int64)
        known = np.unique(ref)
        following = np.append(known, np.int64(1) << 62)[np.searchsorted(known, ref[chunk], side="right")]
        start = ref[chunk] & 0xFFFFFFFF
        end = np.where(following >> 32 == segment, following & 0xFFFFFFFF, sizes[segment]) if len(chunk) else start
        return start, end, segment

    def _read(self, start: I64, end: I64, segment: I64) -> Chunks:
        """Chunks in the order asked for, neighbours in one request, each checked."""
        order = np.lexsort((start, segment))
        fresh = np.ones(len(order), bool)
        fresh[1:] = (segment[order][1:] != segment[order][:-1]) | (start[order][1:] > end[order][:-1] + GAP_BYTES)
        parts, place, size = [], np.empty(len(start), np.int64), 0
        for run in np.split(order, np.flatnonzero(fresh)[1:]):
            low, high, part = int(start[run].min()), int(end[run].max()), self.segments[int(segment[run[0]])]
            if low < _SEGMENT_HEAD or high > part.size_bytes:
                raise Corrupt(f"{part.key}: the index names bytes {low} to {high}, it has {part.size_bytes}")
            parts.append(self.bucket.get(part.key, low, high - low))
            place[run] = start[run] - low + size
            size += high - low
        where = [f"{self.segments[s].key}, chunk at byte {at}" for s, at in zip(segment.tolist(), start.tolist(), strict=True)]
        return _frame(padded(b"".join(parts)), place, end - start, where)

    def _batch(self, table: SeriesTable, ref: I64, row: I64, chunks: Chunks, selection: Selection) -> SeriesBatch:
        """The samples of the series `table`; chunk j is of series row[j]."""
        aggregated = chunks.encoding == AGGREGATE
        if self.aggregate:
            if not aggregated.all():
                raise Corrupt(f"{chunks.where[int(np.argmin(aggregated))]}: is of no downsampled encoding in a downsampled block")
            chunks, have = pick_aggregate(chunks, self.aggregate)
            row = row[have]
        samples = decode_chunks(chunks)
        if self.aggregate == "counter":
            samples = join_counters(samples, row)
        batch = _settle(table, row, samples)
        batch = self._without_deleted(batch, ref)
        return _merge_equal(batch.clip(selection.start_ms, selection.end_ms))

    def _without_deleted(self, batch: SeriesBatch, ref: I64) -> SeriesBatch:
        rows = [i for i, number in enumerate(ref.tolist()) if number in self.tombstones] if self.tombstones else []
        if not rows:
            return batch
        keep = np.ones(batch.samples, bool)
        for i in rows:
            low, high = int(batch.offsets[i]), int(batch.offsets[i + 1])
            for first, last in self.tombstones[int(ref[i])]:
                a, b = np.searchsorted(batch.t_ms[low:high], [first, last + 1])
                keep[low + a : low + b] = False
        return batch.where(keep)


def open_prometheus_block(
    bucket: Bucket, folder: str = "", *, labels: Mapping[str, str] | None = None, aggregate: str = ""
) -> PrometheusBlock:
    """The block in a folder of a bucket ("" if the bucket is the block), its index read and checked.

    `labels` are set on every series, over those of its own and Thanos' external ones. Of a downsampled block, and of no other,
    one `aggregate` is read; its series are named `<metric>:<resolution>:<aggregate>`. Corrupt, BadData, NotFound.
    """
    meta = read_prometheus_meta(bucket, folder)
    if bool(meta.resolution_ms) != (aggregate in AGGREGATES):
        of = f"of resolution {meta.resolution_ms} ms" if meta.resolution_ms else "of raw samples"
        raise BadData(f"{folder or 'the block'}: is {of}, of which aggregate {aggregate!r} cannot be read")
    prefix = f"{folder}/" if folder else ""
    segments = tuple(Segment(info.key, info.size_bytes) for info in bucket.list(f"{prefix}chunks/"))
    for part in segments:
        _check_head(part, bucket.get(part.key, 0, min(_SEGMENT_HEAD, part.size_bytes)))
    key = f"{prefix}index"
    index = read_index(bucket.get(key), key=key)
    try:
        tombstones = read_tombstones(bucket.get(f"{prefix}tombstones"), key=f"{prefix}tombstones")
    except NotFound:
        tombstones = {}
    series = with_labels(index.series, {**meta.labels, **(labels or {})})
    if aggregate:
        series = _renamed(series, f":{resolution_text(meta.resolution_ms)}:{aggregate}")
    index = replace(index, series=series)
    return PrometheusBlock(bucket, folder, meta, index, segments, tombstones, aggregate)


def with_labels(series: SeriesTable, labels: Mapping[str, str]) -> SeriesTable:
    """The same series with these labels set; an empty value takes a label away."""
    for name, value in labels.items():
        series = series.with_column(name, strings([value] * len(series)))
    return series


def resolution_text(resolution_ms: int) -> str:
    """`5m` or `1h`, as Thanos' resolutions are called."""
    hours, rest = divmod(resolution_ms, 3_600_000)
    return f"{hours}h" if hours and not rest else f"{resolution_ms // 60_000}m"


def _renamed(series: SeriesTable, suffix: str) -> SeriesTable:
    """The same series with a suffix to their metric names."""
    names, place = np.unique(series.column(METRIC_NAME), return_inverse=True)
    texts = strings([text + suffix for text in series.texts(names).tolist()])
    return series.with_column(METRIC_NAME, texts[place])


def _check_head(part: Segment, head: bytes) -> None:
    if len(head) < _SEGMENT_HEAD or int.from_bytes(head[:4]) != SEGMENT_MAGIC:
        raise Corrupt(f"{part.key}: byte 0 begins {head[:4].hex() or 'nothing'}, not {SEGMENT_MAGIC:x} of a chunk segment")
    if head[4] != SEGMENT_FORMAT:
        raise BadData(f"{part.key}: segment format {head[4]} at byte 4 is not known; {SEGMENT_FORMAT} is")


def _same_as_before(table: SeriesTable) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """bool[n] which rows have the labels of the row before (external labels can make two series one)."""
    same = np.zeros(len(table), bool)
    same[1:] = np.all(table.ids[:, 1:] == table.ids[:, :-1], axis=0)
    return same


def _batches(same: np.ndarray[tuple[int], np.dtype[np.bool_]], row: I64, size: I64) -> Iterator[tuple[int, int]]:
    """Runs [a, b) of whole series of at most BATCH_BYTES and BATCH_CHUNKS, or of one; equal series stay together."""
    load = np.zeros(len(same), np.int64)
    np.add.at(load, row, size + BATCH_BYTES // BATCH_CHUNKS)
    total = np.cumsum(load)
    cuts, at = [0], 0
    while at < len(same):
        done = int(total[at - 1]) if at else 0
        at = max(at + 1, int(np.searchsorted(total, done + 2 * BATCH_BYTES, side="right")))
        while at < len(same) and same[at]:
            at += 1
        cuts.append(min(at, len(same)))
    return pairwise(cuts)


def _frame(data: np.ndarray[tuple[int], np.dtype[np.uint8]], place: I64, room: I64, where: list[str]) -> Chunks:
    """The chunks at these places of a buffer, each within its room, their checksums verified."""
    size, head = np.zeros(len(place), np.int64), np.zeros(len(place), np.int64)
    more = np.ones(len(place), bool)
    for k in range(5):
        byte = data[place + np.minimum(k, room)].astype(np.int64)
        size += np.where(more, (byte & 0x7F) << 7 * k, 0)
        head += more
        more &= byte >= 0x80
    start = place + head
    end = start + 1 + size
    cut = np.flatnonzero(more | (end + 4 > place + room))
    if len(cut):
        j = int(cut[0])
        raise Corrupt(f"{where[j]}: its size of {size[j]} bytes reaches past the {room[j]} bytes before the next one")
    damaged = first_damaged(data, start, end)
    if damaged >= 0:
        raise Corrupt(f"{where[damaged]}: its {int(end[damaged] - start[damaged])} bytes do not have their checksum")
    return Chunks(data, start + 1, end, data[start], where)


def _settle(table: SeriesTable, row: I64, samples: ChunkSamples) -> SeriesBatch:
    """The samples of chunks, which are grouped by series, as a batch: by rising time, of equal times one."""
    lengths = np.zeros(len(table), np.int64)
    np.add.at(lengths, row, np.diff(samples.at))
    rows = np.flatnonzero(lengths)
    fragment = Fragment(
        rows, lengths[rows], samples.t_ms, samples.values.view(np.int64), samples.histograms, samples.histogram_at, samples.start_ms
    )
    columns = settle([fragment], len(table))
    return SeriesBatch(
        table, columns.offsets, columns.t_ms, columns.values, columns.histograms, columns.histogram_at, columns.start_ms
    )


def _merge_equal(batch: SeriesBatch) -> SeriesBatch:
    """The batch with series of equal labels, which are neighbours, merged."""
    same = _same_as_before(batch.series)
    if not same.any():
        return batch
    first = np.flatnonzero(~same)
    turn = np.arange(len(same)) - np.repeat(first, np.diff(np.append(first, len(same))))
    return merge_batches([batch.take(np.flatnonzero(turn == k)) for k in range(int(turn.max()) + 1)])
