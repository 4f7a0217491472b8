"""Comparisons of a test, in which no object of the program decides that it is right.

A program may return an object whose `__eq__` says yes. So comparisons in the source of a test
become calls of `Comparisons.compare`, which goes by what values are, not by what they say:

- plain values, and objects of Python's library, are compared as Python does;
- an heir of a number, a text or a container counts as the data that it holds;
- any other object of the program's own equals no plain value, and has no order beside one;
- between two objects of the program's own, their own methods decide;
- so they do for a class that the test names itself (`Point(1, 2)`), unless its object equals every
  changed value too.

This file needs Python's library alone: it runs inside the sandbox, see `harness`.
"""

from __future__ import annotations

import ast
import builtins
import gc
import operator
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import WrapperDescriptorType
from typing import Any

# Functions keep the builtins that their module has when they are made: these, whatever a program
# patches.
globals()["__builtins__"] = dict(vars(builtins))

COMPARE = "@compare"
CHAIN = "@compare_chain"
BINARY = "@binary"
TRUST = "@trust"
ASIDE = "@aside"
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
BINARIES: dict[str, Callable[[Any, Any], Any]] = {
    "Sub": operator.sub,
    "BitXor": operator.xor,
    "BitAnd": operator.and_,
    "BitOr": operator.or_,
}
"""Operators by which tests take differences of numbers and of sets."""
COMPARING = {
    "assertEqual": "Eq",
    "assertListEqual": "Eq",
    "assertCountEqual": "Eq",
    "assertIn": "In",
    "assertAlmostEqual": "Sub",
    "eq": "Eq",
}
"""Functions of Python's library that compare their first two arguments."""
OPPOSITES = {"NotEq": "Eq", "NotIn": "In"}
FAR = 725_000_000_009
"""A number that no test asks for, and a prime: no remainder hides it."""
STEPS = (1, 2, 5, 11, -1, -2, -5, -11, FAR)
"""Changes of a number."""
HEAP_TYPE = 1 << 9
"""Flag of classes that Python code has made."""
PLAIN = frozenset(
    id(kind) for kind in (int, float, complex, bool, str, bytes, type(None), type, range)
)
"""Types whose values have no say in what they equal, and hold nothing. By their ids: a class may
have a hash and an equality of its own.
"""
LISTS: tuple[Any, ...] = (list, tuple, deque)
SETS: tuple[Any, ...] = (set, frozenset)
NUMBERS = (int, float, complex)
BOUND = (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
"""Expressions that cannot be moved into a function of their own."""
LIBRARY: dict[int, type] = {}
"""Id -> class, of those that were there before any program. Not every class has a hash."""
DECEIVERS = ("_ANY", "NonCallableMock", "Approx", "ApproxBase")
"""Classes of Python's library and of pytest whose objects equal what their maker wishes."""


def remember_library() -> None:
    """Remember all classes that there are; once, before a program runs."""
    if LIBRARY:
        return
    # Not `isinstance`, which a weak reference answers for what it refers to.
    stack: list[type] = [item for item in gc.get_objects() if issubclass(type(item), type)]
    while stack:
        kind = stack.pop()
        if id(kind) not in LIBRARY:
            LIBRARY[id(kind)] = kind
            stack += type.__subclasses__(kind)


class Nothing:
    """An object that nothing honest equals."""


class Own:
    """An object of the program's own, in the place of which its data would say too little.

    Args:
        value: The object.
        judge: The comparisons of the test.
        is_named: Whether the test names its class.
    """

    def __init__(self, value: Any, judge: Comparisons, is_named: bool):
        self.value = value
        self.judge = judge
        self.is_named = is_named

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Own):
            return self.judge.own_equal(self.value, other.value)
        return self.is_named and self.judge.named_equals(self.value, other)

    def __hash__(self) -> int:
        with suppress(Exception):
            return hash(self.value)
        return id(self.value)


