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
"""Changes of a number. Of these at most two are nothing to an honest remainder or tolerance of 1."""
TOO_MANY = 3
FEW = 20
"""Items of a list that are changed one by one."""
PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None), type, range})
"""Types whose values have no say in what they equal, and hold nothing."""
LISTS = (list, tuple, deque)
SETS = (set, frozenset)
NUMBERS = (int, float, complex)


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

        Args:
            name: A key of `OPERATORS`.

        Raises:
            Exception: What the comparison raises.
        """
        outcome = OPERATORS[name](left, right)
        if outcome and not self.is_deserved(name, left, right):
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
        for value, other, is_left in ((left, right, True), (right, left, False)):
            if type(value) in PLAIN or type(other) not in NUMBERS:
                continue
            changed = Nothing()
            with suppress(Exception):
                far = other + FAR
                changed = value - far if is_left else far - value
            if type(changed) is type(outcome) and changed == outcome:
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
            if name in METHODS and isinstance(left, SETS) and isinstance(right, SETS):
                # A set lies under one that holds all its items.
                return not any(self.is_odd(item, item) for item in (*left, *right))
            if name in METHODS:
                return is_ordered(name, left, right)
        except RecursionError:
            # A value that holds itself.
            return True
        return True

    # ---- equality --------------------------------------------------------------------------------

    def are_equal(self, left: Any, right: Any) -> bool:
        """Whether two values that are equal deserve it, with all that they hold."""
        if left is right and type(left) in PLAIN:
            return True
        for value, other in ((left, right), (right, left)):
            if self.is_odd(value, other):
                return False
        left, right = plain_form(left), plain_form(right)
        if isinstance(left, list) and isinstance(right, list):
            return self.are_equal_lists(left, right)
        if isinstance(left, dict) and isinstance(right, dict):
            return self.are_equal_dicts(left, right)
        if isinstance(left, SETS) and isinstance(right, SETS):
            return not any(self.is_odd(item, item) for item in (*left, *right))
        return self.are_equal_fields(left, right)

    def are_equal_fields(self, left: Any, right: Any) -> bool:
        """As `are_equal`, for the attributes that two objects of one class have alike."""
        if type(left) is not type(right) or not hasattr(left, "__dict__"):
            return True
        others = vars(right)
        for name, value in list(vars(left).items()):
            if name not in others or not says_yes(operator.eq, value, others[name]):
                continue
            if not self.are_equal(value, others[name]):
                return False
        return True

    def are_equal_lists(self, left: list[Any], right: list[Any]) -> bool:
        """As `are_equal`."""
        if are_plain(left) and are_plain(right):
            return True
        pairs = zip(left, right, strict=False)
        return all(self.are_equal(*pair) for pair in pairs)

    def are_equal_dicts(self, left: dict[Any, Any], right: dict[Any, Any]) -> bool:
        """As `are_equal`."""
        keys = [*left, *right]
        if any(self.is_odd(key, key) for key in keys):
            return False
        values = [*left.values(), *right.values()]
        if are_plain(values):
            return True
        return all(self.are_equal(value, right[key]) for key, value in left.items() if key in right)

    def is_odd(self, value: Any, other: Any) -> bool:
        """Whether an object that equals another would equal a changed one as well."""
        if type(value) in PLAIN or id(value) in self.trusted:
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
        same = [change for change in changes(other) if says_yes(operator.eq, value, change)]
        if len(same) >= (TOO_MANY if is_number else 1):
            return True
        return is_program_made(method) and not agrees_with_base(value, other)

    # ---- membership ------------------------------------------------------------------------------

    def is_inside(self, item: Any, container: Any) -> bool:
        """Whether an item that is in a container deserves it."""
        method = find_method(type(container), "__contains__")
        parts = plain_form(container)
        if is_program_made(method):
            if isinstance(parts, list | dict | set | frozenset):
                return self.is_inside(item, parts)
            others = [Nothing(), FAR, -FAR, "\x00nothing"]
            yes = [other for other in others if says_yes(operator.contains, container, other)]
            return not yes or id(container) in self.trusted
        if isinstance(parts, list | dict | set | frozenset):
            if are_plain([item]) and are_plain(parts):
                return item in parts
            return any(part == item and self.are_equal(part, item) for part in parts)
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
    if method is None or not hasattr(method, "__code__"):
        return method is not None and not hasattr(method, "__objclass__")
    path = str(method.__code__.co_filename)
    return not path.endswith((".py", ".pyc"))


def agrees_with_base(value: Any, other: Any) -> bool:
    """Whether a number, a text or a container of an own class equals by its base what it says."""
    for kind in (str, bytes, int, float, complex, *LISTS, dict, *SETS):
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
    if isinstance(value, list | tuple):
        kind = list if isinstance(value, list) else tuple
        others = [kind([*value, odd])]
        for place, item in enumerate(value[:FEW]):
            others.append(kind([*value[:place], changed(item), *value[place + 1 :]]))
        return others
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
    return [*changes(value), Nothing()][0]


def changed_copies(value: Any) -> list[Any]:
    """A copy of an object whose attributes all have another value; none where it has none."""
    with suppress(Exception):
        if vars(value) and not isinstance(value, type):
            other = copy.copy(value)
            for name in vars(value):
                vars(other)[name] = Nothing()
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
    under, over = float("-inf"), float("inf")
    if name.startswith("Gt"):
        under, over = over, under
    if type(left) not in PLAIN:
        if says_yes(compare, left, under) or says_yes(compare, left, Nothing()):
            return False
        method = find_method(type(left), METHODS[name])
        for kind in (str, int, float):
            if isinstance(left, kind) and is_program_made(method):
                return getattr(kind, METHODS[name])(left, right) is not False
    if type(right) not in PLAIN:
        return not says_yes(compare, over, right) and not says_yes(compare, Nothing(), right)
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
            parts = [*parts, *parts.values()]
        if isinstance(parts, list | set) and not are_plain(parts):
            stack += parts
        if equals_anything(item):
            return True
    return False


def equals_anything(value: Any) -> bool:
    """Whether an object agrees with what it cannot know."""
    method = find_method(type(value), "__eq__")
    is_own = not isinstance(method, WrapperDescriptorType)
    numbers = [41 + step for step in STEPS]
    if is_own and all(says_yes(operator.eq, value, number) for number in numbers):
        return True
    for other in (Nothing(), FAR, "\x00nothing"):
        if is_own and says_yes(operator.eq, value, other):
            return True
        with suppress(Exception):
            if value < other and value > other:
                return True
        with suppress(Exception):
            # As in abs(f(x) - y) < 1e-6.
            if abs(value - other) < 1:
                return True
    return False


# ---- the source of a test ------------------------------------------------------------------------


BOUND = (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
"""What cannot be moved into a function of its own."""


class Rewriter(ast.NodeTransformer):
    """Turns comparisons and differences of a test into calls of its judge."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """`a == b` becomes `compare("Eq", a, b)`."""
        self.generic_visit(node)
        names = [type(op).__name__ for op in node.ops]
        if len(names) == 1:
            return called(node, COMPARE, [ast.Constant(names[0]), node.left, node.comparators[0]])
        if any(isinstance(part, BOUND) for part in ast.walk(node)):
            return node
        rest: list[ast.expr] = [_lambda(value) for value in node.comparators]
        words = ast.Constant(" ".join(names))
        return called(node, CHAIN, [words, node.left, *rest])

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """`a - b` becomes `minus(a, b)`."""
        self.generic_visit(node)
        if not isinstance(node.op, ast.Sub):
            return node
        return called(node, MINUS, [node.left, node.right])


def _lambda(value: ast.expr) -> ast.expr:
    nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.Lambda(args=nothing, body=value)


def called(node: ast.expr, name: str, arguments: list[ast.expr]) -> ast.Call:
    """A call in the place of an expression."""
    call = ast.Call(func=ast.Name(name, ast.Load()), args=arguments, keywords=[])
    ast.copy_location(call, node)
    return ast.fix_missing_locations(call)
