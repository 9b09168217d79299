/* The inner loops of the mixture engine.
 *
 * Each of them has a twin in Python, which says what is computed and why, and which the tests hold equal to it:
 * draw (mixture/ledger.py), window_rows (loader/order.py), place (loader/sampler.py), gather (loader/reader.py).
 * Without a compiler the twins do the work. Arrays are C-contiguous; K streams, L lanes, n batches or rows.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

#define UNIT_BITS 40
#define UNIT ((int64_t)1 << UNIT_BITS)
#define ROUNDS 6

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int expect(const Py_buffer *array, int64_t count, size_t size, const char *name)
{
    if (array->len == (Py_ssize_t)(count * (int64_t)size))
        return 1;
    PyErr_Format(PyExc_ValueError, "%s has %zd bytes, expected %lld of %zu", name, array->len, (long long)count, size);
    return 0;
}

/* ---- hashing and permutations ------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t value, uint64_t key)
{
    uint64_t z = value * 0x9E3779B97F4A7C15u + key;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* A number below `count` (< 2^32) from 64 mixed bits. */
static uint64_t below(uint64_t bits, uint64_t count) { return ((bits >> 32) * count) >> 32; }

static uint64_t feistel(uint64_t place, uint64_t a, uint64_t b, uint64_t key)
{
    uint64_t left = place % a, right = place / a;
    for (uint64_t round = 0; round < ROUNDS; round += 2) {
        left += below(mix(right, key + round), a);
        left -= left >= a ? a : 0;
        right += below(mix(left, key + round + 1), b);
        right -= right >= b ? b : 0;
    }
    return left + right * a;
}

/* window_rows(rows, first, size, a, b, key, ends, shifts): see order.py */
static PyObject *window_rows(PyObject *self, PyObject *args)
{
    Py_buffer rows, ends, shifts;
    unsigned long long first, size, a, b, key;
    if (!PyArg_ParseTuple(args, "w*KKKKKy*y*", &rows, &first, &size, &a, &b, &key, &ends, &shifts))
        return NULL;
    int64_t *out = rows.buf;
    const int64_t *end = ends.buf, *shift = shifts.buf;
    Py_ssize_t count = rows.len / 8, pieces = ends.len / 8;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint64_t place = feistel(first + (uint64_t)i, a, b, key);
        while (place >= size)
            place = feistel(place, a, b, key);
        Py_ssize_t low = 0, high = pieces - 1;
        while (low < high) {
            Py_ssize_t middle = (low + high) / 2;
            if ((int64_t)place < end[middle])
                high = middle;
            else
                low = middle + 1;
        }
        out[i] = (int64_t)place + shift[low];
    }
    PyBuffer_Release(&rows);
    PyBuffer_Release(&ends);
    PyBuffer_Release(&shifts);
    Py_RETURN_NONE;
}

/* place(counts, cursors, rows, repeats, first_batch, key, stream, sample, repeat): see sampler.py */
static PyObject *place(PyObject *self, PyObject *args)
{
    Py_buffer counts, cursors, rows, repeats, streams, samples, repeated;
    unsigned long long first_batch, key;
    Py_ssize_t num_batches, lanes, num_streams;
    if (!PyArg_ParseTuple(args, "(nnn)y*w*y*y*KKw*w*w*", &num_batches, &lanes, &num_streams, &counts, &cursors, &rows,
                          &repeats, &first_batch, &key, &streams, &samples, &repeated))
        return NULL;
    const int64_t *count = counts.buf, *row = rows.buf, *again = repeats.buf;
    int64_t *cursor = cursors.buf, *stream = streams.buf, *sample = samples.buf, *repeat = repeated.buf;
    for (Py_ssize_t deal = 0; deal < num_batches * lanes; deal++, count += num_streams) {
        int64_t *next = cursor + (deal % lanes) * num_streams;
        int64_t size = 0;
        for (Py_ssize_t i = 0; i < num_streams; i++)
            for (int64_t k = 0; k < count[i]; k++)
                stream[size++] = i;
        uint64_t own = mix(first_batch * (uint64_t)lanes + (uint64_t)deal, key);
        for (int64_t j = size - 1; j > 0; j--) {
            int64_t other = (int64_t)below(mix((uint64_t)j, own), (uint64_t)j + 1), kept = stream[j];
            stream[j] = stream[other];
            stream[other] = kept;
        }
        for (int64_t j = 0; j < size; j++) {
            int64_t at = next[stream[j]]++;
            sample[j] = row[at];
            repeat[j] = again[at];
        }
        stream += size;
        sample += size;
        repeat += size;
    }
    PyBuffer_Release(&counts);
    PyBuffer_Release(&cursors);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&repeats);
    PyBuffer_Release(&streams);
    PyBuffer_Release(&samples);
    PyBuffer_Release(&repeated);
    Py_RETURN_NONE;
}

