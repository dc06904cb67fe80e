"""Predicates of `questions-200.jsonl`: each looks for a short piece of Python in a text.

A text was written by a model: these functions parse it and look at its parts, and nothing of it is ever run. So they
know the usual ways to write such code and take no other; one that is right may be missed, and one that has the right
parts in a wrong place may pass.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator
from typing import Any

MAX_TEXT = 20_000
"""Characters of a text; a longer one is no answer to a short task."""
BLOCK = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What the parser raises for a text that is no Python or is nested too deeply."""
LOOPS = (ast.For, ast.While)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp)

Function = ast.FunctionDef
Question = dict[str, Any]


# --- one statement or expression ------------------------------------------------------------------


def adds(text: str, question: Question) -> bool:
    """Whether `add(a, b)` adds its two parameters."""

    def fits(function: Function) -> bool:
        wanted = sorted(_parameters(function))
        sums = [one for one in _operations(function, ast.Add) if sorted(_names(one.left) + _names(one.right)) == wanted]
        return bool(sums) or "sum" in _called(function)

    return _any_function(text, "add", 2, fits)


def squares(text: str, question: Question) -> bool:
    """Whether `square(n)` has n * n, n ** 2 or pow(n, 2)."""

    def fits(function: Function) -> bool:
        by_pow = "pow" in _called(function) and 2 in _numbers(function)
        return by_pow or any(_is_square(one) for one in _parts(function, ast.BinOp))

    return _any_function(text, "square", 1, fits)


def tells_even(text: str, question: Question) -> bool:
    """Whether `is_even(n)` compares the rest of a division by 2, or the last bit, with the right number."""

    def fits(function: Function) -> bool:
        compared = any(_compares_rest(one) for one in _parts(function, ast.Compare))
        negated = [one.operand for one in _parts(function, ast.UnaryOp) if isinstance(one.op, ast.Not)]
        return compared or any(_is_rest(one) for one in negated)

    return _any_function(text, "is_even", 1, fits)


def greets(text: str, question: Question) -> bool:
    """Whether `greet(name)` has a text with Hello and uses its parameter."""

    def fits(function: Function) -> bool:
        return any("Hello" in one for one in _texts(function)) and _uses(function, _parameters(function)[0])

    return _any_function(text, "greet", 1, fits)


def chooses_larger(text: str, question: Question) -> bool:
    """Whether `larger(a, b)` asks max(), or compares and gives the larger side."""

    def fits(function: Function) -> bool:
        chosen = [(one.test, one.body) for one in _parts(function, ast.IfExp)]
        for one in _parts(function, ast.If):
            if isinstance(one.body[0], ast.Return) and one.body[0].value:
                chosen.append((one.test, one.body[0].value))
        return "max" in _called(function) or any(_is_larger_side(test, given) for test, given in chosen)

    return _any_function(text, "larger", 2, fits)


def takes_last(text: str, question: Question) -> bool:
    """Whether `last(items)` has items[-1] or items[len(items) - 1]."""

    def fits(function: Function) -> bool:
        places = [one.slice for one in _parts(function, ast.Subscript)]
        by_length = [one for one in places if isinstance(one, ast.BinOp) and isinstance(one.op, ast.Sub)]
        counted = any(_called(one) == {"len"} and _number(one.right) == 1 for one in by_length)
        return counted or any(_number(one) == -1 for one in places)

    return _any_function(text, "last", 1, fits)


def turns_round(text: str, question: Question) -> bool:
    """Whether `backwards(text)` has the slice [::-1], joins what reversed() gives, or puts each letter in front."""

    def fits(function: Function) -> bool:
        slices = _parts(function, ast.Slice)
        sliced = any(_number(one.step) == -1 and one.lower is None and one.upper is None for one in slices)
        return sliced or {"reversed", "join"} <= _called(function) or _puts_in_front(function)

    return _any_function(text, "backwards", 1, fits)


def has_default(text: str, question: Question) -> bool:
    """Whether `power(base, exponent=2)` has this default, and a power."""

    def fits(function: Function) -> bool:
        default = [_number(one) for one in function.args.defaults]
        return default == [2] and (bool(_operations(function, ast.Pow)) or "pow" in _called(function))

    return _any_function(text, "power", 2, fits)


def converts_to_fahrenheit(text: str, question: Question) -> bool:
    """Whether `fahrenheit(celsius)` multiplies by 9/5 or 1.8 and adds 32."""

    def fits(function: Function) -> bool:
        numbers = set(_numbers(function))
        factor = 1.8 in numbers or {9, 5} <= numbers
        return factor and 32 in numbers and bool(_operations(function, ast.Add) and _operations(function, ast.Mult))

    return _any_function(text, "fahrenheit", 1, fits)


