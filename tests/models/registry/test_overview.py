"""Extraction settings of the recipes, and the list of systems."""

import json
import subprocess
import sys
from importlib import resources

import pytest
from commands import mgc

from mgc.models.registry import detail, overview, systems
from mgc.models.registry.systems import InputSpec
from mgc.pipeline.errors import ModelError
from mgc.pipeline.features import Mel, Waveform
from mgc.pipeline.features.variants import parse_variants
from mgc.pipeline.store.slicing import Slicing

PADOVA = Mel(sr=44100, n_fft=1024)
KTH = parse_variants("pitch:+2,pitch:-2,stretch:1.1,stretch:0.9")


def test_extraction_for_a_system_has_its_features_and_slicing() -> None:
    first = Slicing(seconds=None, frames=640, overlap=0.0, max_slices=1)
    assert overview.extraction_for("ubc2020/prcnn") == ([(Mel(), ())], first)
    excerpt = Slicing(seconds=3.5, offset=15.5, overlap=0.0, max_slices=1)
    assert overview.extraction_for("kth2020/knn") == ([(Mel(hop_length=604), ())], excerpt)
    assert overview.extraction_for("kth2020/crnn") == ([(Mel(hop_length=604), KTH)], excerpt)
    segments = Slicing(seconds=3.0, overlap=0.0, max_slices=10)
    assert overview.extraction_for("vit2021/lstm") == ([(Mel(), ())], segments)


@pytest.mark.parametrize("name", ["late-fusion", "ensemble-1", "ensemble-2"])
def test_extraction_for_a_system_of_several_inputs_has_them_all(name: str) -> None:
    features, slicing = overview.extraction_for(f"padova2023/{name}")
    assert features == [(Waveform(), ()), (PADOVA, ())]
    assert slicing == Slicing(seconds=None, whole=True)


def test_extraction_for_a_study() -> None:
    features, slicing = overview.extraction_for("padova2023")
    assert features == [(Waveform(), ()), (PADOVA, ())]
    assert slicing is not None
    with pytest.raises(ModelError, match=r"no such study.*padova2023"):
        overview.extraction_for("padova2024")


def test_systems_without_variants_read_the_store_that_has_them() -> None:
    features, _ = overview.extraction_for("kth2020")
    assert features == [(Mel(hop_length=604), KTH)]
    everything, slicing = overview.extraction_for("all")
    assert [spec for spec, variants in everything if variants] == [Mel(hop_length=604)]
    assert (Mel(), ()) in everything
    assert len(dict(everything)) == len(everything)
    assert slicing is None


def test_a_system_of_several_inputs_is_listed_with_all_of_them() -> None:
    (row,) = (row for row in overview.describe_systems() if row["id"] == "padova2023/late-fusion")
    assert (row["features"], row["input"]) == (["waveform"], [1, 131_072])
    assert row["further"] == [{"features": ["mel", "mfcc"], "input": [1, 20, 512]}]
    assert row["params"] == 412_728
    line = overview.render_systems([row]).splitlines()[1]
    assert line.split()[:4] == ["padova2023/late-fusion", "waveform+mel", "412,728", "84.53"]


def test_an_ensemble_is_listed_with_its_members() -> None:
    (row,) = (row for row in overview.describe_systems() if row["id"] == "padova2023/ensemble-1")
    assert (row["kind"], row["members"]) == (
        "ensemble",
        ["padova2023/cnn1d", "padova2023/cnn2d-mel", "padova2023/cnn2d-mfcc"],
    )
    assert row["params"] == 158_106 + 2 * 139_306
    assert len(row["further"]) == 2


def test_an_axis_of_any_length_is_written_as_any() -> None:
    spec = InputSpec("absolute", ("mel",), bands=40)
    assert overview.shape_text(spec.shape) == "1×40×any"


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_the_terminal(width: int) -> None:
    systems = overview.describe_systems()
    head, *lines = overview.render_systems(systems, width).splitlines()
    assert head.split() == ["system", "reads", "parameters", "published"]
    assert [line.split()[0] for line in lines[: len(systems)]] == [system["id"] for system in systems]
    assert max(map(len, lines)) <= width


def test_models_filters_by_a_part_of_id_alias_or_study_and_shows_one_in_full() -> None:
    listed = mgc("models", "resnet").out.splitlines()[1:-2]
    assert listed
    assert all("resnet" in line.split("  ")[0] for line in listed)
    assert {row["study"] for row in mgc("models", "KTH2020", "--json").json} == {"kth2020"}
    text = mgc("models", "kth2020/cnn").out
    for shown in ("kth2020/cnn\n", "1×128×128", "1,328,120", "adamᶜ lr 0.0002ᶜ", "accuracy 50.25", "head: Sequential"):
        assert shown in text
    one = mgc("models", "kth2020/cnn", "--json").json
    assert (one["id"], one["params"]) == ("kth2020/cnn", 1_328_120)
    assert sum(layer["params"] for layer in one["layers"]) == 1_328_120
    assert one["recipe"]["training"]["batch_size"] == 16
    assert one["results"][0]["accuracy"] == 50.25


@pytest.mark.slow
@pytest.mark.parametrize("id", systems.ids())
def test_every_system_can_be_shown_in_full(id: str) -> None:
    system = systems.get(id)
    for width in (80, 100):
        text = detail.render(system, width)
        assert text.startswith(f"{id}\n")
        assert max(map(len, text.splitlines())) <= width
    assert json.loads(json.dumps(detail.describe(system)))["id"] == id


def test_a_word_that_no_model_has_names_what_was_meant() -> None:
    outcome = mgc("models", "kth2020/cn")
    assert outcome.code == 0  # a part of ids
    outcome = mgc("models", "reznet")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.error.startswith("no model has 'reznet' in its id or study; did you mean ")


def test_the_recorded_descriptions_are_those_of_the_networks() -> None:
    text = (resources.files("mgc.manifests") / "systems.json").read_text(encoding="utf-8")
    assert text == overview.record(), "run `python -m mgc.models.registry.overview > manifests/systems.json`"


def test_the_list_of_systems_needs_no_pytorch() -> None:
    code = """
import sys
from mgc import cli
try:
    cli.main(["models"], prog_name="mgc")
except SystemExit as end:
    sys.stderr.write(f"{end.code} {sorted({'torch', 'sklearn'} & set(sys.modules))}")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stderr == "0 []"
    assert "kth2020/cnn " in run.stdout
