import numpy as np
import pytest

from tsdb.kernel.crc32c import crc32c, first_damaged


@pytest.mark.parametrize(
    ("data", "sum_"), [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)]
)
def test_known_sums(data: bytes, sum_: int) -> None:
    """RFC 3720, B.4, and the polynomial's check value."""
    assert int(crc32c(np.frombuffer(data, np.uint8), 0, len(data))) == sum_


def test_finds_the_first_damaged_range() -> None:
    text = b"123456789" + 0xE3069283.to_bytes(4) + b"123456789" + 0xE3069280.to_bytes(4)
    octets = np.frombuffer(text, np.uint8)
    start, end = np.array([0, 13]), np.array([9, 22])
    assert first_damaged(octets, start, end) == 1
    assert first_damaged(octets, start[:1], end[:1]) == -1
    assert first_damaged(octets, np.array([13]), np.array([24])) == 0
