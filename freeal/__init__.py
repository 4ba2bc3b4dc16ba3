"""freeal: labels without humans. Importing it loads neither torch nor an LLM client."""

__version__ = "0.1.0"
