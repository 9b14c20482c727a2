"""What the tests share; a test imports what it needs, and fixtures are in conftest.py."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the project
