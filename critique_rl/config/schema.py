"""The sections of a pipeline file as frozen dataclasses with their defaults.

The text under a field is its meaning in the reference of a pipeline file. `pipeline_file` and
`arms` read a file into these classes and refuse bad values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from critique_rl.costs import KINDS, Prices


@dataclass(frozen=True)
class TaskConfig:
    """Which problems: `lab/chain`, `lab/legs`, `lab/tiers`, `lab/facts`, `lab/code`,
    `reasoning-gym/<dataset>`, `reasoning-core/words`, or `data` for your own files
    (`task.options`).
    """

    name: str
    """One of the names above."""
    families: Mapping[str, float] = field(default_factory=dict)
    """Share of each family among training prompts; empty: the task's default mix."""
    size: int = 4096
    """Training prompts."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Passed to the task's generator."""
    repeat_one: Any = None
    """The place (from 0) or the id of one training prompt, of which all others become copies, as in
    one-example training (arXiv 2504.20571). None: no prompt is repeated.
    """
    verifier: Any = ""
    """A name such as math, or a mapping such as {kind: python, target: module:function}
    (`task.verifier`). "": the task's default verifier.
    """


@dataclass(frozen=True)
class PolicyConfig:
    """Which model starts: `lab`, `lab/tiers`, `lab/tiers-worked`, `lab/tiers-direct`, `lab/facts`,
    `lab/code`, `smollm2`, a local path or a Hub id.
    """

    model: str
    """One of the names above."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Passed to `from_pretrained`."""
    generation_config: str = "folder"
    """folder: settings of the policy's generation_config.json that TRL does not replace, such as
    min_p, no_repeat_ngram_size or num_beams, act in rollouts and evaluations, though log-probs know
    nothing of them. neutral: they act in neither. Its end tokens count in both cases.
    """

    def __post_init__(self) -> None:
        """Raises ValueError for another generation_config."""
        if self.generation_config not in ("folder", "neutral"):
            raise ValueError(
                f"generation_config: got {self.generation_config!r}, expected folder or neutral"
            )


@dataclass(frozen=True)
class BudgetConfig:
    """Every arm stops at the first step at or above it. The overshoot is in its evaluation's cost.
    A learning-rate schedule runs over the budget, not steps.
    """

    generated_tokens: int | None = None
    """Tokens sampled from the policy for training: rollouts, refinements, the critiques of `self`.
    Prompts, other critics and teachers do not count.
    """
    optimizer_steps: int | None = None
    """Updates of the weights."""
    total_tokens: int | None = None
    """All tokens, prompts, critics and teachers included (`costs`)."""
    flops: float | None = None
    """Floating-point operations of the policy and its teachers: per parameter, 2 for each token
    that passes forward and 6 for each token trained.
    """
    usd: float | None = None
    """US dollars: the critics' charges, and the policy's tokens at `prices`."""

    @property
    def limit(self) -> tuple[str, float] | None:
        """(kind of `costs.KINDS`, amount), or None for a budget of steps and for no budget."""
        # Steps are left out: TRL's max_steps stops at them.
        for kind in KINDS:
            amount = getattr(self, kind)
            if amount is not None:
                return kind, amount
        return None