class Comparisons:
    """Compares the values of a test, and notes where one had decided the outcome itself.

    Args:
        named: Classes of the program that the test names.
        module: The module's name of classes that the test defines.
        restore: Puts back what the program has patched.
    """

    def __init__(
        self,
        named: Iterable[type] = (),
        module: str = "<tests>",
        restore: Callable[[], None] | None = None,
    ):
        self.is_made_up = False
        self.restore = restore
        self.named = {id(kind) for kind in named}
        self.module = module
        self.trusted: dict[int, Any] = {}

    def names(self) -> dict[str, Any]:
        """What a test that went through `Rewriter` calls."""
        return {
            COMPARE: self.compare,
            CHAIN: self.chain,
            BINARY: self.binary,
            TRUST: self.trust,
            ASIDE: self.aside,
        }

    def trust(self, value: Any) -> Any:
        """Note an object that the test has from an import of its own: `mock.ANY`, `approx(1)`."""
        if self.restore is not None:
            # A method of the program may have patched the module since it was imported.
            self.restore()
        if is_deceiver(type(value)):
            self.trusted[id(value)] = value
        return value

    def compare(self, name: str, left: Any, right: Any) -> Any:
        """The outcome of a comparison, by the rules of the module.

        `name` is a key of `OPERATORS`. Raises what the comparison raises.
        """
        if id(type(left)) in PLAIN and id(type(right)) in PLAIN:
            return OPERATORS[name](left, right)
        if name in ("Is", "IsNot"):
            return OPERATORS[name](left, right)
        if name in OPPOSITES:
            return self.opposite(name, left, right)
        if name == "In":
            return self.is_inside(left, right)
        if name == "Eq":
            return self.equal(left, right)
        return self.ordered(name, left, right)

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

    def binary(self, name: str, left: Any, right: Any) -> Any:
        """A difference of numbers or sets. Raises what the operation raises."""
        plain_left = self.settle(left)
        plain_right = self.settle(right)
        is_left_own = isinstance(plain_left, Own)
        is_right_own = isinstance(plain_right, Own)
        if not is_left_own and not is_right_own:
            return unwrapped(BINARIES[name](plain_left, plain_right))
        outcome = BINARIES[name](left, right)
        if is_left_own != is_right_own:
            operand = plain_left if is_left_own else plain_right
            self._doubt(operand, outcome)
        return outcome

    def builtins(self) -> dict[str, Any]:
        """Builtins of a test that take a number from what may be none."""

        def absolute(value: Any, /) -> Any:
            plain = self.settle(value)
            return self._doubt(plain, abs(value if isinstance(plain, Own) else plain))

        def rounded(value: Any, /, *digits: Any, **options: Any) -> Any:
            plain = self.settle(value)
            number = value if isinstance(plain, Own) else plain
            return self._doubt(plain, round(number, *digits, **options))

        return {"abs": absolute, "round": rounded}

    def _doubt(self, plain: Any, outcome: Any) -> Any:
        """An outcome; noted, where an object of the program's own makes a plain value of another.

        Args:
            plain: The settled operand.
            outcome: Of the operation.
        """
        is_unnamed = isinstance(plain, Own) and not plain.is_named
        if is_unnamed and not isinstance(self.settle(outcome), Own):
            self.is_made_up = True
        return outcome

    def aside(self, name: str, method: Any, *arguments: Any, **named: Any) -> Any:
        """Call what compares its first two arguments itself, as `assertEqual`; they are judged too.

        `name` is a key of `OPERATORS` or `BINARIES`. Raises what the call raises.
        """
        left, right = arguments[:2]
        with suppress(Exception):
            if name in BINARIES:
                self.binary(name, left, right)
            elif self.compare(name, left, right) is False and OPERATORS[name](left, right):
                self.is_made_up = True
        return method(*arguments, **named)

    # ---- the comparisons -------------------------------------------------------------------------

    def equal(self, left: Any, right: Any) -> Any:
        """The outcome of `==`."""
        plain_left = self.settle(left)
        plain_right = self.settle(right)
        outcome = left == right
        if left is right or (plain_left is left and plain_right is right):
            return outcome
        is_named = is_of_named(plain_left) or is_of_named(plain_right)
        if is_named and not isinstance(outcome, bool):
            # Objects whose comparisons build something: `(Array([1]) == 1).all()`.
            return outcome
        if not isinstance(outcome, bool):
            self.is_made_up = True
            return False
        if not outcome:
            return outcome
        if plain_left == plain_right:
            return outcome
        self.is_made_up = True
        return False

    def opposite(self, name: str, left: Any, right: Any) -> Any:
        """The outcome of `!=` and `not in`."""
        if name == "NotIn":
            return not self.is_inside(left, right)
        outcome = left != right
        if outcome or (self.settle(left) is left and self.settle(right) is right):
            # An object may differ from everything: that is no claim to be right.
            return outcome
        if not isinstance(outcome, bool):
            return outcome
        return not self.equal(left, right)

    def is_inside(self, item: Any, container: Any) -> Any:
        """The outcome of `in`."""
        plain = self.settle(container)
        if isinstance(plain, Own):
            return self.is_inside_own(item, container, plain)
        plain_item = self.settle(item)
        if isinstance(plain, str | bytes):
            return plain_item in plain
        is_stream = hasattr(container, "__next__") or isinstance(container, VIEWS)
        if is_stream or plain is not container or plain_item is not item:
            return any(self.equal(part, item) for part in container)
        return item in container

    def is_inside_own(self, item: Any, container: Any, plain: Own) -> Any:
        """The outcome of `in` for a container of the program's own."""
        if plain.is_named:
            return item in container
        if find_method(type(container), "__contains__") is None:
            return any(self.equal(part, item) for part in container)
        if item in container:
            self.is_made_up = True
        return False

    def ordered(self, name: str, left: Any, right: Any) -> Any:
        """The outcome of `<` and its like."""
        plain_left = self.settle(left)
        plain_right = self.settle(right)
        if plain_left is left and plain_right is right:
            return OPERATORS[name](left, right)
        is_left_own = isinstance(plain_left, Own)
        is_right_own = isinstance(plain_right, Own)
        if is_left_own and is_right_own:
            return OPERATORS[name](left, right)
        if not is_left_own and not is_right_own:
            return OPERATORS[name](plain_left, plain_right)
        if not is_of_named(plain_left) and not is_of_named(plain_right):
            self.is_made_up = True
        return OPERATORS[name](left, right)

    def own_equal(self, left: Any, right: Any) -> bool:
        """Whether two objects of the program's own are equal, also where they hold others."""
        if not says_yes(operator.eq, left, right):
            return False
        fields = getattr(left, "__dict__", None)
        others = getattr(right, "__dict__", None)
        if type(left) is not type(right) or not isinstance(fields, dict):
            return True
        for name in fields:
            value = fields[name]
            other = others.get(name) if isinstance(others, dict) else None
            if not says_yes(operator.eq, value, other):
                continue
            plain, plain_other = self.settle(value), self.settle(other)
            # Of two objects of the program's own their own method has said it.
            are_own = isinstance(plain, Own) and isinstance(plain_other, Own)
            if not are_own and plain != plain_other:
                return False
        return True

    def named_equals(self, value: Any, other: Any) -> bool:
        """Whether an object of a named class equals a plain value, and not all others too."""
        if not says_yes(operator.eq, value, other):
            return False
        others = changes(other)
        if others and all(says_yes(operator.eq, value, change) for change in others):
            return False
        return not says_yes(operator.eq, value, Nothing())

    # ---- what a value is -------------------------------------------------------------------------

    def settle(self, value: Any, known: dict[int, Any] | None = None) -> Any:
        """A value with plain data, or `Own`, in the place of the program's objects.

        The value itself, where it holds none.
        """
        kind = type(value)
        if id(kind) in PLAIN or id(value) in self.trusted:
            return value
        known = {} if known is None else known
        if id(value) in known:
            return known[id(value)][0]
        # A value that holds itself is met again. It is kept, so that its id stays its own.
        known[id(value)] = (value, value)
        settled = self._settle_new(kind, value, known)
        known[id(value)] = (settled, value)
        return settled

    def _settle_new(self, kind: type, value: Any, known: dict[int, Any]) -> Any:
        is_made = is_program_made(kind) and kind.__module__ != self.module
        if is_made and id(kind) in self.named:
            return Own(value, self, True)
        if is_deceiver(kind):
            return Own(value, self, False)
        parts = plain_form(value)
        if parts is not value or id(kind) in EXACT:
            settled = self._settle_parts(parts, known)
            is_changed = settled is not parts
            return settled if is_made or is_changed else value
        if is_made:
            data = plain_data(value)
            return Own(value, self, False) if data is value else data
        if isinstance(value, VIEWS) and not are_plain(value):
            items = list(value)
            return value if self._settle_parts(items, known) is items else Own(value, self, False)
        if kind.__flags__ & HEAP_TYPE and self._holds_own(value, known):
            return Own(value, self, False)
        return value

    def _settle_parts(self, parts: Any, known: dict[int, Any]) -> Any:
        """A list, a dict or a set of Python's own with settled items; itself, if none changes."""
        if isinstance(parts, dict):
            if are_plain(parts) and are_plain(parts.values()):
                return parts
            keys = [self.settle(key, known) for key in parts]
            values = [self.settle(item, known) for item in parts.values()]
            if are_same(keys, parts) and are_same(values, parts.values()):
                return parts
            return dict(zip(keys, values, strict=True))
        if are_plain(parts):
            return parts
        items = [self.settle(item, known) for item in parts]
        if are_same(items, parts):
            return parts
        return type(parts)(items)

    def _holds_own(self, value: Any, known: dict[int, Any]) -> bool:
        """Whether an object of a library holds one of the program's."""
        fields = getattr(value, "__dict__", None)
        if not isinstance(fields, dict):
            return False
        return self._settle_parts(fields, known) is not fields


