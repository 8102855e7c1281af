"""Studies of the paper's open questions, run by `iava study` and `iava ablate`.

Each study writes results.json, table.md and plot.png into its folder. It is seeded, and a stopped study continues.
"""
