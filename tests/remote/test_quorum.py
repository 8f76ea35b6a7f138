from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from threading import Event

import numpy as np
import pytest

from remote.ring.quorum import Gate, push_quorum
from remote.ring.replication import write_placement
from remote.ring.ring import Instance, Ring, State, instance_tokens, make_ring
from tsdb.model.errors import BadData, Corrupt, LimitExceeded, TreeringError, Unavailable
from tsdb.model.labels import Labels
from tsdb.model.write import PushResult, WriteBatch

ONE_SET = np.zeros(1, np.int32)


def batch_of(size: int) -> WriteBatch:
    labels = [Labels.of({"__name__": "m", "i": str(i)}) for i in range(size)]
    data = b"".join(one.encode() for one in labels)
    ends = np.cumsum([len(one.encode()) for one in labels]).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    hashes = np.array([one.stable_hash() for one in labels], np.uint64)
    rows = np.arange(size, dtype=np.int32)
    return WriteBatch(np.frombuffer(data, np.uint8), starts, ends, hashes, rows, np.full(size, 5, np.int64), rows.astype(float))


def ring_of(size: int, factor: int = 3) -> Ring:
    instances = [Instance(f"i-{i}", "", State.ACTIVE, "", instance_tokens(f"i-{i}"), 0, 0) for i in range(size)]
    return make_ring(instances, replication_factor=factor)


def sender(answers: dict[str, str]) -> Callable[[Instance, WriteBatch], PushResult]:
    def send(instance: Instance, part: WriteBatch) -> PushResult:
        match answers.get(instance.id, "ok"):
            case "ok":
                return PushResult(len(part.t_ms))
            case "4xx":
                raise BadData(f"bad at {instance.id}")
            case "5xx":
                raise Unavailable(f"down at {instance.id}")
            case "disk":
                raise OSError(5, "Input/output error")
            case "corrupt":
                raise Corrupt("wal/3: bad")
            case other:
                raise LimitExceeded(other, retry_after_s=1.0)

    return send


@pytest.mark.parametrize("answers", list(product(["ok", "4xx", "5xx"], repeat=3)))
@pytest.mark.parametrize("threads", [False, True])
def test_every_combination(answers: tuple[str, str, str], threads: bool) -> None:
    """Two of one family decide; one of each leaves nothing to wait for, and a tie is told as the caller's fault."""
    ok, bad, down = (answers.count(kind) for kind in ("ok", "4xx", "5xx"))
    want = None if ok >= 2 else Unavailable if down > bad else BadData
    send = sender({f"i-{i}": answer for i, answer in enumerate(answers)})
    with ThreadPoolExecutor(3) as executor:

        def push() -> PushResult:
            return push_quorum(
                write_placement(ring_of(3)), batch_of(4), ONE_SET, send, executor=executor if threads else None, gate=Gate()
            )

        if want is None:
            assert push().samples == 4
        else:
            with pytest.raises(want):
                push()


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        ("disk", Unavailable, "2 of 3 replicas failed, the last with: .*Input/output"),
        ("corrupt", Unavailable, "wal/3"),
        ("slow down", LimitExceeded, "slow down"),
    ],
)
def test_what_the_sender_is_told(answer: str, error: type[TreeringError], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        push_quorum(
            write_placement(ring_of(3)), batch_of(4), ONE_SET, sender({"i-0": answer, "i-2": answer}), executor=None, gate=Gate()
        )


def test_each_instance_gets_the_series_it_holds() -> None:
    ring, batch = ring_of(6), batch_of(300)
    placement = write_placement(ring)
    sets = placement.set_of[ring.positions(np.random.default_rng(0).integers(0, 1 << 32, 300, np.uint32))]
    got: dict[int, int] = {}

    def send(instance: Instance, part: WriteBatch) -> PushResult:
        for i in part.values.astype(int).tolist():
            got[i] = got.get(i, 0) + 1
            assert placement.members[sets[i], ring.instances.index(instance)]
        return PushResult(len(part.t_ms))

    assert push_quorum(placement, batch, sets, send, executor=None, gate=Gate()).samples == 300
    assert set(got) == set(range(300))
    assert min(got.values()) >= 2 and max(got.values()) == 3


def test_one_set_without_quorum_fails_the_write() -> None:
    ring, batch = ring_of(6), batch_of(300)
    placement = write_placement(ring)
    sets = placement.set_of[ring.positions(np.random.default_rng(0).integers(0, 1 << 32, 300, np.uint32))]
    assert push_quorum(placement, batch, sets, sender({"i-1": "5xx"}), executor=None, gate=Gate()).samples == 300
    with pytest.raises(Unavailable, match="down at"):
        push_quorum(placement, batch, sets, sender({"i-1": "5xx", "i-2": "5xx"}), executor=None, gate=Gate())


def test_rejections_are_counted_once_for_all_replicas() -> None:
    def send(instance: Instance, part: WriteBatch) -> PushResult:
        result = PushResult(len(part.t_ms))
        late = int((part.values < 30).sum())
        result.samples -= late
        if late:
            result.reject("out-of-order", late, "series m{}: too late")
        return result

    for ring in (ring_of(3), ring_of(6)):
        placement = write_placement(ring)
        sets = placement.set_of[ring.positions(np.random.default_rng(0).integers(0, 1 << 32, 300, np.uint32))]
        sets = sets if len(placement.problems) > 1 else ONE_SET
        with ThreadPoolExecutor(1) as executor:
            result = push_quorum(placement, batch_of(300), sets, send, executor=executor, gate=Gate())
        assert abs(result.samples - 270) <= 10 and abs(result.rejected["out-of-order"] - 30) <= 10
        assert result.message == "series m{}: too late"


def test_a_sample_that_one_of_two_answers_rejects_has_no_quorum() -> None:
    def send(instance: Instance, part: WriteBatch) -> PushResult:
        match instance.id:
            case "i-0":
                return PushResult(4)
            case "i-1":
                raise Unavailable("down")
        return PushResult(3, rejected={"duplicate-timestamp": 1}, message="m: has another value")

    result = push_quorum(write_placement(ring_of(3)), batch_of(4), ONE_SET, send, executor=None, gate=Gate())
    assert (result.samples, result.rejected) == (3, {"duplicate-timestamp": 1})


def test_a_quorum_does_not_wait_for_the_slow_one_and_the_slow_one_is_bounded() -> None:
    slow = Event()

    def send(instance: Instance, part: WriteBatch) -> PushResult:
        if instance.id == "i-2":
            assert slow.wait(20)
        return PushResult(len(part.t_ms))

    gate = Gate(limit=2)
    with ThreadPoolExecutor(8) as executor:
        for _ in range(5):
            assert push_quorum(write_placement(ring_of(3)), batch_of(4), ONE_SET, send, executor=executor, gate=gate).samples == 4
        assert gate._under_way == {"i-2": 2}
        slow.set()
    assert gate._under_way == {}


def test_no_live_quorum_is_told_before_anything_is_sent() -> None:
    ring = ring_of(3).beat("i-1", 1_000_000)
    with pytest.raises(Unavailable, match="at least 2 live replicas required, could only find 1"):
        push_quorum(write_placement(ring), batch_of(1), ONE_SET, sender({}), executor=None, gate=Gate())
