"""What no chapter owns: claims and rules, the runner and its results, statistics and verdicts. Nothing here draws."""
