"""MultiMix: one network that classifies pneumonia and segments the lungs, and its trainer."""

from pathlib import Path
from typing import Final

SHIPPED_MODEL: Final = Path(__file__).parent / "shipped" / "multimix-1.4.0"
"""The model directory that a node serves unless told otherwise; for research use only."""