@dataclass(frozen=True)
class EvaluationConfig:
    """How finished policies are judged, and how often a training curve is taken.

    Published protocols (samples, temperature, top_p): Yue et al. 2504.13837 128 to 1024, .6, .95;
    NSR 2506.01347 256, .6, .95 (Qwen3: 64, .7, .8); Critique-GRPO 2506.03106 256, .6, .95; SDPO
    2601.20802 16, .6, .95; RLCR 2507.16806 and TruthRL 2509.25760 greedy: 1, 0, 1.
    """

    problems: int = 200
    """Held-out problems per family."""
    samples: int = 16
    """Answers per problem."""
    temperature: float = 1.0
    """Temperature of sampling; 0 is greedy."""
    top_p: float = 1.0
    """Nucleus of sampling: the likeliest tokens that together hold this probability."""
    ks: tuple[int, ...] = (1, 4, 16)
    """The k of each reported pass@k; a k above `samples` is left out."""
    exact: bool = False
    """In worlds that list their answers: the chance of a true one per problem, and from it exact@k.
    That needs no samples, so k may be above `samples`, and leaves out answers right by luck. Left
    out, with a warning, where the policy's tokenizer has several spellings of one answer.
    """
    split: str = "test"
    """Split of the problems: test or validation."""
    second_template: str = ""
    """A template of prompts/ that reads `question`: the same problems are asked by it too, and
    reported beside (`lab/second`). "": no second template.
    """
    best_by: str = ""
    """A pass@1 of the learning curve, such as pass@1/all: the policy that was best by it on
    validation problems is judged. "": the last policy is judged.
    """
    curve_every: int = 10
    """Steps between points of the learning curve, on the validation split; 0: no curve."""
    curve_problems: int = 32
    """Validation problems per family, at each point."""
    curve_samples: int = 4
    """Answers per validation problem."""
    stop_above: Mapping[str, float] = field(default_factory=dict)
    """A pass@1 of the learning curve -> a value, such as {pass@1/plateau: .5}: the run ends at the
    first point at which every one is reached, before its budget is spent.
    """


@dataclass(frozen=True)
class PlateauConfig:
    """When learning counts as stopped, on the validation problems of the learning curve
    (`trainer.plateau.PlateauRule`).
    """

    family: str = "all"
    """Family of the problems that are watched."""
    # The fields below repeat those of PlateauRule, whose room this one cannot import; the reference
    # shows their meanings from there.
    window: int = 6
    min_gain: float = 0.05
    looks: int = 20
    alpha: float = 0.05
    solved: float = 0.95


@dataclass(frozen=True)
class FlowConfig:
    """Where the policy's probability goes: masses of classes of completions of held-out problems
    (`critique-rl flow`). It changes no number of the training.
    """

    problems: int = 32
    """Held-out problems per family, of the evaluation's split."""
    samples: int = 64
    """Samples of the policy before training per problem: its own wrong answers. Where completions
    cannot be listed, each checkpoint is sampled as often.
    """
    snapshots: int = 0
    """Points of the series, evenly over the budget: the policy before training, the last one, and
    snapshots of the weights between them, which the run folder keeps. 0: the two ends alone.
    """
    every: int = 0
    """Steps between masses in metrics.jsonl (`flow/<family>/<class>`), while training; 0: none.
    Only tasks whose completions can be listed.
    """
    probes: int = 64
    """Completions that are scored each time while training, the likeliest ones of a few problems.
    """
    masses: str = "listed"
    """How `critique-rl flow` finds masses: it sums the completions that the task lists (listed), or
    weighs samples of the two policies, as for a task without a list (sampled).
    """
    account: str = ""
    """A family, or "all": these steps also log how each term of the objective moves the classes of
    its problems (`flow/<class>/<term>`). "": they do not.
    """


@dataclass(frozen=True)
class TrackingConfig:
    """Which critiques a tracker of `trl.report_to` (trackio, wandb, tensorboard) shows as a table.
    It changes no number of the training.
    """

    critiques_every: int = 10
    """Steps between tables of critiques; 0: none."""
    critiques: int = 16
    """Rows of a table, each a failed rollout that a critique was asked for; every group has one
    before any has a second. trackio keeps the table in its file beside the metrics, which every
    look at the run reads.
    """
    characters: int = 2000
    """Longest text in a cell; a longer one is cut, and says so."""


@dataclass(frozen=True)
class BranchConfig:
    """An arm that goes on from a checkpoint of another arm's run with the same seed."""

    arm: str
    """The other arm; same task, policy and data order."""
    at: Any = "plateau"
    """An optimizer step, or "plateau"; if the plateau never came, the last step."""


