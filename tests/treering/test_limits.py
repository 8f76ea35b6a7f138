import pytest

from remote.limits import Limits
from treering.limits import limits_table
from tsdb.model.errors import BadData


def test_a_tenants_limits_stand_on_the_default() -> None:
    table = limits_table(
        {"max_exemplars": 7, "ingestion_rate": 5}, {"a": {"ingestion_rate": 9, "out_of_order_time_window_ms": None}}
    )
    assert table.of("b") == Limits(max_exemplars=7, ingestion_rate=5)
    assert table.of("a") == Limits(max_exemplars=7, ingestion_rate=9)
    assert limits_table({}, {}).of("any") == Limits()


def test_retention_rules() -> None:
    table = limits_table({"retention": [{"matchers": '{job="debug"}', "keep": "7d"}]}, {})
    assert table.of("any").retention[0].keep == "7d"


@pytest.mark.parametrize(
    ("default", "overrides", "words"),
    [
        ({"max_exemplras": 1}, {}, "limits: unknown limit 'max_exemplras'; did you mean 'max_exemplars'?"),
        ({"zzz": 1}, {}, "limits: unknown limit 'zzz'"),
        ({"max_exemplars": "many"}, {}, "limits: Expected `int`, got `str` - at `$.max_exemplars`"),
        ({}, {"team": {"ingestion_rat": 1}}, "tenant_limits of team: unknown limit 'ingestion_rat'"),
        ({}, {"team": {"ingestion_rate": []}}, "tenant_limits of team: Expected `float`, got `array`"),
        ({"retention": [{"matchers": "{", "keep": "7d"}]}, {}, "limits: "),
        ({"retention": [{"matchers": '{a="b"}', "keep": "soon"}]}, {}, "limits: "),
    ],
)
def test_mistakes_name_their_place(default: dict[str, object], overrides: dict[str, dict[str, object]], words: str) -> None:
    with pytest.raises(BadData) as caught:
        limits_table(default, overrides)
    assert words in str(caught.value)
