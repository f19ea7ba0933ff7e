import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_benchmark_of_a_hint_measures_every_case():
    """Each way in gets a row, whose parts add up to the whole."""
    options = ["--contacts", "16", "--rounds", "1", "--messages", "4", "--batches", "4", "--json"]

    out = subprocess.run([sys.executable, BENCHMARKS / "hint.py", *options], check=True, capture_output=True).stdout

    rows = {row["case"]: row for row in json.loads(out)}
    assert list(rows) == ["known", "new", "cookie", "link"]
    for row in rows.values():
        assert abs(row["hint"] - row["decide"] - row["load"] - row["write"] - row["commit"]) < 1
        assert row["of plain"] > 0