# ---- values --------------------------------------------------------------------------------------

EXACT = frozenset(id(kind) for kind in (list, tuple, dict, set, frozenset))
"""Ids of Python's own containers."""
VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))


def are_plain(values: Iterable[Any]) -> bool:
    """Whether all values are of plain types; as fast as a set is."""
    return PLAIN.issuperset(map(id, map(type, values)))


def are_same(values: Iterable[Any], others: Iterable[Any]) -> bool:
    """Whether two sequences hold the same objects."""
    return all(map(operator.is_, values, others))


def is_of_named(plain: Any) -> bool:
    """Whether a settled value is an object of a class that the test names."""
    return isinstance(plain, Own) and plain.is_named


def is_program_made(kind: type) -> bool:
    """Whether a class is the program's: no library has it."""
    if id(kind) in LIBRARY or not kind.__flags__ & HEAP_TYPE:
        return False
    # A module of Python's that the program was the first to import.
    place = kind.__module__
    if not isinstance(place, str):
        return True
    module = sys.modules.get(place)
    first, _, _ = place.partition(".")
    if first not in sys.stdlib_module_names:
        return True
    return getattr(module, kind.__qualname__, None) is not kind


def is_deceiver(kind: type) -> bool:
    """Whether a class is `mock.ANY`'s, a mock's, or that of an approximate value."""
    return any(parent.__name__ in DECEIVERS for parent in kind.__mro__)


