"""Old public names, kept for one release: they work, and warn with the name that took their place."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Target = TypeVar("Target", bound=Callable[..., Any])


def renamed_arguments(**names: str) -> Callable[[Target], Target]:
    """A decorator for functions, and for classes, with renamed keyword arguments, old="new".

    >>> @renamed_arguments(mix="aggregate")
    ... def embed(aggregate="mean"):
    ...     return aggregate
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     embed(mix="concatenate")
    'concatenate'
    >>> print(caught[0].message)
    embed: mix= is now called aggregate=.
    """

    def decorate(target: Target) -> Target:
        function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            for old in names.keys() & kwargs.keys():
                new = names[old]
                if new in kwargs:
                    raise TypeError(f"{target.__name__}: {new}= was given twice, the second time as {old}=.")
                warn(f"{target.__name__}: {old}= is now called {new}=.")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        if isinstance(target, type):
            target.__init__ = wrapper  # type: ignore[misc]
            return target
        return wrapper  # type: ignore[return-value]

    return decorate


def renamed_names(module: str, **names: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module with renamed names: `__getattr__ = renamed_names(__name__, Old="New")`."""

    def getattr_of_module(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn(f"{module}.{name} is now called {names[name]}.")
        return getattr(sys.modules[module], names[name])

    return getattr_of_module


def warn(message: str, levels: int = 2) -> None:
    """A DeprecationWarning at the line `levels` calls above: by default the one that called the caller of `warn`."""
    warnings.warn(message, DeprecationWarning, stacklevel=levels + 1)
