"""Which Python functions a node's queries may call: those that its configuration lists and those that its owner registers."""

import importlib
from collections.abc import Callable, Sequence

from promql.syntax.ast import Definition
from promql.user_functions import define, kind_of
from tsdb.model.errors import BadData


def load_functions(entries: Sequence[str]) -> tuple[Definition, ...]:
    """The functions that entries `module:function` or `name=module:function` name, of the kinds that their parameters tell.

    BadData names the entry that cannot be imported, is no such function, or takes a name twice.
    """
    functions: tuple[Definition, ...] = ()
    for entry in entries:
        name, equals, place = entry.rpartition("=")
        module, colon, attribute = place.partition(":")
        if not colon or not module or not attribute or (equals and not name):
            raise BadData(f"python_functions: {entry!r} is not `module:function` or `name=module:function`")
        try:
            functions = added(functions, _load(name or attribute, module, attribute))
        except BadData as error:
            raise BadData(f"python_functions: {entry}: {error}") from None
    return functions


def added(functions: tuple[Definition, ...], definition: Definition, *, replace: bool = False) -> tuple[Definition, ...]:
    """The functions with one more. BadData where its name is taken and not to be replaced."""
    rest = tuple(known for known in functions if known.name != definition.name)
    if len(rest) < len(functions) and not replace:
        raise BadData(f"function {definition.name}: the name is taken; say replace=True to put this one in its place")
    return (*rest, definition)


def _load(name: str, module: str, attribute: str) -> Definition:
    try:
        function: Callable[..., object] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BadData(str(error)) from None
    return define(name, function, kind_of(function))
