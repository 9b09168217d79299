"""What we want: weights, budgets and the exact sequence of shares, decided in pure functions.

    simplex     points of the simplex, and the projection between a floor and a cap
    weights     natural, uniform, temperature, UniMax, or what a file says
    schedule    weights as a function of training time, in phases
    budget      repeat budgets and the token budget as limits on draws
    supply      whether the budgets can fill every phase
    phases      shares of every phase, with budgets kept over the whole run
    apportion   whole draws from fractional shares, with error feedback
    ledger      the account of a run: draws so far, what is owed, who gets what share now
    build       all of it decided, or refused with the ways out
    lanes       a batch's draws dealt to canonical nodes
    plan        what was decided: plan.json
    differences in what two plans differ
    flow        when a stream has given how many draws, as shares tell it
    exposure    what a run has read of every shard: exposure.parquet
    simulate    a plan's run without its data: when repeats begin and budgets end, bytes to fetch and to keep

numpy only: no torch, no clock, no random numbers.
"""
