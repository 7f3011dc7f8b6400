"""What cosmic-ray would change in these files, as JSON: `python -m bench.mutants.generate FILE ...`.

Runs in the tool's own environment (`bench/peers/cosmic-ray.txt`) and imports nothing of this project. It uses those of
cosmic-ray's operators that make a near miss: `<` for `<=`, not `<` for `**`, which any test notices. It adds four: a statement
left out, `in` for `not in`, `min` for `max`, and an error that is no longer caught (cosmic-ray's own fails on dotted names).

Every edit is written as the span of the source that it replaces, so that only this module needs the tool.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any, Final

NEAR: Final = (
    *("Add_Sub", "Sub_Add", "Mul_Add", "Div_Mul", "FloorDiv_Mul", "Mod_FloorDiv", "Pow_Mul"),
    *("RShift_LShift", "LShift_RShift", "BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitAnd"),
)
COMPARED: Final = ("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Is_IsNot", "IsNot_Is")
OPERATORS: Final = (
    *(f"ReplaceBinaryOperator_{pair}" for pair in NEAR),
    *(f"ReplaceComparisonOperator_{pair}" for pair in COMPARED),
    *("ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Invert", "ReplaceUnaryOperator_Delete_Not"),
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer", "ZeroIterationForLoop"),
)
MEMBERSHIP: Final = {"in": "not in", "not in": "in"}
EXTREMES: Final = {"min": "max", "max": "min"}
TUNED_FROM: Final = 100
"""A constant of a module or class from this value on is a chosen bound: one more or less makes no difference."""

Edit = dict[str, str | int]
Span = tuple[int, int]


class Source:
    """One file: its text, the places where its lines begin, and the spans that are never edited."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self._lines = [0]
        for line in text.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._spared = [self.span(node) for node in _spared(self.tree)]
        self._negated = {self.span(node)[0] for node in ast.walk(self.tree) if _is_negated_otherwise(node)}

    def at(self, line: int, column: int) -> int:
        """The offset of a line and a column, in characters, since `ast` counts columns in bytes and parso in characters."""
        return self._lines[line - 1] + column

    def span(self, node: ast.AST) -> Span:
        first, last = node.lineno, node.end_lineno  # type: ignore[attr-defined]  # every one that is asked for has them
        lines = self.text.splitlines()
        begin = len(lines[first - 1].encode()[: node.col_offset].decode())  # type: ignore[attr-defined]
        end = len(lines[last - 1].encode()[: node.end_col_offset].decode())  # type: ignore[attr-defined]
        return self.at(first, begin), self.at(last, end)

    def line_of(self, place: int) -> int:
        return self.text.count("\n", 0, place) + 1

    def is_spared(self, place: int, operator: str = "") -> bool:
        if operator == "AddNot" and place in self._negated:
            return True
        return any(begin <= place < end for begin, end in self._spared)


def _is_negated_otherwise(node: ast.AST) -> bool:
    """Whether another operator negates this condition as well: `is not` for `is`, `not` left out."""
    match node:
        case ast.UnaryOp(op=ast.Not()):
            return True
        case ast.Compare(ops=[ast.Eq() | ast.NotEq() | ast.Is() | ast.IsNot() | ast.In() | ast.NotIn()]):
            return True
    return False


