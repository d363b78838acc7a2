// Counts activations into histograms, as calib/histograms/kernels.py does on the CPU: the same counts, bit for bit.
//
// A batch is counted in rounds. `count` reads every value once, with the bin widths known so far, into tables in
// shared memory, and adds these to `fresh`; it finds the extremes meanwhile. `settle` then looks at the extremes: if
// all values had a bin, `fresh` is added to the counts. If not, the bins are widened, `fresh` is thrown away, and the
// next round counts that tensor again. After the first batches, one round is nearly always enough.
//
// Constants come from the compiler's command line, so that kernels.py alone says what they are: BINS, LOG2_BINS,
// MIN_EXPONENT, UNSET, INFINITY_KEY, NEGATIVE, POSITIVE, ABOVE, ZEROS, MIN_KEY, MAX_KEY, STARTED, STATE_SLOTS; and from
// the device: THREADS in a block, BLOCKS of a multiprocessor, SHARED_ROWS that fit into shared memory.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifndef WARP
#define WARP 32
#endif

#define ROWS 3
#define TILE (16 * THREADS)  // values; the blocks share the tiles of all tensors evenly
#define SMALLEST (-0x7fffffff - 1)
#define LARGEST 0x7fffffff

enum Mode { WHOLE, RECTIFIED, DROPPED };        // how a tensor is counted: as it is, clipped to [0, limit], not at all
enum Policy { REQUIRED, CLIP_REQUIRED, OPTIONAL };  // what NaN or infinity does: error, RECTIFIED, DROPPED
enum Verdict { DONE, AGAIN, NOT_FINITE };       // of a round

struct Tensor {      // of one batch
    const float *values;
    i64 size;        // values to count
    i64 first_tile;  // tiles of the tensors before it
    float limit;     // values above it have a row of their own; infinity for none
    int rows;        // 2 without a limit, 3 with one
    int policy;
    int unused;
};

struct State {                // of one tensor, kept between batches
    i64 slots[STATE_SLOTS];   // as kernels.py keeps them
    int mode;
    int verdict;
    u64 zeros;                // of this round, as are the extremes, which are order keys
    int low;
    int high;
};

struct Tally {  // of one thread
    float negative, positive, above, limit;  // bins per unit of each row, and the limit
    int low, high;
    u32 zeros;
};

__device__ float bins_per_unit(i64 exponent)
{
    int power = (int)(exponent > MIN_EXPONENT ? exponent : MIN_EXPONENT);  // at most 128 - LOG2_BINS
    return __int_as_float((127 - power) << 23);
}

// Count a value, without a branch: a warp whose threads part ways is slow. Equal values are not, zeros for instance,
// since the hardware adds up what a warp puts into one bin.
template <bool LIMITED, bool CLIPPED>
__device__ void add(float value, Tally &tally, u32 *table, u32 *beyond)
{
    if (CLIPPED)
        value = value < 0.0f ? 0.0f : (value > tally.limit ? tally.limit : value);  // NaN stays NaN
    int bits = __float_as_int(value);
    int key = bits ^ ((bits >> 31) & 0x7fffffff);  // -0.0 gives -1, which `settle` takes for 0
    tally.low = min(tally.low, key);
    tally.high = max(tally.high, key);
    tally.zeros += value == 0.0f;
    bool below = value < 0.0f, over = LIMITED && value > tally.limit;
    int row = below ? NEGATIVE : (over ? ABOVE : POSITIVE);
    float scale = below ? tally.negative : (over ? tally.above : tally.positive);
    // A value beyond the bins so far, or one that is not finite, may go anywhere: `settle` sees it in the extremes and
    // throws the counts of this round away.
    u32 bin = min((u32)(int)(fabsf(value) * scale), (u32)(BINS - 1));
    if (SHARED_ROWS >= ROWS || row < SHARED_ROWS)
        atomicAdd(table + row * BINS + bin, 1u);
    else
        atomicAdd(beyond + row * BINS + bin, 1u);
}

