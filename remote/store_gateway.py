"""The store gateway: the blocks of every tenant in the bucket, as Sources.

A tenant's blocks become known when it is first asked for, from its bucket index (`tsdb.compaction.bucket_index`), and again at
each `refresh` while it is asked for;
an ingester or compactor in the same process tells of what it does at once. Footers, indexes and pages are
read when a query needs them, through caches that are bounded in bytes and shared by all blocks.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

from remote.blocks import GuardedBlock, Stretch, Told, coarser_only, damage
from remote.tenants import check_tenant
from tsdb.block.block import Block, open_blocks
from tsdb.block.meta import BlockMeta
from tsdb.block.page_cache import PageCache
from tsdb.block.part_cache import PartCache
from tsdb.block.run import AHEAD, BlockPiece, BlockRun
from tsdb.bucket.bucket import Bucket, PrefixBucket
from tsdb.bucket.range_cache import RangeCache
from tsdb.compaction.bucket_index import STALE_MS, Inventory, LiveBlock, answering, read_inventory
from tsdb.compaction.coverage import Piece, Shelf, cover
from tsdb.compaction.tombstones import BuriedSource, Tombstone
from tsdb.merge import MergeSource
from tsdb.model.errors import BadData
from tsdb.model.estimate import Estimate, estimate
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Selection, Source

MAX_OPEN_BLOCKS = 512
"""Blocks kept open; one costs little, what it has read is in the caches."""
MAX_TENANTS = 10_000
"""Tenants whose blocks are known; the one not asked for longest is forgotten first, and read again when it is asked for."""
IDLE_MS = 600_000
"""A tenant not asked for this long is forgotten."""
IGNORE_AFTER_MS = 3_600_000
"""How long a block that others replace is read after it was marked: each reader refreshes three times in it, and knows those."""
INDEX_CACHE_BYTES, PAGE_CACHE_BYTES = 128 << 20, 256 << 20
_STRIPES = 64
"""Locks over the tenants: an index is read by one thread at a time, lest an older reading replace a newer one."""


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How a store gateway works."""

    max_open_blocks: int = MAX_OPEN_BLOCKS
    max_tenants: int = MAX_TENANTS
    ignore_after_ms: int = IGNORE_AFTER_MS
    stale_ms: int = STALE_MS
    index_cache_bytes: int = INDEX_CACHE_BYTES
    page_cache_bytes: int = PAGE_CACHE_BYTES
    ahead: int = AHEAD
    """Batches of a query that are decoded before they are asked for."""


@dataclass(frozen=True, slots=True)
class TenantBlocks:
    """What is known of one tenant: its blocks, and those of them that answer; `shelf` has their metas."""

    inventory: Inventory = field(default_factory=Inventory)
    live: tuple[LiveBlock, ...] = ()
    shelf: Shelf = field(default_factory=lambda: Shelf.of([]))
    asked_ms: int = 0

    @property
    def metas(self) -> dict[str, BlockMeta]:
        """The sound blocks by their ulids."""
        return dict(self.inventory.metas)

    @property
    def damaged(self) -> dict[str, str]:
        """For each block that is known to be unreadable the warning that every answer carries."""
        return {ulid: damage(ulid, problem) for ulid, problem in self.inventory.damaged.items()}


