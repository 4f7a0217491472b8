"""What a pipeline holds, as frozen data with its defaults. Reading a file into it, and refusing
what cannot be, is `config`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from critique_rl.costs import KINDS, Prices


@dataclass(frozen=True)
class TaskConfig:
    """Which problems: `lab/chain`, `lab/legs`, `lab/tiers`, `lab/facts`, `reasoning-gym/<dataset>`,
    `data` (your own: `own_data.DataOptions`).
    """

    name: str
    """One of the names above."""
    families: Mapping[str, float] = field(default_factory=dict)
    """Share of each family among training prompts (empty: the task's own)."""
    size: int = 4096
    """Training prompts."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Passed to the task's generator."""
    repeat_one: Any = None
    """The place (from 0) or the id of one training prompt: all others become copies of it, as in
    one-example training (arXiv 2504.20571). None: as they are.
    """
    verifier: Any = ""
    """"": the task's own; a name such as math, or a mapping such as {kind: python, target:
    module:function} (`worker_verifier`).
    """


@dataclass(frozen=True)
class PolicyConfig:
    """Which model starts: `lab`, `lab/tiers`, `lab/facts`, `smollm2`, a local path or a Hub id."""

    model: str
    """One of the names above."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Passed to `from_pretrained`."""


@dataclass(frozen=True)
class BudgetConfig:
    """Every arm stops at the first step at or above it; the overshoot is in its evaluation's cost.
    A learning-rate schedule runs over the budget, not steps.
    """

    generated_tokens: int | None = None
    """Sampled from the policy for training: rollouts, refinements, the critiques of `self`.
    Prompts, other critics and teachers are not among them.
    """
    optimizer_steps: int | None = None
    """Updates of the weights."""
    total_tokens: int | None = None
    """Prompts, critics and teachers included (`costs`)."""
    flops: float | None = None
    """Of the policy and its teachers: 2 a parameter and token that passes forward, 6 a token
    trained.
    """
    usd: float | None = None
    """What critics charge, and the policy's tokens at `prices`."""

    @property
    def of(self) -> tuple[str, float] | None:
        """(kind of `costs.KINDS`, limit), or None for a budget of steps."""
        return next(
            ((kind, limit) for kind in KINDS if (limit := getattr(self, kind)) is not None), None
        )


@dataclass(frozen=True)
class EvaluationConfig:
    """How finished policies are judged, and how often a training curve is taken.

    Published protocols (samples, temperature, top_p): Yue et al. 2504.13837 128 to 1024, .6, .95;
    NSR 2506.01347 256, .6, .95 (Qwen3: 64, .7, .8); Critique-GRPO 2506.03106 256, .6, .95; SDPO
    2601.20802 16, .6, .95; RLCR 2507.16806 and TruthRL 2509.25760 greedy: 1, 0, 1.
    """

    problems: int = 200
    """Held-out problems a family."""
    samples: int = 16
    """Answers a problem."""
    temperature: float = 1.0
    """Of sampling; 0 is greedy."""
    top_p: float = 1.0
    """Of sampling: the likeliest tokens that hold this share."""
    ks: tuple[int, ...] = (1, 4, 16)
    """Which pass@k are reported; one above `samples` is left out."""
    split: str = "test"
    """Whose problems: test or validation."""
    second_template: str = ""
    """A template of prompts/ that reads `question`: the same problems are asked by it too, and
    reported beside (`lab/second`); "": by none.
    """
    best_by: str = ""
    """"": the last policy is judged; a pass@1 of the learning curve, such as pass@1/all: the policy
    that was best by it on validation problems.
    """
    curve_every: int = 10
    """Steps between points of the learning curve, on the validation split (0: none)."""
    curve_problems: int = 32
    """Validation problems a family, at each point."""
    curve_samples: int = 4
    """Answers to each of them."""


@dataclass(frozen=True)
class PlateauConfig:
    """When learning counts as stopped (`plateau.PlateauRule`), on the validation problems of the
    learning curve.
    """

    family: str = "all"
    """Whose problems are watched."""
    window: int = 6
    min_gain: float = 0.05
    looks: int = 20
    alpha: float = 0.05
    solved: float = 0.95


@dataclass(frozen=True)
class BranchConfig:
    """An arm that goes on from a checkpoint of another arm's run with the same seed."""

    arm: str
    """The other arm; same task, policy and data order."""
    at: Any = "plateau"
    """"plateau" (where it never came: the last step), or an optimizer step."""


@dataclass(frozen=True)
class RunConfig:
    """One arm, resolved. `trl` holds GRPOConfig fields, `method` CritiqueGRPOConfig's own."""

    task: TaskConfig
    """Which problems."""
    policy: PolicyConfig
    """Which model starts."""
    trl: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TRL's GRPOConfig, untouched."""
    preset: str = ""
    """A published method of `presets`, whose options `trl` and `method` beat."""
    method: Mapping[str, Any] = field(default_factory=dict)
    """Our own options of training."""
    critic: Mapping[str, Any] = field(default_factory=lambda: {"kind": "none"})
    """Who writes critiques. An arm replaces this section whole."""
    reward: Mapping[str, Any] = field(default_factory=lambda: {"kind": "correct"})
    """What the scalar term rewards. An arm replaces this section whole."""
    budget: BudgetConfig = BudgetConfig()
    """When training stops: one of its keys. Without one, when TRL's max_steps or num_train_epochs
    say so.
    """
    prices: Prices = field(default_factory=Prices)
    """What the policy's tokens cost."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How policies are judged."""
    plateau: PlateauConfig | None = None
    """When learning counts as stopped; null: it is not looked for."""
    critique_from: str = "start"
    """"start", or "plateau": scalar only until the plateau is found."""
    branch_from: BranchConfig | None = None
    """Start from another arm's checkpoint; null: from the policy."""
    keep_steps: tuple[int, ...] = ()
    """Steps whose checkpoints are kept; those that arms branch from are added."""


@dataclass(frozen=True)
class SweepConfig:
    """Equal tuning effort: every arm is tried with each value on the validation split, and trained
    with the one that did best (`sweep`).
    """

    values: tuple[Any, ...]
    """Two different numbers or more."""
    key: str = "trl.learning_rate"
    """An option of the trl: or method: section."""
    seeds: tuple[int, ...] = (900,)
    """None of the pipeline's own."""
    budget_share: float = 1.0
    """Of the budget, for each trial."""
    metric: str = "pass@1/all"
    """What the trials are ranked by, as a mean over `seeds`."""


@dataclass(frozen=True)
class Pipeline:
    """An experiment: arms, seeds, the metric and the control named before the run."""

    name: str
    """The file's name, which its results' folder has too."""
    arms: Mapping[str, RunConfig]
    """Name of each arm -> what differs from the rest of the file. Without it one arm, called
    scalar, or critique where there is a critic.
    """
    seeds: tuple[int, ...]
    """Each trains every arm once. An interval over seeds needs two or more."""
    primary: str
    """The metric that is compared, named before the run: pass@<k>/<family>, with the family "all"
    for all of them, or another one of evaluations.
    """
    control: str
    """The arm that others are compared with. Without it scalar, or the first one where none has
    that name.
    """
    target: float | None = None
    """What spending is counted to: the tokens until the primary metric first reaches it on the
    learning curve.
    """
    sweep: SweepConfig | None = None
    """The same search of one option for every arm; null: none."""
    external: Mapping[str, str] = field(default_factory=dict)
    """Plain TRL runs to draw beside the arms, never to compare: a name and the output folder of
    each (`curves.completions_curve`).
    """
    claim: Any = None
    """As the file has it; `claims.parse_claim` reads it."""
