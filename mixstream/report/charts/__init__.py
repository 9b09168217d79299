"""What runs did as charts: Vega-Lite specs as plain dicts, each with the same numbers as a table.

figure     a figure: panels and a table
lines      lines over time, a language a colour, a domain a dash
bars       bars and dots
mixture    weights, shares, repeats, scores of a run
losses     training and held-out losses of a run
running    throughput, waiting, store
compared   several runs side by side
"""
