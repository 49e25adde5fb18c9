"""Converts an embedding model to 8 bits for onnxruntime: the extra `onnx`, and its package `onnx`.

The graph computes what `Embedder` does, up to the hidden states of each token. Its matrices are
then rounded to 8 bits by onnxruntime's own quantiser, a scale for each column. At run time the
other side of a product is rounded as well, with one scale for all that is embedded together. So
texts are embedded one by one: the result for a message does not depend on those beside it.
"""

import math
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.intents.embedder import read_tensors

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["MODEL_FILE", "export"]

MODEL_FILE = "model.onnx"
_COPIED = ("config.json", "vocab.txt", "1_Pooling/config.json")
_OPSET = 17  # the first with LayerNormalization


def export(source: Path, target: Path) -> int:
    """Write the folder of an 8-bit model.

    Args:
        source: Folder of a model that `Embedder` reads.
        target: Folder to write.

    Returns:
        The size of the new model, in bytes.

    Raises:
        ConfigError: The extra `onnx` is not installed, the source is no such model, or the target
            cannot be written.
    """
    try:
        import onnx  # noqa: PLC0415 - an extra
        from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "converting needs an extra that is not installed; pip install 'seawall[onnx]'"
        ) from error
    if not (source / "model.safetensors").is_file():
        raise ConfigError(f"{source}: has no model.safetensors to convert")
    try:
        for name in _COPIED:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target / name)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error}") from error
    with tempfile.TemporaryDirectory(prefix="seawall-onnx-") as folder:
        whole = Path(folder) / MODEL_FILE
        onnx.save(_Graph(onnx, source).model(), whole)
        quantize_dynamic(
            whole, target / MODEL_FILE, weight_type=QuantType.QInt8, per_channel=True,
            op_types_to_quantize=["MatMul", "Gather"],
        )  # fmt: skip
    return (target / MODEL_FILE).stat().st_size


class _Graph:
    """Builds the graph, a node after the other; each method returns the name of its result."""

    def __init__(self, onnx: ModuleType, source: Path) -> None:
        self._onnx: Any = onnx  # has no types
        self._tensors, _ = read_tensors(source / "model.safetensors")
        self._config = msgspec.json.decode((source / "config.json").read_bytes())
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def model(self) -> "ModelProto":
        """The model: `tokens` (texts by positions) to `hidden` (by size)."""
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        words = self._node("Gather", self._weight("embeddings.word_embeddings.weight"), "tokens")
        places = self._positions()
        hidden = self._normal(self._node("Add", words, places), "embeddings.LayerNorm")
        for number in range(self._config["num_hidden_layers"]):
            hidden = self._layer(hidden, f"encoder.layer.{number}")
        self._nodes.append(helper.make_node("Identity", [hidden], ["hidden"]))
        shape = ["texts", "positions"]
        graph = helper.make_graph(
            self._nodes,
            "sentence-embedding",
            [
                helper.make_tensor_value_info("tokens", kinds.INT64, shape),
            ],
            [
                helper.make_tensor_value_info(
                    "hidden", kinds.FLOAT, [*shape, self._config["hidden_size"]]
                )
            ],
            self._constants,
        )
        opset = helper.make_opsetid("", _OPSET)
        made: ModelProto = helper.make_model(graph, opset_imports=[opset])
        return made

    def _positions(self) -> str:
        """The vectors of the positions that there are, from the first on."""
        rows = self._tensors["embeddings.position_embeddings.weight"]
        rows = rows + self._tensors["embeddings.token_type_embeddings.weight"][0]
        count = self._node("Shape", "tokens", start=1, end=2)
        zero = self._constant("zero", np.array([0], np.int64))
        return self._node("Slice", self._constant("positions", rows), zero, count, zero)

    def _layer(self, hidden: str, name: str) -> str:
        attended = self._attend(hidden, f"{name}.attention")
        hidden = self._node("Add", hidden, attended)
        hidden = self._normal(hidden, f"{name}.attention.output.LayerNorm")
        wide = self._linear(hidden, f"{name}.intermediate.dense")
        narrow = self._linear(self._gelu(wide), f"{name}.output.dense")
        return self._normal(self._node("Add", hidden, narrow), f"{name}.output.LayerNorm")

    def _attend(self, hidden: str, name: str) -> str:
        heads, size = self._config["num_attention_heads"], self._config["hidden_size"]
        apart = self._constant("apart", np.array([0, 0, heads, size // heads], np.int64))
        together = self._constant("together", np.array([0, 0, size], np.int64))

        def split(part: str, order: list[int]) -> str:
            rows = self._node("Reshape", self._linear(hidden, f"{name}.self.{part}"), apart)
            return self._node("Transpose", rows, perm=order)

        scores = self._node("MatMul", split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]))
        scale = self._constant("scale", np.float32(1 / math.sqrt(size // heads)))
        shares = self._node("Softmax", self._node("Mul", scores, scale), axis=-1)
        context = self._node("MatMul", shares, split("value", [0, 2, 1, 3]))
        context = self._node("Transpose", context, perm=[0, 2, 1, 3])
        return self._linear(self._node("Reshape", context, together), f"{name}.output.dense")

    def _linear(self, rows: str, name: str) -> str:
        matrix = self._constant(f"{name}.matrix", self._tensors[f"{name}.weight"].T.copy())
        return self._node("Add", self._node("MatMul", rows, matrix), self._weight(f"{name}.bias"))

    def _normal(self, rows: str, name: str) -> str:
        scale, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        epsilon = self._config["layer_norm_eps"]
        return self._node("LayerNormalization", rows, scale, bias, axis=-1, epsilon=epsilon)

    def _gelu(self, rows: str) -> str:
        """In the form that onnxruntime knows as one operation: x / 2 * (1 + erf(x / sqrt 2))."""
        root = self._constant("root", np.float32(math.sqrt(2)))
        error = self._node("Erf", self._node("Div", rows, root))
        whole = self._node(
            "Mul", rows, self._node("Add", error, self._constant("one", np.float32(1)))
        )
        return self._node("Mul", whole, self._constant("half", np.float32(0.5)))

    def _node(self, kind: str, *inputs: str, **attributes: object) -> str:
        result = f"{kind}-{len(self._nodes)}"
        self._nodes.append(
            self._onnx.helper.make_node(kind, inputs, [result], name=result, **attributes)
        )
        return result

    def _weight(self, name: str) -> str:
        return self._constant(name, self._tensors[name])

    def _constant(self, name: str, value: NDArray[Any] | np.float32) -> str:
        if not any(each.name == name for each in self._constants):
            array = np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
            self._constants.append(self._onnx.numpy_helper.from_array(np.asarray(array), name))
        return name
