"""What may stand at each place of a recipe, read from its JSON schema. Rule: knows schemas, not recipes.

Error messages and `--set` ask here for valid keys, kinds, descriptions and examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, JsonValue

Step = str | int
"""A key of a table, or an index of a list."""
JsonSchema = Mapping[str, Any]

OWN_KIND = '"./my_file.py:my_function"'


@dataclass(frozen=True)
class Place:
    """One place of a recipe, with the schema of what may stand there."""

    schema: JsonSchema
    definitions: JsonSchema

    def alternatives(self) -> tuple["Place", ...]:
        """List what may stand here, references and unions resolved; null is left out (TOML has none)."""
        if "$ref" in self.schema:
            name = str(self.schema["$ref"]).removeprefix("#/$defs/")
            return Place(self.definitions[name], self.definitions).alternatives()
        union = self.schema.get("oneOf") or self.schema.get("anyOf")
        if union is None:
            return () if self.schema.get("type") == "null" else (self,)
        return tuple(place for branch in union for place in Place(branch, self.definitions).alternatives())

    def tables(self, value: JsonValue) -> tuple["Place", ...]:
        """List the tables that may stand here; where `value` has a `kind` of one of them, only that one."""
        tables = tuple(place for place in self.alternatives() if place.schema.get("type") == "object")
        kind = value.get("kind") if isinstance(value, dict) else None
        fitting = tuple(table for table in tables if kind is not None and kind in table.kinds())
        if not fitting and isinstance(kind, str) and ".py:" in kind:
            fitting = tuple(table for table in tables if table.is_own())
        return fitting or tables

    def lists(self) -> tuple["Place", ...]:
        """List the lists that may stand here."""
        return tuple(place for place in self.alternatives() if place.schema.get("type") == "array")

    def kinds(self) -> tuple[str, ...]:
        """Words that `kind` may be in this table."""
        kind = self.schema.get("properties", {}).get("kind", {})
        return tuple(kind.get("enum", [kind["const"]] if "const" in kind else []))

    def is_own(self) -> bool:
        """Whether this table names the user's own object by path."""
        kind = self.schema.get("properties", {}).get("kind")
        return kind is not None and not self.kinds()

    def all_kinds(self) -> tuple[str, ...]:
        """Words that `kind` may be in any table that may stand here, and the user's own by path."""
        tables = self.tables(None)
        words = tuple(kind for table in tables for kind in table.kinds())
        return words + ((OWN_KIND,) if any(table.is_own() for table in tables) else ())

    def keys(self, value: JsonValue) -> tuple[str, ...]:
        """Keys of the tables that fit `value`, in the order of their declaration."""
        return tuple(dict.fromkeys(key for table in self.tables(value) for key in table.schema.get("properties", {})))

    def at(self, step: Step, value: JsonValue) -> "Place | None":
        """Go one step down from `value`, which stands here; None where the schema knows nothing of it."""
        if isinstance(step, int):
            items = [place.schema["items"] for place in self.lists() if "items" in place.schema]
            return Place(items[0], self.definitions) if items else None
        for table in self.tables(value):
            if step in table.schema.get("properties", {}):
                return Place(table.schema["properties"][step], self.definitions)
            if isinstance(table.schema.get("additionalProperties"), dict):
                return Place(table.schema["additionalProperties"], self.definitions)
        return None

    def description(self) -> str:
        """What stands here in one sentence, without its full stop; empty where nobody said."""
        texts = [self.schema.get("description")] + [place.schema.get("description") for place in self.alternatives()]
        text = next((str(text) for text in texts if text), "")
        return text.split("\n\n")[0].replace("\n", " ").rstrip(".")

    def example(self) -> JsonValue:
        """Make a value that may stand here."""
        if examples := self.schema.get("examples"):
            return examples[0]  # type: ignore[no-any-return]  # examples are JSON by declaration
        options = self.alternatives()
        return _example(options[0]) if options else ""


def schema_of(model: type[BaseModel]) -> Place:
    """Return the place where the whole of `model` stands."""
    schema = model.model_json_schema()
    return Place(schema, schema.get("$defs", {}))


def nearest(word: str, valid: tuple[str, ...]) -> str:
    """Return ` (did you mean "..."?)`, or nothing where no valid word is near."""
    by_case = {candidate.casefold(): candidate for candidate in valid}
    matches = get_close_matches(word.casefold(), by_case, n=1, cutoff=0.5)
    return f' (did you mean "{by_case[matches[0]]}"?)' if matches else ""


def toml(value: JsonValue) -> str:
    """Write a value on one line as a recipe would."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            pairs = ", ".join(f"{key} = {toml(item)}" for key, item in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case _:
            return str(value)


def dotted(path: tuple[Step, ...]) -> str:
    """Write a path as users do: `deployments[0].target.kind`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _example(place: Place) -> JsonValue:
    schema = place.schema
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]  # type: ignore[no-any-return]  # as above
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]  # type: ignore[no-any-return]  # as above
    match schema.get("type"):
        case "object":
            kind: dict[str, JsonValue] = {"kind": place.kinds()[0]} if place.kinds() else {}
            required = {key: Place(schema["properties"][key], place.definitions) for key in schema.get("required", [])}
            return kind | {key: child.example() for key, child in required.items()}
        case "array":
            return [Place(schema["items"], place.definitions).example()] if "items" in schema else []
        case "integer":
            return int(schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1))
        case "number":
            return float(schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1))
        case "boolean":
            return True
        case _:
            return "..."