/* ---- apportionment ----------------------------------------------------------------------------------------- */

typedef struct {
    int64_t key;
    int64_t place;
} Rank;

static int by_key(const void *a, const void *b)
{
    const Rank *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

static int precedes(Rank x, Rank y) { return x.key != y.key ? x.key < y.key : x.place < y.place; }

/* Put the `number` least of `count` ranks in front, in any order. */
static void select_least(Rank *ranks, int64_t count, int64_t number)
{
    int64_t low = 0, high = count - 1;
    while (low < high && number > low && number <= high) {
        Rank pivot = ranks[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (precedes(ranks[i], pivot))
                i++;
            while (precedes(pivot, ranks[j]))
                j--;
            if (i <= j) {
                Rank kept = ranks[i];
                ranks[i++] = ranks[j];
                ranks[j--] = kept;
            }
        }
        if (number <= j)
            high = j;
        else if (number >= i)
            low = i;
        else
            return;
    }
}

typedef struct {
    int64_t num_streams, lookahead;
    int64_t *due, *room, *rest, *part, *whole, *ahead, *ahead_whole, *lacking;
    char *first, *chosen;
    Rank *ranks;
} Scratch;

/* Mark `number` streams as chosen: those of `first`, then those owed most. `candidates` ranks are in ranks. */
static void fill(Scratch *s, int64_t candidates, int64_t number)
{
    int64_t left = number, others = 0;
    for (int64_t i = 0; i < s->num_streams; i++) {
        s->chosen[i] = s->first[i];
        left -= s->first[i];
    }
    for (int64_t i = 0; i < candidates; i++)
        if (!s->first[s->ranks[i].place]) {
            Rank kept = s->ranks[others];
            s->ranks[others++] = s->ranks[i];
            s->ranks[i] = kept;
        }
    left = least(left, others);
    select_least(s->ranks, others, left);
    for (int64_t i = 0; i < left; i++)
        s->chosen[s->ranks[i].place] = 1;
}

/* Add up what is due at each of the next horizons: sums over streams of max(h whole + floor((rest + h part) / UNIT), 0),
 * less what they can serve. */
WIDE static void look_ahead(Scratch *s, int64_t start, int64_t end, int64_t batch_size)
{
    const int64_t bias = (int64_t)1 << 22; /* makes floors of negative numbers plain shifts */
    int64_t *restrict ahead = s->ahead, *restrict whole = s->ahead_whole;
    const int64_t *restrict part = s->part, *restrict each = s->whole;
    const int64_t num_streams = s->num_streams;
    for (int64_t h = start; h < end; h++) {
        int64_t total = 0;
        for (int64_t i = 0; i < num_streams; i++) {
            ahead[i] += part[i];
            whole[i] += each[i];
            int64_t due = whole[i] + (int64_t)((uint64_t)(ahead[i] + (bias << UNIT_BITS)) >> UNIT_BITS) - bias;
            total += due > 0 ? due : 0;
        }
        s->lacking[h - start] = total - h * batch_size;
    }
}

/* `_most_urgent` of apportion.py: marks in s->chosen which `number` streams get one more draw. */
static void most_urgent(Scratch *s, int64_t number, int64_t batch_size)
{
    const int64_t num_streams = s->num_streams;
    int64_t candidates = 0, firsts = 0;
    for (int64_t i = 0; i < num_streams; i++) {
        if (s->rest[i] > 0)
            s->ranks[candidates++] = (Rank){-s->rest[i], i};
        s->ahead[i] = s->rest[i];
        s->ahead_whole[i] = 0;
        s->first[i] = 0;
    }
    fill(s, candidates, number);
    for (int64_t start = 1, end = 17; start <= s->lookahead;) {
        look_ahead(s, start, end, batch_size);
        for (int64_t h = start; h < end; h++) {
            int64_t lacking = s->lacking[h - start];
            if (lacking <= 0)
                continue;
            for (int64_t i = 0; i < num_streams; i++)
                if (s->first[i] && h * s->whole[i] + ((s->rest[i] + h * s->part[i]) >> UNIT_BITS) > 0)
                    lacking--;
            int64_t need = least(lacking, number - firsts);
            if (need <= 0)
                continue;
            qsort(s->ranks, candidates, sizeof(Rank), by_key);
            for (int64_t j = 0; j < candidates && need > 0; j++) {
                int64_t i = s->ranks[j].place;
                if (!s->first[i] && h * s->whole[i] + ((s->rest[i] + h * s->part[i]) >> UNIT_BITS) > 0) {
                    s->first[i] = 1;
                    firsts++;
                    need--;
                }
            }
        }
        fill(s, candidates, number);
        int64_t beyond = 0;
        for (int64_t i = 0; i < num_streams; i++) {
            int64_t after = s->rest[i] - (s->chosen[i] ? UNIT : 0) + (end - 1) * s->part[i];
            if (s->whole[i] == 0 && after < 0)
                beyond -= after;
        }
        if (beyond < UNIT)
            return;
        start = end;
        end = least(2 * end, s->lookahead + 1);
    }
}

/* `apportion` of apportion.py: writes (K,) counts. */
static void apportion(Scratch *s, const int64_t *owed, const int64_t *shares, int64_t batch_size, int64_t *counts)
{
    const int64_t num_streams = s->num_streams;
    int64_t left = batch_size;
    for (int64_t i = 0; i < num_streams; i++) {
        s->due[i] = owed[i] + shares[i] * batch_size;
        counts[i] = least(s->due[i] > 0 ? s->due[i] >> UNIT_BITS : 0, s->room[i]);
        left -= counts[i];
    }
    while (left < 0) { /* whole draws alone are too many: the least behind wait */
        for (int64_t i = 0; i < num_streams; i++)
            s->ranks[i] = (Rank){s->due[i] - counts[i] * UNIT, i};
        qsort(s->ranks, num_streams, sizeof(Rank), by_key);
        for (int64_t j = 0; j < num_streams && left < 0; j++)
            if (counts[s->ranks[j].place] > 0) {
                counts[s->ranks[j].place]--;
                left++;
            }
    }
    if (left > 0) {
        for (int64_t i = 0; i < num_streams; i++) {
            int64_t per_batch = shares[i] * batch_size;
            s->rest[i] = s->room[i] > counts[i] ? s->due[i] - counts[i] * UNIT : -UNIT;
            s->whole[i] = per_batch >> UNIT_BITS;
            s->part[i] = per_batch & (UNIT - 1);
        }
        most_urgent(s, left, batch_size);
        for (int64_t i = 0; i < num_streams; i++) {
            counts[i] += s->chosen[i];
            left -= s->chosen[i];
        }
    }
    while (left > 0) { /* only where repeat budgets bind: anyone who has room */
        int64_t before = left;
        for (int64_t i = 0; i < num_streams; i++)
            s->ranks[i] = (Rank){counts[i] * UNIT - s->due[i], i};
        qsort(s->ranks, num_streams, sizeof(Rank), by_key);
        for (int64_t j = 0; j < num_streams && left > 0; j++)
            if (counts[s->ranks[j].place] < s->room[s->ranks[j].place]) {
                counts[s->ranks[j].place]++;
                left--;
            }
        if (left == before)
            return; /* cannot happen: the room was checked */
    }
}

/* `deal` of ledger.py: splits (K,) totals into (L, K) counts; adds them to drawn. Returns whether it could. */
static int deal(Scratch *s, const int64_t *totals, int64_t *drawn, const int64_t *limits, int64_t lanes,
                int64_t lane_size, int64_t *counts)
{
    const int64_t num_streams = s->num_streams;
    int64_t *space = s->ahead; /* (L,) rows left in each lane; the scratch is as long as the larger of K and L */
    int64_t active = 0;
    for (int64_t lane = 0; lane < lanes; lane++)
        space[lane] = lane_size;
    memset(counts, 0, (size_t)(lanes * num_streams) * sizeof(int64_t));
    for (int64_t i = 0; i < num_streams; i++) {
        if (totals[i] == 0)
            continue;
        int64_t low = drawn[i], high = drawn[i];
        for (int64_t lane = 1; lane < lanes; lane++) {
            int64_t own = drawn[lane * num_streams + i];
            low = least(low, own);
            high = own > high ? own : high;
        }
        s->ranks[active++] = (Rank){low - high, i};
    }
    if (lanes > 1)
        qsort(s->ranks, active, sizeof(Rank), by_key);
    for (int64_t j = 0; j < active; j++) {
        int64_t i = s->ranks[j].place;
        for (int64_t left = totals[i]; left > 0; left--) {
            int64_t best = -1;
            for (int64_t lane = 0; lane < lanes; lane++) {
                int64_t at = lane * num_streams + i;
                if (space[lane] == 0 || drawn[at] >= limits[at])
                    continue;
                if (best < 0 || drawn[at] < drawn[best * num_streams + i] ||
                    (drawn[at] == drawn[best * num_streams + i] && space[lane] > space[best]))
                    best = lane;
            }
            if (best < 0)
                return 0;
            int64_t taken = lanes == 1 ? least(left, least(space[0], limits[i] - drawn[i])) : 1;
            space[best] -= taken;
            drawn[best * num_streams + i] += taken;
            counts[best * num_streams + i] += taken;
            left -= taken - 1;
        }
    }
    return 1;
}

/* draw(counts, owed, shares, drawn, limits, lane_limits, batch_size, lookahead) -> batches: see ledger.py */
static PyObject *draw(PyObject *self, PyObject *args)
{
    Py_buffer counts, owed_, shares_, drawn_, limits_, lane_limits_;
    Py_ssize_t most, lanes, num_streams;
    long long batch_size, lookahead;
    if (!PyArg_ParseTuple(args, "(nnn)w*y*y*y*y*y*LL", &most, &lanes, &num_streams, &counts, &owed_, &shares_, &drawn_,
                          &limits_, &lane_limits_, &batch_size, &lookahead))
        return NULL;
    const size_t long_side = (size_t)(num_streams > lanes ? num_streams : lanes);
    const size_t num_words = 10 * long_side + (size_t)lookahead + 2 + (size_t)(lanes * num_streams);
    int64_t *words = malloc(num_words * sizeof(int64_t));
    Rank *ranks = malloc(long_side * sizeof(Rank));
    char *flags = malloc(2 * long_side);
    Py_ssize_t batches = 0;
    if (!words || !ranks || !flags || !expect(&owed_, num_streams, 8, "owed") ||
        !expect(&shares_, num_streams, 8, "shares") || !expect(&drawn_, lanes * num_streams, 8, "drawn") ||
        !expect(&limits_, num_streams, 8, "limits") || !expect(&lane_limits_, lanes * num_streams, 8, "lane_limits") ||
        !expect(&counts, most * lanes * num_streams, 8, "counts")) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        batches = -1;
        goto end;
    }
    Scratch s = {num_streams,
                 lookahead,
                 words,
                 words + long_side,
                 words + 2 * long_side,
                 words + 3 * long_side,
                 words + 4 * long_side,
                 words + 5 * long_side,
                 words + 6 * long_side,
                 words + 10 * long_side,
                 flags,
                 flags + long_side,
                 ranks};
    int64_t *owed = words + 7 * long_side, *totals = words + 8 * long_side, *used = words + 9 * long_side;
    int64_t *drawn = words + 10 * long_side + lookahead + 2;
    const int64_t *shares = shares_.buf, *limits = limits_.buf;
    memcpy(owed, owed_.buf, (size_t)num_streams * sizeof(int64_t));
    memcpy(drawn, drawn_.buf, (size_t)(lanes * num_streams) * sizeof(int64_t));
    for (int64_t i = 0; i < num_streams; i++) {
        used[i] = 0;
        for (int64_t lane = 0; lane < lanes; lane++)
            used[i] += drawn[lane * num_streams + i];
    }
    for (; batches < most; batches++) {
        int64_t room = 0;
        for (int64_t i = 0; i < num_streams; i++) {
            s.room[i] = shares[i] > 0 || owed[i] > 0 ? limits[i] - used[i] : 0;
            room = least(room + least(s.room[i], batch_size), batch_size);
        }
        if (room < batch_size)
            break;
        apportion(&s, owed, shares, batch_size, totals);
        if (!deal(&s, totals, drawn, lane_limits_.buf, lanes, batch_size / lanes,
                  (int64_t *)counts.buf + batches * lanes * num_streams))
            break;
        for (int64_t i = 0; i < num_streams; i++) {
            owed[i] += shares[i] * batch_size - totals[i] * UNIT;
            used[i] += totals[i];
        }
    }
end:
    free(words);
    free(ranks);
    free(flags);
    PyBuffer_Release(&counts);
    PyBuffer_Release(&owed_);
    PyBuffer_Release(&shares_);
    PyBuffer_Release(&drawn_);
    PyBuffer_Release(&limits_);
    PyBuffer_Release(&lane_limits_);
    return batches < 0 ? NULL : PyLong_FromSsize_t(batches);
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

/* Tokens lie at any byte of a file, so their types know no alignment. */
typedef struct __attribute__((packed)) { uint8_t v; } u8;
typedef struct __attribute__((packed)) { uint16_t v; } u16;
typedef struct __attribute__((packed)) { uint32_t v; } u32;
typedef struct __attribute__((packed)) { int16_t v; } i16;
typedef struct __attribute__((packed)) { int32_t v; } i32;
typedef struct __attribute__((packed)) { int64_t v; } i64;

/* Copy a row to int64, twice if asked; return whether all tokens are in [0, limit). */
#define WIDEN(T)                                                                                                       \
    WIDE static int widen_##T(int64_t *restrict out, int64_t *restrict again, const T *restrict tokens,                \
                              int64_t length, uint64_t limit)                                                          \
    {                                                                                                                  \
        uint64_t outside = 0;                                                                                          \
        for (int64_t j = 0; j < length; j++) {                                                                         \
            int64_t token = (int64_t)tokens[j].v;                                                                      \
            out[j] = token;                                                                                            \
            outside |= (uint64_t)token >= limit;                                                                       \
        }                                                                                                              \
        if (again)                                                                                                     \
            memcpy(again, out, (size_t)length * sizeof(int64_t));                                                      \
        return !outside;                                                                                               \
    }
