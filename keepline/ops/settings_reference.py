"""The settings as text: `--help` of the programs, and docs/configuration.md.

`python -m keepline.ops.settings_reference > docs/configuration.md` writes the document; a test compares the two.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from keepline.ops import secret_files
from keepline.ops.settings import CommonSettings, NodeSettings, PersisterSettings, variable_of

WIDTH = 100

_TITLES = (
    (CommonSettings, "Nodes and persisters"),
    (NodeSettings, "Signal nodes"),
    (PersisterSettings, "Persisters"),
)

_INTRODUCTION = f"""# Configuration

Every setting is an environment variable. Durations are in the unit that the name ends with, sizes in bytes. Lists are
separated by commas. A program checks all settings at startup. If any are invalid, it prints all problems and exits with
code 2. It logs a warning for unknown `KEEPLINE_` variables.

Variables with a secret or a password can be read from a file instead. Append `{secret_files.SUFFIX}` to the name:
{{secrets}}.

`signal-node --help` and `persister --help` print these tables. This page is generated from `keepline/ops/settings.py`
by `python -m keepline.ops.settings_reference`.
"""


class Setting(NamedTuple):
    """One setting. `values` are the allowed values where there are bounds, "" otherwise."""

    variable: str
    default: str
    values: str
    meaning: str


def settings_of(kind: type[CommonSettings]) -> list[Setting]:
    """The settings that a class declares itself, in their order."""
    inherited = () if kind is CommonSettings else CommonSettings.model_fields
    return [
        Setting(variable_of(kind, name), _default(field), _values(field), _meaning(field))
        for name, field in kind.model_fields.items()
        if name not in inherited
    ]


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "host name and a random part"
    if field.default in (None, ()):
        return ""
    return str(field.default).lower() if isinstance(field.default, bool) else f"{field.default}"


def _values(field: FieldInfo) -> str:
    choices = [choice for kind in _alternatives(field.annotation) for choice in _choices(kind)]
    if choices:
        return ", ".join(choices)
    lowest = next((limit for limit in field.metadata if isinstance(limit, Ge | Gt)), None)
    highest = next((limit for limit in field.metadata if isinstance(limit, Le)), None)
    if lowest is None or highest is None:
        return ""
    return f"{'above ' if isinstance(lowest, Gt) else ''}{_bound(lowest)} to {_bound(highest)}"


def _alternatives(annotation: Any) -> Iterable[Any]:
    return (annotation,) if annotation is bool or get_origin(annotation) is Literal else get_args(annotation)


def _choices(kind: Any) -> Sequence[str]:
    if kind is bool:
        return ("true", "false")
    return get_args(kind) if get_origin(kind) is Literal else ()


def _bound(limit: Ge | Gt | Le) -> str:
    number: Any = limit.le if isinstance(limit, Le) else limit.ge if isinstance(limit, Ge) else limit.gt
    return f"{number:,}"


def help_text(program: str, purpose: str, kind: type[CommonSettings]) -> str:
    """The output of `--help`."""
    lines = [f"Usage: {program}", "", purpose, "", "Settings (environment variables):"]
    for setting in (*settings_of(CommonSettings), *settings_of(kind)):
        facts = [
            f"default: {setting.default}" if setting.default not in ("", "required") else setting.default
        ]
        about = "; ".join(fact for fact in (*facts, setting.values) if fact)
        lines.append(f"\n  {setting.variable}" + (f"  ({about})" if about else ""))
        lines += textwrap.wrap(setting.meaning, WIDTH, initial_indent="      ", subsequent_indent="      ")
    files = ", ".join(variable + secret_files.SUFFIX for variable in secret_files.SECRETS)
    note = f"Secrets and URLs can be read from files: {files}."
    return "\n".join([*lines, "", *textwrap.wrap(note, WIDTH)])


def document() -> str:
    """The content of docs/configuration.md."""
    secrets = ", ".join(f"`{variable}{secret_files.SUFFIX}`" for variable in secret_files.SECRETS)
    parts = [_INTRODUCTION.format(secrets=secrets)]
    for kind, title in _TITLES:
        rows = ["| variable | default | values | meaning |", "| --- | --- | --- | --- |"]
        for setting in settings_of(kind):
            default = (
                f"`{setting.default}`" if setting.default and " " not in setting.default else setting.default
            )
            default = "**required**" if setting.default == "required" else default
            rows.append(f"| `{setting.variable}` | {default} | {setting.values} | {setting.meaning} |")
        parts.append(f"## {title}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(document(), end="")  # noqa: T201 - this is its output
