"""Where weights come from: one file a paper, equations first; numpy only.

xdoge      weights learnt online from gradient alignment (arXiv 2512.10545, after DoGE, 2310.15393)
history    what was learnt: weights.jsonl and its average
"""