WIDEN(u8)
WIDEN(u16)
WIDEN(u32)
WIDEN(i16)
WIDEN(i32)
WIDEN(i64)

static int widen(int code, int64_t *out, int64_t *again, const char *tokens, int64_t length, uint64_t limit)
{
    switch (code) {
    case 0: return widen_u8(out, again, (const u8 *)tokens, length, limit);
    case 1: return widen_u16(out, again, (const u16 *)tokens, length, limit);
    case 2: return widen_u32(out, again, (const u32 *)tokens, length, limit);
    case 3: return widen_i16(out, again, (const i16 *)tokens, length, limit);
    case 4: return widen_i32(out, again, (const i32 *)tokens, length, limit);
    default: return widen_i64(out, again, (const i64 *)tokens, length, limit);
    }
}

static const int64_t ITEM_BYTES[] = {1, 2, 4, 2, 4, 8};

/* The shards of all streams, numbered through; what is open of them. Twin: TokenReader in reader.py. */
typedef struct {
    Py_buffer first_shard, starts, address, offsets, dtype, used;
    long long clock, parts, length;
} Table;

static int parse_table(PyObject *object, Table *table)
{
    return PyArg_ParseTuple(object, "y*y*y*y*y*w*LLL", &table->first_shard, &table->starts, &table->address,
                            &table->offsets, &table->dtype, &table->used, &table->clock, &table->parts,
                            &table->length);
}

