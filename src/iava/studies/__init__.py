"""Answers to the questions that the paper leaves open, with numbers: `iava study`, docs/findings.md.

Each study writes results.json, table.md and plot.png to its folder, is seeded, and goes on where it was stopped.
"""
