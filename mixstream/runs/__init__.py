"""What is run: a recipe becomes a Composer Trainer, or a chain of them.

recipe     the recipe YAML: what we ask
sections   its sections of model, training and averaging
model      a causal language model whose loss is one number a row
pretrained a Hugging Face checkpoint to go on with, checked
saving     the trained model as a Hugging Face folder
learnt     what runs have learnt, averaged over batches and over runs
changes    in what a recipe and its streams differ from those that a run began with
cache      what a run needs in its cache at a time
folder     a run's folder: what belongs to it, where it goes on from
migrate    a run carried over to a changed recipe or changed streams
loggers    its section of loggers: where a run's numbers go besides its own log
versions   with what each start of a run ran
trainer    a recipe and a loader as a Composer Trainer
train      one run: proxy or base
chain      proxy, its averaged weights, base, controls; proxies of several sizes and seeds
pilots     the small runs that a planner's law is fitted to
"""

from mixstream.runs.recipe import load_recipe

__all__ = ["load_recipe"]
