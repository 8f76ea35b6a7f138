import numpy as np
import pytest

from treering.command.terminal import MAX_ROWS, MAX_SPARK, print_result, sparkline
from treering.library.result import Result
from tsdb.model.labels import Labels
from tsdb.model.series import SeriesBatch, SeriesTable


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([np.nan, np.inf], ""),
        ([1], "▁"),
        ([3, 3, 3], "▁▁▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([-1e308, 1e308], "▁█"),
        ([0, np.nan, np.inf, 1], "▁  █"),
    ],
)
def test_sparklines(values: list[float], bars: str) -> None:
    assert sparkline(np.array(values, float)) == bars


def test_long_ranges_are_thinned_out_and_keep_their_ends() -> None:
    bars = sparkline(np.arange(10_000.0))
    assert len(bars) == MAX_SPARK and bars[0] == "▁" and bars[-1] == "█"


def test_what_is_printed_is_bounded_and_not_markup(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    n = MAX_ROWS + 50
    rows = sorted(Labels.of({"__name__": "m", "i": f"[red]{i:04}[/nothing]"}) for i in range(n))
    batch = SeriesBatch(SeriesTable.of(rows), np.arange(n + 1), np.zeros(n, np.int64), np.arange(n, dtype=float))
    print_result(Result("vector", batch, warnings=("[bold]careful",), infos=("note",)))
    out, err = capsys.readouterr()
    assert out.count("[red]0") == MAX_ROWS and "[/nothing]" in out
    assert f"{n} series, the first {MAX_ROWS} shown" in out
    assert "[bold]careful" in err and "note" in err


def test_scalars_and_strings(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(Result("string", SeriesBatch.empty(), "[x] text"))
    assert "[x] text" in capsys.readouterr().out
