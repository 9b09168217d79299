"""Where weights come from: one file a paper, equations first; numpy and scipy only.

Learnt while a model trains:
xdoge       from gradient alignment (arXiv 2512.10545, after DoGE, 2310.15393)
doremi      from the excess over a reference model (2305.10429)
odm         from losses, as a bandit (2312.02406)
ado         from scaling laws fitted while training (2410.11820), by power_law
temperature a temperature that changes
families    a prior from a tree of language families
rescaling   what a corpus of given weights is made of
learning    what they share

repetition  what repeats are worth

Rooms: learning (of online methods), planning (of methods that are fitted before a run).
"""
