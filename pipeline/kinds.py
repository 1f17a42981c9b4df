"""How a recipe's `kind` selects a plug-in: one of our words, or the user's own `FILE.py:NAME`."""

USER_OBJECT = "FILE.py:NAME"


def kind_of(value: object) -> str | None:
    """Return the tag of a table or of an instance: its `kind`, or FILE.py:NAME for the user's own."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    if isinstance(kind, str) and ".py:" in kind:
        return USER_OBJECT
    return kind if isinstance(kind, str) else None
