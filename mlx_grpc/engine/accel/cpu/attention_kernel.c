// Attention on a CPU, in float32: softmax(scale Q K^T) V with the keys that each query may see, without the scores ever
// being in memory as a whole. Keys come in blocks, and a running maximum and sum per query put their parts together:
// Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022.
//
// What a query gets depends on itself and on the keys and values it sees, in their order, and on nothing else: blocks
// of keys begin at its row's first key, each sum is made in one order, and what a query does not see adds exact zeros.
// So neither other rows, nor padding, nor threads, nor how queries are put into tiles change a bit of it.
//
// Compiled by `compiled.py` when it is first needed.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define EACH(i, n) _Pragma("GCC unroll 16") for (long i = 0; i < n; i++)
#define LOG2_E 1.44269504088896341f
// Keys of a block, and rows of queries that share it: one block's scores and outputs stay in the second cache.
#define KEYS 64
#define TILE_ROWS 6
#define MOST_ROWS 192
// Multiplications for each thread: with fewer it costs more than it gives.
#define LEAST_WORK 4e6
#define MOST_THREADS 64

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

// Where element [row][head][token] begins, and how many floats lie between neighbours; the last axis is dense.
typedef struct {
  float* at;
  long row, head, token;
} Array;

typedef struct {
  Array queries, keys, values, out;
  const long* starts;  // [rows]: the first key that is seen
  long rows, heads, kv_heads, length, context, size, causal, block;
  float scale;
  long next;  // the next piece of work
} Task;

// What a thread works with: queries, outputs [rows][size]; scores [rows][KEYS]; keys, transposed [size][KEYS].
typedef struct {
  float *queries, *out, *scores, *keys, *most, *sum;
} Room;

// 2^x for x <= 0, to 2e-7 of it, and 0 below 2^-126. x = n + r with n whole and |r| <= 1/2: 2^r is a polynomial (least
// squares at Chebyshev nodes), and n is added to the exponent. Adding 1.5 * 2^23 leaves n in the lowest bits.
#define EXP2(name, vector, whole, target)                                                                              \
  target static inline vector name(vector x) {                                                                         \
    vector shifted = x + 12582912.0f, r = x - (shifted - 12582912.0f);                                                 \
    vector y = r * 1.546973197e-4f + 1.340043217e-3f;                                                                  \
    y = y * r + 9.618025603e-3f, y = y * r + 5.550327214e-2f, y = y * r + 2.402265121e-1f;                             \
    y = y * r + 6.931472067e-1f;                                                                                       \
    y = y * r + 1.0f;                                                                                                  \
    whole bits = (whole)y + ((whole)shifted << 23);                                                                    \
    return (vector)(bits & ~(whole)(x < -126.0f));                                                                     \
  }

// c[TILE_ROWS][columns] = a[TILE_ROWS][k] b[k][columns], added to what is there if `add`; columns = lanes * vectors.
#define TILE(name, vector, lanes, vectors, target)                                                                     \
  target static inline void name(long k, const float* a, long lda, const float* b, long ldb, float* c, long ldc,       \
                                 int add) {                                                                            \
    vector sum[TILE_ROWS][vectors] = {0}, right[vectors];                                                              \
    if (add) EACH(i, TILE_ROWS) EACH(j, vectors) sum[i][j] = *(const vector*)(c + i * ldc + j * lanes);                \
    for (long p = 0; p < k; p++) {                                                                                     \
      EACH(j, vectors) right[j] = *(const vector*)(b + p * ldb + j * lanes);                                           \
      EACH(i, TILE_ROWS) EACH(j, vectors) sum[i][j] += a[i * lda + p] * right[j];                                      \
    }                                                                                                                  \
    EACH(i, TILE_ROWS) EACH(j, vectors) *(vector*)(c + i * ldc + j * lanes) = sum[i][j];                               \
  }

// The same for any number of rows and columns; rows are rounded up to whole tiles, which `Room` has space for.
#define MULTIPLY(name, wide, narrow, lanes, vectors, target)                                                           \
  target static void name(long rows, long columns, long k, const float* a, long lda, const float* b, long ldb,         \
                          float* c, long ldc, int add) {                                                               \
    for (long j = 0, step; j < columns; j += step) {                                                                   \
      step = j + lanes * vectors <= columns ? lanes * vectors : lanes;                                                 \
      for (long i = 0; i < rows; i += TILE_ROWS)                                                                       \
        (step == lanes ? narrow : wide)(k, a + i * lda, lda, b + j, ldb, c + i * ldc + j, ldc, add);                   \
    }                                                                                                                  \
  }