static void release_table(Table *table)
{
    PyBuffer_Release(&table->first_shard);
    PyBuffer_Release(&table->starts);
    PyBuffer_Release(&table->address);
    PyBuffer_Release(&table->offsets);
    PyBuffer_Release(&table->dtype);
    PyBuffer_Release(&table->used);
}

/* Write the shard of each sample and, if all of them are open, the address of its tokens; return whether they are. */
static int locate(const Table *table, const int64_t *stream, const int64_t *sample, Py_ssize_t count, int64_t *shard,
                  const char **source)
{
    const int64_t *first_shard = table->first_shard.buf, *starts = table->starts.buf;
    const int64_t *address = table->address.buf, *offsets = table->offsets.buf;
    const uint8_t *dtype = table->dtype.buf;
    int64_t *used = table->used.buf;
    int all_open = 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t low = first_shard[stream[i]], high = first_shard[stream[i] + 1] - 1;
        int64_t place = starts[low] + sample[i];
        while (low < high) { /* the last shard that starts at the place or before it */
            int64_t middle = (low + high + 1) / 2;
            if (starts[middle] <= place)
                low = middle;
            else
                high = middle - 1;
        }
        shard[i] = low;
        used[low] = table->clock;
        if (!address[low]) {
            all_open = 0;
            continue;
        }
        int64_t row = place - starts[low];
        source[i] = (const char *)address[low] + ((const int64_t *)offsets[low])[row / table->parts] +
                    row % table->parts * table->length * ITEM_BYTES[dtype[low]];
    }
    return all_open;
}

