"""The system that `mgc train` trains if none is named: which, on which store, and what the user is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import mgc
from stores import make_store

from mgc.models.data.store_candidates import StoreCandidates
from mgc.models.registry import systems
from mgc.models.training import choice
from mgc.pipeline.errors import ModelError
from mgc.pipeline.features import Chroma, FeatureSpec, Mel, Stft
from mgc.pipeline.workspace import Workspace

SPECS: dict[str, FeatureSpec] = {"mel": Mel(), "stft": Stft(n_fft=512), "chroma": Chroma(), "mel-96": Mel(n_mels=96)}
FEW = {"training": 3, "validation": 3, "test": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the four stores of a dataset."""
    data = tmp_path_factory.mktemp("workspace") / "data"
    folder = data / "features" / "synthetic"
    for name, spec in SPECS.items():
        make_store(folder / name, spec, root=data, seconds=(2.0,), tracks=FEW)
    return folder


@pytest.fixture
def candidates(folder: Path) -> Callable[..., StoreCandidates]:
    """A function from names of stores to candidates."""
    from mgc.pipeline.store.store import Store

    return lambda *names, named=False: StoreCandidates(tuple(Store.open(folder / name) for name in names), named)


def test_the_latest_store_decides_and_the_others_are_named(folder, candidates):
    system, line = choice.default_system(candidates("stft", "mel", "chroma"))
    assert system.id == "mgc/stft"
    assert line == (
        f"model: mgc/stft, the default for stft; store: {folder / 'stft'}, the latest"
        " (beside it: mel, chroma); others: `mgc models`"
    )
    system, line = choice.default_system(candidates("mel"))
    assert line == f"model: mgc/cnn, the default for mel; store: {folder / 'mel'}, the latest; others: `mgc models`"
    assert (
        "beside it: mel-96, chroma, stft and 1 more"
        in choice.default_system(candidates("mel", "mel-96", "chroma", "stft", "stft"))[1]
    )


@pytest.mark.parametrize("names", [("stft", "mel"), ("mel", "stft"), ("chroma", "mel")])
def test_of_named_stores_the_order_does_not_decide(names, candidates):
    system, line = choice.default_system(candidates(*names, named=True))
    assert system.id == "mgc/cnn"
    assert line == "model: mgc/cnn, the default for mel; others: `mgc models`"


def test_a_feature_without_a_default_is_an_error_that_names_a_store_with_one(folder, candidates):
    with pytest.raises(ModelError) as caught:
        choice.default_system(candidates("chroma", "mel"))
    assert str(caught.value) == (
        f"{folder / 'chroma'}, the latest store, holds chroma, which has no default model; name a model with --model; "
        f"`mgc models` lists them all; or train mgc/cnn: --store {folder / 'mel'}"
    )
    with pytest.raises(ModelError, match=r"chroma holds chroma, which has no default model; name a model with --model"):
        choice.default_system(candidates("chroma", named=True))


@pytest.mark.parametrize(
    ("model", "names", "options", "need", "nearest"),
    [
        (
            "ref/crnn-choi2017",
            ("stft", "mel"),
            {},
            "ref/crnn-choi2017 needs mel with 96 bands",
            "mel (bands 128 for 96)",
        ),
        (
            "kth2020/cnn",
            ("stft", "mel-96", "mel"),
            {"study_only": True},
            "kth2020/cnn needs mel sr=22050 n_fft=2048 hop_length=604 dtype=uint8 n_mels=128 fmin=0.0",
            "mel (hop 512 for 604)",
        ),
        (
            "xu2022/svm",
            ("mel", "stft"),
            {},
            "xu2022/svm needs stats with 518 values a track",
            "mel (mel for stats)",
        ),
        (
            "xu2022/mobilenet",
            ("mel",),
            {"frontend": True},
            "--frontend device: xu2022/mobilenet needs samples",
            "mel (mel for waveform)",
        ),
    ],
)
def test_where_no_store_fits_the_nearest_is_named(model, names, options, need, nearest, folder, candidates):
    asked = dataclasses.replace(candidates(*names), **options)
    with pytest.raises(ModelError) as caught:
        asked.choose(systems.get(model))
    assert caught.value.problem == f"{need}, which no store in {folder} holds: nearest is {nearest}"
    assert "`mgc extract " in caught.value.remedy


def test_the_command_says_it_once(folder):
    data = folder.parents[1]
    Workspace(data).remember("store", folder / "mel")
    outcome = mgc("train", "--data-dir", data, "--search")
    assert outcome.error.startswith("--search: mgc/cnn is a network; ")
    assert [line.partition(";")[0] for line in outcome.err.splitlines()[:-1]] == ["model: mgc/cnn, the default for mel"]
