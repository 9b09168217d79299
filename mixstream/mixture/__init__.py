"""What we want: weights, budgets and the exact sequence of shares, decided in pure functions.

    simplex     points of the simplex, and the projection between a floor and a cap
    weights     natural, uniform, temperature, UniMax, or what a file says
    budget      repeat budgets and the token budget as limits on draws
    apportion   whole draws from fractional shares, with error feedback
    ledger      the account of a run: draws so far, what is owed, who gets what share now
    plan        all of it decided: plan.json

numpy only: no torch, no clock, no random numbers.
"""
