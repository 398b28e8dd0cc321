"""JSON Schemas (2020-12, as OpenAPI 3.1 has them) of TypedDicts and of what may stand in them.

A field is described by the docstring below it, or by a text in its `Annotated`.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from relay.web.documents.values import Keywords

Schema = dict[str, Any]
_PLAIN: Mapping[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}


class Schemas:
    """The schemas of types. Those of TypedDicts, and of Literals that have a name, are collected in `components`."""

    def __init__(self, literals: Mapping[object, str]) -> None:
        """`literals`: their names."""
        self._literals = literals
        self.components: dict[str, Schema] = {}

    def of(self, kind: Any, *, closed: bool = False) -> Schema:
        """`closed`: no object has other keys than the known ones."""
        origin, inner = get_origin(kind), get_args(kind)
        if isinstance(kind, type) and kind in _PLAIN:
            return {"type": _PLAIN[kind]}
        if is_typeddict(kind):
            return self._named(kind.__name__, lambda: self._object(kind, closed=closed))
        if origin is NotRequired:
            return self.of(inner[0], closed=closed)
        if origin is Annotated:
            return _annotated(self.of(inner[0], closed=closed), inner[1:])
        if origin in (Union, UnionType):
            return _any_of([self.of(one, closed=closed) for one in inner])
        if origin is Literal:
            return self._literal(kind, inner)
        if origin is list:
            return {"type": "array", "items": self.of(inner[0], closed=closed)}
        if origin is dict:
            names = {} if inner[0] is str else {"propertyNames": self.of(inner[0])}
            return {"type": "object", "additionalProperties": self.of(inner[1], closed=closed), **names}
        raise ValueError(f"no schema for {kind!r}")

    def fields(self, kind: Any, *, closed: bool = False) -> Iterator[tuple[str, Schema, bool]]:
        """Of a TypedDict: name, schema, and whether it is required."""
        told = _docstrings(kind.__name__, sys.modules[kind.__module__])
        for name, hint in get_type_hints(kind, include_extras=True).items():
            description = {"description": told[name]} if name in told else {}
            is_required = name in kind.__required_keys__ and get_origin(hint) is not NotRequired
            yield name, description | self.of(hint, closed=closed), is_required

    def _object(self, kind: Any, *, closed: bool) -> Schema:
        fields = list(self.fields(kind, closed=closed))
        required = [name for name, _, is_required in fields if is_required]
        return {
            "description": " ".join((kind.__doc__ or "").split()),
            "type": "object",
            "properties": {name: schema for name, schema, _ in fields},
            **({"required": required} if required else {}),
            **({"additionalProperties": False} if closed else {}),
        }

    def _literal(self, kind: Any, values: Sequence[Any]) -> Schema:
        schema = {"type": _PLAIN[type(values[0])], "enum": list(values)}
        name = self._literals.get(kind)
        return schema if name is None else self._named(name, lambda: schema)

    def _named(self, name: str, made: Callable[[], Schema]) -> Schema:
        if name not in self.components:
            self.components[name] = {}  # its place, while what is in it is looked at
            self.components[name] = made()
        return {"$ref": f"#/components/schemas/{name}"}


def _annotated(schema: Schema, metadata: Sequence[object]) -> Schema:
    for one in metadata:
        if isinstance(one, Keywords):
            schema = schema | {name: list(value) if isinstance(value, tuple) else value for name, value in one.pairs}
        if isinstance(one, str):
            schema = {"description": one} | schema
    return schema


def _any_of(schemas: Sequence[Schema]) -> Schema:
    """One of these. Of a plain type and null: one schema with both types."""
    first, *others = schemas
    if others == [{"type": "null"}] and isinstance(first.get("type"), str) and "enum" not in first:
        return {**first, "type": [first["type"], "null"]}
    return {"anyOf": list(schemas)}


def _docstrings(name: str, module: Any) -> Mapping[str, str]:
    """What stands below the fields of a class, and of those that it extends."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            found: dict[str, str] = {}
            for base in node.bases:
                if isinstance(base, ast.Name):
                    found |= _docstrings(base.id, module)
            for field, below in zip(node.body, node.body[1:], strict=False):
                match field, below:
                    case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[key] = " ".join(text.split())
            return found
    return {}
