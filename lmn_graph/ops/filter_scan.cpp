// Filter cells on an acyclic graph over a whole sequence, and the adjoint: see filter_scan.py, whose formulas these loops are.
//
// A row of an array [N, T, B] holds all times and samples of a node. Nodes are visited in topological order, each in as few passes over
// its row as there can be: one for what it hears and its filter, one for tanh.
#include <torch/csrc/inductor/cpp_prefix.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

template <typename scalar>
struct Circuit {
  int64_t N, T, B;
  double time_step;
  const int32_t *order, *rowptr, *col, *rowptr_t, *col_t, *perm_t, *port;
  const scalar *weight, *input_weight, *log_tau, *bias, *start, *x;

  int64_t row() const { return T * B; }
  // time step over time constant; what is larger than the bound has forgotten all the same
  double ratio(int64_t i) const { return std::min(time_step * std::exp(-static_cast<double>(log_tau[i])), 1e4); }
};

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

// out = p x + q y + r z, where a row that is null counts as 0: two edges and a port, or fewer, in one pass
template <typename scalar>
void mix(scalar p, const scalar* x, scalar q, const scalar* y, scalar r, const scalar* z, scalar* out, int64_t n) {
  if (x && y && z) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = p * x[i] + q * y[i] + r * z[i];
  } else if (x && y) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = p * x[i] + q * y[i];
  } else if (x && z) {
    mix<scalar>(p, x, r, z, 0, nullptr, out, n);
  } else if (y && z) {
    mix<scalar>(q, y, r, z, 0, nullptr, out, n);
  } else if (x || y || z) {
    const scalar *only = x ? x : y ? y : z, factor = x ? p : y ? q : r;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = factor * only[i];
  } else {
    std::fill(out, out + n, scalar(0));
  }
}

