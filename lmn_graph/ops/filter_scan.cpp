// Filter cells on an acyclic graph over a whole sequence, and the adjoint: see filter_scan.py, whose formulas these loops are.
//
// Nodes come in topological order. A row of an array [N, T, B] holds all times and samples of a node: sums over neighbours and tanh
// run over it as a whole, only the filter goes step by step.
#include <torch/csrc/inductor/cpp_prefix.h>

#include <cstdint>
#include <vector>

namespace {

template <typename scalar>
void tanh_of_sum(const scalar* s, scalar shift, scalar* y, int64_t n) {
  int64_t i = 0;
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2) || defined(CPU_CAPABILITY_NEON)
  using Vector = at::vec::Vectorized<scalar>;
  const Vector shifts(shift);
  for (; i + static_cast<int64_t>(Vector::size()) <= n; i += Vector::size()) (Vector::loadu(s + i) + shifts).tanh().store(y + i);
#endif
  for (; i < n; ++i) y[i] = std::tanh(s[i] + shift);
}

template <typename scalar>
void add_scaled(const scalar* __restrict__ x, scalar factor, scalar* __restrict__ y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

template <typename scalar>
scalar dot(const scalar* __restrict__ x, const scalar* __restrict__ y, int64_t n) {
  scalar sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

// out(t) = a out(t + 1) + g(t), from the last step to the first
template <typename scalar>
void filter_back(const scalar* __restrict__ g, scalar a, scalar* out, int64_t T, int64_t B) {
  std::copy(g + (T - 1) * B, g + T * B, out + (T - 1) * B);
  for (int64_t t = T - 2; t >= 0; --t) {
    const scalar *now = g + t * B, *later = out + (t + 1) * B;
    scalar* row = out + t * B;
#pragma omp simd
    for (int64_t b = 0; b < B; ++b) row[b] = a * later[b] + now[b];
  }
}

// What a node hears: sum of w_ij y_j over its edges, and its input
template <typename scalar>
void hear(int64_t i, const int32_t* rowptr, const int32_t* col, const scalar* weight, const int32_t* port, const scalar* input_weight,
          const scalar* x, const scalar* y, scalar* out, int64_t row) {
  std::fill(out, out + row, scalar(0));
  for (int32_t e = rowptr[i]; e < rowptr[i + 1]; ++e) add_scaled(y + col[e] * row, weight[e], out, row);
  if (port[i] >= 0) add_scaled(x + port[i] * row, input_weight[port[i]], out, row);
}

template <typename scalar>
void forward(int64_t N, int64_t T, int64_t B, const int32_t* order, const int32_t* rowptr, const int32_t* col, const scalar* weight,
             const int32_t* port, const scalar* input_weight, const scalar* a, const scalar* c, const scalar* bias, const scalar* start,
             const scalar* x, scalar* s, scalar* y) {
  const int64_t row = T * B;
  std::vector<scalar> heard(row);
  for (int64_t n = 0; n < N; ++n) {
    const int64_t i = order[n];
    hear(i, rowptr, col, weight, port, input_weight, x, y, heard.data(), row);
    scalar* here = s + i * row;
    const scalar* before = start + i * B;
    const scalar keep = a[i], take = c[i];
    for (int64_t t = 0; t < T; ++t) {
      const scalar* now = heard.data() + t * B;
      scalar* after = here + t * B;
#pragma omp simd
      for (int64_t b = 0; b < B; ++b) after[b] = keep * before[b] + take * now[b];
      before = after;
    }
    tanh_of_sum(here, bias[i], y + i * row, row);
  }
}

// g_i = (1 - y_i^2) (grad_i + sum over i -> d of w_di c_d F_d) + grad_s_i, F_d being rows of `from`
template <typename scalar>
void gather(int64_t i, const int32_t* rowptr_t, const int32_t* col_t, const int32_t* perm_t, const scalar* weight, const scalar* c,
            const scalar* grad, const scalar* grad_s, const scalar* y, const scalar* from, scalar* g, int64_t row) {
  std::copy(grad + i * row, grad + (i + 1) * row, g + i * row);
  for (int32_t e = rowptr_t[i]; e < rowptr_t[i + 1]; ++e)
    add_scaled(from + col_t[e] * row, weight[perm_t[e]] * c[col_t[e]], g + i * row, row);
  scalar* here = g + i * row;
  const scalar* out = y + i * row;
#pragma omp simd
  for (int64_t k = 0; k < row; ++k) here[k] *= 1 - out[k] * out[k];
  if (grad_s != nullptr) add_scaled(grad_s + i * row, scalar(1), here, row);
}

// k < 0: everything (back-propagation through time). k >= 0: memory of the first k edges of every path, then within the step.
template <typename scalar>
void backward(int64_t k, int64_t N, int64_t T, int64_t B, scalar step, const int32_t* order, const int32_t* rowptr, const int32_t* col,
              const int32_t* rowptr_t, const int32_t* col_t, const int32_t* perm_t, const scalar* weight, const int32_t* port,
              const scalar* input_weight, const scalar* a, const scalar* c, const scalar* tau, const scalar* start, const scalar* x,
              const scalar* s, const scalar* y, const scalar* grad, const scalar* grad_s, scalar* g, scalar* h, scalar* d_weight,
              scalar* d_input_weight, scalar* d_bias, scalar* d_log_tau, scalar* d_start, scalar* d_x) {
  const int64_t row = T * B;
  for (int64_t n = N - 1; n >= 0; --n) {
    const int64_t i = order[n];
    gather(i, rowptr_t, col_t, perm_t, weight, c, grad, grad_s, y, k < 0 ? h : g, g, row);
    if (k < 0) filter_back(g + i * row, a[i], h + i * row, T, B);
  }
  for (int64_t hop = 0; hop < k; ++hop) {
    for (int64_t i = 0; i < N; ++i) filter_back(g + i * row, a[i], h + i * row, T, B);
    for (int64_t i = 0; i < N; ++i) gather(i, rowptr_t, col_t, perm_t, weight, c, grad, grad_s, y, h, g, row);
  }
  std::vector<scalar> heard(row);
  for (int64_t i = 0; i < N; ++i) {
    const scalar *here = g + i * row, *state = s + i * row;
    scalar* held = h + i * row;
    scalar sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < row; ++j) sum += here[j];
    if (grad_s != nullptr)  // a bias moves the output, not the state
      for (int64_t j = 0; j < row; ++j) sum -= grad_s[i * row + j];
    d_bias[i] = sum;
    if (k >= 0) filter_back(here, a[i], held, T, B);
    hear(i, rowptr, col, weight, port, input_weight, x, y, heard.data(), row);
    for (int32_t e = rowptr[i]; e < rowptr[i + 1]; ++e) d_weight[e] = c[i] * dot(held, y + col[e] * row, row);
    // ds(t)/d log tau = a ds(t - 1)/d log tau + a step / tau (s(t - 1) - heard(t))
    scalar along = dot(held, start + i * B, B) + (T > 1 ? dot(held + B, state, row - B) : scalar(0)) - dot(held, heard.data(), row);
    d_log_tau[i] = a[i] * step / tau[i] * along;
    for (int64_t b = 0; b < B; ++b) d_start[i * B + b] = a[i] * held[b];
    if (port[i] >= 0) {
      d_input_weight[port[i]] = c[i] * dot(held, x + port[i] * row, row);
      scalar* into = d_x + port[i] * row;
      for (int64_t j = 0; j < row; ++j) into[j] = input_weight[port[i]] * c[i] * held[j];
    }
  }
}

}  // namespace

