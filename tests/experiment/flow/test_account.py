"""The account of an update: its shares add up, predict what it does, and change nothing."""

from __future__ import annotations

import pytest
import torch
from first_order import CLASSES, Enumeration, lab_trainer, letters_policy, letters_trainer
from torch import Tensor, nn
from transformers import TrainerCallback

from critique_rl import CritiqueGRPOTrainer
from critique_rl.experiment.flow import account as module
from critique_rl.experiment.flow.account import (
    POSITIONS,
    RESIDUALS,
    Account,
    StepAccount,
    around_first_fault,
)

TERMS = ("positive", "negative", "refine", *POSITIONS)
EVERY_TERM = {
    "seed": 11,
    "refine_slots": 2,
    "refine_candidates": 6,
    "per_device_train_batch_size": 16,
}
"""With this seed a right rollout and a right refinement are among the first update's rows."""
STEADY = {**EVERY_TERM, "adam_epsilon": 1e-6}
"""GPT-2's biases of keys have no gradient but rounding, which Adam would divide by itself."""
pytestmark = pytest.mark.trains


class Watch(TrainerCallback):
    """An account of every update, with copies of its shares and of the weights around it."""

    def __init__(self, trainer: CritiqueGRPOTrainer, log_masses, classes=CLASSES):
        self.trainer = trainer
        self.accounts: list[Account] = []
        self.shares: list[dict[str, Tensor]] = []
        self.weights: list[tuple[Tensor, Tensor]] = []
        """Before and after each update, (N,) in double, as the shares are laid out."""
        self.callback = StepAccount(trainer, log_masses, 1, classes, self.take)
        trainer.add_callback(self.callback)
        trainer.add_callback(self)

    def take(self, account: Account) -> None:
        self.accounts.append(account)
        shares = self.callback.shares.flat
        self.shares.append({name: share.clone() for name, share in shares.items()})

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.before = flat_weights(self.trainer)

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.weights.append((self.before, flat_weights(self.trainer)))


def flat_weights(trainer: CritiqueGRPOTrainer) -> Tensor:
    groups = trainer.optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    return torch.cat([parameter.detach().double().flatten() for parameter in parameters])


def policy_at(trainer: CritiqueGRPOTrainer, weights: Tensor) -> nn.Module:
    """The five-token policy in double with some weights (N,)."""
    # No copy of the trainer's: accelerate has bound its forward to the original.
    policy = letters_policy()[0].double().eval()
    parameters = dict(policy.named_parameters())
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    start = 0
    with torch.no_grad():
        for group in trainer.optimizer.param_groups:
            for parameter in group["params"]:
                end = start + parameter.numel()
                parameters[names[parameter]].copy_(weights[start:end].view(parameter.shape))
                start = end
    return policy


def watched(trainer: CritiqueGRPOTrainer, log_masses) -> Watch:
    watch = Watch(trainer, log_masses)
    trainer.train()
    return watch


