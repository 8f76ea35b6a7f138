"""What a scan passes over because a head knows it: the same series as without, whatever was forgotten and numbered anew since."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from remote.protos import write_v1_pb2 as v1
from remote.wire.decode import decode_write
from remote.wire.limits import WireLimits
from tests.tsdb.writes import contents
from tsdb.head.head import Head, HeadOptions
from tsdb.model.labels import Labels
from tsdb.model.write import NO_SERIES, KnownSeries, WriteBatch, concat_writes

LIMITS = WireLimits()
LONG = "x" * 60
SERIES = [
    Labels.of({"__name__": "m", **labels})
    for labels in ({}, {"a": "1"}, {"a": "1", "b": "2"}, {"a": "2"}, {"a": LONG, "b": "2"}, {"a": LONG, "b": "3"}, {"a": LONG})
]
"""Some begin with all labels of another."""


def body(rows: list[Labels], t_ms: int, *, backwards: bool = False) -> bytes:
    message = v1.WriteRequest()
    for i, labels in enumerate(rows):
        pairs = [v1.Label(name=name, value=value) for name, value in labels.pairs]
        message.timeseries.add(labels=pairs[::-1] if backwards else pairs).samples.add(value=i, timestamp=t_ms)
    return bytes(cramjam.snappy.compress_raw(message.SerializeToString()))


def decode(data: bytes, known: KnownSeries = NO_SERIES, limits: WireLimits = LIMITS) -> WriteBatch:
    return decode_write(data, content_type=None, content_encoding=None, limits=limits, known=known).batch


def plain(batch: WriteBatch) -> list[tuple[bytes, int]]:
    ranges = zip(batch.start.tolist(), batch.end.tolist(), strict=True)
    return list(zip([batch.label_bytes[a:b].tobytes() for a, b in ranges], batch.hash.tolist(), strict=True))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.permutations(range(len(SERIES))), st.integers(1, len(SERIES))),
        st.tuples(st.just("twice"), st.permutations(range(len(SERIES))), st.integers(1, len(SERIES))),
        st.tuples(st.just("hold")),
        st.tuples(st.just("drop"), st.integers(0, 2)),
        st.tuples(st.just("reopen")),
    ),
    max_size=14,
)


@settings(max_examples=150)
@given(STEPS)
def test_what_is_known_changes_no_answer(steps: list[tuple[Any, ...]]) -> None:
    """Requests are decoded with what the head knows now or with what it knew long ago, and stored alone or two as one."""
    with tempfile.TemporaryDirectory() as folder:
        head = Head.open(Path(folder) / "h", options=HeadOptions(), now_ms=0)
        held, want, t_ms = NO_SERIES, dict[Labels, list[tuple[int, float]]](), 0
        for kind, *more in steps:
            t_ms += 1000
            if kind in ("write", "twice"):
                rows = [SERIES[i] for i in more[0][: more[1]]]
                batches = [decode(body(rows, t_ms), head.known_series)]
                if kind == "twice":
                    t_ms += 1000
                    batches.append(decode(body(rows, t_ms), held))
                for batch in batches:
                    assert plain(batch) == [(row.encode(), row.stable_hash()) for row in rows]
                assert not head.append(concat_writes(batches), now_ms=t_ms).rejected
                for batch in batches:
                    for i, row in enumerate(rows):
                        want.setdefault(row, []).append((int(batch.t_ms[i]), float(i)))
            elif kind == "hold":
                held = head.known_series
            elif kind == "drop":
                before_ms = t_ms - 1000 * more[0]
                if (cut := head.cut(before_ms)) is not None:
                    head.drop(cut)
                later = {row: [(t, value) for t, value in samples if t >= before_ms] for row, samples in want.items()}
                want = {row: samples for row, samples in later.items() if samples}
            elif kind == "reopen":
                head.close()
                head = Head.open(Path(folder) / "h", options=HeadOptions(), now_ms=t_ms)
        assert contents(head) == want
        head.close()


def test_series_in_the_order_of_before_are_known_and_others_found_again(tmp_path: Path) -> None:
    head = Head.open(tmp_path / "h", options=HeadOptions(), now_ms=0)
    head.append(decode(body(SERIES, 1000)), now_ms=1000)
    known = head.known_series
    batch = decode(body(SERIES, 2000), known)
    assert batch.known is not None and batch.known.refs.tolist() == list(range(len(SERIES)))
    for order in (SERIES[3:], SERIES[::-1], [SERIES[4], SERIES[5], SERIES[0], SERIES[1]]):
        batch = decode(body(order, 2000), known)
        assert batch.known is not None
        assert set(batch.known.refs.tolist()) <= {-1, *(SERIES.index(row) for row in order)}
        assert plain(batch) == [(row.encode(), row.stable_hash()) for row in order]
    unsorted = decode(body(SERIES[1:3], 2000, backwards=True), known)
    assert plain(unsorted) == [(row.encode(), row.stable_hash()) for row in SERIES[1:3]]
    head.close()


def test_refs_of_another_head_mean_nothing(tmp_path: Path) -> None:
    one, two = (Head.open(tmp_path / name, options=HeadOptions(), now_ms=0) for name in ("one", "two"))
    one.append(decode(body(SERIES, 1000)), now_ms=1000)
    two.append(decode(body(SERIES[::-1], 1000)), now_ms=1000)
    batch = decode(body(SERIES, 2000), one.known_series)
    for head in (one, two):
        head.append(batch, now_ms=2000)
        assert [samples[-1][1] for samples in map(contents(head).__getitem__, SERIES)] == list(range(len(SERIES)))
        head.close()


def test_a_taken_part_keeps_its_refs(tmp_path: Path) -> None:
    head = Head.open(tmp_path / "h", options=HeadOptions(), now_ms=0)
    head.append(decode(body(SERIES, 1000)), now_ms=1000)
    batch = decode(body(SERIES, 2000), head.known_series)
    part = batch.take(np.array([5, 2]))
    assert part.known is not None and part.known.refs.tolist() == [5, 2]
    joined = concat_writes([part, replace(part, known=None)])
    assert joined.known is None and len(joined) == 4
    head.close()


def test_limits_that_were_lowered_hold_for_series_of_before(tmp_path: Path) -> None:
    """What is in the log of an earlier process was not checked by this one's limits."""
    head = Head.open(tmp_path / "h", options=HeadOptions(), now_ms=0)
    head.append(decode(body(SERIES, 1000)), now_ms=1000)
    head.close()
    head = Head.open(tmp_path / "h", options=HeadOptions(), now_ms=1000)
    narrow = WireLimits(value_bytes=10)
    assert len(decode(body(SERIES, 2000), head.known_series, narrow)) == 4
    head.append(decode(body(SERIES[:2], 2000), head.known_series, narrow), now_ms=2000)
    assert len(decode(body(SERIES, 3000), head.known_series, narrow)) == 4
    head.close()
