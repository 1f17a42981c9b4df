"""`edgeproof methods`: every method of distillation that a recipe can name.

Rule: nothing is said here that a method does not say of itself: in its METHOD, its docstring and its fields.
"""

import inspect
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.distillation import AnyLoss
from pipeline.distillation.deep_inversion import DeepInversion
from pipeline.distillation.loss import LossPart
from pipeline.errors import DataError, UsageError
from pipeline.schema import JsonSchema, nearest, schema_of, toml
from pipeline.verbs.output import console_for_people, write_json

TABLE_STARTS = "<!-- The table of methods, written by `edgeproof methods --markdown docs/distillation.md` -->"
TABLE_ENDS = "<!-- The end of the table of methods -->"
LABELS = "cross_entropy"
"""The loss that stands beside the others."""
REQUIRED = "required"
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_QUIET_FIELDS = {"warmup_epochs": 0.0, "decay": "none"}
"""What every loss has, and what is not worth a word."""


@dataclass(frozen=True)
class Setting:
    """One key of a method's table in the recipe."""

    name: str
    required: bool
    default: JsonValue
    """None where it is left out; an example where it is required."""
    values: str
    """What may stand there, in words."""
    text: str


@dataclass(frozen=True)
class DescribedMethod:
    """What a method says of itself."""

    kind: str
    place: str
    """Where it stands in a recipe, below [distillation]: losses or data_free."""
    family: str
    name: str
    formula: str
    source: str
    cost: str
    use: str
    text: str
    """The docstring: equation, reduction, where its source and well-known code part."""
    settings: tuple[Setting, ...]


def run_methods(kind: str | None, *, page: Path | None, as_json: bool) -> int:
    """Print all methods, or one; with `page`, write the table into that page instead.

    Raises:
        UsageError: no method has that kind; lists those that there are.
        DataError: the page has no place for the table.
    """
    console = console_for_people(as_json=as_json)
    methods = describe_methods()
    if page is not None:
        page.write_text(with_table(page.read_text("utf-8"), methods, where=str(page)), "utf-8")
        console.print(Text(f"{page}: table of {len(methods)} methods written"), soft_wrap=True)
    elif kind is not None:
        method = _find(kind, methods)
        write_json(_as_json(method)) if as_json else _show_one(console, method)
    elif as_json:
        write_json([_as_json(method) for method in methods])
    else:
        console.print(_table(methods, console.width))
        console.print(Text("edgeproof methods KIND shows one: its settings, and lines for a recipe", style="dim"))
    return 0


def describe_methods() -> tuple[DescribedMethod, ...]:
    """Return every loss of the union but the user's own, family by family in its order, and what is no loss."""
    parts = [get_args(member)[0] for member in get_args(get_args(AnyLoss)[0])]
    methods = [_describe(part, "losses") for part in parts if issubclass(part, LossPart)]
    methods.append(_describe(DeepInversion, "data_free"))
    families = [method.family for method in methods]
    return tuple(sorted(methods, key=lambda method: families.index(method.family)))


def with_table(page: str, methods: Sequence[DescribedMethod], *, where: str) -> str:
    """Return the page with the table of `methods` between its two markers.

    Raises:
        DataError: a marker is missing.
    """
    before, start, rest = page.partition(TABLE_STARTS)
    _, end, after = rest.partition(TABLE_ENDS)
    if not start or not end:
        raise DataError(f"{where}: expected the lines {TABLE_STARTS!r} and {TABLE_ENDS!r}; got a page without them")
    return f"{before}{start}\n\n{markdown_table(methods)}\n{end}{after}"


def markdown_table(methods: Sequence[DescribedMethod]) -> str:
    """Return the table of the documentation."""
    head = ("family", "`kind`", "method", "formula", "source", "defaults", "cost", "when to use it")
    rows = [head, ("---",) * len(head)]
    for method in methods:
        source = _ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", method.source)
        defaults = "<br>".join(f"`{setting}`" for setting in _defaults(method))
        formula = f"`{method.formula}`"
        rows.append(
            (method.family, f"`{method.kind}`", method.name, formula, source, defaults, method.cost, method.use)
        )
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def snippet(method: DescribedMethod) -> str:
    """Return lines for a recipe: the method with its defaults, a loss beside cross-entropy."""
    own: dict[str, JsonValue] = {setting.name: setting.default for setting in _told(method)}
    table = toml({"kind": method.kind, **own})
    if method.place != "losses":
        return f"{method.place} = {table}\n"
    losses = [toml({"kind": LABELS}), table] if method.kind != LABELS else [table]
    return "".join(["losses = [\n", *(f"  {loss},\n" for loss in losses), "]\n"])


