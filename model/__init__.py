"""MultiMix: one network that classifies pneumonia and segments the lungs, and its trainer."""
