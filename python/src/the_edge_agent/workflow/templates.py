"""Templates in agent files: Jinja2 in its immutable sandbox. A missing name is an error.

Only text in the file is a template. Values that a template inserts, from the state or the memory, are data and are
never rendered again. The work of a template has a limit for any data: see ``budget``.
"""

from __future__ import annotations

import hashlib
import json
import re
import types
from collections.abc import Callable, ItemsView, KeysView, Mapping, ValuesView
from typing import Any, TypeAlias

import jinja2
from jinja2 import meta, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing as no_object
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

from the_edge_agent.workflow import budget
from the_edge_agent.workflow.budget import Work
from the_edge_agent.workflow.errors import describe, most_like, nearest

Renderer: TypeAlias = Callable[[Mapping[str, Any], Work | None], Any]
"""Takes the values of the names, and the work that the run has left (None if it has no limit); returns the result."""

NAMES = ("state", "data", "variables", "settings", "secrets", "env")
RESULTS = "parallel_results"  # known to nodes with `fan_in: true`, and to the conditions behind them
LATER_NAMES = ("checkpoint",)
MAX_TAGS = 2_000  # `{% ... %}` in one template: compiling them takes quadratic time
MAX_SOURCE = 1_000_000  # characters of one template

_VARIABLE = re.compile(r"\$\{([^\W\d]\w*)\}")
_MARKERS = ("{{", "{%", "{#")
_REFERENCES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_LAZY = (types.GeneratorType, KeysView, ValuesView, ItemsView, range)
_SEARCHED = 10_000  # containers that are searched to find the path of a missing value


class TemplateError(Exception):
    """A template is not valid, or fails when it is rendered."""


def is_template(text: str) -> bool:
    """Return whether ``text`` has template syntax."""
    return any(marker in text for marker in _MARKERS)


def compile_text(text: str, names: tuple[str, ...], variables: frozenset[str] = frozenset()) -> Renderer:
    """Compile a template.

    Args:
        text: a single ``{{ expression }}``, whose result is the value itself, or a text with templates in it, whose
            result is text.
        names: the names that the template may use, such as ``("state", "variables")``.
        variables: the names for which ``${NAME}`` means ``{{ variables.NAME }}``. Other ``${...}`` is text.

    Returns:
        A function that takes the values of those names and returns new data; it raises TemplateError.

    Raises:
        TemplateError: the template is not valid, or uses another name.
    """
    if not is_template(text) and not any(name in variables for name in _VARIABLE.findall(text)):
        return constant(text)
    return _compiled(text, names, variables)[0]


def compile_expression(text: str, names: tuple[str, ...]) -> Renderer:
    """Compile an expression that is written without ``{{ }}``. Otherwise as ``compile_text``.

    Raises:
        TemplateError: the expression is not valid, or uses another name.
    """
    render, is_native = _compiled(f"{{{{ {text} }}}}", names)
    if not is_native:  # such as `a }} b {{ c`
        raise TemplateError("not a valid expression: it has `}}`")
    return render


def _compiled(text: str, names: tuple[str, ...], variables: frozenset[str] = frozenset()) -> tuple[Renderer, bool]:
    if len(text) > MAX_SOURCE or text.count("{%") > MAX_TAGS:
        raise TemplateError(f"a template has up to {MAX_SOURCE:,} characters and {MAX_TAGS:,} tags")
    try:
        with budget.working(Work()):  # the compiler computes constants, such as those of `autoescape`
            template, is_native = _compile(text, names, variables)
    except jinja2.TemplateSyntaxError as error:
        line = f" (line {error.lineno} of the text)" if "\n" in text.strip() else ""
        raise TemplateError(f"not a valid template: {error.message}{line}") from None
    except (RecursionError, MemoryError):
        raise TemplateError("not a valid template: nested too deeply") from None
    except SyntaxError as error:  # from Python, to which templates are compiled, for example for 20 nested loops
        raise TemplateError(f"not a valid template: {error.msg}") from None
    except (ValueError, OverflowError) as error:  # such as a number of 5,000 digits
        raise TemplateError(f"not a valid template: {error}") from None
    return lambda values, work: _render(template, values, work, native=is_native), is_native


def constant(value: Any) -> Renderer:
    """Return a renderer that always returns ``value``."""
    return lambda values, work: value


