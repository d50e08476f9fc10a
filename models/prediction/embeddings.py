"""The file of embeddings: what the last layer of a network sees of each slice of each audio file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mgc.models.prediction.predict import Detail
from mgc.models.prediction.prediction import FilePrediction
from mgc.pipeline.datasets.tracks import escape
from mgc.pipeline.storage import files


class EmbeddingFile:
    """Writes embeddings as Parquet while files are predicted, in a `with` block; the file appears when the block ends.

    One row per slice: path (as in the results), start_s (float64) and embedding (list of d float32). The key `mgc` of
    the file's metadata is `head` as JSON. Memory holds the rows of one audio file.

    Args:
        path: the file; replaced if it exists.
        head: what the embeddings depend on.

    Raises:
        MgcError: the file cannot be written.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._path = path
        self._temporary = files.temporary_path(path)
        self._head = head
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> EmbeddingFile:
        with files.translate_write_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()
        return self

    def add(self, prediction: FilePrediction, detail: Detail) -> None:
        """Append the embeddings of an audio file."""
        assert detail.embeddings is not None
        vectors = np.ascontiguousarray(detail.embeddings, np.float32)
        columns = {
            "path": pa.array([escape(prediction.path)] * len(vectors), pa.string()),
            "start_s": pa.array(detail.starts, pa.float64()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        }
        table = pa.table(columns).replace_schema_metadata({"mgc": json.dumps(self._head)})
        with files.translate_write_errors(self._path):
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._temporary, table.schema)
            self._writer.write_table(table)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        writer, self._writer = self._writer, None
        with files.translate_write_errors(self._path):
            if writer is not None:
                writer.close()
            if kind is not None or writer is None:
                self._temporary.unlink(missing_ok=True)
                return
            with self._temporary.open("rb") as file:
                os.fsync(file.fileno())
            files.replace_file(self._temporary, self._path)
