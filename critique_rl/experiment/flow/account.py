"""First-order account of one update: which term of the loss moves mass between classes.

The change of the weights is a sum of shares, one per term and one per named residual:

    delta = sum over terms k of s_k + momentum + decay + rounding,    s_k = c * scale * g_k

g_k is the term's gradient over all micro batches, c the factor of gradient clipping, and scale the
optimizer's preconditioner (`optimizer_shares`). The account of class m is, at the weights before
the step,

    A[m, k] = d log mass_m / d theta . s_k

so that a row adds up to the first-order change of the class's log-mass in nats.

- positive, negative: the scalar term on rows of positive and of negative advantage. TRL's policy
  loss is linear in the advantages A, given their signs, so a part a of A has the loss a . dL/dA.
- distill_before, distill_at, distill_after: the distill term by position of a token to the first
  fault that the verifier located. Completions without one are `before` throughout.
- refine, own: those terms. unlikely: advantages of unlikely tokens. kl, entropy: TRL's terms. Each
  in runs that have it.
- momentum: earlier gradients. decay: weight decay. rounding: the rest, which is the precision of
  weights and gradients, and any part of the gradient that no term explains. Adam moves a weight
  whose gradient is nothing but rounding as far as any other.

Dot products of gradients, one backward pass per class, cost a tenth of Jacobian-vector products
along the shares (tests/benchmarks/account_cost.py). Each term keeps one gradient until the step,
because the preconditioner depends on all of them.

Left out: sharded weights, loss scaling in float16, and a mixture's load-balancing loss.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from critique_rl.experiment.flow.optimizer_shares import (
    accumulated_dtype,
    known_optimizer,
    parameter_step,
    refuse_unknown_name,
)
from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer
from critique_rl.trainer.mixed_loss import LossParts
from critique_rl.trainer.trl_seams import metric

POSITIONS = ("distill_before", "distill_at", "distill_after")
RESIDUALS = ("momentum", "decay", "rounding")
LARGEST_IN_MEMORY = 256 << 20
"""Bytes of one term's gradient, from which on gradients of terms lie in a temporary file."""

FEW_ROWS = 0.6
"""Share of a micro batch's rows, up to which a forward pass of their own makes up for its cost."""
SAME_LOGPS = 1e-3
"""Gap in log-probs between two passes over the same rows that is no more than rounding."""

LogMasses = Callable[[nn.Module], Iterable[Tensor]]
"""Policy -> log-masses of C classes in nats, with gradient; -inf for an empty class.

A tensor (C,), or a generator of scalars: it scores each class's probes when its turn comes, so that
all backward passes together cost one, and one class's graph exists at a time. With C - 1 of them
the last class has the mass that they leave.
"""


@dataclass(frozen=True)
class Account:
    """What each share of one update does to each class's mass, to first order."""

    step: int
    """Number of the update, from 1."""
    classes: tuple[str, ...]
    terms: tuple[str, ...]
    """Terms, then residuals. Each row of the matrix adds up to the update's effect."""
    matrix: tuple[tuple[float, ...], ...]
    """Classes x terms: change of log-mass in nats; NaN for a class without mass."""

    def metrics(self) -> dict[str, float]:
        """flow/<class>/<term> -> change of log-mass in nats; `distill` is the sum of its parts."""
        values = {}
        for name, row in zip(self.classes, self.matrix, strict=True):
            shares = dict(zip(self.terms, row, strict=True))
            if set(POSITIONS) <= shares.keys():
                parts = [shares[position] for position in POSITIONS]
                shares["distill"] = sum(parts)
            for term, value in shares.items():
                values[f"flow/{name}/{term}"] = value
        return values