def _find(kind: str, methods: Sequence[DescribedMethod]) -> DescribedMethod:
    for method in methods:
        if method.kind == kind:
            return method
    kinds = tuple(method.kind for method in methods)
    raise UsageError(f"methods: expected one of {', '.join(kinds)}; got {kind}{nearest(kind, kinds)}")


def _describe(part: type[LossPart] | type[DeepInversion], place: str) -> DescribedMethod:
    schema = schema_of(part)
    required = schema.schema.get("required", [])
    settings = tuple(
        Setting(
            name=name,
            required=name in required,
            default=prop["examples"][0] if name in required else prop.get("default"),
            values=_values(prop),
            text=" ".join(prop.get("description", "").split()),
        )
        for name, prop in schema.schema["properties"].items()
        if name != "kind"
    )
    text = "\n\n".join(map(_unwrapped, inspect.cleandoc(part.__doc__ or "").split("\n\n")))
    return DescribedMethod(kind=schema.kinds()[0], place=place, text=text, settings=settings, **asdict(part.METHOD))


def _unwrapped(paragraph: str) -> str:
    """Join the lines of plain text; leave lists and what is indented alone."""
    lines = paragraph.splitlines()
    return paragraph if any(line.startswith((" ", "-", "*")) for line in lines) else " ".join(lines)


def _values(schema: JsonSchema) -> str:
    """Say what may stand at a place: its type and its limits."""
    if "anyOf" in schema:
        branches = [_values(branch) for branch in schema["anyOf"] if branch.get("type") != "null"]
        return " or ".join([*branches, *(["left out"] if len(branches) < len(schema["anyOf"]) else [])])
    if "enum" in schema:
        return ", ".join(map(toml, schema["enum"]))
    kind = str(schema.get("type", "table"))
    if kind == "array":
        return f"list of {_values(schema['items'])}" if "items" in schema else "list"
    words = {"string": "text", "boolean": "true, false", "object": "table"}.get(kind, kind)
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join([words, ", ".join(limits)]).rstrip()


def _told(method: DescribedMethod) -> list[Setting]:
    """Leave out what is left out, and what every loss has."""
    settings = [setting for setting in method.settings if setting.default is not None]
    return [s for s in settings if s.name not in _QUIET_FIELDS or s.default != _QUIET_FIELDS[s.name]]


def _defaults(method: DescribedMethod) -> list[str]:
    return [f"{s.name} ({REQUIRED})" if s.required else f"{s.name} = {toml(s.default)}" for s in _told(method)]


def _as_json(method: DescribedMethod) -> JsonValue:
    settings: list[JsonValue] = [{**asdict(setting)} for setting in method.settings]
    return {**asdict(method), "settings": settings, "recipe": snippet(method)}


def _table(methods: Sequence[DescribedMethod], width: int) -> Table:
    """Return as many columns as `width` has room for; kind, family, cost and use always."""
    columns = ["kind", "family"]
    columns += ["method", "formula"] if width >= 120 else []
    columns += ["defaults", "source"] if width >= 160 else []
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 1, 0))
    for column in [*columns, "cost", "when to use it"]:
        narrow = {"family": 14, "cost": 16}.get(column)
        table.add_column(column, overflow="fold", no_wrap=column == "kind", max_width=narrow)
    for method in methods:
        cells = {**asdict(method), "method": method.name, "defaults": ", ".join(_defaults(method))}
        table.add_row(*(Text(str(cells[column])) for column in [*columns, "cost", "use"]))
    return table


def _show_one(console: Console, method: DescribedMethod) -> None:
    console.print(Text.assemble((method.kind, "bold"), f": {method.name} ({method.family})"))
    console.print(Text(f"\n{method.text}\n"))
    facts = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for name in ("formula", "source", "cost", "use"):
        facts.add_row(Text(name, style="dim"), Text(getattr(method, name)))
    console.print(facts)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("setting", "default", "values", "what it is"):
        table.add_column(column, overflow="fold", no_wrap=column == "setting")
    for setting in method.settings:
        default = REQUIRED if setting.required else "" if setting.default is None else toml(setting.default)
        table.add_row(Text(setting.name), Text(default), Text(setting.values), Text(setting.text))
    console.print(Text(), table, Text("\nIn a recipe, under [distillation]:\n", style="dim"), sep="\n", end="\n")
    console.print(Text(snippet(method)), soft_wrap=True, end="")
