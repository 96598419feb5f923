"""The agents' tests have the doubles that these use, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "agent"))
