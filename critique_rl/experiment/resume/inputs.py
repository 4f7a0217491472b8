"""What a run's numbers depend on beside its settings: package versions, the options behind a
preset's name, prompt templates, rows, the policy's files, the critic's model, code of the user, and
ranks. Each has a short text or checksum.

config.yaml keeps them under `inputs`. Left out: the machine, whose last digits may differ, and what
a server of a critic runs.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import RunConfig
from critique_rl.hashing import file_checksum, text_checksum
from critique_rl.policy import resolve_model
from critique_rl.prompts import template_sources
from critique_rl.tasks.load import load_task
from critique_rl.tasks.task import Task
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.presets import preset

PACKAGES = ("torch", "transformers", "trl", "tokenizers", "accelerate", "critique_rl")
"""Whose versions can change what is sampled or trained."""
LOADED = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".py", ".tiktoken", ".gguf")
"""Suffixes of a policy's files that transformers loads."""
Inputs = dict[str, str]
"""Name of an input, such as "prompts/refine" -> its version, count or checksum."""


def read_inputs(config: RunConfig, task: Task, arguments: CritiqueGRPOConfig) -> Inputs:
    """The inputs of a run as they are now.

    Args:
        config: The run.
        task: Its task, loaded with the run's seed.
        arguments: Its trainer's. New ones would reset the state of a trainer that is built.

    Raises:
        ConfigError: A file that cannot be read.
    """
    try:
        return {
            **_versions(config),
            **preset_inputs(config.preset),
            **_templates(config, task, arguments),
            **data_inputs(config, task),
            **model_inputs("policy", config.policy.model),
            **_critic_inputs(config.critic),
            **_teacher_inputs(config),
            **code_inputs(config),
            "ranks": os.environ.get("WORLD_SIZE", "1"),
        }
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror or error}") from error


def inputs_at(prefix: str, config: RunConfig, seed: int) -> Inputs:
    """The inputs of one kind, such as "policy/" or "data/", where the settings have them now.

    Raises:
        ConfigError: The task cannot be loaded.
    """
    if prefix == "data/":
        return data_inputs(config, load_task(config.task, seed))
    if prefix == "critic/":
        return _critic_inputs(config.critic)
    if prefix == "teacher/":
        return _teacher_inputs(config)
    return model_inputs("policy", config.policy.model)


def _versions(config: RunConfig) -> Inputs:
    names = list(PACKAGES)
    if config.task.name.startswith("reasoning-gym/"):
        names.append("reasoning-gym")
    if config.task.name.startswith("reasoning-core/"):
        names.append("reasoning-core")
    if "math" in str(config.task.verifier):
        names.append("math-verify")
    if config.trl.get("use_vllm"):
        names.append("vllm")
    versions = {"python": short_python(platform.python_version())}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def short_python(full: str) -> str:
    """The version of Python without its last part, which fixes bugs only."""
    return ".".join(full.split(".")[:2])


def preset_inputs(name: str) -> Inputs:
    """The options of a preset (none for ""), which a newer version may set otherwise."""
    if not name:
        return {}
    # No kind before a slash: a branch may have another preset than its trunk.
    return {f"preset {name}": text_checksum(json.dumps(preset(name), sort_keys=True))}


# ---- templates -----------------------------------------------------------------------------------


def _templates(config: RunConfig, task: Task, arguments: CritiqueGRPOConfig) -> Inputs:
    inputs = {}
    for name in _template_names(config, task, arguments):
        for source, text in template_sources(name).items():
            inputs[f"prompts/{source}"] = text_checksum(text)
    return inputs


def _template_names(config: RunConfig, task: Task, arguments: CritiqueGRPOConfig) -> list[str]:
    """Templates that the run fills."""
    names = _critic_templates(config.critic, task.prompts)
    has_critic = config.critic.get("kind") != "none"
    if has_critic or arguments.refine_column is not None:
        names.append(config.method.get("refine_template", f"{task.prompts}refine"))
    if arguments.distill_weight:
        names.append(config.method.get("distill_template", f"{task.prompts}teacher"))
    if config.evaluation.second_template:
        names.append(config.evaluation.second_template)
    return names


def _critic_templates(spec: Mapping[str, Any], prefix: str) -> list[str]:
    kind = spec.get("kind")
    if kind in ("indicative", "ground_truth"):
        return [f"{prefix}{kind}"]
    if kind in ("self", "local", "api"):
        default = "critique_group" if spec.get("scope") == "group" else "critique"
        return [spec.get("template", f"{prefix}{default}")]
    if isinstance(spec.get("critic"), Mapping):
        return _critic_templates(spec["critic"], prefix)
    return []


# ---- rows and models -----------------------------------------------------------------------------


def data_inputs(config: RunConfig, task: Task) -> Inputs:
    """The rows that are trained on, and those of the learning curve and of the evaluation."""
    evaluation = config.evaluation
    inputs = {"data/train": _rows_checksum(task.train)}
    rows = task.held_out(evaluation.split, evaluation.problems)
    inputs[f"data/{evaluation.split}"] = _rows_checksum(rows)
    if evaluation.curve_every:
        rows = task.held_out("validation", evaluation.curve_problems)
        inputs["data/curve"] = _rows_checksum(rows)
    return inputs


