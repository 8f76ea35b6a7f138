"""Merging: the same whatever the order and however often, equal to a model of one dictionary, and streamed like at once."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cmp_to_key

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.batches import (
    BITS,
    Sample,
    batch_of,
    batches,
    float_bits,
    grid_batch,
    histogram_batch,
    histogram_texts,
    label_sets,
    same_samples,
    samples_of,
)
from tsdb.kernel.downsample import COUNT, FIRST_MS
from tsdb.kernel.merge import merge_runs
from tsdb.merge import MergeSource, compare_labels, merge_batches, merge_streams, merge_tables
from tsdb.model.labels import Labels
from tsdb.model.series import STALE_BITS, SeriesBatch, SeriesTable
from tsdb.model.source import MAX_MS, MIN_MS, Selection
from tsdb.model.windows import windows_of


def total_order(bits: int) -> int:
    """The IEEE total order, the stale marker first, in plain Python."""
    if bits == STALE_BITS:
        return -(1 << 64)
    return bits if bits >= 0 else -(bits & 0x7FFFFFFFFFFFFFFF) - 1


def model(parts: Sequence[SeriesBatch]) -> dict[Labels, list[Sample]]:
    merged: dict[Labels, dict[int, int]] = {}
    for part in parts:
        for labels, samples in samples_of(part).items():
            for t, bits in samples:
                known = merged.setdefault(labels, {})
                known[t] = max(known.get(t, bits), bits, key=total_order)
    return {labels: sorted(samples.items()) for labels, samples in merged.items()}


@given(st.lists(batches(), max_size=4))
@settings(max_examples=300)
def test_merging_is_what_one_dictionary_would_hold(parts: list[SeriesBatch]) -> None:
    merged = merge_batches(parts)
    assert samples_of(merged) == model(parts)
    assert merged.series.order().tolist() == list(range(len(merged)))


@given(st.lists(batches(), min_size=1, max_size=4), st.randoms())
@settings(max_examples=200)
def test_order_and_repetition_do_not_matter(parts: list[SeriesBatch], random) -> None:
    merged = merge_batches(parts)
    shuffled = [*parts, random.choice(parts)]
    random.shuffle(shuffled)
    assert same_samples(merge_batches(shuffled), merged)
    assert same_samples(merge_batches([merged, *parts]), merged)
    assert same_samples(merge_batches([merge_batches(parts[:2]), *parts[2:]]), merged)


@given(st.lists(st.tuples(st.integers(0, 5), BITS), min_size=1, max_size=30))
@settings(max_examples=100)
def test_kernel_agrees_with_its_python_text(samples: list[Sample]) -> None:
    row = Labels.of({"__name__": "m"})
    runs = [batch_of({row: [sample]}) for sample in samples]
    t_ms = np.concatenate([run.t_ms for run in runs])
    order = np.argsort(t_ms, kind="stable")
    bits = np.concatenate([run.values for run in runs]).view(np.int64)
    none = np.empty(0, np.int64)
    picks = []
    for kernel in (merge_runs, merge_runs.py_func):
        pick = np.zeros(len(t_ms), np.int64)
        kept = kernel(t_ms, bits, none, none, order.copy(), order + 1, np.array([0, len(order)]), pick)
        picks.append((kept.tolist(), bits[pick[: kept[0]]].tolist()))
    assert picks[0] == picks[1]


def test_a_histogram_beats_a_float_and_the_larger_wins() -> None:
    histograms = histogram_batch(4, 30)
    floats = replace(histograms, values=np.full(histograms.samples, 5.0), histograms=None, histogram_at=None)
    larger = replace(histograms, histograms=replace(histograms.histograms, sum=histograms.histograms.sum + 1))
    merged = merge_batches([floats, histograms])
    assert same_samples(merged, merge_batches([histograms, floats, histograms]))
    assert histogram_texts(merged) == histogram_texts(histograms)
    assert merged.values[0] == 5.0 or np.isnan(merged.values[0])
    for parts in ([histograms, larger], [larger, floats, histograms]):
        assert [text for text in histogram_texts(merge_batches(parts)) if text] == [
            text for text in histogram_texts(larger) if text
        ]


def test_histograms_that_differ_only_in_a_bucket_have_an_order() -> None:
    a = histogram_batch(3, 10)
    h = a.histograms
    other = replace(h, positive=replace(h.positive, counts=h.positive.counts + 1))
    b = replace(a, histograms=other)
    assert histogram_texts(merge_batches([a, b])) == histogram_texts(merge_batches([b, a, b]))


def test_histograms_one_after_another_and_mixed_up_merge_alike() -> None:
    whole = histogram_batch(5, 30)
    early, late = whole.clip(0, 200_000), whole.clip(200_000, MAX_MS)
    for parts in ([late, early], [early, whole], [whole.where(whole.t_ms % 30_000 == 0), whole]):
        merged = merge_batches(parts)
        assert same_samples(merged, whole) and histogram_texts(merged) == histogram_texts(whole)


def test_start_times_are_kept_and_the_larger_wins() -> None:
    a = grid_batch(2, 3)
    known = replace(a, start_ms=np.full(6, 7, np.int64))
    for parts in ([a, known], [known, a]):
        assert merge_batches(parts).start_ms.tolist() == [7] * 6


def test_warnings_are_passed_on_once() -> None:
    a = replace(grid_batch(1, 1), warnings=("one", "two"))
    assert merge_batches([a, SeriesBatch.empty(("two", "three"))]).warnings == ("one", "two", "three")
    assert merge_batches([SeriesBatch.empty(("w",))]).warnings == ("w",)
    streamed = list(merge_streams([iter([a]), iter([SeriesBatch.empty(("two", "three"))])]))
    assert [batch.warnings for batch in streamed] == [("one", "two", "three")]
    assert [batch.warnings for batch in merge_streams([iter([SeriesBatch.empty(("w",))]), iter([])])] == [("w",)]


@given(st.lists(label_sets(("__name__", "a", "b", "c")), min_size=1, max_size=8, unique=True))
def test_comparing_two_series_is_the_order_of_tables(rows: list[Labels]) -> None:
    table = SeriesTable.of(rows)
    assert table.take(table.order()).rows() == sorted(rows, key=cmp_to_key(compare_labels))


@dataclass(frozen=True)
class Pieces:
    """A source of one batch cut in pieces."""

    batch: SeriesBatch
    cuts: tuple[int, ...]

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        edges = sorted({0, len(self.batch), *(min(cut, len(self.batch)) for cut in self.cuts)})
        for a, b in itertools.pairwise(edges):
            yield self.batch.take(np.arange(a, b))

    def series(self, selection: Selection) -> SeriesTable:
        return self.batch.series


EVERYTHING = Selection((), MIN_MS, MAX_MS)


@given(st.lists(st.builds(Pieces, batches(), st.lists(st.integers(0, 5), max_size=3).map(tuple)), min_size=1, max_size=4))
@settings(max_examples=300)
def test_streaming_is_merging_at_once(sources: list[Pieces]) -> None:
    source = MergeSource(sources)
    found = list(source.select(EVERYTHING))
    assert all(len(batch) for batch in found)
    rows = [row for batch in found for row in batch.series.rows()]
    whole = merge_batches([source.batch for source in sources])
    assert rows == whole.series.rows() == source.series(EVERYTHING).rows()
    assert same_samples(merge_batches(found), whole)


def test_streaming_holds_one_batch_of_each() -> None:
    opened = 0

    def stream(first: int) -> Iterator[SeriesBatch]:
        nonlocal opened
        for i in range(first, 20, 2):
            opened += 1
            yield grid_batch(3, 2, metric=f"m{i:02d}")

    given = 0
    for batch in merge_streams([stream(0), stream(1)]):
        given += len(batch)
        assert opened - given // 3 <= 2
    assert given == 60


def test_tables_merge_without_samples() -> None:
    a, b = grid_batch(3, 1), grid_batch(2, 1, metric="k")
    assert merge_tables([a.series, b.series, a.series]).rows() == [*b.series.rows(), *a.series.rows()]
    assert len(merge_tables([])) == 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_stale_marker_loses(value: float) -> None:
    row = Labels.of({"__name__": "m"})
    parts = [batch_of({row: [(1, STALE_BITS)]}), batch_of({row: [(1, float_bits(value))]})]
    assert samples_of(merge_batches(parts)) == samples_of(merge_batches(parts[::-1])) == {row: [(1, float_bits(value))]}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 12), st.booleans()), max_size=40))
@settings(max_examples=300, deadline=None)
def test_raw_samples_inside_a_window_of_their_series_are_left_out(picks: list[tuple[int, int, int, bool]]) -> None:
    """Windows end at multiples of ten; a raw sample in front of the first sample of its window stays."""
    windows = {(s, -(-t // 10) * 10): span for s, t, span, is_window in picks if is_window}
    raw = {(s, t) for s, t, _, is_window in picks if not is_window}
    merged = merge_batches([batch_at(sorted(raw)), batch_at(sorted(windows), [min(windows[key], 9) for key in sorted(windows)])])
    inside = {(s, t) for s, t in raw if any(w == s and end - min(span, 9) <= t < end for (w, end), span in windows.items())}
    assert [(s, t) for s, samples in enumerate(by_series(merged)) for t in samples] == sorted((raw - inside) | set(windows))
    assert bool(merged.warnings) == bool(inside)


def batch_at(samples: Sequence[tuple[int, int]], first_ms: Sequence[int] | None = None) -> SeriesBatch:
    """Samples by (series, time), of 3 series; with first_ms, windows that begin so long before."""
    offsets = np.searchsorted([s for s, _ in samples], np.arange(4)).astype(np.int64)
    times = np.array([t for _, t in samples], np.int64)
    batch = SeriesBatch(SeriesTable.of([Labels.of({"i": str(i)}) for i in range(3)]), offsets, times, np.ones(len(times)))
    if first_ms is None:
        return batch
    windows = windows_of(batch)
    windows[FIRST_MS], windows[COUNT] = first_ms, 2
    return replace(batch, windows=windows, resolution_ms=10)


def by_series(batch: SeriesBatch) -> list[list[int]]:
    found: list[list[int]] = [[], [], []]
    for i, labels in enumerate(batch.series.rows()):
        found[int(labels.get("i"))] = batch.t_ms[batch.offsets[i] : batch.offsets[i + 1]].tolist()
    return found
