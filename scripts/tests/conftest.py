"""Adds the folder of the scripts to the import path, because the scripts are not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