// Count the values from `start`, a multiple of 4, to `stop`.
template <bool LIMITED, bool CLIPPED>
__device__ void add_all(const float *values, i64 start, i64 stop, Tally &tally, u32 *table, u32 *beyond)
{
    const float4 *fours = (const float4 *)values;
    i64 i = start / 4 + threadIdx.x, whole = stop / 4;
    for (; i + 3 * THREADS < whole; i += 4 * THREADS) {  // four loads on their way before the first is used
        float4 loaded[4] = {fours[i], fours[i + THREADS], fours[i + 2 * THREADS], fours[i + 3 * THREADS]};
        for (int k = 0; k < 4; ++k) {
            add<LIMITED, CLIPPED>(loaded[k].x, tally, table, beyond);
            add<LIMITED, CLIPPED>(loaded[k].y, tally, table, beyond);
            add<LIMITED, CLIPPED>(loaded[k].z, tally, table, beyond);
            add<LIMITED, CLIPPED>(loaded[k].w, tally, table, beyond);
        }
    }
    for (i64 k = 4 * (i - threadIdx.x) + threadIdx.x; k < stop; k += THREADS)  // less than a tile
        add<LIMITED, CLIPPED>(values[k], tally, table, beyond);
}

// Whether a round counts a tensor: the first counts all, further ones those that were not done.
__device__ bool is_wanted(const Tensor &tensor, const State &state, int again)
{
    return tensor.size > 0 && state.mode != DROPPED && (!again || state.verdict == AGAIN);
}