def has_type_hints(text: str, question: Question) -> bool:
    """Whether `is_adult(age: int) -> bool` has its hints and compares with 18."""

    def fits(function: Function) -> bool:
        hints = (_arguments(function)[0].annotation, function.returns)
        hinted = [one.id for one in hints if isinstance(one, ast.Name)] in (["int", "bool"], ["float", "bool"])
        return hinted and any(_is_eighteen_or_more(one) for one in _parts(function, ast.Compare))

    return _any_function(text, "is_adult", 1, fits)


# --- some statements ------------------------------------------------------------------------------


def counts_vowels(text: str, question: Question) -> bool:
    """Whether `count_vowels(text)` goes through something, has all vowels, and counts."""

    def fits(function: Function) -> bool:
        goes_through = bool(_parts(function, *LOOPS, *COMPREHENSIONS))
        counts = bool(_called(function) & {"sum", "len", "count"} or _parts(function, ast.AugAssign))
        return goes_through and counts and set("aeiou") <= set("".join(_texts(function)))

    return _any_function(text, "count_vowels", 1, fits)


def multiplies_up(text: str, question: Question) -> bool:
    """Whether `factorial(n)` multiplies in a loop, or calls itself and can end; nothing is imported."""

    def fits(function: Function) -> bool:
        calls_itself = "factorial" in _called(function) and bool(_parts(function, ast.If, ast.IfExp))
        return bool(_operations(function, ast.Mult)) and (calls_itself or bool(_parts(function, *LOOPS)))

    return _imports_nothing(text) and _any_function(text, "factorial", 1, fits)


def is_a_point(text: str, question: Question) -> bool:
    """Whether a class Point keeps x and y: in its `__init__`, as a dataclass or as a named tuple."""
    classes = [one for one in _all_parts(text, ast.ClassDef) if one.name == "Point"]
    return any(_keeps_in_init(one) or _keeps_as_fields(one) for one in classes)


def comprehends_squares(text: str, question: Question) -> bool:
    """Whether `first_squares(n)` has a list comprehension of squares over range(n)."""

    def fits(function: Function) -> bool:
        made = [one for one in _parts(function, ast.ListComp) if _is_square(one.elt)]
        return any(_is_range(one.generators[0].iter, _parameters(function)[0]) for one in made)

    return _any_function(text, "first_squares", 1, fits)


def divides_safely(text: str, question: Question) -> bool:
    """Whether `safe_divide(a, b)` divides, minds a zero, and gives no other constant than None."""

    def fits(function: Function) -> bool:
        caught = [_names(one.type) for one in _parts(function, ast.ExceptHandler) if one.type]
        tests = [one.test for one in _parts(function, ast.If, ast.IfExp)]
        minds = any("ZeroDivisionError" in one for one in caught) or any(
            _uses(one, _parameters(function)[1]) for one in tests
        )
        constants = {one.value for one in _returned(function) if isinstance(one, ast.Constant)}
        return bool(_operations(function, ast.Div)) and minds and constants <= {None}

    return _any_function(text, "safe_divide", 2, fits)


def sorts_by_age(text: str, question: Question) -> bool:
    """Whether `by_age(people)` asks sorted() for the order by "age"; sort() would change the list that it is given."""

    def fits(function: Function) -> bool:
        calls = [one for one in _parts(function, ast.Call) if _called_name(one) == "sorted"]
        keywords = [{keyword.arg: keyword.value for keyword in one.keywords} for one in calls]
        return any("age" in _texts(one["key"]) and "reverse" not in one for one in keywords if "key" in one)

    return _any_function(text, "by_age", 1, fits)


def closes_its_file(text: str, question: Question) -> bool:
    """Whether `read_lines(path)` opens a file for reading in a with statement and makes a list of its lines."""

    def fits(function: Function) -> bool:
        opened = [one.items[0].context_expr for one in _parts(function, ast.With)]
        reads = any("open" in _called(one) and not {"w", "a", "x"} & set(_texts(one)) for one in opened)
        lists = _called(function) & {"readlines", "splitlines", "list", "append"} or _parts(function, ast.ListComp)
        return reads and bool(lists)

    return _any_function(text, "read_lines", 1, fits)