def _compile(text: str, names: tuple[str, ...], variables: frozenset[str]) -> tuple[jinja2.Template, bool]:
    lone = _lone_expression(_with_variables(_ENVIRONMENT.parse(text.strip()), variables))
    tree = _with_variables(_ENVIRONMENT.parse(text), variables)
    _check_names(tree, names)
    if lone is not None:
        assignment = nodes.Assign(nodes.Name("_value", "store", lineno=1), lone, lineno=1)
        tree = nodes.Template([assignment], lineno=1)
    _pay_for_statements(tree)
    counting: nodes.Template = _Counting().visit(tree)
    counting.set_environment(_ENVIRONMENT)
    return _ENVIRONMENT.from_string(counting), lone is not None


def _with_variables(tree: nodes.Template, variables: frozenset[str]) -> nodes.Template:
    """Replace each ``${NAME}`` in the text of a template by the variable."""
    for output in tree.find_all(nodes.Output) if variables else ():
        parts: list[nodes.Expr] = []
        for part in output.nodes:
            parts += _split(part, variables) if isinstance(part, nodes.TemplateData) else [part]
        output.nodes = parts
    return tree


def _split(data: nodes.TemplateData, variables: frozenset[str]) -> list[nodes.Expr]:
    parts: list[nodes.Expr] = []
    begin = 0
    for match in _VARIABLE.finditer(data.data):
        if match[1] in variables:
            parts.append(nodes.TemplateData(data.data[begin : match.start()], lineno=data.lineno))
            holder = nodes.Name("variables", "load", lineno=data.lineno)
            name = nodes.Const(match[1], lineno=data.lineno)
            parts.append(nodes.Getitem(holder, name, "load", lineno=data.lineno))
            begin = match.end()
    parts.append(nodes.TemplateData(data.data[begin:], lineno=data.lineno))
    return [part for part in parts if not isinstance(part, nodes.TemplateData) or part.data]


def _lone_expression(tree: nodes.Template) -> nodes.Expr | None:
    """Return the expression of a text that is a single ``{{ ... }}``, or None for other text."""
    if len(tree.body) == 1 and isinstance(output := tree.body[0], nodes.Output) and len(output.nodes) == 1:
        only = output.nodes[0]
        return None if isinstance(only, nodes.TemplateData) else only
    return None


def _check_names(tree: nodes.Template, names: tuple[str, ...]) -> None:
    for reference in tree.find_all(_REFERENCES):
        raise TemplateError(f"a template can't use `{type(reference).__name__.lower()}`: it is one text")
    used = meta.find_undeclared_variables(tree)
    used |= {name.name for name in tree.find_all(nodes.Name) if name.name == "self"}
    for name in sorted(used - set(names)):
        if name in LATER_NAMES:
            raise TemplateError(f"`{name}` is not supported in templates yet")
        if name == RESULTS:
            raise TemplateError(f"`{RESULTS}` is known only to a node with `fan_in: true`, and to conditions behind it")
        if name == "result":
            raise TemplateError(
                "`result` is not known here: the node has put its result into the state, so write `state.` and the key"
            )
        like = most_like(name, names, 0.6)
        hint = f"; did you mean `{like}`?" if like else f"; values of the state are written `state.{name}`"
        raise TemplateError(f"unknown name `{name}` in a template{hint}")


def _render(template: jinja2.Template, values: Mapping[str, Any], run: Work | None, *, native: bool) -> Any:
    limit = budget.MAX_WORK if run is None else min(budget.MAX_WORK, run.left)
    work = Work(limit)
    try:
        with budget.working(work):
            if not native:
                return str(template.render(values))
            context = template.new_context(dict(values))
            for _ in template.root_render_func(context):
                pass
            work.weigh(context.vars["_value"], texts=False)
            return _plain(context.vars["_value"])
    except _MissingError as error:
        raise TemplateError(error.explain(values)) from None
    except jinja2.TemplateError as error:
        raise TemplateError(error.message or type(error).__name__) from None
    except RecursionError:
        raise TemplateError("the value is nested too deeply") from None
    except Exception as error:
        raise TemplateError(describe(error)) from None
    finally:
        if run is not None:
            run.left -= limit - work.left


