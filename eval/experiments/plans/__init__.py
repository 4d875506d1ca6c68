"""Do plans ever give a stale, foreign or broken action, and what does the check cost? `results/plans`."""
