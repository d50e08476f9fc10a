"""Smoke runs of the benchmarks and tests of their helpers. No test depends on how long something takes."""

from __future__ import annotations

import ctypes.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

from mgc.pipeline.store.store import Store

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    with mock.patch.dict(os.environ):  # the import sets environment variables
        import common
    return common


def run(*arguments: object) -> str:
    """Run a Python script and return its standard output."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=500).stdout


def tables(text: str) -> list[dict[str, dict[str, str]]]:
    """Parse the Markdown tables in a text: per table, cells by the first cell of their row and the column."""
    parsed: list[dict[str, dict[str, str]]] = []
    header: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if cells and not header:
            header = cells[1:]
            parsed.append({})
        elif cells and not set(line) <= set("|-:"):
            parsed[-1][cells[0]] = dict(zip(header, cells[1:], strict=True))
        elif not cells:
            header = []
    return parsed


@pytest.mark.corpus
@pytest.mark.slow
def test_smoke_run_prints_finite_ratios(corpus: Path, tmp_path: Path) -> None:
    record = tmp_path / "figures.json"
    clips = corpus / "fma_debian"
    out = run(BENCHMARKS / "extract.py", clips, "--smoke", "--features", "stft", "mel+mfcc", "--json", record)

    costs, ratios = tables(out)
    assert set(costs) == set(ratios) == {"stft", "mel+mfcc"}
    for row in (*costs.values(), *ratios.values()):
        figures = [cell.split(" ")[0] for cell in row.values() if cell]
        assert figures
        assert all(math.isfinite(float(figure)) for figure in figures)
    assert ratios["stft"]["naive / mgc"]
    assert not ratios["mel+mfcc"]["naive / mgc"]  # the script extracts one feature per run

    recorded = json.loads(record.read_text())
    assert f"command: {recorded['command']}" in out
    attempt = recorded["costs"]["mel+mfcc"][0]
    calls = ("decode", "resample", "rfft", "filter bank", "compress")
    assert attempt["unavoidable"] == pytest.approx(sum(attempt[call] for call in calls))
    assert attempt["mgc / decode"] == pytest.approx(attempt["mgc"] / attempt["decode"])


@pytest.mark.corpus
@pytest.mark.slow
def test_profile_names_functions(corpus: Path) -> None:
    out = run(BENCHMARKS / "extract.py", corpus / "fma_debian", "--smoke", "--features", "mel", "--profile")
    (rows,) = tables(out)
    assert len(rows) == 15
    assert any("soundfile" in function for function in rows)


@pytest.mark.slow
def test_scale_prints_memory_and_time_of_every_command(tmp_path: Path) -> None:
    record = tmp_path / "figures.json"
    out = run(BENCHMARKS / "scale.py", "--smoke", "--keep", tmp_path / "kept", "--json", record)
    sizes, extraction, commands, training = tables(out)
    assert list(sizes) == list(extraction) == list(training) == ["300"]
    assert list(commands) == ["300: no-op, csv parsed", "300: no-op", "300: slice", "300: train"]
    figures = json.loads(record.read_text())["results"]["300"]
    assert 0 < figures["planning_mb"] <= figures["client_mb"]
    # The frames are hard links, but the store is whole: every byte is read and compared with its digest.
    (store,) = (tmp_path / "kept" / "300" / "data" / "features").glob("*/mel-*")
    run("-m", "mgc", "verify", store)
    n_training = sum(split == "training" for split in Store.open(store).slices["split"].to_pylist())
    assert figures["epoch"]["slices"] == n_training
    assert figures["epoch"]["share"] == 1
    assert float(training["300"]["epoch h"]) >= 0
    assert "(measured); decoding would add 0.00 core-hours" in out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_slices_prints_the_bytes_of_each_split(tmp_path: Path) -> None:
    record = tmp_path / "figures.json"
    (rows,) = tables(run(BENCHMARKS / "slices.py", "--smoke", "--cases", "training", "validation", "--json", record))
    assert list(rows) == ["training", "validation"]
    figures = json.loads(record.read_text())["results"]["training"]
    assert figures["n"] == 2000 * 14
    assert figures["slices kept"] <= figures["slices peak"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/*/status")
def test_planning_prints_memory_and_time(tmp_path: Path) -> None:
    out = run(BENCHMARKS / "planning.py", "--tracks", "300", "400", "--keep", tmp_path / "kept")
    (rows,) = tables(out)
    assert list(rows) == ["300", "400"]
    assert all(float(row["private MB"]) <= float(row["resident MB"]) for row in rows.values())
    assert sum(path.stat().st_blocks for path in (tmp_path / "kept").rglob("*.wav")) == 0


@pytest.mark.corpus
def test_standard_clips_are_128_kbit_stereo_of_30_seconds(common: ModuleType, corpus: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    standard_clips = common.find_clips(corpus / "fma_debian")
    all_clips = common.find_clips(corpus / "fma_debian", everything=True)
    assert set(standard_clips) < set(all_clips)
    assert len(all_clips) == 102
    for path in standard_clips[:10]:
        assert path.stat().st_size == pytest.approx(30 * 16_000, rel=0.02)
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (44100, 2)
        assert info.duration == pytest.approx(30, abs=0.5)


def test_cost_counts_the_whole_process_tree(common: ModuleType, tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])"
    assert common.run([sys.executable, "-c", parent], tmp_path).cpu >= 0.5


def test_failed_command_ends_the_benchmark(common: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        common.run([sys.executable, "-c", "import sys; sys.exit('no such thing')"], tmp_path)


def test_spread_is_median_minimum_and_maximum(common: ModuleType) -> None:
    assert str(common.Spread.of([1.4, 1.2, 9.0])) == "1.40 (1.20 to 9.00)"


def test_table_is_markdown_with_empty_cells(common: ModuleType) -> None:
    text = common.table(("name", "ms"), [("a", 1.005), ("long name", None)])
    assert tables(text) == [{"a": {"ms": "1.00"}, "long name": {"ms": ""}}]
    assert len({len(line) for line in text.splitlines()}) == 1


@pytest.mark.slow
def test_train_prints_finite_figures_for_every_part(tmp_path: Path) -> None:
    record = tmp_path / "figures.json"
    out = run(BENCHMARKS / "train.py", "--smoke", "--systems", "kth2020/cnn", "--json", record)
    steps, loaders, epoch, memory = tables(out)
    assert list(steps) == ["kth2020/cnn"]
    assert list(loaders) == ["uint8", "float32"]
    assert list(epoch) == ["vit2021/cnn"]
    assert list(memory) == ["48"]
    for row in (*steps.values(), *loaders.values(), *epoch.values(), *memory.values()):
        cells = [cell for cell in row.values() if cell not in ("not installed", "device")]
        figures = [float(cell.split(" ")[0]) for cell in cells]
        assert len(figures) >= 2
        assert all(math.isfinite(figure) and figure > 0 for figure in figures)
    assert f"command: {json.loads(record.read_text())['command']}" in out


@pytest.mark.slow
def test_baselines_prints_the_memory_of_fitting_and_training() -> None:
    fitting, training = tables(run(BENCHMARKS / "baselines.py", "--smoke", "--systems", "moments/knn", "--tracks", 80))
    assert list(fitting) == ["moments/knn"]
    assert {"slices": "560", "frames, MB": "13"}.items() <= training["80"].items()
    assert float(training["80"]["peak, MB"]) > 100


@pytest.mark.slow
def test_compare_prints_coverage_and_error_rates() -> None:
    coverage, errors, families = tables(run(BENCHMARKS / "compare.py", "--smoke"))
    assert set(coverage) == set(errors)
    assert set(families) == {"3", "6", "12"}
    shares = [float(cell) for table in (errors, families) for row in table.values() for cell in row.values()]
    assert all(0 <= share <= 100 for share in shares)


@pytest.mark.corpus
@pytest.mark.slow
def test_serve_prints_latency_and_throughput(corpus: Path, tmp_path: Path) -> None:
    record = tmp_path / "figures.json"
    (figures,) = tables(run(BENCHMARKS / "serve.py", corpus / "fma_debian", "--smoke", "--json", record))
    values = {name: float(row["moments/logreg"]) for name, row in figures.items()}
    stages = sum(values[f"{stage}, ms"] for stage in ("upload", "queue", "decode", "network"))
    assert 0 < values["median, ms"] <= values["p95, ms"]
    assert stages < 4 * values["p95, ms"]  # the mean of four requests
    assert values["requests a second"] > 0
    assert json.loads(record.read_text())["results"]["moments/logreg"]["memory, MB"] > 50


@pytest.mark.corpus
@pytest.mark.slow
def test_export_prints_both_files_of_a_mobile_net(corpus: Path) -> None:
    (rows,) = tables(run(BENCHMARKS / "export.py", corpus / "fma_debian", "--smoke"))
    row = rows["xu2022/mobilenet"]
    assert float(row["int8, MB"]) < float(row["float, MB"]) / 2
    assert min(float(row["float, ms"]), float(row["int8, ms"])) > 0


@pytest.mark.corpus
@pytest.mark.skipif(ctypes.util.find_library("mpg123") is None, reason="needs libmpg123")
def test_mpg123_decodes_the_samples_of_libsndfile(corpus: Path) -> None:
    (rows,) = tables(run(BENCHMARKS / "mpg123.py", corpus / "fma_debian", "--smoke"))
    first, after, before = rows.values()
    assert float(first["ratio"]) == 1
    assert float(after["largest difference of a sample"]) <= 1e-6
    assert 0 < float(before["largest difference of a sample"]) <= 1e-4
    assert float(before["by more"]) == 0


@pytest.mark.slow
def test_embed_prints_its_cost_beside_the_networks() -> None:
    (rows,) = tables(run(BENCHMARKS / "embed.py", "--random", "--smoke"))
    assert float(rows["penultimate"]["embed / forward"].split()[0]) > 0.5


@pytest.mark.slow
def test_gpu_runs_every_part_without_a_gpu(tmp_path: Path) -> None:
    record = tmp_path / "figures.json"
    out = run(BENCHMARKS / "gpu.py", "--device", "cpu", "--smoke", "--json", record)
    (rows,) = tables(out)
    parts = json.loads(record.read_text())["parts"]
    recorded = [row for part in parts.values() for row in part["rows"]]
    assert list(rows) == [row["name"] for row in recorded]
    assert [row for row in recorded if row["status"] == "failed"] == []
    assert all(math.isfinite(figure) for row in recorded for figure in row["figures"].values())
    for part in ("loading", "waits", "epochs", "frontend", "exhaustion", "resume", "prediction", "steps"):
        assert any(row["status"] == "measured" for row in parts[part]["rows"]), part
    for system in ("kth2020/cnn", "vit2021/cnn", "padova2023/cnn1d"):
        step = next(row for row in recorded if row["name"] == f"step, {system}, float32")["figures"]
        assert min(step[name] for name in ("random_ms", "resident_ratio", "host_ratio", "streamed_ratio")) > 0
    assert {"step, vit2021/cnn, bf16", "step, vit2021/cnn, channels_last", "step, vit2021/cnn, compile"} <= set(rows)
    met = {row["name"]: row["met"] for row in recorded}
    assert met["resume, vit2021/cnn, deterministic algorithms"]
    assert met["out of memory: what mgc says"]
    assert met["out of memory: its advice"]
    assert met["front end, mfcc: largest difference from the CPU"]
    # Without a GPU, reads of single values stand for waits. The outcome of an update is read as a whole.
    waits = next(row for row in recorded if row["name"] == "waits for the device, vit2021/cnn, resident")
    assert waits["figures"]["waits_per_update"] == 0
    absent = {row["name"] for row in recorded if row["status"] == "absent" and "torchaudio" not in row["name"]}
    needs_cuda = {"lines of code that wait for the device", "residency chosen on a device that is nearly full"}
    assert absent - {"step, vit2021/cnn, compile (or a C++ compiler)"} == needs_cuda | {"tests with the mark cuda"}


#: Parts that fail in three ways, between parts that do not. A part's process imports this script, too.
FAULTS = """
import os, sys, time
sys.path.insert(0, {benchmarks!r})
import gpu
from gpu_parts.measurement import Row

