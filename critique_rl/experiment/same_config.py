"""Whether a run folder was started with the settings that a pipeline has now.

A result is compared under the name of its folder, so a folder with other settings is refused. Some
options change no result, and may differ: kept checkpoints, log levels, a critic's caps and
deadlines, a verifier's workers and memory. So may the path of a model or of data with the content
that the run was started with.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import CHECKSUM, DamagedFile, read_json, read_yaml
from critique_rl.config.resolved_run import run_defaults, to_dict, with_seed
from critique_rl.config.run_folder import FIRST_SCHEMA, READABLE, PipelineFolder, RunFolder
from critique_rl.config.run_identity import RunIdentity
from critique_rl.config.schema import Pipeline, RunConfig
from critique_rl.config.verifier_settings import with_verdict_settings
from critique_rl.critic.api.endpoint import OPERATIONAL
from critique_rl.experiment.resume.places import check_places

INPUTS = "inputs"
"""Key of config.yaml: what the run's numbers depend on beside its settings (`resume.inputs`)."""
VERSIONS = "versions"
"""Key of config.yaml after `inputs`: of Python and packages."""
FREE = (
    "flow",
    "tracking",
    "trl.log",
    "trl.hub_",
    "trl.push_to_hub",
    "trl.save_",
    "trl.report_to",
    "trl.run_name",
)
"""Begin the keys of further options that change no number: where and how often something is told
or saved.
"""
FREE_OPTIONS = (
    "disable_tqdm",
    "project",
    "trackio_space_id",
    "num_completions_to_print",
    "dataloader_pin_memory",
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
)
WITH_DEFAULTS = ("trl.", "method.", "critic.")
"""Begin the keys of options whose defaults are not in config.yaml. Writing one out changes nothing.
"""
PATHS = {
    "policy.model": "policy/",
    "critic.model": "critic/",
    "method.distill_teacher.model": "teacher/",
    "task.options.train": "data/",
    "task.options.validation": "data/",
    "task.options.test": "data/",
}
"""Option that names a place -> the inputs that say what lay there."""


