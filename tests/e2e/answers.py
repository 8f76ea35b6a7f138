"""Ask two servers the same question and say where their answers differ."""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

RELATIVE = 1e-9


def ask(url: str, path: str, **params: object) -> dict[str, Any]:
    """The JSON of an API call, errors included."""
    body = urllib.parse.urlencode(params).encode()
    try:
        with urllib.request.urlopen(f"{url}/api/v1/{path}", body, timeout=60) as response:
            return json.load(response)  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        return json.load(error)  # type: ignore[no-any-return]


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Where two answers differ, "" if they are equal: labels, times, values to 1e-9 relative."""
    if one["status"] != other["status"]:
        return f"status {one['status']} ({one.get('error')}) and {other['status']} ({other.get('error')})"
    if one["status"] == "error":
        return ""
    if one["data"]["resultType"] != other["data"]["resultType"]:
        return f"types {one['data']['resultType']} and {other['data']['resultType']}"
    left, right = _points(one["data"]), _points(other["data"])
    for key in left.keys() ^ right.keys():
        return f"{dict(key)} is only in the {'first' if key in left else 'second'}"
    for key, points in left.items():
        if [t for t, _ in points] != [t for t, _ in right[key]]:
            return f"{dict(key)}: times {len(points)} and {len(right[key])}"
        for (t, a), (_, b) in zip(points, right[key], strict=True):
            if not _close(float(a), float(b)):
                return f"{dict(key)} at {t}: {a} and {b}"
    return ""


def _points(data: dict[str, Any]) -> dict[Any, list[tuple[float, str]]]:
    if data["resultType"] in ("scalar", "string"):
        return {(): [tuple(data["result"])]}
    return {
        tuple(sorted(row["metric"].items())): [tuple(point) for point in row.get("values", [row.get("value")])]
        for row in data["result"]
    }


def _close(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or a == b or math.isclose(a, b, rel_tol=RELATIVE, abs_tol=1e-12)
