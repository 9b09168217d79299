"""Pilots: the small runs that a planner's law is fitted to, each a run of its own.

recipe      the pilots' recipe YAML: which design, for which target
groups      what proportions are of: languages, or streams
written     pilots.json: which runs there are, and where
writing     a recipe becomes pilots.json, views of the streams, a recipe a run, and slurm.sh
slurm       the SLURM array file
views       streams cut to a pilot's budget, so that a source is repeated as often as in the target
running     all of them one after the other, in this process
cluster     each a task of a Dask cluster
collecting  what finished ones read, and their losses, as a table of runs
"""
