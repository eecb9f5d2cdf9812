"""System calls that the standard library lacks, through ctypes; no policy."""