#define CLOSED -2

/* gather(table, stream, sample, shard, out, again, limit): copy the tokens of samples to `out`, and to `again` where it
 * is not empty. Returns -1, or the first sample with a token out of range, or CLOSED where a shard is not open; writes
 * the shard of every sample. */
static PyObject *gather(PyObject *self, PyObject *args)
{
    Table table;
    PyObject *table_;
    Py_buffer stream, sample, shard, out_, again_;
    unsigned long long limit;
    if (!PyArg_ParseTuple(args, "Oy*y*w*w*w*K", &table_, &stream, &sample, &shard, &out_, &again_, &limit) ||
        !parse_table(table_, &table))
        return NULL;
    const Py_ssize_t count = stream.len / 8;
    const int64_t length = table.length;
    int64_t *out = out_.buf, *again = again_.len ? again_.buf : NULL;
    Py_ssize_t bad = -1;
    const char **source = malloc((size_t)count * sizeof(char *) + 1);
    if (!source)
        PyErr_NoMemory();
    else if (expect(&sample, count, 8, "sample") && expect(&shard, count, 8, "shard") &&
             expect(&out_, count * length, 8, "out") && (!again || expect(&again_, count * length, 8, "again"))) {
        if (!locate(&table, stream.buf, sample.buf, count, shard.buf, source))
            bad = CLOSED;
        else {
            const int64_t *own = shard.buf;
            const uint8_t *dtype = table.dtype.buf;
            Py_BEGIN_ALLOW_THREADS
            for (Py_ssize_t i = 0; i < count && bad < 0; i++) {
                for (int64_t j = 0; i + 1 < count && j < 1024; j += 64)
                    __builtin_prefetch(source[i + 1] + j);
                if (!widen(dtype[own[i]], out + i * length, again ? again + i * length : NULL, source[i], length,
                           limit))
                    bad = i;
            }
            Py_END_ALLOW_THREADS
        }
    }
    free(source);
    release_table(&table);
    PyBuffer_Release(&stream);
    PyBuffer_Release(&sample);
    PyBuffer_Release(&shard);
    PyBuffer_Release(&out_);
    PyBuffer_Release(&again_);
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(bad);
}

