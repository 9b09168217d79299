"""What a person sees: one HTML file, and the PNGs in it, from the files that runs left.

    read     a run's files as arrays
    plots    arrays to pictures
    html     pictures and tables to one page

Reads files only: neither torch nor Composer is loaded.
"""