def plain_form(value: Any) -> Any:
    """What a container of another class holds, in one of Python's own; else the value."""
    kind = type(value)
    if id(kind) in EXACT:
        return value
    for base in LISTS:
        if isinstance(value, base):
            form = tuple if base is tuple else list
            return form(base.__iter__(value))
    if isinstance(value, dict):
        return dict(dict.items(value))
    for base in SETS:
        if isinstance(value, base):
            return set(base.__iter__(value))
    return value


def unwrapped(value: Any) -> Any:
    """A set with the objects themselves in the place of `Own`; any other value as it is."""
    if not isinstance(value, SETS):
        return value
    return type(value)(item.value if isinstance(item, Own) else item for item in value)


def plain_data(value: Any) -> Any:
    """The number or the text that an object of an own class is; else the value."""
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, complex):
        return complex.__complex__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes.__bytes__(value)
    return value


def find_method(kind: type, name: str) -> Any:
    """The method that a class has or inherits, as it stands in the class; None without one."""
    for parent in kind.__mro__:
        if name in vars(parent):
            return vars(parent)[name]
    return None


def says_yes(compare: Callable[[Any, Any], Any], left: Any, right: Any) -> bool:
    """Whether a comparison holds; one that raises does not."""
    with suppress(Exception):
        return bool(compare(left, right))
    return False


def changes(value: Any) -> list[Any]:
    """Values that differ from one in what an honest equality looks at; none where none is known."""
    odd = Nothing()
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, NUMBERS):
        return [value + step for step in STEPS]
    if isinstance(value, str):
        return [f"{value}\x00", f"{value}x", "0"]
    if isinstance(value, bytes):
        return [value + b"\x00"]
    if isinstance(value, list):
        return [[*value, odd], [odd]]
    if isinstance(value, tuple):
        return [(*value, odd), (odd,)]
    if isinstance(value, dict):
        return [{**value, odd: odd}]
    if isinstance(value, SETS):
        return [{*value, odd}]
    return []