def _plain(value: Any) -> Any:
    """Copy a value out of a template, without undefined values, markup, iterators and functions."""
    if isinstance(value, jinja2.Undefined):
        return str(value) or None  # a missing value raises; an `if` without `else` gives ""
    if isinstance(value, str):
        return value[:] if type(value) is str else str.__str__(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, *_LAZY)):
        return [_plain(item) for item in value]
    return _data_only(value)


def _data_only(value: Any) -> Any:
    if callable(value) or type(value).__module__.partition(".")[0] == "jinja2":
        raise jinja2.TemplateRuntimeError(f"the value is a {type(value).__name__}, not data")
    return value


@jinja2.pass_context  # so that Jinja2 does not compute constants while a file is loaded
def _printed(context: Context, value: Any) -> Any:
    """Prepare a value for its conversion to text. For an undefined value that conversion raises an error."""
    if isinstance(value, jinja2.Undefined):
        return value
    work = budget.current()
    work.charge(budget.ELEMENT)
    work.weigh(value)
    return _plain(value)


class _MissingError(jinja2.UndefinedError):
    """A template uses a value that is missing.

    ``holder`` has no ``name``; ``steps`` are the names that the template looks up further in the missing value.
    """

    def __init__(self, holder: Any, name: Any, steps: tuple[Any, ...]) -> None:
        super().__init__("a value is missing")
        self._holder = holder
        self._name = name
        self._steps = steps

    def explain(self, values: Mapping[str, Any]) -> str:
        """Return a message with the path that the template uses. It begins at the place of ``holder`` in ``values``."""
        parent = _find(self._holder, values)
        if parent is None:
            return f"`{self._name}` is missing"
        path = f"{parent}{_step(self._name)}"
        whole_path = path + "".join(map(_step, self._steps))
        because = "" if whole_path == path else f" (there is no `{path}`)"
        hint = ""
        if isinstance(self._holder, dict) and isinstance(self._name, str):
            hint = nearest(self._name, [key for key in self._holder if isinstance(key, str)])
        return f"`{whole_path}` is missing{because}{hint}"


def _find(holder: Any, values: Mapping[str, Any]) -> str | None:
    """Search breadth first for the object ``holder`` itself; return its path, or None."""
    queue: list[tuple[str, Any]] = list(values.items())
    for index, (path, value) in enumerate(queue):
        if value is holder:
            return path
        if index + len(queue) > 2 * _SEARCHED:
            continue
        if isinstance(value, dict):
            queue += [(f"{path}{_step(key)}", item) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            queue += [(f"{path}[{number}]", item) for number, item in enumerate(value)]
    return None


def _step(name: Any) -> str:
    return f".{name}" if isinstance(name, str) and name.isidentifier() else f"[{name!r}]"


class _Missing(jinja2.StrictUndefined):
    """An undefined value that fails when it is used. Looking up names in it is allowed, so that ``default`` works."""

    __slots__ = ("_error", "_steps")

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = no_object,
        name: str | None = None,
        exc: Any = jinja2.UndefinedError,
        steps: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(hint, obj, name, self._make_error)  # type: ignore[arg-type]
        self._error = exc
        self._steps = steps

    def _make_error(self, message: str | None) -> Exception:
        if self._error is jinja2.UndefinedError and self._undefined_hint is None:
            return _MissingError(self._undefined_obj, self._undefined_name, self._steps)
        return self._error(message)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, key: Any) -> Any:
        budget.current().charge(budget.NODE + len(self._steps))
        steps = (*self._steps, key)
        return _Missing(self._undefined_hint, self._undefined_obj, self._undefined_name, self._error, steps)


