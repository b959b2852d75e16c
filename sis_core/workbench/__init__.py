"""Measures and makes: quantising, evaluation, comparison, benchmarks, profiles, scaffolds."""