class StoreGateway:
    """The blocks in a bucket whose keys are `<tenant>/<ulid>/…`. Thread-safe.

    `executor` runs range reads side by side, and `scan_executor` those of metas where a tenant's index is missing or stale: another
    one, since refreshes that run in the first wait for these. `ranges` keeps what they read outside of this process.
    """

    def __init__(
        self,
        bucket: Bucket,
        options: GatewayOptions | None = None,
        *,
        executor: Executor | None = None,
        scan_executor: Executor | None = None,
        ranges: RangeCache | None = None,
    ) -> None:
        self.options = options or GatewayOptions()
        self.index_cache = PartCache(self.options.index_cache_bytes)
        self.page_cache = PageCache(self.options.page_cache_bytes)
        self._bucket, self.executor, self._ranges = bucket, executor, ranges
        self._scan_executor = scan_executor
        self._lock = threading.Lock()
        self._loading = [threading.Lock() for _ in range(_STRIPES)]
        self._now_ms: int | None = None
        self._known: OrderedDict[str, TenantBlocks] = OrderedDict()
        self._told: dict[str, Inventory] = {}
        self._open: OrderedDict[tuple[str, str], Block] = OrderedDict()

    def refresh(self, now_ms: int) -> None:
        """Reads the indexes of the tenants that are asked for. Before the first refresh nothing is known but what was told.

        Unavailable if the bucket cannot be read; what was known then stays.
        """
        self._now_ms = now_ms
        with self._lock:
            for tenant in [tenant for tenant, blocks in self._known.items() if now_ms - blocks.asked_ms > IDLE_MS]:
                del self._known[tenant]
            tenants, told = list(self._known), self._told.keys() - self._known.keys()
        for tenant in told:  # who asks for them finds in the bucket what was told
            with self._stripe(tenant):
                self._told.pop(tenant, None)
        run = map if self.executor is None else self.executor.map
        deque(run(lambda tenant: self._load(tenant, now_ms), tenants), maxlen=0)

    def look_ahead(self, tenants: Sequence[str]) -> None:
        """Reads the indexes of tenants who are likely to be asked for, so that the first query need not. Unavailable."""
        run = map if self.executor is None else self.executor.map
        deque(run(self.blocks, tenants), maxlen=0)

    def reload(self, tenant: str, now_ms: int) -> None:
        """Reads one tenant's index now, if the tenant is one of those asked for."""
        if tenant in self._known:
            self._load(tenant, now_ms)

    def add(self, tenant: str, meta: BlockMeta) -> None:
        """Makes a block that has just been written known without a refresh."""
        self._tell(tenant, Inventory(metas={meta.ulid: meta}))

    def bury(self, tenant: str, tombstone: Tombstone) -> None:
        """Hides what a tombstone deletes, without a refresh."""
        self._tell(tenant, Inventory(tombstones={tombstone.ulid: tombstone}))

    def tenants(self) -> list[str]:
        """All tenants that have anything in the bucket; lists the names of its folders."""
        return [name for name in self._bucket.folders() if is_tenant(name)]

    def asked(self) -> dict[str, TenantBlocks]:
        """What is known of the tenants that are asked for, without reading anything: for metrics."""
        with self._lock:
            return dict(self._known)

    def blocks(self, tenant: str) -> TenantBlocks:
        """What is known of the tenant's blocks; read from its index if it was not asked for lately. Unavailable."""
        now_ms = self._now_ms
        with self._lock:
            known = self._known.get(tenant)
            if known is not None:
                self._known.move_to_end(tenant)
                if now_ms is not None and now_ms > known.asked_ms:
                    known = self._known[tenant] = replace(known, asked_ms=now_ms)
                return known
        if now_ms is None:
            return self._view(self._told.get(tenant, Inventory()), 0)
        return self._load(tenant, now_ms)

    def source(self, tenant: str) -> Source:
        """The tenant's blocks as they are known when it is asked."""
        return _TenantSource(self, tenant)

    def open_block(self, tenant: str, meta: BlockMeta) -> Block:
        """The block, over the shared caches."""
        key = (tenant, meta.ulid)
        with self._lock:
            block = self._open.get(key)
            if block is None or block.meta is not meta:
                block = self._open[key] = Block(
                    PrefixBucket(self._bucket, tenant),
                    meta,
                    self.index_cache,
                    self.executor,
                    page_cache=self.page_cache,
                    ranges=self._ranges,
                )
            self._open.move_to_end(key)
            if len(self._open) > self.options.max_open_blocks:
                self._open.popitem(last=False)
            return block

    def _load(self, tenant: str, now_ms: int) -> TenantBlocks:
        """Reads what is known of the tenant, and adds what was told of it meanwhile."""
        with self._stripe(tenant):
            with self._lock:
                known, before = self._known.get(tenant, TenantBlocks(asked_ms=now_ms)), self._told.get(tenant)
            bucket = PrefixBucket(self._bucket, tenant)
            found = read_inventory(
                bucket, known.inventory, now_ms=now_ms, stale_ms=self.options.stale_ms, executor=self._scan_executor
            )
            with self._lock:
                told = _without(self._told.pop(tenant, None), before)
                if told is not None:
                    self._told[tenant] = told
                    found = _with(found, told)
                blocks = self._known[tenant] = self._view(found, self._known.get(tenant, known).asked_ms)
                if len(self._known) > self.options.max_tenants:
                    self._known.popitem(last=False)
                return blocks

    def _stripe(self, tenant: str) -> threading.Lock:
        return self._loading[hash(tenant) % _STRIPES]

    def _tell(self, tenant: str, news: Inventory) -> None:
        """Adds to what is known. It is kept until a reading that begins after this, which finds it in the bucket."""
        with self._lock:
            self._told[tenant] = _with(self._told.get(tenant, Inventory()), news)
            known = self._known.get(tenant)
            if known is not None:
                self._known[tenant] = self._view(_with(known.inventory, news), known.asked_ms)

    def _view(self, inventory: Inventory, asked_ms: int) -> TenantBlocks:
        live = answering(inventory, now_ms=self._now_ms or 0, ignore_after_ms=self.options.ignore_after_ms)
        return TenantBlocks(inventory, live, Shelf.of([block.meta for block in live]), asked_ms)


