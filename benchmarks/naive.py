"""The baseline script without mgc: librosa and joblib, one .npy file per clip.

    python benchmarks/naive.py FOLDER OUT --feature stft|mel [--jobs N]

Cuts every MP3 of a folder into 4 s slices with 50 % overlap, computes the log spectrogram of each slice and saves the
slices of a clip as one array. It uses the parameters of mgc's features and the calls of librosa's documentation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
import librosa
import numpy as np

SLICE_S = 4
HOP_LENGTH = 512


def stft(y: np.ndarray, sr: int) -> np.ndarray:
    """Compute the STFT magnitude in dB below the slice's maximum."""
    return librosa.amplitude_to_db(np.abs(librosa.stft(y, n_fft=1024, hop_length=HOP_LENGTH)), ref=np.max)


def mel(y: np.ndarray, sr: int) -> np.ndarray:
    """Compute the mel spectrogram in dB below the slice's maximum."""
    power = librosa.feature.melspectrogram(y=y, sr=sr, n_fft=2048, hop_length=HOP_LENGTH, n_mels=128)
    return librosa.power_to_db(power, ref=np.max)


#: Transform and sample rate in Hz by feature.
FEATURES = {"stft": (stft, 44100), "mel": (mel, 22050)}


def extract(path: Path, out: Path, feature: str) -> None:
    """Save the spectrograms of a clip's slices as `<out>/<stem>.npy`."""
    transform, sr = FEATURES[feature]
    y, _ = librosa.load(path, sr=sr)
    length = SLICE_S * sr
    starts = range(0, len(y) - length + 1, length // 2)
    np.save(out / f"{path.stem}.npy", np.stack([transform(y[start : start + length], sr) for start in starts]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--feature", choices=FEATURES, default="stft")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    paths = sorted(options.folder.rglob("*.mp3"))
    joblib.Parallel(n_jobs=options.jobs)(joblib.delayed(extract)(p, options.out, options.feature) for p in paths)


if __name__ == "__main__":
    main()
