// OpenBLAS's products under the names that MLX asks for, and one of our own for few rows, which is what decoding
// multiplies with: OpenBLAS packs all the weights for a product of any size, so that they go through memory three times.
//
// Compiled by `blas.py` when it is first needed. Complex products and linear algebra stay with MLX's own library: no
// language model uses them.
#include <string.h>

#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < n; i++)
// Beyond about 48 rows with AVX-512, and 32 with AVX2, packing pays. OpenBLAS packs with all its threads, ours has one:
// with two it is the quicker for 2 to 16 rows, with more nobody has measured.
#define MOST_ROWS 32
#define MOST_THREADS 2

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

// The products of some inputs with 4 rows of weights, each summed in one register of `lanes` floats. On the way it
// fetches `count` rows of the weights to come.
#define TILE(name, lanes, rows)                                                                                       \
  static void name(int k, const float* const* x, const float* const* w, const float* next, long ldb, int count,       \
                   float (*out)[4]) {                                                                                  \
    typedef float vector __attribute__((vector_size(4 * lanes), aligned(4), may_alias));                               \
    vector sum[rows][4] = {0}, a[rows], b[4];                                                                          \
    int p = 0;                                                                                                         \
    for (; p <= k - lanes; p += lanes) {                                                                               \
      EACH(i, rows) a[i] = *(const vector*)(x[i] + p);                                                                 \
      EACH(j, 4) b[j] = *(const vector*)(w[j] + p);                                                                    \
      for (int r = 0; r < count; r++) __builtin_prefetch(next + r * ldb + p, 0, 2);                                    \
      EACH(i, rows) EACH(j, 4) sum[i][j] += a[i] * b[j];                                                               \
    }                                                                                                                  \
    if (p < k) {                                                                                                       \
      memset(a, 0, sizeof a), memset(b, 0, sizeof b);                                                                  \
      EACH(i, rows) memcpy(&a[i], x[i] + p, 4 * (k - p));                                                              \
      EACH(j, 4) memcpy(&b[j], w[j] + p, 4 * (k - p));                                                                 \
      EACH(i, rows) EACH(j, 4) sum[i][j] += a[i] * b[j];                                                               \
    }                                                                                                                  \
    EACH(i, rows) EACH(j, 4) {                                                                                         \
      four part = {0};                                                                                                 \
      EACH(q, lanes / 4) part += ((const four*)&sum[i][j])[q];                                                         \
      out[i][j] = (part[0] + part[1]) + (part[2] + part[3]);                                                           \
    }                                                                                                                  \
  }
#ifdef __x86_64__
__attribute__((target("avx512f"))) TILE(tile512, 16, 4)
__attribute__((target("avx2,fma"))) TILE(tile256, 8, 2)
#endif
TILE(tile128, 4, 4)

// C[m,n] = alpha X[m,k] W[n,k]^T + beta C, all row-major: the weights are read once, where they lie. At the edges the
// tile is as large as elsewhere and repeats the last row, so that a row's result depends neither on how many rows there
// are nor on its place among them.
static void few_rows(int m, int n, int k, float alpha, const float* x, int lda, const float* w, int ldb, float beta,
                     float* c, int ldc) {
  void (*tile)(int, const float* const*, const float* const*, const float*, long, int, float (*)[4]) = tile128;
  int rows = 4;
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f"))
    tile = tile512;
  else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    tile = tile256, rows = 2;
#endif
  int count = m <= rows ? 4 : m <= 3 * rows ? 2 : 1;
  for (long j = 0; j < n; j += 4) {
    const float *xs[4], *ws[4], *next = w + (j + 4) * ldb;
    float out[4][4];
    for (int s = 0; s < 4; s++) ws[s] = w + (j + s < n ? j + s : n - 1) * ldb;
    for (long i = 0; i < m; i += rows, next += (long)count * ldb) {
      for (int r = 0; r < rows; r++) xs[r] = x + (i + r < m ? i + r : m - 1) * lda;
      tile(k, xs, ws, next, ldb, count, out);
      for (int r = 0; r < rows && i + r < m; r++)
        for (int s = 0; s < 4 && j + s < n; s++) {
          float* to = c + (i + r) * ldc + j + s;
          *to = alpha * out[r][s] + (beta ? beta * *to : 0);
        }
    }
  }
}

enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };
int scipy_openblas_get_num_threads(void);
#define OPENBLAS(type, letter)                                                                                         \
  void scipy_cblas_##letter##gemm(int, int, int, int, int, int, type, const type*, int, const type*, int, type, type*, \
                                  int);                                                                                \
  void scipy_cblas_##letter##gemv(int, int, int, int, type, const type*, int, const type*, int, type, type*, int);
OPENBLAS(float, s)
OPENBLAS(double, d)

void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float* a, int lda, const float* b,
                 int ldb, float beta, float* c, int ldc) {
  int weights = order == ROW_MAJOR && ta == AS_IT_IS && tb == TRANSPOSED;
  int threads = scipy_openblas_get_num_threads();
  if (weights && threads <= MOST_THREADS && m >= threads && m <= MOST_ROWS / threads)
    few_rows(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  else if (weights && m == 1)
    scipy_cblas_sgemv(ROW_MAJOR, AS_IT_IS, n, k, alpha, b, ldb, a, 1, beta, c, 1);
  else
    scipy_cblas_sgemm(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void cblas_dgemm(int order, int ta, int tb, int m, int n, int k, double alpha, const double* a, int lda,
                 const double* b, int ldb, double beta, double* c, int ldc) {
  scipy_cblas_dgemm(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
