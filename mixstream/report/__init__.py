"""What a person sees: one HTML file, from the files that runs left.

    series   metrics.jsonl as arrays, and fewer points that keep the extremes
    read     a run's folder as one record
    charts   records to figures: Vega-Lite specs, and the same numbers as tables
    tables   what no chart tells
    html     figures and tables to one page
    images   figures to SVG or PNG
    sql      a run's files, asked in SQL

Reads files only: neither torch nor Composer is loaded.
"""
