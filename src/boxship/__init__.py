"""Boxship: build, push, pull and run containers, as one Python program."""

__version__ = "0.1.0"
