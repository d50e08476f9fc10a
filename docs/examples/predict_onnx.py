"""Name the genre of an audio file by an exported model: python predict_onnx.py model.onnx song.mp3

Needs onnxruntime, soundfile, soxr and numpy. The model was exported by `mgc export --from samples`.
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile
import soxr

model, song = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
rate, hop, n_slice = (int(about[key]) for key in ("sample_rate", "hop_length", "slice_frames"))
length, margin, skip = (int(about[f"window_{key}"]) for key in ("samples", "margin_samples", "skip_frames"))
seconds, step, offset = (float(about[f"slice_{key}seconds"]) for key in ("", "hop_", "offset_"))

samples, file_rate = soundfile.read(song, dtype="float32", always_2d=True)
mono = samples.mean(axis=1)
duration = len(mono) / file_rate
if file_rate != rate:
    mono = soxr.resample(mono, file_rate, rate, quality="HQ")

n_slices = int((duration - offset - seconds) / step + 1e-9) + 1  # those that lie inside the track
starts = [int((offset + i * step) * rate / hop + 1e-9) for i in range(n_slices)]  # in frames
starts = [start for start in starts if start + n_slice <= 1 + int(duration * rate / hop + 1e-9)]
padded = np.pad(mono, (margin, length + n_slice * hop))
windows = [padded[(start + skip) * hop :][:length] for start in starts]
probabilities = session.run(None, {"samples": np.stack(windows)})[0].mean(axis=0)
for genre, probability in sorted(zip(json.loads(about["labels"]), probabilities, strict=True), key=lambda row: -row[1]):
    print(f"{probability:.6f} {genre}")