def test_the_account_is_the_finite_difference_of_an_sgd_step(tmp_path) -> None:
    settings = {**EVERY_TERM, "optim": "sgd", "learning_rate": 1e-4, "max_grad_norm": 0.5}
    trainer = letters_trainer(tmp_path, **settings)
    masses = Enumeration(trainer.processing_class)
    watch = watched(trainer, masses)
    account, shares, (before, after) = watch.accounts[0], watch.shares[0], watch.weights[0]
    assert account.terms == (*TERMS, *RESIDUALS)
    matrix = torch.tensor(account.matrix, dtype=torch.double)
    start = masses(policy_at(trainer, before)).detach()
    assert start.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    changes = {term: before + shares[term] for term in TERMS}
    predicted = dict(zip(account.terms, matrix.T, strict=True))
    for term, weights in {**changes, "step": after}.items():
        change = masses(policy_at(trainer, weights)).detach() - start
        expected = predicted.get(term, matrix.sum(1))
        assert change.abs().max() > 1e-6, f"{term}: a change of nothing proves nothing"
        torch.testing.assert_close(expected, change, rtol=0.01, atol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {"optim": "adamw_torch_fused", "weight_decay": 0.1},
        {"optim": "adamw_torch", "weight_decay": 0.1, "gradient_accumulation_steps": 2},
        {"optim": "sgd", "weight_decay": 0.1, "optim_args": "momentum=0.9,nesterov=True"},
    ],
    ids=["fused", "accumulated", "nesterov"],
)
def test_after_several_steps_the_shares_add_up_to_the_change(tmp_path, settings) -> None:
    settings = {**STEADY, "learning_rate": 1e-2, "max_steps": 3, **settings}
    trainer = letters_trainer(tmp_path, max_grad_norm=0.3, **settings)
    watch = watched(trainer, Enumeration(trainer.processing_class))
    assert len(watch.shares) == 3
    for shares, (before, after) in zip(watch.shares, watch.weights, strict=True):
        change = after - before
        total = torch.stack([share.double() for share in shares.values()]).sum(0)
        assert (total - change).norm() <= 1e-6 * change.norm()
        # No formula explains the rest: it is the precision of float32 weights.
        assert shares["rounding"].norm() <= 1e-4 * change.norm()
        assert shares["decay"].norm() > 0
    assert watch.shares[0]["momentum"].norm() <= 1e-6 * change.norm()
    assert watch.shares[2]["momentum"].norm() > 0.1 * change.norm()


def test_gradients_in_a_file_give_the_same_account(tmp_path, monkeypatch) -> None:
    accounts = []
    for largest in (module.LARGEST_IN_MEMORY, 0):
        monkeypatch.setattr(module, "LARGEST_IN_MEMORY", largest)
        trainer = letters_trainer(tmp_path, **EVERY_TERM)
        watch = watched(trainer, Enumeration(trainer.processing_class))
        accounts.append(watch.accounts)
    assert accounts[0] == accounts[1]


class LastState(TrainerCallback):
    """The state of random numbers at the end of training."""

    state: Tensor | None = None

    def on_train_end(self, args, state, control, **kwargs):
        self.state = torch.get_rng_state()


def drawing(masses):
    """The same log-masses; random numbers are drawn meanwhile."""

    def call(policy):
        torch.rand(7)
        assert not policy.training
        return masses(policy)

    return call


def lab_run(folder, every: int | None, **settings):
    """The lab's base under `mixed` with an oracle critic; every=None: without an account."""
    torch.manual_seed(0)
    trainer, masses = lab_trainer(folder, learning_rate=3e-4, **settings)
    classes = [str(place) for place in range(5)]
    if every is not None:
        trainer.add_callback(StepAccount(trainer, drawing(masses), every, classes))
    last = LastState()
    trainer.add_callback(last)
    trainer.train()
    return trainer, last.state


def told(trainer) -> list[dict]:
    """All that was logged but times and the account."""
    rows = []
    for row in trainer.state.log_history:
        names = [name for name in row if "flow/" not in name and "time" not in name]
        rows.append({name: row[name] for name in names if "second" not in name})
    return rows