class _Counting(NodeTransformer):
    """Changes a template so that loops, comparisons, joined text and slices pay for their work."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - jinja2's names
        per_item = 0 if node.test is None else _cost(node.test)
        self.generic_visit(node)
        node.iter = _filter(budget.STEPS, node.iter, nodes.Const(per_item, lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [_filter(budget.WEIGHED, part) for part in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if len(node.ops) == 1 and node.ops[0].op in ("in", "notin"):
            has = _filter(budget.HAS, node.ops[0].expr, node.expr)
            return has if node.ops[0].op == "in" else nodes.Not(has, lineno=node.lineno)
        node.expr = _filter(budget.WEIGHED, node.expr)
        for operand in node.ops:
            operand.expr = _filter(budget.WEIGHED, operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(budget.COPIED, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.key = _filter(budget.WEIGHED, node.key)
        return node


def _pay_for_statements(tree: nodes.Template) -> None:
    """Change a template so that each statement first pays for its text and the parts of its expressions.

    For example, a list that is written with 100,000 elements is as much work as a loop.
    """
    for parent in [tree, *tree.find_all(nodes.Stmt)]:
        for field in ("body", "else_"):
            statements = getattr(parent, field, None)
            if statements:
                paid = [part for statement in statements for part in (_payment(_cost(statement), statement), statement)]
                setattr(parent, field, paid)
        if isinstance(parent, nodes.Macro | nodes.CallBlock) and parent.defaults:  # each call computes these
            parent.body.insert(0, _payment(sum(map(_cost, parent.defaults)), parent))


def _payment(amount: int, at: nodes.Node) -> nodes.Stmt:
    return nodes.ExprStmt(_filter(budget.SPENT, nodes.Const(amount, lineno=at.lineno)), lineno=at.lineno)


def _cost(node: nodes.Node) -> int:
    """Return the cost of a statement or expression, without the statements in it."""
    cost, stack = 0, [node]
    while stack:
        part = stack.pop()
        cost += len(part.data) if isinstance(part, nodes.TemplateData) else budget.NODE
        stack += [child for child in part.iter_child_nodes() if not isinstance(child, nodes.Stmt)]
        if isinstance(part, nodes.If):  # adds the conditions of `elif`, which are not separate statements
            stack += part.elif_
    return cost


def _filter(name: str, value: Any, *args: nodes.Expr) -> nodes.Expr:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox. A key of a dict has priority over a method of dicts, and all work is counted."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict) and attribute in obj:  # `state.items` is the key `items`, if there is one
            return obj[attribute]
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if not isinstance(argument, str | int):  # a tuple can be large, and hashing it reads all of it
            budget.current().weigh(argument)
        return super().getitem(obj, argument)

    def is_safe_callable(self, obj: Any) -> bool:
        # The base class would read attributes of a missing value. Calling a missing value raises the right error.
        return isinstance(obj, _Missing) or super().is_safe_callable(obj)

    def call(self, context: Context, obj: Any, /, *args: Any, **named: Any) -> Any:
        work = budget.current()
        work.charge_call(obj, args, named)
        return work.charge_result(super().call(context, obj, *args, **named))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget.current().charge_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        text, is_map = value.__self__, value.__name__ == "format_map"
        is_markup = isinstance(text, Markup)
        formatter = budget.EscapeFormatter(self, escape=text.escape) if is_markup else budget.Formatter(self)

        def write(*args: Any, **named: Any) -> str:
            if is_map:
                (mapping,) = args
                args, named = (), mapping
            return type(text)(formatter.vformat(text, args, named))  # type: ignore[no-any-return]

        return write


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _from_json(text: Any) -> Any:
    if not isinstance(text, str):
        raise jinja2.TemplateRuntimeError(f"`fromjson` takes text, not {type(text).__name__}")

    def refused(constant: str) -> Any:
        raise jinja2.TemplateRuntimeError(f"`fromjson`: {constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refused)
    except ValueError as error:
        raise jinja2.TemplateRuntimeError(f"`fromjson`: not JSON: {error}") from None


def _sha256(value: Any) -> str:
    text = value if isinstance(value, str) else _json(value)
    return hashlib.sha256(str(text).encode()).hexdigest()


def _environment() -> _Environment:
    # Without the optimizer Jinja2 computes almost nothing while a file is loaded.
    environment = _Environment(
        undefined=_Missing, keep_trailing_newline=True, optimized=False, finalize=_printed, autoescape=False
    )
    environment.filters.update(json=_json, tojson=_to_json, fromjson=_from_json, sha256=_sha256)
    filters: dict[str, Any] = environment.filters
    tests: dict[str, Any] = environment.tests
    filters.update(budget.counted(filters, budget.CHEAP_FILTERS), **budget.internal_filters())
    tests.update(budget.counted(tests, budget.CHEAP_TESTS))
    environment.globals = {
        "range": environment.globals["range"],
        "namespace": environment.globals["namespace"],
    }
    return environment


_ENVIRONMENT = _environment()
