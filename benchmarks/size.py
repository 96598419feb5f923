"""What an installation takes: megabytes and packages of the core and of each extra, and what importing costs.

``python benchmarks/size.py``, in an environment that has the extra ``all``. An extra's figures are what it brings
beyond the core, without compiled bytecode.
"""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
IMPORTS = {
    "import dialog": "import dialog",
    "an agent with its providers": "from dialog import CartesiaTTS, DeepgramSTT, OpenAIAgent",
    "and Twilio's gateway": "from dialog import CartesiaTTS, DeepgramSTT, OpenAIAgent, TwilioGateway",
    "and the test kit": "import dialog.testing; from dialog.testing import Caller, DeepgramEmulator",
}


def closure(extra: str = "") -> set[str]:
    """The names of the packages that ``dialog``, or ``dialog[extra]``, brings."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    wanted = [("dialog", extra)]
    while wanted:
        name, of = wanted.pop()
        if (name, of) in seen:
            continue
        seen.add((name, of))
        try:
            requires = distribution(name).requires or ()
        except PackageNotFoundError:
            continue  # for another platform, or not in this environment
        found.add(name)
        for text in requires:
            requirement = Requirement(text)
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": each}) for each in {of, ""}):
                needed = re.sub(r"[-_.]+", "-", requirement.name).lower()
                wanted += [(needed, each) for each in (requirement.extras or {""})] + [(needed, "")]
    return found


def size_mb(name: str) -> float:
    """Of one package, or of this one's sources."""
    if name == "dialog":
        files = [path for path in (HERE.parent / "dialog").rglob("*") if path.is_file()]
    else:
        files = [Path(str(file.locate())) for file in distribution(name).files or ()]
    return sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.exists()) / 1e6


def import_s(statement: str) -> float:
    """Seconds, the best of five, with compiled bytecode there."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    run = [subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=True) for _ in range(5)]
    return min(float(each.stdout) for each in run)


def main() -> None:
    core = closure()
    print("| installs | packages | MB | largest |\n|---|---:|---:|---|")
    extras = sorted(distribution("dialog").metadata.get_all("Provides-Extra") or ())
    for extra in ("", *(each for each in extras if each not in ("dev", "all"))):
        names = closure(extra) - (core if extra else set())
        sizes = {name: size_mb(name) for name in names}
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        shares = ", ".join(f"{name} {sizes[name]:.1f}" for name in largest)
        print(f"| {extra or 'the core'} | {len(names)} | {sum(sizes.values()):.1f} | {shares} |")
    print("\n| imports | seconds |\n|---|---:|")
    for what, statement in IMPORTS.items():
        print(f"| {what} | {import_s(statement):.2f} |")


if __name__ == "__main__":
    main()
