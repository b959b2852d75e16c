"""Classes whose options nobody would see, because a decorator is missing or is another one."""

from __future__ import annotations

import attrs


def undeclared(cls: type) -> str | None:
    """What hides the fields of a class that should be an attrs class, or None."""
    own = vars(cls)
    if "__dataclass_fields__" in own:
        return "is a dataclass: decorate it with attrs.frozen, so that its fields are options"
    forgotten = [name for name, value in own.items() if isinstance(value, type(attrs.field()))]
    if forgotten:
        return f"has the option {forgotten[0]}, but is no attrs class: decorate it with attrs.frozen"
    return None
