"""What ``pyconv demo`` shows: the calls, their measurement, and the picture."""
