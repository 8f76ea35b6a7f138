"""Importing: parts of a source become blocks of their own time windows, straight in the bucket.

A part is done when its marker is there: `imports/<fingerprint>`, put after its blocks, so that a second run skips it. Blocks have
ulids made of the part, the wanted samples and the window: a part that was cut off half-way is written anew over what it left.

Memory: the part's content (`treering.transfer.import_part`), one batch, and MAX_WRITERS blocks being written, each at most
`block_writer.MAX_PART_BYTES` and its index.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from treering.transfer.import_digest import Digest, digest_of
from treering.transfer.import_part import Content, Part, Wanted, fingerprint
from treering.transfer.import_progress import Progress
from tsdb.block.block import Block, BlockMeta, BlockWriter, new_ulid, read_meta
from tsdb.block.writer import gather
from tsdb.bucket.bucket import Bucket
from tsdb.bucket.sealed import seal, unseal
from tsdb.compaction.bucket_index import add_news
from tsdb.compaction.compact import RANGES_MS
from tsdb.merge import MergeSource
from tsdb.model.errors import BadData, Corrupt, NotFound
from tsdb.model.series import SeriesBatch
from tsdb.model.source import Selection

MARKERS = "imports/"
MAX_WRITERS = 4
"""Blocks written at once. A part that spans more windows is read again for each MAX_WRITERS of them."""
MAX_WINDOWS = 1000
"""Seventy-six years of the widest blocks; more is a time in the wrong unit."""


@dataclass(frozen=True, slots=True)
class Marker:
    """That a part is in the bucket: what it was called, and what it became."""

    name: str
    blocks: tuple[str, ...]
    samples: int
    series: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A part that is not imported, and why."""

    name: str
    problem: str


