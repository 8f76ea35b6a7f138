"""Every chunk encoding of Prometheus against an encoder that is written from the format's description."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb import prometheus_files as files
from tests.tsdb.batches import BITS
from tsdb.model.errors import BadData, Corrupt
from tsdb.model.histogram import COUNTER_RESET, GAUGE, NOT_COUNTER_RESET, UNKNOWN_RESET
from tsdb.model.series import STALE_BITS
from tsdb.prometheus.chunk import Chunks, ChunkSamples, decode_chunks, padded

TIMES = st.lists(st.one_of(st.integers(1, 40_000), st.sampled_from([15_000, 1 << 20, 1 << 34])), min_size=0, max_size=300)


def decode(*chunks: tuple[int, bytes]) -> ChunkSamples:
    data = b"".join(body for _, body in chunks)
    end = np.cumsum([len(body) for _, body in chunks])
    start = end - np.array([len(body) for _, body in chunks])
    encoding = np.array([encoding for encoding, _ in chunks], np.uint8)
    return decode_chunks(Chunks(padded(data), start, end, encoding, [f"chunk {i}" for i in range(len(chunks))]))


@settings(max_examples=150)
@given(st.data())
def test_xor(data: st.DataObject) -> None:
    steps = data.draw(TIMES)
    times = np.cumsum([data.draw(st.integers(-(1 << 40), 1 << 41)), *steps]).tolist()
    bits = [b & (1 << 64) - 1 for b in data.draw(st.lists(BITS, min_size=len(times), max_size=len(times)))]
    for i in range(len(bits)):
        if i % 3:
            bits[i] = bits[i - 1]
    samples = list(zip(times, bits, strict=True))
    found = decode((files.XOR, files.xor_chunk(samples)), (files.XOR, files.xor_chunk(samples[:1])))
    assert found.t_ms.tolist() == [*times, times[0]]
    assert found.values.view(np.uint64).tolist() == [*bits, bits[0]]
    assert found.at.tolist() == [0, len(times), len(times) + 1]
    assert found.start_ms is None


@settings(max_examples=150)
@given(st.data())
def test_xor2(data: st.DataObject) -> None:
    steps = data.draw(TIMES)
    times = np.cumsum([data.draw(st.integers(0, 1 << 41)), *steps]).tolist()
    bits = [b & (1 << 64) - 1 for b in data.draw(st.lists(BITS, min_size=len(times), max_size=len(times)))]
    starts = [0] * len(times)
    if data.draw(st.booleans()):
        for i in range(data.draw(st.integers(0, len(times))), len(times)):
            starts[i] = times[i] - 1 - data.draw(st.integers(0, 5)) * (i // 7)
    found = decode((files.XOR2, files.xor2_chunk(list(zip(starts, times, bits, strict=True)))))
    assert found.t_ms.tolist() == times
    assert found.values.view(np.uint64).tolist() == bits
    assert (found.start_ms.tolist() if found.start_ms is not None else [0] * len(times)) == starts


def histogram_samples(
    count: int, *, fractions: bool, stale_from: int = 1 << 30, starts: bool = False
) -> list[files.HistogramSample]:
    out = []
    for i in range(count):
        positive = [float(3 * i), 7.0 + (i % 5), float(i * i)]
        if fractions:
            positive = [value / 3 for value in positive]
        negative = [float(i % 4)]
        stale = i >= stale_from
        bits = STALE_BITS if stale else files.float_bits(i * 0.37)
        count_ = 0.0 if stale else sum(positive) + sum(negative) + i
        out.append(files.HistogramSample(1000 + 15_000 * i + i % 3, count_, 0.0 if stale else float(i), bits, positive, negative,
                                         500 + (i // 4) if starts and i > 1 else 0))  # fmt: skip
    return out


@pytest.mark.parametrize("encoding", [files.HISTOGRAM, files.FLOAT, files.HISTOGRAM_START, files.FLOAT_START])
@pytest.mark.parametrize("count", [1, 2, 140])
@pytest.mark.parametrize("schema", [3, -53])
def test_histograms(encoding: int, count: int, schema: int) -> None:
    integer, started = encoding in (files.HISTOGRAM, files.HISTOGRAM_START), encoding >= files.HISTOGRAM_START
    layout = files.Layout(schema=schema, bounds=(0.25, 1.0, 2.125, 1 / 3, 9.0, 1e9) if schema == -53 else (), zero_threshold=0.001)
    samples = histogram_samples(count, fractions=not integer, starts=started)
    found = decode((encoding, files.histogram_chunk(layout, samples, encoding)))
    h = found.histograms
    assert h is not None and found.histogram_at is not None
    assert found.histogram_at.tolist() == list(range(count))
    assert found.t_ms.tolist() == [s.t for s in samples]
    assert (found.start_ms.tolist() if found.start_ms is not None else [0] * count) == [s.start for s in samples]
    assert h.count.tolist() == [s.count for s in samples]
    assert h.zero_count.tolist() == [s.zero_count for s in samples]
    assert h.sum.view(np.uint64).tolist() == [s.sum_bits for s in samples]
    assert set(h.schema.tolist()) == {schema} and set(h.zero_threshold.tolist()) == {0.001} and set(h.integer.tolist()) == {integer}
    assert h.bounds.tolist() == list(layout.bounds) * count
    for i, sample in enumerate(samples):
        for side, places, counts in ((h.positive, [0, 1, 5], sample.positive), (h.negative, [-2], sample.negative)):
            part = slice(side.offsets[i], side.offsets[i + 1])
            wanted = {place: value for place, value in zip(places, counts, strict=True) if value}
            assert dict(zip(side.index[part].tolist(), side.counts[part].tolist(), strict=True)) == wanted


def test_reset_hints() -> None:
    samples = histogram_samples(3, fractions=False)
    for encoding in (files.HISTOGRAM, files.HISTOGRAM_START):
        for bits, first, later in ((0, UNKNOWN_RESET, NOT_COUNTER_RESET), (1, UNKNOWN_RESET, NOT_COUNTER_RESET),
                                   (2, COUNTER_RESET, NOT_COUNTER_RESET), (3, GAUGE, GAUGE)):  # fmt: skip
            chunk = files.histogram_chunk(files.Layout(reset=bits), samples, encoding)
            found = decode((encoding, chunk), (encoding, chunk)).histograms
            assert found is not None
            assert found.hint.tolist() == [first, later, later] * 2


def test_stale_histograms_become_stale_floats() -> None:
    for encoding in (files.HISTOGRAM, files.FLOAT):
        samples = histogram_samples(6, fractions=encoding == files.FLOAT, stale_from=4)
        floats = files.xor_chunk([(1, files.float_bits(2.5))])
        found = decode((files.XOR, floats), (encoding, files.histogram_chunk(files.Layout(), samples, encoding)))
        assert found.histogram_at is not None and found.histograms is not None
        assert found.histogram_at.tolist() == [-1, 0, 1, 2, 3, -1, -1]
        assert found.values.view(np.uint64)[5:].tolist() == [STALE_BITS] * 2
        assert found.values[0] == 2.5
        assert len(found.histograms) == 4


def test_unknown_encodings_and_schemas_are_refused() -> None:
    with pytest.raises(BadData, match="chunk 1: encoding 9 is not known"):
        decode((files.XOR, files.xor_chunk([(1, 2)])), (9, b"abcd"))
    samples = histogram_samples(2, fractions=False)
    with pytest.raises(BadData, match="chunk 0: histogram schema 20"):
        decode((files.HISTOGRAM, files.histogram_chunk(files.Layout(schema=20), samples, files.HISTOGRAM)))


@pytest.mark.parametrize(
    "encoding", [files.XOR, files.XOR2, files.HISTOGRAM, files.FLOAT, files.HISTOGRAM_START, files.FLOAT_START]
)
def test_cut_chunks_are_refused_and_damaged_ones_harm_nothing(encoding: int) -> None:
    """Whatever the bytes are (their checksum is looked at elsewhere), the answer is samples or Corrupt, never a crash."""
    if encoding == files.XOR:
        body = files.xor_chunk([(1000 * i + i * i, files.float_bits(i / 7)) for i in range(60)])
    elif encoding == files.XOR2:
        body = files.xor2_chunk([(i, 1000 * i + i * i, files.float_bits(i / 7)) for i in range(60)])
    else:
        body = files.histogram_chunk(files.Layout(), histogram_samples(30, fractions=True, starts=True), encoding)
    for size in range(0, len(body) - 1, 3):
        with pytest.raises(Corrupt, match=r"chunk 0: its \d+ bytes of encoding"):
            decode((encoding, body[:size]))
    rng = np.random.default_rng(encoding)
    for _ in range(300):
        broken = bytearray(body)
        for _ in range(int(rng.integers(1, 4))):
            broken[int(rng.integers(len(broken)))] ^= 1 << int(rng.integers(8))
        try:
            decode((encoding, bytes(broken)))
        except (Corrupt, BadData):
            continue
