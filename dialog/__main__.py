"""``python -m dialog``: see :mod:`dialog.cli`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; without its packages, say in one line how to get them."""
    try:
        from dialog.cli.app import app
    except ModuleNotFoundError as exc:
        if (exc.name or "").split(".")[0] not in ("typer", "rich", "click"):
            raise
        print(f"dialog: {exc.name} is not installed: pip install 'dialog[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    app()


if __name__ == "__main__":
    main()
