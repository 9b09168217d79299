"""Text to tokens, and the tokenizers that do it.

tokenise    the tokenizers that streams are made with
chunks      faster: words that were met before
pieces      flat in memory: a long text in overlapping pieces (locality: which tokenizers allow it)
training    a new tokenizer, of a sample in which small languages count for more
fertility   how many tokens a language costs
reading     documents one by one, for both
"""
