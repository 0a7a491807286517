"""Robust and understandable deep networks: the methods of the book, as functions on your own models."""

__version__ = "0.1.0"
