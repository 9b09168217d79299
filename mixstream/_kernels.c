/* The inner loops of the mixture engine.
 *
 * Each of them has a twin in Python, which says what is computed and why, and which the tests hold equal to it:
 * draw (mixture/ledger.py), window_rows (loader/order.py), place (loader/batches.py), gather (loader/reader.py).
 * Without a compiler the twins do the work. Arrays are C-contiguous; K streams, L lanes, n batches or rows.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
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

/* Python allocates all arrays and so decides their sizes; a wrong one is refused before anything is written. */
static int expect(const Py_buffer *array, int64_t count, const char *name)
{
    if (array->len == count * 8)
        return 1;
    PyErr_Format(PyExc_ValueError, "%s has %zd bytes, expected %lld of 8", name, array->len, (long long)count);
    return 0;
}

static int refuse(const char *found)
{
    PyErr_SetString(PyExc_ValueError, found);
    return 0;
}

/* Whether counts can have this shape: sizes whose product is far from the end of 64 bits. */
static int is_shape(Py_ssize_t num_batches, Py_ssize_t lanes, Py_ssize_t num_streams)
{
    const Py_ssize_t most = 1 << 20;
    if (0 <= num_batches && num_batches <= most && 0 < lanes && lanes <= most && 0 < num_streams && num_streams <= most)
        return 1;
    return refuse("no shape of counts (batches, lanes, streams)");
}

static void release(Py_buffer *const *arrays, int count)
{
    for (int i = 0; i < count; i++)
        PyBuffer_Release(arrays[i]);
}

#define RELEASE(...)                                                                                                   \
    release((Py_buffer *const[]){__VA_ARGS__}, (int)(sizeof((Py_buffer *const[]){__VA_ARGS__}) / sizeof(Py_buffer *)))