class _TenantSource:
    """One tenant's blocks. Those that the range does not touch are not opened."""

    def __init__(self, gateway: StoreGateway, tenant: str) -> None:
        self._gateway, self._tenant = gateway, tenant

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        return self._merged(selection).select(selection)

    def series(self, selection: Selection) -> SeriesTable:
        return self._merged(selection, labels_only=True).series(selection)

    def estimate(self, selection: Selection) -> Estimate:
        return estimate(self._merged(selection), selection)

    def _merged(self, selection: Selection, *, labels_only: bool = False) -> Source:
        known = self._gateway.blocks(self._tenant)
        tombstones = {block.meta.ulid: block.tombstones for block in known.live}
        coverage = cover(known.shelf, selection)
        pieces = (*coverage.pieces, *(coverage.coarser_only if labels_only else ()))
        blocks = {piece.meta.ulid: self._gateway.open_block(self._tenant, piece.meta) for piece in pieces}
        open_blocks(list(blocks.values()), self._gateway.executor)
        sources: list[Source] = []
        plain = [piece for piece in pieces if not tombstones[piece.meta.ulid]]
        sources += [self._run(blocks, plain)] if plain else []
        for piece in (piece for piece in pieces if tombstones[piece.meta.ulid]):
            meta, block = piece.meta, blocks[piece.meta.ulid]
            guarded = GuardedBlock(meta.ulid, BuriedSource(block, tombstones[meta.ulid], meta))
            sources.append(Stretch(guarded, piece.start_ms, piece.end_ms))
        if coverage.coarser_only and not labels_only:
            sources.append(Told((coarser_only(coverage.coarser_only),)))
        if known.inventory.damaged:
            sources.append(Told(tuple(known.damaged.values())))
        return sources[0] if len(sources) == 1 else MergeSource(sources)

    def _run(self, blocks: Mapping[str, Block], pieces: Sequence[Piece]) -> BlockRun:
        run = tuple(BlockPiece(blocks[piece.meta.ulid], piece.start_ms, piece.end_ms) for piece in pieces)
        gateway = self._gateway
        return BlockRun(run, gateway.index_cache, gateway.executor, damage, ahead=gateway.options.ahead)


def is_tenant(name: str) -> bool:
    """Whether a folder of the bucket can be a tenant's; others are someone else's."""
    try:
        check_tenant(name)
    except BadData:
        return False
    return True


def _with(known: Inventory, more: Inventory) -> Inventory:
    return replace(known, metas={**known.metas, **more.metas}, tombstones={**known.tombstones, **more.tombstones})


def _without(told: Inventory | None, before: Inventory | None) -> Inventory | None:
    """What was told since `before`; None if nothing was."""
    if told is None or before is None:
        return told
    metas = {ulid: meta for ulid, meta in told.metas.items() if ulid not in before.metas}
    tombstones = {ulid: one for ulid, one in told.tombstones.items() if ulid not in before.tombstones}
    return Inventory(metas=metas, tombstones=tombstones) if metas or tombstones else None
