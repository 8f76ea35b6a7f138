"""One round of keeping one tenant's part of the bucket in order: what is marked, merged, rewritten, deleted, and in which order.

Sources are marked after what replaces them is committed, the index is written before anything that it named is deleted.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from remote.retention import Retention, expired_blocks, expired_ranges, rules_past
from remote.store_gateway import IGNORE_AFTER_MS
from tsdb.block.block import Block
from tsdb.block.meta import META, BlockMeta, new_ulid
from tsdb.bucket.bucket import Bucket
from tsdb.compaction.bucket_index import SKEW_MS, STALE_MS, Inventory, scan_bucket, write_index
from tsdb.compaction.compact import RANGES_MS, SETTLE_MS, Job, Kind, SourceFailed, check_ranges, plan, run
from tsdb.compaction.downsample import plan_downsample, run_downsample
from tsdb.compaction.lineage import is_made_of, live_blocks
from tsdb.compaction.marks import DeletionMark, NoCompactMark, put_deletion_mark, put_no_compact_mark
from tsdb.compaction.reclaim import deletable, delete_block, delete_everything, spent, unmarked_and_replaced
from tsdb.compaction.tombstones import touching
from tsdb.model.errors import BadData, Corrupt, NotFound, TreeringError, Unavailable
from tsdb.model.matcher import Matcher
from tsdb.model.source import Selection

HOUR_MS = 3_600_000
BACKOFF_MS = 10 * 60_000
"""After a job has failed it waits this long, twice as long each time more, at most a day."""
MAX_REMEMBERED = 10_000
"""Jobs that failed, and blocks that were looked through for expired series, that are remembered at once."""


@dataclass(frozen=True, slots=True)
class CompactorOptions:
    """When the compactor does what.

    A reader refreshes every `refresh_ms` and stops reading a replaced block `ignore_after_ms` after its mark; the block is deleted
    after `delete_after_ms`.
    """

    ranges_ms: tuple[int, ...] = RANGES_MS
    settle_ms: int = SETTLE_MS
    scan_every_ms: int = 300_000
    refresh_ms: int = 30_000
    ignore_after_ms: int = IGNORE_AFTER_MS
    delete_after_ms: int = 12 * HOUR_MS
    incomplete_after_ms: int = 24 * HOUR_MS
    rewrite_after_ms: int = HOUR_MS
    """A block that only a deletion touches is rewritten when that is so old: several deletions then cost one rewrite."""
    stale_ms: int = STALE_MS
    jobs_per_tick: int = 8

    def __post_init__(self) -> None:
        check_ranges(self.ranges_ms)
        if not self.delete_after_ms > self.ignore_after_ms > 3 * self.refresh_ms:
            raise BadData(
                f"compactor: blocks are deleted {self.delete_after_ms} ms after they were marked, readers ignore them after "
                f"{self.ignore_after_ms} ms and refresh every {self.refresh_ms} ms; want delete > ignore > 3 × refresh"
            )
        if self.delete_after_ms <= max(self.stale_ms, SKEW_MS):
            raise BadData(
                f"compactor: blocks are deleted {self.delete_after_ms} ms after they were marked; want more than the "
                f"{self.stale_ms} ms for which readers believe an index and the {SKEW_MS} ms that clocks may be apart"
            )


@dataclass(slots=True)
class Report:
    """What one tick has done."""

    made: list[tuple[str, Job, BlockMeta | None]] = field(default_factory=list)
    marked: list[tuple[str, str, str]] = field(default_factory=list)
    """(tenant, block, reason)"""
    deleted: list[tuple[str, str]] = field(default_factory=list)
    uncompactable: list[tuple[str, str, str]] = field(default_factory=list)
    doubtful: list[tuple[str, str]] = field(default_factory=list)
    """(tenant, block): marked, due, and kept because what replaced it cannot be seen."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    """Tenants of whom nothing is left."""
    waiting: int = 0
    """Jobs that are left for later ticks."""


class Stopped(TreeringError):
    """The process is shutting down: the job under way is given up."""


@dataclass(slots=True)
class Place:
    """What the compactor remembers of a tenant between ticks."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    inventory: Inventory = field(default_factory=Inventory)
    scanned_ms: int | None = None
    indexed: Inventory | None = None
    indexed_ms: int = 0
    unfinished: bool = False
    failures: dict[frozenset[str], tuple[int, int]] = field(default_factory=dict)
    """Of a job, by its sources: how often it has failed, and when it may be tried again."""
    looked_through: set[tuple[str, tuple[Matcher, ...]]] = field(default_factory=set)
    """Blocks without a series that matches."""