def plays_fizzbuzz(text: str, question: Question) -> bool:
    """Whether `fizzbuzz(n)` has a loop, the two rests and the words; FizzBuzz is asked for first or put together."""

    def fits(function: Function) -> bool:
        words = [one for one in _texts(function) if one in ("Fizz", "Buzz", "FizzBuzz")]
        named_first = words[:1] == ["FizzBuzz"] and set(words) == {"Fizz", "Buzz", "FizzBuzz"}
        joined = set(words) == {"Fizz", "Buzz"} and bool(_parts(function, ast.AugAssign) or _adds_up(function))
        rests = {_number(one.right) for one in _operations(function, ast.Mod)}
        return bool(_parts(function, *LOOPS, *COMPREHENSIONS)) and {3, 5} <= rests and (named_first or joined)

    return _any_function(text, "fizzbuzz", 1, fits)


def yields_down(text: str, question: Question) -> bool:
    """Whether `countdown(n)` yields and counts down: by a subtraction, range(n, 0, -1) or reversed()."""

    def fits(function: Function) -> bool:
        ranges = [one for one in _parts(function, ast.Call) if _called_name(one) == "range"]
        backwards = any([_number(arg) for arg in one.args[1:]] == [0, -1] for one in ranges)
        smaller = any(isinstance(one.op, ast.Sub) for one in _parts(function, ast.AugAssign, ast.BinOp))
        down = backwards or "reversed" in _called(function) or (smaller and bool(_parts(function, ast.While)))
        return down and bool(_parts(function, ast.Yield, ast.YieldFrom))

    return _any_function(text, "countdown", 1, fits, returns=False)


def halves(text: str, question: Question) -> bool:
    """Whether `binary_search(items, wanted)` halves a range in a loop or calls itself, and knows -1."""

    def fits(function: Function) -> bool:
        halved = any(_number(one.right) == 2 for one in _operations(function, ast.FloorDiv))
        shifted = any(_number(one.right) == 1 for one in _operations(function, ast.RShift))
        again = bool(_parts(function, ast.While)) or "binary_search" in _called(function)
        return again and (halved or shifted) and -1 in map(_number, _returned(function))

    return _imports_nothing(text) and _any_function(text, "binary_search", (2, 4), fits)


# --- how code is found in a text ------------------------------------------------------------------


def _trees(text: str) -> list[ast.Module]:
    """The fenced blocks that parse; a text without one is taken for code."""
    if len(text) > MAX_TEXT:
        return []
    parsed = (_parsed(textwrap.dedent(block)) for block in BLOCK.findall(text) or [text])
    return [tree for tree in parsed if tree]


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings(action="ignore"):  # what the parser thinks of a model's style
            return ast.parse(code)
    except UNREADABLE:
        return None


def _any_function(
    text: str,
    name: str,
    parameters: int | tuple[int, int],
    fits: Callable[[Function], bool],
    returns: bool = True,
) -> bool:
    """Whether a function of this name, with so many parameters (or between two numbers of them), fits."""
    least, most = (parameters, parameters) if isinstance(parameters, int) else parameters
    for function in _functions(text, name):
        if least <= len(_parameters(function)) <= most and (_returned(function) or not returns) and fits(function):
            return True
    return False


def _functions(text: str, name: str) -> Iterator[Function]:
    """The functions of a name, without their docstrings: what is said there is not done."""
    for function in _all_parts(text, ast.FunctionDef):
        if function.name == name:
            if ast.get_docstring(function) is not None:
                del function.body[0]
            yield function


def _imports_nothing(text: str) -> bool:
    return not _all_parts(text, ast.Import, ast.ImportFrom)


def _all_parts(text: str, *kinds: type[ast.AST]) -> list[Any]:
    """What is of these kinds in any block."""
    found: list[Any] = []
    for tree in _trees(text):
        found += _parts(tree, *kinds)
    return found


# --- parts of code --------------------------------------------------------------------------------


def _parts(node: ast.AST, *kinds: type[ast.AST]) -> list[Any]:
    """What is of these kinds in a node, itself included, in the order of the text."""
    found = [one for one in ast.walk(node) if isinstance(one, kinds)]
    return sorted(found, key=lambda one: (getattr(one, "lineno", 0), getattr(one, "col_offset", 0)))


def _operations(node: ast.AST, kind: type[ast.operator]) -> list[ast.BinOp]:
    """Operations on two values; `x *= y` is one on x and y."""
    found = [one for one in _parts(node, ast.BinOp) if isinstance(one.op, kind)]
    for one in _parts(node, ast.AugAssign):
        if isinstance(one.op, kind):
            found.append(ast.BinOp(left=one.target, op=one.op, right=one.value))
    return found


def _parameters(function: Function) -> list[str]:
    return [one.arg for one in _arguments(function)]


def _arguments(function: Function) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args]


