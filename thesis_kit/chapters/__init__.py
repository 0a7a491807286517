"""The chapters of the book, a folder each: claims, settings, arms, figures and what was recorded."""
