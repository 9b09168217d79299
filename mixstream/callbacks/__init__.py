"""What is learnt: Composer callbacks that measure sources, learn weights, and write logs.

They ask one thing of the model: `loss` returns the mean token loss of every row, (rows,), of which
Composer takes the mean; and one of the batch: its ``stream`` column.

    rows        losses by row and by source, over all ranks
    scores/     gradient-alignment scores by central differences, forward mode, or K backward passes
    signals     what an online method is told: alignment, excess over a reference, training losses
    online      new weights, learnt by any method, into the running loader
    weighting   or into the loss: rows that count alpha / p
    exposure    training loss, share and repeats by stream
    positions   positions.jsonl: where the loader was, for tracing
    ledger      exposure.parquet: what was read of every shard, and when
    pace        tokens a second, and time waited for data
    traffic     bytes and requests, where shards come through a cache
    heldout     held-out loss by stream and language
    logs        weights.jsonl and metrics.jsonl, cut back at a resume
    destinations  Composer's own loggers, in which a run that goes on is one run
"""
