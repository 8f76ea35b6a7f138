"""From the `limits` and `tenant_limits` of the configuration to the table that the roles read."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields

import msgspec

from remote.limits import Limits, LimitsTable
from remote.retention import retention_of
from tsdb.model.errors import BadData


def limits_table(default: Mapping[str, object], overrides: Mapping[str, Mapping[str, object]]) -> LimitsTable:
    """The limits of every tenant. BadData names the tenant and the key that is unknown or has a wrong value."""
    base = _limits(default, Limits(), "limits")
    return LimitsTable(base, {tenant: _limits(own, base, f"tenant_limits of {tenant}") for tenant, own in overrides.items()})


def _limits(found: Mapping[str, object], base: Limits, place: str) -> Limits:
    known = [field.name for field in fields(Limits)]
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise BadData(f"{place}: unknown limit {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    try:
        limits = msgspec.convert({**asdict(base), **found}, Limits)
        retention_of(limits)
        return limits
    except (msgspec.ValidationError, BadData) as error:
        raise BadData(f"{place}: {error}") from None
