"""The store gateway: the blocks of every tenant in the bucket, as Sources.

It knows what `refresh` found; an ingester that shares its process also tells it of each new block (`add`). Footers, indexes
and pages are read when a query needs them, and a bounded number of blocks stays open with what it has read.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from remote.blocks import GuardedBlock, Told, choose_blocks, damage
from remote.tenants import check_tenant
from tsdb.block import Block
from tsdb.block_meta import META, BlockMeta, is_ulid, read_meta
from tsdb.bucket import Bucket, PrefixBucket
from tsdb.merge import MergeSource
from tsdb.model.errors import BadData, NotFound, TreeringError
from tsdb.model.estimate import Estimate, estimate
from tsdb.model.series import SeriesBatch, SeriesTable
from tsdb.model.source import Selection, Source

MAX_OPEN_BLOCKS = 512
"""Blocks that keep what they have read of their index; the least recently asked are closed first."""


@dataclass(frozen=True, slots=True)
class TenantBlocks:
    """What is known of one tenant: its sound blocks, and for each other one the warning that every answer carries."""

    metas: dict[str, BlockMeta]
    damaged: dict[str, str]


NOTHING = TenantBlocks({}, {})


class StoreGateway:
    """The blocks in a bucket whose keys are `<tenant>/<ulid>/…`. Thread-safe."""

    def __init__(self, bucket: Bucket, *, max_open_blocks: int = MAX_OPEN_BLOCKS) -> None:
        self._bucket, self._max_open = bucket, max_open_blocks
        self._lock = threading.Lock()
        self._tenants: dict[str, TenantBlocks] = {}
        self._open: OrderedDict[tuple[str, str], Block] = OrderedDict()

    def refresh(self, now_ms: int) -> None:
        """Looks which blocks there are; reads the metas of new ones and, again, of damaged ones.

        A block without meta.json is being written or was left half written: it does not exist. Unavailable if the bucket
        cannot be listed; what was known then stays. Costs a listing of the whole bucket and one read a new block.
        """
        before = self._tenants
        found: dict[str, TenantBlocks] = {}
        for tenant, ulid in self._committed():
            known = before.get(tenant, NOTHING)
            now = found.setdefault(tenant, TenantBlocks({}, {}))
            if ulid in known.metas:
                now.metas[ulid] = known.metas[ulid]
            else:
                self._read(tenant, ulid, now)
        with self._lock:
            for tenant, blocks in self._tenants.items():  # told of by `add` since the listing began
                for ulid in blocks.metas.keys() - before.get(tenant, NOTHING).metas.keys():
                    found.setdefault(tenant, TenantBlocks({}, {})).metas[ulid] = blocks.metas[ulid]
            self._tenants = found
            for tenant, ulid in [key for key in self._open if key[1] not in found.get(key[0], NOTHING).metas]:
                del self._open[tenant, ulid]

    def add(self, tenant: str, meta: BlockMeta) -> None:
        """Makes a block that has just been written known without a refresh."""
        with self._lock:
            blocks = self._tenants.get(tenant, NOTHING)
            self._tenants = {**self._tenants, tenant: TenantBlocks({**blocks.metas, meta.ulid: meta}, blocks.damaged)}

    def tenants(self) -> list[str]:
        """All tenants with blocks."""
        return sorted(self._tenants)

    def blocks(self, tenant: str) -> TenantBlocks:
        """What is known of the tenant's blocks."""
        return self._tenants.get(tenant, NOTHING)

    def source(self, tenant: str) -> Source:
        """The tenant's blocks as they are known when it is asked."""
        return _TenantSource(self, tenant)

    def open_block(self, tenant: str, meta: BlockMeta) -> Block:
        """The block, with what it has read before if it is still open."""
        key = (tenant, meta.ulid)
        with self._lock:
            block = self._open.get(key)
            if block is None:
                block = self._open[key] = Block(PrefixBucket(self._bucket, tenant), meta)
            self._open.move_to_end(key)
            if len(self._open) > self._max_open:
                self._open.popitem(last=False)
            return block

    def _committed(self) -> Iterator[tuple[str, str]]:
        """(tenant, ulid) of every meta.json; keys that no tenant can have are others' objects."""
        for entry in self._bucket.list():
            parts = entry.key.split("/")
            if len(parts) == 3 and parts[2] == META and is_ulid(parts[1]) and _is_tenant(parts[0]):
                yield parts[0], parts[1]

    def _read(self, tenant: str, ulid: str, into: TenantBlocks) -> None:
        try:
            into.metas[ulid] = read_meta(PrefixBucket(self._bucket, tenant), ulid)
        except NotFound:
            return  # deleted since it was listed
        except (TreeringError, OSError) as error:  # one that cannot be read now stops no other; it is told, and tried again
            into.damaged[ulid] = damage(ulid, error)


class _TenantSource:
    """One tenant's blocks. Those that the range does not touch are not opened."""

    def __init__(self, gateway: StoreGateway, tenant: str) -> None:
        self._gateway, self._tenant = gateway, tenant

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        return self._merged(selection).select(selection)

    def series(self, selection: Selection) -> SeriesTable:
        return self._merged(selection).series(selection)

    def estimate(self, selection: Selection) -> Estimate:
        return estimate(self._merged(selection), selection)

    def _merged(self, selection: Selection) -> Source:
        known = self._gateway.blocks(self._tenant)
        sources: list[Source] = [
            GuardedBlock(meta.ulid, self._gateway.open_block(self._tenant, meta))
            for meta in choose_blocks(list(known.metas.values()), selection)
        ]
        if known.damaged:
            sources.append(Told(tuple(known.damaged.values())))
        return sources[0] if len(sources) == 1 else MergeSource(sources)


def _is_tenant(name: str) -> bool:
    try:
        check_tenant(name)
    except BadData:
        return False
    return True
