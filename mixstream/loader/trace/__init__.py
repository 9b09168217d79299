"""Any past batch of a run, again, without the run; and at which batches a document was read.

lines      a log that rises, looked up by halving
walk       batches counted through from a position
batch      where the rows of a batch are from
legs       what a run read under one plan, and where it can be counted from
history    a run's folder: its legs
rows       a batch of a run's folder, and the draws of a sample over the whole run
"""

from mixstream.loader.trace.batch import Origin, trace_batch
from mixstream.loader.trace.history import History
from mixstream.loader.trace.rows import TracedDraw, TracedRow, draws_of_samples, rows_of_batch

__all__ = ["History", "Origin", "TracedDraw", "TracedRow", "draws_of_samples", "rows_of_batch", "trace_batch"]
