"""The cache of block parts: bounded, least recently used goes first."""

from tsdb.block.part_cache import PartCache


def test_the_least_recently_used_goes_when_the_bytes_are_over() -> None:
    cache = PartCache(limit_bytes=100)
    for key in ("a", "b", "a", "c"):
        assert cache.get((key,), lambda key=key: (key, 40)) == key
    assert (cache.hits, cache.misses, cache.size_bytes) == (1, 3, 80)
    assert cache.get(("a",), lambda: ("new", 40)) == "a"
    assert cache.get(("b",), lambda: ("new", 40)) == "new"


def test_one_part_over_the_limit_is_given_and_not_kept() -> None:
    cache = PartCache(limit_bytes=100)
    assert cache.get(("big",), lambda: (1, 101)) == 1
    assert cache.get(("big",), lambda: (2, 100)) == 2
    assert cache.size_bytes == 100
