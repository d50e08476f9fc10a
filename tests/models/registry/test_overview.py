"""Extraction settings of the recipes, and the list of systems."""

import pytest

from mgc.models.registry import overview
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
    assert "waveform + mel/mfcc" in line
    assert "1×131072 + 1×20×512" in line


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
    row = {"id": "a/b", "features": ["mel"], "input": list(spec.shape), "params": None, "published": ""}
    assert "1×40×any" in overview.render_systems([row | {"aliases": [], "further": []}])
