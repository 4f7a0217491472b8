"""Comparisons of a test, in which no side decides alone that it is right.

A program may return an object whose `__eq__` says yes to everything. So every comparison in the
source of a test becomes a call of `Comparisons.compare`: where it holds, both sides are walked in
pairs, and an object with an equality of its own is asked about changed values too. This file needs
Python's library alone: it runs inside the sandbox, see `harness`.
"""

from __future__ import annotations

import ast
import copy
import operator
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import WrapperDescriptorType
from typing import Any

COMPARE = "@compare"
CHAIN = "@compare_chain"
MINUS = "@minus"
"""Names of a test by which it calls its judge: no program can bind them."""
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
    "In": lambda left, right: left in right,
    "NotIn": lambda left, right: left not in right,
    "Is": operator.is_,
    "IsNot": operator.is_not,
}
METHODS = {"Lt": "__lt__", "LtE": "__le__", "Gt": "__gt__", "GtE": "__ge__"}
FAR = 725_000_000_009
"""A number that no test asks for, and a prime: no remainder hides it."""
STEPS = (1, 2, 5, 11, -1, -2, -5, -11)
"""Changes of a number. An honest remainder, or a tolerance of 1, takes two of these for nothing."""
TOO_MANY = 3
FEW = 20
"""Items of a list that are changed one by one."""
PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None), type, range})
"""Types whose values have no say in what they equal, and hold nothing."""
LISTS: tuple[Any, ...] = (list, tuple, deque)
SETS: tuple[Any, ...] = (set, frozenset)
NUMBERS = (int, float, complex)
BASES: tuple[Any, ...] = (str, bytes, *NUMBERS, *LISTS, dict, *SETS)
"""Types of which a program may make heirs that hold data."""
BOUND = (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
"""Expressions that cannot be moved into a function of their own."""


class Nothing:
    """An object that nothing honest equals, lies under, or lies over."""


class Comparisons:
    """Compares the values of a test, and notes where one had decided the outcome itself.

    Args:
        trusted: Objects that a test itself imports: `mock.ANY` is its own to use.
    """

    def __init__(self, trusted: Iterable[Any] = ()):
        self.is_made_up = False
        self.trusted = {id(value) for value in trusted}

    def names(self) -> dict[str, Any]:
        """What a test that went through `Rewriter` calls."""
        return {COMPARE: self.compare, CHAIN: self.chain, MINUS: self.minus}

    def compare(self, name: str, left: Any, right: Any) -> Any:
        """The outcome of a comparison; False where one side had decided it.

        `name` is a key of `OPERATORS`. Raises what the comparison raises.
        """
        outcome = OPERATORS[name](left, right)
        if not outcome:
            return outcome
        if not self.is_deserved(name, left, right):
            self.is_made_up = True
            return False
        return outcome

    def chain(self, names: str, left: Any, *rest: Callable[[], Any]) -> Any:
        """The outcome of `a < b < c`: later values are computed where earlier comparisons hold."""
        outcome: Any = True
        for name, compute in zip(names.split(), rest, strict=True):
            right = compute()
            outcome = self.compare(name, left, right)
            if not outcome:
                break
            left = right
        return outcome

    def minus(self, left: Any, right: Any) -> Any:
        """A difference, as in `abs(f(x) - y) < 1e-6`."""
        outcome = left - right
        changed: Any = None
        with suppress(Exception):
            if type(left) not in PLAIN and type(right) in NUMBERS:
                changed = left - (right + FAR)
            elif type(right) not in PLAIN and type(left) in NUMBERS:
                changed = (left + FAR) - right
        if changed is not None and says_yes(operator.eq, changed, outcome):
            self.is_made_up = True
        return outcome

    def is_deserved(self, name: str, left: Any, right: Any) -> bool:
        """Whether a comparison that holds would fail for other values."""
        if type(left) in PLAIN and type(right) in PLAIN:
            return True
        try:
            if name == "Eq":
                return self.are_equal(left, right)
            if name == "In":
                return self.is_inside(left, right)
            if name not in METHODS:
                return True
            if isinstance(left, SETS) and isinstance(right, SETS):
                # A set lies under one that holds all its items.
                return self.are_honest(left) and self.are_honest(right)
            return is_ordered(name, left, right)
        except RecursionError:
            # A value that holds itself.
            return True

    # ---- equality --------------------------------------------------------------------------------

    def are_equal(self, left: Any, right: Any) -> bool:
        """Whether two values that are equal deserve it, with all that they hold."""
        if left is right and type(left) in PLAIN:
            return True
        if self.is_odd(left, right):
            return False
        if self.is_odd(right, left):
            return False
        left = plain_form(left)
        right = plain_form(right)
        if isinstance(left, list) and isinstance(right, list):
            return self.are_equal_lists(left, right)
        if isinstance(left, dict) and isinstance(right, dict):
            return self.are_equal_dicts(left, right)
        if isinstance(left, set) and isinstance(right, set):
            return self.are_honest(left) and self.are_honest(right)
        return self.are_equal_fields(left, right)

    def are_equal_lists(self, left: list[Any], right: list[Any]) -> bool:
        """As `are_equal`."""
        if are_plain(left) and are_plain(right):
            return True
        pairs = zip(left, right, strict=False)
        return all(self.are_equal(item, other) for item, other in pairs)

    def are_equal_dicts(self, left: dict[Any, Any], right: dict[Any, Any]) -> bool:
        """As `are_equal`."""
        if not self.are_honest(left):
            return False
        if not self.are_honest(right):
            return False
        shared = [key for key in left if key in right]
        values = [left[key] for key in shared]
        others = [right[key] for key in shared]
        return self.are_equal_lists(values, others)

    def are_equal_fields(self, left: Any, right: Any) -> bool:
        """As `are_equal`, for the attributes that two objects of one class have alike."""
        if type(left) is not type(right):
            return True
        if not hasattr(left, "__dict__"):
            return True
        others = vars(right)
        for name, value in list(vars(left).items()):
            if name not in others:
                continue
            other = others[name]
            if not says_yes(operator.eq, value, other):
                continue
            if not self.are_equal(value, other):
                return False
        return True

    def are_honest(self, items: Iterable[Any]) -> bool:
        """Whether no item, which lies in a set, equals another value."""
        return not any(self.is_odd(item, item) for item in items)

    def is_odd(self, value: Any, other: Any) -> bool:
        """Whether an object that equals another would equal a changed one as well."""
        if type(value) in PLAIN:
            return False
        if id(value) in self.trusted:
            return False
        method = find_method(type(value), "__eq__")
        if isinstance(method, WrapperDescriptorType):
            return False
        if says_yes(operator.eq, value, Nothing()):
            return True
        is_number = isinstance(other, NUMBERS)
        if is_number and not is_program_made(method):
            # A tolerance of pytest's may be wide.
            return says_yes(operator.eq, value, other + FAR)
        same = 0
        for change in changes(other):
            same += says_yes(operator.eq, value, change)
        most = TOO_MANY if is_number else 1
        if same >= most:
            return True
        return is_program_made(method) and not agrees_with_base(value, other)

    # ---- membership ------------------------------------------------------------------------------

    def is_inside(self, item: Any, container: Any) -> bool:
        """Whether an item that is in a container deserves it."""
        parts = plain_form(container)
        if not isinstance(parts, list | dict | set):
            return self.is_honest_container(container)
        if are_plain([item]) and are_plain(parts):
            return item in parts
        alike = [part for part in parts if part == item]
        return any(self.are_equal(part, item) for part in alike)

    def is_honest_container(self, container: Any) -> bool:
        """Whether something is not in an object that is no list, dict or set."""
        if id(container) in self.trusted:
            return True
        if not is_program_made(find_method(type(container), "__contains__")):
            return True
        for other in (Nothing(), FAR, -FAR, "\x00nothing"):
            if says_yes(operator.contains, container, other):
                return False
        return True


# ---- values --------------------------------------------------------------------------------------


def are_plain(values: Iterable[Any]) -> bool:
    """Whether all values are of plain types; as fast as a set is."""
    return PLAIN.issuperset(map(type, values))


def plain_form(value: Any) -> Any:
    """What a container holds, in a list, a dict or a set of Python's own; else the value."""
    for kind in LISTS:
        if isinstance(value, kind):
            return list(kind.__iter__(value))
    if isinstance(value, dict):
        return dict(dict.items(value))
    for kind in SETS:
        if isinstance(value, kind):
            return set(kind.__iter__(value))
    return value


def find_method(kind: type, name: str) -> Any:
    """The method that a class has or inherits, as it stands in the class; None without one."""
    for parent in kind.__mro__:
        if name in vars(parent):
            return vars(parent)[name]
    return None


def is_program_made(method: Any) -> bool:
    """Whether a method of a comparison is not one of Python's own classes."""
    if method is None:
        return False
    if not hasattr(method, "__code__"):
        return not hasattr(method, "__objclass__")
    path = str(method.__code__.co_filename)
    return not path.endswith((".py", ".pyc"))


def agrees_with_base(value: Any, other: Any) -> bool:
    """Whether a number, a text or a container of an own class equals by its base what it says."""
    for kind in BASES:
        if isinstance(value, kind):
            outcome = kind.__eq__(value, other)
            return outcome is NotImplemented or bool(outcome)
    return True


def changes(value: Any) -> list[Any]:
    """Values that differ from one in what an honest equality looks at."""
    odd = Nothing()
    if isinstance(value, NUMBERS):
        return [value + step for step in STEPS]
    if isinstance(value, str):
        return [f"{value}\x00", f"\x00{value}x"]
    if isinstance(value, bytes):
        return [value + b"\x00"]
    if isinstance(value, list):
        return changed_lists(value)
    if isinstance(value, tuple):
        lists = changed_lists([*value])
        return [tuple(items) for items in lists]
    if isinstance(value, dict):
        return [{**value, odd: odd}]
    if isinstance(value, SETS):
        return [{*value, odd}]
    return changed_copies(value)


def changed(value: Any) -> Any:
    """A value of the same kind that no honest equality takes for it."""
    if isinstance(value, NUMBERS):
        return value + FAR
    if isinstance(value, list | tuple):
        # Not `changes`, which would come back here for each item.
        return [*value, Nothing()]
    others = changes(value)
    if others:
        return others[0]
    return Nothing()


def changed_lists(items: list[Any]) -> list[list[Any]]:
    """A longer list, and lists in which one of the first items is another."""
    others = [[*items, Nothing()]]
    for place, item in enumerate(items[:FEW]):
        other = [*items]
        other[place] = changed(item)
        others.append(other)
    return others


def changed_copies(value: Any) -> list[Any]:
    """A copy of an object whose attributes all have another value; none where it has none."""
    if isinstance(value, type):
        return []
    # Objects without attributes, and such that refuse to be copied.
    with suppress(Exception):
        other = copy.copy(value)
        fields = vars(other)
        for name in list(fields):
            fields[name] = Nothing()
        if fields:
            return [other]
    return []


def says_yes(compare: Callable[[Any, Any], Any], left: Any, right: Any) -> bool:
    """Whether a comparison holds; one that raises does not."""
    with suppress(Exception):
        return bool(compare(left, right))
    return False


def is_ordered(name: str, left: Any, right: Any) -> bool:
    """Whether an order that holds deserves it: nothing lies under the least number."""
    compare = OPERATORS[name]
    under = float("-inf")
    over = float("inf")
    if name.startswith("Gt"):
        under = float("inf")
        over = float("-inf")
    for other in (under, Nothing()):
        if type(left) not in PLAIN and says_yes(compare, left, other):
            return False
    for other in (over, Nothing()):
        if type(right) not in PLAIN and says_yes(compare, other, right):
            return False
    return agrees_with_order(METHODS[name], left, right)


def agrees_with_order(name: str, left: Any, right: Any) -> bool:
    """As `agrees_with_base`, for the order of a number or a text."""
    if not is_program_made(find_method(type(left), name)):
        return True
    for kind in (str, int, float):
        if isinstance(left, kind):
            base = getattr(kind, name)
            return base(left, right) is not False
    return True


def is_suspect(value: Any) -> bool:
    """Whether a value is, or holds, an object that agrees with what it cannot know.

    Where a comparison is made by other code than the test's, this look at what a program returns
    stands in for `Comparisons`.
    """
    stack = [value]
    seen = set()
    while stack:
        item = stack.pop()
        if type(item) in PLAIN or id(item) in seen:
            continue
        seen.add(id(item))
        parts = plain_form(item)
        if isinstance(parts, dict):
            stack += parts.values()
        if isinstance(parts, list | dict | set) and not are_plain(parts):
            stack += parts
        if equals_anything(item):
            return True
    return False


def equals_anything(value: Any) -> bool:
    """Whether an object agrees with what it cannot know."""
    method = find_method(type(value), "__eq__")
    others = (Nothing(), FAR, "\x00nothing")
    if not isinstance(method, WrapperDescriptorType):
        if all(says_yes(operator.eq, value, number) for number in STEPS):
            return True
        for other in others:
            if says_yes(operator.eq, value, other):
                return True
    for other in others:
        with suppress(Exception):
            if value < other and value > other:
                return True
        with suppress(Exception):
            # As in abs(f(x) - y) < 1e-6.
            if abs(value - other) < 1:
                return True
    return False


# ---- the source of a test ------------------------------------------------------------------------


class Rewriter(ast.NodeTransformer):
    """Turns comparisons and differences of a test into calls of its judge."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """`a == b` becomes `compare("Eq", a, b)`."""
        self.generic_visit(node)
        names = [type(op).__name__ for op in node.ops]
        if len(names) == 1:
            name = ast.Constant(names[0])
            return called(node, COMPARE, [name, node.left, *node.comparators])
        if any(isinstance(part, BOUND) for part in ast.walk(node)):
            return node
        rest = [in_a_function(value) for value in node.comparators]
        words = ast.Constant(" ".join(names))
        return called(node, CHAIN, [words, node.left, *rest])

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """`a - b` becomes `minus(a, b)`."""
        self.generic_visit(node)
        if isinstance(node.op, ast.Sub):
            return called(node, MINUS, [node.left, node.right])
        return node


def in_a_function(value: ast.expr) -> ast.expr:
    """An expression that is computed when it is called."""
    nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.Lambda(args=nothing, body=value)


def called(node: ast.expr, name: str, arguments: list[ast.expr]) -> ast.Call:
    """A call in the place of an expression."""
    function = ast.Name(name, ast.Load())
    call = ast.Call(func=function, args=arguments, keywords=[])
    ast.copy_location(call, node)
    return ast.fix_missing_locations(call)
