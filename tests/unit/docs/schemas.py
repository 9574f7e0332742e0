"""Brings JSON Schemas of different authors into one form, so that they can be compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it brings no types

DOCS = Path(__file__).parents[3] / "docs"
_BOUNDS = ("minimum", "maximum", "minLength", "maxLength")

Schema = dict[str, Any]


def load(name: str) -> dict[str, Any]:
    """A YAML document of the docs."""
    document: dict[str, Any] = yaml.safe_load((DOCS / name).read_text())
    return document


def resolve(document: dict[str, Any], reference: str) -> Any:
    """What a local `$ref` points at. Raises KeyError for nothing."""
    target: Any = document
    for step in reference.removeprefix("#/").split("/"):
        target = target[step]
    return target


def canonical(schema: Schema, document: dict[str, Any], *, bounds: bool) -> Any:
    """Fields, which of them are required, types and values; with the bounds of numbers and texts if asked for."""
    while "$ref" in schema:
        schema = resolve(document, schema["$ref"])
    if "enum" in schema or "const" in schema:
        return sorted(schema.get("enum", [schema.get("const")]), key=str)
    if schema.get("type") == "object" and "properties" in schema:
        fields = schema["properties"].items()
        return {
            "fields": {name: canonical(field, document, bounds=bounds) for name, field in fields},
            "required": sorted(schema.get("required", [])),
            "closed": schema.get("additionalProperties") is False,
        }
    form: dict[str, Any] = {"type": _types(schema)}
    if "items" in schema:
        form["items"] = canonical(schema["items"], document, bounds=bounds)
    if bounds:
        form |= {name: schema[name] for name in _BOUNDS if name in schema}
    return form


def _types(schema: Schema) -> list[str]:
    if "anyOf" in schema and "type" not in schema:
        return sorted(name for option in schema["anyOf"] for name in _types(option))
    types = schema.get("type", [])
    return sorted([types] if isinstance(types, str) else types)


def violations(value: Any, schema: Schema, document: dict[str, Any]) -> list[str]:
    """What is wrong with a value; empty when nothing is."""
    rooted = {**schema, "components": document["components"]}
    validator = Draft202012Validator(rooted, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [error.message for error in validator.iter_errors(value)]


def references(node: Any) -> list[str]:
    """All `$ref` in a document."""
    if isinstance(node, list):
        return [found for item in node for found in references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [found for item in node.values() for found in references(item)]


def section(name: str, heading: str) -> str:
    """The text of a Markdown document under a heading, up to the next one of the same level."""
    level = heading.split(" ")[0]
    text = (DOCS / name).read_text()
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^{level} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{name} has no {heading!r}"
    return found[1]


def first_columns(table: str) -> list[list[str]]:
    """The rows of the Markdown tables in a text, cell by cell, without heads."""
    rows = [line for line in table.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    cells = [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]
    return cells[1:]