def _rows_checksum(rows: Sequence[Mapping[str, Any]]) -> str:
    texts = [json.dumps(dict(row), sort_keys=True, default=_plain_repr) for row in rows]
    return f"{len(rows)} rows, {text_checksum(chr(10).join(texts))}"


def _plain_repr(value: Any) -> str:
    """A value's repr without its address, which changes from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def model_inputs(where: str, model: str, revision: str | None = None) -> Inputs:
    """Checksums of a model's files, the tokenizer's and the chat template among them.

    Args:
        where: "policy", "critic" or "teacher".
        model: A folder, a name of `policy`, or a Hub id, of which the commit counts.
        revision: Branch, tag or commit of a Hub id; None: its main branch.
    """
    try:
        folder = Path(resolve_model(model))
    except FileNotFoundError:
        # Loading it will tell.
        return {}
    if not folder.is_dir():
        return _commit(where, model, revision)
    inputs = {}
    for path in sorted(folder.iterdir()):
        is_loaded = path.suffix in LOADED and not path.name.startswith(".")
        if is_loaded and path.is_file():
            inputs[f"{where}/{path.name}"] = file_checksum(path)
    return inputs


def _commit(where: str, model: str, revision: str | None) -> Inputs:
    """The commit of a Hub model in the local cache; {} before it was loaded for the first time."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(model, "config.json", revision=revision)
    except HFValidationError:
        return {}
    if isinstance(path, str):
        return {f"{where}/commit": Path(path).parent.name}
    return {}


def _critic_inputs(spec: Mapping[str, Any]) -> Inputs:
    if spec.get("kind") == "local" and isinstance(spec.get("model"), str):
        return model_inputs("critic", spec["model"])
    if isinstance(spec.get("critic"), Mapping):
        return _critic_inputs(spec["critic"])
    return {}


def _teacher_inputs(config: RunConfig) -> Inputs:
    """The files of a teacher that is another model in this process."""
    teacher = config.method.get("distill_teacher")
    if not isinstance(teacher, Mapping) or not isinstance(teacher.get("model"), str):
        return {}
    # Nobody can tell which weights a server runs.
    if "base_url" in teacher:
        return {}
    return model_inputs("teacher", teacher["model"], teacher.get("revision"))


# ---- the user's code -----------------------------------------------------------------------------


def code_inputs(config: RunConfig) -> Inputs:
    """Checksums of the files of every target and of a verifier's command, and of the files beside
    them that they import.
    """
    inputs: Inputs = {}
    files: list[Path] = []
    for target in _targets([config.task.verifier, config.critic, config.reward]):
        files += _module_files(target.partition(":")[0])
    files += _command_files(config.task.verifier)
    for path in files:
        inputs[f"code/{_shown(path)}"] = file_checksum(path)
    return inputs


def _command_files(verifier: Any) -> list[Path]:
    """The files among the words of `task.verifier.argv`, and what those in Python import."""
    if not isinstance(verifier, Mapping) or verifier.get("kind") != "command":
        return []
    argv = verifier.get("argv") or ()
    files: list[Path] = []
    for word in argv:
        path = Path.cwd() / word
        # Not Path.is_file, which raises for a word as long as a program.
        if not os.path.isfile(path):
            continue
        if path.suffix == ".py":
            files += _with_imports(path, path.parent)
        else:
            files.append(path)
    return files


def _targets(value: Any) -> Iterator[str]:
    """Every `target` in nested settings."""
    if isinstance(value, Mapping):
        if isinstance(value.get("target"), str):
            yield value["target"]
        for inner in value.values():
            yield from _targets(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _targets(inner)


def _module_files(module: str) -> list[Path]:
    """The file of a module, and all files of the working folder that it imports, one by one."""
    folder = Path.cwd()
    path = _module_file(module, folder)
    if path is not None:
        return _with_imports(path, folder)
    path = folder / module
    if path.suffix == ".py" and path.is_file():
        return _with_imports(path, path.parent)
    # A module that is installed: its own file, and nothing of what it imports.
    installed = _installed_file(module)
    if installed is None:
        return []
    return [Path(installed)]


def _with_imports(file: Path, root: Path) -> list[Path]:
    """A file, and all files that it imports of the folder `root` or below, one by one."""
    files: dict[Path, None] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in files:
            continue
        files[path] = None
        for name in _imported(path, root):
            neighbour = _module_file(name, root)
            if neighbour is not None:
                waiting.append(neighbour)
    return list(files)


def _module_file(module: str, root: Path) -> Path | None:
    """The file of a module in a folder."""
    base = root.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _installed_file(module: str) -> str | None:
    try:
        spec = find_spec(module)
    # Importing the module will tell.
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    return spec.origin


def _imported(path: Path, root: Path) -> list[str]:
    """Names that may be modules of the folder `root`, from the imports of a file."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return []
    package = list(path.parent.relative_to(root).parts)
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            below = (node.module or "").split(".")
            base = ".".join([*above, *below]).strip(".")
            names.append(base)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                names.append(name.strip("."))
    return [name for name in names if name]


def _shown(path: Path) -> str:
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    return path.name
