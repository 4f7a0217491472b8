"""Values that only a library can judge: it is asked before a run, without the weights of a model.

transformers builds the optimizer and the schedule of one parameter, samples two tokens from a toy
model, and builds the policy on the device "meta", which holds no numbers. So an unknown option ends
no run after its models have loaded, and none is left out without a word. Each check raises
ConfigError, with one sentence.
"""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    get_scheduler,
)
from transformers.generation import ContinuousBatchingConfig
from transformers.integrations import integration_utils
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.trainer_utils import SchedulerType
from transformers.utils import is_liger_kernel_available, logging

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import RunConfig
from critique_rl.policy import resolve_model
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig

Check = Callable[[RunConfig, CritiqueGRPOConfig], None]
"""Refuses an arm's settings by raising ConfigError."""


class MissingPackage(ConfigError):
    """A setting that needs a package, which may be installed where the runs start."""


PROBES = {"azure_ml": "azureml", "comet_ml": "comet", "flyte": "flytekit"}
"""Tracker -> its name in transformers' functions that look for packages, where that differs."""
PACKAGES = {"azure_ml": "azureml-core", "comet_ml": "comet-ml", "flyte": "flytekit"}
"""Tracker -> its package, where that has another name."""
MACHINES_OPTIONS = (
    "device_map",
    "max_memory",
    "offload_folder",
    "quantization_config",
    "tp_plan",
    "tp_size",
    "device_mesh",
    "distributed_config",
    "gguf_file",
    "state_dict",
    "config",
)
"""Options of `from_pretrained` that are about a machine, or about the weights."""
FOLDER_OPTIONS = ("subfolder", "revision", "token", "cache_dir", "local_files_only", "variant")
"""Those that say which files are meant, so that others would be asked about."""
TRAINERS_OPTIONS = ("optimizer", "last_epoch", "num_warmup_steps", "num_training_steps")
"""Arguments of a schedule that the trainer gives."""
VESPO_MODES = ("token_truncate", "token_mask")
LONGEST_WORDS = 300
MOST_DEVICES = 64
"""Devices of one kind that no machine has more of."""
TOY_TOKENS = 2
TOY_ROWS = 2
TOY_VOCABULARY = 300_000
MANY_STEPS = 1_000_000
"""Length of a schedule where only a budget of tokens ends the run."""


