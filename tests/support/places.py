"""Where the tests find things."""

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
"""What tests share; programs that they run find it by `sys.path`."""

ROOT = SUPPORT.parent.parent
