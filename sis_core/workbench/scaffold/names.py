"""One name in its four spellings: ``my-format``, ``my_format``, ``MyFormat``, ``MY_FORMAT``."""

from __future__ import annotations

import importlib.util
import keyword
import re

from attrs import frozen

from sis_core.errors import PluginError

LONGEST = 60  # a tensor's format stands in a file's metadata, a folder's name in a path


@frozen
class Names:
    """Spellings of a plugin's name.

    Attributes:
        project: of the distribution, its folder and its entry point.
        module: of the Python module.
        type: of the class.
        constant: GGUF's way to spell a format.
    """

    project: str
    module: str
    type: str
    constant: str

    @classmethod
    def of(cls, text: str) -> Names:
        """From any of the four spellings; PluginError for a name that no module can have, or that one has already."""
        spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", text)
        words = re.split(r"[-_ .]+", spaced.lower())
        module = "_".join(words)
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", module) or not module.isascii() or len(module) > LONGEST:
            raise PluginError(
                f"{text!r} cannot be the name of a plugin",
                where="sis new",
                fix="use letters and digits, beginning with a letter, with single dashes between words: my-format",
            )
        if keyword.iskeyword(module) or _is_module(module):
            raise PluginError(
                f"there is a Python module {module!r} already, and a plugin of that name would hide it",
                where="sis new",
                fix=f"choose another name, such as my-{'-'.join(words)}",
            )
        return cls("-".join(words), module, "".join(word[:1].upper() + word[1:] for word in words), module.upper())


def _is_module(name: str) -> bool:
    """Whether Python finds a module of this name; a mere folder of that name is none."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None
