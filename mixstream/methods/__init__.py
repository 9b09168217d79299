"""Where weights come from: one file a paper, equations first; numpy only.

online      what every online method is told, and what it answers
learner     weights on their way: what a method wants, within bounds, of the streams that are there
xdoge       weights learnt from gradient alignment (arXiv 2512.10545, after DoGE, 2310.15393)
doremi      from the excess over a reference model (2305.10429)
odm         from losses, as a bandit (2312.02406)
ado         from scaling laws fitted while training (2410.11820): power_law, and curve, the losses that it is fitted to
temperature a temperature that changes
losses      training losses as methods are told them
bounds      floors and caps: the last word on what a method wants
stages      streams that join later
families    a prior from a tree of language families
repetition  what repeats are worth
averaging   of weights, over batches and over runs
rescaling   what a corpus of given weights is made of
history     what was learnt: weights.jsonl
"""
