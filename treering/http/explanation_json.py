"""The JSON of an `Explanation`, both ways."""

import msgspec
import orjson

from promql.explain import Explanation
from tsdb.model.errors import BadData


def explanation_json(told: Explanation) -> bytes:
    """The body of an explain answer: the fields of `Explanation` and its nodes by their names."""
    return orjson.dumps({"status": "success", "data": told})


def parse_explanation(body: bytes) -> Explanation:
    """The explanation in such a body. BadData if there is none."""
    try:
        return msgspec.convert(orjson.loads(body)["data"], Explanation)
    except (orjson.JSONDecodeError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise BadData(f"not an explanation of a query: {error!r} in {body[:200]!r}") from None
