"""The fixtures of `conftest_faults`, for every file here."""

from conftest_faults import bench, openai_bench  # noqa: F401