/* sources(table, stream, sample, shard, source): write the address of every sample's tokens; -1, or CLOSED as gather */
static PyObject *sources(PyObject *self, PyObject *args)
{
    Table table;
    PyObject *table_;
    Py_buffer stream, sample, shard, source;
    if (!PyArg_ParseTuple(args, "Oy*y*w*w*", &table_, &stream, &sample, &shard, &source) ||
        !parse_table(table_, &table))
        return NULL;
    int open = locate(&table, stream.buf, sample.buf, stream.len / 8, shard.buf, source.buf);
    release_table(&table);
    PyBuffer_Release(&stream);
    PyBuffer_Release(&sample);
    PyBuffer_Release(&shard);
    PyBuffer_Release(&source);
    return PyLong_FromLong(open ? -1 : CLOSED);
}

/* touch(source, size): read a byte of each page of `size` bytes from every address on, so that they are in memory */
static PyObject *touch(PyObject *self, PyObject *args)
{
    Py_buffer source_;
    long long size;
    if (!PyArg_ParseTuple(args, "y*L", &source_, &size))
        return NULL;
    const int64_t *source = source_.buf;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < source_.len / 8; i++) {
        const volatile char *bytes = (const volatile char *)source[i];
        for (int64_t j = 0; j < size; j += 4096)
            (void)bytes[j];
        (void)bytes[size - 1];
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&source_);
    Py_RETURN_NONE;
}

