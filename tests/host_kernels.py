"""The kernels of counting.cu compiled for the processor: the same code, with threads of the host in place of a GPU's.

A block's threads run at the same time and wait for each other at barriers, blocks one after the other. Memory is that
of `tests.host_cuda`.
"""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from quant.cuda.counting_kernels import SOURCE, Shape

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
SHIM = r"""
#include <math.h>
#include <pthread.h>
#include <string.h>
#define WARP 1
#define __device__ static inline
#define __global__
#define __shared__
#define __launch_bounds__(...)
struct Place { int x; };
static thread_local Place threadIdx;
static Place blockIdx, gridDim;
static pthread_barrier_t barrier;
static void __syncthreads() { pthread_barrier_wait(&barrier); }
struct float4 { float x, y, z, w; };
static int __float_as_int(float value) { int bits; memcpy(&bits, &value, 4); return bits; }
static float __int_as_float(int bits) { float value; memcpy(&value, &bits, 4); return value; }
template <class T> T min(T a, T b) { return a < b ? a : b; }
template <class T> T max(T a, T b) { return a > b ? a : b; }
template <class T> T __shfl_xor_sync(unsigned, T value, int) { return value; }
template <class T> void atomicAdd(T *at, T value) { __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
static void atomicMin(int *at, int value)
{ int old = *at; while (value < old && !__atomic_compare_exchange_n(at, &old, value, true, 0, 0)) ; }
static void atomicMax(int *at, int value)
{ int old = *at; while (value > old && !__atomic_compare_exchange_n(at, &old, value, true, 0, 0)) ; }
extern "C" unsigned table[SHARED_ROWS * BINS];
unsigned table[SHARED_ROWS * BINS];
"""
RUNNER = r"""
template <class Work> struct Thread { int x; const Work *work; };
template <class Work> void *entered(void *given)
{ Thread<Work> *own = (Thread<Work> *)given; threadIdx.x = own->x; (*own->work)(); return 0; }
template <class Work> void run_blocks(int blocks, Work work)
{
    gridDim.x = blocks;
    pthread_barrier_init(&barrier, 0, THREADS);
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
        pthread_t threads[THREADS];
        Thread<Work> own[THREADS];
        for (int i = 0; i < THREADS; ++i) {
            own[i] = {i, &work};
            pthread_create(threads + i, 0, entered<Work>, own + i);
        }
        for (int i = 0; i < THREADS; ++i)
            pthread_join(threads[i], 0);
    }
    pthread_barrier_destroy(&barrier);
}
extern "C" void run_count(int blocks, const Tensor *tensors, int amount, State *states, u32 *fresh, int again)
{ run_blocks(blocks, [=] { count(tensors, amount, states, fresh, again); }); }
extern "C" void run_settle(const Tensor *tensors, int amount, State *states, u32 *fresh, i64 *counts, int again)
{ run_blocks(amount, [=] { settle(tensors, states, fresh, counts, again); }); }
extern "C" int sizes(int which) { return which ? sizeof(State) : sizeof(Tensor); }
"""


@functools.cache
def library(shape):
    """The compiled kernels."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "counting.cpp", Path(folder) / "counting.so"
        source.write_text(SHIM + SOURCE.read_text() + RUNNER)
        macros = [f"-D{name}=({value})" for name, value in shape.defines().items()]
        command = [COMPILER, "-std=c++17", "-O2", "-fPIC", "-shared", "-pthread", *macros, source, "-o", target]
        subprocess.run(command, check=True, timeout=300)
        return ctypes.CDLL(str(target))


class HostKernels:
    """In place of `quant.cuda.counting_kernels.CountingKernels`.

    Attributes:
        rounds: How often values were counted.
    """

    def __init__(self, blocks=5, shape=None):
        self.shape = shape or Shape(threads=1, blocks=1)
        self.blocks, self.rounds = blocks, 0
        self.compiled = library(self.shape)

    def count(self, stream, tensors, amount, states, fresh, *, again):
        self.rounds += 1
        pointers = ctypes.c_void_p(tensors), amount, ctypes.c_void_p(states), ctypes.c_void_p(fresh)
        self.compiled.run_count(self.blocks, *pointers, int(again))

    def settle(self, stream, tensors, amount, states, fresh, counts, *, again):
        pointers = [ctypes.c_void_p(pointer) for pointer in (states, fresh, counts)]
        self.compiled.run_settle(ctypes.c_void_p(tensors), amount, *pointers, int(again))