@dataclass(frozen=True)
class Change:
    """One option that differs from what a run was started with."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} {self.before!r}, now {self.now!r}"


def check_folders(
    pipeline: Pipeline,
    folder: PipelineFolder,
    ignored_sections: Sequence[str] = (),
    accepts_changes: bool = False,
) -> None:
    """Check the folder of every arm and seed by `check_same_config`.

    Args:
        pipeline: Its arms and seeds.
        folder: Its results.
        ignored_sections: Sections that may differ.
        accepts_changes: Runs that are not finished may have been started with other settings.

    Raises:
        ConfigError: the first run folder that was started with other settings.
    """
    for arm, config in pipeline.arms.items():
        for seed in pipeline.seeds:
            run = folder.run(arm, seed)
            accepted = accepts_changes and not run.finished
            check_same_config(run, config, seed, ignored_sections, accepted)


def check_same_config(
    run: RunFolder,
    config: RunConfig,
    seed: int,
    ignored_sections: Sequence[str] = (),
    accepts_changes: bool = False,
) -> None:
    """Refuse a run folder that was started with other settings than `config`.

    Args:
        run: A folder without config.yaml was never started, and passes.
        config: The arm as the pipeline has it now.
        seed: The run's seed.
        ignored_sections: Sections that may differ, such as "evaluation".
        accepts_changes: Settings may differ. Damage, other layouts, and the folder of another arm
            or seed are refused all the same.

    Raises:
        ConfigError: The settings differ, or another run or another version wrote the folder.
    """
    check_places(run)
    check_identity(run, seed)
    changes = config_changes(run, config, seed, ignored_sections)
    if changes and not accepts_changes:
        words = "; ".join(str(change) for change in changes)
        advice = "remove the folder, or give another --out"
        if not run.finished:
            advice += "; --accept-changes goes on with them, and the report says so"
        raise ConfigError(f"{run.path} was started with other settings ({words}); {advice}")


def stored_identity(run: RunFolder, seed: int) -> RunIdentity:
    """The run of a folder: its arm is the folder's, its id is that of config.yaml.

    Raises:
        ConfigError: config.yaml is damaged or lost.
    """
    run_id = read_config(run).get("run_id")
    return RunIdentity(run.path.parent.name, seed, str(run_id or ""))


def check_identity(run: RunFolder, seed: int) -> None:
    """Refuse config.yaml or eval.json of another arm, seed or run, whatever changes are accepted.

    Raises:
        ConfigError: One of them is not of this run.
    """
    # Only a pipeline's folders are named by their arm and seed.
    if run.path.name != f"seed{seed}":
        return
    identity = RunIdentity(run.path.parent.name, seed)
    stored = {run.config: read_config(run)}
    if run.finished:
        with suppress(DamagedFile):
            # Who reads it says what to do about damage.
            stored[run.evaluation] = read_json(run.evaluation)
    for path, content in stored.items():
        words = identity.fault(content)
        if words:
            raise ConfigError(
                f"{path}: {words}, and lies in the folder of arm {identity.arm!r} with seed "
                f"{seed}; put back the file of this run, or remove {run.path}"
            )


def config_changes(
    run: RunFolder, config: RunConfig, seed: int, ignored_sections: Sequence[str] = ()
) -> list[Change]:
    """The settings that differ from those a run folder was started with.

    Args:
        run: The folder; [] where it has no config.yaml.
        config: The arm as the pipeline has it now.
        seed: The run's seed.
        ignored_sections: Sections that may differ.

    Raises:
        ConfigError: config.yaml is damaged, or another version wrote it.
    """
    stored = read_config(run)
    if not stored:
        return []
    inputs = stored.get(INPUTS)
    stored = fill_defaults(run_defaults(), stored)
    wanted = to_dict(with_seed(config, seed))
    for settings in (stored, wanted):
        settings["critic"] = _answer_options(settings["critic"])
        settings["method"] = _with_answer_options(settings["method"])
        settings["task"] = with_verdict_settings(settings["task"])
    # Which checkpoints are kept changes no result: an arm that branches from a finished run may be
    # added.
    ignored = {"keep_steps", *ignored_sections}
    changes: list[Change] = []
    for key, value in wanted.items():
        if key not in ignored:
            changes += _changes(key, stored.get(key), value)
    changes = [change for change in changes if not _is_free(change.key)]
    if any(change.key.startswith(WITH_DEFAULTS) for change in changes):
        # Imported here: most commands never need it, and it imports TRL.
        from critique_rl.experiment.resume.defaults import same_in_effect

        keys = [change.key for change in changes]
        same = same_in_effect(keys, stored, with_seed(config, seed))
        changes = [change for change in changes if change.key not in same]
    if inputs and any(change.key in PATHS for change in changes):
        changes = _without_moves(changes, inputs, config, seed)
    return changes


def read_config(run: RunFolder) -> dict[str, Any]:
    """A run's config.yaml; {} where there is none.

    Raises:
        ConfigError: It is damaged, has another layout, or is lost from a run with checkpoints.
    """
    if not run.config.exists():
        _refuse_lost_config(run)
        return {}
    stored = read_yaml(run.config, _ADVICE)
    # The first versions wrote no key `schema`.
    layout = stored.get("schema", FIRST_SCHEMA)
    # True and 1.0 equal 1, and are no version.
    if type(layout) is not int or layout not in READABLE:
        versions = " and ".join(str(schema) for schema in READABLE)
        raise ConfigError(
            f"{run.path} has layout {layout!r}, this version reads {versions} (whole numbers); "
            "give another --out, or use the version that wrote it"
        )
    for section, default in run_defaults().items():
        if isinstance(default, dict) and not isinstance(stored.get(section, default), dict):
            raise DamagedFile(run.config, f"{section} is no section", _ADVICE)
    # The file ends with them: one that was cut short has lost some.
    if layout != FIRST_SCHEMA or INPUTS in stored:
        for section in (INPUTS, VERSIONS):
            if not isinstance(stored.get(section), dict):
                raise DamagedFile(run.config, f"{section} is no section, or is lost", _ADVICE)
    return stored


def _refuse_lost_config(run: RunFolder) -> None:
    """Raises ConfigError where a run has left something, and nothing says with which settings."""
    has_checkpoint = any(run.checkpoints.glob("checkpoint-[0-9]*/critique_rl.json"))
    # An evaluation of an earlier version, without a checksum, may be handed on alone.
    is_sealed = run.evaluation.is_file() and CHECKSUM.encode() in run.evaluation.read_bytes()
    if is_sealed:
        raise ConfigError(
            f"{run.config} is missing, so nothing says with which settings {run.evaluation} "
            "came about; put it back, or remove the folder to train the run again"
        )
    if has_checkpoint and not run.finished:
        raise ConfigError(
            f"{run.config} is missing, so nothing says how the checkpoints beside it were "
            "made; put it back, or remove the folder"
        )


_ADVICE = "put back a copy, or remove the run's folder to train it again"


def _is_free(key: str) -> bool:
    option = key.removeprefix("trl.")
    return key.startswith(FREE) or (key != option and option in FREE_OPTIONS)


def _without_moves(
    changes: list[Change], inputs: dict[str, str], config: RunConfig, seed: int
) -> list[Change]:
    """The changes without paths at which the same content lies as when the run was started."""
    # Imported here: most commands never need it, and it imports TRL.
    from critique_rl.experiment.resume.inputs import inputs_at

    kept = []
    for change in changes:
        prefix = PATHS.get(change.key)
        before = {name: value for name, value in inputs.items() if name.startswith(prefix or "?")}
        if not before or inputs_at(prefix or "", config, seed) != before:
            kept.append(change)
    return kept


def _answer_options(critic: dict[str, Any]) -> dict[str, Any]:
    """The options of a critic that can change its answers.

    A run that stopped at a cap, or for a deadline, is continued with another one.
    """
    options = {name: value for name, value in critic.items() if name not in OPERATIONAL}
    # `noisy` holds the section of another critic.
    if isinstance(options.get("critic"), dict):
        options["critic"] = _answer_options(options["critic"])
    return options


def _with_answer_options(method: dict[str, Any]) -> dict[str, Any]:
    """The options of training, with those of a teacher that can change its log-probs."""
    teacher = method.get("distill_teacher")
    if not isinstance(teacher, dict):
        return method
    return {**method, "distill_teacher": _answer_options(teacher)}


def _changes(key: str, before: Any, now: Any) -> list[Change]:
    """Each option that differs in a section."""
    if before == now:
        return []
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [Change(key, before, now)]
    changes: list[Change] = []
    for name in before | now:
        changes += _changes(f"{key}.{name}", before.get(name), now.get(name))
    return changes


def fill_defaults(defaults: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Stored settings, with the defaults of options that a later version added."""
    filled = dict(defaults)
    for key, value in stored.items():
        default = defaults.get(key)
        is_section = isinstance(value, dict) and isinstance(default, dict)
        filled[key] = default | value if is_section else value
    return filled
