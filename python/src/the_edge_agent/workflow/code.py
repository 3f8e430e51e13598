"""The Python code of ``run`` nodes. It is compiled when a file is loaded, and gets the state when it runs.

The code is never a template, so no value of the state can become code. A program that runs the code of a file trusts
that file.
"""

from __future__ import annotations

import ast
import builtins
import json
import linecache
import re
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from the_edge_agent.workflow.errors import ActionError, describe, one_line

NAMES = ("state", "variables", "actions", "json")

_FUNCTION = "run"
_NODE = re.compile(r"<run of node (.*)>")
_LONGEST = 400  # characters of a message; the place comes after it and must stay visible
_PACKAGES = frozenset({"site-packages", "dist-packages"})
_NOT_OF_USERS = (Path(sysconfig.get_path("stdlib")), Path(__file__).parents[1])
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


class CodeError(Exception):
    """Code of a node cannot be compiled, or has failed.

    Attributes:
        line: the line of the code, counted from 1; None if it is unknown.
        kind: the ``error_type`` of the action that failed, or the name of the Python exception.
    """

    def __init__(self, message: str, *, line: int | None = None, kind: str = "SyntaxError") -> None:
        super().__init__(message)
        self.line = line
        self.kind = kind


@dataclass(frozen=True)
class RunCode:
    """Compiled Python code.

    Attributes:
        code: the compiled code.
        filename: the name under which the code was compiled; it identifies its lines in a traceback.
        assigned: the names that update the state, in the order of their first assignment; None if the code returns
            its updates.
        names: the names that the code is given.
    """

    code: CodeType
    filename: str
    assigned: tuple[str, ...] | None
    names: tuple[str, ...] = NAMES

    def run(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """Run the code.

        Args:
            names: the values of ``state``, ``variables`` and ``actions``. The code may change the objects within the
                state.

        Returns:
            The updates of the state: the dict that the code returned, or the names that it assigned.

        Raises:
            CodeError: the code raised an exception, which is the ``__cause__``, or returned something other than a
                dict or None.
        """
        scope = {"__builtins__": builtins, "json": json, **names}
        try:
            exec(self.code, scope)  # noqa: S102 - this is what a `run` node is
            if self.assigned is not None:
                return {name: scope[name] for name in self.assigned if name in scope}
            updates = scope[_FUNCTION](*(scope[name] for name in self.names))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit: code in a file must not end the program
            raise self._failure(error) from error
        return self._checked(updates)

    def _checked(self, updates: Any) -> dict[str, Any]:
        if updates is None:
            return {}
        if not isinstance(updates, dict):
            raise CodeError(f"`run` must return a dict, not {type(updates).__name__}", kind="TypeError")
        for key in updates:
            if not isinstance(key, str):
                raise CodeError(f"`run` returned a key that is not text: {key!r}", kind="TypeError")
        return updates

    def _failure(self, error: BaseException) -> CodeError:
        frames = traceback.walk_tb(error.__traceback__)
        lines = [line for frame, line in frames if frame.f_code.co_filename == self.filename]
        line = lines[-1] if lines else None
        if isinstance(error, ActionError):
            return CodeError(error.message, line=line, kind=error.error_type)
        return CodeError(_describe(error, self.filename), line=line, kind=type(error).__name__)


def _describe(error: BaseException, filename: str) -> str:
    """Return the type and the message of an exception, and its place if it was raised outside of this code."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _is_of_users(frame)]
    frame, line = frames[-1] if frames else (None, 0)
    if frame is None or frame.f_code.co_filename == filename:
        return describe(error)
    node = _NODE.fullmatch(frame.f_code.co_filename)
    place = f"line {line} of the `run` of node `{node[1]}`" if node else f"{_file_of(frame).name}:{line}"
    return f"{one_line(describe(error), _LONGEST)} (in `{frame.f_code.co_name}`, {place})"


def frames_of(error: BaseException, codes: Mapping[str, tuple[str, int]]) -> list[str]:
    """Return the frames of user code in the traceback of an exception, as Python writes them, innermost last.

    Args:
        error: the exception that the code of a node raised.
        codes: for the name under which the code of each node was compiled: the agent's file (empty if the agent is a
            dict), and the number of the line before the code there.
    """
    shown: list[str] = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not _is_of_users(frame):
            continue
        name, function = frame.f_code.co_filename, frame.f_code.co_name
        file, line_before = codes.get(name, (name, 0))
        number = line + line_before
        shown.append(f'  File "{file or name}", line {number}, in {function}')
        text = linecache.getline(file, number).strip() if file else ""
        shown += [f"    {text}"] if text else []
    return shown


def _is_of_users(frame: FrameType) -> bool:
    """Return whether a frame is code of the user: not of Python, this package or an installed package."""
    name = frame.f_code.co_filename
    if name.startswith("<"):
        return _NODE.fullmatch(name) is not None
    file = _file_of(frame)
    return not any(file.is_relative_to(folder) for folder in _NOT_OF_USERS) and not _PACKAGES & {*file.parts}


def _file_of(frame: FrameType) -> Path:
    return Path(frame.f_code.co_filename).absolute()


def file_name(node: str) -> str:
    """Return the name under which the code of a node is compiled."""
    return f"<run of node {node}>"


def compile_code(text: str, filename: str, names: tuple[str, ...] = NAMES) -> RunCode:
    """Compile the Python code of a node.

    Code with a ``return`` outside of its functions is compiled as the body of a function. Other code updates the state
    with the names that it assigns, except names that begin with ``_``.

    Args:
        text: the Python code.
        filename: the name under which to compile it, unique to the node.
        names: the names that the code is given.

    Raises:
        CodeError: the code is not valid Python, or assigns one of ``names``.
    """
    try:
        module = ast.parse(text, filename)
        nodes = list(_own(module.body))
        if any(isinstance(node, ast.Return) for node in nodes):
            return RunCode(_compile(_as_function(module, filename, names), filename), filename, None, names)
        assigned: dict[str, int] = {}
        for target in _assigned_names(nodes):
            if not target.id.startswith("_"):
                assigned.setdefault(target.id, target.lineno)
        for name in names:
            if name in assigned:
                raise CodeError(f"`{name}` is given to the code and can't be assigned", line=assigned[name])
        return RunCode(_compile(module, filename), filename, tuple(assigned), names)
    except SyntaxError as error:
        raise CodeError(f"not valid Python: {error.msg}", line=error.lineno) from None
    except (ValueError, OverflowError) as error:
        raise CodeError(f"not valid Python: {error}") from None
    except (RecursionError, MemoryError):
        raise CodeError("not valid Python: nested too deeply") from None


def _compile(module: ast.Module, filename: str) -> CodeType:
    return compile(module, filename, "exec", dont_inherit=True)


def _as_function(module: ast.Module, filename: str, names: tuple[str, ...]) -> ast.Module:
    wrapper = ast.parse(f"def {_FUNCTION}({', '.join(names)}): pass", filename)
    function = wrapper.body[0]
    if isinstance(function, ast.FunctionDef):
        function.body = module.body
    return wrapper


def _own(nodes: list[Any]) -> Iterator[ast.AST]:
    """Walk the nodes of the code itself, without those of functions and classes within it."""
    for node in nodes:
        yield node
        if not isinstance(node, _SCOPES):
            yield from _own(list(ast.iter_child_nodes(node)))


def _assigned_names(nodes: list[ast.AST]) -> Iterator[ast.Name]:
    for node in nodes:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.NamedExpr):
            targets = [node.target]
        for target in targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    yield part