// One name for each precision
#define EXPORT(scalar)                                                                                                                   \
  extern "C" void forward_##scalar(int64_t N, int64_t T, int64_t B, const int32_t* order, const int32_t* rowptr, const int32_t* col,     \
                                   const scalar* weight, const int32_t* port, const scalar* input_weight, const scalar* a,              \
                                   const scalar* c, const scalar* bias, const scalar* start, const scalar* x, scalar* s, scalar* y) {   \
    forward<scalar>(N, T, B, order, rowptr, col, weight, port, input_weight, a, c, bias, start, x, s, y);                                \
  }                                                                                                                                      \
  extern "C" void backward_##scalar(                                                                                                     \
      int64_t k, int64_t N, int64_t T, int64_t B, double step, const int32_t* order, const int32_t* rowptr, const int32_t* col,          \
      const int32_t* rowptr_t, const int32_t* col_t, const int32_t* perm_t, const scalar* weight, const int32_t* port,                  \
      const scalar* input_weight, const scalar* a, const scalar* c, const scalar* tau, const scalar* start, const scalar* x,            \
      const scalar* s, const scalar* y, const scalar* grad, const scalar* grad_s, scalar* g, scalar* h, scalar* d_weight,               \
      scalar* d_input_weight, scalar* d_bias, scalar* d_log_tau, scalar* d_start, scalar* d_x) {                                        \
    backward<scalar>(k, N, T, B, static_cast<scalar>(step), order, rowptr, col, rowptr_t, col_t, perm_t, weight, port, input_weight, a, \
                     c, tau, start, x, s, y, grad, grad_s, g, h, d_weight, d_input_weight, d_bias, d_log_tau, d_start, d_x);            \
  }

EXPORT(float)
EXPORT(double)
