"""What is kept of pages in memory, bounded in bytes, shared by blocks, heads and threads: opened, and decoded if wanted again."""

from collections.abc import Sequence

from tsdb.block.page import Page, PageValues, open_page
from tsdb.block.part_cache import Key, PartCache
from tsdb.block.value_cache import ValueCache

KEEP_FROM = 4
"""The values of a page come here if one in so many of its series is wanted: decoding fewer by themselves takes less time."""
MAX_VALUES_BYTES = 128 << 20
"""Copying values takes less time than decoding them while they are in the processor's caches; out of memory it takes as long."""


class PageCache:
    """Half of the bytes, MAX_VALUES_BYTES at most, are for values, 8 each; the rest for opened pages, of which a sample takes 2."""

    def __init__(self, limit_bytes: int) -> None:
        self.values = ValueCache(min(limit_bytes // 2, MAX_VALUES_BYTES))
        self.opened = PartCache(limit_bytes - self.values.limit_bytes)

    @property
    def size_bytes(self) -> int:
        return self.opened.size_bytes + self.values.size_bytes

    def find(self, keys: Sequence[Key]) -> list[Page | None]:
        """The opened pages of those keys, None for each that is not known."""
        return [found if isinstance(found, Page) else None for found in self.opened.find(keys)]

    def open(self, key: Key, data: bytes | memoryview) -> Page:
        """The page in `data`, which is kept. Corrupt where that is no page."""
        page = open_page(data)
        self.opened.keep(key, page, page.size_bytes)
        return page

    def values_of(self, key: Key, page: Page, wanted: int) -> PageValues | None:
        """The values of a page that was found here and of which so many series are wanted; None where they are not kept."""
        if page.names or page.layout is not None:
            return None
        if wanted * KEEP_FROM < len(page):
            return self.values.find(key)
        return self.values.get(key, 8 * page.samples, page.whole_values)