/* ---- memory maps that hold no file descriptor -------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    void *start;
    size_t size;
} Map;

static void map_free(Map *self)
{
    if (self->start)
        munmap(self->start, self->size);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int map_buffer(Map *self, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, (PyObject *)self, self->start, (Py_ssize_t)self->size, 1, flags);
}

static PyBufferProcs map_as_buffer = {(getbufferproc)map_buffer, NULL};

static PyTypeObject MapType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mixstream._kernels.Map",
    .tp_basicsize = sizeof(Map),
    .tp_dealloc = (destructor)map_free,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "A file's bytes, read-only, through the buffer protocol.",
    .tp_as_buffer = &map_as_buffer,
};

/* map_file(path, size) -> Map; OSError as open and mmap give it, or for a file that has another size now. */
static PyObject *map_file(PyObject *self, PyObject *args)
{
    PyObject *path;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "O&n", PyUnicode_FSConverter, &path, &size))
        return NULL;
    struct stat found;
    void *start = MAP_FAILED;
    int file = open(PyBytes_AS_STRING(path), O_RDONLY | O_CLOEXEC);
    int known = file >= 0 && fstat(file, &found) == 0;
    if (known && found.st_size == size)
        start = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, file, 0);
    Map *map = NULL;
    if (known && found.st_size != size)
        PyErr_Format(PyExc_OSError, "%zd bytes, expected %zd", (Py_ssize_t)found.st_size, size);
    else if (start == MAP_FAILED)
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, PyBytes_AS_STRING(path));
    else if ((map = PyObject_New(Map, &MapType))) {
        map->start = start;
        map->size = (size_t)size;
    }
    if (file >= 0)
        close(file);
    Py_DECREF(path);
    return (PyObject *)map;
}

static PyMethodDef methods[] = {
    {"window_rows", window_rows, METH_VARARGS, "Write the rows at places first, first + 1, ... of a shuffled window."},
    {"place", place, METH_VARARGS, "Deal the draws of each batch's lanes to its rows."},
    {"draw", draw, METH_VARARGS, "Apportion up to most batches; return how many."},
    {"gather", gather, METH_VARARGS, "Copy samples of open shards to int64."},
    {"sources", sources, METH_VARARGS, "Write the address of every sample's tokens."},
    {"touch", touch, METH_VARARGS, "Bring stretches of memory in, without the GIL."},
    {"map_file", map_file, METH_VARARGS, "Map a file of a known size."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "mixstream._kernels", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void)
{
    if (PyType_Ready(&MapType) < 0)
        return NULL;
    return PyModule_Create(&module);
}