template <typename scalar>
void add_scaled(const scalar* x, scalar factor, scalar* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

template <typename scalar>
scalar dot(const scalar* x, const scalar* y, int64_t n) {
  scalar sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

// out(t) = a out(t + 1) + g(t), from the last step to the first
template <typename scalar>
void filter_back(const scalar* g, scalar a, scalar* out, int64_t T, int64_t B) {
  std::copy(g + (T - 1) * B, g + T * B, out + (T - 1) * B);
  for (int64_t t = T - 2; t >= 0; --t) {
    const scalar *now = g + t * B, *later = out + (t + 1) * B;
    scalar* here = out + t * B;
#pragma omp simd
    for (int64_t b = 0; b < B; ++b) here[b] = a * later[b] + now[b];
  }
}

template <typename scalar>
void forward(const Circuit<scalar>& of, scalar* s, scalar* y) {
  const int64_t row = of.row(), B = of.B;
  for (int64_t n = 0; n < of.N; ++n) {
    const int64_t i = of.order[n], port = of.port[i];
    const int32_t first = of.rowptr[i], edges = of.rowptr[i + 1] - first;
    scalar* here = s + i * row;
    // what it hears: the sum over its edges, and its input
    mix<scalar>(edges > 0 ? of.weight[first] : 0, edges > 0 ? y + of.col[first] * row : nullptr, edges > 1 ? of.weight[first + 1] : 0,
                edges > 1 ? y + of.col[first + 1] * row : nullptr, port >= 0 ? of.input_weight[port] : 0,
                port >= 0 ? of.x + port * row : nullptr, here, row);
    for (int32_t e = first + 2; e < first + edges; ++e) add_scaled(y + of.col[e] * row, of.weight[e], here, row);
    const double ratio = of.ratio(i);
    const scalar keep = std::exp(-ratio), take = -std::expm1(-ratio);
    const scalar* before = of.start + i * B;
    for (int64_t t = 0; t < of.T; ++t) {
      scalar* now = here + t * B;
#pragma omp simd
      for (int64_t b = 0; b < B; ++b) now[b] = keep * before[b] + take * now[b];
      before = now;
    }
    tanh_of_sum(here, of.bias[i], y + i * row, row);
  }
}

template <typename scalar>
struct Adjoint {
  const Circuit<scalar>& of;
  const scalar *s, *y, *grad_y, *grad_s;  // grad_y has rows for the nodes where `given` says which one
  const int32_t* given;
  scalar *g, *h;
  std::vector<scalar> keep, take;

  // g_i = (1 - y_i^2) (grad_y_i + sum over i -> d of w_di c_d F_d) + grad_s_i, F_d being rows of `from`
  void gather(int64_t i, const scalar* from) {
    const int64_t row = of.row();
    const int32_t first = of.rowptr_t[i], edges = of.rowptr_t[i + 1] - first;
    const auto factor = [&](int32_t e) { return of.weight[of.perm_t[e]] * take[of.col_t[e]]; };
    scalar* here = g + i * row;
    const scalar *out = y + i * row, *given_row = given[i] >= 0 ? grad_y + given[i] * row : nullptr;
    mix<scalar>(edges > 0 ? factor(first) : 0, edges > 0 ? from + of.col_t[first] * row : nullptr, edges > 1 ? factor(first + 1) : 0,
                edges > 1 ? from + of.col_t[first + 1] * row : nullptr, 1, given_row, here, row);
    for (int32_t e = first + 2; e < first + edges; ++e) add_scaled(from + of.col_t[e] * row, factor(e), here, row);
#pragma omp simd
    for (int64_t k = 0; k < row; ++k) here[k] *= 1 - out[k] * out[k];
    if (grad_s != nullptr) add_scaled(grad_s + i * row, scalar(1), here, row);
  }

  void remember(int64_t i) { filter_back(g + i * of.row(), keep[i], h + i * of.row(), of.T, of.B); }

  // k < 0: everything (back-propagation through time). k >= 0: memory of the first k edges of every path, then within the step.
  void sweep(int64_t k) {
    for (int64_t n = of.N - 1; n >= 0; --n) {
      const int64_t i = of.order[n];
      gather(i, k < 0 ? h : g);
      if (k < 0) remember(i);
    }
    for (int64_t hop = 0; hop < k; ++hop) {
      for (int64_t i = 0; i < of.N; ++i) remember(i);
      for (int64_t i = 0; i < of.N; ++i) gather(i, h);
    }
    if (k >= 0)
      for (int64_t i = 0; i < of.N; ++i) remember(i);
  }

  void collect(scalar* d_weight, scalar* d_input_weight, scalar* d_log_tau, scalar* d_bias, scalar* d_start, scalar* d_x) const {
    const int64_t row = of.row(), B = of.B;
    for (int64_t i = 0; i < of.N; ++i) {
      const scalar *here = g + i * row, *held = h + i * row;
      scalar sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < row; ++j) sum += here[j];
      if (grad_s != nullptr)  // a bias moves the output, not the state
        for (int64_t j = 0; j < row; ++j) sum -= grad_s[i * row + j];
      d_bias[i] = sum;
      // ds(t)/d log tau = a ds(t - 1)/d log tau + a step / tau (s(t - 1) - what it hears at t)
      scalar along = dot(held, of.start + i * B, B) + (of.T > 1 ? dot(held + B, s + i * row, row - B) : scalar(0));
      for (int32_t e = of.rowptr[i]; e < of.rowptr[i + 1]; ++e) {
        const scalar with = dot(held, y + of.col[e] * row, row);
        d_weight[e] = take[i] * with;
        along -= of.weight[e] * with;
      }
      if (of.port[i] >= 0) {
        const int64_t port = of.port[i];
        const scalar with = dot(held, of.x + port * row, row);
        d_input_weight[port] = take[i] * with;
        along -= of.input_weight[port] * with;
        if (d_x != nullptr) mix<scalar>(of.input_weight[port] * take[i], held, 0, nullptr, 0, nullptr, d_x + port * row, row);
      }
      d_log_tau[i] = static_cast<scalar>(std::exp(-of.ratio(i)) * of.ratio(i)) * along;
      if (d_start != nullptr)
        for (int64_t b = 0; b < B; ++b) d_start[i * B + b] = keep[i] * held[b];
    }
  }
};

template <typename scalar>
void backward(int64_t k, const Circuit<scalar>& of, const scalar* s, const scalar* y, const scalar* grad_y, const int32_t* given,
              const scalar* grad_s, scalar* g, scalar* h, scalar* d_weight, scalar* d_input_weight, scalar* d_log_tau, scalar* d_bias,
              scalar* d_start, scalar* d_x) {
  Adjoint<scalar> adjoint{of, s, y, grad_y, grad_s, given, g, h, std::vector<scalar>(of.N), std::vector<scalar>(of.N)};
  for (int64_t i = 0; i < of.N; ++i) {
    adjoint.keep[i] = std::exp(-of.ratio(i));
    adjoint.take[i] = -std::expm1(-of.ratio(i));
  }
  adjoint.sweep(k);
  adjoint.collect(d_weight, d_input_weight, d_log_tau, d_bias, d_start, d_x);
}

// Messages: what arrives at a node is its row of `grad_y` and, from the nodes that hear it, w c (1 - y^2) times what those send. A node
// sends what it reads: with noise z times `level` [T, B], then a gain that depends on the sign.
template <typename scalar>
void messages(const Circuit<scalar>& of, const scalar* y, const scalar* grad_y, const scalar* z, const scalar* level, double positive,
              double negative, scalar* arrived, scalar* sent) {
  const int64_t row = of.row();
  const scalar up = positive, down = negative;
  std::vector<scalar> going(row);
  std::copy(grad_y, grad_y + of.N * row, arrived);
  for (int64_t n = of.N - 1; n >= 0; --n) {
    const int64_t i = of.order[n];
    const scalar *here = arrived + i * row, *out = y + i * row, *noise = z ? z + i * row : nullptr;
    scalar* send = sent + i * row;
    for (int64_t k = 0; k < row; ++k) {
      const scalar read = noise ? here[k] + level[k] * noise[k] : here[k];
      send[k] = read > 0 ? up * read : down * read;
    }
#pragma omp simd
    for (int64_t k = 0; k < row; ++k) going[k] = (1 - out[k] * out[k]) * send[k];
    const scalar take = -std::expm1(-of.ratio(i));
    for (int32_t e = of.rowptr[i]; e < of.rowptr[i + 1]; ++e) add_scaled(going.data(), of.weight[e] * take, arrived + of.col[e] * row, row);
  }
}

}  // namespace

