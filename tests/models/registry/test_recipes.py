"""Recipes: all of them can be read, and an error in a recipe names its file and key."""

from pathlib import Path

import pytest

from mgc.models.registry import recipes
from mgc.pipeline.errors import SpecError

CNN = "kth2020/cnn"


@pytest.mark.parametrize("id", recipes.recipe_files())
def test_every_recipe_reads(id: str) -> None:
    recipe = recipes.read(recipes.recipe_files()[id])
    assert recipe.model == id
    assert recipe.headline
    assert recipe.dataset.n_classes == {"fma_small": 8, "gtzan": 10}[recipe.dataset.name]
    assert all(result.scores for result in recipe.published)
    assert set(recipe.sources.values()) <= {"printed", "code", "derived", "chosen"}


@pytest.mark.parametrize(
    ("id", "frames"),
    [(CNN, 128), ("vit2021/cnn", 130), ("xu2022/mobilenet", 345), ("ubc2020/prcnn", 640), ("ref/crnn-choi2017", 1440)],
)
def test_slices_have_the_frames_of_the_study(id: str, frames: int) -> None:
    recipe = recipes.read(recipes.recipe_files()[id])
    assert recipe.slicing.n_frames(recipe.features) == frames


def test_values_and_sources() -> None:
    recipe = recipes.read(recipes.recipe_files()[CNN])
    assert recipe.training is not None
    assert recipe.training.optimizer.lr == 2e-4
    assert recipe.training.optimizer.betas == (0.9, 0.999)
    assert recipe.training.optimizer.weight_decay == 0
    assert recipe.training.mode == "max"
    assert recipe.sources["training.optimizer.lr"] == "code"
    assert recipe.sources["features.name"] == "printed"
    assert recipe.published[0].scores["accuracy"] == 50.25


def test_loss_is_monitored_downwards() -> None:
    training = recipes.read(recipes.recipe_files()["padova2023/cnn2d-mel"]).training
    assert training is not None
    assert (training.monitor, training.mode) == ("loss", "min")


@pytest.mark.parametrize("id", [id for id in recipes.recipe_files() if id.startswith("padova2023/")])
def test_one_vs_rest_accuracy_of_padova_follows_from_its_recall(id: str) -> None:
    (row,) = recipes.read(recipes.recipe_files()[id]).published
    assert row.one_vs_rest_accuracy is not None
    assert row.macro_recall is not None
    assert row.one_vs_rest_accuracy == pytest.approx(100 - (100 - row.macro_recall) / 4, abs=0.01)


def test_features_of_further_stores() -> None:
    recipe = recipes.read(recipes.recipe_files()["padova2023/late-fusion"])
    assert recipe.features.name == "waveform"
    (mel,) = recipe.further
    assert (mel.name, mel.sr, mel.n_fft) == ("mel", 44100, 1024)
    assert recipe.sources["further[0].name"] == "derived"
    assert recipes.read(recipes.recipe_files()[CNN]).further == ()


def test_rmsprop_has_its_own_settings() -> None:
    training = recipes.read(recipes.recipe_files()["ubc2020/prcnn"]).training
    assert training is not None
    assert training.optimizer == recipes.Optimizer("rmsprop", lr=5e-4, eps=1e-7, rho=0.9)


def test_classical_systems_are_not_trained_by_gradient() -> None:
    assert recipes.read(recipes.recipe_files()["kth2020/knn"]).training is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('lr = [2e-4, "code"]', 'lr = ["2e-4", "code"]', "training.optimizer.lr is '2e-4'.*of type float"),
        ('lr = [2e-4, "code"]', 'lr = [true, "code"]', "training.optimizer.lr is True.*of type float"),
        ('lr = [2e-4, "code"]', "lr = 2e-4", r"training.optimizer.lr is 0.0002; write \[value, source\]"),
        ('lr = [2e-4, "code"]', 'lr = [2e-4, "guessed"]', "training.optimizer.lr.*printed, code, derived, chosen"),
        ('lr = [2e-4, "code"]', 'rate = [2e-4, "code"]', "training.optimizer.rate is not a key.*name, lr"),
        ('lr = [2e-4, "code"]', "", "training.optimizer.lr is missing"),
        ("[0.9, 0.999]", "[0.9]", "training.optimizer.betas"),
        ('betas = [[0.9, 0.999], "code"]', "", "training.optimizer: adam needs betas"),
        ("[0.9, 0.999]", '["a", 0.999]', "training.optimizer.betas is 'a'"),
        ("batch_size = [16,", "batch_size = [16.0,", "training.batch_size is 16.0.*of type int"),
        ("batch_size = [16,", "batch_size = [true,", "training.batch_size is True.*of type int"),
        ("stretch:0.9,", "stretch:9,", "training: --augment stretch:9; it must be 0.5 to 2"),
        ("binary-on-softmax", "hinge", "training.loss is 'hinge'; choose from cross-entropy, binary-on-softmax"),
        ('name = ["mel",', 'name = ["mle",', "features.name is 'mle'; choose from stft, mel, mfcc"),
        ('name = ["mel", "printed"]', "", "features.name"),
        ("n_fft = [2048,", "n_fft = [2047,", "features: mel: n_fft=2047; it must be an even number"),
        ("n_fft = [2048,", "n_ftt = [2048,", "features.n_ftt is not a key"),
        ("overlap = [0.0,", "overlap = [1.0,", r"slicing: --overlap 1; it must be in \[0, 1\)"),
        ("seconds = [3.5,", "frames = [128.5,", "slicing.frames is 128.5.*of type int"),
        ('max_slices = [1, "code"]', 'whole = [true, "code"]', "slicing: a slice has one length"),
        ("[slicing]", "[slices]", "slices is not a key"),
        ("[slicing]", "[further]\n[slicing]", "further is .*of type list"),
        ("[slicing]", "[[further]]\n[slicing]", r"further\[0\].name is None"),
        ("[dataset]", "[[dataset]]", "dataset is .*of type dict"),
        ("accuracy = 50.25", 'accuracy = "50.25"', r"published\[0\].accuracy is '50.25'.*of type float"),
        ('split = "test"', 'split = "training"', r"published\[0\].split is 'training'"),
        ("[dataset]", "[dataset", "recipe.toml: .*line"),
    ],
)
def test_bad_recipe_is_refused_with_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = recipes.recipe_files()[CNN].read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "recipe.toml"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SpecError, match=message) as caught:
        recipes.read(file)
    assert str(file) in caught.value.problem


def test_slices_may_be_given_in_frames(tmp_path: Path) -> None:
    text = recipes.recipe_files()[CNN].read_text(encoding="utf-8")
    file = tmp_path / "recipe.toml"
    file.write_text(text.replace("seconds = [3.5,", "frames = [128,"), encoding="utf-8")
    slicing = recipes.read(file).slicing
    assert (slicing.frames, slicing.seconds) == (128, None)


@pytest.mark.parametrize("id", [id for id in recipes.recipe_files() if id.startswith("kth2020/")])
def test_networks_of_kth_are_trained_on_variants_too(id: str) -> None:
    recipe = recipes.read(recipes.recipe_files()[id])
    classical = recipe.training is None
    assert classical == (id in ("kth2020/knn", "kth2020/svm"))
    expected = [] if classical else ["pitch:-2", "pitch:+2", "stretch:0.9", "stretch:1.1"]
    assert [str(variant) for variant in recipe.variants] == expected


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.toml"):
        recipes.read(tmp_path / "none.toml")