static PyObject *none_or_error(void)
{
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
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

/* The piece of a window that a place lies in: the first that ends behind it. */
static Py_ssize_t piece_of(int64_t place, const int64_t *ends, Py_ssize_t pieces)
{
    Py_ssize_t low = 0, high = pieces - 1;
    while (low < high) {
        Py_ssize_t middle = (low + high) / 2;
        if (place < ends[middle])
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* window_rows(rows, first, size, a, b, key, ends, shifts). Twin: Window._permuted in order.py. */
static PyObject *window_rows(PyObject *self, PyObject *args)
{
    Py_buffer rows, ends, shifts;
    unsigned long long first, size, a, b, key;
    if (!PyArg_ParseTuple(args, "w*KKKKKy*y*", &rows, &first, &size, &a, &b, &key, &ends, &shifts))
        return NULL;
    int64_t *out = rows.buf;
    const int64_t count = rows.len / 8, pieces = ends.len / 8;
    const int is_grid = !(a >> 32) && !(b >> 32) && size <= a * b;
    if (!is_grid || pieces == 0 || first > size || (uint64_t)count > size - first)
        refuse("places outside the window, or a window outside its grid");
    else if (expect(&rows, count, "rows") && expect(&shifts, pieces, "shifts"))
        for (int64_t i = 0; i < count; i++) {
            uint64_t place = first + (uint64_t)i;
            do
                place = feistel(place, a, b, key);
            while (place >= size);
            out[i] = (int64_t)place + ((const int64_t *)shifts.buf)[piece_of((int64_t)place, ends.buf, pieces)];
        }
    RELEASE(&rows, &ends, &shifts);
    return none_or_error();
}

/* Write a batch's draws of one lane, in random order: Fisher and Yates's shuffle. */
static void shuffle_streams(int64_t *stream, const int64_t *counts, int64_t num_streams, uint64_t key)
{
    int64_t size = 0;
    for (int64_t i = 0; i < num_streams; i++)
        for (int64_t k = 0; k < counts[i]; k++)
            stream[size++] = i;
    for (int64_t j = size - 1; j > 0; j--) {
        int64_t other = (int64_t)below(mix((uint64_t)j, key), (uint64_t)j + 1), kept = stream[j];
        stream[j] = stream[other];
        stream[other] = kept;
    }
}

/* Whether every lane and stream has as many rows, from its cursor on, as all batches draw of it. */
static int fits(const Py_buffer *counts, const Py_buffer *cursors, int64_t num_batches, int64_t deals,
                int64_t num_draws)
{
    const int64_t *count = counts->buf, *cursor = cursors->buf;
    int64_t left = num_draws;
    for (int64_t at = 0; at < deals; at++) {
        int64_t total = 0;
        for (int64_t batch = 0; batch < num_batches; batch++) {
            int64_t own = count[batch * deals + at];
            if (own < 0 || own > left)
                return refuse("counts do not add up to the draws");
            total += own;
            left -= own;
        }
        if (total && (cursor[at] < 0 || cursor[at] > num_draws - total))
            return refuse("a cursor is beyond the rows");
    }
    return left == 0 || refuse("counts do not add up to the draws");
}

/* place(shape, counts, cursors, rows, repeats, first_batch, key, stream, sample, repeat): deals the draws of every
 * batch and lane to its rows; the cursors move. Twin: place_slowly in batches.py. */
static PyObject *place(PyObject *self, PyObject *args)
{
    Py_buffer counts, cursors, rows, repeats, streams, samples, repeated;
    unsigned long long first_batch, key;
    Py_ssize_t num_batches, lanes, num_streams;
    if (!PyArg_ParseTuple(args, "(nnn)y*w*y*y*KKw*w*w*", &num_batches, &lanes, &num_streams, &counts, &cursors, &rows,
                          &repeats, &first_batch, &key, &streams, &samples, &repeated))
        return NULL;
    const int64_t num_draws = rows.len / 8;
    if (is_shape(num_batches, lanes, num_streams) && expect(&counts, num_batches * lanes * num_streams, "counts") &&
        expect(&cursors, lanes * num_streams, "cursors") && expect(&rows, num_draws, "rows") &&
        expect(&repeats, num_draws, "repeats") && expect(&streams, num_draws, "stream") &&
        expect(&samples, num_draws, "sample") && expect(&repeated, num_draws, "repeat") &&
        fits(&counts, &cursors, num_batches, lanes * num_streams, num_draws)) {
        const int64_t *count = counts.buf, *row = rows.buf, *again = repeats.buf;
        int64_t *cursor = cursors.buf, *stream = streams.buf, *sample = samples.buf, *repeat = repeated.buf, done = 0;
        for (Py_ssize_t deal = 0; deal < num_batches * lanes; deal++, count += num_streams) {
            int64_t *next = cursor + deal % lanes * num_streams, end = done;
            for (Py_ssize_t i = 0; i < num_streams; i++)
                end += count[i];
            shuffle_streams(stream + done, count, num_streams, mix(first_batch * (uint64_t)lanes + (uint64_t)deal, key));
            for (; done < end; done++) {
                int64_t at = next[stream[done]]++;
                sample[done] = row[at];
                repeat[done] = again[at];
            }
        }
    }
    RELEASE(&counts, &cursors, &rows, &repeats, &streams, &samples, &repeated);
    return none_or_error();
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
    int64_t *due, *room, *rest, *part, *whole, *ahead, *ahead_whole, *space, *chain, *lacking;
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
    const uint64_t bias = (uint64_t)1 << 63; /* makes floors of negative numbers plain shifts: AVX2 has no other */
    int64_t *restrict ahead = s->ahead, *restrict whole = s->ahead_whole;
    const int64_t *restrict part = s->part, *restrict each = s->whole;
    const int64_t num_streams = s->num_streams;
    for (int64_t h = start; h < end; h++) {
        int64_t total = 0;
        for (int64_t i = 0; i < num_streams; i++) {
            ahead[i] += part[i];
            whole[i] += each[i];
            int64_t due = whole[i] + (int64_t)(((uint64_t)ahead[i] + bias) >> UNIT_BITS) - (int64_t)(bias >> UNIT_BITS);
            total += due > 0 ? due : 0;
        }
        s->lacking[h - start] = total - h * batch_size;
    }
}

static int is_due(const Scratch *s, int64_t i, int64_t h)
{
    return h * s->whole[i] + ((s->rest[i] + h * s->part[i]) >> UNIT_BITS) > 0;
}

/* Mark as first, of those due within h batches, as many as these could not serve; at most `most`. Return how many. */
static int64_t put_first(Scratch *s, int64_t candidates, int64_t h, int64_t lacking, int64_t most)
{
    int64_t marked = 0;
    for (int64_t i = 0; i < s->num_streams; i++)
        lacking -= s->first[i] && is_due(s, i, h);
    const int64_t need = least(lacking, most);
    if (need > 0)
        qsort(s->ranks, (size_t)candidates, sizeof(Rank), by_key);
    for (int64_t j = 0; j < candidates && marked < need; j++) {
        int64_t i = s->ranks[j].place;
        if (!s->first[i] && is_due(s, i, h)) {
            s->first[i] = 1;
            marked++;
        }
    }
    return marked;
}

/* Whether streams are a draw or more ahead after `batches` more, all together: they may still fall due too many. */
static int is_any_ahead(const Scratch *s, int64_t batches)
{
    int64_t ahead = 0;
    for (int64_t i = 0; i < s->num_streams && ahead < UNIT; i++) {
        int64_t after = s->rest[i] - (s->chosen[i] ? UNIT : 0) + batches * s->part[i];
        if (s->whole[i] == 0 && after < 0)
            ahead = after <= -UNIT ? UNIT : ahead - after;
    }
    return ahead >= UNIT;
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
        for (int64_t h = start; h < end; h++)
            if (s->lacking[h - start] > 0)
                firsts += put_first(s, candidates, h, s->lacking[h - start], number - firsts);
        fill(s, candidates, number);
        if (!is_any_ahead(s, end - 1))
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

/* Make room for a draw of stream i, which may go to full lanes only: along a chain of lanes, each gives a draw of this
 * batch to the next, the last to a lane with rows left. Return the first lane of the chain, or -1: there is none. */
static int64_t make_room(int64_t i, int64_t *space, int64_t *drawn, const int64_t *limits, int64_t lanes,
                         int64_t num_streams, int64_t *counts, int64_t *queue)
{
    int64_t *from = queue + lanes, *moved = from + lanes; /* (L,) the lane before in the chain, what it gives */
    int64_t end = 0;
    for (int64_t lane = 0; lane < lanes; lane++) {
        const int is_first = drawn[lane * num_streams + i] < limits[lane * num_streams + i];
        from[lane] = is_first ? lane : -1;
        if (is_first)
            queue[end++] = lane;
    }
    for (int64_t next = 0; next < end; next++) {
        const int64_t lane = queue[next];
        for (int64_t other = 0; other < lanes; other++) {
            int64_t j = 0;
            while (from[other] < 0 && j < num_streams &&
                   (!counts[lane * num_streams + j] || drawn[other * num_streams + j] >= limits[other * num_streams + j]))
                j++;
            if (from[other] >= 0 || j == num_streams)
                continue;
            from[other] = lane;
            moved[other] = j;
            queue[end++] = other;
            if (!space[other])
                continue;
            int64_t at = other;
            for (space[at]--; from[at] != at; at = from[at]) {
                drawn[at * num_streams + moved[at]]++;
                counts[at * num_streams + moved[at]]++;
                drawn[from[at] * num_streams + moved[at]]--;
                counts[from[at] * num_streams + moved[at]]--;
            }
            space[at]++;
            return at;
        }
    }
    return -1;
}

/* The lane that has drawn least of stream i, of those with rows left and within limits; -1: there is none. */
static int64_t least_drawn(int64_t i, const int64_t *space, const int64_t *drawn, const int64_t *limits, int64_t lanes,
                           int64_t num_streams)
{
    int64_t best = -1, fewest = 0;
    for (int64_t lane = 0; lane < lanes; lane++) {
        const int64_t own = drawn[lane * num_streams + i];
        if (space[lane] == 0 || own >= limits[lane * num_streams + i])
            continue;
        if (best < 0 || own < fewest || (own == fewest && space[lane] > space[best])) {
            best = lane;
            fewest = own;
        }
    }
    return best;
}

/* Rank the streams that are drawn: those whose lanes are furthest apart first. Return how many there are. */
static int64_t rank_by_spread(Scratch *s, const int64_t *totals, const int64_t *drawn, int64_t lanes)
{
    int64_t active = 0;
    for (int64_t i = 0; i < s->num_streams; i++) {
        if (totals[i] == 0)
            continue;
        int64_t low = drawn[i], high = drawn[i];
        for (int64_t lane = 1; lane < lanes; lane++) {
            int64_t own = drawn[lane * s->num_streams + i];
            low = least(low, own);
            high = own > high ? own : high;
        }
        s->ranks[active++] = (Rank){low - high, i};
    }
    if (lanes > 1)
        qsort(s->ranks, (size_t)active, sizeof(Rank), by_key);
    return active;
}

/* `deal` of lanes.py: splits (K,) totals into (L, K) counts; adds them to drawn. Returns whether it could. */
static int deal(Scratch *s, const int64_t *totals, int64_t *drawn, const int64_t *limits, int64_t lanes,
                int64_t lane_size, int64_t *counts)
{
    const int64_t num_streams = s->num_streams;
    int64_t *space = s->space; /* (L,) rows left in each lane */
    for (int64_t lane = 0; lane < lanes; lane++)
        space[lane] = lane_size;
    memset(counts, 0, (size_t)(lanes * num_streams) * sizeof(int64_t));
    const int64_t active = rank_by_spread(s, totals, drawn, lanes);
    for (int64_t j = 0; j < active; j++) {
        const int64_t i = s->ranks[j].place;
        for (int64_t left = totals[i]; left > 0;) {
            int64_t lane = least_drawn(i, space, drawn, limits, lanes, num_streams);
            if (lane < 0)
                lane = make_room(i, space, drawn, limits, lanes, num_streams, counts, s->chain);
            if (lane < 0)
                return 0;
            const int64_t at = lane * num_streams + i;
            const int64_t taken = lanes == 1 ? least(left, least(space[0], limits[i] - drawn[i])) : 1;
            space[lane] -= taken;
            drawn[at] += taken;
            counts[at] += taken;
            left -= taken;
        }
    }
    return 1;
}

/* Point a scratch into memory of its own; return that, or NULL with an error. */
static void *open_scratch(Scratch *s, int64_t num_streams, int64_t lanes, int64_t lookahead)
{
    const size_t side = (size_t)num_streams, horizons = (size_t)lookahead + 16;
    const size_t num_words = 7 * side + 4 * (size_t)lanes + horizons;
    int64_t *words = malloc(num_words * sizeof(int64_t) + side * (sizeof(Rank) + 2));
    if (!words) {
        PyErr_NoMemory();
        return NULL;
    }
    int64_t **const rows[] = {&s->due, &s->room, &s->rest, &s->part, &s->whole, &s->ahead, &s->ahead_whole};
    s->num_streams = num_streams;
    s->lookahead = lookahead;
    for (size_t i = 0; i < 7; i++)
        *rows[i] = words + i * side;
    s->space = words + 7 * side;
    s->chain = s->space + lanes;
    s->lacking = s->chain + 3 * lanes;
    s->ranks = (Rank *)(s->lacking + horizons);
    s->first = (char *)(s->ranks + side);
    s->chosen = s->first + side;
    return words;
}

/* An account that moves on as batches are drawn. */
typedef struct {
    int64_t lanes, batch_size;
    int64_t *owed, *used, *drawn, *totals;     /* (K,), (K,), (L, K), (K,) */
    const int64_t *shares, *limits, *lane_limits; /* (K,), (K,), (L, K) */
} Account;

/* Note how many draws each stream may still give; return whether a batch can be filled. */
static int find_room(Scratch *s, const Account *a)
{
    int64_t room = 0;
    for (int64_t i = 0; i < s->num_streams; i++) {
        int64_t own = a->shares[i] > 0 || a->owed[i] > 0 ? a->limits[i] - a->used[i] : 0;
        s->room[i] = own > 0 ? own : 0;
        room += least(s->room[i], a->batch_size);
    }
    return room >= a->batch_size;
}

/* Draw a batch into (L, K) counts and move the account on; return whether there was one. */
static int draw_batch(Scratch *s, Account *a, int64_t *counts)
{
    if (!find_room(s, a))
        return 0;
    apportion(s, a->owed, a->shares, a->batch_size, a->totals);
    if (!deal(s, a->totals, a->drawn, a->lane_limits, a->lanes, a->batch_size / a->lanes, counts))
        return 0;
    for (int64_t i = 0; i < s->num_streams; i++) {
        a->owed[i] += a->shares[i] * a->batch_size - a->totals[i] * UNIT;
        a->used[i] += a->totals[i];
    }
    return 1;
}

/* draw(shape, counts, owed, shares, used, drawn, totals, limits, lane_limits, batch_size, lookahead): writes the draws
 * of up to shape[0] batches and returns how many there were; owed, used and drawn move on, totals is room to work in.
 * Twin: draw_slowly in ledger.py. */
static PyObject *draw(PyObject *self, PyObject *args)
{
    Py_buffer counts, owed, shares, used, drawn, totals, limits, lane_limits;
    Py_ssize_t most, lanes, num_streams, batches = 0;
    long long batch_size, lookahead;
    if (!PyArg_ParseTuple(args, "(nnn)w*w*y*w*w*w*y*y*LL", &most, &lanes, &num_streams, &counts, &owed, &shares, &used,
                          &drawn, &totals, &limits, &lane_limits, &batch_size, &lookahead))
        return NULL;
    Scratch scratch;
    void *memory = NULL;
    if (batch_size < 1 || batch_size > 1 << 20 || lookahead < 0 || lookahead > 1 << 20)
        refuse("batch_size or lookahead out of range");
    else if (is_shape(most, lanes, num_streams) && expect(&counts, most * lanes * num_streams, "counts") &&
             expect(&owed, num_streams, "owed") && expect(&shares, num_streams, "shares") &&
             expect(&used, num_streams, "used") && expect(&drawn, lanes * num_streams, "drawn") &&
             expect(&totals, num_streams, "totals") && expect(&limits, num_streams, "limits") &&
             expect(&lane_limits, lanes * num_streams, "lane_limits"))
        memory = open_scratch(&scratch, num_streams, lanes, lookahead);
    if (memory) {
        Account account = {lanes,      batch_size, owed.buf,       used.buf, drawn.buf, totals.buf,
                           shares.buf, limits.buf, lane_limits.buf};
        int64_t *own = counts.buf;
        for (; batches < most && draw_batch(&scratch, &account, own); batches++)
            own += lanes * num_streams;
        free(memory);
    }
    RELEASE(&counts, &owed, &shares, &used, &drawn, &totals, &limits, &lane_limits);
    return memory ? PyLong_FromSsize_t(batches) : NULL;
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

/* Not in a tuple of its own: PyArg_ParseTuple cannot release the buffers of a nested one. */
#define TABLE "y*y*y*y*y*w*LLL"
#define TABLE_FIELDS(t)                                                                                                \
    &(t).first_shard, &(t).starts, &(t).address, &(t).offsets, &(t).dtype, &(t).used, &(t).clock, &(t).parts, &(t).length

/* Whether the table's arrays belong together, for K streams of S shards. */
static int check_table(const Table *table)
{
    const int64_t num_shards = table->dtype.len, last = table->first_shard.len / 8 - 1;
    if (table->parts < 1 || table->length < 1 || last < 0 ||
        ((const int64_t *)table->first_shard.buf)[last] != num_shards)
        return refuse("parts, length or first_shard do not fit the shards");
    return expect(&table->starts, num_shards + 1, "starts") && expect(&table->address, num_shards, "address") &&
           expect(&table->offsets, num_shards, "offsets") && expect(&table->used, num_shards, "used");
}

static void release_table(Table *table)
{
    RELEASE(&table->first_shard, &table->starts, &table->address, &table->offsets, &table->dtype, &table->used);
}

/* Return the shard that a sample lies in, the last that starts at its place or before it; -1: there is no such sample.
 */
static int64_t shard_of(const Table *table, int64_t stream, int64_t sample)
{
    const int64_t *first_shard = table->first_shard.buf, *starts = table->starts.buf;
    if (stream < 0 || stream >= table->first_shard.len / 8 - 1)
        return -1;
    int64_t low = first_shard[stream], high = first_shard[stream + 1];
    if (low < 0 || high > (int64_t)table->dtype.len || low >= high || sample < 0 ||
        sample >= starts[high] - starts[low])
        return -1;
    int64_t place = starts[low] + sample;
    for (high--; low < high;) {
        int64_t middle = (low + high + 1) / 2;
        if (starts[middle] <= place)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

#define CLOSED -2
#define WRONG -3

/* Write the shard of each sample and, of those that are open, the address of its tokens. Return -1, or CLOSED where some
 * are not, or WRONG with an error. */
static int locate(const Table *table, const int64_t *stream, const int64_t *sample, Py_ssize_t count, int64_t *shard,
                  const char **source)
{
    const int64_t *first_shard = table->first_shard.buf, *starts = table->starts.buf;
    const int64_t *address = table->address.buf, *offsets = table->offsets.buf;
    const uint8_t *dtype = table->dtype.buf;
    int64_t *used = table->used.buf;
    int found = -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t own = shard_of(table, stream[i], sample[i]);
        if (own < 0 || dtype[own] >= sizeof(ITEM_BYTES) / sizeof(ITEM_BYTES[0])) {
            PyErr_Format(PyExc_IndexError, "stream %lld has no sample %lld", (long long)stream[i],
                         (long long)sample[i]);
            return WRONG;
        }
        shard[i] = own;
        used[own] = table->clock;
        if (address[own]) {
            int64_t row = starts[first_shard[stream[i]]] + sample[i] - starts[own];
            source[i] = (const char *)address[own] + ((const int64_t *)offsets[own])[row / table->parts] +
                        row % table->parts * table->length * ITEM_BYTES[dtype[own]];
        } else
            found = CLOSED;
    }
    return found;
}
/* Copy the tokens of samples to (n, length) arrays; return the first with a token out of range, or -1. */
static Py_ssize_t widen_all(const Table *table, const char *const *source, const int64_t *shard, Py_ssize_t count,
                            int64_t *out, int64_t *again, uint64_t limit)
{
    const uint8_t *dtype = table->dtype.buf;
    const int64_t length = table->length;
    for (Py_ssize_t i = 0; i < count; i++) {
        for (int64_t j = 0; i + 1 < count && j < 1024; j += 64)
            __builtin_prefetch(source[i + 1] + j);
        if (!widen(dtype[shard[i]], out + i * length, again ? again + i * length : NULL, source[i], length, limit))
            return i;
    }
    return -1;
}

/* gather(*table, stream, sample, shard, out, again, limit): copies the tokens of samples to `out`, and to `again` where
 * that is not empty; writes the shard of every sample. Returns -1, or the first sample with a token out of range, or
 * CLOSED where a shard is not open. Twin: TokenReader._gather in reader.py. */
static PyObject *gather(PyObject *self, PyObject *args)
{
    Table table;
    Py_buffer stream, sample, shard, out, again;
    unsigned long long limit;
    if (!PyArg_ParseTuple(args, TABLE "y*y*w*w*w*K", TABLE_FIELDS(table), &stream, &sample, &shard, &out, &again,
                          &limit))
        return NULL;
    const Py_ssize_t count = stream.len / 8;
    Py_ssize_t found = WRONG;
    const char **source = malloc((size_t)count * sizeof(char *) + 1);
    if (!source)
        PyErr_NoMemory();
    else if (check_table(&table) && expect(&stream, count, "stream") && expect(&sample, count, "sample") &&
             expect(&shard, count, "shard") && expect(&out, count * table.length, "out") &&
             (!again.len || expect(&again, count * table.length, "again")))
        found = locate(&table, stream.buf, sample.buf, count, shard.buf, source);
    if (found == -1) {
        Py_BEGIN_ALLOW_THREADS
        found = widen_all(&table, source, shard.buf, count, out.buf, again.len ? again.buf : NULL, limit);
        Py_END_ALLOW_THREADS
    }
    free(source);
    release_table(&table);
    RELEASE(&stream, &sample, &shard, &out, &again);
    return found == WRONG ? NULL : PyLong_FromSsize_t(found);
}

/* sources(*table, stream, sample, shard, source): writes the address of every sample's tokens; -1, or CLOSED as gather */
static PyObject *sources(PyObject *self, PyObject *args)
{
    Table table;
    Py_buffer stream, sample, shard, source;
    if (!PyArg_ParseTuple(args, TABLE "y*y*w*w*", TABLE_FIELDS(table), &stream, &sample, &shard, &source))
        return NULL;
    const Py_ssize_t count = stream.len / 8;
    int found = WRONG;
    if (check_table(&table) && expect(&stream, count, "stream") && expect(&sample, count, "sample") &&
        expect(&shard, count, "shard") && expect(&source, count, "source"))
        found = locate(&table, stream.buf, sample.buf, count, shard.buf, source.buf);
    release_table(&table);
    RELEASE(&stream, &sample, &shard, &source);
    return found == WRONG ? NULL : PyLong_FromLong(found);
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
    for (Py_ssize_t i = 0; size > 0 && i < source_.len / 8; i++) {
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

/* Map a file read-only if it has the size; errno tells why not, or 0: it has another size, which is written. */
static void *map_whole(const char *path, int64_t *size)
{
    struct stat found;
    void *start = MAP_FAILED;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return start;
    int problem = fstat(file, &found) == 0 ? 0 : errno;
    if (!problem && found.st_size == *size) {
        start = mmap(NULL, (size_t)*size, PROT_READ, MAP_SHARED, file, 0);
        problem = start == MAP_FAILED ? errno : 0;
    } else if (!problem)
        *size = found.st_size;
    close(file);
    errno = problem;
    return start;
}

/* map_file(path, size) -> Map; OSError as open and mmap give it, or for a file that has another size now. */
static PyObject *map_file(PyObject *self, PyObject *args)
{
    PyObject *path;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "O&n", PyUnicode_FSConverter, &path, &size))
        return NULL;
    Map *map = PyObject_New(Map, &MapType);
    if (map) {
        int64_t found = size;
        void *start;
        Py_BEGIN_ALLOW_THREADS
        start = map_whole(PyBytes_AS_STRING(path), &found);
        Py_END_ALLOW_THREADS
        map->start = start == MAP_FAILED ? NULL : start;
        map->size = (size_t)size;
        if (!map->start) {
            if (found != size)
                PyErr_Format(PyExc_OSError, "%lld bytes, expected %zd", (long long)found, size);
            else
                PyErr_SetFromErrnoWithFilename(PyExc_OSError, PyBytes_AS_STRING(path));
            Py_CLEAR(map);
        }
    }
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