@dataclass(frozen=True, slots=True)
class Duty:
    """What is to be done for a tenant: by which options, how long its samples are kept, which jobs are this compactor's.

    `executor` reads metas side by side.
    """

    options: CompactorOptions
    retention: Retention
    owns: Callable[[Job], bool]
    entropy: Callable[[int], bytes]
    executor: Executor | None = None


class TenantWork:
    """One tick over one tenant; `bucket` is its part. Raises what the bucket raises: the next tick goes on."""

    def __init__(
        self, tenant: str, bucket: Bucket, place: Place, duty: Duty, report: Report, *, now_ms: int, stop: Callable[[], bool],
        told: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._tenant, self._bucket, self._place, self._duty, self._report = tenant, bucket, place, duty, report
        self._now_ms, self._stop, self._told = now_ms, stop, told
        self._incomplete: Mapping[str, int] = {}
        self._news: Mapping[str, int] = {}

    def tick(self) -> None:
        self.scan()
        if self._place.inventory.condemned_ms is not None:
            self.remove_condemned(self._place.inventory.condemned_ms)
            return
        self.mark_expired()
        self.mark_replaced()
        self.mark_outdated()
        merges = self.plan(rewrite_after_ms=self._duty.options.rewrite_after_ms)
        jobs = [*merges, *self.plan_expired(), *self.plan_windows()]
        left = self._duty.options.jobs_per_tick - len(self._report.made)
        self.run_jobs(jobs, limit=left)
        self.write_index()
        self.delete_marked()
        self.delete_incomplete()
        self.delete_spent()
        self.delete_old_news()
        self.write_index()

    def rewrite_deleted(self) -> None:
        """Rewrites every block that a deletion touches."""
        self.scan()
        if self._place.inventory.condemned_ms is None:
            tombstones = tuple(self._place.inventory.tombstones.values())
            jobs = self.plan(rewrite_after_ms=0)
            self.run_jobs([job for job in jobs if any(touching(meta, tombstones) for meta in job.sources)], limit=len(jobs))
            self.write_index()

    def scan(self) -> None:
        scan = scan_bucket(self._bucket, self._place.inventory, self._duty.executor)
        self._place.inventory, self._incomplete, self._news = scan.inventory, scan.incomplete, scan.news
        self._place.scanned_ms, self._place.unfinished = self._now_ms, False

    def plan(self, *, rewrite_after_ms: int) -> list[Job]:
        inventory, options = self._place.inventory, self._duty.options
        return plan(
            [meta for meta in inventory.metas.values() if meta.ulid not in inventory.deletions],
            now_ms=self._now_ms,
            ranges_ms=options.ranges_ms,
            settle_ms=options.settle_ms,
            skip=frozenset(inventory.no_compact),
            tombstones=tuple(inventory.tombstones.values()),
            rewrite_after_ms=rewrite_after_ms,
        )

    def plan_expired(self) -> list[Job]:
        """Rewrites of blocks of which all that a retention rule matches is expired, and that hold such series."""
        jobs = []
        for meta in self.live():
            if meta.ulid not in self._place.inventory.no_compact:
                rules = rules_past(meta, self._duty.retention, now_ms=self._now_ms)
                if any(self.holds(meta, rule.matchers) for rule in rules):
                    jobs.append(Job(Kind.REWRITE, (meta,)))
        return jobs

    def plan_windows(self) -> list[Job]:
        """The downsampling that is due."""
        skip = frozenset(self._place.inventory.no_compact)
        return plan_downsample(self.live(), now_ms=self._now_ms, skip=skip, final_range_ms=self._duty.options.ranges_ms[-1])

    def live(self) -> list[BlockMeta]:
        inventory = self._place.inventory
        return [meta for meta in live_blocks(inventory.metas.values()) if meta.ulid not in inventory.deletions]

    def holds(self, meta: BlockMeta, matchers: tuple[Matcher, ...]) -> bool:
        """Whether a block has a series that matches; that it has none is remembered."""
        key = (meta.ulid, matchers)
        if key in self._place.looked_through:
            return False
        try:
            found = len(Block(self._bucket, meta).series(Selection(matchers, meta.min_ms, meta.max_ms))) > 0
        except (Corrupt, NotFound, BadData) as error:
            self.mark_uncompactable(meta.ulid, error)
            return False
        if not found:
            if len(self._place.looked_through) >= MAX_REMEMBERED:
                self._place.looked_through.clear()
            self._place.looked_through.add(key)
        return found

    def run_jobs(self, jobs: Sequence[Job], *, limit: int) -> None:
        """Runs the jobs that are this compactor's and that no source of an earlier one has gone from; others wait."""
        used: set[str] = set()
        for job in jobs:
            ulids = frozenset(meta.ulid for meta in job.sources)
            if used & ulids or not self._duty.owns(job) or self.must_wait(ulids):
                continue
            if limit <= 0:
                self._report.waiting += 1
                self._place.unfinished = True
                continue
            limit -= 1
            used |= ulids
            self.run_job(job, ulids)
        self._place.unfinished |= bool(used)  # what was made may be merged further

    def run_job(self, job: Job, ulids: frozenset[str]) -> None:
        """Makes the job's block and marks its sources; a failure is told and the job waits, a bad source is marked."""
        try:
            make = run_downsample if job.kind == Kind.DOWNSAMPLE else run
            meta = make(
                job,
                self._bucket,
                ulid=new_ulid(self._now_ms, self._duty.entropy(10)),
                tombstones=tuple(self._place.inventory.tombstones.values()),
                expired=expired_ranges(self._duty.retention, now_ms=self._now_ms),
                proceed=self.proceed,
            )
        except SourceFailed as error:
            self.mark_uncompactable(error.ulid, error)
            return
        except (Unavailable, Stopped):
            raise
        except (TreeringError, ValueError, IndexError) as error:  # bytes that pass their checksum and yet make no sense
            self.wait(ulids)
            self._report.failed.append((self._tenant, f"{job.kind} of {', '.join(sorted(ulids))}: {error}"))
            return
        if meta is not None:
            self._place.inventory = self._place.inventory.with_block(meta)
        self._report.made.append((self._tenant, job, meta))
        for source in job.sources if job.kind != Kind.DOWNSAMPLE else ():
            self.mark(
                source.ulid, f"{job.kind} into {meta.ulid}" if meta else f"{job.kind} left nothing", replaced=meta is not None
            )

    def proceed(self) -> None:
        if self._stop():
            raise Stopped("the compactor is stopping")

    def must_wait(self, ulids: frozenset[str]) -> bool:
        return self._place.failures.get(ulids, (0, self._now_ms))[1] > self._now_ms

    def wait(self, ulids: frozenset[str]) -> None:
        if len(self._place.failures) >= MAX_REMEMBERED:
            self._place.failures.clear()
        count = self._place.failures.get(ulids, (0, 0))[0] + 1
        self._place.failures[ulids] = (count, self._now_ms + min(BACKOFF_MS << min(count - 1, 10), 24 * HOUR_MS))

    def mark_expired(self) -> None:
        for meta in expired_blocks(self.live(), self._duty.retention, now_ms=self._now_ms):
            self.mark(meta.ulid, "retention", replaced=False)

    def mark_replaced(self) -> None:
        inventory = self._place.inventory
        for meta in unmarked_and_replaced(inventory, live_blocks(inventory.metas.values())):
            self.mark(meta.ulid, "replaced", replaced=True)

    def mark_outdated(self) -> None:
        """Marks windows that a deletion touches where there are finer blocks to make them of anew."""
        live, tombstones = self.live(), tuple(self._place.inventory.tombstones.values())
        for meta in [meta for meta in live if meta.resolution_ms and touching(meta, tombstones)]:
            if is_made_of(meta, live):
                self.mark(meta.ulid, "samples deleted: made anew of finer ones", replaced=False)

    def mark(self, ulid: str, reason: str, *, replaced: bool) -> None:
        mark = DeletionMark(ulid, self._now_ms, reason, replaced)
        put_deletion_mark(self._bucket, mark)
        self._place.inventory = self._place.inventory.with_deletion(mark)
        self._report.marked.append((self._tenant, ulid, reason))

    def mark_uncompactable(self, ulid: str, error: Exception) -> None:
        """Leaves a bad block out of compaction from now on; one that is gone meanwhile is not bad."""
        self._place.unfinished = True
        if not self._bucket.exists(f"{ulid}/{META}"):
            return
        mark = NoCompactMark(ulid, self._now_ms, str(error))
        put_no_compact_mark(self._bucket, mark)
        self._place.inventory = self._place.inventory.with_no_compact(mark)
        self._report.uncompactable.append((self._tenant, ulid, str(error)))

    def write_index(self) -> None:
        """Puts the index if it has changed, or is about to be too old to be believed."""
        place = self._place
        scanned_ms = place.scanned_ms or 0
        if place.inventory != place.indexed or scanned_ms - place.indexed_ms >= self._duty.options.stale_ms // 3:
            write_index(self._bucket, place.inventory, scanned_ms=scanned_ms)
            place.indexed, place.indexed_ms = place.inventory, scanned_ms
            self._told(self._tenant)

    def delete_marked(self) -> None:
        before_ms = self._now_ms - self._duty.options.delete_after_ms
        sure, doubtful = deletable(self._place.inventory, marked_before_ms=before_ms)
        self._report.doubtful += [(self._tenant, ulid) for ulid in doubtful]
        for ulid in sure:
            delete_block(self._bucket, ulid)
            self._place.inventory = self._place.inventory.without_block(ulid)
            self._report.deleted.append((self._tenant, ulid))

    def delete_incomplete(self) -> None:
        """Uploads that were never finished go by the age of their youngest object: an older one may still be written to."""
        for ulid, modified_ms in self._incomplete.items():
            if ulid not in self._place.inventory.deletions and self._now_ms - modified_ms >= self._duty.options.incomplete_after_ms:
                delete_block(self._bucket, ulid)
                self._report.deleted.append((self._tenant, ulid))

    def delete_spent(self) -> None:
        """Tombstones of which no block holds anything any more; not before a merge that began without them must have ended."""
        inventory = self._place.inventory
        for ulid, tombstone in list(inventory.tombstones.items()):
            if self._now_ms - tombstone.at_ms >= self._duty.options.delete_after_ms and spent(tombstone, inventory):
                self._bucket.delete(tombstone.key)
                self._place.inventory = self._place.inventory.without_tombstone(ulid)

    def delete_old_news(self) -> None:
        """News that the index has long since told, of writers that are no more. (A writer that adds to such old ones just now is
        heard again at the next scan.)"""
        for key, modified_ms in self._news.items():
            if self._now_ms - modified_ms >= max(self._duty.options.incomplete_after_ms, 2 * self._duty.options.stale_ms):
                self._bucket.delete(key)

    def remove_condemned(self, condemned_ms: int) -> None:
        if self._now_ms - condemned_ms >= self._duty.options.delete_after_ms:
            delete_everything(self._bucket)
            self._place.inventory = Inventory()
            self._report.removed.append(self._tenant)
            self._told(self._tenant)
