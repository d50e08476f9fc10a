"""Log-mel spectrograms of a folder of MP3s by lhotse or Essentia, as in their documentation.

    python benchmarks/peers.py lhotse|essentia FOLDER OUT

The parameters are those of mgc's `mel`: mono, 22050 Hz, windows of 2048 samples, hop 512, 128 bands. lhotse uses the
Fbank extractor on a CutSet and stores with its Lilcom writer. Essentia uses the frame loop of its tutorial "Spectral
representations" and stores one .npy file per clip. Neither cuts slices or checks for damaged files.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

SR = 22050
WINDOW = 2048
HOP_LENGTH = 512
N_MELS = 128


def lhotse(folder: Path, out: Path) -> None:
    """Extract with lhotse's Fbank to `<out>/feats`."""
    from lhotse import CutSet, Fbank, FbankConfig, LilcomChunkyWriter, RecordingSet

    recordings = RecordingSet.from_dir(folder, pattern="*.mp3").resample(SR)
    # A cut mixed down to mono holds its samples in memory, and lhotse cannot write it to a manifest. So only the
    # features are stored.
    cuts = CutSet.from_manifests(recordings=recordings).map(lambda cut: cut.to_mono(mono_downmix=True))
    config = FbankConfig(
        sampling_rate=SR, frame_length=WINDOW / SR, frame_shift=HOP_LENGTH / SR, num_filters=N_MELS, high_freq=0
    )
    cuts.to_eager().compute_and_store_features(Fbank(config), out / "feats", storage_type=LilcomChunkyWriter)


def essentia(folder: Path, out: Path) -> None:
    """Extract with Essentia's MelBands, one .npy file per clip."""
    import essentia
    import essentia.standard as es

    essentia.log.infoActive = False
    window = es.Windowing(type="hann", size=WINDOW)
    spectrum = es.Spectrum(size=WINDOW)
    bands = es.MelBands(numberBands=N_MELS, inputSize=WINDOW // 2 + 1, sampleRate=SR, highFrequencyBound=SR / 2)
    decibels = es.UnaryOperator(type="lin2db", scale=2)
    for path in sorted(folder.glob("*.mp3")):
        audio = es.MonoLoader(filename=str(path), sampleRate=SR)()
        frames = es.FrameGenerator(audio, frameSize=WINDOW, hopSize=HOP_LENGTH)
        np.save(out / f"{path.stem}.npy", np.stack([decibels(bands(spectrum(window(frame)))) for frame in frames]))


PEERS: dict[str, Callable[[Path, Path], None]] = {"lhotse": lhotse, "essentia": essentia}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    PEERS[options.peer](options.folder, options.out)


if __name__ == "__main__":
    main()