// One query's scores of a block, of which it sees the first `seen`, become weights; what it has so far is made to fit.
#define SOFTEN(name, exp2, vector, whole, lanes, target)                                                               \
  target static void name(float* scores, long seen, float* most, float* sum, float* out, long size) {                  \
    for (long j = seen; j < KEYS; j++) scores[j] = -__builtin_inff();                                                  \
    vector largest = *(vector*)scores, total = {0};                                                                    \
    EACH(j, KEYS / lanes) {                                                                                            \
      vector x = ((vector*)scores)[j];                                                                                 \
      whole larger = x > largest;                                                                                      \
      largest = (vector)(((whole)x & larger) | ((whole)largest & ~larger));                                            \
    }                                                                                                                  \
    float now = *most;                                                                                                 \
    EACH(i, lanes) now = largest[i] > now ? largest[i] : now;                                                          \
    EACH(j, KEYS / lanes) total += ((vector*)scores)[j] = exp2(((vector*)scores)[j] - now);                            \
    four part = {0};                                                                                                   \
    EACH(q, lanes / 4) part += ((four*)&total)[q];                                                                     \
    vector fit = exp2((vector){0} + (*most - now));                                                                    \
    *sum = *sum * fit[0] + ((part[0] + part[1]) + (part[2] + part[3]));                                                \
    if (now != *most)                                                                                                  \
      for (long d = 0; d < size; d += lanes) *(vector*)(out + d) *= fit;                                               \
    *most = now;                                                                                                       \
  }

