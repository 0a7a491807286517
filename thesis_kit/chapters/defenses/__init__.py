"""Chapter 1, Defenses: robustness without paying for it, in compute or in data."""