def _spared(tree: ast.Module) -> list[ast.AST]:
    """The nodes that are never edited: annotations, code for type checkers, texts of errors, constants from 100 on."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign():
                found.append(node.annotation)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found += [node.returns] if node.returns else []
            case ast.arg(annotation=ast.expr() as annotation):
                found.append(annotation)
            case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test):
                found.append(node)
            case ast.Raise():
                found.append(node)
            case ast.ClassDef():  # mypy checks `frozen`, and `gc` only affects speed
                found += [each for each in node.keywords if each.arg in {"frozen", "gc"}]
            case ast.Assert(msg=ast.expr() as message):
                found.append(message)
    for body in (tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))):
        for statement in body:
            value = getattr(statement, "value", None) if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
            if value is not None and _is_tuned(value):
                found.append(statement)
    return found


def _is_tuned(value: ast.expr) -> bool:
    """A number over the bound, or arithmetic on plain numbers that comes to one."""
    if not all(isinstance(node, (ast.Constant, ast.BinOp, ast.operator)) for node in ast.walk(value)):
        return False
    number = eval(compile(ast.Expression(value), "constant", "eval"), {})  # numbers of our own source
    return isinstance(number, (int, float)) and abs(number) >= TUNED_FROM


def by_tool(source: Source) -> list[Edit]:
    """The edits of cosmic-ray's operators. They change its tree in place and are undone, since parsing anew is slow."""
    from cosmic_ray.ast import ast_nodes, get_ast  # type: ignore[import-not-found]
    from cosmic_ray.operators.provider import OperatorProvider  # type: ignore[import-not-found]

    provider = OperatorProvider()
    tree = get_ast(source.text)
    assert tree.get_code() == source.text, "what is parsed can be written again"
    edits = []
    for node in list(ast_nodes(tree)):
        for name in OPERATORS:
            operator = provider[name]()
            for index, (begin, _) in enumerate(operator.mutation_positions(node)):
                if source.is_spared(source.at(*begin), name):
                    continue
                kept = [(each, getattr(each, "value", None), _children(each)) for each in ast_nodes(node)]
                siblings = _children(node.parent)
                changed = operator.mutate(node, index)
                if changed is not node:
                    node.parent.children[siblings.index(node)] = changed
                edits.append(_edit(source, name, tree.get_code()))
                if changed is not node:
                    node.parent.children[:] = siblings
                for each, value, children in kept:
                    if children:
                        each.children[:] = children
                    elif value is not None:
                        each.value = value
    return edits


def _children(node: Any) -> list[Any]:
    return list(getattr(node, "children", ()))


def _edit(source: Source, name: str, changed: str) -> Edit:
    """The one span in which two texts differ."""
    text = source.text
    first = _alike(text, changed)
    last = _alike(text[first:][::-1], changed[first:][::-1])
    made = changed[first : len(changed) - last]
    if name == "NumberReplacer" and not text[first - 1].isalnum():  # it puts a space before each number
        made = made.lstrip()
    return _as_edit(source, name, (first, len(text) - last), made)


def _alike(one: str, other: str) -> int:
    """The length of the common beginning."""
    return next(
        (at for at, (mine, yours) in enumerate(zip(one, other, strict=False)) if mine != yours),
        min(map(len, (one, other))),
    )


def _as_edit(source: Source, name: str, span: Span, text: str) -> Edit:
    return {"operator": name, "line": source.line_of(span[0]), "begin": span[0], "end": span[1], "text": text}


def by_us(source: Source) -> list[Edit]:
    """A statement left out, `in` for `not in`, `min` for `max`, an error that is no longer caught."""
    edits = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.stmt) and _has_effect(node):
            edits.append(("LeaveOut", source.span(node), "pass"))
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            begin, end = source.span(node.left)[1], source.span(node.comparators[0])[0]
            said = source.text[begin:end]
            word = " ".join(said.strip("()").split())
            if word in MEMBERSHIP:
                at = begin + said.index(word.split()[0])
                edits.append(("SwapIn", (at, at + len(said[at - begin :].rstrip(" ("))), MEMBERSHIP[word]))
        elif isinstance(node, ast.ExceptHandler) and node.type is not None:
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            for place, each in enumerate(caught):
                other = "()" if len(caught) == 1 else ast.unparse(caught[place - 1])
                edits.append(("LetPass", source.span(each), other))
        elif isinstance(node, ast.Name) and node.id in EXTREMES:
            edits.append(("SwapMinMax", source.span(node), EXTREMES[node.id]))
    return [_as_edit(source, name, span, text) for name, span, text in edits if not source.is_spared(span[0])]


def _has_effect(node: ast.stmt) -> bool:
    """Whether it is a call as a statement, assigns or deletes an item or attribute, or is an augmented assignment."""
    match node:
        case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())):
            return True
        case ast.Assign(targets=targets):
            return all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets)
        case ast.AugAssign() | ast.Delete():
            return True
    return False


def edits_of(path: Path) -> list[Edit]:
    """All edits of one file that compile, in the order of their places."""
    source = Source(path.read_text())
    found = []
    for edit in sorted(by_tool(source) + by_us(source), key=lambda edit: (edit["begin"], edit["operator"])):
        begin, end = int(edit["begin"]), int(edit["end"])
        changed = f"{source.text[:begin]}{edit['text']}{source.text[end:]}"
        if changed == source.text:
            continue
        try:
            ast.parse(changed)
        except SyntaxError:
            continue
        found.append(edit)
    return found


if __name__ == "__main__":
    json.dump({name: edits_of(Path(name)) for name in sys.argv[1:]}, sys.stdout)