#define KERNELS(lanes, vectors, target)                                                                                \
  typedef float vector##lanes __attribute__((vector_size(4 * lanes), aligned(4), may_alias));                          \
  typedef int whole##lanes __attribute__((vector_size(4 * lanes), aligned(4), may_alias));                             \
  EXP2(exp2_##lanes, vector##lanes, whole##lanes, target)                                                              \
  TILE(wide##lanes, vector##lanes, lanes, vectors, target)                                                             \
  TILE(narrow##lanes, vector##lanes, lanes, 1, target)                                                                 \
  MULTIPLY(multiply##lanes, wide##lanes, narrow##lanes, lanes, vectors, target)                                        \
  SOFTEN(soften##lanes, exp2_##lanes, vector##lanes, whole##lanes, lanes, target)
#if defined __x86_64__ && !defined PORTABLE
KERNELS(16, 4, __attribute__((target("avx512f"))))
KERNELS(8, 2, __attribute__((target("avx2,fma"))))
#endif
KERNELS(4, 2, )

typedef struct {
  void (*multiply)(long, long, long, const float*, long, const float*, long, float*, long, int);
  void (*soften)(float*, long, float*, float*, float*, long);
} Kernels;

static Kernels kernels_for(long size) {
#if defined __x86_64__ && !defined PORTABLE
  if (size % 16 == 0 && __builtin_cpu_supports("avx512f")) return (Kernels){multiply16, soften16};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return (Kernels){multiply8, soften8};
#endif
  (void)size;
  return (Kernels){multiply4, soften4};
}

// to[size][KEYS]: the first `count` keys, and the last of them again where there are no more.
static void transpose(const float* keys, long stride, long count, long size, float* to) {
  for (long j = 0; j < KEYS; j += 4) {
    const float* from[4];
    EACH(i, 4) from[i] = keys + (j + i < count ? j + i : count - 1) * stride;
    for (long d = 0; d < size; d += 4) {
      four in[4];
      EACH(i, 4) in[i] = *(const four*)(from[i] + d);
      EACH(i, 4) *(four*)(to + (d + i) * KEYS + j) = (four){in[0][i], in[1][i], in[2][i], in[3][i]};
    }
  }
}

static long least(long a, long b) { return a < b ? a : b; }

// The queries `first` to `first + count` of one row, for the heads that share the keys of `kv_head`. Rows of a room are
// ordered by query, then by head.
static void attend(const Task* t, Kernels run, Room room, long row, long kv_head, long first, long count) {
  long group = t->heads / t->kv_heads, rows = count * group, size = t->size, start = t->starts[row];
  for (long r = 0; r < rows; r++) {
    const Array* q = &t->queries;
    const float* from = q->at + row * q->row + (kv_head * group + r % group) * q->head + (first + r / group) * q->token;
    for (long d = 0; d < size; d++) room.queries[r * size + d] = from[d] * (t->scale * LOG2_E);
    room.most[r] = -__builtin_inff(), room.sum[r] = 0;
  }
  memset(room.out, 0, sizeof(float) * rows * size);
  const float* keys = t->keys.at + row * t->keys.row + kv_head * t->keys.head;
  const float* values = t->values.at + row * t->values.row + kv_head * t->values.head;
  // A query sees the keys up to `end`, the next one to one more.
  long end = t->causal ? t->context - t->length + first + 1 : t->context, step = t->causal ? 1 : 0;
  long last = end + step * (count - 1);
  for (long key = start; key < last; key += KEYS) {
    long here = least(KEYS, last - key);
    transpose(keys + key * t->keys.token, t->keys.token, here, size, room.keys);
    run.multiply(rows, KEYS, size, room.queries, size, room.keys, KEYS, room.scores, KEYS, 0);
    for (long r = 0; r < rows; r++) {
      long seen = least(here, end + step * (r / group) - key);
      float* scores = room.scores + r * KEYS;
      if (seen <= 0)
        memset(scores, 0, sizeof(float) * KEYS);
      else
        run.soften(scores, seen, room.most + r, room.sum + r, room.out + r * size, size);
    }
    const float* from = values + key * t->values.token;
    run.multiply(rows, size, here, room.scores, KEYS, from, t->values.token, room.out, size, 1);
  }
  for (long r = 0; r < rows; r++) {
    const Array* o = &t->out;
    float* to = o->at + row * o->row + (kv_head * group + r % group) * o->head + (first + r / group) * o->token;
    float share = room.sum[r] ? 1 / room.sum[r] : 0;  // 0: it sees no key
    for (long d = 0; d < size; d++) to[d] = room.out[r * size + d] * share;
  }
}

static void* work(void* task) {
  Task* t = task;
  Kernels run = kernels_for(t->size);
  long blocks = (t->length + t->block - 1) / t->block, pieces = t->rows * t->kv_heads * blocks;
  long rows = (t->block * (t->heads / t->kv_heads) + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
  size_t floats = rows * (2 * t->size + KEYS + 2) + KEYS * t->size;
  float* memory = aligned_alloc(64, sizeof(float) * ((floats + 15) / 16 * 16));
  if (!memory) return NULL;
  Room room = {.queries = memory};
  room.out = room.queries + rows * t->size;
  room.scores = room.out + rows * t->size;
  room.keys = room.scores + rows * KEYS;
  room.most = room.keys + KEYS * t->size;
  room.sum = room.most + rows;
  memset(memory, 0, sizeof(float) * rows * t->size * 2);  // the last tile's spare rows
  for (long piece; (piece = __atomic_fetch_add(&t->next, 1, __ATOMIC_RELAXED)) < pieces;) {
    // The last queries first: they have the most keys to see.
    long first = (blocks - 1 - piece / (t->rows * t->kv_heads)) * t->block, place = piece % (t->rows * t->kv_heads);
    attend(t, run, room, place / t->kv_heads, place % t->kv_heads, first, least(t->block, t->length - first));
  }
  free(memory);
  return NULL;
}

// arrays: queries and out [rows, heads, length, size], keys and values [rows, kv_heads, context, size]. With `causal`
// query i sees the keys to context - length + i. size: a multiple of 8. Returns 0, or 1 when there was no memory.
int attention(const Array arrays[4], const long* starts, long rows, long heads, long kv_heads, long length,
              long context, long size, long causal, float scale, long threads) {
  long group = heads / kv_heads, most = MOST_ROWS / group;
  Task task = {arrays[0], arrays[1], arrays[2], arrays[3], starts, rows,  heads, kv_heads,
               length,    context,   size,      causal,    1,      scale, 0};
  double worth = 2.0 * rows * heads * length * context * size / LEAST_WORK;
  threads = least(threads, worth < MOST_THREADS ? (long)worth : MOST_THREADS);
  if (threads < 1) threads = 1;
  task.block = least(most < 1 ? 1 : most, length);
  while (task.block * group > 48 && rows * kv_heads * ((length + task.block - 1) / task.block) < 4 * threads)
    task.block = (task.block + 1) / 2;
  pthread_t others[MOST_THREADS];
  long started = 0;
  while (started < threads - 1 && !pthread_create(&others[started], NULL, work, &task)) started++;
  work(&task);
  for (long i = 0; i < started; i++) pthread_join(others[i], NULL);
  return task.next == 0;  // whoever had memory did all there was to do
}
