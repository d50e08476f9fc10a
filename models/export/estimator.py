"""Classical systems in ONNX: the vectors by `torch.onnx`, the fitted estimator by skl2onnx, joined to one model."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from mgc.models.export.onnx_file import require_packages
from mgc.pipeline.errors import MgcError

if TYPE_CHECKING:
    from onnx import ModelProto
    from sklearn.pipeline import Pipeline


def join(vectors: ModelProto, estimator: Pipeline, n_values: int, model: str) -> ModelProto:
    """Append a fitted estimator to the model that computes its vectors, whose output is named `vectors`.

    Args:
        vectors: the model of the vectors.
        estimator: pipeline of scikit-learn.
        n_values: values of a vector.
        model: id of the system, for messages.

    Returns:
        A model whose output `probabilities` is `(slices, classes)`.

    Raises:
        MgcError: skl2onnx is not installed, or knows no equivalent of a step.
    """
    require_packages(["skl2onnx"])
    import onnx
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    opset = next(entry.version for entry in vectors.opset_import if entry.domain == "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = convert_sklearn(
                estimator,
                initial_types=[("vectors_in", FloatTensorType([None, n_values]))],
                options={id(estimator): {"zipmap": False}},
                target_opset={"": min(opset, 18), "ai.onnx.ml": 3},
            )
        vectors = onnx.version_converter.convert_version(vectors, 18) if opset > 18 else vectors
        prefixed = onnx.compose.add_prefix(converted, "estimator/")
        prefixed.ir_version = vectors.ir_version
        joined = onnx.compose.merge_models(
            vectors,
            prefixed,
            io_map=[("vectors", "estimator/vectors_in")],
            outputs=[next(o.name for o in prefixed.graph.output if o.name.endswith("probabilities"))],
        )
    except Exception as error:  # skl2onnx raises many kinds of errors for what it cannot convert
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MgcError(f"{model} has no equivalent in ONNX ({reason})", "use the run itself: `mgc predict`") from None
    output = joined.graph.output[0].name
    for node in joined.graph.node:
        for number, name in enumerate(node.output):
            if name == output:
                node.output[number] = "probabilities"
    joined.graph.output[0].name = "probabilities"
    return joined