class StepAccount(TrainerCallback):
    """Takes an account of every N-th update of a trainer, and changes nothing in its training.

    Add it by `trainer.add_callback(StepAccount(...))`. `last` is the newest account.
    """

    def __init__(
        self,
        trainer: CritiqueGRPOTrainer,
        log_masses: LogMasses,
        every: int,
        classes: Sequence[str],
        report: Callable[[Account], None] | None = None,
    ):
        """Refuse what has no account.

        Args:
            trainer: whose updates are accounted for.
            log_masses: log-masses of the C classes.
            every: the first update and every N-th after it; 0: none.
            classes: C names.
            report: takes each account; None: its metrics go into the trainer's log.

        Raises:
            ValueError: weights are sharded, or the optimizer's step is not known.
        """
        refuse_account(trainer)
        self.trainer = trainer
        self.log_masses = log_masses
        self.every = every
        self.classes = tuple(classes)
        self.report = report or self._log
        self.last: Account | None = None
        self.shares: Shares | None = None
        """Of the update in progress, if it is due; still there when `report` is called."""

    def is_due(self, step: int) -> bool:
        """Whether the update after `step` updates is accounted for."""
        return self.every > 0 and step % self.every == 0

    def on_train_begin(self, args, state, control, **kwargs):
        """Refuse an optimizer that the user made."""
        if self.every > 0:
            known_optimizer(self.trainer.optimizer)

    def on_step_begin(self, args, state, control, **kwargs):
        """Listen to the micro batches of a due update."""
        if self.is_due(state.global_step):
            # Anew: an error may have ended an earlier update halfway.
            self.shares = Shares(self.trainer)
            self.trainer.on_loss = self.shares.add
            self.trainer.on_backward = self.shares.note_norm

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """Keep the weights, now that gradients are clipped."""
        if self.shares is None:
            return
        self.trainer.on_loss = None
        self.trainer.on_backward = None
        self.shares.keep_weights()

    def on_optimizer_step(self, args, state, control, **kwargs):
        """Take the account: the step is made, its gradients are still there."""
        if self.shares is None:
            return
        self.shares.finish()
        with self.shares.weights_before():
            rows = self.shares.account(self.log_masses, len(self.classes))
        # Each rank has the gradients of its own rows: a share is the mean over ranks.
        means = self.trainer.accelerator.reduce(rows, reduction="mean")
        matrix = tuple(map(tuple, means.tolist()))
        terms = tuple(self.shares.flat)
        step = state.global_step + 1
        self.last = Account(step, self.classes, terms, matrix)
        self.report(self.last)
        self.shares = None

    def _log(self, account: Account) -> None:
        for name, value in account.metrics().items():
            metric(self.trainer, name, value)


def refuse_account(trainer: CritiqueGRPOTrainer) -> None:
    """Refuse a trainer whose updates have no account.

    Raises:
        ValueError: its weights are sharded, its loss is scaled, or its optimizer is not known.
    """
    if trainer.is_sharded:
        raise ValueError(
            "account: no rank has the gradients of a term where weights are sharded (FSDP, "
            "DeepSpeed); train without sharding, or switch the account off"
        )
    if trainer.accelerator.scaler is not None:
        raise ValueError(
            "account: got fp16, whose gradients are scaled; set bf16 or neither, or switch the "
            "account off"
        )
    if trainer.aux_loss_enabled:
        raise ValueError(
            "account: the load-balancing loss of this mixture of experts is none of its terms; set "
            "router_aux_loss_coef to 0, or switch the account off"
        )
    if trainer.optimizer is None:
        refuse_unknown_name(str(getattr(trainer.args.optim, "value", trainer.args.optim)))
    else:
        known_optimizer(trainer.optimizer)


# ---- shares of one update ------------------------------------------------------------------------


