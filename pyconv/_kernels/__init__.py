"""Compiled kernels.  README.md in this directory draws the call path."""