// The last tensor that begins at this tile or before it.
__device__ int tensor_at(const Tensor *tensors, int count, i64 tile)
{
    int low = 0, high = count - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (tensors[middle].first_tile <= tile)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

// `tensors` has one entry more than there are tensors, which holds the number of all tiles.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
count(const Tensor *tensors, int tensor_count, State *states, u32 *fresh, int again)
{
    extern __shared__ u32 table[];
    for (int i = threadIdx.x; i < SHARED_ROWS * BINS; i += THREADS)
        table[i] = 0;
    __syncthreads();
    i64 tiles = tensors[tensor_count].first_tile;
    i64 tile = tiles * blockIdx.x / gridDim.x, end = tiles * (blockIdx.x + 1) / gridDim.x;
    int t = tensor_at(tensors, tensor_count, tile);
    for (; tile < end; ++t) {
        const Tensor tensor = tensors[t];
        i64 stop_tile = min(end, tensors[t + 1].first_tile), start_tile = tile;
        tile = stop_tile;
        State *state = states + t;
        if (start_tile == stop_tile || !is_wanted(tensor, *state, again))
            continue;
        u32 *own = fresh + (i64)t * ROWS * BINS;
        Tally tally;
        tally.negative = bins_per_unit(state->slots[NEGATIVE]);
        tally.positive = bins_per_unit(state->slots[POSITIVE]);
        tally.above = bins_per_unit(state->slots[ABOVE]);
        tally.limit = tensor.limit;
        tally.low = LARGEST;
        tally.high = SMALLEST;
        tally.zeros = 0;

        i64 start = (start_tile - tensor.first_tile) * TILE;
        i64 stop = min((stop_tile - tensor.first_tile) * TILE, tensor.size);
        if (state->mode == RECTIFIED)
            add_all<true, true>(tensor.values, start, stop, tally, table, own);
        else if (tensor.rows > ABOVE)
            add_all<true, false>(tensor.values, start, stop, tally, table, own);
        else
            add_all<false, false>(tensor.values, start, stop, tally, table, own);

        for (int offset = WARP / 2; offset; offset /= 2) {
            tally.low = min(tally.low, __shfl_xor_sync(0xffffffffu, tally.low, offset));
            tally.high = max(tally.high, __shfl_xor_sync(0xffffffffu, tally.high, offset));
            tally.zeros += __shfl_xor_sync(0xffffffffu, tally.zeros, offset);
        }
        if (threadIdx.x % WARP == 0) {
            atomicMin(&state->low, tally.low);
            atomicMax(&state->high, tally.high);
            atomicAdd(&state->zeros, (u64)tally.zeros);
        }
        __syncthreads();  // all values are in the table
        for (int k = threadIdx.x; k < tensor.rows * BINS && k < SHARED_ROWS * BINS; k += THREADS) {
            u32 found = table[k];
            if (found) {
                atomicAdd(own + k, found);
                table[k] = 0;
            }
        }
        __syncthreads();
    }
}

// The exponent of bins that hold a magnitude with these bits; UNSET where there is none.
__device__ i64 exponent_for(int largest)
{
    if (largest <= 0)
        return UNSET;
    int exponent = (largest >> 23) - 126 - LOG2_BINS;
    return exponent > MIN_EXPONENT ? exponent : MIN_EXPONENT;
}

// Double the width of a row's bins: each is the sum of two. All threads of the block take part.
__device__ void fold(i64 *row)
{
    for (int start = 0; start < BINS / 2; start += THREADS) {
        int i = start + threadIdx.x;
        i64 sum = i < BINS / 2 ? row[2 * i] + row[2 * i + 1] : 0;
        __syncthreads();  // what is written now was read before, and what is read later is not written yet
        if (i < BINS / 2)
            row[i] = sum;
        __syncthreads();
    }
    for (int i = BINS / 2 + threadIdx.x; i < BINS; i += THREADS)
        row[i] = 0;
    __syncthreads();
}

// One block for each tensor.
extern "C" __global__ void __launch_bounds__(THREADS)
settle(const Tensor *tensors, State *states, u32 *fresh, i64 *counts, int again)
{
    int t = blockIdx.x;
    const Tensor tensor = tensors[t];
    State *state = states + t;
    if (!is_wanted(tensor, *state, again))
        return;
    u32 *own = fresh + (i64)t * ROWS * BINS;
    i64 *kept = counts + (i64)t * ROWS * BINS;
    int low = state->low == -1 ? 0 : state->low, high = state->high == -1 ? 0 : state->high, mode = state->mode;
    u64 zeros = state->zeros;
    i64 before[ROWS], needed[ROWS];
    int limit_key = __float_as_int(tensor.limit);
    needed[NEGATIVE] = exponent_for(low < 0 ? (low ^ 0x7fffffff) & 0x7fffffff : 0);
    needed[POSITIVE] = exponent_for(min(high, limit_key));
    needed[ABOVE] = exponent_for(high > limit_key ? high : 0);
    bool wider = false;
    for (int row = 0; row < ROWS; ++row) {
        before[row] = state->slots[row];
        wider = wider || needed[row] > before[row];
    }
    __syncthreads();  // every thread has read the state

    bool finite = high < INFINITY_KEY && low > -INFINITY_KEY - 1;
    bool keep = finite && !wider;
    for (int i = threadIdx.x; i < tensor.rows * BINS; i += THREADS) {
        if (keep)
            kept[i] += own[i];
        own[i] = 0;
    }
    __syncthreads();
    for (int row = 0; finite && row < tensor.rows; ++row)  // a row of nothing but zeros fits any width
        for (i64 step = before[row]; step != UNSET && step < needed[row]; ++step)
            fold(kept + row * BINS);
    if (threadIdx.x)
        return;
    state->low = LARGEST;
    state->high = SMALLEST;
    state->zeros = 0;
    if (keep) {
        state->slots[ZEROS] += zeros;
        bool first = !state->slots[STARTED];
        state->slots[MIN_KEY] = first || low < state->slots[MIN_KEY] ? low : state->slots[MIN_KEY];
        state->slots[MAX_KEY] = first || high > state->slots[MAX_KEY] ? high : state->slots[MAX_KEY];
        state->slots[STARTED] = 1;
        state->verdict = DONE;
    } else if (finite) {
        for (int row = 0; row < ROWS; ++row)
            state->slots[row] = needed[row] > before[row] ? needed[row] : before[row];
        state->verdict = AGAIN;
    } else if (mode == RECTIFIED || tensor.policy == REQUIRED) {
        state->verdict = NOT_FINITE;
    } else {
        state->mode = tensor.policy == CLIP_REQUIRED ? RECTIFIED : DROPPED;
        state->verdict = tensor.policy == CLIP_REQUIRED ? AGAIN : DONE;
    }
}
