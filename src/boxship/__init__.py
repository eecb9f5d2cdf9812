"""Boxship: build, push, pull and run containers, as one Python program."""
