"""What one remote-write request may be."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_LABEL_BYTES = 1 << 20
"""A name or value up to this size has a length of at most three bytes, which is what the scans write."""


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Bounds of one request.

    max_body_bytes is the body as it comes, max_decoded_bytes what snappy makes of it; a snappy body expands at most 21:1, so a
    header that promises more than `ratio` lies. max_label_bytes is the canonical labels of a 2.0 request, where a few bytes of
    references can stand for long symbols. max_series (also of exemplars and histograms) and max_samples are what a full body
    of real series reaches, 64 bytes a series and 16 a sample; a hostile one could hold many times more, and take the memory.

    Cortex allows 30 label names and 2,048 bytes a value; Kubernetes' own series have more, so the defaults are wider.
    Exemplars and metadata beyond their limits are left out and told.
    """

    max_body_bytes: int = 16 << 20
    max_decoded_bytes: int = 32 << 20
    max_label_bytes: int = 128 << 20
    max_histogram_bytes: int = 8 << 20
    max_series: int = 1 << 19
    max_samples: int = 1 << 21
    ratio: int = 25
    label_names: int = 128
    name_bytes: int = 1024
    value_bytes: int = 8192
    exemplars: int = 20_000
    metadata: int = 20_000

    def __post_init__(self) -> None:
        if max(self.name_bytes, self.value_bytes) > MAX_LABEL_BYTES:
            raise ValueError(
                f"a label of {max(self.name_bytes, self.value_bytes)} bytes: the limit cannot be over {MAX_LABEL_BYTES}"
            )

    def of_labels(self) -> npt.NDArray[np.int64]:
        """i64[3] for the scans."""
        return np.array([self.label_names, self.name_bytes, self.value_bytes], np.int64)