def is_suspect(value: Any, named: Iterable[type] = ()) -> bool:
    """Whether a result is an object of the program's own that equals what it cannot know.

    Where a comparison is made by other code than the test's, as by `unittest`, this look at what a
    function returns stands in for `Comparisons`.
    """
    names = {id(kind) for kind in named}
    kind = type(value)
    if id(kind) in PLAIN or id(kind) in names:
        return False
    items = [value]
    if isinstance(value, LISTS):
        items = list(plain_form(value))
    for item in items:
        kind = type(item)
        if id(kind) in PLAIN or id(kind) in names:
            continue
        if not is_program_made(kind) and not is_deceiver(kind):
            continue
        method = find_method(kind, "__eq__")
        if isinstance(method, WrapperDescriptorType):
            continue
        for other in (Nothing(), FAR, "\x00nothing"):
            if says_yes(operator.eq, item, other):
                return True
    return False


# ---- the source of a test ------------------------------------------------------------------------


class Marker(ast.NodeTransformer):
    """Marks what a test has from its own imports, before its assertions are taken apart.

    Args:
        imported: Names that the test imports.
    """

    def __init__(self, imported: Iterable[str]):
        self.imported = set(imported)

    def visit_match_case(self, node: ast.match_case) -> ast.AST:
        """Patterns hold no calls."""
        return visit_case(self, node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """`mock.ANY` becomes `trust(mock.ANY)`."""
        return self._mark(node, isinstance(node.ctx, ast.Load))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """`ANY` becomes `trust(ANY)`."""
        return self._mark(node, isinstance(node.ctx, ast.Load))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`approx(1)` becomes `trust(approx(1))`, and `t.assertEqual(a, b)` is judged aside."""
        name = ""
        if isinstance(node.func, ast.Attribute) and len(node.args) > 1:
            name = COMPARING.get(node.func.attr, "")
        marked = self._mark(node, True)
        if name:
            node.args = [ast.Constant(name), node.func, *node.args]
            node.func = ast.Name(ASIDE, ast.Load())
        return marked

    def _mark(self, node: ast.expr, is_read: bool) -> ast.AST:
        is_imported = is_read and root_name(node) in self.imported
        self.generic_visit(node)
        if is_imported:
            return called(node, TRUST, [node])
        return node


class Rewriter(ast.NodeTransformer):
    """Turns comparisons and differences of a test into calls of its judge."""

    def __init__(self) -> None:
        self.is_in_class = False

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """The body of a class has no functions that see its names."""
        before = self.is_in_class
        self.is_in_class = True
        self.generic_visit(node)
        self.is_in_class = before
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """A function of its own in a class."""
        before = self.is_in_class
        self.is_in_class = False
        self.generic_visit(node)
        self.is_in_class = before
        return node

    def visit_match_case(self, node: ast.match_case) -> ast.AST:
        """Patterns hold no calls."""
        return visit_case(self, node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """`a == b` becomes `compare("Eq", a, b)`."""
        self.generic_visit(node)
        names = [type(op).__name__ for op in node.ops]
        if len(names) == 1:
            name = ast.Constant(names[0])
            return called(node, COMPARE, [name, node.left, *node.comparators])
        if self.is_in_class or any(isinstance(part, BOUND) for part in ast.walk(node)):
            return node
        rest = [in_a_function(value) for value in node.comparators]
        words = ast.Constant(" ".join(names))
        return called(node, CHAIN, [words, node.left, *rest])

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """`a - b` becomes `binary("Sub", a, b)`."""
        self.generic_visit(node)
        name = type(node.op).__name__
        if name not in BINARIES:
            return node
        return called(node, BINARY, [ast.Constant(name), node.left, node.right])


def visit_case(visitor: ast.NodeTransformer, node: ast.match_case) -> ast.AST:
    """Visit a case but for its pattern."""
    node.body = [visitor.visit(part) for part in node.body]
    if node.guard is not None:
        node.guard = visitor.visit(node.guard)
    return node


def root_name(node: ast.expr) -> str:
    """The name with which an expression such as `mock.Mock().x` begins; "" of others."""
    while isinstance(node, ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


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