def test_the_account_changes_nothing_in_training(tmp_path) -> None:
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "max_steps": 3}
    plain, plain_state = lab_run(tmp_path / "plain", None, **settings)
    watched_run, state = lab_run(tmp_path / "watched", 2, **settings)
    assert torch.equal(plain_state, state)
    for a, b in zip(plain.model.parameters(), watched_run.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert told(plain) == told(watched_run)
    logged = ["flow/0/distill" in row for row in watched_run.state.log_history if "loss" in row]
    assert logged == [True, False, True]
    row = watched_run.state.log_history[0]
    parts = [row[f"flow/0/{position}"] for position in POSITIONS]
    assert row["flow/0/distill"] == pytest.approx(sum(parts))
    assert {f"flow/4/{name}" for name in (*TERMS, *RESIDUALS)} <= row.keys()


@pytest.mark.parametrize(
    ("preset", "own"), [("openclaw_combined", POSITIONS), ("opsa", ("unlikely",))]
)
def test_with_advantages_of_tokens_kl_and_entropy_nothing_is_unexplained(
    tmp_path, preset, own
) -> None:
    settings = {**STEADY, "learning_rate": 1e-3, "beta": 0.1, "entropy_coef": 0.01}
    settings |= {"refine_slots": 0, "positive_weight": 1.0, "negative_weight": 1.0}
    trainer = letters_trainer(tmp_path, preset, **settings, num_iterations=2, max_steps=2)
    watch = watched(trainer, Enumeration(trainer.processing_class))
    names = ("positive", "negative", *own, "kl", "entropy")
    # In the first update the policy is its own reference: the KL term's gradient is 0.
    shares = watch.shares[1]
    assert tuple(shares) == (*names, *RESIDUALS)
    total = sum(shares.values())
    for name in names:
        assert shares[name].norm() > 1e-3 * total.norm(), name
    # float32 sums in another order per processor: 1.2e-4 with AVX-512, under 1e-4 with AVX2.
    assert shares["rounding"].norm() <= 2e-4 * total.norm()


def test_a_class_without_mass_has_no_account(tmp_path) -> None:
    trainer = letters_trainer(tmp_path)
    masses = Enumeration(trainer.processing_class)
    empty = torch.tensor([-torch.inf])
    both = lambda policy: torch.cat([masses(policy), empty])  # noqa: E731
    watch = Watch(trainer, both, (*CLASSES, "empty"))
    trainer.train()
    matrix = torch.tensor(watch.accounts[0].matrix)
    assert matrix[:-1].isfinite().all()
    assert matrix[-1].isnan().all()


def test_the_last_class_may_be_what_the_others_leave(tmp_path) -> None:
    trainer = letters_trainer(tmp_path, **STEADY)
    masses = Enumeration(trainer.processing_class)
    # In turn, as a generator: all four, and without the rest.
    matrices = []
    for classes in (4, 3):
        some = lambda policy, classes=classes: iter(masses(policy)[:classes])  # noqa: E731
        trainer = letters_trainer(tmp_path, **STEADY)
        watch = Watch(trainer, some)
        trainer.train()
        matrices.append(torch.tensor(watch.accounts[0].matrix))
    torch.testing.assert_close(matrices[1], matrices[0], rtol=1e-4, atol=1e-6)
    trainer = letters_trainer(tmp_path)
    trainer.add_callback(StepAccount(trainer, masses, 1, (*CLASSES, "a", "b")))
    with pytest.raises(ValueError, match="log_masses: got 4 values, expected 6"):
        trainer.train()


def test_positions_are_before_in_and_after_the_first_run_of_faults() -> None:
    fault = torch.tensor([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
    before, at, after = around_first_fault(fault).values()
    assert before.int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert at.int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert after.int().tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]]


def test_what_has_no_account_is_refused(tmp_path, monkeypatch) -> None:
    adafactor = letters_trainer(tmp_path, optim="adafactor")
    with pytest.raises(ValueError, match="got optim adafactor, expected Adam, AdamW or SGD"):
        StepAccount(adafactor, None, 1, CLASSES)
    trainer = letters_trainer(tmp_path)
    account = StepAccount(trainer, None, 1, CLASSES)
    trainer.optimizer = torch.optim.RMSprop(trainer.model.parameters())
    with pytest.raises(ValueError, match="got RMSprop"):
        account.on_train_begin(None, None, None)
    monkeypatch.setattr(type(trainer), "is_sharded", True)
    with pytest.raises(ValueError, match="where weights are sharded"):
        StepAccount(trainer, None, 1, CLASSES)