// One name for each precision
#define CIRCUIT_ARGUMENTS(scalar)                                                                                                         \
  int64_t N, int64_t T, int64_t B, double time_step, const int32_t *order, const int32_t *rowptr, const int32_t *col,                     \
      const int32_t *rowptr_t, const int32_t *col_t, const int32_t *perm_t, const int32_t *port, const scalar *weight,                    \
      const scalar *input_weight, const scalar *log_tau, const scalar *bias, const scalar *start, const scalar *x
#define CIRCUIT(scalar)                                                                                                                   \
  Circuit<scalar> { N, T, B, time_step, order, rowptr, col, rowptr_t, col_t, perm_t, port, weight, input_weight, log_tau, bias, start, x }
#define EXPORT(scalar)                                                                                                                    \
  extern "C" void forward_##scalar(CIRCUIT_ARGUMENTS(scalar), scalar* s, scalar* y) { forward<scalar>(CIRCUIT(scalar), s, y); }           \
  extern "C" void backward_##scalar(CIRCUIT_ARGUMENTS(scalar), int64_t k, const scalar* s, const scalar* y, const scalar* grad_y,         \
                                    const int32_t* given, const scalar* grad_s, scalar* g, scalar* h, scalar* d_weight,                   \
                                    scalar* d_input_weight, scalar* d_log_tau, scalar* d_bias, scalar* d_start, scalar* d_x) {            \
    backward<scalar>(k, CIRCUIT(scalar), s, y, grad_y, given, grad_s, g, h, d_weight, d_input_weight, d_log_tau, d_bias, d_start, d_x);   \
  }                                                                                                                                       \
  extern "C" void messages_##scalar(CIRCUIT_ARGUMENTS(scalar), const scalar* y, const scalar* grad_y, const scalar* z,                    \
                                    const scalar* level, double positive, double negative, scalar* arrived, scalar* sent) {               \
    messages<scalar>(CIRCUIT(scalar), y, grad_y, z, level, positive, negative, arrived, sent);                                            \
  }

EXPORT(float)
EXPORT(double)