def well(setup):
    yield Row("well", "1 s")

def raises(setup):
    yield Row("before", "2 s")
    raise ValueError("no such thing\\nsecond line")

def dies(setup):
    print("last words", flush=True)
    os._exit(9)
    yield

def hangs(setup):
    time.sleep(100)
    yield

gpu.PARTS = {{measure.__name__: gpu.Part(measure, 9) for measure in (well, raises, dies, hangs)}}
gpu.SMOKE_SECONDS = 10.0
if __name__ == "__main__":
    sys.exit(gpu.main())
"""


@pytest.mark.slow
def test_gpu_shows_a_failed_part_as_a_row_and_goes_on(tmp_path: Path) -> None:
    script = tmp_path / "faults.py"
    script.write_text(FAULTS.format(benchmarks=str(BENCHMARKS)))
    command = [sys.executable, script, "--device", "cpu", "--smoke", "--parts", "raises,dies", "hangs", "well"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    (rows,) = tables(done.stdout)
    assert {name: (row["figure"], row["bar is"]) for name, row in rows.items()} == {
        "well": ("1 s", ""),
        "before": ("2 s", ""),
        "raises": ("ValueError: no such thing", "failed"),
        "dies": ("its process ended with exit code 9", "failed"),
        "hangs": ("not done in time", "failed"),
    }
    assert 'raise ValueError("no such thing' in done.stderr  # the traceback
    assert "last words" in done.stderr
    *_, last = done.stdout.splitlines()
    assert [row["name"] for row in json.loads(last)["parts"]["raises"]["rows"]] == ["before", "raises"]
    unknown = subprocess.run([*command[:2], "--parts", "all"], capture_output=True, text=True, timeout=300)
    assert unknown.returncode == 2
    assert "--parts all: there is no such part; choose from well, raises" in unknown.stderr


@pytest.mark.slow
def test_startup_prints_seconds_beside_their_limits(tmp_path: Path) -> None:
    record = tmp_path / "figures.json"
    rows = ("models", "evaluate scikit-learn", "predict network", "train", "worker mel")
    commands, workers = tables(run(BENCHMARKS / "startup.py", "--smoke", "--commands", *rows, "--json", record))
    assert set(commands) == set(rows) - {"worker mel"}
    for row in commands.values():
        assert all(float(row[column]) > 0 for column in ("wall, s", "CPU, s", "limit, s"))
    assert float(commands["models"]["others, s"]) == 0 < float(commands["predict network"]["others, s"])
    worker = workers["worker mel"]
    assert 0 < float(worker["Dask: CPU, s"]) < float(worker["mgc: CPU, s"]) < float(worker["ready: CPU, s"])
    assert len(json.loads(record.read_text())["commands"]) == len(commands)
