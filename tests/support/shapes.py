"""The shapes and types in the signatures of the core, checked whenever tests call it: jaxtyping with beartype.

Called before regard is imported. In the modules that are checked the names of jaxtyping, which regard imports for type
checkers alone, are imported, too. Not among them are modules that refuse what a user got wrong, whose own errors are
tested, and those that torch.compile and torch.jit.trace follow, in which sizes may be tensors.
"""

import importlib.abc
import sys
import typing

from jaxtyping import install_import_hook

CHECKED = ["regard.backends.derivatives", "regard.backends.streaming", "regard.weights.reductions"]


class _ForTypeCheckers(importlib.abc.MetaPathFinder):
    """Has TYPE_CHECKING be true in the modules that are checked: each imports it before anything else of regard."""

    def find_spec(self, fullname, path, target=None):
        typing.TYPE_CHECKING = any(fullname == name or fullname.startswith(f"{name}.") for name in CHECKED)


def check_signatures() -> None:
    """Import regard with its core checked."""
    if "regard" in sys.modules:
        raise RuntimeError("check_signatures() comes before the first import of regard")
    finder = _ForTypeCheckers()
    with install_import_hook(CHECKED, "beartype.beartype"):
        sys.meta_path.insert(0, finder)  # before the finder of the hook, which takes the modules that are checked
        try:
            import regard  # noqa: F401
        finally:
            sys.meta_path.remove(finder)
            typing.TYPE_CHECKING = False
