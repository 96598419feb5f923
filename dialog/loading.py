"""Finding the user's code by its name: ``module:name``, or ``path/to/file.py:name``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from dialog.errors import ConfigurationError

__all__ = ["load_function", "load_on_voip", "load_target", "place_of"]


def load_function(target: str) -> Callable[..., Any]:
    """The function that ``module:function`` or ``path/to/file.py:function`` names.

    Importing runs the module; its ``if __name__ == "__main__"`` block is left out.

    Raises:
        ConfigurationError: There is no such module or function, or importing it failed.
    """
    found = load_target(target)
    if not callable(found):
        raise ConfigurationError(f"{target} is no function but {type(found).__name__}")
    return found  # type: ignore[no-any-return]  # whatever the user named


def load_on_voip(target: str) -> Callable[..., Any]:
    """The function that takes calls; otherwise as :func:`load_function`.

    Raises:
        ConfigurationError: There is no such module or function, importing it failed, or it takes no call.
    """
    found = load_function(target)
    try:
        inspect.signature(found).bind(object())
    except ValueError:  # it does not tell what it takes
        return found
    except TypeError as exc:
        what = "an agent's class" if inspect.isclass(found) else "called otherwise"
        raise ConfigurationError(
            f"{target} is {what}: name the function that takes calls, def on_voip(voip), and activates an agent"
        ) from exc
    return found


def load_target(target: str) -> Any:
    """Whatever ``module:name`` or ``path/to/file.py:name`` names; otherwise as :func:`load_function`.

    Raises:
        ConfigurationError: There is no such module or name, or importing it failed.
    """
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise ConfigurationError(
            f"{target!r} does not say what to take of which module: write module:name, for instance main:on_voip"
        )
    module = _load(where)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(
                f"{where} has no {name!r}; it has {', '.join(_functions(module)) or 'no functions'}"
            )
        found = getattr(found, part)
    return found


def _load(where: str) -> ModuleType:
    path = Path(where)
    if path.suffix == ".py":
        if not path.is_file():
            raise ConfigurationError(f"there is no file {where}")
        work = partial(_load_file, path)
    elif all(part.isidentifier() for part in where.split(".")):
        work = partial(importlib.import_module, where)
        # As python -m does: modules of the working directory are found.
        sys.path.insert(0, str(Path.cwd()))
    else:
        raise ConfigurationError(f"{where!r} is neither a module nor a Python file")
    try:
        return work()
    except ConfigurationError:
        raise
    except Exception as exc:  # the user's module
        if isinstance(exc, ModuleNotFoundError) and exc.name == where.partition(".")[0]:
            raise ConfigurationError(
                f"there is no module {exc.name} in {Path.cwd()}: go to where {exc.name}.py is, or name the file, as "
                f"path/to/{exc.name}.py"
            ) from exc
        raise ConfigurationError(f"importing {where} failed: {type(exc).__name__}: {exc}{place_of(exc)}") from exc


def place_of(exc: Exception) -> str:
    """Where in the user's code it was raised; a SyntaxError says so itself."""
    if isinstance(exc, SyntaxError):
        return ""
    foreign = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), str(Path(__file__).parent), "<frozen"]
    for frame in reversed(traceback.extract_tb(exc.__traceback__)):
        if not frame.filename.startswith(tuple(foreign)):
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""


def _load_file(path: Path) -> ModuleType:
    known = sys.modules.get(path.stem)
    if known is not None and known.__file__ is not None and Path(known.__file__).resolve() == path.resolve():
        return known  # two functions of one file share its state
    # Its neighbours can be imported, as when it is run.
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _functions(module: ModuleType) -> list[str]:
    return sorted(
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    )
