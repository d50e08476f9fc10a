"""The registry, and properties of every registered system."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from networks import IDS, PICTURE, build, random_batch
from torch import nn

from mgc.models.registry import recipes, systems
from mgc.models.training.optim import LOSSES, build_optimizer, main_logits, total_and_main_loss
from mgc.pipeline.errors import ModelError

#: Networks at full resolution, over a whole clip, or wide: a step takes a second. The last two equal faster ones.
HEAVY = {
    "kth2020/crnn",
    "kth2020/crnn-137",
    "kth2020/cnn-rnn",
    "ref/crnn-choi2017",
    "ubc2020/ablation-cnn-rnn1",
    "ubc2020/ablation-cnn-rnn2-attention",
}
#: Networks that take several seconds to overfit one batch.
SLOW_TO_LEARN = HEAVY | {
    "padova2023/cnn1d",
    "pons2019/vgg",
    "pons2019/vgg-mtt",
    "ubc2020/ablation-cnn5",
    "ubc2020/ablation-cnn-rnn2",
    "ubc2020/prcnn-attention",
    "ubc2020/prcnn-attention-temporal",
}


def mark_slow(ids: list[str], slow: set[str]) -> list:
    """Test parameters for `ids`, those in `slow` with the marker of that name."""
    return [pytest.param(id, marks=pytest.mark.slow) if id in slow else id for id in ids]


#: Networks with more than ten million parameters, whose steps take seconds. The normal tests only run them forward;
#: `make test-slow` trains, saves and repeats them like the others.
LARGE = {id for id in IDS if systems.get(id).params(8) > 10_000_000}
NEURAL = mark_slow(IDS, HEAVY | LARGE)
#: Deep networks, whose step takes half a second or more. test_resnet.py also trains shallow ones with the same blocks.
DEEP = {id for id in LARGE if "res" in id}


def test_every_recipe_has_its_system() -> None:
    assert [system.id for system in systems.systems()] == sorted(recipes.recipe_files())


@pytest.mark.parametrize(
    ("id", "n_classes", "params"),
    [
        ("xu2022/mobilenet", 8, 4_212_280),
        ("xu2022/mobilenet", 1000, 5_483_032),
        ("kth2020/cnn", 8, 1_328_120),
        ("vit2021/cnn", 10, 24_842),
        ("padova2023/cnn2d-mel", 8, 139_306),
        ("kth2020/cnn-released", 8, 1_095_800),
        ("kth2020/crnn", 8, 206_148),
        ("kth2020/crnn-137", 8, 462_843),
        ("kth2020/cnn-rnn", 8, 7_139_304),
        ("kth2020/cnn-rnn-fig", 8, 886_120),
        ("ubc2020/prcnn", 8, 110_120),
        ("ubc2020/prcnn-attention", 8, 232_744),
        ("ubc2020/prcnn-attention-temporal", 8, 314_984),
        ("ubc2020/ablation-rnn", 8, 75_528),
        ("ubc2020/ablation-cnn5", 8, 34_600),
        ("ubc2020/ablation-cnn3", 8, 646_824),
        ("ubc2020/ablation-cnn-rnn1", 8, 110_120),
        ("ubc2020/ablation-cnn-rnn2", 8, 184_616),
        ("ubc2020/ablation-cnn-rnn2-attention", 8, 232_744),
        ("vit2021/mlp", 10, 1_031_306),
        ("vit2021/mlp-plain", 10, 1_031_306),
        ("vit2021/lstm", 10, 58_314),
        ("vit2021/cnn-tutorial", 10, 45_322),
        ("padova2023/cnn1d", 8, 158_106),
        ("padova2023/cnn2d-mfcc", 8, 139_306),
        ("padova2023/late-fusion", 8, 412_728),
        ("padova2023/ensemble-1", 8, 436_718),
        ("padova2023/ensemble-2", 8, 552_034),
        ("ref/crnn-choi2017", 8, 494_667),
        ("kth2020/knn", 8, None),
        ("kth2020/svm", 8, None),
    ],
)
def test_parameter_counts(id: str, n_classes: int, params: int | None) -> None:
    assert systems.get(id).params(n_classes) == params


# The deep networks are tested with 8 classes in test_deep_networks_overfit_two_pictures.
@pytest.mark.parametrize(
    ("id", "n_classes"),
    [
        pytest.param(id, n, marks=pytest.mark.slow) if id in HEAVY | LARGE else (id, n)
        for id in IDS
        for n in (8, 10)
        if not (id in DEEP and n == 8)
    ],
)
def test_forward_and_backward(id: str, n_classes: int) -> None:
    system = systems.get(id)
    model = build(system, n_classes)
    outputs = model(*random_batch(system, 4))
    assert main_logits(outputs).shape == (4, n_classes)
    total_and_main_loss(lambda logits, _: logits.square().mean(), outputs, torch.zeros(4))[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("id", mark_slow([id for id in IDS if id not in DEEP], SLOW_TO_LEARN | LARGE))
def test_overfits_one_batch(id: str) -> None:
    system = systems.get(id)
    training = system.recipe.training
    assert training is not None
    model = build(system, 4)
    size = 2 if "crnn" in id else 4
    x, target = random_batch(system, size), torch.arange(size)
    # One learning rate for all: this tests the wiring, not the recipe.
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses: list[float] = []
    while len(losses) < 100 and (not losses or losses[-1] > losses[0] / 4):
        loss, _ = total_and_main_loss(LOSSES[training.loss], model(*x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] <= losses[0] / 4


@pytest.mark.slow
@pytest.mark.parametrize("id", sorted(DEEP))
def test_deep_networks_overfit_two_pictures(id: str) -> None:
    """A few steps, until the two pictures are told apart: one step takes as long as a whole test of another network."""
    model = build(systems.get(id), 8)
    x, target = torch.randn(2, *PICTURE, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 6])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses: list[float] = []
    while len(losses) < 12 and (not losses or losses[-1] > math.log(2) / 2):
        loss = nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters() if not losses else ():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        optimizer.step()
        losses.append(loss.item())
    # A network that knows the two classes, but not which picture has which, has a loss of log 2.
    assert losses[-1] <= math.log(2) / 2, losses


@pytest.mark.parametrize("id", NEURAL)
def test_same_seed_gives_the_same_model_and_another_seed_another(id: str) -> None:
    system = systems.get(id)
    x = random_batch(system, 2)
    first, again, other = (build(system, 8, seed).eval()(*x) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("id", NEURAL)
def test_weights_load_without_running_code(id: str, tmp_path: Path) -> None:
    system = systems.get(id)
    saved, loaded = build(system, 8, 0), build(system, 8, 1)
    saved(*random_batch(system, 4))  # moves the running statistics away from their initial values
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    loaded.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    x = random_batch(system, 2, seed=1)
    assert torch.equal(saved.eval()(*x), loaded.eval()(*x))


@pytest.mark.parametrize("id", NEURAL)
def test_recipe_makes_its_optimizer_and_loss(id: str) -> None:
    training = systems.get(id).recipe.training
    assert training is not None
    optimizer = build_optimizer(training.optimizer, [nn.Parameter(torch.zeros(1))])
    assert optimizer.param_groups[0]["lr"] == training.optimizer.lr
    assert training.loss in LOSSES


def test_a_system_needs_a_store_for_each_input() -> None:
    systems.get("padova2023/late-fusion").require_trainable(2)
    with pytest.raises(ModelError, match=r"late-fusion reads 2 stores \(waveform and mel/mfcc\), not 1"):
        systems.get("padova2023/late-fusion").require_trainable(1)


def test_an_ensemble_is_not_trained() -> None:
    with pytest.raises(
        ModelError, match=r"mean of padova2023/late-fusion, padova2023/cnn2d-mel,.*`mgc evaluate --ensemble RUN"
    ):
        systems.get("padova2023/ensemble-2").require_trainable()


@pytest.mark.parametrize("id", [system.id for system in systems.systems() if system.members])
def test_an_ensemble_has_the_inputs_of_its_members(id: str) -> None:
    ensemble = systems.get(id)
    members = [systems.get(member) for member in ensemble.members]
    assert ensemble.kind == "ensemble"
    assert set(ensemble.inputs) == {spec for member in members for spec in member.inputs}
    specs = {spec for member in members for spec in (member.recipe.features, *member.recipe.further)}
    assert {ensemble.recipe.features, *ensemble.recipe.further} == specs
    assert {member.recipe.slicing for member in members} == {ensemble.recipe.slicing}
    assert ensemble.params(8) == sum(member.params(8) or 0 for member in members)


def test_unknown_id_names_the_nearest_ones() -> None:
    with pytest.raises(ModelError, match=r"xu2022/mobilnet.*did you mean xu2022/mobilenet.*`mgc models`"):
        systems.get("xu2022/mobilnet")


def test_aliases_are_other_names_of_systems() -> None:
    for alias, id in systems.ALIASES.items():
        assert alias not in systems.ids()
        assert systems.get(alias) is systems.get(id)
        assert alias in systems.get(id).aliases
    with pytest.raises(ModelError, match="did you mean xu2022/resnet101"):
        systems.get("xu2022/resnet-101")


def test_duplicate_id_is_refused() -> None:
    register = systems.system("kth2020/cnn", input=systems.get("kth2020/cnn").input)
    with pytest.raises(ModelError, match="two models have the id kth2020/cnn"):
        register(lambda n_classes: nn.Linear(1, n_classes))


@pytest.mark.parametrize(
    ("feature", "bins", "id"),
    [
        ("stft", 513, "mgc/stft"),
        ("mel", 128, "mgc/cnn"),
        ("mfcc", 20, "mgc/mfcc"),
        ("mfcc", 13, "vit2021/cnn"),
        ("mfcc", 19, "vit2021/cnn"),
    ],
)
def test_default_model_reads_what_it_is_the_default_for(feature: str, bins: int, id: str) -> None:
    assert systems.default_model(feature, bins) == id
    needed = systems.get(id).input
    assert feature in needed.features
    assert (needed.stored_bands or 0) <= bins


def test_no_default_for_other_features() -> None:
    with pytest.raises(ModelError, match="chroma"):
        systems.default_model("chroma", 12)


def test_ids_and_misspelt_ids_need_no_torch() -> None:
    program = """
import sys
from mgc.models.data import fit
from mgc.models.registry import systems
from mgc.pipeline.errors import ModelError
assert systems.default_model("mel", 128) in systems.ids()
try:
    systems.get("kth2020/cmn")
except ModelError:
    assert "torch" not in sys.modules
else:
    sys.exit("found")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_counting_parameters_does_not_import_the_compiler() -> None:
    program = """
import sys
from mgc.models.registry import systems
for system in systems.systems():
    system.params(8)
assert "torch" in sys.modules and "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
