"""Values from files of others, made safe to print. Rule: one line, printable ASCII, never long."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_LONGEST = 120


def brief(value: object) -> str:
    """Return the value as Python would write it, cut where it is long."""
    text = ascii(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def violations(error: ValidationError) -> list[tuple[str, str, str]]:
    """Return where, what was expected and what came, for each thing that a manifest or a report has wrong."""
    return [_violation(detail) for detail in error.errors(include_url=False)]


def _violation(detail: ErrorDetails) -> tuple[str, str, str]:
    place = ".".join(brief(part).strip("'") for part in detail["loc"])
    match detail["type"]:
        case "missing":
            return place, "this field", "none"
        case "extra_forbidden":
            return place, "no field of this name", brief(detail["input"])
        case "json_invalid":
            return place or "contents", "JSON", detail["msg"].removeprefix("Invalid JSON: ")
        case "string_pattern_mismatch":
            return place, f"text that matches {detail['ctx']['pattern']}", brief(detail["input"])
        case "too_long":
            return place, f"at most {detail['ctx']['max_length']}", str(detail["ctx"]["actual_length"])
    # Our own validators may say `place: expected ...; got ...` of a part of what they were given.
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected, _, got = message.partition("; got ")
    own_place, has_place, own_expected = expected.partition(": expected ")
    if has_place:
        place, expected = ".".join(filter(None, (place, own_place))), own_expected
    return place or "contents", expected.removeprefix("expected "), got or brief(detail["input"])
