"""The names under which a run's numbers are logged: stable, the same in every logger and in metrics.jsonl.

`STREAM` is a stream's name, `METHOD` what learns the weights (`xdoge`). Tokens are those of samples, padding included;
seconds and counts are sums over ranks, since the beginning of the run, unless a line says otherwise.

    mixture/weight/STREAM         weight that was given last
    mixture/proportion/STREAM     share of the draws asked for now
    mixture/read/STREAM           share of the draws since the last line
    mixture/repeat/STREAM         repeats so far: draws / samples of the stream
    mixture/loss/STREAM           mean training loss since the last line, nats/token
    METHOD/score/STREAM           the signal that the last update was made of
    METHOD/loss/STREAM            loss that it was measured at, nats/token
    METHOD/seconds                seconds of the last update, of rank 0
    METHOD/eta                    learning rate of the last update
    METHOD/refused_in_a_row       updates refused since the last good one
    METHOD/gradient_norm          of the gradient that XDoGE's scores are taken along
    heldout/nats_per_token/STREAM, heldout/bits_per_byte/STREAM
    loader/wait_seconds           seconds that training waited for data, probes and held-out splits included
    loader/seconds                seconds of the whole run, of which they are a part
    throughput/tokens_per_second  since the last line, of all ranks together, all that a run does in between included
    throughput/batches_per_second since the last line
    store/bytes                   bytes fetched of all streams; store/bytes/STREAM of each, where a cache is used;
                                  likewise store/requests, store/hits, store/faults, store/evicted
    loss/train/total              Composer's: loss of the batch

Runs of older versions have other names; `current_name` tells today's.
"""

from __future__ import annotations

WEIGHT, PROPORTION, READ, REPEAT, LOSS = (
    f"mixture/{what}" for what in ("weight", "proportion", "read", "repeat", "loss")
)
SCORE, PROBE_LOSS, SECONDS, ETA, REFUSED = "score", "loss", "seconds", "eta", "refused_in_a_row"  # after METHOD/
HELDOUT_NATS, HELDOUT_BITS = "heldout/nats_per_token", "heldout/bits_per_byte"
WAIT_SECONDS, RUN_SECONDS = "loader/wait_seconds", "loader/seconds"
TOKENS_PER_SECOND, BATCHES_PER_SECOND = "throughput/tokens_per_second", "throughput/batches_per_second"
STORE = "store"
STORE_COUNTS = ("bytes", "requests", "hits", "faults", "evicted")
TRAIN_LOSS = "loss/train/total"


# Of runs of older versions: how a name began, and how it begins now.
RENAMED = {
    "exposure/asked": PROPORTION,
    "exposure/read": READ,
    "exposure/repeats": REPEAT,
    "exposure/loss": LOSS,
    "method/weight": WEIGHT,
    "store/waited_seconds": WAIT_SECONDS,
    "store/seconds": RUN_SECONDS,
}
ANY_METHOD = "method"  # what METHOD was in those runs, whichever it was


def current_name(name: str, method: str = ANY_METHOD) -> str:
    """Return today's name of what an older version logged under `name`; today's names stay as they are.

    Args:
        name: as it stands in a run's metrics.jsonl.
        method: what learnt the weights of that run, as its weights.jsonl says; older versions did not log it.
    """
    for old, new in RENAMED.items():
        if name == old or name.startswith(f"{old}/"):
            return new + name[len(old) :]
    first, _, rest = name.partition("/")
    return f"{method}/{rest}" if first == ANY_METHOD and rest else name


def of_stream(what: str, stream: str) -> str:
    """Return the name of one stream's number, such as ``mixture/weight/eu.wiki``."""
    return f"{what}/{stream}"
