"""What all online methods share: what they are told, what bounds their weights, and what is kept of them.

online      what every online method is told, and what it answers
learner     weights on their way: what a method wants, within bounds, of the streams that are there
bounds      floors and caps: the last word on what a method wants
stages      streams that join later
losses      training losses as methods are told them
curve       the losses that a law is fitted to while training
averaging   of weights, over batches and over runs
history     what was learnt: weights.jsonl
"""
