"""Whether a chat template writes query and document as they are, between texts that never change.

Rendering takes longer than tokenizing what it renders. A template that cannot look at the two texts
renders them between the same parts whatever they are, so it is rendered once. That it cannot is
proven in two steps: it consists of expressions that hand a text on, and it is rendered with texts
that refuse to be looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

# none of them makes a plain text out of one that refuses to be looked at, but for what is written
_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.NSRef,
    nodes.Getattr, nodes.Getitem, nodes.If, nodes.For, nodes.Assign, nodes.Compare, nodes.Operand,
    nodes.And, nodes.Or, nodes.Not, nodes.Add, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.List,
    nodes.Keyword, nodes.Call,
)  # fmt: skip
_FILTERS = {"selectattr", "rejectattr", "first", "last", "list", "length"}
_FUNCTIONS = {"namespace", "raise_exception"}

_QUERY, _DOCUMENT = "\ue000query\ue000", "\ue000document\ue000"


class _LookedAtError(Exception):
    """A template did something with a text that depends on the text."""


class _Opaque(str):
    """A text that may be written and joined to others; every other use of it raises."""

    __slots__ = ()

    def __add__(self, other: str) -> _Opaque:
        return _Opaque(str.__add__(self, other))

    def __radd__(self, other: str) -> _Opaque:
        return _Opaque(str.__add__(other, self))

    def __str__(self) -> str:
        return self


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise _LookedAtError


_KEPT = {"__add__", "__class__", "__doc__", "__getattribute__", "__init__", "__init_subclass__",
         "__new__", "__setattr__", "__str__", "__subclasshook__", "__delattr__"}  # fmt: skip
for _name in set(dir(str)) - _KEPT:
    setattr(_Opaque, _name, _refuse)


@dataclass(frozen=True, slots=True)
class FixedParts:
    """A rendered pair but for its two texts.

    :param texts: before, between and after them.
    :param query_first: whether the query stands before the document.
    """

    texts: tuple[str, str, str]
    query_first: bool

    def render(self, query: str, document: str) -> str:
        """What the template renders of a pair."""
        before, between, after = self.texts
        first, second = (query, document) if self.query_first else (document, query)
        return f"{before}{first}{between}{second}{after}"


def fixed_parts(
    source: str, variables: Mapping[str, Any], messages: Callable[[str, str], Any]
) -> FixedParts | None:
    """The parts, or None where the template may render another pair otherwise.

    :param source: the template.
    :param variables: what it is rendered with.
    :param messages: query and document → messages.
    """
    # as transformers' `utils/chat_template_utils.py` makes it, without what is not let through
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    try:
        if not all(map(_hands_texts_on, _all_nodes(environment.parse(source)))):
            return None
        rendered = environment.from_string(source).render(
            messages=messages(_Opaque(_QUERY), _Opaque(_DOCUMENT)),
            tools=None,
            documents=None,
            **{"add_generation_prompt": False, **variables},
        )
    except Exception:  # what fails here is rendered pair by pair
        return None
    parts = re.split(f"({_QUERY}|{_DOCUMENT})", rendered)
    if sorted(parts[1::2]) != sorted((_QUERY, _DOCUMENT)):
        return None
    return FixedParts((parts[0], parts[2], parts[4]), parts[1] == _QUERY)


def _all_nodes(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    for child in node.iter_child_nodes():
        yield from _all_nodes(child)


def _hands_texts_on(node: nodes.Node) -> bool:
    """Whether a part of a template makes no plain text of another but by writing it."""
    if isinstance(node, nodes.Filter):
        # map by attribute takes, and by a filter's name computes
        by_attribute = node.name == "map" and not node.args
        given = [*node.args, *(each.value for each in node.kwargs)]
        return (by_attribute or node.name in _FILTERS) and all(map(_is_const, given))
    if isinstance(node, nodes.Getitem):
        return _is_const(node.arg)
    if isinstance(node, nodes.Call):
        return isinstance(node.node, nodes.Name) and node.node.name in _FUNCTIONS
    return isinstance(node, _NODES)


def _is_const(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const)
