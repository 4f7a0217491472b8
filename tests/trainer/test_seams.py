"""Private names of TRL and of transformers' Trainer stand in `trl_seams`, and have not moved."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_trainers import trainer_of
from trl import GRPOTrainer
from trl.trainer import utils as trl_utils

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.trainer import trl_seams
from critique_rl.trainer.resume import ResumableGRPOTrainer

PACKAGE = Path(trl_seams.__file__).parents[1]
HOSTS = [base for base in GRPOTrainer.__mro__ if base is not object]
OVERRIDES = {*trl_seams.OVERRIDDEN, *trl_seams.CLASS_ATTRIBUTES}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def attributes_set_by(host: type) -> set[str]:
    """Names that the methods of a class set on `self`."""
    tree = ast.parse(Path(inspect.getfile(host)).read_text())
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def private_names() -> set[str]:
    """Private methods and attributes of GRPOTrainer and of the classes it is built on."""
    names = set(dir(GRPOTrainer))
    for host in HOSTS:
        names |= attributes_set_by(host)
    return {name for name in names if is_private(name)}


PRIVATE = private_names()


class Uses(ast.NodeVisitor):
    """Collects the places of one file that use a private name of the host libraries."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self.in_trainer = True
        """Whether `self` is a trainer here. Outside of classes it is, as far as anybody knows."""
        self.hosts: set[str] = set()
        """Names under which modules of TRL and transformers are imported."""

    def add(self, node: ast.AST, name: str) -> None:
        self.places.append(f"{node.lineno}: {name}")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        library = (node.module or "").partition(".")[0]
        if library in ("trl", "transformers"):
            for alias in node.names:
                self.hosts.add(alias.asname or alias.name)
                if is_private(alias.name):
                    self.add(node, alias.name)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            library = alias.name.partition(".")[0]
            if library in ("trl", "transformers"):
                self.hosts.add(alias.asname or library)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        before = self.in_trainer
        self.in_trainer = any(ast.unparse(base).endswith("Trainer") for base in node.bases)
        methods = [child for child in node.body if isinstance(child, ast.FunctionDef)]
        for method in methods:
            if self.in_trainer and method.name in PRIVATE - OVERRIDES:
                self.add(method, method.name)
        self.generic_visit(node)
        self.in_trainer = before

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = ast.unparse(node.value)
        is_wrapped = owner == "super()" and node.attr in trl_seams.OVERRIDDEN
        is_our_own = owner == "self" and not self.in_trainer
        is_of_host = is_private(node.attr) and owner.partition(".")[0] in self.hosts
        is_of_trainer = node.attr in PRIVATE and not is_wrapped and not is_our_own
        if is_of_host or is_of_trainer:
            self.add(node, node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "hasattr"):
            for argument in node.args:
                if isinstance(argument, ast.Constant) and argument.value in PRIVATE:
                    self.add(argument, argument.value)
        self.generic_visit(node)


def uses_in(code: str) -> list[str]:
    visitor = Uses()
    visitor.visit(ast.parse(code))
    return visitor.places


def places() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path != Path(trl_seams.__file__):
            for place in uses_in(path.read_text()):
                yield f"{path.relative_to(PACKAGE)}:{place}"


def test_no_other_module_uses_a_private_name() -> None:
    assert list(places()) == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("trainer._metrics['train']", "_metrics"),
        ("self._get_output_dir(trial=None)", "_get_output_dir"),
        ("getattr(trainer, '_logs')", "_logs"),
        ("class A(GRPOTrainer):\n    def _prepare_inputs(self, inputs): ...", "_prepare_inputs"),
        ("class A(GRPOTrainer):\n    def f(self): self._step = 1", "_step"),
        ("super()._prepare_inputs(inputs)", "_prepare_inputs"),
        ("from trl.trainer.utils import _use_triton", "_use_triton"),
        ("from trl.trainer import utils\nutils._use_triton", "_use_triton"),
        ("import trl\ntrl.GRPOTrainer._tokenize_prompts", "_tokenize_prompts"),
    ],
)
def test_a_use_of_a_private_name_is_found(code, name) -> None:
    assert [place.partition(": ")[2] for place in uses_in(code)] == [name]


def test_names_of_our_own_and_overrides_are_no_use() -> None:
    assert uses_in("class A(GRPOTrainer):\n    def _log_terms(self): self._teacher_terms()") == []
    assert uses_in("class A(GRPOTrainer):\n    def f(self): super()._compute_loss(1, 2)") == []
    assert uses_in("class Clock:\n    def _step(self): self._step()") == []


@pytest.mark.parametrize("name", [*trl_seams.CALLED, *trl_seams.OVERRIDDEN])
def test_the_methods_that_are_called_or_overridden_have_not_moved(name) -> None:
    expected = {**trl_seams.CALLED, **trl_seams.OVERRIDDEN}[name]
    assert list(inspect.signature(getattr(GRPOTrainer, name)).parameters) == expected


def test_the_attributes_that_are_read_or_replaced_have_not_moved(tiny_policy, tmp_path) -> None:
    trainer = trainer_of(CritiqueGRPOTrainer, CritiqueGRPOConfig, tiny_policy, tmp_path)
    for name in (*trl_seams.ATTRIBUTES, *trl_seams.CLASS_ATTRIBUTES):
        assert hasattr(trainer, name), name
    assert {"train", "eval"} <= trainer._metrics.keys()
    assert {"advantages", "extra"} <= trainer._logs.keys()
    for name in trl_seams.MODULE_ATTRIBUTES:
        assert hasattr(trl_utils, name), name


def test_the_lists_hold_what_is_overridden_and_nothing_else() -> None:
    ours = [base for base in CritiqueGRPOTrainer.__mro__ if issubclass(base, ResumableGRPOTrainer)]
    overridden = {name for base in ours for name in vars(base) if name in PRIVATE}
    assert overridden == OVERRIDES


def test_the_lists_hold_what_the_seams_use_and_nothing_else() -> None:
    listed = {*trl_seams.CALLED, *trl_seams.ATTRIBUTES, *trl_seams.MODULE_ATTRIBUTES}
    tree = ast.parse(Path(trl_seams.__file__).read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in used if is_private(name)} == listed


def test_wrappers_are_looked_for_once_a_model(tiny_policy, tmp_path, monkeypatch) -> None:
    """accelerate 1.15 reads DeepSpeed's metadata from the disk each time it unwraps a model."""
    trainer = trainer_of(CritiqueGRPOTrainer, CritiqueGRPOConfig, tiny_policy, tmp_path)
    asked = []
    unwrap = trainer.accelerator.unwrap_model

    def counted(model):
        asked.append(model)
        return unwrap(model)

    monkeypatch.setattr(trainer.accelerator, "unwrap_model", counted)
    delattr(trainer, trl_seams.KEPT)
    assert trl_seams.policy_of(trainer) is trl_seams.policy_of(trainer) is trainer.model
    assert asked == [trainer.model]
    # FSDP2 replaces it.
    trainer.model = other = torch.nn.Linear(1, 1)
    assert trainer.policy is other
    assert len(asked) == 2
