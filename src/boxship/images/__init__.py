"""Stops 2 and 5: names to images; unpack, save, load, import, removal."""
