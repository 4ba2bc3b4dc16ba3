"""Configuration -> each part of a run; the modules that know every class."""