class Shares:
    """The shares of one update: gradients of terms until the step, changes of weights after it.

    N is the number of trained weights, laid out one parameter after another.
    """

    def __init__(self, trainer: CritiqueGRPOTrainer):
        self.optimizer = known_optimizer(trainer.optimizer)
        self.policy: nn.Module = trainer.policy
        self.accelerator = trainer.accelerator
        self.has_kl = bool(trainer.beta)
        self.groups = []
        self.parameters: list[nn.Parameter] = []
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                self.parameters.append(parameter)
                self.groups.append(group)
        self.flat: dict[str, Tensor] = {}
        """Name -> (N,)."""
        self.before: list[Tensor] = []
        """Each parameter's value before the step."""
        self.norm = 0.0
        """Of the complete gradient, before it is clipped."""

    # ---- gradients of terms ----------------------------------------------------------------------

    def add(self, parts: LossParts) -> None:
        """Add one micro batch's gradients of its terms."""
        # Dropout in a teacher's forward pass must not move the state of training.
        with self._random_state_kept():
            for name, output, weight in split_loss(parts, self.has_kl):
                self._share(name)
                if weight is not None and not weight.any():
                    continue
                gradients = torch.autograd.grad(
                    output, self.parameters, weight, retain_graph=True, allow_unused=True
                )
                for view, gradient in zip(self._views(name), gradients, strict=True):
                    if gradient is not None:
                        view.add_(gradient.to(view.device))

    def note_norm(self) -> None:
        """Keep the norm of the complete gradient, after the last micro batch's backward pass."""
        if self.accelerator.sync_gradients:
            self.norm = self._gradient_norm()

    def keep_weights(self) -> None:
        """Keep the weights before the step, and scale gradients as clipping has scaled them."""
        clipped = 1.0
        if self.norm > 0:
            clipped = self._gradient_norm() / self.norm
        for gradient in self.flat.values():
            gradient.mul_(clipped)
        self.before = [parameter.detach().clone() for parameter in self.parameters]

    def _gradient_norm(self) -> float:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients).item()

    def _share(self, name: str) -> Tensor:
        """(N,) of this name; zeros where it is new."""
        if name not in self.flat:
            self.flat[name] = _zeros(self.parameters)
        return self.flat[name]

    def _views(self, name: str) -> Iterator[Tensor]:
        """A share's part of each parameter, in the parameter's shape."""
        start = 0
        for parameter in self.parameters:
            end = start + parameter.numel()
            yield self._share(name)[start:end].view(parameter.shape)
            start = end

    # ---- changes of weights ----------------------------------------------------------------------

    @torch.no_grad()
    def finish(self) -> None:
        """Turn gradients into changes of weights, and add the residuals. Called after the step."""
        terms = list(self.flat)
        views = {name: list(self._views(name)) for name in (*terms, *RESIDUALS)}
        rows = zip(self.parameters, self.groups, self.before, strict=True)
        for place, (parameter, group, before) in enumerate(rows):
            if parameter.grad is None:
                continue
            step = parameter_step(self.optimizer, group, parameter, before)
            # In double: shares can be far larger than their sum.
            rest = parameter.double() - before.double()
            for name in terms:
                view = views[name][place]
                view.mul_(step.scale.to(view.device))
                rest -= view.to(rest)
            views["momentum"][place].copy_(step.momentum)
            views["decay"][place].copy_(step.decay)
            views["rounding"][place].copy_(rest - step.momentum - step.decay)

    @contextmanager
    def weights_before(self) -> Iterator[None]:
        """Within the block the policy has the weights before the step, and random numbers that are
        drawn are drawn again after it.
        """
        self._swap_weights()
        was_training = self.policy.training
        self.policy.eval()
        try:
            with self._random_state_kept():
                yield
        finally:
            self.policy.train(was_training)
            self._swap_weights()
            self.before = []

    @torch.no_grad()
    def _swap_weights(self) -> None:
        for parameter, other in zip(self.parameters, self.before, strict=True):
            present = parameter.clone()
            parameter.copy_(other)
            other.copy_(present)

    @contextmanager
    def _random_state_kept(self) -> Iterator[None]:
        devices = {p.device for p in self.parameters if p.device.type == "cuda"}
        with torch.random.fork_rng(devices=devices):
            yield

    # ---- the account -----------------------------------------------------------------------------

    def account(self, log_masses: LogMasses, classes: int) -> Tensor:
        """Change of each class's log-mass along each share, (C, shares) in nats.

        Args:
            log_masses: log-masses of C classes of the policy, with gradient.
            classes: C.

        Raises:
            ValueError: `log_masses` gives another number of them.
        """
        rows = []
        masses = []
        with torch.enable_grad():
            for log_mass in log_masses(self.policy):
                rows.append(self._account_row(log_mass))
                masses.append(log_mass.detach().double().exp())
        if len(rows) == classes - 1:
            rows.append(_complement_row(rows, masses))
        if len(rows) != classes:
            raise ValueError(
                f"log_masses: got {len(rows)} values, expected {classes}, one per name in classes"
            )
        return torch.tensor(rows, device=self.accelerator.device)

    def _account_row(self, log_mass: Tensor) -> list[float]:
        """Change along each share of one class's log-mass, a scalar with gradient."""
        if not log_mass.requires_grad or not log_mass.isfinite():
            return [float("nan")] * len(self.flat)
        gradients = torch.autograd.grad(
            log_mass, self.parameters, retain_graph=True, allow_unused=True
        )
        totals = dict.fromkeys(self.flat, 0.0)
        for name in self.flat:
            for view, gradient in zip(self._views(name), gradients, strict=True):
                if gradient is None:
                    continue
                flat_gradient = gradient.to(view).flatten()
                product = torch.dot(flat_gradient, view.flatten())
                totals[name] += product.item()
        return list(totals.values())


