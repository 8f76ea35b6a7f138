"""The operator's half of the HTTP API: delete series, reclaim their space, delete tenants, see the blocks."""

from dataclasses import dataclass

import orjson

from remote.deletion import Deletion
from treering.http.api_series import matcher_sets, time_range
from treering.http.asgi import Request, Response
from treering.node import Node
from tsdb.block.meta import BlockMeta
from tsdb.model.errors import BadData
from tsdb.model.source import MAX_MS


@dataclass(frozen=True, slots=True)
class AdminApi:
    """Handlers over one node."""

    node: Node

    def delete_series(self, request: Request) -> Response:
        """POST/PUT admin/tsdb/delete_series: hides the matching series' samples in [start, end]; 204 once no reader finds them.

        With dry_run=true nothing is deleted, and the answer counts series and samples.
        """
        tenant = self._tenant(request)
        sets = matcher_sets(request)
        if not sets:
            raise BadData("no match[] parameter provided")
        start_ms, end_ms = time_range(request)
        deletion = Deletion(tuple(sets), start_ms, min(end_ms + 1, MAX_MS))
        if _flag(request, "dry_run"):
            counted = self.node.upkeep.count(self.node.source((tenant,)), deletion)
            return _success({"series": counted.series, "samples": counted.samples})
        self.node.upkeep.delete_series(tenant, deletion, self.node.ingesters, self.node.flush)
        return Response(204)

    def clean_tombstones(self, request: Request) -> Response:
        """POST/PUT admin/tsdb/clean_tombstones: rewrites the blocks that hold deleted samples; 204 when it is done."""
        self.node.upkeep.clean_tombstones(self._tenant(request))
        return Response(204)

    def delete_tenant(self, request: Request) -> Response:
        """POST admin/delete_tenant: everything the tenant has is hidden at once, and removed after the deletion delay."""
        self.node.upkeep.delete_tenant(self._tenant(request), self.node.ingesters)
        return Response(200)

    def delete_tenant_status(self, request: Request) -> Response:
        """GET admin/delete_tenant_status: whether anything of the tenant is left in the bucket."""
        tenant = self._tenant(request)
        return Response(body=orjson.dumps({"tenant_id": tenant, "blocks_deleted": not self.node.has_objects(tenant)}))

    def blocks(self, request: Request) -> Response:
        """GET blocks: the tenant's blocks as queries see them, with their marks."""
        known = self.node.store_gateway.blocks(self._tenant(request))
        answering = {block.meta.ulid: len(block.tombstones) for block in known.live}
        inventory = known.inventory
        rows = [
            {
                **_row(meta),
                "answers": meta.ulid in answering,
                "tombstones": answering.get(meta.ulid, 0),
                "deletion": inventory.deletions[meta.ulid].reason if meta.ulid in inventory.deletions else "",
                "noCompact": inventory.no_compact[meta.ulid].reason if meta.ulid in inventory.no_compact else "",
            }
            for meta in sorted(inventory.metas.values(), key=lambda meta: (meta.min_ms, meta.ulid))
        ]
        return _success({"blocks": rows, "damaged": dict(inventory.damaged)})

    def _tenant(self, request: Request) -> str:
        return self.node.tenant_of(request.headers)


def _row(meta: BlockMeta) -> dict[str, object]:
    return {
        "ulid": meta.ulid,
        "minTime": meta.min_ms,
        "maxTime": meta.max_ms,
        "level": meta.level,
        "resolution": meta.resolution_ms,
        "series": meta.series,
        "samples": meta.samples,
        "bytes": meta.size_bytes,
        "sources": len(meta.sources),
    }


def _flag(request: Request, name: str) -> bool:
    text = (request.param(name) or "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise BadData(f'invalid parameter "{name}": {text!r} is neither true nor false')
    return text in ("true", "1")


def _success(data: object) -> Response:
    return Response(body=orjson.dumps({"status": "success", "data": data}))
