"""Opens the embedding model that is configured."""

from seawall.intents.embedder import Embedder, SentenceEmbedder, find_model

__all__ = ["open_embedder"]


def open_embedder(path: str) -> SentenceEmbedder:
    """Open the embedding model in a folder: with `model.onnx` by onnxruntime, otherwise by numpy.

    Args:
        path: Its folder; empty for that of the installed package.

    Raises:
        ConfigError: There is none, it cannot be used, or its extra is not installed.
    """
    folder = find_model(path)
    if (folder / "model.onnx").is_file():
        from seawall.intents.onnx_embedder import OnnxEmbedder  # noqa: PLC0415 - an extra

        return OnnxEmbedder(folder)
    return Embedder(folder)