def _complement_row(rows: Sequence[Sequence[float]], masses: Sequence[Tensor]) -> list[float]:
    """Change of the log of 1 - sum of masses m: minus the sum of m d log m, over the rest.

    Args:
        rows: change of each class's log-mass along each share.
        masses: of each class, scalars.

    Returns:
        NaN along each share where the masses leave nothing.
    """
    masses_C1 = torch.stack(list(masses)).cpu().unsqueeze(1)
    changes_CK = torch.tensor(rows, dtype=torch.double).masked_fill(masses_C1 == 0, 0.0)
    rest = 1.0 - masses_C1.sum().item()
    if rest <= 0:
        return [float("nan")] * len(rows[0])
    moved_K = (masses_C1 * changes_CK).sum(0)
    return (-moved_K / rest).tolist()


def _zeros(parameters: Sequence[nn.Parameter]) -> Tensor:
    """(N,) zeros for all weights, in a temporary file where they are many."""
    size = sum(parameter.numel() for parameter in parameters)
    dtype = accumulated_dtype(parameters[0])
    if size * dtype.itemsize < LARGEST_IN_MEMORY:
        return torch.zeros(size, dtype=dtype, device=parameters[0].device)
    with tempfile.TemporaryDirectory() as folder:
        # The mapping outlives the file's name, so nothing stays behind.
        return torch.from_file(str(Path(folder) / "share"), shared=True, size=size, dtype=dtype)


# ---- the loss, split -----------------------------------------------------------------------------

WeightedOutput = tuple[str, Tensor, Tensor | None]
"""A term's name, a tensor on its graph, and the term's derivative by it; None for 1."""


def split_loss(parts: LossParts, has_kl: bool) -> Iterator[WeightedOutput]:
    """The terms of the account in one micro batch.

    Args:
        parts: the micro batch's loss.
        has_kl: whether TRL's KL term is part of the scalar term.
    """
    weights = scalar_weights(parts)
    if not has_kl:
        del weights["kl"]
    if "refine" in parts.terms:
        weights["refine"] = _derivative(parts.terms["refine"], parts.logps_BT)
    for name, weight_BT in weights.items():
        yield name, *_weighted_rows(parts, weight_BT)
    entropy_BT = _entropy_weights(parts)
    if entropy_BT is not None and parts.entropies_BT is not None:
        yield "entropy", parts.entropies_BT, entropy_BT
    if "own" in parts.terms:
        yield "own", parts.terms["own"], None
    if "distill" in parts.terms:
        masks = around_first_fault(parts.inputs["fault_mask"])
        for name, term in parts.distill_parts(masks).items():
            yield name, term, None


