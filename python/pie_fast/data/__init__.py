"""Files shipped inside the package: the demo model and its cross-layer transcoder."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pie_fast.errors import CheckpointError


def _folder(name: str) -> Path:
    # the package is installed as plain files (it has a native module), never run from a zip
    path = Path(str(files(__name__))) / "demo" / name
    if not path.is_dir():
        raise CheckpointError(f"the demo's {name} folder is missing: {path}; reinstall pie-fast")
    return path


def demo_model_path() -> Path:
    """Folder of the demo model: a HuggingFace checkpoint with its tokenizer.

    Raises:
        CheckpointError: The package was installed without its data.
    """
    return _folder("model")


def demo_clt_path() -> Path:
    """Folder of the demo model's cross-layer transcoder, in the circuit-tracer format.

    Raises:
        CheckpointError: The package was installed without its data.
    """
    return _folder("clt")
