"""What is learnt: Composer callbacks that measure sources, learn weights, and write logs.

They ask one thing of the model: `loss` returns the mean token loss of every row, (rows,), of which
Composer takes the mean; and one of the batch: its ``stream`` column.

    rows        losses by row and by source, over all ranks
    scores      gradient-alignment scores, by the way that is asked for:
    fd          by central differences, jvp by forward mode, kbackward by K backward passes
    probes      a probe batch in microbatches, gradients: its G, differences: losses along G
    parameters  a model's parameters, whole or in shards
    xdoge       new weights into the running loader
    exposure    training loss, share and repeats by stream
    traffic     bytes, requests and time waited, where shards come through a cache
    heldout     held-out loss by stream and language
    logs        weights.jsonl and metrics.jsonl, cut back at a resume
"""