def _returned(function: Function) -> list[ast.expr]:
    """What the function returns, wherever it does."""
    return [one.value for one in _parts(function, ast.Return) if one.value]


def _names(node: ast.AST) -> list[str]:
    return [one.id for one in _parts(node, ast.Name)]


def _uses(node: ast.AST, name: str) -> bool:
    return name in _names(node)


def _texts(node: ast.AST) -> list[str]:
    return [one.value for one in _parts(node, ast.Constant) if isinstance(one.value, str)]


def _numbers(node: ast.AST) -> list[float]:
    return [one for one in map(_number, _parts(node, ast.Constant)) if one is not None]


def _number(node: ast.AST | None) -> float | None:
    """The number that a node is, with its sign; True and False are none."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        positive = _number(node.operand)
        return None if positive is None else -positive
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    return None


def _called(node: ast.AST) -> set[str]:
    """Names of functions and methods that are called."""
    return {_called_name(one) for one in _parts(node, ast.Call)}


def _called_name(call: ast.Call) -> str:
    return getattr(call.func, "id", "") or getattr(call.func, "attr", "")


# --- what single parts mean -----------------------------------------------------------------------


def _is_square(node: ast.AST) -> bool:
    """x * x or x ** 2."""
    if not isinstance(node, ast.BinOp):
        return False
    twice = isinstance(node.op, ast.Mult) and ast.dump(node.left) == ast.dump(node.right)
    return twice or (isinstance(node.op, ast.Pow) and _number(node.right) == 2)


def _is_rest(node: ast.AST) -> bool:
    """x % 2 or x & 1."""
    if not isinstance(node, ast.BinOp):
        return False
    return (type(node.op), _number(node.right)) in ((ast.Mod, 2), (ast.BitAnd, 1))


def _compares_rest(node: ast.Compare) -> bool:
    """x % 2 == 0 or x % 2 != 1."""
    wanted = ((ast.Eq, 0), (ast.NotEq, 1))
    return _is_rest(node.left) and (type(node.ops[0]), _number(node.comparators[0])) in wanted


def _is_larger_side(test: ast.expr, given: ast.expr) -> bool:
    """Whether what is given where a comparison holds is its larger side."""
    if not isinstance(test, ast.Compare):
        return False
    larger = test.comparators[0]
    if isinstance(test.ops[0], ast.Gt | ast.GtE):
        larger = test.left
    elif not isinstance(test.ops[0], ast.Lt | ast.LtE):
        return False
    return ast.dump(larger) == ast.dump(given)


def _is_eighteen_or_more(node: ast.Compare) -> bool:
    """age >= 18, age > 17, 18 <= age or 17 < age."""
    operator = type(node.ops[0])
    behind = (operator, _number(node.comparators[0])) in ((ast.GtE, 18), (ast.Gt, 17))
    return behind or (operator, _number(node.left)) in ((ast.LtE, 18), (ast.Lt, 17))


def _puts_in_front(function: Function) -> bool:
    """x = letter + x in a loop."""
    for loop in _parts(function, *LOOPS):
        for one in _parts(loop, ast.Assign):
            added = isinstance(one.value, ast.BinOp) and isinstance(one.value.op, ast.Add)
            if added and _names(one.value.right) == _names(one.targets[0]):
                return True
    return False


def _adds_up(function: Function) -> bool:
    """Whether two texts are added, whatever decides which."""
    return any(_texts(one.left) and _texts(one.right) for one in _operations(function, ast.Add))


def _is_range(node: ast.expr, name: str) -> bool:
    """range(n) or range(0, n)."""
    if not isinstance(node, ast.Call) or _called_name(node) != "range" or not 1 <= len(node.args) <= 2:
        return False
    *begin, end = node.args
    return isinstance(end, ast.Name) and end.id == name and [_number(one) for one in begin] in ([], [0])


def _keeps_in_init(node: ast.ClassDef) -> bool:
    for function in _parts(node, ast.FunctionDef):
        if function.name == "__init__" and _parameters(function)[1:] == ["x", "y"]:
            stored = [one for one in _parts(function, ast.Attribute) if isinstance(one.ctx, ast.Store)]
            return {"x", "y"} <= {one.attr for one in stored if _names(one) == ["self"]}
    return False


def _keeps_as_fields(node: ast.ClassDef) -> bool:
    """As fields of a dataclass or a NamedTuple."""
    marks = ast.Tuple([*node.decorator_list, *node.bases])
    named = {getattr(one, "id", "") or getattr(one, "attr", "") for one in _parts(marks, ast.Name, ast.Attribute)}
    fields = [one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    return bool(named & {"dataclass", "NamedTuple"}) and fields == ["x", "y"]
