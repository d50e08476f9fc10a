"""pons2019: layers and parameters of the networks, their input, and parity with the original graphs."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from commands import mgc
from safetensors.torch import save_file

from mgc.models.data.adapters import adapter
from mgc.models.registry import systems, weights
from mgc.models.zoo.pons2019 import TaggingNetwork, TemporalBlock
from mgc.pipeline.downloads.published_weights import published_weights
from mgc.pipeline.errors import ModelError
from mgc.pipeline.workspace import Workspace

#: Outputs of the TensorFlow graphs of the wheel `musicnn` 0.1.0 for `inputs`: tags (3, 50), and dense_relu (3, 200).
REFERENCE = Path(__file__).with_name("pons2019_reference.npz")
#: Parameters of a convolution or dense layer with a bias, and of the batch norm behind it, each by hand.
MUSICNN_BODY = (
    2
    + sum(204 * (7 * bands + 1 + 2) for bands in (38, 67))
    + sum(51 * (frames + 1 + 2) for frames in (128, 64, 32))
    + sum(64 * (7 * channels + 1 + 2) for channels in (561, 64, 64))
    + 2 * 1506
    + 200 * (1506 + 1 + 2)
)
VGG_BODY = 2 + 128 * (9 + 3) + 4 * 128 * (9 * 128 + 3)


def inputs() -> torch.Tensor:
    """Random values, zeros, and random values that rise with the band: float32 `(3, 1, 187, 96)`."""
    values = np.random.default_rng(0).uniform(0, 4, (3, 187, 96)).astype(np.float32)
    values[1] = 0
    values[2] *= np.linspace(0, 1, 96, dtype=np.float32)
    return torch.from_numpy(values).unsqueeze(1)


def build(id: str, n_classes: int = 50) -> TaggingNetwork:
    torch.manual_seed(0)
    return systems.get(id).build(n_classes).eval()


@pytest.mark.parametrize(
    ("id", "body", "width"),
    [
        ("pons2019/musicnn", MUSICNN_BODY, 200),
        ("pons2019/vgg", VGG_BODY, 256),
        ("pons2019/vgg-mtt", VGG_BODY, 256),
    ],
)
@torch.inference_mode()
def test_layers_parameters_and_determinism(id: str, body: int, width: int) -> None:
    model, x = build(id), inputs()[:2]
    assert sum(p.numel() for p in model.parameters()) == body + 50 * (width + 1)
    assert systems.get(id).params(8) == body + 8 * (width + 1)
    layers = model.layers(x)
    assert {name: values.shape for name, values in layers.items()} == {
        name: (2, size) for name, size in {**model.LAYERS, "logits": 50}.items()
    }
    assert model.LAYERS[model.EMBEDDING] == width
    logits = model(x)
    assert torch.equal(model.embed(x, model.EMBEDDING), layers[model.EMBEDDING])
    assert torch.equal(model.head(layers[model.EMBEDDING]), logits)
    assert torch.equal(model.tags(x), logits.sigmoid())
    assert not torch.equal(model.train()(x), model(x))  # dropout


@torch.inference_mode()
def test_pooled_layers_are_means_and_maxima_over_time() -> None:
    model, x = build("pons2019/musicnn"), inputs()
    layers = model.layers(x)
    parts = torch.cat([layers[name] for name in ("timbral", "temporal", "cnn1", "cnn2", "cnn3")], dim=1)
    torch.testing.assert_close(parts, layers["mean_pool"])
    assert (layers["max_pool"] >= layers["mean_pool"]).all()
    assert model(x[:, :, :100]).shape == (3, 50)


@torch.inference_mode()
def test_the_maximum_before_the_norm_is_the_maximum_behind_it() -> None:
    block, x = TemporalBlock(9, 4), torch.rand(2, 1, 30, 12)
    torch.nn.init.normal_(block.norm.weight)  # half of the lines fall
    torch.nn.init.normal_(block.norm.bias)
    plain = block.eval().norm(block.conv(torch.nn.functional.pad(x, (0, 0, 1, 2))).relu()).amax(dim=3)
    assert torch.equal(block(x), plain)


@torch.inference_mode()
@pytest.mark.parametrize("length", [4, 5])
def test_even_filters_reach_one_frame_further_ahead(length: int) -> None:
    """TensorFlow: y[t] = sum of w[k] x[t + k - (length - 1) // 2]."""
    block = TemporalBlock(1, length)
    x = torch.rand(1, 1, 20, 1)
    padded = np.pad(x.flatten().numpy(), length)
    weight, start = block.conv.weight.flatten().numpy(), length - (length - 1) // 2
    expected = [padded[t + start : t + start + length] @ weight + block.conv.bias.item() for t in range(20)]
    expected = np.maximum(expected, 0) / np.sqrt(1 + 1e-3)
    np.testing.assert_allclose(block.eval()(x).flatten().numpy(), expected, atol=1e-6)


def test_levels_in_db_become_the_input_of_the_study() -> None:
    rng = np.random.default_rng(0)
    samples = np.concatenate([rng.normal(size=16000), np.zeros(8000), 1e-3 * rng.normal(size=16000)])
    mel = librosa.feature.melspectrogram(y=samples, sr=16000, n_fft=512, hop_length=256, n_mels=96).T
    db = librosa.power_to_db(mel, ref=1, amin=1e-10, top_db=None).astype(np.float32)
    system = systems.get("pons2019/musicnn")
    module = adapter(system.input, system.recipe.features)
    converted = module(torch.from_numpy(db).unsqueeze(0))
    np.testing.assert_allclose(converted[0, 0].numpy(), np.log10(1 + 10_000 * mel), atol=2e-6)


def trained_like(id: str, folder: Path) -> Path:
    """A file such as `mgc download musicnn` makes, with random weights."""
    state = {name: value for name, value in build(id).state_dict().items() if "num_batches" not in name}
    save_file(state, folder / "random.safetensors")
    return folder / "random.safetensors"


@pytest.mark.parametrize("id", ["pons2019/musicnn", "pons2019/vgg"])
def test_genres_get_a_new_head(id: str, tmp_path: Path) -> None:
    start = weights.read(trained_like(id, tmp_path), systems.get(id), 8)
    assert start.fresh == ("head.weight", "head.bias")
    model, source = build(id, 8), build(id)
    model.load_state_dict(dict(start.tensors), strict=False)
    x = inputs()
    with torch.inference_mode():
        torch.testing.assert_close(model.embed(x, model.EMBEDDING), source.embed(x, model.EMBEDDING))


def test_names_of_weights(tmp_path: Path) -> None:
    workspace, musicnn, vgg = Workspace(tmp_path), systems.get("pons2019/musicnn"), systems.get("pons2019/vgg")
    folder = tmp_path / "weights" / "musicnn"
    with pytest.raises(ModelError, match=r"MSD_musicnn.safetensors is not there; get it with `mgc download musicnn`"):
        weights.find(Path("musicnn"), musicnn, workspace)
    folder.mkdir(parents=True)
    for network in published_weights("musicnn").networks:
        (folder / f"{network.name}.safetensors").touch()
    names = {"musicnn": "MSD_musicnn", "musicnn/MTT_musicnn": "MTT_musicnn"}
    for name, file in names.items():
        assert weights.find(Path(name), musicnn, workspace) == folder / f"{file}.safetensors"
    assert weights.find(Path("musicnn"), vgg, workspace) == folder / "MSD_vgg.safetensors"
    assert weights.find(Path("other.pt"), vgg, workspace) == Path("other.pt")
    with pytest.raises(
        ModelError, match=r"--weights musicnn/MTT_vgg: no weights of pons2019/vgg; there are .*vgg-mtt\)"
    ):
        weights.find(Path("musicnn/MTT_vgg"), vgg, workspace)
    with pytest.raises(ModelError, match="no weights of kth2020/cnn"):
        weights.find(Path("musicnn"), systems.get("kth2020/cnn"), workspace)
    for name in ("else", "musicnn/MSD"):
        with pytest.raises(ModelError, match=f"there are no weights '{name}'; `mgc download` lists"):
            weights.load_trained(name, workspace)


def test_the_description_fits_the_networks() -> None:
    for network in published_weights("musicnn").networks:
        model = build(network.system, len(network.tags))
        modules = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
        assert set(network.layers.values()) == modules
        assert len(set(network.tags)) == 50


@pytest.fixture
def workspace(musicnn: Path) -> Workspace:
    """A workspace with the real weights."""
    return Workspace(musicnn.parents[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MSD_musicnn", "MSD_vgg", "MTT_musicnn", "MTT_vgg"])
def test_parity_with_the_original_graph(name: str, workspace: Workspace) -> None:
    system, model, start = weights.load_trained(f"musicnn/{name}", workspace)
    assert (start.fresh, start.origin["system"], start.origin["licence"]) == ((), system.id, "ISC")
    reference = np.load(REFERENCE)
    with torch.inference_mode():
        x = inputs()
        np.testing.assert_allclose(model.tags(x).numpy(), reference[f"{name}_tags"], rtol=0, atol=1e-5)
        if f"{name}_dense_relu" in reference:
            np.testing.assert_allclose(
                model.embed(x, "dense_relu").numpy(), reference[f"{name}_dense_relu"], rtol=0, atol=1e-4
            )
    other = {"MSD_vgg": "pons2019/vgg-mtt", "MTT_vgg": "pons2019/vgg"}.get(name)
    if other:  # the same tensors behind other pools: the wrong network must be refused
        with pytest.raises(ModelError, match=f"these are weights of {system.id}, not of {other}"):
            weights.read(start.file, systems.get(other), 50)


@pytest.mark.slow
def test_the_weights_that_were_downloaded_are_verified(workspace: Workspace) -> None:
    check = mgc("download", "musicnn", "--check", "--data-dir", workspace.root, "--json")
    assert (check.code, check.json["files"], check.json["clean"]) == (0, 5, True)
