"""What all planners share: a table of runs, the way to fit laws to it, and the way to solve for proportions.

table       what finished runs read, and what losses they ended with
table_files the same as Parquet and CSV
joining     several tables as one
planner     the face of every planner: fit, predict, allocate
checks      what planners refuse before they fit or predict
fitting     nonlinear least squares from several starts, or an error
allocating  the proportions that floors and repeat budgets allow, and the best of them
registry    planners by name
sources     languages of a law over the streams of a catalog
asked       the run that is asked about, and the simple mixtures that it could have
bootstrap   how sure a planner is
heldout     how well it predicts mixtures that it has not seen
reach       how far a run is from the pilots
answer      one question, one answer, with all of these
designs     which pilots to run
"""
