"""What was claimed, what was measured, and how the two are put side by side."""