def _weighted_rows(parts: LossParts, weight_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probs with gradient, and a term's derivative by them: both (B, T), or (rows, T) of the
    rows that it trains alone.

    Args:
        parts: the micro batch's loss.
        weight_BT: the term's derivative by the log-probs.
    """
    places = weight_BT.any(1).nonzero().flatten()
    if 0 < len(places) <= FEW_ROWS * len(weight_BT):
        logps = parts.score_rows(places)
        # Dropout gives other log-probs in a second pass; and rows may hold more than text.
        if torch.allclose(logps, parts.logps_BT[places], atol=SAME_LOGPS):
            return logps, weight_BT[places]
    return parts.logps_BT, weight_BT


def scalar_weights(parts: LossParts) -> dict[str, Tensor]:
    """Derivatives (B, T) of the scalar term's parts by the log-probs of tokens.

    Returns:
        `positive` and `negative`; those of `_token_coefficients` where tokens have advantages of
        their own; `kl`, all that does not depend on the advantages.
    """
    advantages = parts.advantages.detach()
    rewarded = parts.row_advantages_B
    if advantages.dim() == 2:
        rewarded = rewarded.unsqueeze(1).expand_as(advantages)
    coefficients = {"positive": rewarded.clamp(min=0), "negative": rewarded.clamp(max=0)}
    if advantages.dim() == 2:
        coefficients |= _token_coefficients(parts, advantages - rewarded)
    scalar = parts.terms["scalar"]
    zeros_BT = torch.zeros_like(parts.logps_BT)
    if not scalar.requires_grad:
        return dict.fromkeys((*coefficients, "kl"), zeros_BT)
    slope = torch.autograd.grad(scalar, parts.advantages, create_graph=True)[0]
    weights = {}
    for name, coefficient in coefficients.items():
        weights[name] = _derivative((coefficient * slope).sum(), parts.logps_BT)
    complete_BT = _derivative(scalar, parts.logps_BT)
    weights["kl"] = complete_BT - torch.stack(list(weights.values())).sum(0)
    return weights


def _token_coefficients(parts: LossParts, added_BT: Tensor) -> dict[str, Tensor]:
    """What was added to the advantages of rows, by its source, each (B, T).

    Args:
        parts: the micro batch's loss.
        added_BT: the sum over all sources.

    Returns:
        POSITIONS for a teacher's, `unlikely` for those of unlikely tokens, `tokens` for both.
    """
    taught = "distill_mask" in parts.inputs and "distill" not in parts.terms
    if "rollout_mask" in parts.inputs:
        name = "tokens" if taught else "unlikely"
        return {name: added_BT}
    masks = around_first_fault(parts.inputs["fault_mask"])
    return {name: added_BT * mask_BT for name, mask_BT in masks.items()}


def _derivative(scalar: Tensor, logps_BT: Tensor) -> Tensor:
    """Of a scalar by the log-probs, (B, T); 0 where it does not depend on them."""
    return torch.autograd.grad(scalar, logps_BT, retain_graph=True, materialize_grads=True)[0]


def _entropy_weights(parts: LossParts) -> Tensor | None:
    """Derivative (B, T) of the scalar term by the entropies; None in runs without the term."""
    entropies_BT = parts.entropies_BT
    scalar = parts.terms["scalar"]
    if entropies_BT is None or not entropies_BT.requires_grad or not scalar.requires_grad:
        return None
    return torch.autograd.grad(scalar, entropies_BT, retain_graph=True, allow_unused=True)[0]


def around_first_fault(fault_BT: Tensor) -> Mapping[str, Tensor]:
    """Tokens before, in and after the first run of faulty tokens of each row.

    Args:
        fault_BT: (B, T), true on faulty tokens.

    Returns:
        POSITIONS -> (B, T) bool, of which exactly one is true per token; rows without a fault are
        `distill_before` throughout.
    """
    faulty_BT = fault_BT.bool()
    begun_BT = faulty_BT.cumsum(1) > 0
    past_BT = begun_BT & ~faulty_BT
    ended_BT = past_BT.cumsum(1) > 0
    first_BT = begun_BT & ~ended_BT
    return {"distill_before": ~begun_BT, "distill_at": first_BT, "distill_after": ended_BT}
