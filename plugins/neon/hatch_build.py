"""Where hatchling looks for a build hook: ours is shared."""

import sys
from pathlib import Path

here = Path(__file__).resolve().parent
# An sdist carries native/ inside it; a checkout shares it at the root.
sys.path.insert(0, str(next(p for p in (here / "native", here.parents[1] / "native") if p.is_dir())))
from zig_hook import ZigHook  # noqa: E402, F401
