"""Where weights come from: one file or room a paper, equations first; numpy and scipy only.

Learnt while a model trains:
xdoge        from gradient alignment (arXiv 2512.10545, after DoGE, 2310.15393)
doremi       from the excess over a reference model (2305.10429)
odm          from losses, as a bandit (2312.02406)
ado          from scaling laws fitted while training (2410.11820), by power_law
temperature  a temperature that changes
families     a prior from a tree of language families
rescaling    what a corpus of given weights is made of

Planned before a run:
baselines    natural, uniform, temperature, UniMax (2304.09151), fixed
climb        from what languages are worth to each other (2509.15556)
mixture_law  from what repeats of scarce sources are worth (2605.12715)
mixing_law   from losses as exponentials of proportions (2403.16952, 2602.12237)
regmix       from losses regressed by boosted trees (2407.01492)
atlas        from transfer, repeats and model size in one law (2510.22037)
offline_doremi DoReMi's update on recorded losses
recommend    what follows from the repetition law, with repeat_warnings of what repeats have done to others

What repeats and mixtures are worth:
repetition   one saturation function, which several papers share
muennighoff  the law of one source that is repeated (2305.16264)
multiplier   how much more unique data a mixture is worth (2605.13225)
splitting    compute between pre-training and specialisation (2603.19149)

Rooms of what they share: learning (while a model trains), planning (before a run).
"""
