"""What all planners share: a table of runs, the way to fit laws to it, and the way to solve for proportions.

table       what finished runs read, and what losses they ended with
planner     the face of every planner: fit, predict, allocate
fitting     nonlinear least squares from several starts, or an error
allocating  the proportions that floors and repeat budgets allow, and the best of them
"""