def check_vllm(config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Refuse vLLM where it is missing, and what its correction cannot be paired with.

    Raises:
        ConfigError: vLLM is not installed, or VESPO with a correction per sequence.
    """
    if not arguments.use_vllm:
        return
    mode = arguments.vllm_importance_sampling_mode
    is_corrected = arguments.vllm_importance_sampling_correction
    if arguments.loss_type == "vespo" and is_corrected and mode not in VESPO_MODES:
        raise ConfigError(
            f"trl.vllm_importance_sampling_mode: got {mode!r} with loss_type vespo, expected "
            f"{' or '.join(VESPO_MODES)}"
        )
    if find_spec("vllm") is None:
        raise MissingPackage(
            "trl.use_vllm: got true, and vLLM is not installed; run: pip install 'trl[vllm]', or "
            "set it to false"
        )


def check_trackers(config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Refuse a tracker that is not installed; transformers refuses unknown names.

    Raises:
        ConfigError: A package of `trl.report_to` is missing.
    """
    # transformers makes a list of every form; None is for type checkers.
    for name in arguments.report_to or []:
        asks = f"is_{PROBES.get(name, name)}_available"
        is_available = getattr(integration_utils, asks, None)
        if is_available is not None and not is_available():
            raise MissingPackage(
                f"trl.report_to: got {name!r}, whose package is not installed; "
                f"run: pip install {PACKAGES.get(name, name)}, or set it to none"
            )


def check_router(config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Refuse a loss of routers for a policy without experts.

    Raises:
        ConfigError: The policy has no routers.
    """
    coefficient = arguments.router_aux_loss_coef
    settings = _model_config(config.policy.model)
    if not coefficient or settings is None:
        return
    if not hasattr(settings.get_text_config(), "output_router_logits"):
        raise ConfigError(
            f"trl.router_aux_loss_coef: got {coefficient}, and {config.policy.model} "
            f"({settings.model_type}) has no experts; leave it out"
        )


def check_optimizer(config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Refuse an optimizer that cannot be built, and arguments that it would not read.

    Raises:
        ConfigError: What cannot be used.
    """
    parts = [part for part in str(arguments.optim_args or "").replace(" ", "").split(",") if part]
    for part in parts:
        if len(part.split("=")) != 2:
            raise ConfigError(
                f"trl.optim_args: got {part!r}, expected pairs such as momentum=0.9,nesterov=true"
            )
    try:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    except AttributeError:
        # Some look into the layers of the model.
        return
    except Exception as error:
        if "`model`" in str(error):
            return
        place = "trl.optim_args" if parts else "trl.optim"
        raise _refusal(error)(f"{place}: {_sentence(error)}") from error
    for part in parts:
        others = copy.copy(arguments)
        others.optim_args = ",".join(other for other in parts if other != part)
        if Trainer.get_optimizer_cls_and_kwargs(others) == (kind, options):
            name = part.partition("=")[0]
            raise ConfigError(
                f"trl.optim_args: {name} is not read by transformers for the optimizer "
                f"{getattr(arguments.optim, 'value', arguments.optim)}; leave it out"
            )
    try:
        kind([torch.nn.Parameter(torch.zeros(2, 2))], **options)
    except Exception as error:
        raise ConfigError(f"trl.optim_args: {_sentence(error)}") from error


def check_scheduler(config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Refuse arguments that the schedule of the learning rate does not take.

    Raises:
        ConfigError: What cannot be used.
    """
    name = SchedulerType(arguments.lr_scheduler_type)
    # TRL reads the text of a mapping too.
    options: Any = arguments.lr_scheduler_kwargs or {}
    # Any: transformers annotates the class "function", which mypy takes for no callable.
    function: Any = TYPE_TO_SCHEDULER_FUNCTION[name]
    taken = set(inspect.signature(function).parameters)
    taken -= set(TRAINERS_OPTIONS)
    for option in options:
        if option not in taken:
            raise ConfigError(
                f"trl.lr_scheduler_kwargs: {option} is no option of {name.value}, which takes "
                f"{', '.join(sorted(taken)) or 'none; set trl.lr_scheduler_type too'}"
            )
    steps = arguments.max_steps if arguments.max_steps > 0 else MANY_STEPS
    warmup = arguments.get_warmup_steps(steps)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=arguments.learning_rate)
    try:
        schedule = get_scheduler(
            name,
            optimizer=optimizer,
            num_warmup_steps=warmup,
            num_training_steps=steps,
            scheduler_specific_kwargs=dict(options),
        )
        for rate in getattr(schedule, "lr_lambdas", []):
            for step in (0, warmup, warmup + 1, steps // 2, steps - 1):
                rate(step)
    except Exception as error:
        place = "trl.lr_scheduler_kwargs" if options else "trl.lr_scheduler_type"
        raise ConfigError(
            f"{place}: {name.value} refuses the arguments {options}: {_sentence(error)}"
        ) from error


def check_generation(config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Refuse settings of `generate` that it does not have, or cannot sample with.

    Raises:
        ConfigError: What cannot be used.
    """
    # vLLM has settings of its own, and refuses them itself.
    if arguments.use_vllm:
        return
    if arguments.top_k is not None and arguments.top_k < 0:
        raise ConfigError(
            f"trl.top_k: got {arguments.top_k}, which only vLLM takes; give 0 for all tokens"
        )
    further: Any = arguments.generation_kwargs or {}
    known = vars(GenerationConfig())
    for name in further:
        if name not in known:
            raise ConfigError(
                f"trl.generation_kwargs: generate of transformers has no setting {name!r}"
                f"{_nearest(name, known)}"
            )
    if not further and arguments.cache_implementation is None:
        return
    place = f"trl.generation_kwargs: got {further}"
    if not further:
        place = f"trl.cache_implementation: got {arguments.cache_implementation!r}"
    try:
        rows = _sample_toy(_toy_settings(arguments, further))
    except Exception as error:
        raise _refusal(error)(f"{place}, which generate refuses: {_sentence(error)}") from error
    if rows != TOY_ROWS:
        raise ConfigError(f"{place}, with which not every prompt gets one answer; leave it out")


def check_batching(config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Refuse settings that continuous batching does not have.

    Raises:
        ConfigError: What cannot be used.
    """
    if not arguments.use_transformers_continuous_batching:
        return
    settings: Any = arguments.transformers_continuous_batching_config or {}
    try:
        ContinuousBatchingConfig(**settings)
    except Exception as error:
        place = "trl.transformers_continuous_batching_config"
        raise ConfigError(f"{place}: {_sentence(error)}") from error


def check_policy_options(config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Refuse options with which the policy does not load.

    Raises:
        ConfigError: What cannot be used.
    """
    _check_options("policy.options", config.policy.model, config.policy.options)


def check_local_critic(config: RunConfig, is_elsewhere: bool) -> None:
    """Refuse a device that is not there, and options with which the critic's model does not load.

    Args:
        config: The arm.
        is_elsewhere: The runs start on other machines, whose devices nobody knows here.

    Raises:
        ConfigError: What cannot be used.
    """
    critic: Any = config.critic
    if critic.get("kind") == "noisy":
        critic = critic.get("critic")
    if not isinstance(critic, Mapping) or critic.get("kind") != "local":
        return
    # Other types are refused where the critic is built.
    if isinstance(critic.get("device"), str):
        _check_device(critic["device"], is_elsewhere)
    options = critic.get("options")
    model = critic.get("model")
    if not isinstance(options, Mapping) or not isinstance(model, str):
        return
    try:
        _check_options("critic.options", model, options)
    except MissingPackage:
        if not is_elsewhere:
            raise


def check_training(config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Refuse what the first step of training would meet.

    Raises:
        ConfigError: An unknown way to compile or to save memory, or a package that is missing.
    """
    if config.trl.get("model_init_kwargs"):
        raise ConfigError(
            "trl.model_init_kwargs: TRL does not read them for a policy that is loaded already; "
            "give them as policy.options"
        )
    if arguments.use_liger_kernel and not is_liger_kernel_available():
        raise MissingPackage(
            "trl.use_liger_kernel: got true, and liger-kernel is not installed; "
            "run: pip install liger-kernel, or set it to false"
        )
    if arguments.torch_compile:
        backends = torch.compiler.list_backends(exclude_tags=())
        backend = arguments.torch_compile_backend
        if backend not in backends:
            raise ConfigError(
                f"trl.torch_compile_backend: got {backend!r}, expected one of {', '.join(backends)}"
            )
    further: Any = arguments.gradient_checkpointing_kwargs or {}
    known = inspect.signature(torch.utils.checkpoint.checkpoint).parameters
    for name in further:
        if name not in known:
            raise ConfigError(
                f"trl.gradient_checkpointing_kwargs: torch has no option {name!r} of it"
                f"{_nearest(name, known)}"
            )


def check_elsewhere(check: Check, config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Make one of `LIBRARY_CHECKS` for runs on other machines, whose packages nobody knows here.

    Raises:
        ConfigError: What the check refuses, but for packages that are missing.
    """
    with suppress(MissingPackage):
        check(config, arguments)


LIBRARY_CHECKS: tuple[Check, ...] = (
    check_training,
    check_vllm,
    check_trackers,
    check_router,
    check_optimizer,
    check_scheduler,
    check_generation,
    check_batching,
    check_policy_options,
)


def _check_device(name: Any, is_elsewhere: bool) -> None:
    """Raises ConfigError for a device that does not exist, or is not on this machine."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"critic.device: got {name!r}, expected a device of torch such as cpu or cuda:0"
        ) from error
    is_possible = device.type != "meta" and (device.index or 0) < MOST_DEVICES
    if device.type == "cpu" or (is_elsewhere and is_possible):
        return
    # Not by making a tensor: a process that has used CUDA cannot be forked.
    count = 0
    if device.type != "meta":
        module = getattr(torch, device.type, None)
        if module is not None and module.is_available():
            count = module.device_count()
    if (device.index or 0) >= count:
        raise ConfigError(
            f"critic.device: got {name!r}, and this machine has {count} devices {device.type}; "
            "leave it out for the one that the run trains on"
        )


def _check_options(place: str, model: str, options: Mapping[str, Any]) -> None:
    """Raises ConfigError for options that `from_pretrained` refuses."""
    asked = {name: value for name, value in options.items() if name not in MACHINES_OPTIONS}
    if not asked or set(asked) & set(FOLDER_OPTIONS):
        return
    path = _local_path(model)
    if path is None:
        return
    try:
        with _silence():
            settings, left = AutoConfig.from_pretrained(
                path, return_unused_kwargs=True, local_files_only=True, **asked
            )
            kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)]
            left = {name: asked[name] for name in asked if name in left}
            if "dtype" in asked:
                left["dtype"] = asked["dtype"]
            kind.from_pretrained(None, config=settings, state_dict={}, device_map="meta", **left)
    except KeyError:
        # Code of the model's own, which only loading it runs.
        return
    except Exception as error:
        words = f"{place}: {model} does not load with them: {_sentence(error)}"
        raise _refusal(error)(words) from error


def _local_path(model: str) -> str | None:
    """The folder of a model, or its id if its configuration is on this machine; else None."""
    if _model_config(model) is None:
        return None
    return resolve_model(model)


def _model_config(model: str) -> Any:
    """A model's configuration as far as this machine has it; None without one that loads."""
    try:
        path = resolve_model(model)
        return AutoConfig.from_pretrained(path, local_files_only=not Path(path).is_dir())
    except Exception:
        # Broken or absent files end in errors of many kinds, which other checks name.
        return None


def _toy_settings(arguments: CritiqueGRPOConfig, further: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of rollouts, for a few tokens."""
    settings: dict[str, Any] = {
        "max_new_tokens": TOY_TOKENS,
        "do_sample": True,
        "pad_token_id": 0,
        "eos_token_id": [1],
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "top_k": arguments.top_k,
        "min_p": arguments.min_p,
        "repetition_penalty": arguments.repetition_penalty,
        "cache_implementation": arguments.cache_implementation,
        **further,
    }
    for name in ("max_new_tokens", "max_length"):
        if isinstance(settings.get(name), int) and settings[name] > TOY_TOKENS:
            settings[name] = TOY_TOKENS + 3 * (name == "max_length")
    return settings


def _sample_toy(settings: dict[str, Any]) -> int:
    """Answers that `generate` samples from a toy model; 0 if they are no rows of tokens.

    Raises:
        Exception: What `generate` raises with such settings.
    """
    with _silence():
        toy: Any = _toy()
        prompts = torch.full((TOY_ROWS, 3), 2)
        sampled = toy.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            generation_config=GenerationConfig(**settings),
            disable_compile=True,
        )
    return len(sampled) if isinstance(sampled, torch.Tensor) else 0


@lru_cache(maxsize=1)
def _toy() -> LlamaForCausalLM:
    sizes: dict[str, Any] = {
        "vocab_size": TOY_VOCABULARY,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


@contextmanager
def _silence() -> Iterator[None]:
    """Without what transformers says about missing weights, and with the random numbers as before:
    a run must not depend on having been looked at.
    """
    level = logging.get_verbosity()
    has_bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def _refusal(error: Exception) -> type[ConfigError]:
    return MissingPackage if isinstance(error, ImportError) else ConfigError


def _nearest(name: Any, known: Iterable[str]) -> str:
    """A question after the nearest known name; "" without one. All are too many to show."""
    matches = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else "; leave it out"


def _sentence(error: Exception) -> str:
    """An error's words on one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:LONGEST_WORDS]