@dataclass(frozen=True)
class RunConfig:
    """One arm, resolved: the shared sections with the arm's changes."""

    task: TaskConfig
    """Which problems."""
    policy: PolicyConfig
    """Which model starts."""
    trl: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TRL's GRPOConfig, untouched."""
    preset: str = ""
    """A published method of `presets`, whose options `trl` and `method` beat."""
    method: Mapping[str, Any] = field(default_factory=dict)
    """Options of training that CritiqueGRPOConfig adds to TRL's."""
    critic: Mapping[str, Any] = field(default_factory=lambda: {"kind": "none"})
    """Who writes critiques. An arm replaces this section completely."""
    reward: Mapping[str, Any] = field(default_factory=lambda: {"kind": "correct"})
    """The reward of the scalar term. An arm replaces this section completely."""
    budget: BudgetConfig = BudgetConfig()
    """When training stops: one of its keys. Without a budget, TRL's max_steps or num_train_epochs
    decide.
    """
    prices: Prices = field(default_factory=Prices)
    """US dollars per million tokens of the policy."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How policies are judged."""
    plateau: PlateauConfig | None = None
    """When learning counts as stopped; null: no plateau is looked for."""
    flow: FlowConfig | None = None
    """Where the policy's probability goes; null: the defaults, when `critique-rl flow` asks."""
    tracking: TrackingConfig = TrackingConfig()
    """Which critiques a tracker shows."""
    critique_from: str = "start"
    """"start", or "plateau": scalar only until the plateau is found."""
    branch_from: BranchConfig | None = None
    """Start from another arm's checkpoint; null: from the policy."""
    keep_steps: tuple[int, ...] = ()
    """Steps whose checkpoints are kept. Steps that arms branch from are added."""


@dataclass(frozen=True)
class SweepConfig:
    """Equal tuning effort: every arm is tried with each value on the validation split, and trained
    with the value that did best (`sweep`).
    """

    values: tuple[Any, ...]
    """Two different numbers or more."""
    key: str = "trl.learning_rate"
    """An option of the trl: or method: section."""
    seeds: tuple[int, ...] = (900,)
    """Seeds of the trials, none of them a seed of the pipeline."""
    budget_share: float = 1.0
    """Share of the budget that each trial gets, above 0 and at most 1."""
    metric: str = "pass@1/all"
    """The metric that ranks the trials, as a mean over `seeds`. A value whose seeds differ by more
    than .2 is chosen only where all do.
    """
    extend: int = 0
    """How often the list may grow by a value, for all arms, where an arm did best at its end."""


@dataclass(frozen=True)
class Pipeline:
    """An experiment: arms, seeds, the metric and the control named before the run."""

    name: str
    """The file's name, which the folder of results has too."""
    arms: Mapping[str, RunConfig]
    """Name of each arm -> its differences from the rest of the file. Without arms there is one,
    called critique where the file has a critic, else scalar.
    """
    seeds: tuple[int, ...]
    """Every arm is trained once per seed. An interval over seeds needs two or more."""
    primary: str
    """The metric that is compared, named before the run: pass@<k>/<family>, with "all" for all
    families together, or another metric of evaluations.
    """
    control: str
    """The arm that others are compared with. Without it the arm scalar, or if no arm has that name
    the first one.
    """
    target: float | None = None
    """A value of the primary metric: the comparison counts the tokens until the learning curve
    first reaches it.
    """
    delta: float | None = None
    """The smallest difference of the primary metric that is worth a claim. A comparison that could
    not show it says so. Without one it is .5.
    """
    sweep: SweepConfig | None = None
    """The same search of one option for every arm; null: no search."""
    external: Mapping[str, str] = field(default_factory=dict)
    """Plain TRL runs to draw beside the arms, never to compare: name -> output folder, whose
    completions TRL logged.
    """
    claim: Any = None
    """The claim that the pipeline tests, as the file has it (`claims.parse_claim`)."""
