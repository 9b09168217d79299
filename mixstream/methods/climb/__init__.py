"""CLIMB: proportions from a law of how languages help each other (arXiv 2509.15556)."""
