"""The decisions: pure functions of arrays, no I/O, no clock, no global random state."""