@dataclass(slots=True)
class ImportReport:
    """What became of an import; `min_ms` and `max_ms` (excluded) bound its samples, `series` is the most that one part has."""

    parts: int = 0
    skipped: int = 0
    blocks: int = 0
    samples: int = 0
    series: int = 0
    min_ms: int | None = None
    max_ms: int | None = None
    failures: list[Failure] = field(default_factory=list)

    def add(self, content: Content, blocks: int, digest: Digest) -> None:
        self.parts += 1
        self.blocks += blocks
        self.samples += digest.samples
        self.series = max(self.series, digest.series)
        if digest.samples:
            self.min_ms = content.min_ms if self.min_ms is None else min(self.min_ms, content.min_ms)
            self.max_ms = content.max_ms if self.max_ms is None else max(self.max_ms, content.max_ms)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import. `dry_run` reads all and writes nothing; `verify` reads the written blocks back and compares."""

    wanted: Wanted
    dry_run: bool = False
    verify: bool = False


def import_parts(
    bucket: Bucket, parts: Iterable[Part], options: ImportOptions, *, progress: Progress, now_ms: Callable[[], int]
) -> ImportReport:
    """Import all parts that are not there yet. One that cannot be read is told in the report, and does not stop the others.

    Unavailable if the bucket, or the source's, cannot answer.
    """
    report, writer = ImportReport(), ""
    for part in parts:
        key = MARKERS + fingerprint(part.fingerprint, options.wanted.text())
        if not options.dry_run and _is_done(bucket, key):
            report.skipped += 1
            progress.skip(part)
            continue
        progress.begin(part)
        writer = writer or f"import-{key[-12:]}"
        try:
            content = part.open()
            metas, digest = _import_part(bucket, part, content, key, options, progress)
        except (BadData, Corrupt, NotFound) as error:
            report.failures.append(Failure(part.name, str(error)))
            progress.fail(part, str(error))
        else:
            if not options.dry_run:
                add_news(bucket, metas, writer=writer, now_ms=now_ms())
                bucket.put(key, seal(Marker(part.name, tuple(meta.ulid for meta in metas), digest.samples, digest.series)))
            report.add(content, len(_windows(content)) if options.dry_run else len(metas), digest)
        progress.end(part)
    return report


def windows_of(min_ms: int, max_ms: int) -> list[tuple[int, int]]:
    """[start, end) of the blocks for samples in [min_ms, max_ms): aligned, of the narrowest width that needs at most MAX_WRITERS.

    BadData where even the widest needs more than MAX_WINDOWS.
    """
    for width_ms in RANGES_MS:
        first, last = min_ms // width_ms, (max_ms - 1) // width_ms
        if last - first < MAX_WRITERS:
            break
    if last - first >= MAX_WINDOWS:
        raise BadData(
            f"samples from {min_ms} ms to {max_ms} ms need {last - first + 1} blocks, the limit is {MAX_WINDOWS}: are the times "
            "in another unit than they are read in?"
        )
    return [(n * width_ms, (n + 1) * width_ms) for n in range(first, last + 1)]


def _windows(content: Content) -> list[tuple[int, int]]:
    return windows_of(content.min_ms, content.max_ms) if content.max_ms > content.min_ms else []


def _import_part(
    bucket: Bucket, part: Part, content: Content, key: str, options: ImportOptions, progress: Progress
) -> tuple[list[BlockMeta], Digest]:  # fmt: skip
    """(metas of the part's blocks, what was read); no block on a dry run. Corrupt where it reads back as something else."""
    windows = _windows(content)
    digest, metas = Digest(), []
    for at in range(0, len(windows), MAX_WRITERS):
        group = windows[at : at + MAX_WRITERS]
        read = content.read(group[0][0], group[-1][1])
        batches = _counted(read, digest, progress, part, share=len(group) / len(windows))
        if options.dry_run:
            for _ in batches:
                pass
        else:
            metas += _write_blocks(bucket, batches, group, key)
    if options.verify and not options.dry_run:
        _verify(bucket, metas, digest, part)
    return metas, digest


def _counted(
    batches: Iterator[SeriesBatch], digest: Digest, progress: Progress, part: Part, *, share: float
) -> Iterator[SeriesBatch]:
    for batch in batches:
        digest.add(batch)
        progress.advance(part, batch.samples, share)
        yield batch


def _write_blocks(bucket: Bucket, batches: Iterator[SeriesBatch], windows: Sequence[tuple[int, int]], key: str) -> list[BlockMeta]:
    """The metas of the new blocks, one a window that has samples."""
    writers = [BlockWriter(bucket, ulid=_ulid(key, start), min_ms=start, max_ms=end) for start, end in windows]
    for batch in gather(batches):
        for writer, (start, end) in zip(writers, windows, strict=True):
            writer.add(batch.clip(start, end))
    return [meta for writer in writers if (meta := writer.finish()) is not None]


def _ulid(key: str, start_ms: int) -> str:
    """The same for the same part and window, whenever it is imported: a run that was cut off is repaired by the next."""
    return new_ulid(min(max(start_ms, 0), (1 << 48) - 1), bytes.fromhex(fingerprint(key, start_ms))[:10])


def _is_done(bucket: Bucket, key: str) -> bool:
    """Whether the marker is there; one that is damaged is as good as none."""
    try:
        unseal(bucket.get(key), Marker, key=key)
    except (NotFound, Corrupt):
        return False
    return True


def _verify(bucket: Bucket, metas: Sequence[BlockMeta], digest: Digest, part: Part) -> None:
    """Corrupt where what the bucket gives back is not what was read, series by series."""
    blocks = [Block(bucket, read_meta(bucket, meta.ulid)) for meta in metas]
    if not blocks:
        return
    low, high = min(meta.min_ms for meta in metas), max(meta.max_ms for meta in metas)
    found = digest_of(MergeSource(blocks).select(Selection((), low, high)))
    wrong = digest.compare(found)
    if wrong:
        raise Corrupt(f"{part.name}: read back from blocks {', '.join(meta.ulid for meta in metas)}: {wrong}")


def utc_text(ms: int | None) -> str:
    """A time for people; years that calendars of computers lack are told in milliseconds."""
    if ms is None:
        return "never"
    if not -62_135_596_800_000 <= ms < 253_402_300_800_000:
        return f"{ms} ms"
    return f"{np.datetime64(ms, 'ms')}Z"
